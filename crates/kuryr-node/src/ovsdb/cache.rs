//! What the database holds, as far as it matters here, kept up to date by the server's notifications.

use super::value::{read_map, read_set, read_uuid};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use uuid::Uuid;

/// The database that is spoken to.
pub const DATABASE: &str = "Open_vSwitch";

/// The bridge that `ovn-controller` takes if it is told no other.
const OVN_BRIDGE: &str = "br-int";

/// A row of table `Interface`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Name of the network interface.
    pub name: String,
    /// The OpenFlow number that it got; -1 if it could not be opened, none if not yet.
    pub ofport: Option<i64>,
    /// Why it could not be opened.
    pub error: Option<String>,
    /// Marks of Neutron, OVN and ours.
    pub external_ids: BTreeMap<String, String>,
}

/// A row of table `Port`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Its interfaces.
    pub interfaces: Vec<Uuid>,
    /// The VLAN that it is an access port of. Neutron's Open vSwitch agent gives every network one of its own on each node.
    pub tag: Option<i64>,
}

/// A row of table `Bridge`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bridge {
    /// Its name.
    pub name: String,
    /// Its ports.
    pub ports: Vec<Uuid>,
    /// `netdev` if it forwards in userspace; empty or `system` if in the kernel.
    pub datapath_type: String,
}

/// The tables as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cache {
    /// Whether they are: false until the first dump has come, and while the database is away.
    pub current: bool,
    /// Why the last attempt to connect failed.
    pub trouble: Option<std::io::ErrorKind>,
    /// Table `Interface`.
    pub interfaces: HashMap<Uuid, Interface>,
    /// Table `Port`.
    pub ports: HashMap<Uuid, Port>,
    /// Table `Bridge`.
    pub bridges: HashMap<Uuid, Bridge>,
    /// `external_ids` of the one row of table `Open_vSwitch`: `hostname`, `ovn-remote` and such.
    pub external_ids: BTreeMap<String, String>,
}

impl Cache {
    /// The bridge of that name.
    #[must_use]
    pub fn bridge(&self, name: &str) -> Option<&Bridge> {
        self.bridges.values().find(|bridge| bridge.name == name)
    }

    /// The interface of that name.
    #[must_use]
    pub fn interface(&self, name: &str) -> Option<&Interface> {
        self.interfaces.values().find(|interface| interface.name == name)
    }

    /// The bridge that has a port of that name.
    #[must_use]
    pub fn bridge_of(&self, port: &str) -> Option<&Bridge> {
        let (id, _) = self.ports.iter().find(|(_, found)| found.name == port)?;
        self.bridges.values().find(|bridge| bridge.ports.contains(id))
    }

    /// Whether OVN's controller forwards on the bridge of that name. `external_ids` tells it its database and its bridge; of
    /// several controllers each has its own keys, with `-` and its chassis' name behind (ovn-controller(8)).
    #[must_use]
    pub fn is_ovns(&self, bridge: &str) -> bool {
        let is_remote = |key: &str| {
            key.strip_prefix("ovn-remote").is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
                && key != "ovn-remote-probe-interval"
        };
        let named = |(key, value): (&String, &String)| key.starts_with("ovn-bridge") && value == bridge;
        self.external_ids.keys().any(|key| is_remote(key))
            && (self.external_ids.iter().any(named)
                || (bridge == OVN_BRIDGE && !self.external_ids.contains_key("ovn-bridge")))
    }

    /// What to ask the server for: the tables and columns above.
    #[must_use]
    pub fn monitor(name: &str) -> Value {
        let columns = |columns: &[&str]| json!({ "columns": columns });
        json!([DATABASE, name, {
            "Interface": columns(&["name", "ofport", "error", "external_ids"]),
            "Port": columns(&["name", "interfaces", "tag"]),
            "Bridge": columns(&["name", "ports", "datapath_type"]),
            "Open_vSwitch": columns(&["external_ids"]),
        }])
    }

    /// Applies the initial dump or an "update": per table and row what it was and what it is.
    ///
    /// # Errors
    /// What was not understood. The cache is then of no use.
    pub fn apply(&mut self, updates: &Value) -> Result<(), String> {
        for (table, rows) in updates.as_object().ok_or("updates are no object")? {
            for (id, change) in rows.as_object().ok_or("a table's updates are no object")? {
                let id: Uuid = id.parse().map_err(|_| format!("{id} is no UUID"))?;
                let row = change.get("new");
                match table.as_str() {
                    "Interface" => set(&mut self.interfaces, id, row, interface)?,
                    "Port" => set(&mut self.ports, id, row, port)?,
                    "Bridge" => set(&mut self.bridges, id, row, bridge)?,
                    "Open_vSwitch" => self.external_ids = row.and_then(marks).unwrap_or_default(),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

fn set<T>(
    rows: &mut HashMap<Uuid, T>,
    id: Uuid,
    row: Option<&Value>,
    read: impl FnOnce(&Value) -> Option<T>,
) -> Result<(), String> {
    match row {
        Some(row) => {
            rows.insert(id, read(row).ok_or_else(|| format!("cannot read row {row}"))?);
        }
        None => {
            rows.remove(&id);
        }
    }
    Ok(())
}

fn interface(row: &Value) -> Option<Interface> {
    let one = |column: &str| Some(read_set(row.get(column)?).first().map(|value| (*value).clone()));
    Some(Interface {
        name: text(row, "name")?,
        ofport: one("ofport")?.and_then(|value| value.as_i64()),
        error: one("error")?.and_then(|value| value.as_str().map(str::to_owned)),
        external_ids: marks(row)?,
    })
}

fn port(row: &Value) -> Option<Port> {
    let tag = read_set(row.get("tag")?).first().and_then(|tag| tag.as_i64());
    Some(Port { name: text(row, "name")?, interfaces: ids(row, "interfaces")?, tag })
}

fn bridge(row: &Value) -> Option<Bridge> {
    Some(Bridge { name: text(row, "name")?, ports: ids(row, "ports")?, datapath_type: text(row, "datapath_type")? })
}

fn text(row: &Value, column: &str) -> Option<String> {
    row.get(column)?.as_str().map(str::to_owned)
}

fn ids(row: &Value, column: &str) -> Option<Vec<Uuid>> {
    read_set(row.get(column)?).into_iter().map(read_uuid).collect()
}

fn marks(row: &Value) -> Option<BTreeMap<String, String>> {
    read_map(row.get("external_ids")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_change_and_go() {
        let (a, b, p) = (Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3));
        let mut cache = Cache::default();
        let new = |ofport: Value| json!({ "name": "tap1", "ofport": ofport, "error": ["set", []], "external_ids": ["map", [["k", "v"]]] });
        cache
            .apply(&json!({
                "Interface": { a.to_string(): { "new": new(json!(["set", []])) } },
                "Port": { p.to_string(): { "new": { "name": "tap1", "interfaces": ["uuid", a], "tag": 7 } } },
                "Bridge": { b.to_string(): { "new": { "name": "br", "ports": ["set", [["uuid", p]]], "datapath_type": "" } } },
                "Open_vSwitch": { a.to_string(): { "new": { "external_ids": ["map", [["hostname", "n"]]] } } },
            }))
            .unwrap();
        assert_eq!(cache.interface("tap1").unwrap().ofport, None);
        assert_eq!(cache.bridge_of("tap1").unwrap().name, "br");
        assert_eq!(cache.ports[&p].tag, Some(7));
        assert_eq!(cache.external_ids["hostname"], "n");
        cache
            .apply(
                &json!({ "Interface": { a.to_string(): { "old": { "ofport": ["set", []] }, "new": new(json!(4)) } } }),
            )
            .unwrap();
        assert_eq!(cache.interface("tap1").unwrap().ofport, Some(4));
        cache.apply(&json!({ "Interface": { a.to_string(): { "old": new(json!(4)) } } })).unwrap();
        assert_eq!(cache.interface("tap1"), None);
        assert!(cache.apply(&json!({ "Interface": { a.to_string(): { "new": {} } } })).is_err());
    }

    #[test]
    fn a_bridge_is_ovns_if_ovn_controller_is_told_so() {
        let is_ovns = |ids: &[(&str, &str)], bridge: &str| {
            let external_ids = ids.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
            Cache { external_ids, ..Cache::default() }.is_ovns(bridge)
        };
        let remote = ("ovn-remote", "unix:sb.sock");
        assert!(is_ovns(&[remote], "br-int"));
        assert!(!is_ovns(&[remote], "br-ex"));
        assert!(is_ovns(&[remote, ("ovn-bridge", "br-ovn")], "br-ovn"));
        assert!(!is_ovns(&[remote, ("ovn-bridge", "br-ovn")], "br-int"), "there the Open vSwitch agent may be");
        assert!(is_ovns(&[("ovn-remote-a", "unix:sb.sock"), ("ovn-bridge-a", "br-a")], "br-a"));
        // What a node with the Open vSwitch agent alone has.
        for ids in
            [&[][..], &[("hostname", "n")], &[("ovn-remote-probe-interval", "1000"), ("ovn-bridge-mappings", "x")]]
        {
            assert!(!is_ovns(ids, "br-int"), "{ids:?}");
        }
    }
}

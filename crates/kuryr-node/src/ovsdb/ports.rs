//! Ports of bridges: one transaction to add, two round trips to delete, a notification when one works.

use super::{
    cache::Cache,
    client::Client,
    error::Error,
    value::{map, named, read_map, read_uuid, uuid},
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tokio::time::Instant;
use uuid::Uuid;

/// The key in an Interface's `external_ids` that says that it is ours; its value is the sandbox's id.
pub const MARK: &str = "kuryr";
/// The key for the Neutron port, which Neutron's agents and OVN look for.
pub const IFACE_ID: &str = "iface-id";
/// The key for the port's Ethernet address, which they look for too.
pub const ATTACHED_MAC: &str = "attached-mac";
/// Set by OVN when the flows of an Interface are in.
const OVN_INSTALLED: &str = "ovn-installed";
/// The VLAN of ports that must not forward: Neutron's Open vSwitch agent leaves it to no network and drops its packets, and gives
/// the port its network's VLAN once it has wired it.
const DEAD_VLAN: i64 = 4095;

/// A port of ours in a bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OurPort {
    /// Its name, which is the interface's.
    pub name: String,
    /// Its Neutron port, as it stands in the database.
    pub iface_id: String,
    /// Its sandbox.
    pub container_id: String,
}

/// Who makes a bridge forward, and by that what tells that a port works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarder {
    /// OVN's controller: it says `ovn-installed` on the Interface when its flows are in.
    Ovn,
    /// Neutron's Open vSwitch agent: it gives the Port the VLAN that its network has on this node, and writes nothing later.
    Agent,
}

impl Forwarder {
    /// Whose a bridge is.
    #[must_use]
    pub fn of(cache: &Cache, bridge: &str) -> Self {
        if cache.is_ovns(bridge) { Self::Ovn } else { Self::Agent }
    }
}

/// Adds interface `name` to `bridge`, in place of any port of that name; the row of the Interface, and who will make it
/// work. The bridge itself is left as it is.
///
/// # Errors
/// [`Error::NoBridge`], or the database's refusal.
pub async fn add(
    client: &Client,
    deadline: Instant,
    bridge: &str,
    name: &str,
    external_ids: &[(&str, &str)],
) -> Result<(Uuid, Forwarder), Error> {
    let mut tries = 0;
    loop {
        let look = |cache: &Cache| cache.bridge(bridge).map(|_| Forwarder::of(cache, bridge));
        let Some(forwarder) = client.look(deadline, look).await? else {
            return Err(Error::NoBridge(bridge.to_owned()));
        };
        let done = client.transact(deadline, insert(bridge, forwarder, name, external_ids)).await;
        tries += 1;
        match done {
            Ok(results) => {
                // The bridge went away since we looked: the rows that nothing refers to went with the transaction.
                if results.get(2).and_then(|result| result.get("count")) != Some(&json!(1)) {
                    return Err(Error::NoBridge(bridge.to_owned()));
                }
                return results
                    .first()
                    .and_then(|result| Some((read_uuid(result.get("uuid")?)?, forwarder)))
                    .ok_or_else(|| Error::Malformed("an insert without a UUID".into()));
            }
            // The name is taken by what a killed ADD has left, or by our own insert whose answer was lost.
            Err(Error::Refused { error, .. }) if error == "constraint violation" && tries < 4 => {
                delete(client, deadline, name, |_| true).await?;
            }
            Err(Error::Lost) if tries < 4 => {}
            Err(error) => return Err(error),
        }
    }
}

fn insert(bridge: &str, forwarder: Forwarder, name: &str, external_ids: &[(&str, &str)]) -> Vec<Value> {
    let mut port = json!({ "name": name, "interfaces": named("interface") });
    if forwarder == Forwarder::Agent {
        // Without a VLAN it would be a trunk of all networks of the node until the agent has wired it: nova's os-vif does the same
        // (`isolate_vif`). OVN's own flows let nothing pass before.
        port["tag"] = DEAD_VLAN.into();
    }
    vec![
        json!({ "op": "insert", "table": "Interface", "uuid-name": "interface",
                "row": { "name": name, "external_ids": map(external_ids) } }),
        json!({ "op": "insert", "table": "Port", "uuid-name": "port", "row": port }),
        json!({ "op": "mutate", "table": "Bridge", "where": [["name", "==", bridge]],
                "mutations": [["ports", "insert", ["set", [named("port")]]]] }),
    ]
}

/// Removes the port `name` from whatever bridge has it, if `ours` says so of its Interface's `external_ids`. Absent is
/// success.
///
/// # Errors
/// The port is there and stays.
pub async fn delete(
    client: &Client,
    deadline: Instant,
    name: &str,
    ours: impl Fn(&BTreeMap<String, String>) -> bool,
) -> Result<(), Error> {
    let mut tries = 0;
    loop {
        tries += 1;
        match delete_once(client, deadline, name, &ours).await {
            Err(Error::Lost) if tries < 4 => {}
            done => return done,
        }
    }
}

async fn delete_once(
    client: &Client,
    deadline: Instant,
    name: &str,
    ours: impl Fn(&BTreeMap<String, String>) -> bool,
) -> Result<(), Error> {
    // Asked from the server rather than the cache: what was added a moment ago must be found.
    let select = |table: &str, column: &str| json!({ "op": "select", "table": table, "where": [["name", "==", name]], "columns": [column] });
    let found = client.transact(deadline, vec![select("Port", "_uuid"), select("Interface", "external_ids")]).await?;
    let row = |index: usize| found.get(index)?.get("rows")?.get(0);
    let Some(port) = row(0).and_then(|row| read_uuid(row.get("_uuid")?)) else { return Ok(()) };
    if !ours(&row(1).and_then(|row| read_map(row.get("external_ids")?)).unwrap_or_default()) {
        return Ok(());
    }
    // Ports and Interfaces that no bridge refers to are removed by the server.
    let unlink = json!({ "op": "mutate", "table": "Bridge", "where": [["ports", "includes", uuid(port)]],
                         "mutations": [["ports", "delete", ["set", [uuid(port)]]]] });
    client.transact(deadline, vec![unlink]).await.map(|_| ())
}

/// Waits until the Interface that [`add`] made works.
///
/// # Errors
/// What Open vSwitch says against it, [`Error::Vanished`] if it was removed, or [`Error::Deadline`].
pub async fn wait_ready(
    client: &Client,
    deadline: Instant,
    (id, name): (Uuid, &str),
    forwarder: Forwarder,
) -> Result<(), Error> {
    let mut seen = false;
    client.wait(deadline, |cache| ready(cache, id, name, forwarder, &mut seen)).await?
}

fn ready(cache: &Cache, id: Uuid, name: &str, forwarder: Forwarder, seen: &mut bool) -> Option<Result<(), Error>> {
    let Some(interface) = cache.interfaces.get(&id) else {
        return seen.then(|| Err(Error::Vanished(name.to_owned())));
    };
    *seen = true;
    let failed = |reason: &str| Error::Interface { interface: name.to_owned(), reason: reason.to_owned() };
    if let Some(reason) = &interface.error {
        return Some(Err(failed(reason)));
    }
    if interface.ofport == Some(-1) {
        return Some(Err(failed("it got no OpenFlow number")));
    }
    let works = match forwarder {
        Forwarder::Ovn => interface.external_ids.get(OVN_INSTALLED).is_some_and(|value| value == "true"),
        Forwarder::Agent => {
            let mut tags =
                cache.ports.values().filter(|port| port.interfaces.contains(&id)).filter_map(|port| port.tag);
            interface.ofport.is_some() && tags.any(|tag| tag != DEAD_VLAN)
        }
    };
    works.then_some(Ok(()))
}

/// The ports that carry our mark.
///
/// # Errors
/// The database is away.
pub async fn list(client: &Client, deadline: Instant) -> Result<Vec<OurPort>, Error> {
    client.look(deadline, ours).await
}

fn ours(cache: &Cache) -> Vec<OurPort> {
    let mut ports: Vec<OurPort> = cache
        .interfaces
        .values()
        .filter_map(|interface| {
            let container_id = interface.external_ids.get(MARK)?.clone();
            let iface_id = interface.external_ids.get(IFACE_ID)?.clone();
            Some(OurPort { name: interface.name.clone(), iface_id, container_id })
        })
        .collect();
    ports.sort_by(|a, b| a.name.cmp(&b.name));
    ports
}

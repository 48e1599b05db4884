//! Port pools: how many spare ports there are, and which nodes have none.

use super::{
    collect::Known,
    judge::{Area, Check, NAMED, State, check},
    machines::MachineFacts,
};
use crate::view::{ClusterView, NodeView};
use kuryr_model::{ClusterId, KuryrPort, Mark, PortId, Purpose, neutron::Port};
use std::collections::{BTreeMap, BTreeSet};

/// What there is to say; `floor`: spare ports that each node has at least, or there are no pools.
pub(super) fn pools(
    cluster: &ClusterId,
    floor: Option<usize>,
    view: &ClusterView,
    machines: &Known<Vec<MachineFacts>>,
    ports: &[Port],
) -> Option<Check> {
    let held: BTreeSet<PortId> = view.kuryr_ports.iter().flat_map(KuryrPort::port_ids).collect();
    let pooled = |port: &&Port| Mark::read(cluster, &port.tags).is_some_and(|mark| mark.purpose == Purpose::Pool);
    let spare: BTreeMap<PortId, &Port> =
        ports.iter().filter(pooled).filter(|port| !held.contains(&port.id)).map(|port| (port.id, port)).collect();
    let all = spare.len();
    // A subport has the host of its machine.
    let hosts: BTreeSet<&str> =
        spare.values().filter(|port| port.device_owner != "trunk:subport").map(|port| &*port.host_id).collect();
    let here = |state, detail: String, fix| Some(check(Area::Pods, "port pools", state, detail, fix));
    let Some(floor) = floor else {
        return match all {
            0 => here(State::Ok, "off: [pools] enabled is false".to_owned(), ""),
            _ => here(State::Note, format!("off, and {all} spare ports are left"), "the controller deletes them"),
        };
    };
    // Whether a node has some; `None`: it has no pool, or its trunk is not known, which is told elsewhere.
    let has = |node: &NodeView| match machines.iter().flatten().find(|machine| machine.node == node.name) {
        None => Some(hosts.contains(&*node.host.name)),
        Some(machine) => {
            let (_, trunk) = machine.found.as_ref().ok()?;
            Some(trunk.as_ref()?.sub_ports.iter().any(|subport| spare.contains_key(&subport.port_id)))
        }
    };
    let serving = view.nodes.iter().filter(|node| node.ready && !node.cordoned);
    let without: Vec<&str> = serving.filter(|node| has(node) == Some(false)).map(|node| node.name.as_str()).collect();
    let with = view.nodes.iter().filter(|node| has(node) == Some(true)).count();
    let detail = format!("{all} spare ports on {with} nodes");
    if floor == 0 || without.is_empty() {
        return here(State::Ok, detail, "");
    }
    let mut named = without.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    if without.len() > NAMED {
        named = format!("{named} and {} more", without.len() - NAMED);
    }
    let fix = "new pods there wait for Neutron; if it lasts, kuryr pools says why there are none";
    here(State::Note, format!("{detail}; none on {named}"), fix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::{kuryr_port, network_id, node, port_id};
    use kuryr_model::{Host, vif::PlugDriver};
    use serde_json::json;

    fn spare(n: u8, host: &str) -> Port {
        serde_json::from_value(json!({
            "id": port_id(n), "network_id": network_id(), "mac_address": "fa:16:3e:00:00:01", "binding:host_id": host,
            "tags": ["kuryr:c1", "kuryr:pool:ports"]}))
        .unwrap()
    }

    #[test]
    fn a_node_without_spare_ports_is_named() {
        let mut other = node("n2");
        other.host = Host::of("n2", None);
        let view = ClusterView {
            nodes: vec![node("n1"), other],
            kuryr_ports: vec![kuryr_port("web", Some(2))],
            ..ClusterView::default()
        };
        let told = |floor, view: &ClusterView, ports: &[Port]| {
            let told = pools(&"c1".into(), floor, view, &Ok(vec![]), ports).unwrap();
            (told.state, told.detail)
        };
        let ports = [spare(1, "host-1"), spare(2, "n2")];
        assert_eq!(
            told(Some(2), &view, &ports),
            (State::Note, "1 spare ports on 1 nodes; none on n2".to_owned()),
            "a pod has one"
        );
        let mut cordoned = view.clone();
        cordoned.nodes[1].cordoned = true;
        assert_eq!(told(Some(2), &cordoned, &ports).0, State::Ok);
        assert_eq!(told(Some(0), &view, &ports).0, State::Ok);
        assert_eq!(told(None, &view, &[]).0, State::Ok);
        assert_eq!(told(None, &view, &ports).0, State::Note);
    }

    #[test]
    fn the_spare_ports_of_a_virtual_machine_are_those_on_its_trunk() {
        let view = ClusterView { nodes: vec![node("vm-1"), node("vm-2"), node("vm-3")], ..ClusterView::default() };
        let trunk = |subports: &[u8]| {
            let all: Vec<_> = subports
                .iter()
                .map(|n| json!({"port_id": port_id(*n), "segmentation_type": "vlan", "segmentation_id": n}))
                .collect();
            serde_json::from_value(json!({
                "id": port_id(90), "name": "", "port_id": port_id(91), "status": "ACTIVE", "admin_state_up": true, "sub_ports": all,
            }))
            .unwrap()
        };
        let machine =
            |node: &str, driver, trunk| MachineFacts { node: node.into(), found: Ok((driver, trunk)), full: None };
        let machines = vec![
            machine("vm-1", PlugDriver::Vlan, Some(trunk(&[1]))),
            machine("vm-2", PlugDriver::Vlan, Some(trunk(&[2]))),
            machine("vm-3", PlugDriver::Macvlan, None),
        ];
        // The second one is on the same host and somebody else's.
        let ports = [Port { device_owner: "trunk:subport".into(), ..spare(1, "host-1") }];
        let told = pools(&"c1".into(), Some(2), &view, &Ok(machines), &ports).unwrap();
        assert_eq!((told.state, &*told.detail), (State::Note, "1 spare ports on 1 nodes; none on vm-2"));
    }
}

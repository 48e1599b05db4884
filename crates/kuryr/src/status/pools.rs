//! Port pools: how many spare ports there are, and which nodes have none.

use super::judge::{Area, Check, NAMED, State, check};
use crate::view::ClusterView;
use kuryr_model::{ClusterId, KuryrPort, Mark, PortId, Purpose, neutron::Port};
use std::collections::{BTreeMap, BTreeSet};

/// What there is to say; `floor`: spare ports that each node has at least, or there are no pools.
pub(super) fn pools(cluster: &ClusterId, floor: Option<usize>, view: &ClusterView, ports: &[Port]) -> Option<Check> {
    let held: BTreeSet<PortId> = view.kuryr_ports.iter().flat_map(KuryrPort::port_ids).collect();
    let pooled = |port: &&Port| Mark::read(cluster, &port.tags).is_some_and(|mark| mark.purpose == Purpose::Pool);
    let mut spare: BTreeMap<&str, usize> = BTreeMap::new();
    for port in ports.iter().filter(pooled).filter(|port| !held.contains(&port.id)) {
        *spare.entry(&port.host_id).or_default() += 1;
    }
    let all: usize = spare.values().sum();
    let here = |state, detail: String, fix| Some(check(Area::Pods, "port pools", state, detail, fix));
    let Some(floor) = floor else {
        return match all {
            0 => here(State::Ok, "off: [pools] enabled is false".to_owned(), ""),
            _ => here(State::Note, format!("off, and {all} spare ports are left"), "the controller deletes them"),
        };
    };
    let serving = view.nodes.iter().filter(|node| node.ready && !node.cordoned);
    let without: Vec<&str> =
        serving.filter(|node| !spare.contains_key(&*node.host.name)).map(|node| node.name.as_str()).collect();
    let detail = format!("{all} spare ports on {} nodes", spare.len());
    if floor == 0 || without.is_empty() {
        return here(State::Ok, detail, "");
    }
    let mut named = without.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    if without.len() > NAMED {
        named = format!("{named} and {} more", without.len() - NAMED);
    }
    let fix =
        "new pods there wait for Neutron; if it lasts: kuryr pools, and the controller's log says what Neutron refuses";
    here(State::Note, format!("{detail}; none on {named}"), fix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::{kuryr_port, network_id, node, port_id};
    use kuryr_model::Host;
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
            let told = pools(&"c1".into(), floor, view, ports).unwrap();
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
}

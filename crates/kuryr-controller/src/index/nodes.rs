//! The nodes.

use super::{Index, State};
use crate::lean::NodeState;
use kuryr_model::{ObjectKey, vif::PlugDriver};
use kuryr_plan::{
    fullness::Notice,
    nested::{Machine, MachineError},
    pod::Node,
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};
use tokio::time::Instant;

/// Where the ports of a node's pods are in Neutron.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Home {
    /// The node's name there.
    pub(crate) host: String,
    /// It is a virtual machine; or what it says of itself cannot be.
    pub(crate) machine: Result<Option<Arc<Machine>>, MachineError>,
}

/// The nodes to which pods are scheduled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Serving {
    /// Those that are no virtual machines, by their names in Neutron.
    pub(crate) hosts: BTreeMap<String, String>,
    /// Those whose pods are subports of their trunk, by their names.
    pub(crate) machines: BTreeMap<String, Arc<Machine>>,
}

impl State {
    /// Forgets nodes that are gone when nothing is left of them: there may be ever new ones.
    fn forget_gone(&mut self) {
        let Self { ports, homes, gone, .. } = self;
        let used: HashSet<&str> = ports.readable().map(|(_, port)| &*port.spec.node_name).collect();
        gone.retain(|node, _| homes.contains_key(node) || used.contains(&**node));
    }

    /// Takes over what a node says, unless what is known is newer.
    fn notice(&mut self, node: &str, notice: Notice, version: Option<u64>) {
        let known = self.notices.get(node).and_then(|(_, version)| *version);
        if version.is_none() || known <= version {
            self.notices.insert(node.to_owned(), (notice, version));
        }
    }
}

impl Index {
    /// The nodes to which pods are scheduled and whose pods have ports that can be made before them: where they share the machine's port
    /// they have only addresses there.
    pub(crate) fn serving(&self) -> Serving {
        let state = self.state.read();
        let serves = |name: &String| !state.gone.contains_key(name) && !state.cordoned.contains(name);
        let mut serving = Serving::default();
        for (name, home) in state.homes.iter().filter(|(name, _)| serves(name)) {
            match &home.machine {
                Ok(None) => drop(serving.hosts.insert(home.host.clone(), name.clone())),
                Ok(Some(machine)) if machine.driver == PlugDriver::Vlan => {
                    serving.machines.insert(name.clone(), machine.clone());
                }
                Ok(Some(_)) | Err(_) => {}
            }
        }
        serving
    }

    /// Where the ports of a node's pods are. Its name in Neutron is what its annotation says, else its own one.
    pub(crate) fn home(&self, node: &str) -> Home {
        let known = self.state.read().homes.get(node).cloned();
        known.unwrap_or_else(|| Home { host: node.to_owned(), machine: Ok(None) })
    }

    /// The nodes that are virtual machines.
    pub(crate) fn machines(&self) -> Vec<(String, Arc<Machine>)> {
        let state = self.state.read();
        let machine = |(node, home): (&String, &Home)| Some((node.clone(), home.machine.clone().ok()??));
        state.homes.iter().filter_map(machine).collect()
    }

    /// Whether `node` is there, or since when it is known to be missing or out of service.
    pub(crate) fn node(&self, node: &str, now: Instant) -> Node {
        let state = self.state.read();
        if state.homes.contains_key(node) && !state.gone.contains_key(node) {
            return Node::Present;
        }
        drop(state);
        let mut state = self.state.write();
        let since = *state.gone.entry(node.to_owned()).or_insert(now);
        Node::Gone(now.saturating_duration_since(since))
    }

    /// Takes over a node, and gives the keys of the `KuryrPort`s on it if it is out of service from now on, and of pods that wait
    /// for ports if these are somewhere else now.
    pub(crate) fn apply_node(&self, node: NodeState, now: Instant) -> Vec<ObjectKey> {
        let NodeState { name, host, said, addresses, out_of_service, cordoned, notice, version } = node;
        let machine = Machine::read(&said.annotations, self.nested, said.provider_id.as_deref(), addresses);
        let home = Home { host: host.name, machine: machine.map(|machine| machine.map(Arc::new)) };
        let mut state = self.state.write();
        state.notice(&name, notice, version);
        self.nodes_changed.send_replace(());
        if cordoned {
            state.cordoned.insert(name.clone());
        } else {
            state.cordoned.remove(&name);
        }
        let before = state.homes.insert(name.clone(), home.clone());
        let mut keys = if before.as_ref() == Some(&home) { Vec::new() } else { state.lacking(&name) };
        if !out_of_service {
            state.gone.remove(&name);
        } else if !state.gone.contains_key(&name) {
            state.gone.insert(name.clone(), now);
            keys.extend(state.on(&name));
        }
        keys
    }

    /// Forgets a node and gives the keys of the `KuryrPort`s that were on it.
    pub(crate) fn remove_node(&self, name: &str, now: Instant) -> Vec<ObjectKey> {
        let mut state = self.state.write();
        state.homes.remove(name);
        state.cordoned.remove(name);
        state.notices.remove(name);
        self.nodes_changed.send_replace(());
        state.gone.entry(name.to_owned()).or_insert(now);
        state.forget_gone();
        state.on(name)
    }

    /// What nodes say of how full they are.
    pub(crate) fn notices(&self) -> HashMap<String, Notice> {
        let state = self.state.read();
        state.notices.iter().map(|(node, (notice, _))| (node.clone(), notice.clone())).collect()
    }

    /// What was written on a node, before the watch tells of it.
    pub(crate) fn noticed(&self, node: &str, notice: Notice, version: Option<u64>) {
        let mut state = self.state.write();
        if state.homes.contains_key(node) {
            state.notice(node, notice, version);
        }
    }

    /// The nodes that are known.
    pub(crate) fn nodes(&self) -> Vec<String> {
        self.state.read().homes.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        index::tests::{pod, port},
        lean::Said,
    };
    use kuryr_model::{Host, NESTED_ANNOTATION, vif::PlugDriver};
    use serde_json::json;
    use std::time::Duration;

    fn node9(out_of_service: bool) -> NodeState {
        let (name, host) = ("node9".into(), Host::of("node9", Some("compute-9")));
        let (said, notice) = (Said::default(), Notice::default());
        NodeState { name, host, said, addresses: [].into(), out_of_service, cordoned: false, notice, version: None }
    }

    #[test]
    fn a_node_out_of_service_is_gone_until_it_serves_again() {
        let index = Index::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut port = port("1", "u");
        port.spec.node_name = "node9".into();
        index.apply_port(port);
        assert_eq!(index.apply_node(node9(false), start), []);
        assert_eq!(index.node("node9", start), Node::Present);
        let woken = index.apply_node(node9(true), at(1));
        assert_eq!(woken, [ObjectKey::new("a", "x")]);
        assert_eq!(index.apply_node(node9(true), at(2)), [], "known already");
        assert_eq!(
            (index.node("node9", at(4)), &*index.home("node9").host),
            (Node::Gone(Duration::from_secs(3)), "compute-9")
        );
        // Deleting the Node as well does not begin the wait anew.
        assert_eq!(index.remove_node("node9", at(5)), [ObjectKey::new("a", "x")]);
        assert_eq!(index.node("node9", at(6)), Node::Gone(Duration::from_secs(5)));
        index.apply_node(node9(false), at(7));
        assert_eq!(index.node("node9", at(8)), Node::Present);
    }

    #[test]
    fn a_missing_node_is_gone_from_the_moment_it_is_missed() {
        let index = Index::default();
        let start = Instant::now();
        assert_eq!(index.node("node9", start), Node::Gone(Duration::ZERO));
        let later = start + Duration::from_secs(5);
        assert_eq!(index.node("node9", later), Node::Gone(Duration::from_secs(5)));
        index.apply_node(node9(false), later);
        assert_eq!((index.node("node9", later), index.home("node9").host.as_str()), (Node::Present, "compute-9"));
    }

    #[test]
    fn nodes_that_come_and_go_are_forgotten_when_nothing_is_left_on_them() {
        let (index, now) = (Index::default(), Instant::now());
        let mut held = port("1", "u");
        held.spec.node_name = "spot-0".into();
        index.apply_port(held);
        for number in 0..100 {
            let name = format!("spot-{number}");
            let host = Host::of(&name, None);
            index.apply_node(NodeState { name: name.clone(), host, ..node9(false) }, now);
            index.remove_node(&name, now);
        }
        let gone = || index.state.read().gone.keys().cloned().collect::<Vec<_>>();
        assert_eq!(gone(), ["spot-0"], "that one has a port still");
        index.remove_port(&ObjectKey::new("a", "x"), Some("u"));
        index.remove_node("spot-7", now);
        assert_eq!(gone(), [""; 0]);
    }

    #[test]
    fn pods_that_wait_on_a_node_are_looked_at_when_it_says_something_else() {
        let (index, now) = (Index::new(None), Instant::now());
        index.apply_node(node9(false), now);
        let waits = json!({"metadata": {"namespace": "a", "name": "x", "uid": "p"}, "spec": {"nodeName": "node9"}});
        index.apply_pod(pod(waits));
        assert_eq!(index.apply_node(node9(false), now), [], "no news");
        let mut nested = node9(false);
        nested.said.annotations.insert(NESTED_ANNOTATION.into(), "vlan".into());
        assert_eq!(index.apply_node(nested.clone(), now), [ObjectKey::new("a", "x")]);
        let machine = index.home("node9").machine.unwrap().unwrap();
        assert_eq!((machine.driver, index.machines().len()), (PlugDriver::Vlan, 1));
        nested.addresses = ["192.0.2.7".parse().unwrap()].into();
        assert_eq!(index.apply_node(nested, now), [ObjectKey::new("a", "x")], "it can be found by that");
    }

    #[test]
    fn what_a_node_said_before_it_was_written_on_is_no_news() {
        let (index, now) = (Index::default(), Instant::now());
        let says = |full: bool, version: u64| {
            let notice = Notice { condition: Some((full, String::new())), tainted: full };
            NodeState { notice, version: Some(version), ..node9(false) }
        };
        index.noticed("node9", says(true, 1).notice, Some(1));
        assert!(index.notices().is_empty(), "there is no such node");
        index.apply_node(says(false, 5), now);
        index.noticed("node9", says(true, 7).notice, Some(7));
        index.apply_node(says(false, 6), now);
        assert!(index.notices()["node9"].is_full(), "an older state of it is late");
        index.apply_node(says(false, 8), now);
        assert!(!index.notices()["node9"].is_full());
        index.remove_node("node9", now);
        index.apply_node(says(true, 2), now);
        assert!(index.notices()["node9"].is_full(), "another object of its name");
    }
}

//! Pods and nodes as the API server sends them, read as far as policies look at them.

use super::{
    spec::Protocol,
    world::{NamedPort, Pod},
};
use crate::service::Transport;
use k8s_openapi::api::core::v1::{Node as KubeNode, Pod as KubePod};
use kuryr_model::ObjectKey;
use std::{collections::BTreeSet, net::IpAddr};

/// What matters of a pod. `None`: it has no namespace, name or UID, which no API server sends.
///
/// Its addresses are those of its status, which has them only when it runs.
#[must_use]
pub fn pod_of(object: &KubePod) -> Option<Pod> {
    let metadata = &object.metadata;
    let spec = object.spec.clone().unwrap_or_default();
    let status = object.status.clone().unwrap_or_default();
    let texts = status.pod_ips.iter().flatten().map(|ip| &ip.ip).chain(&status.pod_ip);
    Some(Pod {
        key: ObjectKey::new(metadata.namespace.clone()?, metadata.name.clone()?),
        uid: metadata.uid.as_deref()?.into(),
        node: spec.node_name.clone().filter(|node| !node.is_empty()),
        labels: metadata.labels.clone().unwrap_or_default(),
        addresses: texts.filter_map(|text| text.parse().ok()).collect(),
        host_network: spec.host_network == Some(true),
        completed: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
        ports: containers(
            spec.containers.iter(),
            spec.init_containers.iter().flatten().map(|container| (container.restart_policy.as_deref(), container)),
        )
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| named_port(port.name.as_deref(), port.protocol.as_deref(), port.container_port))
        .collect(),
    })
}

/// The containers whose ports count, in the order in which the first of two of one name counts: the pod's own, then those
/// init containers that run beside them for good, because their `restartPolicy` is `Always`.
pub fn containers<'a, C: 'a>(
    own: impl Iterator<Item = &'a C>,
    init: impl Iterator<Item = (Option<&'a str>, &'a C)>,
) -> impl Iterator<Item = &'a C> {
    own.chain(init.filter(|(restart_policy, _)| *restart_policy == Some("Always")).map(|(_, container)| container))
}

/// A container's port that a policy may name. `None`: it has no name, or what no API server sends.
#[must_use]
pub fn named_port(name: Option<&str>, protocol: Option<&str>, number: i32) -> Option<NamedPort> {
    Some(NamedPort {
        name: name.filter(|name| !name.is_empty())?.to_owned(),
        protocol: protocol.map_or(Some(Protocol::Tcp), Protocol::from_kubernetes)?,
        number: number.try_into().ok()?,
    })
}

/// The addresses from which a node speaks.
#[must_use]
pub fn node_addresses(object: &KubeNode) -> BTreeSet<IpAddr> {
    let addresses = object.status.iter().flat_map(|status| status.addresses.iter().flatten());
    let own = addresses.filter(|address| matches!(address.type_.as_str(), "InternalIP" | "ExternalIP"));
    own.filter_map(|address| address.address.parse().ok()).collect()
}

impl From<Transport> for Protocol {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Tcp => Self::Tcp,
            Transport::Udp => Self::Udp,
            Transport::Sctp => Self::Sctp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: &Value, status: &Value) -> Pod {
        let metadata = json!({"namespace": "a", "name": "web", "uid": "u", "labels": {"app": "web"}});
        let object = json!({"metadata": metadata, "spec": spec, "status": status});
        pod_of(&serde_json::from_value(object).unwrap()).unwrap()
    }

    #[test]
    fn a_pod_gives_numbers_to_names_by_its_containers_and_sidecars_but_not_by_what_only_begins_it() {
        let ports = |name: &str, number: u16, protocol: &str| json!([{"name": name, "containerPort": number, "protocol": protocol}]);
        let spec = json!({
            "nodeName": "n1",
            "containers": [{"name": "c", "ports": ports("http", 8080, "TCP")}, {"name": "d", "ports": [{"containerPort": 1}]}],
            "initContainers": [
                {"name": "i", "ports": ports("once", 1, "TCP")},
                {"name": "s", "restartPolicy": "Always", "ports": ports("dns", 53, "UDP")},
            ],
        });
        let read = pod(&spec, &json!({"podIP": "10.0.0.5", "podIPs": [{"ip": "10.0.0.5"}, {"ip": "fd00::5"}]}));
        assert_eq!((read.port(Protocol::Tcp, "http"), read.port(Protocol::Udp, "dns")), (Some(8080), Some(53)));
        assert_eq!((read.port(Protocol::Tcp, "once"), read.ports.len()), (None, 2));
        assert_eq!((read.addresses.len(), read.node.as_deref(), read.counts()), (2, Some("n1"), true));
    }

    #[test]
    fn pods_that_have_ended_or_use_their_nodes_network_do_not_count() {
        let containers = json!({"containers": []});
        for phase in ["Succeeded", "Failed"] {
            assert!(!pod(&containers, &json!({"phase": phase})).counts());
        }
        assert!(pod(&containers, &json!({"phase": "Running"})).counts());
        assert!(!pod(&json!({"containers": [], "hostNetwork": true}), &json!({})).counts());
        assert_eq!(pod_of(&KubePod::default()), None);
    }

    #[test]
    fn a_node_speaks_from_each_of_its_addresses_and_not_from_its_names() {
        let addresses = json!([
            {"type": "InternalIP", "address": "192.0.2.1"}, {"type": "Hostname", "address": "n1"},
            {"type": "InternalIP", "address": "fd00::1"},
        ]);
        let node = serde_json::from_value(json!({"metadata": {}, "status": {"addresses": addresses}})).unwrap();
        assert_eq!(node_addresses(&node).len(), 2);
    }
}

//! What `kuryr status` and `kuryr audit` read of Kubernetes, reduced to what they judge.

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, Client, Resource, ResourceExt as _, api::ListParams, core::DeserializeGuard};
use kuryr_model::{
    FULL_CONDITION, HOST_ANNOTATION, Host, KuryrPort, NESTED_ANNOTATION, ObjectKey, PARENT_PORT_ANNOTATION, PodUid,
    kuryr_port::AttachmentState, vif::PlugDriver,
};
use kuryr_plan::nested::{Machine, MachineError};
use serde::de::DeserializeOwned;
use std::{collections::BTreeMap, fmt::Debug, net::IpAddr};

/// For how long a `KuryrPort` may be on its way out: its node has to say that the port is free. The same for a
/// `KuryrLoadBalancer`, whose load balancer has to go first.
pub(crate) const LONGEST_DELETION: SignedDuration = SignedDuration::from_mins(2);

/// What matters of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodView {
    pub(crate) key: ObjectKey,
    pub(crate) uid: PodUid,
    pub(crate) node: Option<String>,
    pub(crate) host_network: bool,
    /// All its containers have ended for good.
    pub(crate) completed: bool,
    pub(crate) deleting: bool,
    pub(crate) addresses: Vec<IpAddr>,
    /// Since when it is bound to its node, as far as it says so.
    pub(crate) bound: Option<Timestamp>,
}

impl PodView {
    /// Whether it should have ports, be it that it has none yet.
    pub(crate) fn wants_ports(&self) -> bool {
        self.planned().wants_ports()
    }

    /// Whether it may have ports: one that is being deleted keeps them until its sandbox is gone.
    pub(crate) fn may_hold_ports(&self) -> bool {
        self.planned().keeps_ports()
    }

    /// As the controller sees it, whose rules are the only ones.
    fn planned(&self) -> kuryr_plan::pod::Pod {
        let Self { host_network, completed, deleting, .. } = *self;
        let (key, uid, node) = (self.key.clone(), self.uid.clone(), self.node.clone());
        kuryr_plan::pod::Pod { key, uid, node, host_network, completed, deleting }
    }

    fn read(pod: &Pod) -> Option<Self> {
        let spec = pod.spec.as_ref()?;
        let status = pod.status.clone().unwrap_or_default();
        let phase = status.phase.as_deref().unwrap_or_default();
        let addresses = status.pod_ips.iter().flatten().filter_map(|ip| ip.ip.parse().ok()).collect();
        let conditions = status.conditions.iter().flatten();
        let scheduled = conditions.filter(|condition| condition.type_ == "PodScheduled" && condition.status == "True");
        Some(Self {
            key: ObjectKey::new(pod.namespace()?, pod.name_any()),
            uid: PodUid(pod.metadata.uid.clone()?),
            node: spec.node_name.clone().filter(|node| !node.is_empty()),
            host_network: spec.host_network == Some(true),
            completed: matches!(phase, "Succeeded" | "Failed"),
            deleting: pod.metadata.deletion_timestamp.is_some(),
            addresses,
            bound: scheduled.filter_map(|condition| Some(condition.last_transition_time.as_ref()?.0)).next(),
        })
    }
}

/// What matters of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeView {
    pub(crate) name: String,
    pub(crate) ready: bool,
    /// Why it is not ready, in its own words.
    pub(crate) why: String,
    /// No pods are scheduled to it.
    pub(crate) cordoned: bool,
    /// What Neutron calls it.
    pub(crate) host: Host,
    /// Where it is reached from other nodes.
    pub(crate) address: Option<IpAddr>,
    /// What it says of itself as a virtual machine, what its cloud calls it, and its addresses.
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) provider_id: Option<String>,
    pub(crate) addresses: Vec<IpAddr>,
    /// Why no further pod fits on it, if the controller says so.
    pub(crate) full: Option<String>,
}

impl NodeView {
    fn read(node: &Node) -> Self {
        let mut conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let ready = conditions.rfind(|condition| condition.type_ == "Ready");
        let mut conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let full = conditions.find(|condition| condition.type_ == FULL_CONDITION && condition.status == "True");
        let addresses = || node.status.iter().flat_map(|status| status.addresses.iter().flatten());
        let internal = addresses().find(|address| address.type_ == "InternalIP");
        let own = addresses().filter(|address| matches!(&*address.type_, "InternalIP" | "ExternalIP"));
        let mut annotations = node.annotations().clone();
        annotations.retain(|key, _| key == NESTED_ANNOTATION || key == PARENT_PORT_ANNOTATION);
        Self {
            name: node.name_any(),
            ready: ready.is_some_and(|condition| condition.status == "True"),
            why: ready.and_then(|condition| condition.message.clone()).unwrap_or_default(),
            cordoned: node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false),
            host: Host::of(&node.name_any(), node.annotations().get(HOST_ANNOTATION).map(String::as_str)),
            address: internal.and_then(|address| address.address.parse().ok()),
            annotations,
            provider_id: node.spec.as_ref().and_then(|spec| spec.provider_id.clone()),
            addresses: own.filter_map(|address| address.address.parse().ok()).collect(),
            full: full.map(|condition| condition.message.clone().unwrap_or_default()),
        }
    }

    /// The virtual machine that it is, where those that say nothing are plugged as `default`.
    pub(crate) fn machine(&self, default: Option<PlugDriver>) -> Result<Option<Machine>, MachineError> {
        Machine::read(&self.annotations, default, self.provider_id.as_deref(), self.addresses.iter().copied())
    }
}

/// A custom resource of which not even Kuryr can make sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable {
    pub(crate) key: ObjectKey,
    pub(crate) why: String,
}

impl Unreadable {
    /// What a person can do about it.
    pub(crate) const FIX: &str =
        "nobody acts on it: put it right, or delete it; then what belongs to it is found again and gets a new one";
    /// The same for a `KuryrLoadBalancer`, of which nobody takes the finalizer away.
    pub(crate) const FIX_BALANCER: &str = "nobody acts on it: put it right, or delete it and take its finalizers away; the \
        controller makes a new one, and finds what belongs to it by its mark";
}

/// All objects of one of Kuryr's own kinds. One that cannot be read hides no other.
pub(crate) async fn guarded<K>(client: &Client) -> anyhow::Result<(Vec<K>, Vec<Unreadable>)>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let all = Api::<DeserializeGuard<K>>::all(client.clone()).list(&ListParams::default()).await;
    let kind = K::kind(&());
    let all =
        all.with_context(|| format!("{kind}s cannot be listed (are the definitions applied? kuryr crds --apply)"))?;
    let (mut good, mut unreadable) = (Vec::new(), Vec::new());
    for object in all {
        let key = ObjectKey::of(&object);
        match object.0 {
            Ok(object) => good.push(object),
            Err(invalid) => unreadable.push(Unreadable { key, why: invalid.error }),
        }
    }
    Ok((good, unreadable))
}

/// Why a `KuryrPort` is on its way out for longer than that should take, and what to do.
pub(crate) fn overdue(now: Timestamp, port: &KuryrPort) -> Option<(String, &'static str)> {
    let since = now.duration_since(port.metadata.deletion_timestamp.as_ref()?.0);
    if since < LONGEST_DELETION {
        return None;
    }
    let (why, fix) = match port.attachment_state() {
        Some(AttachmentState::Released) => {
            ("its node has released it".to_owned(), "the controller deletes its port; if it does not: kuryr status")
        }
        Some(AttachmentState::Attached) | None => (
            format!("node {} has not released it", port.spec.node_name),
            "start the daemon of the node, or delete the Node if it is gone for good",
        ),
    };
    Some((format!("has been on its way out for {} s: {why}", since.as_secs()), fix))
}

/// The cluster as read in one go.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClusterView {
    pub(crate) pods: Vec<PodView>,
    pub(crate) nodes: Vec<NodeView>,
    pub(crate) kuryr_ports: Vec<KuryrPort>,
    /// Those of which nothing but the name is known.
    pub(crate) unreadable: Vec<Unreadable>,
}

impl ClusterView {
    /// Lists what there is.
    pub(crate) async fn read(client: &Client) -> anyhow::Result<Self> {
        let all = ListParams::default();
        let pods = Api::<Pod>::all(client.clone()).list(&all).await.context("pods cannot be listed")?;
        let nodes = Api::<Node>::all(client.clone()).list(&all).await.context("nodes cannot be listed")?;
        let (kuryr_ports, unreadable) = guarded::<KuryrPort>(client).await?;
        let view = Self {
            pods: pods.iter().filter_map(PodView::read).collect(),
            nodes: nodes.iter().map(NodeView::read).collect(),
            kuryr_ports,
            unreadable,
        };
        Ok(view)
    }

    /// The pod of this name and its `KuryrPort`, as far as there are any.
    pub(crate) async fn read_one(client: &Client, key: &ObjectKey) -> anyhow::Result<Self> {
        let pod = Api::<Pod>::namespaced(client.clone(), &key.namespace).get_opt(&key.name).await;
        let ports = Api::<DeserializeGuard<KuryrPort>>::namespaced(client.clone(), &key.namespace);
        let mut view = Self::default();
        if let Some(DeserializeGuard(port)) = ports.get_opt(&key.name).await? {
            match port {
                Ok(port) => view.kuryr_ports.push(port),
                Err(invalid) => view.unreadable.push(Unreadable { key: key.clone(), why: invalid.error }),
            }
        }
        view.pods.extend(pod?.as_ref().and_then(PodView::read));
        Ok(view)
    }

    /// Why the `KuryrPort` of this name cannot be read, if there is one that cannot.
    pub(crate) fn unreadable(&self, key: &ObjectKey) -> Option<&Unreadable> {
        self.unreadable.iter().find(|unreadable| unreadable.key == *key)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    /// A bound pod `default/<name>` with UID `uid-<name>` on node `n1`.
    pub(crate) fn pod(name: &str) -> PodView {
        PodView {
            key: ObjectKey::new("default", name),
            uid: format!("uid-{name}").into(),
            node: Some("n1".into()),
            host_network: false,
            completed: false,
            deleting: false,
            addresses: vec![],
            bound: None,
        }
    }

    /// A node that is ready, at 192.0.2.1 and with the host `host-1`.
    pub(crate) fn node(name: &str) -> NodeView {
        NodeView {
            name: name.into(),
            ready: true,
            why: String::new(),
            cordoned: false,
            host: Host::of(name, Some("host-1")),
            address: "192.0.2.1".parse().ok(),
            annotations: BTreeMap::new(),
            provider_id: None,
            addresses: "192.0.2.1".parse().into_iter().collect(),
            full: None,
        }
    }

    /// The `KuryrPort` of that pod, with port number `port` and the address 10.0.0.`port`; without port: with none.
    pub(crate) fn kuryr_port(name: &str, port: Option<u8>) -> KuryrPort {
        let vifs = port.map(|n| {
            json!({
                "interface": "eth0", "portId": port_id(n), "networkId": network_id(), "mac": format!("fa:16:3e:00:00:{n:02x}"),
                "mtu": 1442, "addresses": [{"ip": format!("10.0.0.{n}"), "prefixLength": 24}], "plug": {"driver": "ovs"},
            })
        });
        let vifs: Vec<_> = vifs.into_iter().collect();
        serde_json::from_value(json!({
            "apiVersion": "kuryr.openstack.org/v1", "kind": "KuryrPort",
            "metadata": {"namespace": "default", "name": name, "uid": format!("kp-{name}")},
            "spec": {"podUid": format!("uid-{name}"), "nodeName": "n1", "vifs": vifs},
        }))
        .unwrap()
    }

    pub(crate) fn port_id(n: u8) -> String {
        format!("00000000-0000-4000-8000-0000000000{n:02x}")
    }

    pub(crate) fn network_id() -> String {
        "00000000-0000-4000-8000-00000000ffff".to_owned()
    }

    #[test]
    fn a_pod_is_read_as_far_as_it_matters() {
        let value = json!({
            "metadata": {"namespace": "a", "name": "b", "uid": "u", "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"containers": [], "nodeName": "n", "hostNetwork": true},
            "status": {"phase": "Failed", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}], "conditions": [
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
        });
        let pod = PodView::read(&serde_json::from_value(value).unwrap()).unwrap();
        assert!(pod.host_network && pod.completed && pod.deleting && !pod.wants_ports());
        assert_eq!((pod.addresses.len(), pod.bound.is_some()), (2, true));
        assert_eq!(PodView::read(&serde_json::from_value(json!({"metadata": {}})).unwrap()), None);
    }

    #[test]
    fn a_node_has_the_host_that_its_annotation_says() {
        let value = json!({
            "metadata": {"name": "n", "annotations": {"kuryr.openstack.org/host": "n.example"}},
            "status": {
                "conditions": [{"type": "Ready", "status": "False", "message": "no CNI"}],
                "addresses": [{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "192.0.2.1"}],
            },
        });
        let read = NodeView::read(&serde_json::from_value(value).unwrap());
        assert_eq!(
            read,
            NodeView { ready: false, why: "no CNI".into(), host: Host::of("n", Some("n.example")), ..node("n") }
        );
    }
}

//! Objects as the API server sends them, read only as far as the controller looks at them.
//!
//! Most of a pod is of no concern here, and most of every object's metadata says who changed what. Read in full, a list of
//! ten thousand costs hundreds of megabytes for a moment and seconds to begin with; what is left out here is skipped in
//! the answer's text.

use crate::policy::PodFacts;
use k8s_openapi::{
    api::core::v1::{Node as KubeNode, Pod as KubePod},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{Resource, ResourceExt, api::ObjectMeta};
use kuryr_model::{
    FULL_CONDITION, FULL_TAINT, HOST_ANNOTATION, Host, KuryrPort, KuryrPortSpec, NESTED_ANNOTATION, ObjectKey,
    PARENT_PORT_ANNOTATION, PodUid, PortId, kuryr_port::KuryrPortStatus,
};
use kuryr_plan::{
    fullness::Notice,
    pod::{Pod, out_of_service},
    policy::{NamedPort, containers, named_port},
};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    marker::PhantomData,
    net::IpAddr,
};

/// A `K` of which spec and status are read as `S` and `T`.
#[derive(Clone, Debug, Deserialize)]
#[serde(bound(deserialize = "S: Deserialize<'de>, T: Deserialize<'de>"))]
pub(crate) struct Lean<K, S, T> {
    #[serde(deserialize_with = "metadata")]
    metadata: ObjectMeta,
    spec: Option<S>,
    status: Option<T>,
    #[serde(skip)]
    kind: PhantomData<fn() -> K>,
}

/// A pod.
pub(crate) type LeanPod = Lean<KubePod, PodSpec, PodStatus>;

/// A `KuryrPort` of which spec and status may be anything: somebody may have written them by hand, and one that cannot be
/// read must not make the whole list unreadable.
pub(crate) type LeanPort = Lean<KuryrPort, Value, Value>;

/// A node.
pub(crate) type LeanNode = Lean<KubeNode, NodeSpec, NodeStatus>;

/// A `KuryrPort` that cannot be read: somebody wrote it by hand, or with another version of the definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OddPort {
    pub(crate) key: ObjectKey,
    pub(crate) uid: String,
    pub(crate) resource_version: Option<String>,
    pub(crate) finalizers: Vec<String>,
    pub(crate) deleting: bool,
    /// The ids of its ports, as far as they can be read.
    pub(crate) ports: Vec<PortId>,
    /// What is wrong with it.
    pub(crate) why: String,
}

/// What matters of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeState {
    pub(crate) name: String,
    /// What Neutron calls it.
    pub(crate) host: Host,
    /// What it says of itself as a virtual machine.
    pub(crate) said: Said,
    /// The addresses from which it speaks to its pods.
    pub(crate) addresses: BTreeSet<IpAddr>,
    /// Nothing on it will say anything any more.
    pub(crate) out_of_service: bool,
    /// No pods are scheduled to it, so no ports need be ready for any.
    pub(crate) cordoned: bool,
    /// What it says of how full it is.
    pub(crate) notice: Notice,
    /// Which of its states this is.
    pub(crate) version: Option<u64>,
}

/// What a node says that may be a virtual machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) annotations: BTreeMap<String, String>,
    /// What its cloud calls it.
    pub(crate) provider_id: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct NodeSpec {
    #[serde(default)]
    taints: Vec<Taint>,
    #[serde(rename = "providerID")]
    provider_id: Option<String>,
    #[serde(default)]
    unschedulable: bool,
}

#[derive(Clone, Debug, Deserialize)]
struct Taint {
    key: String,
    #[serde(default)]
    effect: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct NodeStatus {
    #[serde(default)]
    conditions: Vec<NodeCondition>,
    #[serde(default)]
    addresses: Vec<NodeAddress>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct NodeAddress {
    #[serde(rename = "type")]
    kind: String,
    address: String,
}

impl NodeAddress {
    /// The address, if the node speaks from it.
    pub(crate) fn own(&self) -> Option<IpAddr> {
        matches!(&*self.kind, "InternalIP" | "ExternalIP").then(|| self.address.parse().ok()).flatten()
    }
}

#[derive(Clone, Debug, Deserialize)]
struct NodeCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    message: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PodSpec {
    node_name: Option<String>,
    host_network: Option<bool>,
    #[serde(default)]
    containers: Vec<Container>,
    #[serde(default)]
    init_containers: Vec<Container>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    #[serde(default)]
    ports: Vec<ContainerPort>,
    restart_policy: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerPort {
    name: Option<String>,
    protocol: Option<String>,
    container_port: i32,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct PodStatus {
    phase: Option<String>,
}

/// Reads metadata without its larger half.
fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        generation: Option<i64>,
        deletion_timestamp: Option<Time>,
        finalizers: Option<Vec<String>>,
        labels: Option<BTreeMap<String, String>>,
        annotations: Option<Annotations>,
    }
    // Of the others even the text is skipped.
    #[derive(Deserialize)]
    struct Annotations {
        #[serde(rename = "kuryr.openstack.org/host")]
        host: Option<String>,
        #[serde(rename = "kuryr.openstack.org/nested")]
        nested: Option<String>,
        #[serde(rename = "kuryr.openstack.org/parent-port")]
        parent_port: Option<String>,
    }
    let Metadata {
        name,
        namespace,
        uid,
        resource_version,
        generation,
        deletion_timestamp,
        finalizers,
        labels,
        annotations,
    } = Metadata::deserialize(deserializer)?;
    let annotations = annotations.map(|Annotations { host, nested, parent_port }| {
        let all = [(HOST_ANNOTATION, host), (NESTED_ANNOTATION, nested), (PARENT_PORT_ANNOTATION, parent_port)];
        all.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    });
    let annotations = annotations.filter(|annotations: &BTreeMap<_, _>| !annotations.is_empty());
    let rest = ObjectMeta { annotations, ..ObjectMeta::default() };
    Ok(ObjectMeta {
        name,
        namespace,
        uid,
        resource_version,
        generation,
        deletion_timestamp,
        finalizers,
        labels,
        ..rest
    })
}

impl<K: Resource, S, T> Resource for Lean<K, S, T> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dt: &K::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }

    fn group(dt: &K::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }

    fn version(dt: &K::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }

    fn plural(dt: &K::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl<K, S, T> Lean<K, S, T> {
    /// What was read.
    pub(crate) fn into_parts(self) -> (ObjectMeta, Option<S>, Option<T>) {
        (self.metadata, self.spec, self.status)
    }

    /// Its status.
    pub(crate) fn into_status(self) -> Option<T> {
        self.status
    }
}

impl LeanNode {
    /// What matters of it.
    ///
    /// # Errors
    /// None: a node always has a name.
    pub(crate) fn read(mut self) -> Result<NodeState, String> {
        let name = self.name_any();
        let mut annotations = self.metadata.annotations.take().unwrap_or_default();
        let host = Host::of(&name, annotations.remove(HOST_ANNOTATION).as_deref());
        let (conditions, addresses) =
            self.status.map(|status| (status.conditions, status.addresses)).unwrap_or_default();
        let addresses = addresses.iter().filter_map(NodeAddress::own).collect();
        let ready = conditions.iter().any(|condition| condition.kind == "Ready" && condition.status == "True");
        let NodeSpec { taints, provider_id, unschedulable: cordoned } = self.spec.unwrap_or_default();
        let out_of_service = out_of_service(ready, taints.iter().map(|taint| &*taint.key));
        let said = Said { annotations, provider_id };
        let ours = conditions.into_iter().find(|condition| condition.kind == FULL_CONDITION);
        let condition = ours.map(|ours| (ours.status == "True", ours.message.unwrap_or_default()));
        let tainted = taints.iter().any(|taint| taint.key == FULL_TAINT && taint.effect == "NoSchedule");
        let notice = Notice { condition, tainted };
        let version = self.metadata.resource_version.as_deref().and_then(|version| version.parse().ok());
        Ok(NodeState { name, host, said, addresses, out_of_service, cordoned, notice, version })
    }
}

impl LeanPod {
    /// What matters of it, and what of it only policies look at.
    ///
    /// # Errors
    /// It has no UID, which no API server sends.
    pub(crate) fn read(mut self) -> Result<(Pod, PodFacts), String> {
        let key = ObjectKey::of(&self);
        let phase = self.status.and_then(|status| status.phase);
        let labels = self.metadata.labels.take().unwrap_or_default();
        let ports = self.spec.as_ref().map(named_ports).unwrap_or_default();
        let (node, host_network) = self.spec.map(|spec| (spec.node_name, spec.host_network)).unwrap_or_default();
        let pod = Pod {
            key,
            uid: PodUid(self.metadata.uid.ok_or("it has no UID")?),
            node: node.filter(|node| !node.is_empty()),
            host_network: host_network.unwrap_or(false),
            completed: matches!(phase.as_deref(), Some("Succeeded" | "Failed")),
            deleting: self.metadata.deletion_timestamp.is_some(),
        };
        Ok((pod, PodFacts { labels, ports }))
    }
}

fn named_ports(spec: &PodSpec) -> Vec<NamedPort> {
    let init = spec.init_containers.iter().map(|container| (container.restart_policy.as_deref(), container));
    let ports = containers(spec.containers.iter(), init).flat_map(|container| &container.ports);
    ports.filter_map(|port| named_port(port.name.as_deref(), port.protocol.as_deref(), port.container_port)).collect()
}

/// The ids of ports in the spec of a `KuryrPort`, where they are as they should be.
fn some_ports(spec: &Value) -> Vec<PortId> {
    let vifs = spec["vifs"].as_array().into_iter().flatten();
    vifs.filter_map(|vif| vif["portId"].as_str()?.parse().ok()).collect()
}

impl LeanPort {
    /// The object, or what is known of one that cannot be read.
    ///
    /// # Errors
    /// None: every object has a name.
    pub(crate) fn sort(self) -> Result<Result<KuryrPort, OddPort>, String> {
        let mut odd = OddPort {
            key: ObjectKey::of(&self),
            uid: self.metadata.uid.clone().unwrap_or_default(),
            resource_version: self.metadata.resource_version.clone(),
            finalizers: self.metadata.finalizers.clone().unwrap_or_default(),
            deleting: self.metadata.deletion_timestamp.is_some(),
            ports: self.spec.as_ref().map(some_ports).unwrap_or_default(),
            why: String::new(),
        };
        Ok(self.read().map_err(|why| {
            odd.why = why;
            odd
        }))
    }

    /// The object, with as much of its metadata as was read.
    ///
    /// # Errors
    /// Its spec or its status is not what the definition says.
    pub(crate) fn read(self) -> Result<KuryrPort, String> {
        let spec: KuryrPortSpec =
            serde_json::from_value(self.spec.unwrap_or_default()).map_err(|error| format!("spec: {error}"))?;
        let status: Option<KuryrPortStatus> =
            self.status.map(serde_json::from_value).transpose().map_err(|error| format!("status: {error}"))?;
        Ok(KuryrPort { metadata: self.metadata, spec, status })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(value: Value) -> Result<Pod, String> {
        serde_json::from_value::<LeanPod>(value).unwrap().read().map(|(pod, _)| pod)
    }

    #[test]
    fn a_pod_is_read_as_far_as_it_matters() {
        let read = pod(json!({
            "metadata": {
                "namespace": "a", "name": "x", "uid": "p", "deletionTimestamp": "2026-01-01T00:00:00Z",
                "managedFields": [{"fieldsV1": {"f:spec": {}}}], "labels": {"colour": "red"},
            },
            "spec": {"containers": [{"name": "main"}], "nodeName": "node0", "hostNetwork": true},
            "status": {"phase": "Failed", "conditions": []},
        }));
        let key = ObjectKey::new("a", "x");
        let node = Some("node0".to_owned());
        assert_eq!(read, Ok(Pod { key, uid: "p".into(), node, host_network: true, completed: true, deleting: true }));
    }

    #[test]
    fn policies_see_labels_and_named_ports_of_what_goes_on_running() {
        let value = json!({
            "metadata": {"namespace": "a", "name": "x", "uid": "p", "labels": {"colour": "red"}},
            "spec": {
                "initContainers": [
                    {"name": "once", "ports": [{"name": "setup", "containerPort": 1}]},
                    {"name": "side", "restartPolicy": "Always", "ports": [{"name": "metrics", "containerPort": 9090}]},
                ],
                "containers": [
                    {"name": "main", "ports": [{"name": "dns", "containerPort": 53, "protocol": "UDP"}, {"containerPort": 80}]},
                ],
            },
        });
        let (_, facts) = serde_json::from_value::<LeanPod>(value).unwrap().read().unwrap();
        assert_eq!(facts.labels, [("colour".to_owned(), "red".to_owned())].into());
        let ports: Vec<String> = facts.ports.iter().map(ToString::to_string).collect();
        assert_eq!(ports, ["dns/UDP=53", "metrics/TCP=9090"]);
    }

    #[test]
    fn a_pod_that_is_not_scheduled_has_no_node() {
        for spec in [json!({"containers": []}), json!({"containers": [], "nodeName": ""})] {
            let read = pod(json!({"metadata": {"namespace": "a", "name": "x", "uid": "p"}, "spec": spec})).unwrap();
            assert_eq!((read.node, read.host_network, read.completed, read.deleting), (None, false, false, false));
        }
        assert!(pod(json!({"metadata": {"name": "x"}})).is_err());
    }

    #[test]
    fn a_node_has_its_host_and_may_be_out_of_service() {
        let read = |value: Value| serde_json::from_value::<LeanNode>(value).unwrap().read().unwrap();
        let plain = read(json!({"metadata": {"name": "n", "annotations": {"other": "x"}}}));
        let (addresses, said) = (BTreeSet::new(), Said::default());
        let host = Host::of("n", None);
        assert_eq!(
            plain,
            NodeState {
                name: "n".into(),
                host,
                said,
                addresses,
                out_of_service: false,
                cordoned: false,
                notice: Notice::default(),
                version: None,
            }
        );
        let lost = read(json!({
            "metadata": {
                "name": "n", "resourceVersion": "7",
                "annotations": {(HOST_ANNOTATION): "compute-1", (NESTED_ANNOTATION): "vlan", "other": "x"},
            },
            "spec": {"providerID": "openstack:///srv", "taints": [
                {"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}, {"key": FULL_TAINT, "effect": "NoSchedule"},
            ]},
            "status": {
                "conditions": [
                    {"type": "Ready", "status": "Unknown"}, {"type": FULL_CONDITION, "status": "True", "message": "why"},
                ],
                "addresses": [{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "192.0.2.7"}],
            },
        }));
        let addresses = ["192.0.2.7".parse().unwrap()].into();
        let host = Host::of("n", Some("compute-1"));
        let annotations = [(NESTED_ANNOTATION.to_owned(), "vlan".to_owned())].into();
        let said = Said { annotations, provider_id: Some("openstack:///srv".into()) };
        let notice = Notice { condition: Some((true, "why".to_owned())), tainted: true };
        let (out_of_service, cordoned, version) = (true, false, Some(7));
        assert_eq!(
            lost,
            NodeState { name: "n".into(), host, said, addresses, out_of_service, cordoned, notice, version }
        );
    }

    #[test]
    fn a_kuryr_port_keeps_what_its_writers_need() {
        let value = json!({
            "apiVersion": "kuryr.openstack.org/v1", "kind": "KuryrPort",
            "metadata": {
                "namespace": "a", "name": "x", "uid": "u", "resourceVersion": "7", "generation": 2, "finalizers": ["f"],
                "managedFields": [{"manager": "kuryr"}],
            },
            "spec": {"podUid": "p", "nodeName": "node0", "vifs": []},
            "status": {"attachment": {"state": "Released", "since": "2026-01-01T00:00:00Z"}},
        });
        let mut whole: KuryrPort = serde_json::from_value(value.clone()).unwrap();
        whole.metadata.managed_fields = None;
        assert_eq!(serde_json::from_value::<LeanPort>(value).unwrap().read(), Ok(whole));
    }

    #[test]
    fn one_that_cannot_be_read_still_has_a_name() {
        let value = json!({"metadata": {"namespace": "a", "name": "x", "uid": "u"}, "spec": {"podUid": 7}});
        let port: LeanPort = serde_json::from_value(value).unwrap();
        assert_eq!(port.name_any(), "x");
        let odd = port.sort().unwrap().unwrap_err();
        assert_eq!((odd.key, &*odd.uid, odd.deleting), (ObjectKey::new("a", "x"), "u", false));
        assert!(odd.why.starts_with("spec: "), "{}", odd.why);
    }
}

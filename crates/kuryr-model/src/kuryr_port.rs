//! `KuryrPort`: what connects a pod to its Neutron ports, and the controller to the node.
//!
//! ```text
//!  controller: creates it with the VIFs in its spec ─▶ daemon: plugs, says Attached
//!  pod gone:   deletes it, the finalizer holds it   ─▶ daemon: unplugged for good, says Released
//!  controller: deletes the Neutron port, drops the finalizer
//! ```
//!
//! The controller alone writes `spec` and `status.conditions`, the daemon of the pod's node alone
//! `status.attachment`. A `KuryrPort` has its pod's name and is owned by it.

use crate::{ObjectKey, PodUid, PortId, Vif};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The network interfaces of one pod: one Neutron port each, with all that its node must know to plug them.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "kuryr.openstack.org",
    version = "v1",
    kind = "KuryrPort",
    plural = "kuryrports",
    shortname = "kp",
    category = "kuryr",
    namespaced,
    status = "KuryrPortStatus",
    derive = "PartialEq",
    selectable = ".spec.nodeName",
    printcolumn = r#"{"name":"Node","type":"string","jsonPath":".spec.nodeName"}"#,
    printcolumn = r#"{"name":"IP","type":"string","jsonPath":".spec.vifs[0].addresses[0].ip"}"#,
    printcolumn = r#"{"name":"State","type":"string","jsonPath":".status.attachment.state"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Allocated\")].reason"}"#,
    printcolumn = r#"{"name":"IP 2","type":"string","jsonPath":".spec.vifs[0].addresses[1].ip","priority":1}"#,
    printcolumn = r#"{"name":"Port","type":"string","jsonPath":".spec.vifs[0].portId","priority":1}"#,
    printcolumn = r#"{"name":"MAC","type":"string","jsonPath":".spec.vifs[0].mac","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    doc = "The network interfaces of one pod, made by Kuryr: one Neutron port each, with all that the pod's node must know to plug them. Do not edit."
)]
#[serde(rename_all = "camelCase")]
pub struct KuryrPortSpec {
    /// The pod that the ports are for; a pod recreated under the same name has another UID.
    pub pod_uid: PodUid,
    /// The node that the pod is bound to.
    pub node_name: String,
    /// The pod's interfaces, the one with the default route first. Empty while no port could be allocated: the
    /// condition `Allocated` says why.
    #[serde(default)]
    pub vifs: Vec<Vif>,
}

/// What has become of the ports.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KuryrPortStatus {
    /// What the node has done; absent until the pod's sandbox is started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachment: Option<Attachment>,
    /// What the controller has to say. `Allocated` is only written when allocation failed, and after it succeeded at last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// The node's side of a pod's ports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// How far the node is.
    pub state: AttachmentState,
    /// The sandbox that holds the interfaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// Since when.
    pub since: Time,
}

/// How far a node is with a pod's ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AttachmentState {
    /// The interfaces are in the pod and the data plane has them.
    Attached,
    /// The `KuryrPort` is being deleted, no sandbox on the node uses its ports, and none will: an ADD for it is refused.
    Released,
}

/// The condition that says whether the pod has its ports.
pub const CONDITION_ALLOCATED: &str = "Allocated";

impl KuryrPort {
    /// Namespace and name, which are those of its pod.
    #[must_use]
    pub fn key(&self) -> ObjectKey {
        ObjectKey::of(self)
    }

    /// Whether it is being deleted.
    #[must_use]
    pub fn deleting(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    /// The ids of its Neutron ports.
    pub fn port_ids(&self) -> impl Iterator<Item = PortId> {
        self.spec.vifs.iter().map(|vif| vif.port_id)
    }

    /// Whether one of its interfaces has no port of its own in the switch, so that no security group is the pod's alone.
    #[must_use]
    pub fn shares_port(&self) -> bool {
        self.spec.vifs.iter().any(|vif| vif.plug.driver.shares_port())
    }

    /// How far the node is.
    #[must_use]
    pub fn attachment_state(&self) -> Option<AttachmentState> {
        self.status.as_ref()?.attachment.as_ref().map(|attachment| attachment.state)
    }

    /// Why the pod has no ports, in words, if the controller has said so.
    #[must_use]
    pub fn unallocated_reason(&self) -> Option<&Condition> {
        let conditions = &self.status.as_ref()?.conditions;
        conditions.iter().find(|condition| condition.type_ == CONDITION_ALLOCATED && condition.status == "False")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::CustomResourceExt;

    #[test]
    fn the_custom_resource_definition_is_as_documented() {
        insta::assert_json_snapshot!(KuryrPort::crd());
    }
}

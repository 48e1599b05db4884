//! `KuryrNetworkPolicy`: what Kuryr made of a NetworkPolicy in Neutron, for people and tools.
//!
//! ```text
//!  controller: creates it ─▶ makes groups and rules, changes ports ─▶ tells in the status what holds
//!  NetworkPolicy gone: the API server deletes it; groups are found by their tags and deleted, whatever it said
//! ```
//!
//! The controller alone writes it, and nothing depends on it: one that is deleted by hand is made anew. It has its
//! NetworkPolicy's name and is owned by it. It needs no finalizer.

use crate::{
    ObjectKey, PolicyUid, SecurityGroupId,
    told::{Problem, ready},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The most names of pods, groups and peer sets that a status lists; the counts are of all.
pub const LISTED: usize = 20;

/// The security groups of one NetworkPolicy.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "kuryr.openstack.org",
    version = "v1",
    kind = "KuryrNetworkPolicy",
    plural = "kuryrnetworkpolicies",
    shortname = "knp",
    category = "kuryr",
    namespaced,
    status = "KuryrNetworkPolicyStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Pods","type":"integer","jsonPath":".status.selectedPods"}"#,
    printcolumn = r#"{"name":"Rules","type":"integer","jsonPath":".status.rules"}"#,
    printcolumn = r#"{"name":"Peers","type":"integer","jsonPath":".status.peers"}"#,
    printcolumn = r#"{"name":"Isolates","type":"string","jsonPath":".status.isolates"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name":"Applied","type":"integer","jsonPath":".status.appliedGeneration","priority":1}"#,
    printcolumn = r#"{"name":"Group","type":"string","jsonPath":".status.groups[0].id","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    doc = "What Kuryr made of one NetworkPolicy in Neutron: security groups, rules and peer sets, and whether they hold. Do not edit."
)]
#[serde(rename_all = "camelCase")]
pub struct KuryrNetworkPolicySpec {
    /// The NetworkPolicy; one recreated under the same name has another UID.
    pub policy_uid: PolicyUid,
}

/// What holds of the policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KuryrNetworkPolicyStatus {
    /// The last `metadata.generation` of the NetworkPolicy of which everything held in Neutron.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied_generation: Option<i64>,
    /// In which directions it isolates: `Ingress`, `Egress` or `Ingress,Egress`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub isolates: String,
    /// How many pods it isolates.
    #[serde(default)]
    pub selected_pods: u32,
    /// How many rules its groups have.
    #[serde(default)]
    pub rules: u32,
    /// How many pods its rules name as peers; one that several of its peer sets have counts once for each.
    #[serde(default)]
    pub peers: u32,
    /// The names of the pods that it isolates, the first [`LISTED`] of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<String>,
    /// Its security groups, the first [`LISTED`] of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupRef>,
    /// The peer sets that its rules name, the first [`LISTED`] of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peer_sets: Vec<PeerSetRef>,
    /// What of the policy is not done as it asks, or is surely not meant, while the rest of it holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
    /// `Ready` says whether all of it holds, and why not. While it is `False`, pods that lack something of it are closed, not open,
    /// but with the reason `NotEnforced`: it then selects pods for which no policy can hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A security group of the policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GroupRef {
    /// Its name in Neutron.
    pub name: String,
    /// Its id; absent while it is not made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<SecurityGroupId>,
    /// How many rules it is to have.
    pub rules: u32,
}

/// A peer set that the policy's rules name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PeerSetRef {
    /// Who, like `shop{app=web}`: pods of a namespace by their labels.
    pub peers: String,
    /// How many pods that are.
    pub pods: u32,
    /// The security group that they carry; absent while it is not made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<SecurityGroupId>,
}

impl KuryrNetworkPolicy {
    /// Namespace and name, which are those of its NetworkPolicy.
    #[must_use]
    pub fn key(&self) -> ObjectKey {
        ObjectKey::of(self)
    }

    /// Whether it is being deleted.
    #[must_use]
    pub fn deleting(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    /// The condition `Ready`.
    #[must_use]
    pub fn ready(&self) -> Option<&Condition> {
        ready(&self.status.as_ref()?.conditions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::CustomResourceExt;

    #[test]
    fn the_custom_resource_definition_is_as_documented() {
        insta::assert_json_snapshot!(KuryrNetworkPolicy::crd());
    }

    #[test]
    fn a_status_without_anything_reads() {
        let status: KuryrNetworkPolicyStatus = serde_json::from_str("{}").unwrap();
        assert_eq!(status, KuryrNetworkPolicyStatus::default());
    }
}

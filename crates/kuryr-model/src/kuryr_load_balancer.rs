//! `KuryrLoadBalancer`: what Kuryr made of a Service in Octavia, for people, and a hold on it when the Service goes.
//!
//! ```text
//!  controller: creates it ─▶ makes the load balancer, tells its state in the status
//!  Service gone: the API server deletes it, the finalizer holds it
//!  controller: deletes load balancer and floating IP, drops the finalizer
//! ```
//!
//! The controller alone writes it. It has its Service's name and is owned by it. The truth is in Octavia, found by tags:
//! one that is deleted by hand is made anew, and nothing that it says is trusted without a look.

use crate::{
    FloatingIpId, ListenerId, ListenerPoolId, LoadBalancerId, ObjectKey, PortId, ServiceUid,
    lb::{Protocol, Provisioning},
    told::{Problem, ready},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// The load balancer of one Service.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "kuryr.openstack.org",
    version = "v1",
    kind = "KuryrLoadBalancer",
    plural = "kuryrloadbalancers",
    shortname = "klb",
    category = "kuryr",
    namespaced,
    status = "KuryrLoadBalancerStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Provider","type":"string","jsonPath":".status.provider"}"#,
    printcolumn = r#"{"name":"VIP","type":"string","jsonPath":".status.vips[0]"}"#,
    printcolumn = r#"{"name":"External","type":"string","jsonPath":".status.external[0]"}"#,
    printcolumn = r#"{"name":"State","type":"string","jsonPath":".status.state"}"#,
    printcolumn = r#"{"name":"Members","type":"string","jsonPath":".status.members.summary"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name":"Load Balancer","type":"string","jsonPath":".status.loadBalancers[0].id","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    doc = "What Kuryr made of one Service in Octavia: its load balancer with addresses, state and members. Do not edit."
)]
#[serde(rename_all = "camelCase")]
pub struct KuryrLoadBalancerSpec {
    /// The Service that the load balancer is for; one recreated under the same name has another UID.
    pub service_uid: ServiceUid,
}

/// What has become of the load balancer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KuryrLoadBalancerStatus {
    /// Who carries it out, such as `amphora`, `ovn`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub provider: String,
    /// The addresses at which it serves within the cloud, the Service's cluster IPs first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vips: Vec<IpAddr>,
    /// The addresses at which it serves from outside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub external: Vec<IpAddr>,
    /// The floating IP among them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floating_ip_id: Option<FloatingIpId>,
    /// How far it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<LoadBalancerState>,
    /// Who is behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<Members>,
    /// The load balancers in Octavia: that of the cluster IPs, then that of another address that annotations ask for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub load_balancers: Vec<LoadBalancerRef>,
    /// A digest of all members as they were last applied: after a restart it saves reading them one listener pool after
    /// the other.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub applied: String,
    /// What the Service asks for and does not get, while the rest of it works.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
    /// `Ready` says whether all of it is as the Service asks, and why not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// How far a load balancer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum LoadBalancerState {
    /// Not made yet, or Octavia is at work on it.
    Pending,
    /// It is as the Service asks.
    Active,
    /// It cannot be brought there: the condition `Ready` says why.
    Error,
    /// It is being deleted.
    Deleting,
}

impl LoadBalancerState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Active, Self::Error, Self::Deleting];

    /// The word that the status has.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Active => "Active",
            Self::Error => "Error",
            Self::Deleting => "Deleting",
        }
    }
}

/// How many endpoints are behind a load balancer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Members {
    /// Those that get new connections.
    pub ready: u32,
    /// All of the Service's endpoints.
    pub total: u32,
    /// `<ready>/<total>`, for people.
    pub summary: String,
}

impl Members {
    /// So many of so many.
    #[must_use]
    pub fn new(ready: u32, total: u32) -> Self {
        Self { ready, total, summary: format!("{ready}/{total}") }
    }
}

/// One load balancer in Octavia.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancerRef {
    /// Its id.
    pub id: LoadBalancerId,
    /// It was named by an annotation: only what Kuryr added to it is changed, and it is never deleted.
    #[serde(default)]
    pub shared: bool,
    /// Octavia's word for how far it is.
    #[serde(default)]
    #[schemars(with = "String")]
    pub provisioning_status: Provisioning,
    /// The port that has its addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vip_port_id: Option<PortId>,
    /// Its listeners, by port number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<ListenerRef>,
}

/// One listener in Octavia.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListenerRef {
    /// What it speaks.
    #[schemars(with = "String")]
    pub protocol: Protocol,
    /// The port number that it listens on.
    pub port_number: u16,
    /// Its id.
    pub id: ListenerId,
    /// The listener pool that it sends to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_id: Option<ListenerPoolId>,
}

impl KuryrLoadBalancer {
    /// Namespace and name, which are those of its Service.
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
        insta::assert_json_snapshot!(KuryrLoadBalancer::crd());
    }

    #[test]
    fn a_status_without_anything_reads() {
        let status: KuryrLoadBalancerStatus = serde_json::from_str("{}").unwrap();
        assert_eq!(status, KuryrLoadBalancerStatus::default());
    }
}

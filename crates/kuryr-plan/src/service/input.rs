//! What matters of a Service and of its EndpointSlices.

use kuryr_model::{ObjectKey, ServiceUid, lb};
use std::{collections::BTreeMap, fmt, net::IpAddr};

/// What matters of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub key: ObjectKey,
    /// Its UID.
    pub uid: ServiceUid,
    /// `spec.type`.
    pub kind: Kind,
    /// `spec.clusterIPs`, the primary one first; empty for a headless one (`None`) and for an `ExternalName`.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.ports`.
    pub ports: Vec<ServicePort>,
    /// `spec.externalIPs`; what is no address is left out.
    pub external_ips: Vec<IpAddr>,
    /// `spec.loadBalancerIP`, as the user wrote it.
    pub load_balancer_ip: Option<String>,
    /// `spec.loadBalancerClass`.
    pub load_balancer_class: Option<String>,
    /// `spec.loadBalancerSourceRanges`, as the user wrote them.
    pub source_ranges: Vec<String>,
    /// `spec.externalTrafficPolicy`.
    pub external_policy: TrafficPolicy,
    /// `spec.internalTrafficPolicy`.
    pub internal_policy: TrafficPolicy,
    /// With `spec.sessionAffinity: ClientIP`: for how many seconds (`spec.sessionAffinityConfig.clientIP.timeoutSeconds`,
    /// 10800 unless set).
    pub session_affinity: Option<u32>,
    /// `spec.publishNotReadyAddresses`.
    pub publish_not_ready: bool,
    /// `spec.selector` is there, so Kubernetes itself makes the `EndpointSlice`s, be they empty.
    pub selector: bool,
    /// `spec.healthCheckNodePort`, where it counts: of a `LoadBalancer` whose external policy is `Local`.
    pub health_check_port: Option<u16>,
    /// `metadata.annotations`; only those of [`crate::service::annotations::ALL`] are looked at.
    pub annotations: BTreeMap<String, String>,
    /// It is being deleted.
    pub deleting: bool,
    /// `metadata.generation`, for conditions; 0 where the API server gives none.
    pub generation: i64,
}

/// `spec.type` of a Service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Reachable at its clusterIPs.
    #[default]
    ClusterIp,
    /// Also at a port number of every node.
    NodePort,
    /// Also from outside.
    LoadBalancer,
    /// Only a name in the DNS.
    ExternalName,
}

/// One of `spec.ports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name; empty if the Service has only one port.
    pub name: String,
    /// The transport protocol.
    pub transport: Transport,
    /// The port number at the clusterIPs.
    pub number: u16,
    /// The port number at the nodes, if one was allocated.
    pub node_port: Option<u16>,
}

/// A transport protocol, as Kubernetes knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Transport {
    /// Kubernetes' word for it, which is also Octavia's.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.protocol().as_str()
    }

    /// As a protocol of Octavia.
    #[must_use]
    pub fn protocol(self) -> lb::Protocol {
        match self {
            Self::Tcp => lb::Protocol::Tcp,
            Self::Udp => lb::Protocol::Udp,
            Self::Sctp => lb::Protocol::Sctp,
        }
    }

    /// What a protocol of Octavia is carried by.
    #[must_use]
    pub fn of(protocol: lb::Protocol) -> Self {
        match protocol {
            lb::Protocol::Udp => Self::Udp,
            lb::Protocol::Sctp => Self::Sctp,
            _ => Self::Tcp,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// That of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// Which endpoints traffic may go to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrafficPolicy {
    /// All of them.
    #[default]
    Cluster,
    /// Those of the node that the traffic comes to.
    Local,
}

/// What matters of an EndpointSlice of addresses (those of names, `FQDN`, are left out).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// Its ports; those without a number are left out. Two slices of a Service may give different numbers to one name,
    /// where a named target port differs between pods.
    pub ports: Vec<SlicePort>,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// A port of an EndpointSlice: belongs to the Service's port of the same name and transport protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// Name of the Service's port.
    pub name: String,
    /// The transport protocol.
    pub transport: Transport,
    /// The port number at the endpoints.
    pub number: u16,
}

/// One endpoint of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its first address; all of an endpoint's addresses are one and the same to Kubernetes.
    pub address: IpAddr,
    /// `conditions.ready`; unknown counts as ready.
    pub ready: bool,
    /// `conditions.serving`; unknown counts as [`Self::ready`].
    pub serving: bool,
    /// `conditions.terminating`; unknown counts as not.
    pub terminating: bool,
    /// `nodeName`.
    pub node: Option<String>,
    /// Name of the pod in `targetRef`, for people.
    pub pod: Option<String>,
}

//! The words of Kuryr as types.
//!
//! ```text
//!   Neutron answers ──▶ neutron::{Port, Network, Subnet, ...}     Octavia answers ──▶ lb::{LoadBalancer, Pool, ...}
//!                             │  kuryr-plan
//!                             ▼
//!   KuryrPort (a Kubernetes object) ── spec.vifs ──▶ Vif ──▶ the node plugs it
//!   KuryrLoadBalancer (another one): what became of a Service; KuryrNetworkPolicy: of a NetworkPolicy
//! ```
//!
//! Invariants: nothing here does IO or waits; every id has a type of its own, so that a port cannot be passed as
//! a subnet; what is written into Kubernetes or OpenStack by one process and read by another is defined here, once.

pub mod chain;
pub mod host;
pub mod ids;
pub mod key;
pub mod kuryr_load_balancer;
pub mod kuryr_network_policy;
pub mod kuryr_port;
pub mod lb;
pub mod mac;
pub mod mark;
pub mod neutron;
pub mod note;
pub mod segmentation;
pub mod told;
pub mod vif;

pub use chain::chain;
pub use host::Host;
pub use ids::{
    AddressGroupId, ClusterId, FlavorId, FloatingIpId, GroupDigest, HealthMonitorId, ListenerId, ListenerPoolId,
    LoadBalancerId, MemberId, NetworkId, PodUid, PolicyUid, PortId, ProjectId, RouterId, SecurityGroupId,
    SecurityGroupRuleId, ServiceUid, SubnetId, SubnetPoolId, TrunkId,
};
pub use key::ObjectKey;
pub use kuryr_load_balancer::{KuryrLoadBalancer, KuryrLoadBalancerSpec, KuryrLoadBalancerStatus};
pub use kuryr_network_policy::{KuryrNetworkPolicy, KuryrNetworkPolicySpec, KuryrNetworkPolicyStatus};
pub use kuryr_port::{KuryrPort, KuryrPortSpec, KuryrPortStatus};
pub use mac::MacAddress;
pub use mark::{Mark, Purpose};
pub use segmentation::SegmentationId;
pub use told::Problem;
pub use vif::{Parent, Plug, Vif, VifAddress, VifRoute};

/// The API group of Kuryr's custom resources, annotations and labels.
pub const GROUP: &str = "kuryr.openstack.org";

/// Set on a Node: the name under which Neutron knows it (`binding:host_id`), where that is not the node's name.
pub const HOST_ANNOTATION: &str = "kuryr.openstack.org/host";

/// Set on a Node that is a virtual machine: how its pods are plugged, as [`vif::PlugDriver::as_str`] names it.
pub const NESTED_ANNOTATION: &str = "kuryr.openstack.org/nested";

/// Set on such a Node: the id of the Neutron port that carries its pods, where it cannot be found by the Node's provider id or addresses.
pub const PARENT_PORT_ANNOTATION: &str = "kuryr.openstack.org/parent-port";

/// The condition of a Node that is a virtual machine: whether no further pod fits on it (`True`), as far as Neutron is concerned.
pub const FULL_CONDITION: &str = "kuryr.openstack.org/PortsExhausted";

/// The taint (`NoSchedule`) of a Node on which no further pod fits.
pub const FULL_TAINT: &str = "kuryr.openstack.org/full";

/// Kuryr's finalizer on its own `KuryrPort`s: holds the object until its Neutron port is deleted or back in a pool.
pub const PORT_FINALIZER: &str = "kuryr.openstack.org/port";

/// Kuryr's finalizer on its own `KuryrLoadBalancer`s: holds the object until load balancer and floating IP are deleted.
pub const LOAD_BALANCER_FINALIZER: &str = "kuryr.openstack.org/load-balancer";

/// `device_owner` of the ports that Kuryr makes for pods.
pub const DEVICE_OWNER: &str = "compute:kuryr";

//! The words of Kuryr as types.
//!
//! ```text
//!   Neutron answers ──▶ neutron::{Port, Network, Subnet, ...}     Octavia answers ──▶ lb::{LoadBalancer, Pool, ...}
//!                             │  kuryr-plan
//!                             ▼
//!   KuryrPort (a Kubernetes object) ── spec.vifs ──▶ Vif ──▶ the node plugs it
//!   KuryrLoadBalancer (another one): what became of a Service
//! ```
//!
//! Invariants: nothing here does IO or waits; every id has a type of its own, so that a port cannot be passed as
//! a subnet; what is written into Kubernetes or OpenStack by one process and read by another is defined here, once.

pub mod chain;
pub mod host;
pub mod ids;
pub mod key;
pub mod kuryr_load_balancer;
pub mod kuryr_port;
pub mod lb;
pub mod mac;
pub mod mark;
pub mod neutron;
pub mod note;
pub mod vif;

pub use chain::chain;
pub use host::Host;
pub use ids::{
    ClusterId, FlavorId, FloatingIpId, HealthMonitorId, ListenerId, ListenerPoolId, LoadBalancerId, MemberId,
    NetworkId, PodUid, PolicyUid, PortId, ProjectId, RouterId, SecurityGroupId, SecurityGroupRuleId, ServiceUid,
    SubnetId, SubnetPoolId, TrunkId,
};
pub use key::ObjectKey;
pub use kuryr_load_balancer::{KuryrLoadBalancer, KuryrLoadBalancerSpec, KuryrLoadBalancerStatus};
pub use kuryr_port::{KuryrPort, KuryrPortSpec, KuryrPortStatus};
pub use mac::MacAddress;
pub use mark::{Mark, Purpose};
pub use vif::{Plug, Vif, VifAddress, VifRoute};

/// The API group of Kuryr's custom resources, annotations and labels.
pub const GROUP: &str = "kuryr.openstack.org";

/// Set on a Node: the name under which Neutron knows it (`binding:host_id`), where that is not the node's name.
pub const HOST_ANNOTATION: &str = "kuryr.openstack.org/host";

/// Kuryr's finalizer on its own `KuryrPort`s: holds the object until its Neutron port is deleted or back in a pool.
pub const PORT_FINALIZER: &str = "kuryr.openstack.org/port";

/// Kuryr's finalizer on its own `KuryrLoadBalancer`s: holds the object until load balancer and floating IP are deleted.
pub const LOAD_BALANCER_FINALIZER: &str = "kuryr.openstack.org/load-balancer";

/// `device_owner` of the ports that Kuryr makes for pods.
pub const DEVICE_OWNER: &str = "compute:kuryr";

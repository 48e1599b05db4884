//! From a Service and its endpoints to what Octavia and Neutron have to have, and from what they have to the steps between.
//!
//! ```text
//!   Service ──annotations──▶ Options ┐
//!   EndpointSlices ──members──▶      ├─desired()─▶ Desired: trees, floating IP, problems ┐
//!   Site (subnets, provider) ────────┘                                                  ├─plan()─▶ steps, problems
//!   what Octavia and Neutron list ──gather()──▶ Observed ───────────────────────────────┘
//!   Desired + Observed ──▶ ingress(), summary(): what people and the Service's status are told
//!   Service + endpoints of one node ──▶ node_ports(): what the node translates
//! ```
//!
//! A *tree* is one load balancer with its listeners, their listener pools, members and health monitors. A Service has
//! one for its clusterIPs, and a second one only if its annotations ask for another address.
//!
//! The executor carries out the *first* step of a plan, puts the answer into its [`Observed`] and plans again, until
//! the plan is empty: ids that a step brings about are known only then.

pub mod annotations;
pub mod desired;
pub mod diff;
pub mod digest;
mod exposure;
#[cfg(test)]
mod fixtures;
pub mod ingress;
pub mod input;
pub mod limits;
mod listeners;
mod matching;
mod members;
pub mod node_ports;
pub mod observed;
pub mod problem;
pub mod provider;
mod ranges;
pub mod read;
pub mod site;
pub mod step;
pub mod summary;
pub mod tree;
pub mod wanted;

pub(crate) use members::all_endpoints;

pub use annotations::Options;
pub use desired::desired;
pub use diff::{Plan, plan};
pub use digest::digest;
pub use ingress::{Ingress, ingress};
pub use input::{Endpoint, Family, Kind, Service, ServicePort, Slice, SlicePort, TrafficPolicy, Transport};
pub use limits::{Admission, Balancer, admission};
pub use node_ports::{At, NodePortRule, ThisNode, node_ports};
pub use observed::{Gathered, Listed, Members, Observed, ObservedPool, ObservedTree, gather};
pub use problem::{Effect, Problem, Reason};
pub use provider::{Feature, Provider, Refusals};
pub use site::{Class, ExternalSubnet, Site, SiteSubnet};
pub use step::{Step, Why};
pub use summary::{FloatingSummary, ListenerSummary, Summary, TreeSummary, summary};
pub use tree::{
    ADOPTED_TAG, Floating, KEEP_TAG, Listener, ListenerKey, Member, Monitor, Place, Pool, Role, Timeouts, Tree, Vip,
    WantedFloating,
};
pub use wanted::{Desired, Exposed, Nothing};

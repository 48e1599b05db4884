//! NetworkPolicies: what they come to is brought about in Neutron, and told.
//!
//! ```text
//!   pods, namespaces, policies, ──watch──▶ keeper: kuryr_plan::enforce::Enforcer ──plan──▶ steps, side by side
//!   Services, nodes, ports                   ▲        │                                      │
//!                                            │        └─ status ─report─▶ KuryrNetworkPolicy │
//!   allocator: the groups of a new port ─────┤                                               ▼
//!                                            └────────── answers ◀──────────── Neutron: groups, rules, ports
//! ```
//!
//! Invariants:
//! - What is to be done next is decided by the enforcer alone, from what is wanted and what Neutron is known to have.
//! - The lock on it is never held across a request.
//! - A pod's port is made with all groups that it is to have; while one of them is not there, the pod waits.
//! - What fails for somebody to mend is told on the policies concerned, and holds up nobody else.
//! - With nothing changing nothing is asked.

mod answer;
mod call;
mod error;
mod guards;
mod keeper;
mod lean;
mod limits;
mod report;
mod resync;
mod status;
pub mod survey;
mod term;
mod watch;

pub(crate) use keeper::{Keeper, PodFacts, Waits};
pub(crate) use term::PolicyTerm;
pub(crate) use watch::PolicyWatches;

use ipnet::IpNet;
use kuryr_model::neutron::{EtherType, Subnet};
use kuryr_plan::policy::Settings;

/// What policies have to know of the networks.
pub(crate) fn settings(pods: &[Subnet], service_ranges: Vec<IpNet>) -> Settings {
    let family = |subnet: &Subnet| if subnet.cidr.addr().is_ipv4() { EtherType::IPv4 } else { EtherType::IPv6 };
    let pod_ranges = pods.iter().map(|subnet| subnet.cidr).collect();
    Settings { families: pods.iter().map(family).collect(), service_ranges, pod_ranges }
}

//! The embedded data plane: nodes, wires, routing and security groups, of nothing but the Linux kernel and `nft`.
//!
//! ```text
//!                 Snapshot (what the cloud wants)
//!                     │ compile: pure, per node
//!                     ▼
//!      Ruleset ── changes ─▶ `nft -f -` ┐
//!      routes  ── netlink ───────────── ┤ one worker thread inside each node's namespace
//!      link events ◀── monitor ──────── ┘ ──▶ Agent ──▶ report(port, works)
//!
//!   node0 (namespace)               core (the testbed's namespace)            node1
//!   pod ─eth0══tap1─ ▒ rules ▒ ─core════════ 100.64.0.1, routes ════════core─ ▒ rules ▒ ─tap2══eth0─ pod
//! ```
//!
//! A packet meets the checks in OVN's order: is its source the port's own, do routers join the two subnets, does the
//! sender's egress allow it, does the receiver's ingress allow it. All checks look at the connection's first direction and
//! are made for every packet of both, so that a connection ends when rules no longer allow it.
//!
//! Load balancers of OVN work where a connection begins, on its opener's node, or in the core if it comes from outside; so
//! the member sees the opener, or the virtual address if it is the opener itself. The sender's egress sees the virtual
//! address until the first answer, and the member from then on; the receiver's ingress sees what the receiver sees. An
//! established connection stays with its member, even a removed one. Octavia's amphorae are the core: they hide the opener
//! behind the virtual address. Nobody answers for what no listener is for, nor pings.
//!
//! A floating IP is translated on the node of its port, after the sender's egress and before the receiver's ingress. One of
//! a load balancer is one more virtual address. Ports without one keep their address when they talk with the outside.
//!
//! Invariants
//! - The rules of a port are there before its host end, and host ends that no rules are for pass nothing.
//! - A change is applied to a node as one transaction, and only what changed is touched.
//! - A port is reported to work when its host end is up, its rules are in and there is a route to it.
//! - Everything lives in namespaces and goes with them.
//!
//! Addresses must be unique over all networks: nodes route by them.

mod agent;
mod balance;
#[cfg(test)]
mod balance_model;
#[cfg(test)]
mod balance_random_tests;
#[cfg(test)]
mod balance_tests;
mod compile;
mod error;
mod fabric;
#[cfg(test)]
mod floating_tests;
#[cfg(test)]
mod lab;
#[cfg(test)]
mod model_tests;
mod namespaces;
pub mod probe;
mod ruleset;
mod script;
mod snapshot;
#[cfg(test)]
mod tests;
mod vm;
mod worker;

pub use agent::Agent;
pub use compile::{compile, compile_core};
pub use error::Error;
pub use fabric::{CORE, CORE_V6, Fabric, Node};
pub use namespaces::{Inside, enter};
pub use ruleset::Ruleset;
pub use script::{changes, initial, initial_core};
pub use snapshot::{FloatingIp, Listener, LoadBalancer, Member, Pair, Port, Provider, Router, Snapshot, Subnet};
pub use vm::{Vm, VmPort};

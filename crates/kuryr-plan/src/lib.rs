//! Pure functions from what is wanted and what is there to what is to be done.
//!
//! ```text
//!   pod + its KuryrPort + its node ──pod::step──▶ Step ──▶ executed by the controller, one at a time
//!   subnets ──subnets::choices──▶ where a port may be
//!   pods without port ──allocator::Supply──▶ what to ask Neutron for ──▶ Port ──vif::vif──▶ the VIF in the KuryrPort
//!   demand ──pool::Pools──▶ spare ports to hand out, to make, to delete
//!   ports in Neutron + KuryrPorts + pods ──prune::prune──▶ ports to adopt, ports to delete
//!   Service + its endpoints ──service::desired──▶ load balancers to be had ──service::plan──▶ Step, one at a time
//!   a Node that is a virtual machine ──nested::Machine──▶ its port and trunk
//!   addresses of pods that share a machine's port ──pairs::plan──▶ the port's allowed address pairs
//!   how many more pods fit on it ──fullness──▶ what its Node says of that
//!   ports on one trunk, wanted and there ──trunk::Writer──▶ subports to add and to remove, one request at a time
//!   NetworkPolicies + pods, namespaces, Services, nodes ──policy::Compiler──▶ security groups, and who carries them
//! ```
//!
//! Invariants: values in, values out; no IO, no clock, no randomness, no waiting. The same input gives the same plan,
//! and the plan for a world in which the plan was carried out is empty.

pub mod allocator;
pub mod enforce;
#[cfg(test)]
mod fixtures;
pub mod fullness;
pub mod nested;
pub mod pairs;
pub mod pod;
pub mod policy;
pub mod pool;
pub mod prune;
pub mod service;
pub mod subnets;
pub mod trunk;
pub mod vif;

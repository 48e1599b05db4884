//! The controller: gives every pod its Neutron ports and every Service its load balancer, and takes them back.
//!
//! ```text
//!   Pods, KuryrPorts, Nodes ──watch──▶ index ──keys──▶ queue ──▶ reconcile(key)
//!                                        ▲                        │ kuryr_plan::pod::step
//!                                        │                        ├─ Allocate ─▶ allocator ─bulk─▶ Neutron
//!                                        └── what was written ────┴─ KuryrPort ─▶ Kubernetes
//! ```
//!
//! Services have an index, a queue and a reconciler of their own of the same shape: see `service/mod.rs`. What
//! NetworkPolicies come to is brought about as a whole: see `policy/mod.rs`.
//!
//! Invariants:
//! - A reconciler gets a key, reads the index and does the one step that the planner names. There is one path for
//!   create, repair and restart.
//! - Only the holder of the Lease writes; the others keep their index warm.
//! - All truth is in Kubernetes and OpenStack: a controller that is killed at any instruction leaves nothing that
//!   its successor does not find by its mark.
//! - What waits for a person is said on the object concerned, and holds up nothing else.

mod allocator;
mod config;
mod election;
mod error;
mod events;
#[cfg(test)]
mod fake;
mod fullness;
mod gather;
pub mod http;
mod index;
mod lean;
mod machines;
mod metrics;
mod odd;
mod own;
mod policy;
mod pools;
mod queue;
mod reconcile;
mod resync;
mod run;
mod service;
#[cfg(test)]
mod testing;
mod topology;
pub mod trunks;
mod watch;
mod work;

pub use allocator::{Allocator, UnknownPool};
pub use config::{ControllerConfig, PoolsConfig, ServiceClass, ServicesConfig};
pub use election::{ElectionConfig, ElectionError};
pub use metrics::Metrics;
pub use policy::survey as policy_survey;
pub use pools::{PoolReport, PoolRow};
pub use run::{Health, RunError, run};
pub use service::{ServicesError, remove, survey};
pub use topology::{REQUIRED_EXTENSIONS, TopologyError};

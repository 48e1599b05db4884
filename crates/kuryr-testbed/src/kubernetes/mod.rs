//! An embedded Kubernetes: an API server strict enough for kube-rs and kubectl, a scheduler and kubelets that call the
//! real CNI plugin.
//!
//! ```text
//!  kubectl, kube-rs ──HTTP──▶ ApiServer (store, watches, garbage collector)
//!                                ▲  ▲
//!               Scheduler ───────┘  └─────── Kubelet ──exec──▶ CNI plugin
//!               (binds pods)                    └── a network namespace and a process for each pod
//! ```
//!
//! Nothing here polls: with nothing changing there are no calls and no writes.

pub mod api;
mod client;
pub mod kubelet;
mod scheduler;

pub use api::{ApiServer, ApiServerConfig, CallKey, CallLog, Fault, FaultEffect, FaultGuard, Faults, ServerHandle};
pub use client::{client, kubeconfig};
pub(crate) use kubelet::remove_netns;
pub use kubelet::{CniVerb, Kubelet, KubeletConfig, KubeletError, PodTiming, Sandbox};
pub use scheduler::Scheduler;

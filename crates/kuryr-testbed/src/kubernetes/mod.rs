//! An embedded Kubernetes: an API server strict enough for kube-rs and kubectl, a scheduler, the controller of
//! EndpointSlices, and kubelets that call the real CNI plugin.
//!
//! ```text
//!  kubectl, kube-rs ──HTTP──▶ ApiServer (store, watches, garbage collector)
//!                                ▲  ▲
//!    Scheduler, Endpoints ───────┘  └─────── Kubelet ──exec──▶ CNI plugin
//!    (bind pods, list them)                     └── a network namespace and a process for each pod
//! ```
//!
//! Nothing here polls: with nothing changing there are no calls and no writes.

pub mod api;
mod client;
mod endpoints;
pub mod kubelet;
mod scheduler;

pub use api::{
    ApiServer, ApiServerConfig, CallKey, CallLog, Fault, FaultEffect, FaultGuard, Faults, SERVICE_CIDRS, ServerHandle,
};
pub use client::{client, kubeconfig};
pub use endpoints::Endpoints;
pub(crate) use kubelet::remove_netns;
pub use kubelet::{CniVerb, Kubelet, KubeletConfig, KubeletError, PodTiming, Sandbox};
pub use scheduler::Scheduler;

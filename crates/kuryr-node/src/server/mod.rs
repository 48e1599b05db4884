//! Where the daemon listens.
//!
//! ```text
//!  kuryr-cni, kuryr audit ─▶ unix socket (root alone) ─▶ api: POST /cni, GET /attachments, POST /attachments/prune
//!  kubelet, Prometheus    ─▶ TCP                      ─▶ health: GET /healthz, /readyz, /metrics
//! ```

pub mod api;
pub mod health;
pub mod socket;

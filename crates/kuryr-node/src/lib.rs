//! The node daemon: gives pods the interfaces for their Neutron ports, and takes them away again.
//!
//! ```text
//!  kube-apiserver ──▶ watch ──▶ ports (memory) ◀─ waits ─┐
//!        ▲                        │ changed keys         │
//!        └──── status ◀───────────┘                      │
//!        ▲                                               │
//!        └──── events ◀─────────────────────────────── verbs ◀── server ◀── kuryr-cni (unix socket)
//!                                                        │
//!                       attachments (disk) ◀─────────────┼───▶ plug ──▶ netlink, netns, ovsdb
//!
//!  kube-apiserver ──▶ node_ports ──▶ nft: what Services have at the node's own addresses
//! ```
//!
//! Invariants
//! - All that is needed to plug a pod is in its `KuryrPort`: nothing here talks to OpenStack or holds its credentials.
//! - What is plugged is remembered on disk first: killing the daemon at any instruction leaves nothing that a DEL, a GC
//!   or the next start does not find. Running pods do not need the daemon.
//! - A `KuryrPort` is `Released` only when no sandbox of this node uses its ports and none can any more.
//! - An ADD waits for notifications, never for time to pass, and always ends with a reason.

pub mod attachments;
pub mod audit;
pub mod cni;
pub mod config;
pub mod daemon;
pub mod events;
pub mod fullness;
pub mod locks;
pub mod metrics;
pub mod netlink;
pub mod netns;
pub mod node;
pub mod node_ports;
pub mod ovsdb;
pub mod plug;
pub mod pods;
pub mod ports;
pub mod queue;
pub mod server;
pub mod status;
#[cfg(test)]
mod testing;
pub mod verbs;
pub mod watch;

pub use config::DaemonConfig;
pub use daemon::{DaemonError, run};

//! The kernel's links, addresses, routes and neighbours, over a synchronous netlink socket.
//!
//! ```text
//!  link::veth(..)  address::add(..)  route::add(..)     pure: make Requests
//!          └──────────────┬──────────────┘
//!                Socket::run(&[Request])                one datagram out, one acknowledgement per request back
//!                Socket::links() / link(name)           ask
//!                Monitor, RouteMonitor, Tables          be told
//!                Conntrack                              translated connections
//! ```
//!
//! Invariants
//! - A socket works for ever in the namespace in which its thread was when it was opened.
//! - All requests of one [`Socket::run`] reach the kernel in one system call (up to [`socket::BATCH`]): a process that is
//!   killed leaves either all or none of them behind.
//! - Answers are matched by sequence number; dumps that the kernel calls inconsistent are repeated.
//! - Every refusal says what was tried, the kernel's errno and, where it gives one, its own words.

pub mod address;
pub mod conntrack;
pub mod error;
pub mod link;
pub mod monitor;
pub mod neighbour;
pub mod nsid;
pub mod offload;
pub mod route;
pub mod route_monitor;
pub mod socket;
pub mod sysctl;
pub mod tables;
#[cfg(test)]
mod tests;

pub use error::Error;
pub use link::Link;
pub use monitor::{LinkEvent, Monitor};
pub use route_monitor::{RouteEvent, RouteMonitor};
pub use socket::{Request, Socket};

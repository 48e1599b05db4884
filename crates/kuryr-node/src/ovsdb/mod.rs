//! A client for Open vSwitch's database (RFC 7047: JSON-RPC over a Unix socket).
//!
//! ```text
//!  ports::add / delete ──▶ Client::transact ──▶ connection task ──socket──▶ ovsdb-server
//!  ports::wait_ready ◀── watch ◀── Cache ◀── "update" notifications ──┘
//! ```
//!
//! Invariants
//! - One task owns the socket. It answers the server's echo, keeps the cache, and connects again when the server
//!   went away, with a fresh cache.
//! - A transaction whose answer was lost is reported as such, never repeated here: only the caller knows whether that
//!   is harmless.
//! - Nothing is polled: whoever waits for a state of the database waits on the cache.

pub mod cache;
pub mod client;
pub mod error;
pub mod frame;
pub mod ports;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod value;

pub use cache::{Bridge, Cache, Interface, Port};
pub use client::Client;
pub use error::Error;

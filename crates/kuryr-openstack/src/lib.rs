//! A thin typed client for the Keystone, Neutron and Octavia calls that Kuryr makes.
//!
//! ```text
//!  clouds.yaml, OS_*, secret ─▶ CloudConfig ─▶ Cloud::connect ─▶ Cloud ─▶ cloud.network().ports().create_many(..)
//!                                  ▲  re-read                                     │
//!                                  └── auth: one token for all, renewed once ◀─ session: limit ▸ send ▸ 401? ▸ retry?
//!                                                                                 │
//!                                                      observer (metrics) ◀───────┴──▶ Result<T, Error>, Error::class()
//! ```
//!
//! Invariants:
//! - No credential appears in a log line, an error or a `Debug`.
//! - However many requests meet an expired token, there is one authentication.
//! - A create is never repeated once it may have reached the service: [`Error::is_ambiguous`] says so, and the caller
//!   looks up the mark of what it wanted before it tries again. Reads and deletes are repeated here.
//! - Every error has exactly one [`Class`], which says who can do something about it.
//! - With nothing asked there is no traffic: tokens are renewed when a request needs them.

pub mod auth;
pub mod catalog;
mod class;
pub mod cloud;
pub mod config;
pub mod error;
mod http;
mod limit;
pub mod load_balancer;
pub mod network;
mod observer;
mod rest;
mod session;
mod tls;

pub use auth::AuthError;
pub use catalog::{Interface, NoEndpoint, Service};
pub use class::{Class, Waits};
pub use cloud::{Cloud, ConnectError, Identity};
pub use config::{CloudConfig, ConfigError, Sources};
pub use error::{Error, ErrorKind, Refusal, chain};
pub use limit::Priority;
pub use load_balancer::LoadBalancing;
pub use network::{Filter, Network};
pub use observer::{Call, Observer};
pub use session::Options;

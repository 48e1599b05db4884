//! Node ports and external addresses of Services: destinations that the node translates, kept in an nftables table of our
//! own.
//!
//! ```text
//!  Services ──────▶ index ──node_ports()──▶ Ruleset ──script──▶ nft ──▶ table inet kuryr_node_ports
//!  EndpointSlices ──▶   │                      └──listing──▶ is it what we made? ◀── nft ◀── changes, every minute
//!                       └──health_checks()──▶ who asks at a healthCheckNodePort
//! ```
//!
//! Invariants
//! - A change is one transaction, and touches only what differs. As long as not everything is known that rules depend on,
//!   those that are there stay.
//! - Nobody else's table is touched, no mark is used, and no setting of the kernel is changed.
//! - With nothing to translate there is no table, and `nft` need not be installed.

pub mod forwarding;
pub mod health;
pub mod index;
pub mod keep;
pub mod listing;
pub mod nft;
pub mod ruleset;
#[cfg(test)]
mod ruleset_tests;
pub mod script;
pub mod stale;
pub mod state;
mod watch;

pub use keep::{keep, remove};
pub use ruleset::Ruleset;
pub use state::State;

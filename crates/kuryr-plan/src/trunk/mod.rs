//! The subports of one trunk: which port has which segmentation id, and what to tell Neutron next.
//!
//! ```text
//!   want(port, id?) / unwant(port) ──▶ Writer ──plan──▶ Step::{Read, Remove, Add} ──▶ Neutron, one request at a time
//!                                        ▲                                              │
//!                                        └──────────────── tell(step, Outcome) ─────────┘
//! ```
//!
//! Neutron changes a trunk's subports in batches, all or none, and slows down and stumbles where two batches for one
//! trunk meet. So a trunk has one writer, and what is asked for meanwhile is in its next batch.
//!
//! Invariants
//! - No two ports have one id on a trunk. What Neutron shows on the trunk counts, whoever put it there, and what a
//!   `KuryrPort` says counts even while its subport is missing. So an id that a pod may use is never another's, whenever a
//!   controller dies.
//! - A port's id is told ([`Writer::pin`]) only once Neutron has shown it on the trunk with that id.
//! - What is not known to be ours is never removed.

mod ids;
mod step;
#[cfg(test)]
mod tests;
mod writer;

pub use step::{Outcome, Plan, Room, Step, Trouble};
pub use writer::{MOST_AT_ONCE, Writer};

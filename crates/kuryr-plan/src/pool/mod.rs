//! Port pools: spare ports that are kept ready, so that a pod need not wait for Neutron.
//!
//! ```text
//!   pod bound ──take──▶ hit ──▶ lent ──recorded──▶ (the KuryrPort has it)
//!                 │                └──returned──┐         │ released
//!                 └──▶ miss: made for the pod   ▼         ▼
//!                                            cooling ◀─give_back─▶ to be deleted, over the budget
//!                                               │ cooldown
//!   plan ──▶ bulk ──answered──────────────▶  ready ──▶ plan: surplus is deleted
//!                     └──▶ placing ──placed──┘  those of trunks
//! ```
//!
//! There is one pool for each place (a node, or the trunk of a node that is a VM) and network. The spare ports of all
//! have the security groups of a pod that no policy isolates; a pod that is to have others gets them on its port before
//! it gets the port. There is no pool for each set of groups: where policies are many there are nearly as many sets as
//! workloads, and most spare ports would lie where nobody asks for them.
//!
//! Invariants:
//! - A port is in one state at a time, and lent to one pod. One of a trunk is ready only when it is on it. It is given to no other within the cooldown after it was
//!   given back; when that was is not known after a restart, so it then counts as given back just now.
//! - Spare ports, with those that are being made, are never more than the budget.
//! - What is lent or used is never deleted.
//! - A pool is as large as the largest demand of late within the time that it takes to refill it: see [`Demand`].
//! - Time is what the caller says: a [`Moment`].

mod breaker;
mod demand;
mod plan;
mod pools;
mod reclaim;
mod settings;
mod share;
mod store;
#[cfg(test)]
mod tests;
mod view;

pub use breaker::Breaker;
pub use demand::{Demand, Lead};
pub use plan::{Bulk, BulkId, Headroom, HeldUp, Plan};
pub use pools::{Back, Pools, Refusal};
pub use reclaim::Shortage;
pub use settings::Settings;
pub use share::{grant, split};
pub use view::{PoolView, Totals};

use kuryr_model::{NetworkId, TrunkId};
use std::{fmt, time::Duration};

/// Time since a beginning that the caller chose, and that stays the same.
pub type Moment = Duration;

/// Where ports are plugged.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// A node, by the name that Neutron has for it.
    Host(String),
    /// The trunk of a node that is a VM.
    Trunk(TrunkId),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(name) => f.write_str(name),
            Self::Trunk(id) => write!(f, "trunk {id}"),
        }
    }
}

/// Which pool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolKey {
    /// Where its ports are plugged.
    pub place: Place,
    /// The network that they are on.
    pub network: NetworkId,
}

impl fmt::Display for PoolKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on network {}", self.place, self.network)
    }
}

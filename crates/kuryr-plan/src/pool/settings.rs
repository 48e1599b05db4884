//! How large pools are, and how quickly that changes.

use std::time::Duration;

/// What pools are told by the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Spare ports that a pool has when nobody has asked for any.
    pub floor: usize,
    /// The most that a pool is filled to.
    pub ceiling: usize,
    /// The most spare ports of all pools together, with those that are being made.
    pub budget: usize,
    /// How long a port is given to no other pod after it was given back: until nobody sends to its address any more.
    pub cooldown: Duration,
    /// After how long the memory of a demand has faded to one half.
    pub memory: Duration,
    /// How long spare ports must not have been needed before half of them are deleted.
    pub shrink_after: Duration,
    /// The most ports in one request.
    pub bulk_size: usize,
    /// The most requests for spare ports at once.
    pub requests: usize,
    /// So many ports of the quota and addresses of a subnet are left for pods, and not taken for pools.
    pub reserve: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            floor: 2,
            ceiling: 50,
            budget: 500,
            cooldown: Duration::from_secs(30),
            memory: Duration::from_secs(60 * 60),
            shrink_after: Duration::from_secs(5 * 60),
            bulk_size: 20,
            requests: 2,
            reserve: 20,
        }
    }
}

//! What people and metrics are told about pools.

use kuryr_model::NetworkId;
use kuryr_plan::pool::{HeldUp, PoolView};
use serde::{Deserialize, Serialize};

/// One pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolRow {
    /// The node.
    pub node: String,
    /// Where its ports are plugged: the name that Neutron has for the node, or its trunk.
    pub place: String,
    /// The network of its ports.
    pub network: NetworkId,
    /// What there is of it. It counts as refused also where its ports cannot be plugged.
    #[serde(flatten)]
    pub view: PoolView,
}

/// All pools.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolReport {
    /// Each, by place and network.
    pub pools: Vec<PoolRow>,
    /// Spare ports, with those that are being made.
    pub held: usize,
    /// The most that there may be.
    pub budget: usize,
    /// Ports that are to be deleted.
    pub leaving: usize,
    /// Requests for spare ports that are under way.
    pub requests: usize,
    /// Pods wait because the quota or the subnets are used up, so pools do not grow.
    pub short: bool,
    /// Why else pools do not get the ports that they should have.
    pub held_up: Option<HeldUp>,
}

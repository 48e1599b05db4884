//! How many more pods fit on nodes that are virtual machines. Told from what is known: of a trunk since its machine was found, of
//! address pairs since Neutron refused one.

use super::{Machines, Sight};
use kuryr_model::{PortId, TrunkId};
use kuryr_plan::{
    fullness::{Capacity, Limit},
    nested::{Machine, Pods},
    pairs, trunk,
};
use std::collections::HashMap;
use tokio::sync::watch;

/// What is known of a node's room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// Not yet what there is.
    NotYet,
    /// That there is nothing to say: no limit was met, or the machine has no port or trunk.
    Nothing,
    /// So many pods fit.
    Of(Capacity),
}

/// Tells when what is known may have changed.
pub(crate) struct Changes {
    news: watch::Receiver<()>,
    trunks: watch::Receiver<HashMap<TrunkId, trunk::Room>>,
    pairs: watch::Receiver<HashMap<PortId, pairs::Limit>>,
}

impl Changes {
    /// Waits for a change.
    pub(crate) async fn next(&mut self) {
        // Those who write live as long as the allocator, which whoever waits has.
        tokio::select! {
            _ = self.news.changed() => {}
            _ = self.trunks.changed() => {}
            _ = self.pairs.changed() => {}
        }
    }
}

impl Machines {
    /// Changes of what is known from now on.
    pub(crate) fn changes(&self) -> Changes {
        Changes { news: self.news(), trunks: self.trunks.rooms(), pairs: self.pairs.limits.subscribe() }
    }

    /// How many more pods fit on a node.
    pub(crate) fn room_of(&self, node: &str, machine: &Machine) -> Room {
        match self.sight(node, machine) {
            Sight::NotYet => Room::NotYet,
            Sight::Nothing => Room::Nothing,
            Sight::Found(found) => match found.pods {
                Pods::Subports(trunk) => self.trunks.room(trunk).map_or(Room::NotYet, |room| {
                    Room::Of(Capacity { free: room.free, limit: Limit::Ids { trunk, others: room.others } })
                }),
                Pods::Pairs | Pods::Addresses => {
                    let parent = found.parent.port_id;
                    let limit = self.pairs.limits.borrow().get(&parent).copied();
                    let known = limit.and_then(|limit| Some((limit.room()?, limit.most()?)));
                    known.map_or(Room::Nothing, |(free, most)| {
                        Room::Of(Capacity { free, limit: Limit::Pairs { parent, most } })
                    })
                }
            },
        }
    }

    /// Somebody may have taken their subports off a trunk.
    pub(crate) fn look_again(&self, trunk: TrunkId) {
        self.trunks.look_again(trunk);
    }
}

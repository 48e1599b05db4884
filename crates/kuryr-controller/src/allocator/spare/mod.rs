//! Port pools: what [`kuryr_plan::pool`] decides is done here.
//!
//! ```text
//!   pods ──lend──▶ Pools::take ──▶ a port, its groups put right ──▶ VIF      misses ──▶ Shared::make
//!   release ──▶ its groups put right ──▶ Pools::give_back
//!   keep: Pools::plan ──▶ Supply ──▶ bulk create, delete      listed: after a restart, what there was
//! ```
//!
//! Invariants:
//! - A port of a pool carries the mark of pools for all its life, and says nothing of pods: whose it is, its `KuryrPort` tells.
//!   So no look for the ports of a pod ever finds it, and none is needed when it is handed out.
//! - Spare ports have the groups of a pod that no policy isolates, and nothing else changes those of a spare port. A pod gets
//!   a port when that has just the groups that the pod is to have.
//! - A `KuryrPort` that was written is in the index before its port counts as recorded, so a port is lent, held or spare at each moment.

mod back;
mod keep;
mod lend;
mod listed;
mod names;
mod ready;
mod refill;
mod room;
mod view;

use super::Shared;
use crate::{index::Index, topology::Topology};
use kuryr_model::{NetworkId, PortId, SecurityGroupId, neutron::Port};
use kuryr_plan::{
    pool::{Back, Place, PoolKey, Pools, Settings},
    subnets::Choice,
};
use names::NAME;
use parking_lot::Mutex;
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
pub use view::{PoolReport, PoolRow, UnknownPool};
pub(super) use {keep::keep, names::of as name_of};

/// What became of a port that was given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Released {
    /// Its pool has it.
    Kept,
    /// There is room for another one.
    Deleted,
}

/// The pools.
pub(super) struct Spares {
    index: Arc<Index>,
    /// The network on which pods get their ports as long as it has room.
    network: Option<NetworkId>,
    choices: Vec<Choice>,
    /// Ports are named after their pods.
    names: bool,
    state: Mutex<State>,
    changed: Notify,
    /// The numbers of pools were published.
    told: Notify,
    /// When to list all ports again, because some may have been made unseen.
    look: watch::Sender<Option<Instant>>,
}

struct State {
    pools: Pools,
    /// Ports of pools that are lent or held.
    out: HashMap<PortId, Out>,
    /// Deleted since the last listing began, which may tell of them still.
    gone: HashSet<PortId>,
    /// Spare since before the last listing began.
    spare_before: BTreeSet<PortId>,
    /// The nodes that have pools.
    open: BTreeSet<String>,
    /// Pools whose ports cannot be plugged, and when that is tried again.
    unfit: HashMap<PoolKey, Duration>,
    /// To be deleted.
    delete: Vec<PortId>,
    /// Ports that are to be called otherwise.
    rename: HashMap<PortId, String>,
    /// Pods wait for room.
    short: bool,
}

/// A port that is not spare.
#[derive(Clone, Debug)]
struct Out {
    port: Port,
    groups: Groups,
}

/// What is known of the groups of a port that is not spare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Groups {
    /// It has those of spare ports.
    Plain,
    /// An update was not answered.
    Unsure,
    /// They are the business of whoever looks after those of pods.
    Handed,
}

impl Spares {
    pub(super) fn new(settings: Settings, names: bool, topology: &Topology, index: Arc<Index>) -> Self {
        let choices = topology.choices.clone();
        let network = choices.first().map(|choice| choice.network);
        let state = State {
            pools: Pools::new(settings, choices.clone()),
            out: HashMap::new(),
            gone: HashSet::new(),
            spare_before: BTreeSet::new(),
            open: BTreeSet::new(),
            unfit: HashMap::new(),
            delete: Vec::new(),
            rename: HashMap::new(),
            short: false,
        };
        let (look, _) = watch::channel(None);
        Self {
            index,
            network,
            choices,
            names,
            state: Mutex::new(state),
            changed: Notify::new(),
            told: Notify::new(),
            look,
        }
    }

    /// The pool of a node, by its name in Neutron.
    fn key(&self, host: &str) -> Option<PoolKey> {
        Some(PoolKey { place: Place::Host(host.to_owned()), network: self.network? })
    }
}

impl State {
    /// Opens and closes pools as nodes come and go.
    fn follow(&mut self, nodes: BTreeSet<String>, now: Duration) {
        for host in nodes.difference(&self.open) {
            self.pools.open(&Place::Host(host.clone()), usize::MAX, now);
        }
        for host in self.open.difference(&nodes) {
            let gone = self.pools.close(&Place::Host(host.clone()));
            self.delete.extend(gone);
        }
        self.open = nodes;
        for key in self.unfit.extract_if(|_, until| *until <= now).map(|(key, _)| key) {
            self.pools.fill(&key, 0);
        }
    }

    fn give_back(&mut self, port: Port, now: Duration) -> Back {
        self.pools.give_back(&Place::Host(port.host_id.clone()), port, now)
    }
}

impl Shared {
    /// The groups that spare ports have.
    fn plain(&self) -> Vec<SecurityGroupId> {
        self.topology.open_groups.to_vec()
    }

    fn is_plain<'a>(&self, groups: impl IntoIterator<Item = &'a SecurityGroupId>) -> bool {
        groups.into_iter().collect::<BTreeSet<_>>() == self.topology.open_groups.iter().collect()
    }
}

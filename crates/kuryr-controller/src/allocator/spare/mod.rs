//! Port pools: what [`kuryr_plan::pool`] decides is done here.
//!
//! ```text
//!   pods ──lend──▶ Pools::take ──▶ a port, its groups put right ──▶ VIF      misses ──▶ Shared::make
//!   release ──▶ its groups put right, the mark of pools put on one that a miss made ──▶ Pools::give_back
//!   keep: Pools::plan ──▶ Supply ──▶ bulk create ──▶ Machines::place, where that is a trunk      listed: after a restart, what there was
//!                    └──▶ Machines::leave, where it is on one ──▶ delete
//! ```
//!
//! Invariants:
//! - A port of a pool carries the mark of pools as long as it is one, and says nothing of pods: whose it is, its `KuryrPort` tells.
//!   So no look for the ports of a pod finds it, and none is needed when it is handed out. One that was made for a pod gets that mark
//!   before it comes to the pool; an older listing may still tell of it as a pod's.
//! - Spare ports have the groups of a pod that no policy isolates, and nothing else changes those of a spare port. A pod gets
//!   a port when that has just the groups that the pod is to have.
//! - A port of a trunk is spare only when it is there, and deleted only when it is there no more. It stays there, with its id, from pod to
//!   pod: the trunk's writer knows the id, so that handing it out needs no request.
//! - A `KuryrPort` that was written is in the index before its port counts as recorded, so a port is lent, held or spare at each moment.

mod back;
mod keep;
mod lend;
mod listed;
mod missed;
mod names;
mod ready;
mod refill;
mod room;
mod sites;
mod view;

use super::{Request, Shared};
use crate::{index::Index, machines::Sight, topology::Topology};
use kuryr_model::{NetworkId, ObjectKey, PodUid, PortId, SecurityGroupId, TrunkId, neutron::Port};
use kuryr_openstack::network::PortUpdate;
use kuryr_plan::{
    nested::{Found, Pods},
    pool::{HeldUp, Place, PoolKey, Pools, Settings},
    subnets::Choice,
};
use missed::MARKINGS;
use names::NAME;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::Instant,
};
pub use view::UnknownPool;
pub(super) use {keep::keep, names::of as name_of, room::Ways};

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
    /// Turns of ports that come to pools from pods.
    marking: Semaphore,
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
    /// Ports that were made for pods, because their pools had none.
    missed: HashMap<PortId, Port>,
    /// Deleted since the last listing began, which may tell of them still.
    gone: HashSet<PortId>,
    /// Spare since before the last listing began.
    spare_before: BTreeSet<PortId>,
    /// The places that have pools, and the node of each.
    open: BTreeMap<Place, String>,
    /// The nodes whose pods are subports, and what is known of their trunks.
    sites: BTreeMap<String, Sight>,
    /// The trunks of ports of pools that are on one, or are to be.
    on: HashMap<PortId, TrunkId>,
    /// To be put on their trunks.
    to_place: Vec<(TrunkId, PortId)>,
    /// Spare ports that were found on trunks of which it is not known yet whose they are.
    found: Vec<Port>,
    /// Ports were being made at some moment since the last listing began, so it may tell of some that nobody knows of yet.
    made_since: bool,
    /// Pools whose ports cannot be plugged, and when that is tried again.
    unfit: HashMap<PoolKey, Duration>,
    /// To be deleted.
    delete: Vec<PortId>,
    /// What is to change of ports for people, when there is time.
    rename: HashMap<PortId, PortUpdate>,
    /// Pods that found no port and have none yet, and in which pool.
    waits: HashMap<ObjectKey, (PoolKey, PodUid)>,
    /// Pods wait for room.
    short: bool,
    /// How many ways were made for pods that have no answer yet.
    ways: usize,
    /// Nobody else waits for room any more.
    relieved: bool,
    /// Why pools do not get what they lack.
    held_up: Option<HeldUp>,
}

/// A port that is not spare.
#[derive(Clone, Debug)]
struct Out {
    port: Port,
    groups: Groups,
    /// It was on its trunk when a pod was about to get it, or is on none.
    settled: bool,
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
            missed: HashMap::new(),
            gone: HashSet::new(),
            spare_before: BTreeSet::new(),
            open: BTreeMap::new(),
            sites: BTreeMap::new(),
            on: HashMap::new(),
            to_place: Vec::new(),
            found: Vec::new(),
            made_since: false,
            unfit: HashMap::new(),
            delete: Vec::new(),
            rename: HashMap::new(),
            waits: HashMap::new(),
            short: false,
            ways: 0,
            relieved: false,
            held_up: None,
        };
        let (look, _) = watch::channel(None);
        Self {
            index,
            network,
            choices,
            names,
            state: Mutex::new(state),
            marking: Semaphore::new(MARKINGS),
            changed: Notify::new(),
            told: Notify::new(),
            look,
        }
    }

    /// The pool from which a pod gets its port, if there is one for it.
    fn key(&self, host: &str, machine: Option<&Found>) -> Option<PoolKey> {
        let place = match machine.map(|found| found.pods) {
            None => Place::Host(host.to_owned()),
            Some(Pods::Subports(trunk)) => Place::Trunk(trunk),
            // They have only addresses there.
            Some(Pods::Pairs | Pods::Addresses) => return None,
        };
        Some(PoolKey { place, network: self.network? })
    }
}

impl Shared {
    /// The pool from which this request is answered, if there is one.
    pub(super) fn pool_of(&self, request: &Request) -> Option<PoolKey> {
        self.spares.as_ref()?.key(&request.host, request.machine.as_ref())
    }

    /// The ports of pools that are on trunks, and where.
    pub(super) fn on_trunks(&self) -> Vec<(TrunkId, PortId)> {
        let Some(spares) = &self.spares else { return Vec::new() };
        spares.state.lock().on.iter().map(|(port, trunk)| (*trunk, *port)).collect()
    }

    /// The groups that spare ports have.
    fn plain(&self) -> Vec<SecurityGroupId> {
        self.topology.open_groups.to_vec()
    }

    fn is_plain<'a>(&self, groups: impl IntoIterator<Item = &'a SecurityGroupId>) -> bool {
        groups.into_iter().collect::<BTreeSet<_>>() == self.topology.open_groups.iter().collect()
    }
}

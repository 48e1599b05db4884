//! Nodes that are virtual machines: their ports in Neutron, and what their pods have of these.
//!
//! ```text
//!   find(node), seek  ─▶ Neutron: the machine's port, its trunk ─▶ Found      remembered as long as it holds
//!   settle(port)      ─▶ trunks: a subport with an id │ pairs: an address that the machine's port may use
//!   let_go(port)      ─▶ the same, undone
//!   repair()          ─▶ what KuryrPorts say, compared with every trunk and every machine's pairs
//!   rooms             ─▶ how many more pods fit, from what is known
//!   revive            ─▶ subports that stay DOWN, a while after some were added
//! ```
//!
//! Invariants
//! - What pods have on a trunk is told to its writer before anything else is asked of it.
//! - A pod's `KuryrPort` is written when its port is where it shall be, and its port is deleted when it is there no more.

mod find;
mod pairs;
mod revive;
mod room;
mod task;

use crate::{
    error::PodError,
    index::Index,
    trunks::{TrunkError, Trunks},
};
pub(crate) use find::Sight;
use find::Slot;
use kuryr_model::{
    KuryrPort, NetworkId, PortId, ProjectId, SegmentationId, TrunkId, Vif,
    neutron::{Port, Trunk},
    vif::PlugDriver,
};
use kuryr_openstack::{Cloud, Error as CloudError, Filter, Network};
use kuryr_plan::{
    nested::{Found, Pods, pairs_of},
    trunk::Trouble,
};
use pairs::Pairs;
use parking_lot::Mutex;
pub(crate) use room::Room;
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fmt,
    sync::Arc,
    time::Duration,
};
use tokio::sync::{Notify, watch};

/// A node's trunk is gone, and with it the network of its pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CutOff {
    pub(crate) node: String,
    /// Its port.
    pub(crate) parent: PortId,
    /// How many interfaces of pods.
    pub(crate) interfaces: usize,
}

impl fmt::Display for CutOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { parent, interfaces, .. } = self;
        write!(
            f,
            "port {parent} of the node is no trunk's parent any more: {interfaces} interfaces of its pods are cut off; make one again: \
             openstack network trunk create --parent-port {parent} NAME"
        )
    }
}

/// The machines, and who writes to their trunks and ports.
pub(crate) struct Machines {
    network: Network,
    index: Arc<Index>,
    trunks: Trunks,
    pairs: Pairs,
    /// The networks of pods.
    networks: HashSet<NetworkId>,
    /// Our own: other projects have other networks with the same addresses, and an administrator sees them.
    project: Option<ProjectId>,
    state: Mutex<State>,
    /// Subports were added, or may have been changed.
    placed: Notify,
    /// A machine was looked for, or something has shown that it is otherwise.
    news: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    slots: HashMap<String, Arc<Slot>>,
    /// The trunks of parent ports, whose writers know what pods have on them.
    begun: HashMap<PortId, TrunkId>,
}

impl Machines {
    pub(crate) fn new(cloud: &Cloud, index: Arc<Index>, networks: HashSet<NetworkId>, linger: Duration) -> Self {
        let (network, project) = (cloud.network(), cloud.identity().project);
        let trunks = Trunks::new(network.clone(), linger);
        let pairs = Pairs::new(network.clone(), linger);
        let (state, placed, news) = (Mutex::default(), Notify::new(), watch::Sender::default());
        Self { network, index, trunks, pairs, networks, project, state, placed, news }
    }

    /// News of which machines are found from now on.
    pub(crate) fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    /// Whether nothing has shown that it is otherwise since it was found.
    fn holds(&self, found: &Found) -> bool {
        match found.pods {
            Pods::Subports(trunk) => self.state.lock().begun.get(&found.parent.port_id) == Some(&trunk),
            Pods::Pairs | Pods::Addresses => true,
        }
    }

    /// Tells a trunk's writer what pods have there, unless it knows.
    fn begin(&self, parent: PortId, trunk: TrunkId) {
        let mut state = self.state.lock();
        if state.begun.insert(parent, trunk) != Some(trunk) {
            // Within the lock: nobody asks this writer for anything before.
            self.trunks.begin(trunk, self.index.ids_on(parent), []);
            self.news.send_replace(());
        }
    }

    /// The trunk with this parent, if there is one.
    pub(crate) async fn trunk_of(&self, parent: PortId) -> Result<Option<TrunkId>, PodError> {
        if let Some(trunk) = self.state.lock().begun.get(&parent) {
            return Ok(Some(*trunk));
        }
        let found = self.network.trunks().of_parent(parent).await?.map(|trunk| trunk.id);
        if let Some(trunk) = found {
            self.begin(parent, trunk);
        }
        Ok(found)
    }

    /// Somebody has deleted the trunk: it is looked for anew.
    fn lost(&self, trunk: TrunkId) {
        self.state.lock().begun.retain(|_, known| *known != trunk);
        self.news.send_replace(());
    }

    /// Puts a pod's port where the machine carries it, and says so in its VIF.
    pub(crate) async fn settle(&self, found: &Found, vif: &mut Vif) -> Result<(), PodError> {
        match found.pods {
            Pods::Subports(trunk) => {
                vif.plug.vlan = Some(self.place(trunk, vif.port_id).await?);
                Ok(())
            }
            Pods::Pairs | Pods::Addresses => {
                let placed = self.pairs.place(found.parent.port_id, pairs_of(vif)).await;
                if placed.as_ref().is_err_and(CloudError::is_not_found) {
                    // The machine has another port now, perhaps.
                    self.vanished(found.parent.port_id);
                }
                placed.map_err(|error| PodError::pair(error, found.parent.port_id))
            }
        }
    }

    /// How many more ports could be put on a trunk, if that is known.
    pub(crate) fn room(&self, trunk: TrunkId) -> Option<usize> {
        self.trunks.room(trunk).map(|room| room.free)
    }

    /// Puts a port on a trunk; the id that it has there.
    pub(crate) async fn place(&self, trunk: TrunkId, port: PortId) -> Result<SegmentationId, PodError> {
        let error = match self.trunks.place(trunk, port).await {
            Ok(id) => {
                self.placed.notify_one();
                return Ok(id);
            }
            Err(error) => error,
        };
        match &error {
            TrunkError::Gone(trunk) => self.lost(*trunk),
            TrunkError::Trouble(Trouble::Full) | TrunkError::Stopping => {}
            TrunkError::Cloud(error) if !error.is_about_subports() => {}
            // It is wanted there when it is asked for again; and perhaps it is deleted.
            TrunkError::Trouble(_) | TrunkError::Cloud(_) => self.trunks.gone(trunk, port),
        }
        Err(error.into())
    }

    /// Takes a pod's port from where the machine carries it: only then it may be deleted.
    pub(crate) async fn let_go(&self, vif: &Vif) -> Result<(), PodError> {
        let Some(parent) = vif.plug.parent else { return Ok(()) };
        if vif.plug.driver == PlugDriver::Vlan {
            let Some(trunk) = self.trunk_of(parent.port_id).await? else { return Ok(()) };
            return self.leave(trunk, vif.port_id).await;
        }
        Ok(self.pairs.leave(parent.port_id, pairs_of(vif)).await?)
    }

    /// Takes a port off a trunk: only then it may be deleted.
    pub(crate) async fn leave(&self, trunk: TrunkId, port: PortId) -> Result<(), PodError> {
        match self.trunks.leave(trunk, port).await {
            Err(TrunkError::Gone(trunk)) => {
                self.lost(trunk);
                Ok(())
            }
            left => Ok(left?),
        }
    }

    /// All trunks, with what they carry.
    pub(crate) async fn all_trunks(&self) -> Result<Vec<Trunk>, PodError> {
        Ok(self.network.background().trunks().list(&Filter::new()).await?)
    }

    /// Takes a port from the trunk that carries it, whichever that is.
    pub(crate) async fn take_off(&self, port: PortId) -> Result<(), PodError> {
        let trunks = self.all_trunks().await?;
        let carrier = trunks.iter().find(|trunk| trunk.sub_ports.iter().any(|subport| subport.port_id == port));
        let Some(trunk) = carrier else { return Ok(()) };
        self.begin(trunk.port_id, trunk.id);
        self.leave(trunk.id, port).await
    }

    /// A port was deleted of which it is not known on which trunk it was to be.
    pub(crate) fn forget(&self, port: PortId) {
        let trunks: Vec<TrunkId> = self.state.lock().begun.values().copied().collect();
        for trunk in trunks {
            self.trunks.gone(trunk, port);
        }
    }

    /// No machine's port shall use the addresses of a port of which it is not known whose pod has them.
    pub(crate) async fn unpair(&self, port: &Port) -> Result<(), PodError> {
        for (node, machine) in self.index.machines() {
            if machine.driver == PlugDriver::Vlan {
                continue;
            }
            let found = match self.find(&node, &machine).await {
                Ok(found) => found,
                Err(PodError::Cloud(error)) => return Err(error.into()),
                // It has no port that could use them.
                Err(_) => continue,
            };
            let mac = if found.pods == Pods::Addresses { found.parent.mac } else { port.mac_address };
            let used = port.fixed_ips.iter().map(|fixed| (fixed.ip_address, mac)).collect();
            self.pairs.leave(found.parent.port_id, used).await?;
        }
        Ok(())
    }

    /// Compares what pods have with what Neutron has, and puts right what somebody has changed. The nodes where it cannot, for their
    /// trunks are gone.
    pub(crate) async fn repair(&self) -> Result<Vec<CutOff>, PodError> {
        let carried = self.index.nested();
        let parents = carried.iter().filter(|(_, carried)| !carried.ids.is_empty()).map(|(parent, _)| *parent);
        let with_pods: BTreeSet<PortId> = parents.collect();
        // There may be spare subports on those of others.
        let parents: BTreeSet<PortId> =
            self.state.lock().begun.keys().copied().chain(with_pods.iter().copied()).collect();
        let found = if parents.is_empty() { Vec::new() } else { self.trunks_of(parents.iter().copied()).await? };
        for trunk in &found {
            if self.state.lock().begun.insert(trunk.port_id, trunk.id) != Some(trunk.id) {
                self.news.send_replace(());
            }
            self.trunks.begin(trunk.id, self.index.ids_on(trunk.port_id), []);
        }
        let mut cut_off = Vec::new();
        for parent in parents.iter().filter(|parent| found.iter().all(|trunk| trunk.port_id != **parent)) {
            if with_pods.contains(parent) {
                tracing::warn!(port = %parent, "the trunk of a node's port is gone: its pods are cut off until it is made again");
            }
            self.state.lock().begun.remove(parent);
            self.news.send_replace(());
            cut_off.extend(self.cut_off(*parent));
        }
        for (parent, carried) in carried.into_iter().filter(|(_, carried)| !carried.pairs.is_empty()) {
            if let Err(error) = self.pairs.place(parent, carried.pairs).await {
                tracing::warn!(port = %parent, reason = %error, "the addresses of a node's pods cannot be put right");
            }
        }
        if !found.is_empty() {
            self.placed.notify_one();
        }
        let nodes: HashSet<String> = self.index.nodes().into_iter().collect();
        self.state.lock().slots.retain(|node, _| nodes.contains(node));
        Ok(cut_off)
    }

    /// The node whose pods have been on the trunk with this parent.
    fn cut_off(&self, parent: PortId) -> Option<CutOff> {
        let interfaces = self.index.ids_on(parent).len();
        let on = |port: &&Arc<KuryrPort>| {
            port.spec.vifs.iter().any(|vif| vif.plug.parent.is_some_and(|known| known.port_id == parent))
        };
        let node = self.index.ports().iter().find(on)?.spec.node_name.clone();
        Some(CutOff { node, parent, interfaces })
    }
}

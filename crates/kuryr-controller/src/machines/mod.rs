//! Nodes that are virtual machines: their ports in Neutron, and what their pods have of these.
//!
//! ```text
//!   find(node)        ─▶ Neutron: the machine's port, its trunk ─▶ Found      remembered as long as it holds
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

mod pairs;
mod revive;
mod room;
mod task;

use crate::{
    error::PodError,
    index::Index,
    trunks::{TrunkError, Trunks},
};
use kuryr_model::{
    KuryrPort, NetworkId, PortId, ProjectId, SegmentationId, TrunkId, Vif,
    neutron::{Port, Trunk},
    vif::PlugDriver,
};
use kuryr_openstack::{Cloud, Error as CloudError, Filter, Network};
use kuryr_plan::{
    nested::{Found, Machine, ParentError, Pods, Question, pairs_of},
    trunk::Trouble,
};
use pairs::Pairs;
use parking_lot::Mutex;
pub(crate) use room::Room;
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fmt,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

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

/// How long it is not looked again for a machine that was not found: its other pods ask for it, too.
const NOT_AGAIN: Duration = Duration::from_secs(5);

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
    /// A trunk was found, or is gone.
    pub(crate) changed: Notify,
    /// A machine was looked for.
    looked: Notify,
}

#[derive(Default)]
struct State {
    slots: HashMap<String, Arc<tokio::sync::Mutex<Slot>>>,
    /// The trunks of parent ports, whose writers know what pods have on them.
    begun: HashMap<PortId, TrunkId>,
}

/// What is known of one node. It is looked for by one at a time.
#[derive(Default)]
struct Slot(Option<(Machine, Result<Found, PodError>, Instant)>);

impl Machines {
    pub(crate) fn new(cloud: &Cloud, index: Arc<Index>, networks: HashSet<NetworkId>, linger: Duration) -> Self {
        let (network, project) = (cloud.network(), cloud.identity().project);
        let trunks = Trunks::new(network.clone(), linger);
        let pairs = Pairs::new(network.clone(), linger);
        let (state, placed, changed, looked) = (Mutex::default(), Notify::new(), Notify::new(), Notify::new());
        Self { network, index, trunks, pairs, networks, project, state, placed, changed, looked }
    }

    /// The port of a node that is a virtual machine, and what its pods are there.
    pub(crate) async fn find(&self, node: &str, machine: &Machine) -> Result<Found, PodError> {
        let slot = self.state.lock().slots.entry(node.to_owned()).or_default().clone();
        let mut slot = slot.lock().await;
        if let Some((known, found, at)) = &slot.0
            && known == machine
            && match found {
                Ok(found) => self.holds(found),
                Err(_) => at.elapsed() < NOT_AGAIN,
            }
        {
            return found.clone();
        }
        let (found, trunk) = match self.look(machine).await {
            Ok((found, trunk)) => (Ok(found), trunk),
            Err(error) => (Err(error), None),
        };
        self.found(node, &mut slot, machine, &found, trunk);
        found
    }

    /// Remembers what was found of a machine, and has the room of its trunk known.
    fn found(
        &self,
        node: &str,
        slot: &mut Slot,
        machine: &Machine,
        found: &Result<Found, PodError>,
        trunk: Option<Trunk>,
    ) {
        if let Ok(found) = found {
            tracing::info!(node, port = %found.parent.port_id, pods = ?found.pods, "found the port of a node that is a virtual machine");
        }
        if let Some(trunk) = trunk {
            self.begin(trunk.port_id, trunk.id);
            self.trunks.watch(trunk.id, trunk.sub_ports);
        }
        slot.0 = Some((machine.clone(), found.clone(), Instant::now()));
        self.looked.notify_one();
    }

    /// What was found when the node was looked for last, if that holds and nobody is looking now.
    pub(crate) fn known(&self, node: &str, machine: &Machine) -> Option<Found> {
        let slot = self.state.lock().slots.get(node)?.clone();
        let slot = slot.try_lock().ok()?;
        let (known, found, _) = slot.0.as_ref()?;
        found.as_ref().ok().filter(|found| known == machine && self.holds(found)).copied()
    }

    /// Whether nothing has shown that it is otherwise since it was found.
    pub(crate) fn holds(&self, found: &Found) -> bool {
        match found.pods {
            Pods::Subports(trunk) => self.state.lock().begun.get(&found.parent.port_id) == Some(&trunk),
            Pods::Pairs | Pods::Addresses => true,
        }
    }

    async fn look(&self, machine: &Machine) -> Result<(Found, Option<Trunk>), PodError> {
        let ports = self.network.ports().list(&self.filter(machine.question()?)).await?;
        let trunks = if machine.driver == PlugDriver::Vlan {
            self.trunks_of(ports.iter().map(|port| port.id)).await?
        } else {
            Vec::new()
        };
        self.judge(machine, &ports, &trunks)
    }

    /// The ports that may be the answer.
    fn filter(&self, question: Question) -> Filter {
        match question {
            Question::Id(port) => Filter::new().with("id", port),
            Question::Device(server) => Filter::new().with("device_id", server),
            Question::Addresses(ips) => self.by_address(&ips),
        }
    }

    fn by_address(&self, ips: &[IpAddr]) -> Filter {
        let by_address = Filter::new().any("fixed_ips", ips.iter().map(|ip| format!("ip_address={ip}")));
        self.project.iter().fold(by_address, |filter, project| filter.with("project_id", project))
    }

    /// The port of a machine, and its trunk, among those that Neutron has shown.
    fn judge(&self, machine: &Machine, ports: &[Port], trunks: &[Trunk]) -> Result<(Found, Option<Trunk>), PodError> {
        let found = machine.parent(ports, trunks)?;
        match found.pods {
            Pods::Pairs | Pods::Addresses if !self.networks.contains(&found.network) => {
                let (driver, port, network) = (machine.driver, found.parent.port_id, found.network);
                Err(ParentError::NoSubnet { driver, port, network }.into())
            }
            Pods::Pairs | Pods::Addresses => Ok((found, None)),
            Pods::Subports(id) => Ok((found, trunks.iter().find(|trunk| trunk.id == id).cloned())),
        }
    }

    async fn trunks_of(&self, parents: impl IntoIterator<Item = PortId>) -> Result<Vec<Trunk>, CloudError> {
        self.network.trunks().list(&Filter::new().any("port_id", parents)).await
    }

    /// Tells a trunk's writer what pods have there, unless it knows.
    fn begin(&self, parent: PortId, trunk: TrunkId) {
        let mut state = self.state.lock();
        if state.begun.insert(parent, trunk) != Some(trunk) {
            // Within the lock: nobody asks this writer for anything before.
            self.trunks.begin(trunk, self.index.ids_on(parent), []);
            self.changed.notify_one();
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
        self.changed.notify_one();
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
                    self.state.lock().slots.clear();
                }
                placed.map_err(|error| PodError::pair(error, found.parent.port_id))
            }
        }
    }

    /// How many more ports could be put on a trunk, if that is known.
    pub(crate) fn room(&self, trunk: TrunkId) -> Option<usize> {
        self.trunks.room(trunk).map(|room| room.free)
    }

    /// Puts a pod's port on a trunk; the id that it has there.
    async fn place(&self, trunk: TrunkId, port: PortId) -> Result<SegmentationId, PodError> {
        self.outcome(trunk, port, self.trunks.place(trunk, port).await)
    }

    /// The same for a spare port.
    pub(crate) async fn place_spare(&self, trunk: TrunkId, port: PortId) -> Result<SegmentationId, PodError> {
        self.outcome(trunk, port, self.trunks.place_spare(trunk, port).await)
    }

    fn outcome(
        &self,
        trunk: TrunkId,
        port: PortId,
        result: Result<SegmentationId, TrunkError>,
    ) -> Result<SegmentationId, PodError> {
        let error = match result {
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
                self.changed.notify_one();
            }
            self.trunks.begin(trunk.id, self.index.ids_on(trunk.port_id), []);
        }
        let mut cut_off = Vec::new();
        for parent in parents.iter().filter(|parent| found.iter().all(|trunk| trunk.port_id != **parent)) {
            if with_pods.contains(parent) {
                tracing::warn!(port = %parent, "the trunk of a node's port is gone: its pods are cut off until it is made again");
            }
            self.state.lock().begun.remove(parent);
            self.changed.notify_one();
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

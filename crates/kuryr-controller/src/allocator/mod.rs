//! Where a pod's Neutron port comes from.
//!
//! ```text
//!   allocate(request) ──▶ a spare port? ──none──▶ gather ──batch──▶ look up suspects
//!                              └─▶ reply            └─▶ Supply: what next? ──▶ count, bulk create ──▶ replies
//!                                                            └─ of a node that is a virtual machine: then settled on its port
//!   sweep(pod)        ──▶ gather ──▶ one list for many pods ──▶ delete what nobody keeps
//! ```
//!
//! What is asked for and what an answer means is decided in [`kuryr_plan::allocator`]; here it is done. A pod whose node
//! has a spare port gets that one without any request, see [`spare`].
//!
//! Invariants:
//! - Requests that arrive together leave as one bulk create.
//! - A pod whose earlier request may have been carried out unseen (the answer was lost, the controller died) is a
//!   *suspect*: its port is looked up by its mark before another one is made.
//! - A port that was found, and not made for this request, is never deleted here: a `KuryrPort` may name it.

mod look;
mod make;
mod port;
mod spare;
#[cfg(test)]
mod tests;

use crate::{
    config::ControllerConfig,
    error::PodError,
    gather::{Arrival, Limits, gather},
    index::{Home, Index},
    machines::{CutOff, Machines},
    metrics::Metrics,
    policy::Keeper,
    pools::PoolReport,
    topology::Topology,
};
use kuryr_model::{
    ClusterId, KuryrPort, NetworkId, ObjectKey, PodUid, PortId, Purpose, SecurityGroupId, TrunkId, Vif,
    mark::cluster_tag, neutron::Port,
};
use kuryr_openstack::{Cloud, Filter};
use kuryr_plan::{
    allocator::{Supply, Suspects, Sweep},
    nested::{Found, Pods},
    pod::Pod,
    subnets::Choice,
};
use look::Look;
use parking_lot::Mutex;
pub(crate) use spare::Released;
use spare::Spares;
pub use spare::UnknownPool;
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

/// A pod that wants a port.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) key: ObjectKey,
    pub(crate) uid: PodUid,
    /// The node's name in Neutron.
    pub(crate) host: String,
    /// The node is a virtual machine: its port.
    pub(crate) machine: Option<Found>,
    /// All security groups that the port has from its first moment on, as [`Keeper::grant`] gave them. There is no other
    /// place where they are chosen.
    pub(crate) groups: Vec<SecurityGroupId>,
}

/// A port for a pod.
#[derive(Clone, Debug)]
pub(crate) struct Allocated {
    /// As its node plugs it.
    pub(crate) vif: Vif,
    /// It was made just now, or is one of a pool; else it was there, and may be recorded somewhere.
    pub(crate) made: bool,
}

impl Request {
    /// The only network on which its port may be, if there is one: where it shares its node's port.
    fn only(&self) -> Option<NetworkId> {
        let shares = |found: &&Found| matches!(found.pods, Pods::Pairs | Pods::Addresses);
        self.machine.as_ref().filter(shares).map(|found| found.network)
    }
}

type Reply = oneshot::Sender<Result<Allocated, PodError>>;

/// The handle; the work is done in tasks of its own.
#[derive(Clone)]
pub struct Allocator {
    requests: mpsc::UnboundedSender<Arrival<(Request, Reply)>>,
    looks: mpsc::UnboundedSender<Arrival<Look>>,
    shared: Arc<Shared>,
}

struct Shared {
    cloud: Cloud,
    cluster: ClusterId,
    topology: Topology,
    metrics: Metrics,
    /// Is told which ports there are, and with which groups.
    policies: Arc<Keeper>,
    machines: Machines,
    began: Instant,
    state: Mutex<State>,
    spares: Option<Spares>,
}

struct State {
    supply: Supply,
    /// The same for one network, where pods may be on several: some must be on their node's.
    supplies: HashMap<NetworkId, Supply>,
    suspects: Suspects,
    /// How Neutron said that the quota is used up.
    quota: Option<PodError>,
    /// Neutron says how full subnets are, as far as is known.
    tells_room: bool,
}

impl State {
    fn supply(&mut self, only: Option<NetworkId>) -> &mut Supply {
        match only {
            Some(network) => self.supplies.get_mut(&network).unwrap_or(&mut self.supply),
            None => &mut self.supply,
        }
    }
}

impl Allocator {
    pub(crate) fn start(
        cloud: Cloud,
        topology: Topology,
        config: &ControllerConfig,
        metrics: Metrics,
        policies: Arc<Keeper>,
        index: Arc<Index>,
    ) -> Self {
        let (requests, arrivals) = mpsc::unbounded_channel();
        let (looks, looked) = mpsc::unbounded_channel();
        let supply = Supply::new(topology.choices.clone(), config.bulk_size, topology.tells_room);
        let mut supplies = HashMap::new();
        for network in topology.networks.keys().filter(|_| topology.networks.len() > 1) {
            let on = |choice: &&Choice| choice.network == *network;
            let choices = topology.choices.iter().filter(on).cloned().collect();
            supplies.insert(*network, Supply::new(choices, config.bulk_size, topology.tells_room));
        }
        let tells_room = topology.tells_room;
        let state = Mutex::new(State { supply, supplies, suspects: Suspects::default(), quota: None, tells_room });
        let (cluster, began) = (config.cluster.clone(), Instant::now());
        let pools = config.pools.clone();
        let spares = pools.map(|pools| Spares::new(pools.sizes, pools.names, &topology, index.clone()));
        let networks = topology.networks.keys().copied().collect();
        let machines = Machines::new(&cloud, index, networks, config.bulk_linger);
        let shared = Arc::new(Shared { cloud, cluster, topology, metrics, policies, machines, began, state, spares });
        let limits =
            Limits { bulk_size: config.bulk_size, bulk_requests: config.bulk_requests, burst: config.bulk_linger };
        let serving = shared.clone();
        let serve = move |batch| {
            let shared = serving.clone();
            async move { shared.serve(batch).await }
        };
        tokio::spawn(gather(arrivals, limits, serve));
        tokio::spawn(look::answer(shared.clone(), looked, config.bulk_linger));
        Self { requests, looks, shared }
    }

    /// The port of a node that is a virtual machine; `None`: it is none.
    pub(crate) async fn machine(&self, node: &str, home: &Home) -> Result<Option<Found>, PodError> {
        let wrong = |error| PodError::Machine { node: node.to_owned(), error };
        match home.machine.as_ref().map_err(|error| wrong(error.clone()))? {
            Some(machine) => Ok(Some(self.shared.machines.find(node, machine).await?)),
            None => Ok(None),
        }
    }

    /// A port for a pod.
    pub(crate) async fn allocate(&self, request: Request) -> Result<Allocated, PodError> {
        let (key, uid, pool) = (request.key.clone(), request.uid.clone(), self.shared.pool_of(&request));
        let allocated = self.find_or_make(request).await;
        if let Some(pool) = pool {
            self.shared.answered(pool, key, &uid, allocated.is_ok());
        }
        allocated
    }

    async fn find_or_make(&self, request: Request) -> Result<Allocated, PodError> {
        let (reply, answer) = oneshot::channel();
        let (key, uid, machine) = (request.key.clone(), request.uid.clone(), request.machine);
        // Nobody for whom a port is there waits behind those for whom ports are made.
        let suspect = self.shared.state.lock().suspects.may_have_one(&key, &uid);
        let without = if suspect { Some((request, reply)) } else { self.shared.lend_at_once(request, reply) };
        if let Some(pod) = without {
            self.requests.send((pod, Instant::now())).map_err(|_| PodError::Stopping)?;
        }
        let mut allocated = answer.await.map_err(|_| PodError::Stopping)??;
        let Some(found) = machine else { return Ok(allocated) };
        match self.shared.machines.settle(&found, &mut allocated.vif).await {
            Ok(()) => {
                self.shared.settled(allocated.vif.port_id);
                Ok(allocated)
            }
            Err(error) => {
                // It stays the pod's, and is found at the next try, unless it is a spare one that will never do.
                self.shared.suspect(&key, &uid, false);
                self.shared.not_settled(&uid, allocated.vif.port_id, &error);
                Err(error)
            }
        }
    }

    /// Gives the port of a VIF back that no sandbox can use any more: to its pool, or it is deleted. That it is gone already is success.
    pub(crate) async fn release(&self, vif: &Vif) -> Result<Released, PodError> {
        if self.shared.give_back(vif).await {
            return Ok(Released::Kept);
        }
        self.shared.machines.let_go(vif).await?;
        self.shared.delete(vif.port_id).await?;
        Ok(Released::Deleted)
    }

    /// Deletes a port that no `KuryrPort` names. That it is gone already is success.
    pub(crate) async fn discard(&self, port: &Port) -> Result<(), PodError> {
        self.shared.discard(port).await
    }

    /// Looks for the ports of nodes that are virtual machines for ever.
    pub(crate) async fn seek_machines(self) {
        self.shared.machines.seek().await;
    }

    /// Looks after the ports of pods of virtual machines for ever.
    pub(crate) async fn revive(self) {
        self.shared.machines.revive(&self.shared.cluster, || self.shared.on_trunks()).await;
    }

    /// How many pods get a spare port on each trunk.
    pub(crate) fn ready_on_trunks(&self) -> HashMap<TrunkId, usize> {
        self.shared.ready_on_trunks()
    }

    /// Waits until there may be more or fewer spare ports.
    pub(crate) async fn pools_changed(&self) {
        self.shared.pools_changed().await;
    }

    /// The nodes that are virtual machines.
    pub(crate) fn machines(&self) -> &Machines {
        &self.shared.machines
    }

    /// Compares what pods of virtual machines have with what Neutron has, and puts it right; the nodes where it cannot.
    pub(crate) async fn repair(&self) -> Result<Vec<CutOff>, PodError> {
        self.shared.machines.repair().await
    }

    /// The port that was lent to this pod is in no `KuryrPort`, for sure.
    pub(crate) fn returned(&self, uid: &PodUid) -> bool {
        self.shared.returned(uid)
    }

    /// Keeps pools as they should be, for ever. To be begun when the first listing is through.
    pub(crate) async fn keep_pools(&self) {
        spare::keep(&self.shared).await;
    }

    /// All ports with our mark are about to be listed.
    pub(crate) fn listing(&self) {
        self.shared.listing();
    }

    /// Whether some of these are ports of pools that nobody knows of.
    pub(crate) fn has_unknown(&self, spare: &BTreeSet<PortId>) -> bool {
        self.shared.has_unknown(spare)
    }

    /// The trunks that carry those of these ports that are ports of pools, as far as that is not known and anybody carries them.
    pub(crate) async fn carriers(&self, ports: &[Port]) -> Result<HashMap<PortId, TrunkId>, PodError> {
        self.shared.carriers(ports).await
    }

    /// All ports with our mark, those of pools that no `KuryrPort` had when they were listed, and who carries them. Those that are left to
    /// be deleted.
    pub(crate) fn listed(
        &self,
        ports: &[Port],
        spare: BTreeSet<PortId>,
        carriers: &HashMap<PortId, TrunkId>,
    ) -> BTreeSet<PortId> {
        self.shared.listed(ports, spare, carriers)
    }

    /// Waits until all ports are to be listed again, because some may have been made unseen.
    pub(crate) async fn look_is_due(&self) {
        self.shared.look_is_due().await;
    }

    /// No pod of this name waits for a port.
    pub(crate) fn waits_no_more(&self, key: &ObjectKey) {
        self.shared.waits_no_more(key);
    }

    /// No pod waits for room.
    pub(crate) fn relieved(&self) {
        self.shared.relieved();
    }

    /// A pod has these ports, and its `KuryrPort`, which named them, was let go without being read: it gets the same when it asks again.
    pub(crate) fn lend_again(&self, uid: &PodUid, ports: &[PortId]) {
        self.shared.lend_again(uid, ports);
    }

    /// What pools have; none if there are no pools.
    #[must_use]
    pub fn pools(&self) -> Option<PoolReport> {
        self.shared.pool_report()
    }

    /// From now until the next restart a node's pools are to have so many ports ready at least, however little is asked for; 0: as many as
    /// demand says. How many each of them is to have now, which is less where there is no room for more.
    ///
    /// # Errors
    /// There is no such pool.
    pub fn fill_pools(&self, node: &str, network: Option<NetworkId>, count: usize) -> Result<Vec<usize>, UnknownPool> {
        self.shared.fill_pools(node, network, count)
    }

    /// From now until they are filled or the next restart a node's pools are to be empty. How many ports are deleted for that.
    ///
    /// # Errors
    /// There is no such pool.
    pub fn drain_pools(&self, node: &str, network: Option<NetworkId>) -> Result<usize, UnknownPool> {
        self.shared.drain_pools(node, network)
    }

    /// Deletes the ports that there are for a pod, but for those to be kept; how many.
    pub(crate) async fn sweep(&self, sweep: &Sweep) -> Result<usize, PodError> {
        let (reply, found) = oneshot::channel();
        let look = Look { uid: sweep.uid.clone(), reply };
        self.looks.send((look, Instant::now())).map_err(|_| PodError::Stopping)?;
        let mut deleted = 0;
        for port in found.await.map_err(|_| PodError::Stopping)?? {
            if !sweep.keep.contains(&port.id) {
                tracing::info!(uid = %sweep.uid, port = %port.id, "deleting a port of which the answer was lost");
                self.shared.discard(&port).await?;
                deleted += 1;
            }
        }
        Ok(deleted)
    }

    /// There may be a port for this pod that is recorded nowhere.
    pub(crate) fn suspect(&self, key: &ObjectKey, uid: &PodUid) {
        self.shared.suspect(key, uid, false);
    }

    /// The pod's port is in its `KuryrPort`.
    pub(crate) fn recorded(&self, key: &ObjectKey, uid: &PodUid) {
        self.shared.state.lock().suspects.recorded(key, uid);
        self.shared.recorded(key, uid);
    }

    /// All ports with our mark were seen; the given pods have one that is recorded nowhere.
    pub(crate) fn resynced(&self, suspects: impl IntoIterator<Item = (PodUid, Option<ObjectKey>)>) {
        self.shared.state.lock().suspects.listed(suspects);
    }

    /// What is to be deleted of the suspects of this name, by its pod and its `KuryrPort` as they are. With the moment of
    /// which that is true, for [`Allocator::swept`].
    pub(crate) fn sweeps(
        &self,
        key: &ObjectKey,
        pod: Option<&Pod>,
        port: Option<&KuryrPort>,
    ) -> (Duration, Vec<Sweep>) {
        let now = self.shared.now();
        (now, self.shared.state.lock().suspects.sweeps(key, pod, port, now))
    }

    /// A sweep that began at `begun` is done.
    pub(crate) fn swept(&self, key: &ObjectKey, uid: &PodUid, begun: Duration) {
        self.shared.state.lock().suspects.swept(key, uid, begun);
    }

    /// Time until the suspects of this name are to be looked after, if there are any.
    pub(crate) fn look_after(&self, key: &ObjectKey) -> Option<Duration> {
        self.shared.state.lock().suspects.look_after(key, self.shared.now())
    }

    /// All ports that carry our mark. Their owner tells nothing: it changes as a port comes to a trunk and leaves it.
    pub(crate) async fn list_all(&self) -> Result<Vec<Port>, PodError> {
        let ours = Filter::new().tags([cluster_tag(&self.shared.cluster)]);
        Ok(self.shared.cloud.network().background().ports().list(&ours).await?)
    }
}

impl Shared {
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn suspect(&self, key: &ObjectKey, uid: &PodUid, late: bool) {
        self.state.lock().suspects.add(key, uid, late, self.now());
    }

    async fn delete(&self, id: PortId) -> Result<(), PodError> {
        self.cloud.network().background().ports().delete(id).await?;
        self.policies.port_gone(id);
        let mut state = self.state.lock();
        state.supply.released(1);
        state.supplies.values_mut().for_each(|supply| supply.released(1));
        drop(state);
        self.deleted(id);
        Ok(())
    }

    /// Deletes a port of which it is not known where it is: perhaps a virtual machine carries it.
    async fn discard(&self, port: &Port) -> Result<(), PodError> {
        // Only what holds an address has a device and no host.
        if port.host_id.is_empty() && !port.device_id.is_empty() {
            self.machines.unpair(port).await?;
        }
        match self.delete(port.id).await {
            Err(PodError::Cloud(error)) if error.is_subport_in_use() => {
                self.machines.take_off(port.id).await?;
                self.delete(port.id).await?;
            }
            deleted => deleted?,
        }
        self.machines.forget(port.id);
        Ok(())
    }

    /// The ports that are there for these pods.
    async fn find(&self, uids: &[PodUid], background: bool) -> Result<Vec<Port>, PodError> {
        // By their mark: a subport must not have a device. By that alone: Neutron (at least Zed) on MySQL answers 500 to a list that is
        // filtered by `tags`, too. Whose a port is, is read from its mark anyway.
        let ours = Filter::new().any("tags-any", uids.iter().map(|uid| Purpose::Pod(uid.clone())));
        let network = self.cloud.network();
        let network = if background { network.background() } else { network };
        Ok(network.ports().list(&ours).await?)
    }
}

//! Where a pod's Neutron port comes from.
//!
//! ```text
//!   allocate(request) ──▶ gather ──batch──▶ look up suspects ──▶ Supply: what next? ──▶ count, bulk create ──▶ replies
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
mod port;
mod spare;
#[cfg(test)]
mod tests;

use crate::{
    config::ControllerConfig,
    error::PodError,
    gather::{Arrival, Limits, gather},
    index::Index,
    metrics::Metrics,
    policy::Keeper,
    topology::Topology,
};
use kuryr_model::{
    ClusterId, DEVICE_OWNER, KuryrPort, NetworkId, ObjectKey, PodUid, PortId, SecurityGroupId, Vif, mark::cluster_tag,
    neutron::Port,
};
use kuryr_openstack::{Class, Cloud, Error as CloudError, Filter, Waits, network::NewPort};
use kuryr_plan::{
    allocator::{Ask, Batch, Counted, Next, Refusal, Shortage, Supply, Suspects, Sweep},
    pod::Pod,
};
use look::Look;
use parking_lot::Mutex;
pub(crate) use spare::Released;
use spare::Spares;
pub use spare::{PoolReport, PoolRow, UnknownPool};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

/// How long Neutron may take to say how full subnets are. Pods wait for it, and do without if it takes longer.
const COUNT_WITHIN: Duration = Duration::from_secs(3);

/// A pod that wants a port.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) key: ObjectKey,
    pub(crate) uid: PodUid,
    /// The node's name in Neutron.
    pub(crate) host: String,
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
    began: Instant,
    state: Mutex<State>,
    spares: Option<Spares>,
}

struct State {
    supply: Supply,
    suspects: Suspects,
    /// How Neutron said that the quota is used up.
    quota: Option<PodError>,
    /// Neutron says how full subnets are, as far as is known.
    tells_room: bool,
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
        let state =
            Mutex::new(State { supply, suspects: Suspects::default(), quota: None, tells_room: topology.tells_room });
        let (cluster, began) = (config.cluster.clone(), Instant::now());
        let spares = config.pools.clone().map(|pools| Spares::new(pools.sizes, pools.names, &topology, index));
        let shared = Arc::new(Shared { cloud, cluster, topology, metrics, policies, began, state, spares });
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

    /// A port for a pod.
    pub(crate) async fn allocate(&self, request: Request) -> Result<Allocated, PodError> {
        let (reply, answer) = oneshot::channel();
        let (host, uid) = (request.host.clone(), request.uid.clone());
        self.requests.send(((request, reply), Instant::now())).map_err(|_| PodError::Stopping)?;
        let answer = answer.await;
        self.shared.answered(&host, &uid);
        answer.map_err(|_| PodError::Stopping)?
    }

    /// Gives a port back that no sandbox can use any more: to its pool, or it is deleted. That it is gone already is success.
    pub(crate) async fn release(&self, id: PortId) -> Result<Released, PodError> {
        if self.shared.give_back(id).await {
            return Ok(Released::Kept);
        }
        self.shared.delete(id).await?;
        Ok(Released::Deleted)
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

    /// All ports with our mark, and those of pools that no `KuryrPort` had when they were listed. Those that are left to be deleted.
    pub(crate) fn listed(&self, ports: &[Port], spare: BTreeSet<PortId>) -> BTreeSet<PortId> {
        self.shared.listed(ports, spare)
    }

    /// Waits until all ports are to be listed again, because some may have been made unseen.
    pub(crate) async fn look_is_due(&self) {
        self.shared.look_is_due().await;
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
    /// demand says. How many pools that are.
    ///
    /// # Errors
    /// There is no such pool.
    pub fn fill_pools(&self, node: &str, network: Option<NetworkId>, count: usize) -> Result<usize, UnknownPool> {
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
                self.shared.delete(port.id).await?;
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

    /// All ports that carry our mark and are for pods.
    pub(crate) async fn list_all(&self) -> Result<Vec<Port>, PodError> {
        let ours = Filter::new().tags([cluster_tag(&self.shared.cluster)]).with("device_owner", DEVICE_OWNER);
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

    /// Answers every request of a batch: by what is there already, then by what is made.
    async fn serve(&self, batch: Vec<(Request, Reply)>) {
        let suspects: Vec<PodUid> = {
            let state = self.state.lock();
            let suspect = |request: &Request| state.suspects.may_have_one(&request.key, &request.uid);
            let batch = batch.iter().map(|(request, _)| request);
            batch.filter(|request| suspect(request)).map(|request| request.uid.clone()).collect()
        };
        let mut found: HashMap<PodUid, Port> = HashMap::new();
        if !suspects.is_empty() {
            match self.find(&suspects, false).await {
                // The first one of several, the same at each look. The others go when this one is recorded.
                Ok(ports) => {
                    for port in ports {
                        let Some(owner) = self.owner(&port) else { continue };
                        let first = found.entry(owner).or_insert_with(|| port.clone());
                        if port.id < first.id {
                            *first = port;
                        }
                    }
                }
                // A spare port needs no look: of two ports of one pod, the one that its KuryrPort does not name is swept. And who is
                // no suspect need not wait for those who are.
                Err(error) => {
                    let without = self.lend(batch).await;
                    let (unsure, sure): (Vec<_>, Vec<_>) =
                        without.into_iter().partition(|(request, _)| suspects.contains(&request.uid));
                    fail(unsure, &error);
                    self.make(sure).await;
                    return;
                }
            }
        }
        let mut without = Vec::new();
        for (request, reply) in batch {
            match found.remove(&request.uid) {
                Some(port) => self.answer(&request, reply, port, false).await,
                None => without.push((request, reply)),
            }
        }
        let without = self.lend(without).await;
        self.make(without).await;
    }

    /// Makes ports for those that have none.
    async fn make(&self, pods: Vec<(Request, Reply)>) {
        let mut batch = Batch::new(pods);
        loop {
            let next = self.state.lock().supply.next(&mut batch, self.now());
            match next {
                None => return,
                Some(Next::Count(network)) => self.count(&mut batch, network).await,
                Some(Next::Create(ask, pods)) => self.create(&mut batch, ask, pods).await,
                Some(Next::Short(shortage, pods)) => {
                    // That is no reason to wait while ports lie about in pools.
                    if self.make_way(shortage, pods.len()).await {
                        batch.again(pods);
                    } else {
                        fail(pods, &self.short(shortage));
                    }
                }
            }
        }
    }

    /// Asks Neutron for ports in one request.
    async fn create(&self, batch: &mut Batch<(Request, Reply)>, ask: Ask, pods: Vec<(Request, Reply)>) {
        let wanted: Vec<NewPort> = pods.iter().map(|(request, _)| self.new_port(request, &ask.choice)).collect();
        self.metrics.bulk(pods.len());
        match self.cloud.network().ports().create_many(&wanted).await {
            Ok(ports) => {
                self.state.lock().supply.made(&ask);
                // By device_id, not by the mark: whether Neutron kept the mark is looked at when it is answered.
                let mut made: HashMap<String, Port> =
                    ports.into_iter().map(|port| (port.device_id.clone(), port)).collect();
                for (request, reply) in pods {
                    match made.remove(request.uid.as_str()) {
                        Some(port) => self.answer(&request, reply, port, true).await,
                        None => {
                            self.suspect(&request.key, &request.uid, false);
                            let _ = reply.send(Err(PodError::LeftOut(request.key)));
                        }
                    }
                }
            }
            Err(error) => {
                let refusal = refusal(&error);
                if refusal == Refusal::Exhausted && pods.len() == 1 {
                    let subnets = self.names(&ask.choice.subnets).join(", ");
                    tracing::warn!(subnets, request_id = error.request_id(), "the subnet has no free address");
                }
                let error = PodError::from(error);
                let now = self.now();
                let failed = {
                    let mut state = self.state.lock();
                    if refusal == Refusal::Quota {
                        state.quota = Some(error.clone());
                    }
                    state.supply.refused(batch, &ask, pods, refusal, now)
                };
                if refusal == Refusal::Unknown {
                    for (request, _) in &failed {
                        self.suspect(&request.key, &request.uid, true);
                    }
                }
                if refusal == Refusal::Quota && self.make_way(Shortage::Quota, failed.len()).await {
                    batch.again(failed);
                } else {
                    fail(failed, &error);
                }
            }
        }
    }

    /// Asks Neutron how full the subnets of a network are.
    async fn count<R>(&self, batch: &mut Batch<R>, network: NetworkId) {
        let question = self.state.lock().supply.question();
        let answer = match self.cloud.network().within(COUNT_WITHIN).ip_availability(network).await {
            Ok(subnets) => Counted::Free(subnets.iter().map(|subnet| (subnet.subnet_id, port::free(subnet))).collect()),
            Err(error) if error.is_not_found() || error.class() == Class::Operator(Waits::Forbidden) => {
                tracing::info!(
                    reason = %error,
                    "Neutron does not say how full subnets are (policy get_network_ip_availability): a subnet that fills up \
                     may lose some addresses"
                );
                Counted::Never
            }
            Err(error) => {
                tracing::debug!(reason = %error, "it is not known how full the subnets are");
                Counted::NotNow
            }
        };
        self.state.lock().supply.counted(batch, network, &question, answer, self.now());
    }

    fn short(&self, shortage: Shortage) -> PodError {
        match shortage {
            Shortage::Addresses => self.all_full(),
            Shortage::Quota => self.state.lock().quota.clone().unwrap_or(PodError::QuotaUsedUp),
        }
    }

    /// Answers one request with the VIF for its port. A port that was made and cannot be plugged, or is wanted no more, is deleted.
    async fn answer(&self, request: &Request, reply: Reply, port: Port, made: bool) {
        let id = port.id;
        let result = self.vif(request, &port).map(|vif| Allocated { vif, made });
        let unusable = result.is_err();
        if !unusable {
            self.policies.has(id, &request.uid, &port.security_groups);
        }
        if reply.send(result).is_err() || unusable {
            // One that was found and is unusable is in no KuryrPort: it would have been unusable then, too.
            let deleted = (made || unusable) && self.delete(id).await.is_ok();
            if !deleted {
                self.suspect(&request.key, &request.uid, false);
            }
        }
    }

    async fn delete(&self, id: PortId) -> Result<(), PodError> {
        self.cloud.network().background().ports().delete(id).await?;
        self.policies.port_gone(id);
        self.state.lock().supply.released(1);
        self.deleted(id);
        Ok(())
    }

    /// The ports that are there for these pods.
    async fn find(&self, uids: &[PodUid], background: bool) -> Result<Vec<Port>, PodError> {
        let ours = Filter::new().tags([cluster_tag(&self.cluster)]).any("device_id", uids);
        let network = self.cloud.network();
        let network = if background { network.background() } else { network };
        Ok(network.ports().list(&ours).await?)
    }
}

/// Tells all of them why they have no port.
fn fail(pods: Vec<(Request, Reply)>, error: &PodError) {
    for (_, reply) in pods {
        let _ = reply.send(Err(error.clone()));
    }
}

/// What an answer of Neutron means to those who asked for ports.
fn refusal(error: &CloudError) -> Refusal {
    if error.is_ambiguous() {
        return Refusal::Unknown;
    }
    match error.class() {
        Class::Operator(Waits::Exhausted) => Refusal::Exhausted,
        Class::Operator(Waits::Quota) => Refusal::Quota,
        // It was refused for what was asked for, rather than not listened to at all.
        Class::Operator(_) | Class::Owner | Class::Bug if error.refusal().is_some() => Refusal::Request,
        Class::Operator(_) | Class::Owner | Class::Bug | Class::RetryNow | Class::RetryLater { .. } => Refusal::All,
    }
}

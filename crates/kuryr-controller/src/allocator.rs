//! Where a pod's Neutron port comes from. Port pools will have their place here, before Neutron is asked.
//!
//! ```text
//!   allocate(request) ──▶ gather ──batch of one choice──▶ look up suspects ──▶ bulk create ──▶ replies
//!                           ▲                                                   │ refused
//!                           └── next choice, when a subnet is full ◀── halve ───┘
//! ```
//!
//! Invariants:
//! - Requests that arrive together leave as one bulk create. Neutron makes all ports of a bulk or none; a refused bulk is
//!   halved until the request that Neutron refuses stands alone, so that it holds up no other.
//! - No bulk is asked for that is known not to fit ([`Rooms`]), and where a subnet was full lately, ports are asked for one
//!   by one: Neutron loses the addresses that it took for the first ports of a bulk that then does not fit.
//! - A pod whose earlier request may have been carried out unseen (the answer was lost, the controller died) is a
//!   *suspect*: its port is looked up by its mark before another one is made.

use crate::{
    config::ControllerConfig,
    error::PodError,
    gather::{Arrival, Limits, gather},
    metrics::Metrics,
    room::{Reserved, Rooms},
    topology::Topology,
};
use futures::future::BoxFuture;
use kuryr_model::{
    ClusterId, DEVICE_OWNER, Mark, ObjectKey, PodUid, PortId, Purpose, SubnetId, Vif, mark::cluster_tag, neutron::Port,
};
use kuryr_openstack::{
    Class, Cloud, Error as CloudError, Filter, Waits,
    network::{NewFixedIp, NewPort, ip_availability::SubnetUse},
};
use kuryr_plan::{subnets::Choice, vif::vif};
use parking_lot::Mutex;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

/// The name that the interface of a pod's first port has.
const INTERFACE: &str = "eth0";

/// How long a subnet that was full is not asked again, unless one of our ports is deleted before.
const FULL_FOR: Duration = Duration::from_secs(30);

/// How long after a subnet was full no bulk is asked of it. ML2 allocates the addresses of a bulk before its transaction begins:
/// when there are too few, those that were allocated stay so for ever, and belong to no port.
const TIGHT_FOR: Duration = Duration::from_secs(60 * 60);

/// How long Neutron may take to say how full subnets are. Pods wait for it, and do without if it takes longer.
const COUNT_WITHIN: Duration = Duration::from_secs(3);

/// A pod that wants a port.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) key: ObjectKey,
    pub(crate) uid: PodUid,
    /// The node's name in Neutron.
    pub(crate) host: String,
}

type Reply = oneshot::Sender<Result<Vif, PodError>>;

/// The handle; the work is done in tasks of its own.
#[derive(Clone)]
pub(crate) struct Allocator {
    requests: mpsc::UnboundedSender<Arrival<(Request, Reply)>>,
    shared: Arc<Shared>,
}

struct Shared {
    cloud: Cloud,
    cluster: ClusterId,
    topology: Topology,
    metrics: Metrics,
    bulk_size: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Pods for which there may be a port already.
    suspects: HashSet<PodUid>,
    /// Ports left behind by an earlier controller were looked for, so who is no suspect has none.
    resynced: bool,
    /// Choices that were full, and when to ask again.
    full: HashMap<Choice, Instant>,
    /// Choices that have had no room for a bulk, and how long they are asked for one port at a time.
    tight: HashMap<Choice, Instant>,
    /// How many addresses are left.
    rooms: Rooms,
    /// Neutron does not tell how full subnets are: it cannot, or our user may not know.
    untold: bool,
}

impl Allocator {
    pub(crate) fn start(cloud: Cloud, topology: Topology, config: &ControllerConfig, metrics: Metrics) -> Self {
        let (requests, arrivals) = mpsc::unbounded_channel();
        let cluster = config.cluster.clone();
        let state = State { untold: !topology.tells_room, ..State::default() };
        let bulk_size = config.bulk_size;
        let shared = Arc::new(Shared { cloud, cluster, topology, metrics, bulk_size, state: Mutex::new(state) });
        let limits = Limits { bulk_size, bulk_requests: config.bulk_requests, burst: config.bulk_linger };
        let serving = shared.clone();
        let serve = move |batch| {
            let shared = serving.clone();
            async move { shared.serve(batch).await }
        };
        tokio::spawn(gather(arrivals, limits, serve));
        Self { requests, shared }
    }

    /// A port for a pod, as the VIF that its node plugs.
    pub(crate) async fn allocate(&self, request: Request) -> Result<Vif, PodError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(((request, reply), Instant::now())).map_err(|_| PodError::Stopping)?;
        answer.await.map_err(|_| PodError::Stopping)?
    }

    /// Deletes a port. That it is gone already is success.
    pub(crate) async fn release(&self, id: PortId) -> Result<(), PodError> {
        self.shared.delete(id).await
    }

    /// Deletes whatever ports there are for a pod.
    pub(crate) async fn release_all(&self, uid: &PodUid) -> Result<(), PodError> {
        for port in self.shared.find(&HashSet::from([uid.clone()])).await? {
            self.shared.delete(port.id).await?;
        }
        Ok(())
    }

    /// What was done for this pod is not recorded: look its port up before another one is made.
    pub(crate) fn suspect(&self, uid: &PodUid) {
        self.shared.state.lock().suspects.insert(uid.clone());
    }

    /// All ports with our mark were seen; the given pods have one that is recorded nowhere.
    pub(crate) fn resynced(&self, suspects: impl IntoIterator<Item = PodUid>) {
        let mut state = self.shared.state.lock();
        state.suspects.extend(suspects);
        state.resynced = true;
    }

    /// All ports that carry our mark and are for pods.
    pub(crate) async fn list_all(&self) -> Result<Vec<Port>, PodError> {
        let ours = Filter::new().tags([cluster_tag(&self.shared.cluster)]).with("device_owner", DEVICE_OWNER);
        Ok(self.shared.cloud.network().background().ports().list(&ours).await?)
    }
}

impl Shared {
    /// Answers every request of a batch.
    async fn serve(&self, batch: Vec<(Request, Reply)>) {
        let suspects: HashSet<PodUid> = {
            let state = self.state.lock();
            let suspect = |uid: &PodUid| !state.resynced || state.suspects.contains(uid);
            batch.iter().map(|(request, _)| request.uid.clone()).filter(suspect).collect()
        };
        let mut found: HashMap<PodUid, Port> = HashMap::new();
        if !suspects.is_empty() {
            match self.find(&suspects).await {
                Ok(ports) => found.extend(ports.into_iter().filter_map(|port| Some((self.owner(&port)?, port)))),
                Err(error) => {
                    for (_, reply) in batch {
                        let _ = reply.send(Err(error.clone()));
                    }
                    return;
                }
            }
        }
        let mut to_make = Vec::new();
        for (request, reply) in batch {
            match found.remove(&request.uid) {
                Some(port) => self.answer(&request, reply, Ok(port)).await,
                None => to_make.push((request, reply)),
            }
        }
        self.make(to_make).await;
    }

    /// Makes ports for a batch on the best choice that is not full.
    fn make(&self, mut batch: Vec<(Request, Reply)>) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if batch.is_empty() {
                return;
            }
            let Some(choice) = self.open_choice() else {
                for (request, reply) in batch {
                    self.answer(&request, reply, Err(self.all_full())).await;
                }
                return;
            };
            let rest = batch.split_off(self.take_room(&choice, batch.len()).await);
            let count = batch.len();
            let wanted: Vec<NewPort> = batch.iter().map(|(request, _)| self.new_port(request, &choice)).collect();
            self.metrics.bulk(count);
            match self.cloud.network().ports().create_many(&wanted).await {
                Ok(ports) => {
                    self.state.lock().rooms.answered(&choice, count);
                    // By device_id, not by the mark: whether Neutron kept the mark is looked at when it is answered.
                    let mut made: HashMap<String, Port> =
                        ports.into_iter().map(|port| (port.device_id.clone(), port)).collect();
                    for (request, reply) in batch {
                        let port = made.remove(request.uid.as_str());
                        let port = port.ok_or_else(|| PodError::LeftOut(request.key.clone()));
                        self.answer(&request, reply, port).await;
                    }
                }
                Err(error) => self.refused(batch, choice, error).await,
            }
            self.make(rest).await;
        })
    }

    /// How many of `wanted` ports to ask for in one request. Neutron is asked for the room there is only before a bulk that
    /// may be too large for it.
    async fn take_room(&self, choice: &Choice, wanted: usize) -> usize {
        {
            let mut state = self.state.lock();
            let wanted = if state.is_tight(choice) { 1 } else { wanted };
            if wanted == 1 || state.untold {
                state.rooms.take(choice, wanted);
                return wanted;
            }
            if let Reserved::Taken(count) = state.rooms.reserve(choice, wanted, self.bulk_size, Instant::now()) {
                return count;
            }
        }
        self.count(choice).await;
        let mut state = self.state.lock();
        let count = state.rooms.take_some(choice, wanted, Instant::now());
        if count < wanted {
            state.tight.insert(choice.clone(), Instant::now() + FULL_FOR);
        }
        count
    }

    /// Asks Neutron how full the subnets of a network are.
    async fn count(&self, choice: &Choice) {
        let question = self.state.lock().rooms.ask();
        let answer = self.cloud.network().within(COUNT_WITHIN).ip_availability(choice.network).await;
        let mut state = self.state.lock();
        match answer {
            Ok(subnets) => {
                for subnet in subnets {
                    state.rooms.count(&question, subnet.subnet_id, free(&subnet), Instant::now());
                }
            }
            Err(error) if error.is_not_found() || error.class() == Class::Operator(Waits::Forbidden) => {
                state.untold = true;
                tracing::info!(
                    reason = %error,
                    "Neutron does not say how full subnets are (policy get_network_ip_availability): a subnet that fills up \
                     may lose some addresses"
                );
            }
            Err(error) => tracing::debug!(reason = %error, "it is not known how full the subnets are"),
        }
    }

    /// A bulk create failed: find out for whom, unless it failed for all.
    async fn refused(&self, mut batch: Vec<(Request, Reply)>, choice: Choice, error: CloudError) {
        self.state.lock().note_refusal(&choice, batch.len(), &error);
        if error.is_exhausted() && batch.len() == 1 {
            tracing::warn!(subnets = self.names(&choice.subnets).join(", "), "the subnet has no free address");
            self.state.lock().full.insert(choice, Instant::now() + FULL_FOR);
            self.make(batch).await;
        } else if concerns_the_request(&error) && batch.len() > 1 {
            let rest = batch.split_off(batch.len() / 2);
            self.make(batch).await;
            self.make(rest).await;
        } else {
            let ambiguous = error.is_ambiguous();
            let error = PodError::from(error);
            for (request, reply) in batch {
                if ambiguous {
                    self.state.lock().suspects.insert(request.uid.clone());
                }
                self.answer(&request, reply, Err(error.clone())).await;
            }
        }
    }

    /// Answers one request with the VIF for its port. A port that cannot be plugged or is wanted no more is deleted.
    async fn answer(&self, request: &Request, reply: Reply, port: Result<Port, PodError>) {
        let port = match port {
            Ok(port) => port,
            Err(error) => {
                let _ = reply.send(Err(error));
                return;
            }
        };
        let id = port.id;
        let result = match self.topology.networks.get(&port.network_id) {
            _ if self.owner(&port).as_ref() != Some(&request.uid) => Err(PodError::Untagged),
            Some(network) => vif(INTERFACE, &port, network, &self.topology.subnets).map_err(PodError::from),
            None => Err(PodError::WrongNetwork(port.network_id)),
        };
        let unusable = result.is_err();
        if !unusable {
            self.state.lock().suspects.remove(&request.uid);
        }
        if (reply.send(result).is_err() || unusable) && self.delete(id).await.is_err() {
            self.state.lock().suspects.insert(request.uid.clone());
        }
    }

    async fn delete(&self, id: PortId) -> Result<(), PodError> {
        self.cloud.network().background().ports().delete(id).await?;
        // There is room again.
        self.state.lock().full.clear();
        Ok(())
    }

    /// The ports that are there for these pods.
    async fn find(&self, uids: &HashSet<PodUid>) -> Result<Vec<Port>, PodError> {
        let ours = Filter::new().tags([cluster_tag(&self.cluster)]);
        let theirs = ours.any("device_id", uids);
        Ok(self.cloud.network().ports().list(&theirs).await?)
    }

    fn owner(&self, port: &Port) -> Option<PodUid> {
        match Mark::read(&self.cluster, &port.tags)?.purpose {
            Purpose::Pod(uid) => Some(uid),
            Purpose::Service(_) | Purpose::Group(_) | Purpose::Base(_) => None,
        }
    }

    fn open_choice(&self) -> Option<Choice> {
        let now = Instant::now();
        let mut state = self.state.lock();
        state.full.retain(|_, until| *until > now);
        self.topology.choices.iter().find(|choice| !state.full.contains_key(*choice)).cloned()
    }

    fn all_full(&self) -> PodError {
        let mut seen = HashSet::new();
        let subnets = self.topology.choices.iter().flat_map(|choice| &choice.subnets);
        let subnets: Vec<SubnetId> = subnets.copied().filter(|id| seen.insert(*id)).collect();
        PodError::SubnetsFull(self.names(&subnets))
    }

    fn names(&self, ids: &[SubnetId]) -> Vec<String> {
        let name = |id: &SubnetId| {
            let subnet = self.topology.subnets.iter().find(|subnet| subnet.id == *id);
            subnet.map(|subnet| subnet.name.clone()).filter(|name| !name.is_empty()).unwrap_or_else(|| id.to_string())
        };
        ids.iter().map(name).collect()
    }

    fn new_port(&self, request: &Request, choice: &Choice) -> NewPort {
        let mark = Mark { cluster: self.cluster.clone(), purpose: Purpose::Pod(request.uid.clone()) };
        NewPort {
            name: name(&request.key),
            fixed_ips: choice.subnets.iter().map(|id| NewFixedIp::from(*id)).collect(),
            security_groups: self.topology.open_groups.clone(),
            host_id: Some(request.host.clone()),
            device_owner: DEVICE_OWNER.to_owned(),
            device_id: request.uid.to_string(),
            tags: mark.tags(),
            ..NewPort::new(choice.network)
        }
    }
}

impl State {
    /// A create of so many ports failed.
    fn note_refusal(&mut self, choice: &Choice, count: usize, error: &CloudError) {
        if error.is_exhausted() {
            self.tight.insert(choice.clone(), Instant::now() + TIGHT_FOR);
        }
        if error.is_ambiguous() {
            self.rooms.answered(choice, count);
        } else {
            self.rooms.refused(choice, count);
        }
    }

    fn is_tight(&self, choice: &Choice) -> bool {
        self.tight.get(choice).is_some_and(|until| *until > Instant::now())
    }
}

/// Addresses that no port has. Those that Neutron has lost are among them: it counts by ports.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn free(subnet: &SubnetUse) -> u64 {
    (subnet.total_ips - subnet.used_ips as f64).max(0.0) as u64
}

/// Whether Neutron refused what was asked for, rather than to be asked at all: a smaller request may fare better.
fn concerns_the_request(error: &CloudError) -> bool {
    match error.class() {
        Class::Operator(_) | Class::Owner | Class::Bug => error.refusal().is_some(),
        Class::RetryNow | Class::RetryLater { .. } => false,
    }
}

/// A port's name for people: `<namespace>/<pod>`, within Neutron's 255 characters.
fn name(key: &ObjectKey) -> String {
    let mut name = key.to_string();
    name.truncate(255);
    name
}

//! A controller from its start to its end.

use crate::{
    allocator::Allocator,
    config::ControllerConfig,
    election::{Election, ElectionError},
    events::{Events, reasons::HOST_IGNORED},
    fullness::Fullness,
    index::Index,
    metrics::Metrics,
    policy::{self, Keeper, PolicyTerm, PolicyWatches},
    queue::Queue,
    reconcile::Reconciler,
    resync::Resync,
    service::{ServiceIndex, ServiceTerm, ServiceWatches, Services, ServicesError, Subject},
    topology::{Topology, TopologyError},
    watch::{IgnoredHosts, ServicesSynced, Synced, Watches},
    work::work,
};
use kube::Client;
use kuryr_model::{ObjectKey, SecurityGroupId};
use kuryr_openstack::Cloud;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::{sync::watch, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

/// Why a controller ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The cloud lacks something that Kuryr needs.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// The cloud lacks something that Services need.
    #[error(transparent)]
    Services(#[from] ServicesError),
    /// There was all that Services need, and now there is not.
    #[error("Services were on and cannot be any more: {0}")]
    ServicesGone(String),
    /// It may not lead any more.
    #[error(transparent)]
    Election(#[from] ElectionError),
}

/// What the health endpoint may tell.
#[derive(Clone)]
pub struct Health {
    synced: watch::Receiver<Synced>,
    leads: watch::Receiver<bool>,
    allocator: watch::Receiver<Option<Allocator>>,
}

impl Health {
    /// Ready: the index is complete, so that this controller leads or could take over at once. Else why not.
    ///
    /// # Errors
    /// One sentence that says what is missing.
    pub fn ready(&self) -> Result<&'static str, String> {
        let missing = self.synced.borrow().missing();
        if missing.is_empty() {
            Ok(if *self.leads.borrow() { "active" } else { "standby" })
        } else {
            Err(format!("not listed yet: {}", missing.join(", ")))
        }
    }

    /// Where ports come from, if this controller is the active one.
    #[must_use]
    pub fn allocator(&self) -> Option<Allocator> {
        self.allocator.borrow().clone()
    }
}

/// Runs a controller until `stop` is cancelled or it may not go on. `publish` is given its health as soon as there is any.
///
/// # Errors
/// [`RunError`]; after [`ElectionError::Lost`] the process must end, for another controller leads.
pub async fn run(
    config: ControllerConfig,
    client: Client,
    cloud: Cloud,
    metrics: Metrics,
    publish: impl FnOnce(Health),
    stop: CancellationToken,
) -> Result<(), RunError> {
    // A standby that could not lead should say so now, not when it is needed.
    let topology = Topology::find(&cloud, &config.cluster, &config.pod_subnets).await?;
    let services = Services::find(&cloud, &config, &topology.subnets).await?;
    if let Services::Off(why) = &services {
        tracing::info!(why, "Services are off: they get no load balancers");
    }
    let ranges = services.ranges();
    let services = matches!(services, Services::On(_));
    let policies = Arc::new(Keeper::new(policy::settings(&topology.subnets, ranges), topology.open_groups));

    let off = Synced { services: ServicesSynced::OFF, ..Synced::default() };
    let (synced, seen) = watch::channel(if services { Synced::default() } else { off });
    let (leads, leading) = watch::channel(false);
    let (allocators, allocator) = watch::channel(None);
    publish(Health { synced: seen.clone(), leads: leading, allocator });

    let index = Arc::new(Index::new(config.nested));
    let queue = Arc::new(Queue::new());
    let _stop_watches = stop.clone().drop_guard();
    let service = services.then(|| {
        let (index, queue) = (Arc::new(ServiceIndex::default()), Arc::new(Queue::new()));
        let (policies, metrics, synced) = (policies.clone(), metrics.clone(), synced.clone());
        ServiceWatches { index, queue, policies, metrics, synced }
    });
    if let Some(watches) = &service {
        watches.start(&client, &stop);
    }
    let watches = PolicyWatches { keeper: policies.clone(), metrics: metrics.clone(), synced: synced.clone() };
    watches.start(&client, &stop);
    let (hosts, ignored) = watch::channel(IgnoredHosts::new());
    let watches = Watches {
        index: index.clone(),
        queue: queue.clone(),
        policies: policies.clone(),
        metrics: metrics.clone(),
        synced,
        ignored: hosts,
    };
    watches.start(&client, &stop);

    let mut election = Election::new(client.clone(), config.election.clone());
    match stop.run_until_cancelled(election.acquire()).await {
        Some(acquired) => acquired?,
        None => return Ok(()),
    }
    tracing::info!(identity = config.election.identity, "this controller is the active one");
    leads.send_replace(true);
    metrics.leader(true);

    let services = service.map(|watches| (watches.index, watches.queue));
    let events = Events::new(client.clone(), &config.election.identity);
    let metrics_of_term = metrics.clone();
    let term = Term {
        config,
        client,
        cloud,
        metrics: metrics_of_term,
        events,
        index,
        queue,
        policies,
        allocators,
        ignored,
        services,
    };
    let result = election
        .hold(async {
            if let Err(error) = term.serve(seen, &stop).await {
                tracing::error!(error = %error, "this term ends");
                return Err(error);
            }
            Ok(())
        })
        .await;
    metrics.leader(false);
    result?
}

/// The time during which one controller leads.
struct Term {
    config: ControllerConfig,
    client: Client,
    cloud: Cloud,
    metrics: Metrics,
    events: Events,
    index: Arc<Index>,
    queue: Arc<Queue<ObjectKey>>,
    policies: Arc<Keeper>,
    /// Is told where ports come from.
    allocators: watch::Sender<Option<Allocator>>,
    /// Nodes that must be told that their annotation is ignored.
    ignored: watch::Receiver<IgnoredHosts>,
    /// Index and queue of Services, if these are on.
    services: Option<(Arc<ServiceIndex>, Arc<Queue<Subject>>)>,
}

impl Term {
    /// Works until `stop` is cancelled and what was begun is done.
    async fn serve(&self, mut synced: watch::Receiver<Synced>, stop: &CancellationToken) -> Result<(), RunError> {
        if stop.run_until_cancelled(synced.wait_for(|synced| synced.all())).await.is_none() {
            return Ok(());
        }
        let config = &self.config;
        let topology = Topology::find(&self.cloud, &config.cluster, &config.pod_subnets).await?;
        let services = match &self.services {
            Some(services) => match Services::find(&self.cloud, config, &topology.subnets).await? {
                Services::On(site) => Some((self.service_term(services), *site)),
                // What was there when this process began is gone. The next one begins without it.
                Services::Off(why) => return Err(RunError::ServicesGone(why)),
            },
            None => None,
        };
        let policies = self.policy_term(topology.open_groups);
        let (metrics, policies_of, index) = (self.metrics.clone(), self.policies.clone(), self.index.clone());
        let allocator = Allocator::start(self.cloud.clone(), topology, config, metrics, policies_of, index);
        self.allocators.send_replace(Some(allocator.clone()));
        let reconciler = Arc::new(Reconciler {
            client: self.client.clone(),
            index: self.index.clone(),
            queue: self.queue.clone(),
            allocator: allocator.clone(),
            policies: self.policies.clone(),
            events: self.events.clone(),
            metrics: self.metrics.clone(),
            cooldown: config.node_cooldown,
            waiting: Mutex::default(),
            refusals: Mutex::default(),
            began: Instant::now(),
        });
        let (seek, revive) = (allocator.clone().seek_machines(), allocator.clone().revive());
        let fullness = Fullness {
            client: self.client.clone(),
            index: self.index.clone(),
            allocator: allocator.clone(),
            metrics: self.metrics.clone(),
        };
        let resync = Resync {
            client: self.client.clone(),
            cluster: config.cluster.clone(),
            index: self.index.clone(),
            allocator,
            metrics: self.metrics.clone(),
            events: self.events.clone(),
            interval: config.prune_interval,
        };
        // They end with this, be it cut off because the Lease is lost.
        let mut background = JoinSet::new();
        background.spawn(resync.run());
        background.spawn(seek);
        background.spawn(revive);
        background.spawn(fullness.run());
        background.spawn(self.events.clone().run());
        background.spawn(tell_nodes(self.ignored.clone(), self.events.clone()));
        for key in self.index.keys() {
            self.queue.add(key);
        }
        let pods = work(&self.queue, config.workers, stop, |key, waited| {
            self.metrics.step("queue", waited);
            let reconciler = reconciler.clone();
            async move { reconciler.reconcile(&key).await }
        });
        let services = async {
            if let Some((term, site)) = services {
                term.serve(config, site, stop).await;
            }
        };
        tokio::join!(pods, services, policies.serve(stop));
        Ok(())
    }

    fn policy_term(&self, open: [SecurityGroupId; 2]) -> PolicyTerm {
        let config = &self.config;
        PolicyTerm {
            client: self.client.clone(),
            cloud: self.cloud.clone(),
            cluster: config.cluster.clone(),
            metrics: self.metrics.clone(),
            keeper: self.policies.clone(),
            events: self.events.clone(),
            index: self.index.clone(),
            pods: self.queue.clone(),
            interval: config.prune_interval,
            open,
        }
    }

    fn service_term(&self, (index, queue): &(Arc<ServiceIndex>, Arc<Queue<Subject>>)) -> ServiceTerm {
        ServiceTerm {
            client: self.client.clone(),
            cloud: self.cloud.clone(),
            metrics: self.metrics.clone(),
            events: self.events.clone(),
            index: index.clone(),
            queue: queue.clone(),
            policies: self.policies.clone(),
        }
    }
}

/// Says on each Node whose annotation is ignored that it is: when a term begins, and when there is something new.
async fn tell_nodes(mut ignored: watch::Receiver<IgnoredHosts>, events: Events) {
    let mut told = IgnoredHosts::new();
    loop {
        let all = ignored.borrow_and_update().clone();
        for (node, why) in all.iter().filter(|(node, why)| told.get(*node) != Some(*why)) {
            tracing::warn!(node, why, "the annotation is ignored");
            events.warn_node(node, HOST_IGNORED, why.clone());
        }
        told = all;
        if ignored.changed().await.is_err() {
            return;
        }
    }
}

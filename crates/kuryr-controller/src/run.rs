//! A controller from its start to its end.

use crate::{
    allocator::Allocator,
    config::ControllerConfig,
    election::{Election, ElectionError},
    events::Events,
    index::Index,
    metrics::Metrics,
    queue::Queue,
    reconcile::Reconciler,
    resync::Resync,
    topology::{Topology, TopologyError},
    watch::{Synced, Watches},
};
use kube::Client;
use kuryr_model::ObjectKey;
use kuryr_openstack::Cloud;
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// How long a controller that stops lets steps that are under way come to their end.
const DRAIN: Duration = Duration::from_secs(20);

/// Why a controller ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The cloud lacks something that Kuryr needs.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// It may not lead any more.
    #[error(transparent)]
    Election(#[from] ElectionError),
}

/// What the health endpoint may tell.
#[derive(Clone)]
pub struct Health {
    synced: watch::Receiver<Synced>,
    leads: watch::Receiver<bool>,
}

impl Health {
    /// Ready: the index is complete, so that this controller leads or could take over at once. Else why not.
    ///
    /// # Errors
    /// One sentence that says what is missing.
    pub fn ready(&self) -> Result<&'static str, String> {
        let synced = *self.synced.borrow();
        let missing: Vec<&str> = [("pods", synced.pods), ("kuryrports", synced.ports), ("nodes", synced.nodes)]
            .into_iter()
            .filter_map(|(name, there)| (!there).then_some(name))
            .collect();
        if missing.is_empty() {
            Ok(if *self.leads.borrow() { "active" } else { "standby" })
        } else {
            Err(format!("not listed yet: {}", missing.join(", ")))
        }
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
    Topology::find(&cloud, &config.cluster, &config.pod_subnets).await?;

    let (synced, seen) = watch::channel(Synced::default());
    let (leads, leading) = watch::channel(false);
    publish(Health { synced: seen.clone(), leads: leading });

    let index = Arc::new(Index::default());
    let queue = Arc::new(Queue::new());
    let watches = Watches { index: index.clone(), queue: queue.clone(), metrics: metrics.clone(), synced };
    let _stop_watches = stop.clone().drop_guard();
    watches.start(&client, &stop);

    let mut election = Election::new(client.clone(), config.election.clone());
    match stop.run_until_cancelled(election.acquire()).await {
        Some(acquired) => acquired?,
        None => return Ok(()),
    }
    tracing::info!(identity = config.election.identity, "this controller is the active one");
    leads.send_replace(true);
    metrics.leader(true);

    let term = Term { config, client, cloud, metrics: metrics.clone(), index, queue };
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
    index: Arc<Index>,
    queue: Arc<Queue<ObjectKey>>,
}

impl Term {
    /// Works until `stop` is cancelled and what was begun is done.
    async fn serve(&self, mut synced: watch::Receiver<Synced>, stop: &CancellationToken) -> Result<(), RunError> {
        if stop.run_until_cancelled(synced.wait_for(|synced| synced.all())).await.is_none() {
            return Ok(());
        }
        let config = &self.config;
        let topology = Topology::find(&self.cloud, &config.cluster, &config.pod_subnets).await?;
        let allocator = Allocator::start(self.cloud.clone(), topology, config, self.metrics.clone());
        let reconciler = Arc::new(Reconciler {
            client: self.client.clone(),
            index: self.index.clone(),
            queue: self.queue.clone(),
            allocator: allocator.clone(),
            events: Events::new(self.client.clone(), &config.election.identity),
            metrics: self.metrics.clone(),
            cooldown: config.node_cooldown,
            waiting: Mutex::new(HashMap::new()),
        });
        let resync = Resync {
            client: self.client.clone(),
            cluster: config.cluster.clone(),
            index: self.index.clone(),
            allocator,
            metrics: self.metrics.clone(),
            interval: config.prune_interval,
        };
        let resync = tokio::spawn(resync.run());
        for key in self.index.keys() {
            self.queue.add(key);
        }
        self.work(reconciler, stop).await;
        resync.abort();
        Ok(())
    }

    async fn work(&self, reconciler: Arc<Reconciler>, stop: &CancellationToken) {
        let slots = Arc::new(Semaphore::new(self.config.workers));
        let mut running = JoinSet::new();
        loop {
            let next = async {
                let slot = slots.clone().acquire_owned().await;
                (slot, self.queue.next().await)
            };
            let Some((slot, (key, waited))) = stop.run_until_cancelled(next).await else { break };
            self.metrics.step("queue", waited);
            while running.try_join_next().is_some() {}
            let (reconciler, queue) = (reconciler.clone(), self.queue.clone());
            running.spawn(async move {
                let outcome = reconciler.reconcile(&key).await;
                queue.done(&key, outcome);
                drop(slot);
            });
        }
        let begun = running.len();
        if timeout(DRAIN, async { while running.join_next().await.is_some() {} }).await.is_err() {
            tracing::warn!(begun, "some steps were cut off; the next controller ends them");
        }
    }
}

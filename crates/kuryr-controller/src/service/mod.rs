//! Services: each gets a load balancer in Octavia, and a floating IP where it is to be reached from outside.
//!
//! ```text
//!   Services, EndpointSlices, ──watch──▶ index ──keys──▶ queue ──▶ reconcile(key)
//!   KuryrLoadBalancers, nodes              │                        │ kuryr_plan::service::{desired, plan}
//!                                          ▼                        ├─ first step ─call─▶ Octavia, Neutron
//!                        what is wanted now, at every step          │    └─ answer ─forward─▶ what is known (memory)
//!                                                                   ├─ nothing but waiting: again after a while
//!                                                                   └─ status ─report─▶ KuryrLoadBalancer, Service
//! ```
//!
//! Invariants:
//! - One key is one Service, and is worked on by one at a time: what changes while Octavia is at work on the load balancer is
//!   one later step. Waiting is a timer, not a worker.
//! - The plan is asked after every step, against what is wanted at that moment and what is known to be there.
//! - What is known is what was listed, brought forward by the answers to our own calls. After a lost answer, a 404 or a clash it
//!   is asked for anew, before anything else is made. With nothing changing nothing is asked.
//! - The `KuryrLoadBalancer` is there before the load balancer, and goes after it.

mod bring;
mod calls;
mod error;
mod forward;
mod guard;
mod index;
mod lean;
mod memory;
mod observe;
mod reconcile;
mod reconciler;
mod refuse;
pub mod remove;
mod report;
mod resync;
mod status;
mod step;
pub mod survey;
mod target;
mod tell;
mod topology;
mod wait;
mod watch;

pub(crate) use guard::{guards, shown};
pub(crate) use index::ServiceIndex;
pub(crate) use observe::Observer;
pub(crate) use reconciler::Subject;
pub(crate) use status::patch;
pub(crate) use topology::Services;
pub use topology::ServicesError;
pub(crate) use watch::ServiceWatches;

use crate::{config::ControllerConfig, events::Events, metrics::Metrics, policy::Keeper, queue::Queue};
use kube::Client;
use kuryr_openstack::Cloud;
use kuryr_plan::service::Site;
use memory::Memories;
use reconciler::ServiceReconciler;
use report::Reporter;
use resync::ServiceResync;
use std::sync::Arc;
use tokio::{sync::oneshot, task::JoinSet};
use topology::SiteState;

/// How many Services are worked on at once. Those that wait for Octavia are not among them.
const WORKERS: usize = 64;

/// What a term needs for Services.
pub(crate) struct ServiceTerm {
    pub(crate) client: Client,
    pub(crate) cloud: Cloud,
    pub(crate) metrics: Metrics,
    pub(crate) events: Events,
    pub(crate) index: Arc<ServiceIndex>,
    pub(crate) queue: Arc<Queue<Subject>>,
    /// What listeners let in follows from policies where pods do not see who connects.
    pub(crate) policies: Arc<Keeper>,
}

impl ServiceTerm {
    /// Works on Services until `stop` is cancelled and what was begun is done.
    pub(crate) async fn serve(
        &self,
        config: &ControllerConfig,
        site: Site,
        stop: &tokio_util::sync::CancellationToken,
    ) {
        let observer = Observer::new(&self.cloud, config.cluster.clone());
        let site = Arc::new(SiteState::new(site));
        let memories = Arc::new(Memories::default());
        let reconciler = Arc::new(ServiceReconciler {
            index: self.index.clone(),
            queue: self.queue.clone(),
            observer: observer.clone(),
            site: site.clone(),
            memories: memories.clone(),
            reporter: Reporter::new(self.client.clone(), self.events.clone(), self.metrics.clone()),
            metrics: self.metrics.clone(),
            policies: self.policies.clone(),
        });
        memories.begin(self.index.uids().into_keys());
        let resync = ServiceResync {
            client: self.client.clone(),
            index: self.index.clone(),
            queue: self.queue.clone(),
            observer,
            memories,
            site,
            metrics: self.metrics.clone(),
            interval: config.prune_interval,
        };
        let (sender, listed) = oneshot::channel();
        // Ends with this, be it cut off.
        let mut background = JoinSet::new();
        background.spawn(resync.run(sender));
        background.spawn(guard::wake_guarded(self.policies.clone(), self.queue.clone()));
        // Before the first look nothing is known, so nothing may be made.
        if stop.run_until_cancelled(listed).await.is_some() {
            let metrics = self.metrics.clone();
            crate::work::work(&self.queue, WORKERS, stop, move |subject, waited| {
                metrics.service_step("queue", waited);
                let reconciler = reconciler.clone();
                async move { reconciler.reconcile(&subject, waited).await }
            })
            .await;
        }
    }
}

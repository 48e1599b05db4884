//! Looks at everything that carries our mark: at the start of a term, and then now and then. What was changed or deleted
//! behind our back is found so, and what nobody wants any more.

use super::{
    index::ServiceIndex,
    lean::LeanLoadBalancer,
    memory::Memories,
    observe::Observer,
    reconciler::Subject,
    topology::{ServicesError, SiteState, provider},
};
use crate::{metrics::Metrics, queue::Queue, resync::list};
use k8s_openapi::api::core::v1::Service as KubeService;
use kube::{Api, Client, core::PartialObjectMeta};
use kuryr_model::ServiceUid;
use kuryr_openstack::{Error as CloudError, chain};
use std::{collections::HashSet, sync::Arc, time::Duration};
use tokio::sync::oneshot;

/// Time until the next try of a look that failed.
const RETRY: Duration = Duration::from_secs(5);

/// Looks.
pub(crate) struct ServiceResync {
    pub(crate) client: Client,
    pub(crate) index: Arc<ServiceIndex>,
    pub(crate) queue: Arc<Queue<Subject>>,
    pub(crate) observer: Observer,
    pub(crate) memories: Arc<Memories>,
    pub(crate) site: Arc<SiteState>,
    pub(crate) metrics: Metrics,
    pub(crate) interval: Duration,
}

#[derive(Debug, thiserror::Error)]
enum ResyncError {
    #[error("{}", chain(.0))]
    Cloud(#[from] CloudError),
    #[error("{0}")]
    Services(#[from] ServicesError),
    #[error("{0}")]
    Kubernetes(#[from] kube::Error),
}

impl ServiceResync {
    /// Looks at once and then at every interval, for ever. Says when the first look is over, be it in vain.
    pub(crate) async fn run(self, first: oneshot::Sender<()>) {
        let mut first = Some(first);
        loop {
            // The first look is waited for by every Service.
            let observer = if first.is_some() { self.observer.clone() } else { self.observer.background() };
            let result = self.look(&observer).await;
            let pause = match result {
                Ok(()) => self.interval,
                Err(error) => {
                    tracing::warn!(error = %error, "load balancers cannot be listed; trying again");
                    self.memories.not_listed(error.to_string());
                    RETRY
                }
            };
            if let Some(first) = first.take() {
                // Nobody listens only at the end of the term.
                let _ = first.send(());
            }
            for key in self.index.keys() {
                self.queue.add(Subject::Service(key));
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn look(&self, observer: &Observer) -> Result<(), ResyncError> {
        if !self.site.knows_provider() {
            self.site.set_provider(provider(&observer.octavia, None).await?);
        }
        let before = self.memories.versions();
        let found = observer.all().await?;
        let services = found.len();
        self.memories.listed(found, &before);
        let strays = self.strays().await?;
        tracing::info!(services, strays = strays.len(), "looked at the load balancers of all Services");
        for uid in strays {
            tracing::warn!(%uid, "deleting what a Service left behind");
            self.metrics.pruned_load_balancer();
            self.queue.add(Subject::Stray(uid));
        }
        Ok(())
    }

    /// Services that are gone and have something still. What looks like one may be a Service that our watches have not told
    /// of yet: before anything is deleted, the API server itself is asked.
    async fn strays(&self) -> Result<Vec<ServiceUid>, ResyncError> {
        let known = self.index.uids();
        let mut strays: Vec<ServiceUid> =
            self.memories.uids().into_iter().filter(|uid| !known.contains_key(uid)).collect();
        if strays.is_empty() {
            return Ok(strays);
        }
        let services = Api::all(self.client.clone());
        let services = list(services, |service: PartialObjectMeta<KubeService>| service.metadata.uid.map(ServiceUid));
        let mut wanted: HashSet<ServiceUid> = services.await?.into_iter().collect();
        let held = |held: LeanLoadBalancer| held.read().ok().map(|held| held.spec.service_uid);
        wanted.extend(list(Api::all(self.client.clone()), held).await?);
        strays.retain(|uid| !wanted.contains(uid));
        Ok(strays)
    }
}

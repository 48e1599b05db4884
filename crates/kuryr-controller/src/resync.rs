//! Finds what an earlier controller left behind: at the start of a term, and then now and then.

use crate::{allocator::Allocator, error::PodError, index::Index, lean::LeanPort, metrics::Metrics};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, Resource, api::ListParams, core::PartialObjectMeta};
use kuryr_model::{ClusterId, KuryrPort, PodUid};
use kuryr_plan::prune::{Prune, prune};
use serde::de::DeserializeOwned;
use std::{collections::BTreeSet, fmt::Debug, sync::Arc, time::Duration};
use tokio_util::task::AbortOnDropHandle;

/// Time until the next try of a search that failed.
const RETRY: Duration = Duration::from_secs(5);

/// Searches for ports that carry our mark and are wanted by nobody.
pub(crate) struct Resync {
    pub(crate) client: Client,
    pub(crate) cluster: ClusterId,
    pub(crate) index: Arc<Index>,
    pub(crate) allocator: Allocator,
    pub(crate) metrics: Metrics,
    pub(crate) interval: Duration,
}

impl Resync {
    /// Searches at once and then at every interval, for ever.
    pub(crate) async fn run(self) {
        let mut pools = None;
        loop {
            match self.search().await {
                Ok(()) => {
                    let allocator = self.allocator.clone();
                    let keep = || AbortOnDropHandle::new(tokio::spawn(async move { allocator.keep_pools().await }));
                    pools.get_or_insert_with(keep);
                    tokio::time::sleep(self.interval).await;
                }
                Err(error) => {
                    tracing::warn!(error = %error, "ports that were left behind cannot be looked for; trying again");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    async fn search(&self) -> Result<(), PodError> {
        self.allocator.listing();
        let ports = self.allocator.list_all().await?;
        let held = self.index.ports();
        let plan = prune(&self.cluster, &ports, held.iter().map(AsRef::as_ref), &self.index.waiting());
        let plan = if plan.delete.is_empty() { plan } else { self.look_twice(&ports).await? };
        tracing::info!(
            ports = ports.len(),
            adopted = plan.adopt.len(),
            strays = plan.delete.len(),
            "looked for ports that were left behind"
        );
        self.allocator.listed(&ports, &plan.spare);
        let names = self.index.names(&plan.adopt.keys().collect());
        self.allocator.resynced(plan.adopt.keys().map(|uid| (uid.clone(), names.get(uid).cloned())));
        for id in plan.delete {
            tracing::warn!(port = %id, "deleting a port that nobody wants");
            self.allocator.release(id).await?;
            self.metrics.pruned();
        }
        Ok(())
    }

    /// What looks like a stray may belong to a pod that our watches have not told of yet: before anything is deleted,
    /// the API server itself is asked.
    async fn look_twice(&self, ports: &[kuryr_model::neutron::Port]) -> Result<Prune, PodError> {
        let read = |port: LeanPort| port.read().ok();
        let held: Vec<KuryrPort> = list(Api::all(self.client.clone()), read).await.map_err(kubernetes)?;
        let pods = Api::all(self.client.clone());
        let waiting =
            list(pods, |pod: PartialObjectMeta<Pod>| pod.metadata.uid.map(PodUid)).await.map_err(kubernetes)?;
        let mut waiting: BTreeSet<PodUid> = waiting.into_iter().collect();
        // One that cannot be read names no pod, so that its pod, if there is one, counts as waiting and keeps its port.
        for port in &held {
            waiting.remove(&port.spec.pod_uid);
        }
        let unfilled = held.iter().filter(|port| port.spec.vifs.is_empty()).map(|port| port.spec.pod_uid.clone());
        waiting.extend(unfilled);
        Ok(prune(&self.cluster, ports, held.iter(), &waiting))
    }
}

const PAGE: u32 = 500;

/// Lists page by page and keeps of each object only what `keep` makes of it.
pub(crate) async fn list<K, T>(api: Api<K>, keep: fn(K) -> Option<T>) -> Result<Vec<T>, kube::Error>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    list_some(api, ListParams::default(), keep).await
}

/// The same for those that `params` select.
pub(crate) async fn list_some<K, T>(
    api: Api<K>,
    params: ListParams,
    keep: fn(K) -> Option<T>,
) -> Result<Vec<T>, kube::Error>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let mut items = Vec::new();
    let mut params = params.limit(PAGE);
    loop {
        let page = api.list(&params).await?;
        items.extend(page.items.into_iter().filter_map(keep));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(items),
        }
    }
}

fn kubernetes(error: kube::Error) -> PodError {
    PodError::Kubernetes(Arc::new(error))
}

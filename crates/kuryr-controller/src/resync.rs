//! Finds what an earlier controller left behind: at the start of a term, and then now and then.

use crate::{
    allocator::Allocator, error::PodError, error::Reason, events::Events, index::Index, lean::LeanPort,
    metrics::Metrics,
};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, Resource, api::ListParams, core::PartialObjectMeta};
use kuryr_model::{ClusterId, KuryrPort, PodUid, neutron::Port};
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
    pub(crate) events: Events,
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
                    tokio::select! {
                        () = tokio::time::sleep(self.interval) => {}
                        () = self.allocator.look_is_due() => {}
                    }
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
        let known = plan.delete.is_empty() && !self.allocator.has_unknown(&plan.spare);
        let plan = if known { plan } else { look_twice(&self.client, &self.cluster, &ports).await? };
        tracing::info!(
            ports = ports.len(),
            adopted = plan.adopt.len(),
            strays = plan.delete.len(),
            "looked for ports that were left behind"
        );
        let unwanted = self.allocator.listed(&ports, plan.spare);
        let names = self.index.names(&plan.adopt.keys().collect());
        self.allocator.resynced(plan.adopt.keys().map(|uid| (uid.clone(), names.get(uid).cloned())));
        for port in ports.iter().filter(|port| plan.delete.contains(&port.id) || unwanted.contains(&port.id)) {
            tracing::warn!(port = %port.id, "deleting a port that nobody wants");
            self.allocator.discard(port).await?;
            self.metrics.pruned();
        }
        // Neutron tells nobody that a trunk was deleted, and its pods that run have nobody who waits for them.
        for cut_off in self.allocator.repair().await? {
            self.events.warn_node(&cut_off.node, Reason::TrunkMissing.as_str(), cut_off.to_string());
        }
        Ok(())
    }
}

/// What looks like a stray may belong to a pod that our watches have not told of yet: before anything is deleted,
/// the API server itself is asked.
async fn look_twice(client: &Client, cluster: &ClusterId, ports: &[Port]) -> Result<Prune, PodError> {
    let read = |port: LeanPort| port.read().ok();
    let held: Vec<KuryrPort> = list(Api::all(client.clone()), read).await.map_err(kubernetes)?;
    let pods = list(Api::all(client.clone()), |pod: PartialObjectMeta<Pod>| pod.metadata.uid.map(PodUid));
    let pods = pods.await.map_err(kubernetes)?;
    Ok(judge(cluster, ports, &held, pods.into_iter().collect()))
}

/// What is to become of `ports`, given all `KuryrPort`s that can be read and the UIDs of all pods that there are. Whether a pod
/// wants a port is not asked: as long as it is there, one of its ports stays.
fn judge(cluster: &ClusterId, ports: &[Port], held: &[KuryrPort], mut pods: BTreeSet<PodUid>) -> Prune {
    // One that cannot be read names no pod, so that its pod, if there is one, counts as waiting and keeps its port.
    for port in held.iter().filter(|port| !port.spec.vifs.is_empty()) {
        pods.remove(&port.spec.pod_uid);
    }
    // What has a `KuryrPort` without VIFs may be gone as a pod and about to be filled all the same.
    pods.extend(held.iter().filter(|port| port.spec.vifs.is_empty()).map(|port| port.spec.pod_uid.clone()));
    prune(cluster, ports, held.iter(), &pods)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Answer, Request, api_server, list as listed};
    use kuryr_model::PortId;
    use serde_json::{Value, json};

    fn id(n: u8) -> String {
        format!("00000000-0000-4000-8000-0000000000{n:02x}")
    }

    fn port(n: u8, cluster: &str, uid: &str) -> Port {
        serde_json::from_value(json!({
            "id": id(n), "network_id": id(255), "mac_address": "fa:16:3e:00:00:01",
            "tags": [format!("kuryr:{cluster}"), format!("kuryr:pod:{uid}")],
        }))
        .unwrap()
    }

    fn held(uid: impl Into<Value>, port: Option<u8>) -> Value {
        let uid: Value = uid.into();
        let vif = |n: u8| {
            json!({
                "interface": "eth0", "portId": id(n), "networkId": id(255), "mac": "fa:16:3e:00:00:01", "mtu": 1442,
                "addresses": [], "plug": {"driver": "ovs"},
            })
        };
        let vifs: Vec<Value> = port.map(vif).into_iter().collect();
        json!({
            "apiVersion": "kuryr.openstack.org/v1", "kind": "KuryrPort", "metadata": {"namespace": "a", "name": format!("of-{uid}")},
            "spec": {"podUid": uid, "nodeName": "n", "vifs": vifs},
        })
    }

    fn pod(uid: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "a", "name": uid, "uid": uid}})
    }

    /// Lists in pages of one object.
    fn paged(all: &[Value], request: &Request) -> Answer {
        let token = request.query.split('&').find_map(|pair| pair.strip_prefix("continue="));
        let at: usize = token.map_or(0, |token| token.parse().unwrap());
        let next = (at + 1 < all.len()).then(|| (at + 1).to_string());
        Answer::ok(listed(&all[at..(at + 1).min(all.len())], next.as_deref()))
    }

    async fn looked(ports: &[Port], held: Vec<Value>, pods: Vec<Value>) -> Prune {
        let (client, _requests) = api_server(move |request| {
            paged(if request.path.ends_with("/kuryrports") { &held } else { &pods }, request)
        });
        look_twice(&client, &"c".into(), ports).await.unwrap()
    }

    fn ids(all: &[u8]) -> BTreeSet<PortId> {
        all.iter().map(|n| id(*n).parse().unwrap()).collect()
    }

    #[tokio::test]
    async fn only_what_the_api_server_itself_knows_no_pod_for_is_deleted() {
        let ports = [
            port(1, "c", "served"),
            port(2, "c", "unheard-of"),
            port(3, "c", "gone"),
            port(4, "others", "gone"),
            port(5, "c", "served"),
            port(6, "c", "unfilled"),
        ];
        let all = vec![held("served", Some(1)), held("unfilled", None)];
        let plan = looked(&ports, all, vec![pod("served"), pod("unheard-of"), pod("unfilled")]).await;
        assert_eq!(plan.delete, ids(&[3, 5]), "of a pod that is gone, and the second one of a pod");
        let adopted: BTreeSet<PortId> = plan.adopt.into_values().collect();
        assert_eq!(adopted, ids(&[2, 6]));
    }

    #[tokio::test]
    async fn what_cannot_be_read_may_have_a_port_that_stays_as_long_as_its_pod() {
        let ports = [port(1, "c", "odd")];
        let plan = looked(&ports, vec![held(7, Some(1))], vec![pod("odd")]).await;
        assert_eq!(plan.delete, ids(&[]));
        let plan = looked(&ports, vec![held(7, Some(1))], vec![]).await;
        assert_eq!(plan.delete, ids(&[1]));
    }

    #[tokio::test]
    async fn an_api_server_that_does_not_list_lets_nothing_be_deleted() {
        let (client, _requests) = api_server(|request| {
            if request.path.ends_with("/pods") {
                Answer::error(500, "InternalError")
            } else {
                Answer::ok(listed(&[], None))
            }
        });
        let error = look_twice(&client, &"c".into(), &[port(1, "c", "gone")]).await.unwrap_err();
        assert_eq!(error.reason().as_str(), "KubernetesRefused");
    }
}

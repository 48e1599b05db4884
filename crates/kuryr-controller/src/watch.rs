//! The watches that feed the index and wake the queue.
//!
//! An object that cannot be read (somebody wrote it by hand, or with another version of the definition) is logged and
//! skipped: it must not stop the watch for all others. Of a `KuryrPort` it is remembered, because its pod may not get another.

use crate::{
    index::Index,
    lean::{LeanNode, LeanPod, LeanPort, NodeState, OddPort},
    metrics::Metrics,
    policy::{Keeper, PodFacts},
    queue::Queue,
};
use futures::{Stream, StreamExt};
use kube::{
    Api, Client, Resource,
    runtime::{WatchStreamExt, watcher, watcher::Event},
};
use kuryr_model::{KuryrPort, ObjectKey, chain};
use kuryr_plan::pod::Pod;
use serde::de::DeserializeOwned;
use std::{
    collections::{BTreeMap, HashSet},
    fmt::Debug,
    sync::Arc,
};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

/// How far the watches are. Each becomes true when its first list is complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Synced {
    pub(crate) pods: bool,
    pub(crate) ports: bool,
    pub(crate) nodes: bool,
    pub(crate) services: ServicesSynced,
    pub(crate) policies: PoliciesSynced,
}

/// How far the watches for policies are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PoliciesSynced {
    pub(crate) namespaces: bool,
    pub(crate) policies: bool,
    pub(crate) held: bool,
}

/// How far the watches for Services are; all are true where Services are off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServicesSynced {
    pub(crate) services: bool,
    pub(crate) slices: bool,
    pub(crate) load_balancers: bool,
    pub(crate) nodes: bool,
}

impl ServicesSynced {
    /// Nothing is watched, so nothing is missing.
    pub(crate) const OFF: Self = Self { services: true, slices: true, load_balancers: true, nodes: true };
}

impl Synced {
    /// What is not listed yet, by its name in the API.
    pub(crate) fn missing(self) -> Vec<&'static str> {
        let Self { pods, ports, nodes, services, policies } = self;
        let all = [
            ("pods", pods),
            ("kuryrports", ports),
            ("nodes", nodes && services.nodes),
            ("services", services.services),
            ("endpointslices", services.slices),
            ("kuryrloadbalancers", services.load_balancers),
            ("namespaces", policies.namespaces),
            ("networkpolicies", policies.policies),
            ("kuryrnetworkpolicies", policies.held),
        ];
        all.into_iter().filter(|(_, there)| !there).map(|(name, _)| name).collect()
    }

    pub(crate) fn all(self) -> bool {
        self.missing().is_empty()
    }
}

/// Nodes whose annotation is ignored, and why.
pub(crate) type IgnoredHosts = BTreeMap<String, String>;

/// How long a watch lasts, in seconds; then it is begun anew where it was. The client gives one up five seconds later: a
/// connection that died silently must not hide new pods for minutes. The API server says how far a watch is just before it
/// ends, so that nothing is listed anew.
const WATCH_SECONDS: u32 = 60;

/// What the watches write to.
#[derive(Clone)]
pub(crate) struct Watches {
    pub(crate) index: Arc<Index>,
    pub(crate) queue: Arc<Queue<ObjectKey>>,
    pub(crate) policies: Arc<Keeper>,
    pub(crate) metrics: Metrics,
    pub(crate) synced: watch::Sender<Synced>,
    pub(crate) ignored: watch::Sender<IgnoredHosts>,
}

impl Watches {
    /// Starts the watches; they end when `stop` is cancelled.
    pub(crate) fn start(&self, client: &Client, stop: &CancellationToken) {
        let (this, stream) = (self.clone(), events(client, "pods", &self.metrics, LeanPod::read));
        run(stop, stream, move |event| this.pod(event));
        let (this, stream) = (self.clone(), events(client, "kuryrports", &self.metrics, LeanPort::sort));
        run(stop, stream, move |event| this.port(event));
        let (this, stream) = (self.clone(), events(client, "nodes", &self.metrics, LeanNode::read));
        run(stop, stream, move |event| this.node(event));
    }

    fn pod(&self, event: Seen<(Pod, PodFacts)>) {
        match event {
            Seen::Apply(seen) => {
                let (pod, facts) = *seen;
                let key = pod.key.clone();
                // Policies first: whoever is told of the pod may ask for its groups.
                self.policies.pod(&self.index, &pod, facts);
                if self.index.apply_pod(pod) {
                    self.queue.add(key);
                }
            }
            Seen::Delete(name) => {
                self.index.remove_pod(&name);
                self.policies.pods_gone([name.clone()]);
                self.queue.add(name);
            }
            Seen::Listed(seen) => {
                for key in self.index.retain_pods(&seen) {
                    self.policies.pods_gone([key.clone()]);
                    self.queue.add(key);
                }
                self.synced.send_modify(|synced| synced.pods = true);
            }
        }
    }

    fn port(&self, event: Seen<Result<KuryrPort, OddPort>>) {
        match event {
            Seen::Apply(port) => {
                let (key, changed) = match *port {
                    Ok(port) => (port.key(), self.index.apply_port(port)),
                    Err(odd) => {
                        self.metrics.unreadable("kuryrports");
                        (odd.key.clone(), self.index.apply_odd(odd))
                    }
                };
                // What we wrote ourselves is known already, but not to policies.
                self.policies.port(&key, self.index.get(&key).port.as_deref());
                if changed {
                    self.queue.add(key);
                }
            }
            Seen::Delete(name) => {
                self.index.remove_port(&name, None);
                self.policies.port(&name, None);
                self.queue.add(name);
            }
            Seen::Listed(seen) => {
                for key in self.index.retain_ports(&seen) {
                    self.policies.port(&key, None);
                    self.queue.add(key);
                }
                self.synced.send_modify(|synced| synced.ports = true);
            }
        }
    }

    fn node(&self, event: Seen<NodeState>) {
        match event {
            Seen::Apply(node) => {
                self.policies.node(node.name.clone(), node.addresses.clone());
                self.ignored_host(&node.name, node.host.ignored.clone());
                for key in self.index.apply_node(*node, Instant::now()) {
                    self.queue.add(key);
                }
            }
            Seen::Delete(key) => self.forget_node(&key.name),
            Seen::Listed(seen) => {
                let listed: HashSet<&str> = seen.iter().map(|key| key.name.as_str()).collect();
                for name in self.index.nodes().iter().filter(|name| !listed.contains(name.as_str())) {
                    self.forget_node(name);
                }
                self.synced.send_modify(|synced| synced.nodes = true);
            }
        }
    }

    fn ignored_host(&self, node: &str, why: Option<String>) {
        self.ignored.send_if_modified(|all| {
            let changed = all.get(node) != why.as_ref();
            match why {
                Some(why) => drop(all.insert(node.to_owned(), why)),
                None => drop(all.remove(node)),
            }
            changed
        });
    }

    fn forget_node(&self, name: &str) {
        self.policies.node_gone(name.to_owned());
        self.ignored_host(name, None);
        for key in self.index.remove_node(name, Instant::now()) {
            self.queue.add(key);
        }
    }
}

/// A watch's event, with a new listing told as one set of names.
pub(crate) enum Seen<K> {
    Apply(Box<K>),
    Delete(ObjectKey),
    /// A listing is complete: what is not in it is gone.
    Listed(HashSet<ObjectKey>),
}

/// Hands every event to `handle` until `stop` is cancelled.
pub(crate) fn run<K: Send + 'static>(
    stop: &CancellationToken,
    stream: impl Stream<Item = Seen<K>> + Send + 'static,
    mut handle: impl FnMut(Seen<K>) + Send + 'static,
) {
    let stop = stop.clone();
    tokio::spawn(async move {
        let mut stream = std::pin::pin!(stream);
        while let Some(Some(event)) = stop.run_until_cancelled(stream.next()).await {
            handle(event);
        }
    });
}

/// What a watch of all `K` tells, each read as `T`.
///
/// The lists are asked for in pages: an API server that may answer from its cache ignores that and sends ten thousand
/// objects at once, which would have to be held in memory.
pub(crate) fn events<K, T>(
    client: &Client,
    plural: &'static str,
    metrics: &Metrics,
    read: fn(K) -> Result<T, String>,
) -> impl Stream<Item = Seen<T>> + use<K, T>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut listing = HashSet::new();
    let metrics = metrics.clone();
    let readable = move |object: K, metrics: &Metrics| {
        let key = ObjectKey::of(&object);
        match read(object) {
            Ok(object) => Some(Seen::Apply(Box::new(object))),
            Err(error) => {
                metrics.unreadable(plural);
                let (namespace, name) = (key.namespace, key.name);
                tracing::warn!(resource = plural, namespace, name, error, "skipped: the object cannot be read");
                None
            }
        }
    };
    let config = watcher::Config::default().timeout(WATCH_SECONDS);
    let stream = watcher(Api::all(client.clone()), config).default_backoff();
    stream.flat_map(move |event| {
        let seen = match event {
            Ok(Event::Init) => {
                listing.clear();
                None
            }
            Ok(Event::InitApply(object)) => {
                listing.insert(ObjectKey::of(&object));
                readable(object, &metrics)
            }
            Ok(Event::InitDone) => Some(Seen::Listed(std::mem::take(&mut listing))),
            Ok(Event::Apply(object)) => readable(object, &metrics),
            Ok(Event::Delete(object)) => Some(Seen::Delete(ObjectKey::of(&object))),
            Err(error) => {
                metrics.watch_failed(plural);
                tracing::warn!(resource = plural, error = %chain(&error), "the watch failed and is begun anew");
                None
            }
        };
        futures::stream::iter(seen)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Answer, api_server, list};
    use kuryr_model::HOST_ANNOTATION;
    use prometheus_client::registry::Registry;
    use serde_json::{Value, json};

    fn watches() -> Watches {
        Watches {
            index: Arc::default(),
            queue: Arc::new(Queue::new()),
            policies: crate::fake::keeper(),
            metrics: Metrics::new(&mut Registry::default()),
            synced: watch::Sender::default(),
            ignored: watch::Sender::default(),
        }
    }

    fn port(name: &str, uid: impl Into<Value>) -> Value {
        let uid: Value = uid.into();
        json!({
            "apiVersion": "kuryr.openstack.org/v1", "kind": "KuryrPort",
            "metadata": {"namespace": "a", "name": name, "uid": format!("k-{name}"), "resourceVersion": "1"},
            "spec": {"podUid": uid, "nodeName": "n", "vifs": []},
        })
    }

    async fn keys(queue: &Queue<ObjectKey>, count: usize) -> Vec<String> {
        let mut names = Vec::new();
        for _ in 0..count {
            let (key, _) = queue.next().await;
            queue.done(&key, crate::queue::Outcome::Settled);
            names.push(key.name);
        }
        names.sort();
        names
    }

    #[tokio::test(start_paused = true)]
    async fn one_object_that_cannot_be_read_hides_no_other_and_a_new_list_drops_what_is_gone() {
        let lists = std::sync::atomic::AtomicUsize::new(0);
        let (client, _requests) = api_server(move |request| {
            let first = json!([port("good", "p"), port("bad", 7)]);
            if !request.query.contains("watch=") {
                return match lists.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
                    0 => Answer::ok(list(first.as_array().unwrap(), None)),
                    _ => Answer::ok(list(&[port("later", "q")], None)),
                };
            }
            let gone = json!({"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"});
            Answer::watch(&[("ADDED", port("later", "q")), ("ERROR", gone)]).after(std::time::Duration::from_secs(1))
        });
        let (watches, stop) = (watches(), CancellationToken::new());
        let (this, mut synced) = (watches.clone(), watches.synced.subscribe());
        let stream = events(&client, "kuryrports", &watches.metrics, LeanPort::sort);
        run(&stop, stream, move |event| this.port(event));
        synced.wait_for(|synced| synced.ports).await.unwrap();
        let known = |name: &str| watches.index.get(&ObjectKey::new("a", name));
        assert!(known("good").port.is_some() && known("bad").odd.is_some());
        // Listed, told of later, and missing in the list that was made when the watch broke.
        let all = keys(&watches.queue, 5).await;
        assert!(all.len() == 5 && all.contains(&"later".to_owned()), "{all:?}");
        assert!(known("good").port.is_none() && known("bad").odd.is_none() && known("later").port.is_some());
        stop.cancel();
    }

    fn node(name: &str, host: Option<&str>) -> Seen<NodeState> {
        let annotations = host.map(|host| json!({(HOST_ANNOTATION): host}));
        let node = json!({"metadata": {"name": name, "annotations": annotations}});
        Seen::Apply(Box::new(serde_json::from_value::<LeanNode>(node).unwrap().read().unwrap()))
    }

    #[tokio::test]
    async fn an_annotation_that_is_no_host_is_ignored_and_remembered_until_it_is_put_right() {
        let watches = watches();
        let mut ignored = watches.ignored.subscribe();
        watches.node(node("n", Some("compute-1")));
        assert!(!ignored.has_changed().unwrap());
        watches.node(node("n", Some(" ")));
        assert_eq!(watches.index.home("n").host, "n");
        assert!(ignored.borrow_and_update()["n"].contains("blank"));
        watches.node(node("n", Some(" ")));
        assert!(!ignored.has_changed().unwrap(), "no news");
        watches.node(node("m", Some("two words")));
        watches.node(node("n", Some("compute-2")));
        assert_eq!(watches.index.home("n").host, "compute-2");
        assert_eq!(ignored.borrow_and_update().keys().collect::<Vec<_>>(), ["m"]);
        watches.node(Seen::Delete(ObjectKey::new("", "m")));
        assert!(ignored.borrow_and_update().is_empty());
    }

    #[tokio::test]
    async fn the_ports_of_a_node_that_is_gone_are_looked_at() {
        let watches = watches();
        watches.node(node("n", None));
        let Ok(Ok(held)) = serde_json::from_value::<LeanPort>(port("x", "p")).unwrap().sort() else { panic!() };
        watches.port(Seen::Apply(Box::new(Ok(held))));
        assert_eq!(keys(&watches.queue, 1).await, ["x"]);
        watches.node(Seen::Listed(HashSet::new()));
        assert_eq!(keys(&watches.queue, 1).await, ["x"]);
        assert!(watches.synced.borrow().nodes);
    }

    #[test]
    fn what_is_not_listed_yet_is_named() {
        let policies = PoliciesSynced { namespaces: true, policies: true, held: true };
        let some = Synced { pods: true, services: ServicesSynced::OFF, policies, ..Synced::default() };
        assert_eq!((some.missing(), some.all()), (vec!["kuryrports", "nodes"], false));
        assert!(Synced { ports: true, nodes: true, ..some }.all());
    }
}

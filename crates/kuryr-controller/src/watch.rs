//! The watches that feed the index and wake the queue.
//!
//! An object that cannot be read (somebody wrote it by hand, or with another version of the definition) is logged and
//! skipped: it must not stop the watch for all others.

use crate::{
    index::Index,
    lean::{LeanNode, LeanPod, LeanPort, NodeState},
    metrics::Metrics,
    policy::{Keeper, PodFacts},
    queue::Queue,
};
use futures::{Stream, StreamExt};
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::{WatchStreamExt, watcher, watcher::Event},
};
use kuryr_model::{KuryrPort, ObjectKey, chain};
use kuryr_plan::pod::Pod;
use serde::de::DeserializeOwned;
use std::{collections::HashSet, fmt::Debug, sync::Arc};
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

/// What the watches write to.
#[derive(Clone)]
pub(crate) struct Watches {
    pub(crate) index: Arc<Index>,
    pub(crate) queue: Arc<Queue<ObjectKey>>,
    pub(crate) policies: Arc<Keeper>,
    pub(crate) metrics: Metrics,
    pub(crate) synced: watch::Sender<Synced>,
}

impl Watches {
    /// Starts the watches; they end when `stop` is cancelled.
    pub(crate) fn start(&self, client: &Client, stop: &CancellationToken) {
        let (this, stream) = (self.clone(), events(client, "pods", &self.metrics, LeanPod::read));
        run(stop, stream, move |event| this.pod(event));
        let (this, stream) = (self.clone(), events(client, "kuryrports", &self.metrics, LeanPort::read));
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

    fn port(&self, event: Seen<KuryrPort>) {
        match event {
            Seen::Apply(port) => {
                let key = port.key();
                let changed = self.index.apply_port(*port);
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

    fn forget_node(&self, name: &str) {
        self.policies.node_gone(name.to_owned());
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

fn key<K: Resource>(object: &K) -> ObjectKey {
    ObjectKey::new(object.namespace().unwrap_or_default(), object.name_any())
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
        let key = key(&object);
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
    let stream = watcher(Api::all(client.clone()), watcher::Config::default()).default_backoff();
    stream.flat_map(move |event| {
        let seen = match event {
            Ok(Event::Init) => {
                listing.clear();
                None
            }
            Ok(Event::InitApply(object)) => {
                listing.insert(key(&object));
                readable(object, &metrics)
            }
            Ok(Event::InitDone) => Some(Seen::Listed(std::mem::take(&mut listing))),
            Ok(Event::Apply(object)) => readable(object, &metrics),
            Ok(Event::Delete(object)) => Some(Seen::Delete(key(&object))),
            Err(error) => {
                metrics.watch_failed(plural);
                tracing::warn!(resource = plural, error = %chain(&error), "the watch failed and is begun anew");
                None
            }
        };
        futures::stream::iter(seen)
    })
}

//! The EndpointSlice controller: which pods are behind each Service that selects some.
//!
//! ```text
//!  Services, pods, slices ──watch──▶ state ──Services touched──▶ slices::wanted ──▶ slices::place ──▶ writes
//! ```
//!
//! With nothing changing there are no calls.

mod slices;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::{
    core::v1::{Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{DeleteParams, PostParams},
    runtime::{WatchStreamExt as _, watcher, watcher::Event},
};
use tokio_util::task::AbortOnDropHandle;

use slices::{Backend, MANAGED_BY, MANAGER, SERVICE_NAME, Write};

/// As many changes are taken in before their Services are looked at.
const CHUNK: usize = 1000;

/// Time until a write that failed is tried again.
const RETRY: Duration = Duration::from_millis(100);

/// Keeps EndpointSlices until it is dropped.
pub struct Endpoints {
    _task: AbortOnDropHandle<()>,
}

impl Endpoints {
    /// Starts to, with a client of the cluster. Must be called within a tokio runtime.
    pub fn start(client: Client) -> Self {
        Self { _task: AbortOnDropHandle::new(tokio::spawn(run(client))) }
    }
}

enum Change {
    Service(Box<Event<Service>>),
    Pod(Box<Event<Pod>>),
    Slice(Box<Event<EndpointSlice>>),
}

/// Namespace and name.
type Key = (String, String);

/// What a watch has told: nothing is to be concluded before its first list is complete.
struct Seen<T> {
    items: BTreeMap<Key, T>,
    listing: BTreeSet<Key>,
    complete: bool,
}

impl<T> Default for Seen<T> {
    fn default() -> Self {
        Self { items: BTreeMap::new(), listing: BTreeSet::new(), complete: false }
    }
}

#[derive(Default)]
struct State {
    services: Seen<Service>,
    pods: Seen<Backend>,
    slices: Seen<EndpointSlice>,
    /// Services to look at.
    touched: BTreeSet<Key>,
}

async fn run(client: Client) {
    let services = watcher(Api::<Service>::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .map_ok(|event| Change::Service(Box::new(event)));
    let pods = watcher(Api::<Pod>::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .map_ok(|event| Change::Pod(Box::new(event)));
    let ours = watcher::Config::default().labels(&format!("{MANAGED_BY}={MANAGER}"));
    let slices = watcher(Api::<EndpointSlice>::all(client.clone()), ours)
        .default_backoff()
        .map_ok(|event| Change::Slice(Box::new(event)));
    let changes = stream::select(services, stream::select(pods, slices)).ready_chunks(CHUNK);
    let mut changes = std::pin::pin!(changes);
    let mut state = State::default();
    loop {
        let chunk = if state.touched.is_empty() || !state.complete() {
            changes.next().await
        } else {
            tokio::select! {
                chunk = changes.next() => chunk,
                () = tokio::time::sleep(RETRY) => Some(Vec::new()),
            }
        };
        let Some(chunk) = chunk else { return };
        for change in chunk {
            match change {
                Ok(change) => state.observe(change),
                Err(error) => tracing::debug!(%error, "the EndpointSlice controller lost a watch"),
            }
        }
        if state.complete() {
            for key in std::mem::take(&mut state.touched) {
                if let Err(error) = state.reconcile(&client, &key).await {
                    tracing::debug!(%error, service = key.1, "could not write endpoints, will try again");
                    state.touched.insert(key);
                }
            }
        }
    }
}

fn key<K: Resource>(object: &K) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// The Service that a slice is of.
fn service_of(slice: &EndpointSlice) -> Key {
    (slice.namespace().unwrap_or_default(), slice.labels().get(SERVICE_NAME).cloned().unwrap_or_default())
}

impl State {
    fn complete(&self) -> bool {
        self.services.complete && self.pods.complete && self.slices.complete
    }

    fn observe(&mut self, change: Change) {
        match change {
            Change::Service(event) => {
                for (key, _) in self.services.observe(*event, Some) {
                    self.touched.insert(key);
                }
            }
            Change::Pod(event) => {
                for ((namespace, _), versions) in self.pods.observe(*event, |pod| Some(Backend::read(pod))) {
                    let services = self.services.items.range((namespace.clone(), String::new())..);
                    let services = services.take_while(|((place, _), _)| *place == namespace);
                    let selects = |service: &Service| versions.iter().any(|pod| pod.is_behind(service));
                    let selecting = services.filter(|(_, service)| selects(service)).map(|(key, _)| key.clone());
                    self.touched.extend(selecting);
                }
            }
            Change::Slice(event) => {
                for (_, versions) in self.slices.observe(*event, Some) {
                    self.touched.extend(versions.iter().map(service_of));
                }
            }
        }
        // What changed before all was listed could not be judged.
        if !self.complete() {
            self.touched = self.services.items.keys().cloned().collect();
        }
    }

    /// Brings the slices of one Service into the state that it asks for.
    async fn reconcile(&mut self, client: &Client, key: &Key) -> Result<(), kube::Error> {
        let Some(service) = self.services.items.get(key).filter(|service| slices::selects(service)) else {
            return Ok(());
        };
        let (namespace, _) = key;
        let pods = self.pods.items.range((namespace.clone(), String::new())..);
        let pods = pods.take_while(|((place, _), _)| place == namespace).map(|(_, pod)| pod);
        let wanted = slices::wanted(service, pods.filter(|pod| pod.is_behind(service)));
        let found =
            self.slices.items.values().filter(|slice| service_of(slice) == *key && slices::owned(slice, service));
        let api = Api::<EndpointSlice>::namespaced(client.clone(), namespace);
        for write in slices::place(service, wanted, found.cloned().collect()) {
            let result = match &write {
                Write::Create(slice) => api.create(&PostParams::default(), slice).await.map(Some),
                Write::Replace(slice) => api.replace(&slice.name_any(), &PostParams::default(), slice).await.map(Some),
                Write::Delete(name) => api.delete(name, &DeleteParams::default()).await.map(|_| None),
            };
            match (result, write) {
                (Ok(Some(slice)), _) => drop(self.slices.items.insert(self::key(&slice), slice)),
                (Ok(None), Write::Delete(name)) => drop(self.slices.items.remove(&(namespace.clone(), name))),
                (Ok(None), _) => {}
                // Somebody was faster, or Service or namespace is going: the watch tells.
                (Err(kube::Error::Api(status)), _) if matches!(status.code, 403 | 404 | 409) => return Ok(()),
                (Err(error), _) => return Err(error),
            }
        }
        Ok(())
    }
}

impl<T: Clone> Seen<T> {
    /// Takes in an event; gives what it touches: keys, with what was there before and what is there now.
    fn observe<K: Resource>(&mut self, event: Event<K>, read: impl Fn(K) -> Option<T>) -> Vec<(Key, Vec<T>)> {
        match event {
            Event::Init => {
                self.listing.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                self.listing.insert(key(&object));
                self.apply(object, read)
            }
            Event::InitDone => {
                self.complete = true;
                let listing = std::mem::take(&mut self.listing);
                let gone: Vec<Key> = self.items.keys().filter(|key| !listing.contains(*key)).cloned().collect();
                gone.into_iter().map(|key| (key.clone(), self.items.remove(&key).into_iter().collect())).collect()
            }
            Event::Apply(object) => self.apply(object, read),
            Event::Delete(object) => {
                let key = key(&object);
                let before = self.items.remove(&key);
                vec![(key, before.into_iter().collect())]
            }
        }
    }

    fn apply<K: Resource>(&mut self, object: K, read: impl Fn(K) -> Option<T>) -> Vec<(Key, Vec<T>)> {
        let key = key(&object);
        let Some(now) = read(object) else { return Vec::new() };
        let before = self.items.insert(key.clone(), now.clone());
        vec![(key, before.into_iter().chain([now]).collect())]
    }
}

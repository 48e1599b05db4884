//! A small kubelet: pods of its node become network namespaces with the CNI plugin's interface in them and a process.
//!
//! ```text
//! watch (spec.nodeName = node) ─▶ one worker per pod ─▶ netns ─▶ CNI ADD ─▶ process ─▶ status Running
//!                                       │ deleted ─▶ SIGTERM, grace, SIGKILL ─▶ CNI DEL ─▶ netns removed ─▶ DELETE
//!                                       └ sandbox record on disk ─▶ found again by the next kubelet
//! ```
//!
//! - Pods are independent of each other: a slow ADD of one holds up nothing else.
//! - What was added is deleted, whatever happened in between: every sandbox has a record before it has a namespace.
//! - A failed ADD is followed by DEL and a new sandbox, as containerd does it. DEL is repeated until it succeeds.

mod cni;
pub mod command;
mod netns;
mod node;
mod process;
mod sandbox;
mod status;
mod worker;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt as _,
    runtime::{
        WatchStreamExt as _,
        events::{Recorder, Reporter},
        watcher,
    },
};
use serde_json::Value;
use tokio::{sync::watch, task::AbortHandle, time::Instant};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

pub use cni::{CniError, CniVerb};
pub use netns::NetnsError;
pub(crate) use netns::remove as remove_netns;
pub use process::ProcessError;
pub use sandbox::{RecordError, Sandbox};

use cni::Cni;
use sandbox::Records;
use worker::{Desired, Worker};

/// How a kubelet is set up.
#[derive(Clone)]
pub struct KubeletConfig {
    /// Name of the node.
    pub node: String,
    /// Client of the cluster.
    pub client: Client,
    /// The CNI plugin.
    pub cni_bin: PathBuf,
    /// The network configuration list that it gets.
    pub cni_conf: Value,
    /// More environment for the plugin.
    pub cni_env: Vec<(String, String)>,
    /// How long one call of the plugin may take.
    pub cni_timeout: Duration,
    /// Where the files of network namespaces are.
    pub netns_dir: PathBuf,
    /// Where the output of containers goes: `<namespace>_<pod>.log`.
    pub log_dir: PathBuf,
    /// Where sandboxes are remembered.
    pub state_dir: PathBuf,
    /// `InternalIP` of the node.
    pub address: IpAddr,
    /// More labels of the node.
    pub labels: BTreeMap<String, String>,
    /// How often STATUS is asked and the node's readiness follows it; `None`: the node is always ready.
    pub status_every: Option<Duration>,
    /// How often the node's Lease is renewed; `None`: never, which the embedded Kubernetes does not mind.
    pub lease_every: Option<Duration>,
    /// First and longest pause between attempts to start a sandbox or a container.
    pub backoff: (Duration, Duration),
}

impl KubeletConfig {
    /// A configuration with everything below one folder.
    pub fn new(node: &str, client: Client, cni_bin: PathBuf, cni_conf: Value, folder: &std::path::Path) -> Self {
        Self {
            node: node.to_owned(),
            client,
            cni_bin,
            cni_conf,
            cni_env: Vec::new(),
            cni_timeout: Duration::from_secs(120),
            netns_dir: folder.join("netns"),
            log_dir: folder.join("log"),
            state_dir: folder.join("sandboxes"),
            address: std::net::Ipv4Addr::LOCALHOST.into(),
            labels: BTreeMap::new(),
            status_every: None,
            lease_every: None,
            backoff: (Duration::from_millis(250), Duration::from_secs(10)),
        }
    }
}

/// Why a kubelet could not start.
#[derive(Debug, thiserror::Error)]
pub enum KubeletError {
    /// The node could not be registered.
    #[error("cannot register node {node:?}")]
    Register {
        /// The node.
        node: String,
        /// Why.
        #[source]
        source: kube::Error,
    },
    /// The sandbox records cannot be used.
    #[error("cannot use the state folder")]
    Records(#[source] RecordError),
    /// The pod has no sandbox on this node.
    #[error("pod {namespace}/{name} has no sandbox with a network here")]
    NoSandbox {
        /// The pod's namespace.
        namespace: String,
        /// The pod's name.
        name: String,
    },
    /// The plugin failed.
    #[error("the CNI plugin failed")]
    Cni(#[source] CniError),
}

/// How long the steps of a pod's start took.
#[derive(Clone, Debug, PartialEq)]
pub struct PodTiming {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// When the kubelet saw it on its node.
    pub seen: jiff::Timestamp,
    /// From seen to a network namespace, of the last attempt.
    pub netns: Duration,
    /// The CNI ADD of the last attempt.
    pub cni_add: Duration,
    /// From ADD to the status Running written, with the process started in between.
    pub running: Duration,
    /// From seen to Running.
    pub total: Duration,
    /// Sandboxes tried.
    pub attempts: u32,
}

struct WorkerHandle {
    desired: watch::Sender<Desired>,
    abort: AbortHandle,
}

pub(crate) struct Shared {
    config: KubeletConfig,
    cni: Cni,
    records: Records,
    recorder: Recorder,
    /// By pod uid.
    workers: Mutex<HashMap<String, WorkerHandle>>,
    /// By pod uid.
    sandboxes: Mutex<HashMap<String, Sandbox>>,
    timings: Mutex<Vec<PodTiming>>,
    tasks: TaskTracker,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running kubelet. Dropping it stops it as [`Kubelet::stop`] does.
pub struct Kubelet {
    shared: Arc<Shared>,
    watch: AbortOnDropHandle<()>,
    _readiness: Option<AbortOnDropHandle<()>>,
    _lease: Option<AbortOnDropHandle<()>>,
}

impl Kubelet {
    /// Registers the node, takes over what an earlier kubelet left, and runs the node's pods.
    ///
    /// # Errors
    /// If the node cannot be registered or the state folder cannot be used.
    pub async fn start(config: KubeletConfig) -> Result<Self, KubeletError> {
        let records = Records::open(&config.state_dir).map_err(KubeletError::Records)?;
        let leftovers = records.load().map_err(KubeletError::Records)?;
        let cni = Cni {
            plugin: config.cni_bin.clone(),
            conf: config.cni_conf.clone(),
            env: config.cni_env.clone(),
            timeout: config.cni_timeout,
        };
        let reporter = Reporter { controller: "kubelet".into(), instance: Some(config.node.clone()) };
        let recorder = Recorder::new(config.client.clone(), reporter);
        let ready = match config.status_every {
            Some(_) => cni.call(CniVerb::Status, None, None, &[]).await.map(drop),
            None => Ok(()),
        };
        let registered = node::register(&config, ready.as_ref().err()).await;
        registered.map_err(|source| KubeletError::Register { node: config.node.clone(), source })?;
        let readiness = config.status_every.map(|every| {
            let follow = node::follow_status(config.clone(), cni.clone(), every, ready.is_ok());
            AbortOnDropHandle::new(tokio::spawn(follow))
        });
        let lease = config.lease_every.map(|every| {
            let renew = node::renew_lease(config.clone(), every);
            AbortOnDropHandle::new(tokio::spawn(renew))
        });
        let shared = Arc::new(Shared {
            config,
            cni,
            records,
            recorder,
            workers: Mutex::default(),
            sandboxes: Mutex::default(),
            timings: Mutex::default(),
            tasks: TaskTracker::new(),
        });
        let watch = AbortOnDropHandle::new(tokio::spawn(watch_pods(shared.clone(), leftovers)));
        Ok(Self { shared, watch, _readiness: readiness, _lease: lease })
    }

    /// The node's name.
    pub fn node(&self) -> &str {
        &self.shared.config.node
    }

    /// What the node holds of a pod, with path of the namespace, container id and pid.
    pub fn sandbox(&self, namespace: &str, name: &str) -> Option<Sandbox> {
        let sandboxes = lock(&self.shared.sandboxes);
        let mut found: Vec<&Sandbox> =
            sandboxes.values().filter(|s| s.namespace == namespace && s.name == name).collect();
        // Of two pods of one name the one that is not yet torn down is meant: the later one.
        found.sort_by_key(|sandbox| sandbox.result.is_some());
        found.pop().cloned()
    }

    /// Everything the node holds of pods.
    pub fn sandboxes(&self) -> Vec<Sandbox> {
        lock(&self.shared.sandboxes).values().cloned().collect()
    }

    /// The file of a pod's network namespace.
    pub fn pod_netns(&self, namespace: &str, name: &str) -> Option<PathBuf> {
        self.sandbox(namespace, name)?.netns
    }

    /// The time of each step of the start of every pod so far.
    pub fn timings(&self) -> Vec<PodTiming> {
        lock(&self.shared.timings).clone()
    }

    /// Calls the CNI plugin for a pod, with the result of its ADD as `prevResult` where the verb takes one. GC and
    /// STATUS are about the node; GC names all its sandboxes as valid.
    ///
    /// # Errors
    /// If the pod has no sandbox, or the plugin fails.
    pub async fn cni(&self, verb: CniVerb, namespace: &str, name: &str) -> Result<Value, KubeletError> {
        let cni = &self.shared.cni;
        let result = if matches!(verb, CniVerb::Gc | CniVerb::Status | CniVerb::Version) {
            let valid: Vec<_> = self.sandboxes().iter().filter_map(Sandbox::attachment).collect();
            cni.call(verb, None, None, &valid).await
        } else {
            let sandbox = self.sandbox(namespace, name);
            let missing = || KubeletError::NoSandbox { namespace: namespace.into(), name: name.into() };
            let sandbox = sandbox.ok_or_else(missing)?;
            let attachment = sandbox.attachment().ok_or_else(missing)?;
            let previous = sandbox.result.as_ref().filter(|_| verb != CniVerb::Add);
            cni.call(verb, Some(&attachment), previous, &[]).await
        };
        result.map_err(KubeletError::Cni)
    }

    /// Stops the kubelet and leaves its pods running, as when its process is killed. Start another to go on.
    pub async fn stop(mut self) {
        self.end_watch().await;
        for worker in lock(&self.shared.workers).values() {
            worker.abort.abort();
        }
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    /// The node loses power: its pods' processes and namespaces are gone, and so is what was remembered of them. With what is
    /// returned another one can be started, as when it boots.
    pub async fn lose_power(self) -> KubeletConfig {
        let shared = self.shared.clone();
        self.stop().await;
        for sandbox in lock(&shared.sandboxes).values() {
            let Some(path) = &sandbox.netns else { continue };
            if let Some(pid) = sandbox.pid {
                process::kill_stray(pid, path);
            }
            if let Err(error) = netns::remove(path) {
                tracing::warn!(%error, "cannot remove a network namespace");
            }
            if let Err(error) = shared.records.remove(&sandbox.container_id) {
                tracing::warn!(%error, "cannot forget a sandbox");
            }
        }
        shared.config.clone()
    }

    async fn end_watch(&mut self) {
        self.watch.abort();
        // It ends as cancelled, which is what is wanted.
        let _ = (&mut self.watch).await;
    }

    /// Stops the kubelet and tears down everything on the node. The pods stay in the API.
    pub async fn shutdown(mut self) {
        self.end_watch().await;
        {
            let workers = lock(&self.shared.workers);
            for worker in workers.values() {
                worker.desired.send_replace(Desired::Teardown);
            }
        }
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        for worker in lock(&self.shared.workers).values() {
            worker.abort.abort();
        }
    }
}

/// Keeps one worker for each pod of the node.
async fn watch_pods(shared: Arc<Shared>, leftovers: Vec<Sandbox>) {
    let mut leftovers: HashMap<String, Vec<Sandbox>> =
        leftovers.into_iter().fold(HashMap::new(), |mut map, sandbox| {
            map.entry(sandbox.uid.clone()).or_insert_with(Vec::new).push(sandbox);
            map
        });
    let config = watcher::Config::default().fields(&format!("spec.nodeName={}", shared.config.node));
    let pods = watcher(Api::<Pod>::all(shared.config.client.clone()), config).default_backoff();
    let mut pods = std::pin::pin!(pods);
    let mut listed = HashSet::new();
    while let Some(event) = pods.next().await {
        match event {
            Ok(watcher::Event::Init) => listed.clear(),
            Ok(watcher::Event::InitApply(pod)) => {
                let uid = pod.uid().unwrap_or_default();
                let found = leftovers.remove(&uid).unwrap_or_default();
                listed.insert(uid);
                shared.observe(pod, found);
            }
            Ok(watcher::Event::InitDone) => {
                for (uid, worker) in lock(&shared.workers).iter().filter(|(uid, _)| !listed.contains(*uid)) {
                    tracing::debug!(uid, "a pod is gone");
                    worker.desired.send_replace(Desired::Gone);
                }
                for (uid, sandboxes) in leftovers.drain() {
                    shared.spawn(&uid, Desired::Gone, sandboxes);
                }
            }
            Ok(watcher::Event::Apply(pod)) => shared.observe(pod, Vec::new()),
            Ok(watcher::Event::Delete(pod)) => {
                if let Some(worker) = lock(&shared.workers).get(&pod.uid().unwrap_or_default()) {
                    worker.desired.send_replace(Desired::Gone);
                }
            }
            Err(error) => tracing::debug!(%error, node = shared.config.node, "the kubelet lost its watch"),
        }
    }
}

impl Shared {
    /// Tells the pod's worker, which is made if there is none.
    fn observe(self: &Arc<Self>, pod: Pod, leftovers: Vec<Sandbox>) {
        let uid = pod.uid().unwrap_or_default();
        let desired = Desired::Run(Arc::new(pod));
        if let Some(worker) = lock(&self.workers).get(&uid) {
            worker.desired.send_replace(desired);
            return;
        }
        self.spawn(&uid, desired, leftovers);
    }

    fn spawn(self: &Arc<Self>, uid: &str, desired: Desired, leftovers: Vec<Sandbox>) {
        let (sender, receiver) = watch::channel(desired);
        let worker = Worker::new(self.clone(), receiver, leftovers, Instant::now());
        let shared = self.clone();
        let key = uid.to_owned();
        let mut workers = lock(&self.workers);
        let task = self.tasks.spawn(async move {
            worker.run().await;
            lock(&shared.workers).remove(&key);
        });
        workers.insert(uid.to_owned(), WorkerHandle { desired: sender, abort: task.abort_handle() });
    }
}

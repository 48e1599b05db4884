//! One step for one key.

use crate::{
    allocator::{Allocator, Request},
    error::{PodError, Remedy},
    events::Events,
    index::{Index, Known},
    metrics::Metrics,
    policy::Keeper,
    queue::{Outcome, Queue},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, OwnerReference, Time};
use kube::{
    Api, Client,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions},
};
use kuryr_model::{KuryrPort, KuryrPortSpec, ObjectKey, PORT_FINALIZER, PodUid, Vif, kuryr_port::CONDITION_ALLOCATED};
use kuryr_plan::pod::{Node, Pod, Step, step};
use parking_lot::Mutex;
use serde_json::json;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, timeout};

/// How long a pod waits for Neutron before that is said on it.
const PATIENCE: Duration = Duration::from_secs(10);

/// A failure that time may mend is said on the pod only when it came this often in a row.
const SILENT_FAILURES: u32 = 1;

/// How long a pod waits for what is on its way, unless it is woken before.
const BRIEFLY: Duration = Duration::from_secs(2);

/// Does the steps.
pub(crate) struct Reconciler {
    pub(crate) client: Client,
    pub(crate) index: Arc<Index>,
    pub(crate) queue: Arc<Queue<ObjectKey>>,
    pub(crate) allocator: Allocator,
    pub(crate) policies: Arc<Keeper>,
    pub(crate) events: Events,
    pub(crate) metrics: Metrics,
    pub(crate) cooldown: Duration,
    /// Pods that have no ports, by the reason.
    pub(crate) waiting: Mutex<HashMap<ObjectKey, &'static str>>,
}

impl Reconciler {
    /// Does the next step for `key`.
    pub(crate) async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let known = self.index.get(key);
        if let Some(odd) = &known.odd {
            return self.keep_apart(odd, known.pod.as_deref()).await;
        }
        let node =
            known.port.as_ref().map_or(Node::Present, |port| self.index.node(&port.spec.node_name, Instant::now()));
        match (step(known.pod.as_deref(), known.port.as_deref(), node, self.cooldown), known) {
            (Step::Allocate | Step::Fill, Known { pod: Some(pod), .. }) => self.allocate(&pod).await,
            (Step::Delete, Known { port: Some(port), .. }) => self.outcome(key, "delete", self.delete(&port).await),
            (Step::Release, Known { port: Some(port), .. }) => self.outcome(key, "release", self.release(&port).await),
            (Step::AwaitNode { again, blocks }, known) => {
                if let (true, Some(pod), Some(port)) = (blocks, &known.pod, &known.port) {
                    self.say_that_it_waits(pod, port);
                }
                again.map_or(Outcome::Settled, Outcome::After)
            }
            (_, known) => {
                if known.pod.is_none() {
                    self.no_longer_waits(key);
                }
                Outcome::Settled
            }
        }
    }

    pub(crate) fn outcome(&self, key: &ObjectKey, step: &'static str, result: Result<(), PodError>) -> Outcome {
        match result {
            Ok(()) => Outcome::Settled,
            Err(error) => {
                tracing::warn!(pod = %key, step, reason = error.reason(), error = %error, "the step failed and is tried again");
                self.metrics.step_failed(step, error.reason());
                Outcome::Retry(error.retry_after())
            }
        }
    }

    /// Gets a port for `pod` and records it.
    async fn allocate(&self, pod: &Pod) -> Outcome {
        let Some(node) = pod.node.clone() else { return Outcome::Settled };
        let started = Instant::now();
        let groups = match self.policies.grant(&pod.key, &pod.uid) {
            Ok(groups) => groups,
            Err(waits) => return self.failed(pod, &node, waits.into()).await,
        };
        let request = Request { key: pod.key.clone(), uid: pod.uid.clone(), host: self.index.host(&node), groups };
        let mut allocation = std::pin::pin!(self.allocator.allocate(request));
        let allocated = match timeout(PATIENCE, &mut allocation).await {
            Ok(allocated) => allocated,
            Err(_) => {
                self.say_why(pod, &node, &PodError::Slow).await;
                allocation.await
            }
        };
        let result = match allocated {
            Ok(vif) => {
                self.metrics.step("allocate", started.elapsed());
                self.record(pod, &node, vif).await
            }
            Err(error) => Err(error),
        };
        match result {
            Ok(()) => {
                self.no_longer_waits(&pod.key);
                Outcome::Settled
            }
            Err(error) => {
                self.policies.ungrant(&pod.uid);
                self.failed(pod, &node, error).await
            }
        }
    }

    async fn failed(&self, pod: &Pod, node: &str, error: PodError) -> Outcome {
        if error.is_brief() && self.queue.failures(&pod.key) < SILENT_FAILURES {
            // As with the first pod on a node that a policy isolates.
            tracing::debug!(pod = %pod.key, reason = %error, "the pod waits");
            return Outcome::Retry(BRIEFLY);
        }
        let passing = matches!(error.remedy(), Remedy::Time(_));
        if !passing || self.queue.failures(&pod.key) >= SILENT_FAILURES {
            self.say_why(pod, node, &error).await;
        }
        self.outcome(&pod.key, "allocate", Err(error))
    }

    /// Writes the VIF where the node finds it, or gives the port back if the pod is gone by now.
    async fn record(&self, pod: &Pod, node: &str, vif: Vif) -> Result<(), PodError> {
        let port_id = vif.port_id;
        if !self.still_wanted(pod) {
            tracing::info!(pod = %pod.key, uid = %pod.uid, port = %port_id, "the pod went away while its port was made");
            return self.give_back(&pod.uid, port_id).await;
        }
        // A policy may have come while Neutron took its time.
        if timeout(PATIENCE, self.policies.closed_enough(&pod.uid)).await.is_err() {
            self.allocator.suspect(&pod.uid);
            return Err(PodError::WiderThanPolicies);
        }
        let started = Instant::now();
        // As it is now: while Neutron took its time, one may have been made that says so.
        let port = self.index.get(&pod.key).port.filter(|port| port.spec.pod_uid == pod.uid);
        let written = match port {
            Some(port) => self.fill(&port, vif).await,
            None => self.api(&pod.key).create(&PostParams::default(), &new_kuryr_port(pod, node, vec![vif])).await,
        };
        match written {
            Ok(written) => {
                self.metrics.step("write", started.elapsed());
                tracing::info!(pod = %pod.key, uid = %pod.uid, port = %port_id, node, "allocated");
                self.index.apply_port(written);
                Ok(())
            }
            Err(error) if refused_for_good(&error) => {
                tracing::warn!(pod = %pod.key, uid = %pod.uid, port = %port_id, error = %error, "the KuryrPort was refused");
                self.give_back(&pod.uid, port_id).await?;
                Err(PodError::Kubernetes(Arc::new(error)))
            }
            Err(error) => {
                self.allocator.suspect(&pod.uid);
                Err(PodError::Kubernetes(Arc::new(error)))
            }
        }
    }

    async fn give_back(&self, uid: &PodUid, port: kuryr_model::PortId) -> Result<(), PodError> {
        let result = self.allocator.release(port).await;
        if result.is_err() {
            self.allocator.suspect(uid);
        } else {
            self.wake_waiting();
        }
        result
    }

    fn still_wanted(&self, pod: &Pod) -> bool {
        let now = self.index.get(&pod.key).pod;
        now.is_some_and(|now| now.uid == pod.uid && !now.completed)
    }

    /// Writes the VIF into a `KuryrPort` that had to be made without one.
    async fn fill(&self, port: &KuryrPort, vif: Vif) -> Result<KuryrPort, kube::Error> {
        let key = port.key();
        let body = json!({
            "metadata": {"uid": port.metadata.uid, "resourceVersion": port.metadata.resource_version},
            "spec": {"vifs": [vif]},
        });
        let filled = self.api(&key).patch(&key.name, &PatchParams::default(), &Patch::Merge(&body)).await?;
        let condition = condition(&filled, "True", "Allocated", String::new());
        self.api(&key).patch_status(&key.name, &PatchParams::default(), &Patch::Merge(&status(&condition))).await
    }

    async fn delete(&self, port: &KuryrPort) -> Result<(), PodError> {
        let key = port.key();
        let preconditions = Preconditions { uid: port.metadata.uid.clone(), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
        match self.api(&key).delete(&key.name, &params).await {
            Ok(either) => {
                // The watch may tell of it later than this answer, and then has no news: the next step must not wait for that.
                if let Some(deleting) = either.left()
                    && self.index.apply_port(deleting)
                {
                    self.queue.add(key);
                }
                Ok(())
            }
            // Gone, or another object by now: the watch will tell.
            Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => Ok(()),
            Err(error) => Err(PodError::Kubernetes(Arc::new(error))),
        }
    }

    /// Deletes the Neutron ports, then lets the `KuryrPort` go.
    async fn release(&self, port: &KuryrPort) -> Result<(), PodError> {
        let key = port.key();
        let started = Instant::now();
        let mut some = false;
        for id in port.port_ids() {
            some = true;
            self.allocator.release(id).await?;
            tracing::info!(pod = %key, uid = %port.spec.pod_uid, port = %id, "released");
        }
        if !some {
            // Perhaps one was made and could not be recorded.
            self.allocator.release_all(&port.spec.pod_uid).await?;
        }
        self.wake_waiting();
        self.drop_finalizer(port).await.map_err(|error| PodError::Kubernetes(Arc::new(error)))?;
        self.index.remove_port(&key, port.metadata.uid.as_deref());
        self.metrics.step("release", started.elapsed());
        self.queue.add(key);
        Ok(())
    }

    async fn drop_finalizer(&self, port: &KuryrPort) -> Result<(), kube::Error> {
        let mut finalizers = port.metadata.finalizers.clone().unwrap_or_default();
        finalizers.retain(|finalizer| finalizer != PORT_FINALIZER);
        let key = port.key();
        let body = json!({"metadata": {
            "uid": port.metadata.uid, "resourceVersion": port.metadata.resource_version, "finalizers": finalizers,
        }});
        match self.api(&key).patch(&key.name, &PatchParams::default(), &Patch::Merge(&body)).await {
            Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Says on the pod and its `KuryrPort` why it has no port yet.
    async fn say_why(&self, pod: &Pod, node: &str, error: &PodError) {
        let reason = error.reason();
        self.waiting.lock().insert(pod.key.clone(), reason);
        self.metrics.waiting(&self.waiting.lock());
        if !self.still_wanted(pod) {
            return;
        }
        let message = error.to_string();
        if let Err(error) = self.write_condition(pod, node, reason, &message).await {
            tracing::debug!(pod = %pod.key, error = %error, "the condition was not written");
        }
        self.events.warn(pod, reason, format!("the pod has no network yet: {message}"));
    }

    async fn write_condition(&self, pod: &Pod, node: &str, reason: &str, message: &str) -> Result<(), kube::Error> {
        let api = self.api(&pod.key);
        let port = match self.index.get(&pod.key).port {
            Some(port) if port.spec.pod_uid == pod.uid => port,
            Some(_) => return Ok(()),
            None => {
                let made = api.create(&PostParams::default(), &new_kuryr_port(pod, node, Vec::new())).await?;
                self.index.apply_port(made.clone());
                Arc::new(made)
            }
        };
        let said = port.unallocated_reason();
        if said.is_some_and(|said| said.reason == reason && said.message == message) {
            return Ok(());
        }
        let condition = condition(&port, "False", reason, message.to_owned());
        let written =
            api.patch_status(&pod.key.name, &PatchParams::default(), &Patch::Merge(&status(&condition))).await?;
        self.index.apply_port(written);
        Ok(())
    }

    fn say_that_it_waits(&self, pod: &Pod, port: &KuryrPort) {
        const REASON: &str = "WaitingForPreviousPod";
        if self.waiting.lock().insert(pod.key.clone(), REASON) != Some(REASON) {
            self.metrics.waiting(&self.waiting.lock());
            let node = &port.spec.node_name;
            let note =
                format!("node {node} still holds the ports of the previous pod of this name ({})", port.spec.pod_uid);
            self.events.warn(pod, REASON, note);
        }
    }

    fn no_longer_waits(&self, key: &ObjectKey) {
        self.events.settled(key);
        let mut waiting = self.waiting.lock();
        if waiting.remove(key).is_some() {
            self.metrics.waiting(&waiting);
        }
    }

    /// There is room again: those that wait for it need not wait for their next try.
    fn wake_waiting(&self) {
        let starved: HashSet<ObjectKey> = {
            let waiting = self.waiting.lock();
            let lacks_room = |reason: &&'static str| matches!(*reason, "SubnetsFull" | "QuotaExceeded");
            waiting.iter().filter(|(_, reason)| lacks_room(reason)).map(|(key, _)| key.clone()).collect()
        };
        for key in starved {
            self.queue.add(key);
        }
    }

    fn api(&self, key: &ObjectKey) -> Api<KuryrPort> {
        Api::namespaced(self.client.clone(), &key.namespace)
    }
}

/// Whether the API server will never take this write: the namespace is being deleted, or the object is invalid.
fn refused_for_good(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(answer) if matches!(answer.code, 403 | 404 | 422))
}

fn new_kuryr_port(pod: &Pod, node: &str, vifs: Vec<Vif>) -> KuryrPort {
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        name: pod.key.name.clone(),
        uid: pod.uid.to_string(),
        // A blocking owner reference would need the right to change the finalizers of pods.
        block_owner_deletion: None,
        controller: Some(true),
    };
    let spec = KuryrPortSpec { pod_uid: pod.uid.clone(), node_name: node.to_owned(), vifs };
    let metadata = ObjectMeta {
        name: Some(pod.key.name.clone()),
        namespace: Some(pod.key.namespace.clone()),
        owner_references: Some(vec![owner]),
        finalizers: Some(vec![PORT_FINALIZER.to_owned()]),
        ..ObjectMeta::default()
    };
    KuryrPort { metadata, ..KuryrPort::new(&pod.key.name, spec) }
}

fn condition(port: &KuryrPort, state: &str, reason: &str, message: String) -> Condition {
    let before =
        port.status.as_ref().and_then(|status| status.conditions.iter().find(|c| c.type_ == CONDITION_ALLOCATED));
    let since = before.filter(|before| before.status == state).map(|before| before.last_transition_time.clone());
    Condition {
        type_: CONDITION_ALLOCATED.to_owned(),
        status: state.to_owned(),
        reason: reason.to_owned(),
        message,
        last_transition_time: since.unwrap_or(Time(Timestamp::now())),
        observed_generation: port.metadata.generation,
    }
}

/// The only condition, so that writing the whole list loses nothing.
fn status(condition: &Condition) -> serde_json::Value {
    json!({"status": {"conditions": [condition]}})
}

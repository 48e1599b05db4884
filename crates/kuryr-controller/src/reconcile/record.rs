//! Writes ports where their nodes find them, and takes them back.

use super::{
    PATIENCE, Reconciler,
    objects::{condition, new_kuryr_port, status},
};
use crate::{allocator::Allocated, error::PodError, lean::LeanPort, resync::list_some};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions},
};
use kuryr_model::{KuryrPort, ObjectKey, PORT_FINALIZER, PodUid, Vif};
use kuryr_plan::{
    allocator::{Admission, Sweep},
    pod::Pod,
};
use serde_json::json;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, timeout};

impl Reconciler {
    /// Whether a port may be made for `pod`, as far as its namespace is concerned: where `KuryrPort`s were refused lately, its
    /// own is written first.
    pub(super) async fn admit(&self, pod: &Pod, node: &str) -> Result<(), PodError> {
        let namespace = &pod.key.namespace;
        let admission = self.refusals.lock().admission(namespace, self.began.elapsed());
        match admission {
            Admission::Open => Ok(()),
            Admission::Wait { left, why } => Err(PodError::Refused { why, again: left }),
            Admission::Try => match self.make_empty(pod, node).await {
                Ok(_) => {
                    self.accepted(namespace);
                    Ok(())
                }
                Err(error) => {
                    let error = kubernetes(error);
                    self.note_refusal(namespace, &error);
                    Err(error)
                }
            },
        }
    }

    /// Writes the VIF where the node finds it, or gives the port back if the pod is gone by now.
    pub(super) async fn record(&self, pod: &Pod, node: &str, allocated: Allocated) -> Result<(), PodError> {
        let Allocated { vif, made } = allocated;
        let port_id = vif.port_id;
        if !self.still_wanted(pod) {
            tracing::info!(pod = %pod.key, uid = %pod.uid, port = %port_id, "the pod went away while its port was made");
            return self.give_back(pod, &vif, made).await;
        }
        // A policy may have come while Neutron took its time.
        if timeout(PATIENCE, self.policies.closed_enough(&pod.uid)).await.is_err() {
            self.allocator.suspect(&pod.key, &pod.uid);
            return Err(PodError::WiderThanPolicies);
        }
        let started = Instant::now();
        // As it is now: while Neutron took its time, one may have been made.
        let port = self.index.get(&pod.key).port.filter(|port| port.spec.pod_uid == pod.uid);
        let written = match port {
            // One whose write was thought to have failed. If it names another port, this one is swept.
            Some(port) if !port.spec.vifs.is_empty() => {
                self.allocator.suspect(&pod.key, &pod.uid);
                return Ok(());
            }
            Some(port) => self.fill(&port, &vif).await,
            None => {
                let port = new_kuryr_port(pod, node, vec![vif.clone()]);
                self.api(&pod.key).create(&PostParams::default(), &port).await
            }
        };
        match written.map_err(kubernetes) {
            Ok(written) => {
                self.metrics.step("write", started.elapsed());
                tracing::info!(pod = %pod.key, uid = %pod.uid, port = %port_id, node, "allocated");
                self.index.apply_port(written);
                self.allocator.recorded(&pod.key, &pod.uid);
                self.accepted(&pod.key.namespace);
                Ok(())
            }
            Err(error) if error.refuses_kuryr_ports() => {
                tracing::warn!(pod = %pod.key, uid = %pod.uid, port = %port_id, error = %error, "the KuryrPort was refused");
                self.note_refusal(&pod.key.namespace, &error);
                self.give_back(pod, &vif, made).await?;
                Err(error)
            }
            Err(error) => {
                self.allocator.suspect(&pod.key, &pod.uid);
                Err(error)
            }
        }
    }

    /// Deletes a port that was made and cannot be recorded. What was found, or is recorded, a sandbox may be using: that is
    /// looked into when this step is done.
    async fn give_back(&self, pod: &Pod, vif: &Vif, made: bool) -> Result<(), PodError> {
        let named = self.index.get(&pod.key).port.is_some_and(|known| known.port_ids().any(|id| id == vif.port_id));
        if !made || named {
            self.allocator.suspect(&pod.key, &pod.uid);
            return Ok(());
        }
        match self.allocator.release(vif).await {
            Ok(()) => {
                self.wake(1);
                Ok(())
            }
            Err(error) => {
                self.allocator.suspect(&pod.key, &pod.uid);
                Err(error)
            }
        }
    }

    /// Writes the VIF into a `KuryrPort` that had to be made without one.
    async fn fill(&self, port: &KuryrPort, vif: &Vif) -> Result<KuryrPort, kube::Error> {
        let key = port.key();
        let body = json!({
            "metadata": {"uid": port.metadata.uid, "resourceVersion": port.metadata.resource_version},
            "spec": {"vifs": [vif]},
        });
        let filled = self.api(&key).patch(&key.name, &PatchParams::default(), &Patch::Merge(&body)).await?;
        // The next step says so in its status.
        self.queue.add(key);
        Ok(filled)
    }

    /// Says on a `KuryrPort` that it has ports.
    pub(super) async fn confirm(&self, port: &KuryrPort) -> Result<(), PodError> {
        let key = port.key();
        let condition = condition(port, "True", "Allocated", String::new());
        let status = status(&condition);
        match self.api(&key).patch_status(&key.name, &PatchParams::default(), &Patch::Merge(&status)).await {
            Ok(written) => {
                self.index.apply_port(written);
                Ok(())
            }
            Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(()),
            Err(error) => Err(kubernetes(error)),
        }
    }

    pub(super) async fn delete(&self, port: &KuryrPort) -> Result<(), PodError> {
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
            Err(error) => Err(kubernetes(error)),
        }
    }

    /// Deletes the Neutron ports, then lets the `KuryrPort` go.
    pub(super) async fn release(&self, port: &KuryrPort) -> Result<(), PodError> {
        let key = port.key();
        let started = Instant::now();
        let mut freed = 0;
        for vif in &port.spec.vifs {
            self.allocator.release(vif).await?;
            freed += 1;
            tracing::info!(pod = %key, uid = %port.spec.pod_uid, port = %vif.port_id, "released");
            if vif.plug.driver.is_nested() {
                self.wake_on(&port.spec.node_name);
            }
        }
        if freed == 0 {
            // Perhaps one was made and could not be recorded.
            let sweep = Sweep { uid: port.spec.pod_uid.clone(), keep: [].into() };
            freed = self.allocator.sweep(&sweep).await?;
        }
        self.wake(freed);
        self.drop_finalizer(port).await.map_err(kubernetes)?;
        self.index.remove_port(&key, port.metadata.uid.as_deref());
        self.metrics.step("release", started.elapsed());
        self.room_in(&key.namespace);
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

    /// Deletes the ports that a suspect should not have.
    pub(super) async fn sweep(&self, key: &ObjectKey, sweep: &Sweep, begun: Duration) -> Result<(), PodError> {
        // Our watch may not have told yet of a KuryrPort whose write seemed to fail, and a sandbox may be using its port.
        if sweep.keep.is_empty() && self.is_recorded(key, &sweep.uid).await? {
            return Ok(());
        }
        let deleted = self.allocator.sweep(sweep).await?;
        self.allocator.swept(key, &sweep.uid, begun);
        self.wake(deleted);
        Ok(())
    }

    /// Whether the API server has a `KuryrPort` with ports for this pod, or one that cannot be read and might be.
    async fn is_recorded(&self, key: &ObjectKey, uid: &PodUid) -> Result<bool, PodError> {
        let api: Api<LeanPort> = Api::namespaced(self.client.clone(), &key.namespace);
        let named = ListParams::default().fields(&format!("metadata.name={}", key.name));
        for port in list_some(api, named, Some).await.map_err(kubernetes)? {
            match port.read() {
                Ok(port) if port.spec.pod_uid != *uid || port.spec.vifs.is_empty() => {}
                Ok(port) => {
                    if self.index.apply_port(port) {
                        self.queue.add(key.clone());
                    }
                    return Ok(true);
                }
                Err(_) => return Ok(true),
            }
        }
        Ok(false)
    }

    fn note_refusal(&self, namespace: &str, error: &PodError) {
        if let PodError::Kubernetes(cause) = error
            && error.refuses_kuryr_ports()
        {
            self.refusals.lock().refused(namespace, cause.to_string(), self.began.elapsed());
        }
    }

    /// The API server takes `KuryrPort`s of this namespace: those that it refused need not wait.
    fn accepted(&self, namespace: &str) {
        if self.refusals.lock().accepted(namespace) {
            for key in self.waiting.lock().first_refused(namespace, usize::MAX) {
                self.queue.add(key);
            }
        }
    }

    /// One `KuryrPort` less in this namespace: perhaps another is taken now.
    fn room_in(&self, namespace: &str) {
        if self.refusals.lock().freed(namespace, self.began.elapsed()) {
            for key in self.waiting.lock().first_refused(namespace, 1) {
                self.queue.add(key);
            }
        }
    }
}

fn kubernetes(error: kube::Error) -> PodError {
    PodError::Kubernetes(Arc::new(error))
}

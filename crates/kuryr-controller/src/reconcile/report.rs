//! Says why a pod waits: on its `KuryrPort`, in an Event, in the metrics.

use super::{
    Reconciler,
    objects::{condition, new_kuryr_port, status},
};
use crate::error::{PodError, Reason};
use kube::api::{Patch, PatchParams, PostParams};
use kuryr_model::{KuryrPort, ObjectKey};
use kuryr_plan::pod::Pod;
use std::sync::Arc;

impl Reconciler {
    /// Says on the pod and its `KuryrPort` why it has no port yet.
    pub(super) async fn say_why(&self, pod: &Pod, node: &str, error: &PodError) {
        if !self.still_wanted(pod) {
            self.no_longer_waits(&pod.key);
            return;
        }
        let reason = error.reason();
        self.waits(&pod.key, reason);
        let message = error.to_string();
        // A namespace that takes no KuryrPort takes none without ports either.
        if !error.refuses_kuryr_ports()
            && let Err(error) = self.write_condition(pod, node, reason, &message).await
        {
            tracing::debug!(pod = %pod.key, uid = %pod.uid, error = %error, "the condition was not written");
        }
        self.events.warn(pod, reason.as_str(), format!("the pod has no network yet: {message}"));
    }

    async fn write_condition(&self, pod: &Pod, node: &str, reason: Reason, message: &str) -> Result<(), kube::Error> {
        let port = match self.index.get(&pod.key).port {
            Some(port) if port.spec.pod_uid == pod.uid => port,
            Some(_) => return Ok(()),
            None => Arc::new(self.make_empty(pod, node).await?),
        };
        let said = port.unallocated_reason();
        if said.is_some_and(|said| said.reason == reason.as_str() && said.message == message) {
            return Ok(());
        }
        let condition = condition(&port, "False", reason.as_str(), message.to_owned());
        let written = self
            .api(&pod.key)
            .patch_status(&pod.key.name, &PatchParams::default(), &Patch::Merge(&status(&condition)))
            .await?;
        self.index.apply_port(written);
        Ok(())
    }

    /// Makes the pod's `KuryrPort` without ports.
    pub(super) async fn make_empty(&self, pod: &Pod, node: &str) -> Result<KuryrPort, kube::Error> {
        let port = new_kuryr_port(pod, node, Vec::new());
        let made = self.api(&pod.key).create(&PostParams::default(), &port).await?;
        self.index.apply_port(made.clone());
        Ok(made)
    }

    pub(super) fn say_that_it_waits(&self, pod: &Pod, port: &KuryrPort) {
        const REASON: Reason = Reason::WaitingForPreviousPod;
        if self.waits(&pod.key, REASON) {
            let node = &port.spec.node_name;
            let note =
                format!("node {node} still holds the ports of the previous pod of this name ({})", port.spec.pod_uid);
            self.events.warn(pod, REASON.as_str(), note);
        }
    }

    /// Whether that is news.
    fn waits(&self, key: &ObjectKey, reason: Reason) -> bool {
        let mut waiting = self.waiting.lock();
        let news = waiting.add(key, reason);
        if news {
            self.metrics.waiting(waiting.reasons());
        }
        news
    }

    pub(super) fn no_longer_waits(&self, key: &ObjectKey) {
        self.events.settled(key);
        self.allocator.waits_no_more(key);
        let mut waiting = self.waiting.lock();
        if waiting.remove(key) {
            self.metrics.waiting(waiting.reasons());
        }
        if waiting.first_for_room(1).is_empty() {
            self.allocator.relieved();
        }
    }

    /// There is room for so many more ports: as many of those that wait for it need not wait for their next try.
    pub(super) fn wake(&self, freed: usize) {
        for key in self.waiting.lock().first_for_room(freed) {
            self.queue.add(key);
        }
    }

    /// A node has room for one more pod.
    pub(super) fn wake_on(&self, node: &str) {
        let on = |key: &ObjectKey| self.index.get(key).pod.is_some_and(|pod| pod.node.as_deref() == Some(node));
        for key in self.waiting.lock().first_on_full_node(on) {
            self.queue.add(key);
        }
    }
}

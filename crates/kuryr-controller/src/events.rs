//! Events on the user's objects: what a person must know. Repeated Events are counted by the API, not made anew.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use kuryr_model::{ObjectKey, PolicyUid, ServiceUid};
use kuryr_plan::pod::Pod;

/// Writes Events in the name of the controller.
#[derive(Clone)]
pub(crate) struct Events {
    recorder: Recorder,
}

impl Events {
    pub(crate) fn new(client: Client, identity: &str) -> Self {
        let reporter = Reporter { controller: "kuryr-controller".to_owned(), instance: Some(identity.to_owned()) };
        Self { recorder: Recorder::new(client, reporter) }
    }

    /// Warns on `pod`. An Event that cannot be written is logged and forgotten: the condition says the same.
    pub(crate) async fn warn(&self, pod: &Pod, reason: &str, note: String) {
        let about = reference("Pod", &pod.key, pod.uid.as_str());
        self.publish(about, "AllocatePorts", reason, note).await;
    }

    /// The same on a Service.
    pub(crate) async fn warn_service(&self, key: &ObjectKey, uid: &ServiceUid, reason: &str, note: String) {
        self.publish(reference("Service", key, uid.as_str()), "KeepLoadBalancer", reason, note).await;
    }

    /// The same on a NetworkPolicy.
    pub(crate) async fn warn_policy(&self, key: &ObjectKey, uid: &PolicyUid, reason: &str, note: String) {
        let about = reference("NetworkPolicy", key, uid.as_str());
        let about = ObjectReference { api_version: Some("networking.k8s.io/v1".to_owned()), ..about };
        self.publish(about, "EnforcePolicy", reason, note).await;
    }

    async fn publish(&self, about: ObjectReference, action: &str, reason: &str, note: String) {
        let event = Event {
            type_: EventType::Warning,
            reason: reason.to_owned(),
            note: Some(shorten(note)),
            action: action.to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, &about).await {
            let (kind, namespace, name) = (about.kind, about.namespace, about.name);
            tracing::debug!(kind, namespace, name, reason, error = %error, "the event was not written");
        }
    }
}

fn reference(kind: &str, key: &ObjectKey, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some(kind.to_owned()),
        namespace: Some(key.namespace.clone()),
        name: Some(key.name.clone()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    }
}

/// Kubernetes takes notes of at most 1,024 bytes.
fn shorten(mut note: String) -> String {
    const LONGEST: usize = 1024;
    if note.len() > LONGEST {
        let mut end = LONGEST - '…'.len_utf8();
        while !note.is_char_boundary(end) {
            end -= 1;
        }
        note.truncate(end);
        note.push('…');
    }
    note
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_cut_to_what_kubernetes_takes() {
        assert_eq!(shorten("short".into()), "short");
        let cut = shorten("ü".repeat(1000));
        assert!(cut.len() <= 1024 && cut.ends_with('…'));
    }
}

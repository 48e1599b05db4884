//! Events on pods whose network cannot be made. Their reasons are all here.

use crate::plug::error::chain;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use kuryr_model::{ObjectKey, PodUid};
use tokio::sync::mpsc;

/// The longest note that the API server takes, in bytes.
const MAX_NOTE: usize = 1000;
/// Events that wait to be written; what comes on top is lost, kubelet reports the failed sandbox anyway.
const BACKLOG: usize = 256;

/// Why an Event is written, as `kubectl describe pod` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The pod's sandbox waits for a port that does not come. The note has the controller's reason: see the pod's `KuryrPort`.
    PortNotReady,
    /// The port is there, but the node cannot plug it. The note has the kernel's or Open vSwitch's reason: see the
    /// daemon's log on that node.
    PlugFailed,
}

impl Reason {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PortNotReady => "PortNotReady",
            Self::PlugFailed => "PlugFailed",
        }
    }
}

/// An Event to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodEvent {
    /// The pod.
    pub pod: ObjectKey,
    /// Its UID, if the runtime has said it.
    pub uid: Option<PodUid>,
    /// Why.
    pub reason: Reason,
    /// In words.
    pub note: String,
}

/// Where Events are handed in; writing them holds nothing up.
#[derive(Clone, Debug)]
pub struct Events(mpsc::Sender<PodEvent>);

impl Events {
    /// The two ends: for who has something to say, and for [`keep`].
    #[must_use]
    pub fn channel() -> (Self, mpsc::Receiver<PodEvent>) {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        (Self(sender), receiver)
    }

    /// Hands in an Event.
    pub fn publish(&self, event: PodEvent) {
        if self.0.try_send(event).is_err() {
            tracing::debug!("too many Events wait for the API server, one is dropped");
        }
    }
}

/// Writes Events until their senders are gone. Equal ones are counted up, not repeated.
pub async fn keep(client: Client, node_name: &str, mut events: mpsc::Receiver<PodEvent>) {
    let reporter = Reporter { controller: "kuryr-daemon".to_owned(), instance: Some(node_name.to_owned()) };
    let recorder = Recorder::new(client, reporter);
    while let Some(event) = events.recv().await {
        let pod = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(event.pod.namespace.clone()),
            name: Some(event.pod.name.clone()),
            uid: event.uid.as_ref().map(ToString::to_string),
            ..ObjectReference::default()
        };
        let written = Event {
            type_: EventType::Warning,
            reason: event.reason.as_str().to_owned(),
            note: Some(truncate(event.note)),
            action: "AddSandbox".to_owned(),
            secondary: None,
        };
        if let Err(error) = recorder.publish(&written, &pod).await {
            tracing::warn!(pod = %event.pod, reason = event.reason.as_str(), error = chain(&error), "cannot write an Event");
        }
    }
}

fn truncate(mut note: String) -> String {
    if note.len() > MAX_NOTE {
        note.truncate(note.floor_char_boundary(MAX_NOTE));
    }
    note
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_cut_between_characters() {
        assert_eq!(truncate("ü".repeat(600)).len(), MAX_NOTE);
        assert_eq!(truncate("x".repeat(3) + &"ü".repeat(600)).len(), MAX_NOTE - 1);
        assert_eq!(truncate("short".into()), "short");
    }

    #[test]
    fn a_full_backlog_holds_nothing_up() {
        let (events, receiver) = Events::channel();
        let event =
            PodEvent { pod: ObjectKey::new("a", "b"), uid: None, reason: Reason::PlugFailed, note: String::new() };
        for _ in 0..=BACKLOG {
            events.publish(event.clone());
        }
        assert_eq!(receiver.len(), BACKLOG);
    }
}

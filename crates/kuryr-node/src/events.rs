//! Events on pods whose network cannot be made, and on the node. Their reasons are all here.

use crate::plug::error::chain;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event as Written, EventType, Recorder, Reporter},
};
use kuryr_model::{ObjectKey, PodUid, note::shorten};
use tokio::sync::mpsc;

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
    /// On the Node: traffic to node ports and external addresses of Services is not translated there as it should be, or
    /// not forwarded. The note says why.
    NodePortsFailed,
}

impl Reason {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PortNotReady => "PortNotReady",
            Self::PlugFailed => "PlugFailed",
            Self::NodePortsFailed => "NodePortsFailed",
        }
    }
}

/// An Event to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What it is about.
    pub about: About,
    /// Why.
    pub reason: Reason,
    /// In words.
    pub note: String,
}

/// What an Event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    /// A pod, with its UID if the runtime has said it.
    Pod(ObjectKey, Option<PodUid>),
    /// The node that this is.
    Node,
}

/// Where Events are handed in; writing them holds nothing up.
#[derive(Clone, Debug)]
pub struct Events(mpsc::Sender<Event>);

impl Events {
    /// The two ends: for who has something to say, and for [`keep`].
    #[must_use]
    pub fn channel() -> (Self, mpsc::Receiver<Event>) {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        (Self(sender), receiver)
    }

    /// Hands in an Event.
    pub fn publish(&self, event: Event) {
        if self.0.try_send(event).is_err() {
            tracing::debug!("too many Events wait for the API server, one is dropped");
        }
    }
}

/// Writes Events until their senders are gone. Equal ones are counted up, not repeated.
pub async fn keep(client: Client, node_name: &str, mut events: mpsc::Receiver<Event>) {
    let reporter = Reporter { controller: "kuryr-daemon".to_owned(), instance: Some(node_name.to_owned()) };
    let recorder = Recorder::new(client, reporter);
    while let Some(event) = events.recv().await {
        let Event { about, reason, note } = event;
        let about = about.reference(node_name);
        let reason = reason.as_str();
        let written = Written {
            type_: EventType::Warning,
            reason: reason.to_owned(),
            note: Some(shorten(note)),
            action: if about.kind.as_deref() == Some("Pod") { "AddSandbox" } else { "KeepNodePorts" }.to_owned(),
            secondary: None,
        };
        if let Err(error) = recorder.publish(&written, &about).await {
            let (namespace, name) = (about.namespace.as_deref(), about.name.as_deref());
            tracing::warn!(namespace, name, reason, error = chain(&error), "cannot write an Event");
        }
    }
}

impl About {
    fn reference(self, node_name: &str) -> ObjectReference {
        let (kind, namespace, name, uid) = match self {
            Self::Pod(key, uid) => ("Pod", Some(key.namespace), key.name, uid.map(|uid| uid.to_string())),
            // kubelet writes the node's name as its UID, too, and that is how Events on nodes are looked for.
            Self::Node => ("Node", None, node_name.to_owned(), Some(node_name.to_owned())),
        };
        ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some(kind.to_owned()),
            namespace,
            name: Some(name),
            uid,
            ..ObjectReference::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_backlog_holds_nothing_up() {
        let (events, receiver) = Events::channel();
        let about = About::Pod(ObjectKey::new("a", "b"), None);
        let event = Event { about, reason: Reason::PlugFailed, note: String::new() };
        for _ in 0..=BACKLOG {
            events.publish(event.clone());
        }
        assert_eq!(receiver.len(), BACKLOG);
    }
}

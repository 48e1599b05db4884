//! Events on the objects of users: what a person must know.
//!
//! ```text
//!  reconciler ─warn(pod, reason, note)─▶ Waits ─still waiting after 5 s, and something new─▶ run ─▶ API server
//!             ─settled(pod)────────────▶   │
//!             ─warn_service, ...───────────┴─at once──────────────────────────────────────▶
//! ```
//!
//! Invariants: nothing here holds a reconciler up. What waits for a moment only, as a pod of a StatefulSet does for its
//! predecessor, is no news. Of one wait, an Event is written when its text changes, and again after half an hour, because
//! the API server forgets Events after an hour. Events of equal text are one that is counted.

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        core::v1::ObjectReference,
        events::v1::{Event, EventSeries},
    },
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use kuryr_model::{GROUP, ObjectKey, PolicyUid, ServiceUid, note::shorten};
use kuryr_plan::pod::Pod;
use parking_lot::Mutex;
use serde_json::json;
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// How long a pod waits before that is worth an Event.
const PATIENCE: Duration = Duration::from_secs(5);
/// After this long, the same is said again of what still waits.
const REPEAT: Duration = Duration::from_secs(30 * 60);
/// Time until the next try of an Event on a pod that could not be written.
const RETRY: Duration = Duration::from_secs(30);
/// For how long equal Events are counted up in place of being written anew, as client-go does.
const SERIES: Duration = Duration::from_secs(6 * 60);
/// The longest part of an Event's name that is its object's: a name has 253 characters at most.
const NAME: usize = 200;

/// What is said beside the reasons of failures ([`crate::error`]). Each is explained in docs/operating.md.
pub(crate) mod reasons {
    /// On a `KuryrPort`: nobody can make sense of it.
    pub(crate) const KURYR_PORT_UNREADABLE: &str = "KuryrPortUnreadable";
    /// On a Node: its annotation cannot be the name of a host.
    pub(crate) const HOST_IGNORED: &str = "HostIgnored";
}

/// What an Event is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct About {
    kind: &'static str,
    /// None: the object has none.
    namespace: Option<String>,
    name: String,
    uid: String,
}

impl About {
    fn namespaced(kind: &'static str, key: &ObjectKey, uid: &str) -> Self {
        Self { kind, namespace: Some(key.namespace.clone()), name: key.name.clone(), uid: uid.to_owned() }
    }

    fn reference(&self) -> ObjectReference {
        let api_version = match self.kind {
            "NetworkPolicy" => "networking.k8s.io/v1".to_owned(),
            kind if kind.starts_with("Kuryr") => format!("{GROUP}/v1"),
            _ => "v1".to_owned(),
        };
        ObjectReference {
            api_version: Some(api_version),
            kind: Some(self.kind.to_owned()),
            namespace: self.namespace.clone(),
            name: Some(self.name.clone()),
            uid: Some(self.uid.clone()),
            ..ObjectReference::default()
        }
    }

    /// What was being done.
    fn action(&self) -> &'static str {
        match self.kind {
            "Pod" => "AllocatePorts",
            "Service" => "KeepLoadBalancer",
            "NetworkPolicy" => "EnforcePolicy",
            "Node" => "ReadNode",
            _ => "ReadObject",
        }
    }
}

/// One Event. Two that are equal are one that happened twice.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Said {
    about: About,
    reason: String,
    note: String,
}

/// Pods that wait, and what is to be said at once.
#[derive(Debug, Default)]
struct Waits {
    pods: HashMap<ObjectKey, Wait>,
    news: VecDeque<Said>,
}

#[derive(Debug)]
struct Wait {
    since: Instant,
    /// Why it waits now.
    why: Said,
    /// What was said last, and when.
    said: Option<(Said, Instant)>,
}

impl Wait {
    /// When there is something to be said of it.
    fn due(&self) -> Instant {
        match &self.said {
            Some((said, at)) if *said == self.why => *at + REPEAT,
            _ => self.since + PATIENCE,
        }
    }
}

impl Waits {
    /// The pod `key` waits, and why.
    fn waits(&mut self, key: &ObjectKey, why: Said, now: Instant) {
        match self.pods.get_mut(key).filter(|wait| wait.why.about == why.about) {
            Some(wait) => wait.why = why,
            None => drop(self.pods.insert(key.clone(), Wait { since: now, why, said: None })),
        }
    }

    /// Takes what is to be said by `now`.
    fn take(&mut self, now: Instant) -> Vec<Said> {
        let mut all: Vec<Said> = self.news.drain(..).collect();
        for wait in self.pods.values_mut().filter(|wait| wait.due() <= now) {
            wait.said = Some((wait.why.clone(), now));
            all.push(wait.why.clone());
        }
        all
    }

    /// When there is something to be said next.
    fn next(&self, now: Instant) -> Option<Instant> {
        if !self.news.is_empty() {
            return Some(now);
        }
        self.pods.values().map(Wait::due).min()
    }

    /// It could not be said: it is tried again after a while, if its pod still waits then.
    fn unsaid(&mut self, said: &Said, now: Instant) {
        for wait in self.pods.values_mut().filter(|wait| wait.said.as_ref().is_some_and(|(last, _)| last == said)) {
            (wait.said, wait.since) = (None, now + RETRY);
        }
    }
}

/// Writes Events in the name of the controller.
#[derive(Clone)]
pub(crate) struct Events(Arc<Inner>);

struct Inner {
    client: Client,
    identity: String,
    waits: Mutex<Waits>,
    /// Those that were written lately, to be counted up.
    written: Mutex<HashMap<Said, Event>>,
    changed: Notify,
}

impl Events {
    /// Somebody has to [run](Self::run) it.
    pub(crate) fn new(client: Client, identity: &str) -> Self {
        let (waits, written, changed) = Default::default();
        Self(Arc::new(Inner { client, identity: identity.to_owned(), waits, written, changed }))
    }

    /// Warns on `pod` if it still waits for this reason, or another, when it has waited for a while.
    pub(crate) fn warn(&self, pod: &Pod, reason: &str, note: String) {
        let about = About::namespaced("Pod", &pod.key, pod.uid.as_str());
        let why = Said { about, reason: reason.to_owned(), note: shorten(note) };
        self.0.waits.lock().waits(&pod.key, why, Instant::now());
        self.0.changed.notify_one();
    }

    /// The pod of this name does not wait any more.
    pub(crate) fn settled(&self, pod: &ObjectKey) {
        self.0.waits.lock().pods.remove(pod);
    }

    /// Warns on a Service, at once. For what is news only.
    pub(crate) fn warn_service(&self, key: &ObjectKey, uid: &ServiceUid, reason: &str, note: String) {
        self.news(About::namespaced("Service", key, uid.as_str()), reason, note);
    }

    /// Warns on a NetworkPolicy, at once. For what is news only.
    pub(crate) fn warn_policy(&self, key: &ObjectKey, uid: &PolicyUid, reason: &str, note: String) {
        self.news(About::namespaced("NetworkPolicy", key, uid.as_str()), reason, note);
    }

    /// Warns on a `KuryrPort`, at once. For what is news only.
    pub(crate) fn warn_kuryr_port(&self, key: &ObjectKey, uid: &str, reason: &str, note: String) {
        self.news(About::namespaced("KuryrPort", key, uid), reason, note);
    }

    /// Warns on a Node, at once. For what is news only.
    pub(crate) fn warn_node(&self, name: &str, reason: &str, note: String) {
        // kubelet writes the node's name as its UID, too, and that is how Events on nodes are looked for.
        let about = About { kind: "Node", namespace: None, name: name.to_owned(), uid: name.to_owned() };
        self.news(about, reason, note);
    }

    fn news(&self, about: About, reason: &str, note: String) {
        let said = Said { about, reason: reason.to_owned(), note: shorten(note) };
        self.0.waits.lock().news.push_back(said);
        self.0.changed.notify_one();
    }

    /// Writes what is to be said, for ever. What cannot be written is logged: the condition says the same.
    pub(crate) async fn run(self) {
        loop {
            let next = self.0.waits.lock().next(Instant::now());
            let due = async {
                match next {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                () = self.0.changed.notified() => {}
            }
            let all = self.0.waits.lock().take(Instant::now());
            for said in all {
                if let Err(error) = self.write(&said).await {
                    let About { kind, namespace, name, .. } = &said.about;
                    let reason = &said.reason;
                    tracing::debug!(kind, namespace, name, reason, error = %error, "the event was not written");
                    self.0.waits.lock().unsaid(&said, Instant::now());
                }
            }
        }
    }

    async fn write(&self, said: &Said) -> Result<(), kube::Error> {
        let now = Timestamp::now();
        let before = {
            let mut written = self.0.written.lock();
            written.retain(|_, event| last_seen(event).is_some_and(|seen| is_recent(seen, now)));
            written.get(said).cloned()
        };
        // Events on what has no namespace are in `default`.
        let namespace = said.about.namespace.as_deref().unwrap_or("default");
        let api = Api::<Event>::namespaced(self.0.client.clone(), namespace);
        let event = match before {
            Some(mut event) => {
                let count = event.series.as_ref().map_or(2, |series| series.count.saturating_add(1));
                event.series = Some(EventSeries { count, last_observed_time: MicroTime(now) });
                let patch = Patch::Merge(json!({"series": event.series}));
                api.patch(&event.name_any(), &PatchParams::default(), &patch).await?;
                event
            }
            None => api.create(&PostParams::default(), &self.event(said, now)).await?,
        };
        self.0.written.lock().insert(said.clone(), event);
        Ok(())
    }

    fn event(&self, said: &Said, now: Timestamp) -> Event {
        let about = &said.about;
        let object = about.name[..about.name.floor_char_boundary(NAME)].trim_end_matches(['-', '.']);
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{object}.{:x}", now.as_nanosecond())),
                namespace: Some(about.namespace.clone().unwrap_or_else(|| "default".to_owned())),
                ..ObjectMeta::default()
            },
            action: Some(about.action().to_owned()),
            event_time: Some(MicroTime(now)),
            note: Some(said.note.clone()),
            reason: Some(said.reason.clone()),
            regarding: Some(about.reference()),
            reporting_controller: Some("kuryr-controller".to_owned()),
            reporting_instance: Some(self.0.identity.clone()),
            type_: Some("Warning".to_owned()),
            ..Event::default()
        }
    }
}

fn last_seen(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref().map(|series| series.last_observed_time.0);
    series.or(event.event_time.as_ref().map(|time| time.0))
}

fn is_recent(seen: Timestamp, now: Timestamp) -> bool {
    now.duration_since(seen).unsigned_abs() < SERIES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Answer, api_server};
    use proptest::prelude::*;

    fn pod(name: &str) -> Pod {
        Pod {
            key: ObjectKey::new("a", name),
            uid: format!("uid-{name}").into(),
            node: Some("n".into()),
            host_network: false,
            completed: false,
            deleting: false,
        }
    }

    fn why(pod: &Pod, note: &str) -> Said {
        let about = About::namespaced("Pod", &pod.key, pod.uid.as_str());
        Said { about, reason: "QuotaExceeded".into(), note: note.into() }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_wait_is_news_after_a_while_when_it_changes_and_now_and_then() {
        let (mut waits, start, web) = (Waits::default(), Instant::now(), pod("web"));
        let mut at = |time: u64, note: &str| {
            waits.waits(&web.key, why(&web, note), start + seconds(time));
            waits.take(start + seconds(time)).into_iter().map(|said| said.note).collect::<Vec<_>>()
        };
        assert_eq!(at(0, "first"), [""; 0]);
        assert_eq!(at(4, "second"), [""; 0], "it has not waited for long");
        assert_eq!(at(5, "second"), ["second"], "what it waits for now");
        assert_eq!(at(35, "second"), [""; 0], "told already");
        assert_eq!(at(36, "third"), ["third"]);
        assert_eq!(at(37, "second"), ["second"], "back to what was said before");
        assert_eq!(at(37 + 1799, "second"), [""; 0]);
        assert_eq!(at(37 + 1800, "second"), ["second"], "the API server has nearly forgotten it");
    }

    #[test]
    fn what_no_longer_waits_is_not_told_and_another_pod_of_its_name_begins_anew() {
        let (mut waits, start, web) = (Waits::default(), Instant::now(), pod("web"));
        waits.waits(&web.key, why(&web, "old"), start);
        let mut other = web.clone();
        other.uid = "another".into();
        waits.waits(&web.key, why(&other, "new"), start + seconds(4));
        assert_eq!(waits.take(start + seconds(5)), []);
        assert_eq!(waits.take(start + seconds(9)), [why(&other, "new")]);
        waits.waits(&web.key, why(&other, "newer"), start + seconds(10));
        waits.pods.remove(&web.key);
        assert_eq!((waits.take(start + seconds(99)), waits.next(start)), (vec![], None));
    }

    #[test]
    fn what_could_not_be_told_is_tried_again() {
        let (mut waits, start, web) = (Waits::default(), Instant::now(), pod("web"));
        waits.waits(&web.key, why(&web, "x"), start);
        let said = waits.take(start + seconds(5)).remove(0);
        waits.unsaid(&said, start + seconds(6));
        assert_eq!(waits.take(start + seconds(7)), []);
        assert_eq!(waits.take(start + seconds(60)), [said]);
    }

    proptest! {
        /// Whoever wakes up exactly when it is due says everything in time, and nothing twice in a row.
        #[test]
        fn nothing_is_late_and_nothing_is_said_twice(hears in prop::collection::vec((0u64..20, 0u8..3, 0u8..3), 1..40)) {
            let (mut waits, mut now) = (Waits::default(), Instant::now());
            let mut last: HashMap<About, (String, Instant)> = HashMap::new();
            for (after, who, what) in hears {
                let heard = now + seconds(after);
                while let Some(at) = waits.next(now).filter(|at| *at <= heard) {
                    now = now.max(at);
                    let said = waits.take(now);
                    prop_assert!(!said.is_empty(), "woken for nothing");
                    for Said { about, note, .. } in said {
                        let before = last.insert(about, (note.clone(), now));
                        prop_assert!(before.is_none_or(|(old, at)| old != note || now - at >= REPEAT));
                    }
                }
                now = heard;
                let pod = pod(&who.to_string());
                waits.waits(&pod.key, why(&pod, &what.to_string()), now);
            }
            waits.take(now + PATIENCE);
            prop_assert!(waits.pods.values().all(|wait| wait.said.as_ref().is_some_and(|(said, _)| *said == wait.why)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_names_its_object_and_the_next_of_the_same_text_is_counted() {
        let (client, mut requests) = api_server(|request| Answer::ok(request.body.clone()));
        let events = Events::new(client, "controller-1");
        let running = tokio::spawn(events.clone().run());
        let key = ObjectKey::new("a", "web");
        events.warn_kuryr_port(&key, "u", reasons::KURYR_PORT_UNREADABLE, "ü".repeat(1000));
        let first = requests.recv().await.unwrap();
        assert_eq!((&*first.method, &*first.path), ("POST", "/apis/events.k8s.io/v1/namespaces/a/events"));
        let regarding = json!({
            "apiVersion": "kuryr.openstack.org/v1", "kind": "KuryrPort", "namespace": "a", "name": "web", "uid": "u",
        });
        assert_eq!(first.body["regarding"], regarding);
        assert!(first.body["note"].as_str().unwrap().len() <= 1024);
        events.warn_kuryr_port(&key, "u", reasons::KURYR_PORT_UNREADABLE, "ü".repeat(1000));
        let second = requests.recv().await.unwrap();
        let name = first.body["metadata"]["name"].as_str().unwrap();
        assert_eq!((&*second.method, second.path.rsplit('/').next()), ("PATCH", Some(name)));
        assert_eq!(second.body["series"]["count"], 2);
        // Another text is another Event, and one on a Node is in the namespace `default`.
        events.warn_node("node0", reasons::HOST_IGNORED, "blank".into());
        let third = requests.recv().await.unwrap();
        assert_eq!((&*third.method, &*third.path), ("POST", "/apis/events.k8s.io/v1/namespaces/default/events"));
        running.abort();
    }
}

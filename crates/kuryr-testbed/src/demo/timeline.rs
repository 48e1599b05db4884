//! When each step of a pod's start happened, seen from outside Kuryr: by watching Kubernetes and the cloud.

use crate::{
    cloud::{Cloud, PortStatus, PortView},
    kubernetes::PodTiming,
    world::World,
};
use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    runtime::{WatchStreamExt as _, watcher},
};
use kuryr_model::{KuryrPort, Purpose};
use serde::de::DeserializeOwned;
use std::{collections::BTreeMap, fmt::Debug};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// The moments of one pod's start, as far as they have come.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Moments {
    pub(super) name: String,
    pub(super) node: String,
    /// The API server had the pod.
    pub(super) created: Option<Timestamp>,
    /// The scheduler had bound it: now it is Kuryr's business.
    pub(super) scheduled: Option<Timestamp>,
    /// Neutron had made its port.
    pub(super) port: Option<Timestamp>,
    /// The data plane had the port.
    pub(super) active: Option<Timestamp>,
    /// Its `KuryrPort` was written.
    pub(super) recorded: Option<Timestamp>,
    /// It was reported Running.
    pub(super) running: Option<Timestamp>,
}

/// What was seen of each pod, by its UID.
type Pods = BTreeMap<String, Moments>;

/// Looks on while pods start.
pub(super) struct Timeline {
    pods: watch::Sender<Pods>,
    _watches: [AbortOnDropHandle<()>; 3],
}

/// Notes a moment, the first time that it comes.
fn note(moment: &mut Option<Timestamp>, has_come: bool) {
    if has_come && moment.is_none() {
        *moment = Some(Timestamp::now());
    }
}

impl Timeline {
    /// Looks on from now, at the world's namespace.
    pub(super) fn start(world: &World) -> anyhow::Result<Self> {
        let pods = watch::Sender::new(Pods::default());
        let watches = [
            spawn_watch(world.pods().api().clone(), &pods, see_pod),
            spawn_watch(world.pods().ports().clone(), &pods, see_kuryr_port),
            AbortOnDropHandle::new(tokio::spawn(watch_cloud(world.inside()?.cloud.clone(), pods.clone()))),
        ];
        Ok(Self { pods, _watches: watches })
    }

    /// What was seen of a pod, by its UID, once it has come to run.
    pub(super) async fn of(&self, uid: &str) -> Moments {
        let mut pods = self.pods.subscribe();
        let ran = |pods: &Pods| pods.get(uid).is_some_and(|pod| pod.running.is_some() && pod.active.is_some());
        // The sender lives as long as this does.
        pods.wait_for(ran).await.ok().and_then(|pods| pods.get(uid).cloned()).unwrap_or_default()
    }

    /// How many pods whose name begins so have come to run.
    pub(super) fn running(&self, prefix: &str) -> usize {
        self.pods.borrow().values().filter(|pod| pod.name.starts_with(prefix) && pod.running.is_some()).count()
    }
}

fn spawn_watch<K>(api: Api<K>, pods: &watch::Sender<Pods>, see: fn(&mut Pods, &K)) -> AbortOnDropHandle<()>
where
    K: kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let pods = pods.clone();
    AbortOnDropHandle::new(tokio::spawn(async move {
        let changes = watcher(api, watcher::Config::default()).default_backoff().applied_objects();
        let mut changes = std::pin::pin!(changes);
        while let Some(change) = changes.next().await {
            if let Ok(object) = change {
                pods.send_modify(|pods| see(pods, &object));
            }
        }
    }))
}

fn see_pod(pods: &mut Pods, pod: &Pod) {
    let Some(uid) = pod.uid() else { return };
    let moments = pods.entry(uid).or_default();
    moments.name = pod.name_any();
    note(&mut moments.created, true);
    if let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()) {
        moments.node = node;
        note(&mut moments.scheduled, true);
    }
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    note(&mut moments.running, phase == Some("Running"));
}

fn see_kuryr_port(pods: &mut Pods, port: &KuryrPort) {
    note(&mut pods.entry(port.spec.pod_uid.0.clone()).or_default().recorded, !port.spec.vifs.is_empty());
}

async fn watch_cloud(cloud: Cloud, pods: watch::Sender<Pods>) {
    let mut changes = cloud.subscribe();
    while changes.changed().await.is_ok() {
        pods.send_modify(|pods| cloud.ports().iter().for_each(|port| see_port(pods, port)));
    }
}

fn see_port(pods: &mut Pods, port: &PortView) {
    let uid = port.tags.iter().find_map(|tag| match tag.parse() {
        Ok(Purpose::Pod(uid)) => Some(uid.0),
        _ => None,
    });
    let Some(uid) = uid else { return };
    let moments = pods.entry(uid).or_default();
    note(&mut moments.port, true);
    note(&mut moments.active, port.status == PortStatus::Active);
}

/// The durations between the moments, in the order in which they come; what has not come is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Steps {
    /// Since the pod was created, in milliseconds.
    pub(super) scheduled: Option<i128>,
    pub(super) called: Option<i128>,
    pub(super) port: Option<i128>,
    pub(super) recorded: Option<i128>,
    pub(super) plugged: Option<i128>,
    pub(super) running: Option<i128>,
    /// How long the ADD waited for the `KuryrPort`, in milliseconds.
    pub(super) waited: Option<i128>,
    /// How long it then took to plug, in milliseconds.
    pub(super) plug: Option<i128>,
}

/// Joins what was seen from outside with the kubelet's own clock.
pub(super) fn steps(moments: &Moments, kubelet: Option<&PodTiming>) -> Steps {
    let Some(created) = moments.created else { return Steps::default() };
    let since = |moment: Option<Timestamp>| Some(moment?.duration_since(created).as_millis());
    let called = kubelet.and_then(|timing| timing.seen.checked_add(timing.netns).ok());
    let plugged = kubelet.zip(called).and_then(|(timing, called)| called.checked_add(timing.cni_add).ok());
    let (recorded, called, plugged) = (since(moments.recorded), since(called), since(plugged));
    let waited = recorded.zip(called).map(|(recorded, called)| (recorded - called).max(0));
    let plug = plugged.zip(called).zip(waited).map(|((plugged, called), waited)| (plugged - called - waited).max(0));
    Steps {
        scheduled: since(moments.scheduled),
        called,
        port: since(moments.port),
        recorded,
        plugged,
        running: since(moments.running),
        waited,
        plug,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_add_waits_until_the_kuryr_port_is_there_and_then_plugs() {
        let at = |ms: i64| Some(Timestamp::from_millisecond(1_000_000 + ms).unwrap());
        let moments =
            Moments { created: at(0), scheduled: at(2), port: at(300), recorded: at(310), ..Moments::default() };
        let timing = PodTiming {
            namespace: "demo".into(),
            name: "one".into(),
            seen: at(4).unwrap(),
            netns: Duration::from_millis(6),
            cni_add: Duration::from_millis(315),
            running: Duration::ZERO,
            total: Duration::ZERO,
            attempts: 1,
        };
        let steps = steps(&moments, Some(&timing));
        assert_eq!((steps.called, steps.waited, steps.plug), (Some(10), Some(300), Some(15)));
        assert_eq!((steps.plugged, steps.running), (Some(325), None));
    }

    #[test]
    fn an_add_that_finds_its_kuryr_port_does_not_wait() {
        let at = |ms: i64| Some(Timestamp::from_millisecond(ms).unwrap());
        let moments = Moments { created: at(0), recorded: at(5), ..Moments::default() };
        let timing = PodTiming {
            namespace: "demo".into(),
            name: "one".into(),
            seen: at(20).unwrap(),
            netns: Duration::ZERO,
            cni_add: Duration::from_millis(9),
            running: Duration::ZERO,
            total: Duration::ZERO,
            attempts: 1,
        };
        assert_eq!(steps(&moments, Some(&timing)).waited, Some(0));
        assert_eq!(steps(&moments, Some(&timing)).plug, Some(9));
    }
}

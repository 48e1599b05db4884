//! Whether a pod is still wanted: asked of the API server only while the pod's ADD waits unusually long.
//!
//! A pod that is deleted once it has a `KuryrPort` is told by that. One that is deleted before, as while there is no
//! controller, leaves an ADD that waits for what will never come; and not every runtime ends the ADD itself.

use crate::{cni::args::PodRef, plug::error::chain};
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};
use kuryr_model::PodUid;
use std::{future::pending, pin::pin, time::Duration};

/// How long an ADD waits before its pod is looked for: longer than it takes Neutron to make a port.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why a pod needs no network any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Loss {
    /// There is no such pod.
    #[error("was deleted while it waited for its port")]
    Gone,
    /// It is being deleted, and has no port: it will get none.
    #[error("is being deleted and has no port")]
    Deleting,
    /// Another pod has its name.
    #[error("was deleted while it waited for its port, and another pod has its name")]
    Replaced,
}

/// Waits until `pod` needs no network any more, and says why. Does not ask in the first two seconds; after that watches
/// this one pod. Pending for ever if the daemon may not.
pub async fn lost(client: &Client, pod: &PodRef) -> Loss {
    tokio::time::sleep(PATIENCE).await;
    let api = Api::<PartialObjectMeta<Pod>>::namespaced(client.clone(), &pod.key.namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={}", pod.key.name));
    let mut events = pin!(watcher::watcher(api, config).default_backoff());
    let mut sight = Sight { pod, seen: false };
    loop {
        match events.try_next().await {
            Ok(Some(event)) => {
                if let Some(loss) = sight.take_in(&event) {
                    return loss;
                }
            }
            Ok(None) => return pending().await,
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(pod = %pod.key, error, "cannot see whether a pod that waits for its port is still there");
            }
        }
    }
}

/// What a watch of one name has told of the pod.
struct Sight<'a> {
    pod: &'a PodRef,
    seen: bool,
}

impl Sight<'_> {
    fn take_in(&mut self, event: &Event<PartialObjectMeta<Pod>>) -> Option<Loss> {
        match event {
            Event::Init => {
                self.seen = false;
                None
            }
            Event::InitApply(found) | Event::Apply(found) => {
                self.seen = true;
                let uid = found.metadata.uid.as_deref().map(PodUid::from);
                if !uid.is_some_and(|uid| self.pod.is(&uid)) {
                    Some(Loss::Replaced)
                } else if found.metadata.deletion_timestamp.is_some() {
                    Some(Loss::Deleting)
                } else {
                    None
                }
            }
            Event::InitDone if self.seen => None,
            Event::InitDone | Event::Delete(_) => Some(Loss::Gone),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, pods_api, uid};
    use futures::FutureExt;
    use serde_json::json;

    fn found(n: u64) -> PartialObjectMeta<Pod> {
        serde_json::from_value(json!({ "metadata": { "name": "web-1", "uid": uid(n) } })).unwrap()
    }

    fn deleting(n: u64) -> PartialObjectMeta<Pod> {
        let mut found = found(n);
        testing::mark_deleted(&mut found.metadata);
        found
    }

    #[test]
    fn what_a_watch_tells_decides_whether_the_pod_is_lost() {
        use Event::{Apply, Delete, Init, InitApply, InitDone};
        let stories = [
            (vec![Init, InitDone], Some(Loss::Gone)),
            (vec![Init, InitApply(found(1)), InitDone], None),
            (vec![Init, InitApply(found(2))], Some(Loss::Replaced)),
            (vec![Init, InitApply(deleting(1))], Some(Loss::Deleting)),
            (vec![Init, InitApply(found(1)), InitDone, Apply(found(1))], None),
            (vec![Init, InitApply(found(1)), InitDone, Apply(deleting(1))], Some(Loss::Deleting)),
            (vec![Init, InitApply(found(1)), InitDone, Delete(found(1))], Some(Loss::Gone)),
            // The watch broke and began anew: what happened meanwhile is seen in the new list.
            (vec![Init, InitApply(found(1)), InitDone, Init, InitDone], Some(Loss::Gone)),
            (vec![Init, InitApply(found(1)), InitDone, Init, InitApply(found(2))], Some(Loss::Replaced)),
        ];
        for (events, loss) in stories {
            let pod = testing::pod("web-1", 1);
            let mut sight = Sight { pod: &pod, seen: false };
            let (last, before) = events.split_last().unwrap();
            assert!(before.iter().all(|event| sight.take_in(event).is_none()), "{events:?}");
            assert_eq!(sight.take_in(last), loss, "{events:?}");
        }
    }

    #[test]
    fn a_pod_of_which_the_runtime_says_no_uid_is_known_by_its_name() {
        let pod = PodRef { uid: None, ..testing::pod("web-1", 1) };
        let mut sight = Sight { pod: &pod, seen: false };
        assert_eq!(sight.take_in(&Event::InitApply(found(7))), None);
        assert_eq!(sight.take_in(&Event::Delete(found(7))), Some(Loss::Gone));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_asked_about_a_pod_that_does_not_wait_long() {
        let (client, asked) = pods_api(vec![]);
        let pod = testing::pod("web-1", 1);
        let mut lost = pin!(lost(&client, &pod));
        assert!(lost.as_mut().now_or_never().is_none());
        tokio::time::advance(PATIENCE - Duration::from_millis(1)).await;
        assert!(lost.as_mut().now_or_never().is_none());
        assert_eq!(asked.lock().unwrap().len(), 0);
        assert_eq!(lost.await, Loss::Gone);
        let asked = asked.lock().unwrap();
        assert!(asked[0].starts_with("/api/v1/namespaces/shop/pods?"), "{asked:?}");
        assert!(asked[0].contains("fieldSelector=metadata.name%3Dweb-1"), "{asked:?}");
    }
}

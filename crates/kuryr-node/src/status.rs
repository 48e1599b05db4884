//! Writes what has become of a pod's ports into `status.attachment` of their `KuryrPort`: the node's half of the handshake
//! that [`kuryr_model::kuryr_port`] describes.
//!
//! A worker gets a key, looks at what is, and writes if the API server has it otherwise: the same for every change,
//! after an error and after a restart. The write names the resource version that was looked at, so that it cannot land
//! on another `KuryrPort` of the same name; when it is refused for that, the watch is about to bring the newer one.

use crate::{
    attachments::Attachments,
    node::{Node, Plugs},
    plug::{HostEnd, PlugError, error::chain},
    ports::Ports,
};
use futures::{StreamExt, stream::FuturesUnordered};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
};
use kuryr_model::{
    KuryrPort, ObjectKey,
    kuryr_port::{Attachment, AttachmentState},
};
use serde_json::json;
use std::{sync::Arc, time::Duration};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// How many statuses are written at a time.
const WORKERS: usize = 16;
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(15);
/// How often ports on their way out are looked at that a sandbox has: nothing tells when one is gone whose DEL was lost.
const LOOK_AGAIN: Duration = Duration::from_secs(15);

/// What should be in `status.attachment`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    state: AttachmentState,
    container_id: Option<String>,
}

/// What should be in the status of `port`, if it is not there already. `claimed`: an ADD works with it. `used`: a
/// sandbox has, or may have, its ports. `container_id`: the sandbox whose ADD has ended well.
fn wanted(port: &KuryrPort, claimed: bool, used: bool, container_id: Option<&str>) -> Option<Wanted> {
    let wanted = if port.deleting() && !claimed && !used {
        Wanted { state: AttachmentState::Released, container_id: None }
    } else {
        Wanted { state: AttachmentState::Attached, container_id: Some(container_id?.to_owned()) }
    };
    let written = port.status.as_ref().and_then(|status| status.attachment.as_ref());
    let same = |written: &Attachment| written.state == wanted.state && written.container_id == wanted.container_id;
    if written.is_some_and(same) { None } else { Some(wanted) }
}

fn look(ports: &Ports, attachments: &Attachments, key: &ObjectKey) -> Option<(Arc<KuryrPort>, Wanted)> {
    let (port, claimed) = ports.get(key)?;
    let (used, attached) = attachments.of_pod(&port.spec.pod_uid);
    let wanted = wanted(&port, claimed, used, attached.as_ref().map(|attachment| attachment.id.container_id.as_str()))?;
    Some((port, wanted))
}

/// Writes statuses until `stop`.
pub async fn keep<P: Plugs>(node: &Node<P>, client: &Client, stop: &CancellationToken) {
    let mut work = FuturesUnordered::new();
    let mut ticks = tokio::time::interval(LOOK_AGAIN);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => remind(&node.ports),
            key = node.ports.changed.take(), if work.len() < WORKERS => work.push(async move {
                settle(node, client, &key).await;
                key
            }),
            Some(key) = work.next() => node.ports.changed.done(&key),
            () = stop.cancelled() => return,
        }
    }
}

/// Has those looked at whose pods are gone and that this node still has.
fn remind(ports: &Ports) {
    for port in ports.all().iter().filter(|port| port.deleting()) {
        ports.changed.put(port.key());
    }
}

/// Unplugs what a pod that is gone has in sandboxes that are gone, too.
async fn detach_gone<P: Plugs>(node: &Node<P>, key: &ObjectKey) {
    if let Some((port, _)) = node.ports.get(key)
        && port.deleting()
    {
        node.clean_gone_of(&port.spec.pod_uid).await;
    }
}

/// Brings one status up to date, however long that takes.
async fn settle<P: Plugs>(node: &Node<P>, client: &Client, key: &ObjectKey) {
    let mut delay = FIRST_RETRY;
    detach_gone(node, key).await;
    while let Some((port, wanted)) = look(&node.ports, &node.attachments, key) {
        let (pod_uid, state) = (&port.spec.pod_uid, wanted.state);
        if state == AttachmentState::Released {
            match host_end_of(node, &port).await {
                Ok(None) => {}
                // DEL or a prune removes it, and has this looked at again.
                Ok(Some(end)) => {
                    let (name, container) = (end.name, end.owner.container_id);
                    tracing::warn!(pod = %key, uid = %pod_uid, port = %end.owner.port_id, name, container, "not releasing a port that is plugged into a sandbox of which nothing is remembered");
                    return;
                }
                Err(error) => {
                    tracing::warn!(pod = %key, uid = %pod_uid, error = chain(&error), "cannot look whether a port is still plugged, trying again");
                    tokio::time::sleep(delay).await;
                    delay = (delay * 2).min(LAST_RETRY);
                    continue;
                }
            }
        }
        match write(client, &port, &wanted).await {
            Ok(()) => {
                tracing::debug!(pod = %key, uid = %pod_uid, ?state, "wrote the KuryrPort's status");
                return;
            }
            // A newer version, or its end, is on its way to us.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => return,
            Err(kube::Error::Api(status)) if matches!(status.code, 400 | 422) => {
                tracing::error!(pod = %key, uid = %pod_uid, ?state, error = %status.message, "the API server does not take the KuryrPort's status; is its custom resource definition of this version?");
                return;
            }
            Err(error) => {
                tracing::warn!(pod = %key, uid = %pod_uid, ?state, error = chain(&error), "cannot write the KuryrPort's status, trying again");
                node.metrics.status_failures.inc();
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(LAST_RETRY);
            }
        }
    }
}

/// A host end on this node of one of the ports. What is remembered may have been lost; what is plugged says so itself.
async fn host_end_of<P: Plugs>(node: &Node<P>, port: &KuryrPort) -> Result<Option<HostEnd>, PlugError> {
    let ends = node.plugs.list().await?;
    Ok(ends.into_iter().find(|end| port.port_ids().any(|id| id == end.owner.port_id)))
}

async fn write(client: &Client, port: &KuryrPort, wanted: &Wanted) -> Result<(), kube::Error> {
    let api = Api::<KuryrPort>::namespaced(client.clone(), &port.namespace().unwrap_or_default());
    let patch = json!({
        "metadata": { "resourceVersion": port.resource_version() },
        "status": { "attachment": {
            "state": wanted.state,
            "containerId": wanted.container_id,
            "since": k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::now()),
        } },
    });
    api.patch_status(&port.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ports::Known,
        testing::{self, kuryr_port},
    };
    use futures::FutureExt;

    #[test]
    fn a_status_is_wanted_only_when_it_says_something_new() {
        let mut port = kuryr_port("web-0", 1);
        let attached = |id: &str| Some(Wanted { state: AttachmentState::Attached, container_id: Some(id.into()) });
        let released = Some(Wanted { state: AttachmentState::Released, container_id: None });
        assert_eq!(wanted(&port, false, false, None), None, "not started yet");
        assert_eq!(wanted(&port, true, true, None), None, "being started");
        assert_eq!(wanted(&port, true, true, Some("a")), attached("a"));
        testing::attached(&mut port, "a");
        assert_eq!(wanted(&port, false, true, Some("a")), None, "said already");
        assert_eq!(wanted(&port, false, true, Some("b")), attached("b"), "a new sandbox");
        assert_eq!(wanted(&port, false, false, None), None, "stopped, but its pod is still there");
        testing::delete(&mut port);
        assert_eq!(wanted(&port, false, true, None), None, "half unplugged");
        assert_eq!(wanted(&port, true, false, None), None, "an ADD is about to plug");
        assert_eq!(wanted(&port, false, true, Some("a")), None, "still plugged");
        assert_eq!(wanted(&port, false, false, None), released);
    }

    #[test]
    fn only_ports_on_their_way_out_are_looked_at_again() {
        let ports = Ports::of_node("node-1");
        for (name, deleting) in [("web-1", false), ("web-2", true)] {
            let mut port = kuryr_port(name, 1);
            if deleting {
                testing::delete(&mut port);
            }
            ports.apply(port.key(), Known::Port(port.into()));
        }
        let waiting = || std::iter::from_fn(|| ports.changed.take().now_or_never()).collect::<Vec<_>>();
        for key in waiting() {
            ports.changed.done(&key);
        }
        remind(&ports);
        assert_eq!(waiting(), [ObjectKey::new("shop", "web-2")]);
    }

    #[tokio::test]
    async fn a_deleted_pod_whose_sandbox_is_gone_without_a_del_is_unplugged() {
        let folder = tempfile::tempdir().unwrap();
        let (node, _events) = testing::node(folder.path());
        let netns = |n: u64| folder.path().join(format!("cni-{n}"));
        for n in 1..=3 {
            let mut attachment = testing::attachment(&format!("c{n}"), n);
            attachment.netns = netns(n);
            std::os::unix::fs::symlink("/proc/self/ns/net", netns(n)).unwrap();
            node.plugs.plugged.lock().unwrap().insert(testing::host_end(&format!("c{n}"), n));
            node.attachments.insert(attachment.into()).await.unwrap();
            let mut port = kuryr_port(&format!("web-{n}"), n);
            if n != 3 {
                testing::delete(&mut port);
            }
            testing::apply(&node, &port);
        }
        // The first still has its sandbox, the third its pod.
        for n in 2..=3 {
            std::fs::remove_file(netns(n)).unwrap();
        }
        for n in 1..=3 {
            detach_gone(&node, &ObjectKey::new("shop", format!("web-{n}"))).await;
        }
        assert_eq!(node.plugs.plugged(), [(1, "c1".into()), (3, "c3".into())]);
        assert_eq!(node.attachments.count(), 2);
    }
}

#[cfg(test)]
mod handshake;

//! ADD: a pod's sandbox gets the interfaces of the pod's `KuryrPort`.
//!
//! ```text
//!  locks of pod and attachment ─▶ already attached and in order? the same answer again
//!      └▶ claim the KuryrPort (waits; ends if the pod is lost) ─▶ unplug stale sandboxes ─▶ remember ─▶ plug ─▶ attached
//!         ── the runtime may hang up ──┘└───────── is finished whatever happens ─────────────┘
//! ```

use super::{busy, code, detach_error, join};
use crate::{
    attachments::Attachment,
    cni::{AttachmentId, CniError, CniVersion, Code, args::PodRef, result},
    events::{About, Event, Reason},
    locks::Held,
    node::{LockKey, Node, Plugs, sandbox},
    plug::{PlugError, PlugTimes, error::chain},
    pods::{self, Loss},
    ports::{Claim, ClaimError},
};
use kuryr_model::Vif;
use serde_json::Value;
use std::{path::PathBuf, sync::Arc};
use tokio::time::Instant;
use tracing::Instrument;

/// What is to be added.
#[derive(Clone, Debug)]
pub(super) struct Add {
    pub(super) version: CniVersion,
    pub(super) network: String,
    pub(super) id: AttachmentId,
    pub(super) netns: PathBuf,
    pub(super) pod: PodRef,
}

pub(super) async fn run<P: Plugs>(node: &Arc<Node<P>>, add: Add) -> Result<Value, CniError> {
    let started = Instant::now();
    let deadline = started + node.limits.add;
    let pod = &add.pod.key;
    let Some(pod_lock) = node.locks.lock(LockKey::Pod(pod.clone()), deadline).await else {
        return Err(busy(&format!("pod {pod}")));
    };
    let Some(lock) = node.lock(&add.id, deadline).await else { return Err(busy(&add.id.to_string())) };
    if let Some(attachment) = in_order(node, &add).await {
        tracing::info!("attached already, everything is in order");
        return Ok(result::render(add.version, &attachment.vifs, &attachment.netns));
    }
    let waits = node.metrics.waits();
    let claim = tokio::select! {
        claim = node.ports.claim(&add.pod, deadline.saturating_duration_since(Instant::now())) => claim.map_err(|error| refused(node, &add, &error))?,
        loss = pods::lost(&node.client, &add.pod) => return Err(lost(&add.pod, loss)),
        () = node.stopping.cancelled() => return Err(CniError::new(Code::TryAgain, "the kuryr daemon is being restarted")),
    };
    drop(waits);
    let waited = started.elapsed();
    node.metrics.waited(waited);
    let work = Arc::clone(node);
    let attaching = async move {
        let result = attach(&work, &add, &claim, &lock).await;
        if let Err(error) = &result {
            let note =
                if error.details.is_empty() { error.message.clone() } else { format!("{error}: {}", error.details) };
            publish(&work, &add.pod, Reason::PlugFailed, note);
        }
        let attachment = result?;
        let ports: Vec<_> = attachment.vifs.iter().map(|vif| vif.port_id).collect();
        tracing::info!(?ports, ?waited, took = ?started.elapsed(), "attached");
        drop((claim, lock, pod_lock));
        Ok(result::render(add.version, &attachment.vifs, &attachment.netns))
    };
    join(node.tasks.spawn(attaching.in_current_span())).await
}

/// The attachment that an earlier ADD of the same sandbox has made, if all of it is still there.
async fn in_order<P: Plugs>(node: &Node<P>, add: &Add) -> Option<Arc<Attachment>> {
    let attachment = node.attachments.get(&add.id)?;
    if attachment.pod() != add.pod.key || !add.pod.is(&attachment.pod_uid) || attachment.netns != add.netns {
        return None;
    }
    for vif in &attachment.vifs {
        node.plugs.check(vif, &sandbox(&attachment)).await.ok()?;
    }
    Some(attachment)
}

fn refused<P: Plugs>(node: &Node<P>, add: &Add, error: &ClaimError) -> CniError {
    match error {
        ClaimError::Deleting { .. } | ClaimError::Gone { .. } => {
            CniError::new(Code::UnknownContainer, error.to_string())
        }
        ClaimError::Timeout { .. } => {
            publish(node, &add.pod, Reason::PortNotReady, error.to_string());
            CniError::new(Code::TryAgain, error.to_string())
        }
    }
}

fn lost(pod: &PodRef, loss: Loss) -> CniError {
    CniError::new(Code::UnknownContainer, format!("pod {} {loss}", pod.key))
}

fn publish<P>(node: &Node<P>, pod: &PodRef, reason: Reason, note: String) {
    let about = About::Pod(pod.key.clone(), pod.uid.clone());
    node.events.publish(Event { about, reason, note });
}

/// From the claimed `KuryrPort` to an attachment that is plugged.
async fn attach<P: Plugs>(
    node: &Node<P>,
    add: &Add,
    claim: &Claim,
    lock: &Held<LockKey>,
) -> Result<Arc<Attachment>, CniError> {
    let port = &claim.port;
    let attachment = Arc::new(Attachment {
        id: add.id.clone(),
        network: add.network.clone(),
        netns: add.netns.clone(),
        pod_namespace: add.pod.key.namespace.clone(),
        pod_name: add.pod.key.name.clone(),
        pod_uid: port.spec.pod_uid.clone(),
        vifs: vifs(add, &port.spec.vifs)?,
        boot_id: node.boot_id.clone(),
        since: jiff::Timestamp::now(),
    });
    let deadline = Instant::now() + node.limits.plug;
    unplug_stale(node, &attachment, deadline, lock).await?;
    node.attachments.insert(Arc::clone(&attachment)).await.map_err(|error| {
        CniError::new(Code::Io, format!("cannot remember pod {}", add.pod.key)).details(chain(&error))
    })?;
    match plug(node, &attachment, deadline).await {
        Ok(()) => {
            node.attachments.attached(&add.id);
            Ok(attachment)
        }
        Err(error) => {
            if let Err(left) = node.detach(&attachment).await {
                // Still remembered: the runtime's DEL tries again.
                tracing::warn!(pod = %add.pod.key, container = add.id.container_id, error = chain(&left), "cannot take back what was plugged");
            }
            let code = code(&error, Code::PlugFailed);
            Err(CniError::new(code, format!("cannot plug pod {}", add.pod.key)).details(chain(&error)))
        }
    }
}

/// The pod's VIFs, the first one under the name that the runtime wants.
fn vifs(add: &Add, vifs: &[Vif]) -> Result<Vec<Vif>, CniError> {
    let mut vifs = vifs.to_vec();
    if let Some(first) = vifs.first_mut() {
        first.interface.clone_from(&add.id.ifname);
    }
    let twice = vifs
        .iter()
        .enumerate()
        .find(|(index, vif)| vifs[..*index].iter().any(|other| other.interface == vif.interface));
    match twice {
        Some((_, vif)) => {
            let message = format!("pod {} has two VIFs for one interface {}", add.pod.key, vif.interface);
            Err(CniError::new(Code::PlugFailed, message))
        }
        None => Ok(vifs),
    }
}

/// Unplugs the sandboxes that have the same ports: an earlier one of this pod, of which DEL was lost or is to come,
/// or this one, where not all was in order.
async fn unplug_stale<P: Plugs>(
    node: &Node<P>,
    new: &Attachment,
    deadline: Instant,
    _own_lock: &Held<LockKey>,
) -> Result<(), CniError> {
    for stale in node.attachments.all() {
        if stale.id != new.id && !new.vifs.iter().any(|vif| stale.has_port(vif.port_id)) {
            continue;
        }
        if stale.id != new.id && stale.id.container_id == new.id.container_id {
            let message =
                format!("the port of pod {} is in interface {} of this container already", new.pod(), stale.id.ifname);
            return Err(CniError::new(Code::Configuration, message));
        }
        let _lock = if stale.id == new.id {
            None
        } else {
            Some(node.lock(&stale.id, deadline).await.ok_or_else(|| busy(&stale.id.to_string()))?)
        };
        // Its own DEL may have been faster.
        let Some(stale) = node.attachments.get(&stale.id) else { continue };
        let (pod, uid, container) = (stale.pod(), &stale.pod_uid, &stale.id.container_id);
        node.detach(&stale).await.map_err(|error| detach_error(&format!("stale {}", stale.id), &error))?;
        tracing::info!(%pod, %uid, container, by = new.id.container_id, "unplugged a stale sandbox of the pod");
    }
    Ok(())
}

async fn plug<P: Plugs>(node: &Node<P>, attachment: &Attachment, deadline: Instant) -> Result<(), PlugError> {
    let sandbox = sandbox(attachment);
    for vif in &attachment.vifs {
        let times: PlugTimes = node.plugs.plug(vif, &sandbox, deadline).await?;
        node.metrics.plugged(&times);
    }
    Ok(())
}

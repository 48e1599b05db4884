//! DEL: takes away what ADD has made, from what this node remembers alone.

use super::{busy, detach_error};
use crate::{
    cni::{AttachmentId, CniError},
    config::LOCK_TIMEOUT,
    node::{Node, Plugs},
    plug::error::chain,
};
use tokio::time::Instant;

pub(super) async fn run<P: Plugs>(node: &Node<P>, id: &AttachmentId) -> Result<(), CniError> {
    let Some(_lock) = node.lock(id, Instant::now() + LOCK_TIMEOUT).await else { return Err(busy(&id.to_string())) };
    let Some(attachment) = node.attachments.get(id) else {
        forgotten(node, id).await;
        return Ok(());
    };
    let (pod, uid, container) = (attachment.pod(), &attachment.pod_uid, &id.container_id);
    node.detach(&attachment).await.map_err(|error| detach_error(&format!("pod {pod}"), &error))?;
    tracing::info!(%pod, %uid, container, "detached");
    Ok(())
}

/// Nothing is remembered: it was never there, or has been deleted, which is success; or its file was lost, then its
/// host ends are still known by their mark. If they cannot be looked for now, GC and the audit do.
async fn forgotten<P: Plugs>(node: &Node<P>, id: &AttachmentId) {
    if node.attachments.all().iter().any(|other| other.id.container_id == id.container_id) {
        return; // What is left in this container is another interface's.
    }
    let container = &id.container_id;
    let ends = match node.plugs.list().await {
        Ok(ends) => ends,
        Err(error) => {
            return tracing::warn!(container, error = chain(&error), "cannot look for what is left of a container");
        }
    };
    for end in ends.iter().filter(|end| end.owner.container_id == *container) {
        let (name, port) = (&end.name, end.owner.port_id);
        match node.plugs.remove(end).await {
            Ok(()) => {
                tracing::info!(container, name, %port, "removed what was left of a container");
                node.ports.look_again_at(end.owner.port_id);
            }
            Err(error) => {
                tracing::warn!(container, name, %port, error = chain(&error), "cannot remove what is left of a container");
            }
        }
    }
}

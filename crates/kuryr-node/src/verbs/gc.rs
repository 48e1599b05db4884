//! GC: takes away everything that the runtime does not know, and what carries our mark and belongs to nothing.

use super::{busy, detach_error};
use crate::{
    cni::{AttachmentId, CniError, Code},
    config::LOCK_TIMEOUT,
    node::{Node, Plugs},
};
use std::collections::HashSet;
use tokio::time::Instant;

pub(super) async fn run<P: Plugs>(
    node: &Node<P>,
    network: &str,
    valid: &HashSet<AttachmentId>,
) -> Result<(), CniError> {
    let deadline = Instant::now() + LOCK_TIMEOUT;
    let mut problems = Vec::new();
    for listed in node.attachments.all() {
        if listed.network != network || valid.contains(&listed.id) {
            continue;
        }
        let result = match node.lock(&listed.id, deadline).await {
            // An ADD, or a DEL, that came after the list was made has changed it: then it is not what was listed.
            Some(_lock) if node.attachments.get(&listed.id).as_ref() != Some(&listed) => continue,
            Some(_lock) => {
                node.detach(&listed).await.map_err(|error| detach_error(&format!("pod {}", listed.pod()), &error))
            }
            None => Err(busy(&listed.id.to_string())),
        };
        let (pod, uid, container) = (listed.pod(), &listed.pod_uid, &listed.id.container_id);
        match result {
            Ok(()) => tracing::info!(%pod, %uid, container, "detached: the runtime does not know the sandbox"),
            Err(error) => problems.push(format!("{error}: {}", error.details)),
        }
    }
    let keep = valid.iter().map(|id| id.container_id.as_str()).collect();
    problems.extend(node.clean_strays(&keep).await);
    if problems.is_empty() {
        return Ok(());
    }
    Err(CniError::new(Code::UnplugFailed, "cannot take everything away").details(problems.join("; ")))
}

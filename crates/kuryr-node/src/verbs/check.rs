//! CHECK: is everything as ADD has made it?

use super::busy;
use crate::{
    cni::{AttachmentId, CniError, Code, result::PrevResult},
    config::LOCK_TIMEOUT,
    node::{Node, Plugs, sandbox},
};
use tokio::time::Instant;

pub(super) async fn run<P: Plugs>(node: &Node<P>, id: &AttachmentId, prev_result: &PrevResult) -> Result<(), CniError> {
    let Some(_lock) = node.lock(id, Instant::now() + LOCK_TIMEOUT).await else { return Err(busy(&id.to_string())) };
    let Some(attachment) = node.attachments.get(id) else {
        return Err(CniError::new(Code::UnknownContainer, format!("{id} was not added, or has been deleted")));
    };
    let mut problems = prev_result.lacks(id, &attachment.vifs);
    for vif in &attachment.vifs {
        if let Err(mismatches) = node.plugs.check(vif, &sandbox(&attachment)).await {
            problems.extend(mismatches.iter().map(ToString::to_string));
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    let message = format!("pod {} is not as it was attached", attachment.pod());
    Err(CniError::new(Code::CheckFailed, message).details(problems.join("; ")))
}

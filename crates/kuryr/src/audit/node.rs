//! The node's side of the audit: asked of the node's daemon over its unix socket, so only on the node itself.

use super::compare::{Finding, Kind, Prunable};
use crate::http;
use anyhow::{Context as _, ensure};
use kuryr_node::audit::{Finding as Seen, NodeReport};
use std::path::{Path, PathBuf};
use tokio::net::UnixStream;

/// The daemons to ask: those that were named, else the one of this machine if there is one.
pub(super) fn sockets(named: &[PathBuf], usual: &Path) -> Vec<PathBuf> {
    if named.is_empty() && usual.exists() { vec![usual.to_owned()] } else { named.to_vec() }
}

/// What a daemon finds on its node.
pub(super) async fn findings(socket: &Path) -> anyhow::Result<Vec<Finding>> {
    let body = request(socket, "GET", "/attachments").await?;
    let report: NodeReport = serde_json::from_str(&body).context("the daemon's report cannot be read")?;
    Ok(report.findings.iter().map(|seen| finding(socket, &report.node, seen)).collect())
}

/// Lets a daemon remove what is stray on its node.
pub(super) async fn prune(socket: &Path) -> anyhow::Result<()> {
    request(socket, "POST", "/attachments/prune").await.map(drop)
}

fn finding(socket: &Path, node: &str, seen: &Seen) -> Finding {
    let pruned = "prune it: kuryr audit --node-only --fix on the node";
    let (kind, subject, id, fix) = match seen {
        Seen::StrayLink { name, .. } => (Kind::Stray, "link", name.clone(), pruned),
        Seen::StrayOvsPort { name, .. } => (Kind::Stray, "OVS port", name.clone(), pruned),
        Seen::MissingHostEnd { port_id, .. } => {
            (Kind::Missing, "host end", port_id.to_string(), "delete the pod: a new sandbox is plugged anew")
        }
        Seen::SandboxGone { container_id, .. } => (Kind::Stray, "attachment", container_id.clone(), pruned),
        Seen::WithoutKuryrPort { container_id, .. } => {
            (Kind::Stray, "attachment", container_id.clone(), "delete the sandbox (`crictl stopp`): its pod is gone")
        }
        Seen::NodePorts { .. } => {
            (Kind::Mismatch, "node ports", node.to_owned(), "see the log of `kuryr daemon` there")
        }
    };
    let what = format!("on node {node}: {seen}");
    let prune = (fix == pruned).then(|| Prunable::OnNode(socket.to_owned()));
    Finding { kind, subject: subject.to_owned(), id, what, fix: fix.to_owned(), prune }
}

/// One request over a daemon's socket; the body of its answer.
async fn request(socket: &Path, method: &str, path: &str) -> anyhow::Result<String> {
    let fail = || format!("the daemon at {} does not answer; is it running, and are you root?", socket.display());
    let stream = UnixStream::connect(socket).await.with_context(fail)?;
    let (status, body) = http::request(stream, method, path).await.with_context(fail)?;
    ensure!(status == 200, "the daemon at {} answered {status}: {body}", socket.display());
    Ok(body)
}

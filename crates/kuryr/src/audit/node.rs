//! The node's side of the audit: asked of the node's daemon over its unix socket, so only on the node itself.

use super::compare::{Finding, Kind};
use anyhow::{Context as _, bail};
use kuryr_node::audit::{Finding as Seen, NodeReport};
use std::path::{Path, PathBuf};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

/// The daemons to ask: those that were named, else the one of this machine if there is one.
pub(super) fn sockets(named: &[PathBuf], usual: &Path) -> Vec<PathBuf> {
    if named.is_empty() && usual.exists() { vec![usual.to_owned()] } else { named.to_vec() }
}

/// What a daemon finds on its node.
pub(super) async fn findings(socket: &Path) -> anyhow::Result<Vec<Finding>> {
    let body = request(socket, "GET", "/attachments").await?;
    let report: NodeReport = serde_json::from_str(&body).context("the daemon's report cannot be read")?;
    Ok(report.findings.iter().map(|seen| finding(&report.node, seen)).collect())
}

/// Lets a daemon remove what is stray on its node.
pub(super) async fn prune(socket: &Path) -> anyhow::Result<()> {
    request(socket, "POST", "/attachments/prune").await.map(drop)
}

fn finding(node: &str, seen: &Seen) -> Finding {
    let (kind, subject, id, fix) = match seen {
        Seen::StrayLink { name, .. } => {
            (Kind::Stray, "link", name.clone(), "`kuryr audit --fix` on the node removes it")
        }
        Seen::StrayOvsPort { name, .. } => {
            (Kind::Stray, "OVS port", name.clone(), "`kuryr audit --fix` on the node removes it")
        }
        Seen::MissingHostEnd { port_id, .. } => {
            (Kind::Missing, "host end", port_id.to_string(), "delete the pod: a new sandbox is plugged anew")
        }
        Seen::SandboxGone { container_id, .. } => {
            (Kind::Stray, "attachment", container_id.clone(), "`kuryr audit --fix` on the node unplugs it")
        }
        Seen::WithoutKuryrPort { container_id, .. } => {
            (Kind::Stray, "attachment", container_id.clone(), "delete the sandbox (`crictl stopp`): its pod is gone")
        }
        Seen::NodePorts { .. } => {
            (Kind::Mismatch, "node ports", node.to_owned(), "see the log of `kuryr daemon` there")
        }
    };
    let what = format!("on node {node}: {seen}");
    Finding { kind, subject: subject.to_owned(), id, what, fix: fix.to_owned(), prune: None }
}

/// One HTTP request over a unix socket; the body of its answer.
async fn request(socket: &Path, method: &str, path: &str) -> anyhow::Result<String> {
    let fail = || format!("the daemon at {} does not answer; is it running, and are you root?", socket.display());
    let mut stream = UnixStream::connect(socket).await.with_context(fail)?;
    let head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    stream.write_all(head.as_bytes()).await.with_context(fail)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.with_context(fail)?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(fail)?;
    if !head.starts_with("HTTP/1.1 200") {
        bail!("the daemon at {} answered {}: {body}", socket.display(), head.lines().next().unwrap_or_default());
    }
    Ok(body.to_owned())
}

//! `kuryr daemon`

use crate::{config::Config, kubernetes};
use anyhow::Context;
use std::{net::SocketAddr, path::Path, path::PathBuf};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Arguments of `kuryr daemon`; each overrides its setting.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The Kubernetes node that this is; by default the host's name
    #[arg(long, env = "KURYR_NODE", hide_env_values = true, value_name = "NAME")]
    node: Option<String>,

    /// The unix socket that kuryr-cni calls ([daemon] socket)
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,

    /// Where attachments are remembered ([daemon] state_dir)
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// Where /healthz, /readyz and /metrics are served ([daemon] listen)
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
}

pub(crate) async fn run(args: Args, config: Config, kubeconfig: Option<&Path>) -> anyhow::Result<()> {
    // Not asked whether it answers: sandboxes are taken down, and the runtime is told what is wrong, while it is away.
    let client = kubernetes::client(kubeconfig, "kuryr-daemon").await?;
    let node = match args.node {
        Some(node) => node,
        None => std::fs::read_to_string("/proc/sys/kernel/hostname")
            .context("the host's name cannot be read; set --node")?
            .trim()
            .to_owned(),
    };
    let mut told = config.daemon;
    told.socket = args.socket.unwrap_or(told.socket);
    told.state_dir = args.state_dir.unwrap_or(told.state_dir);
    told.listen = args.listen.unwrap_or(told.listen);
    let config = told.to_config(node);
    let stop = CancellationToken::new();
    stop_on_signal(&stop)?;
    kuryr_node::run(config, client, stop).await?;
    Ok(())
}

/// Cancels `stop` at the first SIGTERM or SIGINT.
pub(crate) fn stop_on_signal(stop: &CancellationToken) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        // The controller's, too.
        tracing::info!(target: "kuryr", "stopping");
        stop.cancel();
    });
    Ok(())
}

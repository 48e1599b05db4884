//! The kubelet as a program of its own: for a node of a real Kubernetes that is too small for containers.

use super::{Kubelet, KubeletConfig};
use crate::interrupt::interrupted;
use anyhow::Context;
use kube::{
    Client,
    config::{KubeConfigOptions, Kubeconfig},
};
use std::{net::IpAddr, path::PathBuf, process::ExitCode, time::Duration};
use tokio::runtime::Runtime;

/// As often as the real one does.
const LEASE: Duration = Duration::from_secs(10);

/// How soon the node's readiness follows the plugin's.
const STATUS: Duration = Duration::from_secs(1);

/// Arguments.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Name of the node
    #[arg(long, value_name = "NAME")]
    pub node: String,

    /// The address by which the cluster knows the node
    #[arg(long, value_name = "ADDRESS")]
    pub address: IpAddr,

    /// The kubelet's kubeconfig
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: PathBuf,

    /// The CNI plugin
    #[arg(long, value_name = "FILE", default_value = "/opt/cni/bin/kuryr-cni")]
    pub cni_plugin: PathBuf,

    /// The network configuration list that it gets
    #[arg(long, value_name = "FILE", default_value = "/etc/cni/net.d/10-kuryr.conflist")]
    pub cni_conf: PathBuf,

    /// Folder of what it remembers of sandboxes, and of the output of containers
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kubelet")]
    pub folder: PathBuf,
}

/// Runs the node's pods until it is interrupted. They stay.
///
/// # Errors
/// The node cannot be registered, or a file cannot be read.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    Runtime::new()?.block_on(async {
        let interrupted = interrupted()?;
        let kubelet = Kubelet::start(config(args).await?).await?;
        interrupted.await;
        kubelet.stop().await;
        Ok(ExitCode::SUCCESS)
    })
}

async fn config(args: &Args) -> anyhow::Result<KubeletConfig> {
    let file = Kubeconfig::read_from(&args.kubeconfig)?;
    let client = Client::try_from(kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?)?;
    let text = std::fs::read(&args.cni_conf).with_context(|| args.cni_conf.display().to_string())?;
    let conf = serde_json::from_slice(&text).with_context(|| args.cni_conf.display().to_string())?;
    let mut config = KubeletConfig::new(&args.node, client, args.cni_plugin.clone(), conf, &args.folder);
    // Where runtimes have them, and Kuryr's daemon looks for what is in them.
    config.netns_dir = PathBuf::from("/run/netns");
    config.address = args.address;
    config.status_every = Some(STATUS);
    config.lease_every = Some(LEASE);
    Ok(config)
}

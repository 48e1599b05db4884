//! The connection to Kubernetes, with errors that say what to do.

use anyhow::{Context, bail};
use kube::{Client, config::KubeConfigOptions, config::Kubeconfig};
use std::path::Path;

/// Selectors on fields of custom resources, by which a daemon watches only its node's objects, came with this minor.
const OLDEST_MINOR: u32 = 31;

/// A client for Kubernetes. `program` is who it says it is, so that an audit log and the API server's metrics can tell
/// the controller, the daemons and people apart.
pub(crate) async fn connect(kubeconfig: Option<&Path>, program: &str) -> anyhow::Result<Client> {
    let mut config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path).with_context(|| {
                format!("--kubeconfig {} cannot be used; name a file that kubectl can use", path.display())
            })?;
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?
        }
        None => kube::Config::infer().await.context(
            "there is no way to Kubernetes: set KUBECONFIG or --kubeconfig, or run in a pod with a service account",
        )?,
    };
    let url = config.cluster_url.clone();
    let agent = format!("{program}/{}", env!("CARGO_PKG_VERSION"));
    config.headers.push(("user-agent".parse()?, agent.parse()?));
    let client = Client::try_from(config)?;
    let version = client.apiserver_version().await.with_context(|| {
        format!("Kubernetes at {url} does not answer; check the server in the kubeconfig and that it is running")
    })?;
    let minor: u32 = version.minor.trim_end_matches('+').parse().unwrap_or(0);
    if version.major == "1" && minor < OLDEST_MINOR {
        bail!("Kubernetes at {url} is {}; Kuryr needs 1.{OLDEST_MINOR} or later", version.git_version);
    }
    Ok(client)
}

//! The connection to Kubernetes, with errors that say what to do.

use anyhow::{Context, bail};
use k8s_openapi::apimachinery::pkg::version::Info;
use kube::{Client, config::KubeConfigOptions, config::Kubeconfig};
use std::path::Path;

/// Selectors on fields of custom resources, by which a daemon watches only its node's objects, came with this minor.
pub(crate) const OLDEST_MINOR: u32 = 31;

/// A client for Kubernetes that has been asked for its version, and is new enough. `program` is who it says it is, so that an
/// audit log and the API server's metrics can tell the controller, the daemons and people apart.
pub(crate) async fn connect(kubeconfig: Option<&Path>, program: &str) -> anyhow::Result<Client> {
    let config = config(kubeconfig, program).await?;
    let url = config.cluster_url.clone();
    let client = Client::try_from(config)?;
    let version = client.apiserver_version().await.with_context(|| {
        format!("Kubernetes at {url} does not answer; check the server in the kubeconfig and that it is running")
    })?;
    if version.major == "1" && minor(&version).unwrap_or(0) < OLDEST_MINOR {
        bail!("Kubernetes at {url} is {}; Kuryr needs 1.{OLDEST_MINOR} or later", version.git_version);
    }
    Ok(client)
}

/// A client that is used as soon as Kubernetes answers: for who has work to do until then, too.
pub(crate) async fn client(kubeconfig: Option<&Path>, program: &str) -> anyhow::Result<Client> {
    Ok(Client::try_from(config(kubeconfig, program).await?)?)
}

/// The minor version; some providers write `31+`.
pub(crate) fn minor(version: &Info) -> Option<u32> {
    let digits = version.minor.find(|c: char| !c.is_ascii_digit()).map_or(&*version.minor, |end| &version.minor[..end]);
    digits.parse().ok()
}

async fn config(kubeconfig: Option<&Path>, program: &str) -> anyhow::Result<kube::Config> {
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
    let agent = format!("{program}/{}", env!("CARGO_PKG_VERSION"));
    config.headers.push(("user-agent".parse()?, agent.parse()?));
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minor_version_may_have_something_behind_it() {
        let of = |minor: &str| super::minor(&Info { minor: minor.to_owned(), ..Info::default() });
        assert_eq!([of("31"), of("31+"), of("34-eks.1"), of(""), of("x")], [Some(31), Some(31), Some(34), None, None]);
    }
}

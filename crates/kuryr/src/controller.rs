//! `kuryr controller`

use crate::{cloud::cluster_id, config::Config, kubernetes};
use anyhow::Context;
use kuryr_controller::Metrics;
use kuryr_openstack::{Call, Options};
use prometheus_client::registry::Registry;
use std::{net::SocketAddr, path::Path, sync::Arc};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Arguments of `kuryr controller`; each overrides its setting.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Who this is, as the Lease and Events show it, with something added that differs at every start. By default the host's name
    #[arg(long, env = "KURYR_IDENTITY", hide_env_values = true, value_name = "NAME")]
    identity: Option<String>,

    /// Where /healthz, /readyz and /metrics are served ([controller] listen)
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
}

pub(crate) async fn run(args: Args, config: Config, kubeconfig: Option<&Path>) -> anyhow::Result<()> {
    let listen = args.listen.unwrap_or(config.controller.listen);
    let client = kubernetes::connect(kubeconfig, "kuryr-controller").await?;
    let cluster = cluster_id(config.cluster.id.as_deref(), Some(&client)).await?;

    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let observed = metrics.clone();
    let observer = move |call: &Call<'_>| {
        let result = call.status.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
        observed.call(call.service.as_str(), call.method.as_str(), call.resource, result, call.duration);
    };
    let options = Options { observer: Some(Arc::new(observer)), ..Options::default() };
    let cloud = config.openstack.connect(options).await?;

    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("cannot listen on {listen}; set [controller] listen to a free address"))?;
    let (health, told) = watch::channel(None);
    let stop = CancellationToken::new();
    crate::daemon::stop_on_signal(&stop)?;
    let served = tokio::spawn({
        let (serving, stop) = (kuryr_controller::http::serve(listener, told, Arc::new(registry)), stop.clone());
        async move {
            let ended = serving.await;
            // Nobody sees any more how this process is: better none than such a one.
            stop.cancel();
            ended
        }
    });

    let identity = identity(args.identity);
    let config = config.controller_config(cluster, identity);
    tracing::info!(cluster = %config.cluster, identity = config.election.identity, %listen, "the controller starts");
    let publish = move |state| {
        health.send_replace(Some(state));
    };
    kuryr_controller::run(config, client, cloud, metrics, publish, stop).await?;
    if served.is_finished() {
        served
            .await?
            .with_context(|| format!("/healthz, /readyz and /metrics could not be served at {listen} any more"))?;
    }
    Ok(())
}

/// Who this is, other than every other process and every earlier one, also of the same name: the Lease of a controller that was
/// killed must not pass for that of its successor.
fn identity(name: Option<String>) -> String {
    let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
    let run = Uuid::new_v4().simple().to_string();
    format!("{}_{}", name.unwrap_or_else(host), &run[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_is_another_one_at_each_start() {
        let named = || identity(Some("kuryr-0".into()));
        assert!(named().starts_with("kuryr-0_") && named() != named());
        assert!(!identity(None).starts_with('_'));
    }
}

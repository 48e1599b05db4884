//! What the controller tells over HTTP: whether it lives, whether it is ready, its metrics, its port pools. Nothing secret, and nothing
//! that asks Kubernetes or OpenStack: a scrape costs them nothing. Pools are filled and drained from the same machine only.

use crate::{allocator::Allocator, run::Health};
use axum::{
    Json, Router,
    extract::{ConnectInfo, Query, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use kuryr_model::NetworkId;
use prometheus_client::registry::Registry;
use serde::Deserialize;
use std::{net::SocketAddr, sync::Arc};
use tokio::{net::TcpListener, sync::watch};

/// The content type of OpenMetrics.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone)]
struct Told {
    health: watch::Receiver<Option<Health>>,
    registry: Arc<Registry>,
}

/// Serves `/healthz`, `/readyz`, `/metrics` and `/pools` until the listener fails.
///
/// # Errors
/// What the listener failed with.
pub async fn serve(
    listener: TcpListener,
    health: watch::Receiver<Option<Health>>,
    registry: Arc<Registry>,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/pools", get(pools))
        .route("/pools/fill", post(fill))
        .route("/pools/drain", post(drain))
        .with_state(Told { health, registry });
    axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>()).await
}

async fn ready(State(told): State<Told>) -> impl IntoResponse {
    let health = told.health.borrow().clone();
    match health.map(|health| health.ready()) {
        Some(Ok(role)) => (StatusCode::OK, format!("{role}\n")),
        Some(Err(missing)) => (StatusCode::SERVICE_UNAVAILABLE, format!("{missing}\n")),
        None => (StatusCode::SERVICE_UNAVAILABLE, "looking at the cloud\n".to_owned()),
    }
}

async fn metrics(State(told): State<Told>) -> impl IntoResponse {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &told.registry) {
        Ok(()) => (StatusCode::OK, [(CONTENT_TYPE, OPENMETRICS)], text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, [(CONTENT_TYPE, "text/plain")], error.to_string()),
    }
}

/// Which pools are meant, and how many ports they are to have ready.
#[derive(Deserialize)]
struct Which {
    node: String,
    network: Option<NetworkId>,
    #[serde(default)]
    count: usize,
}

async fn pools(State(told): State<Told>) -> Response {
    let report = |allocator: Allocator| match allocator.pools() {
        Some(report) => Json(report).into_response(),
        None => (StatusCode::NOT_FOUND, "there are no port pools: [pools] enabled is false\n").into_response(),
    };
    told.allocator().map_or_else(|refusal| refusal, report)
}

async fn fill(
    State(told): State<Told>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Query(which): Query<Which>,
) -> Response {
    let Which { node, network, count } = which;
    told.change(peer, |allocator| {
        let targets = allocator.fill_pools(&node, network, count).map_err(|error| error.to_string())?;
        tracing::info!(node, pools = targets.len(), count, "an operator fills pools");
        Ok(filled(&node, count, &targets))
    })
}

async fn drain(
    State(told): State<Told>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Query(which): Query<Which>,
) -> Response {
    let Which { node, network, .. } = which;
    told.change(peer, |allocator| {
        let ports = allocator.drain_pools(&node, network).map_err(|error| error.to_string())?;
        tracing::info!(node, ports, "an operator drains pools");
        Ok(format!(
            "spare ports of node {node} that are deleted now: {ports}; it has none until it is filled (0: as many as demand says) or the \
             controller restarts\n"
        ))
    })
}

/// What becomes of an order to have `count` ports ready in each of a node's pools, which will have these.
fn filled(node: &str, count: usize, targets: &[usize]) -> String {
    let least = targets.iter().min().copied().unwrap_or(0);
    match count {
        0 => format!("node {node} has as many ports ready as demand says: {least}\n"),
        _ if least < count => format!(
            "node {node} is to have {count} ports ready at least, until the controller restarts; for now {least}, as there is no more room \
             on the node or in [pools] budget\n"
        ),
        _ => format!("node {node} is to have {count} ports ready at least, until the controller restarts\n"),
    }
}

impl Told {
    /// Where ports come from, or that this controller does not know it.
    #[expect(clippy::result_large_err, reason = "it is what is answered")]
    fn allocator(&self) -> Result<Allocator, Response> {
        let health = self.health.borrow().clone();
        let refusal = || {
            let text = "this controller stands by: ask the active one (the holder of the Lease)\n";
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        };
        health.and_then(|health| health.allocator()).ok_or_else(refusal)
    }

    fn change(&self, peer: SocketAddr, change: impl FnOnce(Allocator) -> Result<String, String>) -> Response {
        if !peer.ip().to_canonical().is_loopback() {
            let text = "pools are changed from the controller's own machine or pod only\n";
            return (StatusCode::FORBIDDEN, text).into_response();
        }
        match self.allocator().map(change) {
            Ok(Ok(done)) => done.into_response(),
            Ok(Err(why)) => (StatusCode::NOT_FOUND, format!("{why}\n")).into_response(),
            Err(refusal) => refusal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_fills_a_pool_is_told_what_it_will_have() {
        assert!(filled("n", 7, &[7, 9]).contains("is to have 7 ports ready at least, until"));
        assert!(filled("n", 1000, &[500]).contains("for now 500, as there is no more room"));
        assert!(filled("n", 0, &[2]).contains("as demand says: 2"));
    }
}

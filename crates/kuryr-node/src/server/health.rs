//! Health and metrics, for anyone who can reach the address: nothing here is secret, and nothing can be changed.

use crate::node::{Node, Plugs};
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use std::sync::Arc;

/// What is served on the TCP address.
pub fn routes<P: Plugs>(node: Arc<Node<P>>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz::<P>))
        .route("/metrics", get(metrics::<P>))
        .with_state(node)
}

/// Whether pods can be attached now; which part cannot, but not why: the log and CNI STATUS say that to root.
async fn readyz<P: Plugs>(State(node): State<Arc<Node<P>>>) -> Response {
    let mut missing = Vec::new();
    if !node.ports.synced() {
        missing.push("the KuryrPorts of this node have not been listed yet");
    }
    if node.data_plane_trouble().await.is_some() {
        missing.push("Open vSwitch is away");
    }
    if node.stopping.is_cancelled() {
        missing.push("the daemon is being stopped");
    }
    if missing.is_empty() {
        return "ok\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, missing.join("\n") + "\n").into_response()
}

async fn metrics<P: Plugs>(State(node): State<Arc<Node<P>>>) -> Response {
    let count = i64::try_from(node.attachments.count()).unwrap_or(i64::MAX);
    node.metrics.attachments.set(count);
    node.metrics.watch_synced.set(i64::from(node.ports.synced()));
    node.metrics.node_ports_trouble.set(i64::from(!node.node_ports.problems().is_empty()));
    let text = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, text)], node.metrics.render()).into_response()
}

//! What the controller tells over HTTP: whether it lives, whether it is ready, its metrics. Nothing secret, and nothing
//! that asks Kubernetes or OpenStack: a scrape costs them nothing.

use crate::run::Health;
use axum::{
    Router, extract::State, http::StatusCode, http::header::CONTENT_TYPE, response::IntoResponse, routing::get,
};
use prometheus_client::registry::Registry;
use std::sync::Arc;
use tokio::{net::TcpListener, sync::watch};

/// The content type of OpenMetrics.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone)]
struct Told {
    health: watch::Receiver<Option<Health>>,
    registry: Arc<Registry>,
}

/// Serves `/healthz`, `/readyz` and `/metrics` until the listener fails.
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
        .with_state(Told { health, registry });
    axum::serve(listener, router).await
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

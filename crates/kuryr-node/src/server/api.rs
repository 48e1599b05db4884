//! The requests of `kuryr-cni` and `kuryr audit`.

use super::socket;
use crate::{
    cni::{CniError, CniVersion, Code, Request},
    node::{Node, Plugs},
    plug::error::chain,
    verbs,
};
use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{StatusCode, header::CONTENT_TYPE},
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use std::{collections::HashSet, sync::Arc};

/// The largest request, in bytes: GC names every pod of the node.
const MAX_BODY: usize = 17 << 20;

/// What is served on the unix socket, to root alone.
pub fn routes<P: Plugs>(node: Arc<Node<P>>) -> Router {
    Router::new()
        .route("/cni", post(cni::<P>))
        .route("/attachments", get(attachments::<P>))
        .route("/attachments/prune", post(prune::<P>))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn(socket::only_root))
        .with_state(node)
}

/// Success is 200 with what the runtime is to read, failure 500 with a CNI error.
async fn cni<P: Plugs>(State(node): State<Arc<Node<P>>>, body: Bytes) -> Response {
    let request: Request = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => {
            let error = CniError::new(Code::Decode, "failed to decode content").details(error.to_string());
            return failure(&error, CniVersion::LATEST.as_str());
        }
    };
    match verbs::serve(&node, &request).await {
        Ok(Some(result)) => json_response(StatusCode::OK, &result),
        Ok(None) => StatusCode::OK.into_response(),
        Err(error) => failure(&error, request.cni_version()),
    }
}

fn failure(error: &CniError, cni_version: &str) -> Response {
    json_response(StatusCode::INTERNAL_SERVER_ERROR, &error.to_json(cni_version))
}

fn json_response(status: StatusCode, body: &Value) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

/// What is plugged and what is stray or missing: a [`crate::audit::NodeReport`].
async fn attachments<P: Plugs>(State(node): State<Arc<Node<P>>>) -> Response {
    match node.report().await {
        Ok(report) => Json(report).into_response(),
        Err(error) => problems(&[chain(&error)]),
    }
}

/// Unplugs the sandboxes that are gone and removes strays.
async fn prune<P: Plugs>(State(node): State<Arc<Node<P>>>) -> Response {
    let mut found = node.clean_gone().await;
    found.extend(node.clean_strays(&HashSet::new()).await);
    if found.is_empty() { Json(json!({ "problems": [] })).into_response() } else { problems(&found) }
}

fn problems(problems: &[String]) -> Response {
    json_response(StatusCode::INTERNAL_SERVER_ERROR, &json!({ "problems": problems }))
}

//! A Kubernetes that answers by script, for tests.

use kube::client::Body;
use serde_json::{Value, json};
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::sync::mpsc;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) body: Value,
}

/// What is answered, and after what time.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) text: String,
    pub(crate) after: Duration,
}

impl Answer {
    pub(crate) fn ok(body: impl Into<Value>) -> Self {
        Self { status: 200, text: body.into().to_string(), after: Duration::ZERO }
    }

    /// An error in Kubernetes' form.
    pub(crate) fn error(code: u16, reason: &str) -> Self {
        let body = json!({"kind": "Status", "status": "Failure", "message": reason, "reason": reason, "code": code});
        Self { status: code, ..Self::ok(body) }
    }

    /// Events of a watch, which then ends.
    pub(crate) fn watch(events: &[(&str, Value)]) -> Self {
        let line = |(kind, object): &(&str, Value)| format!("{}\n", json!({"type": kind, "object": object}));
        Self { text: events.iter().map(line).collect(), ..Self::ok(Value::Null) }
    }

    pub(crate) fn after(self, after: Duration) -> Self {
        Self { after, ..self }
    }
}

/// A list of objects of one kind.
pub(crate) fn list(items: &[Value], next: Option<&str>) -> Value {
    json!({
        "kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1", "continue": next.unwrap_or_default()},
        "items": items,
    })
}

/// A client of a server that answers so, and the requests that it gets, each once it is answered.
pub(crate) fn api_server(
    script: impl Fn(&Request) -> Answer + Send + Sync + 'static,
) -> (kube::Client, mpsc::UnboundedReceiver<Request>) {
    let (seen, requests) = mpsc::unbounded_channel();
    let script = Arc::new(script);
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let (script, seen) = (script.clone(), seen.clone());
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await.unwrap_or_default();
            let request = Request {
                method: parts.method.to_string(),
                path: parts.uri.path().to_owned(),
                query: parts.uri.query().unwrap_or_default().to_owned(),
                body: serde_json::from_slice(&body).unwrap_or_default(),
            };
            let answer = script(&request);
            tokio::time::sleep(answer.after).await;
            // Nobody need be interested.
            let _ = seen.send(request);
            let response = http::Response::builder().status(answer.status);
            Ok::<_, Infallible>(response.body(Body::from(answer.text.into_bytes())).unwrap())
        }
    });
    (kube::Client::new(service, "default"), requests)
}

//! As much of an API server as the daemon needs, scripted.

use crate::testing;
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path as UrlPath, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, patch, post},
};
use futures::StreamExt;
use kube::Client;
use kuryr_model::KuryrPort;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    net::TcpListener,
    sync::{broadcast, watch},
};

/// As much of an API server as the daemon needs.
pub(super) struct Api {
    objects: Mutex<(u64, BTreeMap<String, Value>)>,
    /// Watch events, as lines.
    changes: broadcast::Sender<String>,
    /// Writes of the daemon, in order; the number of them is what tests wait for.
    writes: watch::Sender<Vec<Value>>,
    pub(super) events: watch::Sender<Vec<Value>>,
    /// Statuses to answer the next status writes with.
    pub(super) faults: Mutex<Vec<u16>>,
    pub(super) selectors: Mutex<Vec<String>>,
}

impl Api {
    pub(super) fn put(&self, object: &impl serde::Serialize) {
        self.change("ADDED", serde_json::to_value(object).unwrap());
    }

    pub(super) fn change(&self, kind: &str, mut object: Value) {
        let mut objects = self.objects.lock().unwrap();
        objects.0 += 1;
        object["metadata"]["resourceVersion"] = objects.0.to_string().into();
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let _ = self.changes.send(json!({ "type": kind, "object": object }).to_string() + "\n");
        match kind {
            "DELETED" => objects.1.remove(&name),
            _ => objects.1.insert(name, object),
        };
    }

    pub(super) fn port(&self, name: &str) -> KuryrPort {
        serde_json::from_value(self.objects.lock().unwrap().1[name].clone()).unwrap()
    }

    pub(super) fn delete(&self, name: &str) {
        let mut port = self.port(name);
        testing::delete(&mut port);
        self.change("MODIFIED", serde_json::to_value(port).unwrap());
    }

    /// Waits until the daemon has written `count` statuses.
    pub(super) async fn written(&self, count: usize) -> Vec<Value> {
        let mut writes = self.writes.subscribe();
        let enough = writes.wait_for(|writes| writes.len() >= count);
        tokio::time::timeout(Duration::from_secs(20), enough).await.expect("written in time").unwrap().clone()
    }
}

async fn list(State(api): State<Arc<Api>>, Query(query): Query<HashMap<String, String>>) -> Response {
    api.selectors.lock().unwrap().push(query.get("fieldSelector").cloned().unwrap_or_default());
    let objects = api.objects.lock().unwrap();
    if query.get("watch").is_some_and(|watch| watch == "true") {
        // Nothing can have changed since the list: watches are opened under the lock that changes take.
        let since: u64 = query["resourceVersion"].parse().unwrap();
        assert!(since <= objects.0);
        let changes = api.changes.subscribe();
        let missed: Vec<_> = objects.1.values().filter(|object| version(object) > since).cloned().collect();
        let missed =
            missed.into_iter().map(|object| json!({ "type": "MODIFIED", "object": object }).to_string() + "\n");
        let lines = futures::stream::iter(missed).chain(futures::stream::unfold(changes, |mut changes| async {
            changes.recv().await.ok().map(|line| (line, changes))
        }));
        return Body::from_stream(lines.map(Ok::<_, std::convert::Infallible>)).into_response();
    }
    let items: Vec<_> = objects.1.values().cloned().collect();
    let kind = json!({ "apiVersion": "kuryr.openstack.org/v1", "kind": "KuryrPortList" });
    let mut list = json!({ "metadata": { "resourceVersion": objects.0.to_string() }, "items": items });
    list.as_object_mut().unwrap().extend(kind.as_object().unwrap().clone());
    axum::Json(list).into_response()
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

async fn write_status(State(api): State<Arc<Api>>, UrlPath(name): UrlPath<String>, body: Bytes) -> Response {
    let failure = |code: u16| {
        let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": "scripted", "reason": "" });
        (StatusCode::from_u16(code).unwrap(), axum::Json(status)).into_response()
    };
    if let Some(code) = api.faults.lock().unwrap().pop() {
        return failure(code);
    }
    let patch: Value = serde_json::from_slice(&body).unwrap();
    let Some(mut object) = api.objects.lock().unwrap().1.get(&name).cloned() else { return failure(404) };
    if patch["metadata"]["resourceVersion"] != object["metadata"]["resourceVersion"] {
        return failure(409);
    }
    object["status"]["attachment"] = patch["status"]["attachment"].clone();
    api.change("MODIFIED", object.clone());
    api.writes.send_modify(|writes| writes.push(patch));
    axum::Json(object).into_response()
}

async fn write_event(State(api): State<Arc<Api>>, body: Bytes) -> Response {
    let event: Value = serde_json::from_slice(&body).unwrap();
    api.events.send_modify(|events| events.push(event.clone()));
    (StatusCode::CREATED, axum::Json(event)).into_response()
}

pub(super) async fn api_server() -> (Arc<Api>, Client) {
    let api = Arc::new(Api {
        objects: Mutex::default(),
        changes: broadcast::channel(1024).0,
        writes: watch::channel(vec![]).0,
        events: watch::channel(vec![]).0,
        faults: Mutex::default(),
        selectors: Mutex::default(),
    });
    let group = "/apis/kuryr.openstack.org/v1";
    let routes = Router::new()
        .route(&format!("{group}/kuryrports"), get(list))
        .route(&format!("{group}/namespaces/shop/kuryrports/{{name}}/status"), patch(write_status))
        .route("/apis/events.k8s.io/v1/namespaces/shop/events", post(write_event))
        .with_state(Arc::clone(&api));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(axum::serve(listener, routes).into_future());
    (api, Client::try_from(kube::Config::new(url)).unwrap())
}

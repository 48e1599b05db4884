//! As much of an API server as the daemon needs, scripted.

use crate::testing;
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path as UrlPath, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{MethodRouter, get, patch, post},
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

type Shared = State<Arc<Api>>;

/// By kind and name.
type Objects = BTreeMap<(String, String), Value>;

/// What the daemon writes the status of.
const KIND: &str = "KuryrPort";

/// As much of an API server as the daemon needs.
pub(super) struct Api {
    objects: Mutex<(u64, Objects)>,
    /// Watch events, as lines, with the kind of their objects.
    changes: broadcast::Sender<(String, String)>,
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
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let key = (text(&object["kind"]), text(&object["metadata"]["name"]));
        let _ = self.changes.send((key.0.clone(), json!({ "type": kind, "object": object }).to_string() + "\n"));
        match kind {
            "DELETED" => objects.1.remove(&key),
            _ => objects.1.insert(key, object),
        };
    }

    pub(super) fn port(&self, name: &str) -> KuryrPort {
        let key = (KIND.to_owned(), name.to_owned());
        serde_json::from_value(self.objects.lock().unwrap().1[&key].clone()).unwrap()
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

fn listing(kind: &'static str) -> MethodRouter<Arc<Api>> {
    get(async move |State(api): Shared, Query(query): Query<HashMap<String, String>>| list(&api, kind, &query))
}

/// The objects of a kind, or their changes.
fn list(api: &Api, kind: &'static str, query: &HashMap<String, String>) -> Response {
    if kind == KIND {
        api.selectors.lock().unwrap().push(query.get("fieldSelector").cloned().unwrap_or_default());
    }
    let objects = api.objects.lock().unwrap();
    let all = || objects.1.iter().filter(|((of, _), _)| of == kind).map(|(_, object)| object.clone());
    if query.get("watch").is_some_and(|watch| watch == "true") {
        // Nothing can have changed since the list: watches are opened under the lock that changes take.
        let since: u64 = query["resourceVersion"].parse().unwrap();
        assert!(since <= objects.0);
        let changes = api.changes.subscribe();
        let missed: Vec<_> = all().filter(|object| version(object) > since).collect();
        let missed =
            missed.into_iter().map(|object| json!({ "type": "MODIFIED", "object": object }).to_string() + "\n");
        let lines =
            futures::stream::iter(missed).chain(futures::stream::unfold(changes, move |mut changes| async move {
                loop {
                    let (of, line) = changes.recv().await.ok()?;
                    if of == kind {
                        return Some((line, changes));
                    }
                }
            }));
        return Body::from_stream(lines.map(Ok::<_, std::convert::Infallible>)).into_response();
    }
    let items: Vec<_> = all().collect();
    let metadata = json!({ "resourceVersion": objects.0.to_string() });
    let list = json!({ "apiVersion": "v1", "kind": format!("{kind}List"), "metadata": metadata, "items": items });
    axum::Json(list).into_response()
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

async fn write_status(State(api): Shared, UrlPath(name): UrlPath<String>, body: Bytes) -> Response {
    let failure = |code: u16| {
        let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": "scripted", "reason": "" });
        (StatusCode::from_u16(code).unwrap(), axum::Json(status)).into_response()
    };
    if let Some(code) = api.faults.lock().unwrap().pop() {
        return failure(code);
    }
    let patch: Value = serde_json::from_slice(&body).unwrap();
    let key = (KIND.to_owned(), name);
    let Some(mut object) = api.objects.lock().unwrap().1.get(&key).cloned() else { return failure(404) };
    if patch["metadata"]["resourceVersion"] != object["metadata"]["resourceVersion"] {
        return failure(409);
    }
    object["status"]["attachment"] = patch["status"]["attachment"].clone();
    api.change("MODIFIED", object.clone());
    api.writes.send_modify(|writes| writes.push(patch));
    axum::Json(object).into_response()
}

async fn write_event(State(api): Shared, body: Bytes) -> Response {
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
        .route(&format!("{group}/kuryrports"), listing(KIND))
        .route("/api/v1/services", listing("Service"))
        .route("/api/v1/nodes", listing("Node"))
        .route("/apis/discovery.k8s.io/v1/endpointslices", listing("EndpointSlice"))
        .route(&format!("{group}/namespaces/shop/kuryrports/{{name}}/status"), patch(write_status))
        .route("/apis/events.k8s.io/v1/namespaces/{namespace}/events", post(write_event))
        .with_state(Arc::clone(&api));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(axum::serve(listener, routes).into_future());
    (api, Client::try_from(kube::Config::new(url)).unwrap())
}

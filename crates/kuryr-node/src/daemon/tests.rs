//! The whole daemon on its real sockets, with a scripted API server and a plugger that only remembers.

use super::*;
use crate::testing::{self, FakePlugs, kuryr_port, uid};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path as UrlPath, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, patch, post},
};
use futures::StreamExt;
use kuryr_model::{KuryrPort, kuryr_port::AttachmentState};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::Mutex,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::{broadcast, watch},
};

/// As much of an API server as the daemon needs.
struct Api {
    objects: Mutex<(u64, BTreeMap<String, Value>)>,
    /// Watch events, as lines.
    changes: broadcast::Sender<String>,
    /// Writes of the daemon, in order; the number of them is what tests wait for.
    writes: watch::Sender<Vec<Value>>,
    events: watch::Sender<Vec<Value>>,
    /// Statuses to answer the next status writes with.
    faults: Mutex<Vec<u16>>,
    selectors: Mutex<Vec<String>>,
}

impl Api {
    fn put(&self, object: &impl serde::Serialize) {
        self.change("ADDED", serde_json::to_value(object).unwrap());
    }

    fn change(&self, kind: &str, mut object: Value) {
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

    fn port(&self, name: &str) -> KuryrPort {
        serde_json::from_value(self.objects.lock().unwrap().1[name].clone()).unwrap()
    }

    fn delete(&self, name: &str) {
        let mut port = self.port(name);
        testing::delete(&mut port);
        self.change("MODIFIED", serde_json::to_value(port).unwrap());
    }

    /// Waits until the daemon has written `count` statuses.
    async fn written(&self, count: usize) -> Vec<Value> {
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

async fn api_server() -> (Arc<Api>, Client) {
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

/// A running daemon.
struct Daemon {
    socket: std::path::PathBuf,
    http: SocketAddr,
    plugs: Arc<FakePlugs>,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), DaemonError>>,
}

impl Daemon {
    async fn start(folder: &Path, client: Client, plugs: Arc<FakePlugs>) -> Self {
        let mut config = DaemonConfig::new("node-1");
        config.socket = folder.join("run/cni.sock");
        config.state_folder = folder.join("state");
        config.http_address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        config.add_timeout = Duration::from_millis(300);
        let (socket, http, shutdown) = (config.socket.clone(), config.http_address, CancellationToken::new());
        let task = tokio::spawn(run_with(config, client, Arc::clone(&plugs), shutdown.clone()));
        while !socket.exists() {
            assert!(!task.is_finished(), "the daemon has not started");
            tokio::task::yield_now().await;
        }
        Self { socket, http, plugs, shutdown, task }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
        assert!(!self.socket.exists());
    }

    async fn cni(&self, command: &str, container: &str, n: u64) -> (u16, Value) {
        let request = json!({
            "command": command, "containerId": container, "netns": "/proc/self/ns/net", "ifname": "eth0",
            "args": format!("K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-{n};K8S_POD_UID={}", uid(n)),
            "path": "", "config": { "cniVersion": "1.0.0", "name": "kuryr" },
        });
        self.post("/cni", &request.to_string()).await
    }

    async fn post(&self, path: &str, body: &str) -> (u16, Value) {
        let stream = UnixStream::connect(&self.socket).await.unwrap();
        let length = body.len();
        http(
            stream,
            &format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"),
        )
        .await
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        match path {
            "/attachments" => http(UnixStream::connect(&self.socket).await.unwrap(), &request).await,
            _ => http(tokio::net::TcpStream::connect(self.http).await.unwrap(), &request).await,
        }
    }

    async fn ready(&self) {
        let ready = async {
            while self.get("/readyz").await.0 != 200 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), ready).await.expect("ready in time");
    }
}

/// Status and body, which is a string where it is not JSON.
async fn http(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, request: &str) -> (u16, Value) {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let body = serde_json::from_str(body).unwrap_or_else(|_| body.into());
    (head[9..12].parse().unwrap(), body)
}

#[tokio::test]
async fn a_pod_goes_from_assigned_to_attached_to_released() {
    let folder = tempfile::tempdir().unwrap();
    let (api, client) = api_server().await;
    api.put(&kuryr_port("web-1", 1));
    let daemon = Daemon::start(folder.path(), client, Arc::default()).await;
    let (status, result) = daemon.cni("ADD", "a", 1).await;
    assert_eq!((status, &result["ips"][0]["address"]), (200, &"10.1.0.1/16".into()), "{result}");
    let written = &api.written(1).await[0]["status"]["attachment"];
    assert_eq!((&written["state"], &written["containerId"]), (&"Attached".into(), &"a".into()));

    api.delete("web-1");
    assert_eq!(daemon.cni("DEL", "a", 1).await, (200, "".into()));
    let written = api.written(2).await;
    assert_eq!(written[1]["status"]["attachment"]["state"], "Released");
    assert_eq!(api.port("web-1").attachment_state(), Some(AttachmentState::Released));
    assert_eq!(daemon.cni("ADD", "b", 1).await.1["code"], 3, "no new sandbox for a pod whose port is released");
    assert_eq!(api.selectors.lock().unwrap()[0], "spec.nodeName=node-1");
    daemon.stop().await;
    assert_eq!(api.written(0).await.len(), 2, "each state is written once");
}

#[tokio::test]
async fn a_pod_that_never_started_is_released_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (api, client) = api_server().await;
    let mut port = kuryr_port("web-1", 1);
    testing::delete(&mut port);
    api.put(&port);
    let daemon = Daemon::start(folder.path(), client, Arc::default()).await;
    assert_eq!(api.written(1).await[0]["status"]["attachment"]["state"], "Released");
    daemon.stop().await;
}

#[tokio::test]
async fn a_status_survives_conflicts_errors_and_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (api, client) = api_server().await;
    api.put(&kuryr_port("web-1", 1));
    api.faults.lock().unwrap().push(500);
    let daemon = Daemon::start(folder.path(), client.clone(), Arc::default()).await;
    daemon.ready().await;
    // The daemon's version is old by the time it writes: it writes again when the watch has brought the new one.
    api.faults.lock().unwrap().push(409);
    assert_eq!(daemon.cni("ADD", "a", 1).await.0, 200);
    let mut port = api.port("web-1");
    port.metadata.labels = Some([("x".into(), "y".into())].into());
    api.put(&port);
    assert_eq!(api.written(1).await[0]["status"]["attachment"]["containerId"], "a");
    let plugs = Arc::clone(&daemon.plugs);
    daemon.stop().await;

    // DEL by a fresh daemon, while its KuryrPort is deleted.
    api.delete("web-1");
    let daemon = Daemon::start(folder.path(), client, plugs).await;
    let (status, report) = daemon.get("/attachments").await;
    assert_eq!((status, &report["attachments"][0]["containerId"]), (200, &"a".into()), "{report}");
    assert_eq!(daemon.cni("DEL", "a", 1).await.0, 200);
    assert_eq!(daemon.plugs.plugged(), []);
    assert_eq!(api.written(2).await[1]["status"]["attachment"]["state"], "Released");
    daemon.stop().await;
}

#[tokio::test]
async fn an_add_in_vain_is_an_event_on_the_pod_and_a_malformed_kuryr_port_harms_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let (api, client) = api_server().await;
    let mut malformed = serde_json::to_value(kuryr_port("web-1", 1)).unwrap();
    malformed["spec"]["vifs"][0]["mac"] = "not a MAC".into();
    api.put(&malformed);
    api.put(&kuryr_port("web-2", 2));
    let daemon = Daemon::start(folder.path(), client, Arc::default()).await;
    let (status, error) = daemon.cni("ADD", "a", 1).await;
    assert_eq!((status, &error["code"], &error["cniVersion"]), (500, &11.into(), &"1.0.0".into()));
    assert!(error["msg"].as_str().unwrap().contains("not a MAC"), "{error}");
    assert_eq!(daemon.cni("ADD", "b", 2).await.0, 200);
    let mut events = api.events.subscribe();
    let event = events.wait_for(|events| !events.is_empty()).await.unwrap()[0].clone();
    assert_eq!((&event["reason"], &event["regarding"]["name"]), (&"PortNotReady".into(), &"web-1".into()));
    assert_eq!(event["regarding"]["uid"], uid(1).as_str());
    daemon.stop().await;
}

#[tokio::test]
async fn requests_that_are_none_are_refused_and_health_says_nothing_secret() {
    let folder = tempfile::tempdir().unwrap();
    let (api, client) = api_server().await;
    let daemon = Daemon::start(folder.path(), client, Arc::default()).await;
    daemon.ready().await;
    let (status, error) = daemon.post("/cni", "{\"command\":").await;
    assert_eq!((status, &error["code"]), (500, &6.into()));
    assert_eq!(daemon.get("/healthz").await, (200, "ok\n".into()));
    api.put(&kuryr_port("web-1", 1));
    daemon.cni("ADD", "a", 1).await;
    let (_, metrics) = daemon.get("/metrics").await;
    let metrics = metrics.as_str().unwrap();
    assert!(metrics.contains("kuryr_attachments 1\n") && metrics.contains("kuryr_watch_synced 1\n"), "{metrics}");
    assert!(!metrics.contains("web-1") && !metrics.contains("10.1.0.1"), "{metrics}");
    assert_eq!(daemon.post("/attachments/prune", "").await, (200, json!({ "problems": [] })));
    daemon.stop().await;
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let (_api, client) = api_server().await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = DaemonConfig::new("node-1");
    config.socket = folder.path().join("cni.sock");
    config.state_folder = folder.path().join("state");
    config.http_address = taken.local_addr().unwrap();
    let start = |config: DaemonConfig| run(config, client.clone(), CancellationToken::new());
    assert!(matches!(start(config.clone()).await, Err(DaemonError::Http { .. })));
    config.node_name.clear();
    assert!(matches!(start(config.clone()).await, Err(DaemonError::Config(_))));
    config.node_name.push('x');
    config.state_folder = "/proc/nothing".into();
    assert!(matches!(start(config).await, Err(DaemonError::State(_))));
}

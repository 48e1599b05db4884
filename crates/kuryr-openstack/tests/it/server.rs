//! A server that is Keystone and whatever service a test scripts, on one port number.

use axum::{
    Router,
    body::Bytes,
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use kuryr_openstack::{Cloud, CloudConfig, LoadBalancing, Service};
use serde_json::{Value, json};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{net::TcpListener, task::JoinHandle};

pub(crate) const PASSWORD: &str = "s3cr3t-pass";

/// A request to a service other than Keystone.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn token(&self) -> &str {
        self.header("x-auth-token")
    }
}

type Script = Arc<dyn Fn(&Seen) -> Response + Send + Sync>;

#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) tokens: Arc<AtomicUsize>,
    pub(crate) seen: Arc<Mutex<Vec<Seen>>>,
    /// Lifetime of tokens in seconds.
    pub(crate) lifetime: Arc<AtomicUsize>,
    /// What Keystone answers instead of a token.
    pub(crate) keystone: Arc<Mutex<Option<(u16, Value)>>>,
    pub(crate) logins: Arc<Mutex<Vec<Value>>>,
    script: Script,
    task: Arc<Stop>,
}

struct Stop(Mutex<Option<JoinHandle<()>>>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.lock().unwrap().take().unwrap().abort();
    }
}

impl Server {
    pub(crate) async fn start(script: impl Fn(&Seen) -> Response + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            tokens: Arc::default(),
            seen: Arc::default(),
            lifetime: Arc::new(AtomicUsize::new(3600)),
            keystone: Arc::default(),
            logins: Arc::default(),
            script: Arc::new(script),
            task: Arc::new(Stop(Mutex::new(None))),
        };
        let state = Self { task: Arc::new(Stop(Mutex::new(Some(tokio::spawn(async {}))))), ..server.clone() };
        let app = Router::new().fallback(handle).with_state(state);
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        *server.task.0.lock().unwrap() = Some(task);
        server
    }

    pub(crate) fn config(&self) -> CloudConfig {
        CloudConfig::password(&self.url, "kuryr", PASSWORD, "k8s", "Default")
    }

    pub(crate) async fn connect(&self) -> Cloud {
        Cloud::connect(self.config()).await.unwrap()
    }

    /// Octavia's client; Octavia is registered without its version.
    pub(crate) async fn octavia(&self) -> LoadBalancing {
        let mut config = self.config();
        config.overrides.insert(Service::LoadBalancer, format!("{}/load-balancer", self.url));
        Cloud::connect(config).await.unwrap().load_balancing()
    }

    pub(crate) fn logins(&self) -> usize {
        self.logins.lock().unwrap().len()
    }

    pub(crate) fn requests(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn token(&self, login: Value) -> Response {
        self.logins.lock().unwrap().push(login);
        if let Some((status, body)) = self.keystone.lock().unwrap().clone() {
            return (StatusCode::from_u16(status).unwrap(), axum::Json(body)).into_response();
        }
        let number = self.tokens.fetch_add(1, Ordering::SeqCst) + 1;
        let issued = jiff::Timestamp::UNIX_EPOCH;
        let expires = issued + Duration::from_secs(self.lifetime.load(Ordering::SeqCst) as u64);
        let body = json!({"token": {
            "issued_at": issued.to_string(), "expires_at": expires.to_string(),
            "user": {"id": "u", "name": "kuryr"}, "project": {"id": "p1", "name": "k8s"}, "roles": [{"name": "admin"}],
            "catalog": [{"type": "network", "endpoints": [
                {"interface": "public", "region": "one", "region_id": "one", "url": format!("{}/network", self.url)}]}],
        }});
        (StatusCode::CREATED, [("x-subject-token", format!("token-{number}"))], axum::Json(body)).into_response()
    }
}

async fn handle(State(server): State<Server>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body: Bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let uri: &Uri = &parts.uri;
    if uri.path() == "/v3/auth/tokens" {
        return server.token(body);
    }
    let seen = Seen {
        method: parts.method,
        path: uri.path().to_owned(),
        query: uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
        body,
    };
    server.seen.lock().unwrap().push(seen.clone());
    (server.script)(&seen)
}

pub(crate) fn ok(body: Value) -> Response {
    axum::Json(body).into_response()
}

pub(crate) fn answer(status: u16, body: Value) -> Response {
    (StatusCode::from_u16(status).unwrap(), axum::Json(body)).into_response()
}

pub(crate) fn neutron_error(status: u16, kind: &str, message: &str) -> Response {
    answer(status, json!({"NeutronError": {"type": kind, "message": message, "detail": ""}}))
}

pub(crate) fn octavia_error(status: u16, message: &str) -> Response {
    let side = if status < 500 { "Client" } else { "Server" };
    answer(status, json!({"faultcode": side, "faultstring": message, "debuginfo": null}))
}

pub(crate) fn id(number: u32) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

pub(crate) fn port(number: u32) -> Value {
    json!({"id": id(number), "network_id": id(0), "mac_address": "fa:16:3e:00:00:01", "revision_number": 4})
}

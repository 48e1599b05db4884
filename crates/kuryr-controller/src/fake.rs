//! A Neutron and an API server for unit tests: in memory, and as careless as a test wants.

use crate::{policy::Keeper, topology::Topology};
use axum::{
    Router,
    body::Bytes,
    extract::{Request, State},
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
};
use kube::client::Body;
use kuryr_model::{NetworkId, Vif, neutron};
use kuryr_openstack::{Cloud, CloudConfig};
use kuryr_plan::{policy::Settings, subnets::choices};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};
use tokio::sync::{OwnedRwLockWriteGuard, RwLock};

const NETWORK: &str = "00000000-0000-0000-0000-0000000000aa";
const SUBNET: &str = "00000000-0000-0000-0000-000000000001";
const OPEN_GROUPS: [&str; 2] = ["00000000-0000-0000-0000-000000000002", "00000000-0000-0000-0000-000000000003"];

/// What becomes of a create of ports.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fate {
    Fine,
    /// It is carried out, and then there is no answer of it.
    Lost,
    /// It is carried out at [`Neutron::carry_out`].
    Late,
}

/// Keystone and the ports of Neutron, on one port number of this machine.
#[derive(Clone)]
pub(crate) struct Neutron {
    url: String,
    state: Arc<Mutex<Ports>>,
    /// Closed while somebody holds it for writing: creates wait.
    gate: Arc<RwLock<()>>,
}

#[derive(Default)]
struct Ports {
    there: BTreeMap<String, Value>,
    made: usize,
    quota: Option<usize>,
    fates: VecDeque<Fate>,
    refuse_lists: bool,
    refuse_tags: bool,
    late: Vec<Value>,
    /// `POST 3`, `GET`, `PUT`, `PUT tags`, `DELETE`.
    log: Vec<String>,
}

impl Neutron {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let neutron = Self { url, state: Arc::default(), gate: Arc::default() };
        let app = Router::new().fallback(serve).with_state(neutron.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        neutron
    }

    pub(crate) async fn cloud(&self) -> Cloud {
        Cloud::connect(CloudConfig::password(&self.url, "kuryr", "secret", "k8s", "Default")).await.unwrap()
    }

    /// What becomes of the next creates.
    pub(crate) fn next(&self, fates: &[Fate]) {
        self.state.lock().fates.extend(fates);
    }

    /// Creates are begun, and not carried out before this is dropped.
    pub(crate) async fn hold_creates(&self) -> OwnedRwLockWriteGuard<()> {
        self.gate.clone().write_owned().await
    }

    pub(crate) fn set_quota(&self, ports: usize) {
        self.state.lock().quota = Some(ports);
    }

    /// Does what was asked for long ago.
    pub(crate) fn carry_out(&self) {
        let mut state = self.state.lock();
        for ports in std::mem::take(&mut state.late) {
            let _ = state.create(&ports);
        }
    }

    pub(crate) fn ports(&self) -> Vec<String> {
        self.state.lock().there.keys().cloned().collect()
    }

    /// From now on it lists nothing.
    pub(crate) fn refuse_lists(&self, refuse: bool) {
        self.state.lock().refuse_lists = refuse;
    }

    /// From now on it changes no tags.
    pub(crate) fn refuse_tags(&self, refuse: bool) {
        self.state.lock().refuse_tags = refuse;
    }

    /// The security groups of a port.
    pub(crate) fn groups(&self, port: &impl ToString) -> Vec<String> {
        let state = self.state.lock();
        let groups = state.there.get(&port.to_string()).map(|port| port["security_groups"].clone());
        groups.map(|groups| serde_json::from_value(groups).unwrap()).unwrap_or_default()
    }

    /// The requests since the last call.
    pub(crate) fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().log)
    }
}

impl Ports {
    /// Makes all, or none where the quota is used up.
    fn create(&mut self, wanted: &Value) -> Option<Vec<Value>> {
        let wanted = wanted.as_array().unwrap();
        if self.quota.is_some_and(|quota| self.there.len() + wanted.len() > quota) {
            return None;
        }
        let mut made = Vec::new();
        for port in wanted {
            self.made += 1;
            let n = self.made;
            let mut port = port.clone();
            port["id"] = json!(format!("00000000-0000-0000-0001-{n:012}"));
            port["mac_address"] = json!("fa:16:3e:00:00:01");
            port["fixed_ips"] =
                json!([{"subnet_id": SUBNET, "ip_address": format!("10.0.{}.{}", n / 200, n % 200 + 2)}]);
            port["binding:vif_type"] = json!("ovs");
            self.there.insert(port["id"].as_str().unwrap().to_owned(), port.clone());
            made.push(port);
        }
        Some(made)
    }
}

async fn serve(State(neutron): State<Neutron>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body: Bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    if parts.uri.path() == "/v3/auth/tokens" {
        return neutron.token();
    }
    if parts.method == Method::POST {
        let wanted = serde_json::from_slice::<Value>(&body).unwrap()["ports"].as_array().unwrap().len();
        neutron.state.lock().log.push(format!("POST {wanted}"));
        let _open = neutron.gate.read().await;
    }
    let mut state = neutron.state.lock();
    match parts.method {
        Method::GET => {
            state.log.push("GET".to_owned());
            if state.refuse_lists {
                return answer(409, json!({"NeutronError": {"type": "Away", "message": "", "detail": ""}}));
            }
            let query = parts.uri.query().unwrap_or_default();
            let of = |port: &&Value| {
                let marked = |part: &str| {
                    let tags = port["tags"].as_array().into_iter().flatten();
                    part.strip_prefix("tags-any=").is_some_and(|mark| tags.into_iter().any(|tag| tag == mark))
                };
                query.split('&').any(marked) || !query.contains("tags-any=")
            };
            let ports: Vec<&Value> = state.there.values().filter(of).collect();
            answer(200, json!({"ports": ports}))
        }
        Method::POST => {
            let wanted = serde_json::from_slice::<Value>(&body).unwrap()["ports"].clone();
            let fate = state.fates.pop_front().unwrap_or(Fate::Fine);
            let made = match fate {
                Fate::Late => {
                    state.late.push(wanted);
                    return answer(504, Value::Null);
                }
                Fate::Fine | Fate::Lost => state.create(&wanted),
            };
            match made {
                _ if fate == Fate::Lost => answer(504, Value::Null),
                Some(ports) => answer(201, json!({"ports": ports})),
                None => {
                    let message = "Quota exceeded for resources: ['port'].";
                    let error = json!({"type": "OverQuota", "message": message, "detail": ""});
                    answer(409, json!({"NeutronError": error}))
                }
            }
        }
        Method::PUT if parts.uri.path().ends_with("/tags") => {
            state.log.push("PUT tags".to_owned());
            let id = parts.uri.path().rsplit('/').nth(1).unwrap();
            let tags = serde_json::from_slice::<Value>(&body).unwrap()["tags"].clone();
            let refused = state.refuse_tags;
            match state.there.get_mut(id).filter(|_| !refused) {
                Some(port) => {
                    port["tags"] = tags.clone();
                    answer(200, json!({"tags": tags}))
                }
                None => answer(404, json!({"NeutronError": {"type": "TagNotFound", "message": "", "detail": ""}})),
            }
        }
        Method::PUT => {
            state.log.push("PUT".to_owned());
            let id = parts.uri.path().rsplit('/').next().unwrap();
            let change = serde_json::from_slice::<Value>(&body).unwrap()["port"].clone();
            match state.there.get_mut(id) {
                Some(port) => {
                    merge(port, &change);
                    answer(200, json!({"port": port}))
                }
                None => answer(404, json!({"NeutronError": {"type": "PortNotFound", "message": "", "detail": ""}})),
            }
        }
        _ => {
            state.log.push("DELETE".to_owned());
            let id = parts.uri.path().rsplit('/').next().unwrap();
            let status = if state.there.remove(id).is_some() { 204 } else { 404 };
            StatusCode::from_u16(status).unwrap().into_response()
        }
    }
}

impl Neutron {
    fn token(&self) -> Response {
        let endpoint = json!({"interface": "public", "region": "one", "url": format!("{}/network", self.url)});
        let body = json!({"token": {
            "issued_at": "2026-01-01T00:00:00Z", "expires_at": "2026-01-01T06:00:00Z",
            "user": {"id": "u", "name": "kuryr"}, "project": {"id": "p", "name": "k8s"}, "roles": [{"name": "admin"}],
            "catalog": [{"type": "network", "endpoints": [endpoint]}],
        }});
        (StatusCode::CREATED, [("x-subject-token", "token")], axum::Json(body)).into_response()
    }
}

fn answer(status: u16, body: Value) -> Response {
    (StatusCode::from_u16(status).unwrap(), axum::Json(body)).into_response()
}

/// One pod subnet.
pub(crate) fn topology() -> Topology {
    let network: neutron::Network = serde_json::from_value(json!({"id": NETWORK, "mtu": 1442})).unwrap();
    let subnet: neutron::Subnet = serde_json::from_value(json!({
        "id": SUBNET, "network_id": NETWORK, "name": "pods", "cidr": "10.0.0.0/16", "gateway_ip": "10.0.0.1",
    }))
    .unwrap();
    let subnets = vec![subnet];
    let networks = [(NETWORK.parse::<NetworkId>().unwrap(), network)].into();
    let open_groups = OPEN_GROUPS.map(|id| id.parse().unwrap());
    Topology { choices: choices(&subnets), subnets, networks, open_groups, tells_room: false }
}

/// The VIF of a port.
pub(crate) fn vif(port: &str) -> Vif {
    serde_json::from_value(json!({
        "interface": "eth0", "portId": port, "networkId": NETWORK, "mac": "fa:16:3e:00:00:01", "mtu": 1442,
        "addresses": [], "plug": {"driver": "ovs"},
    }))
    .unwrap()
}

/// What is known of policies: nothing, so that every pod is open.
pub(crate) fn keeper() -> Arc<Keeper> {
    Arc::new(Keeper::new(Settings::default(), OPEN_GROUPS.map(|id| id.parse().unwrap())))
}

/// What becomes of a write.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Trouble {
    Refused(u16),
    /// It is done, and then there is no answer of it.
    Lost,
}

/// The `KuryrPort`s of an API server; Events vanish.
#[derive(Clone, Default)]
pub(crate) struct Api(Arc<Mutex<Objects>>);

#[derive(Default)]
struct Objects {
    there: BTreeMap<String, Value>,
    version: u64,
    /// Method, last part of the path, and how often more.
    troubles: Vec<(Method, &'static str, Trouble, usize)>,
}

impl Api {
    pub(crate) fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let api = api.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap();
                let body: Value = serde_json::from_slice(&body).unwrap_or_default();
                let (status, body) = api.serve(&parts.method, &parts.uri, body);
                let response = http::Response::builder().status(status);
                Ok::<_, std::io::Error>(response.body(Body::from(body.to_string().into_bytes())).unwrap())
            }
        });
        kube::Client::new(service, "default")
    }

    /// The next `times` calls of `method` to a path that ends so go wrong.
    pub(crate) fn trouble(&self, method: Method, end: &'static str, trouble: Trouble, times: usize) {
        self.0.lock().troubles.push((method, end, trouble, times));
    }

    pub(crate) fn calm(&self) {
        self.0.lock().troubles.clear();
    }

    pub(crate) fn port(&self, name: &str) -> Option<Value> {
        self.0.lock().there.get(name).cloned()
    }

    fn serve(&self, method: &Method, uri: &http::Uri, body: Value) -> (u16, Value) {
        if !uri.path().contains("/kuryrports") {
            return (201, body);
        }
        let mut objects = self.0.lock();
        let trouble = objects
            .troubles
            .iter_mut()
            .find(|(of, end, _, left)| of == method && uri.path().ends_with(end) && *left > 0);
        let trouble = trouble.map(|(_, _, trouble, left)| {
            *left -= 1;
            *trouble
        });
        if let Some(Trouble::Refused(code)) = trouble {
            return refusal(code);
        }
        let done = objects.work(method, uri, body);
        if trouble == Some(Trouble::Lost) { refusal(504) } else { done }
    }
}

fn refusal(code: u16) -> (u16, Value) {
    let message = "exceeded quota: ports";
    (
        code,
        json!({"kind": "Status", "status": "Failure", "code": code, "reason": "x", "message": message, "metadata": {}}),
    )
}

impl Objects {
    fn work(&mut self, method: &Method, uri: &http::Uri, body: Value) -> (u16, Value) {
        self.version += 1;
        let version = json!(self.version.to_string());
        let name = uri.path().split_once("/kuryrports/").map(|(_, rest)| rest.trim_end_matches("/status").to_owned());
        match (method, name) {
            (&Method::GET, None) => {
                let query = uri.query().unwrap_or_default().replace("%3D", "=");
                let named = |name: &str| query.contains(&format!("metadata.name={name}"));
                let items: Vec<&Value> =
                    self.there.iter().filter(|(name, _)| named(name)).map(|(_, port)| port).collect();
                (
                    200,
                    json!({"kind": "KuryrPortList", "apiVersion": "kuryr.openstack.org/v1", "metadata": {}, "items": items}),
                )
            }
            (&Method::POST, None) => {
                let name = body["metadata"]["name"].as_str().unwrap().to_owned();
                if self.there.contains_key(&name) {
                    return refusal(409);
                }
                let mut made = body;
                made["metadata"]["uid"] = json!(format!("uid-{}", self.version));
                made["metadata"]["namespace"] = json!("shop");
                made["metadata"]["resourceVersion"] = version;
                self.there.insert(name, made.clone());
                (201, made)
            }
            (&Method::PATCH, Some(name)) => {
                let Some(port) = self.there.get_mut(&name) else { return refusal(404) };
                merge(port, &body);
                port["metadata"]["resourceVersion"] = version;
                let done = port.clone();
                if done["metadata"]["deletionTimestamp"].is_string() && done["metadata"]["finalizers"] == json!([]) {
                    self.there.remove(&name);
                }
                (200, done)
            }
            (&Method::DELETE, Some(name)) => {
                let Some(port) = self.there.get_mut(&name) else { return refusal(404) };
                port["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
                port["metadata"]["resourceVersion"] = version;
                (200, port.clone())
            }
            _ => refusal(405),
        }
    }
}

/// A JSON merge patch.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, change) in changes {
        merge(&mut target[key], change);
    }
}

//! Listeners.

use axum::http::StatusCode;
use ipnet::IpNet;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::error::{Error, Result};
use super::fields::{Check, Field, Fields, Need, PORT, PROJECT, may, must, or, read};
use super::model::{Head, Listener, ListenerSpec, LoadBalancer, Provisioning};
use super::provisioning::{Change, Step, Target};
use super::query::{Item, list, one};
use super::{Context, Octavia, pools, render};
use crate::cloud::body::{Body, shown_list};
use crate::cloud::http::Answer;

const PROTOCOLS: &[&str] = &["TCP", "HTTPS", "HTTP", "TERMINATED_HTTPS", "UDP", "SCTP", "PROMETHEUS"];

/// The timeouts of a listener and what they are when nobody sets them, in milliseconds.
pub(crate) const TIMEOUTS: [(&str, i64); 4] = [
    ("timeout_client_data", 50_000),
    ("timeout_member_connect", 5_000),
    ("timeout_member_data", 50_000),
    ("timeout_tcp_inspect", 0),
];

const TIMEOUT: Check = Check::Int(0, 24 * 24 * 60 * 60 * 1000);

const COMMON: &[Field] = &[
    may("name", Check::Text(255)),
    may("description", Check::Text(255)),
    or("admin_state_up", Check::Bool, Need::Yes),
    may("connection_limit", Check::Int(-1, i64::MAX)),
    may("default_tls_container_ref", Check::Text(255)),
    may("sni_container_refs", Check::Texts(255)),
    may("default_pool_id", Check::Uuid),
    may("insert_headers", Check::TextMap),
    may("timeout_client_data", TIMEOUT),
    may("timeout_member_connect", TIMEOUT),
    may("timeout_member_data", TIMEOUT),
    may("timeout_tcp_inspect", TIMEOUT),
    may("tags", Check::Texts(255)),
    may("client_ca_tls_container_ref", Check::Text(255)),
    may("client_authentication", Check::OneOf(&["NONE", "OPTIONAL", "MANDATORY"])),
    may("client_crl_container_ref", Check::Text(255)),
    may("allowed_cidrs", Check::Cidrs),
    may("tls_ciphers", Check::Text(2048)),
    may("tls_versions", Check::Texts(32)),
    may("alpn_protocols", Check::Texts(32)),
];

const CREATE: &[Field] = &[
    must("protocol", Check::OneOf(PROTOCOLS)),
    must("protocol_port", PORT),
    may("default_pool", Check::Object(pools::IN_TREE)),
    // There is no L7 here: the list may only be empty.
    may("l7policies", Check::List(&[])),
];

const POST: &[Field] = &[must("loadbalancer_id", Check::Uuid)];

/// A listener in a fully populated load balancer.
pub(crate) const IN_TREE: Fields = &[COMMON, CREATE];

/// The protocols that a listener's pools may have.
const POOLS: &[(&str, &[&str])] = &[
    ("TCP", &["HTTP", "HTTPS", "PROXY", "PROXYV2", "TCP"]),
    ("HTTP", &["HTTP", "PROXY", "PROXYV2"]),
    ("HTTPS", &["HTTPS", "PROXY", "PROXYV2", "TCP"]),
    ("TERMINATED_HTTPS", &["HTTP", "PROXY", "PROXYV2"]),
    ("UDP", &["UDP"]),
    ("SCTP", &["SCTP"]),
];

const HEADERS: &[&str] = &["X-Forwarded-For", "X-Forwarded-Port", "X-Forwarded-Proto"];

const SSL_HEADERS: &[&str] = &[
    "X-SSL-Client-Verify",
    "X-SSL-Client-Has-Cert",
    "X-SSL-Client-DN",
    "X-SSL-Client-CN",
    "X-SSL-Issuer",
    "X-SSL-Client-SHA1",
    "X-SSL-Client-Not-Before",
    "X-SSL-Client-Not-After",
];

/// What listeners may be filtered by.
const NAMES: &[&str] = &[
    "description",
    "loadbalancer_id",
    "load_balancer_id",
    "protocol",
    "protocol_port",
    "default_pool_id",
    "connection_limit",
];

impl ListenerSpec {
    pub(crate) fn of_create(body: &Body) -> Self {
        let mut spec = Self {
            enabled: true,
            protocol: body.text("protocol").unwrap_or_default().to_owned(),
            port: body.int("protocol_port").and_then(|port| port.try_into().ok()).unwrap_or_default(),
            connection_limit: -1,
            pool: None,
            insert_headers: Map::new(),
            cidrs: Vec::new(),
            timeouts: TIMEOUTS.map(|(_, default)| default),
        };
        spec.write(body);
        spec
    }

    /// Takes over what a request names; `null` is the default.
    pub(crate) fn write(&mut self, body: &Body) {
        if body.has("admin_state_up") {
            self.enabled = body.boolean("admin_state_up").unwrap_or(false);
        }
        if body.has("connection_limit") {
            self.connection_limit = body.int("connection_limit").unwrap_or(-1);
        }
        if body.has("default_pool_id") {
            self.pool = body.uuid("default_pool_id");
        }
        if let Some(headers) = body.get("insert_headers") {
            self.insert_headers = headers.as_object().cloned().unwrap_or_default();
        }
        if body.has("allowed_cidrs") {
            let nets = body.texts("allowed_cidrs").unwrap_or_default();
            self.cidrs = nets.iter().filter_map(|net| net.parse().ok()).collect();
        }
        for (target, (name, default)) in self.timeouts.iter_mut().zip(TIMEOUTS) {
            if body.has(name) {
                *target = body.int(name).unwrap_or(default);
            }
        }
    }
}

/// A pool that cannot serve a listener of this protocol.
pub(crate) fn check_protocols(listener: &str, pool: &str) -> Result<()> {
    let allowed = POOLS.iter().find(|(protocol, _)| *protocol == listener).map(|(_, pools)| *pools).unwrap_or_default();
    if allowed.contains(&pool) {
        return Ok(());
    }
    let detail = format!("The pool protocol '{pool}' is invalid while the listener protocol is '{listener}'.");
    Err(Error::validation(detail))
}

fn check_headers(spec: &ListenerSpec) -> Result<()> {
    let protocol = &spec.protocol;
    if spec.insert_headers.is_empty() {
        return Ok(());
    }
    if !["HTTP", "TERMINATED_HTTPS"].contains(&protocol.as_str()) {
        return Err(Error::option("insert-headers", format!("a {protocol} protocol listener.")));
    }
    let names = || spec.insert_headers.keys().map(String::as_str);
    if names().any(|name| !HEADERS.contains(&name) && !SSL_HEADERS.contains(&name)) {
        return Err(Error::option(format!("dict_keys({})", shown_list(names())), "insert_headers"));
    }
    let ssl: Vec<&str> = names().filter(|name| SSL_HEADERS.contains(name)).collect();
    if protocol == "HTTP" && !ssl.is_empty() {
        return Err(Error::option(shown_list(ssl), format!("{protocol} protocol listener.")));
    }
    Ok(())
}

/// There is no store of certificates here: references that are needed are missing, or cannot be read.
fn check_certificates(spec: &ListenerSpec, body: &Body, create: bool) -> Result<()> {
    let protocol = &spec.protocol;
    let one = body.text("default_tls_container_ref").map(str::to_owned);
    let refs: Vec<String> = body.texts("sni_container_refs").unwrap_or_default().into_iter().chain(one).collect();
    let authority = body.text("client_ca_tls_container_ref").is_some();
    let offload = protocol == "TERMINATED_HTTPS";
    if !offload && (authority || !refs.is_empty()) {
        let detail = format!("Certificate container references are not allowed on {protocol} protocol listeners.");
        return Err(Error::validation(detail));
    }
    if offload && create && refs.is_empty() {
        return Err(Error::validation(format!(
            "An SNI or default certificate container reference must be provided for {protocol} protocol listeners."
        )));
    }
    if let Some(mode) = body.text("client_authentication").filter(|mode| *mode != "NONE" && !authority) {
        let detail = format!("Client authentication setting {mode} requires a client CA container reference.");
        return Err(Error::validation(detail));
    }
    if !refs.is_empty() {
        let refs = shown_list(refs.iter().map(String::as_str));
        return Err(Error::bad(format!("Could not retrieve certificate: {refs}")));
    }
    Ok(())
}

fn check_cidrs(balancer: &LoadBalancer, cidrs: &[IpNet]) -> Result<()> {
    let vip = balancer.vip.address;
    match cidrs.iter().find(|cidr| cidr.addr().is_ipv4() != vip.is_ipv4()) {
        None => Ok(()),
        Some(cidr) => Err(Error::validation(format!("CIDR {cidr} IP version incompatible with VIP {vip} IP version."))),
    }
}

/// What lies below a protocol: two listeners may have one port number only if these differ.
fn transport(protocol: &str) -> &str {
    if ["UDP", "SCTP"].contains(&protocol) { protocol } else { "TCP" }
}

/// Checks a new listener against the others of its load balancer.
pub(crate) fn check_new(balancer: &LoadBalancer, spec: &ListenerSpec, body: &Body) -> Result<()> {
    check_headers(spec)?;
    check_certificates(spec, body, true)?;
    let same = |other: &&Listener| {
        other.spec.port == spec.port && transport(&other.spec.protocol) == transport(&spec.protocol)
    };
    if let Some(other) = balancer.listeners.iter().find(same) {
        return Err(Error::conflict(format!(
            "Another Listener on this Load Balancer is already using protocol {} and protocol_port {}",
            other.spec.protocol, spec.port
        )));
    }
    check_cidrs(balancer, &spec.cidrs)
}

/// The pool that a request names must be of the same load balancer.
pub(crate) fn check_pool(balancer: &LoadBalancer, pool: Uuid, protocol: &str) -> Result<()> {
    if protocol == "PROMETHEUS" {
        return Err(Error::bad("Protocol PROMETHEUS listeners cannot have child objects."));
    }
    let pool = balancer.pool(pool).ok_or_else(|| Error::not_found("Pool", pool))?;
    check_protocols(protocol, &pool.row.spec.protocol)
}

pub(crate) fn shown_listener(balancer: &LoadBalancer, listener: &Listener, full: bool) -> Map<String, Value> {
    let spec = &listener.spec;
    let mut shown = render::head(&listener.head, &balancer.project, spec.enabled);
    render::add(
        &mut shown,
        json!({
            "description": listener.head.description, "protocol": spec.protocol, "protocol_port": spec.port,
            "connection_limit": spec.connection_limit, "default_pool_id": spec.pool, "l7policies": [],
            "insert_headers": spec.insert_headers, "allowed_cidrs": if spec.cidrs.is_empty() { None } else { Some(&spec.cidrs) },
            "default_tls_container_ref": null, "sni_container_refs": [], "client_ca_tls_container_ref": null,
            "client_authentication": "NONE", "client_crl_container_ref": null, "tls_ciphers": null, "tls_versions": null,
            "alpn_protocols": null,
        }),
    );
    for ((name, _), value) in TIMEOUTS.iter().zip(spec.timeouts) {
        shown.insert((*name).to_owned(), json!(value));
    }
    if !full {
        shown.insert("loadbalancers".into(), json!([{ "id": balancer.head.id }]));
    }
    shown
}

fn answer(context: &Context, status: StatusCode, balancer: &LoadBalancer, id: Uuid) -> Result<Answer> {
    let listener = balancer.listener(id).ok_or_else(|| Error::not_found("Listener", id))?;
    Ok(one(context.call, status, "listener", shown_listener(balancer, listener, false)))
}

pub(crate) fn all(octavia: &Octavia, context: &Context) -> Result<Answer> {
    let item = |balancer: &LoadBalancer, listener: &Listener| {
        let id = json!(balancer.head.id);
        let hidden = vec![("loadbalancer_id", id.clone()), ("load_balancer_id", id)];
        Item { hidden, ..Item::new(listener.head.serial, shown_listener(balancer, listener, false)) }
    };
    let items = octavia.balancers().flat_map(|balancer| balancer.listeners.iter().map(move |l| item(balancer, l)));
    list(context.call, "listeners", NAMES, octavia.page_limit, items.collect())
}

pub(crate) fn show(octavia: &Octavia, context: &Context, id: &str) -> Result<Answer> {
    let (balancer, id) = octavia.with_child("Listener", id, |balancer, id| balancer.listener(id).is_some())?;
    answer(context, StatusCode::OK, balancer, id)
}

pub(crate) fn create(octavia: &mut Octavia, context: &Context) -> Result<Answer> {
    let body = read(context.call, "listener_", "listener", &[COMMON, CREATE, POST, PROJECT])?;
    let mut balancer = octavia.parent(&body)?;
    octavia.check_quota(&balancer.project, "listener", 1)?;
    let spec = ListenerSpec::of_create(&body);
    if let Some(pool) = spec.pool {
        check_pool(&balancer, pool, &spec.protocol)?;
    }
    balancer.lock()?;
    check_new(&balancer, &spec, &body)?;
    balancer.provider.check_listener(&spec)?;
    let head = Head::new(octavia.serial(), context.now(), &body);
    let id = head.id;
    balancer.listeners.push(Listener::new(head, spec));
    let change = Change::Put(Target::Listener(id));
    balancer.schedule(vec![Step::new(octavia.times.update, [change])], context.clock);
    let answer = answer(context, StatusCode::CREATED, &balancer, id);
    octavia.store(balancer);
    answer
}

pub(crate) fn update(octavia: &mut Octavia, context: &Context, id: &str) -> Result<Answer> {
    let body = read(context.call, "listener_", "listener", &[COMMON])?;
    let (balancer, id) = octavia.with_child("Listener", id, |balancer, id| balancer.listener(id).is_some())?;
    let mut balancer = balancer.clone();
    let old = balancer.listener(id).ok_or_else(|| Error::not_found("Listener", id))?;
    let mut spec = old.spec.clone();
    spec.write(&body);
    check_certificates(&spec, &body, false)?;
    check_headers(&spec)?;
    check_cidrs(&balancer, &spec.cidrs)?;
    if let Some(pool) = body.uuid("default_pool_id") {
        check_pool(&balancer, pool, &spec.protocol)?;
    }
    balancer.lock()?;
    if body.has("allowed_cidrs") {
        balancer.provider.check_listener(&spec)?;
    }
    let mut changes = vec![Change::Put(Target::Listener(id))];
    changes.extend(body.uuid("default_pool_id").map(|pool| Change::Put(Target::Pool(pool))));
    if let Some(listener) = balancer.listener_mut(id) {
        listener.head.write(&body);
        listener.head.provisioning = Provisioning::PendingUpdate;
        listener.head.updated = Some(context.now());
        listener.spec = spec;
    }
    balancer.schedule(vec![Step::new(octavia.times.update, changes)], context.clock);
    let answer = answer(context, StatusCode::OK, &balancer, id);
    octavia.store(balancer);
    answer
}

pub(crate) fn delete(octavia: &mut Octavia, context: &Context, id: &str) -> Result<Answer> {
    let (balancer, id) = octavia.with_child("Listener", id, |balancer, id| balancer.listener(id).is_some())?;
    let mut balancer = balancer.clone();
    balancer.lock()?;
    if let Some(listener) = balancer.listener_mut(id) {
        listener.head.provisioning = Provisioning::PendingDelete;
    }
    let change = Change::Gone(Target::Listener(id));
    balancer.schedule(vec![Step::new(octavia.times.update, [change])], context.clock);
    octavia.store(balancer);
    Ok(Answer::empty(StatusCode::NO_CONTENT))
}

pub(crate) fn stats(octavia: &Octavia, id: &str) -> Result<Answer> {
    octavia.with_child("Listener", id, |balancer, id| balancer.listener(id).is_some())?;
    Ok(render::stats())
}

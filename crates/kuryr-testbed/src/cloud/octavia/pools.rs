//! Pools.

use axum::http::StatusCode;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::error::{Error, Result};
use super::fields::{Check, Field, Fields, Need, PROJECT, may, must, or, read};
use super::model::{Head, LoadBalancer, Persistence, Pool, PoolSpec, Provisioning, Row};
use super::provisioning::{Change, Step, Target};
use super::query::{Item, list, one};
use super::{Context, Octavia, health_monitors, listeners, members, render};
use crate::cloud::body::Body;
use crate::cloud::http::Answer;

const PROTOCOL: Check = Check::OneOf(&["TCP", "HTTP", "HTTPS", "PROXY", "PROXYV2", "UDP", "SCTP"]);
const ALGORITHM: Check = Check::OneOf(&["SOURCE_IP", "LEAST_CONNECTIONS", "ROUND_ROBIN", "SOURCE_IP_PORT"]);

const PERSISTENCE: &[Field] = &[
    must("type", Check::OneOf(&["SOURCE_IP", "HTTP_COOKIE", "APP_COOKIE"])),
    may("cookie_name", Check::Text(255)),
    may("persistence_timeout", Check::Int(i64::MIN, i64::MAX)),
    may("persistence_granularity", Check::Ip),
];

const COMMON: &[Field] = &[
    may("name", Check::Text(255)),
    may("description", Check::Text(255)),
    or("admin_state_up", Check::Bool, Need::Yes),
    may("session_persistence", Check::Object(&[PERSISTENCE])),
    may("tags", Check::Texts(255)),
    may("tls_container_ref", Check::Text(255)),
    may("ca_tls_container_ref", Check::Text(255)),
    may("crl_container_ref", Check::Text(255)),
    or("tls_enabled", Check::Bool, Need::No),
    may("tls_ciphers", Check::Text(2048)),
    may("tls_versions", Check::Texts(32)),
    may("alpn_protocols", Check::Texts(32)),
];

const CHILDREN: &[Field] =
    &[may("healthmonitor", Check::Object(health_monitors::IN_TREE)), may("members", Check::List(members::IN_TREE))];

const POST: &[Field] = &[
    must("protocol", PROTOCOL),
    must("lb_algorithm", ALGORITHM),
    may("listener_id", Check::Uuid),
    may("loadbalancer_id", Check::Uuid),
];

const UPDATE: &[Field] = &[may("lb_algorithm", ALGORITHM)];

/// A pool in a fully populated load balancer; one with nothing but a name stands for another that has that name.
pub(crate) const IN_TREE: Fields = &[COMMON, CHILDREN, &[may("protocol", PROTOCOL), may("lb_algorithm", ALGORITHM)]];

/// What pools may be filtered by.
const NAMES: &[&str] =
    &["description", "loadbalancer_id", "load_balancer_id", "healthmonitor_id", "protocol", "lb_algorithm"];

impl Persistence {
    fn of(value: &Value) -> Self {
        let text = |name: &str| value[name].as_str().map(str::to_owned);
        Self {
            kind: text("type").unwrap_or_default(),
            cookie: text("cookie_name"),
            timeout: value["persistence_timeout"].as_i64(),
            granularity: text("persistence_granularity"),
        }
    }

    fn json(&self) -> Value {
        json!({
            "type": self.kind, "cookie_name": self.cookie, "persistence_timeout": self.timeout,
            "persistence_granularity": self.granularity,
        })
    }
}

impl PoolSpec {
    pub(crate) fn of_create(body: &Body) -> Self {
        let text = |name| body.text(name).unwrap_or_default().to_owned();
        let mut spec =
            Self { enabled: true, protocol: text("protocol"), algorithm: text("lb_algorithm"), persistence: None };
        spec.write(body);
        spec
    }

    /// Takes over what a request names; `null` takes the session persistence away, and one without a type keeps the type.
    fn write(&mut self, body: &Body) {
        if body.has("admin_state_up") {
            self.enabled = body.boolean("admin_state_up").unwrap_or(false);
        }
        body.set_text("lb_algorithm", &mut self.algorithm);
        if let Some(given) = body.get("session_persistence") {
            let old = self.persistence.take();
            self.persistence = given.is_object().then(|| Persistence::of(given));
            if let (Some(new), Some(old)) = (&mut self.persistence, old)
                && new.kind.is_empty()
            {
                new.kind = old.kind;
            }
        }
    }
}

/// The rules of session persistence, which a fully populated create is not held to.
fn check_persistence(spec: &PoolSpec, body: &Body) -> Result<()> {
    let Some(persistence) = spec.persistence.as_ref().filter(|_| body.given("session_persistence").is_some()) else {
        return Ok(());
    };
    let kind = persistence.kind.as_str();
    if spec.is_datagram() {
        if kind == "SOURCE_IP" && persistence.cookie.is_some() {
            return Err(Error::validation(
                "session_persistence SOURCE_IP type for UDP and SCTP protocols only accepts: type, persistence_timeout, \
                 persistence_granularity.",
            ));
        }
        if persistence.cookie.is_some() {
            return Err(Error::validation("Cookie names are not supported for UDP/SCTP pools."));
        }
        if kind != "SOURCE_IP" {
            let detail = format!("Session persistence of type {kind} is not supported for UDP/SCTP protocol pools.");
            return Err(Error::validation(detail));
        }
    } else if persistence.timeout.is_some() || persistence.granularity.is_some() {
        return Err(Error::validation(
            "persistence_timeout and persistence_granularity is only for UDP and SCTP protocol pools.",
        ));
    }
    match (kind, &persistence.cookie) {
        ("", _) => Err(Error::validation("Invalid session_persistence provided.")),
        ("APP_COOKIE", None) => Err(Error::validation(
            "Field \"cookie_name\" must be specified when using the \"APP_COOKIE\" session persistence type.",
        )),
        ("APP_COOKIE", Some(_)) | (_, None) => Ok(()),
        (_, Some(_)) => Err(Error::validation(
            "Field \"cookie_name\" can only be specified with session persistence of type \"APP_COOKIE\".",
        )),
    }
}

/// There is no store of certificates here.
pub(crate) fn check_certificates(body: &Body) -> Result<()> {
    let refs = ["tls_container_ref", "ca_tls_container_ref", "crl_container_ref"];
    match refs.iter().find_map(|name| body.text(name)) {
        None => Ok(()),
        Some(found) => Err(Error::bad(format!("Could not retrieve certificate: ['{found}']"))),
    }
}

pub(crate) fn shown_pool(balancer: &LoadBalancer, pool: &Pool, full: bool) -> Map<String, Value> {
    let spec = &pool.row.spec;
    let mut shown = render::head(&pool.row.head, &balancer.project, spec.enabled);
    let ids = |ids: Vec<Uuid>| -> Value { ids.into_iter().map(|id| json!({ "id": id })).collect() };
    render::add(
        &mut shown,
        json!({
            "description": pool.row.head.description, "protocol": spec.protocol, "lb_algorithm": spec.algorithm,
            "session_persistence": spec.persistence.as_ref().map(Persistence::json),
            "listeners": ids(balancer.listeners_of(pool.id())), "tls_container_ref": null, "ca_tls_container_ref": null,
            "crl_container_ref": null, "tls_enabled": false, "tls_ciphers": null, "tls_versions": null, "alpn_protocols": null,
        }),
    );
    if full {
        let full = pool.members.iter().map(|member| Value::Object(members::shown_member(balancer, member)));
        shown.insert("members".into(), full.collect());
        // The real one never shows the monitor here, though there may be one.
        shown.insert("healthmonitor".into(), Value::Null);
    } else {
        shown.insert("members".into(), ids(pool.members.iter().map(|member| member.head.id).collect()));
        shown.insert("healthmonitor_id".into(), json!(pool.monitor.as_ref().map(|monitor| monitor.head.id)));
        shown.insert("loadbalancers".into(), json!([{ "id": balancer.head.id }]));
    }
    shown
}

fn answer(context: &Context, status: StatusCode, balancer: &LoadBalancer, id: Uuid) -> Result<Answer> {
    let pool = balancer.pool(id).ok_or_else(|| Error::not_found("Pool", id))?;
    Ok(one(context.call, status, "pool", shown_pool(balancer, pool, false)))
}

/// The load balancer of a pool, and the pool's id.
pub(crate) fn find<'o>(octavia: &'o Octavia, id: &str) -> Result<(&'o LoadBalancer, Uuid)> {
    octavia.with_child("Pool", id, |balancer, id| balancer.pool(id).is_some())
}

pub(crate) fn all(octavia: &Octavia, context: &Context) -> Result<Answer> {
    let item = |balancer: &LoadBalancer, pool: &Pool| {
        let id = json!(balancer.head.id);
        let hidden = vec![("loadbalancer_id", id.clone()), ("load_balancer_id", id)];
        Item { hidden, ..Item::new(pool.row.head.serial, shown_pool(balancer, pool, false)) }
    };
    let items = octavia.balancers().flat_map(|balancer| balancer.pools.iter().map(move |pool| item(balancer, pool)));
    list(context.call, "pools", NAMES, octavia.page_limit, items.collect())
}

pub(crate) fn show(octavia: &Octavia, context: &Context, id: &str) -> Result<Answer> {
    let (balancer, id) = find(octavia, id)?;
    answer(context, StatusCode::OK, balancer, id)
}

pub(crate) fn create(octavia: &mut Octavia, context: &Context) -> Result<Answer> {
    let body = read(context.call, "pool_", "pool", &[COMMON, CHILDREN, POST, PROJECT])?;
    let listener = body.uuid("listener_id");
    let mut balancer = match (body.uuid("loadbalancer_id"), listener) {
        (Some(_), _) => octavia.parent(&body)?,
        (None, Some(id)) => {
            let is = |balancer: &LoadBalancer, id| balancer.listener(id).is_some();
            octavia.with_child("Listener", &id.to_string(), is)?.0.clone()
        }
        (None, None) => {
            return Err(Error::validation("Must provide at least one of: loadbalancer_id, listener_id"));
        }
    };
    let spec = PoolSpec::of_create(&body);
    let of_listener = listener.and_then(|id| balancer.listener(id)).map(|listener| listener.spec.clone());
    if let Some(listener) = of_listener.as_ref().filter(|_| body.uuid("loadbalancer_id").is_none()) {
        listeners::check_protocols(&listener.protocol, &spec.protocol)?;
    }
    check_persistence(&spec, &body)?;
    octavia.check_quota(&balancer.project, "pool", 1)?;
    if of_listener.is_some_and(|listener| listener.pool.is_some()) {
        return Err(Error::conflict("This listener already has a default pool"));
    }
    balancer.lock()?;
    check_certificates(&body)?;
    if ["members", "healthmonitor"].iter().any(|name| body.given(name).is_some_and(|value| *value != json!([]))) {
        // The types take them, the database does not.
        return Err(Error::internal("'dict' object has no attribute '_sa_instance_state'"));
    }
    balancer.provider.check_pool(&spec)?;
    let head = Head::new(octavia.serial(), context.now(), &body);
    let id = head.id;
    balancer.pools.push(Pool { row: Row::new(head, spec), members: Vec::new(), monitor: None });
    if let Some(listener) = listener.and_then(|id| balancer.listener_mut(id)) {
        listener.spec.pool = Some(id);
        listener.head.provisioning = Provisioning::PendingUpdate;
    }
    let step = Step::new(octavia.times.update, balancer.put_pool(id));
    balancer.schedule(vec![step], context.clock);
    let answer = answer(context, StatusCode::CREATED, &balancer, id);
    octavia.store(balancer);
    answer
}

pub(crate) fn update(octavia: &mut Octavia, context: &Context, id: &str) -> Result<Answer> {
    let body = read(context.call, "pool_", "pool", &[COMMON, UPDATE])?;
    let (balancer, id) = find(octavia, id)?;
    let mut balancer = balancer.clone();
    let pool = balancer.pool(id).ok_or_else(|| Error::not_found("Pool", id))?;
    let mut spec = pool.row.spec.clone();
    spec.write(&body);
    check_persistence(&spec, &body)?;
    check_certificates(&body)?;
    balancer.lock()?;
    balancer.provider.check_pool(&spec)?;
    balancer.pend_pool(id);
    if let Some(pool) = balancer.pool_mut(id) {
        pool.row.head.write(&body);
        pool.row.head.updated = Some(context.now());
        pool.row.spec = spec;
    }
    let step = Step::new(octavia.times.update, balancer.put_pool(id));
    balancer.schedule(vec![step], context.clock);
    let answer = answer(context, StatusCode::OK, &balancer, id);
    octavia.store(balancer);
    answer
}

pub(crate) fn delete(octavia: &mut Octavia, context: &Context, id: &str) -> Result<Answer> {
    let (balancer, id) = find(octavia, id)?;
    let mut balancer = balancer.clone();
    balancer.lock()?;
    let members: Vec<Uuid> = balancer.pool(id).into_iter().flat_map(|pool| &pool.members).map(|m| m.head.id).collect();
    let cidr = context.vip_cidr(&balancer);
    for member in balancer.pool(id).into_iter().flat_map(|pool| &pool.members) {
        balancer.provider.check_member_subnet(&member.spec, "deletion", cidr)?;
    }
    balancer.pend_pool(id);
    if let Some(pool) = balancer.pool_mut(id) {
        pool.row.head.provisioning = Provisioning::PendingDelete;
    }
    let mut gone: Vec<Change> = members.into_iter().map(|member| Change::Gone(Target::Member(member))).collect();
    gone.extend(balancer.listeners_of(id).into_iter().map(|listener| Change::Put(Target::Listener(listener))));
    gone.push(Change::Gone(Target::Pool(id)));
    balancer.schedule(vec![Step::new(octavia.times.update, gone)], context.clock);
    octavia.store(balancer);
    Ok(Answer::empty(StatusCode::NO_CONTENT))
}

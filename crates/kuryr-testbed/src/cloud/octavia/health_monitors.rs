//! Health monitors.

use axum::http::StatusCode;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::error::{Error, Result};
use super::fields::{Check, Field, Fields, Need, PROJECT, may, must, or, read};
use super::model::{Head, LoadBalancer, Monitor, MonitorSpec, Pool, PoolSpec, Provisioning};
use super::provisioning::{Change, Step, Target};
use super::query::{Item, list, one};
use super::{Context, Octavia, pools, render};
use crate::cloud::body::Body;
use crate::cloud::http::Answer;

const TYPE: Check = Check::OneOf(&["HTTPS", "HTTP", "PING", "SCTP", "TCP", "TLS-HELLO", "UDP-CONNECT"]);
const METHOD: Check = Check::OneOf(&["GET", "HEAD", "POST", "PUT", "DELETE", "TRACE", "OPTIONS", "CONNECT", "PATCH"]);
const TIME: Check = Check::Int(0, i64::MAX);
const RETRIES: Check = Check::Int(1, 10);

/// The least `delay` of a UDP-CONNECT monitor, `udp_connect_min_interval_health_monitor`.
const LEAST_UDP_DELAY: i64 = 3;

const COMMON: &[Field] = &[
    may("name", Check::Text(255)),
    or("max_retries_down", RETRIES, Need::Number(3)),
    may("http_method", METHOD),
    may("url_path", Check::Path),
    may("expected_codes", Check::Statuses),
    or("admin_state_up", Check::Bool, Need::Yes),
    may("tags", Check::Texts(255)),
    may("http_version", Check::HttpVersion),
    may("domain_name", Check::Text(255)),
];

const CREATE: &[Field] =
    &[must("type", TYPE), must("delay", TIME), must("timeout", TIME), must("max_retries", RETRIES)];

const POST: &[Field] = &[must("pool_id", Check::Uuid)];

const UPDATE: &[Field] = &[may("delay", TIME), may("timeout", TIME), may("max_retries", RETRIES)];

/// A monitor in a fully populated load balancer.
pub(crate) const IN_TREE: Fields = &[COMMON, CREATE];

/// What monitors may be filtered by.
const NAMES: &[&str] = &["pool_id", "type", "delay", "timeout", "http_method", "url_path", "expected_codes"];

impl MonitorSpec {
    pub(crate) fn of_create(body: &Body) -> Self {
        let mut spec = Self {
            enabled: true,
            kind: body.text("type").unwrap_or_default().to_owned(),
            delay: 0,
            timeout: 0,
            max_retries: 0,
            max_retries_down: 3,
            http_method: None,
            url_path: None,
            expected_codes: None,
            http_version: None,
            domain_name: None,
        };
        spec.write(body);
        if spec.is_http() {
            spec.http_method.get_or_insert_with(|| "GET".into());
            spec.url_path.get_or_insert_with(|| "/".into());
            spec.expected_codes.get_or_insert_with(|| "200".into());
        }
        spec
    }

    fn is_http(&self) -> bool {
        ["HTTP", "HTTPS"].contains(&self.kind.as_str())
    }

    fn write(&mut self, body: &Body) {
        if body.has("admin_state_up") {
            self.enabled = body.boolean("admin_state_up").unwrap_or(false);
        }
        for (name, target) in [
            ("delay", &mut self.delay),
            ("timeout", &mut self.timeout),
            ("max_retries", &mut self.max_retries),
            ("max_retries_down", &mut self.max_retries_down),
        ] {
            if let Some(number) = body.int(name) {
                *target = number;
            }
        }
        for (name, target, default) in [
            ("http_method", &mut self.http_method, Some("GET")),
            ("url_path", &mut self.url_path, Some("/")),
            ("expected_codes", &mut self.expected_codes, Some("200")),
            ("domain_name", &mut self.domain_name, None),
        ] {
            if let Some(value) = body.get(name) {
                *target = value.as_str().or(default).map(str::to_owned);
            }
        }
        if let Some(version) = body.get("http_version") {
            self.http_version = version.as_f64();
        }
    }
}

/// Checks a new monitor, or what a change names, against the pool that it watches.
pub(crate) fn check(spec: &MonitorSpec, body: &Body, pool: &PoolSpec) -> Result<()> {
    let kind = spec.kind.as_str();
    for name in ["http_method", "url_path", "expected_codes"] {
        if !spec.is_http() && body.given(name).is_some() {
            return Err(Error::option(name, format!("health monitors of type {kind}")));
        }
    }
    for name in ["delay", "timeout", "max_retries"] {
        if body.get(name).is_some_and(Value::is_null) {
            return Err(Error::option("None", name));
        }
    }
    if spec.domain_name.is_some() {
        match spec.http_version {
            None => {
                return Err(Error::validation("'http_version' must be specified when 'domain_name' is provided."));
            }
            Some(version) if version < 1.1 => {
                let value = format!("http_version {version:.1}");
                return Err(Error::option(value, "health monitors HTTP 1.1 domain name health check"));
            }
            Some(_) => {}
        }
    }
    if !pool.is_datagram() {
        if ["UDP-CONNECT", "SCTP"].contains(&kind) {
            let detail = format!("The {kind} type is only supported for pools of type UDP/SCTP.");
            return Err(Error::validation(detail));
        }
        return Ok(());
    }
    if !["UDP-CONNECT", "SCTP", "TCP", "HTTP"].contains(&kind) {
        return Err(Error::validation(format!(
            "The associated pool protocol is {}, so only a UDP-CONNECT/SCTP/TCP/HTTP health monitor is supported.",
            pool.protocol
        )));
    }
    if kind == "UDP-CONNECT" && spec.delay < LEAST_UDP_DELAY {
        return Err(Error::validation(format!(
            "The request delay value {} should be larger than {LEAST_UDP_DELAY} for UDP-CONNECT health monitor type.",
            spec.delay
        )));
    }
    Ok(())
}

fn shown_monitor(balancer: &LoadBalancer, pool: &Pool, monitor: &Monitor) -> Map<String, Value> {
    let spec = &monitor.spec;
    let mut shown = render::head(&monitor.head, &balancer.project, spec.enabled);
    render::add(
        &mut shown,
        json!({
            "type": spec.kind, "delay": spec.delay, "timeout": spec.timeout, "max_retries": spec.max_retries,
            "max_retries_down": spec.max_retries_down, "http_method": spec.http_method, "url_path": spec.url_path,
            "expected_codes": spec.expected_codes, "http_version": spec.http_version, "domain_name": spec.domain_name,
            "pools": [{ "id": pool.id() }],
        }),
    );
    shown
}

fn answer(context: &Context, status: StatusCode, balancer: &LoadBalancer, id: Uuid) -> Result<Answer> {
    let (pool, monitor) = balancer.monitor(id).ok_or_else(|| Error::not_found("Health Monitor", id))?;
    Ok(one(context.call, status, "healthmonitor", shown_monitor(balancer, pool, monitor)))
}

fn find<'o>(octavia: &'o Octavia, id: &str) -> Result<(&'o LoadBalancer, Uuid)> {
    octavia.with_child("Health Monitor", id, |balancer, id| balancer.monitor(id).is_some())
}

pub(crate) fn all(octavia: &Octavia, context: &Context) -> Result<Answer> {
    let pools = octavia.balancers().flat_map(|balancer| balancer.pools.iter().map(move |pool| (balancer, pool)));
    let items = pools.filter_map(|(balancer, pool)| {
        let monitor = pool.monitor.as_ref()?;
        let hidden = vec![("pool_id", json!(pool.id()))];
        Some(Item { hidden, ..Item::new(monitor.head.serial, shown_monitor(balancer, pool, monitor)) })
    });
    list(context.call, "healthmonitors", NAMES, octavia.page_limit, items.collect())
}

pub(crate) fn show(octavia: &Octavia, context: &Context, id: &str) -> Result<Answer> {
    let (balancer, id) = find(octavia, id)?;
    answer(context, StatusCode::OK, balancer, id)
}

/// What the provider does when a monitor changes. The OVN provider does not say of the listeners that they are through.
fn changes(balancer: &LoadBalancer, pool: Uuid, change: Change) -> Vec<Change> {
    let all = balancer.put_pool(pool);
    let said = if balancer.provider.is_ovn() { &all[..1] } else { &all[..] };
    std::iter::once(change).chain(said.iter().copied()).collect()
}

/// What the OVN provider does with a monitor that it has not made: it says nothing of the load balancer, which stays locked.
fn lost(balancer: &LoadBalancer, id: Uuid) -> bool {
    balancer.provider.is_ovn() && balancer.monitor(id).is_some_and(|(_, monitor)| monitor.live.is_none())
}

pub(crate) fn create(octavia: &mut Octavia, context: &Context) -> Result<Answer> {
    let body = read(context.call, "health_monitor_", "healthmonitor", &[COMMON, CREATE, POST, PROJECT])?;
    let (balancer, pool) = pools::find(octavia, body.text("pool_id").unwrap_or_default())?;
    let mut balancer = balancer.clone();
    let of = balancer.pool(pool).ok_or_else(|| Error::not_found("Pool", pool))?.row.spec.clone();
    let spec = MonitorSpec::of_create(&body);
    check(&spec, &body, &of)?;
    octavia.check_quota(&balancer.project, "health_monitor", 1)?;
    balancer.lock_pool(pool)?;
    if balancer.pool(pool).is_some_and(|pool| pool.monitor.is_some()) {
        return Err(Error::conflict("This pool already has a health monitor"));
    }
    balancer.provider.check_monitor(&spec.kind)?;
    let head = Head::new(octavia.serial(), context.now(), &body);
    let id = head.id;
    if let Some(pool) = balancer.pool_mut(pool) {
        pool.monitor = Some(Monitor::new(head, spec));
    }
    let changes = changes(&balancer, pool, Change::Put(Target::Monitor(id)));
    balancer.schedule(vec![Step::new(octavia.times.update, changes)], context.clock);
    let answer = answer(context, StatusCode::CREATED, &balancer, id);
    octavia.store(balancer);
    answer
}

pub(crate) fn update(octavia: &mut Octavia, context: &Context, id: &str) -> Result<Answer> {
    let body = read(context.call, "health_monitor_", "healthmonitor", &[COMMON, UPDATE])?;
    let (balancer, id) = find(octavia, id)?;
    let mut balancer = balancer.clone();
    let (pool, monitor) = balancer.monitor(id).ok_or_else(|| Error::not_found("Health Monitor", id))?;
    let (pool, of, mut spec) = (pool.id(), pool.row.spec.clone(), monitor.spec.clone());
    spec.write(&body);
    check(&spec, &body, &of)?;
    balancer.lock_pool(pool)?;
    if let Some(monitor) = balancer.monitor_mut(id) {
        monitor.head.write(&body);
        monitor.head.provisioning = Provisioning::PendingUpdate;
        monitor.head.updated = Some(context.now());
        monitor.spec = spec;
    }
    let step = if lost(&balancer, id) {
        Step { unlocks: false, ..Step::new(octavia.times.update, [Change::Fail(Target::Monitor(id))]) }
    } else {
        Step::new(octavia.times.update, changes(&balancer, pool, Change::Put(Target::Monitor(id))))
    };
    balancer.schedule(vec![step], context.clock);
    let answer = answer(context, StatusCode::OK, &balancer, id);
    octavia.store(balancer);
    answer
}

pub(crate) fn delete(octavia: &mut Octavia, context: &Context, id: &str) -> Result<Answer> {
    let (balancer, id) = find(octavia, id)?;
    let mut balancer = balancer.clone();
    let (pool, _) = balancer.monitor(id).ok_or_else(|| Error::not_found("Health Monitor", id))?;
    let pool = pool.id();
    balancer.lock_pool(pool)?;
    if let Some(monitor) = balancer.monitor_mut(id) {
        monitor.head.provisioning = Provisioning::PendingDelete;
    }
    let gone = Change::Gone(Target::Monitor(id));
    let step = if lost(&balancer, id) {
        Step { unlocks: false, ..Step::new(octavia.times.update, [gone]) }
    } else {
        Step::new(octavia.times.update, changes(&balancer, pool, gone))
    };
    balancer.schedule(vec![step], context.clock);
    octavia.store(balancer);
    Ok(Answer::empty(StatusCode::NO_CONTENT))
}

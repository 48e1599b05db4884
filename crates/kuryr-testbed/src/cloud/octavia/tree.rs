//! What a fully populated create brings with it: listeners and pools, with members and health monitors.

use std::collections::HashMap;

use serde_json::{Map, Value};
use uuid::Uuid;

use super::error::{Error, Result};
use super::model::{Head, Listener, ListenerSpec, LoadBalancer, Monitor, MonitorSpec, Pool, PoolSpec, Row};
use super::provisioning::{Change, Step, Target};
use super::{Context, Octavia, health_monitors, listeners, members, pools};
use crate::cloud::body::Body;

/// What a pool has without anybody saying so: with nothing else but a name it is a reference.
const ALWAYS: &[&str] = &["name", "admin_state_up", "tls_enabled"];

fn bodies(body: &Body, name: &str) -> Vec<Body> {
    let items = body.list(name).unwrap_or_default().iter().filter_map(Value::as_object);
    items.cloned().map(Body::new).collect()
}

/// Puts the pools that listeners have in them beside the other pools.
fn all_pools(body: &Body, listeners: &[Body]) -> Result<Vec<Body>> {
    let mut all = bodies(body, "pools");
    let mut named = Vec::new();
    for pool in listeners.iter().filter_map(|listener| listener.get("default_pool")).filter_map(Value::as_object) {
        let Some(name) = pool.get("name").and_then(Value::as_str).filter(|name| !name.is_empty()) else {
            return Err(Error::validation("Pools must be named when creating a fully populated loadbalancer."));
        };
        if pool.keys().any(|key| !ALWAYS.contains(&key.as_str())) {
            all.push(Body::new(pool.clone()));
        } else {
            named.push(name);
        }
    }
    let names: Vec<Option<&str>> = all.iter().map(|pool| pool.text("name")).collect();
    let mut unique = names.clone();
    unique.sort_unstable();
    unique.dedup();
    if unique.len() < names.len() {
        return Err(Error::validation("Pool names must be unique when creating a fully populated loadbalancer."));
    }
    match named.into_iter().find(|name| !names.contains(&Some(*name))) {
        None => Ok(all),
        Some(name) => Err(Error::validation(format!("Pool '{name}' was referenced but no full definition was found."))),
    }
}

/// Puts all that a body names into a new load balancer.
pub(crate) fn fill(octavia: &mut Octavia, context: &Context, balancer: &mut LoadBalancer, body: &Body) -> Result<()> {
    let listeners = bodies(body, "listeners");
    let pools = all_pools(body, &listeners)?;
    octavia.check_quota(&balancer.project, "pool", pools.len())?;
    let mut ids: HashMap<String, Uuid> = HashMap::new();
    for body in &pools {
        let pool = pool(octavia, context, balancer, body)?;
        ids.insert(pool.row.head.name.clone(), pool.id());
        balancer.pools.push(pool);
    }
    octavia.check_quota(&balancer.project, "listener", listeners.len())?;
    for body in &listeners {
        let named = body.get("default_pool").and_then(|pool| pool["name"].as_str());
        let mut spec = ListenerSpec::of_create(body);
        spec.pool = named.and_then(|name| ids.get(name).copied()).or(spec.pool);
        if let Some(pool) = spec.pool {
            listeners::check_pool(balancer, pool, &spec.protocol)?;
        }
        listeners::check_new(balancer, &spec, body)?;
        let head = Head::new(octavia.serial(), context.now(), body);
        balancer.listeners.push(Listener::new(head, spec));
    }
    balancer.provider.check_tree(balancer)
}

fn pool(octavia: &mut Octavia, context: &Context, balancer: &LoadBalancer, body: &Body) -> Result<Pool> {
    for name in ["protocol", "lb_algorithm"] {
        if body.text(name).is_none() {
            let pool = body.text("name").unwrap_or_default();
            let detail = format!("Pool definition for '{pool}' missing required attribute: {name}");
            return Err(Error::validation(detail));
        }
    }
    pools::check_certificates(body)?;
    let spec = PoolSpec::of_create(body);
    let head = Head::new(octavia.serial(), context.now(), body);
    let mut pool = Pool { row: Row::new(head, spec), members: Vec::new(), monitor: None };
    let before = |of: fn(&Pool) -> usize| balancer.pools.iter().map(of).sum::<usize>();
    if let Some(monitor) = body.get("healthmonitor").and_then(Value::as_object) {
        let monitors = before(|pool| usize::from(pool.monitor.is_some()));
        octavia.check_quota(&balancer.project, "health_monitor", monitors + 1)?;
        pool.monitor = Some(monitor_of(octavia, context, &pool, monitor)?);
    }
    let bodies = bodies(body, "members");
    if !bodies.is_empty() {
        let members = before(|pool| pool.members.len());
        octavia.check_quota(&balancer.project, "member", members + bodies.len())?;
    }
    for body in &bodies {
        members::add(octavia, context, &mut pool, body)?;
    }
    Ok(pool)
}

fn monitor_of(octavia: &mut Octavia, context: &Context, pool: &Pool, body: &Map<String, Value>) -> Result<Monitor> {
    let body = Body::new(body.clone());
    let spec = MonitorSpec::of_create(&body);
    health_monitors::check(&spec, &body, &pool.row.spec)?;
    Ok(Monitor::new(Head::new(octavia.serial(), context.now(), &body), spec))
}

/// What the provider does for a new load balancer, in the order of the OVN provider. That of Zed does not look at health monitors: they
/// stay `PENDING_CREATE`, and nothing watches the members.
pub(crate) fn steps(octavia: &Octavia, balancer: &LoadBalancer) -> Vec<Step> {
    let next = |changes: Vec<Change>| Step::new(octavia.times.object, changes);
    let mut steps = vec![Step::new(octavia.times.create, [Change::Put(Target::Balancer)])];
    for listener in &balancer.listeners {
        steps.push(next(vec![Change::Put(Target::Listener(listener.head.id))]));
    }
    for pool in &balancer.pools {
        let itself = Change::Put(Target::Pool(pool.id()));
        steps.push(next(vec![itself]));
        for member in &pool.members {
            steps.push(next(vec![Change::Put(Target::Member(member.head.id)), itself]));
        }
        if let Some(monitor) = pool.monitor.as_ref().filter(|_| !balancer.provider.is_ovn_of_zed()) {
            steps.push(next(vec![Change::Put(Target::Monitor(monitor.head.id)), itself]));
        }
    }
    steps
}

//! Load balancers.

use std::collections::VecDeque;

use axum::http::StatusCode;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::error::{Error, Result};
use super::fields::{Check, Field, Need, PROJECT, may, must, or, read};
use super::model::{Head, Hold, LoadBalancer, Pool, Provisioning};
use super::providers::{Kind, Provider};
use super::provisioning::{Change, Step, Target};
use super::query::{Item, list, one};
use super::{Context, Octavia, listeners, pools, render, tree, vips};
use crate::cloud::body::Body;
use crate::cloud::http::Answer;
use crate::cloud::neutron::Caller;

const COMMON: &[Field] = &[
    may("name", Check::Text(255)),
    may("description", Check::Text(255)),
    or("admin_state_up", Check::Bool, Need::Yes),
    may("vip_qos_policy_id", Check::Uuid),
    may("tags", Check::Texts(255)),
];

const ADDITIONAL_VIP: &[Field] = &[must("subnet_id", Check::Uuid), may("ip_address", Check::Ip)];

const CREATE: &[Field] = &[
    may("vip_address", Check::Ip),
    may("vip_port_id", Check::Uuid),
    may("vip_subnet_id", Check::Uuid),
    may("vip_network_id", Check::Uuid),
    may("additional_vips", Check::List(&[ADDITIONAL_VIP])),
    may("listeners", Check::List(listeners::IN_TREE)),
    may("pools", Check::List(pools::IN_TREE)),
    may("provider", Check::Text(64)),
    may("flavor_id", Check::Uuid),
    may("availability_zone", Check::Text(255)),
];

/// What load balancers may be filtered by.
const NAMES: &[&str] = &[
    "description",
    "vip_address",
    "vip_port_id",
    "vip_subnet_id",
    "vip_network_id",
    "vip_qos_policy_id",
    "provider",
    "flavor_id",
    "availability_zone",
];

fn shown_balancer(balancer: &LoadBalancer, full: bool) -> Map<String, Value> {
    let vip = &balancer.vip;
    let mut shown = render::head(&balancer.head, &balancer.project, balancer.enabled);
    let additional: Vec<Value> =
        (balancer.additional.iter()).map(|vip| json!({ "subnet_id": vip.subnet, "ip_address": vip.address })).collect();
    render::add(
        &mut shown,
        json!({
            "description": balancer.head.description, "vip_address": vip.address, "vip_port_id": vip.port,
            "vip_subnet_id": vip.subnet, "vip_network_id": vip.network, "vip_qos_policy_id": vip.qos,
            "additional_vips": additional, "provider": balancer.provider.name, "flavor_id": balancer.flavor,
            "availability_zone": balancer.zone,
        }),
    );
    let id = |id: Uuid| json!({ "id": id });
    let (listeners, pools): (Vec<Value>, Vec<Value>) = if full {
        let listener = |listener| Value::Object(listeners::shown_listener(balancer, listener, true));
        let pool = |pool| Value::Object(pools::shown_pool(balancer, pool, true));
        (balancer.listeners.iter().map(listener).collect(), balancer.pools.iter().map(pool).collect())
    } else {
        let listeners = balancer.listeners.iter().map(|listener| id(listener.head.id));
        (listeners.collect(), balancer.pools.iter().map(|pool| id(pool.id())).collect())
    };
    shown.insert("listeners".into(), json!(listeners));
    shown.insert("pools".into(), json!(pools));
    shown
}

pub(crate) fn all(octavia: &Octavia, context: &Context) -> Result<Answer> {
    let item = |balancer: &LoadBalancer| Item::new(balancer.head.serial, shown_balancer(balancer, false));
    let items = octavia.balancers().map(item).collect();
    list(context.call, "loadbalancers", NAMES, octavia.page_limit, items)
}

pub(crate) fn show(octavia: &Octavia, context: &Context, id: &str) -> Result<Answer> {
    let balancer = octavia.find(id)?;
    Ok(one(context.call, StatusCode::OK, "loadbalancer", shown_balancer(balancer, false)))
}

/// The provider that a request means, by name or by flavor.
fn provider(octavia: &Octavia, body: &Body) -> Result<Provider> {
    let flavor = match body.uuid("flavor_id") {
        None => None,
        Some(id) => {
            let found = octavia.config.flavors.iter().find(|flavor| flavor.id == id);
            let found = found.ok_or_else(|| Error::validation("Invalid flavor_id."))?;
            if !found.enabled {
                let message = format!("The selected flavor is not allowed in this deployment: {id}");
                return Err(Error::bad(message));
            }
            Some(found)
        }
    };
    let zone = body.text("availability_zone");
    if zone.is_some_and(|zone| !octavia.config.availability_zones.iter().any(|known| known == zone)) {
        return Err(Error::validation("Invalid availability zone."));
    }
    let name = match (body.text("provider"), flavor) {
        (Some(name), Some(flavor)) if name != flavor.provider => {
            let message = format!("Flavor '{}' is not compatible with provider '{name}'", flavor.id);
            return Err(Error::bad(message));
        }
        (Some(name), _) => name,
        (None, Some(flavor)) => &flavor.provider,
        (None, None) => &octavia.config.default_provider,
    };
    let provider = Provider::find(&octavia.config, name)?;
    if provider.is_ovn() && (flavor.is_some() || zone.is_some()) {
        let what = if flavor.is_some() { "flavors" } else { "availability zones" };
        return Err(Error::not_implemented(name, format!("This provider does not support validating {what}.")));
    }
    Ok(provider)
}

pub(crate) fn create(octavia: &mut Octavia, context: &mut Context) -> Result<Answer> {
    let body = read(context.call, "load_balancer", "loadbalancer", &[COMMON, CREATE, PROJECT])?;
    let project = body.project().unwrap_or(&context.caller.project).to_owned();
    let request = vips::read(context.neutron, &body)?;
    let provider = provider(octavia, &body)?;
    octavia.check_quota(&project, "load_balancer", 1)?;
    let head = Head::new(octavia.serial(), context.now(), &body);
    let id = head.id;
    let caller = Caller { project: project.clone(), now: context.now() };
    // From here on a failure leaves the port of the VIP behind, as it does in the real one.
    let (vip, additional) = vips::take(context.neutron, &caller, &provider, id, &request, &context.call.request_id)?;
    let mut balancer = LoadBalancer {
        head,
        project,
        enabled: body.boolean("admin_state_up").unwrap_or(false),
        live: None,
        provider,
        vip,
        additional,
        flavor: body.uuid("flavor_id"),
        zone: body.text("availability_zone").map(str::to_owned),
        listeners: Vec::new(),
        pools: Vec::new(),
        queue: VecDeque::new(),
        due: None,
        hold: if octavia.hooks.hold_new { Hold::UntilReleased } else { Hold::No },
    };
    tree::fill(octavia, context, &mut balancer, &body)?;
    let mut steps = tree::steps(octavia, &balancer);
    if octavia.hooks.take_failing_create() {
        steps = vec![Step::new(octavia.times.create, [Change::Fail(Target::Balancer)])];
    }
    balancer.schedule(steps, context.clock);
    let shown = shown_balancer(&balancer, true);
    octavia.store(balancer);
    Ok(Answer::new(StatusCode::CREATED, json!({ "loadbalancer": shown })))
}

pub(crate) fn update(octavia: &mut Octavia, context: &Context, id: &str) -> Result<Answer> {
    let body = read(context.call, "load_balancer", "loadbalancer", &[COMMON])?;
    let mut balancer = octavia.find(id)?.clone();
    balancer.lock_self(Provisioning::PendingUpdate, &[Provisioning::Active])?;
    balancer.head.write(&body);
    balancer.head.updated = Some(context.now());
    if body.has("admin_state_up") {
        balancer.enabled = body.boolean("admin_state_up").unwrap_or(false);
    }
    if body.has("vip_qos_policy_id") {
        balancer.vip.qos = body.uuid("vip_qos_policy_id");
    }
    balancer.schedule(vec![Step::new(octavia.times.update, [Change::Put(Target::Balancer)])], context.clock);
    let shown = shown_balancer(&balancer, false);
    octavia.store(balancer);
    Ok(one(context.call, StatusCode::OK, "loadbalancer", shown))
}

pub(crate) fn delete(octavia: &mut Octavia, context: &Context, id: &str) -> Result<Answer> {
    let mut balancer = octavia.find(id)?.clone();
    let empty = balancer.listeners.is_empty() && balancer.pools.is_empty();
    if !empty && !context.flag("cascade") {
        let id = balancer.head.id;
        return Err(Error::validation(format!("Cannot delete Load Balancer {id} - it has children")));
    }
    balancer.lock_self(Provisioning::PendingDelete, &[Provisioning::Active, Provisioning::Error])?;
    balancer.schedule(vec![Step::new(octavia.times.delete, [Change::Gone(Target::Balancer)])], context.clock);
    octavia.store(balancer);
    Ok(Answer::empty(StatusCode::NO_CONTENT))
}

/// Builds a load balancer anew, with its addresses.
pub(crate) fn failover(octavia: &mut Octavia, context: &Context, id: &str) -> Result<Answer> {
    let mut balancer = octavia.find(id)?.clone();
    balancer.lock_self(Provisioning::PendingUpdate, &[Provisioning::Active, Provisioning::Error])?;
    if balancer.provider.kind != Kind::Amphora {
        let what = "OVN provider does not support loadbalancer failover";
        return Err(Error::unsupported(&balancer.provider.name, what));
    }
    let changes = if octavia.hooks.take_failing_failover() {
        vec![Change::Fail(Target::Balancer)]
    } else {
        std::iter::once(Target::Balancer).chain(targets(&balancer)).map(Change::Put).collect()
    };
    balancer.schedule(vec![Step::new(octavia.times.failover, changes)], context.clock);
    octavia.store(balancer);
    Ok(Answer::empty(StatusCode::ACCEPTED))
}

/// All that is in a load balancer.
fn targets(balancer: &LoadBalancer) -> Vec<Target> {
    let mut targets: Vec<Target> =
        balancer.listeners.iter().map(|listener| Target::Listener(listener.head.id)).collect();
    for pool in &balancer.pools {
        targets.push(Target::Pool(pool.id()));
        targets.extend(pool.members.iter().map(|member| Target::Member(member.head.id)));
        targets.extend(pool.monitor.iter().map(|monitor| Target::Monitor(monitor.head.id)));
    }
    targets
}

fn states(head: &Head) -> Map<String, Value> {
    let shown = json!({
        "id": head.id, "name": head.name, "provisioning_status": head.provisioning.text(),
        "operating_status": head.operating.text(),
    });
    shown.as_object().cloned().unwrap_or_default()
}

fn pool_states(pool: &Pool) -> Value {
    let mut shown = states(&pool.row.head);
    if let Some(monitor) = &pool.monitor {
        let mut of = states(&monitor.head);
        of.insert("type".into(), json!(monitor.spec.kind));
        shown.insert("health_monitor".into(), Value::Object(of));
    }
    let member = |member: &super::model::Member| {
        let mut of = states(&member.head);
        render::add(&mut of, json!({ "address": member.spec.address, "protocol_port": member.spec.port }));
        Value::Object(of)
    };
    shown.insert("members".into(), pool.members.iter().map(member).collect());
    Value::Object(shown)
}

/// The states of a load balancer and of all that its listeners use.
pub(crate) fn status(octavia: &Octavia, id: &str) -> Result<Answer> {
    let balancer = octavia.find(id)?;
    let listener = |listener: &super::model::Listener| {
        let mut shown = states(&listener.head);
        let pool = listener.spec.pool.and_then(|pool| balancer.pool(pool));
        shown.insert("pools".into(), pool.into_iter().map(pool_states).collect());
        Value::Object(shown)
    };
    let mut shown = states(&balancer.head);
    shown.insert("listeners".into(), balancer.listeners.iter().map(listener).collect());
    Ok(Answer::ok(json!({ "statuses": { "loadbalancer": shown } })))
}

pub(crate) fn stats(octavia: &Octavia, id: &str) -> Result<Answer> {
    octavia.find(id)?;
    Ok(render::stats())
}

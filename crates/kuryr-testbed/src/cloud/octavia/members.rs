//! Members, one by one and all of a pool at once.

use std::collections::BTreeSet;
use std::net::IpAddr;

use axum::http::StatusCode;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::error::{Error, Result};
use super::fields::{Check, Field, Fields, Need, PORT, PROJECT, may, must, or, read, read_list};
use super::model::{Head, LoadBalancer, Member, MemberSpec, Pool, Provisioning};
use super::provisioning::{Change, Step, Target};
use super::query::{Item, list, one};
use super::{Context, Octavia, pools, render};
use crate::cloud::body::Body;
use crate::cloud::http::Answer;

/// The address of the metadata service, `reserved_ips`.
const RESERVED: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 169, 254));

const COMMON: &[Field] = &[
    may("name", Check::Text(255)),
    or("admin_state_up", Check::Bool, Need::Yes),
    or("weight", Check::Int(0, 256), Need::Number(1)),
    or("backup", Check::Bool, Need::No),
    may("monitor_port", PORT),
    may("monitor_address", Check::Ip),
    may("tags", Check::Texts(255)),
];

const CREATE: &[Field] = &[must("address", Check::Ip), must("protocol_port", PORT), may("subnet_id", Check::Uuid)];

/// A member in a fully populated load balancer.
pub(crate) const IN_TREE: Fields = &[COMMON, CREATE];

/// What members may be filtered by.
const NAMES: &[&str] =
    &["address", "protocol_port", "weight", "backup", "subnet_id", "monitor_address", "monitor_port"];

impl MemberSpec {
    pub(crate) fn of_create(body: &Body) -> Result<Self> {
        // The types have seen to it that the address is one.
        let address = body.text("address").and_then(|text| text.parse().ok());
        let address = address.ok_or_else(|| Error::input("address", &Value::Null, "Mandatory field missing."))?;
        let mut spec = Self {
            enabled: true,
            address,
            port: number(body, "protocol_port").unwrap_or_default(),
            weight: 1,
            backup: false,
            subnet: body.uuid("subnet_id"),
            monitor_address: None,
            monitor_port: None,
        };
        spec.write(body);
        Ok(spec)
    }

    /// Takes over what a request names; `null` is the default.
    fn write(&mut self, body: &Body) {
        if body.has("admin_state_up") {
            self.enabled = body.boolean("admin_state_up").unwrap_or(false);
        }
        if body.has("weight") {
            self.weight = number(body, "weight").unwrap_or(1);
        }
        if body.has("backup") {
            self.backup = body.boolean("backup").unwrap_or(false);
        }
        if body.has("monitor_port") {
            self.monitor_port = number(body, "monitor_port");
        }
        if body.has("monitor_address") {
            self.monitor_address = body.text("monitor_address").and_then(|text| text.parse().ok());
        }
    }

    fn key(&self) -> (IpAddr, u16) {
        (self.address, self.port)
    }
}

fn number(body: &Body, name: &str) -> Option<u16> {
    body.int(name)?.try_into().ok()
}

fn check_reserved(spec: &MemberSpec) -> Result<()> {
    if spec.address == RESERVED { Err(Error::option(RESERVED, "member address")) } else { Ok(()) }
}

fn check_subnet(context: &Context, spec: &MemberSpec) -> Result<()> {
    match spec.subnet {
        Some(subnet) if context.neutron.subnet(subnet).is_none() => Err(Error::missing("Subnet", subnet)),
        _ => Ok(()),
    }
}

/// Adds a member to a pool that is not in it yet.
pub(crate) fn add(octavia: &mut Octavia, context: &Context, pool: &mut Pool, body: &Body) -> Result<Uuid> {
    let spec = MemberSpec::of_create(body)?;
    check_reserved(&spec)?;
    if pool.members.iter().any(|member| member.spec.key() == spec.key()) {
        return Err(Error::conflict(format!(
            "Another member on this pool is already using ip {} on protocol_port {}",
            spec.address, spec.port
        )));
    }
    let mut head = Head::new(octavia.serial(), context.now(), body);
    if pool.monitor.is_none() {
        head.operating = super::model::Operating::NoMonitor;
    }
    let id = head.id;
    pool.members.push(Member::new(head, spec));
    Ok(id)
}

pub(crate) fn shown_member(balancer: &LoadBalancer, member: &Member) -> Map<String, Value> {
    let spec = &member.spec;
    let mut shown = render::head(&member.head, &balancer.project, spec.enabled);
    render::add(
        &mut shown,
        json!({
            "address": spec.address, "protocol_port": spec.port, "weight": spec.weight, "backup": spec.backup,
            "subnet_id": spec.subnet, "monitor_address": spec.monitor_address, "monitor_port": spec.monitor_port,
        }),
    );
    shown
}

fn answer(context: &Context, status: StatusCode, balancer: &LoadBalancer, id: Uuid) -> Result<Answer> {
    let (_, member) = balancer.member(id).ok_or_else(|| Error::not_found("Member", id))?;
    Ok(one(context.call, status, "member", shown_member(balancer, member)))
}

/// A member of a pool: the load balancer, and both their ids.
fn find<'o>(octavia: &'o Octavia, pool: &str, id: &str) -> Result<(&'o LoadBalancer, Uuid, Uuid)> {
    let (_, of) = pools::find(octavia, pool)?;
    let is = |balancer: &LoadBalancer, id| balancer.member(id).is_some_and(|(pool, _)| pool.id() == of);
    let (balancer, id) = octavia.with_child("Member", id, is)?;
    Ok((balancer, of, id))
}

pub(crate) fn all(octavia: &Octavia, context: &Context, pool: &str) -> Result<Answer> {
    let (balancer, pool) = pools::find(octavia, pool)?;
    let members = balancer.pool(pool).into_iter().flat_map(|pool| &pool.members);
    let items = members.map(|member| Item::new(member.head.serial, shown_member(balancer, member))).collect();
    list(context.call, "members", NAMES, octavia.page_limit, items)
}

pub(crate) fn show(octavia: &Octavia, context: &Context, pool: &str, id: &str) -> Result<Answer> {
    let (balancer, _, id) = find(octavia, pool, id)?;
    answer(context, StatusCode::OK, balancer, id)
}

pub(crate) fn create(octavia: &mut Octavia, context: &Context, pool: &str) -> Result<Answer> {
    let body = read(context.call, "member_", "member", &[COMMON, CREATE, PROJECT])?;
    let (balancer, id) = pools::find(octavia, pool)?;
    let mut balancer = balancer.clone();
    let spec = MemberSpec::of_create(&body)?;
    check_reserved(&spec)?;
    check_subnet(context, &spec)?;
    octavia.check_quota(&balancer.project, "member", 1)?;
    balancer.lock_pool(id)?;
    let pool = balancer.pool(id).ok_or_else(|| Error::not_found("Pool", id))?;
    let mut pool = pool.clone();
    let member = add(octavia, context, &mut pool, &body)?;
    balancer.provider.check_member(&balancer, &pool, &spec, "creation", context.vip_cidr(&balancer))?;
    if let Some(old) = balancer.pool_mut(id) {
        *old = pool;
    }
    let mut changes = vec![Change::Put(Target::Member(member))];
    changes.extend(balancer.put_pool(id));
    balancer.schedule(vec![Step::new(octavia.times.update, changes)], context.clock);
    let answer = answer(context, StatusCode::CREATED, &balancer, member);
    octavia.store(balancer);
    answer
}

pub(crate) fn update(octavia: &mut Octavia, context: &Context, pool: &str, id: &str) -> Result<Answer> {
    let body = read(context.call, "member_", "member", &[COMMON])?;
    let (balancer, pool, id) = find(octavia, pool, id)?;
    let mut balancer = balancer.clone();
    balancer.lock_pool(pool)?;
    let (of, member) = balancer.member(id).ok_or_else(|| Error::not_found("Member", id))?;
    let mut spec = member.spec.clone();
    spec.write(&body);
    balancer.provider.check_member(&balancer, of, &spec, "update", context.vip_cidr(&balancer))?;
    if let Some(member) = balancer.member_mut(id) {
        member.head.write(&body);
        member.head.provisioning = Provisioning::PendingUpdate;
        member.head.updated = Some(context.now());
        member.spec = spec;
    }
    let mut changes = vec![Change::Put(Target::Member(id))];
    changes.extend(balancer.put_pool(pool));
    balancer.schedule(vec![Step::new(octavia.times.update, changes)], context.clock);
    let answer = answer(context, StatusCode::OK, &balancer, id);
    octavia.store(balancer);
    answer
}

pub(crate) fn delete(octavia: &mut Octavia, context: &Context, pool: &str, id: &str) -> Result<Answer> {
    let (balancer, pool, id) = find(octavia, pool, id)?;
    let mut balancer = balancer.clone();
    balancer.lock_pool(pool)?;
    if let Some((_, member)) = balancer.member(id) {
        balancer.provider.check_member_subnet(&member.spec, "deletion", context.vip_cidr(&balancer))?;
    }
    if let Some(member) = balancer.member_mut(id) {
        member.head.provisioning = Provisioning::PendingDelete;
    }
    let mut changes = vec![Change::Gone(Target::Member(id))];
    changes.extend(balancer.put_pool(pool));
    balancer.schedule(vec![Step::new(octavia.times.update, changes)], context.clock);
    octavia.store(balancer);
    Ok(Answer::empty(StatusCode::NO_CONTENT))
}

/// Makes the members of a pool those of the body, which are told apart by address and port number.
pub(crate) fn replace(octavia: &mut Octavia, context: &Context, pool: &str) -> Result<Answer> {
    let additive = context.flag("additive_only");
    let (balancer, id) = pools::find(octavia, pool)?;
    let mut balancer = balancer.clone();
    let bodies = read_list(context.call, "members_", "members", &[COMMON, CREATE, PROJECT])?;
    let specs = bodies.iter().map(MemberSpec::of_create).collect::<Result<Vec<_>>>()?;
    let unlocked = balancer.clone();
    balancer.lock_pool(id)?;
    let mut pool = balancer.pool(id).ok_or_else(|| Error::not_found("Pool", id))?.clone();

    let wanted: BTreeSet<(IpAddr, u16)> = specs.iter().map(MemberSpec::key).collect();
    let left_out: Vec<Uuid> =
        pool.members.iter().filter(|old| !wanted.contains(&old.spec.key())).map(|old| old.head.id).collect();
    if specs.is_empty() && left_out.is_empty() {
        octavia.store(unlocked);
        return Ok(Answer::empty(StatusCode::ACCEPTED));
    }
    let known: BTreeSet<(IpAddr, u16)> = pool.members.iter().map(|old| old.spec.key()).collect();
    let new = specs.iter().filter(|spec| !known.contains(&spec.key()));
    for spec in new.clone() {
        check_reserved(spec)?;
    }
    let more = new.clone().count().saturating_sub(if additive { 0 } else { left_out.len() });
    if more > 0 {
        octavia.check_quota(&balancer.project, "member", more)?;
    }
    for spec in new {
        check_subnet(context, spec)?;
    }
    let mut put = Vec::new();
    for (spec, body) in specs.iter().zip(&bodies) {
        if known.contains(&spec.key()) {
            let Some(old) = pool.members.iter_mut().find(|old| old.spec.key() == spec.key()) else { continue };
            old.head.write(body);
            old.head.provisioning = Provisioning::PendingUpdate;
            old.head.updated = Some(context.now());
            old.spec = MemberSpec { subnet: spec.subnet.or(old.spec.subnet), ..spec.clone() };
            put.push(old.head.id);
        } else {
            put.push(add(octavia, context, &mut pool, body)?);
        }
    }
    if additive {
        // The others are told to the provider as they are.
        put.extend(&left_out);
    }
    let cidr = context.vip_cidr(&balancer);
    for member in pool.members.iter().filter(|member| put.contains(&member.head.id)) {
        balancer.provider.check_member(&balancer, &pool, &member.spec, "batch update", cidr)?;
    }
    let mut gone = Vec::new();
    if !additive {
        for old in pool.members.iter_mut().filter(|old| left_out.contains(&old.head.id)) {
            old.head.provisioning = Provisioning::PendingDelete;
            // The OVN provider looks at what it has made: what is still on its way it makes, and nobody takes it away again.
            if old.live.is_some() || !balancer.provider.is_ovn() {
                gone.push(old.head.id);
            }
        }
    }
    if let Some(old) = balancer.pool_mut(id) {
        *old = pool;
    }
    let times = octavia.times.clone();
    let takes = |n: usize| if n == 0 { times.update } else { times.object };
    let put = put.into_iter().map(|member| Change::Put(Target::Member(member)));
    let gone = gone.into_iter().map(|member| Change::Gone(Target::Member(member)));
    let steps = put.chain(gone).enumerate().map(|(n, change)| {
        let changes = std::iter::once(change).chain(balancer.put_pool(id));
        Step::new(takes(n), changes)
    });
    let steps: Vec<Step> = steps.collect();
    balancer.schedule(steps, context.clock);
    octavia.store(balancer);
    Ok(Answer::empty(StatusCode::ACCEPTED))
}

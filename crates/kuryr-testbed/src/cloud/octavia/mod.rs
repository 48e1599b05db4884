//! Octavia v2 (as of Zed) in memory, with the providers `ovn` and `amphora`.
//!
//! ```text
//!  Call ─▶ dispatch ─▶ one file per kind ─▶ load balancer with all that is in it ─▶ steps of its provider ─▶ data plane
//!                                              │  ▲                                       │
//!                                              └──┴── asked for (spec), made (live) ◀─────┘
//! ```
//!
//! Invariants: a failed call has changed no load balancer (but one that fails late leaves the port of its VIP behind, as the real one
//! does); a load balancer changes only while it is `ACTIVE`; what the data plane sees is what a provider has made, not what was asked for.

mod discovery;
mod error;
mod fields;
mod health_monitors;
pub(super) mod hooks;
#[cfg(test)]
mod invariants;
mod listeners;
mod load_balancers;
mod members;
mod model;
mod pools;
mod providers;
mod provisioning;
mod query;
mod quotas;
mod render;
mod tree;
mod view;
mod vips;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use axum::http::Method;
use ipnet::IpNet;
use jiff::Timestamp;
use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

pub(super) use self::error::Error;
use self::error::Result;
use self::hooks::Hooks;
use self::model::LoadBalancer;
use super::body::Body;
use super::config::{Config, LoadBalancing, Provisioning};
use super::http::{Answer, Call};
use super::neutron::{Caller, Neutron};

/// What a call is worked on with.
pub(crate) struct Context<'a> {
    pub(crate) neutron: &'a mut Neutron,
    pub(crate) caller: &'a Caller,
    pub(crate) call: &'a Call,
    /// By which the providers' work is timed.
    pub(crate) clock: Instant,
}

impl Context<'_> {
    fn now(&self) -> Timestamp {
        self.caller.now
    }

    /// Whether the query sets a flag, in the many words that Python's services have for yes.
    fn flag(&self, name: &str) -> bool {
        let yes = |text: &str| ["1", "t", "true", "on", "y", "yes"].contains(&text.to_ascii_lowercase().as_str());
        self.call.query.iter().any(|(known, value)| known == name && yes(value))
    }

    fn vip_cidr(&self, balancer: &LoadBalancer) -> Option<IpNet> {
        self.neutron.subnet(balancer.vip.subnet).map(|subnet| subnet.cidr)
    }
}

/// All of Octavia's state.
#[derive(Debug)]
pub(crate) struct Octavia {
    config: LoadBalancing,
    times: Provisioning,
    page_limit: Option<usize>,
    balancers: BTreeMap<Uuid, LoadBalancer>,
    /// The load balancer of each listener, pool, member and monitor.
    owners: HashMap<Uuid, Uuid>,
    /// Load balancers that were deleted: nothing can be added to them, but they are known.
    deleted: BTreeSet<Uuid>,
    /// Limits of projects that have their own.
    quotas: BTreeMap<String, BTreeMap<String, i64>>,
    hooks: Hooks,
    made: u64,
}

impl Octavia {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            config: config.load_balancing.clone(),
            times: config.load_balancing.provisioning.clone(),
            page_limit: config.page_limit,
            balancers: BTreeMap::new(),
            owners: HashMap::new(),
            deleted: BTreeSet::new(),
            quotas: BTreeMap::new(),
            hooks: Hooks::default(),
            made: 0,
        }
    }

    /// Works on one call.
    pub(crate) fn handle(&mut self, neutron: &mut Neutron, caller: &Caller, call: &Call, clock: Instant) -> Answer {
        let mut context = Context { neutron, caller, call, clock };
        self.dispatch(&mut context).unwrap_or_else(|error| error.answer())
    }

    fn dispatch(&mut self, context: &mut Context) -> Result<Answer> {
        let path = context.call.segments();
        let path = match path.as_slice() {
            [] => return Ok(discovery::versions(context.call)),
            ["v2" | "v2.0"] | ["v2" | "v2.0", "lbaas"] => return Ok(Answer::ok(json!("v2"))),
            ["v2" | "v2.0", "lbaas", rest @ ..] => rest,
            _ => return Err(Error::no_such_path()),
        };
        match (&context.call.method, path) {
            (&Method::GET, ["loadbalancers"]) => load_balancers::all(self, context),
            (&Method::POST, ["loadbalancers"]) => load_balancers::create(self, context),
            (&Method::GET, ["loadbalancers", id]) => load_balancers::show(self, context, id),
            (&Method::PUT, ["loadbalancers", id]) => load_balancers::update(self, context, id),
            (&Method::DELETE, ["loadbalancers", id]) => load_balancers::delete(self, context, id),
            (&Method::PUT, ["loadbalancers", id, "failover"]) => load_balancers::failover(self, context, id),
            (&Method::GET, ["loadbalancers", id, "status" | "statuses"]) => load_balancers::status(self, id),
            (&Method::GET, ["loadbalancers", id, "stats"]) => load_balancers::stats(self, id),
            (&Method::GET, ["listeners"]) => listeners::all(self, context),
            (&Method::POST, ["listeners"]) => listeners::create(self, context),
            (&Method::GET, ["listeners", id]) => listeners::show(self, context, id),
            (&Method::PUT, ["listeners", id]) => listeners::update(self, context, id),
            (&Method::DELETE, ["listeners", id]) => listeners::delete(self, context, id),
            (&Method::GET, ["listeners", id, "stats"]) => listeners::stats(self, id),
            (&Method::GET, ["pools"]) => pools::all(self, context),
            (&Method::POST, ["pools"]) => pools::create(self, context),
            (&Method::GET, ["pools", id]) => pools::show(self, context, id),
            (&Method::PUT, ["pools", id]) => pools::update(self, context, id),
            (&Method::DELETE, ["pools", id]) => pools::delete(self, context, id),
            (&Method::GET, ["pools", pool, "members"]) => members::all(self, context, pool),
            (&Method::POST, ["pools", pool, "members"]) => members::create(self, context, pool),
            (&Method::PUT, ["pools", pool, "members"]) => members::replace(self, context, pool),
            (&Method::GET, ["pools", pool, "members", id]) => members::show(self, context, pool, id),
            (&Method::PUT, ["pools", pool, "members", id]) => members::update(self, context, pool, id),
            (&Method::DELETE, ["pools", pool, "members", id]) => members::delete(self, context, pool, id),
            (&Method::GET, ["healthmonitors"]) => health_monitors::all(self, context),
            (&Method::POST, ["healthmonitors"]) => health_monitors::create(self, context),
            (&Method::GET, ["healthmonitors", id]) => health_monitors::show(self, context, id),
            (&Method::PUT, ["healthmonitors", id]) => health_monitors::update(self, context, id),
            (&Method::DELETE, ["healthmonitors", id]) => health_monitors::delete(self, context, id),
            (_, ["quotas", rest @ ..]) => quotas::handle(self, context, rest),
            (_, ["providers", rest @ ..]) => discovery::providers(self, context, rest),
            (_, ["flavors", rest @ ..]) => discovery::flavors(self, context, rest),
            (_, ["availabilityzones", rest @ ..]) => discovery::availability_zones(self, context, rest),
            (_, ["loadbalancers" | "listeners" | "pools" | "healthmonitors", ..]) => Err(Error::no_such_method()),
            _ => Err(Error::no_such_path()),
        }
    }

    /// Does what is due. The first says whether anything was, the second when the next thing is.
    pub(crate) fn advance(&mut self, neutron: &mut Neutron, clock: Instant, now: Timestamp) -> (bool, Option<Instant>) {
        let mut changed = false;
        loop {
            let due = |balancer: &LoadBalancer| Some((balancer.next_due()?, balancer.head.id));
            let Some((due, id)) = self.balancers.values().filter_map(due).min() else { return (changed, None) };
            if due > clock {
                return (changed, Some(due));
            }
            changed = true;
            let outcome = self.change(id, |balancer| balancer.step(now)).unwrap_or_default();
            if outcome.gone {
                self.remove(id);
            }
            for port in outcome.ports {
                neutron.drop_port(port, now);
            }
        }
    }

    fn serial(&mut self) -> u64 {
        self.made += 1;
        self.made
    }

    fn balancers(&self) -> impl Iterator<Item = &LoadBalancer> {
        self.balancers.values()
    }

    /// The load balancer of a path.
    fn find(&self, id: &str) -> Result<&LoadBalancer> {
        let found = Uuid::try_parse(id).ok().and_then(|id| self.balancers.get(&id));
        found.ok_or_else(|| Error::not_found("Load Balancer", id))
    }

    /// A copy of the load balancer that a body names as the one to add something to.
    fn parent(&self, body: &Body) -> Result<LoadBalancer> {
        let id = body.uuid("loadbalancer_id").unwrap_or_default();
        if self.deleted.contains(&id) {
            return Err(Error::immutable("Load Balancer", id));
        }
        self.find(&id.to_string()).cloned()
    }

    /// The load balancer that something of a path is in, which the function knows, and the id of that.
    fn with_child(
        &self,
        kind: &str,
        id: &str,
        knows: impl Fn(&LoadBalancer, Uuid) -> bool,
    ) -> Result<(&LoadBalancer, Uuid)> {
        let found = Uuid::try_parse(id).ok().and_then(|id| Some((self.balancers.get(self.owners.get(&id)?)?, id)));
        found.filter(|(balancer, id)| knows(balancer, *id)).ok_or_else(|| Error::not_found(kind, id))
    }

    /// Puts a new or changed load balancer in place.
    fn store(&mut self, balancer: LoadBalancer) {
        let id = balancer.head.id;
        if let Some(old) = self.balancers.get(&id) {
            for child in old.children() {
                self.owners.remove(&child);
            }
        }
        self.owners.extend(balancer.children().into_iter().map(|child| (child, id)));
        self.balancers.insert(id, balancer);
    }

    /// Changes a load balancer, if it is there.
    fn change<T>(&mut self, id: Uuid, change: impl FnOnce(&mut LoadBalancer) -> T) -> Option<T> {
        let mut balancer = self.balancers.get(&id)?.clone();
        let out = change(&mut balancer);
        self.store(balancer);
        Some(out)
    }

    fn remove(&mut self, id: Uuid) -> Option<LoadBalancer> {
        let balancer = self.balancers.remove(&id)?;
        self.deleted.insert(id);
        self.owners.retain(|_, owner| *owner != id);
        Some(balancer)
    }
}

//! Random calls and random time, and after each the invariants of [`Octavia`]: what failed changed no load balancer, what is pending does
//! not change, and when the providers are through, the data plane sees what the API shows.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Method, Request};
use fastrand::Rng;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use super::model::{LoadBalancer, Provisioning};
use super::{Config, Octavia};
use crate::cloud::http::{Answer, Call};
use crate::cloud::neutron::{Caller, Neutron};

/// By load balancer, protocol and port number: whether it is up, and address, port number and weight of the members.
type Listeners = BTreeMap<(String, String, u64), (bool, BTreeSet<(IpAddr, u64, u64)>)>;

struct World {
    octavia: Octavia,
    neutron: Neutron,
    caller: Caller,
    rng: Rng,
    clock: Instant,
    subnet: String,
    provider: &'static str,
}

impl World {
    fn new(seed: u64, provider: &'static str) -> Self {
        let mut config = Config::default();
        config.load_balancing.default_provider = provider.into();
        config.load_balancing.quotas.set("load_balancer", 4);
        let caller = Caller { project: "p".into(), now: Timestamp::UNIX_EPOCH };
        let mut world = Self {
            octavia: Octavia::new(&config),
            neutron: Neutron::new(&config),
            caller,
            rng: Rng::with_seed(seed),
            clock: Instant::now(),
            subnet: String::new(),
            provider,
        };
        let network = json!({ "network": { "name": "n" } });
        let network = world.call(&Method::POST, "/v2.0/networks", &network).body.unwrap()["network"]["id"].take();
        let subnet = json!({ "subnet": { "network_id": network, "ip_version": 4, "cidr": "10.9.0.0/26" } });
        let subnet = world.call(&Method::POST, "/v2.0/subnets", &subnet).body.unwrap()["subnet"]["id"].take();
        world.subnet = subnet.as_str().unwrap().to_owned();
        world
    }

    fn call(&mut self, method: &Method, path: &str, body: &Value) -> Answer {
        let (parts, ()) = Request::builder().method(method).uri(path).body(()).unwrap().into_parts();
        let bytes = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let call = Call::read(&parts, bytes, "req-1".into(), None, Timestamp::UNIX_EPOCH).unwrap();
        if path.starts_with("/v2.0") {
            return self.neutron.handle(&self.caller, &call);
        }
        self.octavia.handle(&mut self.neutron, &self.caller, &call, self.clock)
    }

    fn pass(&mut self, time: Duration) {
        self.clock += time;
        self.octavia.advance(&mut self.neutron, self.clock, Timestamp::UNIX_EPOCH);
    }

    fn settle(&mut self) {
        while self.octavia.advance(&mut self.neutron, self.clock, Timestamp::UNIX_EPOCH).1.is_some() {
            self.clock += Duration::from_millis(1);
        }
    }

    fn pick<T: Copy>(&mut self, items: &[T]) -> Option<T> {
        (!items.is_empty() && self.rng.u8(0..12) > 0).then(|| items[self.rng.usize(0..items.len())])
    }

    fn some(&mut self, of: fn(&LoadBalancer) -> Vec<Uuid>) -> Uuid {
        let ids: Vec<Uuid> = self.octavia.balancers().flat_map(of).collect();
        self.pick(&ids).unwrap_or_default()
    }

    fn protocol(&mut self) -> &'static str {
        ["TCP", "UDP", "HTTP"][self.rng.usize(0..3)]
    }

    fn algorithm(&mut self) -> &'static str {
        let known = if self.provider == "ovn" { "SOURCE_IP_PORT" } else { "ROUND_ROBIN" };
        if self.rng.u8(0..10) == 0 { "LEAST_CONNECTIONS" } else { known }
    }

    fn members(&mut self) -> Value {
        let one = |rng: &mut Rng| {
            let address =
                if rng.u8(0..20) == 0 { "169.254.169.254".to_owned() } else { format!("10.9.0.{}", rng.u8(2..6)) };
            json!({ "address": address, "protocol_port": rng.u8(1..3), "weight": rng.u8(0..3) })
        };
        (0..self.rng.usize(0..4)).map(|_| one(&mut self.rng)).collect()
    }

    fn pool(&mut self) -> Value {
        json!({ "name": "p", "protocol": self.protocol(), "lb_algorithm": self.algorithm(), "members": self.members() })
    }

    fn listener(&mut self) -> Value {
        let mut listener = json!({ "protocol": self.protocol(), "protocol_port": self.rng.u8(1..4) });
        if self.rng.bool() {
            listener["default_pool"] = self.pool();
        }
        listener
    }

    /// One call of any kind, sensible or not.
    fn step(&mut self) -> Answer {
        let nothing = Value::Null;
        let lb = "/load-balancer/v2/lbaas";
        match self.rng.u8(0..13) {
            0 | 1 => {
                let mut balancer = json!({ "vip_subnet_id": self.subnet });
                if self.rng.bool() {
                    balancer["listeners"] = json!([self.listener()]);
                }
                if self.rng.u8(0..4) == 0 {
                    balancer["vip_address"] = json!(format!("10.9.0.{}", self.rng.u8(1..20)));
                }
                self.call(&Method::POST, &format!("{lb}/loadbalancers"), &json!({ "loadbalancer": balancer }))
            }
            2 => {
                let path = format!("{lb}/loadbalancers/{}", self.some(|lb| vec![lb.head.id]));
                let up = self.rng.bool();
                self.call(&Method::PUT, &path, &json!({ "loadbalancer": { "admin_state_up": up } }))
            }
            3 => {
                let cascade = if self.rng.bool() { "?cascade=true" } else { "" };
                let path = format!("{lb}/loadbalancers/{}{cascade}", self.some(|lb| vec![lb.head.id]));
                self.call(&Method::DELETE, &path, &nothing)
            }
            4 | 5 => {
                let mut listener = self.listener();
                listener.as_object_mut().unwrap().remove("default_pool");
                listener["loadbalancer_id"] = json!(self.some(|lb| vec![lb.head.id]));
                if self.rng.bool() {
                    listener["default_pool_id"] =
                        json!(self.some(|lb| lb.pools.iter().map(super::model::Pool::id).collect()));
                }
                self.call(&Method::POST, &format!("{lb}/listeners"), &json!({ "listener": listener }))
            }
            6 => {
                let listener = self.some(|lb| lb.listeners.iter().map(|l| l.head.id).collect());
                let path = format!("{lb}/listeners/{listener}");
                let pool = self.some(|lb| lb.pools.iter().map(super::model::Pool::id).collect());
                let pool = if self.rng.bool() { json!(pool) } else { Value::Null };
                self.call(&Method::PUT, &path, &json!({ "listener": { "default_pool_id": pool } }))
            }
            7 => {
                let listener = self.some(|lb| lb.listeners.iter().map(|l| l.head.id).collect());
                self.call(&Method::DELETE, &format!("{lb}/listeners/{listener}"), &nothing)
            }
            8 => {
                let mut pool = self.pool();
                pool.as_object_mut().unwrap().remove("members");
                pool["loadbalancer_id"] = json!(self.some(|lb| vec![lb.head.id]));
                self.call(&Method::POST, &format!("{lb}/pools"), &json!({ "pool": pool }))
            }
            9 => {
                let pool = self.some(|lb| lb.pools.iter().map(super::model::Pool::id).collect());
                if self.rng.bool() {
                    return self.call(&Method::DELETE, &format!("{lb}/pools/{pool}"), &nothing);
                }
                let up = self.rng.bool();
                self.call(&Method::PUT, &format!("{lb}/pools/{pool}"), &json!({ "pool": { "admin_state_up": up } }))
            }
            10 | 11 => {
                let additive = if self.rng.u8(0..4) == 0 { "?additive_only=true" } else { "" };
                let pool = self.some(|lb| lb.pools.iter().map(super::model::Pool::id).collect());
                let members = self.members();
                self.call(&Method::PUT, &format!("{lb}/pools/{pool}/members{additive}"), &json!({ "members": members }))
            }
            _ => {
                let member = self.some(|lb| lb.pools.iter().flat_map(|p| &p.members).map(|m| m.head.id).collect());
                let pool = self.octavia.balancers().find_map(|lb| lb.member(member)).map(|(pool, _)| pool.id());
                let path = format!("{lb}/pools/{}/members/{member}", pool.unwrap_or_default());
                self.call(&Method::DELETE, &path, &nothing)
            }
        }
    }

    fn list(&mut self, kind: &str) -> Vec<Value> {
        let path = format!("/load-balancer/v2/lbaas/{kind}");
        let mut body = self.call(&Method::GET, &path, &Value::Null).body.unwrap();
        let key = path.rsplit('/').next().unwrap();
        body[key].as_array_mut().unwrap().clone()
    }

    /// What the API shows, as the data plane should see it.
    fn shown(&mut self) -> Listeners {
        let pools = self.list("pools");
        let mut members = HashMap::new();
        for pool in &pools {
            let id = pool["id"].as_str().unwrap().to_owned();
            members.insert(id.clone(), self.list(&format!("pools/{id}/members")));
        }
        let mut out = BTreeMap::new();
        for listener in self.list("listeners") {
            let pool =
                pools.iter().find(|pool| pool["id"] == listener["default_pool_id"] && pool["admin_state_up"] == true);
            let of = pool.map(|pool| members[pool["id"].as_str().unwrap()].clone()).unwrap_or_default();
            let weight = |member: &Value| if self.provider == "ovn" { 1 } else { member["weight"].as_u64().unwrap() };
            let member = |m: &Value| {
                (m["address"].as_str().unwrap().parse().unwrap(), m["protocol_port"].as_u64().unwrap(), weight(m))
            };
            let key = (
                listener["loadbalancers"][0]["id"].as_str().unwrap().to_owned(),
                listener["protocol"].as_str().unwrap().to_owned(),
                listener["protocol_port"].as_u64().unwrap(),
            );
            out.insert(key, (listener["admin_state_up"] == true, of.iter().map(member).collect()));
        }
        out
    }

    fn seen(&self) -> Listeners {
        let mut out = BTreeMap::new();
        for view in self.octavia.views() {
            for listener in view.listeners {
                let member = |m: &crate::cloud::MemberView| (m.address, u64::from(m.port), u64::from(m.weight));
                let key = (view.id.to_string(), listener.protocol.clone(), u64::from(listener.port));
                out.insert(key, (listener.admin_state_up, listener.members.iter().map(member).collect()));
            }
        }
        out
    }
}

fn state(octavia: &Octavia) -> Vec<String> {
    octavia.balancers().map(|balancer| format!("{balancer:?}")).collect()
}

fn check(octavia: &Octavia) {
    let mut owners = HashMap::new();
    for balancer in octavia.balancers() {
        for child in balancer.children() {
            assert!(owners.insert(child, balancer.head.id).is_none(), "{child} is in two places");
        }
        for listener in &balancer.listeners {
            assert!(listener.spec.pool.is_none_or(|pool| balancer.pool(pool).is_some()), "a pool that is gone");
        }
        let pending = !matches!(balancer.head.provisioning, Provisioning::Active | Provisioning::Error);
        assert!(pending || balancer.head.provisioning == Provisioning::Active || balancer.queue.is_empty());
        assert_eq!(balancer.due.is_some(), !balancer.queue.is_empty(), "a step that nobody does");
        for pool in &balancer.pools {
            let keys: BTreeSet<_> = pool.members.iter().map(|m| (m.spec.address, m.spec.port)).collect();
            assert_eq!(keys.len(), pool.members.len(), "a member twice");
        }
    }
    assert_eq!(octavia.owners, owners);
}

/// Whether calls meet load balancers that are not through with the last one.
fn run(provider: &'static str, hurried: bool) -> BTreeMap<u16, usize> {
    let mut statuses = BTreeMap::new();
    for seed in 0..40 {
        let mut world = World::new(seed, provider);
        for _ in 0..100 {
            let before = state(&world.octavia);
            let answer = world.step();
            *statuses.entry(answer.status.as_u16()).or_default() += 1;
            if !answer.status.is_success() {
                assert_eq!(state(&world.octavia), before, "seed {seed}: {answer:?}");
            }
            check(&world.octavia);
            if hurried {
                let time = Duration::from_millis(world.rng.u64(0..5));
                world.pass(time);
            } else {
                world.settle();
            }
            check(&world.octavia);
        }
        world.settle();
        if !hurried || provider != "ovn" {
            assert_eq!(world.seen(), world.shown(), "seed {seed}");
            let stuck = world.octavia.balancers().filter(|lb| lb.head.provisioning != Provisioning::Active).count();
            assert_eq!(stuck, 0, "seed {seed}");
        }
    }
    statuses
}

#[test]
fn any_sequence_of_calls_keeps_the_invariants_and_the_data_plane_sees_what_was_asked_for() {
    for (provider, hurried) in [("amphora", false), ("amphora", true), ("ovn", false), ("ovn", true)] {
        let statuses = run(provider, hurried);
        // The sequences mean something only if they meet the answers that they are about.
        for status in [201, 202, 204, 200, 400, 403, 404, 409] {
            assert!(statuses.contains_key(&status), "{provider}: never met {status}: {statuses:?}");
        }
        assert_eq!(statuses.contains_key(&501), provider == "ovn", "{statuses:?}");
    }
}

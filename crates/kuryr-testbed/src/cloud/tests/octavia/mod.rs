//! Octavia through HTTP.

mod answers;
mod faults;
mod lists;
mod members;
mod monitors;
mod providers;
mod scale;
mod states;
mod trees;
mod vips;

use std::time::Duration;

use serde_json::{Value, json};

use super::client::{Client, Reply};
use super::{World, id, network, subnet};
use crate::cloud::{Config, LoadBalancing, LoadBalancingConfig, OvnRelease, Provisioning};

/// A cloud with a network for VIPs, and a client of its Octavia.
struct Site {
    world: World,
    octavia: Client,
    network: String,
    subnet: String,
}

impl Site {
    async fn new() -> Self {
        Self::with(LoadBalancingConfig::default()).await
    }

    /// Where load balancers without a provider are amphorae.
    async fn of_amphorae() -> Self {
        Self::with(LoadBalancingConfig { default_provider: "amphora".into(), ..LoadBalancingConfig::default() }).await
    }

    /// Where the OVN provider is newer than Zed's.
    async fn of_later_ovn() -> Self {
        Self::with(LoadBalancingConfig { ovn: OvnRelease::Later, ..LoadBalancingConfig::default() }).await
    }

    async fn with(load_balancing: LoadBalancingConfig) -> Self {
        let world = World::with(Config { load_balancing, ..Config::default() }).await;
        let octavia = Client::log_in(&world.server.auth_url(), "admin", "secret", "admin", "load-balancer").await;
        let network = network(&world.neutron, "services").await;
        let subnet = subnet(&world.neutron, &network, "10.9.0.0/24").await;
        Self { world, octavia, network, subnet }
    }

    fn hooks(&self) -> LoadBalancing {
        self.world.cloud.load_balancing()
    }

    /// Asks for a load balancer, on the subnet unless the attributes say where.
    async fn ask(&self, mut attributes: Value) -> Reply {
        let named = ["vip_subnet_id", "vip_network_id", "vip_port_id"].iter().any(|name| !attributes[name].is_null());
        if !named {
            attributes["vip_subnet_id"] = json!(self.subnet);
        }
        self.octavia.post("/v2/lbaas/loadbalancers", &json!({ "loadbalancer": attributes })).await
    }

    /// Makes a load balancer and waits until it is through.
    async fn balancer(&self, attributes: Value) -> Value {
        let made = self.ask(attributes).await.expect(201)["loadbalancer"].take();
        self.hooks().settled().await;
        made
    }

    /// Waits until the only load balancer is `ACTIVE`, though its provider may not be through, and holds it there.
    async fn hold_when_active(&self) {
        let mut changes = self.world.cloud.subscribe();
        while self.hooks().all()[0].provisioning_status != "ACTIVE" {
            changes.changed().await.unwrap();
        }
        self.hooks().hold(self.hooks().all()[0].id);
    }

    async fn release(&self) {
        self.hooks().release(self.hooks().all()[0].id);
        self.hooks().settled().await;
    }

    async fn get(&self, path: &str) -> Value {
        self.octavia.get(&format!("/v2/lbaas{path}")).await.expect(200)
    }

    async fn show(&self, balancer: &Value) -> Value {
        self.get(&format!("/loadbalancers/{}", id(balancer))).await["loadbalancer"].take()
    }

    /// Name and both states of a load balancer, its listeners, their pools, members and monitors, indented.
    async fn tree(&self, balancer: &Value) -> String {
        let states = self.get(&format!("/loadbalancers/{}/status", id(balancer))).await;
        let mut out = String::new();
        draw(&states["statuses"]["loadbalancer"], 0, &mut out);
        out
    }

    /// The ids of the ports on the network for VIPs.
    async fn ports(&self) -> Vec<Value> {
        let path = format!("/v2.0/ports?network_id={}", self.network);
        self.world.neutron.get(&path).await.expect(200)["ports"].as_array().unwrap().clone()
    }
}

fn draw(node: &Value, depth: usize, out: &mut String) {
    let name = node["name"].as_str().filter(|name| !name.is_empty());
    let name = name.or_else(|| node["address"].as_str()).or_else(|| node["type"].as_str()).unwrap_or("?");
    let state = |key: &str| node[key].as_str().unwrap_or("?").to_owned();
    out.push_str(&format!(
        "{}{name} {} {}\n",
        "  ".repeat(depth),
        state("provisioning_status"),
        state("operating_status")
    ));
    for key in ["listeners", "pools", "members"] {
        node[key].as_array().into_iter().flatten().for_each(|child| draw(child, depth + 1, out));
    }
    if node["health_monitor"].is_object() {
        draw(&node["health_monitor"], depth + 1, out);
    }
}

/// Lines without the spaces that the test's own indentation gives them.
fn lines(text: &str) -> String {
    let text = text.trim_matches('\n');
    let cut = text.lines().next().map_or(0, |line| line.len() - line.trim_start().len());
    text.lines()
        .map(|line| format!("{}\n", line.get(cut..).unwrap_or_default()))
        .collect::<String>()
        .trim_end()
        .to_owned()
        + "\n"
}

/// A listener with its pool and members, as Kuryr makes them.
fn service(protocol: &str, port: u16, members: &[&str]) -> Value {
    let name = format!("{protocol}:{port}");
    let member = |address: &&str| json!({ "address": address, "protocol_port": 8080, "name": address });
    let members: Vec<Value> = members.iter().map(member).collect();
    json!({ "name": name, "protocol": protocol, "protocol_port": port, "default_pool": {
        "name": name, "protocol": protocol, "lb_algorithm": "SOURCE_IP_PORT", "members": members,
    }})
}

/// The same for amphorae, which do not know that algorithm.
fn round_robin(protocol: &str, port: u16, members: &[&str]) -> Value {
    let mut service = service(protocol, port, members);
    service["default_pool"]["lb_algorithm"] = json!("ROUND_ROBIN");
    service
}

/// Where a provider takes long for each object but the first, so that a test can look in between.
fn gradual(provider: &str) -> LoadBalancingConfig {
    let provisioning = Provisioning { object: Duration::from_millis(800), ..Provisioning::default() };
    LoadBalancingConfig { default_provider: provider.into(), provisioning, ..LoadBalancingConfig::default() }
}

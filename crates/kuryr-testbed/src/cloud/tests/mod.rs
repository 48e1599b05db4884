//! The cloud through HTTP. Tests that ask only through a [`client::Client`] state what a real cloud does, too.

mod address_groups;
mod addresses;
mod client;
mod faults;
mod floating_ips;
mod groups;
mod identity;
mod lists;
mod octavia;
mod ports;
mod routers;
mod scale;
mod subnets;
mod trunks;

use serde_json::{Value, json};

use self::client::Client;
use super::{Cloud, Config, Server};

/// A cloud that serves, and a client of its Neutron.
struct World {
    cloud: Cloud,
    server: Server,
    neutron: Client,
}

impl World {
    async fn new() -> Self {
        Self::with(Config::default()).await
    }

    async fn with(config: Config) -> Self {
        let cloud = Cloud::new(config);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = cloud.serve(listener).unwrap();
        let neutron = Client::log_in(&server.auth_url(), "admin", "secret", "admin", "network").await;
        Self { cloud, server, neutron }
    }
}

/// Makes a network; its id.
async fn network(neutron: &Client, name: &str) -> String {
    let reply = neutron.post("/v2.0/networks", &json!({ "network": { "name": name } })).await;
    id(&reply.expect(201)["network"])
}

/// Makes a subnet of a network; its id.
async fn subnet(neutron: &Client, network: &str, cidr: &str) -> String {
    let version = if cidr.contains(':') { 6 } else { 4 };
    let body = json!({ "subnet": { "network_id": network, "cidr": cidr, "ip_version": version } });
    id(&neutron.post("/v2.0/subnets", &body).await.expect(201)["subnet"])
}

/// Makes a port from the attributes; the port.
async fn port(neutron: &Client, network: &str, mut attributes: Value) -> Value {
    attributes["network_id"] = json!(network);
    neutron.post("/v2.0/ports", &json!({ "port": attributes })).await.expect(201)["port"].take()
}

fn id(value: &Value) -> String {
    value["id"].as_str().unwrap().to_owned()
}

use serde_json::{Value, json};

use super::client::Reply;
use super::{World, id, network, port, subnet};

async fn try_port(world: &World, net: &str, fixed_ips: Value) -> Reply {
    world.neutron.post("/v2.0/ports", &json!({ "port": { "network_id": net, "fixed_ips": fixed_ips } })).await
}

fn addresses(port: &Value) -> Vec<String> {
    port["fixed_ips"].as_array().unwrap().iter().map(|ip| ip["ip_address"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_full_subnet_answers_409_ip_address_generation_failure() {
    let world = World::new().await;
    let net = network(&world.neutron, "n").await;
    let sub = subnet(&world.neutron, &net, "10.1.0.0/29").await;
    let mut last = Value::Null;
    for _ in 0..5 {
        last = port(&world.neutron, &net, json!({})).await;
    }
    let reply = try_port(&world, &net, json!([{ "subnet_id": sub }])).await;
    assert_eq!(reply.error(), (409, "IpAddressGenerationFailure"));
    assert_eq!(reply.message(), format!("No more IP addresses available on network {net}."));
    world.neutron.delete(&format!("/v2.0/ports/{}", id(&last))).await.expect(204);
    let again = port(&world.neutron, &net, json!({})).await;
    assert_eq!(addresses(&again), addresses(&last), "the address that was given back");
}

#[tokio::test]
async fn a_port_without_fixed_ips_takes_the_next_subnet_when_one_is_full() {
    let world = World::new().await;
    let net = network(&world.neutron, "n").await;
    let first = subnet(&world.neutron, &net, "10.1.0.0/30").await;
    let second = subnet(&world.neutron, &net, "10.2.0.0/30").await;
    let a = port(&world.neutron, &net, json!({})).await;
    let b = port(&world.neutron, &net, json!({})).await;
    assert_eq!((&a["fixed_ips"][0]["subnet_id"], &b["fixed_ips"][0]["subnet_id"]), (&json!(first), &json!(second)));
    assert_eq!(
        try_port(&world, &net, json!([{ "subnet_id": first }])).await.error(),
        (409, "IpAddressGenerationFailure")
    );
}

#[tokio::test]
async fn a_dual_stack_network_gives_one_address_of_each_version() {
    let world = World::new().await;
    let net = network(&world.neutron, "n").await;
    let v4 = subnet(&world.neutron, &net, "10.1.0.0/24").await;
    let v6 = subnet(&world.neutron, &net, "fd00:1::/64").await;
    let p = port(&world.neutron, &net, json!({})).await;
    let subnets: Vec<&Value> = p["fixed_ips"].as_array().unwrap().iter().map(|ip| &ip["subnet_id"]).collect();
    assert_eq!(subnets, [&json!(v4), &json!(v6)]);
    let both = try_port(&world, &net, json!([{ "subnet_id": v4 }, { "subnet_id": v4 }])).await.expect(201);
    assert_eq!(addresses(&both["port"]).len(), 2, "two addresses of one subnet");
    assert_eq!(addresses(&try_port(&world, &net, json!([])).await.expect(201)["port"]).len(), 0);
}

#[tokio::test]
async fn slaac_subnets_give_the_address_that_the_mac_makes() {
    let world = World::new().await;
    let net = network(&world.neutron, "n").await;
    let body = json!({ "subnet": { "network_id": net, "cidr": "2001:db8::/64", "ip_version": 6,
        "ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac" } });
    let sub = id(&world.neutron.post("/v2.0/subnets", &body).await.expect(201)["subnet"]);
    let p = port(&world.neutron, &net, json!({ "mac_address": "FA:16:3E:01:02:03" })).await;
    assert_eq!(p["mac_address"], "fa:16:3e:01:02:03");
    assert_eq!(addresses(&p), ["2001:db8::f816:3eff:fe01:203"]);
    let fixed = try_port(&world, &net, json!([{ "subnet_id": sub, "ip_address": "2001:db8::5" }])).await;
    assert_eq!(fixed.error(), (400, "AllocationOnAutoAddressSubnet"));
}

#[tokio::test]
async fn an_address_is_given_once() {
    let world = World::new().await;
    let net = network(&world.neutron, "n").await;
    let sub = subnet(&world.neutron, &net, "10.1.0.0/24").await;
    let wanted = json!([{ "subnet_id": sub, "ip_address": "10.1.0.77" }]);
    try_port(&world, &net, wanted.clone()).await.expect(201);
    let reply = try_port(&world, &net, wanted).await;
    assert_eq!(reply.error(), (409, "IpAddressAlreadyAllocated"));
    assert_eq!(reply.message(), format!("IP address 10.1.0.77 already allocated in subnet {sub}"));
    let found = world.neutron.get("/v2.0/ports?fixed_ips=ip_address%3D10.1.0.77&fields=id").await.expect(200);
    assert_eq!(found["ports"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn addresses_outside_the_subnets_are_refused() {
    let world = World::new().await;
    let net = network(&world.neutron, "n").await;
    let empty = network(&world.neutron, "empty").await;
    let other = network(&world.neutron, "other").await;
    let sub = subnet(&world.neutron, &net, "10.1.0.0/24").await;
    let foreign = subnet(&world.neutron, &other, "10.2.0.0/24").await;
    for (net, fixed_ips, status, kind) in [
        (&net, json!([{ "subnet_id": sub, "ip_address": "10.9.0.1" }]), 400, "InvalidIpForSubnet"),
        (&net, json!([{ "subnet_id": sub, "ip_address": "10.1.0.255" }]), 400, "InvalidIpForSubnet"),
        (&net, json!([{ "ip_address": "10.9.0.1" }]), 400, "InvalidIpForNetwork"),
        (&net, json!([{ "subnet_id": foreign }]), 400, "InvalidInput"),
        (&net, json!([{ "subnet_id": uuid::Uuid::nil() }]), 404, "SubnetNotFound"),
        (&net, json!([{ "ip_address": "10.1.0" }]), 400, "HTTPBadRequest"),
        (&net, json!([{ "ip_address": "10.1.0.4" }, { "ip_address": "10.1.0.4" }]), 400, "HTTPBadRequest"),
        (&net, json!([{}]), 400, "InvalidInput"),
        (&net, json!(["10.1.0.4"]), 400, "HTTPBadRequest"),
        (&empty, json!([{ "ip_address": "10.1.0.4" }]), 400, "InvalidInput"),
    ] {
        let reply = try_port(&world, net, fixed_ips.clone()).await;
        assert_eq!(reply.error(), (status, kind), "{fixed_ips}: {}", reply.message());
    }
    assert_eq!(addresses(&port(&world.neutron, &empty, json!({})).await).len(), 0);
}

#[tokio::test]
async fn a_bulk_create_that_does_not_fit_makes_nothing_and_loses_what_it_took() {
    let world = World::new().await;
    let net = network(&world.neutron, "n").await;
    subnet(&world.neutron, &net, "10.1.0.0/29").await;
    let one = json!({ "network_id": net, "tags": ["kuryr:c"] });
    let six = json!({ "ports": [one, one, one, one, one, one] });
    let reply = world.neutron.post("/v2.0/ports", &six).await;
    assert_eq!(reply.error(), (409, "IpAddressGenerationFailure"));
    let ports = world.neutron.get("/v2.0/ports?tags=kuryr:c").await.expect(200);
    assert_eq!(ports["ports"], json!([]));
    // As of ML2 up to at least Zed; what no port has is not counted as used, though.
    assert_eq!(world.cloud.lost_addresses(), 5);
    let reply = world.neutron.post("/v2.0/ports", &json!({ "port": { "network_id": net } })).await;
    assert_eq!(reply.error(), (409, "IpAddressGenerationFailure"));
    let shown = world.neutron.get(&format!("/v2.0/network-ip-availabilities/{net}")).await.expect(200);
    let subnet = &shown["network_ip_availability"]["subnet_ip_availability"][0];
    assert_eq!((&subnet["used_ips"], &subnet["total_ips"]), (&json!(0), &json!(5)));
}

#[tokio::test]
async fn a_bulk_create_that_is_refused_for_another_reason_loses_nothing() {
    let world = World::new().await;
    let net = network(&world.neutron, "n").await;
    subnet(&world.neutron, &net, "10.1.0.0/29").await;
    let one = json!({ "network_id": net });
    let bad = json!({ "network_id": net, "security_groups": ["00000000-0000-0000-0000-000000000000"] });
    let reply = world.neutron.post("/v2.0/ports", &json!({ "ports": [one, one, bad] })).await;
    assert_eq!(reply.error().0, 404);
    assert_eq!(world.cloud.lost_addresses(), 0);
    let five = json!({ "ports": [one, one, one, one, one] });
    assert_eq!(world.neutron.post("/v2.0/ports", &five).await.expect(201)["ports"].as_array().unwrap().len(), 5);
}

#[tokio::test]
async fn an_update_of_fixed_ips_keeps_what_it_names_and_gives_back_the_rest() {
    let world = World::new().await;
    let net = network(&world.neutron, "n").await;
    let sub = subnet(&world.neutron, &net, "10.1.0.0/24").await;
    let p = try_port(&world, &net, json!([{ "ip_address": "10.1.0.10" }, { "ip_address": "10.1.0.11" }])).await;
    let path = format!("/v2.0/ports/{}", id(&p.expect(201)["port"]));
    let body = json!({ "port": { "fixed_ips": [{ "ip_address": "10.1.0.11" }, { "ip_address": "10.1.0.12" }] } });
    let changed = world.neutron.put(&path, &body).await.expect(200);
    assert_eq!(addresses(&changed["port"]), ["10.1.0.11", "10.1.0.12"]);
    try_port(&world, &net, json!([{ "ip_address": "10.1.0.10" }])).await.expect(201);
    // A subnet without an address keeps an address of that subnet.
    let body = json!({ "port": { "fixed_ips": [{ "subnet_id": sub }] } });
    let changed = world.neutron.put(&path, &body).await.expect(200);
    assert_eq!(addresses(&changed["port"]), ["10.1.0.11"]);
    // An update that fails changes nothing.
    let body = json!({ "port": { "fixed_ips": [{ "ip_address": "10.1.0.13" }, { "ip_address": "10.1.0.10" }] } });
    assert_eq!(world.neutron.put(&path, &body).await.error(), (409, "IpAddressAlreadyAllocated"));
    assert_eq!(addresses(&world.neutron.get(&path).await.expect(200)["port"]), ["10.1.0.11"]);
    try_port(&world, &net, json!([{ "ip_address": "10.1.0.13" }])).await.expect(201);
}

#[tokio::test]
async fn the_use_of_addresses_is_counted_by_subnet() {
    let world = World::new().await;
    let net = network(&world.neutron, "n").await;
    let v4 = subnet(&world.neutron, &net, "10.1.0.0/24").await;
    subnet(&world.neutron, &net, "fd00::/64").await;
    port(&world.neutron, &net, json!({})).await;
    port(&world.neutron, &net, json!({})).await;
    let shown = world.neutron.get(&format!("/v2.0/network-ip-availabilities/{net}")).await.expect(200);
    let subnets = &shown["network_ip_availability"]["subnet_ip_availability"];
    assert_eq!((&subnets[0]["subnet_id"], &subnets[0]["used_ips"]), (&json!(v4), &json!(2)));
    assert_eq!(subnets[0]["total_ips"], 253);
    assert!(subnets[1]["total_ips"].as_f64().unwrap() > 1e19);
    let listed = world.neutron.get("/v2.0/network-ip-availabilities?network_name=nobody").await.expect(200);
    assert_eq!(listed["network_ip_availabilities"], json!([]));
    let missing = world.neutron.get(&format!("/v2.0/network-ip-availabilities/{v4}")).await;
    assert_eq!(missing.error(), (404, "NetworkNotFound"));
}

#[tokio::test]
async fn hosts_are_listed_as_agents() {
    let world = World::new().await;
    world.cloud.add_host("node-1", crate::cloud::HostKind::Ovs);
    world.cloud.add_host("node-2", crate::cloud::HostKind::Tap);
    let agents = world.neutron.get("/v2.0/agents?host=node-1&limit=1000").await.expect(200)["agents"].take();
    assert_eq!(agents.as_array().unwrap().len(), 1);
    assert_eq!((&agents[0]["agent_type"], &agents[0]["alive"]), (&json!("OVN Controller agent"), &json!(true)));
    let shown = world.neutron.get(&format!("/v2.0/agents/{}", id(&agents[0]))).await.expect(200);
    assert_eq!(shown["agent"]["host"], "node-1");
}

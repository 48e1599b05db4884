use serde_json::{Value, json};

use super::{World, id, network, port, subnet};

async fn make(world: &World, attributes: Value) -> super::client::Reply {
    world.neutron.post("/v2.0/subnets", &json!({ "subnet": attributes })).await
}

#[tokio::test]
async fn a_subnet_has_its_first_address_as_gateway_and_the_rest_as_pool() {
    let world = World::new().await;
    let net = network(&world.neutron, "n").await;
    let reply = make(&world, json!({ "network_id": net, "cidr": "10.1.0.0/24", "ip_version": 4 })).await;
    let subnet = reply.expect(201)["subnet"].take();
    assert_eq!(subnet["gateway_ip"], "10.1.0.1");
    assert_eq!(subnet["allocation_pools"], json!([{ "start": "10.1.0.2", "end": "10.1.0.254" }]));
    assert_eq!(subnet["enable_dhcp"], true);
    let shown = world.neutron.get(&format!("/v2.0/networks/{net}")).await.expect(200);
    assert_eq!(shown["network"]["subnets"], json!([subnet["id"]]));
    assert_eq!(shown["network"]["mtu"], 1442);
}

#[tokio::test]
async fn an_overlapping_subnet_of_one_network_is_refused() {
    let world = World::new().await;
    let net = network(&world.neutron, "n").await;
    subnet(&world.neutron, &net, "10.1.0.0/24").await;
    let reply = make(&world, json!({ "network_id": net, "cidr": "10.1.0.128/25", "ip_version": 4 })).await;
    assert_eq!(reply.error(), (400, "InvalidInput"));
    assert!(reply.message().contains("overlaps with another subnet"), "{}", reply.message());
    let other = network(&world.neutron, "other").await;
    subnet(&world.neutron, &other, "10.1.0.128/25").await;
}

#[tokio::test]
async fn wrong_values_of_a_subnet_are_refused_by_name() {
    let world = World::new().await;
    let net = network(&world.neutron, "n").await;
    let base = json!({ "network_id": net, "cidr": "10.1.0.0/24", "ip_version": 4 });
    for (name, value, status, kind) in [
        ("cidr", json!("10.1.0.5/24"), 400, "HTTPBadRequest"),
        ("cidr", json!("fd00::/64"), 400, "InvalidInput"),
        ("ip_version", json!(5), 400, "HTTPBadRequest"),
        ("gateway_ip", json!("10.1.0.0"), 400, "InvalidInput"),
        ("gateway_ip", json!("nonsense"), 400, "HTTPBadRequest"),
        ("allocation_pools", json!([{ "start": "10.1.0.9", "end": "10.1.0.4" }]), 400, "InvalidAllocationPool"),
        ("allocation_pools", json!([{ "start": "10.1.0.9", "end": "10.1.1.4" }]), 400, "OutOfBoundsAllocationPool"),
        (
            "allocation_pools",
            json!([{ "start": "10.1.0.1", "end": "10.1.0.4" }]),
            409,
            "GatewayConflictWithAllocationPools",
        ),
        ("ipv6_address_mode", json!("slaac"), 400, "InvalidInput"),
        ("colour", json!("blue"), 400, "HTTPBadRequest"),
        ("id", json!("x"), 400, "HTTPBadRequest"),
    ] {
        let mut body = base.clone();
        body[name] = value.clone();
        let reply = make(&world, body).await;
        assert_eq!(reply.error(), (status, kind), "{name}={value}: {}", reply.message());
    }
    let reply = make(&world, json!({ "network_id": net, "cidr": "10.1.0.0/24", "ip_version": 4, "colour": 1 })).await;
    assert_eq!(reply.message(), "Unrecognized attribute(s) 'colour'");
    let reply = make(&world, json!({ "network_id": uuid::Uuid::nil(), "cidr": "10.1.0.0/24", "ip_version": 4 })).await;
    assert_eq!(reply.error(), (404, "NetworkNotFound"));
}

#[tokio::test]
async fn a_subnet_with_ports_is_in_use_and_a_network_takes_its_subnets_along() {
    let world = World::new().await;
    let net = network(&world.neutron, "n").await;
    let sub = subnet(&world.neutron, &net, "10.1.0.0/24").await;
    let p = port(&world.neutron, &net, json!({})).await;
    assert_eq!(world.neutron.delete(&format!("/v2.0/subnets/{sub}")).await.error(), (409, "SubnetInUse"));
    let reply = world.neutron.delete(&format!("/v2.0/networks/{net}")).await;
    assert_eq!(reply.error(), (409, "NetworkInUse"));
    assert!(reply.message().contains(p["id"].as_str().unwrap()));
    world.neutron.delete(&format!("/v2.0/ports/{}", id(&p))).await.expect(204);
    world.neutron.delete(&format!("/v2.0/networks/{net}")).await.expect(204);
    assert_eq!(world.neutron.get(&format!("/v2.0/subnets/{sub}")).await.error(), (404, "SubnetNotFound"));
    assert_eq!(world.neutron.delete(&format!("/v2.0/networks/{net}")).await.error(), (404, "NetworkNotFound"));
}

#[tokio::test]
async fn a_port_that_neutron_makes_for_a_network_goes_with_it() {
    let world = World::new().await;
    let net = network(&world.neutron, "n").await;
    let sub = subnet(&world.neutron, &net, "10.1.0.0/24").await;
    port(&world.neutron, &net, json!({ "device_owner": "network:distributed" })).await;
    world.neutron.delete(&format!("/v2.0/subnets/{sub}")).await.expect(204);
    world.neutron.delete(&format!("/v2.0/networks/{net}")).await.expect(204);
    assert!(world.cloud.ports().is_empty());
}

#[tokio::test]
async fn a_subnet_pool_gives_prefixes_until_it_is_empty() {
    let world = World::new().await;
    let net = network(&world.neutron, "n").await;
    let body = json!({ "subnetpool": { "name": "pods", "prefixes": ["10.8.0.0/23"], "default_prefixlen": 24 } });
    let pool = world.neutron.post("/v2.0/subnetpools", &body).await.expect(201)["subnetpool"].take();
    let from_pool = json!({ "network_id": net, "ip_version": 4, "subnetpool_id": pool["id"] });
    let first = make(&world, from_pool.clone()).await.expect(201);
    assert_eq!(first["subnet"]["cidr"], "10.8.0.0/24");
    assert_eq!(first["subnet"]["subnetpool_id"], pool["id"]);
    assert_eq!(make(&world, from_pool.clone()).await.expect(201)["subnet"]["cidr"], "10.8.1.0/24");
    assert_eq!(make(&world, from_pool.clone()).await.error(), (500, "SubnetAllocationError"));
    let mut short = from_pool;
    short["prefixlen"] = json!(7);
    assert_eq!(make(&world, short).await.error(), (400, "MinPrefixSubnetAllocationError"));
    let path = format!("/v2.0/subnetpools/{}", id(&pool));
    assert_eq!(world.neutron.delete(&path).await.error(), (400, "SubnetPoolDeleteError"));
    world.neutron.delete(&format!("/v2.0/networks/{net}")).await.expect(204);
    world.neutron.delete(&path).await.expect(204);
}

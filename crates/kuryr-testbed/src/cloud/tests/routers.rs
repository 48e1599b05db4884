use serde_json::{Value, json};

use super::{World, id, network, port, subnet};

async fn router(world: &World, attributes: Value) -> String {
    id(&world.neutron.post("/v2.0/routers", &json!({ "router": attributes })).await.expect(201)["router"])
}

#[tokio::test]
async fn an_interface_takes_the_gateway_address_of_its_subnet() {
    let world = World::new().await;
    let net = network(&world.neutron, "n").await;
    let sub = subnet(&world.neutron, &net, "10.1.0.0/24").await;
    let r = router(&world, json!({ "name": "r" })).await;
    let add = format!("/v2.0/routers/{r}/add_router_interface");
    let made = world.neutron.put(&add, &json!({ "subnet_id": sub })).await.expect(200);
    assert_eq!(made["subnet_ids"], json!([sub]));
    let ports = world.neutron.get(&format!("/v2.0/ports?device_id={r}")).await.expect(200);
    assert_eq!(ports["ports"][0]["fixed_ips"], json!([{ "subnet_id": sub, "ip_address": "10.1.0.1" }]));
    assert_eq!(ports["ports"][0]["device_owner"], "network:router_interface");
    let again = world.neutron.put(&add, &json!({ "subnet_id": sub })).await;
    assert_eq!(again.error(), (400, "BadRequest"));

    let path = format!("/v2.0/ports/{}", made["port_id"].as_str().unwrap());
    assert_eq!(world.neutron.delete(&path).await.error(), (409, "ServicePortInUse"));
    assert_eq!(world.neutron.delete(&format!("/v2.0/routers/{r}")).await.error(), (409, "RouterInUse"));
    assert_eq!(world.neutron.delete(&format!("/v2.0/subnets/{sub}")).await.error(), (409, "SubnetInUse"));

    let snapshot = world.cloud.snapshot();
    assert_eq!(snapshot.routers.values().next().unwrap().interfaces.len(), 1);

    let remove = format!("/v2.0/routers/{r}/remove_router_interface");
    world.neutron.put(&remove, &json!({ "subnet_id": sub })).await.expect(200);
    let reply = world.neutron.put(&remove, &json!({ "subnet_id": sub })).await;
    assert_eq!(reply.error(), (404, "RouterInterfaceNotFoundForSubnet"));
    world.neutron.delete(&format!("/v2.0/routers/{r}")).await.expect(204);
    world.neutron.delete(&format!("/v2.0/subnets/{sub}")).await.expect(204);
}

#[tokio::test]
async fn the_gateway_of_an_ipv6_subnet_may_be_its_own_address() {
    let world = World::new().await;
    let net = network(&world.neutron, "n").await;
    let sub = subnet(&world.neutron, &net, "fd00:1::/64").await;
    let r = router(&world, json!({})).await;
    let add = format!("/v2.0/routers/{r}/add_router_interface");
    world.neutron.put(&add, &json!({ "subnet_id": sub })).await.expect(200);
    let ports = world.neutron.get(&format!("/v2.0/ports?device_id={r}")).await.expect(200);
    assert_eq!(ports["ports"][0]["fixed_ips"], json!([{ "subnet_id": sub, "ip_address": "fd00:1::" }]));
    let body = json!({ "port": { "network_id": net, "fixed_ips": [{ "ip_address": "fd00:1::" }] } });
    assert_eq!(
        world.neutron.post("/v2.0/ports", &body).await.error(),
        (400, "InvalidIpForNetwork"),
        "for a router only"
    );
}

#[tokio::test]
async fn a_port_becomes_an_interface_if_nothing_uses_it() {
    let world = World::new().await;
    let net = network(&world.neutron, "n").await;
    subnet(&world.neutron, &net, "10.1.0.0/24").await;
    let r = router(&world, json!({})).await;
    let add = format!("/v2.0/routers/{r}/add_router_interface");
    let used = port(&world.neutron, &net, json!({ "device_id": "vm" })).await;
    assert_eq!(world.neutron.put(&add, &json!({ "port_id": used["id"] })).await.error(), (409, "PortInUse"));
    let free = port(&world.neutron, &net, json!({})).await;
    world.neutron.put(&add, &json!({ "port_id": free["id"] })).await.expect(200);
    let shown = world.neutron.get(&format!("/v2.0/ports/{}", id(&free))).await.expect(200);
    assert_eq!(shown["port"]["device_id"], json!(r));
    assert_eq!(world.neutron.put(&add, &json!({})).await.error(), (400, "BadRequest"));
}

#[tokio::test]
async fn a_gateway_needs_an_external_network() {
    let world = World::new().await;
    let inside = network(&world.neutron, "inside").await;
    let body = json!({ "network": { "name": "outside", "router:external": true } });
    let outside = id(&world.neutron.post("/v2.0/networks", &body).await.expect(201)["network"]);
    subnet(&world.neutron, &outside, "203.0.113.0/24").await;
    let r = router(&world, json!({ "external_gateway_info": { "network_id": outside } })).await;
    let path = format!("/v2.0/routers/{r}");
    let shown = world.neutron.get(&path).await.expect(200);
    assert_eq!(shown["router"]["external_gateway_info"]["external_fixed_ips"].as_array().unwrap().len(), 1);
    let wrong = json!({ "router": { "external_gateway_info": { "network_id": inside } } });
    assert_eq!(world.neutron.put(&path, &wrong).await.error(), (400, "BadRequest"));
    let cleared = world.neutron.put(&path, &json!({ "router": { "external_gateway_info": {} } })).await.expect(200);
    assert_eq!(cleared["router"]["external_gateway_info"], Value::Null);
    world.neutron.delete(&format!("/v2.0/networks/{outside}")).await.expect(204);
}

use serde_json::{Value, json};

use super::{World, id, network, port, subnet};

/// A network inside that a router joins to one outside.
struct Site {
    world: World,
    outside: String,
    inside: String,
    subnet: String,
    router: String,
}

impl Site {
    async fn new() -> Self {
        Self::of(World::new().await).await
    }

    async fn of(world: World) -> Self {
        let body = json!({ "network": { "name": "outside", "router:external": true } });
        let outside = id(&world.neutron.post("/v2.0/networks", &body).await.expect(201)["network"]);
        subnet(&world.neutron, &outside, "203.0.113.0/28").await;
        let inside = network(&world.neutron, "inside").await;
        let subnet = subnet(&world.neutron, &inside, "10.1.0.0/24").await;
        let gateway = json!({ "network_id": outside, "external_fixed_ips": [{ "ip_address": "203.0.113.2" }] });
        let body = json!({ "router": { "external_gateway_info": gateway } });
        let router = id(&world.neutron.post("/v2.0/routers", &body).await.expect(201)["router"]);
        let add = format!("/v2.0/routers/{router}/add_router_interface");
        world.neutron.put(&add, &json!({ "subnet_id": subnet })).await.expect(200);
        Self { world, outside, inside, subnet, router }
    }

    async fn ask(&self, mut attributes: Value) -> super::client::Reply {
        if attributes["floating_network_id"].is_null() {
            attributes["floating_network_id"] = json!(self.outside);
        }
        self.world.neutron.post("/v2.0/floatingips", &json!({ "floatingip": attributes })).await
    }

    async fn floating(&self, attributes: Value) -> Value {
        self.ask(attributes).await.expect(201)["floatingip"].take()
    }

    async fn put(&self, floating: &Value, attributes: Value) -> super::client::Reply {
        let path = format!("/v2.0/floatingips/{}", id(floating));
        self.world.neutron.put(&path, &json!({ "floatingip": attributes })).await
    }

    async fn show(&self, floating: &Value) -> Value {
        self.world.neutron.get(&format!("/v2.0/floatingips/{}", id(floating))).await.expect(200)["floatingip"].take()
    }

    async fn port(&self, attributes: Value) -> Value {
        port(&self.world.neutron, &self.inside, attributes).await
    }
}

#[tokio::test]
async fn a_floating_ip_stands_for_a_port_until_it_is_parted_from_it() {
    let site = Site::new().await;
    let port = site.port(json!({})).await;
    let floating = site.floating(json!({ "description": "for a Service" })).await;
    assert_eq!(
        (&floating["status"], &floating["port_id"], &floating["router_id"]),
        (&json!("DOWN"), &Value::Null, &Value::Null)
    );
    assert!(site.world.cloud.snapshot().floating_ips.is_empty());

    let joined = site.put(&floating, json!({ "port_id": port["id"] })).await.expect(200)["floatingip"].take();
    assert_eq!((&joined["status"], &joined["port_id"]), (&json!("ACTIVE"), &port["id"]));
    assert_eq!(
        (&joined["fixed_ip_address"], &joined["router_id"]),
        (&port["fixed_ips"][0]["ip_address"], &json!(site.router))
    );
    assert_eq!((&joined["revision_number"], &joined["description"]), (&json!(2), &json!("for a Service")));
    let seen = site.world.cloud.snapshot().floating_ips;
    assert_eq!(seen.len(), 1);
    assert_eq!(
        json!([seen[0].floating, seen[0].fixed, seen[0].port]),
        json!([joined["floating_ip_address"], joined["fixed_ip_address"], port["id"]])
    );

    let kept = site.put(&floating, json!({ "description": "other" })).await.expect(200);
    assert_eq!(kept["floatingip"]["port_id"], port["id"], "what is not named stays");
    let parted = site.put(&floating, json!({ "port_id": null })).await.expect(200);
    assert_eq!(
        (&parted["floatingip"]["status"], &parted["floatingip"]["fixed_ip_address"]),
        (&json!("DOWN"), &Value::Null)
    );
}

#[tokio::test]
async fn a_port_that_goes_away_leaves_its_floating_ip() {
    let site = Site::new().await;
    let port = site.port(json!({})).await;
    let floating = site.floating(json!({ "port_id": port["id"] })).await;
    assert_eq!(floating["status"], "ACTIVE");
    site.world.neutron.delete(&format!("/v2.0/ports/{}", id(&port))).await.expect(204);
    let left = site.show(&floating).await;
    assert_eq!(
        (&left["status"], &left["port_id"], &left["revision_number"]),
        (&json!("DOWN"), &Value::Null, &json!(2))
    );
}

#[tokio::test]
async fn an_address_outside_may_be_chosen_and_is_given_once() {
    let site = Site::new().await;
    let chosen = site.floating(json!({ "floating_ip_address": "203.0.113.9" })).await;
    assert_eq!(chosen["floating_ip_address"], "203.0.113.9");
    let again = site.ask(json!({ "floating_ip_address": "203.0.113.9" })).await;
    assert_eq!(again.error(), (409, "IpAddressAlreadyAllocated"));
    assert_eq!(site.ask(json!({ "floating_ip_address": "198.51.100.1" })).await.error(), (400, "InvalidIpForNetwork"));

    let holders = format!("/v2.0/ports?network_id={}&device_owner=network:floatingip", site.outside);
    let holders = site.world.neutron.get(&holders).await.expect(200)["ports"].take();
    assert_eq!((holders[0]["device_id"].clone(), holders[0]["project_id"].clone()), (chosen["id"].clone(), json!("")));
    let path = format!("/v2.0/ports/{}", id(&holders[0]));
    assert_eq!(site.world.neutron.delete(&path).await.error(), (409, "ServicePortInUse"));

    // 14 addresses, of which the subnet's gateway, the router and the chosen one have three.
    for _ in 0..11 {
        site.floating(json!({})).await;
    }
    assert_eq!(site.ask(json!({})).await.error(), (409, "IpAddressGenerationFailure"));
    site.world.neutron.delete(&format!("/v2.0/floatingips/{}", id(&chosen))).await.expect(204);
    assert_eq!(site.floating(json!({})).await["floating_ip_address"], "203.0.113.9");
}

#[tokio::test]
async fn a_floating_ip_needs_an_external_network_and_a_way_to_it() {
    let site = Site::new().await;
    let reply = site.ask(json!({ "floating_network_id": site.inside })).await;
    assert_eq!(reply.error(), (400, "BadRequest"));
    assert!(reply.message().contains("is not a valid external network"), "{}", reply.message());

    let apart = network(&site.world.neutron, "apart").await;
    subnet(&site.world.neutron, &apart, "10.2.0.0/24").await;
    let lonely = port(&site.world.neutron, &apart, json!({})).await;
    let reply = site.ask(json!({ "port_id": lonely["id"] })).await;
    assert_eq!(reply.error(), (404, "ExternalGatewayForFloatingIPNotFound"));
    let absent = site.ask(json!({ "port_id": "11111111-1111-1111-1111-111111111111" })).await;
    assert_eq!(absent.error(), (404, "PortNotFound"));
    let all = site.world.neutron.get("/v2.0/floatingips").await.expect(200);
    assert_eq!(all["floatingips"], json!([]), "what was refused left nothing behind");
}

#[tokio::test]
async fn an_address_inside_has_one_floating_ip_on_a_network() {
    let site = Site::new().await;
    let two = json!({ "fixed_ips": [{ "subnet_id": site.subnet }, { "subnet_id": site.subnet }] });
    let port = site.port(two).await;
    let id_of_port = &port["id"];
    assert_eq!(site.ask(json!({ "port_id": id_of_port })).await.error(), (400, "BadRequest"), "which of the two?");
    let address = &port["fixed_ips"][1]["ip_address"];
    let wanted = json!({ "port_id": id_of_port, "fixed_ip_address": address });
    assert_eq!(site.floating(wanted.clone()).await["fixed_ip_address"], *address);
    assert_eq!(site.ask(wanted).await.error(), (409, "FloatingIPPortAlreadyAssociated"));
    let other = json!({ "port_id": id_of_port, "fixed_ip_address": port["fixed_ips"][0]["ip_address"] });
    site.floating(other).await;
    let foreign = json!({ "port_id": id_of_port, "fixed_ip_address": "10.1.0.250" });
    assert_eq!(site.ask(foreign).await.error(), (400, "BadRequest"));
    assert_eq!(site.ask(json!({ "fixed_ip_address": address })).await.error(), (400, "BadRequest"));
}

#[tokio::test]
async fn what_a_floating_ip_needs_stays() {
    let site = Site::new().await;
    let port = site.port(json!({})).await;
    let floating = site.floating(json!({ "port_id": port["id"] })).await;
    let neutron = &site.world.neutron;
    let remove = format!("/v2.0/routers/{}/remove_router_interface", site.router);
    let reply = neutron.put(&remove, &json!({ "subnet_id": site.subnet })).await;
    assert_eq!(reply.error(), (409, "RouterInterfaceInUseByFloatingIP"));
    let router = format!("/v2.0/routers/{}", site.router);
    let clear = json!({ "router": { "external_gateway_info": {} } });
    assert_eq!(neutron.put(&router, &clear).await.error(), (409, "RouterExternalGatewayInUseByFloatingIp"));
    let outside = format!("/v2.0/networks/{}", site.outside);
    assert_eq!(neutron.delete(&outside).await.error(), (409, "NetworkInUse"));
    let inner = json!({ "network": { "router:external": false } });
    assert_eq!(neutron.put(&outside, &inner).await.error(), (409, "ExternalNetworkInUse"));

    site.put(&floating, json!({ "port_id": null })).await.expect(200);
    neutron.put(&router, &clear).await.expect(200);
    neutron.delete(&outside).await.expect(204);
    assert_eq!(neutron.get(&format!("/v2.0/floatingips/{}", id(&floating))).await.error(), (404, "FloatingIPNotFound"));
}

#[tokio::test]
async fn floating_ips_are_tagged_filtered_and_counted() {
    let site = Site::new().await;
    let one = site.floating(json!({})).await;
    site.floating(json!({})).await;
    let neutron = &site.world.neutron;
    let tags = format!("/v2.0/floatingips/{}/tags", id(&one));
    neutron.put(&tags, &json!({ "tags": ["kuryr:c"] })).await.expect(200);
    let address = one["floating_ip_address"].as_str().unwrap();
    let by_address = format!("?floating_ip_address={address}");
    for query in ["?tags=kuryr:c", by_address.as_str()] {
        let found = neutron.get(&format!("/v2.0/floatingips{query}")).await.expect(200)["floatingips"].take();
        assert_eq!((found.as_array().unwrap().len(), &found[0]["id"]), (1, &one["id"]), "{query}");
    }
    let refused = site.ask(json!({ "tags": ["a"] })).await;
    assert_eq!(refused.error(), (400, "HTTPBadRequest"), "tags are set afterwards");
    assert_eq!(site.ask(json!({ "name": "a" })).await.error(), (400, "HTTPBadRequest"), "it has no name");

    site.world.cloud.set_quota(one["project_id"].as_str().unwrap(), "floatingip", 2);
    assert_eq!(site.ask(json!({})).await.error(), (409, "OverQuota"));
    let path = format!("/v2.0/quotas/{}/details.json", one["project_id"].as_str().unwrap());
    assert_eq!(
        neutron.get(&path).await.expect(200)["quota"]["floatingip"],
        json!({ "limit": 2, "used": 2, "reserved": 0 })
    );
}

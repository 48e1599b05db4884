use serde_json::{Value, json};

use super::client::Reply;
use super::{World, id, network, port};

async fn group(world: &World, name: &str) -> Value {
    let reply = world.neutron.post("/v2.0/security-groups", &json!({ "security_group": { "name": name } })).await;
    reply.expect(201)["security_group"].take()
}

async fn rule(world: &World, group: &Value, mut attributes: Value) -> Reply {
    attributes["security_group_id"] = group["id"].clone();
    world.neutron.post("/v2.0/security-group-rules", &json!({ "security_group_rule": attributes })).await
}

#[tokio::test]
async fn a_new_group_lets_everything_out() {
    let world = World::new().await;
    let g = group(&world, "g").await;
    let rules = g["security_group_rules"].as_array().unwrap();
    let said: Vec<_> = rules.iter().map(|r| (r["direction"].as_str(), r["ethertype"].as_str())).collect();
    assert_eq!(said, [(Some("egress"), Some("IPv4")), (Some("egress"), Some("IPv6"))]);
    assert_eq!(g["stateful"], true);
}

#[tokio::test]
async fn a_port_gets_the_default_group_unless_it_names_groups() {
    let world = World::new().await;
    let net = network(&world.neutron, "n").await;
    let default = port(&world.neutron, &net, json!({})).await;
    let groups = world.neutron.get("/v2.0/security-groups?name=default").await.expect(200);
    assert_eq!(default["security_groups"], json!([groups["security_groups"][0]["id"]]));
    let none = port(&world.neutron, &net, json!({ "security_groups": [] })).await;
    assert_eq!(none["security_groups"], json!([]));
    let reply = world.neutron.post("/v2.0/security-groups", &json!({ "security_group": { "name": "default" } })).await;
    assert_eq!(reply.error(), (409, "SecurityGroupDefaultAlreadyExists"));
}

#[tokio::test]
async fn a_group_of_a_port_is_in_use() {
    let world = World::new().await;
    let net = network(&world.neutron, "n").await;
    let g = group(&world, "g").await;
    let p = port(&world.neutron, &net, json!({ "security_groups": [g["id"]] })).await;
    let path = format!("/v2.0/security-groups/{}", id(&g));
    assert_eq!(world.neutron.delete(&path).await.error(), (409, "SecurityGroupInUse"));
    let body = json!({ "port": { "security_groups": [] } });
    world.neutron.put(&format!("/v2.0/ports/{}", id(&p)), &body).await.expect(200);
    world.neutron.delete(&path).await.expect(204);
}

#[tokio::test]
async fn a_rule_that_says_the_same_as_another_exists() {
    let world = World::new().await;
    let g = group(&world, "g").await;
    let tcp = json!({ "direction": "ingress", "protocol": "tcp", "port_range_min": 80, "port_range_max": 80 });
    let first = rule(&world, &g, tcp.clone()).await.expect(201);
    let again = rule(&world, &g, tcp.clone()).await;
    assert_eq!(again.error(), (409, "SecurityGroupRuleExists"));
    assert!(again.message().contains(first["security_group_rule"]["id"].as_str().unwrap()));
    let mut by_number = tcp.clone();
    by_number["protocol"] = json!("6");
    by_number["remote_ip_prefix"] = json!("0.0.0.0/0");
    assert_eq!(rule(&world, &g, by_number).await.error(), (409, "SecurityGroupRuleExists"));
    let mut other = tcp;
    other["remote_ip_prefix"] = json!("10.0.0.0/8");
    rule(&world, &g, other).await.expect(201);
    let shown = world.neutron.get(&format!("/v2.0/security-groups/{}", id(&g))).await.expect(200);
    assert_eq!(shown["security_group"]["revision_number"], 3, "rules change their group");
}

#[tokio::test]
async fn bulk_rules_are_all_made_or_none() {
    let world = World::new().await;
    let (g, h) = (group(&world, "g").await, group(&world, "h").await);
    let one = |group: &Value, number: u16| {
        json!({ "security_group_id": group["id"], "direction": "ingress", "protocol": "tcp",
            "port_range_min": number, "port_range_max": number })
    };
    let post = async |rules: Value| {
        world.neutron.post("/v2.0/security-group-rules", &json!({ "security_group_rules": rules })).await
    };
    let made = post(json!([one(&g, 1), one(&g, 2), one(&g, 3)])).await.expect(201);
    assert_eq!(made["security_group_rules"].as_array().unwrap().len(), 3);
    assert_eq!(post(json!([one(&g, 4), one(&g, 4)])).await.error(), (409, "DuplicateSecurityGroupRuleInPost"));
    assert_eq!(post(json!([one(&g, 4), one(&g, 1)])).await.error(), (409, "SecurityGroupRuleExists"));
    assert_eq!(post(json!([one(&g, 4), one(&h, 4)])).await.error(), (400, "SecurityGroupNotSingleGroupRules"));
    let listed =
        world.neutron.get(&format!("/v2.0/security-group-rules?security_group_id={}&direction=ingress", id(&g))).await;
    assert_eq!(listed.expect(200)["security_group_rules"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn wrong_rules_are_refused_by_name() {
    let world = World::new().await;
    let g = group(&world, "g").await;
    for (attributes, status, kind) in [
        (json!({ "direction": "sideways" }), 400, "HTTPBadRequest"),
        (json!({ "direction": "ingress", "ethertype": "IPv5" }), 400, "HTTPBadRequest"),
        (json!({ "direction": "ingress", "protocol": "smoke" }), 400, "SecurityGroupRuleInvalidProtocol"),
        (json!({ "direction": "ingress", "protocol": "256" }), 400, "SecurityGroupRuleInvalidProtocol"),
        (
            json!({ "direction": "ingress", "port_range_min": 1, "port_range_max": 2 }),
            400,
            "SecurityGroupProtocolRequiredWithPorts",
        ),
        (
            json!({ "direction": "ingress", "protocol": "tcp", "port_range_min": 2, "port_range_max": 1 }),
            400,
            "SecurityGroupInvalidPortRange",
        ),
        (
            json!({ "direction": "ingress", "protocol": "tcp", "port_range_min": 1 }),
            400,
            "SecurityGroupInvalidPortRange",
        ),
        (
            json!({ "direction": "ingress", "protocol": "tcp", "port_range_min": 1, "port_range_max": 65536 }),
            400,
            "SecurityGroupInvalidPortValue",
        ),
        (
            json!({ "direction": "ingress", "protocol": "gre", "port_range_min": 1, "port_range_max": 1 }),
            400,
            "SecurityGroupInvalidProtocolForPort",
        ),
        (
            json!({ "direction": "ingress", "protocol": "icmp", "port_range_max": 1 }),
            400,
            "SecurityGroupMissingIcmpType",
        ),
        (
            json!({ "direction": "ingress", "protocol": "icmp", "port_range_min": 256 }),
            400,
            "SecurityGroupInvalidIcmpValue",
        ),
        (json!({ "direction": "ingress", "protocol": "ipv6-icmp" }), 400, "SecurityGroupEthertypeConflictWithProtocol"),
        (json!({ "direction": "ingress", "remote_ip_prefix": "fd00::/8" }), 400, "SecurityGroupRuleParameterConflict"),
        (
            json!({ "direction": "ingress", "remote_ip_prefix": "10.0.0.0/8", "remote_group_id": g["id"] }),
            400,
            "SecurityGroupMultipleRemoteEntites",
        ),
        (json!({ "direction": "ingress", "remote_group_id": uuid::Uuid::nil() }), 404, "SecurityGroupNotFound"),
    ] {
        let reply = rule(&world, &g, attributes.clone()).await;
        assert_eq!(reply.error(), (status, kind), "{attributes}: {}", reply.message());
    }
}

#[tokio::test]
async fn rules_that_name_a_group_go_with_it() {
    let world = World::new().await;
    let (g, peers) = (group(&world, "g").await, group(&world, "peers").await);
    rule(&world, &g, json!({ "direction": "ingress", "remote_group_id": peers["id"] })).await.expect(201);
    world.neutron.delete(&format!("/v2.0/security-groups/{}", id(&peers))).await.expect(204);
    let left = world.neutron.get(&format!("/v2.0/security-group-rules?security_group_id={}", id(&g))).await.expect(200);
    assert_eq!(left["security_group_rules"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn the_snapshot_shows_groups_as_they_are() {
    let world = World::new().await;
    let g = group(&world, "g").await;
    rule(&world, &g, json!({ "direction": "ingress", "protocol": "udp", "port_range_min": 53, "port_range_max": 53 }))
        .await
        .expect(201);
    let snapshot = world.cloud.snapshot();
    let seen = &snapshot.security_groups[&uuid::Uuid::try_parse(&id(&g)).unwrap()];
    let last = seen.rules.last().unwrap();
    assert!(last.ingress && !last.v6);
    assert_eq!((last.protocol.as_deref(), last.port_range_min), (Some("udp"), Some(53)));
}

//! Address groups, as the API of Zed has them, and what rules that name them are worth.

use ipnet::IpNet;
use serde_json::{Value, json};

use super::client::Reply;
use super::{World, id};
use crate::cloud::{AddressGroups, Config};

const GROUPS: &str = "/v2.0/address-groups";

async fn address_group(world: &World, addresses: Value) -> String {
    let body = json!({ "address_group": { "name": "a", "addresses": addresses } });
    id(&world.neutron.post(GROUPS, &body).await.expect(201)["address_group"])
}

async fn change(world: &World, group: &str, verb: &str, body: Value) -> Reply {
    world.neutron.put(&format!("{GROUPS}/{group}/{verb}"), &body).await
}

/// A security group with a rule that admits an address group.
async fn admitting(world: &World, addresses: &str) -> String {
    let body = json!({ "security_group": { "name": "g" } });
    let group = id(&world.neutron.post("/v2.0/security-groups", &body).await.expect(201)["security_group"]);
    let rule = json!({ "security_group_rule": {
        "security_group_id": group, "direction": "ingress", "remote_address_group_id": addresses,
    } });
    let made = world.neutron.post("/v2.0/security-group-rules", &rule).await.expect(201);
    assert_eq!(made["security_group_rule"]["remote_address_group_id"], addresses);
    group
}

#[tokio::test]
async fn addresses_are_added_and_removed_as_networks() {
    let world = World::new().await;
    let group = address_group(&world, json!(["10.0.0.1", "10.1.0.0/16"])).await;
    let added = change(&world, &group, "add_addresses", json!({ "addresses": ["fd00::5/64"] })).await.expect(200);
    assert_eq!(added["address_group"]["addresses"], json!(["10.0.0.1/32", "10.1.0.0/16", "fd00::/64"]));
    let removed = json!({ "addresses": ["10.0.0.1/32"] });
    change(&world, &group, "remove_addresses", removed.clone()).await.expect(200);
    let again = change(&world, &group, "remove_addresses", removed).await;
    assert_eq!(again.error(), (404, "AddressesNotFound"));
    let twice = change(&world, &group, "add_addresses", json!({ "addresses": ["10.1.0.0/16"] })).await;
    assert_eq!(twice.error(), (400, "AddressesAlreadyExist"));
    let wrong = change(&world, &group, "add_addresses", json!({ "addresses": ["ten"] })).await;
    assert_eq!(wrong.error().0, 400);
    let shown = world.neutron.get(&format!("{GROUPS}/{group}")).await.expect(200);
    assert_eq!(shown["address_group"]["addresses"], json!(["10.1.0.0/16", "fd00::/64"]));
}

#[tokio::test]
async fn a_wrapped_list_of_addresses_is_answered_500() {
    let world = World::new().await;
    let group = address_group(&world, json!([])).await;
    let wrapped = json!({ "address_group": { "addresses": ["10.0.0.1/32"] } });
    assert_eq!(change(&world, &group, "add_addresses", wrapped).await.status, 500);
}

#[tokio::test]
async fn an_address_group_that_a_rule_names_is_in_use() {
    let world = World::new().await;
    let addresses = address_group(&world, json!(["10.0.0.1/32"])).await;
    let group = admitting(&world, &addresses).await;
    let path = format!("{GROUPS}/{addresses}");
    assert_eq!(world.neutron.delete(&path).await.error(), (409, "AddressGroupInUse"));
    world.neutron.delete(&format!("/v2.0/security-groups/{group}")).await.expect(204);
    world.neutron.delete(&path).await.expect(204);
}

#[tokio::test]
async fn a_rule_has_one_other_side() {
    let world = World::new().await;
    let addresses = address_group(&world, json!([])).await;
    let group = admitting(&world, &addresses).await;
    for (other, status, kind) in [
        (json!({ "remote_ip_prefix": "10.0.0.0/8" }), 400, "SecurityGroupMultipleRemoteEntites"),
        (json!({ "remote_group_id": group }), 400, "SecurityGroupMultipleRemoteEntites"),
        (json!({ "remote_address_group_id": uuid::Uuid::nil() }), 404, "AddressGroupNotFound"),
        (json!({}), 409, "SecurityGroupRuleExists"),
    ] {
        let mut rule = json!({
            "security_group_id": group, "direction": "ingress", "remote_address_group_id": addresses,
        });
        json_patch::merge(&mut rule, &other);
        let reply = world.neutron.post("/v2.0/security-group-rules", &json!({ "security_group_rule": rule })).await;
        assert_eq!(reply.error(), (status, kind), "{other}");
    }
}

/// What the data plane is told of the last rule of a group.
async fn worth(address_groups: AddressGroups) -> (Option<Vec<IpNet>>, bool) {
    let world = World::with(Config { address_groups, ..Config::default() }).await;
    let addresses = address_group(&world, json!(["10.0.0.1/32"])).await;
    let group = admitting(&world, &addresses).await;
    let snapshot = world.cloud.snapshot();
    let rule = snapshot.security_groups[&uuid::Uuid::try_parse(&group).unwrap()].rules.last().unwrap().clone();
    let newer = world.neutron.get("/v2.0/extensions/security-groups-default-rules").await.status == 200;
    (rule.remote_addresses, newer)
}

#[tokio::test]
async fn zed_lets_everyone_in_who_is_in_no_address_group_and_newer_releases_can_be_told() {
    assert_eq!(worth(AddressGroups::OpenToEveryone).await, (None, false));
    assert_eq!(worth(AddressGroups::Enforced).await, (Some(vec!["10.0.0.1/32".parse().unwrap()]), true));
}

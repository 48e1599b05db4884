use serde_json::json;

use super::{World, id, network, port, subnet};
use crate::cloud::{HostKind, PortStatus};

#[tokio::test]
async fn a_port_is_bound_by_its_host() {
    let world = World::new().await;
    let net = network(&world.neutron, "n").await;
    world.cloud.add_host("node-1", HostKind::Tap);
    world.cloud.add_host("node-2", HostKind::Ovs);
    for (host, vif_type) in [("node-1", "tap"), ("node-2", "ovs"), ("node-3", "binding_failed"), ("", "unbound")] {
        let p = port(&world.neutron, &net, json!({ "binding:host_id": host })).await;
        assert_eq!(p["binding:vif_type"], vif_type);
        assert_eq!(p["status"], "DOWN");
    }
    let p = port(&world.neutron, &net, json!({ "binding:host_id": "node-1" })).await;
    assert_eq!(p["binding:vif_details"], json!({ "connectivity": "l3", "port_filter": true }));
    let found = world.neutron.get("/v2.0/ports?binding:host_id=node-1&binding:host_id=node-2&fields=id").await;
    assert_eq!(found.expect(200)["ports"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn a_failed_binding_is_tried_again_with_the_next_update() {
    let world = World::new().await;
    let net = network(&world.neutron, "n").await;
    let p = port(&world.neutron, &net, json!({ "binding:host_id": "node-1" })).await;
    assert_eq!(p["binding:vif_type"], "binding_failed");
    world.cloud.add_host("node-1", HostKind::Bridge);
    let path = format!("/v2.0/ports/{}", id(&p));
    let updated = world.neutron.put(&path, &json!({ "port": { "name": "again" } })).await.expect(200);
    assert_eq!(updated["port"]["binding:vif_type"], "bridge");
    let uuid = uuid::Uuid::try_parse(&id(&p)).unwrap();
    world.cloud.set_port_status(uuid, PortStatus::Active);
    let moved = world.neutron.put(&path, &json!({ "port": { "binding:host_id": "" } })).await.expect(200);
    assert_eq!((&moved["port"]["binding:vif_type"], &moved["port"]["status"]), (&json!("unbound"), &json!("DOWN")));
}

#[tokio::test]
async fn a_port_becomes_active_when_the_data_plane_says_so() {
    let world = World::new().await;
    let net = network(&world.neutron, "n").await;
    world.cloud.add_host("node-1", HostKind::Tap);
    let mut changes = world.cloud.subscribe();
    changes.mark_unchanged();
    let p = port(&world.neutron, &net, json!({ "binding:host_id": "node-1" })).await;
    changes.changed().await.unwrap();
    let uuid = uuid::Uuid::try_parse(p["id"].as_str().unwrap()).unwrap();
    assert_eq!(world.cloud.snapshot().ports[&uuid].host, "node-1");
    assert!(world.cloud.set_port_status(uuid, PortStatus::Active));
    let shown = world.neutron.get(&format!("/v2.0/ports/{uuid}")).await.expect(200);
    assert_eq!(shown["port"]["status"], "ACTIVE");
    assert_eq!(shown["port"]["revision_number"], 2);
    assert!(!world.cloud.set_port_status(uuid::Uuid::nil(), PortStatus::Active));
}

#[tokio::test]
async fn a_mac_address_is_unique_on_its_network() {
    let world = World::new().await;
    let net = network(&world.neutron, "n").await;
    let other = network(&world.neutron, "other").await;
    let mac = json!({ "mac_address": "fa:16:3e:00:00:01" });
    let p = port(&world.neutron, &net, mac.clone()).await;
    let mut body = json!({ "port": mac });
    body["port"]["network_id"] = json!(net);
    assert_eq!(world.neutron.post("/v2.0/ports", &body).await.error(), (409, "MacAddressInUse"));
    port(&world.neutron, &other, mac.clone()).await;
    world.neutron.delete(&format!("/v2.0/ports/{}", id(&p))).await.expect(204);
    port(&world.neutron, &net, mac).await;
}

#[tokio::test]
async fn a_stale_revision_answers_412() {
    let world = World::new().await;
    let net = network(&world.neutron, "n").await;
    let p = port(&world.neutron, &net, json!({})).await;
    let path = format!("/v2.0/ports/{}", id(&p));
    let revision = p["revision_number"].as_u64().unwrap();
    let rename = |name: &str| json!({ "port": { "name": name } });
    let matching = format!("revision_number={revision}");
    let first = world.neutron.send("PUT", &path, Some(&rename("a")), &[("If-Match", &matching)]).await.unwrap();
    assert_eq!(first.expect(200)["port"]["revision_number"], revision + 1);
    let second = world.neutron.send("PUT", &path, Some(&rename("b")), &[("If-Match", &matching)]).await.unwrap();
    assert_eq!(second.error(), (412, "RevisionNumberConstraintFailed"));
    let delete = world.neutron.send("DELETE", &path, None, &[("If-Match", &matching)]).await.unwrap();
    assert_eq!(delete.status, 412);
    assert_eq!(world.neutron.get(&path).await.expect(200)["port"]["name"], "a");
}

#[tokio::test]
async fn an_update_that_changes_nothing_keeps_the_revision() {
    let world = World::new().await;
    let net = network(&world.neutron, "n").await;
    let p = port(&world.neutron, &net, json!({ "name": "a" })).await;
    let path = format!("/v2.0/ports/{}", id(&p));
    let same = world.neutron.put(&path, &json!({ "port": { "name": "a" } })).await.expect(200);
    assert_eq!(same["port"]["revision_number"], p["revision_number"]);
}

#[tokio::test]
async fn tags_come_with_the_create_and_change_by_their_own_calls() {
    let world = World::new().await;
    let net = network(&world.neutron, "n").await;
    let p = port(&world.neutron, &net, json!({ "tags": ["b", "a"] })).await;
    assert_eq!(p["tags"], json!(["a", "b"]));
    let tags = format!("/v2.0/ports/{}/tags", id(&p));
    world.neutron.put(&format!("{tags}/kuryr%3Ac"), &json!({})).await.expect(201);
    world.neutron.get(&format!("{tags}/kuryr%3Ac")).await.expect(204);
    assert_eq!(world.neutron.get(&tags).await.expect(200)["tags"], json!(["a", "b", "kuryr:c"]));
    world.neutron.delete(&format!("{tags}/a")).await.expect(204);
    assert_eq!(world.neutron.delete(&format!("{tags}/a")).await.error(), (404, "TagNotFound"));
    let all = world.neutron.put(&tags, &json!({ "tags": ["x"] })).await.expect(200);
    assert_eq!(all["tags"], json!(["x"]));
    world.neutron.delete(&tags).await.expect(204);
    let shown = world.neutron.get(&format!("/v2.0/ports/{}", id(&p))).await.expect(200);
    assert_eq!(shown["port"]["tags"], json!([]));
    assert_eq!(shown["port"]["revision_number"], 5);
    let missing = world.neutron.get(&format!("/v2.0/ports/{}/tags", uuid::Uuid::nil())).await;
    assert_eq!(missing.error(), (404, "TagResourceNotFound"));
}

#[tokio::test]
async fn a_tag_of_more_than_60_characters_answers_400() {
    let world = World::new().await;
    let net = network(&world.neutron, "n").await;
    let long = "x".repeat(61);
    let body = json!({ "port": { "network_id": net, "tags": [long] } });
    assert_eq!(world.neutron.post("/v2.0/ports", &body).await.error(), (400, "HTTPBadRequest"));
    let p = port(&world.neutron, &net, json!({ "tags": ["y".repeat(60)] })).await;
    let reply = world.neutron.put(&format!("/v2.0/ports/{}/tags/{long}", id(&p)), &json!({})).await;
    assert_eq!(reply.error(), (400, "InvalidInput"));
    let reply = world.neutron.put(&format!("/v2.0/ports/{}/tags", id(&p)), &json!({ "tags": [long] })).await;
    assert_eq!(reply.error(), (400, "InvalidInput"));
}

#[tokio::test]
async fn an_exceeded_quota_answers_409_over_quota_for_the_whole_bulk() {
    let world = World::new().await;
    let net = network(&world.neutron, "n").await;
    let project = world.cloud.project_id("admin").unwrap();
    world.cloud.set_quota(&project, "port", 2);
    let one = json!({ "network_id": net });
    let reply = world.neutron.post("/v2.0/ports", &json!({ "ports": [one, one, one] })).await;
    assert_eq!(reply.error(), (409, "OverQuota"));
    assert_eq!(reply.message(), "Quota exceeded for resources: ['port'].");
    world.neutron.post("/v2.0/ports", &json!({ "ports": [one, one] })).await.expect(201);
    let details = world.neutron.get(&format!("/v2.0/quotas/{project}/details.json")).await.expect(200);
    assert_eq!(details["quota"]["port"], json!({ "limit": 2, "used": 2, "reserved": 0 }));
    let body = json!({ "quota": { "port": 3 } });
    assert_eq!(world.neutron.put(&format!("/v2.0/quotas/{project}"), &body).await.expect(200)["quota"]["port"], 3);
    world.neutron.post("/v2.0/ports", &json!({ "port": one })).await.expect(201);
}

#[tokio::test]
async fn wrong_values_of_a_port_are_refused_by_name() {
    let world = World::new().await;
    let net = network(&world.neutron, "n").await;
    for (name, value, status, kind) in [
        ("network_id", json!("x"), 400, "HTTPBadRequest"),
        ("network_id", json!(uuid::Uuid::nil()), 404, "NetworkNotFound"),
        ("admin_state_up", json!("maybe"), 400, "InvalidInput"),
        ("mac_address", json!("fa:16"), 400, "HTTPBadRequest"),
        ("name", json!(5), 400, "HTTPBadRequest"),
        ("name", json!("x".repeat(256)), 400, "HTTPBadRequest"),
        ("security_groups", json!(["x"]), 400, "InvalidInput"),
        ("security_groups", json!([uuid::Uuid::nil()]), 404, "SecurityGroupNotFound"),
        ("status", json!("ACTIVE"), 400, "HTTPBadRequest"),
        ("colour", json!("blue"), 400, "HTTPBadRequest"),
        ("tags", json!(["a", "a"]), 400, "HTTPBadRequest"),
        ("tags", json!("a"), 400, "HTTPBadRequest"),
    ] {
        let mut body = json!({ "port": { "network_id": net } });
        body["port"][name] = value.clone();
        let reply = world.neutron.post("/v2.0/ports", &body).await;
        assert_eq!(reply.error(), (status, kind), "{name}={value}: {}", reply.message());
    }
    let reply = world.neutron.post("/v2.0/ports", &json!({ "port": {} })).await;
    assert_eq!(reply.message(), "Failed to parse request. Required attribute 'network_id' not specified");
    assert_eq!(world.neutron.post("/v2.0/ports", &json!({ "thing": {} })).await.error(), (400, "HTTPBadRequest"));
    assert_eq!(world.neutron.post("/v2.0/ports", &json!({ "ports": [] })).await.error(), (400, "HTTPBadRequest"));
    let p = port(&world.neutron, &net, json!({})).await;
    let reply = world.neutron.put(&format!("/v2.0/ports/{}", id(&p)), &json!({ "port": { "network_id": net } })).await;
    assert_eq!(reply.message(), "Cannot update read-only attribute network_id");
}

#[tokio::test]
async fn what_is_not_there_answers_404_with_its_own_name() {
    let world = World::new().await;
    let nil = uuid::Uuid::nil();
    for (path, kind) in [
        (format!("/v2.0/ports/{nil}"), "PortNotFound"),
        ("/v2.0/ports/web".into(), "PortNotFound"),
        (format!("/v2.0/networks/{nil}"), "NetworkNotFound"),
        (format!("/v2.0/subnets/{nil}"), "SubnetNotFound"),
        (format!("/v2.0/routers/{nil}"), "RouterNotFound"),
        (format!("/v2.0/security-groups/{nil}"), "SecurityGroupNotFound"),
        (format!("/v2.0/security-group-rules/{nil}"), "SecurityGroupRuleNotFound"),
        (format!("/v2.0/subnetpools/{nil}"), "SubnetPoolNotFound"),
        (format!("/v2.0/trunks/{nil}"), "TrunkNotFound"),
        ("/v2.0/nothing".into(), "HTTPNotFound"),
    ] {
        assert_eq!(world.neutron.get(&path).await.error(), (404, kind), "{path}");
    }
}

#[tokio::test]
async fn port_security_off_excludes_groups_and_pairs() {
    let world = World::new().await;
    let net = network(&world.neutron, "n").await;
    let open = port(&world.neutron, &net, json!({ "port_security_enabled": false })).await;
    assert_eq!(open["security_groups"], json!([]));
    let secured = port(&world.neutron, &net, json!({})).await;
    assert_eq!(secured["security_groups"].as_array().unwrap().len(), 1);
    let path = format!("/v2.0/ports/{}", id(&secured));
    let reply = world.neutron.put(&path, &json!({ "port": { "port_security_enabled": false } })).await;
    assert_eq!(reply.error(), (409, "PortSecurityPortHasSecurityGroup"));
    let both = json!({ "port": { "port_security_enabled": false, "security_groups": [] } });
    world.neutron.put(&path, &both).await.expect(200);
    let pairs = json!({ "port": { "allowed_address_pairs": [{ "ip_address": "10.0.0.9" }] } });
    assert_eq!(world.neutron.put(&path, &pairs).await.error(), (409, "AddressPairAndPortSecurityRequired"));
    let eleven: Vec<_> = (0..11).map(|n| json!({ "ip_address": format!("10.0.0.{n}") })).collect();
    let body = json!({ "port": { "network_id": net, "allowed_address_pairs": eleven } });
    assert_eq!(world.neutron.post("/v2.0/ports", &body).await.error(), (400, "AllowedAddressPairExhausted"));
}

#[tokio::test]
async fn ports_of_a_trunk_cannot_be_deleted() {
    let world = World::new().await;
    let net = network(&world.neutron, "n").await;
    subnet(&world.neutron, &net, "10.1.0.0/24").await;
    let parent = port(&world.neutron, &net, json!({})).await;
    let child = port(&world.neutron, &net, json!({})).await;
    let sub = json!([{ "port_id": child["id"], "segmentation_type": "vlan", "segmentation_id": 100 }]);
    let body = json!({ "trunk": { "port_id": parent["id"], "sub_ports": sub } });
    let trunk = id(&world.neutron.post("/v2.0/trunks", &body).await.expect(201)["trunk"]);
    assert_eq!(
        world.neutron.delete(&format!("/v2.0/ports/{}", id(&parent))).await.error(),
        (409, "PortInUseAsTrunkParent")
    );
    assert_eq!(world.neutron.delete(&format!("/v2.0/ports/{}", id(&child))).await.error(), (409, "PortInUseAsSubPort"));
    let shown = world.neutron.get(&format!("/v2.0/ports/{}", id(&child))).await.expect(200);
    assert_eq!(shown["port"]["device_owner"], "trunk:subport");
    assert_eq!(shown["port"]["binding:profile"]["tag"], 100);
    let again = world.neutron.put(&format!("/v2.0/trunks/{trunk}/add_subports"), &json!({ "sub_ports": sub })).await;
    assert_eq!(again.error(), (409, "TrunkPortInUse"));
    let third = port(&world.neutron, &net, json!({})).await;
    let twice =
        json!({ "sub_ports": [{ "port_id": third["id"], "segmentation_type": "vlan", "segmentation_id": 100 }] });
    let reply = world.neutron.put(&format!("/v2.0/trunks/{trunk}/add_subports"), &twice).await;
    assert_eq!(reply.error(), (409, "DuplicateSubPort"));
    world.neutron.put(&format!("/v2.0/trunks/{trunk}/remove_subports"), &json!({ "sub_ports": sub })).await.expect(200);
    world.neutron.delete(&format!("/v2.0/ports/{}", id(&child))).await.expect(204);
    world.neutron.delete(&format!("/v2.0/trunks/{trunk}")).await.expect(204);
    world.neutron.delete(&format!("/v2.0/ports/{}", id(&parent))).await.expect(204);
}

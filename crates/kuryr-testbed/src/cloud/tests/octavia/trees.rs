use serde_json::{Value, json};

use super::{Site, id, lines, service};

#[tokio::test]
async fn one_request_makes_a_load_balancer_with_all_that_is_in_it() {
    let site = Site::new().await;
    let tree = json!({
        "name": "web", "tags": ["kuryr:c", "a"], "vip_address": "10.9.0.77", "description": "d",
        "listeners": [service("TCP", 80, &["10.9.0.5", "10.9.0.6"]), service("UDP", 80, &[]),
            { "name": "other", "protocol": "TCP", "protocol_port": 81, "default_pool": { "name": "TCP:80" } }],
    });
    let made = site.ask(tree).await.expect(201)["loadbalancer"].take();
    assert_eq!(
        (&made["provisioning_status"], &made["operating_status"]),
        (&json!("PENDING_CREATE"), &json!("OFFLINE"))
    );
    assert_eq!((&made["vip_address"], &made["tags"]), (&json!("10.9.0.77"), &json!(["a", "kuryr:c"])));
    assert_eq!(made["listeners"][0]["default_pool_id"], made["pools"][0]["id"]);
    assert_eq!(made["listeners"][2]["default_pool_id"], made["pools"][0]["id"], "a name stands for a pool");
    assert_eq!(made["pools"][0]["listeners"].as_array().unwrap().len(), 2);
    assert_eq!(made["pools"][0]["members"][1]["address"], "10.9.0.6");
    site.hooks().settled().await;
    let wanted = "
        web ACTIVE ONLINE
          TCP:80 ACTIVE ONLINE
            TCP:80 ACTIVE ONLINE
              10.9.0.5 ACTIVE NO_MONITOR
              10.9.0.6 ACTIVE NO_MONITOR
          UDP:80 ACTIVE ONLINE
            UDP:80 ACTIVE OFFLINE
          other ACTIVE ONLINE
            TCP:80 ACTIVE ONLINE
              10.9.0.5 ACTIVE NO_MONITOR
              10.9.0.6 ACTIVE NO_MONITOR";
    assert_eq!(site.tree(&made).await, lines(wanted));
    let shown = site.show(&made).await;
    assert_eq!(shown["pools"], json!([{ "id": made["pools"][0]["id"] }, { "id": made["pools"][1]["id"] }]));
    let stats = site.get(&format!("/loadbalancers/{}/stats", id(&made))).await;
    assert_eq!(stats["stats"]["active_connections"], 0);
}

#[tokio::test]
async fn the_data_plane_sees_what_was_made() {
    let site = Site::new().await;
    let made =
        site.balancer(json!({ "listeners": [service("TCP", 80, &["10.9.0.5"]), service("UDP", 53, &[])] })).await;
    let snapshot = site.world.cloud.snapshot();
    let [seen] = &snapshot.load_balancers[..] else { panic!("{:?}", snapshot.load_balancers) };
    assert_eq!(
        json!([seen.id, seen.vip_port, seen.vips, seen.provider]),
        json!([made["id"], made["vip_port_id"], [made["vip_address"]], "ovn"])
    );
    assert_eq!((seen.listeners[0].protocol.as_str(), seen.listeners[0].port, seen.listeners.len()), ("TCP", 80, 2));
    assert_eq!(seen.listeners[0].members.len(), 1);
    let member = &seen.listeners[0].members[0];
    assert_eq!(
        (member.address.to_string(), member.port, member.weight, member.online),
        ("10.9.0.5".into(), 8080, 1, true)
    );
    assert!(seen.admin_state_up && seen.listeners[1].members.is_empty() && !seen.listeners[0].source_ip_affinity);
}

#[tokio::test]
async fn parts_are_made_changed_and_deleted_one_by_one() {
    let site = Site::new().await;
    let made = site.balancer(json!({ "name": "web" })).await;
    let post = async |path: &str, body: Value| {
        let reply = site.octavia.post(&format!("/v2/lbaas{path}"), &body).await.expect(201);
        site.hooks().settled().await;
        reply
    };
    let pool = json!({ "pool": { "loadbalancer_id": made["id"], "protocol": "TCP", "lb_algorithm": "SOURCE_IP_PORT", "name": "p" } });
    let pool = id(&post("/pools", pool).await["pool"]);
    let listener = json!({ "listener": { "loadbalancer_id": made["id"], "protocol": "TCP", "protocol_port": 80,
        "default_pool_id": pool, "name": "l" } });
    let listener = id(&post("/listeners", listener).await["listener"]);
    let member = json!({ "member": { "address": "10.9.0.5", "protocol_port": 1, "subnet_id": site.subnet } });
    post(&format!("/pools/{pool}/members"), member).await;
    let wanted = "
        web ACTIVE ONLINE
          l ACTIVE ONLINE
            p ACTIVE ONLINE
              10.9.0.5 ACTIVE NO_MONITOR";
    assert_eq!(site.tree(&made).await, lines(wanted));

    let path = format!("/v2/lbaas/listeners/{listener}");
    let changed =
        json!({ "listener": { "connection_limit": 5, "timeout_client_data": 7, "name": "m", "tags": ["x"] } });
    let changed = site.octavia.put(&path, &changed).await.expect(200)["listener"].take();
    assert_eq!(
        (&changed["connection_limit"], &changed["timeout_client_data"], &changed["tags"]),
        (&json!(5), &json!(7), &json!(["x"]))
    );
    assert_eq!(changed["provisioning_status"], "PENDING_UPDATE");
    site.hooks().settled().await;
    let reset =
        json!({ "listener": { "connection_limit": null, "timeout_client_data": null, "default_pool_id": null } });
    let reset = site.octavia.put(&path, &reset).await.expect(200)["listener"].take();
    assert_eq!(
        (&reset["connection_limit"], &reset["timeout_client_data"], &reset["default_pool_id"]),
        (&json!(-1), &json!(50_000), &Value::Null)
    );
    site.hooks().settled().await;
    assert!(site.world.cloud.snapshot().load_balancers[0].listeners[0].members.is_empty());

    site.octavia.delete(&format!("/v2/lbaas/pools/{pool}")).await.expect(204);
    site.hooks().settled().await;
    assert_eq!(
        site.octavia.get(&format!("/v2/lbaas/pools/{pool}")).await.fault(),
        (404, format!("Pool {pool} not found.").as_str())
    );
    site.octavia.delete(&path).await.expect(204);
    site.hooks().settled().await;
    assert_eq!(site.octavia.get(&path).await.fault(), (404, format!("Listener {listener} not found.").as_str()));
    assert_eq!(site.tree(&made).await, "web ACTIVE ONLINE\n");
    site.octavia.delete(&format!("/v2/lbaas/loadbalancers/{}", id(&made))).await.expect(204);
}

#[tokio::test]
async fn a_pool_may_come_with_the_listener_that_it_is_for() {
    let site = Site::new().await;
    let made = site.balancer(json!({ "listeners": [{ "protocol": "TCP", "protocol_port": 80 }] })).await;
    let listener = &made["listeners"][0]["id"];
    let pool = |protocol: &str| json!({ "pool": { "listener_id": listener, "protocol": protocol, "lb_algorithm": "SOURCE_IP_PORT" } });
    let wrong = site.octavia.post("/v2/lbaas/pools", &pool("UDP")).await;
    let message = "Validation failure: The pool protocol 'UDP' is invalid while the listener protocol is 'TCP'.";
    assert_eq!(wrong.fault(), (400, message));
    let first = site.octavia.post("/v2/lbaas/pools", &pool("TCP")).await.expect(201);
    assert_eq!(first["pool"]["listeners"], json!([{ "id": listener }]));
    site.hooks().settled().await;
    let second = site.octavia.post("/v2/lbaas/pools", &pool("TCP")).await;
    assert_eq!(second.fault(), (409, "This listener already has a default pool"));
}

#[tokio::test]
async fn a_number_is_taken_once_by_what_runs_over_tcp_and_once_by_each_of_udp_and_sctp() {
    let site = Site::of_amphorae().await;
    let made = site.balancer(json!({ "listeners": [{ "protocol": "TCP", "protocol_port": 80 }] })).await;
    for (protocol, free) in [("HTTP", false), ("TCP", false), ("UDP", true), ("SCTP", true), ("UDP", false)] {
        let body = json!({ "listener": { "loadbalancer_id": made["id"], "protocol": protocol, "protocol_port": 80 } });
        let reply = site.octavia.post("/v2/lbaas/listeners", &body).await;
        assert_eq!(reply.status, if free { 201 } else { 409 }, "{protocol}: {}", reply.body);
        if protocol == "HTTP" {
            let message = "Another Listener on this Load Balancer is already using protocol TCP and protocol_port 80";
            assert_eq!(reply.fault(), (409, message));
        }
        site.hooks().settled().await;
    }
}

#[tokio::test]
async fn session_persistence_follows_its_rules_and_stays_when_it_is_not_named() {
    let site = Site::of_amphorae().await;
    let made = site.balancer(json!({})).await;
    let ask = async |protocol: &str, persistence: Value| {
        let body = json!({ "pool": { "loadbalancer_id": made["id"], "protocol": protocol, "lb_algorithm": "ROUND_ROBIN",
            "session_persistence": persistence } });
        let reply = site.octavia.post("/v2/lbaas/pools", &body).await;
        site.hooks().settled().await;
        reply
    };
    for (protocol, persistence) in [
        ("TCP", json!({ "type": "SOURCE_IP", "persistence_timeout": 3 })),
        ("UDP", json!({ "type": "HTTP_COOKIE" })),
        ("UDP", json!({ "type": "SOURCE_IP", "cookie_name": "x" })),
        ("TCP", json!({ "type": "APP_COOKIE" })),
        ("TCP", json!({ "type": "SOURCE_IP", "cookie_name": "x" })),
    ] {
        let reply = ask(protocol, persistence.clone()).await;
        assert!(
            reply.status == 400 && reply.fault().1.starts_with("Validation failure: "),
            "{persistence}: {}",
            reply.body
        );
    }
    let udp = json!({ "type": "SOURCE_IP", "persistence_timeout": 3, "persistence_granularity": "255.255.255.0" });
    let pool = ask("UDP", udp).await.expect(201)["pool"].take();
    assert_eq!(pool["session_persistence"]["persistence_timeout"], 3);
    let path = format!("/v2/lbaas/pools/{}", id(&pool));
    let put = async |body: Value| {
        let reply =
            site.octavia.put(&path, &json!({ "pool": body })).await.expect(200)["pool"]["session_persistence"].take();
        site.hooks().settled().await;
        reply
    };
    assert_eq!(put(json!({ "name": "n" })).await["type"], "SOURCE_IP");
    assert_eq!(put(json!({ "session_persistence": { "persistence_timeout": 9 } })).await["type"], "SOURCE_IP");
    assert_eq!(put(json!({ "session_persistence": null })).await, Value::Null);
}

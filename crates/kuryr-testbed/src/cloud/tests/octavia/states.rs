use serde_json::{Value, json};

use super::{Site, gradual, id, lines, round_robin, service};
use crate::cloud::LoadBalancingConfig;

#[tokio::test]
async fn nothing_changes_while_a_load_balancer_is_pending() {
    let site = Site::new().await;
    site.hooks().hold_new(true);
    let made =
        site.ask(json!({ "listeners": [service("TCP", 80, &["10.9.0.5"])] })).await.expect(201)["loadbalancer"].take();
    let (balancer, octavia) = (id(&made), &site.octavia);
    let listener = id(&made["listeners"][0]);
    let pool = id(&made["pools"][0]);
    let member = id(&made["pools"][0]["members"][0]);
    let path = |rest: &str| format!("/v2/lbaas/{rest}");
    let locked = format!("Load Balancer {balancer} is immutable and cannot be updated.");
    let new = json!({ "listener": { "loadbalancer_id": balancer, "protocol": "TCP", "protocol_port": 81 } });
    assert_eq!(octavia.post(&path("listeners"), &new).await.fault(), (409, locked.as_str()));
    let rename = json!({ "listener": { "name": "x" } });
    assert_eq!(octavia.put(&path(&format!("listeners/{listener}")), &rename).await.fault(), (409, locked.as_str()));
    assert_eq!(octavia.delete(&path(&format!("listeners/{listener}"))).await.fault(), (409, locked.as_str()));
    assert_eq!(octavia.delete(&path(&format!("pools/{pool}"))).await.fault(), (409, locked.as_str()));
    let of_pool = format!("Pool {pool} is immutable and cannot be updated.");
    let members = path(&format!("pools/{pool}/members"));
    assert_eq!(octavia.put(&members, &json!({ "members": [] })).await.fault(), (409, of_pool.as_str()));
    assert_eq!(octavia.delete(&format!("{members}/{member}")).await.fault(), (409, of_pool.as_str()));
    let state = format!("Invalid state PENDING_CREATE of loadbalancer resource {balancer}");
    let itself = path(&format!("loadbalancers/{balancer}"));
    assert_eq!(octavia.put(&itself, &json!({ "loadbalancer": { "name": "x" } })).await.fault(), (409, state.as_str()));
    assert_eq!(octavia.delete(&format!("{itself}?cascade=true")).await.fault(), (409, state.as_str()));
    assert_eq!(octavia.put(&format!("{itself}/failover"), &json!({})).await.fault(), (409, state.as_str()));
    assert!(site.world.cloud.snapshot().load_balancers.is_empty(), "nothing was made yet");

    assert!(site.hooks().release(site.hooks().all()[0].id));
    site.hooks().settled().await;
    assert_eq!(site.show(&made).await["provisioning_status"], "ACTIVE");
    octavia.put(&itself, &json!({ "loadbalancer": { "name": "x", "tags": ["t"] } })).await.expect(200);
    let shown = site.show(&made).await;
    assert_eq!((&shown["name"], &shown["tags"]), (&json!("x"), &json!(["t"])));
}

#[tokio::test]
async fn ovn_is_active_before_its_children_and_amphorae_are_all_at_once() {
    for (provider, listener) in
        [("ovn", service("TCP", 80, &["10.9.0.5"])), ("amphora", round_robin("TCP", 80, &["10.9.0.5"]))]
    {
        let site = Site::with(gradual(provider)).await;
        let made = site.ask(json!({ "name": "web", "listeners": [listener] })).await.expect(201)["loadbalancer"].take();
        site.hold_when_active().await;
        let tree = site.tree(&made).await;
        let pending = "
            web ACTIVE ONLINE
              TCP:80 PENDING_CREATE OFFLINE
                TCP:80 PENDING_CREATE OFFLINE
                  10.9.0.5 PENDING_CREATE NO_MONITOR";
        let through = "
            web ACTIVE ONLINE
              TCP:80 ACTIVE ONLINE
                TCP:80 ACTIVE ONLINE
                  10.9.0.5 ACTIVE NO_MONITOR";
        assert_eq!(tree, lines(if provider == "ovn" { pending } else { through }));
        site.release().await;
        assert_eq!(site.tree(&made).await, lines(through));
    }
}

#[tokio::test]
async fn a_load_balancer_with_children_is_deleted_by_cascade_only_and_then_not_found() {
    let site = Site::new().await;
    let made = site.balancer(json!({ "listeners": [service("TCP", 80, &["10.9.0.5"])] })).await;
    let balancer = site.hooks().all()[0].id;
    site.hooks().hold(balancer);
    let path = format!("/v2/lbaas/loadbalancers/{}", id(&made));
    let message = format!("Validation failure: Cannot delete Load Balancer {} - it has children", id(&made));
    assert_eq!(site.octavia.delete(&path).await.fault(), (400, message.as_str()));
    site.octavia.delete(&format!("{path}?cascade=true")).await.expect(204);
    assert_eq!(site.show(&made).await["provisioning_status"], "PENDING_DELETE");
    assert_eq!(site.world.cloud.snapshot().load_balancers.len(), 1, "still there");
    site.hooks().release(balancer);
    site.hooks().settled().await;
    let gone = format!("Load Balancer {} not found.", id(&made));
    assert_eq!(site.octavia.get(&path).await.fault(), (404, gone.as_str()));
    assert_eq!(site.octavia.delete(&format!("{path}?cascade=true")).await.fault(), (404, gone.as_str()));
    assert_eq!(site.get("/pools").await["pools"], json!([]));
    assert!(site.world.cloud.snapshot().load_balancers.is_empty());
    let late = json!({ "listener": { "loadbalancer_id": made["id"], "protocol": "TCP", "protocol_port": 81 } });
    let locked = format!("Load Balancer {} is immutable and cannot be updated.", id(&made));
    assert_eq!(site.octavia.post("/v2/lbaas/listeners", &late).await.fault(), (409, locked.as_str()));
}

#[tokio::test]
async fn a_change_is_live_only_when_its_provider_is_through() {
    let site = Site::new().await;
    let made = site.balancer(json!({ "listeners": [service("TCP", 80, &["10.9.0.5"])] })).await;
    let balancer = site.hooks().all()[0].id;
    site.hooks().hold(balancer);
    let live = || site.world.cloud.snapshot().load_balancers[0].admin_state_up;
    let path = format!("/v2/lbaas/loadbalancers/{}", id(&made));
    let down = site.octavia.put(&path, &json!({ "loadbalancer": { "admin_state_up": false } })).await.expect(200);
    assert_eq!(down["loadbalancer"]["admin_state_up"], false);
    assert!(live());
    site.hooks().release(balancer);
    site.hooks().settled().await;
    assert!(!live());
    assert_eq!(site.show(&made).await["operating_status"], "OFFLINE");
}

#[tokio::test]
async fn a_load_balancer_in_error_keeps_what_it_had_and_may_be_deleted_or_failed_over() {
    for provider in ["ovn", "amphora"] {
        let site =
            Site::with(LoadBalancingConfig { default_provider: provider.into(), ..LoadBalancingConfig::default() })
                .await;
        let service = if provider == "ovn" { service } else { round_robin };
        let made = site.balancer(json!({ "listeners": [service("TCP", 80, &["10.9.0.5"])] })).await;
        let balancer = site.hooks().all()[0].id;
        let before = site.world.cloud.snapshot().load_balancers;
        assert!(site.hooks().fail(balancer));
        let shown = site.show(&made).await;
        assert_eq!((&shown["provisioning_status"], &shown["operating_status"]), (&json!("ERROR"), &json!("ERROR")));
        assert_eq!(site.world.cloud.snapshot().load_balancers, before);
        let members = format!("/v2/lbaas/pools/{}/members", id(&made["pools"][0]));
        let locked = format!("Load Balancer {balancer} is immutable and cannot be updated.");
        assert_eq!(site.octavia.put(&members, &json!({ "members": [] })).await.fault(), (409, locked.as_str()));

        let failover = format!("/v2/lbaas/loadbalancers/{balancer}/failover");
        site.hooks().fail_failovers(1);
        let reply = site.octavia.put(&failover, &json!({})).await;
        if provider == "ovn" {
            let message = "Provider 'ovn' does not support a requested option: OVN provider does not support loadbalancer failover";
            assert_eq!(reply.fault(), (501, message));
        } else {
            reply.expect(202);
            site.hooks().settled().await;
            assert_eq!(site.show(&made).await["provisioning_status"], "ERROR");
            site.octavia.put(&failover, &json!({})).await.expect(202);
            site.hooks().settled().await;
            let shown = site.show(&made).await;
            assert_eq!(
                (&shown["provisioning_status"], &shown["vip_address"]),
                (&json!("ACTIVE"), &made["vip_address"])
            );
            site.hooks().fail(balancer);
        }
        site.octavia.delete(&format!("/v2/lbaas/loadbalancers/{balancer}?cascade=true")).await.expect(204);
        site.hooks().settled().await;
        assert!(site.hooks().all().is_empty());
    }
}

#[tokio::test]
async fn a_create_may_end_in_error_and_on_ovn_takes_its_port_with_it() {
    for (provider, ports) in [("ovn", 0), ("amphora", 1)] {
        let site =
            Site::with(LoadBalancingConfig { default_provider: provider.into(), ..LoadBalancingConfig::default() })
                .await;
        site.hooks().fail_creates(1);
        let made = site.balancer(json!({})).await;
        assert_eq!(site.show(&made).await["provisioning_status"], "ERROR");
        assert_eq!(site.ports().await.len(), ports);
        assert!(site.world.cloud.snapshot().load_balancers.is_empty());
        let second = site.balancer(json!({})).await;
        assert_eq!(site.show(&second).await["provisioning_status"], "ACTIVE");
    }
}

#[tokio::test]
async fn what_vanishes_behind_our_back_is_not_found() {
    let site = Site::new().await;
    let made = site.balancer(json!({ "listeners": [service("TCP", 80, &["10.9.0.5", "10.9.0.6"])] })).await;
    let balancer = site.hooks().all()[0].id;
    assert!(site.hooks().lose_member(balancer, "10.9.0.5".parse().unwrap(), 8080));
    assert!(!site.hooks().lose_member(balancer, "10.9.0.5".parse().unwrap(), 8080));
    let live = site.world.cloud.snapshot().load_balancers[0].listeners[0].members.len();
    let pool = site.get(&format!("/pools/{}", id(&made["pools"][0]))).await;
    assert_eq!((live, pool["pool"]["members"].as_array().unwrap().len()), (1, 1));
    assert!(site.hooks().lose(balancer));
    assert_eq!(site.octavia.get(&format!("/v2/lbaas/loadbalancers/{balancer}")).await.status, 404);
    assert!(site.ports().await.is_empty() && !site.hooks().lose(balancer));
}

#[tokio::test]
async fn a_load_balancer_may_be_held_for_a_time() {
    let site = Site::new().await;
    let made = site.balancer(json!({})).await;
    let balancer = site.hooks().all()[0].id;
    let time = std::time::Duration::from_millis(200);
    let started = std::time::Instant::now();
    assert!(site.hooks().hold_for(balancer, time));
    let path = format!("/v2/lbaas/loadbalancers/{balancer}");
    site.octavia.put(&path, &json!({ "loadbalancer": { "name": "x" } })).await.expect(200);
    assert_eq!(site.show(&made).await["provisioning_status"], "PENDING_UPDATE");
    site.hooks().settled().await;
    assert!(started.elapsed() >= time);
    assert_eq!(site.show(&made).await["provisioning_status"], "ACTIVE");
}

#[tokio::test]
async fn a_floating_ip_on_a_vip_goes_when_the_load_balancer_does_but_only_its_association() {
    let site = Site::new().await;
    let neutron = &site.world.neutron;
    let body = json!({ "network": { "router:external": true } });
    let outside = id(&neutron.post("/v2.0/networks", &body).await.expect(201)["network"]);
    crate::cloud::tests::subnet(neutron, &outside, "203.0.113.0/28").await;
    let body = json!({ "router": { "external_gateway_info": { "network_id": outside } } });
    let router = id(&neutron.post("/v2.0/routers", &body).await.expect(201)["router"]);
    let add = format!("/v2.0/routers/{router}/add_router_interface");
    neutron.put(&add, &json!({ "subnet_id": site.subnet })).await.expect(200);
    let made = site.balancer(json!({})).await;
    let body = json!({ "floatingip": { "floating_network_id": outside, "port_id": made["vip_port_id"] } });
    let floating = neutron.post("/v2.0/floatingips", &body).await.expect(201)["floatingip"].take();
    assert_eq!(floating["fixed_ip_address"], made["vip_address"]);
    site.octavia.delete(&format!("/v2/lbaas/loadbalancers/{}", id(&made))).await.expect(204);
    site.hooks().settled().await;
    let left = neutron.get(&format!("/v2.0/floatingips/{}", id(&floating))).await.expect(200);
    assert_eq!((&left["floatingip"]["port_id"], &left["floatingip"]["status"]), (&Value::Null, &json!("DOWN")));
}

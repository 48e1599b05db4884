use serde_json::{Value, json};

use super::{Site, id, lines, round_robin, service};

fn monitor(pool: &Value, kind: &str) -> Value {
    json!({ "healthmonitor": { "pool_id": pool["id"], "type": kind, "delay": 5, "timeout": 2, "max_retries": 2, "name": "hm" } })
}

#[tokio::test]
async fn a_monitor_tells_members_that_answer_from_those_that_do_not() {
    let site = Site::new().await;
    let made =
        site.balancer(json!({ "name": "web", "listeners": [service("TCP", 80, &["10.9.0.5", "10.9.0.6"])] })).await;
    let reply = site.octavia.post("/v2/lbaas/healthmonitors", &monitor(&made["pools"][0], "TCP")).await.expect(201);
    assert_eq!(reply["healthmonitor"]["max_retries_down"], 3);
    site.hooks().settled().await;
    let balancer = site.hooks().all()[0].id;
    let report = |online| site.hooks().report_member(balancer, "10.9.0.6".parse().unwrap(), 8080, online);
    assert!(report(false));
    // The provider does not say of the listener that it is through.
    let wanted = "
        web ACTIVE DEGRADED
          TCP:80 PENDING_UPDATE DEGRADED
            TCP:80 ACTIVE DEGRADED
              10.9.0.5 ACTIVE ONLINE
              10.9.0.6 ACTIVE ERROR
              hm ACTIVE ONLINE";
    assert_eq!(site.tree(&made).await, lines(wanted));
    let online = || {
        site.world.cloud.snapshot().load_balancers[0].listeners[0].members.iter().map(|m| m.online).collect::<Vec<_>>()
    };
    assert_eq!(online(), [true, false]);
    assert!(report(true));
    assert_eq!(online(), [true, true]);

    let again = site.octavia.post("/v2/lbaas/healthmonitors", &monitor(&made["pools"][0], "TCP")).await;
    assert_eq!(again.fault(), (409, "This pool already has a health monitor"));
    let path = format!("/v2/lbaas/healthmonitors/{}", id(&reply["healthmonitor"]));
    let changed = site.octavia.put(&path, &json!({ "healthmonitor": { "delay": 9 } })).await.expect(200);
    assert_eq!((&changed["healthmonitor"]["delay"], &changed["healthmonitor"]["timeout"]), (&json!(9), &json!(2)));
    site.hooks().settled().await;
    site.octavia.delete(&path).await.expect(204);
    site.hooks().settled().await;
    assert_eq!(site.octavia.get(&path).await.status, 404);
    assert!(site.tree(&made).await.contains("10.9.0.5 ACTIVE NO_MONITOR"));
}

#[tokio::test]
async fn a_monitor_within_a_tree_is_lost_on_the_ovn_provider_of_zed_and_locks_the_load_balancer_for_good() {
    for (site, lost) in [(Site::new().await, true), (Site::of_later_ovn().await, false)] {
        let mut listener = service("TCP", 80, &["10.9.0.5"]);
        listener["default_pool"]["healthmonitor"] =
            json!({ "type": "TCP", "delay": 1, "timeout": 1, "max_retries": 1 });
        let made = site.balancer(json!({ "name": "web", "listeners": [listener] })).await;
        let tree = site.tree(&made).await;
        assert_eq!(tree.contains("TCP PENDING_CREATE OFFLINE"), lost, "{tree}");
        let monitor = site.get("/healthmonitors").await["healthmonitors"][0]["id"].as_str().unwrap().to_owned();
        let path = format!("/v2/lbaas/healthmonitors/{monitor}");
        site.octavia.delete(&path).await.expect(204);
        site.hooks().settled().await;
        assert_eq!(site.hooks().all()[0].provisioning_status, if lost { "PENDING_UPDATE" } else { "ACTIVE" });
    }
}

#[tokio::test]
async fn the_kind_of_a_monitor_fits_its_pool_and_its_provider() {
    let site = Site::of_amphorae().await;
    let made = site.balancer(json!({ "listeners": [round_robin("TCP", 80, &[]), round_robin("UDP", 53, &[])] })).await;
    let (tcp, udp) = (&made["pools"][0], &made["pools"][1]);
    let refused = async |pool: &Value, kind: &str| {
        site.octavia.post("/v2/lbaas/healthmonitors", &monitor(pool, kind)).await.fault().1.to_owned()
    };
    let only = "The UDP-CONNECT type is only supported for pools of type UDP/SCTP.";
    assert_eq!(refused(tcp, "UDP-CONNECT").await, format!("Validation failure: {only}"));
    assert!(
        refused(udp, "PING").await.contains("The associated pool protocol is UDP, so only a UDP-CONNECT/SCTP/TCP/HTTP")
    );
    site.octavia.post("/v2/lbaas/healthmonitors", &monitor(udp, "UDP-CONNECT")).await.expect(201);
    site.hooks().settled().await;
    let http =
        site.octavia.post("/v2/lbaas/healthmonitors", &monitor(tcp, "HTTP")).await.expect(201)["healthmonitor"].take();
    assert_eq!(
        (&http["http_method"], &http["url_path"], &http["expected_codes"]),
        (&json!("GET"), &json!("/"), &json!("200"))
    );

    let ovn = Site::new().await;
    let made = ovn.balancer(json!({ "listeners": [service("TCP", 80, &[])] })).await;
    let reply = ovn.octavia.post("/v2/lbaas/healthmonitors", &monitor(&made["pools"][0], "HTTP")).await;
    let message = "Provider 'ovn' does not support a requested option: OVN provider does not support HTTP health monitor type. \
                   Supported types: UDP-CONNECT, TCP";
    assert_eq!(reply.fault(), (501, message));
}

use serde_json::{Value, json};

use super::{Site, round_robin, service};

#[tokio::test]
async fn ovn_says_what_it_cannot_do_and_leaves_the_port_behind() {
    let site = Site::new().await;
    let with = |change: fn(&mut Value)| {
        let mut listener = service("TCP", 80, &[]);
        change(&mut listener);
        json!({ "listeners": [listener] })
    };
    let cases: [(Value, &str); 4] = [
        (
            with(|listener| listener["allowed_cidrs"] = json!(["10.0.0.0/8"])),
            "OVN provider does not support allowed_cidrs option",
        ),
        (
            with(|listener| listener["default_pool"]["lb_algorithm"] = json!("ROUND_ROBIN")),
            "OVN provider does not support ROUND_ROBIN algorithm",
        ),
        (with(|listener| listener["protocol"] = json!("HTTPS")), "OVN provider does not support HTTPS protocol"),
        (
            with(|listener| listener["default_pool"]["protocol"] = json!("PROXY")),
            "OVN provider does not support PROXY protocol",
        ),
    ];
    for (n, (body, message)) in cases.into_iter().enumerate() {
        let reply = site.ask(body).await;
        let message = format!("Provider 'ovn' does not support a requested option: {message}");
        assert_eq!(reply.fault(), (501, message.as_str()));
        assert_eq!(reply.body["faultcode"], "Server");
        assert_eq!(site.ports().await.len(), n + 1);
    }
    assert!(site.hooks().all().is_empty());
}

#[tokio::test]
async fn ovn_takes_without_effect_what_only_looks_like_an_option() {
    let site = Site::new().await;
    let mut listener = service("TCP", 80, &["10.9.0.5"]);
    listener["connection_limit"] = json!(1);
    listener["timeout_member_data"] = json!(1);
    listener["default_pool"]["session_persistence"] = json!({ "type": "SOURCE_IP" });
    listener["default_pool"]["members"][0]["weight"] = json!(0);
    let tree = json!({ "listeners": [listener] });
    site.balancer(tree.clone()).await;
    let seen = &site.world.cloud.snapshot().load_balancers[0].listeners[0];
    assert_eq!((seen.source_ip_affinity, seen.members[0].weight), (false, 1));

    let later = Site::of_later_ovn().await;
    later.balancer(tree).await;
    assert!(later.world.cloud.snapshot().load_balancers[0].listeners[0].source_ip_affinity);
}

#[tokio::test]
async fn amphorae_do_what_ovn_cannot() {
    let site = Site::new().await;
    let mut listener = round_robin("HTTP", 80, &["10.9.0.5", "10.9.0.6"]);
    listener["allowed_cidrs"] = json!(["10.0.0.1/8"]);
    listener["insert_headers"] = json!({ "X-Forwarded-For": "true" });
    listener["default_pool"]["session_persistence"] = json!({ "type": "SOURCE_IP" });
    listener["default_pool"]["members"][0]["weight"] = json!(0);
    listener["default_pool"]["members"][1]["admin_state_up"] = json!(false);
    for provider in ["amphora", "octavia"] {
        let made = site.balancer(json!({ "provider": provider, "listeners": [listener] })).await;
        assert_eq!(made["provider"], provider);
        let snapshot = site.world.cloud.snapshot();
        let seen = snapshot.load_balancers.iter().find(|seen| seen.provider == provider).unwrap();
        let seen = &seen.listeners[0];
        assert_eq!(json!(seen.allowed_cidrs), json!(["10.0.0.0/8"]));
        assert_eq!(seen.members.iter().map(|member| member.weight).collect::<Vec<_>>(), [0]);
        assert!(seen.source_ip_affinity);
    }
    let made = site.balancer(json!({ "provider": "amphora" })).await;
    let pool =
        json!({ "pool": { "loadbalancer_id": made["id"], "protocol": "TCP", "lb_algorithm": "SOURCE_IP_PORT" } });
    let reply = site.octavia.post("/v2/lbaas/pools", &pool).await;
    let message = "Provider 'amphora' does not support a requested option: Amphora provider does not support SOURCE_IP_PORT algorithm.";
    assert_eq!(reply.fault(), (501, message));
}

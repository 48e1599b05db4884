use serde_json::{Value, json};

use super::Site;

/// Requests, and the answers that Octavia 11 (Zed) gave to them when its API was asked with a driver that refuses nothing.
const ANSWERS: &str = include_str!("answers.json");

/// The real one lists allowed values in no order.
fn comparable(fault: &str) -> &str {
    fault.split_once("Value should be one of").map_or(fault, |(start, _)| start)
}

#[tokio::test]
async fn requests_are_answered_as_by_the_real_one() {
    let site = Site::of_amphorae().await;
    let subnet = super::subnet(&site.world.neutron, &site.network, "198.0.2.0/24").await;
    let cases: Vec<Value> = serde_json::from_str(ANSWERS).unwrap();
    assert!(cases.len() > 100);
    let mut wrong = Vec::new();
    for case in cases {
        let body: Value = serde_json::from_str(&case["body"].to_string().replace("$SUBNET", &subnet)).unwrap();
        let reply = site.octavia.post("/v2/lbaas/loadbalancers", &body).await;
        let fault = reply.body["faultstring"].as_str().unwrap_or_default().replace(&subnet, "$SUBNET");
        let wanted = case["fault"].as_str().unwrap_or_default();
        if json!(reply.status) != case["status"] || comparable(&fault) != comparable(wanted) {
            wrong.push(format!(
                "{}\n  {} {fault}\n  instead of {} {wanted}",
                case["body"], reply.status, case["status"]
            ));
        }
        // What failed late has left the port of its VIP behind.
        for port in site.ports().await {
            site.world.neutron.delete(&format!("/v2.0/ports/{}", port["id"].as_str().unwrap())).await.expect(204);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn what_is_shown_has_the_fields_of_the_real_one() {
    let site = Site::of_amphorae().await;
    let mut listener = super::round_robin("TCP", 80, &["10.0.0.1"]);
    listener["default_pool"]["healthmonitor"] = json!({ "type": "TCP", "delay": 1, "timeout": 1, "max_retries": 1 });
    let made = site.balancer(json!({ "listeners": [listener] })).await;
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    let balancer = "additional_vips admin_state_up availability_zone created_at description flavor_id id listeners name \
                    operating_status pools project_id provider provisioning_status tags tenant_id updated_at vip_address \
                    vip_network_id vip_port_id vip_qos_policy_id vip_subnet_id";
    assert_eq!(keys(&made), balancer);
    assert_eq!(keys(&site.show(&made).await), balancer);
    let listener = "admin_state_up allowed_cidrs alpn_protocols client_authentication client_ca_tls_container_ref \
                    client_crl_container_ref connection_limit created_at default_pool_id default_tls_container_ref description id \
                    insert_headers l7policies loadbalancers name operating_status project_id protocol protocol_port \
                    provisioning_status sni_container_refs tags tenant_id timeout_client_data timeout_member_connect \
                    timeout_member_data timeout_tcp_inspect tls_ciphers tls_versions updated_at";
    assert_eq!(keys(&made["listeners"][0]), listener.replace("loadbalancers ", ""));
    assert_eq!(keys(&site.get("/listeners").await["listeners"][0]), listener);
    let pool = "admin_state_up alpn_protocols ca_tls_container_ref created_at crl_container_ref description healthmonitor_id id \
                lb_algorithm listeners loadbalancers members name operating_status project_id protocol provisioning_status \
                session_persistence tags tenant_id tls_ciphers tls_container_ref tls_enabled tls_versions updated_at";
    assert_eq!(keys(&site.get("/pools").await["pools"][0]), pool);
    assert_eq!(
        keys(&made["pools"][0]),
        pool.replace("healthmonitor_id", "healthmonitor").replace("loadbalancers ", "")
    );
    let member = "address admin_state_up backup created_at id monitor_address monitor_port name operating_status project_id \
                  protocol_port provisioning_status subnet_id tags tenant_id updated_at weight";
    let mut shown = made["pools"][0]["members"][0].clone();
    shown.as_object_mut().unwrap().remove("description");
    assert_eq!(keys(&shown), member);
    let monitor = "admin_state_up created_at delay domain_name expected_codes http_method http_version id max_retries \
                   max_retries_down name operating_status pools project_id provisioning_status tags tenant_id timeout type \
                   updated_at url_path";
    assert_eq!(keys(&site.get("/healthmonitors").await["healthmonitors"][0]), monitor);
}

#[tokio::test]
async fn the_versions_providers_and_flavors_are_told() {
    let flavor = crate::cloud::Flavor {
        id: uuid::Uuid::from_u128(7),
        name: "large".into(),
        provider: "amphora".into(),
        enabled: true,
    };
    let mut config = crate::cloud::LoadBalancingConfig { flavors: vec![flavor], ..Default::default() };
    config.availability_zones.push("nova".into());
    let site = Site::with(config).await;
    let versions =
        super::Client::new(&format!("{}/load-balancer", site.world.server.url()), None).get("/").await.expect(200);
    let ids: Vec<&str> = versions["versions"].as_array().unwrap().iter().filter_map(|v| v["id"].as_str()).collect();
    assert_eq!((ids[0], ids[26], ids.len()), ("v2.0", "v2.26", 27));
    assert_eq!(
        (&versions["versions"][26]["status"], &versions["versions"][5]["status"]),
        (&json!("CURRENT"), &json!("SUPPORTED"))
    );
    assert!(versions["versions"][0]["links"][0]["href"].as_str().unwrap().ends_with("/load-balancer/v2"));
    let names = |list: &Value| list.as_array().unwrap().iter().map(|one| one["name"].clone()).collect::<Value>();
    assert_eq!(names(&site.get("/providers").await["providers"]), json!(["amphora", "octavia", "ovn"]));
    assert_eq!(names(&site.get("/flavors?name=large").await["flavors"]), json!(["large"]));
    assert_eq!(names(&site.get("/availabilityzones").await["availability_zones"]), json!(["nova"]));

    let large = uuid::Uuid::from_u128(7);
    let made = site.ask(json!({ "flavor_id": large, "availability_zone": "nova" })).await.expect(201);
    assert_eq!(
        (&made["loadbalancer"]["provider"], &made["loadbalancer"]["flavor_id"]),
        (&json!("amphora"), &json!(large))
    );
    let mismatch = site.ask(json!({ "flavor_id": large, "provider": "ovn" })).await;
    assert_eq!(mismatch.fault(), (400, format!("Flavor '{large}' is not compatible with provider 'ovn'").as_str()));
    assert_eq!(site.ask(json!({ "availability_zone": "nova" })).await.status, 501, "OVN knows no zones");
    let absent = site.octavia.get("/v2/lbaas/flavors/x").await;
    assert_eq!(absent.fault(), (404, "Flavor x not found."));
}

#[tokio::test]
async fn quotas_count_what_a_project_has() {
    let site = Site::new().await;
    let tree = json!({ "listeners": [super::service("TCP", 80, &["10.9.0.5"])] });
    let made = site.balancer(tree.clone()).await;
    let project = made["project_id"].as_str().unwrap().to_owned();
    let path = format!("/v2/lbaas/quotas/{project}");
    let limits = site.octavia.get(&path).await.expect(200);
    assert_eq!((&limits["quota"]["load_balancer"], &limits["quota"]["member"]), (&json!(-1), &json!(-1)));
    for (name, kind) in
        [("loadbalancer", "Load Balancer"), ("pool", "Pool"), ("listener", "Listener"), ("member", "Member")]
    {
        site.octavia.put(&path, &json!({ "quota": { name: 1 } })).await.expect(202);
        let refused = site.ask(tree.clone()).await;
        assert_eq!(refused.fault(), (403, format!("Quota has been met for resources: {kind}").as_str()));
        site.octavia.put(&path, &json!({ "quota": { name: 2 } })).await.expect(202);
    }
    let all = site.get("/quotas").await;
    assert_eq!((&all["quotas"][0]["loadbalancer"], &all["quotas"][0]["healthmonitor"]), (&json!(2), &Value::Null));
    site.octavia.delete(&path).await.expect(202);
    assert_eq!(site.get("/quotas").await["quotas"], json!([]));
    let wrong = site.octavia.put(&path, &json!({ "quota": { "pool": -2 } })).await;
    let message = "Invalid input for field/attribute pool. Value: '-2'. Value should be greater or equal to -1";
    assert_eq!(wrong.fault(), (400, message));
}

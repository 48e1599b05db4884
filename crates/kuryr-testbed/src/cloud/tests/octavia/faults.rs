use axum::http::Method;
use serde_json::json;

use super::{Site, service};
use crate::cloud::{Fault, Service};

#[tokio::test]
async fn faults_and_the_log_know_the_paths_of_octavia() {
    let site = Site::new().await;
    let path = "/v2/lbaas/loadbalancers";
    site.world.cloud.faults().add(Fault::internal_error().on(Method::POST, path).times(1));
    let failed = site.ask(json!({})).await;
    assert_eq!((failed.status, &failed.body["faultcode"]), (500, &json!("Server")));
    assert!(site.hooks().all().is_empty() && site.ports().await.is_empty());

    site.world.cloud.faults().add(Fault::lose_answer().on(Method::POST, path).times(1));
    let body = json!({ "loadbalancer": { "vip_subnet_id": site.subnet, "name": "lost", "listeners": [service("TCP", 80, &[])] } });
    assert!(site.octavia.send("POST", path, Some(&body), &[]).await.is_err());
    let found = site.get("/loadbalancers?name=lost").await["loadbalancers"].take();
    let pool = site.get("/pools").await["pools"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(found.as_array().unwrap().len(), 1);
    site.hooks().settled().await;

    site.world.cloud.calls().reset();
    let members = json!({ "members": [{ "address": "10.9.0.5", "protocol_port": 1 }, { "address": "10.9.0.6", "protocol_port": 1 }] });
    site.octavia.put(&format!("/v2/lbaas/pools/{pool}/members"), &members).await.expect(202);
    let writes = site.world.cloud.calls().writes(Service::LoadBalancer);
    assert_eq!((writes.len(), writes[0].items, writes[0].status), (1, 2, Some(202)));
    assert_eq!(site.world.cloud.calls().count(&Method::PUT, "/v2/lbaas/pools/{id}/members"), 1);

    site.world.cloud.expire_tokens();
    assert_eq!(site.octavia.get(path).await.status, 401);
}

#[tokio::test]
async fn a_call_to_octavia_hangs_until_its_rule_is_removed() {
    let site = Site::new().await;
    let fault = site.world.cloud.faults().add(Fault::hang().on(Method::GET, "/v2/lbaas/loadbalancers/*/status"));
    let made = site.balancer(json!({})).await;
    let octavia = site.octavia.clone();
    let path = format!("/v2/lbaas/loadbalancers/{}/status", super::id(&made));
    let waiting = tokio::spawn(async move { octavia.get(&path).await.status });
    site.world.cloud.faults().wait_for_hits(fault, 1).await;
    assert!(!waiting.is_finished());
    site.world.cloud.faults().remove(fault);
    assert_eq!(waiting.await.unwrap(), 200);
}

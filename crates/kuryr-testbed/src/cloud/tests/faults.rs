use std::time::Duration;

use axum::http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{World, network};
use crate::cloud::{Fault, Service};

#[tokio::test]
async fn an_answer_by_rule_has_the_service_s_own_form() {
    let world = World::new().await;
    world.cloud.faults().add(Fault::internal_error().on(Method::GET, "/v2.0/ports").times(1));
    assert_eq!(world.neutron.get("/v2.0/ports").await.error(), (500, "HTTPInternalServerError"));
    assert_eq!(world.neutron.get("/v2.0/ports").await.status, 200);
    let wait = Fault::too_many_requests(Duration::from_secs(7)).service(Service::Network).times(1);
    world.cloud.faults().add(wait);
    let reply = world.neutron.get("/v2.0/ports").await;
    assert_eq!((reply.status, reply.header("retry-after")), (429, Some("7")));
}

#[tokio::test]
async fn a_lost_answer_means_the_work_was_done() {
    let world = World::new().await;
    let net = network(&world.neutron, "n").await;
    world.cloud.faults().add(Fault::lose_answer().on(Method::POST, "/v2.0/ports").times(1));
    let body = json!({ "port": { "network_id": net, "name": "lost" } });
    assert!(world.neutron.send("POST", "/v2.0/ports", Some(&body), &[]).await.is_err());
    let found = world.neutron.get("/v2.0/ports?name=lost").await.expect(200);
    assert_eq!(found["ports"].as_array().unwrap().len(), 1);
    assert_eq!(world.cloud.calls().filter(|call| call.status.is_none()).len(), 1);
}

#[tokio::test]
async fn a_dropped_connection_means_nothing_was_done() {
    let world = World::new().await;
    let net = network(&world.neutron, "n").await;
    world.cloud.faults().add(Fault::drop_connection().on(Method::POST, "/v2.0/ports").times(1));
    let body = json!({ "port": { "network_id": net, "name": "lost" } });
    assert!(world.neutron.send("POST", "/v2.0/ports", Some(&body), &[]).await.is_err());
    assert_eq!(world.neutron.get("/v2.0/ports?name=lost").await.expect(200)["ports"], json!([]));
}

#[tokio::test]
async fn a_call_hangs_until_its_rule_is_removed() {
    let world = World::new().await;
    let fault = world.cloud.faults().add(Fault::hang().on(Method::GET, "/v2.0/ports"));
    let neutron = world.neutron.clone();
    let waiting = tokio::spawn(async move { neutron.get("/v2.0/ports").await.status });
    world.cloud.faults().wait_for_hits(fault, 1).await;
    assert_eq!(world.cloud.calls().count(&Method::GET, "/v2.0/ports"), 0, "it has not ended");
    assert!(!waiting.is_finished());
    world.cloud.faults().remove(fault);
    assert_eq!(waiting.await.unwrap(), 200);
}

#[tokio::test]
async fn a_client_that_gives_up_does_not_stop_the_work() {
    let world = World::new().await;
    let net = network(&world.neutron, "n").await;
    let fault = world.cloud.faults().add(Fault::hang().on(Method::POST, "/v2.0/ports"));
    let body = json!({ "port": { "network_id": net, "name": "late" } });
    let neutron = world.neutron.clone();
    let call = tokio::spawn(async move { neutron.post("/v2.0/ports", &body).await.status });
    world.cloud.faults().wait_for_hits(fault, 1).await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    world.cloud.faults().remove(fault);
    let record = world.cloud.calls().wait_for(|call| call.method == Method::POST && call.path == "/v2.0/ports").await;
    assert_eq!(record.status, Some(201));
    assert_eq!(world.cloud.ports().len(), 1);
}

#[tokio::test]
async fn a_predicate_reads_the_call() {
    let world = World::new().await;
    let net = network(&world.neutron, "n").await;
    let unlucky =
        Fault::over_quota("port").when(|call| call.json().is_some_and(|body| body["port"]["name"] == "unlucky"));
    world.cloud.faults().add(unlucky);
    let make = async |name: &str| {
        world.neutron.post("/v2.0/ports", &json!({ "port": { "network_id": net, "name": name } })).await
    };
    assert_eq!(make("lucky").await.status, 201);
    assert_eq!(make("unlucky").await.error(), (409, "OverQuota"));
}

#[tokio::test]
async fn a_cloud_that_is_away_closes_every_connection_until_it_comes_back() {
    let world = World::new().await;
    world.cloud.go_away();
    assert!(world.neutron.send("GET", "/v2.0/ports", None, &[]).await.is_err());
    world.cloud.come_back();
    assert_eq!(world.neutron.get("/v2.0/ports").await.status, 200);
}

#[tokio::test]
async fn a_kept_connection_is_cut_when_the_cloud_goes_away() {
    let world = World::new().await;
    let mut kept = TcpStream::connect(world.server.address()).await.unwrap();
    kept.write_all(b"GET /v3 HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    kept.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    world.cloud.go_away();
    // What was answered before may still come, but then the end does: without the cut this would wait for ever.
    let mut rest = Vec::new();
    let _ = kept.read_to_end(&mut rest).await;
    assert!(TcpStream::connect(world.server.address()).await.is_ok(), "the port number stays taken");
}

#[tokio::test]
async fn the_log_counts_calls_by_template_and_items() {
    let world = World::new().await;
    let net = network(&world.neutron, "n").await;
    world.cloud.calls().reset();
    let one = json!({ "network_id": net });
    let made = world.neutron.post("/v2.0/ports", &json!({ "ports": [one, one] })).await;
    let request_id = made.header("x-openstack-request-id").unwrap().to_owned();
    for port in made.expect(201)["ports"].as_array().unwrap() {
        world.neutron.delete(&format!("/v2.0/ports/{}", port["id"].as_str().unwrap())).await.expect(204);
    }
    assert_eq!(world.cloud.calls().count(&Method::DELETE, "/v2.0/ports/{id}"), 2);
    let writes = world.cloud.calls().writes(Service::Network);
    assert_eq!((writes.len(), writes[0].items, writes[0].status), (3, 2, Some(201)));
    assert_eq!(writes[0].request_id, request_id);
}

#[tokio::test]
async fn a_server_stops_when_its_handle_is_dropped() {
    let World { server, neutron, .. } = World::new().await;
    drop(server);
    // The listener goes with its task, which ends at its next turn.
    let mut served = true;
    for _ in 0..100 {
        served = neutron.send("GET", "/v2.0/ports", None, &[]).await.is_ok();
        if !served {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert!(!served);
}

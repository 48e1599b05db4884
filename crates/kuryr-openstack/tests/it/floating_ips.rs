//! Floating IPs on the wire.

use crate::server::{Seen, Server, answer, id, neutron_error, ok};
use axum::http::Method;
use kuryr_model::neutron::FloatingIpStatus;
use kuryr_openstack::{
    Class, Filter,
    network::{NewFloatingIp, tags::Tagged},
};
use serde_json::{Value, json};

fn floating_ip(port: &Value) -> Value {
    let status = if port.is_null() { "DOWN" } else { "ACTIVE" };
    json!({
        "id": id(1), "floating_network_id": id(2), "floating_ip_address": "203.0.113.9", "port_id": port,
        "fixed_ip_address": null, "router_id": null, "status": status, "description": "", "tags": [],
    })
}

fn neutron(seen: &Seen) -> axum::response::Response {
    match seen.method {
        Method::POST => answer(201, json!({"floatingip": floating_ip(&seen.body["floatingip"]["port_id"])})),
        Method::PUT if seen.path.ends_with("/tags") => ok(seen.body.clone()),
        Method::PUT => ok(json!({"floatingip": floating_ip(&seen.body["floatingip"]["port_id"])})),
        Method::GET => ok(json!({"floatingips": [floating_ip(&json!(id(3)))]})),
        _ => neutron_error(404, "FloatingIPNotFound", "gone"),
    }
}

#[tokio::test]
async fn a_floating_ip_is_made_found_led_elsewhere_and_given_back() {
    let server = Server::start(neutron).await;
    let network = server.connect().await.network();
    let calls = network.floating_ips();
    let new = NewFloatingIp { description: "kuryr:c1".into(), ..NewFloatingIp::new(id(2).parse().unwrap()) };
    let made = calls.create(&new).await.unwrap();
    assert_eq!((made.port_id, made.status), (None, FloatingIpStatus::Down));
    network.tags().set(Tagged::FloatingIp(made.id), &["kuryr:c1".to_owned()]).await.unwrap();
    let filter = Filter::new().tags(["kuryr:c1"]).with("port_id", id(3));
    assert_eq!(calls.list(&filter).await.unwrap()[0].status, FloatingIpStatus::Active);
    let port = id(3).parse().unwrap();
    let led = calls.associate(made.id, port, Some("10.96.0.7".parse().unwrap())).await.unwrap();
    assert_eq!(led.port_id, Some(port));
    assert_eq!(calls.dissociate(made.id).await.unwrap().port_id, None);
    calls.delete(made.id).await.unwrap();

    let requests = server.requests();
    assert_eq!(requests[0].path, "/network/v2.0/floatingips");
    assert_eq!(requests[0].body, json!({"floatingip": {"floating_network_id": id(2), "description": "kuryr:c1"}}));
    assert_eq!(requests[1].path, format!("/network/v2.0/floatingips/{}/tags", id(1)));
    assert!(requests[2].query.contains(&format!("&tags=kuryr:c1&port_id={}&", id(3))), "{}", requests[2].query);
    assert_eq!(requests[3].body, json!({"floatingip": {"port_id": id(3), "fixed_ip_address": "10.96.0.7"}}));
    assert_eq!(requests[4].body, json!({"floatingip": {"port_id": null}}));
    assert_eq!(requests[5].method, Method::DELETE);
}

#[tokio::test]
async fn a_subnet_without_a_way_out_is_the_operators() {
    let server = Server::start(|_| neutron_error(404, "ExternalGatewayForFloatingIPNotFound", "not reachable")).await;
    let network = server.connect().await.network();
    let error = network.floating_ips().associate(id(1).parse().unwrap(), id(3).parse().unwrap(), None).await;
    assert!(matches!(error.unwrap_err().class(), Class::Operator(_)));
}

#[tokio::test]
async fn external_networks_are_found() {
    let server =
        Server::start(|_| ok(json!({"networks": [{"id": id(2), "name": "public", "router:external": true}]}))).await;
    let network = server.connect().await.network();
    let networks = network.networks().list(&Filter::new().with("router:external", true)).await.unwrap();
    assert!(networks[0].external);
    let query = &server.requests()[0].query;
    assert!(query.contains("fields=router:external&") && query.contains("&router:external=true&"), "{query}");
}

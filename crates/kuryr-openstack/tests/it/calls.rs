//! What the calls look like on the wire.

use crate::server::{Server, answer, id, neutron_error, ok, port};
use axum::http::Method;
use kuryr_model::neutron::{Direction, EtherType, RuleContent};
use kuryr_openstack::{
    Cloud, Filter, Options,
    network::{NewPort, PortUpdate, networks::NewNetwork, security_groups::NewRule, tags::Tagged},
};
use serde_json::json;
use std::sync::{Arc, Mutex};

#[tokio::test]
async fn a_list_follows_its_pages() {
    let server = Server::start(|seen| {
        let page = if seen.query.contains("marker=") { vec![port(3)] } else { vec![port(1), port(2)] };
        let links = json!([{"rel": "next", "href": format!("http://elsewhere/v2.0/ports?limit=2&marker={}", id(2))}]);
        let links = if seen.query.contains("marker=") { json!([]) } else { links };
        ok(json!({"ports": page, "ports_links": links}))
    })
    .await;
    let network = server.connect().await.network();
    let ports = network.ports().list(&Filter::new().tags(["kuryr:c1"])).await.unwrap();
    assert_eq!(ports.iter().map(|port| port.id.to_string()).collect::<Vec<_>>(), [id(1), id(2), id(3)]);
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].path, "/network/v2.0/ports");
    assert!(requests[0].query.contains("fields=binding:host_id") && requests[0].query.contains("&tags=kuryr:c1&"));
    assert!(requests[1].query.ends_with(&format!("&marker={}", id(2))));
}

#[tokio::test]
async fn many_ports_are_created_in_one_request() {
    let server = Server::start(|_| answer(201, json!({"ports": [port(1), port(2)]}))).await;
    let network = server.connect().await.network();
    let new =
        NewPort { device_id: "uid".into(), host_id: Some("node-1".into()), ..NewPort::new(id(0).parse().unwrap()) };
    let ports = network.ports().create_many(&[new.clone(), new]).await.unwrap();
    assert_eq!(ports.len(), 2);
    let requests = server.requests();
    assert_eq!((requests.len(), &requests[0].method), (1, &Method::POST));
    let expected = json!({
        "network_id": id(0), "name": "", "device_owner": "", "device_id": "uid", "binding:host_id": "node-1",
        "security_groups": [],
    });
    assert_eq!(requests[0].body, json!({"ports": [expected, expected]}));
    assert!(network.ports().create_many(&[]).await.unwrap().is_empty());
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn an_update_of_a_revision_fails_if_somebody_was_faster() {
    let server = Server::start(|seen| match seen.header("if-match") {
        "revision_number=4" => neutron_error(412, "RevisionNumberConstraintFailed", "it is 5"),
        _ => ok(json!({"port": port(1)})),
    })
    .await;
    let network = server.connect().await.network();
    let change = PortUpdate { security_groups: Some(vec![id(7).parse().unwrap()]), ..PortUpdate::default() };
    let port = id(1).parse().unwrap();
    let error = network.ports().update(port, &change, Some(4)).await.unwrap_err();
    assert!(error.is_stale());
    assert_eq!(error.class(), kuryr_openstack::Class::RetryNow);
    assert!(network.ports().update(port, &change, None).await.is_ok());
    assert_eq!(server.requests()[0].body, json!({"port": {"security_groups": [id(7)]}}));
}

#[tokio::test]
async fn rules_are_created_in_bulk() {
    let server = Server::start(|seen| {
        answer(201, {
            let mut rules = seen.body.clone();
            for rule in rules["security_group_rules"].as_array_mut().unwrap() {
                rule["id"] = json!(id(9));
            }
            rules
        })
    })
    .await;
    let network = server.connect().await.network();
    let rules = [EtherType::IPv4, EtherType::IPv6].map(|family| NewRule {
        security_group_id: id(5).parse().unwrap(),
        allows: RuleContent::everything(Direction::Ingress, family),
    });
    let created = network.security_groups().create_rules(&rules).await.unwrap();
    assert_eq!(created.into_iter().map(|rule| rule.allows).collect::<Vec<_>>(), rules.map(|rule| rule.allows));
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn deleting_what_is_gone_succeeds_and_other_refusals_do_not() {
    let server = Server::start(|seen| match seen.path.as_str() {
        path if path.contains("networks") => neutron_error(409, "NetworkInUse", "still ports"),
        _ => neutron_error(404, "PortNotFound", "gone"),
    })
    .await;
    let network = server.connect().await.network();
    network.ports().delete(id(1).parse().unwrap()).await.unwrap();
    network.routers().remove_interface(id(1).parse().unwrap(), id(2).parse().unwrap()).await.unwrap();
    network.tags().remove(Tagged::Port(id(1).parse().unwrap()), "x").await.unwrap();
    let error = network.networks().delete(id(1).parse().unwrap()).await.unwrap_err();
    assert_eq!(error.refusal().unwrap().kind, "NetworkInUse");
    assert!(network.ports().get(id(1).parse().unwrap()).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn tags_are_set_added_and_removed() {
    let server = Server::start(|seen| ok(seen.body.clone())).await;
    let network = server.connect().await.network();
    let port = Tagged::Port(id(1).parse().unwrap());
    let tags = ["kuryr:c1".to_owned(), "kuryr:pod:x".to_owned()];
    assert_eq!(network.tags().set(port, &tags).await.unwrap(), tags);
    network.tags().add(port, "a b").await.unwrap();
    network.tags().remove(port, "kuryr:c1").await.unwrap();
    let calls: Vec<_> = server.requests().iter().map(|r| format!("{} {}", r.method, r.path)).collect();
    let base = format!("/network/v2.0/ports/{}/tags", id(1));
    assert_eq!(calls, [format!("PUT {base}"), format!("PUT {base}/a%20b"), format!("DELETE {base}/kuryr:c1")]);
}

#[tokio::test]
async fn what_neutron_can_and_a_project_may_is_read() {
    let server = Server::start(|seen| match seen.path.as_str() {
        "/network/v2.0/extensions" => ok(json!({"extensions": [{"alias": "trunk"}, {"alias": "quotas"}]})),
        "/network/v2.0/quotas/p1/details.json" => {
            ok(json!({"quota": {"port": {"limit": 500, "used": 20, "reserved": 1}}}))
        }
        path if path.starts_with("/network/v2.0/network-ip-availabilities/") => {
            ok(json!({"network_ip_availability": {"network_id": id(1), "subnet_ip_availability": [
                {"subnet_id": id(2), "used_ips": 3, "total_ips": 253},
                {"subnet_id": id(3), "used_ips": 3, "total_ips": 18446744073709551614u64},
            ]}}))
        }
        "/network/v2.0/agents" => {
            ok(json!({"agents": [{"agent_type": "OVN Controller agent", "host": "n1", "alive": true}]}))
        }
        _ => answer(404, json!({})),
    })
    .await;
    let cloud = server.connect().await;
    let network = cloud.network();
    let extensions = network.extensions().await.unwrap();
    assert_eq!(extensions.missing(["trunk", "standard-attr-tag"]), ["standard-attr-tag"]);
    let quotas = network.quotas(&cloud.identity().project.unwrap()).await.unwrap();
    assert_eq!(quotas["port"].free(), Some(479));
    let uses = network.ip_availability(id(1).parse().unwrap()).await.unwrap();
    assert_eq!((uses[0].used_ips, uses[0].total_ips as u64), (3, 253));
    assert_eq!(network.agents(&Filter::new()).await.unwrap()[0].host, "n1");
}

#[tokio::test]
async fn every_request_is_observed_and_has_an_id() {
    let server = Server::start(|seen| {
        let mut response = answer(201, json!({"network": {"id": id(1), "mtu": seen.body["network"]["mtu"]}}));
        response.headers_mut().insert("x-openstack-request-id", "req-theirs".parse().unwrap());
        response
    })
    .await;
    let calls: Arc<Mutex<Vec<String>>> = Arc::default();
    let sink = calls.clone();
    let options = Options {
        observer: Some(Arc::new(move |call| {
            let line =
                format!("{} {} {} {:?} {}", call.service, call.method, call.resource, call.status, call.request_id);
            sink.lock().unwrap().push(line);
        })),
        ..Options::default()
    };
    let cloud = Cloud::connect_with(server.config(), options).await.unwrap();
    let new = NewNetwork { name: "n".into(), mtu: Some(1400), ..NewNetwork::default() };
    assert_eq!(cloud.network().networks().create(&new).await.unwrap().mtu, 1400);
    assert_eq!(
        *calls.lock().unwrap(),
        ["identity POST auth/tokens Some(201) ", "network POST networks Some(201) req-theirs"]
    );
    assert!(server.requests()[0].header("x-openstack-request-id").starts_with("req-"));
}

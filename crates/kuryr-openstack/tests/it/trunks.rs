//! Trunks and address pairs on the wire.

use crate::server::{Seen, Server, answer, id, neutron_error, ok};
use axum::http::Method;
use kuryr_model::neutron::{AddressPair, TrunkStatus};
use kuryr_openstack::{Class, network::NewTrunk};
use serde_json::{Value, json};

fn trunk(sub_ports: &Value) -> Value {
    json!({
        "id": id(1), "name": "vm", "port_id": id(2), "status": "ACTIVE", "admin_state_up": true, "sub_ports": sub_ports,
        "tags": [], "description": "", "revision_number": 3,
    })
}

fn subport(number: u32, vlan: u16) -> Value {
    json!({ "port_id": id(number), "segmentation_type": "vlan", "segmentation_id": vlan })
}

fn neutron(seen: &Seen) -> axum::response::Response {
    match (&seen.method, seen.path.rsplit('/').next().unwrap()) {
        (&Method::POST, _) => answer(201, json!({ "trunk": trunk(&json!([])) })),
        (&Method::PUT, "add_subports") => ok(trunk(&seen.body["sub_ports"])),
        (&Method::PUT, "remove_subports") => ok(trunk(&json!([subport(5, 8)]))),
        (&Method::GET, "trunks") => ok(json!({ "trunks": [trunk(&json!([subport(4, 7)]))] })),
        (&Method::GET, _) => ok(json!({ "trunk": trunk(&json!([])) })),
        _ => neutron_error(404, "TrunkNotFound", "gone"),
    }
}

#[tokio::test]
async fn subports_come_and_go_in_batches() {
    let server = Server::start(neutron).await;
    let network = server.connect().await.network();
    let trunks = network.trunks();
    let (parent, one, two) = (id(2).parse().unwrap(), id(4).parse().unwrap(), id(5).parse().unwrap());
    let made = trunks.create(&NewTrunk { name: "vm".into(), port_id: parent }).await.unwrap();
    assert_eq!((made.port_id, made.status, made.sub_ports.len()), (parent, TrunkStatus::Active, 0));
    let found = trunks.of_parent(parent).await.unwrap().unwrap();
    assert_eq!((found.sub_ports[0].port_id, found.sub_ports[0].segmentation_id), (one, 7));
    let new = [(one, 7.try_into().unwrap()), (two, 8.try_into().unwrap())];
    assert_eq!(trunks.add_subports(made.id, &new).await.unwrap().sub_ports.len(), 2);
    assert_eq!(trunks.remove_subports(made.id, &[one]).await.unwrap().sub_ports[0].port_id, two);
    assert!(trunks.get(made.id).await.unwrap().sub_ports.is_empty());
    trunks.delete(made.id).await.unwrap();

    let requests = server.requests();
    assert_eq!(requests[0].body, json!({ "trunk": { "name": "vm", "port_id": id(2) } }));
    assert!(requests[1].query.contains(&format!("&port_id={}&", id(2))), "{}", requests[1].query);
    assert_eq!(requests[2].path, format!("/network/v2.0/trunks/{}/add_subports", id(1)));
    assert_eq!(requests[2].body, json!({ "sub_ports": [subport(4, 7), subport(5, 8)] }));
    assert_eq!(requests[3].body, json!({ "sub_ports": [{ "port_id": id(4) }] }));
    assert_eq!(requests.len(), 6);
}

#[tokio::test]
async fn a_refused_batch_says_whether_it_was_one_of_them() {
    let server = Server::start(|seen| match seen.path.ends_with("add_subports") {
        true => neutron_error(409, "DuplicateSubPort", "segmentation_id 7 already in use"),
        false => neutron_error(404, "TrunkNotFound", "gone"),
    })
    .await;
    let network = server.connect().await.network();
    let trunk = id(1).parse().unwrap();
    let error =
        network.trunks().add_subports(trunk, &[(id(4).parse().unwrap(), 7.try_into().unwrap())]).await.unwrap_err();
    assert!(error.is_about_subports() && !error.is_trunk_gone() && !error.is_ambiguous(), "{error}");
    let error = network.trunks().remove_subports(trunk, &[id(4).parse().unwrap()]).await.unwrap_err();
    assert!(error.is_trunk_gone() && !error.is_about_subports(), "{error}");
}

#[tokio::test]
async fn address_pairs_are_replaced_if_nobody_was_faster() {
    let server = Server::start(|seen| match (&seen.method, seen.header("if-match")) {
        (&Method::GET, _) => ok(json!({ "port": {
            "allowed_address_pairs": [{ "ip_address": "10.0.0.0/24", "mac_address": "fa:16:3e:00:00:01" }],
            "revision_number": 4,
        } })),
        (_, "revision_number=4") => ok(json!({ "port": {
            "allowed_address_pairs": seen.body["port"]["allowed_address_pairs"], "revision_number": 5, "name": "vm",
        } })),
        _ => neutron_error(412, "RevisionNumberConstraintFailed", "it is 5"),
    })
    .await;
    let network = server.connect().await.network();
    let port = id(2).parse().unwrap();
    let mut known = network.address_pairs(port).await.unwrap();
    known.pairs.push(AddressPair::new("10.0.0.9".parse().unwrap(), "fa:16:3e:00:00:09".parse().unwrap()));
    let changed = network.set_address_pairs(port, &known.pairs, known.revision_number).await.unwrap();
    assert_eq!((changed.pairs.len(), changed.revision_number), (2, 5));
    let error = network.set_address_pairs(port, &known.pairs, 3).await.unwrap_err();
    assert_eq!(error.class(), Class::RetryNow);
    assert_eq!(
        server.requests()[1].body["port"]["allowed_address_pairs"][1],
        json!({ "ip_address": "10.0.0.9", "mac_address": "fa:16:3e:00:00:09" })
    );
}

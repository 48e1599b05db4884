//! What a controller says that finds a cloud that is not ready: one sentence, with the setting and the fix.

use super::*;
use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    routing::{get, post},
};
use kuryr_openstack::CloudConfig;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::net::TcpListener;

/// What a Neutron has.
#[derive(Clone)]
struct Neutron {
    extensions: Vec<&'static str>,
    subnets: Vec<Value>,
    groups: Vec<Value>,
}

fn id(n: u8) -> String {
    format!("00000000-0000-4000-8000-0000000000{n:02x}")
}

fn subnet(n: u8, name: &str, tags: &[&str]) -> Value {
    json!({"id": id(n), "network_id": id(0xf0 + n), "name": name, "cidr": format!("10.{n}.0.0/16"), "tags": tags})
}

fn group(n: u8, tag: &str) -> Value {
    json!({"id": id(n), "name": tag, "security_group_rules": [], "tags": ["kuryr:c", tag]})
}

/// A cloud that is ready for the cluster `c`.
fn ready() -> Neutron {
    let pods = ["kuryr:c", "kuryr:base:pods"];
    Neutron {
        extensions: REQUIRED_EXTENSIONS.iter().map(|(alias, _)| *alias).collect(),
        subnets: vec![
            subnet(2, "pods-2", &pods),
            subnet(1, "pods-1", &pods),
            subnet(3, "services", &["kuryr:c", "kuryr:base:services"]),
            subnet(4, "twice", &[]),
            subnet(5, "twice", &[]),
        ],
        groups: vec![group(11, "kuryr:base:ingress-open"), group(12, "kuryr:base:egress-open")],
    }
}

type Filters = Query<Vec<(String, String)>>;

/// Lists what all filters let through, as Neutron does.
fn filtered(all: &[Value], Query(filters): Filters) -> Vec<Value> {
    let fits = |object: &Value| {
        filters.iter().all(|(key, wanted)| match &**key {
            "tags" => {
                wanted.split(',').all(|tag| object["tags"].as_array().is_some_and(|tags| tags.contains(&tag.into())))
            }
            "id" | "name" => object[key] == **wanted,
            _ => true,
        })
    };
    all.iter().filter(|object| fits(object)).cloned().collect()
}

async fn find(neutron: Neutron, pod_subnets: &[&str]) -> Result<Topology, TopologyError> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let token = json!({"token": {
        "issued_at": "1970-01-01T00:00:00Z", "expires_at": "2970-01-01T00:00:00Z", "user": {"id": "u", "name": "kuryr"},
        "project": {"id": "p", "name": "k8s"}, "roles": [], "catalog": [{"type": "network", "endpoints": [
            {"interface": "public", "region": "one", "region_id": "one", "url": &url}]}],
    }});
    let login = async move || (StatusCode::CREATED, [("x-subject-token", "t")], Json(token));
    let app = Router::new()
        .route("/v3/auth/tokens", post(login))
        .route(
            "/v2.0/extensions",
            get(async |State(neutron): State<Arc<Neutron>>| {
                let all: Vec<Value> = neutron.extensions.iter().map(|alias| json!({"alias": alias})).collect();
                Json(json!({"extensions": all}))
            }),
        )
        .route(
            "/v2.0/subnets",
            get(async |State(neutron): State<Arc<Neutron>>, filters: Filters| {
                Json(json!({"subnets": filtered(&neutron.subnets, filters)}))
            }),
        )
        .route(
            "/v2.0/security-groups",
            get(async |State(neutron): State<Arc<Neutron>>, filters: Filters| {
                Json(json!({"security_groups": filtered(&neutron.groups, filters)}))
            }),
        )
        .route(
            "/v2.0/networks/{id}",
            get(async |Path(id): Path<String>| Json(json!({"network": {"id": id, "name": "pods", "mtu": 1442}}))),
        )
        .with_state(Arc::new(neutron));
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    let cloud = Cloud::connect(CloudConfig::password(&url, "kuryr", "secret", "k8s", "Default")).await.unwrap();
    let names: Vec<String> = pod_subnets.iter().map(ToString::to_string).collect();
    let found = Topology::find(&cloud, &"c".into(), &names).await;
    server.abort();
    found
}

/// The error, which must be one sentence with all these words.
async fn refused(neutron: Neutron, pod_subnets: &[&str], words: &[&str]) -> TopologyError {
    let error = find(neutron, pod_subnets).await.unwrap_err();
    let text = error.to_string();
    assert!(!text.contains('\n') && !text.ends_with('.'), "{text}");
    for word in words {
        assert!(text.contains(word), "no {word:?} in: {text}");
    }
    error
}

#[tokio::test]
async fn a_cloud_that_is_ready_has_its_pod_subnets_in_a_fixed_order() {
    let found = find(ready(), &[]).await.unwrap();
    assert_eq!(found.subnets.iter().map(|subnet| &*subnet.name).collect::<Vec<_>>(), ["pods-1", "pods-2"]);
    assert_eq!(found.open_groups.iter().map(ToString::to_string).collect::<Vec<_>>(), [id(11), id(12)]);
    assert_eq!((found.networks.len(), found.tells_room), (2, false));
    // Those that are named go in the order of their names.
    let found = find(ready(), &["pods-2", &id(1)]).await.unwrap();
    assert_eq!(found.subnets.iter().map(|subnet| &*subnet.name).collect::<Vec<_>>(), ["pods-2", "pods-1"]);
}

#[tokio::test]
async fn a_missing_extension_is_named_with_what_it_is_for_and_who_can_help() {
    for (alias, why) in REQUIRED_EXTENSIONS {
        let mut neutron = ready();
        neutron.extensions.retain(|there| *there != alias);
        let error = refused(neutron, &[], &[alias, why, "operator enable it", "[openstack] cloud"]).await;
        assert!(matches!(error, TopologyError::NoExtension { .. }));
    }
}

#[tokio::test]
async fn a_missing_group_is_named_by_its_tags_and_made_by_setup() {
    for missing in ["kuryr:base:ingress-open", "kuryr:base:egress-open"] {
        let mut neutron = ready();
        neutron.groups.retain(|group| group["name"] != missing);
        let error = refused(neutron, &[], &[missing, "kuryr:c", "run `kuryr setup`"]).await;
        assert!(matches!(error, TopologyError::NoGroup { .. }));
    }
}

#[tokio::test]
async fn no_subnet_names_the_setting_and_setup() {
    let mut neutron = ready();
    neutron.subnets.remove(0);
    neutron.subnets.remove(0);
    let words = ["[network] pod_subnets is empty", "kuryr:c", "run `kuryr setup`"];
    assert!(matches!(refused(neutron, &[], &words).await, TopologyError::NoSubnets(_)));
    let words = ["[network] pod_subnets names \"nowhere\"", "no such subnet", "`kuryr setup`"];
    assert!(matches!(refused(ready(), &["pods-1", "nowhere"], &words).await, TopologyError::NoSuchSubnet(_)));
}

#[tokio::test]
async fn a_name_of_two_subnets_asks_for_an_id() {
    let words = ["[network] pod_subnets names \"twice\"", "2 subnets of that name", "id of one"];
    assert!(matches!(refused(ready(), &["twice"], &words).await, TopologyError::AmbiguousSubnet(..)));
}

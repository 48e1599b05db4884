use serde_json::{Value, json};

use super::{Site, id, service};
use crate::cloud::{Config, LoadBalancingConfig};

async fn names(site: &Site, query: &str) -> String {
    let list = site.get(&format!("/loadbalancers{query}")).await["loadbalancers"].take();
    let name = |one: &Value| one["name"].as_str().unwrap().to_owned();
    list.as_array().unwrap().iter().map(name).collect::<Vec<_>>().join(" ")
}

async fn three() -> Site {
    let site = Site::new().await;
    site.balancer(json!({ "name": "one", "tags": ["x", "y"], "vip_address": "10.9.0.11" })).await;
    site.balancer(json!({ "name": "two", "tags": ["x"], "description": "d" })).await;
    site.balancer(
        json!({ "name": "three", "listeners": [service("TCP", 80, &["10.9.0.5"]), service("UDP", 53, &[])] }),
    )
    .await;
    site
}

#[tokio::test]
async fn lists_are_filtered_by_attributes_and_tags() {
    let site = three().await;
    for (query, wanted) in [
        ("", "one two three"),
        ("?name=two", "two"),
        ("?tags=x", "one two"),
        ("?tags=x,y", "one"),
        ("?tags=x&tags=y", "one"),
        ("?tags-any=y,z", "one"),
        ("?not-tags=x", "three"),
        ("?not-tags=x,y", "two three"),
        ("?not-tags-any=y", "two three"),
        ("?provisioning_status=ACTIVE&tags=x", "one two"),
        ("?provisioning_status=ERROR", ""),
        ("?admin_state_up=true", "one two three"),
        ("?vip_address=10.9.0.11", "one"),
        ("?provider=amphora", ""),
        ("?sort=name", "one three two"),
        ("?sort=name:desc", "two three one"),
        ("?sort_key=name&sort_dir=desc", "two three one"),
    ] {
        assert_eq!(names(&site, query).await, wanted, "{query}");
    }
    let wrong = [
        ("?bogus=1", "One or more arguments are either duplicate or invalid"),
        ("?name=one&name=two", "One or more arguments are either duplicate or invalid"),
        ("?sort=bogus", "Supplied sort key 'bogus' is not valid."),
        ("?marker=nope", "Supplied pagination marker 'nope' is not valid."),
    ];
    for (query, message) in wrong {
        assert_eq!(site.octavia.get(&format!("/v2/lbaas/loadbalancers{query}")).await.fault(), (400, message));
    }
}

#[tokio::test]
async fn children_are_found_by_their_load_balancer() {
    let site = three().await;
    let balancer = site.hooks().all()[2].id;
    for kind in ["listeners", "pools"] {
        let found = site.get(&format!("/{kind}?loadbalancer_id={balancer}&fields=name")).await[kind].take();
        assert_eq!(found, json!([{ "name": "TCP:80" }, { "name": "UDP:53" }]));
        let other = site.hooks().all()[0].id;
        assert_eq!(site.get(&format!("/{kind}?loadbalancer_id={other}")).await[kind], json!([]));
    }
    let pool = site.get("/pools?protocol=TCP").await["pools"][0].take();
    let members = site.get(&format!("/pools/{}/members?address=10.9.0.5&fields=address", id(&pool))).await;
    assert_eq!((&members["members"], &members["members_links"]), (&json!([{ "address": "10.9.0.5" }]), &json!([])));
}

#[tokio::test]
async fn pages_follow_each_other_by_marker_and_their_links_forget_the_filters() {
    let site = three().await;
    let first = site.get("/loadbalancers?limit=2&name=one&fields=id").await;
    assert_eq!(first["loadbalancers_links"], json!([]), "a page that is not full is the last");
    let first = site.get("/loadbalancers?limit=2&admin_state_up=true&fields=id").await;
    let last = first["loadbalancers"][1]["id"].as_str().unwrap();
    let next = first["loadbalancers_links"][0].clone();
    assert_eq!((&next["rel"], first["loadbalancers"].as_array().unwrap().len()), (&json!("next"), 2));
    assert!(
        next["href"]
            .as_str()
            .unwrap()
            .ends_with(&format!("/load-balancer/v2/lbaas/loadbalancers?limit=2&marker={last}"))
    );
    assert_eq!(names(&site, &format!("?limit=2&marker={last}")).await, "three");

    let config = Config { page_limit: Some(2), load_balancing: LoadBalancingConfig::default(), ..Config::default() };
    let world = crate::cloud::tests::World::with(config).await;
    let octavia = super::Client::log_in(&world.server.auth_url(), "admin", "secret", "admin", "load-balancer").await;
    let network = super::network(&world.neutron, "n").await;
    let subnet = super::subnet(&world.neutron, &network, "10.9.0.0/24").await;
    let limited = Site { world, octavia, network, subnet };
    for _ in 0..3 {
        limited.balancer(json!({})).await;
    }
    let page = limited.get("/loadbalancers?limit=9").await["loadbalancers"].take();
    assert_eq!(page.as_array().unwrap().len(), 2, "no page is longer than the service allows");
}

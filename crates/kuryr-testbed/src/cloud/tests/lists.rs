use serde_json::{Value, json};

use super::{World, network, port};
use crate::cloud::Config;

fn names(body: &Value) -> Vec<&str> {
    body["ports"].as_array().unwrap().iter().map(|port| port["name"].as_str().unwrap()).collect()
}

async fn world_with_ports(config: Config) -> (World, String) {
    let world = World::with(config).await;
    let net = network(&world.neutron, "n").await;
    for (name, tags) in [("a", json!(["red"])), ("b", json!(["red", "blue"])), ("c", json!(["blue"])), ("d", json!([]))]
    {
        port(&world.neutron, &net, json!({ "name": name, "tags": tags, "device_id": format!("vm-{name}") })).await;
    }
    (world, net)
}

#[tokio::test]
async fn filters_select_by_attribute_and_by_tag() {
    let (world, net) = world_with_ports(Config::default()).await;
    for (query, expected) in [
        ("tags=red", "ab"),
        ("tags=red,blue", "b"),
        ("tags-any=red,blue", "abc"),
        ("not-tags=red,blue", "acd"),
        ("not-tags-any=red,blue", "d"),
        ("tags=red&not-tags-any=blue", "a"),
        ("tags=nobody", ""),
        ("name=a&name=c", "ac"),
        ("name=a&tags=blue", ""),
        ("device_id=vm-b&device_id=vm-d", "bd"),
        ("admin_state_up=true", "abcd"),
        ("admin_state_up=False", ""),
        ("status=DOWN&name=d", "d"),
        ("mac_address=00:00:00:00:00:01", ""),
    ] {
        let path = format!("/v2.0/ports?{query}&network_id={net}&sort_key=name&sort_dir=asc");
        let body = world.neutron.get(&path).await.expect(200);
        assert_eq!(names(&body).concat(), expected, "{query}");
    }
    let both = world.neutron.get("/v2.0/ports?tags=red&tags-any=blue").await;
    assert_eq!(both.error(), (500, "HTTPInternalServerError"), "as Zed on MySQL");
    let reply = world.neutron.get("/v2.0/ports?colour=blue").await;
    assert_eq!(reply.error(), (400, "HTTPBadRequest"));
    assert_eq!(reply.message(), "['colour'] is invalid attribute for filtering");
    assert_eq!(world.neutron.get("/v2.0/ports?admin_state_up=maybe").await.error(), (400, "InvalidInput"));
}

#[tokio::test]
async fn only_the_fields_that_were_asked_for_come() {
    let (world, _) = world_with_ports(Config::default()).await;
    let body = world.neutron.get("/v2.0/ports?name=a&fields=name&fields=tags").await.expect(200);
    assert_eq!(body["ports"], json!([{ "name": "a", "tags": ["red"] }]));
}

#[tokio::test]
async fn pages_follow_their_links_in_both_directions() {
    let (world, _) = world_with_ports(Config::default()).await;
    let base = "/v2.0/ports?sort_key=name&sort_dir=desc&limit=3";
    let first = world.neutron.get(base).await.expect(200);
    assert_eq!(names(&first).concat(), "dcb");
    let link = |body: &Value, rel: &str| {
        let links = body["ports_links"].as_array().unwrap();
        let href = links.iter().find(|link| link["rel"] == rel)?["href"].as_str()?.to_owned();
        Some(href[href.find("/v2.0").unwrap()..].to_owned())
    };
    let second = world.neutron.get(&link(&first, "next").unwrap()).await.expect(200);
    assert_eq!(names(&second).concat(), "a");
    assert_eq!(link(&second, "next"), None, "a short page is the last");
    let back = world.neutron.get(&link(&second, "previous").unwrap()).await.expect(200);
    assert_eq!(names(&back).concat(), "dcb");
    let missing = format!("{base}&marker={}", uuid::Uuid::nil());
    assert_eq!(world.neutron.get(&missing).await.error(), (404, "PortNotFound"));
    assert_eq!(world.neutron.get("/v2.0/ports?limit=x").await.error(), (400, "BadRequest"));
}

#[tokio::test]
async fn the_cloud_limits_the_size_of_pages() {
    let (world, _) = world_with_ports(Config { page_limit: Some(3), ..Config::default() }).await;
    let body = world.neutron.get("/v2.0/ports?fields=name").await.expect(200);
    assert_eq!(body["ports"].as_array().unwrap().len(), 3);
    assert_eq!(body["ports_links"][0]["rel"], "next");
}

#[tokio::test]
async fn sort_keys_need_directions_and_must_exist() {
    let (world, _) = world_with_ports(Config::default()).await;
    assert_eq!(world.neutron.get("/v2.0/ports?sort_key=name").await.error(), (400, "HTTPBadRequest"));
    let unknown = world.neutron.get("/v2.0/ports?sort_key=colour&sort_dir=asc").await;
    assert_eq!(unknown.message(), "['colour'] is invalid attribute for sort_keys");
}

#[tokio::test]
async fn the_extensions_that_kuryr_probes_are_listed() {
    let world = World::new().await;
    let body = world.neutron.get("/v2.0/extensions?fields=alias").await.expect(200);
    let aliases: Vec<&str> =
        body["extensions"].as_array().unwrap().iter().map(|e| e["alias"].as_str().unwrap()).collect();
    for alias in ["tag-ports-during-bulk-creation", "standard-attr-tag", "revision-if-match", "trunk", "port-security"]
    {
        assert!(aliases.contains(&alias), "{alias}");
    }
    assert_eq!(world.neutron.get("/v2.0/extensions/nothing").await.error(), (404, "HTTPNotFound"));
}

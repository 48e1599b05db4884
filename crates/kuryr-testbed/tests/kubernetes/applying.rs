//! Server-side apply.

use kube::{
    ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::*;

fn applied(data: Value) -> Patch<Value> {
    Patch::Apply(json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" }, "data": data }))
}

#[tokio::test]
async fn applying_creates_merges_and_takes_back() {
    let (_server, client) = cluster();
    let maps = config_maps(&client);
    let (one, two) = (PatchParams::apply("one"), PatchParams::apply("two"));
    let first = maps.patch("a", &one, &applied(json!({ "x": "1", "y": "1" }))).await.unwrap();
    let again = maps.patch("a", &one, &applied(json!({ "x": "1", "y": "1" }))).await.unwrap();
    assert_eq!(first.resource_version(), again.resource_version(), "an idle apply changes nothing");
    let both = maps.patch("a", &two, &applied(json!({ "y": "1", "z": "2" }))).await.unwrap();
    assert_eq!(untyped(&both.data), json!({ "x": "1", "y": "1", "z": "2" }));
    let less = maps.patch("a", &one, &applied(json!({ "x": "1" }))).await.unwrap();
    assert_eq!(untyped(&less.data), json!({ "x": "1", "y": "1", "z": "2" }), "y is still owned by two");
    let less = maps.patch("a", &two, &applied(json!({ "z": "2" }))).await.unwrap();
    assert_eq!(untyped(&less.data), json!({ "x": "1", "z": "2" }));
    let managers: Vec<_> = less.managed_fields().iter().map(|line| line.manager.clone().unwrap()).collect();
    assert_eq!(managers, ["one", "two"]);
}

#[tokio::test]
async fn a_field_of_another_manager_conflicts_unless_forced() {
    let (_server, client) = cluster();
    let maps = config_maps(&client);
    let (one, two) = (PatchParams::apply("one"), PatchParams::apply("two"));
    maps.patch("a", &one, &applied(json!({ "x": "1" }))).await.unwrap();
    let conflict = refusal(maps.patch("a", &two, &applied(json!({ "x": "2" }))).await);
    assert_eq!((conflict.code, conflict.reason.as_str()), (409, "Conflict"));
    assert_eq!(conflict.message, "Apply failed with 1 conflict: conflict with \"one\" using v1: .data.x");
    assert_eq!(conflict.details.unwrap().causes[0].field, ".data.x");
    let forced = maps.patch("a", &two.clone().force(), &applied(json!({ "x": "2" }))).await.unwrap();
    assert_eq!(untyped(&forced.data), json!({ "x": "2" }));
    let lost = refusal(maps.patch("a", &one, &applied(json!({ "x": "1" }))).await);
    assert!(lost.message.contains("conflict with \"two\""), "{}", lost.message);
    // An update takes ownership without asking.
    let update = PatchParams { field_manager: Some("editor".into()), ..PatchParams::default() };
    maps.patch("a", &update, &Patch::Merge(json!({ "data": { "x": "3" } }))).await.unwrap();
    let lost = refusal(maps.patch("a", &two, &applied(json!({ "x": "2" }))).await);
    assert!(lost.message.contains("conflict with \"editor\""), "{}", lost.message);
}

#[tokio::test]
async fn applying_to_what_was_created_otherwise_conflicts_with_its_past() {
    let (_server, client) = cluster();
    let maps = config_maps(&client);
    create(&maps, &config_map("a", "x", "1")).await;
    let mine = PatchParams::apply("mine");
    let conflict = refusal(maps.patch("a", &mine, &applied(json!({ "x": "2" }))).await);
    assert!(conflict.message.contains("before-first-apply"), "{}", conflict.message);
    let same = maps.patch("a", &mine, &applied(json!({ "x": "1", "y": "2" }))).await.unwrap();
    assert_eq!(untyped(&same.data), json!({ "x": "1", "y": "2" }));
}

#[tokio::test]
async fn conditions_and_status_are_applied_by_their_managers() {
    let (_server, client) = cluster();
    let pods = pods(&client);
    create(&pods, &pod("a")).await;
    let condition = |kind: &str, status: &str| {
        Patch::Apply(json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "a" },
            "status": { "conditions": [{ "type": kind, "status": status }] } }))
    };
    pods.patch_status("a", &PatchParams::apply("one"), &condition("One", "True")).await.unwrap();
    let pod = pods.patch_status("a", &PatchParams::apply("two"), &condition("Two", "True")).await.unwrap();
    assert_eq!(pod.status.as_ref().unwrap().conditions.as_ref().unwrap().len(), 2);
    let clash = refusal(pods.patch_status("a", &PatchParams::apply("two"), &condition("One", "False")).await);
    assert_eq!(clash.details.unwrap().causes[0].field, ".status.conditions[type=\"One\"].status");
}

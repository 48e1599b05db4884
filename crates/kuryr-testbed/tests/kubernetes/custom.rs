//! Custom resources.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, ResourceExt as _,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    core::GroupVersionKind,
    runtime::wait::{await_condition, conditions},
};
use serde_json::json;

use super::*;

pub(crate) fn definition() -> CustomResourceDefinition {
    typed(json!({
        "metadata": { "name": "widgets.example.com" },
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": { "plural": "widgets", "kind": "Widget", "shortNames": ["wd"] },
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": { "openAPIV3Schema": { "type": "object", "required": ["spec"], "properties": {
                    "spec": { "type": "object", "required": ["nodeName"], "properties": {
                        "nodeName": { "type": "string" },
                        "mtu": { "type": "integer", "minimum": 68, "default": 1500 },
                    } },
                    "status": { "type": "object", "properties": { "phase": { "type": "string" } } },
                } } },
                "subresources": { "status": {} },
                "selectableFields": [{ "jsonPath": ".spec.nodeName" }],
                "additionalPrinterColumns": [
                    { "name": "Node", "type": "string", "jsonPath": ".spec.nodeName" },
                    { "name": "MTU", "type": "integer", "jsonPath": ".spec.mtu" },
                    { "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp" },
                ],
            }],
        },
    }))
}

pub(crate) async fn widgets(client: &Client) -> Api<DynamicObject> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    create(&definitions, &definition()).await;
    let established = await_condition(definitions, "widgets.example.com", conditions::is_crd_established());
    soon("the definition", established).await.unwrap();
    let kind = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("example.com", "v1", "Widget"), "widgets");
    Api::namespaced_with(client.clone(), "default", &kind)
}

fn widget(name: &str, spec: Value) -> DynamicObject {
    typed(
        json!({ "apiVersion": "example.com/v1", "kind": "Widget", "metadata": { "name": name }, "spec": spec, "status": { "phase": "x" } }),
    )
}

#[tokio::test]
async fn custom_resources_are_served_as_soon_as_they_are_defined() {
    let (_server, client) = cluster();
    let widgets = widgets(&client).await;
    let made = create(&widgets, &widget("a", json!({ "nodeName": "n1", "stray": 1 }))).await;
    assert_eq!(made.data["spec"], json!({ "nodeName": "n1", "mtu": 1500 }), "pruned, with defaults");
    assert!(made.data.get("status").is_none(), "a create brings no status");
    create(&widgets, &widget("b", json!({ "nodeName": "n2" }))).await;
    let list = widgets.list(&ListParams::default().fields("spec.nodeName=n2")).await.unwrap();
    assert_eq!(list.items.iter().map(kube::ResourceExt::name_any).collect::<Vec<_>>(), ["b"]);
    let refused = refusal(widgets.list(&ListParams::default().fields("spec.mtu=1500")).await);
    assert_eq!((refused.code, refused.message.as_str()), (400, "field label not supported: spec.mtu"));
}

#[tokio::test]
async fn what_does_not_fit_the_schema_is_refused_by_field() {
    let (_server, client) = cluster();
    let widgets = widgets(&client).await;
    let refused = refusal(widgets.create(&PostParams::default(), &widget("a", json!({ "mtu": 5 }))).await);
    assert_eq!((refused.code, refused.reason.as_str()), (422, "Invalid"));
    let causes = refused.details.unwrap().causes;
    assert_eq!(causes.iter().map(|c| c.field.as_str()).collect::<Vec<_>>(), ["spec.nodeName", "spec.mtu"]);
    assert!(refused.message.starts_with("Widget.example.com \"a\" is invalid"), "{}", refused.message);
}

#[tokio::test]
async fn a_custom_status_is_a_resource_of_its_own() {
    let (_server, client) = cluster();
    let widgets = widgets(&client).await;
    create(&widgets, &widget("a", json!({ "nodeName": "n1" }))).await;
    let both =
        json!({ "spec": { "nodeName": "n2" }, "status": { "phase": "Ready" }, "metadata": { "labels": { "x": "y" } } });
    let status = widgets.patch_status("a", &PatchParams::default(), &Patch::Merge(&both)).await.unwrap();
    assert_eq!(status.data["spec"]["nodeName"], "n1");
    assert_eq!(status.data["status"]["phase"], "Ready");
    assert!(status.labels().is_empty());
    assert_eq!(status.metadata.generation, Some(1));
    let main = widgets.patch("a", &PatchParams::default(), &Patch::Merge(&both)).await.unwrap();
    assert_eq!((main.metadata.generation, main.data["spec"]["nodeName"].as_str()), (Some(2), Some("n2")));
    let strategic = refusal(widgets.patch("a", &PatchParams::default(), &Patch::Strategic(&both)).await);
    assert_eq!(strategic.code, 415);
    let mut blind = main.clone();
    blind.metadata.resource_version = None;
    let unversioned = refusal(widgets.replace("a", &PostParams::default(), &blind).await);
    assert!(unversioned.message.contains("must be specified for an update"), "{}", unversioned.message);
    let applied = json!({ "apiVersion": "example.com/v1", "kind": "Widget", "status": { "phase": "Applied" } });
    let applied = widgets.patch_status("a", &PatchParams::apply("me").force(), &Patch::Apply(&applied)).await.unwrap();
    assert_eq!(applied.data["status"]["phase"], "Applied");
}

#[tokio::test]
async fn deleting_a_definition_deletes_its_objects() {
    let (_server, client) = cluster();
    let widgets = widgets(&client).await;
    create(&widgets, &widget("a", json!({ "nodeName": "n1" }))).await;
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let uid = definitions.get("widgets.example.com").await.unwrap().uid().unwrap();
    definitions.delete("widgets.example.com", &DeleteParams::default()).await.unwrap();
    let gone = await_condition(definitions.clone(), "widgets.example.com", conditions::is_deleted(&uid));
    soon("the end of the definition", gone).await.unwrap();
    assert_eq!(refusal(widgets.list(&ListParams::default()).await).code, 404);
}

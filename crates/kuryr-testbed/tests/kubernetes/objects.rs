//! Create, read, update, patch and delete.

use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Node, Pod, Service},
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::json;

use super::*;

#[tokio::test]
async fn a_created_object_has_identity_and_defaults() {
    let (_server, client) = cluster();
    let made = create(&pods(&client), &pod("a")).await;
    assert!(made.uid().is_some() && made.resource_version().is_some() && made.creation_timestamp().is_some());
    assert_eq!(made.metadata.generation, Some(1));
    let spec = made.spec.unwrap();
    assert_eq!(spec.restart_policy.as_deref(), Some("Always"));
    assert_eq!(spec.termination_grace_period_seconds, Some(30));
    assert_eq!(made.status.unwrap().phase.as_deref(), Some("Pending"));

    let generated: Pod = typed(
        json!({ "metadata": { "generateName": "web-" }, "spec": { "containers": [{ "name": "c", "image": "i" }] } }),
    );
    let generated = create(&pods(&client), &generated).await;
    assert!(generated.name_any().starts_with("web-") && generated.name_any().len() == 9, "{}", generated.name_any());
}

#[tokio::test]
async fn refusals_say_reason_and_details() {
    let (_server, client) = cluster();
    let pods = pods(&client);
    create(&pods, &pod("a")).await;

    let twice = refusal(pods.create(&PostParams::default(), &pod("a")).await);
    assert_eq!(
        (twice.code, twice.reason.as_str(), twice.message.as_str()),
        (409, "AlreadyExists", "pods \"a\" already exists")
    );
    let absent = refusal(pods.get("b").await);
    assert_eq!(
        (absent.code, absent.reason.as_str(), absent.message.as_str()),
        (404, "NotFound", "pods \"b\" not found")
    );
    assert_eq!(absent.details.unwrap().kind, "pods");

    let empty: Pod = typed(json!({ "metadata": { "name": "Bad_Name" }, "spec": { "containers": [] } }));
    let invalid = refusal(pods.create(&PostParams::default(), &empty).await);
    assert_eq!((invalid.code, invalid.reason.as_str()), (422, "Invalid"));
    let fields: Vec<_> = invalid.details.unwrap().causes.into_iter().map(|cause| cause.field).collect();
    assert_eq!(fields, ["metadata.name", "spec.containers"]);

    let elsewhere: Api<Pod> = Api::namespaced(client.clone(), "nowhere");
    let homeless = refusal(elsewhere.create(&PostParams::default(), &pod("a")).await);
    assert_eq!(homeless.message, "namespaces \"nowhere\" not found");
    let unknown = refusal(pods.list(&ListParams::default().fields("spec.color=red")).await);
    assert_eq!((unknown.code, unknown.message.as_str()), (400, "field label not supported: spec.color"));
}

#[tokio::test]
async fn a_stale_update_conflicts_and_an_idle_one_changes_nothing() {
    let (_server, client) = cluster();
    let maps = config_maps(&client);
    let first = create(&maps, &config_map("a", "k", "1")).await;
    let mut second = first.clone();
    second.data.as_mut().unwrap().insert("k".into(), "2".into());
    let second = maps.replace("a", &PostParams::default(), &second).await.unwrap();
    assert_ne!(first.resource_version(), second.resource_version());

    let stale = refusal(maps.replace("a", &PostParams::default(), &first).await);
    assert_eq!((stale.code, stale.reason.as_str()), (409, "Conflict"));
    assert!(stale.message.contains("the object has been modified"), "{}", stale.message);
    let same = maps.replace("a", &PostParams::default(), &second).await.unwrap();
    assert_eq!(same.resource_version(), second.resource_version());
    let same = maps.patch("a", &PatchParams::default(), &Patch::Merge(json!({ "data": { "k": "2" } }))).await.unwrap();
    assert_eq!(same.resource_version(), second.resource_version());
}

#[tokio::test]
async fn status_and_specification_are_written_apart() {
    let (_server, client) = cluster();
    let pods = pods(&client);
    create(&pods, &pod("a")).await;
    let both = json!({ "spec": { "activeDeadlineSeconds": 5 }, "status": { "phase": "Running" } });
    let main = pods.patch("a", &PatchParams::default(), &Patch::Merge(&both)).await.unwrap();
    assert_eq!(main.spec.as_ref().unwrap().active_deadline_seconds, Some(5));
    assert_eq!(main.status.as_ref().unwrap().phase.as_deref(), Some("Pending"));
    assert_eq!(main.metadata.generation, Some(2));
    let both = json!({ "spec": { "activeDeadlineSeconds": 9 }, "status": { "phase": "Running" } });
    let status = pods.patch_status("a", &PatchParams::default(), &Patch::Merge(&both)).await.unwrap();
    assert_eq!(status.spec.as_ref().unwrap().active_deadline_seconds, Some(5));
    assert_eq!(status.status.as_ref().unwrap().phase.as_deref(), Some("Running"));
    assert_eq!(status.metadata.generation, Some(2));
    let moved = json!({ "spec": { "nodeName": "elsewhere" } });
    let refused = refusal(pods.patch("a", &PatchParams::default(), &Patch::Merge(&moved)).await);
    assert_eq!(refused.code, 422);
}

#[tokio::test]
async fn every_patch_type_works() {
    let (_server, client) = cluster();
    let maps = config_maps(&client);
    create(&maps, &config_map("a", "k", "1")).await;
    let parameters = PatchParams::default();
    let operations: json_patch::Patch = typed(json!([
        { "op": "test", "path": "/data/k", "value": "1" }, { "op": "add", "path": "/data/l", "value": "2" } ]));
    let map = maps.patch("a", &parameters, &Patch::Json::<()>(operations.clone())).await.unwrap();
    assert_eq!(untyped(&map.data), json!({ "k": "1", "l": "2" }));
    let wrong: json_patch::Patch = typed(json!([{ "op": "test", "path": "/data/k", "value": "9" }]));
    assert_eq!(refusal(maps.patch("a", &parameters, &Patch::Json::<()>(wrong)).await).code, 422);
    let map = maps.patch("a", &parameters, &Patch::Strategic(json!({ "data": { "k": null } }))).await.unwrap();
    assert_eq!(untyped(&map.data), json!({ "l": "2" }));
}

#[tokio::test]
async fn a_delete_can_name_what_it_means() {
    let (_server, client) = cluster();
    let maps = config_maps(&client);
    let made = create(&maps, &config_map("a", "k", "1")).await;
    let other = Preconditions { uid: Some("other".into()), resource_version: None };
    let wrong = DeleteParams { preconditions: Some(other), ..DeleteParams::default() };
    assert_eq!(refusal(maps.delete("a", &wrong).await.map(|_| ())).code, 409);
    let right = Preconditions { uid: made.uid(), resource_version: made.resource_version() };
    let right = DeleteParams { preconditions: Some(right), ..DeleteParams::default() };
    let status = maps.delete("a", &right).await.unwrap().right().expect("a Status");
    assert_eq!(status.details.unwrap().uid, made.uid().unwrap());
    assert_eq!(refusal(maps.get("a").await).code, 404);
}

#[tokio::test]
async fn finalizers_hold_an_object_until_the_last_goes() {
    let (_server, client) = cluster();
    let maps = config_maps(&client);
    let mut held = config_map("a", "k", "1");
    held.metadata.finalizers = Some(vec!["kuryr.openstack.org/test".into()]);
    create(&maps, &held).await;
    let pending = maps.delete("a", &DeleteParams::default()).await.unwrap().left().expect("the object");
    assert!(pending.metadata.deletion_timestamp.is_some());
    let more = json!({ "metadata": { "finalizers": ["kuryr.openstack.org/test", "kuryr.openstack.org/more"] } });
    let refused = refusal(maps.patch("a", &PatchParams::default(), &Patch::Merge(more)).await);
    assert!(refused.message.contains("no new finalizers can be added"), "{}", refused.message);
    let none = json!({ "metadata": { "finalizers": null } });
    maps.patch("a", &PatchParams::default(), &Patch::Merge(none)).await.unwrap();
    assert_eq!(refusal(maps.get("a").await).code, 404);
}

#[tokio::test]
async fn a_bound_pod_is_deleted_gracefully_and_by_force() {
    let (_server, client) = cluster();
    let pods = pods(&client);
    let mut bound = pod("a");
    bound.spec.as_mut().unwrap().node_name = Some("n".into());
    create(&pods, &bound).await;
    let pending = pods.delete("a", &DeleteParams::default()).await.unwrap().left().unwrap();
    assert_eq!(pending.metadata.deletion_grace_period_seconds, Some(30));
    let longer = pods.delete("a", &DeleteParams::default().grace_period(60)).await.unwrap().left().unwrap();
    assert_eq!(longer.resource_version(), pending.resource_version());
    let shorter = pods.delete("a", &DeleteParams::default().grace_period(1)).await.unwrap().left().unwrap();
    assert_eq!(shorter.metadata.deletion_grace_period_seconds, Some(1));
    assert!(shorter.metadata.deletion_timestamp < pending.metadata.deletion_timestamp);
    pods.delete("a", &DeleteParams::default().grace_period(0)).await.unwrap();
    assert_eq!(refusal(pods.get("a").await).code, 404);

    create(&pods, &pod("unbound")).await;
    pods.delete("unbound", &DeleteParams::default()).await.unwrap();
    assert_eq!(refusal(pods.get("unbound").await).code, 404);
}

#[tokio::test]
async fn lists_come_in_pages_of_one_moment() {
    let (_server, client) = cluster();
    let maps = config_maps(&client);
    for index in 0..7 {
        create(&maps, &config_map(&format!("m{index}"), "k", "1")).await;
    }
    let first = maps.list(&ListParams::default().limit(3)).await.unwrap();
    assert_eq!(first.metadata.remaining_item_count, Some(4));
    maps.delete("m5", &DeleteParams::default()).await.unwrap();
    create(&maps, &config_map("m4x", "k", "1")).await;
    let token = first.metadata.continue_.clone().unwrap();
    let rest = maps.list(&ListParams::default().limit(10).continue_token(&token)).await.unwrap();
    let names: Vec<_> = rest.items.iter().map(kube::ResourceExt::name_any).collect();
    assert_eq!(names, ["m3", "m4", "m5", "m6"]);
    assert_eq!(rest.metadata.resource_version, first.metadata.resource_version);
}

#[tokio::test]
async fn selectors_narrow_lists() {
    let (_server, client) = cluster();
    let pods = pods(&client);
    for name in ["a", "b", "c"] {
        let mut pod = pod(name);
        pod.spec.as_mut().unwrap().node_name = (name != "c").then(|| "n1".into());
        create(&pods, &pod).await;
    }
    let names = async |parameters: ListParams| {
        let list = pods.list(&parameters).await.unwrap();
        list.items.iter().map(kube::ResourceExt::name_any).collect::<Vec<_>>()
    };
    assert_eq!(names(ListParams::default().fields("spec.nodeName=n1")).await, ["a", "b"]);
    assert_eq!(names(ListParams::default().fields("spec.nodeName=")).await, ["c"]);
    assert_eq!(names(ListParams::default().labels("app in (a,c)")).await, ["a", "c"]);
    assert_eq!(
        names(ListParams::default().labels("app!=a").fields("status.phase=Pending,metadata.name!=b")).await,
        ["c"]
    );
    let metadata = pods.list_metadata(&ListParams::default().labels("app=a")).await.unwrap();
    assert_eq!(metadata.items[0].metadata.name.as_deref(), Some("a"));
}

#[tokio::test]
async fn binding_gives_a_pod_its_node_once() {
    let (_server, client) = cluster();
    let pods = pods(&client);
    create(&pods, &pod("a")).await;
    let binding = json!({ "apiVersion": "v1", "kind": "Binding", "metadata": { "name": "a" }, "target": { "kind": "Node", "name": "n" } });
    let parameters = PostParams::default();
    pods.create_subresource::<_, Value>("binding", "a", &parameters, &binding).await.unwrap();
    assert_eq!(pods.get("a").await.unwrap().spec.unwrap().node_name.as_deref(), Some("n"));
    let again = refusal(pods.create_subresource::<_, Value>("binding", "a", &parameters, &binding).await);
    assert!(again.message.contains("already assigned to node \"n\""), "{}", again.message);
}

#[tokio::test]
async fn leases_are_renewed_and_contested() {
    let (_server, client) = cluster();
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-system");
    let lease = json!({ "metadata": { "name": "kuryr" }, "spec": { "holderIdentity": "a", "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.000000Z" } });
    let lease: Lease = create(&leases, &typed(lease)).await;
    let mut mine = lease.clone();
    mine.spec.as_mut().unwrap().holder_identity = Some("b".into());
    leases.replace("kuryr", &PostParams::default(), &mine).await.unwrap();
    let mut late = lease;
    late.spec.as_mut().unwrap().holder_identity = Some("c".into());
    assert_eq!(refusal(leases.replace("kuryr", &PostParams::default(), &late).await).code, 409);
}

#[tokio::test]
async fn services_get_addresses_and_nodes_keep_their_status() {
    let (_server, client) = cluster();
    let services: Api<Service> = Api::namespaced(client.clone(), "default");
    let service = |name: &str| {
        typed::<Service>(
            json!({ "metadata": { "name": name }, "spec": { "type": "NodePort", "ports": [{ "port": 80 }] } }),
        )
    };
    let first = create(&services, &service("a")).await.spec.unwrap();
    let second = create(&services, &service("b")).await.spec.unwrap();
    assert!(first.cluster_ip.as_deref().unwrap().starts_with("10.96."));
    assert_ne!(first.cluster_ip, second.cluster_ip);
    assert_ne!(first.ports.unwrap()[0].node_port, second.ports.unwrap()[0].node_port);
    let nodes: Api<Node> = Api::all(client);
    let node =
        json!({ "metadata": { "name": "n" }, "status": { "conditions": [{ "type": "Ready", "status": "True" }] } });
    assert!(create(&nodes, &typed(node)).await.status.unwrap().conditions.is_some());
}

#[tokio::test]
async fn a_dry_run_answers_and_changes_nothing() {
    let (_server, client) = cluster();
    let maps = config_maps(&client);
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    assert!(maps.create(&dry, &config_map("a", "k", "1")).await.unwrap().uid().is_some());
    assert_eq!(refusal(maps.get("a").await).code, 404);
}

#[tokio::test]
async fn events_are_recorded_counted_and_selected() {
    use k8s_openapi::api::core::v1::Event as CoreEvent;
    use kube::{
        Resource as _,
        runtime::events::{Event, EventType, Recorder, Reporter},
    };
    let (_server, client) = cluster();
    let made = create(&pods(&client), &pod("a")).await;
    let recorder = Recorder::new(client.clone(), Reporter { controller: "kuryr".into(), instance: None });
    let event = Event {
        type_: EventType::Warning,
        reason: "NoAddress".into(),
        note: Some("subnet pods-a has no free address".into()),
        action: "Allocate".into(),
        secondary: None,
    };
    for _ in 0..3 {
        recorder.publish(&event, &made.object_ref(&())).await.unwrap();
    }
    let events: Api<CoreEvent> = Api::namespaced(client.clone(), "default");
    let about = format!("involvedObject.name=a,involvedObject.uid={}", made.uid().unwrap());
    let list = events.list(&ListParams::default().fields(&about)).await.unwrap();
    assert_eq!(list.items.len(), 1, "repeated events are one");
    let event = &list.items[0];
    assert_eq!(event.message.as_deref(), Some("subnet pods-a has no free address"));
    assert_eq!(event.series.as_ref().unwrap().count, Some(3));
}

#[tokio::test]
async fn an_eviction_is_a_graceful_delete() {
    let (_server, client) = cluster();
    let pods = pods(&client);
    let mut bound = pod("a");
    bound.spec.as_mut().unwrap().node_name = Some("n".into());
    create(&pods, &bound).await;
    pods.evict("a", &kube::api::EvictParams::default()).await.unwrap();
    assert!(pods.get("a").await.unwrap().metadata.deletion_timestamp.is_some());
}

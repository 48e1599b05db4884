//! Owners and dependents, namespaces.

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{DeleteParams, PropagationPolicy},
    runtime::wait::{await_condition, conditions::is_deleted},
};
use serde_json::json;

use super::*;

fn owned(name: &str, owners: &[&ConfigMap]) -> ConfigMap {
    let mut map = config_map(name, "k", "1");
    map.metadata.owner_references = Some(owners.iter().map(|owner| owner.owner_ref(&()).unwrap()).collect());
    map
}

async fn gone(maps: &Api<ConfigMap>, map: &ConfigMap) {
    let uid = map.uid().unwrap();
    soon("the deletion", await_condition(maps.clone(), &map.name_any(), is_deleted(&uid))).await.unwrap();
}

#[tokio::test]
async fn dependents_go_when_their_last_owner_does() {
    let (_server, client) = cluster();
    let maps = config_maps(&client);
    let (a, b) = (create(&maps, &config_map("a", "k", "1")).await, create(&maps, &config_map("b", "k", "1")).await);
    let one = create(&maps, &owned("one", &[&a])).await;
    let both = create(&maps, &owned("both", &[&a, &b])).await;
    let grandchild = create(&maps, &owned("grandchild", &[&one])).await;
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    gone(&maps, &one).await;
    gone(&maps, &grandchild).await;
    let left = maps.get("both").await.unwrap();
    assert!(left.metadata.deletion_timestamp.is_none());
    maps.delete("b", &DeleteParams::default()).await.unwrap();
    gone(&maps, &both).await;
}

#[tokio::test]
async fn an_owner_of_the_same_name_with_another_uid_is_none() {
    let (_server, client) = cluster();
    let maps = config_maps(&client);
    let old = create(&maps, &config_map("a", "k", "1")).await;
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    create(&maps, &config_map("a", "k", "1")).await;
    let orphan = create(&maps, &owned("orphan", &[&old])).await;
    gone(&maps, &orphan).await;
}

#[tokio::test]
async fn foreground_waits_and_orphan_releases() {
    let (_server, client) = cluster();
    let maps = config_maps(&client);
    let owner = create(&maps, &config_map("owner", "k", "1")).await;
    let mut held = owned("held", &[&owner]);
    held.metadata.owner_references.as_mut().unwrap()[0].block_owner_deletion = Some(true);
    held.metadata.finalizers = Some(vec!["kuryr.openstack.org/test".into()]);
    let held = create(&maps, &held).await;
    let policy = |policy| DeleteParams { propagation_policy: Some(policy), ..DeleteParams::default() };
    maps.delete("owner", &policy(PropagationPolicy::Foreground)).await.unwrap();
    let deleting = |map: Option<&ConfigMap>| map.is_some_and(|map| map.metadata.deletion_timestamp.is_some());
    soon("the delete of the dependent", await_condition(maps.clone(), "held", deleting)).await.unwrap();
    assert!(maps.get("owner").await.is_ok(), "the owner waits");
    let released = kube::api::Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    maps.patch("held", &kube::api::PatchParams::default(), &released).await.unwrap();
    gone(&maps, &held).await;
    gone(&maps, &owner).await;

    let owner = create(&maps, &config_map("owner", "k", "1")).await;
    create(&maps, &owned("kept", &[&owner])).await;
    maps.delete("owner", &policy(PropagationPolicy::Orphan)).await.unwrap();
    gone(&maps, &owner).await;
    assert!(maps.get("kept").await.unwrap().owner_references().is_empty());
}

#[tokio::test]
async fn a_namespace_empties_itself_and_takes_nothing_new() {
    let (_server, client) = cluster();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let space = create(&namespaces, &typed(json!({ "metadata": { "name": "team" } }))).await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "team");
    let mut bound = pod("bound");
    bound.spec.as_mut().unwrap().node_name = Some("n".into());
    create(&pods, &bound).await;
    create(&pods, &pod("unbound")).await;
    namespaces.delete("team", &DeleteParams::default()).await.unwrap();
    let deleting = |pod: Option<&Pod>| pod.is_some_and(|pod| pod.metadata.deletion_timestamp.is_some());
    soon("the pod's deletion", await_condition(pods.clone(), "bound", deleting)).await.unwrap();
    let refused = refusal(pods.create(&PostParams::default(), &pod("late")).await);
    assert_eq!((refused.code, refused.details.unwrap().causes[0].reason.as_str()), (403, "NamespaceTerminating"));
    let phase = namespaces.get("team").await.unwrap().status.unwrap().phase;
    assert_eq!(phase.as_deref(), Some("Terminating"));
    // The kubelet's last word.
    pods.delete("bound", &DeleteParams::default().grace_period(0)).await.unwrap();
    let uid = space.uid().unwrap();
    soon("the namespace's end", await_condition(namespaces, "team", is_deleted(&uid))).await.unwrap();
}

#[tokio::test]
async fn pods_do_not_outlive_their_node() {
    use k8s_openapi::api::core::v1::Node;
    use kuryr_testbed::kubernetes::ApiServerConfig;
    let config = ApiServerConfig { orphaned_pods_after: Duration::from_millis(10), ..ApiServerConfig::default() };
    let client = ApiServer::with_config(config).client("test");
    let nodes: Api<Node> = Api::all(client.clone());
    create(&nodes, &typed(json!({ "metadata": { "name": "n" } }))).await;
    let mut bound = pod("bound");
    bound.spec.as_mut().unwrap().node_name = Some("n".into());
    let bound = create(&pods(&client), &bound).await;
    create(&pods(&client), &pod("unbound")).await;
    nodes.delete("n", &DeleteParams::default()).await.unwrap();
    let uid = bound.uid().unwrap();
    soon("the pod's end", await_condition(pods(&client), "bound", is_deleted(&uid))).await.unwrap();
    assert!(pods(&client).get("unbound").await.is_ok());
}

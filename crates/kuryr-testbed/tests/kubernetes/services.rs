//! Services: their addresses, their node ports, what a change of type keeps and lets go, and who is behind them.

use k8s_openapi::api::{
    core::v1::{Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use kuryr_testbed::kubernetes::{ApiServerConfig, Endpoints};

use super::*;

fn services(client: &Client) -> Api<Service> {
    Api::namespaced(client.clone(), "default")
}

fn service(name: &str, spec: Value) -> Service {
    let mut spec = spec;
    if spec.get("ports").is_none() {
        spec["ports"] = json!([{ "port": 80 }]);
    }
    typed(json!({ "metadata": { "name": name }, "spec": spec }))
}

async fn change(client: &Client, name: &str, patch: Value) -> Result<Service, kube::Error> {
    services(client).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await
}

fn addresses(service: &Service) -> Vec<String> {
    service.spec.as_ref().unwrap().cluster_ips.clone().unwrap_or_default()
}

fn node_ports(service: &Service) -> Vec<i32> {
    service.spec.iter().flat_map(|spec| spec.ports.iter().flatten()).filter_map(|port| port.node_port).collect()
}

#[tokio::test]
async fn families_follow_the_policy() {
    let (_server, client) = cluster();
    let api = services(&client);
    let single = create(&api, &service("single", json!({}))).await;
    assert_eq!(addresses(&single).len(), 1);
    let dual = create(&api, &service("dual", json!({ "ipFamilyPolicy": "PreferDualStack" }))).await;
    assert!(addresses(&dual)[0].starts_with("10.96.") && addresses(&dual)[1].starts_with("fd00:10:96::"));
    let v6 = create(&api, &service("v6", json!({ "ipFamilies": ["IPv6"] }))).await;
    assert!(addresses(&v6)[0].contains(':') && addresses(&v6).len() == 1);
    let headless = create(&api, &service("headless", json!({ "clusterIP": "None", "selector": { "a": "b" } }))).await;
    assert_eq!(addresses(&headless), ["None"]);
    let external = json!({ "type": "ExternalName", "externalName": "example.org" });
    assert!(addresses(&create(&api, &service("external", external)).await).is_empty());

    let more = change(&client, "single", json!({ "spec": { "ipFamilyPolicy": "RequireDualStack" } })).await.unwrap();
    assert_eq!((addresses(&more)[0].clone(), addresses(&more).len()), (addresses(&single)[0].clone(), 2));
    let fewer = change(&client, "single", json!({ "spec": { "ipFamilyPolicy": "SingleStack" } })).await.unwrap();
    assert_eq!(addresses(&fewer), addresses(&single));
}

#[tokio::test]
async fn a_single_stack_cluster_refuses_two_families() {
    let service_cidrs = vec!["10.96.0.0/16".parse().unwrap()];
    let server = ApiServer::with_config(ApiServerConfig { service_cidrs, ..ApiServerConfig::default() });
    let client = server.client("test");
    let api = services(&client);
    let wanted = service("a", json!({ "ipFamilyPolicy": "RequireDualStack" }));
    let refused = refusal(api.create(&PostParams::default(), &wanted).await);
    assert!(refused.message.contains("not configured for dual-stack"), "{}", refused.message);
    let preferred = create(&api, &service("a", json!({ "ipFamilyPolicy": "PreferDualStack" }))).await;
    assert_eq!(addresses(&preferred).len(), 1);
}

#[tokio::test]
async fn an_address_is_given_once_and_never_changes() {
    let (_server, client) = cluster();
    let api = services(&client);
    let own = api.get("kubernetes").await.unwrap();
    assert_eq!(addresses(&own), ["10.96.0.1"]);
    let first = create(&api, &service("first", json!({ "clusterIP": "10.96.7.7" }))).await;
    let again = refusal(api.create(&PostParams::default(), &service("b", json!({ "clusterIP": "10.96.7.7" }))).await);
    assert!(again.message.contains("already allocated"), "{}", again.message);
    let outside = refusal(api.create(&PostParams::default(), &service("b", json!({ "clusterIP": "10.1.1.1" }))).await);
    assert!(outside.message.contains("not in the valid range"), "{}", outside.message);
    let moved = refusal(
        change(&client, "first", json!({ "spec": { "clusterIP": "10.96.7.8", "clusterIPs": ["10.96.7.8"] } })).await,
    );
    assert!(moved.message.contains("may not change once set"), "{}", moved.message);
    // A replacement that does not speak of the address keeps it.
    let mut silent = service("first", json!({}));
    silent.metadata.resource_version = first.metadata.resource_version.clone();
    let replaced = api.replace("first", &PostParams::default(), &silent).await.unwrap();
    assert_eq!(addresses(&replaced), ["10.96.7.7"]);
    api.delete("first", &DeleteParams::default()).await.unwrap();
    create(&api, &service("b", json!({ "clusterIP": "10.96.7.7" }))).await;
}

#[tokio::test]
async fn a_change_of_type_keeps_what_both_have() {
    let (_server, client) = cluster();
    let api = services(&client);
    let ports = json!([{ "name": "t", "port": 53, "protocol": "TCP" }, { "name": "u", "port": 53, "protocol": "UDP" }]);
    let inner = create(&api, &service("a", json!({ "ports": ports }))).await;
    let to = |kind: &str| json!({ "spec": { "type": kind } });
    let node = change(&client, "a", to("NodePort")).await.unwrap();
    assert!(node_ports(&node).len() == 2 && node_ports(&node)[0] == node_ports(&node)[1], "{:?}", node_ports(&node));
    let outer = change(&client, "a", to("LoadBalancer")).await.unwrap();
    assert_eq!((node_ports(&outer), addresses(&outer)), (node_ports(&node), addresses(&inner)));
    let ingress = json!({ "status": { "loadBalancer": { "ingress": [{ "ip": "203.0.113.5" }] } } });
    api.patch_status("a", &PatchParams::default(), &Patch::Merge(&ingress)).await.unwrap();
    let back = change(&client, "a", to("ClusterIP")).await.unwrap();
    assert!(node_ports(&back).is_empty() && addresses(&back) == addresses(&inner));
    assert!(back.spec.unwrap().external_traffic_policy.is_none());
    assert!(back.status.unwrap().load_balancer.unwrap().ingress.is_none());
    let refused = refusal(api.patch_status("a", &PatchParams::default(), &Patch::Merge(&ingress)).await);
    assert_eq!(refused.code, 422);
    let named = json!({ "spec": { "type": "ExternalName", "externalName": "example.org" } });
    assert!(addresses(&change(&client, "a", named).await.unwrap()).is_empty());
    let again = change(&client, "a", json!({ "spec": { "type": "ClusterIP", "externalName": null } })).await.unwrap();
    assert_eq!(addresses(&again).len(), 1);
}

#[tokio::test]
async fn a_load_balancer_may_go_without_node_ports() {
    let (_server, client) = cluster();
    let spec =
        json!({ "type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "externalTrafficPolicy": "Local" });
    let made = create(&services(&client), &service("a", spec)).await;
    assert!(node_ports(&made).is_empty());
    assert!(made.spec.unwrap().health_check_node_port.is_some());
}

/// What a Service's slices say: addresses that are ready, and how many slices there are.
async fn behind(client: &Client, name: &str) -> (Vec<String>, usize) {
    let api: Api<EndpointSlice> = Api::namespaced(client.clone(), "default");
    let of = ListParams::default().labels(&format!("kubernetes.io/service-name={name}"));
    let slices = api.list(&of).await.unwrap().items;
    let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
    let ready = endpoints.filter(|e| e.conditions.as_ref().is_some_and(|conditions| conditions.ready == Some(true)));
    let mut addresses: Vec<String> = ready.flat_map(|endpoint| endpoint.addresses.clone()).collect();
    addresses.sort();
    (addresses, slices.len())
}

async fn until_behind(client: &Client, name: &str, wanted: &[&str]) {
    let what = format!("{wanted:?} behind {name}");
    soon(&what, async {
        while behind(client, name).await.0 != wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

async fn set_status(client: &Client, name: &str, ip: &str, ready: &str) {
    let status = json!({ "status": { "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }],
        "conditions": [{ "type": "Ready", "status": ready }] } });
    pods(client).patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}

#[tokio::test]
async fn pods_that_are_ready_are_behind_their_service() {
    let (server, client) = cluster();
    let _endpoints = Endpoints::start(server.client("endpoints"));
    create(&services(&client), &service("web", json!({ "selector": { "app": "a" } }))).await;
    create(&services(&client), &service("by-hand", json!({}))).await;
    create(&pods(&client), &pod("a")).await;
    create(&pods(&client), &pod("b")).await;
    set_status(&client, "a", "10.0.0.1", "True").await;
    set_status(&client, "b", "10.0.0.2", "True").await;
    until_behind(&client, "web", &["10.0.0.1"]).await;
    let label = json!({ "metadata": { "labels": { "app": "a" } } });
    pods(&client).patch("b", &PatchParams::default(), &Patch::Merge(label)).await.unwrap();
    until_behind(&client, "web", &["10.0.0.1", "10.0.0.2"]).await;
    set_status(&client, "a", "10.0.0.1", "False").await;
    until_behind(&client, "web", &["10.0.0.2"]).await;
    pods(&client).delete("b", &DeleteParams::default()).await.unwrap();
    until_behind(&client, "web", &[]).await;
    assert_eq!(behind(&client, "web").await.1, 1);
    assert_eq!(behind(&client, "by-hand").await.1, 0);
    services(&client).delete("web", &DeleteParams::default()).await.unwrap();
    soon("slices go with their Service", async {
        while behind(&client, "web").await.1 > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_service_recreated_at_once_gets_slices_of_its_own() {
    let (server, client) = cluster();
    let _endpoints = Endpoints::start(server.client("endpoints"));
    let web = service("web", json!({ "selector": { "app": "a" } }));
    create(&services(&client), &web).await;
    let made: Pod = create(&pods(&client), &pod("a")).await;
    set_status(&client, &made.name_any(), "10.0.0.1", "True").await;
    until_behind(&client, "web", &["10.0.0.1"]).await;
    services(&client).delete("web", &DeleteParams::default()).await.unwrap();
    let again = create(&services(&client), &web).await;
    let api: Api<EndpointSlice> = Api::namespaced(client.clone(), "default");
    soon("a slice of the new Service, and only that", async {
        loop {
            let slices = api.list(&ListParams::default().labels("kubernetes.io/service-name=web")).await.unwrap().items;
            let owner = |slice: &EndpointSlice| slice.owner_references()[0].uid.clone();
            if slices.len() == 1 && Some(owner(&slices[0])) == again.uid() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

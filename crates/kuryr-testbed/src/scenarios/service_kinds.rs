//! What a Service may be, and how it comes and goes.

use super::{
    connectivity::WITHIN,
    services::{SOON, all_answer, all_answer_outside, client, names},
};
use crate::{
    dataplane::probe,
    world::{NewPod, World, cluster_ip, node_port, services::SERVED},
};
use anyhow::{Context, ensure};
use http::Method;
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::{
    Api, ResourceExt,
    api::DeleteParams,
    runtime::wait::{await_condition, conditions},
};
use serde_json::json;
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use tokio::time::timeout;

pub(super) async fn a_floating_ip_leads_to_a_service(world: &mut World) -> anyhow::Result<()> {
    let services = world.services();
    let (backends, service) =
        tokio::try_join!(world.backends("web", 0..2), services.create("web", json!({"type": "LoadBalancer"})))?;
    services.ready("web", 2).await?;
    let outside = services.ingress("web").await?;
    ensure!(outside != cluster_ip(&service)?, "the ingress is the cluster IP");
    all_answer_outside(world, outside, &names(&backends)).await
}

pub(super) async fn a_service_changes_its_type_in_place(world: &mut World) -> anyhow::Result<()> {
    let services = world.services();
    let (backends, service, from) =
        tokio::try_join!(world.backends("web", 0..2), services.create("web", json!({})), client(world))?;
    let held = services.ready("web", 2).await?;
    let ids = |held: &kuryr_model::KuryrLoadBalancer| -> Vec<_> {
        held.status.iter().flat_map(|status| &status.load_balancers).map(|there| there.id).collect()
    };
    let before = ids(&held);
    let target = SocketAddr::new(cluster_ip(&service)?, 80);
    all_answer(&from, target, &names(&backends)).await?;
    let mut session = probe::connect(&from, target, WITHIN).await?;

    services.change("web", json!({"spec": {"type": "LoadBalancer"}})).await?;
    let outside = services.ingress("web").await?;
    all_answer_outside(world, outside, &names(&backends)).await?;
    session.exchange(WITHIN).await.context("to LoadBalancer")?;

    for kind in ["NodePort", "ClusterIP"] {
        services.change("web", json!({"spec": {"type": kind}})).await?;
        let no_address = |held: Option<&kuryr_model::KuryrLoadBalancer>| {
            held.and_then(|held| held.status.as_ref()).is_some_and(|status| status.external.is_empty())
        };
        services.when("web", "without an address for the outside", crate::world::pods::PATIENCE, no_address).await?;
        session.exchange(WITHIN).await.with_context(|| format!("to {kind}"))?;
    }
    // Packets see a little later what Neutron says.
    let deadline = tokio::time::Instant::now() + SOON;
    while probe::reach(&world.outside(), (outside, 80).into(), Duration::from_secs(2)).await.is_ok() {
        ensure!(tokio::time::Instant::now() < deadline, "{outside} still answers");
    }
    ensure!(ids(&services.ready("web", 2).await?) == before, "another load balancer was made");
    Ok(())
}

/// The address of a node at which it is reached from outside.
async fn node_address(world: &World, name: &str) -> anyhow::Result<IpAddr> {
    let node = Api::<Node>::all(world.client.clone()).get(name).await?;
    let addresses = node.status.and_then(|status| status.addresses).unwrap_or_default();
    let inner = addresses.into_iter().find(|address| address.type_ == "InternalIP");
    Ok(inner.with_context(|| format!("node {name} has no address"))?.address.parse()?)
}

pub(super) async fn a_node_port_of_every_node_leads_to_a_service(world: &mut World) -> anyhow::Result<()> {
    let services = world.services();
    let (backends, service) =
        tokio::try_join!(world.backends("web", 0..2), services.create("web", json!({"type": "NodePort"})))?;
    services.ready("web", 2).await?;
    let number = node_port(&service)?;
    for node in &world.nodes {
        let address = node_address(world, node).await?;
        all_answer(&world.outside(), (address, number).into(), &names(&backends))
            .await
            .with_context(|| node.clone())?;
    }
    Ok(())
}

pub(super) async fn an_external_ip_leads_to_a_service(world: &mut World) -> anyhow::Result<()> {
    let services = world.services();
    let address: IpAddr = "192.0.2.80".parse()?;
    // Nothing is announced: that is for routers of the operator's.
    world.inside()?.fabric.lead(address, &world.nodes[0])?;
    let spec = json!({"externalIPs": [address.to_string()]});
    let (backends, _) = tokio::try_join!(world.backends("web", 0..2), services.create("web", spec))?;
    services.ready("web", 2).await?;
    let target = (address, 80).into();
    all_answer(&world.outside(), target, &names(&backends)).await?;
    services.change("web", json!({"spec": {"externalIPs": null}})).await?;
    let deadline = tokio::time::Instant::now() + SOON;
    while probe::reach(&world.outside(), target, Duration::from_secs(1)).await.is_ok() {
        ensure!(tokio::time::Instant::now() < deadline, "{address} still answers");
    }
    Ok(())
}

pub(super) async fn a_local_node_port_leads_to_pods_of_its_node_only(world: &mut World) -> anyhow::Result<()> {
    let services = world.services();
    let (here, there) = (world.nodes[0].clone(), world.nodes[1].clone());
    let spec = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local"});
    let on = |name: &str| NewPod::new(name).app("web").on(&here);
    let (one, other, service) = tokio::try_join!(
        world.backend_of(on("web-one"), &[SERVED]),
        world.backend_of(on("web-other"), &[SERVED]),
        services.create("web", spec)
    )?;
    services.ready("web", 2).await?;
    let number = node_port(&service)?;
    all_answer(&world.outside(), (node_address(world, &here).await?, number).into(), &names(&[one, other])).await?;
    let nobody = (node_address(world, &there).await?, number).into();
    ensure!(probe::reach(&world.outside(), nobody, Duration::from_secs(2)).await.is_err(), "{nobody} answers");
    // Whoever balances over nodes from outside is told which of them have endpoints.
    let check = service.spec.as_ref().and_then(|spec| spec.health_check_node_port).context("no health check")?;
    for (node, status) in [(&here, 200), (&there, 503)] {
        let health = SocketAddr::new(node_address(world, node).await?, check.try_into()?);
        let said = probe::http_status(&world.outside(), health, WITHIN).await?;
        ensure!(said == status, "the health check of {node} says {said}");
    }
    Ok(())
}

pub(super) async fn a_service_without_selector_has_endpoints_made_by_hand(world: &mut World) -> anyhow::Result<()> {
    let services = world.services();
    let (backends, service, from) = tokio::try_join!(
        world.backends("other", 0..2),
        services.create("web", json!({"selector": null})),
        client(world)
    )?;
    let endpoints: Vec<_> = backends.iter().map(|b| json!({"addresses": [b.address.to_string()]})).collect();
    services.create_slice("web-hand", "web", json!({"endpoints": endpoints, "ports": [{"port": SERVED}]})).await?;
    services.ready("web", 2).await?;
    all_answer(&from, SocketAddr::new(cluster_ip(&service)?, 80), &names(&backends)).await
}

pub(super) async fn a_named_port_may_be_another_number_in_each_pod(world: &mut World) -> anyhow::Result<()> {
    let services = world.services();
    let pod = |name: &str, number| NewPod::new(name).app("web").named_port("http", number);
    let (one, other, service, from) = tokio::try_join!(
        world.backend_of(pod("web-one", 8081), &[8081]),
        world.backend_of(pod("web-other", 8082), &[8082]),
        services.create("web", json!({"ports": [{"port": 80, "targetPort": "http"}]})),
        client(world)
    )?;
    services.ready("web", 2).await?;
    all_answer(&from, SocketAddr::new(cluster_ip(&service)?, 80), &names(&[one, other])).await
}

pub(super) async fn headless_services_and_names_have_no_load_balancer(world: &mut World) -> anyhow::Result<()> {
    let services = world.services();
    services.create("headless", json!({"clusterIP": "None"})).await?;
    services.create("name", json!({"type": "ExternalName", "externalName": "example.org", "ports": null})).await?;
    // One that gets a load balancer comes last: when it has one, the others were looked at.
    world.backends("web", 0..1).await?;
    services.create("web", json!({})).await?;
    services.ready("web", 1).await?;
    for name in ["headless", "name"] {
        ensure!(services.held().get_opt(name).await?.is_none(), "something was made for {name}");
    }
    Ok(())
}

pub(super) async fn the_kubernetes_service_leads_to_the_api_server(world: &mut World) -> anyhow::Result<()> {
    let default = crate::world::Services::new(&world.client, "default");
    let from = client(world).await?;
    default.ready("kubernetes", 1).await?;
    let service = default.api().get("kubernetes").await?;
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref()).context("no ports")?;
    let target = SocketAddr::new(cluster_ip(&service)?, ports[0].port.try_into()?);
    // It speaks no language of probes: that it takes the connection says enough.
    probe::connect(&from, target, WITHIN).await.with_context(|| format!("TCP to {target}"))?;
    Ok(())
}

pub(super) async fn a_service_is_recreated_at_once(world: &mut World) -> anyhow::Result<()> {
    let services = world.services();
    let (backends, from) = tokio::try_join!(world.backends("web", 0..1), client(world))?;
    let times = if world.inside().is_ok() { 5 } else { 2 };
    let mut service = services.create("web", json!({})).await?;
    for _ in 0..times {
        services.delete("web").await?;
        service = services.create("web", json!({})).await?;
    }
    let uid = service.uid();
    let new = move |held: Option<&kuryr_model::KuryrLoadBalancer>| {
        held.is_some_and(|held| Some(&held.spec.service_uid.0) == uid.as_ref())
    };
    services.when("web", "that of the last Service", crate::world::pods::PATIENCE, new).await?;
    services.ready("web", 1).await?;
    all_answer(&from, SocketAddr::new(cluster_ip(&service)?, 80), &names(&backends)).await
}

pub(super) async fn a_service_goes_before_it_is_ready(world: &mut World) -> anyhow::Result<()> {
    let services = world.services();
    let Ok(inside) = world.inside() else {
        services.create("web", json!({})).await?;
        let there = |held: Option<&kuryr_model::KuryrLoadBalancer>| held.is_some();
        services.when("web", "there", crate::world::pods::PATIENCE, there).await?;
        services.delete("web").await?;
        return services.gone("web").await;
    };
    // What Kubernetes brings of its own is not to be held up.
    crate::world::Services::new(&world.client, "default").ready("kubernetes", 1).await?;
    let (calls, balancing) = (inside.cloud.calls(), inside.cloud.load_balancing());
    let of_balancers = |method: Method| {
        move |call: &crate::cloud::CallRecord| call.method == method && call.path.contains("/loadbalancers")
    };
    calls.reset();
    balancing.hold_new(true);
    services.create("web", json!({})).await?;
    timeout(crate::world::pods::PATIENCE, calls.wait_for(of_balancers(Method::POST))).await?;
    balancing.hold_new(false);
    services.delete("web").await?;
    // Octavia deletes nothing that it is at work on, so it is asked for its state until it is not.
    calls.reset();
    timeout(crate::world::pods::PATIENCE, calls.wait_for(of_balancers(Method::GET))).await?;
    for one in balancing.all() {
        balancing.release(one.id);
    }
    services.gone("web").await
}

pub(super) async fn a_service_and_its_namespace_go_together(world: &mut World) -> anyhow::Result<()> {
    let name = format!("{}-2", world.namespace());
    let home = world.namespace().to_owned();
    world.use_namespace(&name).await?;
    let services = world.services();
    services.create("web", json!({"type": "LoadBalancer"})).await?;
    world.backends("web", 0..1).await?;
    services.ready("web", 1).await?;
    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    let uid = namespaces.get(&name).await?.uid().context("no UID")?;
    namespaces.delete(&name, &DeleteParams::default()).await?;
    timeout(crate::world::pods::PATIENCE, await_condition(namespaces, &name, conditions::is_deleted(&uid)))
        .await
        .context("the namespace is still there")??;
    world.use_namespace(&home).await
}

pub(super) async fn a_wrong_annotation_is_told_and_holds_up_nothing_else(world: &mut World) -> anyhow::Result<()> {
    let services = world.services();
    let wrong = json!({"loadbalancer.openstack.org/connection-limit": "many"});
    let (backends, from, bad, _) = tokio::try_join!(
        world.backends("web", 0..1),
        client(world),
        services.create_with("bad", json!({"selector": {"app": "web"}, "type": "LoadBalancer"}), wrong),
        services.create("web", json!({}))
    )?;
    services.ready("web", 1).await?;
    let told = |held: Option<&kuryr_model::KuryrLoadBalancer>| {
        let problems = held.and_then(|held| held.status.as_ref()).map(|status| &status.problems);
        problems.is_some_and(|all| {
            all.iter().any(|one| one.message.contains("connection-limit") && one.message.contains("many"))
        })
    };
    services.when("bad", "told what is wrong", crate::world::pods::PATIENCE, told).await?;
    let serves = BTreeSet::from_iter(names(&backends));
    all_answer(&from, SocketAddr::new(cluster_ip(&bad)?, 80), &serves).await
}

pub(super) async fn a_service_of_both_families_has_a_vip_for_each(world: &mut World) -> anyhow::Result<()> {
    world.set_up_ipv6_services().await?;
    let (backends, from) = tokio::try_join!(world.backends("web", 0..2), client(world))?;
    let services = world.services();
    let spec = |policy: &str| json!({"selector": {"app": "web"}, "ipFamilyPolicy": policy});
    let both = services.create("web", spec("RequireDualStack")).await?;
    let held = services.ready("web", 2).await?;
    let vips: Vec<IpAddr> = held.status.map(|status| status.vips).unwrap_or_default();
    let own = both.spec.as_ref().and_then(|spec| spec.cluster_ips.clone()).context("no cluster IPs")?;
    let own = own.iter().map(|ip| ip.parse()).collect::<Result<Vec<IpAddr>, _>>()?;
    ensure!(own.len() == 2 && vips == own, "VIPs {vips:?} for {own:?}");
    for ip in own {
        all_answer(&from, SocketAddr::new(ip, 80), &names(&backends)).await.with_context(|| ip.to_string())?;
    }
    // One family more, later: what it has stays as it is.
    let one = services.create("later", spec("SingleStack")).await?;
    services.ready("later", 2).await?;
    let mut session = probe::connect(&from, SocketAddr::new(cluster_ip(&one)?, 80), WITHIN).await?;
    services.change("later", json!({"spec": {"ipFamilyPolicy": "PreferDualStack"}})).await?;
    let two = |held: Option<&kuryr_model::KuryrLoadBalancer>| {
        held.and_then(|held| held.status.as_ref()).is_some_and(|status| status.vips.len() == 2)
    };
    services.when("later", "with two VIPs", crate::world::pods::PATIENCE, two).await?;
    let held = services.ready("later", 2).await?;
    let second = held.status.and_then(|status| status.vips.get(1).copied()).context("no second VIP")?;
    all_answer(&from, SocketAddr::new(second, 80), &names(&backends)).await?;
    session.exchange(WITHIN).await.context("a connection to the first family")?;
    Ok(())
}

pub(super) async fn sctp_goes_to_the_endpoints(world: &mut World) -> anyhow::Result<()> {
    let (backends, from) = tokio::try_join!(world.backends("web", 0..1), client(world))?;
    let _server = probe::sctp::listen(&backends[0].netns, SocketAddr::new(backends[0].address, SERVED)).await?;
    let services = world.services();
    let ports = json!([{"name": "sctp", "port": 80, "protocol": "SCTP", "targetPort": SERVED}]);
    let service = services.create("web", json!({"ports": ports})).await?;
    services.ready("web", 1).await?;
    probe::sctp::reach(&from, SocketAddr::new(cluster_ip(&service)?, 80), WITHIN).await?;
    Ok(())
}

pub(super) async fn endpoints_that_are_not_ready_serve_where_that_is_asked_for(
    world: &mut World,
) -> anyhow::Result<()> {
    let (backends, from) = tokio::try_join!(world.backends("other", 0..1), client(world))?;
    let services = world.services();
    let endpoint = json!({"addresses": [backends[0].address.to_string()], "conditions": {"ready": false}});
    let slice = json!({"endpoints": [endpoint], "ports": [{"port": SERVED}]});
    for (name, publish) in [("all", true), ("ready", false)] {
        services.create_slice(&format!("{name}-hand"), name, slice.clone()).await?;
        let service = services.create(name, json!({"selector": null, "publishNotReadyAddresses": publish})).await?;
        services.ready_of(name, 0, 1).await?;
        let target = SocketAddr::new(cluster_ip(&service)?, 80);
        if publish {
            all_answer(&from, target, &names(&backends)).await?;
        } else {
            let reached = probe::reach(&from, target, Duration::from_secs(1)).await;
            ensure!(reached.is_err(), "an endpoint that is not ready answers");
        }
    }
    Ok(())
}

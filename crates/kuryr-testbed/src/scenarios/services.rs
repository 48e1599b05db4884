//! Services and their load balancers, as far as the controller goes: what is in Octavia and Neutron, at which cost, and that it
//! comes right whatever happens.

use crate::{
    cloud::{CallRecord, Fault, Service as CloudService},
    world::{Services, World, services::PATIENCE},
};
use anyhow::{Context, ensure};
use futures::future::try_join_all;
use http::Method;
use kuryr_model::{KuryrLoadBalancer, kuryr_load_balancer::LoadBalancerState};
use kuryr_openstack::network::{NewSubnet, networks::NewNetwork};
use serde_json::{Value, json};
use std::{net::IpAddr, time::Duration};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

const LOAD_BALANCERS: &str = "/v2/lbaas/loadbalancers";

fn ips(first: u8, count: u8) -> Vec<IpAddr> {
    (first..first + count).map(|n| IpAddr::from([10, 10, 1, n])).collect()
}

fn web() -> Value {
    json!({"ports": [{"port": 80}]})
}

fn octavia(calls: &[CallRecord]) -> Vec<String> {
    let ours = calls.iter().filter(|call| call.service == CloudService::LoadBalancer);
    ours.map(|call| format!("{} {}", call.method, call.template)).collect()
}

fn writes(world: &World) -> anyhow::Result<Vec<String>> {
    Ok(octavia(&world.inside()?.cloud.calls().writes(CloudService::LoadBalancer)))
}

/// Waits until the Service of the API server itself is served, which is there from the start.
async fn api_server_served(world: &World) -> anyhow::Result<()> {
    Services::new(&world.client, "default").ready("kubernetes", 1, 1).await.map(drop)
}

/// The members of all listener pools of a Service.
async fn members(world: &World, held: &KuryrLoadBalancer) -> anyhow::Result<Vec<(IpAddr, u16, u16)>> {
    let status = held.status.clone().unwrap_or_default();
    let pools = status.load_balancers.iter().flat_map(|lb| &lb.listeners).filter_map(|listener| listener.pool_id);
    let mut members = Vec::new();
    for pool in pools {
        let found = world.cloud.load_balancing().members(pool).list(&Default::default()).await?;
        members.extend(found.iter().map(|member| (member.address, member.protocol_port, member.weight)));
    }
    members.sort();
    Ok(members)
}

/// The load balancers of this scenario's namespace.
fn load_balancers(world: &World) -> anyhow::Result<Vec<Uuid>> {
    let prefix = format!("{}/", world.namespace());
    let all = world.inside()?.cloud.load_balancing().all();
    Ok(all.into_iter().filter(|lb| lb.name.starts_with(&prefix)).map(|lb| lb.id).collect())
}

/// Restarts the controller so that it looks at everything every second.
async fn look_often(world: &mut World) -> anyhow::Result<()> {
    world.inside()?.configure_controller("prune_interval = \"1s\"")?;
    restart(world).await
}

async fn restart(world: &mut World) -> anyhow::Result<()> {
    for controller in world.kuryr.controllers() {
        world.kuryr.stop_controller(controller).await?;
    }
    world.kuryr.start_controller().await?;
    world.leader_elected().await
}

/// Waits for something about load balancers, of which nothing tells.
async fn until(what: &str, mut is: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let wait = async {
        while !is()? {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    };
    timeout(PATIENCE, wait).await.with_context(|| what.to_owned())?
}

pub(super) async fn a_service_costs_one_request_and_so_does_a_change(world: &mut World) -> anyhow::Result<()> {
    api_server_served(world).await?;
    let services = world.services();
    services.endpoints("web", &ips(10, 3), 8080).await?;
    world.inside()?.cloud.calls().reset();
    let service = services.create("web", web()).await?;
    let held = services.ready("web", 3, 3).await?;
    ensure!(writes(world)? == ["POST /v2/lbaas/loadbalancers"], "for a new Service: {:?}", writes(world)?);
    let status = held.status.clone().unwrap_or_default();
    let ip = service.spec.and_then(|spec| spec.cluster_ip).unwrap_or_default();
    ensure!(status.vips.iter().map(ToString::to_string).collect::<Vec<_>>() == [ip], "VIPs {:?}", status.vips);
    let wanted: Vec<_> = ips(10, 3).into_iter().map(|ip| (ip, 8080, 1)).collect();
    ensure!(members(world, &held).await? == wanted, "members {:?}", members(world, &held).await?);

    world.inside()?.cloud.calls().reset();
    services.endpoints("web", &ips(10, 6), 8080).await?;
    let held = services.ready("web", 6, 6).await?;
    ensure!(writes(world)? == ["PUT /v2/lbaas/pools/{id}/members"], "for 3 to 6: {:?}", writes(world)?);
    ensure!(members(world, &held).await?.len() == 6, "members {:?}", members(world, &held).await?);

    // A controller that begins anew finds all as it is, with five lists.
    world.inside()?.cloud.calls().reset();
    restart(world).await?;
    services.change("web", json!({"metadata": {"annotations": {"a": "b"}}})).await?;
    services.endpoints("web", &ips(10, 5), 8080).await?;
    services.ready("web", 5, 5).await?;
    let calls = world.inside()?.cloud.calls().all();
    let lists = octavia(&calls).iter().filter(|call| call.starts_with("GET") && !call.ends_with("{id}")).count();
    ensure!(writes(world)? == ["PUT /v2/lbaas/pools/{id}/members"], "after a restart: {:?}", octavia(&calls));
    // Versions (twice, for it stands by before it leads), the four lists, and the members of the listener pool that is changed.
    ensure!(lists <= 7, "lists after a restart: {:?}", octavia(&calls));

    services.delete("web").await?;
    services.gone("web").await?;
    ensure!(load_balancers(world)?.is_empty(), "the load balancer stays");
    Ok(())
}

/// Gives the cloud a network with floating IPs, and the router a way to it.
async fn outside(world: &mut World) -> anyhow::Result<()> {
    let network = world.cloud.network();
    let new = NewNetwork { name: "outside".into(), external: true, ..NewNetwork::default() };
    let made = network.networks().create(&new).await?;
    let subnet = NewSubnet {
        network_id: made.id,
        ip_version: 4,
        cidr: Some("203.0.113.0/24".parse()?),
        subnetpool_id: None,
        name: "outside".into(),
        description: String::new(),
        enable_dhcp: false,
        gateway_ip: None,
        allocation_pools: Vec::new(),
    };
    network.subnets().create(&subnet).await?;
    let (code, output) = world.kuryr.run(vec!["setup".into(), "--external-network=outside".into()]).await?;
    ensure!(code == Some(0), "kuryr setup ended with {code:?}: {output}");
    restart(world).await
}

pub(super) async fn a_service_changes_its_type_and_its_load_balancer_stays(world: &mut World) -> anyhow::Result<()> {
    outside(world).await?;
    api_server_served(world).await?;
    let services = world.services();
    services.endpoints("web", &ips(10, 3), 8080).await?;
    services.create("web", web()).await?;
    services.ready("web", 3, 3).await?;
    let before = load_balancers(world)?;

    services.change("web", json!({"spec": {"type": "LoadBalancer"}})).await?;
    let address = services.exposed("web").await?;
    ensure!(address.to_string().starts_with("203.0.113."), "it is shown at {address}");
    let held = services.ready("web", 3, 3).await?.status.unwrap_or_default();
    ensure!(held.external == [address], "the KuryrLoadBalancer says {:?}", held.external);
    let floating = world.cloud.network().floating_ips().list(&Default::default()).await?;
    ensure!(floating.len() == 1 && floating[0].tags.len() == 2, "floating IPs {floating:?}");
    ensure!(floating[0].port_id == held.load_balancers[0].vip_port_id, "it leads to {:?}", floating[0].port_id);

    services.change("web", json!({"spec": {"type": "ClusterIP"}})).await?;
    let inner = |held: Option<&KuryrLoadBalancer>| {
        held.and_then(|held| held.status.as_ref()).is_some_and(|status| status.external.is_empty())
    };
    services.held("web", "inner", inner).await?;
    let floating = world.cloud.network().floating_ips().list(&Default::default()).await?;
    ensure!(floating.is_empty(), "floating IPs {floating:?}");
    ensure!(load_balancers(world)? == before, "the load balancer was made anew");

    // Headless: nothing is left.
    services.delete("web").await?;
    services.create("web", json!({"clusterIP": "None", "ports": [{"port": 80}]})).await?;
    services.held("web", "gone", |held: Option<&KuryrLoadBalancer>| held.is_none()).await?;
    ensure!(load_balancers(world)?.is_empty(), "a headless Service has a load balancer");
    Ok(())
}

pub(super) async fn a_hundred_services_at_once(world: &mut World) -> anyhow::Result<()> {
    api_server_served(world).await?;
    let services = world.services();
    let names: Vec<String> = (0..100).map(|n| format!("web-{n}")).collect();
    world.inside()?.cloud.calls().reset();
    try_join_all(names.iter().map(|name| async {
        services.endpoints(name, &ips(10, 3), 8080).await?;
        services.create(name, web()).await.map(drop)
    }))
    .await?;
    try_join_all(names.iter().map(|name| services.ready(name, 3, 3))).await?;
    let made = writes(world)?;
    ensure!(made.iter().filter(|call| call.starts_with("POST")).count() == 100, "{} writes: {made:?}", made.len());
    try_join_all(names.iter().map(|name| services.delete(name))).await?;
    try_join_all(names.iter().map(|name| services.gone(name))).await?;
    ensure!(load_balancers(world)?.is_empty(), "load balancers are left");
    Ok(())
}

pub(super) async fn endpoints_that_flap_cost_few_requests(world: &mut World) -> anyhow::Result<()> {
    api_server_served(world).await?;
    let services = world.services();
    services.endpoints("web", &ips(10, 3), 8080).await?;
    services.create("web", web()).await?;
    services.ready("web", 3, 3).await?;
    world.inside()?.cloud.calls().reset();
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    for round in 0..100u8 {
        tick.tick().await;
        services.endpoints("web", &ips(10, 2 + round % 3), 8080).await?;
    }
    services.endpoints("web", &ips(20, 7), 8080).await?;
    let held = services.ready("web", 7, 7).await?;
    let wanted: Vec<_> = ips(20, 7).into_iter().map(|ip| (ip, 8080, 1)).collect();
    ensure!(members(world, &held).await? == wanted, "members {:?}", members(world, &held).await?);
    let made = writes(world)?.len();
    ensure!(made <= 18, "{made} requests for ten seconds of flapping");
    Ok(())
}

/// That a `KuryrLoadBalancer` has another load balancer, which works.
fn other_than(old: Uuid) -> impl Fn(Option<&KuryrLoadBalancer>) -> bool {
    move |held: Option<&KuryrLoadBalancer>| {
        let status = held.and_then(|held| held.status.as_ref());
        status.is_some_and(|status| {
            let ids = status.load_balancers.iter().map(|lb| lb.id.0).collect::<Vec<_>>();
            status.state == Some(LoadBalancerState::Active) && ids.len() == 1 && ids[0] != old
        })
    }
}

pub(super) async fn what_is_broken_behind_our_back_is_repaired(world: &mut World) -> anyhow::Result<()> {
    look_often(world).await?;
    api_server_served(world).await?;
    let services = world.services();
    services.endpoints("web", &ips(10, 3), 8080).await?;
    let service = services.create("web", web()).await?;
    let held = services.ready("web", 3, 3).await?;
    let balancing = world.inside()?.cloud.load_balancing();
    let first = load_balancers(world)?.into_iter().next().context("no load balancer")?;

    ensure!(balancing.lose_member(first, ips(10, 1)[0], 8080), "no such member");
    let three = async {
        while members(world, &held).await?.len() < 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    };
    timeout(PATIENCE, three).await.context("the member does not come back")??;

    ensure!(balancing.fail(first), "no such load balancer");
    let held = services.held("web", "that of a new load balancer", other_than(first)).await?.context("gone")?;
    let second =
        held.status.as_ref().and_then(|status| status.load_balancers.first()).context("no load balancer")?.id.0;

    ensure!(balancing.lose(second), "no such load balancer");
    let held = services.held("web", "that of a new load balancer", other_than(second)).await?.context("gone")?;
    let ip = service.spec.and_then(|spec| spec.cluster_ip).unwrap_or_default();
    let vips = held.status.clone().unwrap_or_default().vips;
    ensure!(vips.iter().map(ToString::to_string).collect::<Vec<_>>() == [ip], "it is at {vips:?} now");
    ensure!(members(world, &held).await?.len() == 3, "members {:?}", members(world, &held).await?);
    Ok(())
}

/// A Service is made, changed and deleted while Octavia fails in some way for a few times.
async fn served_despite(world: &mut World, fault: impl Fn() -> Fault) -> anyhow::Result<()> {
    api_server_served(world).await?;
    let services = world.services();
    let faults = world.inside()?.cloud.faults().clone();
    services.endpoints("web", &ips(10, 3), 8080).await?;
    let struck = faults.add(fault().on(Method::POST, LOAD_BALANCERS));
    services.create("web", web()).await?;
    services.ready("web", 3, 3).await?;
    ensure!(faults.hits(struck) > 0, "the fault never struck");
    ensure!(load_balancers(world)?.len() == 1, "there are {} load balancers", load_balancers(world)?.len());
    let struck = faults.add(fault().on(Method::PUT, "/v2/lbaas/pools/*/members"));
    services.endpoints("web", &ips(10, 5), 8080).await?;
    let held = services.ready("web", 5, 5).await?;
    ensure!(faults.hits(struck) > 0, "the fault never struck");
    ensure!(members(world, &held).await?.len() == 5, "members {:?}", members(world, &held).await?);
    let struck = faults.add(fault().on(Method::DELETE, "/v2/lbaas/loadbalancers/*"));
    services.delete("web").await?;
    services.gone("web").await?;
    ensure!(faults.hits(struck) > 0, "the fault never struck");
    ensure!(load_balancers(world)?.is_empty(), "the load balancer stays");
    Ok(())
}

pub(super) async fn octavia_answers_500(world: &mut World) -> anyhow::Result<()> {
    served_despite(world, || Fault::internal_error().times(2)).await
}

pub(super) async fn octavia_loses_answers(world: &mut World) -> anyhow::Result<()> {
    served_despite(world, || Fault::lose_answer().times(1)).await
}

pub(super) async fn octavia_drops_connections(world: &mut World) -> anyhow::Result<()> {
    served_despite(world, || Fault::drop_connection().times(2)).await
}

pub(super) async fn octavia_has_no_room(world: &mut World) -> anyhow::Result<()> {
    api_server_served(world).await?;
    let services = world.services();
    let cloud = world.inside()?.cloud.clone();
    let name = cloud.config().projects.first().context("no project")?.clone();
    let project = cloud.project_id(&name).context("no project")?;
    cloud.load_balancing().set_quota(&project, "load_balancer", 2);
    services.endpoints("a", &ips(10, 1), 8080).await?;
    services.create("a", web()).await?;
    services.ready("a", 1, 1).await?;
    services.create("b", web()).await?;
    services.waits("b", "QuotaExceeded").await?;
    // A Service that goes makes room, and nobody has to wait for a timer.
    let started = Instant::now();
    services.delete("a").await?;
    services.ready("b", 0, 0).await?;
    ensure!(started.elapsed() < Duration::from_secs(15), "it took {:?}", started.elapsed());
    cloud.load_balancing().set_quota(&project, "load_balancer", -1);
    Ok(())
}

pub(super) async fn a_service_deleted_before_its_load_balancer_is_ready(world: &mut World) -> anyhow::Result<()> {
    api_server_served(world).await?;
    let services = world.services();
    let balancing = world.inside()?.cloud.load_balancing();
    balancing.hold_new(true);
    services.create("web", web()).await?;
    until("no load balancer", || Ok(load_balancers(world)?.len() == 1)).await?;
    services.delete("web").await?;
    // The same name at once: the old load balancer goes first.
    services.create("web", web()).await?;
    services.waits("web", "Deleting").await?;
    balancing.hold_new(false);
    let first = load_balancers(world)?.into_iter().next().context("no load balancer")?;
    balancing.release(first);
    services.ready("web", 0, 0).await?;
    ensure!(load_balancers(world)?.len() == 1 && load_balancers(world)?[0] != first, "{:?}", load_balancers(world)?);
    Ok(())
}

pub(super) async fn the_controller_is_killed_while_services_come_and_go(world: &mut World) -> anyhow::Result<()> {
    api_server_served(world).await?;
    let services = world.services();
    let names: Vec<String> = (0..20).map(|n| format!("web-{n}")).collect();
    let work = tokio::spawn({
        let (services, names) = (services.clone(), names.clone());
        async move {
            for name in &names {
                services.endpoints(name, &ips(10, 3), 8080).await?;
                services.create(name, web()).await?;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            for name in &names[..10] {
                services.endpoints(name, &ips(10, 5), 8080).await?;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            for name in &names[10..] {
                services.delete(name).await?;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            anyhow::Ok(())
        }
    });
    while !work.is_finished() {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(50..900))).await;
        for controller in world.kuryr.controllers() {
            world.kuryr.kill_controller(controller).await?;
        }
        world.kuryr.start_controller().await?;
        world.leader_elected().await?;
    }
    work.await??;
    try_join_all(names[..10].iter().map(|name| services.ready(name, 5, 5))).await?;
    try_join_all(names[10..].iter().map(|name| services.gone(name))).await?;
    ensure!(load_balancers(world)?.len() == 10, "there are {} load balancers", load_balancers(world)?.len());
    Ok(())
}

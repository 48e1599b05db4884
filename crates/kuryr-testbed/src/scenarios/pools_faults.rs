//! Port pools when something goes wrong: pods come first, and nothing is lost.

use super::pools::{PORTS, apart, filled, port_of, ready, run_in_turn, when, without_pools_at_last};
use crate::{
    cloud::Fault,
    world::{NewPod, World, pods::PATIENCE},
};
use anyhow::{Context, ensure};
use futures::future::try_join_all;
use http::Method;
use kuryr_model::KuryrPort;
use std::{collections::HashSet, time::Duration};
use tokio::time::{Instant, sleep, timeout};

fn waiting_with(reason: &'static str) -> impl Fn(Option<&KuryrPort>) -> bool {
    move |port| port.and_then(KuryrPort::unallocated_reason).is_some_and(|condition| condition.reason == reason)
}

/// That pools know every port of a pool that no pod has, and no other, as soon as nothing is under way. Nothing tells: the page is the
/// question.
pub(super) async fn all_known(world: &World, within: Duration) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        let told = known(world).await;
        if told.is_ok() || started.elapsed() > within {
            return told;
        }
        sleep(Duration::from_millis(200)).await;
    }
}

async fn known(world: &World) -> anyhow::Result<()> {
    let held = world.pods().ports().list(&kube::api::ListParams::default()).await?.items;
    let held: HashSet<_> = held.iter().flat_map(KuryrPort::port_ids).collect();
    let spare = world.pool_ports().await?.into_iter().filter(|port| !held.contains(&port.id)).count();
    let report = world.kuryr.pools().await?.context("no pools")?;
    ensure!(report.held == spare, "there are {spare} spare ports, and pools have {}", report.held);
    Ok(())
}

pub(super) async fn pools_hand_out_while_neutron_is_away(world: &mut World) -> anyhow::Result<()> {
    filled(world, 3, "cooldown = \"1s\"").await?;
    let node = world.nodes[0].clone();
    let cloud = world.inside()?.cloud.clone();
    cloud.go_away();
    for name in ["one", "two", "three"] {
        world.run_pod(&NewPod::new(name).on(&node), name).await?;
    }
    world.pods().create(&NewPod::new("four").on(&node)).await?;
    world.pods().port("four", "waiting with its reason", PATIENCE, waiting_with("CloudUnavailable")).await?;
    // What is given back is handed out, too.
    world.pods().delete("one").await?;
    world.pods().gone("one").await?;
    world.pods().running("four").await.context("with the port that was given back")?;
    cloud.come_back();
    when(world, "filled again", |report| ready(report) >= 3 * world.nodes.len()).await?;
    all_known(world, PATIENCE).await
}

pub(super) async fn the_controller_is_killed_while_it_fills_pools(world: &mut World) -> anyhow::Result<()> {
    let cloud = world.inside()?.cloud.clone();
    let fault = cloud.faults().add(Fault::hold_answer().on(Method::POST, PORTS));
    world.use_pools("floor = 4\ncooldown = \"1s\"").await?;
    cloud.faults().wait_for_hits(fault, 1).await;
    world.kuryr.kill_controllers().await?;
    cloud.faults().remove(fault);
    world.kuryr.start_controller().await?;
    world.leader_elected().await?;
    let count = 4 * world.nodes.len();
    when(world, "filled", |report| ready(report) >= count && report.requests == 0).await?;
    let there = world.pool_ports().await?.len();
    ensure!(there == count, "{there} spare ports where there are to be {count}");
    all_known(world, PATIENCE).await
}

pub(super) async fn the_controller_is_killed_while_pods_take_from_pools(world: &mut World) -> anyhow::Result<()> {
    without_pools_at_last(world, killed_while_taking).await
}

async fn killed_while_taking(world: &mut World) -> anyhow::Result<()> {
    let nodes = world.nodes.len();
    filled(world, 6, "cooldown = \"1s\"").await?;
    let pods = world.pods();
    for round in 0..3 {
        let names: Vec<String> = (0..6 * nodes).map(|n| format!("pod-{round}-{n}")).collect();
        pods.create_all(&names).await?;
        // Some have their KuryrPort by now, and some have not.
        pods.port(&names[0], "there", PATIENCE, |port: Option<&KuryrPort>| port.is_some()).await?;
        world.kuryr.kill_controllers().await?;
        world.kuryr.start_controller().await?;
        world.leader_elected().await?;
        try_join_all(names.iter().map(|name| pods.running(name))).await?;
        ensure!(apart(world).await? == names.len(), "not all pods have a port");
        pods.delete_all().await?;
        pods.all_gone().await?;
    }
    when(world, "at rest", |report| report.requests == 0 && report.leaving == 0).await?;
    all_known(world, PATIENCE).await
}

pub(super) async fn the_controller_is_killed_at_any_moment_of_a_refill(world: &mut World) -> anyhow::Result<()> {
    without_pools_at_last(world, killed_while_filling).await
}

async fn killed_while_filling(world: &mut World) -> anyhow::Result<()> {
    const FLOOR: usize = 10;
    world.use_pools(&format!("floor = {FLOOR}\ncooldown = \"1s\"")).await?;
    for _ in 0..3 {
        sleep(Duration::from_millis(fastrand::u64(0..2000))).await;
        world.kuryr.kill_controllers().await?;
        world.kuryr.start_controller().await?;
        world.leader_elected().await?;
    }
    let count = FLOOR * world.nodes.len();
    when(world, "filled", |report| ready(report) >= count && report.requests == 0).await?;
    // What Neutron made for a controller that was gone when it was done is found when nothing can come any more.
    all_known(world, Duration::from_secs(120)).await
}

pub(super) async fn a_bulk_of_spare_ports_is_half_done(world: &mut World) -> anyhow::Result<()> {
    let cloud = world.inside()?.cloud.clone();
    let half = cloud.faults().add(Fault::do_half().on(Method::POST, PORTS).times(2));
    filled(world, 6, "cooldown = \"1s\"").await?;
    ensure!(cloud.faults().hits(half) == 2, "the fault never struck");
    let there = world.pool_ports().await?.len();
    ensure!(there > 6 * world.nodes.len(), "nothing was half done: {there} ports");
    all_known(world, Duration::from_secs(120)).await?;
    run_in_turn(world, 8).await?;
    apart(world).await.map(drop)
}

pub(super) async fn a_bulk_of_spare_ports_fails_and_then_its_parts_are_made(world: &mut World) -> anyhow::Result<()> {
    let cloud = world.inside()?.cloud.clone();
    // Somebody else has taken an address that Neutron chose, and then Neutron breaks.
    let clash = Fault::answer(409, "IpAddressAlreadyAllocated", "IP address already allocated in subnet");
    let clash = cloud.faults().add(clash.on(Method::POST, PORTS).times(1));
    let broken = cloud.faults().add(Fault::internal_error().on(Method::POST, PORTS).times(1));
    filled(world, 4, "cooldown = \"1s\"").await?;
    for id in [clash, broken] {
        ensure!(cloud.faults().hits(id) == 1, "the fault never struck");
    }
    run_in_turn(world, 8).await?;
    apart(world).await?;
    Ok(())
}

pub(super) async fn the_answer_of_a_bulk_of_spare_ports_is_lost(world: &mut World) -> anyhow::Result<()> {
    let cloud = world.inside()?.cloud.clone();
    cloud.faults().add(Fault::lose_answer().on(Method::POST, PORTS).times(1));
    let count = 3 * world.nodes.len();
    filled(world, 3, "cooldown = \"1s\"").await?;
    ensure!(world.pool_ports().await?.len() > count, "nothing was lost");
    // It is listed again once nothing can come any more (75 s), long before anything is pruned.
    all_known(world, Duration::from_secs(120)).await
}

pub(super) async fn spare_ports_make_way_when_the_quota_is_used_up(world: &mut World) -> anyhow::Result<()> {
    filled(world, 3, "cooldown = \"1s\"\nreserve = 0").await?;
    let node = world.nodes[0].clone();
    let embedded = world.inside()?;
    embedded.set_port_quota(embedded.ports_used())?;
    // Three are ready there, and three elsewhere.
    let names: Vec<String> = (0..6).map(|n| format!("pod-{n}")).collect();
    try_join_all(names.iter().map(|name| {
        let (pods, pod) = (world.pods(), NewPod::new(name).on(&node));
        async move { pods.create(&pod).await }
    }))
    .await?;
    let pods = world.pods();
    let has_one = |port: Option<&KuryrPort>| port.is_some_and(|port| !port.spec.vifs.is_empty());
    for name in &names {
        let port = pods.port(name, "allocated", Duration::from_secs(15), has_one).await?;
        let waited = port.as_ref().and_then(KuryrPort::unallocated_reason);
        ensure!(waited.is_none(), "{name} had to wait: {waited:?}");
    }
    // Now there is nothing left to make way.
    pods.create(&NewPod::new("seventh").on(&node)).await?;
    pods.port("seventh", "waiting with its reason", PATIENCE, waiting_with("QuotaExceeded")).await?;
    // What is given back while a pod waits is for that pod, wherever it was.
    pods.delete("pod-0").await?;
    pods.running("seventh").await?;
    embedded.set_port_quota(-1)?;
    pods.delete_all().await?;
    pods.all_gone().await?;
    when(world, "filled again", |report| !report.short && report.pools.iter().all(|pool| pool.view.ready >= 3)).await?;
    all_known(world, PATIENCE).await
}

pub(super) async fn spare_ports_make_way_when_subnets_are_full(world: &mut World) -> anyhow::Result<()> {
    world.inside()?.configure_pools("floor = 2\ncooldown = \"1s\"\nreserve = 0")?;
    // Two subnets of five free addresses each, tried in turn.
    world.use_small_subnets().await?;
    when(world, "filled", |report| ready(report) >= 2 * world.nodes.len()).await?;
    let node = world.nodes[0].clone();
    let pods = world.pods();
    for n in 0..10 {
        let name = format!("pod-{n}");
        world.run_pod(&NewPod::new(&name).on(&node), &name).await?;
    }
    ensure!(apart(world).await? == 10, "not all pods have a port");
    pods.create(&NewPod::new("eleventh").on(&node)).await?;
    pods.port("eleventh", "waiting with its reason", PATIENCE, waiting_with("SubnetsFull")).await?;
    pods.delete("pod-0").await?;
    pods.running("eleventh").await?;
    let cloud = &world.inside()?.cloud;
    ensure!(cloud.lost_addresses() == 0, "{} addresses are lost", cloud.lost_addresses());
    Ok(())
}

pub(super) async fn pools_that_are_switched_off_leave_nothing_behind(world: &mut World) -> anyhow::Result<()> {
    filled(world, 3, "").await?;
    let node = world.nodes[0].clone();
    world.run_pod(&NewPod::new("stays").on(&node), "stays").await?;
    let port = port_of(world, "stays").await?.id;
    world.use_pools("enabled = false").await?;
    let cloud = world.inside()?.cloud.clone();
    let mut changes = cloud.subscribe();
    let gone = async {
        while world.pool_ports().await?.len() > 1 {
            changes.changed().await?;
        }
        anyhow::Ok(())
    };
    timeout(PATIENCE, gone).await.context("spare ports are left")??;
    ensure!(port_of(world, "stays").await?.id == port, "the pod lost its port");
    world.pods().delete("stays").await?;
    world.pods().gone("stays").await?;
    ensure!(world.pool_ports().await?.is_empty(), "the port of the last pod is left");
    Ok(())
}

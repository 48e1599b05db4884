//! Port pools, with a Neutron that needs 200 ms for a port and 150 ms for each of a bulk, as was measured on a real one.

use super::{
    figure::{Budget, Figure, Unit},
    lab::{self, NAMESPACE, Scale},
    seen::Seen,
};
use crate::{
    cloud::Latency,
    world::{EmbeddedConfig, World},
};
use anyhow::{Context, bail};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::DeleteParams};
use kuryr_model::{KuryrPort, kuryr_port::AttachmentState};
use std::{
    fs,
    time::{Duration, Instant},
};
use tokio::time::sleep;

pub(super) const GROUP: &str = "pools";

/// The most ports in a request, and requests at once, that the controller has by default.
const BULK: u32 = 20;
const REQUESTS: u32 = 2;

/// How long pools may take to be filled.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long each pod of the churn lives.
const LIFE: Duration = Duration::from_secs(8);

fn latency() -> Latency {
    let (create, create_item) = (Duration::from_millis(50), Duration::from_millis(150));
    Latency { create, create_item, ..Latency::measured() }
}

pub(super) async fn measure(scale: &Scale) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    figures.extend(one_by_one(scale).await?);
    for count in [50, 200] {
        figures.push(burst(scale, count, "enabled = false").await?.0);
        let (figure, ratio) = burst(scale, count, "floor = 0").await?;
        figures.extend([figure, ratio]);
        figures.push(burst(scale, count, "").await?.0);
    }
    figures.push(whole_pods(scale).await?);
    for rate in [1, 5, 20] {
        figures.push(churn(scale, rate).await?);
    }
    Ok(figures)
}

/// A world of one node without kubelet, whose pools have so many ports ready.
async fn ready(scale: &Scale, pools: &str, ready: usize) -> anyhow::Result<World> {
    let config = EmbeddedConfig { latency: latency(), nodes: 1, ..EmbeddedConfig::new(&scale.netns) };
    let mut world = lab::world_of(EmbeddedConfig { pod_cidrs: vec!["10.10.0.0/20".to_owned()], ..config }).await?;
    start(&mut world, pools, ready).await?;
    let node = world.nodes[0].clone();
    world.inside_mut()?.burn_down(&node).await?;
    Ok(world)
}

async fn start(world: &mut World, pools: &str, ready: usize) -> anyhow::Result<()> {
    fs::write(&world.kuryr.settings().config, format!("[openstack]\ncloud = \"kuryr\"\n[pools]\n{pools}\n"))?;
    lab::start_kuryr(world).await?;
    filled(world, ready).await
}

/// Waits until so many ports are ready. Nothing tells: the page is the question.
async fn filled(world: &World, ready: usize) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        let report = world.kuryr.pools().await?;
        let there: usize = report.iter().flat_map(|report| &report.pools).map(|pool| pool.ready).sum();
        if there >= ready {
            return Ok(());
        }
        if started.elapsed() > PATIENCE {
            bail!("{there} of {ready} ports are ready after {PATIENCE:?}");
        }
        sleep(Duration::from_millis(50)).await;
    }
}

async fn one_by_one(scale: &Scale) -> anyhow::Result<Vec<Figure>> {
    let pods = scale.samples(100);
    let world = ready(scale, &format!("floor = {pods}\nceiling = {pods}"), pods).await?;
    let node = world.nodes[0].clone();
    let filled = lab::ports_filled(&world.client);
    let calls = world.inside()?.cloud.calls().clone();
    calls.reset();
    let mut single = Vec::new();
    for name in lab::names("single", pods) {
        let (asked, _) = lab::bound_pod(&world.client, &name, &node).await?;
        single.push(lab::ms(asked, filled.when(&name).await?));
    }
    let (posts, ports, _) = lab::neutron_calls(&calls);
    world.shut_down().await?;
    Ok(vec![
        Figure::new(GROUP, "pod bound -> KuryrPort written, pool hit", Unit::Milliseconds, single)
            .budget(Budget::of(10.0, 50.0))
            .calls(format!("0 Neutron; meanwhile {posts} POST for {ports} ports to fill up"))
            .original("1600 ms")
            .note("from before the request that makes the bound pod until our own watch shows the KuryrPort; one pod at a time"),
    ])
}

/// How long Neutron itself needs for so many ports, with as many requests at once as the controller makes.
fn own_time(count: usize) -> Duration {
    let bulks = u32::try_from(count).unwrap_or(u32::MAX).div_ceil(BULK);
    let last = latency().create + latency().create_item * BULK;
    last * bulks.div_ceil(REQUESTS)
}

/// Pods that are bound at once: when the last has its port, and that against Neutron's own time.
async fn burst(scale: &Scale, count: usize, pools: &str) -> anyhow::Result<(Figure, Figure)> {
    let expected = if pools.is_empty() { 2 } else { 0 };
    let (mut last, mut ratio, mut calls) = (Vec::new(), Vec::new(), String::new());
    for _ in 0..scale.samples(3) {
        let world = ready(scale, pools, expected).await?;
        let (node, log) = (world.nodes[0].clone(), world.inside()?.cloud.calls().clone());
        let filled = lab::ports_filled(&world.client);
        log.reset();
        let names = lab::names("burst", count);
        let (asked, _) = lab::bound_pods(&world.client, &names, &node).await?;
        let mut seconds = 0.0_f64;
        for name in &names {
            seconds = seconds.max(lab::ms(asked, filled.when(name).await?) / 1000.0);
        }
        let (posts, ports, _) = lab::neutron_calls(&log);
        calls = format!("{posts} POST for {ports} ports");
        last.push(seconds);
        ratio.push(own_time(count).as_secs_f64() / seconds);
        world.shut_down().await?;
    }
    let with = match pools {
        "enabled = false" => "without pools",
        "" => "two spare ports",
        _ => "empty pool",
    };
    let own = own_time(count).as_secs_f64();
    let original = if count == 50 { "104 s with pools, to Running" } else { "" };
    let figure =
        Figure::new(GROUP, format!("{count} pods bound at once -> last KuryrPort, {with}"), Unit::Seconds, last)
            .budget(Budget::most(own + 2.0))
            .calls(calls)
            .original(original)
            .note(format!(
                "Neutron's own time, {REQUESTS} requests of {BULK} at once: {own:.1} s; the budget is that and 2 s"
            ));
    // The other way round, so that less is better.
    let ratio = ratio.into_iter().map(|ratio| 100.0 / ratio).collect();
    let relative = Figure::new(
        GROUP,
        format!("{count} pods at once, {with}: per cent of Neutron's own time"),
        Unit::Percent,
        ratio,
    )
    .budget(Budget::most(111.0))
    .note("at 111 per cent ports come at 90 per cent of Neutron's own bulk rate");
    Ok((figure, relative))
}

/// Pods with sandboxes, on two nodes whose pools have a port for each.
async fn whole_pods(scale: &Scale) -> anyhow::Result<Figure> {
    const PODS: usize = 50;
    let config = EmbeddedConfig { latency: latency(), nodes: 2, ..EmbeddedConfig::new(&scale.netns) };
    let mut world = lab::world_of(EmbeddedConfig { pod_cidrs: vec!["10.10.0.0/20".to_owned()], ..config }).await?;
    // The scheduler need not spread them evenly.
    let floor = PODS * 3 / 4;
    start(&mut world, &format!("floor = {floor}\nceiling = {floor}"), floor * 2).await?;
    let ports: Api<KuryrPort> = Api::namespaced(world.client.clone(), NAMESPACE);
    let attached = Seen::watch(ports, |port: &KuryrPort| port.attachment_state() == Some(AttachmentState::Attached));
    let names = lab::names("burst", PODS);
    let asked = Instant::now();
    world.pods().create_all(&names).await?;
    let mut last = 0.0_f64;
    for name in &names {
        last = last.max(lab::ms(asked, attached.when(name).await?) / 1000.0);
    }
    world.shut_down().await?;
    Ok(Figure::new(
        GROUP,
        format!("{PODS} pods created at once -> last plugged, warm pool, embedded"),
        Unit::Seconds,
        vec![last],
    )
    .budget(Budget::most(2.0))
    .original("104 s to Running")
    .note("scheduler and kubelet are the testbed's, on the same cores"))
}

/// Pods that come at a rate and live for a while, with pools of the usual settings.
async fn churn(scale: &Scale, rate: u32) -> anyhow::Result<Figure> {
    let world = ready(scale, "cooldown = \"2s\"", 2).await?;
    let (node, client) = (world.nodes[0].clone(), world.client.clone());
    let filled = lab::ports_filled(&client);
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let count = rate as usize * if scale.quick { 10 } else { 30 };
    let names = lab::names("churn", count);
    let started = Instant::now();
    let lives = names.iter().enumerate().map(|(n, name)| {
        let (client, pods, filled, node) = (&client, &pods, &filled, &node);
        async move {
            let due = Duration::from_secs(1) * u32::try_from(n)? / rate;
            sleep(due.saturating_sub(started.elapsed())).await;
            let (asked, _) = lab::bound_pod(client, name, node).await?;
            let waited = lab::ms(asked, filled.when(name).await?);
            sleep(LIFE).await;
            pods.delete(name, &DeleteParams::default().grace_period(0)).await?;
            anyhow::Ok(waited)
        }
    });
    let waited = try_join_all(lives).await?;
    let report = world.kuryr.pools().await?.context("no pools")?;
    let (hits, misses) =
        report.pools.iter().fold((0, 0), |(hits, misses), pool| (hits + pool.hits, misses + pool.misses));
    world.shut_down().await?;
    Ok(Figure::new(
        GROUP,
        format!("{rate} pods/s for {count} pods, each lives {LIFE:?}: bound -> KuryrPort"),
        Unit::Milliseconds,
        waited,
    )
    .calls(format!("{hits} hits, {misses} misses"))
    .note("one node; a pool that begins with two ports and learns what is asked for; cooldown 2 s instead of 30 s"))
}

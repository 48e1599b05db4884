//! Pods with sandboxes, on two nodes whose pools have a port for each. Bare metal only: the kernel that this runs on need not
//! have VLANs.

use super::{
    GROUP,
    ground::{latency, order, start},
};
use crate::{
    bench::{
        figure::{Budget, Figure, Unit},
        lab::{self, NAMESPACE, Scale},
        seen::Seen,
    },
    world::{EmbeddedConfig, NewPod, World},
};
use anyhow::ensure;
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kuryr_model::{KuryrPort, kuryr_port::AttachmentState};
use std::time::{Duration, Instant};
use tokio::time::sleep;

const PODS: usize = 50;

/// Ports that a node's pool is kept at: the scheduler need not spread pods evenly.
const READY: usize = PODS * 3 / 4;

/// How long pools may take to be filled.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn measure(scale: &Scale) -> anyhow::Result<Vec<Figure>> {
    let config = EmbeddedConfig { latency: latency(), nodes: 2, ..EmbeddedConfig::new(&scale.netns) };
    let mut world = lab::world_of(config).await?;
    let measured = on(&mut world, scale).await;
    world.shut_down().await?;
    measured
}

async fn on(world: &mut World, scale: &Scale) -> anyhow::Result<Vec<Figure>> {
    start(world, "floor = 0\nceiling = 0").await?;
    for node in &world.nodes {
        order(world, node, READY).await?;
    }
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), NAMESPACE);
    let running =
        Seen::watch(pods, |pod: &Pod| pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running"));
    let ports: Api<KuryrPort> = Api::namespaced(world.client.clone(), NAMESPACE);
    let attached = Seen::watch(ports, |port: &KuryrPort| port.attachment_state() == Some(AttachmentState::Attached));

    let mut single = Vec::new();
    for round in 0..scale.samples(100).div_ceil(PODS) {
        filled(world).await?;
        let names = lab::names(&format!("single{round}"), PODS);
        for name in &names {
            let asked = Instant::now();
            world.pods().create(&NewPod::new(name)).await?;
            single.push(lab::ms(asked, running.when(name).await?));
        }
        all_gone(world, &names).await?;
    }
    let mut last = Vec::new();
    for round in 0..scale.samples(3) {
        filled(world).await?;
        let names = lab::names(&format!("burst{round}"), PODS);
        let asked = Instant::now();
        world.pods().create_all(&names).await?;
        let mut seconds = 0.0_f64;
        for name in &names {
            seconds = seconds.max(lab::ms(asked, attached.when(name).await?) / 1000.0);
        }
        last.push(seconds);
        all_gone(world, &names).await?;
    }
    let note = "scheduler and kubelet are the testbed's, on the same cores; pools fill up meanwhile";
    Ok(vec![
        Figure::new(GROUP, "pod created -> Running, warm pool, embedded", Unit::Milliseconds, single)
            .original("7200 ms, real world, warm pool")
            .note(note),
        Figure::new(
            GROUP,
            format!("{PODS} pods created at once -> last plugged, warm pool, embedded"),
            Unit::Seconds,
            last,
        )
        .budget(Budget::most(2.0))
        .original("104 s to Running")
        .note(note),
    ])
}

async fn all_gone(world: &World, names: &[String]) -> anyhow::Result<()> {
    try_join_all(names.iter().map(|name| async { world.pods().delete(name).await })).await?;
    try_join_all(names.iter().map(|name| async { world.pods().gone(name).await })).await.map(drop)
}

/// Waits until every node's pool is filled. Nothing tells: the page is the question.
async fn filled(world: &World) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        let pools = world.kuryr.pools().await?.map(|report| report.pools).unwrap_or_default();
        if world.nodes.iter().all(|node| pools.iter().any(|pool| pool.place == *node && pool.view.ready >= READY)) {
            return Ok(());
        }
        ensure!(started.elapsed() < PATIENCE, "after {PATIENCE:?}: {pools:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

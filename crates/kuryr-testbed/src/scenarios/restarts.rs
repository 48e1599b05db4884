//! Processes die and come back.

use super::{
    connectivity::{WITHIN, both_ways},
    lifecycle,
};
use crate::{
    dataplane::probe,
    world::{NewPod, World, addresses},
};
use anyhow::{Context, ensure};
use futures::future::try_join_all;

/// How often the controller is killed while the work goes on.
const KILLS: usize = 8;

pub(super) async fn the_controller_is_killed_during_fifty_creates_and_deletes(world: &mut World) -> anyhow::Result<()> {
    let (pods, crowd) = (world.pods(), world.crowd());
    let names: Vec<String> = (0..crowd).map(|number| format!("pod-{number}")).collect();
    let work = tokio::spawn({
        let (pods, names) = (pods.clone(), names.clone());
        async move {
            pods.create_all(&names).await?;
            try_join_all(names.iter().map(|name| pods.running(name))).await?;
            try_join_all(names.iter().map(|name| pods.delete(name))).await?;
            try_join_all(names.iter().map(|name| pods.gone(name))).await?;
            anyhow::Ok(())
        }
    });
    world.kill_while(work, KILLS, 50..2500).await
}

pub(super) async fn a_standby_takes_over(world: &mut World) -> anyhow::Result<()> {
    world.run_pod(&NewPod::new("before"), "before").await?;
    let first = world.kuryr.controllers();
    world.kuryr.start_controller().await?;
    for controller in first {
        world.kuryr.kill_controller(controller).await?;
    }
    let pods = lifecycle::many(world, 3).await?;
    ensure!(pods.len() == 3);
    world.pods().delete("before").await?;
    world.pods().gone("before").await
}

pub(super) async fn a_daemon_is_killed_and_traffic_goes_on(world: &mut World) -> anyhow::Result<()> {
    let node = world.nodes[0].clone();
    let one = world.run_pod(&NewPod::new("one").on(&node), "one").await?;
    let other = world.run_pod(&NewPod::new("other").on(&node), "other").await?;
    let address = addresses(&other)?[0];
    let server = probe::listen(&world.netns(&other)?, (address, 0).into()).await?;
    let mut stream = probe::connect(&world.netns(&one)?, server.address(), WITHIN).await?;
    stream.exchange(WITHIN).await.context("before the daemon is killed")?;
    world.kuryr.kill_daemon(&node).await?;
    stream.exchange(WITHIN).await.context("while there is no daemon")?;
    world.kuryr.start_daemon(&node).await?;
    stream.exchange(WITHIN).await.context("after the daemon came back")?;
    both_ways(world, &one, &other).await
}

pub(super) async fn deletion_works_with_a_fresh_daemon(world: &mut World) -> anyhow::Result<()> {
    let node = world.nodes[0].clone();
    world.run_pod(&NewPod::new("old").on(&node), "old").await?;
    world.kuryr.kill_daemon(&node).await?;
    // Deleted while nobody is there to unplug it.
    world.pods().delete("old").await?;
    world.kuryr.start_daemon(&node).await?;
    world.pods().gone("old").await
}

pub(super) async fn a_daemon_starts_while_the_api_server_is_away(world: &mut World) -> anyhow::Result<()> {
    let node = world.nodes[0].clone();
    let pod = world.run_pod(&NewPod::new("old").on(&node), "old").await?;
    let attachment = world.attachment(&pod)?;
    world.kuryr.kill_daemon(&node).await?;
    world.inside()?.api_server.suspend().await;
    world.kuryr.begin_daemon(&node).await?;
    let status = world.cni(&node, "STATUS", "", "").await?;
    ensure!(status.code() == Some(50) && status.output.contains("KuryrPorts"), "STATUS: {}", status.output);
    let netns = attachment.netns.display().to_string();
    let del = world.cni(&node, "DEL", &attachment.id.container_id, &netns).await?;
    ensure!(del.success, "DEL without API server: {}", del.output);
    ensure!(world.kuryr.attachments(&node)?.is_empty(), "DEL forgot nothing");
    world.inside()?.api_server.resume().await;
    world.leads_again().await?;
    world.kuryr.daemon_ready(&node).await?;
    world.run_pod(&NewPod::new("new").on(&node), "new").await.map(drop)
}

pub(super) async fn deletion_may_be_repeated_and_needs_no_namespace(world: &mut World) -> anyhow::Result<()> {
    let node = world.nodes[0].clone();
    let pod = world.run_pod(&NewPod::new("pod").on(&node), "pod").await?;
    let attachment = world.attachment(&pod)?;
    world.pods().delete("pod").await?;
    world.pods().gone("pod").await?;
    ensure!(!attachment.netns.exists(), "the sandbox's namespace is still there");
    for netns in ["", &attachment.netns.display().to_string()] {
        let answer = world.cni(&node, "DEL", &attachment.id.container_id, netns).await?;
        ensure!(answer.success, "DEL of what is gone: {}", answer.output);
    }
    Ok(())
}

pub(super) async fn the_api_server_is_restarted(world: &mut World) -> anyhow::Result<()> {
    let node = world.nodes[0].clone();
    let one = world.run_pod(&NewPod::new("one").on(&node), "one").await?;
    world.restart_api_server().await?;
    world.leads_again().await?;
    let other = world.run_pod(&NewPod::new("other").on(&node), "other").await?;
    both_ways(world, &one, &other).await
}

//! Nodes and what runs on them fail.

use super::connectivity::both_ways;
use crate::{
    kubernetes::{Fault, FaultEffect},
    world::{NewPod, World},
};
use k8s_openapi::api::core::v1::Node;
use kube::{Api, api::DeleteParams};
use std::time::Duration;

pub(super) async fn open_vswitch_is_restarted(world: &mut World) -> anyhow::Result<()> {
    let node = world.nodes[0].clone();
    let one = world.run_pod(&NewPod::new("one").on(&node), "one").await?;
    world.restart_open_vswitch().await?;
    let other = world.run_pod(&NewPod::new("other").on(&node), "other").await?;
    both_ways(world, &one, &other).await
}

pub(super) async fn a_node_is_deleted(world: &mut World) -> anyhow::Result<()> {
    let node = world.nodes[1].clone();
    let pods = world.pods();
    world.run_pod(&NewPod::new("lost").on(&node), "lost").await?;
    world.run_pod(&NewPod::new("stays").on(&world.nodes[0]), "stays").await?;
    lose(world, &node).await?;
    pods.force_delete("lost").await?;
    pods.gone("lost").await
}

pub(super) async fn a_node_is_deleted_while_watches_lag(world: &mut World) -> anyhow::Result<()> {
    let node = world.nodes[1].clone();
    let pods = world.pods();
    world.run_pod(&NewPod::new("lost").on(&node), "lost").await?;
    lose(world, &node).await?;
    // A controller that hears of KuryrPorts later than it is answered: what it deleted itself is no news then.
    for controller in world.kuryr.controllers() {
        world.kuryr.stop_controller(controller).await?;
    }
    let lag = Fault {
        verb: Some("watch".to_owned()),
        resource: Some("kuryrports".to_owned()),
        user_agent: Some("kuryr-controller".to_owned()),
        times: None,
        effect: Some(FaultEffect::Delay(Duration::from_secs(5))),
    };
    let lag = world.inside()?.api.faults().inject(lag);
    world.kuryr.start_controller().await?;
    world.leader_elected().await?;
    pods.force_delete("lost").await?;
    pods.gone("lost").await?;
    drop(lag);
    Ok(())
}

/// A node burns down and its Node is deleted: nobody on it will ever say anything.
async fn lose(world: &mut World, node: &str) -> anyhow::Result<()> {
    world.kuryr.kill_daemon(node).await?;
    world.inside_mut()?.burn_down(node).await?;
    Api::<Node>::all(world.client.clone()).delete(node, &DeleteParams::default()).await?;
    Ok(())
}

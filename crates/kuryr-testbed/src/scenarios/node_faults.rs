//! Nodes and what runs on them fail.

use super::connectivity::both_ways;
use crate::world::{NewPod, World};
use k8s_openapi::api::core::v1::Node;
use kube::{Api, api::DeleteParams};

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
    // The node burns down: nobody on it will ever say anything.
    world.kuryr.kill_daemon(&node).await?;
    world.inside_mut()?.burn_down(&node).await?;
    Api::<Node>::all(world.client.clone()).delete(&node, &DeleteParams::default()).await?;
    pods.force_delete("lost").await?;
    pods.gone("lost").await
}

//! Nodes and what runs on them fail.

use super::connectivity::both_ways;
use crate::{
    cloud::Service,
    kubernetes::{Fault, FaultEffect},
    world::{NewPod, World, pods::PATIENCE},
};
use anyhow::{Context, ensure};
use http::Method;
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use kuryr_model::{KuryrPort, kuryr_port::AttachmentState};
use serde_json::json;
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

pub(super) async fn a_node_that_is_rebooted_gets_its_pods_back(world: &mut World) -> anyhow::Result<()> {
    let node = world.nodes[1].clone();
    rebooted(world, &node).await
}

/// The node is switched off and on: its pods have the ports and addresses that they had, and Neutron is not told to change anything.
pub(super) async fn rebooted(world: &mut World, node: &str) -> anyhow::Result<()> {
    let (names, elsewhere) = (["one", "two"], world.nodes[0].clone());
    let other = world.run_pod(&NewPod::new("elsewhere").on(&elsewhere), "elsewhere").await?;
    let mut before = Vec::new();
    for name in names {
        let pod = world.run_pod(&NewPod::new(name).on(node), name).await?;
        let attached = |port: Option<&KuryrPort>| {
            port.is_some_and(|port| port.attachment_state() == Some(AttachmentState::Attached))
        };
        let held = world.pods().port(name, "attached", PATIENCE, attached).await?.context("no KuryrPort")?;
        before.push((pod, held));
    }
    world.inside()?.cloud.calls().reset();
    world.reboot_node(node).await?;
    for (name, (pod, held)) in names.iter().zip(&before) {
        let sandbox = |port: &KuryrPort| port.status.as_ref()?.attachment.as_ref()?.container_id.clone();
        let old = sandbox(held);
        let anew = move |port: Option<&KuryrPort>| {
            port.is_some_and(|port| port.attachment_state() == Some(AttachmentState::Attached) && sandbox(port) != old)
        };
        let now = world.pods().port(name, "in a new sandbox", PATIENCE, anew).await?.context("no KuryrPort")?;
        ensure!(now.spec == held.spec, "{name} was given {:?}, and now {:?}", held.spec, now.spec);
        both_ways(world, pod, &other).await?;
    }
    let changed =
        world.inside()?.cloud.calls().filter(|call| call.service == Service::Network && call.method != Method::GET);
    ensure!(changed.is_empty(), "something was changed in Neutron: {:?}", changed.first());
    Ok(())
}

pub(super) async fn a_node_is_taken_out_of_service(world: &mut World) -> anyhow::Result<()> {
    let (here, there) = (world.nodes[0].clone(), world.nodes[1].clone());
    let (pods, nodes) = (world.pods(), Api::<Node>::all(world.client.clone()));
    let before = world.run_pod(&NewPod::new("web-0").on(&there), "web-0").await?;
    world.kuryr.kill_daemon(&there).await?;
    world.inside_mut()?.burn_down(&there).await?;
    // As kube-controller-manager would say after a while.
    let unknown = json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}});
    nodes.patch_status(&there, &PatchParams::default(), &Patch::Strategic(unknown)).await?;
    pods.force_delete("web-0").await?;
    // A StatefulSet makes it anew, elsewhere, and it has to wait: nobody says that the old one does not run any more.
    pods.create(&NewPod::new("web-0").on(&here)).await?;
    let deleting = |port: Option<&KuryrPort>| port.is_some_and(KuryrPort::deleting);
    pods.port("web-0", "on its way out", PATIENCE, deleting).await?;
    world.port_of(&before).await.context("the port of a pod that may still run")?;
    let taint = json!({"spec": {"taints": [
        {"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute"}]}});
    nodes.patch(&there, &PatchParams::default(), &Patch::Merge(taint)).await?;
    let after = pods.running("web-0").await?;
    world.port_of(&after).await?;
    ensure!(world.port_of(&before).await.is_err(), "the old port is still there");
    Ok(())
}

pub(super) async fn the_deletion_of_a_sandbox_is_lost(world: &mut World) -> anyhow::Result<()> {
    let (pods, node) = (world.pods(), world.nodes[0].clone());
    let pod = world.run_pod(&NewPod::new("lost").on(&node), "lost").await?;
    let netns = world.netns(&pod)?;
    // Nobody on the node will ever say DEL.
    world.inside_mut()?.burn_down(&node).await?;
    pods.force_delete("lost").await?;
    let deleting = |port: Option<&KuryrPort>| port.is_some_and(KuryrPort::deleting);
    pods.port("lost", "on its way out", PATIENCE, deleting).await?;
    // While the sandbox is there, the port is its.
    world.port_of(&pod).await.context("the port of a sandbox that is there")?;
    let port = pods.ports().get("lost").await?;
    ensure!(port.attachment_state() == Some(AttachmentState::Attached), "released under its sandbox: {port:?}");
    world.inside()?.lose_sandbox(&netns)?;
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
        after: 0,
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

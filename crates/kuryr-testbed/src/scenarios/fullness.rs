//! Nodes on which no further pod fits.

use super::{
    cloud_faults::waiting_with,
    nested::{crowd, run},
};
use crate::world::{KnownBy, NewPod, World, pods::PATIENCE};
use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api,
    api::{Patch, PatchParams},
    runtime::wait::await_condition,
};
use kuryr_model::{FULL_CONDITION, FULL_TAINT, NESTED_ANNOTATION};
use serde_json::json;
use std::time::Duration;
use tokio::time::timeout;

/// What the Node says: whether it is full, if it says that; and whether it keeps pods off.
fn says(node: &Node) -> (Option<bool>, bool) {
    let mut conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let condition = conditions.find(|condition| condition.type_ == FULL_CONDITION);
    let mut taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let tainted = taints.any(|taint| taint.key == FULL_TAINT && taint.effect == "NoSchedule");
    (condition.map(|condition| condition.status == "True"), tainted)
}

/// Waits until `vm` says whether it is full, or nothing of that any more; its words.
async fn becomes(world: &World, full: Option<bool>) -> anyhow::Result<String> {
    let nodes = Api::<Node>::all(world.client.clone());
    let wanted = (full, full == Some(true));
    let right = await_condition(nodes, "vm", move |node: Option<&Node>| node.is_some_and(|node| says(node) == wanted));
    let node =
        timeout(PATIENCE, right).await.with_context(|| format!("the Node does not come to say {wanted:?}"))??;
    let conditions = node.and_then(|node| node.status).and_then(|status| status.conditions).unwrap_or_default();
    let ours = conditions.into_iter().find(|condition| condition.type_ == FULL_CONDITION);
    Ok(ours.and_then(|condition| condition.message).unwrap_or_default())
}

/// Waits until the controllers' metrics say that so many more pods fit on `vm`; `None`: that they say nothing of it.
async fn measured(world: &World, free: Option<usize>) -> anyhow::Result<()> {
    let wanted = free.map(|free| format!("kuryr_node_room{{node=\"vm\"}} {free}"));
    let measured = async {
        loop {
            let mut lines = Vec::new();
            for controller in world.kuryr.controllers() {
                let metrics = world.kuryr.controller_metrics(controller).await?;
                lines.extend(metrics.lines().find(|line| line.starts_with("kuryr_node_room{")).map(str::to_owned));
            }
            if lines.first() == wanted.as_ref() {
                return anyhow::Ok(());
            }
            // A gauge has no notification.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, measured).await.with_context(|| format!("the metric does not become {wanted:?}"))?
}

async fn status(world: &World) -> anyhow::Result<(Option<i32>, String)> {
    world.kuryr.run(vec!["status".to_owned()]).await
}

pub(super) async fn a_node_says_that_it_is_full_before_a_pod_fails(world: &mut World) -> anyhow::Result<()> {
    let machine = world.add_machine("vm", KnownBy::Address).await?;
    becomes(world, Some(false)).await?;
    measured(world, Some(4094)).await?;
    crowd(world, &machine, 3..=4094).await?;
    // Somebody's own taint stays.
    let nodes = Api::<Node>::all(world.client.clone());
    let theirs = json!({"spec": {"taints": [{"key": "theirs", "effect": "PreferNoSchedule"}]}});
    nodes.patch("vm", &PatchParams::default(), &Patch::Merge(theirs)).await?;
    run(world, &machine, &["first".to_owned()]).await?;
    measured(world, Some(1)).await?;
    let (_, told) = status(world).await?;
    ensure!(told.contains("4093 of 4094 VLAN ids of its trunk are used: 1 more pods fit"), "{told}");
    ensure!(says(&nodes.get("vm").await?) == (Some(false), false), "one more fits");
    run(world, &machine, &["second".to_owned()]).await?;
    let words = becomes(world, Some(true)).await?;
    ensure!(words.contains("all 4094 VLAN ids of trunk") && words.contains("4092 of them by subports"), "{words}");
    measured(world, Some(0)).await?;
    let (code, told) = status(world).await?;
    ensure!(code == Some(1) && told.contains("no VLAN id left: no further pod fits"), "{code:?} {told}");

    // Pods that may go elsewhere do.
    for name in ["a", "b", "c"] {
        world.pods().create(&NewPod::new(name)).await?;
    }
    for name in ["a", "b", "c"] {
        let pod = world.pods().running(name).await?;
        let node = pod.spec.and_then(|spec| spec.node_name);
        ensure!(node.as_deref() != Some("vm"), "{name} was sent to the full node");
    }

    // A controller that begins says it again, without any pod.
    world.kuryr.kill_controllers().await?;
    let unsay = json!({"status": {"conditions": [{"type": FULL_CONDITION, "$patch": "delete"}]}});
    nodes.patch_status("vm", &PatchParams::default(), &Patch::Strategic(unsay)).await?;
    let theirs = json!({"spec": {"taints": [{"key": "theirs", "effect": "PreferNoSchedule"}]}});
    nodes.patch("vm", &PatchParams::default(), &Patch::Merge(theirs)).await?;
    ensure!(says(&nodes.get("vm").await?) == (None, false), "it still says so");
    world.kuryr.start_controller().await?;
    world.leader_elected().await?;
    becomes(world, Some(true)).await?;

    world.pods().delete("second").await?;
    becomes(world, Some(false)).await?;
    measured(world, Some(1)).await?;
    // It is no virtual machine any more.
    world.pods().delete("first").await?;
    world.pods().gone("first").await?;
    let say = json!({"metadata": {"annotations": {(NESTED_ANNOTATION): "none"}}});
    nodes.patch("vm", &PatchParams::default(), &Patch::Merge(say)).await?;
    becomes(world, None).await?;
    measured(world, None).await?;
    let taints = nodes.get("vm").await?.spec.and_then(|spec| spec.taints).unwrap_or_default();
    ensure!(taints.len() == 1 && taints[0].key == "theirs", "{taints:?}");
    Ok(())
}

pub(super) async fn a_node_that_is_full_of_others_says_so_without_any_pod(world: &mut World) -> anyhow::Result<()> {
    for controller in world.kuryr.controllers() {
        world.kuryr.stop_controller(controller).await?;
    }
    let machine = world.add_machine("vm", KnownBy::Server).await?;
    let theirs = crowd(world, &machine, 1..=4094).await?;
    world.kuryr.start_controller().await?;
    world.leader_elected().await?;
    let words = becomes(world, Some(true)).await?;
    ensure!(words.contains("4094 of them by subports that Kuryr did not make"), "{words}");
    // Nothing but a look shows that they are gone.
    world.cloud.network().trunks().remove_subports(machine.trunk, &theirs[..1]).await?;
    becomes(world, Some(false)).await?;
    measured(world, Some(1)).await
}

pub(super) async fn a_node_whose_port_takes_no_more_pods_says_so(world: &mut World) -> anyhow::Result<()> {
    world.add_sharing_machine("vm", "macvlan").await?;
    let pods = world.pods();
    let names: Vec<String> = (0..10).map(|number| format!("pod-{number}")).collect();
    for name in &names {
        pods.create(&NewPod::new(name).on("vm")).await?;
    }
    for name in &names {
        pods.running(name).await?;
    }
    let nodes = Api::<Node>::all(world.client.clone());
    ensure!(says(&nodes.get("vm").await?) == (None, false), "Neutron has not said what its limit is");
    let works = world.cni("vm", "STATUS", "", "").await?;
    ensure!(works.success, "{}", works.output);
    // The first that does not fit shows what the limit is.
    pods.create(&NewPod::new("more").on("vm")).await?;
    pods.port("more", "told that the node is full", PATIENCE, waiting_with("NodeFull")).await?;
    let words = becomes(world, Some(true)).await?;
    ensure!(words.contains("all 10 address pairs") && words.contains("max_allowed_address_pair"), "{words}");
    measured(world, Some(0)).await?;
    let (code, told) = status(world).await?;
    ensure!(code == Some(1) && told.contains("all 10 address pairs that Neutron allows"), "{code:?} {told}");

    // A node that is merely full is ready, unless it is to be otherwise.
    let works = world.cni("vm", "STATUS", "", "").await?;
    ensure!(works.success, "{}", works.output);
    world.inside()?.configure_daemon("not_ready_when_full = true")?;
    world.kuryr.kill_daemon("vm").await?;
    world.kuryr.start_daemon("vm").await?;
    answers(world, Some(50)).await?;

    // The one that waits, and then there is room.
    pods.delete("pod-0").await?;
    pods.running("more").await?;
    pods.delete("pod-1").await?;
    becomes(world, Some(false)).await?;
    measured(world, Some(1)).await?;
    answers(world, None).await?;
    // From now on it is known before a pod fails.
    pods.create(&NewPod::new("last").on("vm")).await?;
    pods.running("last").await?;
    becomes(world, Some(true)).await?;
    answers(world, Some(50)).await
}

/// Waits until STATUS on `vm` answers with this code; `None`: that it is well.
async fn answers(world: &World, code: Option<u64>) -> anyhow::Result<()> {
    let answers = async {
        loop {
            let status = world.cni("vm", "STATUS", "", "").await?;
            if status.code() == code && status.success == code.is_none() {
                ensure!(code.is_none() || status.output.contains("node vm is full: "), "{}", status.output);
                return anyhow::Ok(());
            }
            // A runtime asks now and then, too.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, answers).await.with_context(|| format!("STATUS does not come to answer {code:?}"))?
}

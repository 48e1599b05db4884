//! Pods on nodes that are virtual machines and share the machine's port: `macvlan` and `ipvlan`.

use super::{
    cloud_faults::waiting_with,
    connectivity::{WITHIN, both_ways},
    nested::names,
    node_faults,
};
use crate::{
    cloud::Fault,
    dataplane::probe,
    world::{NewPod, World, addresses, pods::PATIENCE},
};
use anyhow::{Context, ensure};
use http::Method;
use kuryr_model::{KuryrPort, neutron::AddressPair};
use serde_json::json;
use std::time::Duration;

pub(super) async fn pods_share_the_port_of_their_machine(world: &mut World) -> anyhow::Result<()> {
    let parent = world.add_sharing_machine("vm", "macvlan").await?;
    let network = world.cloud.network();
    // Somebody's own.
    let theirs = AddressPair { ip_address: "192.0.2.0/24".to_owned(), mac_address: "02:00:00:00:00:01".parse()? };
    let revision = network.address_pairs(parent).await?.revision_number;
    network.set_address_pairs(parent, std::slice::from_ref(&theirs), revision).await?;
    let bare = world.nodes[1].clone();
    let one = world.run_pod(&NewPod::new("one").on("vm"), "one").await?;
    let other = world.run_pod(&NewPod::new("other").on("vm"), "other").await?;
    let bare = world.run_pod(&NewPod::new("bare").on(&bare), "bare").await?;
    both_ways(world, &one, &bare).await.context("with a pod on bare metal")?;
    both_ways(world, &one, &other).await.context("within the machine")?;
    let reserved = world.port_of(&one).await?;
    let off =
        world.inside()?.cloud.port(reserved.id.0).is_some_and(|port| !port.admin_state_up && port.host.is_empty());
    ensure!(off, "the port of the pod is on, or bound: {reserved:?}");
    ensure!(network.address_pairs(parent).await?.pairs.len() == 3, "{:?}", network.address_pairs(parent).await?);

    // Neutron takes ten unless it is told otherwise.
    let more = names(8);
    for name in &more {
        world.pods().create(&NewPod::new(name).on("vm")).await?;
    }
    let full = async |name: &String| {
        let full = |port: Option<&KuryrPort>| {
            port.is_some_and(|port| !port.spec.vifs.is_empty()) || waiting_with("NodeFull")(port)
        };
        let port = world.pods().port(name, "there, or told why not", PATIENCE, full).await?;
        anyhow::Ok(port.is_some_and(|port| port.spec.vifs.is_empty()))
    };
    let mut waiting = Vec::new();
    for name in &more {
        if full(name).await? {
            waiting.push(name);
        }
    }
    ensure!(waiting.len() == 1, "of eleven one has to wait: {waiting:?}");
    world.pods().delete("other").await?;
    world.pods().running(waiting[0]).await?;
    for name in more.iter().map(String::as_str).chain(["one"]) {
        world.pods().delete(name).await?;
    }
    for name in more.iter().map(String::as_str).chain(["one", "other"]) {
        world.pods().gone(name).await?;
    }
    let left = network.address_pairs(parent).await?.pairs;
    ensure!(left == [theirs], "what is not ours was touched, or ours is left: {left:?}");
    Ok(())
}

pub(super) async fn what_somebody_else_does_to_a_shared_port_meanwhile_is_kept(
    world: &mut World,
) -> anyhow::Result<()> {
    let parent = world.add_sharing_machine("vm", "macvlan").await?;
    let network = world.cloud.network();
    let faults = world.inside()?.cloud.faults().clone();
    // The controller has read the port, and its change is on its way.
    let slow = Fault::delay(Duration::from_secs(1)).on(Method::PUT, &format!("/v2.0/ports/{parent}"));
    let slow = faults.add(slow.times(1));
    world.pods().create(&NewPod::new("web").on("vm")).await?;
    faults.wait_for_hits(slow, 1).await;
    let theirs = AddressPair { ip_address: "192.0.2.0/24".to_owned(), mac_address: "02:00:00:00:00:01".parse()? };
    let revision = network.address_pairs(parent).await?.revision_number;
    network.set_address_pairs(parent, std::slice::from_ref(&theirs), revision).await?;
    world.pods().running("web").await?;
    let pairs = network.address_pairs(parent).await?.pairs;
    ensure!(pairs.len() == 2 && pairs.contains(&theirs), "{pairs:?}");
    let stale = world.inside()?.cloud.calls().filter(|call| call.status == Some(412)).len();
    ensure!(stale == 1, "{stale} changes were of an old revision");
    Ok(())
}

pub(super) async fn a_policy_says_that_it_does_not_hold_for_pods_that_share_a_port(
    world: &mut World,
) -> anyhow::Result<()> {
    world.add_sharing_machine("vm", "macvlan").await?;
    let bare = world.nodes[1].clone();
    let shares = world.run_pod(&NewPod::new("shares").on("vm"), "shares").await?;
    let bare = world.run_pod(&NewPod::new("bare").on(&bare), "bare").await?;
    let policies = world.policies();
    policies.create("closed", &json!({"podSelector": {}, "policyTypes": ["Ingress"]})).await?;
    let held = policies.waits_with("closed", "NotEnforced").await?;
    let message = held.ready().map(|ready| ready.message.clone()).unwrap_or_default();
    ensure!(message.contains("no effect on shares:") && !message.contains("bare"), "{message}");
    world.told("closed", "NotEnforced").await?;
    // And so it is.
    let address = *addresses(&shares)?.first().context("no address")?;
    probe::ping(&world.netns(&bare)?, address, WITHIN).await?;
    let (from, to) = (format!("{}/bare", world.namespace()), format!("{}/shares:80", world.namespace()));
    let (code, said) = world.kuryr.run(["can-reach", &from, &to].map(str::to_owned).to_vec()).await?;
    ensure!(code == Some(1) && said.contains("shares is not restricted"), "{code:?}: {said}");
    world.pods().delete("shares").await?;
    world.pods().gone("shares").await?;
    policies.ready("closed").await.map(drop)
}

pub(super) async fn a_machine_that_is_rebooted_gets_its_pods_back(world: &mut World) -> anyhow::Result<()> {
    world.add_sharing_machine("vm", "macvlan").await?;
    node_faults::rebooted(world, "vm").await
}

pub(super) async fn the_controller_is_killed_while_pods_come_to_a_shared_port(world: &mut World) -> anyhow::Result<()> {
    let parent = world.add_sharing_machine("vm", "macvlan").await?;
    let faults = world.inside()?.cloud.faults().clone();
    let path = format!("/v2.0/ports/{parent}");
    for (name, fault) in [("hung", Fault::hang()), ("unheard", Fault::hold_answer())] {
        let id = faults.add(fault.on(Method::PUT, &path).times(1));
        world.pods().create(&NewPod::new(name).on("vm")).await?;
        faults.wait_for_hits(id, 1).await;
        world.kuryr.kill_controllers().await?;
        faults.remove(id);
        world.kuryr.start_controller().await?;
        world.leader_elected().await?;
        world.pods().running(name).await?;
    }
    ensure!(world.pod_ports().await?.len() == 2, "a pod has two ports");
    let pairs = async || anyhow::Ok(world.cloud.network().address_pairs(parent).await?.pairs);
    ensure!(pairs().await?.len() == 2, "{:?}", pairs().await?);

    // The pod goes as well, so that nobody knows of its address but the port that holds it.
    let id = faults.add(Fault::hold_answer().on(Method::PUT, &path).times(1));
    world.pods().create(&NewPod::new("lost").on("vm")).await?;
    faults.wait_for_hits(id, 1).await;
    world.kuryr.kill_controllers().await?;
    faults.remove(id);
    world.pods().force_delete("lost").await?;
    ensure!(pairs().await?.len() == 3, "{:?}", pairs().await?);
    world.kuryr.start_controller().await?;
    world.leader_elected().await?;
    let mut changes = world.inside()?.cloud.subscribe();
    let gone = async {
        while pairs().await?.len() != 2 || world.pod_ports().await?.len() != 2 {
            changes.changed().await?;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, gone).await.context("the address of the pod that is gone is left")?
}

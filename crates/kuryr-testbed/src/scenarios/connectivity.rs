//! Who reaches whom.

use crate::{
    dataplane::probe,
    world::{NewPod, World, addresses, mtu},
};
use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use std::{net::IpAddr, path::Path, time::Duration};

pub(super) const WITHIN: Duration = Duration::from_secs(10);

/// TCP both ways, and ping.
pub(super) async fn reach(from: &Path, to: &Path, address: IpAddr) -> anyhow::Result<()> {
    let server = probe::listen(to, (address, 0).into()).await?;
    probe::reach(from, server.address(), WITHIN).await.with_context(|| format!("TCP to {}", server.address()))?;
    probe::ping(from, address, WITHIN).await.with_context(|| format!("ping to {address}"))?;
    Ok(())
}

pub(super) async fn both_ways(world: &World, one: &Pod, other: &Pod) -> anyhow::Result<()> {
    let (here, there) = (world.netns(one)?, world.netns(other)?);
    for address in addresses(other)? {
        reach(&here, &there, address).await?;
    }
    for address in addresses(one)? {
        reach(&there, &here, address).await?;
    }
    Ok(())
}

pub(super) async fn pods_on_one_node_reach_each_other(world: &mut World) -> anyhow::Result<()> {
    let node = world.nodes[0].clone();
    let one = world.run_pod(&NewPod::new("one").on(&node), "one").await?;
    let other = world.run_pod(&NewPod::new("other").on(&node), "other").await?;
    both_ways(world, &one, &other).await
}

pub(super) async fn pods_on_two_nodes_reach_each_other(world: &mut World) -> anyhow::Result<()> {
    let (here, there) = (world.nodes[0].clone(), world.nodes[1].clone());
    let one = world.run_pod(&NewPod::new("one").on(&here), "one").await?;
    let other = world.run_pod(&NewPod::new("other").on(&there), "other").await?;
    both_ways(world, &one, &other).await
}

pub(super) async fn a_pod_that_runs_is_reached_by_the_first_packet(world: &mut World) -> anyhow::Result<()> {
    world.set_up_ipv6().await?;
    let nodes = world.nodes.clone();
    let asker = world.run_pod(&NewPod::new("asker").on(&nodes[0]), "asker").await?;
    let from = world.netns(&asker)?;
    for number in 0..10 {
        let name = format!("asked-{number}");
        let pod = world.run_pod(&NewPod::new(&name).on(&nodes[number % nodes.len()]), &name).await?;
        for address in addresses(&pod)? {
            // One packet, that nobody sends again.
            probe::ping(&from, address, WITHIN).await.with_context(|| format!("the first packet to {name}"))?;
        }
    }
    Ok(())
}

pub(super) async fn a_pod_and_a_vm_reach_each_other(world: &mut World) -> anyhow::Result<()> {
    let vm = world.start_vm("vm").await?;
    let pod = world.run_pod(&NewPod::new("pod"), "pod").await?;
    let inside = world.netns(&pod)?;
    for address in &vm.addresses {
        reach(&inside, &vm.netns, *address).await.context("pod to VM")?;
    }
    for address in addresses(&pod)? {
        reach(&vm.netns, &inside, address).await.context("VM to pod")?;
    }
    world.stop_vm(vm).await
}

pub(super) async fn pods_have_an_address_of_each_family_on_a_dual_stack_network(
    world: &mut World,
) -> anyhow::Result<()> {
    world.set_up_ipv6().await?;
    // Where there is more than one node, on two.
    let (here, there) = (world.nodes[0].clone(), world.nodes[world.nodes.len() - 1].clone());
    let one = world.run_pod(&NewPod::new("one").on(&here), "one").await?;
    let other = world.run_pod(&NewPod::new("other").on(&there), "other").await?;
    for pod in [&one, &other] {
        let ips = addresses(pod)?;
        ensure!(ips.len() == 2 && ips[0].is_ipv4() && ips[1].is_ipv6(), "the pod's addresses are {ips:?}");
    }
    both_ways(world, &one, &other).await?;
    // The real world is the same for all scenarios.
    for name in ["one", "other"] {
        world.pods().delete(name).await?;
        world.pods().gone(name).await?;
    }
    world.take_down_ipv6().await
}

pub(super) async fn pods_on_an_ipv6_network_reach_each_other(world: &mut World) -> anyhow::Result<()> {
    world.use_ipv6_only().await?;
    let (here, there) = (world.nodes[0].clone(), world.nodes[1].clone());
    let one = world.run_pod(&NewPod::new("one").on(&here), "one").await?;
    let other = world.run_pod(&NewPod::new("other").on(&there), "other").await?;
    let ips = addresses(&one)?;
    ensure!(ips.len() == 1 && ips[0].is_ipv6(), "the pod's addresses are {ips:?}");
    both_ways(world, &one, &other).await
}

pub(super) async fn a_pod_has_the_mtu_of_its_network(world: &mut World) -> anyhow::Result<()> {
    let pod = world.run_pod(&NewPod::new("pod"), "pod").await?;
    let port = world.port_of(&pod).await?;
    let network = world.cloud.network().networks().get(port.network_id).await?;
    let found = mtu(&world.netns(&pod)?, "eth0")?;
    ensure!(found == network.mtu, "the pod's MTU is {found}, that of its network {}", network.mtu);
    Ok(())
}

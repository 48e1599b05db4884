//! Pods come and go.

use crate::world::{NewPod, World, addresses, pods::PATIENCE};
use anyhow::ensure;
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kuryr_model::{DEVICE_OWNER, KuryrPort};
use std::{collections::HashSet, net::IpAddr, time::Duration};
use tokio::time::Instant;

pub(super) async fn a_port_tells_whose_it_is(world: &mut World) -> anyhow::Result<()> {
    let pod = world.run_pod(&NewPod::new("web"), "web").await?;
    let port = world.port_of(&pod).await?;
    ensure!(port.name == format!("{}/web", world.namespace()), "the port's name is {:?}", port.name);
    ensure!(port.device_owner == DEVICE_OWNER && Some(port.device_id.clone()) == pod.uid(), "{port:?}");
    let ips: Vec<IpAddr> = port.fixed_ips.iter().map(|fixed| fixed.ip_address).collect();
    ensure!(ips == addresses(&pod)?, "the port has {ips:?}, the pod {:?}", addresses(&pod)?);
    ensure!(port.security_groups.len() == 2, "the port's groups are {:?}", port.security_groups);
    Ok(())
}

/// Makes `count` pods at once and waits until all run.
pub(super) async fn many(world: &World, count: usize) -> anyhow::Result<Vec<Pod>> {
    let pods = world.pods();
    let names: Vec<String> = (0..count).map(|number| format!("pod-{number}")).collect();
    pods.create_all(&names).await?;
    try_join_all(names.iter().map(|name| pods.running(name))).await
}

/// That no two pods share an address, and each has one port.
pub(super) async fn all_apart(world: &World, pods: &[Pod]) -> anyhow::Result<()> {
    let mut seen = HashSet::new();
    for pod in pods {
        for address in addresses(pod)? {
            ensure!(seen.insert(address), "{address} is given twice, the second time to {}", pod.name_any());
        }
    }
    let ports = world.pod_ports().await?;
    let mine: Vec<_> = ports.iter().filter(|port| port.name.starts_with(&format!("{}/", world.namespace()))).collect();
    ensure!(mine.len() == pods.len(), "{} ports for {} pods", mine.len(), pods.len());
    Ok(())
}

pub(super) async fn fifty_pods_at_once(world: &mut World) -> anyhow::Result<()> {
    let pods = many(world, world.crowd()).await?;
    all_apart(world, &pods).await
}

pub(super) async fn a_pod_recreated_under_its_name_twenty_times(world: &mut World) -> anyhow::Result<()> {
    let pods = world.pods();
    let mut uids = HashSet::new();
    for _ in 0..20 {
        let uid = pods.create(&NewPod::new("web-0")).await?;
        let pod = pods.running("web-0").await?;
        ensure!(pod.uid() == Some(uid.clone()), "another pod than the one that was made runs");
        // Exactly one port with this pod's mark: nothing shared, nothing lost.
        let port = world.port_of(&pod).await?;
        ensure!(port.device_id == uid, "the port belongs to {:?}", port.device_id);
        ensure!(uids.insert(uid), "a UID came twice");
        pods.delete("web-0").await?;
        // Recreated as soon as the name is free, with the old KuryrPort perhaps still there.
        pods.when("web-0", "gone", PATIENCE, |pod: Option<&Pod>| pod.is_none()).await?;
    }
    pods.port_gone("web-0").await
}

pub(super) async fn a_pod_deleted_while_its_add_waits(world: &mut World) -> anyhow::Result<()> {
    let pods = world.pods();
    // Without a controller there is no port, and the ADD waits.
    for controller in world.kuryr.controllers() {
        world.kuryr.stop_controller(controller).await?;
    }
    pods.create(&NewPod::new("waits").on(&world.nodes[0])).await?;
    world.add_waits(&world.nodes[0]).await?;
    pods.delete("waits").await?;
    world.kuryr.start_controller().await?;
    pods.gone("waits").await
}

pub(super) async fn an_add_for_a_pod_that_is_gone_does_not_wait(world: &mut World) -> anyhow::Result<()> {
    // A runtime that has not heard that the pod, which never had a KuryrPort, was deleted.
    let node = world.nodes[0].clone();
    let started = Instant::now();
    let answer = world.cni_add(&node, "ghost", "0c7a3a0d-1e5b-4c21-9c7a-3a0d1e5b7c21", "/proc/self/ns/net").await?;
    ensure!(answer.code() == Some(3) && answer.output.contains("ghost was deleted"), "{}", answer.output);
    ensure!(started.elapsed() < Duration::from_secs(10), "it waited for {:?}", started.elapsed());
    // The same where another pod has its name by now.
    world.run_pod(&NewPod::new("again").on(&node), "again").await?;
    let answer = world.cni_add(&node, "again", "0c7a3a0d-1e5b-4c21-9c7a-3a0d1e5b7c22", "/proc/self/ns/net").await?;
    ensure!(answer.code() == Some(3) && answer.output.contains("another pod"), "{}", answer.output);
    Ok(())
}

pub(super) async fn a_force_deleted_pod_gives_its_port_back(world: &mut World) -> anyhow::Result<()> {
    let pod = world.run_pod(&NewPod::new("forced"), "forced").await?;
    let port = world.port_of(&pod).await?;
    world.pods().force_delete("forced").await?;
    world.pods().gone("forced").await?;
    let left = world.pod_ports().await?;
    ensure!(left.iter().all(|other| other.id != port.id), "port {} is still there", port.id);
    Ok(())
}

pub(super) async fn a_completed_pod_gives_its_port_back(world: &mut World) -> anyhow::Result<()> {
    let pods = world.pods();
    pods.create(&NewPod::new("job").job(&["/bin/sh", "-c", "exit 0"])).await?;
    pods.succeeded("job").await?;
    pods.port_gone("job").await?;
    let pod = pods.api().get("job").await?;
    ensure!(world.port_of(&pod).await.is_err(), "the completed pod still has a port");
    Ok(())
}

pub(super) async fn a_host_network_pod_is_left_alone(world: &mut World) -> anyhow::Result<()> {
    let pods = world.pods();
    world.run_pod(&NewPod::new("host").on(&world.nodes[0]).host_network(), "host").await?;
    // A pod made after it has its port, so the controller has seen both.
    world.run_pod(&NewPod::new("after"), "after").await?;
    let port: Option<KuryrPort> = pods.ports().get_opt("host").await?;
    ensure!(port.is_none(), "a hostNetwork pod got a KuryrPort");
    Ok(())
}

//! Pods in nodes that are virtual machines, each a subport of its machine's trunk. The real thing: with guests that have a kernel of
//! their own, Neutron's trunks, and OVN between them.

use super::connectivity::WITHIN;
use crate::world::{Asker, Machine, NewPod, World, addresses, cluster_ip, machines::consoles, services::SERVED};
use anyhow::{Context, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kuryr_model::vif::PlugDriver;
use serde_json::json;
use std::net::IpAddr;

/// The machines of all these scenarios: booted by the first.
const MACHINES: [&str; 2] = ["vm0", "vm1"];

/// A pod on this node that serves its name.
fn server(name: &str, node: &str) -> NewPod {
    let serve = format!(
        "mkdir -p /www/{name} && echo {name} > /www/{name}/index.html && exec httpd -f -p {SERVED} -h /www/{name}"
    );
    NewPod::new(name).on(node).label("name", name).command(&["sh", "-c", &serve])
}

/// Runs such pods, all at once.
async fn servers(world: &World, places: &[(&str, &str)]) -> anyhow::Result<Vec<Pod>> {
    let run = async |name: &str, node: &str| world.run_pod(&server(name, node), name).await;
    try_join_all(places.iter().map(|(name, node)| run(name, node))).await
}

fn address(pod: &Pod) -> anyhow::Result<IpAddr> {
    addresses(pod)?.first().copied().context("no address")
}

/// Tells a story of the machines; if it fails, with what they say.
async fn with_machines(
    world: &mut World,
    story: impl AsyncFnOnce(&mut World, &[Machine]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let machines = world.machines(&MACHINES).await?;
    let told = story(world, &machines).await;
    told.map_err(|error| anyhow::anyhow!("{error:#}\n{}", consoles(&machines)))
}

/// Everybody finds every server, and each pod is pinged by everybody.
async fn all_find(askers: &[(String, Asker<'_>)], pods: &[Pod]) -> anyhow::Result<()> {
    for (who, asker) in askers {
        for pod in pods {
            let (name, at) = (pod.name_any(), address(pod)?);
            asker.finds(&[&name], at, SERVED, WITHIN).await.with_context(|| format!("from {who} to {name}"))?;
            asker.pings(at, WITHIN).await.with_context(|| format!("from {who} to {name}"))?;
        }
    }
    Ok(())
}

/// The pods, by their names, as those who send.
async fn askers<'a>(
    world: &'a World,
    machines: &'a [Machine],
    pods: &[Pod],
) -> anyhow::Result<Vec<(String, Asker<'a>)>> {
    let mut askers = Vec::new();
    for pod in pods {
        askers.push((pod.name_any(), world.asker(machines, pod).await?));
    }
    Ok(askers)
}

pub(super) async fn pods_in_virtual_machines_and_all_others_reach_each_other(world: &mut World) -> anyhow::Result<()> {
    with_machines(world, async |world, machines| {
        let bare = world.nodes[0].clone();
        let places = [("a", "vm0"), ("b", "vm0"), ("c", "vm1"), ("bare", &*bare)];
        let pods = servers(world, &places).await?;
        for pod in &pods[..3] {
            let port = world.pods().ports().get(&pod.name_any()).await?;
            let plugs = port.spec.vifs.iter().map(|vif| (vif.plug.driver, vif.plug.parent.map(|parent| parent.port_id)));
            let machine = machines.iter().find(|machine| Some(&*machine.name) == port_node(pod));
            let parent = machine.map(|machine| machine.port);
            ensure!(
                plugs.clone().eq([(PlugDriver::Vlan, parent)]),
                "{} is plugged as {:?}, not as a VLAN of {parent:?}",
                pod.name_any(),
                plugs.collect::<Vec<_>>()
            );
        }
        let mut askers = askers(world, machines, &pods).await?;
        for machine in machines {
            askers.push((machine.name.clone(), world.machine_asker(machine)?));
        }
        all_find(&askers, &pods).await?;
        // And the machines themselves, by the ports that carry the pods.
        for machine in machines {
            let serve = format!(
                "mkdir -p /www/self && echo {} > /www/self/index.html && httpd -p 81 -h /www/self",
                machine.name
            );
            world.ask_machine(machine, &format!("{serve} || true")).await?;
            for (who, asker) in &askers {
                let what = || format!("from {who} to machine {}", machine.name);
                asker.finds(&[&machine.name], machine.address, 81, WITHIN).await.with_context(what)?;
            }
        }
        Ok(())
    })
    .await
}

fn port_node(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

pub(super) async fn services_lead_to_and_from_pods_in_virtual_machines(world: &mut World) -> anyhow::Result<()> {
    with_machines(world, async |world, machines| {
        let bare = world.nodes[0].clone();
        let pods = servers(world, &[("a", "vm0"), ("b", "vm0"), ("c", "vm1"), ("bare", &*bare)]).await?;
        let services = world.services();
        let one = json!({"selector": {"app": null, "name": "a"}});
        let all = json!({"selector": {"app": "kuryr-scenario"}});
        let (one, all) = tokio::try_join!(services.create("one", one), services.create("all", all))?;
        tokio::try_join!(services.ready("one", 1), services.ready("all", 4))?;
        let askers = askers(world, machines, &pods).await?;
        for (who, asker) in &askers {
            let (one, all) = (cluster_ip(&one)?, cluster_ip(&all)?);
            asker.finds(&["a"], one, 80, WITHIN).await.with_context(|| format!("from {who} to the Service of a"))?;
            for _ in 0..4 {
                let found = asker.finds(&["a", "b", "c", "bare"], all, 80, WITHIN).await;
                found.with_context(|| format!("from {who} to the Service of all"))?;
            }
        }
        for machine in machines {
            let found = world.machine_asker(machine)?.finds(&["a"], cluster_ip(&one)?, 80, WITHIN).await;
            found.with_context(|| format!("from machine {} to the Service of a", machine.name))?;
        }
        Ok(())
    })
    .await
}

pub(super) async fn policies_hold_between_pods_of_one_virtual_machine(world: &mut World) -> anyhow::Result<()> {
    with_machines(world, async |world, machines| {
        let bare = world.nodes[0].clone();
        let places = [("a", "vm0"), ("friend", "vm0"), ("stranger", "vm0"), ("far-friend", "vm1"), ("far-stranger", &*bare)];
        let pods = servers(world, &places).await?;
        let askers = askers(world, machines, &pods).await?;
        let target = address(&pods[0])?;
        let expect = async |allowed: &[&str], what: &str| {
            for (who, asker) in &askers[1..] {
                let context = || format!("{what}: from {who} to a");
                match allowed.contains(&who.as_str()) {
                    true => asker.finds(&["a"], target, SERVED, WITHIN).await.with_context(context)?,
                    false => asker.hears_nothing(target, SERVED, WITHIN).await.with_context(context)?,
                }
            }
            anyhow::Ok(())
        };
        let everybody = ["friend", "stranger", "far-friend", "far-stranger"];
        expect(&everybody, "without a policy").await?;
        let from = |names: &[&str]| {
            json!({
                "podSelector": {"matchLabels": {"name": "a"}},
                "ingress": [{
                    "from": [{"podSelector": {"matchExpressions": [{"key": "name", "operator": "In", "values": names}]}}],
                    "ports": [{"port": SERVED}],
                }],
            })
        };
        let policies = world.policies_of(world.namespace());
        policies.create("friends", &from(&["friend", "far-friend"])).await?;
        expect(&["friend", "far-friend"], "friends only").await?;
        policies.replace("friends", &from(&["stranger"])).await?;
        expect(&["stranger"], "the other way round").await?;
        policies.delete("friends").await?;
        expect(&everybody, "without the policy").await
    })
    .await
}

//! Pods on nodes that are virtual machines, each a subport of its machine's trunk. The real thing: guests with a kernel of their own,
//! Neutron's trunks, and OVN between them. What the controller does in every case is in `nested`.

use super::{cloud_faults::waiting_with, connectivity::WITHIN};
use crate::world::{
    Asker, Guest, NewPod, Server, World, addresses, cluster_ip, guests::consoles, pods::PATIENCE, services::SERVED,
};
use anyhow::{Context, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kuryr_model::vif::PlugDriver;
use serde_json::json;
use std::net::IpAddr;

/// The machines of all these scenarios: booted by the first.
const GUESTS: [&str; 2] = ["vm0", "vm1"];

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

/// Tells a story of the guests, after which each has what its pods need and no more. If it fails, with what they say.
async fn with_guests(
    world: &mut World,
    story: impl AsyncFnOnce(&mut World, &[Guest]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let guests = world.guests(&GUESTS).await?;
    let told = async {
        story(world, &guests).await?;
        for guest in &guests {
            let audited = world.ask_guest(guest, "kuryr audit --node-only --settle=0").await;
            audited.with_context(|| format!("the audit of node {}", guest.name))?;
        }
        anyhow::Ok(())
    };
    let told = told.await;
    told.map_err(|error| anyhow::anyhow!("{error:#}\n{}", consoles(&guests)))
}

/// Everybody finds every server, and pings the first.
async fn all_find(askers: &[(String, Asker<'_>)], pods: &[Pod]) -> anyhow::Result<()> {
    let names: Vec<String> = pods.iter().map(ResourceExt::name_any).collect();
    let names: Vec<[&str; 1]> = names.iter().map(|name| [name.as_str()]).collect();
    let servers =
        names.iter().zip(pods).map(|(names, pod)| Ok(Server { names, address: address(pod)?, number: SERVED }));
    let servers: Vec<Server<'_>> = servers.collect::<anyhow::Result<_>>()?;
    for (who, asker) in askers {
        asker.finds(&servers, WITHIN).await.with_context(|| format!("from {who}"))?;
        asker.pings(servers[0].address, WITHIN).await.with_context(|| format!("from {who}"))?;
    }
    Ok(())
}

/// The pods, by their names, as those who send.
async fn askers<'a>(world: &'a World, guests: &'a [Guest], pods: &[Pod]) -> anyhow::Result<Vec<(String, Asker<'a>)>> {
    let mut askers = Vec::new();
    for pod in pods {
        askers.push((pod.name_any(), world.asker(guests, pod).await?));
    }
    Ok(askers)
}

pub(super) async fn pods_in_virtual_machines_and_all_others_reach_each_other(world: &mut World) -> anyhow::Result<()> {
    with_guests(world, async |world, guests| {
        let bare = world.nodes[0].clone();
        let places = [("a", "vm0"), ("b", "vm0"), ("c", "vm1"), ("bare", &*bare)];
        let pods = servers(world, &places).await?;
        for pod in &pods[..3] {
            let port = world.pods().ports().get(&pod.name_any()).await?;
            let plugs =
                port.spec.vifs.iter().map(|vif| (vif.plug.driver, vif.plug.parent.map(|parent| parent.port_id)));
            let guest = guests.iter().find(|guest| Some(&*guest.name) == port_node(pod));
            let parent = guest.map(|guest| guest.port);
            ensure!(
                plugs.clone().eq([(PlugDriver::Vlan, parent)]),
                "{} is plugged as {:?}, not as a VLAN of {parent:?}",
                pod.name_any(),
                plugs.collect::<Vec<_>>()
            );
        }
        let mut askers = askers(world, guests, &pods).await?;
        for guest in guests {
            askers.push((guest.name.clone(), world.guest_asker(guest)?));
        }
        all_find(&askers, &pods).await?;
        // And the machines themselves, by the ports that carry the pods.
        for guest in guests {
            let serve =
                format!("mkdir -p /www/self && echo {} > /www/self/index.html && httpd -p 81 -h /www/self", guest.name);
            world.ask_guest(guest, &format!("{serve} || true")).await?;
        }
        let names: Vec<[&str; 1]> = guests.iter().map(|guest| [guest.name.as_str()]).collect();
        let servers =
            names.iter().zip(guests).map(|(names, guest)| Server { names, address: guest.address, number: 81 });
        let servers: Vec<Server<'_>> = servers.collect();
        for (who, asker) in &askers {
            asker.finds(&servers, WITHIN).await.with_context(|| format!("from {who} to the machines"))?;
        }
        Ok(())
    })
    .await
}

fn port_node(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

pub(super) async fn services_lead_to_and_from_pods_in_virtual_machines(world: &mut World) -> anyhow::Result<()> {
    with_guests(world, async |world, guests| {
        let bare = world.nodes[0].clone();
        let pods = servers(world, &[("a", "vm0"), ("b", "vm0"), ("c", "vm1"), ("bare", &*bare)]).await?;
        let services = world.services();
        let one = json!({"selector": {"app": null, "name": "a"}});
        let all = json!({"selector": {"app": "kuryr-scenario"}});
        let (one, all) = tokio::try_join!(services.create("one", one), services.create("all", all))?;
        tokio::try_join!(services.ready("one", 1), services.ready("all", 4))?;
        let askers = askers(world, guests, &pods).await?;
        let one = Server { names: &["a"], address: cluster_ip(&one)?, number: 80 };
        let all = Server { names: &["a", "b", "c", "bare"], address: cluster_ip(&all)?, number: 80 };
        for (who, asker) in &askers {
            asker.finds(&[one, all, all, all], WITHIN).await.with_context(|| format!("from {who} to the Services"))?;
        }
        for guest in guests {
            let found = world.guest_asker(guest)?.finds(&[one], WITHIN).await;
            found.with_context(|| format!("from machine {} to the Service of a", guest.name))?;
        }
        Ok(())
    })
    .await
}

pub(super) async fn policies_hold_between_pods_of_one_virtual_machine(world: &mut World) -> anyhow::Result<()> {
    with_guests(world, async |world, guests| {
        let bare = world.nodes[0].clone();
        let places = [("a", "vm0"), ("friend", "vm0"), ("stranger", "vm0"), ("far-friend", "vm1"), ("far-stranger", &*bare)];
        let pods = servers(world, &places).await?;
        let askers = askers(world, guests, &pods).await?;
        let target = address(&pods[0])?;
        let server = Server { names: &["a"], address: target, number: SERVED };
        let expect = async |allowed: &[&str], what: &str| {
            for (who, asker) in &askers[1..] {
                let context = || format!("{what}: from {who} to a");
                match allowed.contains(&who.as_str()) {
                    true => asker.finds(&[server], WITHIN).await.with_context(context)?,
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

pub(super) async fn a_daemon_in_a_virtual_machine_is_killed_and_traffic_goes_on(
    world: &mut World,
) -> anyhow::Result<()> {
    with_guests(world, async |world, guests| {
        let before = servers(world, &[("a", "vm0"), ("b", "vm1")]).await?;
        let askers = askers(world, guests, &before).await?;
        // What supervises it there starts it anew.
        world.ask_guest(&guests[0], "kill -9 $(pidof kuryr)").await?;
        all_find(&askers, &before).await.context("while it is away")?;
        let after = servers(world, &[("c", "vm0")]).await?;
        all_find(&askers, &after).await.context("a pod that came after")
    })
    .await
}

pub(super) async fn the_trunk_of_a_virtual_machine_is_deleted_and_made_again(world: &mut World) -> anyhow::Result<()> {
    let told = with_guests(world, async |world, guests| {
        let bare = world.nodes[0].clone();
        let before = servers(world, &[("a", "vm0"), ("bare", &*bare)]).await?;
        let network = world.cloud.network();
        let trunks = network.trunks();
        let trunk = trunks.of_parent(guests[0].port).await?.context("the machine has no trunk")?;
        let id = async |name: &str| {
            let held = world.pods().ports().get(name).await?;
            held.spec.vifs.first().and_then(|vif| vif.plug.vlan).context("no VLAN id")
        };
        let had = id("a").await?;
        trunks.delete(trunk.id).await?;
        world.pods().create(&server("b", "vm0")).await?;
        world.pods().port("b", "told why", PATIENCE, waiting_with("TrunkMissing")).await?;
        world.make_trunk(&trunk.name, guests[0].port).await?;
        let next = world.pods().running("b").await?;
        ensure!(id("a").await? == had, "the pod that was cut off has another VLAN id");
        // Those that were cut off are reached again, as well as the new one.
        let pods: Vec<Pod> = before.into_iter().chain([next]).collect();
        let askers = askers(world, guests, &pods).await?;
        all_find(&askers, &pods).await
    })
    .await;
    // Whatever became of it, the next scenario needs the trunk: this makes it where it is missing.
    world.guests(&GUESTS).await?;
    told
}

pub(super) async fn the_controller_is_killed_while_pods_in_machines_come_and_go(
    world: &mut World,
) -> anyhow::Result<()> {
    with_guests(world, async |world, guests| {
        let pods = world.pods();
        let work = tokio::spawn(async move {
            let names: Vec<String> = (0..6).map(|number| format!("pod-{number}")).collect();
            for _ in 0..2 {
                try_join_all(names.iter().map(async |name| pods.create(&server(name, "vm0")).await)).await?;
                try_join_all(names.iter().map(|name| pods.running(name))).await?;
                try_join_all(names.iter().map(|name| pods.delete(name))).await?;
                try_join_all(names.iter().map(|name| pods.gone(name))).await?;
            }
            anyhow::Ok(())
        });
        world.kill_while(work, 5, 100..4000).await?;
        let trunk = world.cloud.network().trunks().of_parent(guests[0].port).await?.context("no trunk")?;
        ensure!(trunk.sub_ports.is_empty(), "subports are left: {:?}", trunk.sub_ports);
        Ok(())
    })
    .await
}

pub(super) async fn a_virtual_machine_that_was_switched_off_gets_its_pods_back(
    world: &mut World,
) -> anyhow::Result<()> {
    with_guests(world, async |world, guests| {
        let pods = servers(world, &[("a", "vm0"), ("b", "vm0"), ("c", "vm1")]).await?;
        world.reboot(&guests[0]).await?;
        for pod in &pods[..2] {
            world.plugged(&guests[0], pod).await?;
        }
        // At the addresses that they had.
        let askers = askers(world, guests, &pods).await?;
        all_find(&askers, &pods).await
    })
    .await
}

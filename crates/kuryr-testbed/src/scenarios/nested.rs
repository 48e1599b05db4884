//! Pods on nodes that are virtual machines: subports of their trunks.

use super::{bad_input::told, cloud_faults::waiting_with, pools::PORTS};
use crate::{
    cloud::{self, Fault},
    world::{KnownBy, Machine, NewPod, World, pods::PATIENCE},
};
use anyhow::{Context, ensure};
use futures::future::try_join_all;
use http::Method;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use kuryr_model::{KuryrPort, PARENT_PORT_ANNOTATION, PortId, neutron::PortStatus};
use kuryr_openstack::network::{NewPort, networks::NewNetwork};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    time::Duration,
};

/// Runs pods of these names on a machine.
pub(super) async fn run(world: &World, machine: &Machine, names: &[String]) -> anyhow::Result<Vec<Pod>> {
    let pods: Vec<NewPod> = names.iter().map(|name| NewPod::new(name).on(&machine.name)).collect();
    let all = world.pods();
    try_join_all(pods.iter().map(|pod| all.create(pod))).await?;
    try_join_all(names.iter().map(|name| all.running(name))).await
}

pub(super) fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("pod-{number}")).collect()
}

/// The requests that changed subports.
fn changes(world: &World) -> anyhow::Result<usize> {
    let calls = world.inside()?.cloud.calls().all();
    Ok(calls.iter().filter(|call| call.method == Method::PUT && call.path.contains("_subports")).count())
}

fn add_subports(machine: &Machine) -> String {
    format!("/v2.0/trunks/{}/add_subports", machine.trunk)
}

pub(super) async fn a_pod_on_a_virtual_machine_is_a_subport_of_its_trunk(world: &mut World) -> anyhow::Result<()> {
    for (name, known_by) in [("vm-a", KnownBy::Address), ("vm-s", KnownBy::Server), ("vm-p", KnownBy::Annotation)] {
        let machine = world.add_machine(name, known_by).await?;
        let pod = world.run_pod(&NewPod::new("web").on(name), "web").await?;
        let port = world.port_of(&pod).await?;
        ensure!(port.device_owner == "trunk:subport" && port.device_id.is_empty(), "{port:?}");
        let ids = world.agree(&machine).await?;
        ensure!(ids.keys().eq([&port.id]), "{ids:?}");
        world.pods().delete("web").await?;
        world.pods().gone("web").await?;
        ensure!(world.subports(machine.trunk).await?.is_empty(), "the subport is still there");
        ensure!(world.pod_ports().await?.is_empty(), "the port is still there");
    }
    Ok(())
}

pub(super) async fn pods_of_machines_and_of_bare_metal_are_in_one_cluster(world: &mut World) -> anyhow::Result<()> {
    let (one, two) =
        (world.add_machine("vm-1", KnownBy::Address).await?, world.add_machine("vm-2", KnownBy::Server).await?);
    let bare = world.nodes[0].clone();
    let (here, there) = (names(5), ["a", "b", "c"].map(str::to_owned));
    let bare = NewPod::new("bare").on(&bare);
    let (first, second, bare) =
        tokio::join!(run(world, &one, &here), run(world, &two, &there), world.run_pod(&bare, "bare"));
    first?;
    second?;
    let port = world.port_of(&bare?).await?;
    ensure!(port.host_id == world.nodes[0], "the pod on bare metal is bound to {:?}", port.host_id);
    // Ids are each trunk's own.
    let (first, second) = (world.agree(&one).await?, world.agree(&two).await?);
    let ids = |of: &BTreeMap<PortId, u32>| of.values().copied().collect::<BTreeSet<u32>>();
    ensure!(ids(&first) == (1..=5).collect() && ids(&second) == (1..=3).collect(), "{first:?} {second:?}");
    let (_, status) = world.kuryr.run(vec!["status".to_owned()]).await?;
    let line = format!("2 of {} nodes, the ports of 2 are known; 8 subports", world.nodes.len() + 2);
    ensure!(status.contains(&line) && !status.contains("knows no host"), "{line:?} is not in {status}");
    Ok(())
}

pub(super) async fn fifty_pods_of_a_machine_share_requests(world: &mut World) -> anyhow::Result<()> {
    let machine = world.add_machine("vm", KnownBy::Address).await?;
    let names = names(50);
    world.inside()?.cloud.calls().reset();
    run(world, &machine, &names).await?;
    ensure!(world.agree(&machine).await?.len() == 50);
    let requests = changes(world)?;
    ensure!(requests <= 10, "{requests} requests put 50 pods on the trunk");
    try_join_all(names.iter().map(|name| async { world.pods().delete(name).await })).await?;
    try_join_all(names.iter().map(|name| async { world.pods().gone(name).await })).await?;
    let requests = changes(world)? - requests;
    ensure!(requests <= 15, "{requests} requests took 50 pods off the trunk");
    Ok(())
}

pub(super) async fn two_hundred_pods_of_a_machine_at_once(world: &mut World) -> anyhow::Result<()> {
    let machine = world.add_machine("vm", KnownBy::Address).await?;
    let names = names(200);
    world.inside()?.cloud.calls().reset();
    run(world, &machine, &names).await?;
    ensure!(world.agree(&machine).await?.len() == 200);
    let made = world.inside()?.cloud.calls().filter(|call| call.method == Method::POST && call.template == PORTS).len();
    let requests = changes(world)?;
    ensure!(made <= 70 && requests <= 40, "{made} and {requests} requests made 200 ports and put them on the trunk");
    Ok(())
}

pub(super) async fn a_bulk_for_a_trunk_is_half_done(world: &mut World) -> anyhow::Result<()> {
    let machine = world.add_machine("vm", KnownBy::Address).await?;
    let faults = world.inside()?.cloud.faults().clone();
    let id = faults.add(Fault::do_half().on(Method::POST, PORTS).times(2));
    run(world, &machine, &names(12)).await?;
    ensure!(faults.hits(id) > 0, "the fault never struck");
    ensure!(world.agree(&machine).await?.len() == 12);
    ensure!(world.pod_ports().await?.len() == 12, "a pod has two ports");
    Ok(())
}

pub(super) async fn the_controller_is_killed_between_port_and_subport(world: &mut World) -> anyhow::Result<()> {
    let machine = world.add_machine("vm", KnownBy::Address).await?;
    run(world, &machine, &["before".to_owned()]).await?;
    let faults = world.inside()?.cloud.faults().clone();
    // Never carried out; and carried out, but for the answer.
    for (name, fault) in [("hung", Fault::hang()), ("unheard", Fault::hold_answer())] {
        let id = faults.add(fault.on(Method::PUT, &add_subports(&machine)).times(1));
        let names: Vec<String> = (0..3).map(|number| format!("{name}-{number}")).collect();
        for name in &names {
            world.pods().create(&NewPod::new(name).on(&machine.name)).await?;
        }
        faults.wait_for_hits(id, 1).await;
        world.kuryr.kill_controllers().await?;
        faults.remove(id);
        world.kuryr.start_controller().await?;
        world.leader_elected().await?;
        try_join_all(names.iter().map(|name| async { world.pods().running(name).await })).await?;
    }
    world.agree(&machine).await?;
    ensure!(world.pod_ports().await?.len() == 7, "a pod has two ports");
    Ok(())
}

pub(super) async fn the_controller_is_killed_while_pods_of_a_machine_come_and_go(
    world: &mut World,
) -> anyhow::Result<()> {
    let machine = world.add_machine("vm", KnownBy::Address).await?;
    let (pods, names) = (world.pods(), names(30));
    let node = machine.name.clone();
    let work = tokio::spawn({
        let (pods, names) = (pods.clone(), names.clone());
        async move {
            for _ in 0..2 {
                let new: Vec<NewPod> = names.iter().map(|name| NewPod::new(name).on(&node)).collect();
                try_join_all(new.iter().map(|pod| pods.create(pod))).await?;
                try_join_all(names.iter().map(|name| pods.running(name))).await?;
                try_join_all(names.iter().map(|name| pods.delete(name))).await?;
                try_join_all(names.iter().map(|name| pods.gone(name))).await?;
            }
            anyhow::Ok(())
        }
    });
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(50..2000))).await;
        if work.is_finished() {
            break;
        }
        world.kuryr.kill_controllers().await?;
        world.kuryr.start_controller().await?;
        world.leader_elected().await?;
    }
    work.await??;
    ensure!(world.subports(machine.trunk).await?.is_empty(), "subports are left");
    Ok(())
}

pub(super) async fn a_trunk_is_deleted_behind_our_back(world: &mut World) -> anyhow::Result<()> {
    let mut machine = world.add_machine("vm", KnownBy::Address).await?;
    run(world, &machine, &names(3)).await?;
    let before = world.agree(&machine).await?;
    world.cloud.network().trunks().delete(machine.trunk).await?;
    world.pods().create(&NewPod::new("next").on("vm")).await?;
    world.pods().port("next", "told why", PATIENCE, waiting_with("TrunkMissing")).await?;
    machine.trunk = world.make_trunk("again", machine.parent).await?;
    world.pods().running("next").await?;
    // The pods that were cut off come back with the ids that their interfaces have.
    let after = world.agree(&machine).await?;
    ensure!(before.iter().all(|(port, id)| after.get(port) == Some(id)), "{before:?} became {after:?}");
    Ok(())
}

pub(super) async fn a_trunk_that_nobody_has_to_do_with_is_missed_at_the_next_look(
    world: &mut World,
) -> anyhow::Result<()> {
    let mut machine = world.add_machine("vm", KnownBy::Address).await?;
    let cloud = world.inside()?.cloud.clone();
    cloud.set_port_status(machine.parent.0, cloud::PortStatus::Active);
    run(world, &machine, &names(2)).await?;
    let before = world.agree(&machine).await?;
    for port in before.keys() {
        cloud.set_port_status(port.0, cloud::PortStatus::Active);
    }
    let pod = format!("{}/pod-0", world.namespace());
    let describe = async |world: &World| world.kuryr.run(["describe", "pod", &pod].map(str::to_owned).to_vec()).await;
    let (code, text) = describe(world).await?;
    let plugged = format!("of trunk {} ", machine.trunk);
    ensure!(code == Some(0) && text.contains("plugged as vlan") && text.contains(&plugged), "{code:?}: {text}");
    world.cloud.network().trunks().delete(machine.trunk).await?;
    let (code, text) = describe(world).await?;
    ensure!(code == Some(1) && text.contains("is no trunk's parent: the pod is cut off"), "{code:?}: {text}");
    let look = async |world: &mut World| {
        world.kuryr.kill_controllers().await?;
        world.kuryr.start_controller().await?;
        world.leader_elected().await
    };
    look(world).await?;
    let note = told(world, "vm", "TrunkMissing").await?;
    ensure!(note.contains(&machine.parent.to_string()) && note.contains("2 interfaces"), "{note}");
    machine.trunk = world.make_trunk("again", machine.parent).await?;
    look(world).await?;
    let mut changes = cloud.subscribe();
    let back = async {
        while world.subports(machine.trunk).await? != before {
            changes.changed().await?;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, back).await.context("its pods are not put back")?
}

pub(super) async fn a_trunk_that_goes_with_its_pods_holds_nothing_up(world: &mut World) -> anyhow::Result<()> {
    let machine = world.add_machine("vm", KnownBy::Address).await?;
    let names = names(3);
    run(world, &machine, &names).await?;
    world.cloud.network().trunks().delete(machine.trunk).await?;
    for name in &names {
        world.pods().delete(name).await?;
    }
    for name in &names {
        world.pods().gone(name).await?;
    }
    Ok(())
}

pub(super) async fn subports_that_somebody_moved_are_put_back(world: &mut World) -> anyhow::Result<()> {
    let machine = world.add_machine("vm", KnownBy::Address).await?;
    run(world, &machine, &names(4)).await?;
    let before = world.agree(&machine).await?;
    let ports: Vec<PortId> = before.keys().copied().collect();
    let network = world.cloud.network();
    let trunks = network.trunks();
    // One is gone, one has another's id, and somebody's own is there, too.
    trunks.remove_subports(machine.trunk, &ports[..2]).await?;
    let freed = u16::try_from(before[&ports[1]])?.try_into()?;
    trunks.add_subports(machine.trunk, &[(ports[0], freed)]).await?;
    let theirs = world.cloud.network().ports().create(&NewPort::new(world.pod_network().await?)).await?.id;
    trunks.add_subports(machine.trunk, &[(theirs, 4000.try_into()?)]).await?;
    for controller in world.kuryr.controllers() {
        world.kuryr.stop_controller(controller).await?;
    }
    world.kuryr.start_controller().await?;
    world.leader_elected().await?;
    let wanted: BTreeMap<PortId, u32> = before.into_iter().chain([(theirs, 4000)]).collect();
    let mut changes = world.inside()?.cloud.subscribe();
    let put_back = async {
        while world.subports(machine.trunk).await? != wanted {
            changes.changed().await?;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, put_back).await.context("they are not put back")??;
    world.cloud.network().trunks().remove_subports(machine.trunk, &[theirs]).await?;
    world.cloud.network().ports().delete(theirs).await?;
    Ok(())
}

pub(super) async fn a_machine_is_deleted(world: &mut World) -> anyhow::Result<()> {
    let machine = world.add_machine("vm", KnownBy::Server).await?;
    let (names, trunk) = (names(3), machine.trunk);
    run(world, &machine, &names).await?;
    world.burn_machine("vm").await?;
    Api::<Node>::all(world.client.clone()).delete("vm", &DeleteParams::default()).await?;
    for name in &names {
        world.pods().force_delete(name).await?;
    }
    for name in &names {
        world.pods().gone(name).await?;
    }
    ensure!(world.subports(trunk).await?.is_empty(), "the trunk still has subports");
    ensure!(world.pod_ports().await?.is_empty(), "there still are ports");
    Ok(())
}

pub(super) async fn what_a_machine_lacks_is_told_and_ends_when_it_has_it(world: &mut World) -> anyhow::Result<()> {
    let network = world.cloud.network();
    let machine = world.add_machine("vm", KnownBy::Server).await?;
    network.trunks().delete(machine.trunk).await?;
    world.pods().create(&NewPod::new("web").on("vm")).await?;
    world.pods().port("web", "told that there is no trunk", PATIENCE, waiting_with("TrunkMissing")).await?;
    let nodes = Api::<Node>::all(world.client.clone());
    let say = async |port: &str| {
        let annotations = json!({"metadata": {"annotations": {(PARENT_PORT_ANNOTATION): port}}});
        nodes.patch("vm", &PatchParams::default(), &Patch::Merge(annotations)).await
    };
    say("eth0").await?;
    world.pods().port("web", "told what is no id", PATIENCE, waiting_with("MachineUnknown")).await?;
    // It is another port that has the trunk. Nothing but the Node's change wakes the pod.
    let other = network.ports().create(&NewPort::new(world.pod_network().await?)).await?.id;
    world.make_trunk("other", other).await?;
    say(&other.to_string()).await?;
    world.pods().running("web").await.map(drop)
}

/// These ids of a machine's trunk are somebody's; the ports that have them.
pub(super) async fn crowd(world: &World, machine: &Machine, ids: RangeInclusive<u16>) -> anyhow::Result<Vec<PortId>> {
    world.inside()?.set_port_quota(-1)?;
    let network = world.cloud.network();
    let elsewhere = network.networks().create(&NewNetwork::default()).await?.id;
    let new = vec![NewPort::new(elsewhere); 100];
    let (mut id, mut all) = (*ids.start(), Vec::new());
    while id <= *ids.end() {
        let count = usize::from(ids.end() + 1 - id).min(new.len());
        let ports = network.ports().create_many(&new[..count]).await?;
        let mut subports = Vec::new();
        for port in ports {
            subports.push((port.id, id.try_into()?));
            id += 1;
        }
        network.trunks().add_subports(machine.trunk, &subports).await?;
        all.extend(subports.into_iter().map(|(port, _)| port));
    }
    Ok(all)
}

pub(super) async fn a_full_trunk_tells_the_next_pod_why(world: &mut World) -> anyhow::Result<()> {
    let machine = world.add_machine("vm", KnownBy::Address).await?;
    run(world, &machine, &["first".to_owned()]).await?;
    crowd(world, &machine, 2..=4094).await?;
    world.pods().create(&NewPod::new("next").on("vm")).await?;
    world.pods().port("next", "told that the node is full", PATIENCE, waiting_with("NodeFull")).await?;
    let others = world.run_pod(&NewPod::new("elsewhere").on(&world.nodes[0]), "elsewhere").await?;
    world.port_of(&others).await?;
    // As soon as there is room again.
    world.pods().delete("first").await?;
    let next = world.pods().running("next").await?;
    let next = world.port_of(&next).await?.id;
    ensure!(world.subports(machine.trunk).await?.get(&next) == Some(&1), "the only id that was free");
    Ok(())
}

pub(super) async fn neutron_fails_while_pods_come_to_a_trunk(world: &mut World) -> anyhow::Result<()> {
    let machine = world.add_machine("vm", KnownBy::Address).await?;
    let faults = world.inside()?.cloud.faults().clone();
    let path = add_subports(&machine);
    for (name, fault) in [
        ("unavailable", Fault::unavailable()),
        ("lost", Fault::lose_answer()),
        ("internal", Fault::internal_error()),
        ("dropped", Fault::drop_connection()),
    ] {
        let id = faults.add(fault.on(Method::PUT, &path).times(2));
        let names: Vec<String> = (0..3).map(|number| format!("{name}-{number}")).collect();
        run(world, &machine, &names).await?;
        ensure!(faults.hits(id) > 0, "{name}: the fault never struck");
        faults.remove(id);
    }
    world.agree(&machine).await?;
    ensure!(world.pod_ports().await?.len() == 12, "a pod has two ports");
    // And when they go.
    let path = path.replace("add_", "remove_");
    faults.add(Fault::lose_answer().on(Method::PUT, &path).times(2));
    world.pods().delete("lost-0").await?;
    world.pods().gone("lost-0").await?;
    let deleting = |port: Option<&KuryrPort>| port.is_some_and(KuryrPort::deleting);
    ensure!(!deleting(world.pods().ports().get_opt("lost-1").await?.as_ref()));
    world.agree(&machine).await.map(drop)
}

/// A subport goes down, which somebody puts right.
pub(super) async fn dies_and_works_again(world: &World, port: PortId) -> anyhow::Result<()> {
    world.port_becomes(port, PortStatus::Active, PATIENCE).await.context("at first")?;
    world.break_subport(port).await?;
    world.port_becomes(port, PortStatus::Down, PATIENCE).await?;
    world.port_becomes(port, PortStatus::Active, Duration::from_secs(150)).await.context("it is still down")
}

pub(super) async fn a_subport_that_stays_down_is_put_back(world: &mut World) -> anyhow::Result<()> {
    let machine = world.machine().await?;
    let pods = run(world, &machine, &names(2)).await?;
    let before = world.agree(&machine).await?;
    let dead = world.port_of(&pods[0]).await?.id;
    dies_and_works_again(world, dead).await?;
    ensure!(world.agree(&machine).await? == before, "its id has changed");
    Ok(())
}

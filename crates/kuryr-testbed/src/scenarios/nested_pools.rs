//! Pools of trunks: pods of virtual machines get subports that are there already, and give them back with their ids.

use super::{
    cloud_faults::waiting_with,
    nested::dies_and_works_again,
    pools::{PORTS, apart, asked, port_of, ready, when, while_drained, without_pools_at_last},
    pools_faults::all_known,
};
use crate::{
    cloud::Fault,
    world::{KnownBy, Machine, NewPod, World, pods::PATIENCE},
};
use anyhow::{Context, ensure};
use futures::future::try_join_all;
use http::Method;
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api,
    api::{DeleteParams, ListParams},
};
use kuryr_controller::{PoolReport, PoolRow};
use kuryr_model::{KuryrPort, PortId, neutron::Trunk};
use kuryr_openstack::Filter;
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::time::{Instant, timeout};

/// The pool of a machine.
fn pool<'a>(report: &'a PoolReport, machine: &str) -> Option<&'a PoolRow> {
    report.pools.iter().find(|pool| pool.node == machine)
}

/// Waits until the pool of a machine has so many ports ready at least and nothing is under way.
async fn full(world: &World, machine: &str, count: usize) -> anyhow::Result<PoolReport> {
    let full = |report: &PoolReport| {
        pool(report, machine).is_some_and(|pool| pool.view.ready >= count && pool.view.refilling == 0)
            && report.requests == 0
            && report.leaving == 0
    };
    when(world, "filled on the trunk", full).await
}

/// A machine, and pools of these settings of which its own is full.
async fn warm(world: &mut World, floor: usize, more: &str) -> anyhow::Result<Machine> {
    let machine = world.machine().await?;
    world.use_pools(&format!("floor = {floor}\n{more}")).await?;
    full(world, &machine.name, floor).await?;
    Ok(machine)
}

/// Pods of these names on a machine, made at once; waits until all run.
async fn run(world: &World, machine: &Machine, names: &[String]) -> anyhow::Result<()> {
    let pods: Vec<NewPod> = names.iter().map(|name| NewPod::new(name).on(&machine.name)).collect();
    let all = world.pods();
    try_join_all(pods.iter().map(|pod| all.create(pod))).await?;
    try_join_all(names.iter().map(|name| all.running(name))).await.map(drop)
}

fn names(of: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{of}-{number}")).collect()
}

/// What a machine's pods have on its trunk, and the spare ports there, each with its id. The trunk carries nothing else, and no id is used
/// twice.
async fn carried(world: &World, machine: &Machine) -> anyhow::Result<[BTreeMap<PortId, u32>; 2]> {
    let mut told = BTreeMap::new();
    let mut held = BTreeSet::new();
    for port in world.pods().ports().list(&ListParams::default()).await? {
        held.extend(port.port_ids());
        for vif in port.spec.vifs.iter().filter(|_| port.spec.node_name == machine.name) {
            told.insert(vif.port_id, u32::from(vif.plug.vlan.context("a VIF without VLAN id")?.get()));
        }
    }
    let spare: BTreeSet<PortId> = world.pool_ports().await?.iter().map(|port| port.id).collect();
    let there = world.subports(machine.trunk).await?;
    ensure!(told.iter().all(|(port, id)| there.get(port) == Some(id)), "{told:?} is not on the trunk, but {there:?}");
    let rest: BTreeMap<PortId, u32> =
        there.iter().filter(|(port, _)| !told.contains_key(port)).map(|(port, id)| (*port, *id)).collect();
    ensure!(rest.keys().all(|port| spare.contains(port) && !held.contains(port)), "what is {rest:?} on the trunk?");
    let ids: BTreeSet<u32> = there.values().copied().collect();
    ensure!(ids.len() == there.len(), "an id is used twice: {there:?}");
    Ok([told, rest])
}

/// That all is well when nothing is under way: each port of a pool is a pod's or known to be spare, and those of the machine are on its
/// trunk.
async fn settled(world: &World, machine: &Machine) -> anyhow::Result<()> {
    all_known(world, PATIENCE).await?;
    carried(world, machine).await?;
    let trunks = world.cloud.network().trunks().list(&Filter::new()).await?;
    let on: BTreeSet<PortId> =
        trunks.iter().flat_map(|trunk| &trunk.sub_ports).map(|subport| subport.port_id).collect();
    let loose = world.pool_ports().await?.into_iter().filter(|port| port.host_id.is_empty()).map(|port| port.id);
    let lost: Vec<PortId> = loose.filter(|port| !on.contains(port)).collect();
    ensure!(lost.is_empty(), "on no trunk: {lost:?}");
    apart(world).await.map(drop)
}

/// How many requests changed subports.
fn changes(world: &World, verb: &str) -> anyhow::Result<usize> {
    let changes = |call: &crate::cloud::CallRecord| call.method == Method::PUT && call.path.ends_with(verb);
    Ok(world.inside()?.cloud.calls().filter(changes).len())
}

pub(super) async fn a_pod_of_a_machine_gets_a_subport_that_is_ready(world: &mut World) -> anyhow::Result<()> {
    // One is taken, and one is made in its place: when the first one is back, nothing is to be made for the next pod.
    let machine = warm(world, 1, "ceiling = 1\ncooldown = \"0s\"").await?;
    run(world, &machine, &["first".to_owned()]).await?;
    full(world, "vm", 1).await?;
    world.pods().delete("first").await?;
    world.pods().gone("first").await?;
    full(world, "vm", 2).await?;
    let [_, before] = carried(world, &machine).await?;
    let inside = world.inside()?;
    inside.cloud.calls().reset();
    inside.api.calls().reset();
    world.pods().create(&NewPod::new("second").on("vm")).await?;
    let has_one = |port: Option<&KuryrPort>| port.is_some_and(|port| !port.spec.vifs.is_empty());
    world.pods().port("second", "allocated", PATIENCE, has_one).await?;
    let writes = inside.api.calls().snapshot().into_iter().filter(|(key, _)| {
        key.is_write() && key.resource != "leases" && key.user_agent.starts_with("kuryr-controller/")
    });
    let writes: Vec<_> = writes.collect();
    ensure!(writes.iter().map(|(_, count)| count).sum::<u64>() == 1, "{writes:?}");
    world.pods().running("second").await?;
    let calls = asked(world)?;
    ensure!(calls.is_empty(), "{} calls for a pod that found a subport: {:?}", calls.len(), calls.first());
    let [pods, _] = carried(world, &machine).await?;
    ensure!(pods.iter().all(|(port, id)| before.get(port) == Some(id)), "{pods:?} is none of {before:?}");
    let port = port_of(world, "second").await?;
    ensure!(port.device_owner == "trunk:subport", "{port:?}");
    settled(world, &machine).await
}

pub(super) async fn fifty_pods_of_a_machine_find_subports(world: &mut World) -> anyhow::Result<()> {
    const PODS: usize = 50;
    let machine = world.add_machine("vm", KnownBy::Server).await?;
    world.inside()?.cloud.calls().reset();
    world.use_pools("floor = 1\nceiling = 50\ncooldown = \"1s\"").await?;
    full(world, "vm", 1).await?;
    fill(world, "vm", PODS).await?;
    let before = full(world, "vm", PODS).await?;
    let added = changes(world, "add_subports")?;
    ensure!(added <= 12, "{added} requests put {PODS} spare subports on the trunk");
    let [_, spare] = carried(world, &machine).await?;
    let started = Instant::now();
    run(world, &machine, &names("pod", PODS)).await?;
    tracing::info!(took = ?started.elapsed(), "{PODS} pods from the pool of a trunk");
    let after = world.kuryr.pools().await?.context("no pools")?;
    let hits = |report: &PoolReport| pool(report, "vm").map_or(0, |pool| pool.view.hits);
    ensure!(hits(&after) == hits(&before) + PODS as u64, "{} hits of {PODS}", hits(&after) - hits(&before));
    let [pods, _] = carried(world, &machine).await?;
    ensure!(pods.len() == PODS && pods.iter().all(|(port, id)| spare.get(port) == Some(id)), "others than were there");
    Ok(())
}

/// Has an operator fill the pool of a node.
async fn fill(world: &World, node: &str, count: usize) -> anyhow::Result<()> {
    let (code, said) = order(world, &["fill", node, &count.to_string()]).await?;
    ensure!(code == Some(0), "{code:?}: {said}");
    Ok(())
}

/// What `kuryr pools` says to an operator.
async fn order(world: &World, args: &[&str]) -> anyhow::Result<(Option<i32>, String)> {
    let controller = world.kuryr.controllers().into_iter().next().context("no controller")?;
    let at = world.kuryr.controller_address(controller).context("no address")?;
    let mut all = vec!["pools".to_owned(), format!("--controller={at}")];
    all.extend(args.iter().map(|arg| (*arg).to_owned()));
    world.kuryr.run(all).await
}

pub(super) async fn pods_of_a_machine_come_back_to_the_subports_that_were_there(
    world: &mut World,
) -> anyhow::Result<()> {
    const PODS: usize = 10;
    let machine = warm(world, PODS, &format!("ceiling = {PODS}\ncooldown = \"1s\"")).await?;
    run(world, &machine, &names("pod", PODS)).await?;
    full(world, "vm", PODS).await?;
    world.pods().delete_all().await?;
    world.pods().all_gone().await?;
    full(world, "vm", 2 * PODS).await?;
    let [_, before] = carried(world, &machine).await?;
    world.inside()?.cloud.calls().reset();
    run(world, &machine, &names("pod", PODS)).await?;
    let calls = asked(world)?;
    ensure!(calls.is_empty(), "{} calls for pods that found subports, the first: {:?}", calls.len(), calls.first());
    let [pods, spare] = carried(world, &machine).await?;
    let after: BTreeMap<PortId, u32> = pods.into_iter().chain(spare).collect();
    ensure!(after == before, "{before:?} became {after:?}");
    Ok(())
}

pub(super) async fn a_burst_larger_than_the_pool_of_a_machine_is_made_in_bulks(
    world: &mut World,
) -> anyhow::Result<()> {
    const PODS: usize = 40;
    let machine = warm(world, 5, "cooldown = \"1s\"").await?;
    world.inside()?.cloud.calls().reset();
    run(world, &machine, &names("pod", PODS)).await?;
    let report = when(world, "at rest", |report| pool(report, "vm").is_some_and(|pool| pool.view.waiting == 0)).await?;
    let row = pool(&report, "vm").context("no pool")?;
    ensure!(row.view.hits + row.view.misses == PODS as u64 && row.view.hits >= 5, "{row:?}");
    let made = asked(world)?.into_iter().filter(|call| call.method == Method::POST && call.template == PORTS).count();
    ensure!(made <= PODS / 2, "{made} requests for {PODS} pods");
    world.pods().delete_all().await?;
    world.pods().all_gone().await?;
    full(world, "vm", 5).await?;
    settled(world, &machine).await
}

pub(super) async fn the_controller_is_killed_while_it_fills_the_pool_of_a_machine(
    world: &mut World,
) -> anyhow::Result<()> {
    let machine = warm(world, 4, "cooldown = \"0s\"").await?;
    let faults = world.inside()?.cloud.faults().clone();
    let add = format!("/v2.0/trunks/{}/add_subports", machine.trunk);
    // Before the ports are there; they are there, and it was not heard; on the way to the trunk; on the trunk, and not heard.
    for (name, fault) in [
        ("unmade", Fault::hang().on(Method::POST, PORTS)),
        ("made", Fault::hold_answer().on(Method::POST, PORTS)),
        ("unplaced", Fault::hang().on(Method::PUT, &add)),
        ("placed", Fault::hold_answer().on(Method::PUT, &add)),
    ] {
        let id = faults.add(fault);
        // They find ports, and others are made in their place.
        run(world, &machine, &names(name, 3)).await.context(name)?;
        faults.wait_for_hits(id, 1).await;
        world.kuryr.kill_controllers().await?;
        faults.remove(id);
        world.kuryr.start_controller().await?;
        world.leader_elected().await?;
        full(world, "vm", 4).await.context(name)?;
        settled(world, &machine).await.context(name)?;
    }
    ensure!(carried(world, &machine).await?[0].len() == 12, "a pod is not on the trunk");
    Ok(())
}

pub(super) async fn the_controller_is_killed_while_pods_take_subports_from_the_pool(
    world: &mut World,
) -> anyhow::Result<()> {
    const PODS: usize = 12;
    let machine = warm(world, 6, "cooldown = \"0s\"\nmemory = \"1s\"\nshrink_after = \"1s\"").await?;
    let pods = world.pods();
    let node = machine.name.clone();
    let work = tokio::spawn(async move {
        for round in 0..3 {
            let names = names(&format!("pod-{round}"), PODS);
            let new: Vec<NewPod> = names.iter().map(|name| NewPod::new(name).on(&node)).collect();
            try_join_all(new.iter().map(|pod| pods.create(pod))).await?;
            try_join_all(names.iter().map(|name| pods.running(name))).await?;
            try_join_all(names.iter().map(|name| pods.delete(name))).await?;
            try_join_all(names.iter().map(|name| pods.gone(name))).await?;
        }
        Ok(())
    });
    world.kill_while(work, 6, 50..2000).await?;
    full(world, "vm", 6).await?;
    settled(world, &machine).await
}

pub(super) async fn a_trunk_with_spare_subports_is_deleted_behind_our_back(world: &mut World) -> anyhow::Result<()> {
    let mut machine = warm(world, 3, "cooldown = \"0s\"").await?;
    run(world, &machine, &["one".to_owned()]).await?;
    full(world, "vm", 3).await?;
    let [before, _] = carried(world, &machine).await?;
    world.cloud.network().trunks().delete(machine.trunk).await?;
    // It is noticed when the next port is to be made: the pod itself asks nobody.
    run(world, &machine, &["two".to_owned()]).await?;
    when(world, "without the trunk", |report| pool(report, "vm").is_none() && report.leaving == 0).await?;
    ensure!(
        world.inside()?.cloud.ports().iter().filter(|port| port.name == "kuryr-pool" && port.host.is_empty()).count()
            == 2,
        "spare ports of a trunk that is gone are left"
    );
    world.pods().create(&NewPod::new("next").on("vm")).await?;
    world.pods().port("next", "told why", PATIENCE, waiting_with("TrunkMissing")).await?;
    machine.trunk = world.make_trunk("again", machine.parent).await?;
    world.pods().running("next").await?;
    full(world, "vm", 3).await?;
    // The pods that were cut off come back with the ids that their interfaces have.
    settled(world, &machine).await?;
    let [after, _] = carried(world, &machine).await?;
    ensure!(after.len() == 3 && before.iter().all(|(port, id)| after.get(port) == Some(id)), "{before:?}, {after:?}");
    Ok(())
}

pub(super) async fn a_drained_machine_has_no_spare_subports(world: &mut World) -> anyhow::Result<()> {
    without_pools_at_last(world, drained).await
}

async fn drained(world: &mut World) -> anyhow::Result<()> {
    let many = if world.inside().is_ok() { 20 } else { 4 };
    let machine = warm(world, many, "cooldown = \"0s\"").await?;
    let name = &machine.name;
    run(world, &machine, &["evicted".to_owned()]).await?;
    full(world, name, many).await?;
    if let Ok(embedded) = world.inside() {
        embedded.cloud.calls().reset();
    }
    let story = async || {
        when(world, "without the machine", |report| pool(report, name).is_none() && report.leaving == 0).await?;
        if world.inside().is_ok() {
            let requests = changes(world, "remove_subports")?;
            ensure!(requests <= 4, "{requests} requests took {many} spare subports off the trunk");
        }
        let [pods, spare] = carried(world, &machine).await?;
        ensure!(pods.len() == 1 && spare.is_empty(), "of the pod {pods:?}, spare {spare:?}");
        world.pods().delete("evicted").await?;
        world.pods().gone("evicted").await?;
        ensure!(world.subports(machine.trunk).await?.is_empty(), "the trunk still has subports");
        ensure!(world.pool_ports().await?.iter().all(|port| !port.host_id.is_empty()), "spare ports are left");
        Ok(())
    };
    while_drained(world, name, story).await?;
    full(world, name, many).await?;
    settled(world, &machine).await
}

pub(super) async fn a_machine_with_spare_subports_is_deleted(world: &mut World) -> anyhow::Result<()> {
    without_pools_at_last(world, deleted).await
}

async fn deleted(world: &mut World) -> anyhow::Result<()> {
    let machine = warm(world, 3, "cooldown = \"0s\"").await?;
    let name = &machine.name;
    run(world, &machine, &names("pod", 2)).await?;
    world.burn_machine(name).await?;
    Api::<Node>::all(world.client.clone()).delete(name, &DeleteParams::default()).await?;
    for name in names("pod", 2) {
        world.pods().force_delete(&name).await?;
    }
    for name in names("pod", 2) {
        world.pods().gone(&name).await?;
    }
    when(world, "without the machine", |report| pool(report, name).is_none() && report.leaving == 0).await?;
    ensure!(world.subports(machine.trunk).await?.is_empty(), "the trunk still has subports");
    all_known(world, PATIENCE).await?;
    world.delete_machine(&machine).await
}

pub(super) async fn spare_subports_make_way_when_the_quota_is_used_up(world: &mut World) -> anyhow::Result<()> {
    without_pools_at_last(world, make_way).await
}

async fn make_way(world: &mut World) -> anyhow::Result<()> {
    const FLOOR: usize = 3;
    let machine = warm(world, FLOOR, "cooldown = \"1s\"\nreserve = 0").await?;
    let spare = FLOOR * world.sites().await?;
    when(world, "filled", |report| ready(report) == spare && report.requests == 0).await?;
    let pods = world.pods();
    let names = names("pod", spare);
    let node = world.nodes[0].clone();
    let new: Vec<NewPod> = names.iter().map(|name| NewPod::new(name).on(&node)).collect();
    let story = async |world: &World| {
        try_join_all(new.iter().map(|pod| pods.create(pod))).await?;
        let has_one = |port: Option<&KuryrPort>| port.is_some_and(|port| !port.spec.vifs.is_empty());
        for name in &names {
            let port = pods.port(name, "allocated", Duration::from_secs(15), has_one).await?;
            let waited = port.as_ref().and_then(KuryrPort::unallocated_reason);
            ensure!(waited.is_none(), "{name} had to wait: {waited:?}");
        }
        let left = world.subports(machine.trunk).await?;
        ensure!(left.is_empty(), "spare subports are left while a pod might need them: {left:?}");
        Ok(())
    };
    world.with_ports_left(0, story).await?;
    pods.delete_all().await?;
    pods.all_gone().await?;
    full(world, &machine.name, FLOOR).await?;
    settled(world, &machine).await
}

pub(super) async fn a_pod_of_a_machine_gets_its_groups_before_its_subport(world: &mut World) -> anyhow::Result<()> {
    let machine = warm(world, 2, "cooldown = \"0s\"").await?;
    let policies = world.policies();
    policies.create("closed", &json!({"podSelector": {}, "policyTypes": ["Ingress"]})).await?;
    policies.ready("closed").await?;
    let open = world.open_group().await?;
    for round in 0..3 {
        let name = format!("closed-{round}");
        run(world, &machine, std::slice::from_ref(&name)).await?;
        let port = port_of(world, &name).await?;
        ensure!(!port.security_groups.contains(&open), "{name} is open to everyone");
        ensure!(port.tags.iter().any(|tag| tag == "kuryr:pool:ports"), "{name} has no port of a pool");
        world.pods().delete(&name).await?;
        world.pods().gone(&name).await?;
    }
    full(world, "vm", 2).await?;
    for port in world.pool_ports().await? {
        ensure!(port.security_groups.contains(&open), "spare port {} has {:?}", port.id, port.security_groups);
    }
    settled(world, &machine).await
}

pub(super) async fn a_machine_that_is_not_found_holds_up_no_other(world: &mut World) -> anyhow::Result<()> {
    let mut lost = world.add_machine("lost", KnownBy::Server).await?;
    world.cloud.network().trunks().delete(lost.trunk).await?;
    let machine = warm(world, 2, "cooldown = \"0s\"").await?;
    let report = world.kuryr.pools().await?.context("no pools")?;
    ensure!(pool(&report, "lost").is_none(), "{report:?}");
    lost.trunk = world.make_trunk("found", lost.parent).await?;
    full(world, "lost", 2).await?;
    settled(world, &lost).await?;
    settled(world, &machine).await
}

pub(super) async fn an_operator_fills_and_drains_the_pool_of_a_machine_by_its_name(
    world: &mut World,
) -> anyhow::Result<()> {
    let machine = warm(world, 1, "").await?;
    fill(world, "vm", 5).await?;
    full(world, "vm", 5).await?;
    let (code, said) = order(world, &[]).await?;
    let trunk = format!("trunk {}", machine.trunk);
    let line = said.lines().find(|line| line.starts_with("vm ")).unwrap_or_default();
    ensure!(code == Some(0) && line.ends_with(&trunk), "{code:?}: {said}");
    let (_, status) = world.kuryr.run(vec!["status".to_owned()]).await?;
    ensure!(!status.contains("none on"), "{status}");
    let (code, said) = order(world, &["drain", "vm"]).await?;
    ensure!(code == Some(0) && said.contains("deleted now: 5"), "{code:?}: {said}");
    when(world, "drained", |report| report.leaving == 0).await?;
    ensure!(world.subports(machine.trunk).await?.is_empty(), "spare subports are left");
    let (_, status) = world.kuryr.run(vec!["status".to_owned()]).await?;
    ensure!(status.contains("none on vm"), "{status}");
    Ok(())
}

pub(super) async fn pools_of_machines_that_are_switched_off_leave_nothing_behind(
    world: &mut World,
) -> anyhow::Result<()> {
    let machine = warm(world, 3, "").await?;
    run(world, &machine, &["stays".to_owned()]).await?;
    let [before, _] = carried(world, &machine).await?;
    world.use_pools("enabled = false").await?;
    let mut changes = world.inside()?.cloud.subscribe();
    let gone = async {
        while world.subports(machine.trunk).await? != before {
            changes.changed().await?;
        }
        anyhow::Ok(())
    };
    timeout(PATIENCE, gone).await.context("spare subports are left")??;
    world.pods().delete("stays").await?;
    world.pods().gone("stays").await?;
    let trunks: Vec<Trunk> = world.cloud.network().trunks().list(&Filter::new()).await?;
    ensure!(trunks.iter().all(|trunk| trunk.sub_ports.is_empty()), "{trunks:?}");
    Ok(())
}

pub(super) async fn a_spare_subport_that_stays_down_is_put_back(world: &mut World) -> anyhow::Result<()> {
    let machine = world.machine().await?;
    world.use_pools("floor = 2").await?;
    full(world, "vm", 2).await?;
    let [_, before] = carried(world, &machine).await?;
    let dead = *before.keys().next().context("no spare subport")?;
    dies_and_works_again(world, dead).await?;
    settled(world, &machine).await?;
    let [_, after] = carried(world, &machine).await?;
    ensure!(after == before, "{before:?} became {after:?}");
    Ok(())
}

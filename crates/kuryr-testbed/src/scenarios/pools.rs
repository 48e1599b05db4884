//! Port pools: pods get ports that are there already, and give them back.

use super::lifecycle::many;
use crate::{
    cloud::{CallRecord, Fault, Service},
    world::{NewPod, World, pods::PATIENCE},
};
use anyhow::{Context, bail, ensure};
use futures::future::try_join_all;
use http::Method;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use kuryr_controller::PoolReport;
use kuryr_model::{KuryrPort, PortId, neutron::Port};
use serde_json::json;
use std::{collections::HashSet, time::Duration};
use tokio::time::{Instant, sleep, timeout};

/// Where ports are made, one or many.
pub(super) const PORTS: &str = "/v2.0/ports";

/// Ports that are ready on all nodes.
pub(super) fn ready(report: &PoolReport) -> usize {
    report.pools.iter().map(|pool| pool.view.ready).sum()
}

/// Waits until the pools are as wanted. Nothing tells: the page is the question.
pub(super) async fn when(
    world: &World,
    what: &str,
    wanted: impl Fn(&PoolReport) -> bool,
) -> anyhow::Result<PoolReport> {
    let mut last = None;
    let asked = async {
        loop {
            last = world.kuryr.pools().await?;
            if let Some(report) = &last
                && wanted(report)
            {
                return anyhow::Ok(report.clone());
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    match timeout(PATIENCE, asked).await {
        Ok(report) => report,
        Err(_) => bail!("the pools are not {what}: {last:?}"),
    }
}

/// Gives the controller pools, and waits until all are at their floor.
pub(super) async fn filled(world: &mut World, floor: usize, more: &str) -> anyhow::Result<PoolReport> {
    world.use_pools(&format!("floor = {floor}\n{more}")).await?;
    let count = floor * world.sites().await?;
    when(world, "filled", |report| ready(report) == count && report.requests == 0).await
}

/// Tells a story of pools, after which there are none: the real world is the next scenario's, too.
pub(super) async fn without_pools_at_last(
    world: &mut World,
    story: impl AsyncFnOnce(&mut World) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let told = story(world).await;
    let ended = async {
        world.pods().delete_all().await?;
        world.pods().all_gone().await?;
        world.use_no_pools().await
    };
    let ended = ended.await;
    told.and(ended)
}

/// The port that a pod's `KuryrPort` names, as it is in Neutron.
pub(super) async fn port_of(world: &World, pod: &str) -> anyhow::Result<Port> {
    let held = world.pods().ports().get(pod).await?;
    let id = held.port_ids().next().with_context(|| format!("the KuryrPort of {pod} names no port"))?;
    let port = world.our_ports().await?.into_iter().find(|port| port.id == id);
    port.with_context(|| format!("port {id} of {pod} is not there"))
}

/// That each pod has a port of its own, which is there, and an address of its own.
pub(super) async fn apart(world: &World) -> anyhow::Result<usize> {
    let held = world.pods().ports().list(&kube::api::ListParams::default()).await?.items;
    let there: HashSet<PortId> = world.our_ports().await?.into_iter().map(|port| port.id).collect();
    let (mut ports, mut addresses) = (HashSet::<PortId>::new(), HashSet::new());
    for port in held.iter().filter(|port| !port.deleting()) {
        for vif in &port.spec.vifs {
            ensure!(ports.insert(vif.port_id), "two pods have port {}", vif.port_id);
            ensure!(there.contains(&vif.port_id), "port {} of {} is not there", vif.port_id, port.name_any());
            for address in &vif.addresses {
                ensure!(addresses.insert(address.ip), "two pods have {}", address.ip);
            }
        }
    }
    Ok(ports.len())
}

/// Pods of these names, made at once on the nodes in turn; waits until all run.
pub(super) async fn run_in_turn(world: &World, count: usize) -> anyhow::Result<Vec<Pod>> {
    let pods = world.pods();
    let made = (0..count).map(|n| {
        let (pods, node) = (world.pods(), &world.nodes[n % world.nodes.len()]);
        async move { pods.create(&NewPod::new(format!("pod-{n}")).on(node)).await }
    });
    try_join_all(made).await?;
    try_join_all((0..count).map(|n| {
        let pods = &pods;
        async move { pods.running(&format!("pod-{n}")).await }
    }))
    .await
}

/// The requests to Neutron, without those for tokens.
pub(super) fn asked(world: &World) -> anyhow::Result<Vec<CallRecord>> {
    Ok(world.inside()?.cloud.calls().filter(|call| call.service == Service::Network))
}

pub(super) async fn a_burst_larger_than_the_pools_is_made_in_bulks(world: &mut World) -> anyhow::Result<()> {
    burst(world, 2).await
}

pub(super) async fn a_burst_on_empty_pools_is_made_in_bulks(world: &mut World) -> anyhow::Result<()> {
    burst(world, 0).await
}

/// Two hundred pods at once, where each node has so many spare ports.
async fn burst(world: &mut World, floor: usize) -> anyhow::Result<()> {
    const PODS: usize = 200;
    let report = filled(world, floor, "cooldown = \"1s\"").await?;
    // What is asked here is where ports come from: without sandboxes the machine has nothing else to do.
    for node in world.nodes.clone() {
        world.inside_mut()?.burn_down(&node).await?;
    }
    world.inside()?.cloud.calls().reset();
    let names: Vec<String> = (0..PODS).map(|number| format!("pod-{number}")).collect();
    world.pods().create_all(&names).await?;
    let has_one = |port: Option<&KuryrPort>| port.is_some_and(|port| !port.spec.vifs.is_empty());
    let pods = world.pods();
    try_join_all(names.iter().map(|name| pods.port(name, "allocated", Duration::from_secs(120), has_one))).await?;
    let bulks = asked(world)?.into_iter().filter(|call| call.method == Method::POST && call.template == PORTS);
    let sizes: Vec<usize> = bulks.map(|call| call.items).collect();
    let made: usize = sizes.iter().sum();
    ensure!(made + ready(&report) >= PODS, "{made} ports were made for {PODS} pods");
    ensure!(sizes.len() * 3 <= PODS, "{} requests for {PODS} pods: {sizes:?}", sizes.len());
    ensure!(apart(world).await? == PODS, "not all pods have a port");
    let after = when(world, "at rest", |report| report.pools.iter().all(|pool| pool.view.waiting == 0)).await?;
    let sum = |of: fn(&kuryr_controller::PoolRow) -> u64| after.pools.iter().map(of).sum::<u64>();
    ensure!(sum(|pool| pool.view.hits + pool.view.misses) == PODS as u64, "{after:?}");
    try_join_all(names.iter().map(|name| pods.force_delete(name))).await.map(drop)
}

pub(super) async fn pods_that_come_back_get_the_ports_that_were_there(world: &mut World) -> anyhow::Result<()> {
    without_pools_at_last(world, come_back).await
}

/// Scales to 0 and back.
async fn come_back(world: &mut World) -> anyhow::Result<()> {
    const PODS: usize = 20;
    // There is one for each. Pools are filled up while the pods run, and what is given back is kept: nothing is made after that.
    let floor = PODS / world.nodes.len();
    filled(world, floor, &format!("ceiling = {floor}\ncooldown = \"1s\"")).await?;
    run_in_turn(world, PODS).await?;
    world.pods().delete_all().await?;
    world.pods().all_gone().await?;
    let calm = |report: &PoolReport| ready(report) >= 2 * PODS && report.requests == 0 && report.held == ready(report);
    let before = when(world, "cooled", calm).await?;
    let there: HashSet<PortId> = world.pool_ports().await?.iter().map(|port| port.id).collect();
    let asked = world.neutron_requests().await?;
    let started = Instant::now();
    run_in_turn(world, PODS).await?;
    let asked = world.neutron_requests().await? - asked;
    ensure!(asked == 0, "{asked} requests for pods that found ports");
    tracing::info!(took = ?started.elapsed(), "{PODS} pods from pools");
    for n in 0..PODS {
        let port = port_of(world, &format!("pod-{n}")).await?;
        ensure!(there.contains(&port.id), "pod-{n} has another port than one that was there");
    }
    let hits = |report: &PoolReport| report.pools.iter().map(|pool| pool.view.hits).sum::<u64>();
    let after = world.kuryr.pools().await?.context("no pools")?;
    ensure!(hits(&after) == hits(&before) + PODS as u64, "hits: {} and then {}", hits(&before), hits(&after));
    apart(world).await.map(drop)
}

pub(super) async fn a_pool_that_shrinks_takes_no_port_from_a_pod(world: &mut World) -> anyhow::Result<()> {
    without_pools_at_last(world, shrinks).await
}

async fn shrinks(world: &mut World) -> anyhow::Result<()> {
    // What was needed is forgotten at once, so all that is not in use is surplus.
    filled(world, 1, "cooldown = \"0s\"\nmemory = \"1s\"\nshrink_after = \"1s\"").await?;
    // Where Neutron takes its time there are moments enough in fewer.
    let (rounds, count) = if world.inside().is_ok() { (4, 12) } else { (2, 5) };
    for round in 0..rounds {
        let names: Vec<String> = (0..count).map(|n| format!("pod-{round}-{n}")).collect();
        let pods = world.pods();
        pods.create_all(&names).await?;
        try_join_all(names.iter().map(|name| pods.running(name))).await?;
        apart(world).await?;
        // Half of them go while the next ones come.
        try_join_all(names.iter().step_by(2).map(|name| pods.delete(name))).await?;
    }
    world.pods().delete_all().await?;
    world.pods().all_gone().await?;
    let floors = world.sites().await?;
    when(world, "at their floor", |report| report.held == floors).await.map(drop)
}

/// Tells a story of a node that takes no more pods. After it the node does, whatever became of the story.
pub(super) async fn while_drained(
    world: &World,
    node: &str,
    story: impl AsyncFnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let nodes = Api::<Node>::all(world.client.clone());
    let cordon = async |value: bool| {
        let patch = Patch::Merge(json!({"spec": {"unschedulable": value}}));
        nodes.patch(node, &PatchParams::default(), &patch).await?;
        anyhow::Ok(())
    };
    cordon(true).await?;
    let told = story().await;
    let restored = cordon(false).await;
    told.and(restored)
}

pub(super) async fn a_drained_node_has_no_spare_ports(world: &mut World) -> anyhow::Result<()> {
    without_pools_at_last(world, drained).await
}

async fn drained(world: &mut World) -> anyhow::Result<()> {
    filled(world, 3, "cooldown = \"1s\"").await?;
    let (goes, stay) = world.nodes.split_last().context("no node")?;
    world.run_pod(&NewPod::new("evicted").on(goes), "evicted").await?;
    let story = async || {
        world.pods().delete("evicted").await?;
        world.pods().gone("evicted").await?;
        let without = |report: &PoolReport| report.pools.iter().all(|pool| pool.place != *goes) && report.leaving == 0;
        when(world, "without the node", without).await?;
        let ports = world.pool_ports().await?;
        let on = |host: &str| ports.iter().filter(|port| port.host_id == host).count();
        ensure!(on(goes) == 0, "{} spare ports are left on the node", on(goes));
        ensure!(stay.iter().all(|node| on(node) == 3), "others have lost some: {ports:?}");
        Ok(())
    };
    while_drained(world, goes, story).await?;
    when(world, "filled again", |report| ready(report) >= 3 * world.nodes.len()).await.map(drop)
}

pub(super) async fn a_pod_that_a_policy_isolates_gets_its_groups_before_its_port(
    world: &mut World,
) -> anyhow::Result<()> {
    without_pools_at_last(world, isolated).await
}

async fn isolated(world: &mut World) -> anyhow::Result<()> {
    let report = filled(world, 2, "cooldown = \"0s\"").await?;
    let policies = world.policies();
    policies.create("closed", &json!({"podSelector": {}, "policyTypes": ["Ingress"]})).await?;
    policies.ready("closed").await?;
    let open = world.open_group().await?;
    let node = world.nodes[0].clone();
    for round in 0..3 {
        let name = format!("closed-{round}");
        world.run_pod(&NewPod::new(&name).on(&node), &name).await?;
        let port = port_of(world, &name).await?;
        ensure!(!port.security_groups.contains(&open), "{name} is open to everyone");
        ensure!(port.tags.iter().any(|tag| tag == "kuryr:pool:ports"), "{name} has no port of a pool");
        world.pods().delete(&name).await?;
        world.pods().gone(&name).await?;
    }
    when(world, "given back", |now| ready(now) >= ready(&report)).await?;
    for port in world.pool_ports().await? {
        ensure!(port.security_groups.contains(&open), "spare port {} has {:?}", port.id, port.security_groups);
    }
    Ok(())
}

pub(super) async fn ports_of_pools_are_named_after_their_pods_where_that_is_wanted(
    world: &mut World,
) -> anyhow::Result<()> {
    filled(world, 1, "cooldown = \"0s\"\nport_names = true").await?;
    world.run_pod(&NewPod::new("web").on(&world.nodes[0]), "web").await?;
    let id = port_of(world, "web").await?.id;
    let name = format!("{}/web", world.namespace());
    let cloud = world.inside()?.cloud.clone();
    let is_called = |name: String| {
        let (cloud, mut changes) = (cloud.clone(), cloud.subscribe());
        async move {
            while cloud.ports().iter().all(|port| port.id != id.0 || port.name != name) {
                changes.changed().await?;
            }
            anyhow::Ok(())
        }
    };
    timeout(PATIENCE, is_called(name)).await.context("the port is not named after its pod")??;
    world.pods().delete("web").await?;
    timeout(PATIENCE, is_called("kuryr-pool".to_owned())).await.context("the spare port has its old name")?
}

pub(super) async fn an_operator_fills_and_drains_pools(world: &mut World) -> anyhow::Result<()> {
    filled(world, 1, "").await?;
    let controller = world.kuryr.controllers().into_iter().next().context("no controller")?;
    let at = world.kuryr.controller_address(controller).context("no address")?.to_string();
    let node = world.nodes[0].clone();
    let run = |args: &[&str]| {
        let mut all = vec!["pools".to_owned(), format!("--controller={at}")];
        all.extend(args.iter().map(|arg| (*arg).to_owned()));
        all
    };
    let (code, said) = world.kuryr.run(run(&["fill", &node, "5"])).await?;
    ensure!(code == Some(0) && said.contains("5 ports"), "{code:?}: {said}");
    when(world, "filled to 5", |report| report.pools.iter().any(|pool| pool.place == node && pool.view.ready == 5))
        .await?;
    let (code, said) = world.kuryr.run(run(&[])).await?;
    ensure!(code == Some(0) && said.contains(&node) && said.contains("6 spare ports of 500"), "{code:?}: {said}");
    let (code, said) = world.kuryr.run(run(&["drain", &node])).await?;
    ensure!(code == Some(0) && said.contains("deleted now: 5"), "{code:?}: {said}");
    when(world, "drained", |report| ready(report) == 1 && report.leaving == 0).await?;
    let left = world.pool_ports().await?.len();
    ensure!(left == 1, "{left} spare ports");
    let (code, said) = world.kuryr.run(run(&["fill", "nobody", "5"])).await?;
    ensure!(code == Some(2) && said.contains("nobody has no port pool"), "{code:?}: {said}");
    // A pod of a node without spare ports gets one of its own.
    many(world, 2).await.map(drop)
}

pub(super) async fn a_pod_that_finds_a_port_waits_for_no_other(world: &mut World) -> anyhow::Result<()> {
    filled(world, 3, "cooldown = \"1s\"").await?;
    let (empty, full) = (world.nodes[0].clone(), world.nodes[1].clone());
    let controller = world.kuryr.controllers().into_iter().next().context("no controller")?;
    let at = world.kuryr.controller_address(controller).context("no address")?;
    let drain = vec!["pools".to_owned(), format!("--controller={at}"), "drain".to_owned(), empty.clone()];
    let (code, said) = world.kuryr.run(drain).await?;
    ensure!(code == Some(0), "{code:?}: {said}");
    // As many requests as there may be at once, of which none comes to its end.
    let faults = world.inside()?.cloud.faults().clone();
    let hung = faults.add(Fault::hang().on(Method::POST, PORTS));
    let waiting: Vec<String> = (0..12).map(|number| format!("waits-{number}")).collect();
    for name in &waiting {
        world.pods().create(&NewPod::new(name).on(&empty)).await?;
    }
    faults.wait_for_hits(hung, 2).await;
    for name in ["one", "two", "three"] {
        world.pods().create(&NewPod::new(name).on(&full)).await?;
        let has_one = |port: Option<&KuryrPort>| port.is_some_and(|port| !port.spec.vifs.is_empty());
        world.pods().port(name, "with a port", Duration::from_secs(5), has_one).await?;
    }
    faults.remove(hung);
    try_join_all(waiting.iter().map(|name| async { world.pods().running(name).await })).await?;
    apart(world).await.map(drop)
}

pub(super) async fn a_restarted_controller_finds_its_pools_with_one_list(world: &mut World) -> anyhow::Result<()> {
    let nodes = world.nodes.len();
    filled(world, 4, "cooldown = \"1s\"").await?;
    run_in_turn(world, 2 * nodes).await?;
    let full = |report: &PoolReport| ready(report) == 4 * nodes && report.requests == 0 && report.leaving == 0;
    when(world, "filled again", full).await?;
    world.kuryr.kill_controllers().await?;
    world.inside()?.cloud.calls().reset();
    world.kuryr.start_controller().await?;
    world.leader_elected().await?;
    when(world, "as before", full).await?;
    let calls = asked(world)?;
    let writes: Vec<&CallRecord> = calls.iter().filter(|call| call.method != Method::GET).collect();
    ensure!(writes.is_empty(), "{} writes, the first: {:?}", writes.len(), writes.first());
    // One of all ports for pools and pods, and one of their groups for policies.
    let of_ports: Vec<&CallRecord> = calls.iter().filter(|call| call.template.starts_with(PORTS)).collect();
    ensure!(of_ports.len() <= 2 && of_ports.iter().all(|call| call.template == PORTS), "{of_ports:?}");
    run_more(world, 2 * nodes).await?;
    ensure!(apart(world).await? == 4 * nodes, "not all pods have a port");
    Ok(())
}

/// More pods, on the nodes in turn.
async fn run_more(world: &World, count: usize) -> anyhow::Result<()> {
    try_join_all((0..count).map(|n| async move {
        let name = format!("more-{n}");
        world.run_pod(&NewPod::new(&name).on(&world.nodes[n % world.nodes.len()]), &name).await
    }))
    .await
    .map(drop)
}

//! OpenStack misbehaves. What is asked each time: new pods wait with a reason and start when it is over, nothing that
//! runs is disturbed, and nothing is lost or made twice.

use super::{
    connectivity::both_ways,
    lifecycle::{all_apart, many},
};
use crate::{
    cloud::Fault,
    world::{NewPod, World, pods::PATIENCE},
};
use anyhow::{Context, bail, ensure};
use http::Method;
use k8s_openapi::api::core::v1::Pod;
use kuryr_model::KuryrPort;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Where ports are made, one or many.
const PORTS: &str = "/v2.0/ports";

/// Pods are made while creates of ports fail in some way for a few times.
async fn made_despite(world: &mut World, fault: Fault) -> anyhow::Result<()> {
    let faults = world.inside()?.cloud.faults().clone();
    let id = faults.add(fault.on(Method::POST, PORTS));
    let pods = many(world, 5).await?;
    ensure!(faults.hits(id) > 0, "the fault never struck");
    all_apart(world, &pods).await
}

pub(super) async fn neutron_answers_500(world: &mut World) -> anyhow::Result<()> {
    made_despite(world, Fault::internal_error().times(3)).await
}

pub(super) async fn neutron_answers_503(world: &mut World) -> anyhow::Result<()> {
    made_despite(world, Fault::unavailable().times(3)).await
}

pub(super) async fn neutron_answers_429_with_retry_after(world: &mut World) -> anyhow::Result<()> {
    let started = Instant::now();
    made_despite(world, Fault::too_many_requests(Duration::from_secs(2)).times(1)).await?;
    ensure!(started.elapsed() >= Duration::from_secs(2), "asked again before the time that Neutron named");
    Ok(())
}

pub(super) async fn an_answer_is_lost_after_the_work_was_done(world: &mut World) -> anyhow::Result<()> {
    made_despite(world, Fault::lose_answer().times(2)).await
}

pub(super) async fn a_bulk_is_half_done(world: &mut World) -> anyhow::Result<()> {
    // Of those whose ports were made the other half's are not made twice.
    made_despite(world, Fault::do_half().times(2)).await
}

pub(super) async fn an_address_clashes_inside_a_bulk(world: &mut World) -> anyhow::Result<()> {
    // Somebody else has taken one of the addresses that Neutron chose: all of the bulk is refused.
    let clash = Fault::answer(409, "IpAddressAlreadyAllocated", "IP address 10.10.0.9 already allocated in subnet s");
    let faults = world.inside()?.cloud.faults().clone();
    let clash = faults.add(clash.on(Method::POST, PORTS).when(|call| call.items() > 1).times(3));
    let pods = many(world, 20).await?;
    ensure!(faults.hits(clash) == 3, "the fault struck {} times", faults.hits(clash));
    all_apart(world, &pods).await
}

/// Waits until Kuryr's project has so many ports.
async fn ports_are(world: &World, count: i64, within: Duration) -> anyhow::Result<()> {
    let embedded = world.inside()?;
    let mut changes = embedded.cloud.subscribe();
    let reached = async {
        while embedded.ports_used() != count {
            changes.changed().await?;
        }
        anyhow::Ok(())
    };
    match timeout(within, reached).await {
        Ok(reached) => reached,
        Err(_) => bail!("there are {} ports after {within:?}, not {count}", embedded.ports_used()),
    }
}

pub(super) async fn an_answer_comes_after_the_client_gave_up(world: &mut World) -> anyhow::Result<()> {
    world.use_openstack_settings("request_timeout = \"2s\"").await?;
    let cloud = world.inside()?.cloud.clone();
    let before = world.inside()?.ports_used();
    cloud.faults().add(Fault::delay(Duration::from_secs(12)).on(Method::POST, PORTS).times(1));
    let pod = world.run_pod(&NewPod::new("web"), "web").await?;
    let port = world.port_of(&pod).await?;
    ports_are(world, before + 2, Duration::from_secs(20)).await.context("what was given up is carried out")?;
    // Long before anything is pruned.
    ports_are(world, before + 1, Duration::from_secs(100)).await?;
    ensure!(world.port_of(&pod).await?.id == port.id, "the pod lost the port that it uses");
    Ok(())
}

pub(super) async fn a_pod_is_deleted_after_a_lost_answer(world: &mut World) -> anyhow::Result<()> {
    let cloud = world.inside()?.cloud.clone();
    let before = world.inside()?.ports_used();
    cloud.faults().add(Fault::lose_answer().on(Method::POST, PORTS).times(1));
    let blind = cloud.faults().add(Fault::unavailable().on(Method::GET, PORTS));
    world.pods().create(&NewPod::new("web")).await?;
    ports_are(world, before + 1, Duration::from_secs(20)).await?;
    cloud.faults().wait_for_hits(blind, 1).await;
    world.pods().delete("web").await?;
    world.pods().when("web", "gone", PATIENCE, |pod: Option<&Pod>| pod.is_none()).await?;
    cloud.faults().remove(blind);
    ports_are(world, before, Duration::from_secs(60)).await
}

pub(super) async fn neutron_hangs(world: &mut World) -> anyhow::Result<()> {
    let cloud = world.inside()?.cloud.clone();
    let id = cloud.faults().add(Fault::hang().on(Method::POST, PORTS).times(1));
    world.pods().create(&NewPod::new("waits")).await?;
    let said = waiting_with("CloudSlow");
    world.pods().port("waits", "waiting with its reason", PATIENCE, said).await?;
    cloud.faults().remove(id);
    world.pods().running("waits").await.map(drop)
}

pub(super) async fn neutron_is_slow(world: &mut World) -> anyhow::Result<()> {
    let cloud = world.inside()?.cloud.clone();
    let id = cloud.faults().add(Fault::delay(Duration::from_secs(12)).on(Method::POST, PORTS).times(1));
    world.pods().create(&NewPod::new("waits")).await?;
    world.pods().port("waits", "waiting with its reason", PATIENCE, waiting_with("CloudSlow")).await?;
    let pod = world.pods().running("waits").await?;
    ensure!(cloud.faults().hits(id) == 1, "the fault struck {} times", cloud.faults().hits(id));
    world.port_of(&pod).await?;
    // What was late is used: nothing failed and was tried again.
    for controller in world.kuryr.controllers() {
        let metrics = world.kuryr.controller_metrics(controller).await?;
        let failed = metrics.lines().find(|line| line.starts_with("kuryr_pod_step_failures_total"));
        ensure!(failed.is_none(), "a step failed: {failed:?}");
    }
    Ok(())
}

pub(super) async fn neutron_drops_the_tags_of_ports(world: &mut World) -> anyhow::Result<()> {
    let cloud = world.inside()?.cloud.clone();
    let before = world.inside()?.ports_used();
    cloud.keep_port_tags(false);
    world.pods().create(&NewPod::new("waits")).await?;
    world.pods().port("waits", "waiting with its reason", PATIENCE, waiting_with("TagsDropped")).await?;
    let left = world.inside()?.ports_used();
    ensure!(left == before, "{left} ports where there were {before}: one without tags is found by nobody");
    cloud.keep_port_tags(true);
    world.pods().delete("waits").await?;
    world.run_pod(&NewPod::new("next"), "next").await.map(drop)
}

/// A `KuryrPort` that says why there is no port.
pub(super) fn waiting_with(reason: &'static str) -> impl Fn(Option<&KuryrPort>) -> bool {
    move |port| port.and_then(KuryrPort::unallocated_reason).is_some_and(|condition| condition.reason == reason)
}

pub(super) async fn a_quota_is_used_up(world: &mut World) -> anyhow::Result<()> {
    let pods = world.pods();
    world.run_pod(&NewPod::new("first"), "first").await?;
    let story = async |_: &World| {
        pods.create(&NewPod::new("second")).await?;
        pods.port("second", "waiting with its reason", PATIENCE, waiting_with("QuotaExceeded")).await?;
        // Deletions still go on, and what they free is taken at once, not after a retry period.
        let started = Instant::now();
        pods.delete("first").await?;
        pods.running("second").await?;
        ensure!(started.elapsed() < Duration::from_secs(15), "the freed port was taken after {:?}", started.elapsed());
        Ok(())
    };
    world.with_ports_left(0, story).await
}

pub(super) async fn the_token_expires(world: &mut World) -> anyhow::Result<()> {
    let one = world.run_pod(&NewPod::new("one"), "one").await?;
    world.inside()?.cloud.expire_tokens();
    let other = world.run_pod(&NewPod::new("other"), "other").await?;
    both_ways(world, &one, &other).await
}

pub(super) async fn a_subnet_is_full(world: &mut World) -> anyhow::Result<()> {
    // Two subnets of five free addresses each, tried in turn.
    world.with_small_subnets(full).await
}

async fn full(world: &mut World) -> anyhow::Result<()> {
    let pods = world.pods();
    let running = many(world, 10).await?;
    all_apart(world, &running).await?;
    pods.create(&NewPod::new("eleventh")).await?;
    let port = pods.port("eleventh", "waiting with its reason", PATIENCE, waiting_with("SubnetsFull")).await?;
    let port = port.context("no KuryrPort")?;
    let message = &port.unallocated_reason().context("no reason")?.message;
    ensure!(message.contains("small-a") && message.contains("small-b"), "the message names no subnet: {message}");
    pods.delete("pod-0").await?;
    pods.running("eleventh").await.map(drop)
}

/// Fills a subnet of five addresses and part of a second one, by bulks for which there is not always room.
async fn fill_up(world: &mut World) -> anyhow::Result<()> {
    world.use_small_subnets().await?;
    let running = many(world, 8).await?;
    all_apart(world, &running).await
}

pub(super) async fn no_address_is_lost_when_subnets_fill_up(world: &mut World) -> anyhow::Result<()> {
    fill_up(world).await?;
    world.run_pod(&NewPod::new("ninth"), "ninth").await?;
    world.run_pod(&NewPod::new("tenth"), "tenth").await?;
    let cloud = &world.inside()?.cloud;
    ensure!(cloud.lost_addresses() == 0, "{} addresses are lost", cloud.lost_addresses());
    // Neutron was asked how full it is before a bulk, and not for each pod.
    let asked = cloud.calls().filter(|call| call.template.starts_with("/v2.0/network-ip-availabilities")).len();
    ensure!((1..=4).contains(&asked), "Neutron was asked {asked} times how full it is");
    Ok(())
}

pub(super) async fn a_cloud_that_does_not_say_how_full_it_is(world: &mut World) -> anyhow::Result<()> {
    let cloud = world.inside()?.cloud.clone();
    let forbidden = Fault::answer(403, "PolicyNotAuthorized", "get_network_ip_availability is disallowed by policy");
    let id = cloud.faults().add(forbidden.on(Method::GET, "/v2.0/network-ip-availabilities/*"));
    fill_up(world).await?;
    // Two bulks may have been under way at once.
    let asked = cloud.faults().hits(id);
    ensure!((1..=2).contains(&asked), "what is forbidden was asked for {asked} times");
    Ok(())
}

pub(super) async fn neutron_is_away_for_a_while(world: &mut World) -> anyhow::Result<()> {
    let pods = world.pods();
    let node = world.nodes[0].clone();
    let one = world.run_pod(&NewPod::new("one").on(&node), "one").await?;
    let two = world.run_pod(&NewPod::new("two").on(&node), "two").await?;
    let cloud = world.inside()?.cloud.clone();
    cloud.go_away();
    pods.create(&NewPod::new("three").on(&node)).await?;
    pods.port("three", "waiting with its reason", PATIENCE, waiting_with("CloudUnavailable")).await?;
    both_ways(world, &one, &two).await.context("running pods while Neutron is away")?;
    pods.delete("two").await?;
    cloud.come_back();
    pods.running("three").await?;
    pods.gone("two").await
}

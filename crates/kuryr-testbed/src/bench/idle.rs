//! A system in which nothing changes: it should be silent.

use super::{
    figure::{Budget, Figure, Unit},
    lab::{self, Scale},
    machine::{Usage, usage},
};
use crate::{
    cloud::Latency,
    world::{NewPod, World},
};
use futures::future::try_join_all;
use serde_json::json;
use std::time::Duration;

pub(super) const GROUP: &str = "idle";

/// How many pods there are.
const PODS: usize = 100;

/// How many Services there are: each has the same share of the pods behind it.
const SERVICES: usize = 20;

/// How many NetworkPolicies there are, and how many of the pods each selects.
const POLICIES: usize = 10;
const SELECTED: usize = 50;

/// The name of a Service, and of its pods' label.
fn service(number: usize) -> String {
    format!("app-{number}")
}

/// How long nothing may have been asked for before the watch begins: what the starts of the pods set off is over then.
const QUIET: Duration = Duration::from_secs(3);

pub(super) async fn measure(scale: &Scale) -> anyhow::Result<Vec<Figure>> {
    let mut world = lab::world(scale, 2, Latency::default(), "10.10.0.0/20").await?;
    let measured = on(&mut world, scale.idle_seconds).await;
    world.shut_down().await?;
    measured
}

async fn on(world: &mut World, seconds: u64) -> anyhow::Result<Vec<Figure>> {
    lab::start_kuryr(world).await?;
    let (pods, services) = (world.pods(), world.services());
    let names = lab::names("idle", PODS);
    let new = names.iter().enumerate().map(|(number, name)| NewPod::new(name).app(&service(number % SERVICES)));
    let new: Vec<NewPod> = new.collect();
    try_join_all(new.iter().map(|pod| pods.create(pod))).await?;
    try_join_all((0..SERVICES).map(|number| {
        let services = &services;
        async move { services.create(&service(number), json!({})).await }
    }))
    .await?;
    for name in &names {
        pods.running(name).await?;
    }
    let policies = world.policies();
    let apps: Vec<String> = (0..SELECTED * SERVICES / PODS).map(service).collect();
    for number in 0..POLICIES {
        let spec = json!({
            "podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": apps}]},
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": service(number)}}}]}],
        });
        policies.create(&format!("policy-{number}"), &spec).await?;
    }
    for number in 0..POLICIES {
        policies.ready(&format!("policy-{number}")).await?;
    }
    for number in 0..SERVICES {
        services.ready(&service(number), u32::try_from(PODS / SERVICES)?).await?;
    }
    let inside = world.inside()?;
    let (cloud, api) = (inside.cloud.calls(), inside.api.calls());
    let others = |key: &crate::kubernetes::CallKey| key.resource != "leases" && key.user_agent.starts_with("kuryr");
    loop {
        let before = (cloud.total(), api.count(others));
        tokio::time::sleep(QUIET).await;
        if before == (cloud.total(), api.count(others)) {
            break;
        }
    }
    cloud.reset();
    api.reset();
    let (controller, daemons) = usages(world)?;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let (controller_after, daemons_after) = usages(world)?;

    #[expect(clippy::cast_precision_loss)]
    let number = |count: u64| count as f64;
    let figure = |what: &str, count: u64| {
        Figure::new(
            GROUP,
            format!("{what}, {PODS} pods, {SERVICES} Services, {POLICIES} policies, {seconds} s"),
            Unit::Calls,
            vec![number(count)],
        )
    };
    let all = api.snapshot();
    let ours = all.iter().filter(|(key, _)| key.user_agent.starts_with("kuryr"));
    let list: Vec<String> =
        ours.map(|(key, count)| format!("{count} {} {} by {}", key.verb, key.resource, key.user_agent)).collect();
    let cpu = Figure::new(
        GROUP,
        format!("idle: processor time of the controller, {seconds} s"),
        Unit::Seconds,
        vec![controller_after.cpu - controller.cpu],
    )
    .original("1.7 s, 7 pods, 120 s");
    let spent = daemons_after.iter().zip(&daemons).map(|(after, before)| after.cpu - before.cpu).collect();
    let daemon_cpu = Figure::new(GROUP, format!("idle: processor time of a daemon, {seconds} s"), Unit::Seconds, spent)
        .original("0.46 s, 7 pods, 120 s");
    Ok(vec![
        figure("idle: Neutron and Octavia requests", cloud.total()).budget(Budget::most(0.0)).original("500 writes"),
        figure("idle: Kubernetes writes besides the Lease", api.count(|key| key.is_write() && others(key)))
            .budget(Budget::most(0.0))
            .calls(format!(
                "{} for the Lease",
                api.count(|key| key.resource == "leases" && key.user_agent.starts_with("kuryr"))
            ))
            .original("2257 requests")
            .note(format!(
                "all of Kuryr's calls: {}",
                if list.is_empty() { "none".to_owned() } else { list.join(", ") }
            )),
        cpu,
        daemon_cpu,
    ])
}

fn usages(world: &World) -> anyhow::Result<(Usage, Vec<Usage>)> {
    let controller = world.kuryr.controller_pid(0).ok_or_else(|| anyhow::anyhow!("the controller is gone"))?;
    let daemons = world.nodes.iter().filter_map(|node| world.kuryr.daemon_pid(node)).map(usage);
    Ok((usage(controller)?, daemons.collect::<anyhow::Result<_>>()?))
}

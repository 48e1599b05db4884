//! A Service in front of pods: reached from a pod, a VM and from outside, and scaled.

use super::show::{Show, seconds};
use crate::{
    cloud::{Calls, Service},
    dataplane::probe,
    world::{Backend, Services, Vm, World, cluster_ip, pods::PATIENCE},
};
use anyhow::{Context, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};
use tokio::time::Instant;

const WITHIN: Duration = Duration::from_secs(10);

/// The port number of the Service.
const NUMBER: u16 = 80;

pub(super) async fn one(show: &Show, world: &World, pods: &[Pod], vm: &Vm) -> anyhow::Result<()> {
    show.chapter(
        "A Service",
        "Its clusterIP is the VIP of a load balancer in Octavia, made whole by one call: no kube-proxy, and so a VM reaches it too. Its \
         KuryrLoadBalancer says what was made. Type LoadBalancer adds a floating IP, for whoever is outside.",
    );
    let calls = world.inside()?.cloud.calls().clone();
    let services = world.services();
    let own = Services::new(&world.client, "default");
    show.wait("Kubernetes' own Service has its load balancer", own.ready("kubernetes", 1)).await?;
    let mut backends = show.wait("two pods that serve", world.backends("shop", 0..2)).await?;
    calls.reset();
    let made = async {
        let service = services.create("shop", json!({"type": "LoadBalancer"})).await?;
        let outside = services.ingress("shop").await?;
        services.ready("shop", 2).await?;
        Ok((cluster_ip(&service)?, outside))
    };
    let (ip, outside) = show.wait("Service shop gets its load balancer and its floating IP", made).await?;
    let writes = octavia(&calls);
    show.gap();
    show.fact("to create", &said(&writes));
    show.gap();
    let front = world.netns(pods.first().context("no pod")?)?;
    let rest = world.outside();
    let ways =
        [("pod front", front.as_path(), ip), ("VM", vm.netns.as_path(), ip), ("outside", rest.as_path(), outside)];
    let mut rows = Vec::new();
    for (who, from, to) in ways {
        let (times, took) = heard(from, to, backends.len()).await.with_context(|| format!("{who} to {to}"))?;
        let answers: Vec<String> = times.iter().map(|(name, times)| format!("{name} × {times}")).collect();
        let kind = if to == ip { "clusterIP" } else { "floating IP" };
        rows.push(vec![
            who.to_owned(),
            "→".to_owned(),
            format!("{to}:{NUMBER}"),
            kind.to_owned(),
            answers.join(", "),
            seconds(took),
        ]);
    }
    show.table(&["FROM", "", "ADDRESS", "WHICH IS", "ANSWERS", ">FIRST"], &rows);
    show.gap();
    // Pods of which Kubernetes tells after the Service itself are another call.
    let made = writes.iter().filter(|(call, _)| !call.ends_with("/members"));
    show.claim(
        made.map(|(_, count)| count).sum::<usize>() == 1,
        "one call to Octavia made the load balancer with listener and listener pool",
    )?;
    show.claim(rows.len() == ways.len(), "pod, VM and outside each reach both pods through it")?;
    scaled(show, world, &calls, &mut backends).await?;
    show.gap();
    let gone = async {
        services.delete("shop").await?;
        services.gone("shop").await?;
        let pods = &world.pods();
        try_join_all(backends.iter().map(|backend| async move { pods.delete(&backend.name()).await })).await?;
        try_join_all(backends.iter().map(|backend| async move { pods.gone(&backend.name()).await })).await.map(drop)
    };
    show.wait("Service and pods are deleted", gone).await?;
    let left = world.inside()?.cloud.snapshot();
    let name = format!("{}/shop", world.namespace());
    let balancers = world.inside()?.cloud.load_balancing().all();
    show.claim(
        balancers.iter().all(|balancer| balancer.name != name) && left.floating_ips.is_empty(),
        "load balancer and floating IP are gone",
    )
}

async fn scaled(show: &Show, world: &World, calls: &Calls, backends: &mut Vec<Backend>) -> anyhow::Result<()> {
    let (services, pods) = (world.services(), &world.pods());
    show.gap();
    calls.reset();
    let up = async {
        backends.extend(world.backends("shop", 2..5).await?);
        services.ready("shop", 5).await.map(drop)
    };
    show.wait("three more pods", up).await?;
    let more = octavia(calls);
    calls.reset();
    let rest = backends.split_off(2);
    let down = async {
        try_join_all(rest.iter().map(|backend| async move { pods.delete(&backend.name()).await })).await?;
        services.ready("shop", 2).await.map(drop)
    };
    show.wait("and without them", down).await?;
    let fewer = octavia(calls);
    show.gap();
    show.fact("to scale up", &said(&more));
    show.fact("to scale down", &said(&fewer));
    show.gap();
    // Pods do not come and go in one instant.
    let batches = |counts: &BTreeMap<String, usize>| (1..=6).contains(&counts.values().sum::<usize>());
    show.claim(batches(&more) && batches(&fewer), "members come and go in batches, and nothing else is touched")
}

/// What changed something in Octavia since the log was reset, by kind.
fn octavia(calls: &Calls) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for call in calls.writes(Service::LoadBalancer) {
        *counts.entry(format!("{} {}", call.method, call.template)).or_default() += 1;
    }
    counts
}

fn said(counts: &BTreeMap<String, usize>) -> String {
    let texts: Vec<String> = counts.iter().map(|(call, count)| format!("{count} × {call}")).collect();
    if texts.is_empty() { "no call".to_owned() } else { texts.join(", ") }
}

/// Connects until so many different ones have answered; how often each did, and how long the first took.
async fn heard(from: &Path, to: IpAddr, count: usize) -> anyhow::Result<(BTreeMap<String, usize>, Duration)> {
    let started = Instant::now();
    let (mut times, mut first) = (BTreeMap::new(), None);
    while times.len() < count {
        ensure!(started.elapsed() < PATIENCE, "only {times:?} answered");
        let answer = probe::who(from, SocketAddr::new(to, NUMBER), WITHIN).await?;
        first.get_or_insert_with(|| started.elapsed());
        *times.entry(answer.name).or_default() += 1;
    }
    Ok((times, first.unwrap_or_default()))
}

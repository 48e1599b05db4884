//! NetworkPolicies: what they cost in calls, how long until packets stop and pass, and very many of them.

use super::{
    figure::{Budget, Figure, Unit},
    lab::{self, NAMESPACE, Scale},
    machine::usage,
    preload,
    seen::Seen,
};
use crate::{
    cloud::{Calls, Latency, Service},
    dataplane::probe::{Outcome, Question, Transport, ask_all, listen_as},
    world::{NewPod, World, addresses},
};
use anyhow::{Context, ensure};
use futures::{StreamExt, TryStreamExt, future::try_join_all, stream};
use kube::Api;
use kuryr_model::KuryrNetworkPolicy;
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

pub(super) const GROUP: &str = "policies";

/// Selected pods, peers, the most writes to Neutron, and what the original needed.
const SIZES: [(usize, usize, Option<f64>, &str); 3] = [
    (1, 1, Some(14.0), "10 calls"),
    (10, 10, Some(14.0), "45 writes; enforced after 8.9 s, real world"),
    (10, 50, Some(14.0), "126 calls"),
];

/// Policies that name one pod.
const NAMING: usize = 10;

/// Pods of which one policy is to hold.
const PODS: usize = 50;

/// How long each call to Neutron takes there.
const EACH: Duration = Duration::from_millis(200);

/// How long anything may take before it is given up.
const PATIENCE: Duration = Duration::from_secs(240);

/// How long nothing may come through until nothing is said to: a busy machine may miss an answer.
const QUIET: Duration = Duration::from_millis(500);

/// How long an answer is waited for where one may come: pods are next to each other.
const ANSWER: Duration = Duration::from_millis(25);

pub(super) async fn measure(scale: &Scale) -> anyhow::Result<Vec<Figure>> {
    let mut figures = calls(scale).await?;
    figures.extend(enforced(scale).await?);
    figures.extend(starts(scale).await?);
    figures.extend(many(scale).await?);
    Ok(figures)
}

#[expect(clippy::cast_precision_loss)]
fn number(count: usize) -> f64 {
    count as f64
}

/// Pods of this label into those of that one.
fn spec(selected: &str, peers: &str) -> Value {
    let labels = |app: &str| json!({"matchLabels": {"app": app}});
    json!({
        "podSelector": labels(selected),
        "ingress": [{"from": [{"podSelector": labels(peers)}], "ports": [{"port": 80}]}],
    })
}

/// Writes to Neutron since the log was reset, and a word on what they were.
fn writes(calls: &Calls) -> (usize, String) {
    let all = calls.writes(Service::Network);
    let mut kinds = std::collections::BTreeMap::<String, usize>::new();
    for call in &all {
        *kinds.entry(format!("{} {}", call.method, call.template.trim_start_matches("/v2.0/"))).or_default() += 1;
    }
    let texts: Vec<String> = kinds.into_iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    (all.len(), texts.join(", "))
}

/// What policies and pods cost in calls.
async fn calls(scale: &Scale) -> anyhow::Result<Vec<Figure>> {
    let world = lab::world_without_kubelet(scale, Latency::default()).await?;
    let counted = counted(&world).await;
    world.shut_down().await?;
    counted
}

async fn counted(world: &World) -> anyhow::Result<Vec<Figure>> {
    let (log, policies, pods) = (world.inside()?.cloud.calls().clone(), world.policies(), world.pods());
    let filled = lab::ports_filled(&world.client);
    let mut figures = Vec::new();
    for (selected, peers, budget, original) in SIZES {
        let name = format!("size-{selected}-{peers}");
        let (theirs, ours) = (format!("{name}-peer"), format!("{name}-pod"));
        let of = |app: &str, count: usize| {
            let app = app.to_owned();
            (0..count).map(move |number| NewPod::new(format!("{app}-{number}")).app(&app)).collect::<Vec<_>>()
        };
        let new = [of(&ours, selected), of(&theirs, peers)].concat();
        try_join_all(new.iter().map(|pod| pods.create(pod))).await?;
        for pod in &new {
            filled.when(pod.name()).await?;
        }
        log.reset();
        policies.create(&name, &spec(&ours, &theirs)).await?;
        policies.ready(&name).await?;
        let (count, kinds) = writes(&log);
        let what = format!("NetworkPolicy, {selected} selected and {peers} peer pods: Neutron writes");
        let mut figure = Figure::new(GROUP, what, Unit::Calls, vec![number(count)])
            .calls(kinds)
            .original(original)
            .note("each pod that gets a group is one update of its port: Neutron has no request for several");
        if let Some(most) = budget {
            figure = figure.budget(Budget::most(most));
        }
        figures.push(figure);
    }
    for number in 0..NAMING {
        let name = format!("naming-{number}");
        policies.create(&name, &spec(&format!("named-{number}"), "new")).await?;
        policies.ready(&name).await?;
    }
    log.reset();
    pods.create(&NewPod::new("new").app("new")).await?;
    filled.when("new").await?;
    let (count, kinds) = writes(&log);
    figures.push(
        Figure::new(
            GROUP,
            format!("a new pod that {NAMING} policies name: Neutron writes"),
            Unit::Calls,
            vec![number(count)],
        )
        .budget(Budget::most(2.0))
        .calls(kinds)
        .original("114 calls"),
    );
    Ok(figures)
}

/// How long one policy takes to hold for many pods.
async fn enforced(scale: &Scale) -> anyhow::Result<Vec<Figure>> {
    let latency = Latency { read: EACH, create: EACH, update: EACH, delete: EACH, ..Latency::default() };
    let mut figures = Vec::new();
    for (cloud, latency, budget) in
        [("200 ms per Neutron call", latency, true), ("a quick cloud", Latency::default(), false)]
    {
        let mut world = lab::world(scale, 2, latency, "10.10.0.0/20").await?;
        let taken = async {
            lab::start_kuryr(&mut world).await?;
            held(&world, scale.samples(5)).await
        }
        .await;
        world.shut_down().await?;
        let (stopped, passed) = taken?;
        let figure = |what: &str, samples| {
            let figure = Figure::new(GROUP, format!("{what}, {PODS} pods, {cloud}"), Unit::Seconds, samples)
                .original("8.9 s for 10 pods, real world")
                .note("until it is so for the last of them; a datagram to each is sent every 25 ms");
            if budget { figure.budget(Budget::most(2.0)) } else { figure }
        };
        figures.push(figure("policy written -> packets stopped", stopped));
        figures.push(figure("policy written -> packets allowed", passed));
    }
    Ok(figures)
}

async fn held(world: &World, samples: usize) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    let (pods, policies) = (world.pods(), world.policies());
    let names = lab::names("web", PODS);
    let new: Vec<NewPod> = names.iter().map(|name| NewPod::new(name).app("web")).collect();
    try_join_all(new.iter().map(|pod| pods.create(pod))).await?;
    // Servers that answer: how often a kernel says that nobody listens is limited, and its silence is no policy's doing.
    let (mut targets, mut servers) = (Vec::new(), Vec::new());
    for name in &names {
        let pod = pods.running(name).await?;
        let target = SocketAddr::new(*addresses(&pod)?.first().context("a pod without address")?, 7);
        servers.push(listen_as(&world.netns(&pod)?, target, name).await?);
        targets.push(target);
    }
    let client = world.run_pod(&NewPod::new("client").app("client"), "client").await?;
    let from = world.netns(&client)?;
    until(&from, &targets, true).await?;
    let (mut stopped, mut passed) = (Vec::new(), Vec::new());
    for _ in 0..samples {
        let asked = Instant::now();
        policies.create("web", &json!({"podSelector": {"matchLabels": {"app": "web"}}})).await?;
        stopped.push((until(&from, &targets, false).await? - asked).as_secs_f64());
        policies.ready("web").await?;
        let labels = |app: &str| json!({"matchLabels": {"app": app}});
        let open = json!({
            "podSelector": labels("web"),
            "ingress": [{"from": [{"podSelector": labels("client")}]}],
        });
        let asked = Instant::now();
        policies.create("clients", &open).await?;
        passed.push((until(&from, &targets, true).await? - asked).as_secs_f64());
        policies.delete_all().await?;
        until(&from, &targets, true).await?;
    }
    drop(servers);
    Ok((stopped, passed))
}

/// Waits until datagrams are answered by all, or by none for a while; since when that is so.
async fn until(from: &Path, targets: &[SocketAddr], through: bool) -> anyhow::Result<Instant> {
    let question = |target: &SocketAddr| Question { transport: Transport::Udp, target: *target, patience: ANSWER };
    let questions: Vec<Question> = targets.iter().map(question).collect();
    let started = Instant::now();
    let mut silent_since = None;
    loop {
        let round = Instant::now();
        let outcomes = ask_all(from, &questions).await?;
        if through {
            if outcomes.iter().all(|outcome| *outcome == Outcome::Answered) {
                return Ok(Instant::now());
            }
        } else if outcomes.contains(&Outcome::Answered) {
            silent_since = None;
        } else if round - *silent_since.get_or_insert(round) > QUIET {
            return Ok(silent_since.unwrap_or(round));
        }
        ensure!(started.elapsed() < PATIENCE, "after {PATIENCE:?}: {outcomes:?}");
    }
}

/// How long the start of a pod takes that policies select.
async fn starts(scale: &Scale) -> anyhow::Result<Vec<Figure>> {
    let mut world = lab::world(scale, 1, Latency::default(), "10.10.0.0/20").await?;
    let samples = scale.samples(20);
    let measured = async {
        lab::start_kuryr(&mut world).await?;
        let before = started(&world, "free", samples).await?;
        for number in 0..NAMING {
            let name = format!("selecting-{number}");
            world.policies().create(&name, &spec("selected", &format!("peer-{number}"))).await?;
            world.policies().ready(&name).await?;
        }
        anyhow::Ok((before, started(&world, "selected", samples).await?))
    }
    .await;
    world.shut_down().await?;
    let (before, after) = measured?;
    let figure = |what: String, samples| Figure::new(GROUP, what, Unit::Milliseconds, samples);
    Ok(vec![
        figure("a pod created -> Running, without policies".to_owned(), before),
        figure(format!("a pod created -> Running, {NAMING} policies select it"), after)
            .note("they hold before it starts; the first one has their groups put on a port, as all do"),
    ])
}

async fn started(world: &World, app: &str, samples: usize) -> anyhow::Result<Vec<f64>> {
    let mut times = Vec::new();
    for name in lab::names(app, samples) {
        let asked = Instant::now();
        world.run_pod(&NewPod::new(&name).app(app), &name).await?;
        times.push(asked.elapsed().as_secs_f64() * 1000.0);
        world.pods().delete(&name).await?;
        world.pods().gone(&name).await?;
    }
    Ok(times)
}

/// Very many pods and policies.
async fn many(scale: &Scale) -> anyhow::Result<Vec<Figure>> {
    let mut world = lab::world(scale, 1, Latency::default(), "10.10.0.0/16").await?;
    let measured = crowd(&mut world, scale.many).await;
    world.shut_down().await?;
    measured
}

async fn crowd(world: &mut World, pods: usize) -> anyhow::Result<Vec<Figure>> {
    preload::pods(world, pods, preload::Nodes::Bare).await?;
    let count = pods / preload::SLOT;
    let first = world.kuryr.start_controller().await?;
    world.leader_elected().await?;
    let held: Api<KuryrNetworkPolicy> = Api::namespaced(world.client.clone(), NAMESPACE);
    let ready = Seen::watch(held, |held: &KuryrNetworkPolicy| held.ready().is_some_and(|ready| ready.status == "True"));
    let (policies, log) = (world.policies(), world.inside()?.cloud.calls().clone());
    log.reset();
    let asked = Instant::now();
    let names = lab::names("many", count);
    // Each selects ten pods, and names ten others.
    let slots = |number: usize| json!({"matchLabels": {"slot": (number % count).to_string()}});
    stream::iter(names.iter().enumerate())
        .map(|(number, name)| {
            let spec = json!({
                "podSelector": slots(number),
                "ingress": [{"from": [{"podSelector": slots(number + 1)}], "ports": [{"port": 80}]}],
            });
            let policies = &policies;
            async move { policies.create(name, &spec).await }
        })
        .buffer_unordered(16)
        .try_collect::<Vec<_>>()
        .await?;
    for name in &names {
        ready.when(name).await?;
    }
    let took = asked.elapsed().as_secs_f64();
    let (made, kinds) = writes(&log);
    let working = usage(world.kuryr.controller_pid(first).context("the controller is gone")?)?;
    world.kuryr.stop_controller(first).await?;

    log.reset();
    let started = Instant::now();
    let second = world.kuryr.start_controller().await?;
    world.leader_elected().await?;
    let leads = started.elapsed().as_secs_f64();
    // It has compared everything when a change is done.
    policies.replace(&names[0], &json!({"podSelector": slots(0)})).await?;
    policies.ready(&names[0]).await?;
    let served = started.elapsed().as_secs_f64();
    let (again, again_kinds) = writes(&log);
    let rested = usage(world.kuryr.controller_pid(second).context("the controller is gone")?)?;
    let what = format!("{pods} pods, {count} policies");
    let memory =
        |what: String, mib: f64| Figure::new(GROUP, what, Unit::Mebibytes, vec![mib]).budget(Budget::most(150.0));
    Ok(vec![
        Figure::new(GROUP, format!("{what}: all policies created -> all hold, embedded"), Unit::Seconds, vec![took])
            .calls(format!("{made} writes: {kinds}"))
            .note("every pod gets two groups; API server and cloud run on the same cores"),
        memory(format!("{what}: memory of the controller, PSS"), working.pss_mib)
            .note(format!("peak RSS: {:.1} MiB", working.peak_mib)),
        memory(format!("{what}: the same after a restart, PSS"), rested.pss_mib)
            .note(format!("peak RSS: {:.1} MiB", rested.peak_mib)),
        Figure::new(GROUP, format!("{what}: restart until a change of a policy holds"), Unit::Seconds, vec![served])
            .budget(Budget::most(5.0))
            .calls(format!("{again} writes: {again_kinds}"))
            .note(format!("leads after {leads:.2} s")),
    ])
}

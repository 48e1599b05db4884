//! A `NetworkPolicy`: two tiers, and who reaches whom before and after.

use super::show::{Show, seconds};
use crate::{
    cloud::{CallRecord, Service},
    dataplane::probe::{Outcome, Question, Transport, ask_all},
    world::{Backend, NewPod, Vm, World, pods::PATIENCE},
};
use anyhow::{Context, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kuryr_model::KuryrNetworkPolicy;
use serde_json::{Value, json};
use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};
use tokio::time::Instant;

/// Where the web tier serves, and where the database does.
const WEB: u16 = 80;
const DATABASE: u16 = 5432;

/// How long an answer is waited for before it is called silence.
const SILENCE: Duration = Duration::from_millis(500);

/// Somebody who asks, or is asked.
struct Place {
    name: &'static str,
    netns: PathBuf,
    at: Option<SocketAddr>,
}

/// Who reaches whom: a row for each who asks, with a mark for each who is asked.
type Table = Vec<(&'static str, Vec<bool>)>;

pub(super) async fn two_tiers(show: &Show, world: &World, pods: &[Pod], vm: &Vm) -> anyhow::Result<()> {
    show.chapter(
        "A NetworkPolicy",
        "Two tiers: web, and a database that only web may use. A policy is a security group that its pods carry; whom it names is a \
         group that those carry. So a new pod is one port with more groups, and no rule changes.",
    );
    let (web, database) = show.wait("pods web and database run", tiers(world)).await?;
    let front = world.netns(pods.first().context("no pod")?)?;
    let place = |name, netns: &PathBuf, at| Place { name, netns: netns.clone(), at };
    let places = [
        place("pod web", &web.netns, Some(SocketAddr::new(web.address, WEB))),
        place("pod database", &database.netns, Some(SocketAddr::new(database.address, DATABASE))),
        place("pod front", &front, None),
        place("VM", &vm.netns, None),
    ];
    let open: Table = places.iter().map(|place| (place.name, vec![true, true])).collect();
    let (before, _) = until(&places, &open).await?;
    show.gap();
    show.table(&["BEFORE: FROM", "TO web:80", "TO database:5432"], &rows(&before));
    show.gap();
    let spec = json!({
        "podSelector": {"matchLabels": {"app": "database"}},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{
            "from": [{"podSelector": {"matchLabels": {"app": "web"}}}],
            "ports": [{"protocol": "TCP", "port": DATABASE}],
        }],
    });
    show.quote(
        "cat policy.yaml",
        "podSelector: {matchLabels: {app: database}}\n\
         policyTypes: [Ingress, Egress]\n\
         ingress:\n\
         - from: [{podSelector: {matchLabels: {app: web}}}]\n\
         \u{20} ports: [{protocol: TCP, port: 5432}]",
    );
    show.gap();
    let calls = world.inside()?.cloud.calls().clone();
    calls.reset();
    let closed: Table = vec![
        ("pod web", vec![true, true]),
        ("pod database", vec![false, true]),
        ("pod front", vec![true, false]),
        ("VM", vec![true, false]),
    ];
    let policies = world.policies();
    let made = async {
        policies.create("database", &spec).await?;
        let (table, took) = until(&places, &closed).await?;
        Ok((table, took, policies.ready("database").await?))
    };
    let (after, took, held) = show.wait("the policy is made, and packets are sent until it holds", made).await?;
    show.gap();
    show.table(&["AFTER: FROM", "TO web:80", "TO database:5432"], &rows(&after));
    show.gap();
    show.fact("it held after", &seconds(took));
    show.fact("to create", &said(&calls.writes(Service::Network)));
    show.fact("KuryrNetworkPolicy", &told(&held));
    show.gap();
    show.claim(before == open, "without a policy everybody reaches both tiers")?;
    show.claim(after == closed, "with it only web reaches the database, which itself reaches nobody")?;
    let gone = async {
        policies.delete_all().await?;
        until(&places, &open).await?;
        for backend in [&web, &database] {
            world.pods().delete(&backend.name()).await?;
        }
        for backend in [&web, &database] {
            world.pods().gone(&backend.name()).await?;
        }
        Ok(())
    };
    show.wait("the policy is deleted, and everybody reaches everybody again", gone).await?;
    let groups = world.inside()?.cloud.snapshot().security_groups;
    let left = groups.values().filter(|group| group.name.contains("database")).count();
    show.claim(left == 0, "its security groups are gone")
}

async fn tiers(world: &World) -> anyhow::Result<(Backend, Backend)> {
    let pod = |name: &str| NewPod::new(name).app(name);
    tokio::try_join!(
        world.backend_of(pod("web").on(&world.nodes[0]), &[WEB]),
        world.backend_of(pod("database").on(&world.nodes[1]), &[DATABASE])
    )
}

/// Sends packets until everybody reaches whom they should and nobody else; since the first look.
async fn until(places: &[Place], wanted: &Table) -> anyhow::Result<(Table, Duration)> {
    let started = Instant::now();
    loop {
        let round = started.elapsed();
        let found = look(places).await?;
        if found == *wanted {
            return Ok((found, round));
        }
        ensure!(started.elapsed() < PATIENCE, "after {PATIENCE:?} the table is {found:?}, not {wanted:?}");
    }
}

async fn look(places: &[Place]) -> anyhow::Result<Table> {
    let targets: Vec<SocketAddr> = places.iter().filter_map(|place| place.at).collect();
    let asked = places.iter().map(|place| {
        let question = |target: &SocketAddr| Question { transport: Transport::Tcp, target: *target, patience: SILENCE };
        let questions: Vec<Question> = targets.iter().map(question).collect();
        async move {
            let outcomes = ask_all(&place.netns, &questions).await?;
            anyhow::Ok((place.name, outcomes.iter().map(|outcome| *outcome == Outcome::Answered).collect()))
        }
    });
    try_join_all(asked).await
}

fn rows(table: &Table) -> Vec<Vec<String>> {
    let mark = |reached: &bool| if *reached { "yes" } else { "-" }.to_owned();
    table.iter().map(|(name, marks)| [vec![(*name).to_owned()], marks.iter().map(mark).collect()].concat()).collect()
}

fn said(writes: &[CallRecord]) -> String {
    let mut counts = BTreeMap::<String, usize>::new();
    for call in writes {
        *counts.entry(format!("{} {}", call.method, call.template.trim_start_matches("/v2.0/"))).or_default() += 1;
    }
    let texts: Vec<String> = counts.into_iter().map(|(call, count)| format!("{count} × {call}")).collect();
    texts.join(", ")
}

fn told(held: &KuryrNetworkPolicy) -> String {
    let status: Value = serde_json::to_value(&held.status).unwrap_or_default();
    let count = |field: &str| status[field].as_u64().unwrap_or_default();
    let isolates = status["isolates"].as_str().unwrap_or_default();
    let (pods, rules, peers) = (count("selectedPods"), count("rules"), count("peers"));
    format!("selects {pods}, peers {peers}, rules {rules}, isolates {isolates}, Ready")
}

//! Many pods at once, and the controller killed among them.

use super::{
    pods::all_addresses,
    show::{Show, many, seconds},
    timeline::Timeline,
};
use crate::{
    cloud::{Cloud, PortView, Service},
    world::{World, pods::PATIENCE},
};
use anyhow::Context;
use futures::future::try_join_all;
use http::Method;
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt, api::ListParams};
use std::collections::{BTreeMap, BTreeSet};
use tokio::time::{Instant, timeout};

/// Where ports are made.
const PORTS: &str = "/v2.0/ports";

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}-{number:02}")).collect()
}

/// The ports in Neutron that are named after pods that begin so.
fn ports_of(cloud: &Cloud, prefix: &str) -> Vec<PortView> {
    let begin = format!("demo/{prefix}-");
    cloud.ports().into_iter().filter(|port| port.name.starts_with(&begin)).collect()
}

/// That each pod has one port that names it, and no port is left without a pod.
fn one_each(ports: &[PortView], pods: &[Pod]) -> bool {
    let owners: BTreeSet<&str> = ports.iter().map(|port| port.device_id.as_str()).collect();
    let uids: BTreeSet<&str> = pods.iter().filter_map(|pod| pod.metadata.uid.as_deref()).collect();
    ports.len() == pods.len() && owners == uids
}

pub(super) async fn at_once(show: &Show, world: &World, timeline: &Timeline, count: usize) -> anyhow::Result<()> {
    show.chapter(
        &format!("{count} pods at once"),
        "Requests for ports that arrive together leave as one bulk call, because a call to Neutron has a price of its own. The calls \
         are counted.",
    );
    let (cloud, pods) = (&world.inside()?.cloud, world.pods());
    cloud.calls().reset();
    let started = Instant::now();
    let names = names("crowd", count);
    let work = async {
        pods.create_all(&names).await?;
        try_join_all(names.iter().map(|name| pods.running(name))).await
    };
    let progress = || format!("{} of {count} Running", timeline.running("crowd-"));
    let running = show.watch(&format!("{count} pods come to run"), progress, work).await?;
    let took = started.elapsed();
    let creates = creates(cloud);
    let asked = counted(cloud);
    let apart: BTreeSet<_> = all_addresses(&running)?.into_iter().collect();
    let whole = one_each(&ports_of(cloud, "crowd"), &running);
    cloud.calls().reset();
    let work = async {
        try_join_all(names.iter().map(|name| pods.delete(name))).await?;
        try_join_all(names.iter().map(|name| pods.gone(name))).await.map(drop)
    };
    let progress = || format!("{} left", many(ports_of(cloud, "crowd").len(), "port"));
    show.watch(&format!("{count} pods are deleted, and their ports"), progress, work).await?;
    show.gap();
    show.fact("to create", &asked);
    show.fact("to delete", &counted(cloud));
    let sizes: Vec<String> = creates.iter().map(ToString::to_string).collect();
    show.fact("bulk creates", &format!("{} ports in calls of {}", creates.iter().sum::<usize>(), sizes.join(", ")));
    show.gap();
    show.claim(whole && apart.len() == count, "each pod had one port and an address of its own")?;
    show.claim(
        creates.iter().sum::<usize>() == count && creates.len() * 2 <= count,
        &format!(
            "{count} ports were made by {} calls; the last pod ran {} after the first was asked for",
            creates.len(),
            seconds(took)
        ),
    )?;
    show.claim(ports_of(cloud, "crowd").is_empty(), "all their ports are gone from Neutron")
}

/// How many ports each create asked for.
fn creates(cloud: &Cloud) -> Vec<usize> {
    let writes = cloud.calls().writes(Service::Network);
    writes.iter().filter(|call| call.method == Method::POST && call.template == PORTS).map(|call| call.items).collect()
}

/// All calls to the cloud, counted by kind.
fn counted(cloud: &Cloud) -> String {
    let counts: BTreeMap<String, u64> = cloud
        .calls()
        .counts()
        .into_iter()
        .map(|((_, method, path), count)| (format!("{method} {path}"), count))
        .collect();
    let texts: Vec<String> = counts.iter().map(|(call, count)| format!("{count} × {call}")).collect();
    if texts.is_empty() { "no call".to_owned() } else { texts.join(", ") }
}

pub(super) async fn controller_killed(
    show: &Show,
    world: &mut World,
    timeline: &Timeline,
    count: usize,
) -> anyhow::Result<()> {
    show.chapter(
        "The controller dies in the middle",
        &format!(
            "{count} pods again. The moment Neutron has made ports for half of them, the controller is killed (SIGKILL), before it can \
             note them down in Kubernetes. While there is none, two of the pods are deleted. Then a new controller is started; \
             it may lead when the old one's lease has run out: after 3 s here, 15 s by default."
        ),
    );
    let cloud = world.inside()?.cloud.clone();
    let (pods, names) = (world.pods(), names("storm", count));
    let victim = *world.kuryr.controllers().first().context("no controller")?;
    let work = async {
        let mut changes = cloud.subscribe();
        pods.create_all(&names).await?;
        while ports_of(&cloud, "storm").len() * 2 < count {
            changes.changed().await?;
        }
        world.kuryr.kill_controller(victim).await
    };
    show.wait("pods are created, ports are made, the controller is killed", timeout_work(work)).await?;
    let recorded = pods.ports().list(&ListParams::default()).await?;
    let recorded = recorded.iter().filter(|port| port.name_any().starts_with("storm-")).count();
    show.fact(
        "now there are",
        &format!(
            "{count} pods, {} in Neutron, {}, {} Running, no controller",
            many(ports_of(&cloud, "storm").len(), "port"),
            many(recorded, "KuryrPort"),
            timeline.running("storm-")
        ),
    );
    let (kept, doomed) = names.split_at(count - 2);
    let work = async {
        try_join_all(doomed.iter().map(|name| pods.delete(name))).await?;
        let gone = |name| pods.when(name, "gone", PATIENCE, |pod: Option<&Pod>| pod.is_none());
        try_join_all(doomed.iter().map(|name| gone(name))).await.map(drop)
    };
    show.wait(&format!("{} are deleted", doomed.join(" and ")), work).await?;
    show.claim(true, "pods can be deleted while there is no controller: nothing of Kuryr's holds a Pod back")?;
    let work = async {
        world.kuryr.start_controller().await?;
        world.leader_elected().await
    };
    show.wait("a new controller starts and takes over", work).await?;
    let work = async {
        let running = try_join_all(kept.iter().map(|name| pods.running(name))).await?;
        try_join_all(doomed.iter().map(|name| pods.port_gone(name))).await?;
        let mut changes = cloud.subscribe();
        while ports_of(&cloud, "storm").len() > kept.len() {
            changes.changed().await?;
        }
        Ok(running)
    };
    let progress = || format!("{} of {} Running", timeline.running("storm-"), kept.len());
    let running = show.watch("it finishes what the other began", progress, timeout_work(work)).await?;
    let ports = ports_of(&cloud, "storm");
    show.gap();
    show.fact(
        "now there are",
        &format!("{} Running, {} in Neutron", many(running.len(), "pod"), many(ports.len(), "port")),
    );
    show.claim(
        one_each(&ports, &running),
        "nothing was lost and nothing made twice: one port for each pod, none for the two that are gone",
    )?;
    let apart: BTreeSet<_> = all_addresses(&running)?.into_iter().collect();
    show.claim(apart.len() == kept.len(), "no two pods share an address")
}

async fn timeout_work<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    timeout(PATIENCE, work).await.with_context(|| format!("not done after {PATIENCE:?}"))?
}

//! Who reaches whom through a Service.

use super::connectivity::WITHIN;
use crate::{
    dataplane::probe::{self, Answer, Datagrams},
    world::{Backend, NewPod, World, cluster_ip, pods::PATIENCE, services::SERVED},
};
use anyhow::{Context, ensure};
use futures::future::try_join_all;
use kube::api::{Patch, PatchParams};
use kuryr_model::KuryrLoadBalancer;
use serde_json::json;
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};
use tokio::time::{Instant, timeout};

/// How long it may take from what Octavia says to what packets see.
pub(super) const SOON: Duration = Duration::from_secs(30);

/// How long it may take until a new floating IP leads to a Service. The agent of the OVN provider hears of it by an event, takes
/// one event after the other, and at each of a load balancer that is gone by then it waits 15 s for it to appear.
pub(super) const LED: Duration = Duration::from_secs(120);

/// So many connections, none of which leads to where none may lead, are proof enough.
const PROOF: usize = 20;

/// Connects until each of these has answered; another one must not.
pub(super) async fn all_answer(from: &Path, target: SocketAddr, names: &BTreeSet<String>) -> anyhow::Result<()> {
    all_answer_within(SOON, from, target, names).await
}

/// The same from outside, at a floating IP.
pub(super) async fn all_answer_outside(world: &World, outside: IpAddr, names: &BTreeSet<String>) -> anyhow::Result<()> {
    all_answer_within(LED, &world.outside(), (outside, 80).into(), names).await
}

async fn all_answer_within(
    within: Duration,
    from: &Path,
    target: SocketAddr,
    names: &BTreeSet<String>,
) -> anyhow::Result<()> {
    let mut seen = BTreeSet::new();
    let deadline = Instant::now() + within;
    while seen != *names {
        ensure!(Instant::now() < deadline, "of {names:?}, only {seen:?} answered at {target}");
        let name = match probe::who(from, target, WITHIN).await {
            Ok(answer) => answer.name,
            // Packets may see a little later what Octavia says. Once they have seen it, none is lost.
            Err(_) if seen.is_empty() => {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
            Err(error) => return Err(error).with_context(|| format!("TCP to {target}")),
        };
        ensure!(names.contains(&name), "{name} answered at {target}, and only {names:?} should");
        seen.insert(name);
    }
    Ok(())
}

/// The same, when there are still connections to others for a moment.
pub(super) async fn come_to_answer(from: &Path, target: SocketAddr, names: &BTreeSet<String>) -> anyhow::Result<()> {
    let deadline = Instant::now() + SOON;
    let mut in_a_row = 0;
    while in_a_row < PROOF {
        ensure!(Instant::now() < deadline, "others than {names:?} answer at {target}");
        let name = probe::who(from, target, WITHIN).await.map(|answer| answer.name);
        in_a_row = if name.is_ok_and(|name| names.contains(&name)) { in_a_row + 1 } else { 0 };
    }
    all_answer(from, target, names).await
}

pub(super) fn names(backends: &[Backend]) -> BTreeSet<String> {
    backends.iter().map(Backend::name).collect()
}

/// Who answers a datagram; one that is lost is sent again.
pub(super) async fn datagram(from: &Path, target: SocketAddr) -> anyhow::Result<Answer> {
    let asked = async {
        loop {
            let mut socket = Datagrams::open(from, None, target).await?;
            if let Ok(answer) = socket.who(Duration::from_secs(1)).await {
                return Ok(answer);
            }
        }
    };
    timeout(SOON, asked).await.with_context(|| format!("no datagram came back from {target}"))?
}

/// A pod that only asks.
pub(super) async fn client(world: &World) -> anyhow::Result<std::path::PathBuf> {
    let pod = world.run_pod(&NewPod::new("client"), "client").await?;
    world.netns(&pod)
}

pub(super) async fn a_service_leads_to_all_its_endpoints(world: &mut World) -> anyhow::Result<()> {
    let services = world.services();
    let (backends, service, from) =
        tokio::try_join!(world.backends("web", 0..3), services.create("web", json!({})), client(world))?;
    let held = services.ready("web", 3).await?;
    let target = SocketAddr::new(cluster_ip(&service)?, 80);
    let status = held.status.context("no status")?;
    ensure!(status.vips.first() == Some(&target.ip()), "its VIPs are {:?}", status.vips);
    all_answer(&from, target, &names(&backends)).await?;
    let answer = probe::who(&from, target, WITHIN).await?;
    // As OVN does it, whoever serves sees who asks.
    let asks = crate::world::addresses(&world.pods().running("client").await?)?;
    ensure!(
        status.provider != "ovn" || asks.contains(&answer.source.ip()),
        "{} asked, says {}",
        answer.source,
        answer.name
    );
    ensure!(probe::ping(&from, backends[0].address, WITHIN).await.is_ok(), "the pod behind it is not pinged");
    let name = format!("{}/web", world.namespace());
    let args = ["describe", "service", &name].map(str::to_owned).to_vec();
    let (code, told) = world.kuryr.run(args).await?;
    let id = status.load_balancers.first().context("no load balancer")?.id.to_string();
    let all = backends.iter().map(|backend| backend.address.to_string()).chain([id, target.ip().to_string()]);
    let missing: Vec<String> = all.filter(|part| !told.contains(part)).collect();
    ensure!(code == Some(0) && missing.is_empty(), "kuryr describe does not tell of {missing:?}: {told}");
    Ok(())
}

pub(super) async fn a_vm_reaches_a_service(world: &mut World) -> anyhow::Result<()> {
    let services = world.services();
    let vm = world.start_vm("vm").await?;
    let (backends, service) = tokio::try_join!(world.backends("web", 0..2), services.create("web", json!({})))?;
    services.ready("web", 2).await?;
    all_answer(&vm.netns, SocketAddr::new(cluster_ip(&service)?, 80), &names(&backends)).await?;
    world.stop_vm(vm).await
}

pub(super) async fn tcp_and_udp_at_one_number(world: &mut World) -> anyhow::Result<()> {
    let services = world.services();
    let ports = json!({"ports": [
        {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": SERVED},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": SERVED},
        {"name": "metrics", "port": 9153, "protocol": "TCP", "targetPort": SERVED},
    ]});
    let (backends, service, from) =
        tokio::try_join!(world.backends("dns", 0..2), services.create("dns", ports), client(world))?;
    services.ready("dns", 2).await?;
    let ip = cluster_ip(&service)?;
    for number in [53, 9153] {
        all_answer(&from, (ip, number).into(), &names(&backends)).await?;
    }
    let answer = datagram(&from, (ip, 53).into()).await?;
    ensure!(names(&backends).contains(&answer.name), "{} answered", answer.name);
    Ok(())
}

pub(super) async fn a_pod_reaches_itself_through_its_service(world: &mut World) -> anyhow::Result<()> {
    let services = world.services();
    let (backends, service) = tokio::try_join!(world.backends("web", 0..1), services.create("web", json!({})))?;
    services.ready("web", 1).await?;
    all_answer(&backends[0].netns, SocketAddr::new(cluster_ip(&service)?, 80), &names(&backends)).await
}

/// How often the members of listener pools were set, if that can be seen.
fn batches(world: &World) -> Option<usize> {
    let embedded = world.inside().ok()?;
    let calls = embedded.cloud.calls().all();
    Some(calls.iter().filter(|call| call.method == "PUT" && call.path.ends_with("/members")).count())
}

pub(super) async fn a_service_is_scaled_up_and_down(world: &mut World) -> anyhow::Result<()> {
    let services = world.services();
    let (mut backends, service, from) =
        tokio::try_join!(world.backends("web", 0..3), services.create("web", json!({})), client(world))?;
    services.ready("web", 3).await?;
    let target = SocketAddr::new(cluster_ip(&service)?, 80);
    all_answer(&from, target, &names(&backends)).await?;

    let many = world.crowd() / 5 * 3;
    backends.extend(world.backends("web", 3..many).await?);
    services.ready("web", u32::try_from(many)?).await?;
    come_to_answer(&from, target, &names(&backends)).await?;
    let before = batches(world);

    let rest = backends.split_off(3);
    let pods = &world.pods();
    try_join_all(rest.iter().map(|backend| async move { pods.delete(&backend.name()).await })).await?;
    services.ready("web", 3).await?;
    come_to_answer(&from, target, &names(&backends)).await?;
    if let (Some(before), Some(after)) = (before, batches(world)) {
        // Pods do not end in the same instant; that there are far fewer batches than pods is the point.
        ensure!(after - before <= 6, "{} batches for {} pods that went", after - before, rest.len());
    }
    Ok(())
}

pub(super) async fn a_terminating_endpoint_keeps_its_connections(world: &mut World) -> anyhow::Result<()> {
    let services = world.services();
    let slow = NewPod::new("web-slow").app("web").slow_to_end(20);
    let (slow, others, service, from) = tokio::try_join!(
        world.backend_of(slow, &[SERVED]),
        world.backends("web", 0..1),
        services.create("web", json!({})),
        client(world)
    )?;
    services.ready("web", 2).await?;
    let target = SocketAddr::new(cluster_ip(&service)?, 80);
    let mut session = loop {
        let mut session = probe::connect(&from, target, WITHIN).await?;
        if session.who(WITHIN).await?.name == slow.name() {
            break session;
        }
    };
    world.pods().delete(&slow.name()).await?;
    // OVN knows no weights: there the member that ends is taken out, elsewhere it stays with weight 0.
    let one_ready = |held: Option<&KuryrLoadBalancer>| {
        let members = held.and_then(|held| held.status.as_ref()?.members.as_ref());
        members.is_some_and(|members| members.ready == 1)
    };
    services.when("web", "without the pod that ends", PATIENCE, one_ready).await?;
    come_to_answer(&from, target, &names(&others)).await?;
    session.exchange(WITHIN).await.context("the connection to the pod that ends was cut")?;
    Ok(())
}

/// Every pod is replaced, as a Deployment does it, while clients connect without a pause.
pub(super) async fn a_rollout_under_traffic_loses_no_connection(world: &mut World) -> anyhow::Result<()> {
    const PODS: usize = 3;
    let services = world.services();
    // A pod here is ready when it runs, and its server comes a moment later: so it is selected when that is there.
    let start = async |numbers: std::ops::Range<usize>| {
        let pod = |number: usize| NewPod::new(format!("web-{number}")).app("later").slow_to_end(8);
        let started = try_join_all(numbers.map(|number| world.backend_of(pod(number), &[SERVED]))).await?;
        for backend in &started {
            let selected = Patch::Merge(json!({"metadata": {"labels": {"app": "web"}}}));
            world.pods().api().patch(&backend.name(), &PatchParams::default(), &selected).await?;
        }
        anyhow::Ok(started)
    };
    let (old, service, from) = tokio::try_join!(start(0..PODS), services.create("web", json!({})), client(world))?;
    services.ready("web", u32::try_from(PODS)?).await?;
    let target = SocketAddr::new(cluster_ip(&service)?, 80);
    all_answer(&from, target, &names(&old)).await?;
    let stop = tokio_util::sync::CancellationToken::new();
    let traffic = tokio::spawn({
        let (stop, from) = (stop.clone(), from.clone());
        async move {
            let (mut answers, mut lost) = (0_usize, Vec::new());
            while !stop.is_cancelled() {
                match probe::who(&from, target, WITHIN).await {
                    Ok(_) => answers += 1,
                    Err(error) => lost.push(format!("{:#}", anyhow::Error::from(error))),
                }
            }
            (answers, lost)
        }
    });
    let mut new = Vec::new();
    for number in PODS..2 * PODS {
        new.extend(start(number..number + 1).await?);
        // As a Deployment with one pod more than wanted: the next one goes when the new one is there.
        let ready = u32::try_from(PODS)? + 1;
        let there = move |held: Option<&KuryrLoadBalancer>| {
            let members = held.and_then(|held| held.status.as_ref()?.members.as_ref());
            members.is_some_and(|members| members.ready == ready)
        };
        services.when("web", "with the new pod", PATIENCE, there).await?;
        world.pods().delete(&format!("web-{}", number - PODS)).await?;
        let gone = move |held: Option<&KuryrLoadBalancer>| {
            let members = held.and_then(|held| held.status.as_ref()?.members.as_ref());
            members.is_some_and(|members| members.ready == ready - 1)
        };
        services.when("web", "without the old pod", PATIENCE, gone).await?;
    }
    services.ready("web", u32::try_from(PODS)?).await?;
    all_answer(&from, target, &names(&new)).await?;
    stop.cancel();
    let (answers, lost) = traffic.await?;
    ensure!(answers > 100 && lost.is_empty(), "{answers} answers, and lost: {lost:?}");
    Ok(())
}

pub(super) async fn a_client_stays_with_its_endpoint(world: &mut World) -> anyhow::Result<()> {
    let services = world.services();
    let (backends, service, from) = tokio::try_join!(
        world.backends("web", 0..3),
        services.create("web", json!({"sessionAffinity": "ClientIP"})),
        client(world)
    )?;
    let held = services.ready("web", 3).await?;
    let target = SocketAddr::new(cluster_ip(&service)?, 80);
    let problems = held.status.map(|status| status.problems).unwrap_or_default();
    if problems.iter().any(|problem| problem.message.contains("sessionAffinity")) {
        // The provider cannot do it, and its owner is told.
        return all_answer(&from, target, &names(&backends)).await;
    }
    let first = probe::who(&from, target, WITHIN).await?.name;
    ensure!(names(&backends).contains(&first), "{first} answered");
    for _ in 0..PROOF {
        let name = probe::who(&from, target, WITHIN).await?.name;
        ensure!(name == first, "{name} answered after {first}");
    }
    Ok(())
}

pub(super) async fn many_services_at_once(world: &mut World) -> anyhow::Result<()> {
    let services = world.services();
    let many = match world.inside() {
        Ok(_) => 100,
        // The real Octavia makes one every few seconds.
        Err(_) => 5,
    };
    let (backends, from) = tokio::try_join!(world.backends("web", 0..2), client(world))?;
    let spec = json!({"selector": {"app": "web"}});
    let all = try_join_all((0..many).map(|number| {
        let (services, spec) = (services.clone(), spec.clone());
        async move { services.create(&format!("web-{number}"), spec).await }
    }))
    .await?;
    for (number, service) in all.iter().enumerate() {
        services.ready(&format!("web-{number}"), 2).await?;
        all_answer(&from, SocketAddr::new(cluster_ip(service)?, 80), &names(&backends)).await?;
    }
    Ok(())
}

/// Whatever its size, with all its endpoints.
pub(super) async fn a_new_service_is_one_request(world: &mut World) -> anyhow::Result<()> {
    const MANY: usize = 20;
    let services = world.services();
    // What Kubernetes brings of its own is not counted.
    crate::world::Services::new(&world.client, "default").ready("kubernetes", 1).await?;
    let (backends, from) = tokio::try_join!(world.backends("web", 0..3), client(world))?;
    let cloud = world.inside()?.cloud.clone();
    cloud.calls().reset();
    let ports: Vec<_> =
        (0..5).map(|n| json!({"name": format!("p{n}"), "port": 80 + n, "targetPort": SERVED})).collect();
    let spec = json!({"selector": {"app": "web"}, "ports": ports});
    let all = try_join_all((0..MANY).map(|number| {
        let (services, spec) = (services.clone(), spec.clone());
        async move { services.create(&format!("web-{number}"), spec).await }
    }))
    .await?;
    for (number, service) in all.iter().enumerate() {
        services.ready(&format!("web-{number}"), 3).await?;
        all_answer(&from, SocketAddr::new(cluster_ip(service)?, 84), &names(&backends)).await?;
    }
    let writes = cloud.calls().writes(crate::cloud::Service::LoadBalancer);
    let posts = writes.iter().filter(|call| call.method == "POST").count();
    ensure!((posts, writes.len()) == (MANY, MANY), "{posts} POSTs of {} writes for {MANY} Services", writes.len());
    Ok(())
}

pub(super) async fn endpoints_that_flap_come_to_rest(world: &mut World) -> anyhow::Result<()> {
    let services = world.services();
    // For thirty seconds; where each change takes seconds, a third of that says as much.
    let flaps: u32 = if world.inside().is_ok() { 300 } else { 100 };
    let (backends, from) = tokio::try_join!(world.backends("web", 0..2), client(world))?;
    let service = services.create("web", json!({"selector": null})).await?;
    let slice = |count: usize| {
        let endpoints: Vec<_> =
            backends[..count].iter().map(|b| json!({"addresses": [b.address.to_string()]})).collect();
        json!({"endpoints": endpoints, "ports": [{"port": SERVED}]})
    };
    services.create_slice("web-hand", "web", slice(2)).await?;
    services.ready("web", 2).await?;
    let before = batches(world);
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    for flap in 0..flaps {
        tick.tick().await;
        services.change_slice("web-hand", slice(if flap % 2 == 0 { 1 } else { 2 })).await?;
    }
    let target = SocketAddr::new(cluster_ip(&service)?, 80);
    services.ready("web", 2).await?;
    come_to_answer(&from, target, &names(&backends)).await?;
    if let (Some(before), Some(after)) = (before, batches(world)) {
        ensure!(after - before <= flaps as usize / 5, "{} batches for {flaps} changes", after - before);
    }
    Ok(())
}

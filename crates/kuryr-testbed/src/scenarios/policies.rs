//! NetworkPolicies while the world changes around them. What single policies mean is in `policies_peers`, `policies_ports`
//! and `policies_ways`.

use super::{
    connectivity::WITHIN,
    policies_grid::{Grid, NUMBERS},
};
use crate::{
    dataplane::probe::{self, Datagrams, Guards, Session, Transport},
    world::{Backend, NewPod, World, cluster_ip, pods::PATIENCE},
};
use anyhow::{Context, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kuryr_model::KuryrPort;
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::{Instant, timeout};

/// For what must not arrive.
pub(super) const SILENCE: Duration = Duration::from_millis(500);

const BOTH: [Transport; 2] = [Transport::Tcp, Transport::Udp];

pub(super) async fn policies_follow_labels_of_pods_and_namespaces(world: &mut World) -> anyhow::Result<()> {
    let grid = Grid::new(world, &BOTH).await?;
    let spec = "podSelector: {matchLabels: {pod: a}}
ingress:
- from: [{namespaceSelector: {matchLabels: {ns: y}}, podSelector: {matchLabels: {tier: front}}}]";
    world.policies_of(&grid.namespace("x")).create("front", &grid.spec(spec)?).await?;
    grid.expect(|ask| !ask.to(&["x/a"]) || ask.from(&["y/a"])).await.context("at first")?;
    grid.label_pod(world, "y/b", json!({"tier": "front"})).await?;
    grid.expect(|ask| !ask.to(&["x/a"]) || ask.from(&["y/a", "y/b"])).await.context("a pod becomes a peer")?;
    grid.label_pod(world, "y/a", json!({"tier": null})).await?;
    grid.expect(|ask| !ask.to(&["x/a"]) || ask.from(&["y/b"])).await.context("a pod is no peer any more")?;
    grid.label_space(world, "z", json!({"ns": "y"})).await?;
    grid.expect(|ask| !ask.to(&["x/a"]) || ask.from(&["y/b", "z/a"])).await.context("a namespace is meant")?;
    grid.label_space(world, "y", json!({"ns": null})).await?;
    grid.expect(|ask| !ask.to(&["x/a"]) || ask.from(&["z/a"])).await.context("a namespace is not meant any more")?;
    grid.label_pod(world, "x/b", json!({"pod": "a"})).await?;
    grid.expect(|ask| !ask.to(&["x/a", "x/b"]) || ask.from(&["z/a"])).await.context("a pod is selected")?;
    grid.label_pod(world, "x/a", json!({"pod": "other"})).await?;
    grid.expect(|ask| !ask.to(&["x/b"]) || ask.from(&["z/a"])).await.context("a pod is not selected any more")
}

pub(super) async fn policies_follow_pods_that_come_and_go(world: &mut World) -> anyhow::Result<()> {
    let mut grid = Grid::new(world, &BOTH).await?;
    let spec = "podSelector: {matchLabels: {pod: a}}
policyTypes: [Ingress, Egress]
ingress:
- from: [{namespaceSelector: {matchLabels: {ns: y}}, podSelector: {matchLabels: {pod: b}}}]
  ports: [{port: web}]
egress:
- to: [{podSelector: {matchLabels: {pod: c}}}]";
    world.policies_of(&grid.namespace("x")).create("strict", &grid.spec(spec)?).await?;
    let strict = |ask: &super::policies_grid::Ask<'_>| {
        (!ask.to(&["x/a"]) || (ask.from(&["y/b"]) && ask.tcp(80))) && (!ask.from(&["x/a"]) || ask.to(&["x/c"]))
    };
    grid.expect(strict).await.context("at first")?;
    for (name, what) in [
        ("y/b", "a peer is made anew"),
        ("x/a", "a selected pod is made anew"),
        ("x/c", "a destination is made anew"),
        ("z/a", "a pod that is not meant is made anew"),
    ] {
        grid.recreate(world, name).await?;
        grid.expect(strict).await.context(what)?;
    }
    Ok(())
}

pub(super) async fn policies_are_changed_deleted_and_made_anew(world: &mut World) -> anyhow::Result<()> {
    let grid = Grid::new(world, &BOTH).await?;
    let policies = world.policies_of(&grid.namespace("x"));
    let from = |space: &str, ports: &str| {
        grid.spec(&format!(
            "{{podSelector: {{}}, ingress: [{{from: [{{namespaceSelector: {{matchLabels: {{ns: {space}}}}}}}], ports: {ports}}}]}}"
        ))
    };
    policies.create("one", &from("y", "[]")?).await?;
    grid.expect(|ask| !ask.to(&["x/*"]) || ask.from(&["y/*"])).await.context("at first")?;
    policies.replace("one", &from("y", "[{port: 80}]")?).await?;
    grid.expect(|ask| !ask.to(&["x/*"]) || (ask.from(&["y/*"]) && ask.tcp(80))).await.context("fewer ports")?;
    policies.replace("one", &from("z", "[{port: 80}, {protocol: UDP, port: 81}]")?).await?;
    let from_z = |ask: &super::policies_grid::Ask<'_>| ask.from(&["z/*"]) && (ask.tcp(80) || ask.udp(81));
    grid.expect(|ask| !ask.to(&["x/*"]) || from_z(ask)).await.context("other peers")?;
    let out = "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}]}]}";
    policies.replace("one", &grid.spec(out)?).await?;
    grid.expect(|ask| !ask.from(&["x/a"]) || ask.to(&["x/*"])).await.context("the other direction, other pods")?;
    policies.create("two", &from("y", "[]")?).await?;
    policies.delete("one").await?;
    grid.expect(|ask| !ask.to(&["x/*"]) || ask.from(&["y/*"])).await.context("another one in its stead")?;
    policies.delete("two").await?;
    policies.create("two", &from("z", "[{port: 81}]")?).await?;
    let again = |ask: &super::policies_grid::Ask<'_>| !ask.to(&["x/*"]) || (ask.from(&["z/*"]) && ask.tcp(81));
    grid.expect(again).await.context("one of the same name at once")?;
    policies.delete("two").await?;
    grid.expect(|_| true).await.context("none")
}

/// One more look at what may be so for a moment more.
async fn again(since: Instant, what: &str) -> anyhow::Result<()> {
    ensure!(since.elapsed() < PATIENCE, "{what} still passes after {PATIENCE:?}");
    // Only packets tell.
    tokio::time::sleep(Duration::from_millis(20)).await;
    Ok(())
}

/// Waits until a flow that was there is cut.
async fn datagrams_end(flow: &mut Datagrams) -> anyhow::Result<()> {
    let since = Instant::now();
    while flow.exchange(SILENCE).await.is_ok() {
        again(since, "a datagram of a flow from before").await?;
    }
    Ok(())
}

/// Waits until a connection that was there is cut.
async fn connection_ends(session: &mut Session) -> anyhow::Result<()> {
    let since = Instant::now();
    while session.exchange(SILENCE).await.is_ok() {
        again(since, "a word of a connection from before").await?;
    }
    Ok(())
}

pub(super) async fn established_connections_end_when_a_policy_forbids_them(world: &mut World) -> anyhow::Result<()> {
    let server = world.backend("server", "server".to_owned(), &[80]).await?;
    let ((_, friend), (_, stranger)) = tokio::try_join!(pod_of(world, "friend"), pod_of(world, "stranger"))?;
    let target = SocketAddr::new(server.address, 80);
    let mut theirs = probe::connect(&stranger, target, WITHIN).await?;
    let mut their_datagrams = Datagrams::open(&stranger, None, target).await?;
    let mut ours = probe::connect(&friend, target, WITHIN).await?;
    let mut our_datagrams = Datagrams::open(&friend, None, target).await?;
    theirs.exchange(WITHIN).await?;
    their_datagrams.exchange(WITHIN).await?;
    ours.exchange(WITHIN).await?;
    our_datagrams.exchange(WITHIN).await?;
    let spec = json!({
        "podSelector": {"matchLabels": {"app": "server"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "friend"}}}]}],
    });
    world.policies().create("friends", &spec).await?;
    datagrams_end(&mut their_datagrams).await?;
    connection_ends(&mut theirs).await?;
    // And it does not come back, however often TCP sends again.
    ensure!(theirs.exchange(SILENCE * 6).await.is_err(), "the connection came back");
    ours.exchange(WITHIN).await.context("a connection that is allowed, before and after")?;
    our_datagrams.exchange(WITHIN).await.context("a flow that is allowed, before and after")?;
    // Out of the sender the same.
    let spec = json!({"podSelector": {"matchLabels": {"app": "friend"}}, "policyTypes": ["Egress"]});
    world.policies().create("nothing-out", &spec).await?;
    datagrams_end(&mut our_datagrams).await.context("out of the sender")?;
    connection_ends(&mut ours).await.context("out of the sender")?;
    world.policies().delete("nothing-out").await?;
    world.policies().delete("friends").await?;
    for netns in [friend, stranger] {
        comes(&netns, target).await.context("when nothing forbids it any more")?;
    }
    Ok(())
}

/// Waits until somebody is reached over TCP.
pub(super) async fn comes(netns: &Path, target: SocketAddr) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        match probe::reach(netns, target, SILENCE).await {
            Ok(_) => return Ok(()),
            Err(error) if started.elapsed() > PATIENCE => {
                return Err(error).with_context(|| format!("{target} is not reached after {PATIENCE:?}"));
            }
            // Only packets tell.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Waits until somebody is not reached any more, and nothing comes back.
pub(super) async fn goes(netns: &Path, target: SocketAddr) -> anyhow::Result<()> {
    let since = Instant::now();
    while !probe::reach(netns, target, SILENCE).await.is_err_and(|error| error.is_silent()) {
        again(since, &format!("a connection to {target}")).await?;
    }
    Ok(())
}

/// How many pods are watched from before they start.
const STARTS: usize = 8;

pub(super) async fn a_pod_is_closed_from_its_first_packet(world: &mut World) -> anyhow::Result<()> {
    let asker = world.backend("asker", "asker".to_owned(), &[80]).await?;
    let closed = json!({"podSelector": {"matchLabels": {"app": "closed"}}, "policyTypes": ["Ingress", "Egress"]});
    // One whose rules let somebody in, but not who knocks here: its peers' group is there before any pod is.
    let friends = json!({
        "podSelector": {"matchLabels": {"app": "closed"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "friend"}}}]}],
        "egress": [{"to": [{"podSelector": {"matchLabels": {"app": "friend"}}}]}],
    });
    world.policies().create("closed", &closed).await?;
    world.policies().create("friends", &friends).await?;
    let mut guards = Guards::default();
    let names: Vec<String> = (0..STARTS).map(|number| format!("closed-{number}")).collect();
    let pods = world.pods();
    for name in &names {
        pods.create(&NewPod::new(name).app("closed")).await?;
    }
    for name in &names {
        let asked = |port: Option<&KuryrPort>| port.is_some_and(|port| !port.spec.vifs.is_empty());
        let port = pods.port(name, "filled", PATIENCE, asked).await?.context("its KuryrPort is gone")?;
        for address in port.spec.vifs.iter().flat_map(|vif| &vif.addresses) {
            guards.post(&asker.netns, (address.ip, 80).into(), &format!("into {name}")).await?;
        }
        let inside = early_netns(world, &port).await.with_context(|| name.clone())?;
        guards.post(&inside, (asker.address, 80).into(), &format!("out of {name}")).await?;
    }
    let running: Vec<_> = names.iter().map(|name| pods.running(name)).collect();
    let running = try_join_all(running).await?;
    // They are watched for a while longer, and it is made sure that they are watched.
    let before = guards.sent();
    tokio::time::sleep(Duration::from_secs(1)).await;
    ensure!(guards.sent() > before + 100, "only {} datagrams were sent meanwhile", guards.sent() - before);
    ensure!(guards.through().is_empty(), "packets got through: {:?}", guards.through());
    let friend = world.run_pod(&NewPod::new("friend").app("friend"), "friend").await?;
    ensure!(guards.through().is_empty(), "packets got through: {:?}", guards.through());
    drop(friend);
    // Guards that find nothing ever would be worth nothing.
    for name in ["closed", "friends"] {
        world.policies().delete(name).await?;
    }
    let netns = world.netns(running.first().context("no pod")?)?;
    comes(&netns, (asker.address, 80).into()).await?;
    let noticed = async {
        while guards.through().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(WITHIN, noticed).await.context("the guards do not notice what gets through")
}

/// The network namespace of a pod, as soon as its node has heard of it.
async fn early_netns(world: &World, port: &KuryrPort) -> anyhow::Result<PathBuf> {
    let started = Instant::now();
    loop {
        let known = world.kuryr.attachments(&port.spec.node_name)?;
        if let Some(found) = known.into_iter().find(|one| one.pod_uid == port.spec.pod_uid) {
            return Ok(found.netns);
        }
        ensure!(started.elapsed() < PATIENCE, "its node does not hear of the pod");
        // A file tells nobody that it is there.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Makes a Service, and waits until it has so many members; where it is reached.
async fn service(world: &World, name: &str, spec: Value, members: u32) -> anyhow::Result<SocketAddr> {
    let made = world.services().create(name, spec).await?;
    world.services().ready(name, members).await?;
    Ok(SocketAddr::new(cluster_ip(&made)?, 80))
}

pub(super) async fn policies_hold_through_services(world: &mut World) -> anyhow::Result<()> {
    let label = |name: &str, app: &str, group: &str| NewPod::new(name).app(app).label("group", group);
    let named = label("web-0", "web", "both").named_port("http", 8080);
    let (web, other, (_, from)) = tokio::try_join!(
        world.backend_of(named, &[8080]),
        world.backend_of(label("other-0", "other", "both"), &[8080]),
        pod_of(world, "client"),
    )?;
    let web_service = service(world, "web", json!({}), 1).await?;
    let by_name = json!({"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]});
    let named_service = service(world, "by-name", by_name, 1).await?;
    let other_service = service(world, "other", json!({}), 1).await?;
    let both = service(world, "both", json!({"selector": {"app": null, "group": "both"}}), 2).await?;
    for target in [web_service, named_service, other_service, both] {
        comes(&from, target).await.context("without policies")?;
    }
    // The policy names the pods and their number, not the Service and its.
    let out = json!({
        "podSelector": {"matchLabels": {"app": "client"}},
        "policyTypes": ["Egress"],
        "egress": [{"to": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": 8080}]}],
    });
    world.policies().create("out", &out).await?;
    goes(&from, other_service).await.context("a Service of a pod that is forbidden")?;
    goes(&from, (other.address, 8080).into()).await.context("a pod that is forbidden")?;
    goes(&from, both).await.context("a Service with a forbidden pod behind it")?;
    for (allowed, what) in [
        (web_service, "a Service of a pod that is allowed"),
        (named_service, "one that names the port"),
        ((web.address, 8080).into(), "the pod itself"),
    ] {
        comes(&from, allowed).await.context(what)?;
    }
    // Nothing of a Service that may not be used, not even an opened connection.
    for forbidden in [other_service, both] {
        for _ in 0..6 {
            let outcome = probe::reach(&from, forbidden, SILENCE).await;
            ensure!(outcome.as_ref().is_err_and(probe::Error::is_silent), "{forbidden}: {outcome:?}");
        }
    }
    // In: the pod behind sees who asks, and itself as the Service.
    let into = json!({
        "podSelector": {"matchLabels": {"app": "web"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}],
    });
    world.policies().create("into", &into).await?;
    goes(&other.netns, web_service).await.context("somebody else, through the Service")?;
    goes(&other.netns, (web.address, 8080).into()).await.context("somebody else, straight")?;
    comes(&from, web_service).await.context("who is let in, through the Service")?;
    comes(&web.netns, web_service).await.context("the pod itself, through its own Service")?;
    // Endpoints come: the Service may be used no longer when one is forbidden.
    let patch = json!({"spec": {"selector": {"app": null, "group": "both"}}});
    world.services().change("web", patch).await?;
    world.services().ready("web", 2).await?;
    goes(&from, web_service).await.context("the Service gets an endpoint that is forbidden")?;
    world.policies().delete("out").await?;
    world.policies().delete("into").await?;
    for target in [web_service, other_service, both] {
        comes(&from, target).await.context("without policies again")?;
    }
    Ok(())
}

pub(super) async fn a_pods_own_node_reaches_it_and_no_other(world: &mut World) -> anyhow::Result<()> {
    let nodes = world.nodes.clone();
    let served =
        |name: &str, app: &str, node: usize| world.backend_of(NewPod::new(name).app(app).on(&nodes[node]), &NUMBERS);
    let (pod, peer) = tokio::try_join!(served("pod", "pod", 0), served("peer", "peer", 1))?;
    // A pod in its node's network is selected as a peer, and is its node all the same.
    world.run_pod(&NewPod::new("host").app("friend").on(&nodes[1]).host_network(), "host").await?;
    let places: Vec<PathBuf> = world.inside()?.fabric.nodes().iter().map(|node| node.netns.clone()).collect();
    let target: SocketAddr = (pod.address, 80).into();
    for place in &places {
        comes(place, target).await.context("without policies")?;
    }
    let spec = json!({
        "podSelector": {"matchLabels": {"app": "pod"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "friend"}}}]}],
        "egress": [],
        "policyTypes": ["Ingress", "Egress"],
    });
    world.policies().create("closed", &spec).await?;
    goes(&peer.netns, target).await.context("a pod that is not let in")?;
    goes(&places[1], target).await.context("another node, with a peer in its network")?;
    comes(&places[0], target).await.context("its own node")?;
    goes(&pod.netns, (peer.address, 80).into()).await.context("out of the pod")
}

pub(super) async fn a_vm_is_no_pod(world: &mut World) -> anyhow::Result<()> {
    let vm = world.start_vm("vm").await?;
    let ((_server, target), (_, from)) = tokio::try_join!(server(world), pod_of(world, "pod"))?;
    comes(&vm.netns, target).await?;
    let any_pod =
        |peers: Value| json!({"podSelector": {"matchLabels": {"app": "server"}}, "ingress": [{"from": peers}]});
    world.policies().create("pods", &any_pod(json!([{"namespaceSelector": {}}]))).await?;
    goes(&vm.netns, target).await.context("a VM, where all pods are let in")?;
    comes(&from, target).await.context("a pod")?;
    let vm_ip = vm.addresses.first().context("the VM has no address")?;
    let block = json!([{"ipBlock": {"cidr": format!("{vm_ip}/{}", if vm_ip.is_ipv4() { 32 } else { 128 })}}]);
    world.policies().replace("pods", &any_pod(block)).await?;
    comes(&vm.netns, target).await.context("a VM whose address is let in")?;
    goes(&from, target).await.context("a pod, where only that is let in")?;
    world.stop_vm(vm).await
}

/// How many isolated pods come as others go, one after another.
const GENERATIONS: usize = 20;

pub(super) async fn isolated_pods_come_as_others_go(world: &mut World) -> anyhow::Result<()> {
    let node = world.nodes[0].clone();
    let spec = json!({
        "podSelector": {"matchLabels": {"app": "closed"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "friend"}}}]}],
    });
    world.policies().create("closed", &spec).await?;
    let pods = world.pods();
    // What one pod alone needs is deleted as it goes, and made again as the next one comes.
    for number in 0..GENERATIONS {
        let name = format!("closed-{number}");
        let started = Instant::now();
        world.run_pod(&NewPod::new(&name).app("closed").on(&node), &name).await?;
        let took = started.elapsed();
        ensure!(took < Duration::from_secs(15), "the start of {name} took {took:.1?}");
        pods.delete(&name).await?;
        if number % 2 == 0 {
            pods.gone(&name).await?;
        }
    }
    Ok(())
}

/// How many policies are made at once in this world.
fn crowd(world: &World) -> usize {
    if world.inside().is_ok() { 200 } else { world.crowd() }
}

pub(super) async fn many_policies_at_once(world: &mut World) -> anyhow::Result<()> {
    let grid = Grid::new(world, &[Transport::Tcp]).await?;
    let policies = world.policies_of(&grid.namespace("x"));
    let many = crowd(world);
    // All of them select all pods of the namespace; two of them let something in that is asked here.
    let specs = (0..many).map(|number| {
        let (space, port) = match number {
            7 => ("y", 80),
            11 => ("z", 81),
            _ => ("y", 1000 + number),
        };
        let text = format!(
            "{{podSelector: {{}}, ingress: [{{from: [{{namespaceSelector: {{matchLabels: {{ns: {space}}}}}}}], ports: [{{port: {port}}}]}}]}}"
        );
        Ok((format!("many-{number}"), grid.spec(&text)?))
    });
    let specs: Vec<(String, Value)> = specs.collect::<anyhow::Result<_>>()?;
    let started = Instant::now();
    let made: Vec<_> = specs.iter().map(|(name, spec)| policies.create(name, spec)).collect();
    try_join_all(made).await?;
    let all = |ask: &super::policies_grid::Ask<'_>| {
        !ask.to(&["x/*"]) || (ask.from(&["y/*"]) && ask.tcp(80)) || (ask.from(&["z/*"]) && ask.tcp(81))
    };
    let ready: Vec<_> = specs.iter().map(|(name, _)| policies.ready(name)).collect();
    try_join_all(ready).await?;
    tracing::info!(many, took = ?started.elapsed(), "policies hold");
    grid.expect(all).await.context("all of them")?;
    for name in ["many-7", "many-11"] {
        policies.delete(name).await?;
    }
    grid.expect(|ask| !ask.to(&["x/*"])).await.context("without the two")?;
    policies.delete_all().await?;
    grid.expect(|_| true).await.context("without any")
}

/// The pods of a Service-less server and what it is reached at, for stories of faults.
pub(super) async fn server(world: &World) -> anyhow::Result<(Backend, SocketAddr)> {
    let backend = world.backend("server", "server".to_owned(), &[80]).await?;
    let target = (backend.address, 80).into();
    Ok((backend, target))
}

/// A pod with this label `app`, and its network namespace.
pub(super) async fn pod_of(world: &World, app: &str) -> anyhow::Result<(Pod, PathBuf)> {
    let pod = world.run_pod(&NewPod::new(app).app(app), app).await?;
    let netns = world.netns(&pod)?;
    Ok((pod, netns))
}

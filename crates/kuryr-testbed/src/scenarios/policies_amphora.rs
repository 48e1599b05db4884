//! NetworkPolicies behind load balancers that hide their clients: the listener lets in whom the pods would.

use super::{
    connectivity::WITHIN,
    policies::{SILENCE, comes, goes, pod_of},
};
use crate::{
    dataplane::probe::{self, Guards},
    world::{NewPod, World, addresses, cluster_ip, pods::PATIENCE, services::SERVED},
};
use anyhow::{Context, ensure};
use kuryr_model::{KuryrLoadBalancer, KuryrNetworkPolicy};
use kuryr_openstack::Filter;
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::Path,
};
use tokio::time::{Instant, timeout};

/// A second number, for datagrams.
const DATAGRAMS: u16 = 81;

/// Makes a Service of the amphora provider, and waits until it has so many members; where it is reached.
async fn amphora(world: &World, name: &str, members: u32) -> anyhow::Result<SocketAddr> {
    let ports = json!([
        {"name": "tcp", "port": 80, "targetPort": SERVED},
        {"name": "udp", "port": DATAGRAMS, "targetPort": SERVED, "protocol": "UDP"},
    ]);
    let provider = json!({"loadbalancer.openstack.org/lb-provider": "amphora"});
    let made = world.services().create_with(name, json!({"ports": ports}), provider).await?;
    let held = world.services().ready(name, members).await?;
    let provider = held.status.map(|status| status.provider).unwrap_or_default();
    ensure!(provider == "amphora", "it is carried out by {provider:?}");
    Ok(SocketAddr::new(cluster_ip(&made)?, 80))
}

/// In from pods with these labels `app`, for pods with such labels.
fn from(pods: &Value, apps: &[&str]) -> Value {
    let peers: Vec<Value> = apps.iter().map(|app| json!({"podSelector": {"matchLabels": {"app": app}}})).collect();
    // Without peers a rule would let in everybody.
    let rules = if peers.is_empty() {
        json!([])
    } else {
        json!([{"from": peers, "ports": [{"port": SERVED}, {"port": SERVED, "protocol": "UDP"}]}])
    };
    json!({"podSelector": {"matchLabels": pods}, "policyTypes": ["Ingress"], "ingress": rules})
}

fn web() -> Value {
    json!({"app": "web"})
}

/// Waits until the TCP listener of a Service lets in just those of these clients; of none: anybody. A node that all
/// endpoints are on may come in, too.
async fn lets_in(world: &World, service: &str, of: &[IpAddr], wanted: &[IpAddr]) -> anyhow::Result<()> {
    let octavia = world.cloud.load_balancing();
    let named = Filter::new().with("name", format!("{}/{service}", world.namespace()));
    let balancer = octavia.load_balancers().list(&named).await?.pop().context("there is no load balancer")?;
    let nets = |addresses: &[IpAddr]| addresses.iter().map(|address| format!("{address}/32")).collect::<BTreeSet<_>>();
    let (of, wanted) = (nets(of), nets(wanted));
    let deadline = Instant::now() + PATIENCE;
    loop {
        let listeners = octavia.listeners().list(&Filter::new().with("loadbalancer_id", balancer.id)).await?;
        let tcp =
            listeners.into_iter().find(|listener| listener.protocol_port == 80).context("there is no listener")?;
        let allowed: BTreeSet<String> = tcp.allowed_cidrs.into_iter().collect();
        let as_wanted = of.intersection(&allowed).eq(&wanted) && allowed.is_empty() == of.is_empty();
        if as_wanted {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the listener lets in {allowed:?} and not {wanted:?}");
        // Octavia tells nobody.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// Whichever endpoint is chosen.
async fn all_pass(netns: &Path, target: SocketAddr) -> anyhow::Result<()> {
    for _ in 0..6 {
        probe::reach(netns, target, WITHIN).await?;
    }
    Ok(())
}

async fn none_passes(netns: &Path, target: SocketAddr) -> anyhow::Result<()> {
    for _ in 0..6 {
        let outcome = probe::reach(netns, target, SILENCE).await;
        ensure!(outcome.as_ref().is_err_and(probe::Error::is_silent), "{target}: {outcome:?}");
    }
    Ok(())
}

pub(super) async fn an_amphora_lets_in_whom_the_pods_behind_it_would(world: &mut World) -> anyhow::Result<()> {
    let pods = world.backends("web", 0..2).await?;
    let ((one, friend), (other, stranger)) = tokio::try_join!(pod_of(world, "friend"), pod_of(world, "stranger"))?;
    let address = |pod| addresses(pod).map(|all| all[0]);
    let (one, other) = (address(&one)?, address(&other)?);
    let service = amphora(world, "web", 2).await?;
    for from in [&friend, &stranger] {
        comes(from, service).await.context("without policies")?;
    }
    lets_in(world, "web", &[], &[]).await?;
    world.policies().create("web", &from(&web(), &["friend"])).await?;
    goes(&stranger, service).await.context("who is forbidden")?;
    comes(&friend, service).await.context("who is allowed")?;
    lets_in(world, "web", &[one, other], &[one]).await?;
    all_pass(&friend, service).await?;
    none_passes(&stranger, service).await?;
    // A pod behind it that is no client is not let in by being the load balancer's.
    goes(&pods[0].netns, (pods[1].address, SERVED).into()).await.context("one pod behind it to the other")?;
    // Other clients.
    world.policies().replace("web", &from(&web(), &["stranger"])).await?;
    comes(&stranger, service).await.context("who is allowed now")?;
    none_passes(&friend, service).await.context("who is not any more")?;
    lets_in(world, "web", &[one, other], &[other]).await?;
    // Clients come and go.
    let second = world.run_pod(&NewPod::new("second").app("stranger"), "second").await?;
    let second_address = address(&second)?;
    comes(&world.netns(&second)?, service).await.context("one more client")?;
    lets_in(world, "web", &[one, other, second_address], &[other, second_address]).await?;
    let mut session = probe::connect(&stranger, service, WITHIN).await?;
    session.exchange(WITHIN).await?;
    world.pods().delete("second").await?;
    lets_in(world, "web", &[one, other, second_address], &[other]).await?;
    session.exchange(WITHIN).await.context("a connection of another client than the one that went")?;
    // Endpoints, too.
    let _third = world.backend("web", "web-2".to_owned(), &[SERVED]).await?;
    world.services().ready("web", 3).await?;
    comes(&stranger, service).await?;
    none_passes(&friend, service).await.context("with one more pod behind it")?;
    // By addresses, of which the load balancer's are some.
    let except = json!({"cidr": "0.0.0.0/0", "except": [format!("{other}/32")]});
    let block = json!({"podSelector": {"matchLabels": web()}, "ingress": [{"from": [{"ipBlock": except}]}]});
    world.policies().replace("web", &block).await?;
    comes(&friend, service).await.context("by a block")?;
    none_passes(&stranger, service).await.context("an exception of the block")?;
    session.exchange(SILENCE * 6).await.err().context("a connection from before goes on")?;
    // Nobody, then everybody.
    world.policies().replace("web", &from(&web(), &[])).await?;
    for from in [&friend, &stranger] {
        goes(from, service).await.context("when nobody is let in")?;
    }
    world.policies().delete("web").await?;
    for from in [&friend, &stranger] {
        comes(from, service).await.context("without policies again")?;
    }
    lets_in(world, "web", &[], &[]).await
}

pub(super) async fn nothing_gets_through_an_amphora_while_policies_change(world: &mut World) -> anyhow::Result<()> {
    let _pods = world.backends("web", 0..2).await?;
    let ((pod, friend), (_, stranger)) = tokio::try_join!(pod_of(world, "friend"), pod_of(world, "stranger"))?;
    let ((_, second), policies) = (pod_of(world, "second").await?, world.policies());
    policies.create("web", &from(&web(), &["friend"])).await?;
    policies.ready("web").await?;
    let service = amphora(world, "web", 2).await?;
    comes(&friend, service).await.context("a Service that comes after its policy")?;
    let datagrams = SocketAddr::new(service.ip(), DATAGRAMS);
    let mut guards = Guards::default();
    guards.post(&stranger, datagrams, "the stranger").await?;
    for (allowed, who) in [(&["second"][..], &second), (&["friend", "second"], &friend), (&["friend"], &friend)] {
        policies.replace("web", &from(&web(), allowed)).await?;
        comes(who, service).await.with_context(|| format!("from {allowed:?}"))?;
        policies.replace("web", &from(&web(), &[])).await?;
        goes(who, service).await.context("when nobody is let in")?;
    }
    // A block that the load balancer's own address is in.
    let friend_address = addresses(&pod)?[0];
    let block = json!([{"from": [{"ipBlock": {"cidr": format!("{}/32", service.ip())}}, {"ipBlock": {"cidr": format!("{friend_address}/32")}}]}]);
    policies.replace("web", &json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": block})).await?;
    comes(&friend, service).await.context("by a block")?;
    // Other endpoints, and the Service anew.
    let _third = world.backend("web", "web-2".to_owned(), &[SERVED]).await?;
    world.services().ready("web", 3).await?;
    comes(&friend, service).await.context("with one more pod behind it")?;
    ensure!(guards.sent() > 500, "only {} datagrams were sent meanwhile", guards.sent());
    ensure!(guards.through().is_empty(), "packets got through: {:?}", guards.through());
    policies.delete("web").await?;
    let noticed = async {
        while guards.through().is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, noticed).await.context("the guards do not notice what gets through")
}

fn tells(held: Option<&KuryrLoadBalancer>, reason: &str) -> bool {
    let problems = held.and_then(|held| held.status.as_ref()).map(|status| &status.problems);
    problems.is_some_and(|problems| problems.iter().any(|problem| problem.reason == reason))
}

fn client_hidden(held: Option<&KuryrNetworkPolicy>, named: &str) -> bool {
    let problems = held.and_then(|held| held.status.as_ref()).map(|status| &status.problems);
    let is_it =
        |problem: &kuryr_model::told::Problem| problem.reason == "ClientHidden" && problem.message.contains(named);
    problems.is_some_and(|problems| problems.iter().any(is_it))
}

pub(super) async fn who_comes_in_where_pods_behind_an_amphora_differ(world: &mut World) -> anyhow::Result<()> {
    let pod = |name: &str| NewPod::new(name).app("web").label("name", name);
    let (_one, _two) =
        tokio::try_join!(world.backend_of(pod("one"), &[SERVED]), world.backend_of(pod("two"), &[SERVED]))?;
    let ((_, friend), (_, stranger)) = tokio::try_join!(pod_of(world, "friend"), pod_of(world, "stranger"))?;
    let (policies, services) = (world.policies(), world.services());
    let service = amphora(world, "web", 2).await?;
    policies.create("one", &from(&json!({"name": "one"}), &["friend", "stranger"])).await?;
    policies.create("two", &from(&json!({"name": "two"}), &["friend"])).await?;
    goes(&stranger, service).await.context("whom one of two pods forbids")?;
    comes(&friend, service).await.context("whom both allow")?;
    all_pass(&friend, service).await?;
    none_passes(&stranger, service).await?;
    services.when("web", "told of", PATIENCE, |held: Option<&KuryrLoadBalancer>| tells(held, "PoliciesDiffer")).await?;
    let named = format!("{}/one", world.namespace());
    let told = |held: Option<&KuryrNetworkPolicy>| client_hidden(held, &named);
    policies.when("two", "told of", PATIENCE, told).await?;
    // As soon as they agree, nothing is to be told.
    policies.replace("two", &from(&json!({"name": "two"}), &["friend", "stranger"])).await?;
    comes(&stranger, service).await.context("whom both allow by now")?;
    all_pass(&stranger, service).await?;
    services
        .when("web", "in order", PATIENCE, |held: Option<&KuryrLoadBalancer>| !tells(held, "PoliciesDiffer"))
        .await?;
    let told = |held: Option<&KuryrNetworkPolicy>| !client_hidden(held, "");
    policies.when("two", "in order", PATIENCE, told).await?;
    // One that no policy isolates any more would let in everybody.
    policies.delete("two").await?;
    services.when("web", "told of", PATIENCE, |held: Option<&KuryrLoadBalancer>| tells(held, "PoliciesDiffer")).await?;
    all_pass(&friend, service).await?;
    policies.delete("one").await
}

pub(super) async fn a_restarted_controller_interrupts_nothing_behind_an_amphora(
    world: &mut World,
) -> anyhow::Result<()> {
    let _pods = world.backends("web", 0..2).await?;
    let ((_, friend), (_, stranger)) = tokio::try_join!(pod_of(world, "friend"), pod_of(world, "stranger"))?;
    let service = amphora(world, "web", 2).await?;
    world.policies().create("web", &from(&web(), &["friend"])).await?;
    goes(&stranger, service).await?;
    comes(&friend, service).await?;
    let mut session = probe::connect(&friend, service, WITHIN).await?;
    session.exchange(WITHIN).await?;
    world.kuryr.kill_controllers().await?;
    world.inside()?.cloud.calls().reset();
    world.kuryr.start_controller().await?;
    world.leader_elected().await?;
    // What comes after the first look.
    let other = json!({"podSelector": {"matchLabels": {"app": "nobody"}}});
    world.policies().create("another", &other).await?;
    world.policies().ready("another").await?;
    let changed = |call: &crate::cloud::CallRecord| call.is_write() && call.path.starts_with("/v2.0/ports/");
    let changed = world.inside()?.cloud.calls().filter(changed);
    ensure!(changed.is_empty(), "ports were changed: {changed:#?}");
    session.exchange(WITHIN).await.context("a connection from before")?;
    none_passes(&stranger, service).await?;
    world.policies().delete("another").await?;
    world.policies().delete("web").await
}

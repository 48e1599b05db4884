//! How policies are brought about: how quickly, with how many calls, and what a restart finds.

use super::{connectivity::WITHIN, lifecycle::many};
use crate::{
    cloud::{CallRecord, Fault, Service},
    dataplane::probe,
    world::{NewPod, World, pods::PATIENCE, services::SERVED},
};
use anyhow::{Context, bail, ensure};
use http::Method;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::{
    Api,
    api::{DeleteParams, PostParams},
    runtime::wait::await_condition,
};
use kuryr_model::KuryrNetworkPolicy;
use serde_json::{Value, json};
use std::{net::SocketAddr, time::Duration};
use tokio::time::{Instant, timeout};

/// What every call takes.
const LATENCY: Duration = Duration::from_millis(200);
/// What a policy for fifty pods may take then: 2 s on a machine with nothing else to do, which that of a test may have.
const BUDGET: Duration = Duration::from_secs(3);

struct Policies {
    policies: Api<NetworkPolicy>,
    held: Api<KuryrNetworkPolicy>,
}

impl Policies {
    fn new(world: &World) -> Self {
        let api = || Api::namespaced(world.client.clone(), world.namespace());
        Self { policies: api(), held: Api::namespaced(world.client.clone(), world.namespace()) }
    }

    async fn create(&self, name: &str, spec: Value) -> anyhow::Result<()> {
        let object = serde_json::from_value(json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec,
        }))?;
        self.policies.create(&PostParams::default(), &object).await.map(drop).context("the policy is refused")
    }

    async fn ready(&self, name: &str) -> anyhow::Result<KuryrNetworkPolicy> {
        let ready = |held: Option<&KuryrNetworkPolicy>| {
            held.and_then(KuryrNetworkPolicy::ready).is_some_and(|ready| ready.status == "True")
        };
        match timeout(PATIENCE, await_condition(self.held.clone(), name, ready)).await {
            Ok(held) => held?.context("the KuryrNetworkPolicy is gone"),
            Err(_) => bail!("{name} does not hold: {:?}", self.held.get_opt(name).await?),
        }
    }

    async fn delete(&self, name: &str) -> anyhow::Result<()> {
        self.policies.delete(name, &DeleteParams::default()).await?;
        let gone = |held: Option<&KuryrNetworkPolicy>| held.is_none();
        timeout(PATIENCE, await_condition(self.held.clone(), name, gone)).await.context("it is told of still")??;
        Ok(())
    }
}

/// Only those with this label come in.
fn only(app: &str) -> Value {
    json!({
        "podSelector": {"matchLabels": {"app": "kuryr-scenario"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": app}}}], "ports": [{"port": SERVED}]}],
    })
}

/// Waits until there is an answer, or none.
async fn comes_to_reach(from: &std::path::Path, target: SocketAddr, reached: bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while probe::reach(from, target, WITHIN).await.is_ok() != reached {
        ensure!(Instant::now() < deadline, "{target} is {}reached", if reached { "not " } else { "" });
    }
    Ok(())
}

fn writes(world: &World) -> anyhow::Result<Vec<CallRecord>> {
    let calls = world.inside()?.cloud.calls();
    Ok(calls.filter(|call| call.is_write() && call.service == Service::Network))
}

pub(super) async fn a_policy_holds_on_fifty_pods_within_its_budget(world: &mut World) -> anyhow::Result<()> {
    let policies = Policies::new(world);
    let friend = world.run_pod(&NewPod::new("friend").app("friend"), "friend").await?;
    let stranger = world.run_pod(&NewPod::new("stranger").app("stranger"), "stranger").await?;
    let server = world.backend_of(NewPod::new("server"), &[SERVED]).await?;
    let pods = many(world, world.crowd()).await?;
    let target = SocketAddr::new(server.address, SERVED);
    let (friend, stranger) = (world.netns(&friend)?, world.netns(&stranger)?);
    comes_to_reach(&stranger, target, true).await?;

    let cloud = world.inside()?.cloud.clone();
    let slow = cloud.faults().add(Fault::delay(LATENCY).service(Service::Network));
    cloud.calls().reset();
    let started = Instant::now();
    policies.create("only-friends", only("friend")).await?;
    let held = policies.ready("only-friends").await?;
    let took = started.elapsed();
    cloud.faults().remove(slow);
    let status = held.status.context("no status")?;
    ensure!(status.selected_pods as usize == pods.len() + 1, "it says {status:?}");
    ensure!(status.peers == 1 && status.rules > 0 && status.applied_generation.is_some(), "it says {status:?}");
    let writes = writes(world)?;
    let updates = writes.iter().filter(|call| call.method == Method::PUT && call.path.starts_with("/v2.0/ports/"));
    ensure!(updates.count() == pods.len() + 2, "not one update for each pod: {writes:#?}");
    ensure!(took < BUDGET, "{} pods took {took:?} and {} calls", pods.len() + 1, writes.len());
    comes_to_reach(&stranger, target, false).await?;
    comes_to_reach(&friend, target, true).await?;

    policies.delete("only-friends").await?;
    comes_to_reach(&stranger, target, true).await
}

pub(super) async fn a_restarted_controller_finds_policies_as_they_are(world: &mut World) -> anyhow::Result<()> {
    let policies = Policies::new(world);
    many(world, 3).await?;
    policies.create("only-friends", only("friend")).await?;
    let egress = json!({
        "podSelector": {}, "policyTypes": ["Ingress", "Egress"],
        "egress": [
            {"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}], "ports": [{"port": 80, "endPort": 90}]},
            {"to": [{"ipBlock": {"cidr": "fd00::/8"}}, {"namespaceSelector": {}}], "ports": [{"port": 53, "protocol": "UDP"}]},
        ],
    });
    policies.create("out", egress).await?;
    policies.ready("only-friends").await?;
    policies.ready("out").await?;
    world.kuryr.kill_controllers().await?;
    world.inside()?.cloud.calls().reset();
    world.kuryr.start_controller().await?;
    world.leader_elected().await?;
    // What comes after the first look: a policy of its own, and that is all that is written.
    policies.create("another", json!({"podSelector": {"matchLabels": {"app": "nobody"}}})).await?;
    policies.ready("another").await?;
    let made = writes(world)?;
    // Neutron puts two rules into a new group, which are taken out.
    let about = |call: &CallRecord| {
        let taken_out = call.method == Method::DELETE && call.path.starts_with("/v2.0/security-group-rules/");
        !taken_out && !call.path.starts_with("/v2.0/security-groups")
    };
    ensure!(!made.iter().any(about), "a restart changed something: {made:#?}");
    for name in ["only-friends", "out", "another"] {
        policies.delete(name).await?;
    }
    Ok(())
}

//! What the measurements have in common: a world, and pods that are bound from the start.

use super::seen::Seen;
use crate::{
    cloud::{Calls, Latency, Service},
    world::{EmbeddedConfig, World},
};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt, api::PostParams};
use kuryr_model::KuryrPort;
use serde_json::json;
use std::{fs, path::Path, time::Instant};

/// The namespace of all pods.
pub(super) const NAMESPACE: &str = "bench";

/// Where and how much is measured.
#[derive(Clone, Debug)]
pub(super) struct Scale {
    /// The folder for network namespaces.
    pub(super) netns: std::path::PathBuf,
    /// Fewer samples, for a look.
    pub(super) quick: bool,
    /// How long an idle system is watched, in seconds.
    pub(super) idle_seconds: u64,
    /// How many pods there are when the controller is restarted.
    pub(super) many: usize,
}

impl Scale {
    /// A number of samples, or a fifth of it for a quick look.
    pub(super) fn samples(&self, full: usize) -> usize {
        if self.quick { full.div_ceil(5) } else { full }
    }
}

/// A world whose Kuryr has the settings that it is installed with, but no pools, and not the short lease of the scenarios.
pub(super) async fn world(scale: &Scale, nodes: usize, latency: Latency, cidr: &str) -> anyhow::Result<World> {
    let pod_cidrs = vec![cidr.to_owned()];
    world_of(EmbeddedConfig { nodes, latency, pod_cidrs, ..EmbeddedConfig::new(&scale.netns) }).await
}

/// The same, made otherwise.
pub(super) async fn world_of(config: EmbeddedConfig) -> anyhow::Result<World> {
    let mut world = World::embedded(EmbeddedConfig { start_kuryr: false, ..config }).await?;
    // What a port costs is measured without spare ones; those have a group of their own.
    let config = "[openstack]\ncloud = \"kuryr\"\n[pools]\nenabled = false\n";
    fs::write(&world.kuryr.settings().config, config)?;
    world.use_namespace(NAMESPACE).await?;
    Ok(world)
}

/// Starts the controller and all daemons.
pub(super) async fn start_kuryr(world: &mut World) -> anyhow::Result<()> {
    world.kuryr.start_controller().await?;
    for node in world.nodes.clone() {
        world.kuryr.start_daemon(&node).await?;
    }
    world.leader_elected().await
}

/// A world with one node on which no kubelet starts anything: pods on it get ports, and that is all.
pub(super) async fn world_without_kubelet(scale: &Scale, latency: Latency) -> anyhow::Result<World> {
    let mut world = world(scale, 1, latency, "10.10.0.0/20").await?;
    let node = world.nodes[0].clone();
    start_kuryr(&mut world).await?;
    world.inside_mut()?.burn_down(&node).await?;
    Ok(world)
}

/// When each pod's `KuryrPort` had its VIF.
pub(super) fn ports_filled(client: &Client) -> Seen {
    let ports: Api<KuryrPort> = Api::namespaced(client.clone(), NAMESPACE);
    Seen::watch(ports, |port: &KuryrPort| !port.spec.vifs.is_empty())
}

/// Makes a pod that is bound to its node already. When that was asked for, and the pod's UID.
pub(super) async fn bound_pod(client: &Client, name: &str, node: &str) -> anyhow::Result<(Instant, String)> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let object = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
        "spec": { "nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [{ "name": "main", "image": "none" }] },
    }))?;
    let asked = Instant::now();
    let made = pods.create(&PostParams::default(), &object).await?;
    Ok((asked, made.uid().unwrap_or_default()))
}

/// Makes pods that are bound to their node already, all at once; when the first was asked for, and name and UID of each.
pub(super) async fn bound_pods(
    client: &Client,
    names: &[String],
    node: &str,
) -> anyhow::Result<(Instant, Vec<(String, String)>)> {
    let asked = Instant::now();
    let made = try_join_all(names.iter().map(|name| bound_pod(client, name, node))).await?;
    Ok((asked, names.iter().cloned().zip(made.into_iter().map(|(_, uid)| uid)).collect()))
}

/// Names with a number each.
pub(super) fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}-{number}")).collect()
}

/// Calls to Neutron since the log was reset: how many requests made ports, how many ports, and how many of any kind.
pub(super) fn neutron_calls(calls: &Calls) -> (usize, usize, usize) {
    let all = calls.filter(|call| call.service == Service::Network);
    let creates: Vec<_> = all.iter().filter(|call| call.method == "POST" && call.template == "/v2.0/ports").collect();
    (creates.len(), creates.iter().map(|call| call.items).sum(), all.len())
}

/// Milliseconds between two moments.
pub(super) fn ms(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64() * 1000.0
}

/// The configuration that a container runtime hands to the plugin.
pub(super) fn cni_conf(socket: &Path) -> String {
    json!({ "cniVersion": "1.1.0", "name": "kuryr", "type": "kuryr-cni", "kuryrSocket": socket }).to_string()
}

//! A cloud, a cluster, and Kuryr between them.

use super::{
    Args, POD_CIDR,
    show::{Show, many},
};
use crate::world::{EmbeddedConfig, World, set_up as commands};
use anyhow::ensure;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, api::ListParams};
use std::path::Path;

pub(super) async fn world(show: &Show, args: &Args, netns: &Path) -> anyhow::Result<World> {
    show.chapter(
        "A cloud and a cluster",
        "An embedded OpenStack (Keystone and Neutron, strict as the real ones), a data plane of the Linux kernel's own routing and \
         nftables, and an embedded Kubernetes with two nodes.",
    );
    let config = EmbeddedConfig {
        latency: args.latency(),
        pod_cidrs: vec![POD_CIDR.to_owned()],
        set_up: false,
        start_kuryr: false,
        ..EmbeddedConfig::new(netns)
    };
    let world = show.wait("they start", World::embedded(config)).await?;
    let inside = world.inside()?;
    show.fact("Keystone", &inside.cloud_server.auth_url());
    show.fact("Kubernetes", &inside.api_server.url());
    for node in inside.fabric.nodes() {
        show.fact(
            "node",
            &format!("{} at {}: a network namespace, and a host of that name in Neutron", node.name, node.address),
        );
    }
    let latency = args.latency();
    let speed = if latency.create.is_zero() {
        "answers at once (--quick)".to_owned()
    } else {
        format!(
            "takes as long as a small real one: a read {} ms, a port {} ms, each further port of the same call {} ms",
            latency.read.as_millis(),
            (latency.create + latency.create_item).as_millis(),
            latency.create_item.as_millis()
        )
    };
    show.fact("the cloud", &speed);
    let nodes = Api::<Node>::all(world.client.clone()).list(&ListParams::default()).await?;
    let ready = |node: &Node| {
        let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.clone().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    };
    show.claim(nodes.items.len() == 2 && nodes.iter().all(ready), "two nodes are registered and Ready")?;
    Ok(world)
}

pub(super) async fn set_up(show: &Show, world: &World) -> anyhow::Result<()> {
    show.chapter(
        "kuryr setup",
        "Once for each cluster: `kuryr crds --apply` installs the custom resources in Kubernetes, and `kuryr setup` makes what the \
         cloud needs. Both may be run again and then change nothing.",
    );
    let cloud = &world.inside()?.cloud;
    let [crds, setup] = commands(&[POD_CIDR.to_owned()], &[]);
    let command = format!("kuryr {}", setup.join(" "));
    run(show, world, crds).await?;
    let output = run(show, world, setup.clone()).await?;
    // What is made is told in the comments that come before the configuration.
    let made: Vec<&str> = output.lines().filter(|line| line.starts_with('#')).collect();
    show.gap();
    show.quote(&command, &made.join("\n"));
    show.gap();
    cloud.calls().reset();
    run(show, world, setup).await?;
    let writes = cloud.calls().writes(crate::cloud::Service::Network).len();
    show.claim(writes == 0, "a second run found everything by its tags and changed nothing")
}

/// Runs a command of `kuryr` that must succeed.
pub(super) async fn run(show: &Show, world: &World, args: Vec<String>) -> anyhow::Result<String> {
    let command = format!("kuryr {}", args.join(" "));
    let work = async {
        let (code, output) = world.kuryr.run(args).await?;
        ensure!(code == Some(0), "{command} ended with {code:?}:\n{output}");
        Ok(output)
    };
    let calls = world.inside()?.cloud.calls();
    let before = calls.total();
    let progress = || match calls.total().saturating_sub(before) {
        0 => String::new(),
        count => many(count.try_into().unwrap_or(usize::MAX), "call"),
    };
    show.watch(&command, progress, work).await
}

pub(super) async fn start_kuryr(show: &Show, world: &mut World) -> anyhow::Result<()> {
    show.chapter(
        "Kuryr",
        "One active controller, the only one that talks to OpenStack, and a daemon on each node, which holds no credentials: all that \
         it must know to plug a pod is in the pod's KuryrPort.",
    );
    let nodes = world.nodes.clone();
    let work = async {
        let controller = world.kuryr.start_controller().await?;
        world.leader_elected().await?;
        for node in &nodes {
            world.kuryr.start_daemon(node).await?;
        }
        anyhow::Ok(controller)
    };
    let controller = show.wait("they start and elect a leader", work).await?;
    let pid = |pid: Option<u32>| pid.map_or_else(|| "none".to_owned(), |pid| pid.to_string());
    show.fact("controller", &format!("process {}", pid(world.kuryr.controller_pid(controller))));
    for node in &nodes {
        show.fact("daemon", &format!("process {} on {node}", pid(world.kuryr.daemon_pid(node))));
    }
    let daemons = nodes.iter().all(|node| world.kuryr.daemon_pid(node).is_some());
    show.claim(daemons, "the controller has the lease, and both daemons answer")
}

//! Wrong input is refused where it is wrong, and nothing else notices.

use super::connectivity::both_ways;
use crate::{
    cloud::HostKind,
    world::{NewPod, Services, World, pods::PATIENCE},
};
use anyhow::{Context, bail, ensure};
use futures::StreamExt as _;
use k8s_openapi::api::{core::v1::Node, events::v1::Event};
use kube::{
    api::{Api, DynamicObject, Patch, PatchParams, PostParams},
    core::{ApiResource, GroupVersionKind},
    runtime::{
        WatchStreamExt as _,
        wait::{await_condition, conditions},
        watcher,
    },
};
use kuryr_model::{HOST_ANNOTATION, KuryrPort, PORT_FINALIZER};
use serde_json::json;
use std::pin::pin;
use tokio::time::timeout;

pub(super) async fn a_malformed_kuryr_port_is_skipped(world: &mut World) -> anyhow::Result<()> {
    // Written past the schema, as an older version of the definition might have let it through.
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("kuryr.openstack.org", "v1", "KuryrPort"));
    let api: Api<DynamicObject> = Api::namespaced_with(world.client.clone(), world.namespace(), &kind);
    world.without_schema("kuryrports.kuryr.openstack.org").await?;
    let bad: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "kuryr.openstack.org/v1", "kind": "KuryrPort",
        "metadata": {"name": "bad", "finalizers": [PORT_FINALIZER]},
        "spec": {"podUid": 7, "nodeName": world.nodes[0], "vifs": "none"},
    }))?;
    api.create(&PostParams::default(), &bad).await?;
    world.run_pod(&NewPod::new("good").on(&world.nodes[0].clone()), "good").await?;
    // Who looks sees it, and everything else.
    for (command, words) in [("status", "cannot be read"), ("audit", "mismatch  KuryrPort")] {
        let (code, output) = world.kuryr.run(vec![command.to_owned()]).await?;
        let named = output.lines().filter(|line| line.contains(&format!("{}/bad", world.namespace()))).count();
        ensure!(code == Some(1) && named == 1 && output.contains(words), "kuryr {command}: {code:?}\n{output}");
    }
    told(world, "bad", "KuryrPortUnreadable").await?;
    // Nobody will ever say that its port is released: it must not stay for that.
    api.delete("bad", &Default::default()).await?;
    let gone = await_condition(api, "bad", |object: Option<&DynamicObject>| object.is_none());
    timeout(PATIENCE, gone).await.context("the malformed KuryrPort stays")??;
    Ok(())
}

/// Waits for an Event about an object of ours; its note.
pub(super) async fn told(world: &World, name: &str, reason: &str) -> anyhow::Result<String> {
    let events: Api<Event> = Api::all(world.client.clone());
    let reason_is = |event: &Event| event.reason.as_deref() == Some(reason);
    let about = |event: &Event| event.regarding.as_ref().and_then(|about| about.name.as_deref()) == Some(name);
    let mut stream = pin!(watcher(events, watcher::Config::default()).applied_objects());
    let found = async {
        while let Some(event) = stream.next().await {
            let event = event?;
            if reason_is(&event) && about(&event) {
                return Ok(event.note.unwrap_or_default());
            }
        }
        bail!("the watch ended")
    };
    timeout(PATIENCE, found).await.with_context(|| format!("no Event {reason} about {name}"))?
}

pub(super) async fn a_kuryr_port_that_was_spoilt_is_made_anew_with_the_same_port(
    world: &mut World,
) -> anyhow::Result<()> {
    let (pods, node) = (world.pods(), world.nodes[0].clone());
    let pod = world.run_pod(&NewPod::new("web").on(&node), "web").await?;
    let other = world.run_pod(&NewPod::new("other").on(&node), "other").await?;
    let before = pods.ports().get("web").await?;
    let id = before.port_ids().next().context("no port")?;
    world.without_schema("kuryrports.kuryr.openstack.org").await?;
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("kuryr.openstack.org", "v1", "KuryrPort"));
    let api: Api<DynamicObject> = Api::namespaced_with(world.client.clone(), world.namespace(), &kind);
    let calls = world.inside()?.cloud.calls();
    calls.reset();
    api.patch("web", &PatchParams::default(), &Patch::Merge(json!({"spec": {"vifs": "none"}}))).await?;
    let note = told(world, "web", "KuryrPortUnreadable").await?;
    ensure!(note.contains("put it right, or delete it"), "no fix in: {note}");
    // Its pod runs on, and nobody touches its port.
    both_ways(world, &pod, &other).await?;
    let touched = calls.filter(|call| call.method != "GET" && call.path.contains("/ports"));
    ensure!(touched.is_empty(), "ports were touched: {touched:?}");
    // As the Event says.
    let spoilt = before.metadata.uid.clone().context("no UID")?;
    api.delete("web", &Default::default()).await?;
    // Until then no list of KuryrPorts can be read whole.
    timeout(PATIENCE, await_condition(api.clone(), "web", conditions::is_deleted(&spoilt))).await??;
    let again = move |port: Option<&KuryrPort>| {
        port.is_some_and(|port| port.metadata.uid != before.metadata.uid && port.port_ids().eq([id]))
    };
    pods.port("web", "made anew with the same port", PATIENCE, again).await?;
    both_ways(world, &pod, &other).await
}

pub(super) async fn a_malformed_kuryr_load_balancer_hides_nothing_else(world: &mut World) -> anyhow::Result<()> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("kuryr.openstack.org", "v1", "KuryrLoadBalancer"));
    let api: Api<DynamicObject> = Api::namespaced_with(world.client.clone(), world.namespace(), &kind);
    Services::new(&world.client, "default").ready("kubernetes", 1).await?;
    world.without_schema("kuryrloadbalancers.kuryr.openstack.org").await?;
    let bad: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "kuryr.openstack.org/v1", "kind": "KuryrLoadBalancer", "metadata": {"name": "bad"},
        "spec": {"serviceUid": ["s"]},
    }))?;
    api.create(&PostParams::default(), &bad).await?;
    for (command, words) in [("status", "1 are served"), ("audit", "mismatch  KuryrLoadBalancer")] {
        let (code, output) = world.kuryr.run(vec![command.to_owned()]).await?;
        let named = output.lines().filter(|line| line.contains(&format!("{}/bad", world.namespace()))).count();
        ensure!(code == Some(1) && named == 1 && output.contains(words), "kuryr {command}: {code:?}\n{output}");
        ensure!(output.contains("cannot be read"), "kuryr {command} does not say what is wrong:\n{output}");
    }
    api.delete("bad", &Default::default()).await?;
    Ok(())
}

pub(super) async fn an_annotation_that_is_no_host_is_ignored_and_told(world: &mut World) -> anyhow::Result<()> {
    let node = world.nodes[1].clone();
    let nodes: Api<Node> = Api::all(world.client.clone());
    let annotate = async |host: Option<&str>| {
        let patch = json!({"metadata": {"annotations": {(HOST_ANNOTATION): host}}});
        nodes.patch(&node, &PatchParams::default(), &Patch::Merge(patch)).await
    };
    annotate(Some("  ")).await?;
    let note = told(world, &node, "HostIgnored").await?;
    ensure!(note.contains(HOST_ANNOTATION) && note.contains("remove it"), "no annotation, no fix: {note}");
    world.run_pod(&NewPod::new("pod").on(&node), "pod").await?;
    let (code, output) = world.kuryr.run(vec!["status".to_owned()]).await?;
    let named = output.lines().any(|line| line.contains(&format!("node {node}")) && line.contains("is blank"));
    ensure!(code == Some(1) && named, "kuryr status: {code:?}\n{output}");
    annotate(None).await?;
    Ok(())
}

pub(super) async fn malformed_cni_input_is_refused(world: &mut World) -> anyhow::Result<()> {
    let node = world.nodes[0].clone();
    let socket = world.kuryr.socket(&node);
    let future =
        json!({"cniVersion": "9.0.0", "name": "kuryr", "type": "kuryr-cni", "kuryrSocket": socket}).to_string();
    for (input, code) in [("", 6), ("{", 6), ("[]", 6), (future.as_str(), 1)] {
        let answer = world.cni_raw("ADD", "c0ffee", "/nowhere", input).await?;
        ensure!(!answer.success && answer.code() == Some(code), "{input:?} was answered with {}", answer.output);
    }
    // And the daemon is as it was.
    world.run_pod(&NewPod::new("good").on(&node), "good").await.map(drop)
}

pub(super) async fn a_node_that_neutron_does_not_know_is_named(world: &mut World) -> anyhow::Result<()> {
    let (pods, node) = (world.pods(), world.nodes[1].clone());
    let cloud = world.inside()?.cloud.clone();
    cloud.remove_host(&node);
    pods.create(&NewPod::new("homeless").on(&node)).await?;
    let named = |port: Option<&KuryrPort>| {
        port.and_then(KuryrPort::unallocated_reason).is_some_and(|why| why.reason == "HostUnknown")
    };
    let port = pods.port("homeless", "refused with the reason", PATIENCE, named).await?.context("no KuryrPort")?;
    let message = &port.unallocated_reason().context("no reason")?.message;
    ensure!(message.contains(&node) && message.contains("kuryr.openstack.org/host"), "no node, no fix: {message}");
    // The others go on, and so does this one when Neutron knows its node.
    world.run_pod(&NewPod::new("other").on(&world.nodes[0]), "other").await?;
    cloud.add_host(&node, HostKind::Tap);
    pods.running("homeless").await.map(drop)
}

pub(super) async fn a_cloud_that_cannot_be_used_ends_with_one_sentence(world: &mut World) -> anyhow::Result<()> {
    let settings = "[openstack]\ncloud = \"kuryr\"\n";
    let right = std::fs::read_to_string(world.inside()?.folder().join("clouds.yaml"))?;
    let (address, password) = (world.inside()?.cloud_server.address(), world.inside()?.cloud.config().password.clone());
    for (clouds, words) in [
        (right.replace(&password, "guess"), "password"),
        (right.replace(&address.port().to_string(), "1"), "auth_url"),
        (right.replace("RegionOne", "RegionTwo"), "RegionTwo"),
    ] {
        ensure!(clouds != right, "nothing is wrong in {clouds}");
        one_sentence(world, settings, Some(&clouds), words).await?;
    }
    // Nothing is asked of an Octavia of which it is not known what it can do.
    one_sentence(world, settings, None, "set [services] provider to one of them").await
}

/// A controller with this configuration ends with one line that has these words, and no backtrace.
async fn one_sentence(world: &World, config: &str, clouds: Option<&str>, words: &str) -> anyhow::Result<()> {
    let (code, output) = world.controller_with(config, clouds).await?;
    let lines: Vec<&str> = output.lines().filter(|line| line.starts_with("kuryr: ")).collect();
    ensure!(code == Some(1) && lines.len() == 1, "{config:?} ended with {code:?}: {output}");
    ensure!(lines[0].contains(words) && !output.contains("backtrace"), "no {words:?} in: {output}");
    Ok(())
}

pub(super) async fn wrong_configuration_ends_with_one_sentence(world: &mut World) -> anyhow::Result<()> {
    let subnets = world.pod_subnets().await?;
    let subnet = subnets.first().context("no pod subnet")?.id;
    // Another cluster's id: nothing was set up for that one.
    let other = "[cluster]\nid = \"another\"\n[openstack]\ncloud = \"kuryr\"\n";
    let no_group = format!("{other}[network]\npod_subnets = [\"{subnet}\"]\n");
    for (config, words) in [
        (other, "there is no pod subnet: [network] pod_subnets is empty"),
        (&*no_group, "kuryr:base:ingress-open and kuryr:another; run `kuryr setup`"),
        ("[controller]\nbulk = 1\n", "unknown field `bulk`"),
        ("[openstack]\ncloud = \"kuryr\"\n[network]\npod_subnets = [\"nowhere\"]\n", "no such subnet"),
        ("[openstack]\ncloud = \"nebula\"\n", "nebula"),
    ] {
        one_sentence(world, config, None, words).await?;
    }
    Ok(())
}

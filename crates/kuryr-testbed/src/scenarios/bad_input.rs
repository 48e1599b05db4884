//! Wrong input is refused where it is wrong, and nothing else notices.

use crate::{
    cloud::HostKind,
    world::{NewPod, World, pods::PATIENCE},
};
use anyhow::{Context, ensure};
use kube::{
    api::{Api, DynamicObject, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use kuryr_model::KuryrPort;
use serde_json::json;

pub(super) async fn a_malformed_kuryr_port_is_skipped(world: &mut World) -> anyhow::Result<()> {
    // Written past the schema, as an older version of the definition might have let it through.
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("kuryr.openstack.org", "v1", "KuryrPort"));
    let api: Api<DynamicObject> = Api::namespaced_with(world.client.clone(), world.namespace(), &kind);
    world.without_schema("kuryrports.kuryr.openstack.org").await?;
    let bad: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "kuryr.openstack.org/v1", "kind": "KuryrPort", "metadata": {"name": "bad"},
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
    api.delete("bad", &Default::default()).await?;
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
    Ok(())
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
    for (config, words) in [
        ("[controller]\nbulk = 1\n", "unknown field `bulk`"),
        ("[openstack]\ncloud = \"kuryr\"\n[network]\npod_subnets = [\"nowhere\"]\n", "no such subnet"),
        ("[openstack]\ncloud = \"nebula\"\n", "nebula"),
    ] {
        one_sentence(world, config, None, words).await?;
    }
    Ok(())
}

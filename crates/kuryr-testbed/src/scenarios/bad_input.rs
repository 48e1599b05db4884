//! Wrong input is refused where it is wrong, and nothing else notices.

use crate::world::{NewPod, World};
use anyhow::ensure;
use kube::{
    api::{Api, DynamicObject, PostParams},
    core::{ApiResource, GroupVersionKind},
};
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
    api.delete("bad", &Default::default()).await?;
    Ok(())
}

pub(super) async fn malformed_cni_input_is_refused(world: &mut World) -> anyhow::Result<()> {
    let node = world.nodes[0].clone();
    let socket = world.kuryr.socket(&node);
    let future =
        json!({"cniVersion": "9.0.0", "name": "kuryr", "type": "kuryr-cni", "kuryrSocket": socket}).to_string();
    for (input, code) in [("", 6), ("{", 6), ("[]", 6), (future.as_str(), 1)] {
        let answer = world.cni_raw(&node, "ADD", "c0ffee", "/nowhere", input).await?;
        ensure!(!answer.success && answer.code() == Some(code), "{input:?} was answered with {}", answer.output);
    }
    // And the daemon is as it was.
    world.run_pod(&NewPod::new("good").on(&node), "good").await.map(drop)
}

pub(super) async fn wrong_configuration_ends_with_one_sentence(world: &mut World) -> anyhow::Result<()> {
    for (config, words) in [
        ("[controller]\nbulk = 1\n", "unknown field `bulk`"),
        ("[openstack]\ncloud = \"kuryr\"\n[network]\npod_subnets = [\"nowhere\"]\n", "no such subnet"),
        ("[openstack]\ncloud = \"nebula\"\n", "nebula"),
    ] {
        let (code, output) = world.controller_with(config).await?;
        let lines: Vec<&str> = output.lines().filter(|line| line.starts_with("kuryr: ")).collect();
        ensure!(code == Some(1) && lines.len() == 1, "{config:?} ended with {code:?}: {output}");
        ensure!(lines[0].contains(words) && !output.contains("backtrace"), "{config:?} was answered with {output}");
    }
    Ok(())
}

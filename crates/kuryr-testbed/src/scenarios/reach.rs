//! `kuryr can-reach`: what it says of a running cluster, and of what was written down of one.

use crate::world::{NewPod, World};
use anyhow::{Context, ensure};
use kube::api::ListParams;
use kuryr_openstack::network::PortUpdate;
use serde_json::{Value, json};

/// Asks as an administrator; the exit code and what is said.
async fn ask(world: &World, from: &str, to: &str) -> anyhow::Result<(Option<i32>, String)> {
    world.kuryr.run(vec!["can-reach".to_owned(), from.to_owned(), to.to_owned()]).await
}

pub(super) async fn can_reach_answers_and_says_if_neutron_does_otherwise(world: &mut World) -> anyhow::Result<()> {
    let namespace = world.namespace().to_owned();
    let (web, db) = (format!("{namespace}/web"), format!("{namespace}/db"));
    world.run_pod(&NewPod::new("web"), "web").await?;
    let pod = world.run_pod(&NewPod::new("db"), "db").await?;

    let (code, output) = ask(world, &web, &format!("{db}:5432")).await?;
    ensure!(code == Some(0) && output.starts_with("yes: "), "no policy is in the way: {code:?} {output}");
    ensure!(!output.contains("but now") && !output.contains("was not asked"), "Neutron lets it through: {output}");
    let (code, output) = ask(world, &web, &db).await?;
    ensure!(code == Some(0) && output.contains("TCP all; UDP all; SCTP all"), "at which numbers: {code:?} {output}");

    // Somebody takes the port's groups away.
    let port = world.port_of(&pod).await?;
    let change = |groups| PortUpdate { security_groups: Some(groups), ..PortUpdate::default() };
    let ports = world.cloud.network();
    ports.ports().update(port.id, &change(Vec::new()), None).await?;
    let (code, output) = ask(world, &web, &format!("{db}:5432")).await?;
    let said = format!("but now: Neutron does not let it in yet to pod {db}");
    ensure!(code == Some(1) && output.starts_with("yes: ") && output.contains(&said), "cut off: {code:?} {output}");
    ports.ports().update(port.id, &change(port.security_groups), None).await?;

    let (code, output) = ask(world, &web, &format!("{namespace}/nobody:1")).await?;
    ensure!(code == Some(2) && output.contains("there is no pod"), "nobody: {code:?} {output}");
    from_a_dump(world, &web, &db).await
}

/// What `kubectl get -o json` would print, and a policy that is not applied yet.
async fn from_a_dump(world: &World, web: &str, db: &str) -> anyhow::Result<()> {
    let pods = world.pods().api().list(&ListParams::default()).await?.items;
    let namespace = world.namespace();
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"namespace": namespace, "name": "only-443"},
        "spec": {"podSelector": {}, "ingress": [{"ports": [{"port": 443}]}]},
    });
    let mut items: Vec<Value> = Vec::new();
    for pod in pods {
        let mut item = serde_json::to_value(pod)?;
        (item["apiVersion"], item["kind"]) = ("v1".into(), "Pod".into());
        items.push(item);
    }
    items.push(policy);
    let dump = world.kuryr.settings().folder.join("dump.json");
    std::fs::write(&dump, json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string())?;
    let dump = dump.to_str().context("a path that is no text")?;
    for (number, wanted, begin) in [(443, 0, "yes: "), (5432, 1, "no: ")] {
        let to = format!("{db}:{number}");
        // Without a kubeconfig or credentials.
        let (code, output) = world.kuryr.run_on_node(&["can-reach", web, &to, "--from-files", dump]).await?;
        ensure!(code == Some(wanted) && output.starts_with(begin), "{number} of files: {code:?} {output}");
        ensure!(output.contains("spec.ingress[0]: TCP 443 from everyone"), "{number} of files: {output}");
    }
    let json = ["can-reach", web, db, "--output=json", "--from-files", dump];
    let (code, output) = world.kuryr.run_on_node(&json).await?;
    let answer: Value = serde_json::from_str(&output).with_context(|| output.clone())?;
    let open = json!([{"protocol": "TCP", "first": 443, "last": 443, "answer": "yes"}]);
    ensure!(code == Some(0) && answer["open"] == open, "for programs: {code:?} {output}");
    Ok(())
}

//! What people run to see whether all is well: it must not cry wolf, and not be blind.

use super::connectivity::both_ways;
use crate::world::{NewPod, Services, World};
use anyhow::{Context, ensure};
use kuryr_model::{Mark, Purpose, mark::Base};
use kuryr_openstack::network::{networks::NewNetwork, ports::NewPort, routers::NewRouter, tags::Tagged};

pub(super) async fn a_node_is_audited_and_cleaned_without_credentials(world: &mut World) -> anyhow::Result<()> {
    let node = world.nodes[0].clone();
    let pod = world.run_pod(&NewPod::new("pod").on(&node), "pod").await?;
    let socket = format!("--daemon-socket={}", world.kuryr.socket(&node).display());
    let audit = ["audit", "--node-only", "--settle=0", "--output=json", &*socket];
    let (code, output) = world.kuryr.run_on_node(&audit).await?;
    ensure!(code == Some(0), "a node in order: {code:?} {output}");

    // The daemon forgets the pod, and its link is anybody's.
    let file = world.attachment(&pod)?.id;
    let file = format!("{}@{}.json", file.container_id, file.ifname);
    world.kuryr.kill_daemon(&node).await?;
    std::fs::remove_file(world.kuryr.state_dir(&node).join("attachments").join(file))?;
    world.kuryr.start_daemon(&node).await?;
    let (code, found) = world.kuryr.run_on_node(&audit).await?;
    ensure!(code == Some(1) && found.contains("\"stray\""), "a forgotten pod: {code:?} {found}");

    // The whole audit has the report of the node, and asks the node itself: what both find is one finding.
    let report = world.kuryr.settings().folder.join("node-report.json");
    std::fs::write(&report, &found)?;
    let whole = ["audit", "--settle=0", &*socket, &*format!("--node-report={}", report.display())];
    let (code, output) = world.kuryr.run(whole.map(str::to_owned).to_vec()).await?;
    let strays = found.matches("\"stray\"").count();
    ensure!(code == Some(1) && output.matches("stray ").count() == strays, "told twice, or not: {code:?} {output}");

    let (code, output) = world.kuryr.run_on_node(&[&audit[..], &["--fix"]].concat()).await?;
    ensure!(code == Some(0) && output.contains("\"fixed\": true"), "--fix: {code:?} {output}");
    let (code, output) = world.kuryr.run_on_node(&audit).await?;
    ensure!(code == Some(0), "after --fix: {code:?} {output}");
    Ok(())
}

pub(super) async fn what_setup_left_behind_is_listed_and_goes_if_nothing_uses_it(
    world: &mut World,
) -> anyhow::Result<()> {
    // An audit in the midst of that would list what is still to be made.
    Services::new(&world.client, "default").ready("kubernetes", 1).await?;
    let network = world.cloud.network();
    let mark = Mark { cluster: world.cluster.clone(), purpose: Purpose::Base(Base::Pods) };
    let new = NewNetwork { name: "earlier".to_owned(), description: String::new(), mtu: None, external: false };
    let earlier = network.networks().create(&new).await?.id;
    let router = NewRouter { name: "earlier".to_owned(), ..NewRouter::default() };
    let router = network.routers().create(&router).await?.id;
    for object in [Tagged::Network(earlier), Tagged::Router(router)] {
        for tag in mark.tags() {
            network.tags().add(object, &tag).await?;
        }
    }
    // With a stranger's port, the network stays.
    let port = network.ports().create(&NewPort { name: "stranger".to_owned(), ..NewPort::new(earlier) }).await?.id;
    let audit = async |fix: &[&str]| {
        let args = ["audit", "--settle=0"].iter().chain(fix).map(ToString::to_string).collect();
        world.kuryr.run(args).await
    };
    let (code, output) = audit(&["--fix"]).await?;
    let listed = |what: &str| output.contains(&format!("stray     {what}"));
    ensure!(
        code == Some(1) && listed(&format!("network {earlier}")) && listed(&format!("router {router}")),
        "{code:?}\n{output}"
    );
    ensure!(output.ends_with("2 found, 1 fixed\n"), "not the router alone was deleted:\n{output}");
    network.ports().delete(port).await?;
    let (code, output) = audit(&["--fix"]).await?;
    ensure!(code == Some(0) && output.ends_with("1 found, 1 fixed\n"), "{code:?}\n{output}");
    // What is in use was not touched.
    let (code, output) = audit(&[]).await?;
    ensure!(code == Some(0), "{code:?}\n{output}");
    world.run_pod(&NewPod::new("pod").on(&world.nodes[0]), "pod").await.map(drop)
}

pub(super) async fn an_audit_that_cannot_look_does_not_say_that_something_is_wrong(
    world: &mut World,
) -> anyhow::Result<()> {
    let nowhere = world.kuryr.settings().folder.join("nowhere.sock");
    let socket = format!("--daemon-socket={}", nowhere.display());
    for args in [vec!["audit", "--node-only", &*socket], vec!["audit", "--kubeconfig=/nowhere"]] {
        let (code, output) = world.kuryr.run_on_node(&args).await?;
        ensure!(code == Some(2), "{args:?} ended with {code:?}: {output}");
        let said = output.lines().find(|line| line.starts_with("kuryr: ")).context("it says nothing")?;
        ensure!(said.contains("nowhere"), "it does not say where: {said}");
    }
    Ok(())
}

pub(super) async fn the_status_names_what_does_not_work_and_nothing_else(world: &mut World) -> anyhow::Result<()> {
    let pod = NewPod::new("pod").on(&world.nodes[0]);
    world.run_pod(&pod, "pod").await?;
    let (code, output) = status(world).await?;
    ensure!(code == Some(0), "all is well: {code:?}\n{output}");

    let node = world.nodes[1].clone();
    world.kuryr.kill_daemon(&node).await?;
    let (code, output) = status(world).await?;
    ensure!(code == Some(1) && faults(&output) == [format!("daemon {node}")], "no daemon: {code:?}\n{output}");
    world.kuryr.start_daemon(&node).await?;

    world.kuryr.kill_controllers().await?;
    let (code, output) = status(world).await?;
    ensure!(code == Some(1) && faults(&output) == ["controller"], "no controller: {code:?}\n{output}");
    world.kuryr.start_controller().await?;
    world.leader_elected().await?;
    let (code, output) = status(world).await?;
    ensure!(code == Some(0), "all is well again: {code:?}\n{output}");
    Ok(())
}

async fn status(world: &World) -> anyhow::Result<(Option<i32>, String)> {
    world.kuryr.run(vec!["status".to_owned()]).await
}

/// What a status says that does not work.
fn faults(output: &str) -> Vec<String> {
    let wrong = output.lines().filter_map(|line| line.trim_start().strip_prefix("✗ "));
    wrong.map(|line| line.split("  ").next().unwrap_or(line).trim().to_owned()).collect()
}

pub(super) async fn secrets_stay_out_of_logs_that_tell_everything(world: &mut World) -> anyhow::Result<()> {
    let node = world.nodes[0].clone();
    world.kuryr.log_everything();
    world.kuryr.kill_controllers().await?;
    world.kuryr.kill_daemon(&node).await?;
    world.kuryr.start_controller().await?;
    world.kuryr.start_daemon(&node).await?;
    let one = world.run_pod(&NewPod::new("one").on(&node), "one").await?;
    // Logging in again, and a password that is refused: what errors show.
    world.inside()?.cloud.expire_tokens();
    let other = world.run_pod(&NewPod::new("other").on(&node), "other").await?;
    both_ways(world, &one, &other).await?;
    let clouds = std::fs::read_to_string(world.inside()?.folder().join("clouds.yaml"))?;
    let password = world.inside()?.cloud.config().password.clone();
    let wrong = format!("{password}-wrong");
    let settings = "[openstack]\ncloud = \"kuryr\"\n";
    let (code, output) = world.controller_with(settings, Some(&clouds.replace(&password, &wrong))).await?;
    ensure!(code == Some(1) && !output.contains(&password), "a wrong password: {code:?}\n{output}");
    // The logs are searched when the world ends, after every scenario. These must be worth that.
    let logs = std::fs::read_dir(world.inside()?.folder())?.flatten().map(|entry| entry.path());
    let logs = logs.filter(|path| path.extension().is_some_and(|end| end == "log"));
    let talkative = logs.filter(|log| std::fs::read_to_string(log).is_ok_and(|text| text.contains("TRACE")));
    ensure!(talkative.count() >= 2, "the logs do not tell everything");
    Ok(())
}

//! The self-test: it must pass where security groups hold, fail where they do not, and leave nothing behind.

use crate::world::{Flaw, World};
use anyhow::{Context, ensure};
use kuryr_openstack::Filter;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Runs the test on the first node; its exit code and what it says.
async fn verify(world: &World, more: &[&str]) -> anyhow::Result<(Option<i32>, String)> {
    let node = world.nodes.first().context("no node")?;
    let host = format!("--host={node}");
    world.kuryr.run_at(node, &[&["setup", "--verify", &host], more].concat()).await
}

/// What carries the name of the test.
async fn left(world: &World) -> anyhow::Result<(usize, usize)> {
    let network = world.cloud.network();
    let name = format!("kuryr-verify {} {}", world.cluster, world.nodes.first().context("no node")?);
    let by_name = Filter::new().with("name", name);
    let (ports, groups) = (network.ports().list(&by_name).await?, network.security_groups().list(&by_name).await?);
    Ok((ports.len(), groups.len()))
}

pub(super) async fn every_kind_of_rule_is_proven_to_be_enforced(world: &mut World) -> anyhow::Result<()> {
    // Both families where that takes no more than a moment.
    if world.inside().is_ok() {
        world.set_up_ipv6().await?;
    }
    let (code, output) = verify(world, &[]).await?;
    ensure!(code == Some(0), "it ended with {code:?}: {output}");
    let proven = output.lines().filter(|line| line.starts_with("✓ ")).count();
    ensure!(proven == 10 && !output.contains('✗'), "{proven} lines: {output}");
    ensure!(output.contains("address groups: accepted and NOT enforced here"), "Zed's address groups: {output}");
    ensure!(left(world).await? == (0, 0), "something is left: {:?}", left(world).await?);
    Ok(())
}

pub(super) async fn a_cloud_that_does_not_enforce_a_kind_of_rule_does_not_pass(
    world: &mut World,
) -> anyhow::Result<()> {
    for (flaw, line, means) in [
        (Flaw::Everything, "a port without rules lets nothing in", "is port security on for the pod network"),
        (Flaw::Members, "a rule for the members of a group lets in those and nobody else", "about pods do not hold"),
        (Flaw::Numbers, "a range of port numbers lets in just that", "with ipBlock or ports do not hold"),
        (Flaw::Egress, "a port without rules lets nothing out", "may connect to everyone"),
    ] {
        world.inside()?.spoil(flaw);
        let (code, output) = verify(world, &["--patience=3"]).await?;
        ensure!(code == Some(1), "{flaw:?}: it ended with {code:?}: {output}");
        let failed = output.lines().find(|found| found.starts_with("✗ ") && found.contains(line));
        ensure!(failed.is_some() && output.contains(means), "{flaw:?} is not named: {output}");
        ensure!(left(world).await? == (0, 0), "{flaw:?}: something is left: {:?}", left(world).await?);
    }
    world.inside()?.spoil(Flaw::None);
    Ok(())
}

pub(super) async fn what_a_run_that_was_killed_has_left_is_removed_by_the_next(
    world: &mut World,
) -> anyhow::Result<()> {
    {
        let running = verify(world, &[]);
        let made = async {
            let started = Instant::now();
            while left(world).await?.0 < 3 {
                ensure!(started.elapsed() < Duration::from_secs(30), "the test makes no ports");
                sleep(Duration::from_millis(50)).await;
            }
            Ok(())
        };
        tokio::select! {
            ended = running => anyhow::bail!("it ended before it was killed: {ended:?}"),
            made = made => made?,
        }
    }
    ensure!(left(world).await?.0 == 3, "nothing is left of a run that was killed");
    let (code, output) = verify(world, &[]).await?;
    ensure!(code == Some(0), "after one that was killed: {code:?}: {output}");
    ensure!(left(world).await? == (0, 0), "something is left: {:?}", left(world).await?);
    Ok(())
}

//! Runs scenarios as a test suite.

use super::{ALL, Beside, Scenario, Worlds};
use crate::world::{EmbeddedConfig, RealConfig, World};
use anyhow::Context;
use libtest_mimic::{Failed, Trial};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread::available_parallelism,
    time::Duration,
};
use tokio::{
    runtime::Runtime,
    time::{Instant, timeout},
};

/// How long a scenario may take, its world included.
const LONGEST: Duration = Duration::from_secs(300);

/// Which world the scenarios run in.
#[derive(Clone, Debug)]
enum Place {
    /// A fresh embedded one for each.
    Embedded(EmbeddedConfig),
    /// One real one for all.
    Real(RealConfig),
}

/// The scenarios of the embedded world as tests for libtest-mimic, in this process. One at a time has the whole world.
#[must_use]
pub fn trials(config: &EmbeddedConfig) -> Vec<Trial> {
    let trial = |scenario: &Scenario| {
        let (scenario, place) = (*scenario, Place::Embedded(config.clone()));
        Trial::test(scenario.name, move || alone(&scenario, &place))
    };
    ALL.iter().filter(|scenario| scenario.worlds != Worlds::Real).map(trial).collect()
}

/// The same of those of the real world that suffer nobody but these beside them.
pub(super) fn trials_alone(config: &RealConfig, beside: Beside) -> Vec<Trial> {
    let trial = |scenario: &Scenario| {
        let (scenario, place) = (*scenario, Place::Real(config.clone()));
        Trial::test(scenario.name, move || alone(&scenario, &place))
    };
    let wanted = |scenario: &&Scenario| scenario.worlds != Worlds::Embedded && scenario.beside == beside;
    ALL.iter().filter(wanted).map(trial).collect()
}

/// Tells it in a runtime of its own, with a world of its own.
fn alone(scenario: &Scenario, place: &Place) -> Result<(), Failed> {
    in_time(LONGEST, tell(scenario, place))
}

/// Runs a future in a runtime of its own, for no longer than this.
pub(super) fn in_time(longest: Duration, told: impl Future<Output = anyhow::Result<()>>) -> Result<(), Failed> {
    let runtime = Runtime::new().map_err(|error| Failed::from(error.to_string()))?;
    let told = runtime.block_on(async { timeout(longest, told).await });
    runtime.shutdown_timeout(Duration::from_secs(5));
    match told {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("{error:#}").into()),
        Err(_) => Err(format!("not at its end after {longest:?}").into()),
    }
}

/// The scenarios of the embedded world as tests, each in a process and so in namespaces of its own: `kuryr-testbed scenarios NAME
/// --exact`.
#[must_use]
pub fn trials_apart(testbed: &Path) -> Vec<Trial> {
    let trial = |scenario: &Scenario| {
        let (name, testbed) = (scenario.name, PathBuf::from(testbed));
        Trial::test(name, move || {
            let child = Command::new(&testbed).args(["scenarios", name, "--exact"]).stdin(Stdio::null()).output();
            let output = child.map_err(|error| format!("{} does not start: {error}", testbed.display()))?;
            if output.status.success() {
                return Ok(());
            }
            let told = [output.stdout, output.stderr].map(|told| String::from_utf8_lossy(&told).into_owned());
            Err(format!("{}\n{}", output.status, told.concat()).into())
        })
    };
    ALL.iter().filter(|scenario| scenario.worlds != Worlds::Real).map(trial).collect()
}

/// How many of those run at a time: a scenario waits far more than it computes. With more, a controller is late for its lease of
/// seconds when several crowds of pods come at once.
#[must_use]
pub fn at_a_time() -> usize {
    3 * available_parallelism().map_or(1, usize::from)
}

async fn tell(scenario: &Scenario, place: &Place) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut world = match place {
        Place::Embedded(config) => World::embedded(config.clone()).await,
        Place::Real(config) => World::real(config.clone()).await,
    }
    .context("the world did not start")?;
    let started = begun.elapsed();
    world.use_namespace(&scenario.name.replace('_', "-")).await?;
    let story = (scenario.story)(&mut world).await;
    let end = match &story {
        Ok(()) => world.end_scenario().await.context("after the story"),
        Err(_) => Ok(()),
    };
    let told = story.and(end);
    let logs = if told.is_err() { world.logs() } else { String::new() };
    if let (Err(_), Place::Real(_)) = (&told, place) {
        // The next scenario has the same world: it should not pay for this one.
        if let Err(error) = world.end_scenario().await {
            tracing::warn!(scenario = scenario.name, error = %format!("{error:#}"), "something is left after it failed");
        }
    }
    tracing::info!(scenario = scenario.name, ?started, took = ?begun.elapsed(), "told");
    let down = world.shut_down().await.context("the world did not end");
    told.map_err(|error| anyhow::anyhow!("{error:#}\n{logs}")).and(down)
}

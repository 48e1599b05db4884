//! Scenarios of the real world that are told beside each other: one Kuryr serves all of them, as it serves the namespaces of any cluster.
//!
//! ```text
//!   tell_in_real_world ─▶ those that suffer nobody, one after the other, each with processes of Kuryr of its own
//!                      ─▶ those that suffer others, several at a time ─▶ one audit after all of them
//!                      ─▶ those with virtual machines, as the first
//! ```

use super::{
    ALL, Beside, Scenario, Worlds,
    run::{in_time, trials_alone},
};
use crate::world::{RealConfig, World};
use anyhow::Context;
use libtest_mimic::{Arguments, Trial};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{runtime::Runtime, time::Instant};

/// How many are told at a time: they wait for Neutron, Octavia and the kubelet more than any of these computes.
const AT_A_TIME: usize = 4;

/// How long one may take: each has a part of the machine only.
const LONGEST: Duration = Duration::from_secs(600);

/// What is told after them.
const END: &str = "nothing_is_left_of_scenarios_told_beside_each_other";

/// Kuryr in the real world, as long as there are scenarios that share it.
struct Shared {
    config: RealConfig,
    running: Mutex<Option<Running>>,
}

struct Running {
    /// Its processes belong to it, while each scenario has a runtime of its own.
    runtime: Runtime,
    world: World,
}

/// Tells all scenarios of the real world that the arguments name. Whether all hold.
#[must_use]
pub fn tell_in_real_world(arguments: &Arguments, config: &RealConfig) -> bool {
    let mut held = true;
    let mut tell = |at_a_time, filter: Option<String>, trials: Vec<Trial>| {
        let arguments = Arguments { test_threads: Some(at_a_time), filter, ..arguments.clone() };
        held &= !libtest_mimic::run(&arguments, trials).has_failed();
    };
    tell(1, arguments.filter.clone(), trials_alone(config, Beside::Nobody));
    let shared = Arc::new(Shared { config: config.clone(), running: Mutex::default() });
    tell(AT_A_TIME, arguments.filter.clone(), shared.trials());
    if let Some(running) = shared.take() {
        let end = move || {
            let Running { runtime, world } = running;
            let clean = runtime.block_on(world.end_scenario()).context("after all of them");
            let down = runtime.block_on(world.shut_down()).context("the world did not end");
            clean.and(down).map_err(|error| format!("{error:#}").into())
        };
        tell(1, None, vec![Trial::test(END, end)]);
    }
    tell(1, arguments.filter.clone(), trials_alone(config, Beside::Machines));
    held
}

impl Shared {
    fn trials(self: &Arc<Self>) -> Vec<Trial> {
        let wanted = |scenario: &&Scenario| scenario.worlds != Worlds::Embedded && scenario.beside == Beside::Others;
        let trial = |scenario: &Scenario| {
            let (scenario, shared) = (*scenario, Arc::clone(self));
            Trial::test(scenario.name, move || {
                shared.start().map_err(|error| format!("Kuryr does not start: {error:#}"))?;
                in_time(LONGEST, tell(&scenario, &shared.config))
            })
        };
        let all: Vec<&Scenario> = ALL.iter().filter(wanted).collect();
        // Neighbours of the list strain the same thing: some Octavia, some the security groups.
        let (first, second) = all.split_at(all.len() / 2);
        let mixed = second.iter().zip(first.iter().map(Some).chain([None])).flat_map(|(one, other)| [Some(one), other]);
        mixed.flatten().map(|scenario| trial(scenario)).collect()
    }

    /// Starts Kuryr unless it runs.
    fn start(&self) -> anyhow::Result<()> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.is_none() {
            let runtime = Runtime::new()?;
            let world = runtime.block_on(World::real(self.config.clone()))?;
            *running = Some(Running { runtime, world });
        }
        Ok(())
    }

    fn take(&self) -> Option<Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Tells one in a world that it does not end.
async fn tell(scenario: &Scenario, config: &RealConfig) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut world = World::real_beside_others(config.clone()).await.context("the world is not there")?;
    world.use_namespace(&scenario.name.replace('_', "-")).await?;
    let story = (scenario.story)(&mut world).await;
    let logs = if story.is_err() { world.logs() } else { String::new() };
    let end = world.clear_away().await.context("after the story");
    tracing::info!(scenario = scenario.name, took = ?begun.elapsed(), "told");
    let down = world.shut_down().await.context("the world did not end");
    story.map_err(|error| anyhow::anyhow!("{error:#}\n{logs}")).and(end).and(down)
}

//! Runs scenarios as a test suite.

use super::{ALL, Scenario, Worlds};
use crate::world::{EmbeddedConfig, RealConfig, World};
use anyhow::Context;
use libtest_mimic::{Failed, Trial};
use std::{
    sync::{Arc, PoisonError},
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
pub enum Place {
    /// A fresh embedded one for each.
    Embedded(EmbeddedConfig),
    /// One real one for all.
    Real(RealConfig),
}

/// The scenarios as tests for libtest-mimic.
#[must_use]
pub fn trials(place: &Place) -> Vec<Trial> {
    let wanted = |scenario: &&Scenario| match place {
        Place::Embedded(_) => scenario.worlds != Worlds::Real,
        Place::Real(_) => scenario.worlds != Worlds::Embedded,
    };
    // One scenario at a time has the whole world.
    let alone = Arc::new(std::sync::Mutex::new(()));
    let trial = |scenario: &Scenario| {
        let (scenario, place, alone) = (*scenario, place.clone(), alone.clone());
        Trial::test(scenario.name, move || {
            let _alone = alone.lock().unwrap_or_else(PoisonError::into_inner);
            let runtime = Runtime::new().map_err(|error| Failed::from(error.to_string()))?;
            let told = runtime.block_on(async { timeout(LONGEST, tell(&scenario, &place)).await });
            runtime.shutdown_timeout(Duration::from_secs(5));
            match told {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(format!("{error:#}").into()),
                Err(_) => Err(format!("not at its end after {LONGEST:?}").into()),
            }
        })
    };
    ALL.iter().filter(wanted).map(trial).collect()
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

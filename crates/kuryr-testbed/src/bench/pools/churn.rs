//! Pods that come and go.

use super::{
    GROUP,
    ground::{BULK, Ground, Kind, REQUESTS},
    neutron::Own,
};
use crate::bench::{
    figure::{Budget, Figure, Unit},
    lab::{self, NAMESPACE, Scale},
};
use anyhow::Context;
use futures::{StreamExt, TryStreamExt, future::try_join_all, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::DeleteParams};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// How long each pod lives that comes at a rate.
const LIFE: Duration = Duration::from_secs(5);

/// Pods of the other kind, and how many of them are there at once: more than Neutron has under way.
const MANY: usize = 300;
const AT_ONCE: usize = BULK * REQUESTS * 3 / 2;
/// Neutron's own rate is that of so many.
const OWN: usize = 200;

pub(super) async fn measure(scale: &Scale, kind: Kind, own: &Own) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let rates: &[u32] = match kind {
        Kind::Bare => &[1, 5, 20],
        // One trunk takes some six subports in a second.
        Kind::Nested => &[5],
    };
    for rate in rates {
        let ground = Ground::with(scale, kind, "cooldown = \"2s\"").await?;
        let measured = at(&ground, scale, kind, *rate).await;
        ground.shut_down().await?;
        figures.push(measured?);
    }
    // What is given back stays out of use for longer than this takes, so every pod needs a port that is not there yet.
    let ground = Ground::with(scale, kind, "floor = 0\nceiling = 0\ncooldown = \"1h\"").await?;
    let measured = sustained(&ground, kind, own).await;
    ground.shut_down().await?;
    figures.push(measured?);
    Ok(figures)
}

/// Pods that come at a rate and live for a while, with pools of the usual settings.
async fn at(ground: &Ground, scale: &Scale, kind: Kind, rate: u32) -> anyhow::Result<Figure> {
    ground.ready(2).await?;
    let client = &ground.world.client;
    let filled = lab::ports_filled(client);
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let count = rate as usize * if scale.quick { 10 } else { 20 };
    let names = lab::names("churn", count);
    let started = Instant::now();
    let lives = names.iter().enumerate().map(|(n, name)| {
        let (pods, filled, node) = (&pods, &filled, &ground.node);
        async move {
            let due = Duration::from_secs(1) * u32::try_from(n)? / rate;
            sleep(due.saturating_sub(started.elapsed())).await;
            let (asked, _) = lab::bound_pod(client, name, node).await?;
            let waited = lab::ms(asked, filled.when(name).await?);
            sleep(LIFE).await;
            pods.delete(name, &DeleteParams::default().grace_period(0)).await?;
            anyhow::Ok(waited)
        }
    });
    let waited = try_join_all(lives).await?;
    let pool = ground.pool().await?.context("no pool")?;
    let share = 100 * pool.view.hits / (pool.view.hits + pool.view.misses).max(1);
    Ok(Figure::new(
        GROUP,
        format!("{rate} {}pods/s for {count} pods, each lives {LIFE:?}: bound -> KuryrPort", kind.word()),
        Unit::Milliseconds,
        waited,
    )
    .calls(format!("{share} % hits: {} hits, {} misses", pool.view.hits, pool.view.misses))
    .note("one node; a pool that begins with two ports and learns what is asked for; cooldown 2 s instead of 30 s"))
}

/// Pods that go as soon as they have their ports, so many at once that Neutron never waits for them.
async fn sustained(ground: &Ground, kind: Kind, own: &Own) -> anyhow::Result<Figure> {
    let client = &ground.world.client;
    let filled = lab::ports_filled(client);
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let names = lab::names("churn", MANY);
    ground.reset()?;
    let mut times: Vec<Instant> = stream::iter(&names)
        .map(|name| {
            let (pods, filled) = (&pods, &filled);
            async move {
                lab::bound_pod(client, name, &ground.node).await?;
                let there = filled.when(name).await?;
                pods.delete(name, &DeleteParams::default().grace_period(0)).await?;
                anyhow::Ok(there)
            }
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    // From the first answers until there are no more pods to keep Neutron busy.
    times.sort_unstable();
    let (from, to) = (BULK, MANY - AT_ONCE);
    let took = lab::ms(times[from - 1], times[to - 1]) / 1000.0;
    #[expect(clippy::cast_precision_loss)]
    let (rate, own_rate) = ((to - from) as f64 / took, OWN as f64 / own.seconds(OWN)?);
    Ok(Figure::new(
        GROUP,
        format!("churn of {}pods with an empty pool: port rate of Neutron's own", kind.word()),
        Unit::Percent,
        vec![100.0 * rate / own_rate],
    )
    .budget(Budget::least(90.0))
    .calls(ground.made()?)
    .note(format!(
        "{MANY} pods, {AT_ONCE} at a time, each deleted when it has its KuryrPort: {rate:.1} ports/s, where Neutron itself, asked in the \
         same run with {REQUESTS} requests of {BULK} at once and for nothing else, makes {own_rate:.1}/s; what is given back is not used again"
    )))
}

//! Pods that are bound at once, and no port is there for them.

use super::{
    GROUP,
    ground::{BULK, Ground, Kind, REQUESTS, seconds},
    neutron::Own,
};
use crate::bench::{
    figure::{Budget, Figure, Unit},
    lab::{self, Scale},
};

/// What it may take beside Neutron's own time, in seconds.
const OURS: f64 = 2.0;

/// First pods of an empty pool.
const FIRST: usize = 5;

pub(super) async fn measure(scale: &Scale, kind: Kind, own: &Own) -> anyhow::Result<Vec<Figure>> {
    let mut figures = vec![first(scale, kind, own).await?];
    let without = Ground::with(scale, kind, "enabled = false").await?;
    let measured = without_pools(&without, kind, own).await;
    without.shut_down().await?;
    figures.extend(measured?);
    let usual = Ground::with(scale, kind, "").await?;
    let measured = two_spare(&usual, kind, own).await;
    usual.shut_down().await?;
    figures.push(measured?);
    Ok(figures)
}

/// Pods that come one by one, and each finds the pool empty.
async fn first(scale: &Scale, kind: Kind, own: &Own) -> anyhow::Result<Figure> {
    let ground = Ground::with(scale, kind, super::ground::AS_FILLED).await?;
    let measured = async {
        let filled = lab::ports_filled(&ground.world.client);
        let mut samples = Vec::new();
        for name in lab::names("first", scale.samples(FIRST)) {
            samples.push(ground.burst(&filled, &[name]).await?);
        }
        anyhow::Ok(samples)
    }
    .await;
    ground.shut_down().await?;
    let own = own.seconds(1)?;
    let figure =
        seconds(format!("first {}pod on an empty pool: bound -> KuryrPort", kind.word()), measured?, own + OURS);
    Ok(match kind {
        Kind::Bare => figure.note(format!("Neutron's own time is {own:.2} s; the budget is that and 2 s")),
        Kind::Nested => figure.original("50 s to Running").note(format!(
            "Neutron's own time for a port and a subport is {own:.2} s; the budget is that and 2 s; the first pod of all waits until \
             the machine's port and trunk are found, too"
        )),
    })
}

async fn without_pools(ground: &Ground, kind: Kind, own: &Own) -> anyhow::Result<Vec<Figure>> {
    let filled = lab::ports_filled(&ground.world.client);
    let mut figures = Vec::new();
    for count in [50, 200] {
        ground.reset()?;
        let last = ground.burst(&filled, &lab::names(&format!("burst{count}"), count)).await?;
        figures.push(row(kind, count, "without pools", last, ground, own)?);
        if count == 200 {
            let what = format!("{count} {}pods at once, without pools: port rate of Neutron's own", kind.word());
            figures.push(
                Figure::new(GROUP, what, Unit::Percent, vec![100.0 * own.seconds(count)? / last])
                    .budget(Budget::least(90.0))
                    .note("Neutron is asked for as many ports, in as many requests at once, by nobody else and without Kubernetes"),
            );
        }
    }
    Ok(figures)
}

async fn two_spare(ground: &Ground, kind: Kind, own: &Own) -> anyhow::Result<Figure> {
    ground.ready(2).await?;
    let filled = lab::ports_filled(&ground.world.client);
    ground.reset()?;
    let last = ground.burst(&filled, &lab::names("burst", 50)).await?;
    row(kind, 50, "two spare ports", last, ground, own)
}

fn row(kind: Kind, count: usize, with: &str, last: f64, ground: &Ground, own: &Own) -> anyhow::Result<Figure> {
    let own = own.seconds(count)?;
    let what = format!("{count} {}pods bound at once -> last KuryrPort, {with}", kind.word());
    let original = match (kind, count) {
        (Kind::Bare, 50) => "104 s with pools, to Running",
        (Kind::Nested, 50) => "118 s with pools, to Running",
        _ => "",
    };
    Ok(seconds(what, vec![last], own + OURS).calls(ground.made()?).original(original).note(format!(
        "Neutron's own time, measured in the same run with {REQUESTS} requests of {BULK} at once: {own:.1} s; the budget is that and 2 s"
    )))
}

//! A spare port is there for each pod.

use super::{
    GROUP,
    ground::{AS_FILLED, Ground, Kind, seconds},
};
use crate::bench::{
    figure::{Budget, Figure, Unit},
    lab::{self, Scale},
    seen::Seen,
};

/// Pods that are bound at once.
const BURSTS: [usize; 2] = [50, 200];

/// Pods for which ports are made on another node, and those that come meanwhile.
const CROWD: usize = 100;
const MEANWHILE: usize = 20;

/// What all of them are plugged within is the budget; here they have their ports.
const MOST: f64 = 2.0;

pub(super) async fn measure(scale: &Scale, kind: Kind) -> anyhow::Result<Vec<Figure>> {
    let ground = Ground::with(scale, kind, AS_FILLED).await?;
    let measured = on(&ground, scale, kind).await;
    ground.shut_down().await?;
    measured
}

async fn on(ground: &Ground, scale: &Scale, kind: Kind) -> anyhow::Result<Vec<Figure>> {
    let pods = scale.samples(100);
    ground.fill(pods + BURSTS.iter().sum::<usize>() + MEANWHILE).await?;
    let filled = lab::ports_filled(&ground.world.client);
    let word = kind.word();
    ground.reset()?;
    let mut single = Vec::new();
    for name in lab::names("single", pods) {
        let (asked, _) = lab::bound_pod(&ground.world.client, &name, &ground.node).await?;
        single.push(lab::ms(asked, filled.when(&name).await?));
    }
    let (neutron, writes) = ground.asked()?;
    #[expect(clippy::cast_precision_loss)]
    let count = |what: &str, count: usize, most: usize| {
        Figure::new(GROUP, format!("{pods} {word}pods, pool hits: {what}"), Unit::Calls, vec![count as f64])
            .budget(Budget::most(most as f64))
    };
    let mut figures = vec![
        Figure::new(GROUP, format!("{word}pod bound -> KuryrPort written, pool hit"), Unit::Milliseconds, single)
            .budget(Budget::of(10.0, 50.0))
            .calls(format!("{neutron} Neutron, {writes} K8s for {pods} pods"))
            .original("1600 ms")
            .note(
                "from before the request that makes the bound pod until our own watch shows the KuryrPort; one pod at a time; the \
                 pool was filled by `kuryr pools fill` and is not filled up meanwhile",
            ),
        count("Neutron calls", neutron, 0).original("4 for each"),
        count("controller's Kubernetes writes", usize::try_from(writes)?, pods).original("11 for each"),
    ];
    figures.insert(1, meanwhile(ground, &filled, word).await?);
    for count in BURSTS {
        let names = lab::names(&format!("burst{count}"), count);
        ground.reset()?;
        let last = ground.burst(&filled, &names).await?;
        let (neutron, writes) = ground.asked()?;
        let figure =
            seconds(format!("{count} {word}pods bound at once -> last KuryrPort, warm pool"), vec![last], MOST);
        figures.push(figure.calls(format!("{neutron} Neutron, {writes} K8s")));
    }
    Ok(figures)
}

/// Ports are made for pods of another node, and every request that the controller makes at once is taken.
async fn meanwhile(ground: &Ground, filled: &Seen, word: &str) -> anyhow::Result<Figure> {
    let client = &ground.world.client;
    let crowd = lab::names("crowd", CROWD);
    lab::bound_pods(client, &crowd, &ground.other).await?;
    ground.world.inside()?.cloud.calls().reset();
    // Neutron works on them from the first answer on, if not before.
    filled.when(&crowd[0]).await?;
    let mut samples = Vec::new();
    for name in lab::names("meanwhile", MEANWHILE) {
        let (asked, _) = lab::bound_pod(client, &name, &ground.node).await?;
        samples.push(lab::ms(asked, filled.when(&name).await?));
    }
    let made = ground.made()?;
    for name in &crowd {
        filled.when(name).await?;
    }
    let what = format!(
        "{word}pod bound -> KuryrPort written, pool hit, while ports are made for {CROWD} pods of another node"
    );
    Ok(Figure::new(GROUP, what, Unit::Milliseconds, samples).budget(Budget::of(10.0, 50.0)).calls(made))
}

//! What the rows of this group have in common: a node without kubelet whose pools can be filled.

use crate::{
    bench::{
        figure::{Budget, Figure, Unit},
        lab::{self, Scale},
        seen::Seen,
    },
    cloud::{Latency, Service},
    world::{EmbeddedConfig, KnownBy, PROVIDER, World},
};
use anyhow::{Context, bail, ensure};
use kuryr_controller::PoolRow;
use kuryr_model::TrunkId;
use std::{
    fs,
    time::{Duration, Instant},
};
use tokio::time::sleep;

/// The most ports in a request, and requests at once, that the controller has by default.
pub(super) const BULK: usize = 20;
pub(super) const REQUESTS: usize = 2;

/// How long pools may take to be filled.
const PATIENCE: Duration = Duration::from_secs(180);

/// A pool that has only what it is filled with.
pub(super) const AS_FILLED: &str = "floor = 0\nceiling = 0";

/// What the node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Its pods have ports of their own.
    Bare,
    /// A virtual machine: its pods are subports of a trunk.
    Nested,
}

impl Kind {
    /// For people: before the word "pod".
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Bare => "",
            Self::Nested => "nested ",
        }
    }
}

/// A Neutron as slow as a real one.
pub(super) fn latency() -> Latency {
    let (create, create_item) = (Duration::from_millis(50), Duration::from_millis(150));
    Latency { create, create_item, ..Latency::measured() }
}

/// A world whose pods are bound to one node, on which nothing starts them, or to another one of bare metal.
pub(super) struct Ground {
    pub(super) world: World,
    pub(super) node: String,
    pub(super) other: String,
    pub(super) trunk: Option<TrunkId>,
}

impl Ground {
    /// One without a controller.
    pub(super) async fn new(scale: &Scale, kind: Kind) -> anyhow::Result<Self> {
        let config = EmbeddedConfig { latency: latency(), nodes: 2, ..EmbeddedConfig::new(&scale.netns) };
        let mut world = lab::world_of(config).await?;
        let (node, trunk) = match kind {
            Kind::Bare => (world.nodes[0].clone(), None),
            Kind::Nested => {
                let machine = world.add_machine("vm", KnownBy::Address).await?;
                (machine.name, Some(machine.trunk))
            }
        };
        let other = world.nodes[1].clone();
        Ok(Self { world, node, other, trunk })
    }

    /// One whose controller has these settings of `[pools]`.
    pub(super) async fn with(scale: &Scale, kind: Kind, pools: &str) -> anyhow::Result<Self> {
        let mut ground = Self::new(scale, kind).await?;
        start(&mut ground.world, pools).await?;
        for host in ground.world.nodes.clone() {
            ground.world.inside_mut()?.burn_down(&host).await?;
        }
        Ok(ground)
    }

    pub(super) async fn shut_down(self) -> anyhow::Result<()> {
        self.world.shut_down().await
    }

    /// The node's pool; none where its node has none.
    pub(super) async fn pool(&self) -> anyhow::Result<Option<PoolRow>> {
        let report = self.world.kuryr.pools().await?;
        let trunk = self.trunk.map(|trunk| trunk.to_string());
        let ours = |row: &PoolRow| match &trunk {
            Some(trunk) => row.place.contains(trunk) || row.place == self.node,
            None => row.place == self.node,
        };
        Ok(report.and_then(|report| report.pools.into_iter().find(ours)))
    }

    /// Has so many ports ready, and nothing made in the place of those that are taken then.
    pub(super) async fn fill(&self, count: usize) -> anyhow::Result<()> {
        order(&self.world, &self.node, count).await?;
        self.ready(count).await?;
        order(&self.world, &self.node, 0).await
    }

    /// Waits until so many ports are ready. Nothing tells: the page is the question.
    pub(super) async fn ready(&self, count: usize) -> anyhow::Result<()> {
        let started = Instant::now();
        loop {
            let there = self.pool().await?.map_or(0, |pool| pool.view.ready);
            if there >= count {
                return Ok(());
            }
            ensure!(started.elapsed() < PATIENCE, "{there} of {count} ports are ready after {PATIENCE:?}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Nothing was asked for by now.
    pub(super) fn reset(&self) -> anyhow::Result<()> {
        let inside = self.world.inside()?;
        inside.cloud.calls().reset();
        inside.api.calls().reset();
        Ok(())
    }

    /// What was asked for since then: requests to Neutron, and the controller's writes to Kubernetes.
    pub(super) fn asked(&self) -> anyhow::Result<(usize, u64)> {
        let inside = self.world.inside()?;
        let counts = inside.cloud.calls().counts();
        let neutron: u64 =
            counts.iter().filter(|((service, ..), _)| *service == Service::Network).map(|(_, count)| count).sum();
        let writes = inside.api.calls().count(|key| {
            // The lease is renewed whether there are pods or not.
            key.is_write() && key.resource != "leases" && key.user_agent.starts_with("kuryr-controller/")
        });
        Ok((usize::try_from(neutron)?, writes))
    }

    /// Binds pods of these names at once. Seconds until the last has its `KuryrPort`.
    pub(super) async fn burst(&self, filled: &Seen, names: &[String]) -> anyhow::Result<f64> {
        let (asked, _) = lab::bound_pods(&self.world.client, names, &self.node).await?;
        let mut last = 0.0_f64;
        for name in names {
            last = last.max(lab::ms(asked, filled.when(name).await?) / 1000.0);
        }
        Ok(last)
    }

    /// What was asked of Neutron since the log was reset, as far as it made ports and subports.
    pub(super) fn made(&self) -> anyhow::Result<String> {
        let calls = self.world.inside()?.cloud.calls();
        let (posts, ports, _) = lab::neutron_calls(calls);
        let added = calls.filter(|call| call.template.ends_with("/add_subports"));
        let subports: usize = added.iter().map(|call| call.items).sum();
        Ok(match added.len() {
            0 => format!("{posts} POST for {ports} ports"),
            puts => format!("{posts} POST for {ports} ports, {puts} PUT for {subports} subports"),
        })
    }
}

/// Starts Kuryr with these settings of `[pools]`.
pub(super) async fn start(world: &mut World, pools: &str) -> anyhow::Result<()> {
    fs::write(&world.kuryr.settings().config, format!("[openstack]\ncloud = \"kuryr\"\n[pools]\n{pools}\n{PROVIDER}"))?;
    lab::start_kuryr(world).await
}

/// `kuryr pools fill`, once the node has a pool.
pub(super) async fn order(world: &World, node: &str, count: usize) -> anyhow::Result<()> {
    let controller = *world.kuryr.controllers().first().context("no controller")?;
    let at = world.kuryr.controller_address(controller).context("no controller")?;
    let order = ["pools", "fill", node, &count.to_string(), &format!("--controller={at}")].map(str::to_owned);
    let started = Instant::now();
    loop {
        let (code, said) = world.kuryr.run(order.to_vec()).await?;
        match code {
            Some(0) => return Ok(()),
            // The first listing is not through.
            _ if started.elapsed() < Duration::from_secs(10) => sleep(Duration::from_millis(50)).await,
            _ => bail!("kuryr pools fill: {said}"),
        }
    }
}

/// A row of times in seconds.
pub(super) fn seconds(what: String, samples: Vec<f64>, most: f64) -> Figure {
    Figure::new(super::GROUP, what, Unit::Seconds, samples).budget(Budget::most(most))
}

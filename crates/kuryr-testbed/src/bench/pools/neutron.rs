//! What Neutron itself can do: it is asked for ports as Kuryr asks it, by nobody else and without Kubernetes.

use super::ground::{BULK, Ground, Kind, REQUESTS};
use crate::bench::lab::Scale;
use anyhow::Context;
use futures::future::{join, try_join_all};
use kuryr_model::{NetworkId, PortId, SegmentationId};
use kuryr_openstack::{Network, network::NewPort};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// How many ports are made.
const COUNTS: [usize; 3] = [1, 50, 200];

/// How long that takes.
pub(super) struct Own(BTreeMap<usize, Duration>);

impl Own {
    /// Seconds for so many ports.
    pub(super) fn seconds(&self, count: usize) -> anyhow::Result<f64> {
        Ok(self.0.get(&count).with_context(|| format!("{count} ports were not measured"))?.as_secs_f64())
    }
}

pub(super) async fn measure(scale: &Scale, kind: Kind) -> anyhow::Result<Own> {
    let ground = Ground::new(scale, kind).await?;
    let measured = on(&ground).await;
    ground.shut_down().await?;
    measured
}

async fn on(ground: &Ground) -> anyhow::Result<Own> {
    let on = ground.world.pod_network().await?;
    let network = ground.world.cloud.network().within(Duration::from_secs(120));
    let (mut times, mut next) = (BTreeMap::new(), 1);
    for count in COUNTS {
        let (made, ports) = unbounded_channel();
        let started = Instant::now();
        let (created, added) = join(ports_at_once(&network, on, count, made), async {
            match ground.trunk {
                Some(trunk) => add_all(&network, trunk, ports, &mut next).await,
                None => Ok(()),
            }
        })
        .await;
        created?;
        added?;
        times.insert(count, started.elapsed());
    }
    Ok(Own(times))
}

/// Makes ports in full bulks, each request's share one bulk after another, and tells of each bulk.
async fn ports_at_once(
    network: &Network,
    on: NetworkId,
    count: usize,
    made: UnboundedSender<Vec<PortId>>,
) -> anyhow::Result<()> {
    let share = |request: usize| count / REQUESTS + usize::from(request < count % REQUESTS);
    try_join_all((0..REQUESTS).map(|request| {
        let made = made.clone();
        async move {
            let mut left = share(request);
            while left > 0 {
                let bulk = vec![NewPort::new(on); left.min(BULK)];
                left -= bulk.len();
                let ports = network.ports().create_many(&bulk).await?;
                let _ = made.send(ports.into_iter().map(|port| port.id).collect());
            }
            anyhow::Ok(())
        }
    }))
    .await
    .map(drop)
}

/// Puts ports on a trunk as they come, in one request at a time.
async fn add_all(
    network: &Network,
    trunk: kuryr_model::TrunkId,
    mut ports: UnboundedReceiver<Vec<PortId>>,
    next: &mut u16,
) -> anyhow::Result<()> {
    while let Some(mut come) = ports.recv().await {
        while let Ok(more) = ports.try_recv() {
            come.extend(more);
        }
        let mut subports = Vec::with_capacity(come.len());
        for port in come {
            subports.push((port, SegmentationId::try_from(*next)?));
            *next += 1;
        }
        network.trunks().add_subports(trunk, &subports).await?;
    }
    Ok(())
}

//! The controller's restart in a large cluster: without pools, with them, and with pods that are subports of virtual machines.

use super::{
    figure::{Budget, Figure, Unit},
    lab::{self, NAMESPACE, Scale},
    machine::{Usage, usage},
    metrics::value,
    preload::{self, Nodes},
};
use crate::{
    cloud::{Latency, Service},
    world::{PROVIDER, World},
};
use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::DeleteParams};
use kuryr_controller::PoolReport;
use std::{
    fs,
    time::{Duration, Instant},
};

pub(super) const GROUP: &str = "restart";

/// Between two looks at the controller's metrics, which have no notification.
const LOOK: Duration = Duration::from_millis(20);

/// For how long pools must not have changed to be full.
const REST: Duration = Duration::from_secs(2);

/// How long a restart may take before it is given up.
const PATIENCE: Duration = Duration::from_secs(180);

/// One restart, in seconds from the start of the process.
struct Restart {
    /// The index is complete.
    ready: f64,
    /// It leads.
    leads: f64,
    /// Every pod was looked at.
    looked: f64,
    /// A pod that was bound while no controller ran has its KuryrPort.
    served: f64,
    /// Neutron's ports were listed and compared; with a stray one, that it is deleted.
    compared: f64,
    usage: Usage,
    /// Requests to Neutron.
    neutron: usize,
}

impl Restart {
    fn all(&self) -> f64 {
        [self.ready, self.leads, self.looked, self.served, self.compared].into_iter().fold(0.0, f64::max)
    }
}

pub(super) async fn measure(scale: &Scale) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for nodes in [Nodes::Bare, Nodes::Machines] {
        let mut world = lab::world(scale, 1, Latency::default(), "10.10.0.0/16").await?;
        let measured = on(&mut world, scale, nodes).await;
        world.shut_down().await?;
        figures.extend(measured?);
    }
    Ok(figures)
}

async fn on(world: &mut World, scale: &Scale, nodes: Nodes) -> anyhow::Result<Vec<Figure>> {
    let count = scale.many;
    let loading = Instant::now();
    let size = preload::pods(world, count, nodes).await?;
    tracing::info!(pods = count, bytes = size, took = ?loading.elapsed(), "preloaded");
    let mut figures = Vec::new();
    if nodes == Nodes::Bare {
        figures.extend(without_pools(world, scale, count, size).await?);
    }
    let rounds = if scale.quick { 1 } else { 3 };
    let spare = fill_pools(world).await?;
    let mut restarts = Vec::new();
    for round in 0..rounds {
        restarts.push(restart(world, count, &format!("spare{round}"), false).await?);
    }
    let word = if nodes == Nodes::Bare { "" } else { "nested " };
    figures.push(
        Figure::new(
            GROUP,
            format!("restart with {count} {word}pods and {spare} spare ports: leads and has reconciled"),
            Unit::Seconds,
            restarts.iter().map(Restart::all).collect(),
        )
        .budget(Budget::most(5.0))
        .calls(calls(&restarts))
        .note(steps(&restarts)),
    );
    let peaks = restarts.iter().map(|restart| restart.usage.peak_mib).collect();
    let what = format!("memory of the controller at {count} {word}pods with pools, at its peak, RSS");
    figures.push(Figure::new(GROUP, what, Unit::Mebibytes, peaks).budget(Budget::most(150.0)));
    Ok(figures)
}

async fn without_pools(world: &mut World, scale: &Scale, count: usize, size: usize) -> anyhow::Result<Vec<Figure>> {
    let mut restarts = Vec::new();
    for round in 0..if scale.quick { 1 } else { 3 } {
        restarts.push(restart(world, count, &format!("probe{round}"), false).await?);
    }
    preload::stray(world).await?;
    let stray = restart(world, count, "probe-stray", true).await?;
    let what = format!("restart with {count} pods, no pools: leads and has reconciled");
    let memory = restarts.iter().map(|restart| restart.usage.pss_mib).collect();
    let peaks = restarts.iter().map(|restart| restart.usage.peak_mib).collect();
    Ok(vec![
        Figure::new(GROUP, what, Unit::Seconds, restarts.iter().map(Restart::all).collect())
            .budget(Budget::most(5.0))
            .calls(calls(&restarts))
            .original("minutes (crash loops)")
            .note(format!("a pod's JSON has {size} bytes; {}", steps(&restarts))),
        Figure::new(GROUP, "the same, with a stray port to be found and deleted", Unit::Seconds, vec![stray.all()])
            .budget(Budget::most(5.0))
            .note(format!(
                "before it is deleted, the API server is asked for all pods and KuryrPorts again; peak RSS {:.0} MiB",
                stray.usage.peak_mib
            )),
        Figure::new(GROUP, format!("memory of the controller at {count} pods, PSS"), Unit::Mebibytes, memory)
            .budget(Budget::most(150.0)),
        Figure::new(GROUP, "the same at its peak, RSS", Unit::Mebibytes, peaks).budget(Budget::most(150.0)),
    ])
}

fn calls(restarts: &[Restart]) -> String {
    format!("{} Neutron", restarts.iter().map(|restart| restart.neutron).max().unwrap_or(0))
}

/// Medians of the steps.
fn steps(restarts: &[Restart]) -> String {
    let p50 =
        |step: fn(&Restart) -> f64| Figure::new(GROUP, "", Unit::Seconds, restarts.iter().map(step).collect()).p50();
    format!(
        "medians: index complete {:.2} s, leads {:.2} s, every pod looked at {:.2} s, a pod that waited has its KuryrPort {:.2} s, \
         Neutron's ports compared {:.2} s; API server and cloud run on the same cores",
        p50(|restart| restart.ready),
        p50(|restart| restart.leads),
        p50(|restart| restart.looked),
        p50(|restart| restart.served),
        p50(|restart| restart.compared),
    )
}

/// Has a controller with pools make their ports, and stops it; how many these are.
async fn fill_pools(world: &mut World) -> anyhow::Result<usize> {
    fs::write(&world.kuryr.settings().config, format!("[openstack]\ncloud = \"kuryr\"\n{PROVIDER}"))?;
    let controller = world.kuryr.start_controller().await?;
    let full = |report: &PoolReport| {
        report.requests == 0 && report.held > 0 && report.pools.iter().all(|pool| pool.view.ready >= pool.view.target)
    };
    let (started, mut spare, mut since) = (Instant::now(), 0, Instant::now());
    // Those of virtual machines come as these are found.
    while since.elapsed() < REST {
        ensure!(started.elapsed() < PATIENCE, "the pools are not filled after {PATIENCE:?}:\n{}", world.logs());
        match world.kuryr.pools().await?.filter(full) {
            Some(report) if report.held == spare => {}
            report => (spare, since) = (report.map_or(0, |report| report.held), Instant::now()),
        }
        tokio::time::sleep(LOOK).await;
    }
    world.kuryr.stop_controller(controller).await?;
    Ok(spare)
}

/// Starts a controller, waits until it has caught up, stops it.
async fn restart(world: &mut World, pods: usize, probe: &str, stray: bool) -> anyhow::Result<Restart> {
    let calls = world.inside()?.cloud.calls().clone();
    let filled = lab::ports_filled(&world.client);
    lab::bound_pod(&world.client, probe, "many-0").await?;
    calls.reset();
    let started = Instant::now();
    let since = || started.elapsed().as_secs_f64();
    let number = world.kuryr.start_controller().await?;
    let ready = since();
    let (mut leads, mut looked) = (None, None);
    #[expect(clippy::cast_precision_loss)]
    let expected = pods as f64;
    while leads.is_none() || looked.is_none() {
        ensure!(
            started.elapsed() < PATIENCE,
            "the controller has not caught up within {PATIENCE:?}:\n{}",
            world.logs()
        );
        let page = world.kuryr.controller_metrics(number).await?;
        if leads.is_none() && value(&page, "kuryr_leader", &[]) > 0.5 {
            leads = Some(since());
        }
        if looked.is_none() && value(&page, "kuryr_pod_step_duration_seconds_count", &["step=\"queue\""]) >= expected {
            looked = Some(since());
        }
        tokio::time::sleep(LOOK).await;
    }
    let served = filled.when(probe).await?.saturating_duration_since(started).as_secs_f64();
    let listed = |call: &crate::cloud::CallRecord| match stray {
        true => call.method == "DELETE" && call.template == "/v2.0/ports/{id}",
        false => {
            call.method == "GET" && call.template == "/v2.0/ports" && call.query.iter().any(|(key, _)| key == "tags")
        }
    };
    tokio::time::timeout(PATIENCE, calls.wait_for(listed)).await.context("Neutron's ports were not compared")?;
    let compared = since();
    let usage = usage(world.kuryr.controller_pid(number).context("the controller is gone")?)?;
    let neutron = calls.filter(|call| call.service == Service::Network).len();
    world.kuryr.stop_controller(number).await?;
    forget(world, probe).await?;
    let (leads, looked) = (leads.unwrap_or(f64::NAN), looked.unwrap_or(f64::NAN));
    Ok(Restart { ready, leads, looked, served, compared, usage, neutron })
}

/// Takes the probe away again: its KuryrPort stays for the next controller to release.
async fn forget(world: &World, probe: &str) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), NAMESPACE);
    pods.delete(probe, &DeleteParams::default().grace_period(0)).await?;
    Ok(())
}

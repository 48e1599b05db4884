//! How soon a Service answers, beside what Octavia alone takes for the same.

use super::services::client;
use crate::{
    dataplane::probe,
    world::{Backend, World, cluster_ip, pods::PATIENCE, services::SERVED},
};
use anyhow::{Context, ensure};
use kuryr_model::{
    LoadBalancerId, Mark, Purpose,
    lb::{Algorithm, Protocol, Provisioning},
    mark::Base,
};
use kuryr_openstack::{
    Filter,
    load_balancer::{ListenerTree, LoadBalancing, NewListener, NewLoadBalancer, NewMember, NewPool, PoolTree},
};
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

/// What Kuryr may take beside Octavia, on a machine with nothing else to do.
const BUDGET: Duration = Duration::from_millis(300);

/// What a machine may add on which other things run.
const BUSY: Duration = Duration::from_secs(5);

/// For one try to be answered.
const TRY: Duration = Duration::from_millis(100);

/// Time between two looks at what Octavia has done.
const LOOK: Duration = Duration::from_millis(50);

/// Endpoints to begin with, and later.
const FEW: usize = 3;
const MORE: usize = 6;

pub(super) async fn a_service_answers_as_soon_as_octavia_is_done(world: &mut World) -> anyhow::Result<()> {
    let (backends, from) = tokio::try_join!(world.backends("web", 0..MORE), client(world))?;
    let (made_alone, changed_alone) = alone(world, &backends).await?;
    let services = world.services();
    services.create_slice("web-hand", "web", slice(&backends[..FEW])).await?;
    let asked = Instant::now();
    let service = services.create("web", json!({"selector": null})).await?;
    let target = SocketAddr::new(cluster_ip(&service)?, 80);
    answers(&from, target, &backends).await?;
    let made = asked.elapsed();
    services.ready("web", u32::try_from(FEW)?).await?;
    let asked = Instant::now();
    services.change_slice("web-hand", slice(&backends)).await?;
    answers(&from, target, &backends[FEW..]).await?;
    let changed = asked.elapsed();
    for (what, took, octavia) in [
        (format!("a new Service with {FEW} endpoints"), made, made_alone),
        (format!("a Service whose {FEW} endpoints became {MORE}"), changed, changed_alone),
    ] {
        let over = took.saturating_sub(octavia);
        let verdict = if over <= BUDGET { "within" } else { "over" };
        tracing::info!(
            "{what} answered after {took:.1?}; Octavia alone took {octavia:.1?}: {verdict} the budget of {BUDGET:?} more"
        );
        ensure!(over < BUDGET + BUSY, "{what} answered after {took:?}, and Octavia alone took {octavia:?}");
    }
    Ok(())
}

fn slice(backends: &[Backend]) -> Value {
    let endpoints: Vec<Value> = backends.iter().map(|one| json!({"addresses": [one.address.to_string()]})).collect();
    json!({"endpoints": endpoints, "ports": [{"port": SERVED}]})
}

/// Connects until one of these answers.
async fn answers(from: &Path, target: SocketAddr, backends: &[Backend]) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        let answer = probe::who(from, target, TRY).await;
        if answer.is_ok_and(|answer| backends.iter().any(|one| one.name() == answer.name)) {
            return Ok(());
        }
        ensure!(started.elapsed() < PATIENCE, "nobody answers at {target}");
    }
}

/// What Octavia takes to make such a load balancer, and to bring in the other members.
async fn alone(world: &World, backends: &[Backend]) -> anyhow::Result<(Duration, Duration)> {
    let mark = Mark { cluster: world.cluster.clone(), purpose: Purpose::Base(Base::Services) };
    let subnets = world.cloud.network().subnets().list(&Filter::new().tags(mark.tags())).await?;
    let pods = world.pod_subnets().await?.into_iter().next().context("no pod subnet")?.id;
    let members: Vec<NewMember> = backends
        .iter()
        .map(|one| NewMember { name: one.name(), subnet_id: Some(pods), ..NewMember::new(one.address, SERVED) })
        .collect();
    let pool = NewPool {
        name: "alone".to_owned(),
        protocol: Protocol::Tcp,
        lb_algorithm: Algorithm::SourceIpPort,
        ..NewPool::default()
    };
    let listener =
        NewListener { name: "alone".to_owned(), protocol: Protocol::Tcp, protocol_port: 80, ..NewListener::default() };
    let new = NewLoadBalancer {
        name: "alone".to_owned(),
        provider: Some("ovn".to_owned()),
        vip_subnet_id: Some(subnets.first().context("no service subnet")?.id),
        listeners: vec![ListenerTree {
            listener,
            default_pool: Some(PoolTree { pool, members: members[..FEW].to_vec(), monitor: None }),
        }],
        ..NewLoadBalancer::default()
    };
    let octavia = world.cloud.load_balancing();
    let started = Instant::now();
    let id = octavia.load_balancers().create(&new).await?.load_balancer.id;
    let measured = async {
        done(&octavia, id).await?;
        let made = started.elapsed();
        let below = Filter::new().with("loadbalancer_id", id);
        let pool = octavia.pools().list(&below).await?.pop().context("no listener pool")?.id;
        let started = Instant::now();
        octavia.members(pool).replace(&members).await?;
        done(&octavia, id).await?;
        anyhow::Ok((made, started.elapsed()))
    }
    .await;
    octavia.load_balancers().delete(id).await?;
    measured
}

/// Waits until Octavia is at work on no part of it.
async fn done(octavia: &LoadBalancing, id: LoadBalancerId) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        let all = octavia.status(id).await?;
        let pools = all.listeners.iter().flat_map(|listener| &listener.pools);
        let parts = [all.provisioning_status].into_iter().chain(pools.map(|pool| pool.provisioning_status));
        if !parts.chain(all.members().map(|member| member.provisioning_status)).any(Provisioning::is_pending) {
            return Ok(());
        }
        ensure!(started.elapsed() < PATIENCE, "Octavia is still at work: {all:?}");
        // It tells nobody when it is done.
        tokio::time::sleep(LOOK).await;
    }
}

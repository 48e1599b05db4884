//! Services: how long until they answer, what they cost in calls, and very many of them.

use super::{
    figure::{Budget, Figure, Unit},
    lab::{self, NAMESPACE, Scale},
    machine::{Usage, usage},
    metrics,
    seen::Seen,
};
use crate::{
    cloud::{Calls, Latency, LoadBalancingConfig, Provisioning, Service},
    dataplane::probe,
    world::{Backend, EmbeddedConfig, NewPod, Services, World, cluster_ip, services::SERVED},
};
use anyhow::{Context, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use http::Method;
use kube::Api;
use kuryr_model::{KuryrLoadBalancer, kuryr_load_balancer::LoadBalancerState};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

pub(super) const GROUP: &str = "services";

/// What Octavia was measured to need for a Service of one port and three endpoints, and to add three more.
const CREATE: Duration = Duration::from_millis(3_500);
const BATCH: Duration = Duration::from_millis(4_400);

/// What may come on top of Octavia's own time, in seconds.
const OURS: f64 = 0.3;

/// How long anything may take before it is given up.
const PATIENCE: Duration = Duration::from_secs(240);

/// Between two packets that are sent to see whether one comes back, which nothing tells.
const LOOK: Duration = Duration::from_millis(5);

/// How long one is waited for.
const ANSWER: Duration = Duration::from_millis(30);

/// How long Octavia is not asked anything when a controller has come to rest.
const QUIET: Duration = Duration::from_secs(2);

/// How many there are when there are very many, and what is behind each.
const MANY: usize = 1_000;
const ENDPOINTS: usize = 10;

pub(super) async fn measure(scale: &Scale) -> anyhow::Result<Vec<Figure>> {
    let quick = provisioning(Duration::ZERO, Duration::ZERO);
    let mut figures = life(scale, quick, scale.samples(30), "cloud without latency").await?;
    let slow = provisioning(CREATE, BATCH);
    figures.extend(life(scale, slow, scale.samples(10), "Octavia as slow as a real one").await?);
    figures.push(reaction(scale).await?);
    figures.extend(many(scale).await?);
    Ok(figures)
}

/// An Octavia that needs so long for a whole load balancer, and for a batch of members.
fn provisioning(create: Duration, update: Duration) -> Provisioning {
    Provisioning { create, update, delete: update, failover: create, object: Duration::ZERO }
}

fn config(scale: &Scale, nodes: usize, provisioning: Provisioning) -> EmbeddedConfig {
    EmbeddedConfig {
        nodes,
        latency: Latency::default(),
        load_balancing: LoadBalancingConfig { provisioning, ..LoadBalancingConfig::default() },
        ..EmbeddedConfig::new(&scale.netns)
    }
}

/// What one Service took, in seconds, and the calls to Octavia.
struct Life {
    answered: f64,
    scaled: f64,
    created: Asked,
    changed: Asked,
}

/// Calls to Octavia.
#[derive(Clone, Copy)]
struct Asked {
    posts: usize,
    puts: usize,
    reads: usize,
}

impl Asked {
    fn since_reset(calls: &Calls) -> Self {
        let all = calls.filter(|call| call.service == Service::LoadBalancer);
        let count = |method: Method| all.iter().filter(|call| call.method == method).count();
        Self { posts: count(Method::POST), puts: count(Method::PUT), reads: count(Method::GET) }
    }

    fn writes(self) -> f64 {
        count(self.posts + self.puts)
    }
}

#[expect(clippy::cast_precision_loss)]
fn count(number: usize) -> f64 {
    number as f64
}

async fn life(scale: &Scale, times: Provisioning, samples: usize, cloud: &str) -> anyhow::Result<Vec<Figure>> {
    let (create, batch) = (times.create.as_secs_f64(), times.update.as_secs_f64());
    let mut world = lab::world_of(config(scale, 2, times)).await?;
    let lived = async {
        lab::start_kuryr(&mut world).await?;
        let backends = world.backends("web", 0..6).await?;
        let client = world.run_pod(&NewPod::new("client"), "client").await?;
        let from = world.netns(&client)?;
        own_service(&world).await?;
        let mut lives = Vec::new();
        for number in 0..samples {
            lives.push(one(&world, &backends, &from, &format!("web-{number}")).await?);
        }
        anyhow::Ok(lives)
    }
    .await;
    world.shut_down().await?;
    let lives = lived?;
    let each = |what: fn(&Life) -> f64| lives.iter().map(what).collect::<Vec<f64>>();
    let reads = |what: fn(&Life) -> usize| lives.iter().map(what).max().unwrap_or(0);
    Ok(vec![
        Figure::new(GROUP, format!("Service created -> first answer, {cloud}"), Unit::Seconds, each(|life| life.answered))
            .budget(Budget::most(create + OURS))
            .calls(format!("1 POST + at most {} GET", reads(|life| life.created.reads)))
            .original("10.4 s, real world")
            .note(format!(
                "1 port, 3 endpoints that are there already; Octavia's own time is {create:.1} s; until a TCP connection from a pod to \
                 the clusterIP brings a word back"
            )),
        Figure::new(GROUP, format!("3 -> 6 endpoints -> first answer of a new one, {cloud}"), Unit::Seconds, each(|life| life.scaled))
            .budget(Budget::most(batch + OURS))
            .calls(format!("1 PUT + at most {} GET", reads(|life| life.changed.reads)))
            .original("5.3-6.3 s, real world")
            .note(format!("from the request that changes the EndpointSlice; Octavia's own time is {batch:.1} s")),
        Figure::new(GROUP, format!("Octavia writes for a new Service, {cloud}"), Unit::Calls, each(|life| life.created.writes()))
            .budget(Budget::most(1.0)),
        Figure::new(GROUP, format!("Octavia writes for 3 more endpoints, {cloud}"), Unit::Calls, each(|life| life.changed.writes()))
            .budget(Budget::most(1.0)),
    ])
}

fn slice(endpoints: impl Iterator<Item = String>) -> Value {
    let endpoints: Vec<Value> = endpoints.map(|address| json!({"addresses": [address]})).collect();
    json!({"endpoints": endpoints, "ports": [{"port": SERVED}]})
}

async fn one(world: &World, backends: &[Backend], from: &Path, name: &str) -> anyhow::Result<Life> {
    let services = world.services();
    let calls = world.inside()?.cloud.calls();
    let addresses = |number: usize| slice(backends[..number].iter().map(|backend| backend.address.to_string()));
    let hand = format!("{name}-hand");
    services.create_slice(&hand, name, addresses(3)).await?;
    calls.reset();
    let asked = Instant::now();
    let service = services.create(name, json!({"selector": null})).await?;
    let target = SocketAddr::new(cluster_ip(&service)?, 80);
    answers(from, target, |_| true).await?;
    let answered = asked.elapsed().as_secs_f64();
    services.ready(name, 3).await?;
    let created = Asked::since_reset(calls);

    let old: BTreeSet<String> = backends[..3].iter().map(Backend::name).collect();
    calls.reset();
    let asked = Instant::now();
    services.change_slice(&hand, addresses(6)).await?;
    answers(from, target, |name| !old.contains(name)).await?;
    let scaled = asked.elapsed().as_secs_f64();
    services.ready(name, 6).await?;
    let changed = Asked::since_reset(calls);
    services.delete(name).await?;
    services.gone(name).await?;
    Ok(Life { answered, scaled, created, changed })
}

/// Waits until what Kubernetes brings of its own has its load balancer, so that the calls for it are not counted.
async fn own_service(world: &World) -> anyhow::Result<()> {
    Services::new(&world.client, "default").ready("kubernetes", 1).await.map(drop)
}

/// Connects until somebody wanted answers.
async fn answers(from: &Path, target: SocketAddr, wanted: impl Fn(&str) -> bool) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        if let Ok(answer) = probe::who(from, target, ANSWER).await
            && wanted(&answer.name)
        {
            return Ok(());
        }
        ensure!(started.elapsed() < PATIENCE, "no answer from {target} within {PATIENCE:?}");
        tokio::time::sleep(LOOK).await;
    }
}

/// How often endpoints of how many Services change, each of them less often than what would be slowed down.
const CHANGED: usize = 50;
const CHANGES: usize = 4;

/// From a change of endpoints to the request that tells Octavia, as the API server and Octavia see it: what is between is the
/// controller's.
async fn reaction(scale: &Scale) -> anyhow::Result<Figure> {
    let mut world = lab::world_of(config(scale, 0, provisioning(Duration::ZERO, Duration::ZERO))).await?;
    let measured = reactions(&mut world, scale.samples(CHANGED)).await;
    world.shut_down().await?;
    let (samples, own) = measured?;
    Ok(Figure::new(GROUP, "EndpointSlice changed -> request at Octavia".to_owned(), Unit::Milliseconds, samples)
        .budget(Budget::most(20.0))
        .note(format!(
            "from the request that changes the EndpointSlice; from the event to the request the controller itself says {own:.2} ms on \
             average"
        )))
}

async fn reactions(world: &mut World, services: usize) -> anyhow::Result<(Vec<f64>, f64)> {
    let calls = world.inside()?.cloud.calls().clone();
    let number = world.kuryr.start_controller().await?;
    world.leader_elected().await?;
    own_service(world).await?;
    let of = world.services();
    let addresses = |count: usize| slice((1..=count).map(|host| format!("10.10.1.{host}")));
    for number in 0..services {
        let name = format!("web-{number}");
        of.create_slice(&format!("{name}-hand"), &name, addresses(1)).await?;
        of.create(&name, json!({"selector": null})).await?;
        of.ready(&name, 1).await?;
    }
    let before = world.kuryr.controller_metrics(number).await?;
    let mut samples = Vec::new();
    for change in 0..CHANGES {
        for number in 0..services {
            let (name, endpoints) = (format!("web-{number}"), 2 + change);
            let hand = format!("{name}-hand");
            calls.reset();
            let asked = Instant::now();
            let put = calls.wait_for(|call| call.method == Method::PUT && call.path.ends_with("/members"));
            let (changed, put) = tokio::join!(
                of.change_slice(&hand, addresses(endpoints)),
                tokio::time::timeout(PATIENCE, async {
                    let put = put.await;
                    // It was recorded when it was done.
                    asked.elapsed().saturating_sub(put.duration)
                })
            );
            changed?;
            samples.push(put.context("endpoints changed, and Octavia was not told")?.as_secs_f64() * 1000.0);
            of.ready(&name, u32::try_from(endpoints)?).await?;
        }
    }
    let after = world.kuryr.controller_metrics(number).await?;
    let own = metrics::mean_ms(&before, &after, "kuryr_service_step_duration_seconds", &["step=\"react\""]);
    Ok((samples, own))
}

/// A thousand Services, and a controller that is started anew with them.
async fn many(scale: &Scale) -> anyhow::Result<Vec<Figure>> {
    let many = if scale.quick { MANY / 5 } else { MANY };
    let mut world = lab::world_of(config(scale, 0, Provisioning::default())).await?;
    let measured = crowd(&mut world, many).await;
    world.shut_down().await?;
    let crowd = measured?;
    let what = format!("{many} Services x {ENDPOINTS} endpoints");
    Ok(vec![
        Figure::new(GROUP, format!("{what} created -> all Ready, embedded"), Unit::Seconds, vec![crowd.took])
            .calls(format!("{} POST, {} PUT, {} GET", crowd.made.posts, crowd.made.puts, crowd.made.reads))
            .note("all are asked for at once, 16 requests at a time; API server and cloud run on the same cores"),
        Figure::new(GROUP, format!("{what}: Octavia writes"), Unit::Calls, vec![crowd.made.writes()])
            .budget(Budget::most(count(many))),
        Figure::new(
            GROUP,
            format!("{what}: memory of the controller, PSS"),
            Unit::Mebibytes,
            vec![crowd.usage.pss_mib],
        )
        .budget(Budget::most(150.0))
        .note(format!("peak RSS: {:.1} MiB", crowd.usage.peak_mib)),
        Figure::new(GROUP, format!("{what}: restart until Octavia is left alone"), Unit::Seconds, vec![crowd.restart])
            .budget(Budget::most(5.0))
            .calls(format!("{} GET", crowd.again.reads)),
        Figure::new(GROUP, format!("{what}: Octavia writes of a restart"), Unit::Calls, vec![crowd.again.writes()])
            .budget(Budget::most(0.0)),
        Figure::new(GROUP, format!("{what}: Octavia reads of a restart"), Unit::Calls, vec![count(crowd.again.reads)])
            .budget(Budget::most(count(many) / 10.0))
            .note("load balancers, listeners, listener pools and health monitors are listed by their tag, in pages"),
    ])
}

struct Crowd {
    took: f64,
    made: Asked,
    usage: Usage,
    restart: f64,
    again: Asked,
}

async fn crowd(world: &mut World, many: usize) -> anyhow::Result<Crowd> {
    let calls = world.inside()?.cloud.calls().clone();
    let first = world.kuryr.start_controller().await?;
    world.leader_elected().await?;
    own_service(world).await?;
    let held: Api<KuryrLoadBalancer> = Api::namespaced(world.client.clone(), NAMESPACE);
    let ready = Seen::watch(held, |held: &KuryrLoadBalancer| {
        held.status.as_ref().is_some_and(|status| {
            let members = status.members.as_ref().map_or(0, |members| members.ready as usize);
            status.state == Some(LoadBalancerState::Active) && members == ENDPOINTS
        })
    });
    let services = &world.services();
    calls.reset();
    let asked = Instant::now();
    stream::iter(0..many)
        .map(|number| async move {
            let name = format!("many-{number}");
            let address = |of: usize| {
                format!("10.10.{}.{}", 1 + (number * ENDPOINTS + of) / 250 % 14, 1 + (number * ENDPOINTS + of) % 250)
            };
            services.create_slice(&format!("{name}-hand"), &name, slice((0..ENDPOINTS).map(address))).await?;
            services.create(&name, json!({"selector": null})).await
        })
        .buffer_unordered(16)
        .try_collect::<Vec<_>>()
        .await?;
    for number in 0..many {
        ready.when(&format!("many-{number}")).await?;
    }
    let took = asked.elapsed().as_secs_f64();
    let made = Asked::since_reset(&calls);
    let usage = usage(world.kuryr.controller_pid(first).context("the controller is gone")?)?;
    world.kuryr.stop_controller(first).await?;

    calls.reset();
    let started = Instant::now();
    world.kuryr.start_controller().await?;
    let (mut last, mut before) = (started, 0);
    while last.elapsed() < QUIET || before == 0 {
        ensure!(started.elapsed() < PATIENCE, "Octavia is still asked {PATIENCE:?} after the restart");
        let now = calls.filter(|call| call.service == Service::LoadBalancer).len();
        if now != before {
            (last, before) = (Instant::now(), now);
        }
        tokio::time::sleep(LOOK * 4).await;
    }
    let again = Asked::since_reset(&calls);
    Ok(Crowd { took, made, usage, restart: (last - started).as_secs_f64(), again })
}

//! Whole pods, from their creation to Running and from their deletion until nothing is left: times, calls, memory.

use super::{
    figure::{Budget, Figure, Unit},
    lab::{self, NAMESPACE, Scale},
    machine::{size_mib, usage},
    seen::Seen,
};
use crate::{
    cloud::Latency,
    kubernetes::{Kubelet, PodTiming},
    world::{NewPod, World, process::executable},
};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kuryr_model::{KuryrPort, kuryr_port::AttachmentState};
use std::time::{Duration, Instant};

pub(super) const GROUP: &str = "pods";

/// Pods of the burst.
const BURST: usize = 50;

pub(super) async fn measure(scale: &Scale) -> anyhow::Result<Vec<Figure>> {
    let mut world = lab::world(scale, 2, Latency::default(), "10.10.0.0/20").await?;
    let measured = on(&mut world, scale).await;
    world.shut_down().await?;
    measured
}

/// Calls since the logs were reset, as the API server and the cloud counted them.
#[derive(Clone, Debug, PartialEq)]
struct Calls {
    controller_writes: u64,
    daemon_writes: u64,
    /// `2 POST kuryrports, 1 PATCH ...`, all writes of Kuryr.
    writes: String,
    port_posts: usize,
    port_deletes: usize,
    neutron: usize,
}

impl Calls {
    fn reset(world: &World) -> anyhow::Result<()> {
        let inside = world.inside()?;
        inside.cloud.calls().reset();
        inside.api.calls().reset();
        Ok(())
    }

    fn read(world: &World) -> anyhow::Result<Self> {
        let inside = world.inside()?;
        // The lease is renewed whether there are pods or not.
        let counts = inside.api.calls().snapshot();
        let of = |program: &str| {
            let mine = counts.iter().filter(move |(key, _)| {
                key.is_write() && key.resource != "leases" && key.user_agent.starts_with(program)
            });
            mine.map(|(key, count)| (format!("{} {}", key.verb, key.resource), *count)).collect::<Vec<_>>()
        };
        let (controller, daemon) = (of("kuryr-controller/"), of("kuryr-daemon/"));
        let sum = |writes: &[(String, u64)]| writes.iter().map(|(_, count)| count).sum();
        let list = |writes: &[(String, u64)]| {
            writes.iter().map(|(call, count)| format!("{count} {call}")).collect::<Vec<_>>().join(", ")
        };
        let (port_posts, _, neutron) = lab::neutron_calls(inside.cloud.calls());
        let port_deletes = inside.cloud.calls().filter(|call| call.method == "DELETE").len();
        Ok(Self {
            controller_writes: sum(&controller),
            daemon_writes: sum(&daemon),
            writes: format!("controller: {}; daemons: {}", list(&controller), list(&daemon)),
            port_posts,
            port_deletes,
            neutron,
        })
    }

    fn created(&self) -> String {
        format!("{} K8s + {} Neutron", self.controller_writes, self.neutron)
    }
}

async fn on(world: &mut World, scale: &Scale) -> anyhow::Result<Vec<Figure>> {
    lab::start_kuryr(world).await?;
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), NAMESPACE);
    let running =
        Seen::watch(pods, |pod: &Pod| pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running"));
    let ports: Api<KuryrPort> = Api::namespaced(world.client.clone(), NAMESPACE);
    let attached = Seen::watch(ports, |port: &KuryrPort| port.attachment_state() == Some(AttachmentState::Attached));

    world.run_pod(&NewPod::new("warm"), "warm").await?;
    attached.when("warm").await?;
    let (one, one_gone) = calls_of_one(world, &attached).await?;

    let mut single = Vec::new();
    for name in lab::names("single", scale.samples(100)) {
        let asked = Instant::now();
        world.pods().create(&NewPod::new(&name)).await?;
        single.push(lab::ms(asked, running.when(&name).await?));
    }
    let steps = steps(world, "single-")?;
    for name in lab::names("single", scale.samples(100)) {
        world.pods().delete(&name).await?;
    }
    try_join_all(lab::names("single", scale.samples(100)).iter().map(|name| gone(world, name))).await?;

    let names = lab::names("burst", BURST);
    Calls::reset(world)?;
    let asked = Instant::now();
    world.pods().create_all(&names).await?;
    let mut last = 0.0_f64;
    for name in &names {
        last = last.max(lab::ms(asked, running.when(name).await?));
    }
    for name in &names {
        attached.when(name).await?;
    }
    let many = Calls::read(world)?;
    let memory = memory(world)?;
    Calls::reset(world)?;
    let asked = Instant::now();
    try_join_all(names.iter().map(|name| async { world.pods().delete(name).await })).await?;
    try_join_all(names.iter().map(|name| gone(world, name))).await?;
    let all_gone = lab::ms(asked, Instant::now());
    let many_gone = Calls::read(world)?;

    let mut figures = vec![
        Figure::new(GROUP, "pod created -> Running, embedded", Unit::Milliseconds, single)
            .original("7200 ms, real world, warm pool")
            .note(format!("scheduler and kubelet are the testbed's; means of the kubelet's steps: {steps}")),
        Figure::new(GROUP, "50 pods created at once -> last Running, embedded", Unit::Milliseconds, vec![last])
            .original("20 at once: 26 s, real world"),
        Figure::new(GROUP, "50 pods deleted at once -> nothing left, embedded", Unit::Milliseconds, vec![all_gone])
            .original("20 at once: 14 s, real world"),
    ];
    figures.extend(call_figures(&one, &one_gone, &many, &many_gone));
    figures.extend(memory);
    Ok(figures)
}

async fn gone(world: &World, name: &str) -> anyhow::Result<()> {
    world.pods().gone(name).await
}

/// What the creation and the deletion of a single pod cost.
async fn calls_of_one(world: &World, attached: &Seen) -> anyhow::Result<(Calls, Calls)> {
    Calls::reset(world)?;
    world.run_pod(&NewPod::new("one"), "one").await?;
    attached.when("one").await?;
    let created = Calls::read(world)?;
    Calls::reset(world)?;
    world.pods().delete("one").await?;
    gone(world, "one").await?;
    Ok((created, Calls::read(world)?))
}

fn call_figures(one: &Calls, one_gone: &Calls, many: &Calls, many_gone: &Calls) -> Vec<Figure> {
    let figure = |what: &str, count: f64| Figure::new(GROUP, what, Unit::Calls, vec![count]);
    #[expect(clippy::cast_precision_loss)]
    let number = |count: u64| count as f64;
    let size = |count: usize| number(count as u64);
    vec![
        figure("one pod created: controller's Kubernetes writes", number(one.controller_writes))
            .budget(Budget::most(1.0))
            .calls(one.created())
            .original("11 K8s + 4 Neutron, pool hit")
            .note(format!("all writes: {}", one.writes)),
        figure("one pod created: Neutron calls", size(one.neutron)).budget(Budget::most(1.0)).original("5, no pool"),
        figure("one pod deleted: Neutron calls", size(one_gone.neutron))
            .budget(Budget::most(1.0))
            .original("1, no pool")
            .note(format!("{} DELETE; writes: {}", one_gone.port_deletes, one_gone.writes)),
        figure("50 pods created at once: controller's Kubernetes writes", number(many.controller_writes))
            .budget(Budget::most(number(BURST as u64)))
            .calls(many.created())
            .note(format!("all writes: {}", many.writes)),
        figure("50 pods created at once: Neutron POSTs", size(many.port_posts))
            .budget(Budget::most(size(BURST)))
            .original("50 POST, 250 in all")
            .note(format!(
                "{} calls to Neutron in all; at least 3 POSTs, for a bulk is 20 ports at most",
                many.neutron
            )),
        figure("50 pods deleted at once: Neutron calls", size(many_gone.neutron))
            .budget(Budget::most(size(BURST)))
            .original("50")
            .note(format!("Neutron has no bulk delete; writes: {}", many_gone.writes)),
    ]
}

/// Means of the kubelet's steps for pods whose names begin so.
fn steps(world: &World, prefix: &str) -> anyhow::Result<String> {
    let kubelets = world.inside()?.kubelets.values();
    let timings: Vec<PodTiming> =
        kubelets.flat_map(Kubelet::timings).filter(|timing| timing.name.starts_with(prefix)).collect();
    let count = u32::try_from(timings.len()).unwrap_or(u32::MAX).max(1);
    let mean = |step: fn(&PodTiming) -> Duration| timings.iter().map(step).sum::<Duration>() / count;
    Ok(format!(
        "namespace {:.1?}, CNI ADD {:.1?}, process and status {:.1?}",
        mean(|timing| timing.netns),
        mean(|timing| timing.cni_add),
        mean(|timing| timing.running)
    ))
}

fn memory(world: &World) -> anyhow::Result<Vec<Figure>> {
    let controller = world.kuryr.controller_pid(0).map(usage).transpose()?;
    let daemons = world.nodes.iter().filter_map(|node| world.kuryr.daemon_pid(node));
    let daemons = daemons.map(usage).collect::<anyhow::Result<Vec<_>>>()?;
    let peak = daemons.iter().map(|usage| usage.peak_mib).fold(0.0, f64::max);
    let controller = controller.into_iter().collect::<Vec<_>>();
    let controller_peak = controller.iter().map(|usage| usage.peak_mib).fold(0.0, f64::max);
    Ok(vec![
        Figure::new(GROUP, "memory of the daemon, PSS", Unit::Mebibytes, daemons.iter().map(|usage| usage.pss_mib).collect())
            .budget(Budget::most(25.0))
            .original("164 MB in 8 processes")
            .note(format!(
                "two daemons with 25 pods each and the controller share one executable's pages; peak RSS, all pages counted: {peak:.1} MiB"
            )),
        Figure::new(GROUP, "memory of the controller, small, PSS", Unit::Mebibytes, controller.iter().map(|usage| usage.pss_mib).collect())
            .budget(Budget::most(30.0))
            .original("114 MB")
            .note(format!("50 pods; peak RSS: {controller_peak:.1} MiB")),
        Figure::new(GROUP, "size of kuryr", Unit::Mebibytes, vec![size_mib(&executable("kuryr")?)?]),
        Figure::new(GROUP, "size of kuryr-cni", Unit::Mebibytes, vec![size_mib(&executable("kuryr-cni")?)?]),
    ])
}

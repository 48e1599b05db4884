//! `kuryr-cni`, started as a container runtime does.

use super::{
    figure::{Budget, Figure, Unit},
    lab::{self, NAMESPACE, Scale},
    metrics::mean_ms,
};
use crate::{cloud::Latency, world::World, world::process::executable};
use anyhow::{Context, ensure};
use kuryr_node::{
    netlink::{
        Socket,
        link::{By, End, up, veth},
    },
    netns,
};
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Barrier,
    time::Instant,
};

pub(super) const GROUP: &str = "cni";

/// Pods on the node: about what kubelet allows on one.
const PODS: usize = 100;

/// What one sandbox is added and deleted with.
#[derive(Clone, Debug)]
struct Sandbox {
    netns: PathBuf,
    args: String,
}

/// Everything that does not change from call to call.
struct Plugin {
    program: PathBuf,
    conf: String,
}

pub(super) async fn measure(scale: &Scale) -> anyhow::Result<Vec<Figure>> {
    let world = lab::world_without_kubelet(scale, Latency::default()).await?;
    let measured = on(&world, scale).await;
    world.shut_down().await?;
    measured
}

async fn on(world: &World, scale: &Scale) -> anyhow::Result<Vec<Figure>> {
    let node = world.nodes[0].clone();
    let filled = lab::ports_filled(&world.client);
    let names = lab::names("cni", PODS);
    let (_, pods) = lab::bound_pods(&world.client, &names, &node).await?;
    for name in &names {
        filled.when(name).await?;
    }
    let folder = world.inside()?.netns_folder().join("bench");
    fs::create_dir_all(&folder)?;
    let mut sandboxes = Vec::new();
    for (name, uid) in &pods {
        let file = folder.join(name);
        netns::create(&file)?;
        let args = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={NAMESPACE};K8S_POD_NAME={name};K8S_POD_INFRA_CONTAINER_ID={uid};K8S_POD_UID={uid}"
        );
        sandboxes.push(Sandbox { netns: file, args });
    }
    let plugin = Plugin { program: executable("kuryr-cni")?, conf: lab::cni_conf(&world.kuryr.socket(&node)) };
    let figures = calls(world, &node, &plugin, &sandboxes, scale.samples(5)).await;
    for sandbox in &sandboxes {
        netns::delete(&sandbox.netns)?;
    }
    figures
}

async fn calls(
    world: &World,
    node: &str,
    plugin: &Plugin,
    sandboxes: &[Sandbox],
    rounds: usize,
) -> anyhow::Result<Vec<Figure>> {
    // Once unmeasured: from then on the daemon has every KuryrPort, and every program is in the page cache.
    tokio::task::block_in_place(|| round(plugin, sandboxes, "warm"))?;
    let before = world.kuryr.daemon_metrics(node).await?;
    let (mut adds, mut dels) = (Vec::new(), Vec::new());
    for number in 0..rounds {
        let (added, deleted) = tokio::task::block_in_place(|| round(plugin, sandboxes, &format!("round{number}")))?;
        adds.extend(added);
        dels.extend(deleted);
    }
    let after = world.kuryr.daemon_metrics(node).await?;
    let request = |verb: &str| {
        let verb = format!("verb=\"{verb}\"");
        mean_ms(&before, &after, "kuryr_cni_request_duration_seconds", &[&verb, "code=\"0\""])
    };
    let plug = mean_ms(&before, &after, "kuryr_cni_step_duration_seconds", &["step=\"plug\""]);
    let (kernel_makes, kernel_removes) = tokio::task::block_in_place(|| kernel(&sandboxes[0]))?;
    let (bare, together, together_gone) = tokio::task::block_in_place(|| {
        let bare: Vec<f64> = (0..100).map(|_| plugin.call("VERSION", None, "")).collect::<anyhow::Result<_>>()?;
        let (mut together, mut gone) = (Vec::new(), Vec::new());
        for number in 0..rounds {
            together.push(at_once(plugin, sandboxes, "ADD", &format!("burst{number}"))?);
            gone.push(at_once(plugin, sandboxes, "DEL", &format!("burst{number}"))?);
        }
        anyhow::Ok((bare, together, gone))
    })?;
    let exec = Figure::new(GROUP, "", Unit::Milliseconds, bare.clone()).p50();
    Ok(vec![
        Figure::new(GROUP, "kuryr-cni ADD, port assigned", Unit::Milliseconds, adds)
            .budget(Budget::of(8.0, 25.0))
            .original("6700 ms, real world, warm pool")
            .note(format!(
                "posix_spawn to exit, one after the other, {PODS} pods on the node, of which 0 to {} are plugged; {:.1} ms of the mean \
                 are in the daemon, {plug:.1} ms of these in the kernel's netlink; a bare start of the program is {exec:.1} ms",
                PODS - 1,
                request("ADD"),
            )),
        Figure::new(GROUP, "kuryr-cni DEL", Unit::Milliseconds, dels)
            .budget(Budget::of(8.0, 25.0))
            .original("1500 ms, real world")
            .note(format!(
                "{:.1} ms of the mean are in the daemon; a kernel that is asked to make a bare veth pair and to switch it on takes \
                 {kernel_makes:.1} ms (p50 of 50), and {kernel_removes:.1} ms to remove it, which no plugin can be quicker than",
                request("DEL")
            )),
        Figure::new(GROUP, "kuryr-cni VERSION (no daemon)", Unit::Milliseconds, bare),
        Figure::new(GROUP, "100 ADDs at once: last one done", Unit::Milliseconds, together)
            .original("20 at once: 16-19 s, real world")
            .note("from the moment at which all are let go; the starting of 100 programs on these cores is in it"),
        Figure::new(GROUP, "100 DELs at once: last one done", Unit::Milliseconds, together_gone),
    ])
}

/// What the kernel alone needs to make and to remove a veth pair: medians in milliseconds.
fn kernel(sandbox: &Sandbox) -> anyhow::Result<(f64, f64)> {
    let (mut makes, mut removes) = (Vec::new(), Vec::new());
    netns::run(&sandbox.netns, || {
        let mut socket = Socket::open()?;
        let end = |name| End { name, mac: None, mtu: 1442 };
        for _ in 0..50 {
            let started = Instant::now();
            socket.run(&[veth(&end("bare0"), &end("bare1"), None), up(By::Name("bare0")), up(By::Name("bare1"))])?;
            let made = Instant::now();
            socket.remove_link(By::Name("bare0"))?;
            makes.push(lab::ms(started, made));
            removes.push(lab::ms(made, Instant::now()));
        }
        anyhow::Ok(())
    })??;
    let p50 = |samples| Figure::new(GROUP, "", Unit::Milliseconds, samples).p50();
    Ok((p50(makes), p50(removes)))
}

/// Adds all sandboxes one after the other, then deletes them; how long each call took, in milliseconds.
fn round(plugin: &Plugin, sandboxes: &[Sandbox], name: &str) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    let all = |verb: &str| -> anyhow::Result<Vec<f64>> {
        sandboxes
            .iter()
            .enumerate()
            .map(|(number, sandbox)| plugin.call(verb, Some(sandbox), &format!("{name}-{number}")))
            .collect()
    };
    Ok((all("ADD")?, all("DEL")?))
}

/// Calls for all sandboxes at once; when the last one is done, in milliseconds.
fn at_once(plugin: &Plugin, sandboxes: &[Sandbox], verb: &str, name: &str) -> anyhow::Result<f64> {
    let start = Barrier::new(sandboxes.len() + 1);
    std::thread::scope(|scope| {
        let start = &start;
        let calls: Vec<_> = sandboxes
            .iter()
            .enumerate()
            .map(|(number, sandbox)| {
                scope.spawn(move || {
                    start.wait();
                    plugin.call(verb, Some(sandbox), &format!("{name}-{number}"))
                })
            })
            .collect();
        start.wait();
        let started = Instant::now();
        for call in calls {
            call.join().map_err(|_| anyhow::anyhow!("a thread broke off"))??;
        }
        Ok(lab::ms(started, Instant::now()))
    })
}

impl Plugin {
    /// One call, from the start of the program to its end, in milliseconds.
    fn call(&self, verb: &str, sandbox: Option<&Sandbox>, container: &str) -> anyhow::Result<f64> {
        let mut command = Command::new(&self.program);
        command.env_clear().env("CNI_COMMAND", verb).env("CNI_PATH", self.program.parent().unwrap_or(Path::new("/")));
        if let Some(sandbox) = sandbox {
            command.env("CNI_CONTAINERID", container).env("CNI_IFNAME", "eth0");
            command.env("CNI_NETNS", &sandbox.netns).env("CNI_ARGS", &sandbox.args);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let started = Instant::now();
        let mut child = command.spawn().with_context(|| format!("cannot start {}", self.program.display()))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(self.conf.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        let took = lab::ms(started, Instant::now());
        ensure!(output.status.success(), "{verb} failed: {}", String::from_utf8_lossy(&output.stdout));
        Ok(took)
    }
}

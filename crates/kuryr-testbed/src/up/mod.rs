//! An embedded cloud and Kubernetes that stay up for a person to play with, with the clients that they know.
//!
//! ```text
//!   the machine                     ┊ the testbed's own namespaces
//!   kubectl ──── 127.0.0.1:… ───────┊──▶ API server ◀──── 100.64.0.1 ── controller, daemons, pods
//!   openstack ── 127.0.0.1:… ───────┊──▶ Keystone, Neutron ◀──┘
//! ```
//!
//! A socket stays in the network namespace in which it was made: the two that the machine is to reach are bound before the
//! namespaces are entered. The catalog names whatever host a client came to, so both sides get URLs that they can reach.

pub mod exec;
mod files;

use crate::{
    cloud::Latency,
    dataplane::enter,
    interrupt::interrupted,
    world::{EmbeddedConfig, World},
};
use anyhow::Context;
use clap::ValueEnum;
use files::Files;
use std::{
    io::Write,
    net::{Ipv4Addr, TcpListener as StdListener},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};
use tokio::{net::TcpListener, runtime::Runtime};

/// Arguments.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// How many nodes
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=50))]
    pub nodes: u8,

    /// How long the cloud takes to answer
    #[arg(long, value_enum, default_value_t)]
    pub latency: Speed,

    /// Port number of the Kubernetes API on 127.0.0.1; 0 for any that is free
    #[arg(long, default_value_t = 0, value_name = "NUMBER")]
    pub kubernetes_port: u16,

    /// Port number of Keystone and Neutron on 127.0.0.1; 0 for any that is free
    #[arg(long, default_value_t = 0, value_name = "NUMBER")]
    pub cloud_port: u16,

    /// Folder for kubeconfig and clouds.yaml; without it a new one that goes in the end
    #[arg(long, value_name = "PATH")]
    pub folder: Option<PathBuf>,
}

/// How long the cloud takes to answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Speed {
    /// It answers at once.
    #[default]
    None,
    /// As long as a small real cloud was measured to take.
    Measured,
}

impl From<Speed> for Latency {
    fn from(speed: Speed) -> Self {
        match speed {
            Speed::None => Self::default(),
            Speed::Measured => Self::measured(),
        }
    }
}

/// Runs it until Ctrl-C or SIGTERM. Called first thing in `main`, while the process has one thread.
///
/// # Errors
/// Something does not start.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let kubernetes = listen(args.kubernetes_port, "--kubernetes-port")?;
    let cloud = listen(args.cloud_port, "--cloud-port")?;
    let inside = enter().context("the testbed's own namespaces")?;
    let runtime = Runtime::new()?;
    let served = runtime.block_on(serve(args, inside.directory(), kubernetes, cloud));
    runtime.shutdown_timeout(Duration::from_secs(5));
    served
}

/// A listener that the machine can reach.
fn listen(number: u16, option: &str) -> anyhow::Result<StdListener> {
    let listener = StdListener::bind((Ipv4Addr::LOCALHOST, number)).with_context(|| {
        format!("cannot listen on 127.0.0.1:{number}; give another port number with {option}, or 0")
    })?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn serve(args: &Args, netns: &Path, kubernetes: StdListener, cloud: StdListener) -> anyhow::Result<ExitCode> {
    let interrupted = interrupted()?;
    let mut interrupted = std::pin::pin!(interrupted);
    say("Starting a cloud, a cluster and Kuryr ...");
    // Pools as they are by default, and ports that a person recognizes.
    let settings = "[pools]\nport_names = true\n".to_owned();
    let (nodes, latency) = (args.nodes.into(), args.latency.into());
    let config = EmbeddedConfig { nodes, latency, settings, ..EmbeddedConfig::new(netns) };
    // What has been made when this is dropped goes with it.
    let world = tokio::select! {
        world = World::embedded(config) => world?,
        () = &mut interrupted => return Ok(ExitCode::SUCCESS),
    };
    let inside = world.inside()?;
    let cloud = inside.cloud.serve(TcpListener::from_std(cloud)?)?;
    let kubernetes = inside.api.serve(TcpListener::from_std(kubernetes)?)?;
    let files = Files::write(args.folder.as_deref(), &cloud, &kubernetes, inside.folder())?;
    say(&files.greeting(&cloud, &kubernetes, &world));
    interrupted.await;
    say("Ending it all ...");
    drop((cloud, kubernetes));
    world.shut_down().await.context("the world did not end")?;
    drop(files);
    Ok(ExitCode::SUCCESS)
}

/// That nobody reads it is no reason to stop.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}

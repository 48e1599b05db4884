//! The demonstration: what Kuryr does, shown to a person in about a minute.
//!
//! ```text
//!  begin ─▶ pods ─▶ traffic ─▶ services ─▶ policies ─▶ crowd ─▶ again ─▶ end        each chapter: what is about to be done, facts, claims
//! ```
//!
//! It is a story told on a [`World`], as a scenario is. All that it says holds was looked at; what does not hold ends it with exit
//! code 1.

mod again;
mod begin;
mod crowd;
mod end;
mod pods;
mod policies;
mod services;
mod show;
mod timeline;
mod traffic;

use crate::{
    cloud::{Latency, Provisioning},
    dataplane::enter,
    interrupt::interrupted,
    world::World,
};
use anyhow::{Context, anyhow};
use show::{Show, seconds};
use std::{path::Path, process::ExitCode, time::Duration};
use tokio::runtime::Runtime;

/// The exit code of a program that Ctrl-C has ended.
const INTERRUPTED: u8 = 130;

/// The addresses that pods get.
const POD_CIDR: &str = "10.10.0.0/20";

/// Arguments.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// A cloud that answers at once and a smaller crowd: the same story in a few seconds
    #[arg(long)]
    pub quick: bool,
}

impl Args {
    /// The cloud's calls take as long as a real one's were measured to take, unless it is to be quick.
    fn latency(&self) -> Latency {
        if self.quick { Latency::default() } else { Latency::measured() }
    }

    /// Those who make load balancers are quicker than real ones, which need 3 to 5 seconds for anything: nobody would wait.
    fn provisioning(&self) -> Provisioning {
        let (whole, object) = (Duration::from_millis(800), Duration::from_millis(50));
        let paced = Provisioning { create: whole, update: whole, delete: whole, failover: whole, object };
        if self.quick { Provisioning::default() } else { paced }
    }

    /// How many pods make a crowd.
    fn crowd(&self) -> usize {
        if self.quick { 8 } else { 20 }
    }
}

/// Runs it. Called first thing in `main`, while the process has one thread.
///
/// # Errors
/// Something does not work, or does not do what was claimed.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let inside = enter().context("the testbed's own namespaces")?;
    let runtime = Runtime::new()?;
    let told = runtime.block_on(tell(args, inside.directory()));
    runtime.shutdown_timeout(Duration::from_secs(5));
    told
}

async fn tell(args: &Args, netns: &Path) -> anyhow::Result<ExitCode> {
    let interrupted = interrupted()?;
    let mut interrupted = std::pin::pin!(interrupted);
    let show = Show::new();
    show.title(
        "Kuryr in about a minute",
        "Kuryr gives every Kubernetes pod a Neutron port, and so makes it what a virtual machine is: one more member of an OpenStack \
         network. No overlay on top of the cloud's overlay, no second address management. You will see Kuryr's own programs at work \
         on an embedded cloud and cluster, in network namespaces of their own: your machine stays as it is.",
    );
    // Whatever has been made when this is dropped goes with it.
    let started = tokio::select! {
        world = begin::world(&show, args, netns) => Some(world?),
        () = &mut interrupted => None,
    };
    let Some(mut world) = started else { return Ok(leave(&show)) };
    let told = tokio::select! {
        told = story(&show, args, &mut world) => Some(told),
        () = &mut interrupted => None,
    };
    let logs = if matches!(told, Some(Err(_))) { world.logs() } else { String::new() };
    let down = world.shut_down().await.context("the world did not end");
    match told {
        None => Ok(leave(&show)),
        Some(Err(error)) => Err(anyhow!("the demonstration failed: {error:#}\n\n{logs}")),
        Some(Ok(())) => {
            down?;
            farewell(&show);
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn story(show: &Show, args: &Args, world: &mut World) -> anyhow::Result<()> {
    begin::set_up(show, world).await?;
    begin::start_kuryr(show, world).await?;
    world.use_namespace("demo").await?;
    let timeline = timeline::Timeline::start(world)?;
    let some = pods::start(show, world, &timeline).await?;
    pods::ports(show, world, &some).await?;
    let vm = traffic::everyone(show, world, &some).await?;
    traffic::groups(show, world, &some, &vm).await?;
    services::one(show, world, &some, &vm).await?;
    policies::two_tiers(show, world, &some, &vm).await?;
    crowd::at_once(show, world, &timeline, args.crowd()).await?;
    crowd::controller_killed(show, world, &timeline, args.crowd()).await?;
    again::same_name(show, world).await?;
    end::status(show, world).await?;
    end::nothing_left(show, world, vm).await?;
    end::teardown(show, world).await
}

fn leave(show: &Show) -> ExitCode {
    show.gap();
    show.prose("Interrupted; all that was started is ended.");
    ExitCode::from(INTERRUPTED)
}

fn farewell(show: &Show) {
    let text = format!(
        "{} claims were made, each was looked at, all hold. It took {}.",
        show.claims(),
        seconds(show.elapsed())
    );
    show.chapter("Where to go next", &text);
    show.fact("make test", "every unit, property and scenario test: what happens when things go wrong");
    show.fact("make e2e", "the same scenarios on real OpenStack and real Kubernetes (root, Debian 12)");
    show.fact("make bench", "the budgets: how long a pod's start may take, and takes");
    show.fact("make up", "this cloud and cluster, left running for your kubectl and openstack clients");
    show.fact("docs/", "architecture.md: how it works; operating.md: how to run it");
    show.gap();
}

//! The budgets, measured: a table for people, JSON for machines.
//!
//! ```text
//!  cni         the real kuryr-cni against the real daemon, a hundred pods on a node without kubelet
//!  allocation  bound pod to KuryrPort, with a quick cloud and with one as slow as a real one
//!  pods        whole pods with the testbed's kubelet: times, calls, memory, sizes
//!  pools       port pools with a slow cloud, on bare metal and in virtual machines: hits, bursts, churn
//!  idle        nothing changes: nothing should be asked
//!  restart     the controller in a cluster of ten thousand pods: without pools, with them, nested
//!  services    Service to first answer, endpoints to effect, a thousand Services: times, calls, memory
//!  policies    NetworkPolicy to packets stopped and allowed, ten thousand pods with a thousand of them: times, calls, memory
//! ```
//!
//! Every group starts a world of its own. Figures are samples as they were taken; p50 and p99 are by nearest rank. Nothing
//! here fails because a budget is missed, unless `--strict` asks for it: a shared machine is slow for many reasons.

mod allocation;
mod cni;
mod figure;
mod idle;
mod lab;
mod machine;
mod metrics;
mod pods;
mod policies;
mod pools;
mod preload;
mod report;
mod restart;
mod seen;
mod services;

use crate::dataplane::enter;
use anyhow::Context;
use clap::ValueEnum;
use lab::Scale;
use machine::Machine;
use report::Report;
use std::{
    io::{Write, stderr, stdout},
    path::PathBuf,
    process::ExitCode,
    time::Instant,
};

/// Arguments.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// What to measure; all of it without one
    #[arg(value_enum)]
    groups: Vec<Group>,

    /// Fewer samples and 2,000 pods instead of 10,000: for a look, not for a comparison
    #[arg(long)]
    quick: bool,

    /// How long to watch an idle system; by default 120, with --quick 15
    #[arg(long, value_name = "SECONDS")]
    idle_seconds: Option<u64>,

    /// The folder for the JSON
    #[arg(long, value_name = "DIR", default_value = "bench/results")]
    output: PathBuf,

    /// The JSON's name; by default date and profile
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// Exit with 1 if a budget is missed
    #[arg(long)]
    strict: bool,

    /// Measure nothing: print the table of an earlier run from its JSON
    #[arg(long, value_name = "FILE", conflicts_with_all = ["groups", "quick", "strict"])]
    print: Option<PathBuf>,

    /// With --print: put the table into this document instead, in the place of the one that is there
    #[arg(long, value_name = "FILE", requires = "print")]
    into: Option<PathBuf>,
}

/// Parts that can be measured alone.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    Cni,
    Allocation,
    Pods,
    Pools,
    Idle,
    Restart,
    Services,
    Policies,
}

/// Runs it. Called first thing in `main`, while the process has one thread.
///
/// # Errors
/// Something does not work.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    if let Some(file) = &args.print {
        let report = Report::read(file)?;
        match &args.into {
            Some(document) => report.put_into(document)?,
            None => report.print(&mut stdout().lock())?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let inside = enter().context("the testbed's own namespaces")?;
    let runtime = tokio::runtime::Runtime::new()?;
    let scale = Scale {
        netns: inside.directory().to_owned(),
        quick: args.quick,
        idle_seconds: args.idle_seconds.unwrap_or(if args.quick { 15 } else { 120 }),
        many: if args.quick { 2_000 } else { 10_000 },
    };
    let groups = if args.groups.is_empty() { Group::value_variants() } else { &args.groups };
    let (machine, mut all) = (Machine::look(), Vec::new());
    for group in groups {
        let started = Instant::now();
        write!(stderr(), "measuring: {}", name(*group))?;
        let figures =
            runtime.block_on(measure(*group, &scale)).with_context(|| format!("measuring {}", name(*group)))?;
        writeln!(stderr(), ", took {:.0} s", started.elapsed().as_secs_f64())?;
        all.extend(figures);
    }
    let report = Report::new(machine, &all);
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    report.print(&mut stdout().lock())?;
    let file = report.save(&args.output, &args.name.unwrap_or_else(|| report.machine.run_name()))?;
    writeln!(stdout(), "All samples are in {}.", file.display())?;
    Ok(if args.strict && report.over() > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn name(group: Group) -> &'static str {
    match group {
        Group::Cni => cni::GROUP,
        Group::Allocation => allocation::GROUP,
        Group::Pods => pods::GROUP,
        Group::Pools => pools::GROUP,
        Group::Idle => idle::GROUP,
        Group::Restart => restart::GROUP,
        Group::Services => services::GROUP,
        Group::Policies => policies::GROUP,
    }
}

async fn measure(group: Group, scale: &Scale) -> anyhow::Result<Vec<figure::Figure>> {
    match group {
        Group::Cni => cni::measure(scale).await,
        Group::Allocation => allocation::measure(scale).await,
        Group::Pods => pods::measure(scale).await,
        Group::Pools => pools::measure(scale).await,
        Group::Idle => idle::measure(scale).await,
        Group::Restart => restart::measure(scale).await,
        Group::Services => services::measure(scale).await,
        Group::Policies => policies::measure(scale).await,
    }
}

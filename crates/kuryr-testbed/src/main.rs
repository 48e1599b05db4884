//! The command line of the testbed: try Kuryr, test it, measure it, with nothing but Linux.

use anyhow::Context;
use clap::{Parser, Subcommand};
use kuryr_testbed::{
    bench,
    cloud::HostKind,
    contract,
    dataplane::enter,
    demo,
    kubernetes::kubelet::command as kubelet,
    scenarios::{RealArgs, at_a_time, tell_in_real_world, trials, trials_apart},
    up,
    world::EmbeddedConfig,
};
use libtest_mimic::Arguments;
use std::{
    env::current_exe,
    io::{IsTerminal, stderr},
    process::ExitCode,
};

/// An embedded OpenStack and an embedded Kubernetes with Kuryr between them.
#[derive(Parser)]
#[command(name = "kuryr-testbed", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the scenarios, in the embedded world or, with --real, in the one that e2e/ has started
    Scenarios(Box<ScenariosArgs>),
    /// Hold a cloud to what Kuryr relies on of Keystone and Neutron: the embedded one, or with --clouds-file a real one
    Contract(ContractArgs),
    /// Show in about a minute what Kuryr does
    Demo(demo::Args),
    /// Measure the budgets
    Bench(bench::Args),
    /// Start an embedded cloud and Kubernetes with Kuryr and leave them running
    Up(up::Args),
    /// Run a command of this machine in the network of a pod of that world
    Exec(up::exec::Args),
    /// Be the kubelet of a node of a real Kubernetes whose pods are namespaces and processes of this machine
    Kubelet(kubelet::Args),
}

#[derive(clap::Args)]
struct ScenariosArgs {
    /// Run in the real world
    #[command(flatten)]
    real: RealArgs,

    /// Only scenarios whose name has this in it
    filter: Option<String>,

    /// Only the scenario of that very name, and in this process; without it each has a process of its own in the embedded world
    #[arg(long, requires = "filter", conflicts_with = "real")]
    exact: bool,
}

#[derive(clap::Args)]
struct ContractArgs {
    #[command(flatten)]
    real: contract::RealArgs,

    /// Only clauses whose name has this in it
    filter: Option<String>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "this is where the program speaks to a person")]
fn complain(text: &str) {
    eprintln!("kuryr-testbed: {text}");
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let filter = std::env::var("KURYR_LOG").unwrap_or_else(|_| "warn".to_owned());
    tracing_subscriber::fmt().with_ansi(stderr().is_terminal()).with_writer(stderr).with_env_filter(filter).init();
    match cli.command {
        Command::Scenarios(args) => scenarios(*args),
        Command::Contract(args) => Ok(contract(args)),
        Command::Demo(args) => demo::run(&args),
        Command::Bench(args) => bench::run(args),
        Command::Up(args) => up::run(&args),
        Command::Exec(args) => up::exec::run(&args),
        Command::Kubelet(args) => kubelet::run(&args),
    }
}

fn scenarios(args: ScenariosArgs) -> anyhow::Result<ExitCode> {
    let mut arguments =
        Arguments { test_threads: Some(1), filter: args.filter, exact: args.exact, ..Arguments::default() };
    if args.real.real {
        let held = tell_in_real_world(&arguments, &args.real.config()?);
        return Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let conclusion = if args.exact {
        let inside = enter().context("the testbed's own namespaces")?;
        libtest_mimic::run(&arguments, trials(&EmbeddedConfig::new(inside.directory())))
    } else {
        arguments.test_threads = Some(at_a_time());
        libtest_mimic::run(&arguments, trials_apart(&current_exe()?))
    };
    Ok(conclusion.exit_code())
}

fn contract(args: ContractArgs) -> ExitCode {
    let arguments = Arguments { test_threads: Some(contract::AT_A_TIME), filter: args.filter, ..Arguments::default() };
    let place = if args.real.clouds_file.is_some() {
        contract::Place::Real(args.real)
    } else {
        contract::Place::Embedded(HostKind::Ovs)
    };
    libtest_mimic::run(&arguments, contract::trials(&place)).exit_code()
}

//! The command line of Kuryr: reads the configuration, wires a process, prints for people.

mod audit;
mod can_reach;
mod cloud;
mod config;
mod controller;
mod crds;
mod daemon;
#[cfg(test)]
mod deploy_tests;
mod describe;
#[cfg(test)]
mod docs_tests;
mod http;
mod install;
mod kubernetes;
mod setup;
mod status;
mod view;
mod words;

use clap::{Parser, Subcommand};
use cloud::{CloudArgs, cluster_id};
use config::Config;
use kuryr_openstack::Options;
use std::{
    io::{stderr, stdout},
    path::{Path, PathBuf},
    process::ExitCode,
};

/// The most threads that work at once.
const MOST_THREADS: usize = 4;

/// Kuryr: pods, containers and virtual machines as equal citizens of one Neutron network.
#[derive(Parser)]
#[command(
    name = "kuryr",
    version,
    arg_required_else_help = true,
    max_term_width = 100,
    next_help_heading = "Options of all commands"
)]
struct Cli {
    /// The configuration file; without it /etc/kuryr/kuryr.toml, and if that is not there, the defaults
    #[arg(long, global = true, env = "KURYR_CONFIG", hide_env_values = true, value_name = "FILE")]
    config: Option<PathBuf>,

    /// How to reach Kubernetes; without it KUBECONFIG, ~/.kube/config, or the pod's service account
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// What is logged: error, warn, info, debug, trace, or a list such as info,kuryr_node=debug
    #[arg(
        long,
        global = true,
        env = "KURYR_LOG",
        hide_env_values = true,
        default_value = "info",
        value_name = "FILTER"
    )]
    log: String,

    /// Log one JSON object per line
    #[arg(long, global = true, env = "KURYR_LOG_JSON", hide_env_values = true)]
    log_json: bool,

    /// Tells two clusters in one project apart ([cluster] id); by default the UID of the namespace kube-system
    #[arg(long, global = true, value_name = "ID")]
    cluster_id: Option<String>,

    #[command(flatten, next_help_heading = "Options of commands that talk to OpenStack")]
    cloud: CloudArgs,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Setup(setup::SetupArgs),
    Status(status::StatusArgs),
    Audit(audit::AuditArgs),
    Describe(describe::DescribeArgs),
    CanReach(can_reach::CanReachArgs),
    Crds(crds::CrdsArgs),
    /// Put kuryr-cni and the network configuration where the runtime looks for them
    InstallCni(install::Args),
    /// Run the controller: it gives pods their ports and takes them back
    Controller(controller::Args),
    /// Run the daemon of a node: it plugs what the controller allocated
    Daemon(daemon::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Who only looks must tell "something is wrong" from "I could not look", as diff and grep do.
    let failed = match &cli.command {
        Command::Status(_) | Command::Audit(_) | Command::Describe(_) | Command::CanReach(_) => ExitCode::from(2),
        Command::Setup(args) if args.verify => ExitCode::from(2),
        _ => ExitCode::FAILURE,
    };
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            // One sentence for a person; the whole chain, but no backtrace.
            let mut text = error.to_string();
            for cause in error.chain().skip(1).map(ToString::to_string) {
                if !text.contains(&cause) {
                    text = format!("{text}: {cause}");
                }
            }
            complain(&text);
            failed
        }
    }
}

#[expect(clippy::print_stderr, reason = "this is where the program speaks to a person")]
fn complain(text: &str) {
    eprintln!("kuryr: {text}");
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    start_log(&cli.log, cli.log_json)?;
    let mut config = Config::read(cli.config.as_deref())?;
    config.openstack = cli.cloud.or(config.openstack);
    config.cluster.id = cli.cluster_id.or(config.cluster.id);
    // All of it waits far more than it works: a thread for each of a node's hundred cores would only cost memory.
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    let good = runtime.block_on(execute(cli.command, config, cli.kubeconfig.as_deref()))?;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the command; false if it found something wrong and has said so.
async fn execute(command: Command, config: Config, kubeconfig: Option<&Path>) -> anyhow::Result<bool> {
    let out = &mut stdout();
    let given = config.cluster.id.as_deref();
    match command {
        Command::Controller(args) => controller::run(args, config, kubeconfig).await?,
        Command::Daemon(args) => daemon::run(args, config, kubeconfig).await?,
        Command::InstallCni(args) => install::run(&args)?,
        Command::Crds(args) if args.apply => crds::apply(&kubernetes::connect(kubeconfig, "kuryr").await?, out).await?,
        Command::Crds(_) => crds::print(out)?,
        Command::Setup(args) => {
            let client = if given.is_some() { None } else { Some(kubernetes::connect(kubeconfig, "kuryr").await?) };
            let cluster = cluster_id(given, client.as_ref()).await?;
            let context = setup::Context {
                cluster_id: config.cluster.id.clone(),
                cloud: config.openstack.cloud.clone().or_else(|| std::env::var("OS_CLOUD").ok()),
                secret_dir: config.openstack.secret_dir.as_ref().map(|dir| dir.display().to_string()),
            };
            let cloud = config.openstack.connect(Options::default()).await?;
            if args.verify {
                let site = setup::verify::Site {
                    pod_subnets: config.network.pod_subnets,
                    ovsdb_socket: config.daemon.ovsdb_socket,
                    host: args.host,
                    patience: std::time::Duration::from_secs(args.patience),
                };
                return setup::verify::run(&site, &cluster, &cloud, out).await;
            }
            setup::run(&args, &context, &cluster, &cloud, out, &mut stderr()).await?;
        }
        Command::Status(args) => {
            let settings = status::Settings {
                cluster_id: config.cluster.id.clone(),
                services: config.services.to_config(),
                nested: config.network.nested_driver(),
                pod_subnets: config.network.pod_subnets,
                lease_namespace: config.controller.lease_namespace,
                lease_name: config.controller.lease_name,
                daemons: config.daemon.listen,
            };
            let cloud = config.openstack.connect(Options::default()).await;
            return status::run(&args, &settings, cloud, kubernetes::connect(kubeconfig, "kuryr").await, out).await;
        }
        Command::Audit(args) if args.node_only => return audit::run(&args, None, &config.daemon.socket, out).await,
        Command::Audit(args) => {
            let client = kubernetes::connect(kubeconfig, "kuryr").await?;
            let id = cluster_id(given, Some(&client)).await?;
            let cloud = config.openstack.connect(Options::default()).await?;
            let cluster = audit::Cluster { config: config.controller_config(id, String::new()), cloud, client };
            return audit::run(&args, Some(&cluster), &config.daemon.socket, out).await;
        }
        Command::Describe(args) => {
            let client = kubernetes::connect(kubeconfig, "kuryr").await?;
            let cluster = cluster_id(given, Some(&client)).await?;
            let cloud = config.openstack.connect(Options::default()).await?;
            let controller = config.controller_config(cluster, String::new());
            return describe::run(&args, &controller, &cloud, &client, out).await;
        }
        Command::CanReach(args) if !args.from_files.is_empty() => return can_reach::from_files(&args, out),
        Command::CanReach(args) => {
            let client = kubernetes::connect(kubeconfig, "kuryr").await?;
            return can_reach::live(&args, &client, config.openstack.connect(Options::default()).await, out).await;
        }
    }
    Ok(true)
}

fn start_log(filter: &str, json: bool) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(filter).map_err(|error| {
        anyhow::anyhow!("--log {filter:?} is no filter ({error}); use one like info or info,kuryr_node=debug")
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if json {
        builder.json().init();
    } else {
        builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}

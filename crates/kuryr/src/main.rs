//! The command line of Kuryr: reads the configuration, wires a process, prints for people.

mod cluster;
mod config;
mod connect;
mod controller;
mod daemon;
mod install;

use clap::{Parser, Subcommand};
use config::Config;
use std::{path::PathBuf, process::ExitCode};

/// Kuryr: pods, containers and virtual machines as equal citizens of one Neutron network.
#[derive(Parser)]
#[command(name = "kuryr", version, arg_required_else_help = true, max_term_width = 100)]
struct Cli {
    /// The configuration file; without it /etc/kuryr/kuryr.toml, and if that is not there, the defaults
    #[arg(long, global = true, env = "KURYR_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// How to reach Kubernetes; without it KUBECONFIG, ~/.kube/config, or the pod's service account
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// What is logged: error, warn, info, debug, trace, or a list such as info,kuryr_node=debug
    #[arg(long, global = true, env = "KURYR_LOG", default_value = "info", value_name = "FILTER")]
    log: String,

    /// Log one JSON object per line
    #[arg(long, global = true, env = "KURYR_LOG_JSON")]
    log_json: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the controller: give pods their ports and take them back
    Controller(controller::Args),
    /// Run the daemon of a node: plug what the controller allocated
    Daemon(daemon::Args),
    /// Put kuryr-cni and the network configuration where the container runtime looks for them
    InstallCni(install::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
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
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "this is where the program speaks to a person")]
fn complain(text: &str) {
    eprintln!("kuryr: {text}");
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    start_log(&cli.log, cli.log_json)?;
    let config = Config::read(cli.config.as_deref())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let kubeconfig = cli.kubeconfig.as_deref();
        match cli.command {
            Command::Controller(args) => controller::run(args, config, kubeconfig).await,
            Command::Daemon(args) => daemon::run(args, config, kubeconfig).await,
            Command::InstallCni(args) => install::run(&args),
        }
    })
}

fn start_log(filter: &str, json: bool) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(filter).map_err(|error| {
        anyhow::anyhow!("--log {filter:?} is no filter ({error}); use one like info or info,kuryr_node=debug")
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if json {
        builder.json().init()
    } else {
        builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init()
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

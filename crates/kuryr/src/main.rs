//! The command line of Kuryr.

mod audit;
mod cloud;
mod crds;
mod setup;
mod status;
mod view;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use cloud::CloudArgs;
use kube::Client;
use std::{
    io::{stderr, stdout},
    process::ExitCode,
};

/// Kuryr: pods on OpenStack networks
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    cloud: CloudArgs,
    /// Tells two clusters on one cloud apart; by default the UID of the namespace kube-system
    #[arg(long, global = true, value_name = "ID")]
    cluster_id: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Setup(setup::SetupArgs),
    Status(status::StatusArgs),
    Audit(audit::AuditArgs),
    Crds(crds::CrdsArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(stderr).with_max_level(tracing::Level::WARN).init();
    match run(&Cli::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: &Cli) -> anyhow::Result<bool> {
    let out = &mut stdout();
    let given = cli.cluster_id.as_deref();
    match &cli.command {
        Command::Crds(args) if !args.apply => crds::print(out).map(|()| true),
        Command::Crds(_) => crds::apply(&kubernetes().await?, out).await.map(|()| true),
        Command::Setup(args) => {
            let client = if given.is_some() { None } else { Some(kubernetes().await?) };
            let cluster = cloud::cluster_id(given, client.as_ref()).await?;
            let context = setup::Context {
                cluster_id: cli.cluster_id.clone(),
                cloud: cli.cloud.cloud.clone().or_else(|| std::env::var("OS_CLOUD").ok()),
                secret_dir: cli.cloud.secret_dir.as_ref().map(|dir| dir.display().to_string()),
            };
            let cloud = cli.cloud.connect().await?;
            setup::run(args, &context, &cluster, &cloud, out, &mut stderr()).await.map(|()| true)
        }
        Command::Status(args) => {
            let settings = status::Settings { cluster_id: cli.cluster_id.clone(), ..status::Settings::default() };
            status::run(args, &settings, cli.cloud.connect().await, kubernetes().await, out).await
        }
        Command::Audit(args) => {
            let client = kubernetes().await?;
            let cluster = cloud::cluster_id(given, Some(&client)).await?;
            audit::run(args, &cluster, &cli.cloud.connect().await?, &client, out).await
        }
    }
}

async fn kubernetes() -> anyhow::Result<Client> {
    Client::try_default().await.context("there is no usable kubeconfig: set KUBECONFIG")
}

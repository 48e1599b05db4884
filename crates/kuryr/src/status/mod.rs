//! `kuryr status`: is it working, and if not, why? On one screen.
//!
//! ```text
//!  Kubernetes ─┐
//!              ├─▶ collect ─▶ Facts ─▶ judge ─▶ checks ─▶ print, exit code
//!  OpenStack ──┘
//! ```
//!
//! What cannot be read is itself a fact: one thing that does not answer does not hide the others.

mod collect;
mod judge;
mod machines;
mod policies;
mod print;
mod services;

use crate::audit::Output;
use clap::Args;
use judge::State;
use kube::Client;
use kuryr_controller::ServicesConfig;
use kuryr_model::vif::PlugDriver;
use kuryr_openstack::Cloud;
use std::{io::Write, net::SocketAddr};

/// Say what works and what does not, and why; exit code 1 if something does not, 2 if that cannot be told
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct StatusArgs {
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

/// What the configuration says that status must know.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The cluster's id, if it is not the usual one.
    pub(crate) cluster_id: Option<String>,
    /// Names or ids of the pod subnets; none: those that setup made.
    pub(crate) pod_subnets: Vec<String>,
    /// How pods are plugged on nodes that do not say it themselves, where these are virtual machines.
    pub(crate) nested: Option<PlugDriver>,
    /// What is configured for Services.
    pub(crate) services: ServicesConfig,
    /// The controllers' Lease.
    pub(crate) lease_namespace: String,
    /// Its name.
    pub(crate) lease_name: String,
    /// Where daemons serve their health, on each node.
    pub(crate) daemons: SocketAddr,
}

/// Runs the command. True: all that was looked at works.
pub(crate) async fn run(
    args: &StatusArgs,
    settings: &Settings,
    cloud: anyhow::Result<Cloud>,
    client: anyhow::Result<Client>,
    out: &mut dyn Write,
) -> anyhow::Result<bool> {
    let facts = collect::collect(settings, cloud, client).await;
    let checks = judge::judge(&facts);
    match args.output {
        Output::Json => {
            serde_json::to_writer_pretty(&mut *out, &checks)?;
            writeln!(out)?;
        }
        Output::Text => print::text(&facts, &checks, out)?,
    }
    Ok(checks.iter().all(|check| check.state != State::Wrong))
}

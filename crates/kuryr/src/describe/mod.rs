//! `kuryr describe`: one object as Kubernetes and OpenStack see it, with all ids.

mod service;

use crate::audit::Output;
use clap::{Args, Subcommand};
use kube::Client;
use kuryr_controller::ControllerConfig;
use kuryr_model::ObjectKey;
use kuryr_openstack::Cloud;
use std::io::Write;

/// Show one object as Kubernetes and OpenStack see it, with ids
#[derive(Args, Clone, Debug)]
pub(crate) struct DescribeArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// A Service: its load balancers down to the members, its floating IP, what is left to do
    Service(ServiceArgs),
}

#[derive(Args, Clone, Debug)]
struct ServiceArgs {
    /// The Service
    #[arg(value_name = "NAMESPACE/NAME")]
    key: ObjectKey,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Runs the command. True: the object is as it should be.
pub(crate) async fn run(
    args: &DescribeArgs,
    config: &ControllerConfig,
    cloud: &Cloud,
    client: &Client,
    out: &mut dyn Write,
) -> anyhow::Result<bool> {
    let What::Service(args) = &args.what;
    service::describe(&args.key, args.output, config, cloud, client, out).await
}

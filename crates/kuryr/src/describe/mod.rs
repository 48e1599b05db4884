//! `kuryr describe`: one object as Kubernetes and OpenStack see it, with all ids.

mod pod;
mod policy;
mod service;

use crate::output::Output;
use clap::{Args, Subcommand};
use kube::Client;
use kuryr_controller::ControllerConfig;
use kuryr_model::ObjectKey;
use kuryr_openstack::Cloud;
use std::io::Write;

/// Show one object as Kubernetes and OpenStack see it, with ids; exit code 1 if it is not as it should be, 2 if that cannot be told
#[derive(Args, Clone, Debug)]
pub(crate) struct DescribeArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// A pod: its ports, how they are plugged, and on a virtual machine the trunk and VLAN id; where Neutron differs
    Pod(ObjectArgs),
    /// A Service: its load balancers down to the members, its floating IP, what is left to do
    Service(ObjectArgs),
    /// A NetworkPolicy: what it means, whom it isolates, its security groups and rules, where Neutron differs
    Policy(ObjectArgs),
}

#[derive(Args, Clone, Debug)]
struct ObjectArgs {
    /// The object
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
    match &args.what {
        What::Pod(args) => pod::describe(&args.key, args.output, cloud, client, out).await,
        What::Service(args) => service::describe(&args.key, args.output, config, cloud, client, out).await,
        What::Policy(args) => policy::describe(&args.key, args.output, config, cloud, client, out).await,
    }
}

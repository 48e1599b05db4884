//! `kuryr setup`: what a cloud needs before Kuryr can begin, made once, found again by tag, taken away whole.
//!
//! ```text
//!  options ─▶ Desired ─┐
//!                      ├─▶ plan ─▶ steps ─▶ waves ─▶ apply ─▶ observe again ... until there is no step left ─▶ configuration
//!  Neutron ─▶ Found ───┘
//! ```
//!
//! A plan has only the steps that can be taken now, and those that have nothing in common are taken at once. So a run that was cut off at any point is completed by the next,
//! and a run with nothing to do asks and changes nothing. Neutron tags most objects only after they are made: until
//! then the description says the same as the tags.

mod apply;
mod balancers;
mod observe;
mod order;
mod plan;
mod report;
mod teardown;
pub(crate) mod verify;

use crate::cloud::{named, only};
use anyhow::{Context as _, bail};
use clap::Args;
use futures::future::join_all;
use ipnet::IpNet;
use kuryr_model::{ClusterId, mark::Base, neutron::SecurityGroup};
use kuryr_openstack::{Class, Cloud, chain};
use kuryr_plan::service::Provider;
use plan::{Desired, Prefix, RouterWish, Step};
use std::{collections::BTreeSet, io::Write, time::Duration};

/// Make what Kuryr needs in OpenStack and print its configuration; may be repeated
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct SetupArgs {
    /// Addresses for pods, such as 10.128.0.0/16 or fd00:10:128::/64; may be given several times
    #[arg(long, value_name = "CIDR")]
    pub(crate) pod_cidr: Vec<IpNet>,
    /// Take the pods' addresses from this subnet pool; may be given several times
    #[arg(long, value_name = "NAME")]
    pub(crate) subnet_pool: Vec<String>,
    /// The addresses of Services, the same as Kubernetes' --service-cluster-ip-range; one of each family for dual stack
    #[arg(long, value_name = "CIDR")]
    pub(crate) service_cidr: Vec<IpNet>,
    /// Join the pods' subnets to this router instead of making a new one
    #[arg(long, value_name = "NAME", conflicts_with_all = ["no_router", "external_network"])]
    pub(crate) router: Option<String>,
    /// Make no router: pods reach only their own network
    #[arg(long, conflicts_with = "external_network")]
    pub(crate) no_router: bool,
    /// The external network through which the new router lets pods out
    #[arg(long, value_name = "NAME")]
    pub(crate) external_network: Option<String>,
    /// Largest packet on the pod network in bytes; by default Neutron's choice
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1280..=65535))]
    pub(crate) mtu: Option<u32>,
    /// Name of the pod network and its new router
    #[arg(long, default_value = "kuryr-pods")]
    pub(crate) name: String,
    /// Remove all that setup made; refused while pods still have ports
    #[arg(long)]
    pub(crate) teardown: bool,
    /// Prove with packets, on a node and as root, that this cloud enforces the rules that NetworkPolicies become; exit
    /// code 1 if it does not
    #[arg(long, conflicts_with_all = ["teardown", "pod_cidr", "subnet_pool", "service_cidr", "router", "no_router", "external_network", "mtu"])]
    pub(crate) verify: bool,
    /// With --verify: Neutron's name of this node; by default the host's name
    #[arg(long, value_name = "NAME", requires = "verify")]
    pub(crate) host: Option<String>,
    /// With --verify: how long a change may take until packets see it
    #[arg(long, value_name = "SECONDS", requires = "verify", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) patience: u64,
}

/// What the configuration that is printed has to repeat.
#[derive(Clone, Debug, Default)]
pub(crate) struct Context {
    /// The cluster's id, if it is not the usual one.
    pub(crate) cluster_id: Option<String>,
    /// The cloud's name in clouds.yaml, if there is one.
    pub(crate) cloud: Option<String>,
    /// The mounted secret, if there is one.
    pub(crate) secret_dir: Option<String>,
}

/// The most rounds of planning: there are four stages, and faults may repeat some.
const ROUNDS: usize = 12;
const PAUSE: Duration = Duration::from_secs(1);

/// Runs the command: the configuration goes to `out`, what is being done to `progress`.
pub(crate) async fn run(
    args: &SetupArgs,
    context: &Context,
    cluster: &ClusterId,
    cloud: &Cloud,
    out: &mut dyn Write,
    progress: &mut dyn Write,
) -> anyhow::Result<()> {
    if args.teardown {
        return teardown(cluster, cloud, out, progress).await;
    }
    let desired = desired(args, cluster, cloud).await?;
    let found = converge(cloud, cluster, progress, |found| Ok(plan::plan(&desired, found)?)).await?;
    let providers = if found.service_subnets.is_empty() { Vec::new() } else { providers(cloud).await };
    report::print(&desired, &found, context, &cloud.identity(), &providers, out)
}

/// The providers of Octavia, if somebody has to choose one of them. One that does not answer is no matter of setup's.
async fn providers(cloud: &Cloud) -> Vec<String> {
    let there = cloud.load_balancing().providers().await.unwrap_or_default();
    let names: Vec<String> = there.into_iter().map(|provider| provider.name).collect();
    let kinds: BTreeSet<Provider> = names.iter().map(|name| Provider::named(name)).collect();
    if kinds.len() > 1 { names } else { Vec::new() }
}

async fn teardown(
    cluster: &ClusterId,
    cloud: &Cloud,
    out: &mut dyn Write,
    progress: &mut dyn Write,
) -> anyhow::Result<()> {
    // Refused before anything is gone.
    let mut found = observe::observe(&cloud.network(), cluster).await?;
    let vips = kuryr_controller::remove::vip_ports(cloud, cluster).await?;
    found.ports.retain(|port| !vips.contains(&port.id));
    teardown::plan(&found)?;
    balancers::remove(cloud, cluster, progress).await?;
    converge(cloud, cluster, progress, |found| Ok(teardown::plan(found)?)).await?;
    writeln!(out, "nothing of cluster {cluster} is left in project {}", cloud.identity().project_name)?;
    Ok(())
}

/// Plans and applies until there is nothing to do; what was found then.
async fn converge(
    cloud: &Cloud,
    cluster: &ClusterId,
    progress: &mut dyn Write,
    plan: impl Fn(&plan::Found) -> anyhow::Result<Vec<Step>>,
) -> anyhow::Result<plan::Found> {
    let network = cloud.network();
    let mut last: Vec<Step> = Vec::new();
    let mut fault = None;
    for _ in 0..ROUNDS {
        let found = observe::observe(&network, cluster).await?;
        let steps = plan(&found)?;
        if steps.is_empty() {
            return Ok(found);
        }
        if fault.is_none() && steps == last {
            bail!("Neutron took these steps and they had no effect: {}", join(&steps));
        }
        fault = None;
        for wave in order::waves(&steps) {
            for step in &wave {
                writeln!(progress, "{step}")?;
            }
            let work = wave.iter().map(|step| apply::apply(&network, cluster, step));
            for (step, done) in wave.iter().zip(join_all(work).await) {
                match done {
                    Ok(()) => {}
                    // Whether it was done is seen in the next round.
                    Err(error) if matches!(error.class(), Class::RetryNow | Class::RetryLater { .. }) => {
                        writeln!(progress, "  cannot {step} ({}); looking again", chain(&error))?;
                        fault = Some(error);
                    }
                    Err(error) => return Err(error).with_context(|| format!("cannot {step}")),
                }
            }
            if fault.is_some() {
                tokio::time::sleep(PAUSE).await;
                break;
            }
        }
        last = steps;
    }
    match fault {
        Some(error) => Err(error).context("OpenStack does not work well enough to go on; run the same again later"),
        None => bail!("still not done after {ROUNDS} rounds: {}", join(&last)),
    }
}

fn join(steps: &[Step]) -> String {
    steps.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// What the options ask for, with names looked up.
async fn desired(args: &SetupArgs, cluster: &ClusterId, cloud: &Cloud) -> anyhow::Result<Desired> {
    let network = cloud.network();
    let mut prefixes: Vec<_> = args.pod_cidr.iter().map(|cidr| Prefix::Cidr(cidr.trunc())).collect();
    for name in &args.subnet_pool {
        let pool = only("subnet pool", name, network.subnet_pools().list(&named(name)).await?)?;
        let Some(prefix) = pool.prefixes.first() else { bail!("subnet pool {name:?} has no prefixes") };
        prefixes.push(Prefix::Pool { pool: pool.id, ipv6: prefix.addr().is_ipv6() });
    }
    let router = if args.no_router {
        RouterWish::None
    } else if let Some(name) = &args.router {
        RouterWish::Existing(only("router", name, network.routers().list(&named(name)).await?)?.id)
    } else {
        let external = match &args.external_network {
            Some(name) => {
                let filter = named(name).with("router:external", true);
                Some(only("external network", name, network.networks().list(&filter).await?)?.id)
            }
            None => None,
        };
        RouterWish::Own { external }
    };
    let services = args.service_cidr.iter().map(IpNet::trunc).collect();
    Ok(Desired { cluster: cluster.clone(), name: args.name.clone(), mtu: args.mtu, prefixes, services, router })
}

/// Whether a base security group has other rules than setup gives it.
pub(crate) fn group_differs(base: Base, group: &SecurityGroup) -> bool {
    !plan::group_rules(base, group).is_empty()
}

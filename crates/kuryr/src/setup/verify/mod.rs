//! `kuryr setup --verify`: does this cloud enforce the rules that NetworkPolicies become? Proven with packets.
//!
//! ```text
//!  three ports on this node ─▶ plugged as a pod's are, into namespaces of this process ─▶ a rule at a time ─▶ packets ─▶ ✓ or ✗
//!    server  carries the group under test
//!    member  may be named by rules, by its address or as a member of a group
//!    other   is named by none, and may always send: it shows that a packet that does not arrive was dropped there
//! ```
//!
//! A rule is enforced if what it means passes *and* what it does not mean is dropped, at the same time. Nothing is left
//! behind: everything that is made has one name, by which the next run finds what a run that was killed has left.

mod checks;
mod lab;
mod probe;

use crate::{
    cloud::{named, only},
    daemon::stop_on_signal,
};
use anyhow::{Context as _, bail};
use futures::future::try_join_all;
use kuryr_model::{
    ClusterId, Mark, Purpose,
    mark::Base,
    neutron::{Network, Subnet},
};
use kuryr_node::plug::PlugConfig;
use kuryr_openstack::{Cloud, Filter};
use lab::Lab;
use std::{collections::BTreeSet, io::Write, path::PathBuf, time::Duration};
use tokio_util::sync::CancellationToken;

/// What the configuration says of this node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Site {
    /// Names or ids of the pod subnets; none: those that setup made.
    pub(crate) pod_subnets: Vec<String>,
    /// The socket of Open vSwitch's database.
    pub(crate) ovsdb_socket: PathBuf,
    /// Neutron's name of this node; by default the host's name.
    pub(crate) host: Option<String>,
    /// How long a change may take until packets see it.
    pub(crate) patience: Duration,
}

/// Runs the test. True: every kind of rule is enforced.
pub(crate) async fn run(site: &Site, cluster: &ClusterId, cloud: &Cloud, out: &mut dyn Write) -> anyhow::Result<bool> {
    let stop = CancellationToken::new();
    stop_on_signal(&stop)?;
    let host = match &site.host {
        Some(host) => host.clone(),
        None => std::fs::read_to_string("/proc/sys/kernel/hostname")
            .context("the host's name cannot be read; give --host")?
            .trim()
            .to_owned(),
    };
    let (network, subnets) = pod_network(site, cluster, cloud).await?;
    let name = format!("kuryr-verify {cluster} {host}");
    let plug = PlugConfig { ovsdb_socket: site.ovsdb_socket.clone(), ..PlugConfig::default() };
    let mut lab = Lab::new(cloud.network(), name, plug)?;
    lab.clear().await.context("what an earlier run has left cannot be removed")?;
    let work = async {
        lab.build(&network, &subnets, &host).await?;
        let good = checks::run(&mut lab, site.patience, out).await?;
        Ok::<_, anyhow::Error>(good)
    };
    let outcome = tokio::select! {
        outcome = work => outcome,
        () = stop.cancelled() => Err(anyhow::anyhow!("stopped before its end")),
    };
    let cleared = lab.clear().await.context("the ports and groups of the test cannot be removed; run the same again");
    let good = outcome?;
    cleared?;
    match good {
        true => writeln!(out, "\nEvery rule that Kuryr uses is enforced on {host}.")?,
        false => writeln!(out, "\nNot every rule is enforced on {host}: NetworkPolicies do not hold in this cloud.")?,
    }
    Ok(good)
}

/// The network that pods of this cluster are on, with those of its subnets that pods have addresses of.
async fn pod_network(site: &Site, cluster: &ClusterId, cloud: &Cloud) -> anyhow::Result<(Network, Vec<Subnet>)> {
    let network = cloud.network();
    let subnets = if site.pod_subnets.is_empty() {
        let mark = Mark { cluster: cluster.clone(), purpose: Purpose::Base(Base::Pods) };
        network.subnets().list(&Filter::new().tags(mark.tags())).await?
    } else {
        let found =
            site.pod_subnets.iter().map(async |name| only("subnet", name, network.subnets().list(&named(name)).await?));
        try_join_all(found).await?
    };
    let Some(first) = subnets.first() else {
        bail!(
            "there is no pod subnet: run kuryr setup without --verify first, or name subnets in [network] pod_subnets"
        );
    };
    // One of each family, of one network.
    let mut families = BTreeSet::new();
    let of_first = subnets.iter().filter(|subnet| subnet.network_id == first.network_id);
    let chosen = of_first.filter(|subnet| families.insert(subnet.cidr.addr().is_ipv6())).cloned().collect();
    Ok((network.networks().get(first.network_id).await?, chosen))
}

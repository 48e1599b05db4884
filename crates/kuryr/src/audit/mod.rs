//! `kuryr audit`: is everything there that should be, and nothing else?
//!
//! ```text
//!  pods, KuryrPorts, nodes, Services ───────┐
//!  whatever in OpenStack has our mark ──────┼─▶ compare ─▶ findings ─▶ look again: what is still so ─▶ list, prune, exit code
//!  reports of nodes ────────────────────────┘
//! ```
//!
//! A working cluster is always a little behind itself: a port is made a moment before its `KuryrPort`. So a difference
//! counts only if it is still there after a while, and only such a one is ever pruned.

mod base;
mod compare;
mod fix;
mod machines;
mod node;
mod policies;
mod services;

pub(crate) use compare::Finding;

use crate::{cloud::named, output::Output, view::ClusterView};
use anyhow::{Context as _, ensure};
use base::Marked;
use clap::Args;
use compare::World;
use jiff::Timestamp;
use kube::Client;
use kuryr_controller::{ControllerConfig, policy_survey, survey::survey};
use kuryr_model::{
    KuryrPort, Mark, Purpose, Vif,
    mark::{Base, cluster_tag},
    neutron::Subnet,
};
use kuryr_openstack::{Cloud, Filter};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

/// Say what is missing, stray or different in Kubernetes, OpenStack and on this node; exit code 1 if anything is, 2 if that cannot be known
#[derive(Args, Clone, Debug)]
pub(crate) struct AuditArgs {
    /// Delete what nobody wants
    #[arg(long)]
    pub(crate) fix: bool,
    /// Look at this node alone, with nothing but its daemon: no way to Kubernetes or OpenStack is needed
    #[arg(long)]
    pub(crate) node_only: bool,
    /// Seconds for which a difference must last to count
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub(crate) settle: u64,
    /// What `kuryr audit --node-only -o json` found on another node, to list with the rest; may be repeated
    #[arg(long, value_name = "FILE")]
    pub(crate) node_report: Vec<PathBuf>,
    /// Socket of a daemon whose findings are listed, too; by default this machine's, if it is a node
    #[arg(long, value_name = "PATH")]
    pub(crate) daemon_socket: Vec<PathBuf>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

/// Where to look for all that is not on a node.
pub(crate) struct Cluster {
    /// What the controller is told: which cluster it is, and what Services should get.
    pub(crate) config: ControllerConfig,
    pub(crate) cloud: Cloud,
    pub(crate) client: Client,
}

/// Runs the command; without a cluster for nodes alone. True: nothing is wrong, or nothing any more.
pub(crate) async fn run(
    args: &AuditArgs,
    cluster: Option<&Cluster>,
    usual_socket: &Path,
    out: &mut dyn Write,
) -> anyhow::Result<bool> {
    let sockets = node::sockets(&args.daemon_socket, usual_socket);
    ensure!(
        cluster.is_some() || !sockets.is_empty(),
        "no daemon has a socket at {}; is this a node? --daemon-socket names another",
        usual_socket.display()
    );
    let mut findings = everywhere(cluster, &sockets).await?;
    if !findings.is_empty() && args.settle > 0 {
        tokio::time::sleep(Duration::from_secs(args.settle)).await;
        findings = compare::lasting(&findings, everywhere(cluster, &sockets).await?);
    }
    for path in &args.node_report {
        let text = std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
        let report: Vec<Reported> = serde_json::from_slice(&text)
            .with_context(|| format!("{} is not a node's report: a JSON list of findings", path.display()))?;
        findings.extend(report.into_iter().filter(|row| !row.fixed).map(|row| row.finding));
    }
    let findings = once(findings);
    let fixed = if args.fix { fix::prune(&findings, cluster).await } else { BTreeSet::new() };
    let row = |(at, finding)| Reported { finding, fixed: fixed.contains(&at) };
    let rows: Vec<Reported> = findings.into_iter().enumerate().map(row).collect();
    args.output.print(&rows, |rows, out| text(rows, out), out)?;
    Ok(rows.len() == fixed.len())
}

/// In a fixed order and each once: what is in a node's report may have been seen from here, too.
fn once(mut findings: Vec<Finding>) -> Vec<Finding> {
    // Of two the one that can be pruned from here.
    findings.sort_by(|a, b| (a.key(), &a.what, a.prune.is_none()).cmp(&(b.key(), &b.what, b.prune.is_none())));
    findings.dedup_by(|later, earlier| (later.key(), &later.what) == (earlier.key(), &earlier.what));
    findings
}

/// What is wrong in the cluster, and on the nodes whose daemons can be asked.
async fn everywhere(cluster: Option<&Cluster>, sockets: &[PathBuf]) -> anyhow::Result<Vec<Finding>> {
    let mut findings = match cluster {
        Some(cluster) => compare::compare(&look(cluster).await?),
        None => Vec::new(),
    };
    for socket in sockets {
        findings.extend(node::findings(socket).await?);
    }
    Ok(findings)
}

async fn look(cluster: &Cluster) -> anyhow::Result<World> {
    let Cluster { config, cloud, client } = cluster;
    let (id, network) = (&config.cluster, cloud.network());
    let ours = Filter::new().tags([cluster_tag(id)]);
    // OpenStack first: a port whose KuryrPort is made meanwhile is not stray.
    let mut ports = network.ports().list(&ours).await?;
    let groups = network.security_groups().list(&ours).await?;
    let marked = base_of(cluster).await?;
    let mut services = survey(config, cloud, client, None).await?;
    let policies = policy_survey::survey(config, cloud, client, &mut services).await?;
    let view = ClusterView::read(client).await?;
    // Those that are named and were not in the list: made since, not there, or without our tag.
    let known: BTreeSet<_> = ports.iter().map(|port| port.id).collect();
    let named = view.kuryr_ports.iter().flat_map(KuryrPort::port_ids);
    let unseen: Vec<_> = named.filter(|port| !known.contains(port)).collect();
    ports.extend(network.ports().list(&Filter::new().any("id", unseen)).await?);
    let carried = machines::carried(&view.kuryr_ports);
    let subports = |vifs: &[(&KuryrPort, &Vif)]| vifs.iter().any(|(_, vif)| vif.plug.vlan.is_some());
    let of: Vec<_> = carried.iter().filter(|(_, vifs)| subports(vifs)).map(|(parent, _)| *parent).collect();
    let trunks = network.trunks().list(&Filter::new().any("port_id", of)).await?;
    let mut pairs = BTreeMap::new();
    for parent in carried.iter().filter(|(_, vifs)| !subports(vifs)).map(|(parent, _)| *parent) {
        match network.address_pairs(parent).await {
            Ok(found) => drop(pairs.insert(parent, found.pairs)),
            // A machine that is gone: its pods' ports are what is wrong then.
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
    }
    let (now, pools) = (Timestamp::now(), config.pools.is_some());
    Ok(World { cluster: id.clone(), now, pools, view, ports, groups, trunks, pairs, marked, services, policies })
}

/// What has our mark, but ports of pods, security groups and load balancers.
async fn base_of(Cluster { config, cloud, .. }: &Cluster) -> anyhow::Result<Marked> {
    let network = cloud.network();
    let ours = Filter::new().tags([cluster_tag(&config.cluster)]);
    let mut found = Marked {
        networks: network.networks().list(&ours).await?,
        subnets: network.subnets().list(&ours).await?,
        routers: network.routers().list(&ours).await?,
        subnet_pools: network.subnet_pools().list(&ours).await?,
        floating_ips: network.floating_ips().list(&ours).await?,
        ..Marked::default()
    };
    let on_ours = Filter::new().any("network_id", found.networks.iter().map(|network| network.id));
    if !found.networks.is_empty() {
        let known: BTreeSet<_> = found.subnets.iter().map(|subnet| subnet.id).collect();
        let others = network.subnets().list(&on_ours).await?.into_iter().filter(|subnet| !known.contains(&subnet.id));
        found.subnets.extend(others);
        found.ports = network.ports().list(&on_ours).await?;
    }
    if !found.routers.is_empty() {
        let of_ours = Filter::new().any("device_id", found.routers.iter().map(|router| router.id));
        let known: BTreeSet<_> = found.ports.iter().map(|port| port.id).collect();
        let others = network.ports().list(&of_ours).await?.into_iter().filter(|port| !known.contains(&port.id));
        found.ports.extend(others);
    }
    found.pods = configured(cloud, config, &config.pod_subnets, Base::Pods, &found.subnets).await?;
    found.services = configured(cloud, config, &config.services.subnets, Base::Services, &found.subnets).await?;
    Ok(found)
}

/// The subnets that the configuration has for pods or for Services: those that it names, else those that were set up.
async fn configured(
    cloud: &Cloud,
    config: &ControllerConfig,
    names: &[String],
    base: Base,
    marked: &[Subnet],
) -> anyhow::Result<Vec<Subnet>> {
    let mut subnets = Vec::new();
    for name in names {
        subnets.extend(cloud.network().subnets().list(&named(name)).await?);
    }
    if names.is_empty() {
        let wanted = Some(Purpose::Base(base));
        let set_up = |subnet: &&Subnet| Mark::read(&config.cluster, &subnet.tags).map(|mark| mark.purpose) == wanted;
        subnets.extend(marked.iter().filter(set_up).cloned());
    }
    Ok(subnets)
}

/// A finding as programs read it.
#[derive(Deserialize, Serialize)]
struct Reported {
    #[serde(flatten)]
    finding: Finding,
    #[serde(default)]
    fixed: bool,
}

fn text(rows: &[Reported], out: &mut dyn Write) -> anyhow::Result<()> {
    for Reported { finding: Finding { kind, subject, id, what, fix, .. }, fixed } in rows {
        writeln!(out, "{:<9} {subject} {id}: {what}", kind.as_str())?;
        writeln!(out, "          {}", if *fixed { "deleted" } else { fix })?;
    }
    match rows.len() {
        0 => writeln!(out, "nothing is missing, stray or different")?,
        all => writeln!(out, "{all} found, {} fixed", rows.iter().filter(|row| row.fixed).count())?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{compare::Kind, *};

    fn finding(kind: Kind) -> Finding {
        Finding {
            kind,
            subject: "link".into(),
            id: "tap1".into(),
            what: "belongs to no pod".into(),
            fix: "ip link del tap1".into(),
            prune: None,
        }
    }

    #[test]
    fn a_person_reads_what_and_what_to_do() {
        let mut out = Vec::new();
        let row = |kind, fixed| Reported { finding: finding(kind), fixed };
        text(&[row(Kind::Stray, false), row(Kind::Missing, true)], &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "stray     link tap1: belongs to no pod\n          ip link del tap1\nmissing   link tap1: belongs to no \
             pod\n          deleted\n2 found, 1 fixed\n"
        );
    }

    #[test]
    fn what_a_nodes_report_has_too_is_told_once() {
        let here = Finding { prune: Some(compare::Prunable::OnNode("s".into())), ..finding(Kind::Stray) };
        let elsewhere = Finding { id: "tap2".into(), ..finding(Kind::Stray) };
        let all = vec![finding(Kind::Stray), elsewhere.clone(), here.clone(), finding(Kind::Missing)];
        assert_eq!(once(all), [finding(Kind::Missing), here, elsewhere]);
    }

    #[test]
    fn a_program_reads_the_same_and_nodes_write_it() {
        let mut out = Vec::new();
        let found = [Reported { finding: finding(Kind::Stray), fixed: false }];
        Output::Json.print(&found[..], text, &mut out).unwrap();
        let rows: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(rows[0]["kind"], "stray");
        assert_eq!(rows[0]["fixed"], false);
        let report: Vec<Reported> = serde_json::from_slice(&out).unwrap();
        assert_eq!(report[0].finding, finding(Kind::Stray));
    }
}

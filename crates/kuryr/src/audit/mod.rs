//! `kuryr audit`: is everything there that should be, and nothing else?
//!
//! ```text
//!  pods, KuryrPorts, nodes, Services ───────┐
//!  ports, security groups, load balancers ──┼─▶ compare ─▶ findings ─▶ look again: what is still so ─▶ list, prune, exit code
//!  reports of nodes ────────────────────────┘
//! ```
//!
//! A working cluster is always a little behind itself: a port is made a moment before its `KuryrPort`. So a difference
//! counts only if it is still there after a while, and only such a one is ever pruned.

mod compare;
mod fix;
mod node;
mod services;

pub(crate) use compare::Finding;

use crate::view::ClusterView;
use anyhow::Context as _;
use clap::{Args, ValueEnum};
use compare::World;
use jiff::Timestamp;
use kube::Client;
use kuryr_controller::{ControllerConfig, survey::survey};
use kuryr_model::{KuryrPort, mark::cluster_tag};
use kuryr_openstack::{Cloud, Filter};
use std::{
    collections::BTreeSet,
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    // For people. (Not a doc comment: clap would spread the help over twice as many lines for it.)
    #[default]
    Text,
    // For programs.
    Json,
}

/// Say what is missing, stray or different in Kubernetes, OpenStack and on this node; exit code 1 if anything is
#[derive(Args, Clone, Debug)]
pub(crate) struct AuditArgs {
    /// Delete what nobody wants
    #[arg(long)]
    pub(crate) fix: bool,
    /// Seconds for which a difference must last to count
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub(crate) settle: u64,
    /// What `kuryr audit -o json` found on another node, to list with the rest; may be repeated
    #[arg(long, value_name = "FILE")]
    pub(crate) node_report: Vec<PathBuf>,
    /// Socket of a daemon whose findings are listed, too; by default this machine's, if it is a node
    #[arg(long, value_name = "PATH")]
    pub(crate) daemon_socket: Vec<PathBuf>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

/// Runs the command. True: nothing is wrong, or nothing any more.
pub(crate) async fn run(
    args: &AuditArgs,
    config: &ControllerConfig,
    cloud: &Cloud,
    client: &Client,
    usual_socket: &Path,
    out: &mut dyn Write,
) -> anyhow::Result<bool> {
    let mut findings = compare::compare(&look(config, cloud, client).await?);
    if !findings.is_empty() && args.settle > 0 {
        tokio::time::sleep(Duration::from_secs(args.settle)).await;
        let again = compare::compare(&look(config, cloud, client).await?);
        findings = compare::lasting(&findings, again);
    }
    for path in &args.node_report {
        let text = std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
        let report: Vec<Finding> = serde_json::from_slice(&text)
            .with_context(|| format!("{} is not a node's report: a JSON list of findings", path.display()))?;
        findings.extend(report);
    }
    let on_nodes = on_nodes(&node::sockets(&args.daemon_socket, usual_socket), args.fix).await?;
    findings.extend(on_nodes);
    findings.sort();
    let fixed = if args.fix { fix::prune(&findings, cloud, client).await } else { BTreeSet::new() };
    match args.output {
        Output::Json => json(&findings, &fixed, out)?,
        Output::Text => text(&findings, &fixed, out)?,
    }
    Ok(findings.len() == fixed.len())
}

/// What is wrong on the nodes whose daemons can be asked; with `fix`, what is still wrong after they pruned.
async fn on_nodes(sockets: &[PathBuf], fix: bool) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for socket in sockets {
        let mut found = node::findings(socket).await?;
        if fix && !found.is_empty() {
            node::prune(socket).await?;
            found = node::findings(socket).await?;
        }
        findings.extend(found);
    }
    Ok(findings)
}

async fn look(config: &ControllerConfig, cloud: &Cloud, client: &Client) -> anyhow::Result<World> {
    let (cluster, network) = (&config.cluster, cloud.network());
    let ours = Filter::new().tags([cluster_tag(cluster)]);
    // OpenStack first: a port whose KuryrPort is made meanwhile is not stray.
    let mut ports = network.ports().list(&ours).await?;
    let groups = network.security_groups().list(&ours).await?;
    let services = survey(config, cloud, client, None).await?;
    let view = ClusterView::read(client).await?;
    // Those that are named and were not in the list: made since, not there, or without our tag.
    let known: BTreeSet<_> = ports.iter().map(|port| port.id).collect();
    let named = view.kuryr_ports.iter().flat_map(KuryrPort::port_ids);
    let unseen: Vec<_> = named.filter(|id| !known.contains(id)).collect();
    ports.extend(network.ports().list(&Filter::new().any("id", unseen)).await?);
    Ok(World { cluster: cluster.clone(), now: Timestamp::now(), view, ports, groups, services })
}

fn json(findings: &[Finding], fixed: &BTreeSet<usize>, out: &mut dyn Write) -> anyhow::Result<()> {
    #[derive(serde::Serialize)]
    struct Row<'a> {
        #[serde(flatten)]
        finding: &'a Finding,
        fixed: bool,
    }
    let row = |(at, finding)| Row { finding, fixed: fixed.contains(&at) };
    let rows: Vec<_> = findings.iter().enumerate().map(row).collect();
    serde_json::to_writer_pretty(&mut *out, &rows)?;
    writeln!(out)?;
    Ok(())
}

fn text(findings: &[Finding], fixed: &BTreeSet<usize>, out: &mut dyn Write) -> anyhow::Result<()> {
    for (at, Finding { kind, subject, id, what, fix, .. }) in findings.iter().enumerate() {
        writeln!(out, "{:<9} {subject} {id}: {what}", kind.as_str())?;
        let fix = if fixed.contains(&at) { "deleted" } else { fix };
        writeln!(out, "          {fix}")?;
    }
    match findings.len() {
        0 => writeln!(out, "nothing is missing, stray or different")?,
        all => writeln!(out, "{all} found, {} fixed", fixed.len())?,
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
        text(&[finding(Kind::Stray), finding(Kind::Missing)], &BTreeSet::from([1]), &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "stray     link tap1: belongs to no pod\n          ip link del tap1\nmissing   link tap1: belongs to no \
             pod\n          deleted\n2 found, 1 fixed\n"
        );
    }

    #[test]
    fn a_program_reads_the_same_and_nodes_write_it() {
        let mut out = Vec::new();
        json(&[finding(Kind::Stray)], &BTreeSet::new(), &mut out).unwrap();
        let rows: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(rows[0]["kind"], "stray");
        assert_eq!(rows[0]["fixed"], false);
        let report: Vec<Finding> = serde_json::from_slice(&out).unwrap();
        assert_eq!(report, [finding(Kind::Stray)]);
    }
}

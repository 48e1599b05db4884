//! `kuryr pools`: what the port pools of the active controller have, and orders to them.

use crate::{http::request, output::Output};
use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use kuryr_controller::{PoolReport, PoolRow};
use kuryr_model::NetworkId;
use kuryr_plan::pool::{HeldUp, PoolView};
use std::{
    io::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};
use tokio::{net::TcpStream, time::timeout};

/// How long the controller may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Show the port pools of the active controller, fill or drain those of a node
#[derive(Args, Clone, Debug)]
pub(crate) struct PoolsArgs {
    /// Where the active controller serves /metrics; by default this machine, at the number of [controller] listen
    #[arg(long, value_name = "ADDRESS:PORT", global = true)]
    pub(crate) controller: Option<SocketAddr>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
    #[command(subcommand)]
    pub(crate) order: Option<Order>,
}

#[derive(Subcommand, Clone, Debug)]
pub(crate) enum Order {
    /// Have so many ports ready on a node at least, until the controller restarts; only where the controller runs
    Fill {
        /// The node
        node: String,
        /// How many; 0: as many as demand says
        count: usize,
        /// Only the pool on this network
        #[arg(long, value_name = "ID")]
        network: Option<NetworkId>,
    },
    /// Delete the spare ports of a node and keep none there, until it is filled or the controller restarts; only where the controller runs
    Drain {
        /// The node
        node: String,
        /// Only the pool on this network
        #[arg(long, value_name = "ID")]
        network: Option<NetworkId>,
    },
}

/// Runs the command; `usual` is where a controller listens.
pub(crate) async fn run(args: &PoolsArgs, usual: SocketAddr, out: &mut dyn Write) -> anyhow::Result<()> {
    let at = args.controller.unwrap_or_else(|| SocketAddr::new(here(usual.ip()), usual.port()));
    let answer = match &args.order {
        None => ask(at, "GET", "/pools").await?,
        Some(order) => ask(at, "POST", &path(order)?).await?,
    };
    match (&args.order, args.output) {
        (Some(_), _) => write!(out, "{answer}")?,
        (None, Output::Json) => writeln!(out, "{answer}")?,
        (None, Output::Text) => {
            print(&serde_json::from_str(&answer).context("the controller is of another version")?, out)?;
        }
    }
    Ok(())
}

/// What listens everywhere listens here, too.
fn here(ip: IpAddr) -> IpAddr {
    match ip {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    }
}

fn path(order: &Order) -> anyhow::Result<String> {
    let (verb, node, network, count) = match order {
        Order::Fill { node, count, network } => ("fill", node, network, Some(count)),
        Order::Drain { node, network } => ("drain", node, network, None),
    };
    // As Kubernetes names nodes: nothing that an address would have to quote.
    if node.is_empty() || !node.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.')) {
        bail!("{node:?} is no node: kubectl get nodes lists them");
    }
    let network = network.map(|id| format!("&network={id}")).unwrap_or_default();
    let count = count.map(|count| format!("&count={count}")).unwrap_or_default();
    Ok(format!("/pools/{verb}?node={node}{network}{count}"))
}

async fn ask(at: SocketAddr, method: &str, path: &str) -> anyhow::Result<String> {
    let asked = async {
        let stream = TcpStream::connect(at).await?;
        request(stream, method, path).await
    };
    let advice = "--controller names another address; for one in a pod: kubectl -n kube-system exec deploy/kuryr-controller -- kuryr pools";
    let (status, body) = timeout(PATIENCE, asked)
        .await
        .map_err(anyhow::Error::from)
        .flatten()
        .with_context(|| format!("no controller answers at {at}; {advice}"))?;
    match status {
        200 => Ok(body),
        // Whoever else listens there may say nothing.
        _ if body.trim().is_empty() => bail!("what answers at {at} is no controller (HTTP {status}); {advice}"),
        _ => bail!("{}", body.trim()),
    }
}

/// A row for each pool, and what they have together.
fn print(report: &PoolReport, out: &mut dyn Write) -> anyhow::Result<()> {
    let width = report.pools.iter().map(|pool| pool.node.len()).max().unwrap_or(0).max(4);
    writeln!(
        out,
        "{:<width$}  {:<36}  {:>5}  {:>6}  {:>7}  {:>9}  {:>8}  {:>8}  {:>7}",
        "NODE", "NETWORK", "READY", "TARGET", "COOLING", "REFILLING", "HITS", "MISSES", "WAITING"
    )?;
    for PoolRow { node, place, network, view } in &report.pools {
        let PoolView { ready, cooling, refilling, target, hits, misses, waiting, drained, refused } = view;
        let network = network.to_string();
        let why = match (drained, refused) {
            (true, _) => "  drained",
            (_, true) => "  refused: see the controller's log",
            _ => "",
        };
        // Neutron knows the node by another name, or its pods are on its trunk.
        let at = if place == node { String::new() } else { format!("  {place}") };
        writeln!(
            out,
            "{node:<width$}  {network:<36}  {ready:>5}  {target:>6}  {cooling:>7}  {refilling:>9}  {hits:>8}  {misses:>8}  {waiting:>7}{at}{why}"
        )?;
    }
    writeln!(out, "\n{} spare ports of {} at most", report.held, report.budget)?;
    if report.short {
        writeln!(out, "Pods wait for the quota or for addresses: pools do not grow, and what comes free is for them.")?;
    }
    match report.held_up.filter(|_| !report.short) {
        Some(HeldUp::Quota) => writeln!(
            out,
            "Pools do not grow: what the quota of ports has left is for pods ([pools] reserve). Raise it: openstack quota set --ports N PROJECT"
        )?,
        Some(HeldUp::Addresses) => writeln!(
            out,
            "Pools do not grow: the addresses that the pod subnets have left are for pods ([pools] reserve). Add a subnet: kuryr setup --pod-cidr MORE"
        )?,
        Some(HeldUp::Cloud) => {
            writeln!(
                out,
                "Pools do not grow: Neutron did not make their last ports. It is tried again; the controller's log says why."
            )?;
        }
        None => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kuryr_controller::http::serve;
    use std::sync::Arc;
    use tokio::{net::TcpListener, sync::watch};

    #[test]
    fn a_report_is_a_table() {
        let row = PoolRow {
            node: "node0".into(),
            place: "trunk 00000000-0000-0000-0000-0000000000bb".into(),
            network: "00000000-0000-0000-0000-0000000000aa".parse().unwrap(),
            view: PoolView {
                ready: 2,
                cooling: 1,
                refilling: 0,
                target: 2,
                hits: 17,
                misses: 3,
                waiting: 0,
                drained: true,
                refused: false,
            },
        };
        let report = PoolReport {
            pools: vec![row],
            held: 3,
            budget: 500,
            leaving: 0,
            requests: 0,
            short: true,
            held_up: Some(HeldUp::Quota),
        };
        let told = |report: &PoolReport| {
            let mut text = Vec::new();
            print(report, &mut text).unwrap();
            String::from_utf8(text).unwrap()
        };
        let text = told(&report);
        for part in [
            "node0  00000000-0000-0000-0000-0000000000aa      2       2        1",
            "trunk 00000000-0000-0000-0000-0000000000bb  drained",
            "3 spare ports of 500",
            "Pods wait",
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
        assert!(!text.contains("Pools do not grow"), "once is enough:\n{text}");
        let grown = told(&PoolReport { short: false, ..report.clone() });
        assert!(grown.contains("Pools do not grow: what the quota"), "{grown}");
        let json = serde_json::to_string(&report).unwrap();
        assert!(json.contains(r#""heldUp":"quota""#), "{json}");
    }

    #[test]
    fn an_order_is_an_address() {
        let network = Some("00000000-0000-0000-0000-0000000000aa".parse().unwrap());
        let fill = Order::Fill { node: "node-0.a".into(), count: 7, network };
        assert_eq!(
            path(&fill).unwrap(),
            "/pools/fill?node=node-0.a&network=00000000-0000-0000-0000-0000000000aa&count=7"
        );
        assert!(path(&Order::Drain { node: "a&count=9".into(), network: None }).is_err());
    }

    #[tokio::test]
    async fn somebody_else_at_the_address_is_no_controller() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let other = says_nothing(listener);
        let args = PoolsArgs { controller: Some(at), output: Output::Text, order: None };
        let mut out = Vec::new();
        let (told, ()) = tokio::join!(run(&args, at, &mut out), other);
        let error = told.unwrap_err().to_string();
        assert!(error.contains("is no controller (HTTP 404)"), "{error}");
    }

    /// Answers once, with nothing.
    async fn says_nothing(listener: TcpListener) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 10];
        stream.read_exact(&mut head).await.unwrap();
        stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        stream.shutdown().await.unwrap();
    }

    #[tokio::test]
    async fn a_controller_that_stands_by_says_so() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (_health, told) = watch::channel(None);
        tokio::spawn(serve(listener, told, Arc::default()));
        let args = PoolsArgs { controller: None, output: Output::Text, order: None };
        let everywhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), at.port());
        let error = run(&args, everywhere, &mut Vec::new()).await.unwrap_err();
        assert!(error.to_string().contains("stands by"), "{error}");
        let order = Some(Order::Drain { node: "node0".into(), network: None });
        assert!(run(&PoolsArgs { order, ..args }, everywhere, &mut Vec::new()).await.is_err());
    }
}

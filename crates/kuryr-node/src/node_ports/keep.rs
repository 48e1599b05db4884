//! Keeps the kernel's table as it has to be.

use super::{
    forwarding, health,
    index::Index,
    listing, nft,
    ruleset::Ruleset,
    script,
    stale::Changed,
    state::Part,
    watch::{self, Report},
};
use crate::{
    events::{About, Event, Reason},
    netlink::{conntrack::Conntrack, tables::Tables},
    netns,
    node::Node,
    plug::error::chain,
};
use kube::Client;
use kuryr_model::vif::PlugDriver;
use std::{collections::HashSet, net::IpAddr, time::Duration};
use tokio::time::{Instant, sleep_until};

/// Time between two looks at the table if nothing tells of a change.
const CHECK: Duration = Duration::from_secs(60);

/// A change of the table, which may be our own, is looked at this much later.
const SETTLE: Duration = Duration::from_secs(1);

/// Changes of Services that follow each other faster are made together.
const PACE: Duration = Duration::from_millis(100);

/// After a failure it is tried again within this time.
const LONGEST_RETRY: Duration = Duration::from_secs(60);

const UNTOLD: &str = "cannot be told of changes of nftables; they are looked for every minute";

/// Keeps node ports until it is dropped. The rules stay: traffic goes on while the daemon is restarted, and the next one
/// corrects what has become wrong.
pub async fn keep<P>(node: &Node<P>, client: Client) {
    let index = Index::new(&node.name);
    let report = Report { metrics: &node.metrics, state: &node.node_ports };
    let keeper = Keeper { node, index: &index, applied: None, repairs: 0 };
    tokio::join!(
        watch::services(&client, &index, report),
        watch::slices(&client, &index, report),
        health::serve(&index, &node.node_ports),
        keeper.run()
    );
}

/// Takes away the rules that a daemon with other settings has left.
pub async fn remove<P>(node: &Node<P>) {
    if let Err(error) = clear().await {
        node.node_ports.set(Part::Rules, Some(format!("cannot remove the rules: {}", chain(&error))));
    }
}

/// Takes the table away if there is one.
async fn clear() -> Result<(), nft::Error> {
    match nft::list().await {
        Ok(None) => Ok(()),
        Ok(Some(_)) => nft::run(&script::remove()).await,
        // Where nft does not work, nobody can have made any rules; and none are wanted.
        Err(error) => {
            tracing::debug!(error = chain(&error), "nft does not work here");
            Ok(())
        }
    }
}

struct Keeper<'a, P> {
    node: &'a Node<P>,
    index: &'a Index,
    /// What is in the kernel; unknown at first, and after a failure.
    applied: Option<Ruleset>,
    /// How often in a row somebody else had changed the table.
    repairs: u32,
}

impl<P> Keeper<'_, P> {
    async fn run(mut self) {
        let mut tables = match Tables::open(script::TABLE) {
            Ok(tables) => Some(tables),
            Err(error) => {
                tracing::warn!(error = chain(&error), "{UNTOLD}");
                None
            }
        };
        let mut failures = 0;
        let (mut apply_at, mut not_before, mut check_at) = (None, Instant::now(), Instant::now() + CHECK);
        loop {
            let due = apply_at.map_or(check_at, |at: Instant| at.min(check_at));
            tokio::select! {
                () = self.index.changed.notified() => {
                    apply_at.get_or_insert(not_before);
                }
                () = self.node.ports.touched.notified() => {
                    apply_at.get_or_insert(not_before);
                }
                () = told(&mut tables) => check_at = check_at.min(Instant::now() + delay(SETTLE, self.repairs)),
                () = sleep_until(due) => {
                    let check = check_at <= Instant::now();
                    if check {
                        check_at = Instant::now() + CHECK;
                    }
                    apply_at = None;
                    let settled = self.settle(check).await;
                    not_before = Instant::now() + PACE;
                    self.node.node_ports.set_works(settled.is_ok() && self.applied.is_some());
                    failures = if settled.is_ok() { 0 } else { failures + 1 };
                    if failures > 0 {
                        apply_at = Some(Instant::now() + delay(SETTLE, failures - 1));
                    }
                    let problem = match settled {
                        Ok(()) => self.applied.as_ref().and_then(forwarding::problem),
                        Err(error) => Some(chain(&error)),
                    };
                    self.tell(problem);
                }
            }
        }
    }

    fn tell(&self, problem: Option<String>) {
        let note = problem.clone();
        if self.node.node_ports.set(Part::Rules, problem) {
            let note = note.unwrap_or_default();
            self.node.events.publish(Event { about: About::Node, reason: Reason::NodePortsFailed, note });
        }
    }

    /// Makes the table what it has to be; nothing is done as long as that is not known. With `check`, the table is looked
    /// at first.
    async fn settle(&mut self, check: bool) -> Result<(), nft::Error> {
        let Some(wanted) = self.index.rules(|| self.routed()) else { return Ok(()) };
        if check {
            self.compare().await?;
        }
        if self.applied.as_ref() == Some(&wanted) { Ok(()) } else { self.apply(wanted).await }
    }

    /// The addresses of pods behind routed taps: what they answer passes the node. `None` while that is not known.
    fn routed(&self) -> Option<HashSet<IpAddr>> {
        let ports = &self.node.ports;
        let taps = |ports: Vec<std::sync::Arc<kuryr_model::KuryrPort>>| {
            let vifs = ports.iter().flat_map(|port| &port.spec.vifs);
            let taps = vifs.filter(|vif| vif.plug.driver == PlugDriver::Tap);
            taps.flat_map(|vif| vif.addresses.iter().map(|address| address.ip)).collect()
        };
        ports.synced().then(|| taps(ports.all()))
    }

    /// Forgets what is in the kernel if that is no longer what we put there.
    async fn compare(&mut self) -> Result<(), nft::Error> {
        let Some(applied) = self.applied.as_ref().filter(|applied| !applied.is_empty()) else { return Ok(()) };
        let same = match nft::list().await? {
            Some(answer) => listing::is(&answer, applied)?,
            None => false,
        };
        if same {
            self.repairs = 0;
        } else {
            tracing::warn!(
                table = script::TABLE,
                "somebody has changed or removed the rules of node ports; they are made anew"
            );
            self.node.metrics.node_ports_repairs.inc();
            self.repairs = self.repairs.saturating_add(1);
            self.applied = None;
        }
        Ok(())
    }

    async fn apply(&mut self, wanted: Ruleset) -> Result<(), nft::Error> {
        let started = Instant::now();
        let old = self.applied.take();
        let made = old.as_ref().filter(|old| !old.is_empty());
        let result = match made {
            None if wanted.is_empty() => clear().await,
            Some(_) if wanted.is_empty() => nft::run(&script::remove()).await,
            Some(old) => match nft::run(&script::changes(old, &wanted)).await {
                // The table is not what we think it is.
                Err(nft::Error::Refused { .. }) => nft::run(&script::fresh(&wanted)).await,
                done => done,
            },
            None => nft::run(&script::fresh(&wanted)).await,
        };
        let metrics = &self.node.metrics;
        result.inspect_err(|_| _ = metrics.node_ports_failures.inc())?;
        metrics.node_ports_applied(wanted.len(), started.elapsed());
        tracing::debug!(rules = wanted.len(), took = ?started.elapsed(), "node ports are up to date");
        forget(Changed::between(old.as_ref(), &wanted)).await;
        self.applied = Some(wanted);
        Ok(())
    }
}

/// Has the kernel forget connections that are stale. What cannot be forgotten ends when its client pauses.
async fn forget(changed: Changed) {
    let work = move || {
        for v6 in changed.families() {
            let mut conntrack = Conntrack::open()?;
            let stale = conntrack.udp(v6, |connection| changed.is_stale(connection))?;
            for connection in &stale {
                conntrack.forget(connection, v6)?;
            }
            if !stale.is_empty() {
                tracing::debug!(connections = stale.len(), "forgot UDP connections of node ports that have changed");
            }
        }
        Ok::<_, crate::netlink::Error>(())
    };
    let problem = match netns::spawn(work).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => chain(&error),
        Err(error) => chain(&error),
    };
    tracing::warn!(problem, "cannot forget UDP connections of node ports that have changed");
}

/// Waits for word of a change of the table; for ever where there is none to come.
async fn told(tables: &mut Option<Tables>) {
    let Some(open) = tables else { return std::future::pending().await };
    if let Err(error) = open.changed().await {
        tracing::warn!(error = chain(&error), "{UNTOLD}");
        *tables = None;
    }
}

/// Twice as long each time.
fn delay(first: Duration, times: u32) -> Duration {
    first.saturating_mul(1 << times.min(16)).min(LONGEST_RETRY)
}

//! Finds the ports of nodes that are virtual machines: the one that a pod waits for at once, and all others before any pod asks, in a few
//! requests, for a node may be full by then, and its trunk is to have a pool.

use super::Machines;
use crate::error::PodError;
use kuryr_model::{
    PortId,
    neutron::{Port, Trunk},
    vif::PlugDriver,
};
use kuryr_openstack::{Error as CloudError, Filter};
use kuryr_plan::nested::{Found, Machine, ParentError, Pods, Question};
use parking_lot::Mutex;
use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, sleep_until};

/// How long it is not looked again for a machine that was not found: its other pods ask for it, too.
const NOT_AGAIN: Duration = Duration::from_secs(5);

/// What becomes known within this time is looked for together.
const GATHER: Duration = Duration::from_millis(100);

/// The first and the longest time after which what was not found is looked for again, if no pod asks for it before.
const AGAIN: (Duration, Duration) = (Duration::from_secs(6), Duration::from_secs(60));

/// What is known of one node.
#[derive(Default)]
pub(super) struct Slot {
    /// Of the one who looks for it.
    turn: tokio::sync::Mutex<()>,
    last: Mutex<Option<Look>>,
}

/// What came of looking for a machine's port.
struct Look {
    /// What the node said.
    machine: Machine,
    found: Result<Found, PodError>,
    at: Instant,
}

/// What is known of a machine's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    /// Not yet what there is, or something has shown that it is otherwise.
    NotYet,
    /// That there is none as the node says.
    Nothing,
    /// This.
    Found(Found),
}

impl Machines {
    /// The port of a node that is a virtual machine, and what its pods are there.
    pub(crate) async fn find(&self, node: &str, machine: &Machine) -> Result<Found, PodError> {
        let slot = self.slot(node);
        let _turn = slot.turn.lock().await;
        if let Some(last) = slot.last.lock().as_ref().filter(|last| last.machine == *machine)
            && match &last.found {
                Ok(found) => self.holds(found),
                Err(_) => last.at.elapsed() < NOT_AGAIN,
            }
        {
            return last.found.clone();
        }
        let found = self.look(machine).await;
        self.remember(node, &slot, machine, found)
    }

    /// What was found when the node was looked for last.
    pub(crate) fn sight(&self, node: &str, machine: &Machine) -> Sight {
        let Some(slot) = self.state.lock().slots.get(node).cloned() else { return Sight::NotYet };
        let last = slot.last.lock();
        match last.as_ref().filter(|last| last.machine == *machine).map(|last| &last.found) {
            Some(Ok(found)) if self.holds(found) => Sight::Found(*found),
            Some(Ok(_) | Err(PodError::Cloud(_))) | None => Sight::NotYet,
            Some(Err(_)) => Sight::Nothing,
        }
    }

    /// There is no such port any more: whose it was is looked for anew.
    pub(super) fn vanished(&self, parent: PortId) {
        let slots: Vec<Arc<Slot>> = self.state.lock().slots.values().cloned().collect();
        for slot in slots {
            let is = |last: &mut Look| last.found.as_ref().is_ok_and(|found| found.parent.port_id == parent);
            slot.last.lock().take_if(is);
        }
        self.news.send_replace(());
    }

    /// Looks for all machines that are not found, for ever: at once when there are new ones or something has shown that it is otherwise, and
    /// from time to time.
    pub(crate) async fn seek(&self) {
        let (mut nodes, mut news) = (self.index.nodes_changed.subscribe(), self.news.subscribe());
        let mut missed: HashMap<String, Arc<Machine>> = HashMap::new();
        let (mut again, mut pause) = (Instant::now(), AGAIN.0);
        loop {
            let missing = self.missing();
            let is_new = missing.iter().any(|(node, machine)| missed.get(node) != Some(machine));
            if is_new || (!missing.is_empty() && again <= Instant::now()) {
                pause = if is_new { AGAIN.0 } else { AGAIN.1.min(2 * pause) };
                if let Err(error) = self.find_all(missing).await {
                    tracing::warn!(reason = %error, "the ports of nodes that are virtual machines cannot be looked for; trying again");
                }
                missed = self.missing();
                again = Instant::now() + pause;
            } else {
                missed = missing;
            }
            let due = async {
                match missed.is_empty() {
                    true => std::future::pending().await,
                    false => sleep_until(again).await,
                }
            };
            tokio::select! {
                // Whoever tells lives as long as this.
                _ = nodes.changed() => sleep(GATHER).await,
                _ = news.changed() => sleep(GATHER).await,
                () = due => {}
            }
        }
    }

    fn missing(&self) -> HashMap<String, Arc<Machine>> {
        let found = |node: &str, machine: &Machine| matches!(self.sight(node, machine), Sight::Found(_));
        self.index.machines().into_iter().filter(|(node, machine)| !found(node, machine)).collect()
    }

    /// Looks for machines in a few requests.
    async fn find_all(&self, machines: HashMap<String, Arc<Machine>>) -> Result<(), CloudError> {
        let (mut ids, mut servers, mut addresses) = (Vec::new(), Vec::new(), Vec::new());
        for machine in machines.values() {
            match machine.question() {
                Ok(Question::Id(port)) => ids.push(port),
                Ok(Question::Device(server)) => servers.push(server),
                Ok(Question::Addresses(ips)) => addresses.extend(ips),
                // It says why below.
                Err(_) => {}
            }
        }
        let network = self.network.background();
        let mut ports: Vec<Port> = Vec::new();
        for (filter, asks) in [
            (Filter::new().any("id", &ids), !ids.is_empty()),
            (Filter::new().any("device_id", &servers), !servers.is_empty()),
            (self.by_address(&addresses), !addresses.is_empty()),
        ] {
            if asks {
                ports.extend(network.ports().list(&filter).await?);
            }
        }
        // One may be an answer to two questions.
        ports.sort_by_key(|port| port.id);
        ports.dedup_by_key(|port| port.id);
        // A cloud may have no trunks at all.
        let trunks = if machines.values().any(|machine| machine.driver == PlugDriver::Vlan) {
            self.trunks_of(ports.iter().map(|port| port.id)).await?
        } else {
            Vec::new()
        };
        for (node, machine) in machines {
            let slot = self.slot(&node);
            let _turn = slot.turn.lock().await;
            // A pod's look for it is newer.
            if !matches!(self.sight(&node, &machine), Sight::Found(_)) {
                let judged = machine.question().map_err(PodError::from);
                let found = judged.and_then(|_| self.judge(&machine, &ports, &trunks));
                // Why it is not found it tells whoever asks.
                let _ = self.remember(&node, &slot, &machine, found);
            }
        }
        Ok(())
    }

    fn slot(&self, node: &str) -> Arc<Slot> {
        self.state.lock().slots.entry(node.to_owned()).or_default().clone()
    }

    /// Remembers what was found of a machine, and has the room of its trunk known.
    fn remember(
        &self,
        node: &str,
        slot: &Slot,
        machine: &Machine,
        found: Result<(Found, Option<Trunk>), PodError>,
    ) -> Result<Found, PodError> {
        let found = found.map(|(found, trunk)| {
            tracing::info!(node, port = %found.parent.port_id, pods = ?found.pods, "found the port of a node that is a virtual machine");
            if let Some(trunk) = trunk {
                self.begin(trunk.port_id, trunk.id);
                self.trunks.watch(trunk.id, trunk.sub_ports);
            }
            found
        });
        *slot.last.lock() = Some(Look { machine: machine.clone(), found: found.clone(), at: Instant::now() });
        self.news.send_replace(());
        found
    }

    async fn look(&self, machine: &Machine) -> Result<(Found, Option<Trunk>), PodError> {
        let ports = self.network.ports().list(&self.filter(machine.question()?)).await?;
        let trunks = if machine.driver == PlugDriver::Vlan {
            self.trunks_of(ports.iter().map(|port| port.id)).await?
        } else {
            Vec::new()
        };
        self.judge(machine, &ports, &trunks)
    }

    /// The ports that may be the answer.
    fn filter(&self, question: Question) -> Filter {
        match question {
            Question::Id(port) => Filter::new().with("id", port),
            Question::Device(server) => Filter::new().with("device_id", server),
            Question::Addresses(ips) => self.by_address(&ips),
        }
    }

    fn by_address(&self, ips: &[IpAddr]) -> Filter {
        let by_address = Filter::new().any("fixed_ips", ips.iter().map(|ip| format!("ip_address={ip}")));
        self.project.iter().fold(by_address, |filter, project| filter.with("project_id", project))
    }

    /// The port of a machine, and its trunk, among those that Neutron has shown.
    fn judge(&self, machine: &Machine, ports: &[Port], trunks: &[Trunk]) -> Result<(Found, Option<Trunk>), PodError> {
        let found = machine.parent(ports, trunks)?;
        match found.pods {
            Pods::Pairs | Pods::Addresses if !self.networks.contains(&found.network) => {
                let (driver, port, network) = (machine.driver, found.parent.port_id, found.network);
                Err(ParentError::NoSubnet { driver, port, network }.into())
            }
            Pods::Pairs | Pods::Addresses => Ok((found, None)),
            Pods::Subports(id) => Ok((found, trunks.iter().find(|trunk| trunk.id == id).cloned())),
        }
    }

    pub(super) async fn trunks_of(&self, parents: impl IntoIterator<Item = PortId>) -> Result<Vec<Trunk>, CloudError> {
        self.network.trunks().list(&Filter::new().any("port_id", parents)).await
    }
}

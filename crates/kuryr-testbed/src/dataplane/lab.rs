//! A place for tests with packets, and worlds to try there.

use super::{
    Agent, Fabric, Inside, Snapshot, Vm, VmPort,
    model_tests::{NODES, id, world},
};
use fastrand::Rng;
use kuryr_model::{
    NetworkId, PortId, SecurityGroupId, VifAddress,
    neutron::{Direction, EtherType, RuleContent},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::sync::watch;

/// For what must arrive.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// For what must not arrive: long enough on a busy machine for what would.
pub(super) const SILENCE: Duration = Duration::from_millis(400);

/// Nodes, an agent and a VM for each port of a world.
pub(super) struct Lab {
    pub(super) vms: BTreeMap<PortId, Vm>,
    pub(super) desired: watch::Sender<Arc<Snapshot>>,
    pub(super) working: watch::Receiver<BTreeSet<PortId>>,
    pub(super) agent: Agent,
    pub(super) fabric: Fabric,
}

impl Lab {
    pub(super) async fn start(inside: &Inside, world: &Snapshot) -> Self {
        let fabric = Fabric::new(inside.directory(), &NODES).unwrap();
        let (desired, wanted) = watch::channel(Arc::new(world.clone()));
        let (report, working) = watch::channel(BTreeSet::new());
        let agent = Agent::start(&fabric, wanted, move |port, works| {
            report.send_modify(|working: &mut BTreeSet<PortId>| {
                let _ = if works { working.insert(port) } else { working.remove(&port) };
            });
        });
        let mut lab = Self { vms: BTreeMap::new(), desired, working, agent: agent.unwrap(), fabric };
        for port in world.ports.keys() {
            lab.boot(inside, *port).await;
        }
        lab.settled(world).await;
        lab
    }

    pub(super) async fn boot(&mut self, inside: &Inside, id: PortId) {
        let world = self.desired.borrow().clone();
        let port = &world.ports[&id];
        let address = |ip: &IpAddr| {
            let subnet = world.subnets.values().find(|subnet| subnet.net.contains(ip)).unwrap();
            VifAddress { ip: *ip, prefix_length: subnet.net.prefix_len(), gateway: subnet.net.hosts().next() }
        };
        let vm = VmPort {
            id,
            network: NetworkId(id.0),
            mac: port.mac,
            mtu: 1442,
            addresses: port.ips.iter().map(address).collect(),
        };
        let name = format!("vm-{id}");
        let vm = Vm::start(inside.directory(), &name, self.fabric.node(&port.host).unwrap(), vm).await.unwrap();
        self.vms.insert(id, vm);
    }

    /// Waits until the ports that should work do.
    pub(super) async fn settled(&mut self, world: &Snapshot) {
        let up: BTreeSet<PortId> =
            world.ports.iter().filter(|(id, port)| port.up && self.vms.contains_key(id)).map(|(id, _)| *id).collect();
        let settled = self.working.wait_for(|working| *working == up);
        tokio::time::timeout(Duration::from_secs(10), settled).await.expect("ports do not work").unwrap();
    }

    /// Changes the world, and waits until the nodes have followed.
    pub(super) async fn follow(&mut self, world: &Snapshot) {
        let world = Arc::new(world.clone());
        self.desired.send_replace(Arc::clone(&world));
        self.agent.applied(&world).await;
        self.settled(&world).await;
    }

    pub(super) fn netns(&self, id: PortId) -> &Path {
        self.vms[&id].netns()
    }
}

pub(super) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

pub(super) fn everything(world: &mut Snapshot) {
    let open = SecurityGroupId(id(1));
    let rules = [Direction::Ingress, Direction::Egress].into_iter().flat_map(|direction| {
        [EtherType::IPv4, EtherType::IPv6].map(|family| RuleContent::everything(direction, family))
    });
    world.groups = [(open, rules.collect())].into();
    for port in world.ports.values_mut() {
        (port.up, port.port_security, port.groups) = (true, true, [open].into());
        port.pairs.clear();
    }
}

/// A world of that many ports on the first, joined subnet where everything is allowed.
pub(super) fn open_world(ports: u64) -> Snapshot {
    let mut world = world(&mut Rng::with_seed(1), ports);
    everything(&mut world);
    for (number, port) in world.ports.values_mut().enumerate() {
        port.host = NODES[number % 2].into();
        port.ips = vec![
            format!("10.0.0.{}", 10 + number).parse().unwrap(),
            format!("fd00::{:x}", 10 + number).parse().unwrap(),
        ];
    }
    world
}

pub(super) fn port(number: u64) -> PortId {
    PortId(id(number))
}

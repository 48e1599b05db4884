//! A place for tests with packets, and worlds to try there.

use super::{
    Agent, Fabric, Inside, Listener, LoadBalancer, Member, Provider, Snapshot, Vm, VmPort,
    model_tests::{NODES, id, world},
    probe::{self, Answer, Datagrams, Echo},
};
use fastrand::Rng;
use kuryr_model::{
    NetworkId, PortId, SecurityGroupId, VifAddress,
    neutron::{Direction, EtherType, RuleContent},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
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

pub(super) const VIP: &str = "10.0.0.220";
pub(super) const VIP_V6: &str = "fd00::dc";

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Where a port of [`open_world`] has its addresses.
pub(super) fn own(number: u64, v6: bool) -> IpAddr {
    ip(&if v6 { format!("fd00::{:x}", 9 + number) } else { format!("10.0.0.{}", 9 + number) })
}

pub(super) fn member(ip: IpAddr) -> Member {
    Member { ip, number: 8080, weight: 1, online: true }
}

/// Port number 80 of both virtual addresses, over TCP and UDP, with these ports of the world at 8080 behind it.
pub(super) fn balancer(provider: Provider, members: &[u64]) -> LoadBalancer {
    let members: Vec<Member> =
        members.iter().flat_map(|number| [false, true].map(|v6| member(own(*number, v6)))).collect();
    let listener =
        |protocol| Listener { protocol, number: 80, clients: Vec::new(), sticky: false, members: members.clone() };
    LoadBalancer { provider, vips: vec![ip(VIP), ip(VIP_V6)], listeners: vec![listener(6), listener(17)] }
}

pub(super) fn vip(v6: bool) -> SocketAddr {
    SocketAddr::new(ip(if v6 { VIP_V6 } else { VIP }), 80)
}

/// Servers on these ports at 8080, each named by its number.
pub(super) async fn serve(lab: &Lab, members: &[u64]) -> Vec<Echo> {
    let mut echoes = Vec::new();
    for number in members {
        for v6 in [false, true] {
            let address = SocketAddr::new(own(*number, v6), 8080);
            echoes.push(probe::listen_as(lab.netns(port(*number)), address, &number.to_string()).await.unwrap());
        }
    }
    echoes
}

/// Who answers a connection and a datagram.
pub(super) async fn ask(netns: &Path, target: SocketAddr, patience: Duration) -> [Result<Answer, probe::Error>; 2] {
    let datagram = async { Datagrams::open(netns, None, target).await?.who(patience).await };
    tokio::join!(probe::who(netns, target, patience), datagram).into()
}

pub(super) async fn answers(netns: &Path, target: SocketAddr) -> [Answer; 2] {
    ask(netns, target, PATIENCE).await.map(|answer| answer.unwrap_or_else(|error| panic!("{target}: {error:?}")))
}

pub(super) async fn nobody_answers(netns: &Path, target: SocketAddr) {
    for answer in ask(netns, target, SILENCE).await {
        assert!(answer.is_err(), "{target}: {answer:?}");
    }
}

pub(super) fn group(number: u64) -> SecurityGroupId {
    SecurityGroupId(id(number))
}

pub(super) fn toward(address: IpAddr, number: u16, direction: Direction) -> RuleContent {
    let family = if address.is_ipv4() { EtherType::IPv4 } else { EtherType::IPv6 };
    RuleContent {
        protocol: Some("tcp".into()),
        port_range_min: Some(number),
        port_range_max: Some(number),
        remote_ip_prefix: Some(address.into()),
        ..RuleContent::everything(direction, family)
    }
}

/// Lets a port ask nothing but what these rules say; it may be asked everything.
pub(super) fn restrict(world: &mut Snapshot, number: u64, rules: Vec<RuleContent>) {
    let ingress = [EtherType::IPv4, EtherType::IPv6].map(|family| RuleContent::everything(Direction::Ingress, family));
    let own = group(100 + number);
    world.groups.insert(own, [ingress.to_vec(), rules].concat());
    world.ports.get_mut(&port(number)).unwrap().groups = [own].into();
}

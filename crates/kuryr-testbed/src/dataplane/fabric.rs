//! Simulated nodes and the wires between them.

use super::Error;
use kuryr_model::MacAddress;
use kuryr_node::{
    netlink::{
        Socket, address,
        link::{self, By, End},
        monitor::Subscription,
        neighbour,
        route::{self, Route},
        sysctl,
    },
    netns,
};
use nix::unistd::gettid;
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::Duration,
};

/// The testbed's own address, as every node and pod sees it: API servers listen here.
pub const CORE: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);

/// The same over IPv6.
pub const CORE_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x64, 0, 0, 0, 0, 0, 1);

/// Name of every node's end of its wire.
pub(super) const WIRE: &str = "core";

/// The Ethernet address of every wire's end in the core.
const CORE_MAC: MacAddress = MacAddress([0x02, 0x64, 0, 0, 0, 1]);

/// Index of the loopback in every namespace.
pub(super) const LOOPBACK: u32 = 1;

/// How long a wire may take to run; it is a matter of milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// Wide enough for any network's MTU, in bytes.
const MTU: u32 = 9000;

/// Nodes with wires between them. Dropping it removes them.
#[derive(Debug)]
pub struct Fabric {
    nodes: Vec<Node>,
    outside: PathBuf,
}

/// A simulated node.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name, which is its Neutron host too.
    pub name: String,
    /// Its network namespace.
    pub netns: PathBuf,
    /// Its address on the fabric.
    pub address: Ipv4Addr,
    /// Its IPv6 address on the fabric.
    pub address_v6: Ipv6Addr,
}

impl Node {
    fn addresses(&self) -> [IpAddr; 2] {
        [self.address.into(), self.address_v6.into()]
    }

    /// Its address of the same family.
    #[must_use]
    pub fn address_like(&self, like: IpAddr) -> IpAddr {
        if like.is_ipv4() { self.address.into() } else { self.address_v6.into() }
    }
}

impl Fabric {
    /// Makes nodes of these names, their namespaces bound to files in `directory`, and joins them in the calling thread's
    /// namespace.
    ///
    /// # Errors
    /// The kernel refused; what was made is removed.
    pub fn new(directory: &Path, names: &[&str]) -> Result<Self, Error> {
        let mut core = Socket::open()?;
        forwarding()?;
        let own = [IpAddr::from(CORE), CORE_V6.into()];
        core.run(&own.map(|ip| address::add(LOOPBACK, ip.into())))?;
        let mut fabric = Self { nodes: Vec::new(), outside: format!("/proc/self/task/{}/ns/net", gettid()).into() };
        for (number, name) in names.iter().enumerate() {
            fabric.add(&mut core, directory, number, name)?;
        }
        Ok(fabric)
    }

    fn add(&mut self, core: &mut Socket, directory: &Path, number: usize, name: &str) -> Result<(), Error> {
        let place = place(number);
        let [high, low] = place.to_be_bytes();
        let node = Node {
            name: name.to_owned(),
            netns: directory.join(name),
            address: Ipv4Addr::new(100, 64, high, low),
            address_v6: Ipv6Addr::new(0xfd00, 0x64, 0, 0, 0, 0, 1, place),
        };
        if node.netns.exists() {
            return Err(Error::Taken(node.netns));
        }
        netns::create(&node.netns)?;
        self.nodes.push(node.clone());
        let namespace = netns::Namespace::open(&node.netns)?;
        let (wire, mac) = (core_end(number), mac(number));
        let near = End { name: &wire, mac: Some(CORE_MAC), mtu: MTU };
        let far = End { name: WIRE, mac: Some(mac), mtu: MTU };
        core.run(&[
            link::veth(&near, &far, Some(namespace.as_fd())),
            link::without_autoconf(By::Name(&wire)),
            link::up(By::Name(&wire)),
        ])?;
        let near = index(core, &wire)?;
        let events = Subscription::open()?;
        netns::run(&node.netns, || inside(&node))??;
        if !events.wait_running(core, near, PATIENCE)? {
            let doing = format!("join node {} to the core", node.name);
            return Err(Error::Prepare { doing, source: std::io::ErrorKind::TimedOut.into() });
        }
        // Nobody on a wire need ask who has an address.
        let routes = node
            .addresses()
            .into_iter()
            .flat_map(|ip| [neighbour::permanent(near, ip, mac), route::add(&Route::on(ip.into(), near))]);
        Ok(core.run(&routes.collect::<Vec<_>>())?)
    }

    /// The nodes in the order in which they were named.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The namespace of the core, where probes are outside of the cloud. It is there for as long as the thread that made
    /// the fabric.
    #[must_use]
    pub fn outside(&self) -> &Path {
        &self.outside
    }

    /// Leads packets from outside to `address` to a node, as an operator's router would. Ends with the fabric.
    ///
    /// # Errors
    /// [`Error::NoNode`], or the kernel refused.
    pub fn lead(&self, address: IpAddr, node: &str) -> Result<(), Error> {
        let number = self.nodes.iter().position(|there| there.name == node);
        let number = number.ok_or_else(|| Error::NoNode(node.to_owned()))?;
        let mut core = Socket::open()?;
        let near = index(&mut core, &core_end(number))?;
        let way = Route::on(address.into(), near);
        Ok(core.run(&[neighbour::permanent(near, address, mac(number)), route::add(&way)])?)
    }

    /// The node of that name.
    ///
    /// # Errors
    /// [`Error::NoNode`]
    pub fn node(&self, name: &str) -> Result<&Node, Error> {
        self.nodes.iter().find(|node| node.name == name).ok_or_else(|| Error::NoNode(name.to_owned()))
    }
}

impl Drop for Fabric {
    fn drop(&mut self) {
        // What cannot be removed is gone already, or goes with the testbed's namespace.
        if let Ok(mut core) = Socket::open() {
            for number in 0..self.nodes.len() {
                let _ = core.remove_link(By::Name(&core_end(number)));
            }
            let own = [IpAddr::from(CORE), CORE_V6.into()];
            let _ = core.run(&own.map(|ip| address::delete(LOOPBACK, ip.into())));
        }
        for node in &self.nodes {
            if let Err(error) = netns::delete(&node.netns) {
                tracing::warn!(node = node.name, %error, "a node's namespace stays");
            }
        }
    }
}

/// What tells the addresses of the node of that number from others'.
fn place(number: usize) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX).saturating_add(257)
}

/// The Ethernet address of that node's end of its wire.
fn mac(number: usize) -> MacAddress {
    let [high, low] = place(number).to_be_bytes();
    MacAddress([0x02, 0x64, 0, 0, high, low])
}

/// Name of the core's end of the wire to the node of that number.
pub(super) fn core_end(number: usize) -> String {
    format!("node{number}")
}

/// The inside of a node: its end of the wire, a default route to the core, and settings of a router.
fn inside(node: &Node) -> Result<(), Error> {
    forwarding()?;
    let mut socket = Socket::open()?;
    let wire = index(&mut socket, WIRE)?;
    let mut requests = vec![link::without_autoconf(By::Index(wire)), link::up(By::Index(wire))];
    requests.extend(node.addresses().map(|ip| address::add(wire, ip.into())));
    for core in [IpAddr::from(CORE), CORE_V6.into()] {
        requests.push(neighbour::permanent(wire, core, CORE_MAC));
        requests.push(route::add(&Route::via(route::everywhere(core), core, wire)));
    }
    Ok(socket.run(&requests)?)
}

fn forwarding() -> Result<(), Error> {
    for (name, value) in [
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv6/conf/all/forwarding", "1"),
        // Sources are checked by rules, per port; the kernel's own check knows no allowed address pairs.
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/default/rp_filter", "0"),
        // All pods are behind one router: there is no shorter way to tell them of.
        ("net/ipv4/conf/all/send_redirects", "0"),
        ("net/ipv4/conf/default/send_redirects", "0"),
    ] {
        sysctl::set(name, value)?;
    }
    Ok(())
}

pub(super) fn index(socket: &mut Socket, name: &str) -> Result<u32, Error> {
    let missing = || Error::Prepare { doing: format!("find {name}"), source: std::io::ErrorKind::NotFound.into() };
    Ok(socket.link(By::Name(name))?.ok_or_else(missing)?.index)
}

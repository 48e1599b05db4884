//! Simulated nodes and the wires between them.

use super::Error;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use kuryr_node::{
    netlink::{
        Socket, address,
        link::{self, By, End},
        route::{self, Route},
        sysctl,
    },
    netns,
};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsFd,
    path::{Path, PathBuf},
};

/// The testbed's own address, as every node and pod sees it: API servers listen here.
pub const CORE: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);

/// The same over IPv6.
pub const CORE_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x64, 0, 0, 0, 0, 0, 1);

const LENGTH_V4: u8 = 16;
const LENGTH_V6: u8 = 64;

/// Name of the bridge in the core, and of every node's interface to it.
pub(super) const WIRE: &str = "core";

/// Wide enough for any network's MTU, in bytes.
const MTU: u32 = 9000;

/// Nodes with wires between them. Dropping it removes them.
#[derive(Debug)]
pub struct Fabric {
    nodes: Vec<Node>,
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
        core.run(&[link::bridge(WIRE), link::without_autoconf(By::Name(WIRE)), link::mtu(By::Name(WIRE), MTU)])?;
        let mut fabric = Self { nodes: Vec::new() };
        let bridge = index(&mut core, WIRE)?;
        let mut requests = vec![link::up(By::Index(bridge))];
        requests.extend(addresses(bridge, CORE, CORE_V6));
        core.run(&requests)?;
        for (number, name) in names.iter().enumerate() {
            fabric.add(&mut core, bridge, directory, number, name)?;
        }
        Ok(fabric)
    }

    fn add(
        &mut self,
        core: &mut Socket,
        bridge: u32,
        directory: &Path,
        number: usize,
        name: &str,
    ) -> Result<(), Error> {
        let place = u16::try_from(number).unwrap_or(u16::MAX) + 257;
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
        let port = format!("node{number}");
        let near = End { name: &port, mac: None, mtu: MTU };
        let far = End { name: WIRE, mac: None, mtu: MTU };
        core.run(&[
            link::veth(&near, &far, Some(namespace.as_fd())),
            link::without_autoconf(By::Name(&port)),
            link::master(By::Name(&port), bridge),
            link::up(By::Name(&port)),
        ])?;
        netns::run(&node.netns, || inside(&node))??;
        Ok(())
    }

    /// The nodes in the order in which they were named.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
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
        let wires = (0..self.nodes.len()).map(|number| format!("node{number}")).chain([WIRE.to_owned()]);
        if let Ok(mut core) = Socket::open() {
            for wire in wires {
                // Already gone, or goes with the testbed's namespace.
                let _ = core.remove_link(By::Name(&wire));
            }
        }
        for node in &self.nodes {
            if let Err(error) = netns::delete(&node.netns) {
                tracing::warn!(node = node.name, %error, "a node's namespace stays");
            }
        }
    }
}

/// The inside of a node: its end of the wire, a default route to the core, and settings of a router.
fn inside(node: &Node) -> Result<(), Error> {
    forwarding()?;
    let mut socket = Socket::open()?;
    let wire = index(&mut socket, WIRE)?;
    let mut requests = vec![link::without_autoconf(By::Index(wire)), link::up(By::Index(wire))];
    requests.extend(addresses(wire, node.address, node.address_v6));
    for core in [IpAddr::from(CORE), CORE_V6.into()] {
        requests.push(route::add(&Route::via(route::everywhere(core), core, wire)));
    }
    Ok(socket.run(&requests)?)
}

fn addresses(index: u32, v4: Ipv4Addr, v6: Ipv6Addr) -> impl Iterator<Item = kuryr_node::netlink::Request> {
    let nets = [IpNet::V4(Ipv4Net::new_assert(v4, LENGTH_V4)), IpNet::V6(Ipv6Net::new_assert(v6, LENGTH_V6))];
    nets.into_iter().map(move |net| address::add(index, net))
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

//! The veth pair of a VIF: made in one conversation with the kernel, removed by its owner.
//!
//! Everything here blocks and changes its thread's namespace: it runs on threads made by [`crate::netns::spawn`].

use super::{
    PlugError, announce,
    layout::Layout,
    mark::{HostEnd, HostEndKind, Owner, host_end_name},
};
use crate::{
    netlink::{
        Socket, address,
        link::{self, By, End},
        monitor::Subscription,
        neighbour, offload,
        route::{self, Route},
        route_monitor::RouteSubscription,
        socket::Request,
        sysctl,
    },
    netns::Namespace,
};
use ipnet::IpNet;
use kuryr_model::{Vif, vif::PlugDriver};
use nix::errno::Errno;
use std::{
    net::{IpAddr, Ipv6Addr},
    path::Path,
    time::Duration,
};

/// How long a link may take to run; it is a matter of milliseconds.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// What to make, and where.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    pub(super) vif: Vif,
    pub(super) layout: Layout,
    pub(super) owner: Owner,
    /// Whether the switch needs checksums filled in.
    pub(super) fill_checksums: bool,
}

/// Enters the namespace of the host ends and opens a socket there.
pub(super) fn host(namespace: Option<&Path>) -> Result<Socket, PlugError> {
    if let Some(path) = namespace {
        Namespace::open(path)?.enter()?;
    }
    Ok(Socket::open()?)
}

/// A pair that was made.
#[derive(Debug)]
pub(super) struct Made {
    /// Index of the host end.
    pub(super) link: u32,
    /// Of the host end's namespace, from before there was the host end.
    pub(super) routes: RouteSubscription,
}

/// Makes the pair, with its far end in `sandbox` ready to be used. Undoes what it made if it fails.
pub(super) fn make(pair: &Pair, host_netns: Option<&Path>, sandbox: &Path) -> Result<Made, PlugError> {
    let pod = Namespace::open(sandbox)?;
    let mut host = host(host_netns)?;
    let name = host_end_name(pair.vif.port_id);
    let routes = RouteSubscription::open()?;
    let bridge = bridge(pair, &mut host)?;
    clear(pair, &mut host, &name)?;
    create(pair, &mut host, &name, &pod)?;
    let finished = finish(pair, &mut host, &name, bridge, &pod);
    if finished.is_err() {
        // The first error is the one to tell; unplugging tries again.
        let _ = host.remove_link(By::Name(&name));
    }
    Ok(Made { link: finished?, routes })
}

/// Index of the Linux bridge to join, if the driver wants one.
fn bridge(pair: &Pair, host: &mut Socket) -> Result<Option<u32>, PlugError> {
    let (PlugDriver::Bridge, Some(name)) = (pair.vif.plug.driver, &pair.vif.plug.bridge) else { return Ok(None) };
    match host.link(By::Name(name))? {
        Some(link) if link.kind == "bridge" => Ok(Some(link.index)),
        _ => Err(PlugError::NoBridge {
            bridge: name.clone(),
            fix: "the Neutron Linux bridge agent makes it: see whether that agent runs on this node",
        }),
    }
}

/// Removes what an ADD that was killed has left under our name.
fn clear(pair: &Pair, host: &mut Socket, name: &str) -> Result<(), PlugError> {
    match host.link(By::Name(name))? {
        None => Ok(()),
        Some(link) if link.kind == "veth" => Ok(host.remove_link(By::Index(link.index))?),
        Some(_) => Err(PlugError::HostEndTaken { name: name.to_owned(), port: pair.vif.port_id }),
    }
}

/// Makes and marks the pair in one system call: whatever kills us, there is no end of ours without its mark.
fn create(pair: &Pair, host: &mut Socket, name: &str, pod: &Namespace) -> Result<(), PlugError> {
    use std::os::fd::AsFd;
    let vif = &pair.vif;
    let near = End { name, mac: pair.layout.host_mac, mtu: vif.mtu };
    let far = End { name: &vif.interface, mac: Some(vif.mac), mtu: vif.mtu };
    let requests = [link::veth(&near, &far, Some(pod.as_fd())), link::mark(By::Name(name), &pair.owner.alias())];
    let mut outcomes = host.run_each(&requests)?.into_iter();
    match outcomes.next() {
        // Our own name was free a moment ago: it is the pod's that is taken.
        Some(Err(error)) if error.errno() == Some(Errno::EEXIST) => {
            Err(PlugError::InterfaceTaken { interface: vif.interface.clone(), netns: pod.path().to_owned() })
        }
        Some(Err(error)) => Err(error.into()),
        _ => match outcomes.next() {
            Some(Err(error)) => {
                let _ = host.remove_link(By::Name(name));
                Err(error.into())
            }
            _ => Ok(()),
        },
    }
}

fn finish(pair: &Pair, host: &mut Socket, name: &str, bridge: Option<u32>, pod: &Namespace) -> Result<u32, PlugError> {
    let vif = &pair.vif;
    let near = index(host, name)?;
    let mut requests: Vec<Request> = Vec::new();
    match vif.plug.driver {
        // Nobody asks for the pod's address on a routed link: the port says who has it.
        PlugDriver::Tap => {
            requests.extend(vif.addresses.iter().map(|address| neighbour::permanent(near, address.ip, vif.mac)));
        }
        // A bridge's port has no use for IPv6 of its own, and its multicast would be seen by the network.
        _ => {
            sysctl::set_if_known(&format!("net/ipv6/conf/{name}/disable_ipv6"), "1")?;
        }
    }
    requests.extend(bridge.map(|bridge| link::master(By::Index(near), bridge)));
    requests.push(link::up(By::Index(near)));
    host.run(&requests)?;
    let events = Subscription::open()?;

    pod.enter()?;
    let mut inside = Socket::open()?;
    let far = index(&mut inside, &vif.interface)?;
    if pair.fill_checksums {
        offload::disable_checksum(far)?;
    }
    furnish(vif, &pair.layout, &mut inside, far)?;
    // Until the kernel has noticed that both ends are on, the host end drops what is sent to the pod: the answer to its
    // first packet, say.
    if events.wait_running(host, near, PATIENCE)? {
        Ok(near)
    } else {
        Err(PlugError::Vanished { interface: name.to_owned() })
    }
}

/// Switches the pod's end on and gives it its addresses and routes. `inside` and the calling thread are in the pod's namespace.
pub(super) fn furnish(vif: &Vif, layout: &Layout, inside: &mut Socket, far: u32) -> Result<(), PlugError> {
    prepare(vif, layout)?;
    let events = RouteSubscription::open()?;
    // What it has when it is switched on is announced then: all that some kinds of link can do. IPv6 wants it on.
    let (v4, v6): (Vec<IpNet>, Vec<IpNet>) = layout.addresses.iter().partition(|net| net.addr().is_ipv4());
    let mut requests: Vec<Request> = v4.into_iter().map(|net| address::add(far, net)).collect();
    requests.push(link::up(By::Index(far)));
    requests.extend(v6.into_iter().map(|net| address::add(far, net)));
    requests.extend(layout.neighbours.iter().map(|(ip, mac)| neighbour::permanent(far, *ip, *mac)));
    requests.extend(layout.routes.iter().map(|(destination, gateway)| {
        route::add(&match gateway {
            Some(gateway) => Route::via(*destination, *gateway, far),
            None => Route::on(*destination, far),
        })
    }));
    inside.run(&requests)?;
    let v6: Vec<Ipv6Addr> = vif
        .addresses
        .iter()
        .filter_map(|address| match address.ip {
            IpAddr::V6(ip) => Some(ip),
            IpAddr::V4(_) => None,
        })
        .collect();
    if v6.is_empty() || events.wait_local(inside, far, &v6, PATIENCE)? {
        Ok(())
    } else {
        Err(PlugError::Vanished { interface: vif.interface.clone() })
    }
}

/// Settings of the pod's end that must hold before it is switched on.
fn prepare(vif: &Vif, layout: &Layout) -> Result<(), PlugError> {
    let setting = |name: &str| format!("net/ipv6/conf/{}/{name}", vif.interface);
    if layout.has_v6() {
        // A runtime may have switched IPv6 off for a sandbox of which it knew no address yet.
        sysctl::set(&setting("disable_ipv6"), "0")?;
        // Addresses and routes come from the port, not from who answers first on the link.
        sysctl::set(&setting("accept_ra"), "0")?;
        sysctl::set(&setting("accept_dad"), "0")?;
    } else {
        sysctl::set_if_known(&setting("disable_ipv6"), "1")?;
    }
    if announce::is_heard(vif) { announce::prepare(vif) } else { Ok(()) }
}

pub(super) fn index(socket: &mut Socket, name: &str) -> Result<u32, PlugError> {
    match socket.link(By::Name(name))? {
        Some(link) => Ok(link.index),
        None => Err(PlugError::Vanished { interface: name.to_owned() }),
    }
}

/// Removes the host end of that name if `owner` has it, and with it the pod's end.
pub(super) fn remove(host: &mut Socket, name: &str, owner: &Owner) -> Result<(), PlugError> {
    match host.link(By::Name(name))? {
        Some(link) if Owner::from_alias(&link.alias).as_ref() == Some(owner) => {
            Ok(host.remove_link(By::Index(link.index))?)
        }
        _ => Ok(()),
    }
}

/// This thread is in that namespace from now on; `None`: there is none.
pub(super) fn go_inside(netns: &Path) -> Result<Option<Socket>, PlugError> {
    match Namespace::open(netns) {
        Ok(namespace) => namespace.enter()?,
        Err(error) if error.is_missing() => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    Ok(Some(Socket::open()?))
}

/// Removes the pod's end where it is alone: its host end was renamed or lost its mark.
pub(super) fn remove_inside(vif: &Vif, sandbox: &Path) -> Result<(), PlugError> {
    let Some(mut inside) = go_inside(sandbox)? else { return Ok(()) };
    match inside.link(By::Name(&vif.interface))? {
        Some(link) if link.kind == "veth" && link.mac == Some(vif.mac) => {
            Ok(inside.remove_link(By::Index(link.index))?)
        }
        _ => Ok(()),
    }
}

/// All links that carry our mark.
pub(super) fn list(host: &mut Socket) -> Result<Vec<HostEnd>, PlugError> {
    let ours = host.links()?.into_iter().filter_map(|link| {
        let owner = Owner::from_alias(&link.alias)?;
        Some(HostEnd { kind: HostEndKind::Link, name: link.name, owner })
    });
    Ok(ours.collect())
}

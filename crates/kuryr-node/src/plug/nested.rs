//! Drivers `vlan`, `macvlan` and `ipvlan`: the node is a virtual machine, and a pod's interface a sub-interface of its own one.
//!
//! The sub-interface is made straight in the pod's namespace: it is never seen in the machine's own, has no end there, and goes with
//! the pod's. Of the machine's interface nothing is changed.
//!
//! Everything here blocks and changes its thread's namespace: it runs on threads made by [`crate::netns::spawn`].

use super::{
    PlugError, announce,
    layout::Layout,
    mark::{HostEnd, HostEndKind, Owner, host_end_name},
    nic, pair,
};
use crate::{
    netlink::{
        Error, Link, Socket,
        link::{self, By, End, Sub},
        monitor::Subscription,
    },
    netns::{self, Namespace},
};
use kuryr_model::{Vif, vif::PlugDriver};
use nix::{errno::Errno, sys::stat::fstat};
use std::{
    collections::BTreeSet,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

/// The calling thread's namespace.
const OWN: &str = "/proc/thread-self/ns/net";

/// The kernel's names for the kinds of sub-interface.
const KINDS: [&str; 3] = ["vlan", "macvlan", "ipvlan"];

/// What to make.
#[derive(Clone, Debug)]
pub(super) struct Nested {
    pub(super) kind: Sub,
    pub(super) vif: Vif,
    pub(super) layout: Layout,
    pub(super) owner: Owner,
    /// The name of the machine's interface, if somebody has set it.
    pub(super) nic: Option<String>,
    /// The folders in which there may be namespaces of sandboxes.
    pub(super) namespaces: Vec<PathBuf>,
}

/// The kind of sub-interface that the VIF wants, if it wants one.
pub(super) fn kind(vif: &Vif) -> Option<Sub> {
    match vif.plug.driver {
        PlugDriver::Ovs | PlugDriver::Bridge | PlugDriver::Tap => None,
        // A VIF without its id was refused before.
        PlugDriver::Vlan => Some(Sub::Vlan(vif.plug.vlan.map_or(0, kuryr_model::SegmentationId::get))),
        PlugDriver::Macvlan => Some(Sub::Macvlan),
        PlugDriver::Ipvlan => Some(Sub::Ipvlan),
    }
}

/// Makes the sub-interface in `sandbox`, ready to be used. Undoes what it made if it fails.
pub(super) fn make(nested: &Nested, host_netns: Option<&Path>, sandbox: &Path) -> Result<(), PlugError> {
    let vif = &nested.vif;
    let Some(parent) = vif.plug.parent else {
        return Err(PlugError::BadVif { port: vif.port_id, reason: "it has no parent port".to_owned() });
    };
    let pod = Namespace::open(sandbox)?;
    let mut machine = pair::host(host_netns)?;
    let own = Namespace::open(Path::new(OWN))?;
    let links = machine.links()?;
    let nic = nic::choose(&links, nested.nic.as_deref(), parent, vif)?;
    match create(nested, &mut machine, nic.index, &pod) {
        Err(error) if conflict(&error) => {
            // What a daemon that was killed has left, or one that lost its memory: Neutron gave this port to this pod alone.
            if evict(nested, nic.index, &own, &pod)? == 0 {
                return Err(taken(nested, nic, &links, &pod, error));
            }
            create(nested, &mut machine, nic.index, &pod)
        }
        done => done,
    }
}

fn conflict(error: &PlugError) -> bool {
    let PlugError::Kernel(error) = error else { return false };
    // VLAN ids and names meet when they are made, Ethernet addresses when they are switched on.
    matches!(error.errno(), Some(Errno::EEXIST | Errno::EADDRINUSE))
}

fn create(nested: &Nested, machine: &mut Socket, lower: u32, pod: &Namespace) -> Result<(), PlugError> {
    let vif = &nested.vif;
    // That kind has the address of the machine's interface.
    let mac = (nested.kind != Sub::Ipvlan).then_some(vif.mac);
    // It gets its name in the pod: many kernels refuse one that a link of the machine has, which most often has an `eth0`, too.
    let name = host_end_name(vif.port_id);
    let end = End { name: &name, mac, mtu: vif.mtu };
    match machine.run(&[link::sub(nested.kind, &end, lower, Some(pod.as_fd()))]) {
        Err(error) if error.errno() == Some(Errno::EOPNOTSUPP) => Err(no_module(nested.kind)),
        Err(error) => Err(error.into()),
        Ok(()) => netns::run(pod.path(), || furnish(nested, &name))?,
    }
}

/// Makes what was just made by this name usable, or removes it. Runs in the pod's namespace.
fn furnish(nested: &Nested, name: &str) -> Result<(), PlugError> {
    let vif = &nested.vif;
    let mut inside = Socket::open()?;
    let index = pair::index(&mut inside, name)?;
    let mut work = || -> Result<(), PlugError> {
        inside.run(&[link::alias(By::Index(index), &nested.owner.alias()), link::rename(index, &vif.interface)])?;
        let events = Subscription::open()?;
        pair::furnish(vif, &nested.layout, &mut inside, index)?;
        // It runs a moment after it was switched on, and drops what it is given until then.
        match events.wait_running(&mut inside, index, pair::PATIENCE)? {
            // An ipvlan link has the Ethernet address of its machine, and cannot be given it.
            true if nested.kind == Sub::Ipvlan => Ok(()),
            true => announce::again(vif, &mut inside),
            false => Err(PlugError::Vanished { interface: vif.interface.clone() }),
        }
    };
    let outcome = work();
    if outcome.is_err() {
        // The first error is the one to tell; unplugging tries again.
        let _ = inside.remove_link(By::Index(index));
    }
    outcome
}

fn no_module(kind: Sub) -> PlugError {
    let module = match kind {
        Sub::Vlan(_) => "8021q",
        Sub::Macvlan => "macvlan",
        Sub::Ipvlan => "ipvlan",
    };
    PlugError::NoModule { kind: kind.kind(), module }
}

/// The namespaces that are bound to files in these folders, each once.
fn namespaces<'a>(folders: impl IntoIterator<Item = &'a Path>) -> Result<Vec<PathBuf>, PlugError> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for folder in folders {
        for path in netns::list(folder)? {
            // One may have several names, and go meanwhile.
            let Ok(namespace) = Namespace::open(&path) else { continue };
            if fstat(namespace.as_fd()).is_ok_and(|found| seen.insert((found.st_dev, found.st_ino))) {
                found.push(path);
            }
        }
    }
    Ok(found)
}

/// The sub-interfaces in the calling thread's namespace that are of links of `machine`, another namespace.
fn subs_of(machine: &Namespace, inside: &mut Socket) -> Result<Vec<Link>, Error> {
    let mut links = inside.links()?;
    links.retain(|link| KINDS.contains(&&*link.kind) && link.lower_in.is_some());
    if !links.is_empty() {
        let number = inside.number_of(machine.as_fd())?;
        links.retain(|link| link.lower_in == number);
    }
    Ok(links)
}

/// Removes the sub-interfaces of link `lower` that have what is this VIF's, in all namespaces of sandboxes; how many.
fn evict(nested: &Nested, lower: u32, machine: &Namespace, pod: &Namespace) -> Result<usize, PlugError> {
    let mut evicted = 0;
    for path in namespaces(nested.namespaces.iter().map(PathBuf::as_path).chain(pod.path().parent()))? {
        let work = || -> Result<usize, Error> {
            let mut inside = Socket::open()?;
            let mut links = subs_of(machine, &mut inside)?;
            links.retain(|link| link.lower == Some(lower) && stands_for(link, nested));
            links.iter().map(|link| inside.remove_link(By::Index(link.index)).map(|()| 1)).sum()
        };
        let removed = match netns::run(&path, work) {
            Err(error) if error.is_missing() => continue,
            outcome => outcome??,
        };
        if removed > 0 {
            let (port, namespace) = (nested.vif.port_id, path.display());
            tracing::warn!(%port, %namespace, "replaced an interface that was left over");
        }
        evicted += removed;
    }
    Ok(evicted)
}

/// The sub-interfaces of this machine's links that carry our mark, in the namespaces that are bound to files in these folders.
pub(super) fn list(host_netns: Option<&Path>, folders: &[PathBuf]) -> Result<Vec<HostEnd>, PlugError> {
    if let Some(path) = host_netns {
        Namespace::open(path)?.enter()?;
    }
    let machine = Namespace::open(Path::new(OWN))?;
    let mut ends = Vec::new();
    for netns in namespaces(folders.iter().map(PathBuf::as_path))? {
        let links = match netns::run(&netns, || subs_of(&machine, &mut Socket::open()?)) {
            Err(error) if error.is_missing() => continue,
            outcome => outcome??,
        };
        let kind = HostEndKind::Inside { netns };
        ends.extend(links.into_iter().filter_map(|link| {
            let owner = Owner::from_alias(&link.alias)?;
            Some(HostEnd { kind: kind.clone(), name: link.name, owner })
        }));
    }
    Ok(ends)
}

/// Removes what [`list`] has found in a namespace, if it still has the same owner.
pub(super) fn remove_end(end: &HostEnd, netns: &Path) -> Result<(), PlugError> {
    let Some(mut inside) = pair::go_inside(netns)? else { return Ok(()) };
    pair::remove(&mut inside, &end.name, &end.owner)
}

/// Whether a link has what only this VIF may have: its VLAN id, its Ethernet address. Not a link of the machine's own: those have no
/// namespace of a sandbox.
fn stands_for(link: &Link, nested: &Nested) -> bool {
    match nested.kind {
        Sub::Vlan(id) => link.vlan == Some(id),
        Sub::Macvlan => link.kind == "macvlan" && link.mac == Some(nested.vif.mac),
        Sub::Ipvlan => {
            let port = Owner::from_alias(&link.alias).map(|owner| owner.port_id);
            link.kind == "ipvlan" && port == Some(nested.vif.port_id)
        }
    }
}

/// Who is in the way: the interface's name in the pod, or somebody else's sub-interface.
fn taken(nested: &Nested, nic: &Link, links: &[Link], pod: &Namespace, error: PlugError) -> PlugError {
    let interface = &nested.vif.interface;
    let inside = netns::run(pod.path(), || Socket::open()?.link(By::Name(interface)));
    if matches!(inside, Ok(Ok(Some(_)))) {
        return PlugError::InterfaceTaken { interface: interface.clone(), netns: pod.path().to_owned() };
    }
    let Some(vlan) = nested.vif.plug.vlan else { return error };
    let own = links.iter().find(|link| link.lower == Some(nic.index) && stands_for(link, nested));
    let place = match own {
        Some(link) => format!("by interface {} of the virtual machine", link.name),
        None => "in a network namespace that Kuryr does not know".to_owned(),
    };
    PlugError::VlanTaken { vlan, nic: nic.name.clone(), place }
}

/// Removes the sub-interface from `sandbox`, if it is `owner`'s or nobody's.
pub(super) fn remove(kind: Sub, vif: &Vif, owner: &Owner, sandbox: &Path) -> Result<(), PlugError> {
    let Some(mut inside) = pair::go_inside(sandbox)? else { return Ok(()) };
    let Some(link) = inside.link(By::Name(&vif.interface))? else { return Ok(()) };
    let has_id = !matches!(kind, Sub::Vlan(id) if link.vlan != Some(id));
    let unmarked = link.alias.is_empty() && (kind == Sub::Ipvlan || link.mac == Some(vif.mac));
    let ours = unmarked || Owner::from_alias(&link.alias).as_ref() == Some(owner);
    if link.kind == kind.kind() && has_id && ours { Ok(inside.remove_link(By::Index(link.index))?) } else { Ok(()) }
}

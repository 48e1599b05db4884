//! Tells all on the pod's link at which Ethernet address its addresses are.
//!
//! Neutron may give the address of a pod that is gone to the next port at once, and that has another Ethernet address. Whoever had
//! spoken to the pod before would send to where that was, until the kernel comes to doubt what it knows: half a minute, or
//! more. So each pod announces itself: by a gratuitous ARP request (RFC 5227, section 3) and an unsolicited neighbour
//! advertisement (RFC 4861, section 7.2.6).

use super::PlugError;
use crate::{
    netlink::{
        Socket,
        link::{self, By},
        sysctl,
    },
    netns::Namespace,
};
use kuryr_model::{Vif, vif::PlugDriver};
use std::path::Path;

/// Whether somebody on the pod's link asks for its addresses. On a routed link nobody does.
pub(super) fn is_heard(vif: &Vif) -> bool {
    vif.plug.driver != PlugDriver::Tap
}

/// Has the kernel announce a link's addresses by itself: of IPv4 when it is switched on and has them, and all of them when it
/// is given an Ethernet address.
pub(super) fn prepare(vif: &Vif) -> Result<(), PlugError> {
    let name = &vif.interface;
    sysctl::set(&format!("net/ipv4/conf/{name}/arp_notify"), "1")?;
    // A kernel without IPv6 has none to announce.
    sysctl::set_if_known(&format!("net/ipv6/conf/{name}/ndisc_notify"), "1")?;
    Ok(())
}

/// Announces what [`prepare`] was said of. `inside` is in the pod's namespace.
pub(super) fn again(vif: &Vif, inside: &mut Socket) -> Result<(), PlugError> {
    // It counts as given also when it is the one that the link has.
    Ok(inside.run(&[link::address(By::Name(&vif.interface), vif.mac)])?)
}

/// The same once the switch forwards what the pod sends. Enters its namespace.
pub(super) fn from(vif: &Vif, sandbox: &Path) -> Result<(), PlugError> {
    Namespace::open(sandbox)?.enter()?;
    again(vif, &mut Socket::open()?)
}

//! What can stand in the way of a plug.

use crate::{netlink, netns, ovsdb};
pub use kuryr_model::chain;
use kuryr_model::{MacAddress, PortId, SegmentationId};
use std::{path::PathBuf, time::Duration};

/// Why a VIF could not be plugged, unplugged or looked at.
#[derive(Debug, thiserror::Error)]
pub enum PlugError {
    /// The sandbox's namespace is gone, or cannot be used.
    #[error(transparent)]
    Namespace(#[from] netns::Error),
    /// The pod has an interface of that name, which is not ours.
    #[error("namespace {} already has an interface {interface} that Kuryr did not make; name the pod's interface differently or remove it", .netns.display())]
    InterfaceTaken {
        /// The interface's name.
        interface: String,
        /// The sandbox's namespace.
        netns: PathBuf,
    },
    /// A link of the host end's name is something else than the end of a veth pair.
    #[error("{name} is the name of port {port}'s host end, but the node has something else of that name; remove it")]
    HostEndTaken {
        /// The link's name.
        name: String,
        /// The port.
        port: PortId,
    },
    /// What was made a moment ago is gone: somebody else works on the same interface.
    #[error("interface {interface} vanished while it was being plugged")]
    Vanished {
        /// Its name.
        interface: String,
    },
    /// The VIF lacks what its driver needs.
    #[error("the VIF of port {port} cannot be plugged: {reason}")]
    BadVif {
        /// The port.
        port: PortId,
        /// What is wrong with it.
        reason: String,
    },
    /// The bridge to join does not exist.
    #[error("bridge {bridge} does not exist on this node; {fix}")]
    NoBridge {
        /// The bridge's name.
        bridge: String,
        /// Who makes it, and what to look at.
        fix: &'static str,
    },
    /// The virtual machine's interface was not found, or not only one.
    #[error("{found} on this node {has} the Ethernet address {mac} of port {port}, through which the virtual machine should reach its trunk; {fix}", has = if *.one { "has" } else { "have" })]
    NoNic {
        /// Who has it, as the sentence begins.
        found: String,
        /// Whether that is one.
        one: bool,
        /// The parent port's address.
        mac: MacAddress,
        /// The parent port.
        port: PortId,
        /// What to do.
        fix: &'static str,
    },
    /// The virtual machine's interface cannot carry the pod's.
    #[error("interface {nic} of the virtual machine cannot carry pods: {reason}")]
    BadNic {
        /// Its name.
        nic: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// Somebody else has a sub-interface with the pod's VLAN id.
    #[error("VLAN {vlan} of interface {nic}, which is the pod's, is in use {place}; remove that interface")]
    VlanTaken {
        /// The id.
        vlan: SegmentationId,
        /// The virtual machine's interface.
        nic: String,
        /// By whom, as the sentence goes on.
        place: String,
    },
    /// The kernel has no such links.
    #[error("the kernel of this node has no links of kind {kind}; load the module {module}")]
    NoModule {
        /// The kind.
        kind: &'static str,
        /// Its module.
        module: &'static str,
    },
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] netlink::Error),
    /// Open vSwitch's database refused or is away.
    #[error("cannot {doing} in Open vSwitch's database")]
    Ovsdb {
        /// What was tried.
        doing: String,
        /// Why not.
        #[source]
        source: ovsdb::Error,
    },
    /// Open vSwitch could not open the interface.
    #[error("Open vSwitch cannot use interface {interface}: {reason}")]
    Refused {
        /// The host end.
        interface: String,
        /// What `ovs-vswitchd` says in the Interface's `error`.
        reason: String,
    },
    /// The data plane has not said in time that it forwards.
    #[error("port {port} waited {waited:.1?} for {signal}")]
    Unready {
        /// The port.
        port: PortId,
        /// How long.
        waited: Duration,
        /// The signal that did not come, and who gives it.
        signal: String,
    },
    /// Several things failed; the rest was done.
    #[error("{}", .0.iter().map(|error| chain(error)).collect::<Vec<_>>().join("; "))]
    Several(Vec<PlugError>),
}

impl PlugError {
    /// Nothing failed, one thing did, or several.
    pub(super) fn all(mut errors: Vec<Self>) -> Result<(), Self> {
        match errors.len() {
            0 => Ok(()),
            1 => errors.pop().map_or(Ok(()), Err),
            _ => Err(Self::Several(errors)),
        }
    }
}

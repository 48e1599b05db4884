//! What a trunk's writer does next, and how that ended.

use kuryr_model::{PortId, SegmentationId, neutron::Subport};
use std::{collections::BTreeMap, fmt};

/// One request to Neutron.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read the trunk: what it carries is not known.
    Read,
    /// Remove these subports, in one request.
    Remove(Vec<PortId>),
    /// Add these subports, in one request.
    Add(Vec<(PortId, SegmentationId)>),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read => write!(f, "read the trunk"),
            Self::Remove(ports) => write!(f, "remove {} subports", ports.len()),
            Self::Add(subports) => write!(f, "add {} subports", subports.len()),
        }
    }
}

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Neutron did it, and says that the trunk now carries these.
    Done(Vec<Subport>),
    /// Neutron did not do it because of something in it: an id or a port in use, a port that is gone.
    Refused,
    /// Nobody knows whether it was done: the answer was lost, or somebody else was at the trunk.
    Unknown,
    /// It was certainly not done, for no fault of what was asked for: Neutron is away, or the trunk is switched off or in `ERROR`.
    NotDone,
}

/// Why a port that is wanted on the trunk is not on it, and will not be after the steps that are planned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// Every id is in use.
    #[error(
        "the trunk carries {} subports already, and VLAN ids are 1 to 4094: no further pod fits on this virtual machine",
        SegmentationId::COUNT
    )]
    Full,
    /// The pod's interface is tagged with an id that another's subport has.
    #[error(
        "VLAN id {id} of the trunk, which the pod's interface has, was taken by port {by}, which Kuryr did not make; remove that subport, or the pod"
    )]
    Taken {
        /// The id.
        id: SegmentationId,
        /// Whose it is.
        by: PortId,
    },
    /// Two ports claim one id.
    #[error("VLAN id {id} of the trunk is the one of port {by}, too")]
    Claimed {
        /// The id.
        id: SegmentationId,
        /// The other.
        by: PortId,
    },
    /// Neutron refuses this port on this trunk.
    #[error("Neutron refuses the port as a subport of the trunk")]
    Refused,
}

/// What a trunk needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What to do now; `None`: nothing.
    pub step: Option<Step>,
    /// The ports that cannot be helped.
    pub troubles: BTreeMap<PortId, Trouble>,
}

/// How many more ports a trunk has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Ids that are nobody's.
    pub free: usize,
    /// Ids of subports that Kuryr did not make.
    pub others: usize,
}

//! Why a pod has no ports yet, for programs and for people.

use crate::{policy::Waits, trunks::TrunkError};
use kuryr_model::{NetworkId, ObjectKey, PortId, TrunkId};
use kuryr_openstack::{Class, Error as CloudError, Service};
use kuryr_plan::{
    nested::{MachineError, ParentError},
    trunk::Trouble,
    vif::VifError,
};
use std::{sync::Arc, time::Duration};

/// The ports of a pod could not be made or recorded.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum PodError {
    /// OpenStack refused, or did not answer. The text leaves out the request's id, so that it is the same at each try.
    #[error("{}", words(.0))]
    Cloud(#[from] CloudError),
    /// OpenStack has not answered yet; it is still waited for.
    #[error("OpenStack has not answered the request for the pod's port yet")]
    Slow,
    /// The quota was found to be used up, and nothing was given back since.
    #[error("the project's quota of ports is used up; {RAISE}")]
    QuotaUsedUp,
    /// No pod subnet has an address left.
    #[error("{} no free address", list(.0))]
    SubnetsFull(Vec<String>),
    /// What its node says of itself cannot be.
    #[error("node {node}: {error}")]
    Machine {
        /// The node.
        node: String,
        /// What is wrong.
        error: MachineError,
    },
    /// The port of its node, a virtual machine, is not known.
    #[error(transparent)]
    Parent(#[from] ParentError),
    /// Somebody has deleted the trunk of its node.
    #[error(
        "trunk {0} is gone; make one of the node's port again: openstack network trunk create --parent-port PORT NAME"
    )]
    TrunkGone(TrunkId),
    /// The trunk of its node has no place for its port.
    #[error("{0}")]
    Trunk(Trouble),
    /// The port of its node may use no more addresses.
    #[error(
        "Neutron allows port {0} of the node no further address: raise max_allowed_address_pair in its configuration, or use kind vlan"
    )]
    PairsFull(PortId),
    /// A port that was found for it is for a node of another kind.
    #[error("its port {0} was made for a node of another kind; it gets another one")]
    OtherKind(PortId),
    /// Security groups that it is to start with are not all there.
    #[error("{0}")]
    Policies(#[from] Waits),
    /// A policy came while its port was made, and what it forbids is not taken away from the port yet.
    #[error("what NetworkPolicies forbid it by now is not taken away from its new port yet")]
    WiderThanPolicies,
    /// Neutron made a port that cannot be plugged.
    #[error(transparent)]
    Vif(#[from] VifError),
    /// Kubernetes refused the `KuryrPort`, or did not answer.
    #[error("the KuryrPort cannot be written: {0}")]
    Kubernetes(Arc<kube::Error>),
    /// The API server took no `KuryrPort` of this namespace lately, so no port is made for the pod.
    #[error("the KuryrPort cannot be written: {why}")]
    Refused {
        /// What the API server said.
        why: String,
        /// Time until it is tried again.
        again: Duration,
    },
    /// Neutron made the ports of a bulk, and this one is not among them.
    #[error("Neutron answered a bulk create without the port of {0}")]
    LeftOut(ObjectKey),
    /// Neutron made a port and dropped its tags, by which it would have to be found again.
    #[error(
        "Neutron drops the tags that a port is made with; add tag_ports_during_bulk_creation to [ml2] extension_drivers \
         in Neutron's configuration"
    )]
    Untagged,
    /// Neutron made a port somewhere else.
    #[error("Neutron answered with a port on network {0}, which was not asked for")]
    WrongNetwork(NetworkId),
    /// The allocator is being stopped.
    #[error("the controller is stopping")]
    Stopping,
}

impl From<TrunkError> for PodError {
    fn from(error: TrunkError) -> Self {
        match error {
            TrunkError::Cloud(error) => Self::Cloud(error),
            TrunkError::Trouble(trouble) => Self::Trunk(trouble),
            TrunkError::Gone(trunk) => Self::TrunkGone(trunk),
            TrunkError::Stopping => Self::Stopping,
        }
    }
}

/// What to do where a quota is used up.
const RAISE: &str = "raise it: openstack quota set --ports N PROJECT";

/// Who did not do what was asked for, why, and what helps if that is known.
fn words(error: &CloudError) -> String {
    let who = match error.service() {
        Service::Identity => "Keystone",
        Service::Network => "Neutron",
        Service::LoadBalancer => "Octavia",
    };
    let why = error.kind().to_string();
    if error.is_quota() { format!("{who}: {}; {RAISE}", why.trim_end_matches('.')) } else { format!("{who}: {why}") }
}

fn list(names: &[String]) -> String {
    match names {
        [one] => format!("subnet {one} has"),
        many => format!("subnets {} have", many.join(", ")),
    }
}

/// Whom the failure waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// Time: it is tried again with growing delay, but not before the given one.
    Time(Duration),
    /// An operator, who has to change something: it is tried again now and then.
    Operator,
}

/// Time between two tries of what waits for an operator. A freed address or port cuts it short.
pub(crate) const OPERATOR_RETRY: Duration = Duration::from_secs(30);

impl Remedy {
    /// What can be done about an error of OpenStack.
    pub(crate) fn of(error: &CloudError) -> Self {
        match error.class() {
            Class::RetryNow => Self::Time(Duration::ZERO),
            Class::RetryLater { after } => Self::Time(after.unwrap_or_default()),
            Class::Operator(_) | Class::Owner | Class::Bug => Self::Operator,
        }
    }

    /// The least time until the next try.
    pub(crate) fn retry_after(self) -> Duration {
        match self {
            Self::Time(after) => after,
            Self::Operator => OPERATOR_RETRY,
        }
    }
}

/// One word for an error of OpenStack.
pub(crate) fn cloud_reason(error: &CloudError) -> Reason {
    match error.class() {
        _ if error.is_quota() => Reason::QuotaExceeded,
        Class::RetryNow | Class::RetryLater { .. } => Reason::CloudUnavailable,
        Class::Operator(_) | Class::Owner | Class::Bug => Reason::CloudRefused,
    }
}

impl PodError {
    /// An address pair could not be had.
    pub(crate) fn pair(error: CloudError, parent: PortId) -> Self {
        if error.is_pairs_exhausted() { Self::PairsFull(parent) } else { Self::Cloud(error) }
    }

    /// What can be done about it.
    pub(crate) fn remedy(&self) -> Remedy {
        match self {
            Self::Cloud(error) => Remedy::of(error),
            // It is worked on again when they are there.
            Self::Policies(waits) if waits.failure.is_none() => Remedy::Time(Duration::ZERO),
            Self::Policies(_)
            | Self::QuotaUsedUp
            | Self::Refused { .. }
            | Self::SubnetsFull(_)
            | Self::Vif(_)
            | Self::Machine { .. }
            | Self::Parent(_)
            | Self::TrunkGone(_)
            | Self::Trunk(_)
            | Self::PairsFull(_)
            | Self::Untagged
            | Self::WrongNetwork(_) => Remedy::Operator,
            Self::OtherKind(_)
            | Self::WiderThanPolicies
            | Self::Slow
            | Self::Kubernetes(_)
            | Self::LeftOut(_)
            | Self::Stopping => Remedy::Time(Duration::ZERO),
        }
    }

    /// Whether it waits only for what is just being made.
    pub(crate) fn is_brief(&self) -> bool {
        matches!(self, Self::Policies(waits) if waits.failure.is_none())
    }

    /// The least time until the next try.
    pub(crate) fn retry_after(&self) -> Duration {
        if let Self::Refused { again, .. } = self {
            return *again;
        }
        self.remedy().retry_after()
    }

    /// For conditions, Events and metrics.
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::Cloud(error) => cloud_reason(error),
            Self::Slow => Reason::CloudSlow,
            Self::Policies(_) | Self::WiderThanPolicies => Reason::PolicyNotReady,
            Self::QuotaUsedUp => Reason::QuotaExceeded,
            Self::SubnetsFull(_) => Reason::SubnetsFull,
            Self::Trunk(Trouble::Full) | Self::PairsFull(_) => Reason::NodeFull,
            Self::TrunkGone(_) | Self::Parent(ParentError::NoTrunk(_)) => Reason::TrunkMissing,
            Self::Machine { .. } | Self::Parent(_) => Reason::MachineUnknown,
            Self::Trunk(_) => Reason::TrunkRefused,
            Self::Vif(VifError::BindingFailed { .. } | VifError::NotBound { .. }) => Reason::HostUnknown,
            Self::Vif(_) | Self::LeftOut(_) | Self::WrongNetwork(_) | Self::OtherKind(_) => Reason::PortUnusable,
            Self::Untagged => Reason::TagsDropped,
            Self::Kubernetes(_) | Self::Refused { .. } => Reason::KubernetesRefused,
            Self::Stopping => Reason::Stopping,
        }
    }

    /// Whether the API server will never take this write: the namespace is being deleted, a quota there is used up, or the
    /// object is invalid.
    pub(crate) fn refuses_kuryr_ports(&self) -> bool {
        match self {
            Self::Refused { .. } => true,
            Self::Kubernetes(error) => {
                matches!(&**error, kube::Error::Api(answer) if matches!(answer.code, 403 | 404 | 422))
            }
            _ => false,
        }
    }

    /// The request's id by which OpenStack's logs tell more.
    pub(crate) fn request_id(&self) -> Option<&str> {
        match self {
            Self::Cloud(error) => Some(error.request_id()),
            _ => None,
        }
    }
}

/// Why a pod waits, in one word. Each is explained in docs/operating.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reason {
    CloudSlow,
    CloudUnavailable,
    CloudRefused,
    QuotaExceeded,
    SubnetsFull,
    PolicyNotReady,
    HostUnknown,
    MachineUnknown,
    TrunkMissing,
    TrunkRefused,
    NodeFull,
    PortUnusable,
    TagsDropped,
    KubernetesRefused,
    Stopping,
    WaitingForPreviousPod,
}

impl Reason {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::CloudSlow => "CloudSlow",
            Self::CloudUnavailable => "CloudUnavailable",
            Self::CloudRefused => "CloudRefused",
            Self::QuotaExceeded => "QuotaExceeded",
            Self::SubnetsFull => "SubnetsFull",
            Self::PolicyNotReady => "PolicyNotReady",
            Self::HostUnknown => "HostUnknown",
            Self::MachineUnknown => "MachineUnknown",
            Self::TrunkMissing => "TrunkMissing",
            Self::TrunkRefused => "TrunkRefused",
            Self::NodeFull => "NodeFull",
            Self::PortUnusable => "PortUnusable",
            Self::TagsDropped => "TagsDropped",
            Self::KubernetesRefused => "KubernetesRefused",
            Self::Stopping => "Stopping",
            Self::WaitingForPreviousPod => "WaitingForPreviousPod",
        }
    }

    /// Whether it ends when another pod gives its port back.
    pub(crate) fn lacks_room(self) -> bool {
        matches!(self, Self::SubnetsFull | Self::QuotaExceeded)
    }
}

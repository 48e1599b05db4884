//! Why a pod has no ports yet, for programs and for people.

use kuryr_model::{NetworkId, ObjectKey};
use kuryr_openstack::{Class, Error as CloudError};
use kuryr_plan::vif::VifError;
use std::{sync::Arc, time::Duration};

/// The ports of a pod could not be made or recorded.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum PodError {
    /// OpenStack refused, or did not answer. The text leaves out the request's id, so that it is the same at each try.
    #[error("{}: {}", .0.service(), .0.kind())]
    Cloud(#[from] CloudError),
    /// OpenStack has not answered yet; it is still waited for.
    #[error("OpenStack has not answered the request for the pod's port yet")]
    Slow,
    /// The quota was found to be used up, and nothing was given back since.
    #[error("the project's quota of ports is used up")]
    QuotaUsedUp,
    /// No pod subnet has an address left.
    #[error("{} no free address", list(.0))]
    SubnetsFull(Vec<String>),
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

impl PodError {
    /// What can be done about it.
    pub(crate) fn remedy(&self) -> Remedy {
        match self {
            Self::Cloud(error) => match error.class() {
                Class::RetryNow => Remedy::Time(Duration::ZERO),
                Class::RetryLater { after } => Remedy::Time(after.unwrap_or_default()),
                Class::Operator(_) | Class::Owner | Class::Bug => Remedy::Operator,
            },
            Self::QuotaUsedUp
            | Self::Refused { .. }
            | Self::SubnetsFull(_)
            | Self::Vif(_)
            | Self::Untagged
            | Self::WrongNetwork(_) => Remedy::Operator,
            Self::Slow | Self::Kubernetes(_) | Self::LeftOut(_) | Self::Stopping => Remedy::Time(Duration::ZERO),
        }
    }

    /// The least time until the next try.
    pub(crate) fn retry_after(&self) -> Duration {
        if let Self::Refused { again, .. } = self {
            return *again;
        }
        match self.remedy() {
            Remedy::Time(after) => after,
            Remedy::Operator => OPERATOR_RETRY,
        }
    }

    /// For conditions, Events and metrics.
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::Cloud(error) if error.is_quota() => Reason::QuotaExceeded,
            Self::Cloud(error) => match error.class() {
                Class::RetryNow | Class::RetryLater { .. } => Reason::CloudUnavailable,
                Class::Operator(_) | Class::Owner | Class::Bug => Reason::CloudRefused,
            },
            Self::Slow => Reason::CloudSlow,
            Self::QuotaUsedUp => Reason::QuotaExceeded,
            Self::SubnetsFull(_) => Reason::SubnetsFull,
            Self::Vif(VifError::BindingFailed { .. } | VifError::NotBound { .. }) => Reason::HostUnknown,
            Self::Vif(_) | Self::LeftOut(_) | Self::WrongNetwork(_) => Reason::PortUnusable,
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
    HostUnknown,
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
            Self::HostUnknown => "HostUnknown",
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

//! Why a Service's load balancer is not as it should be, for programs and for people.

use crate::error::{Remedy, cloud_reason};
use kuryr_model::{LoadBalancerId, PortId, lb::Provisioning};
use kuryr_openstack::{Class, Error as CloudError};
use std::{net::IpAddr, sync::Arc, time::Duration};

/// A step of a Service's plan could not be done.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ServiceError {
    /// OpenStack refused, or did not answer. The text leaves out the request's id, so that it is the same at each try.
    #[error("{}: {}", .0.service(), .0.kind())]
    Cloud(#[from] CloudError),
    /// The provider cannot do what the plan asks for, and says so in words from which nothing is to be learned.
    #[error("the provider of the load balancer refuses: {}", .0.kind())]
    ProviderRefuses(CloudError),
    /// A cluster IP belongs to something else.
    #[error("the cluster IP {ip} belongs to port {port} ({owner}) already; delete that port, or recreate the Service")]
    VipTaken {
        /// The address.
        ip: IpAddr,
        /// Who has it.
        port: PortId,
        /// What that is.
        owner: String,
        /// It is another load balancer of this cluster, which may be on its way out.
        passing: bool,
    },
    /// Octavia has been at work for long.
    #[error("load balancer {0} has been {1} for a long time; it is still waited for")]
    Slow(LoadBalancerId, Provisioning),
    /// A load balancer goes into `ERROR` again and again.
    #[error(
        "load balancer {0} is in ERROR, and making it anew did not help; Octavia's log says why. It is tried again"
    )]
    Broken(LoadBalancerId, Duration),
    /// Octavia made a load balancer and dropped its tags, by which it would have to be found again.
    #[error("Octavia drops the tags of load balancers; its API must be 2.5 or later")]
    Untagged,
    /// What is wanted needs an object that the answer does not have.
    #[error("Octavia answered without {0}")]
    LeftOut(&'static str),
    /// There is no address left for a floating IP or a VIP.
    #[error("no address is left: {}", .0.kind())]
    NoFreeAddress(CloudError),
    /// Kubernetes refused something, or did not answer.
    #[error("{0} cannot be read or written: {1}")]
    Kubernetes(&'static str, Arc<kube::Error>),
    /// What is there could not be listed yet, so nothing may be made.
    #[error("the load balancers cannot be listed: {0}")]
    NotListed(String),
}

impl ServiceError {
    /// A call failed.
    pub(crate) fn cloud(error: CloudError) -> Self {
        if error.is_exhausted() {
            Self::NoFreeAddress(error)
        } else if error.is_unsupported() {
            Self::ProviderRefuses(error)
        } else {
            Self::Cloud(error)
        }
    }

    /// What can be done about it.
    pub(crate) fn remedy(&self) -> Remedy {
        match self {
            Self::Cloud(error) => Remedy::of(error),
            Self::VipTaken { passing: true, .. } | Self::Kubernetes(..) | Self::LeftOut(_) | Self::Slow(..) => {
                Remedy::Time(Duration::ZERO)
            }
            Self::NotListed(_) => Remedy::Time(Duration::from_secs(5)),
            Self::Broken(_, after) => Remedy::Time(*after),
            Self::ProviderRefuses(_)
            | Self::VipTaken { passing: false, .. }
            | Self::Untagged
            | Self::NoFreeAddress(_) => Remedy::Operator,
        }
    }

    /// The least time until the next try.
    pub(crate) fn retry_after(&self) -> Duration {
        self.remedy().retry_after()
    }

    /// One word for conditions, Events and metrics. Each is explained in docs/operating.md.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Cloud(error) => cloud_reason(error).as_str(),
            Self::NotListed(_) => "CloudUnavailable",
            Self::ProviderRefuses(_) => "ProviderRefused",
            Self::VipTaken { .. } => "VipTaken",
            Self::Slow(..) => "CloudSlow",
            Self::Broken(..) => "LoadBalancerFailed",
            Self::Untagged => "TagsDropped",
            Self::LeftOut(_) => "CloudRefused",
            Self::NoFreeAddress(_) => "NoFreeAddress",
            Self::Kubernetes(..) => "KubernetesRefused",
        }
    }

    /// Whether what is there may be other than it is known: the step may have been done, or what it was about is not there,
    /// or there already.
    pub(crate) fn leaves_doubt(&self) -> bool {
        match self {
            Self::Cloud(error) => match error.class() {
                Class::RetryNow | Class::RetryLater { .. } | Class::Bug => {
                    error.is_ambiguous() || error.is_not_found() || error.status() == Some(409)
                }
                // It says in so many words that it did nothing.
                Class::Operator(_) | Class::Owner => false,
            },
            Self::LeftOut(_) | Self::Untagged => true,
            Self::ProviderRefuses(_)
            | Self::NoFreeAddress(_)
            | Self::VipTaken { .. }
            | Self::Slow(..)
            | Self::Broken(..)
            | Self::Kubernetes(..)
            | Self::NotListed(_) => false,
        }
    }

    /// Whether what is waited for with this reason may come when something else of ours is deleted.
    pub(crate) fn lacks_room(reason: &str) -> bool {
        matches!(reason, "QuotaExceeded" | "NoFreeAddress" | "VipTaken")
    }
}

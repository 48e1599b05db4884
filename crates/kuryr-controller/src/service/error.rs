//! Why a Service's load balancer is not as it should be, for programs and for people.

use crate::error::{OPERATOR_RETRY, Remedy};
use kuryr_model::{LoadBalancerId, PortId, SubnetId, lb::Provisioning};
use kuryr_openstack::{Class, Error as CloudError, chain};
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
    #[error("load balancer {0} is in ERROR, and making it anew did not help; Octavia's log says why. It is tried again")]
    Broken(LoadBalancerId),
    /// Octavia made a load balancer and dropped its tags, by which it would have to be found again.
    #[error("Octavia drops the tags of load balancers; its API must be 2.5 or later")]
    Untagged,
    /// What is wanted needs an object that the answer does not have.
    #[error("Octavia answered without {0}")]
    LeftOut(&'static str),
    /// There is no address left for a floating IP or a VIP.
    #[error("no address is left: {}", .0.kind())]
    NoFreeAddress(CloudError),
    /// A subnet of the plan is not one of those that are known.
    #[error("subnet {0} is gone; restart the controller")]
    SubnetGone(SubnetId),
    /// Kubernetes refused a `KuryrLoadBalancer` or a status, or did not answer.
    #[error("{0} cannot be written: {1}")]
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
        } else if error.status() == Some(501) {
            Self::ProviderRefuses(error)
        } else {
            Self::Cloud(error)
        }
    }

    /// A list failed.
    pub(crate) fn not_listed(error: &CloudError) -> Self {
        Self::NotListed(chain(error))
    }

    /// What can be done about it.
    pub(crate) fn remedy(&self) -> Remedy {
        match self {
            Self::Cloud(error) => match error.class() {
                Class::RetryNow => Remedy::Time(Duration::ZERO),
                Class::RetryLater { after } => Remedy::Time(after.unwrap_or_default()),
                Class::Operator(_) | Class::Owner | Class::Bug => Remedy::Operator,
            },
            Self::VipTaken { passing: true, .. } | Self::Kubernetes(..) | Self::LeftOut(_) | Self::Slow(..) => {
                Remedy::Time(Duration::ZERO)
            }
            Self::NotListed(_) => Remedy::Time(Duration::from_secs(5)),
            Self::ProviderRefuses(_)
            | Self::VipTaken { passing: false, .. }
            | Self::Broken(_)
            | Self::Untagged
            | Self::NoFreeAddress(_)
            | Self::SubnetGone(_) => Remedy::Operator,
        }
    }

    /// The least time until the next try.
    pub(crate) fn retry_after(&self) -> Duration {
        match self.remedy() {
            Remedy::Time(after) => after,
            Remedy::Operator => OPERATOR_RETRY,
        }
    }

    /// One word for conditions, Events and metrics. Each is explained in docs/operating.md.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Cloud(error) if error.is_quota() => "QuotaExceeded",
            Self::Cloud(error) => match error.class() {
                Class::RetryNow | Class::RetryLater { .. } => "CloudUnavailable",
                Class::Operator(_) | Class::Owner | Class::Bug => "CloudRefused",
            },
            Self::NotListed(_) => "CloudUnavailable",
            Self::ProviderRefuses(_) => "ProviderRefused",
            Self::VipTaken { .. } => "VipTaken",
            Self::Slow(..) => "CloudSlow",
            Self::Broken(_) => "LoadBalancerFailed",
            Self::Untagged => "TagsDropped",
            Self::LeftOut(_) | Self::SubnetGone(_) => "CloudRefused",
            Self::NoFreeAddress(_) => "NoFreeAddress",
            Self::Kubernetes(..) => "KubernetesRefused",
        }
    }

    /// Whether it may end when something else of ours is deleted: then it need not wait for its next try.
    pub(crate) fn lacks_room(reason: &str) -> bool {
        matches!(reason, "QuotaExceeded" | "NoFreeAddress" | "VipTaken")
    }
}

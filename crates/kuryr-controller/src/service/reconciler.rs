//! What the work for Services has at hand.

use super::{index::ServiceIndex, memory::Memories, observe::Observer, report::Reporter, topology::SiteState};
use crate::{metrics::Metrics, policy::Keeper, queue::Queue};
use kuryr_model::{ObjectKey, ServiceUid};
use std::sync::Arc;

/// What the queue of Services is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Subject {
    /// A Service, and the `KuryrLoadBalancer` of its name.
    Service(ObjectKey),
    /// What carries the mark of a Service that is gone, with nothing in Kubernetes that tells of it.
    Stray(ServiceUid),
}

/// Does the steps.
pub(crate) struct ServiceReconciler {
    pub(crate) index: Arc<ServiceIndex>,
    pub(crate) queue: Arc<Queue<Subject>>,
    pub(crate) observer: Observer,
    pub(crate) site: Arc<SiteState>,
    pub(crate) memories: Arc<Memories>,
    pub(crate) reporter: Reporter,
    pub(crate) metrics: Metrics,
    pub(crate) policies: Arc<Keeper>,
}

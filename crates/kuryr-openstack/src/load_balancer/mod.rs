//! Octavia: a file for each kind of object, a function for each call.
//!
//! ```text
//!  NewLoadBalancer ── one POST ──▶ lb::Tree (ids)      PENDING_CREATE ─▶ ACTIVE: get() until then
//!    ├─ ListenerTree ─ default_pool ─▶ PoolTree         a change of anything below it: PENDING_UPDATE ─▶ ACTIVE
//!    └─ PoolTree ─ members, healthmonitor              meanwhile every other change: 409, Error::is_immutable()
//! ```
//!
//! A load balancer takes one change at a time, of itself or of anything below it. Answers come when Octavia has written
//! down the wish; whether it is fulfilled shows in `provisioning_status`.
//!
//! Lists ask only for the fields that are read and follow pages. Octavia's filters take `tags` (all of them), other
//! fields by equality, and no field twice: [`Filter::any`] is Neutron's alone. Deleting what is absent is success.
//! Nothing here retries a create.

pub mod flavors;
pub mod health_monitors;
pub mod listeners;
pub mod load_balancers;
pub mod members;
pub mod pools;
pub mod quotas;
pub mod statuses;
pub mod versions;

pub use crate::rest::Filter;
pub use flavors::{AvailabilityZone, Flavor, Provider};
pub use health_monitors::{HealthMonitorUpdate, NewHealthMonitor};
pub use listeners::{ListenerTree, ListenerUpdate, NewListener};
pub use load_balancers::{LoadBalancerUpdate, NewLoadBalancer};
pub use members::NewMember;
pub use pools::{NewPool, PoolTree, PoolUpdate};
pub use quotas::Quotas;
pub use statuses::{PoolStatus, StatusTree};
pub use versions::{ApiVersion, Feature};

use crate::{
    Service,
    rest::{Kind, Rest},
    session::{CallOptions, Session},
};
use std::{sync::Arc, time::Duration};

/// Octavia's client. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LoadBalancing {
    rest: Rest,
}

impl LoadBalancing {
    pub(crate) fn new(session: Arc<Session>, options: CallOptions) -> Self {
        Self { rest: Rest::new(Service::LoadBalancer, "/lbaas", session, options) }
    }

    /// The same client for requests that nobody waits for: they go after those that somebody does.
    #[must_use]
    pub fn background(&self) -> Self {
        Self { rest: self.rest.background() }
    }

    /// The same client with another deadline for each call, waiting and repeating included. Two minutes unless said.
    #[must_use]
    pub fn within(&self, time: Duration) -> Self {
        Self { rest: self.rest.within(time) }
    }
}

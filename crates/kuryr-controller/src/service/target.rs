//! For whom something is done, and what is wanted for them now.

use super::{
    index::Known,
    lean::Seen,
    reconciler::ServiceReconciler,
    step::{Step as Hold, step},
};
use kuryr_model::{ObjectKey, ServiceUid};
use kuryr_plan::{
    policy::Limits,
    service::{Desired, Slice, desired},
};
use std::sync::Arc;
use tracing::field::{DisplayValue, display};

/// For whom things are brought to what they should be.
#[derive(Clone, Copy)]
pub(super) enum Target<'a> {
    /// The Service of this key, as long as it has this UID.
    Service(&'a ObjectKey, &'a ServiceUid),
    /// Nobody: all that there is of this Service goes.
    Nobody(&'a ServiceUid),
}

impl Target<'_> {
    pub(super) fn uid(&self) -> &ServiceUid {
        match self {
            Self::Service(_, uid) | Self::Nobody(uid) => uid,
        }
    }

    /// For logs: who is gone has no name.
    pub(super) fn name(&self) -> Option<DisplayValue<&ObjectKey>> {
        match self {
            Self::Service(key, _) => Some(display(key)),
            Self::Nobody(_) => None,
        }
    }
}

/// What is wanted for a target, and from what that follows.
pub(super) struct Wish {
    pub(super) seen: Option<Arc<Seen>>,
    pub(super) desired: Desired,
    pub(super) slices: Vec<Arc<Slice>>,
    /// What its listeners have to do in place of pods.
    pub(super) limits: Option<Limits>,
}

impl ServiceReconciler {
    pub(super) fn wish(&self, known: &Known) -> Option<Desired> {
        let seen = known.service.as_ref()?;
        let slices: Vec<Slice> = known.slices.iter().map(|slice| Slice::clone(slice)).collect();
        let site = self.site.with_nodes(self.index.nodes());
        Some(desired(&seen.service, &slices, &site))
    }

    /// What is wanted now. `None`: not what was wanted when this began.
    pub(super) fn wanted(&self, target: Target<'_>) -> Option<Wish> {
        let (key, uid) = match target {
            Target::Nobody(uid) => {
                let desired = Desired::gone(self.site.cluster(), uid.clone());
                return Some(Wish { seen: None, desired, slices: Vec::new(), limits: None });
            }
            Target::Service(key, uid) => (key, uid),
        };
        let known = self.index.get(key);
        let desired = self.wish(&known).filter(|desired| desired.uid == *uid)?;
        let same = step(Some(&desired), known.load_balancer.as_deref()) == Hold::Serve;
        let limits = self.policies.limits(key);
        let desired = match &limits {
            Some(limits) => desired.limited(limits),
            None => desired,
        };
        same.then_some(Wish { seen: known.service, desired, slices: known.slices, limits })
    }
}

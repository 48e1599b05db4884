//! Load balancers as wholes.

use super::{Planner, Turn};
use crate::service::{
    annotations,
    matching::fits,
    observed::ObservedTree,
    problem::{Effect, Reason},
    provider::{Can, Feature, Provider},
    step::{Step, Why},
    tree::{Place, Tree},
};
use kuryr_model::{
    Mark, Purpose,
    lb::{LoadBalancer, Provisioning},
};

impl Planner<'_> {
    /// A tree that is wanted, and what there is of it.
    pub(super) fn tree(&mut self, tree: &Tree, there: Option<&ObservedTree>) {
        let Some(there) = there else { return self.missing(tree) };
        let lb = &there.load_balancer;
        let existing = matches!(tree.place, Place::Existing(_));
        match lb.provisioning_status {
            Provisioning::Deleted => self.missing(tree),
            Provisioning::Active => match (!existing).then(|| misfit(tree, there)).flatten() {
                Some(why) => self.step(Turn::Build, Step::DeleteTree { load_balancer: lb.id, why }),
                None => self.listeners(tree, there),
            },
            Provisioning::Error if existing => {
                let about = annotations::LOAD_BALANCER_ID;
                let message = format!(
                    "annotation {about}: load balancer {} is in ERROR, and Kuryr does not repair what it did not make: \
                     `openstack loadbalancer failover {}`, or name another one",
                    lb.id, lb.id
                );
                self.problem(Reason::LoadBalancerInError, about, Effect::NotExposed, message);
            }
            Provisioning::Error => self.broken(there),
            _ => self.step(Turn::Wait, wait(lb)),
        }
    }

    fn missing(&mut self, tree: &Tree) {
        let Place::Existing(id) = tree.place else {
            return self.step(Turn::Build, Step::CreateTree(Box::new(tree.clone())));
        };
        let about = annotations::LOAD_BALANCER_ID;
        let message = format!(
            "annotation {about} is {id}: there is no such load balancer, or Kuryr's cloud user may not see it; until it is \
             there, the Service is not reachable from outside"
        );
        self.problem(Reason::LoadBalancerNotFound, about, Effect::NotExposed, message);
    }

    fn broken(&mut self, there: &ObservedTree) {
        let lb = &there.load_balancer;
        let can_fail_over = Provider::named(&lb.provider).table(Feature::Failover) == Can::Yes;
        if can_fail_over && !there.failed_over {
            self.step(Turn::Build, Step::Failover { load_balancer: lb.id });
        } else {
            self.step(Turn::Build, Step::DeleteTree { load_balancer: lb.id, why: Why::Error });
        }
    }

    /// A load balancer that nothing wants. Of one that is not ours, or that others use, only what is ours goes.
    pub(super) fn leftover(&mut self, there: &ObservedTree) {
        let lb = &there.load_balancer;
        let ours = self.desired.owns(&lb.tags);
        let shared = ours && self.is_shared(there);
        let keep = self.desired.held || shared || !ours;
        if keep && !self.has_own(there) {
            // Nothing to do in it: no need to wait for it either.
        } else if lb.provisioning_status.is_pending() || lb.provisioning_status == Provisioning::Other {
            self.step(Turn::Wait, wait(lb));
        } else if keep && lb.provisioning_status == Provisioning::Error {
            let message = format!(
                "load balancer {} is in ERROR, so the listeners that the Service has there cannot be removed: \
                 `openstack loadbalancer failover {}`, or delete it",
                lb.id, lb.id
            );
            self.problem(Reason::LoadBalancerInError, annotations::LOAD_BALANCER_ID, Effect::Differs, message);
        } else if !keep {
            self.step(Turn::Remove, Step::DeleteTree { load_balancer: lb.id, why: Why::Unwanted });
        } else {
            self.clear(there);
        }
        if shared && !self.desired.held {
            let about = "metadata.name";
            let message = format!(
                "load balancer {} has listeners of other Services, which name it by the annotation {}: it is deleted when \
                 they no longer do",
                lb.id,
                annotations::LOAD_BALANCER_ID
            );
            self.problem(Reason::StillShared, about, Effect::Differs, message);
        }
    }

    /// Whether other Services of the cluster have listeners or listener pools in it.
    fn is_shared(&self, there: &ObservedTree) -> bool {
        let others = |tags: &[String]| {
            Mark::read(&self.desired.cluster, tags)
                .is_some_and(|mark| matches!(&mark.purpose, Purpose::Service(uid) if *uid != self.desired.uid))
        };
        there.listeners.iter().any(|listener| others(&listener.tags))
            || there.pools.iter().any(|pool| others(&pool.pool.tags))
    }

    fn has_own(&self, there: &ObservedTree) -> bool {
        there.listeners.iter().any(|listener| self.desired.owns(&listener.tags))
            || there.pools.iter().any(|pool| self.desired.owns(&pool.pool.tags))
    }
}

fn wait(lb: &LoadBalancer) -> Step {
    Step::Wait { load_balancer: lb.id, status: lb.provisioning_status }
}

/// Why a load balancer cannot be made into what is wanted: Octavia's PUT takes none of these (API reference, *Update a
/// Load Balancer*).
fn misfit(tree: &Tree, there: &ObservedTree) -> Option<Why> {
    let lb = &there.load_balancer;
    if !fits(tree, there) {
        Some(Why::Addresses)
    } else if tree.provider != Provider::Unknown && Provider::named(&lb.provider) != tree.provider {
        Some(Why::Provider)
    } else if tree.flavor.is_some_and(|flavor| lb.flavor_id != Some(flavor)) {
        Some(Why::Flavor)
    } else if tree.availability_zone.is_some() && lb.availability_zone != tree.availability_zone {
        Some(Why::AvailabilityZone)
    } else {
        None
    }
}

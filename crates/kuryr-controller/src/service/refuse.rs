//! What becomes of a step that was refused.

use super::{
    error::ServiceError,
    forward::is_at_work,
    memory::{Memory, Work},
    reconciler::ServiceReconciler,
};
use kuryr_model::ServiceUid;
use kuryr_openstack::Error as CloudError;
use kuryr_plan::service::{Desired, Feature, Place, Provider, Step, Tree, Vip};
use std::net::IpAddr;
use tokio::time::Instant;

impl ServiceReconciler {
    /// A step was refused. `Ok`: what is known is now truer than it was, and the next plan does better.
    pub(super) async fn refused(
        &self,
        uid: &ServiceUid,
        desired: &Desired,
        next: &Step,
        error: CloudError,
        memory: &mut Memory,
    ) -> Result<(), ServiceError> {
        if error.is_immutable()
            && let Some(id) = next.load_balancer()
        {
            // Somebody else has it changed, or it is broken: only a look tells.
            is_at_work(&mut memory.observed, id);
            let now = Instant::now();
            memory.work.entry(id).or_insert(Work { since: now, next: now });
            return Ok(());
        }
        if let Step::CreateTree(tree) = next {
            let freed = self.free_vips(uid, tree, &error).await?;
            if freed && error.is_address_in_use() {
                return Ok(());
            }
        }
        if error.is_unsupported() {
            if let Step::Failover { load_balancer } = next {
                memory
                    .observed
                    .trees
                    .iter_mut()
                    .filter(|tree| tree.load_balancer.id == *load_balancer)
                    .for_each(|tree| tree.failed_over = true);
                return Ok(());
            }
            let message = error.refusal().map(|refusal| refusal.message.clone()).unwrap_or_default();
            let provider = provider(desired, next, memory);
            if let Some(feature) = Feature::refused(&message)
                && self.site.learn(provider.clone(), feature)
            {
                tracing::warn!(%provider, %feature, "the provider cannot do this; going on without it");
                return Ok(());
            }
            return Err(ServiceError::ProviderRefuses(error));
        }
        if let Step::CreateTree(tree) = next
            && error.is_address_in_use()
            && let Some((vip, ip)) = vips(tree).next()
        {
            return Err(self.observer.holder(&vip, ip, error).await);
        }
        Err(ServiceError::cloud(error))
    }

    /// Deletes the ports that a refused create left behind at the addresses of a tree: nothing else can have these. Whether there
    /// were any.
    async fn free_vips(&self, uid: &ServiceUid, tree: &Tree, error: &CloudError) -> Result<bool, ServiceError> {
        if ServiceError::cloud(error.clone()).leaves_doubt() {
            self.memories.lost(uid);
            return Ok(false);
        }
        if self.memories.may_be_in_flight(uid) {
            return Ok(false);
        }
        let mut freed = false;
        for (vip, ip) in vips(tree) {
            for port in self.observer.left_behind(&vip, ip).await.map_err(ServiceError::cloud)? {
                tracing::warn!(%uid, %port, %ip, "deleting the port that Octavia left behind when it refused a load balancer");
                self.observer.network.ports().delete(port).await.map_err(ServiceError::cloud)?;
                freed = true;
            }
        }
        Ok(freed)
    }
}

/// Who was asked: of a new load balancer the provider as it is asked for, of another one its own.
fn provider(desired: &Desired, step: &Step, memory: &Memory) -> Provider {
    if let Step::CreateTree(tree) = step {
        return tree.provider.clone();
    }
    let id = step.load_balancer();
    let there = memory.observed.trees.iter().find(|tree| Some(tree.load_balancer.id) == id);
    let named = there.map(|tree| Provider::named(&tree.load_balancer.provider));
    named.or_else(|| desired.trees.first().map(|tree| tree.provider.clone())).unwrap_or_default()
}

/// The addresses that a tree must have.
fn vips(tree: &Tree) -> impl Iterator<Item = (Vip, IpAddr)> {
    let vips: &[Vip] = match &tree.place {
        Place::Vips(vips) => vips,
        Place::Port(_) | Place::Existing(_) => &[],
    };
    vips.iter().filter_map(|vip| Some((*vip, vip.address?)))
}

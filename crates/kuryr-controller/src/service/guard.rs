//! A Service whose load balancer hides its clients: its listeners are told whom to let in, and policies whom they let in.

use super::{
    error::ServiceError,
    memory::{Balancers, Memory},
    observe::Observer,
    reconciler::{ServiceReconciler, Subject},
    target::{Target, Wish},
};
use crate::{policy::Keeper, queue::Queue};
use kuryr_model::{ObjectKey, neutron::Port};
use kuryr_openstack::{Error as CloudError, Filter};
use kuryr_plan::{
    policy::{Guard, Limits, Service as PolicyService},
    service::{Balancer, Desired, Provider, Slice, Step, admission},
};
use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};
use tokio::time::Instant;

/// What the port is called by which one of Octavia's machines has its own address beside the VIP.
const MACHINE: &str = "octavia-lb-vrrp-";

/// How long it is remembered which addresses the machines of a load balancer have. Octavia replaces one that fails.
const REMEMBERED: Duration = Duration::from_secs(60);

/// Whether the listeners of a provider can tell clients apart that pods do not see. Of others than Octavia's own nothing is
/// known.
pub(crate) fn guards(provider: &str) -> bool {
    Provider::named(provider) == Provider::Amphora
}

/// A Service as policies see it.
pub(crate) fn shown<'a>(
    service: &kuryr_plan::service::Service,
    slices: impl IntoIterator<Item = &'a Slice>,
    provider: &str,
) -> Option<PolicyService> {
    // Only the OVN provider is known to let endpoints see the client.
    let seen = PolicyService::of(service, slices, provider != "ovn")?;
    Some(PolicyService { guard: guards(provider).then(Guard::default), ..seen })
}

impl ServiceReconciler {
    /// Shows policies a Service before its load balancer is there, so that this is made with the right listeners. True: it is news.
    pub(super) fn show_guarded(&self, key: &ObjectKey, wish: &Wish) -> bool {
        let mut trees = wish.desired.trees.iter();
        let hides = trees.any(|tree| tree.provider == Provider::Amphora);
        let Some(seen) = wish.seen.as_ref().filter(|_| hides && !self.policies.is_guarded(key)) else { return false };
        let service = shown(&seen.service, wish.slices.iter().map(AsRef::as_ref), "amphora");
        let news = service.is_some();
        if news {
            self.policies.service(key.clone(), service);
        }
        news
    }

    /// Tells policies whom the listeners let in, once that is sure.
    pub(super) async fn tell_guard(
        &self,
        key: &ObjectKey,
        desired: &Desired,
        memory: &mut Memory,
    ) -> Result<(), ServiceError> {
        if !self.policies.is_guarded(key) {
            return Ok(());
        }
        let Some(admission) = admission(desired, &memory.observed) else { return Ok(()) };
        let remembered = memory.balancers.as_ref().filter(|it| it.of == admission.balancers);
        let balancers = match remembered.filter(|it| it.since.elapsed() < REMEMBERED) {
            Some(known) => known.addresses.clone(),
            None => {
                let addresses = self.observer.balancers(&admission.balancers).await.map_err(ServiceError::cloud)?;
                let of = admission.balancers;
                memory.balancers = Some(Balancers { of, addresses: addresses.clone(), since: Instant::now() });
                addresses
            }
        };
        self.policies.admits(key, Guard { balancers, admits: admission.admits });
        Ok(())
    }

    /// Before a step that may let in others: false if they are not to be let in any more.
    pub(super) fn may_let_in(&self, target: Target<'_>, next: &Step, limits: Option<&Limits>) -> bool {
        let (Target::Service(key, _), Some(limits)) = (target, limits) else { return true };
        let changes = matches!(next, Step::CreateTree(_) | Step::CreateListener { .. } | Step::UpdateListener { .. });
        !changes || self.policies.begin(key, limits)
    }
}

impl Observer {
    /// The addresses from which load balancers connect to their members: Octavia's machines do so from ports of their own, in the
    /// VIP's network and in those of the members. They are known by the security group that they share with the VIP's port, and seen
    /// by whom those networks belong to.
    pub(crate) async fn balancers(&self, balancers: &[Balancer]) -> Result<BTreeSet<IpAddr>, CloudError> {
        let ports = self.network.ports();
        let mut addresses: BTreeSet<IpAddr> = balancers.iter().flat_map(|balancer| &balancer.vips).copied().collect();
        for id in balancers.iter().filter_map(|balancer| balancer.vip_port) {
            let vip = match ports.get(id).await {
                Ok(port) => port,
                Err(error) if error.is_not_found() => continue,
                Err(error) => return Err(error),
            };
            let mut machines: BTreeSet<String> = BTreeSet::new();
            for group in &vip.security_groups {
                let found = ports.list(&Filter::new().with("security_groups", group)).await?;
                let own = |port: &&Port| port.name.starts_with(MACHINE) && port.security_groups.contains(group);
                for port in found.iter().filter(own) {
                    addresses.extend(port.fixed_ips.iter().map(|fixed| fixed.ip_address));
                    machines.extend(Some(port.device_id.clone()).filter(|id| !id.is_empty()));
                }
            }
            for machine in machines {
                let found = ports.list(&Filter::new().with("device_id", machine)).await?;
                addresses.extend(found.iter().flat_map(|port| &port.fixed_ips).map(|fixed| fixed.ip_address));
            }
        }
        Ok(addresses)
    }
}

/// Wakes Services whose listeners have to let in others, for ever.
pub(super) async fn wake_guarded(policies: Arc<Keeper>, queue: Arc<Queue<Subject>>) {
    let mut progress = policies.progress();
    loop {
        for key in policies.renewed() {
            queue.add(Subject::Service(key));
        }
        if progress.changed().await.is_err() {
            return;
        }
    }
}

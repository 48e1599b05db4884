//! What the data plane reads: load balancers as their providers have made them.

use std::net::IpAddr;

use super::Octavia;
use super::model::{Listener, LoadBalancer, Member, Operating, Pool};
use crate::cloud::neutron::view::{ListenerView, LoadBalancerView, MemberView};

impl Octavia {
    pub(crate) fn views(&self) -> Vec<LoadBalancerView> {
        self.balancers.values().filter_map(view).collect()
    }
}

fn view(balancer: &LoadBalancer) -> Option<LoadBalancerView> {
    let enabled = balancer.live?;
    // A further address is answered at only if a port holds it.
    let further = balancer.additional.iter().filter(|vip| vip.port.is_some()).filter_map(|vip| vip.address);
    let vips: Vec<IpAddr> = std::iter::once(balancer.vip.address).chain(further).collect();
    let listeners = balancer.listeners.iter().filter_map(|listener| listener_view(balancer, listener)).collect();
    Some(LoadBalancerView {
        id: balancer.head.id,
        provider: balancer.provider.name.clone(),
        admin_state_up: enabled,
        vip_port: balancer.vip.port,
        vips,
        listeners,
    })
}

fn listener_view(balancer: &LoadBalancer, listener: &Listener) -> Option<ListenerView> {
    let live = listener.live.as_ref()?;
    let pool = live.pool.and_then(|pool| balancer.pool(pool));
    let served = pool.and_then(|pool| Some((pool, pool.row.live.as_ref().filter(|pool| pool.enabled)?)));
    Some(ListenerView {
        protocol: live.protocol.clone(),
        port: live.port,
        allowed_cidrs: live.cidrs.clone(),
        source_ip_affinity: served.is_some_and(|(_, spec)| balancer.provider.keeps_clients(spec)),
        members: served.map(|(pool, _)| members(balancer, pool)).unwrap_or_default(),
        admin_state_up: live.enabled,
    })
}

fn members(balancer: &LoadBalancer, pool: &Pool) -> Vec<MemberView> {
    let view = |member: &Member| {
        let live = member.live.as_ref()?;
        Some(MemberView {
            address: live.address,
            port: live.port,
            weight: balancer.provider.weight(live)?,
            subnet: live.subnet,
            online: member.head.operating != Operating::Error,
        })
    };
    pool.members.iter().filter_map(view).collect()
}

//! The floating IP.
//!
//! A floating IP that was made for the Service carries its mark. One that somebody else made and `spec.loadBalancerIP`
//! names gets the mark too, and [`ADOPTED_TAG`], so that it is given back and not deleted. One that somebody leads to a VIP
//! port on their own is shown, and otherwise theirs.

use super::{Planner, Turn};
use crate::service::{
    input::Family,
    matching::{Pairs, is_our_floating},
    observed::Observed,
    problem::{Effect, Reason},
    step::Step,
    tree::{ADOPTED_TAG, Floating, KEEP_TAG, WantedFloating},
};
use kuryr_model::{PortId, lb::Provisioning, neutron::FloatingIp};
use std::collections::BTreeSet;

impl Planner<'_> {
    /// Steps for what is wanted as a floating IP.
    pub(super) fn floating(&mut self, pairs: &Pairs<'_>, observed: &Observed) {
        let desired = self.desired;
        let ours: Vec<&FloatingIp> = observed.floating.iter().filter(|ip| is_our_floating(desired, ip)).collect();
        match &desired.floating {
            Floating::None => ours.iter().for_each(|ip| self.give_up(Turn::Restrict, ip)),
            Floating::Withheld => self.withhold(&ours),
            Floating::Wanted(wanted) => {
                if let Some(port) = self.vip_port(pairs, wanted) {
                    self.wanted(wanted, port, &ours, observed);
                }
            }
        }
    }

    /// The port that the floating IP is to lead to, if it can: the data plane must have the load balancer, since the OVN
    /// provider overlooks a floating IP that comes before it. And it writes all that a load balancer leads to anew, from
    /// what it knew a moment ago, for a floating IP as for a change of members: of two at once, one would be lost. So there
    /// the floating IP is the last thing to come.
    fn vip_port(&self, pairs: &Pairs<'_>, wanted: &WantedFloating) -> Option<PortId> {
        let lb = &pairs.at(wanted.to, Family::V4)?.load_balancer;
        let there = match lb.provisioning_status {
            Provisioning::Active => true,
            Provisioning::PendingUpdate => !lb.is_of_ovn(),
            _ => false,
        };
        let first = |(_, step): &(Turn, Step)| step.load_balancer() == Some(lb.id);
        lb.vip_port_id.filter(|_| there && !(lb.is_of_ovn() && self.steps.iter().any(first)))
    }

    fn wanted(&mut self, wanted: &WantedFloating, port: PortId, ours: &[&FloatingIp], observed: &Observed) {
        let at_port = |ip: &&FloatingIp| ip.port_id == Some(port);
        // Ours first: one that somebody else leads there as well cannot be, but may be listed from before.
        let here = ours.iter().copied().find(at_port).or_else(|| observed.floating.iter().find(at_port));
        let in_network =
            |ip: &FloatingIp| wanted.network.is_none_or(|network| ip.floating_network_id == network) || is_adopted(ip);
        let chosen = match wanted.address {
            Some(address) => observed.floating.iter().find(|ip| ip.floating_ip_address == address),
            None => here
                .filter(|ip| in_network(ip) || !is_our_floating(self.desired, ip))
                .or_else(|| ours.iter().copied().filter(|ip| in_network(ip) && !is_adopted(ip)).min_by_key(|ip| ip.id)),
        };
        let Some(chosen) = chosen else {
            if wanted.make && wanted.network.is_some() {
                // While another one leads to the port, the new one has to wait for its turn: a port has one only.
                let port = here.is_none().then_some(port);
                self.step(Turn::Expose, Step::CreateFloating { floating: wanted.clone(), port });
            } else if let Some(address) = wanted.address {
                let message = format!(
                    "spec.loadBalancerIP is {address}: there is no such floating IP, and Kuryr cannot make it, since {}; \
                     make it, or name another one",
                    if wanted.make {
                        "no network for floating IPs is known"
                    } else {
                        "the load balancer is not its own"
                    }
                );
                self.refuse(Reason::FloatingIpNotFound, message, ours);
            }
            return;
        };
        let own = is_our_floating(self.desired, chosen);
        if chosen.port_id != Some(port) {
            let elsewhere = chosen.port_id.is_some_and(|other| !self.is_vip_port(observed, other));
            if elsewhere && !own {
                let message = format!(
                    "spec.loadBalancerIP is {}: that floating IP leads to port {}; free it, or name another one",
                    chosen.floating_ip_address,
                    chosen.port_id.map(|port| port.to_string()).unwrap_or_default()
                );
                return self.refuse(Reason::FloatingIpInUse, message, ours);
            }
            if let Some(other) = here.filter(|other| !is_our_floating(self.desired, other)) {
                let message = format!(
                    "floating IP {} leads to the load balancer, and it is not Kuryr's: remove it from port {port}, so \
                     that {} can take its place",
                    other.floating_ip_address, chosen.floating_ip_address
                );
                return self.refuse(Reason::FloatingIpInUse, message, ours);
            }
        }
        self.tag(wanted, chosen, port);
        if chosen.port_id != Some(port) {
            if let Some(other) = here {
                self.step(Turn::Expose, Step::DisassociateFloating { id: other.id });
            }
            self.step(Turn::Expose, Step::AssociateFloating { id: chosen.id, port });
        }
        ours.iter().filter(|ip| ip.id != chosen.id).for_each(|ip| self.give_up(Turn::Expose, ip));
    }

    /// The address that is asked for cannot be had: then there is none at all, rather than another one.
    fn refuse(&mut self, reason: Reason, message: String, ours: &[&FloatingIp]) {
        self.problem(reason, "spec.loadBalancerIP", Effect::NotExposed, message);
        self.withhold(ours);
    }

    /// Lets our floating IPs lead nowhere, and keeps them.
    fn withhold(&mut self, ours: &[&FloatingIp]) {
        for ip in ours.iter().filter(|ip| ip.port_id.is_some()) {
            self.step(Turn::Restrict, Step::DisassociateFloating { id: ip.id });
        }
    }

    fn is_vip_port(&self, observed: &Observed, port: PortId) -> bool {
        let own = |tree: &&crate::service::ObservedTree| self.desired.owns(&tree.load_balancer.tags);
        observed.trees.iter().filter(own).any(|tree| tree.load_balancer.vip_port_id == Some(port))
    }

    /// Sees to the tags of the floating IP that is used, before it is: a crash must not leave it unknown.
    fn tag(&mut self, wanted: &WantedFloating, chosen: &FloatingIp, port: PortId) {
        let own = is_our_floating(self.desired, chosen);
        if !own && chosen.port_id == Some(port) {
            return;
        }
        let mut tags: BTreeSet<String> = chosen.tags.iter().cloned().collect();
        if is_adopted(chosen) || !own {
            tags.extend(wanted.tags.iter().filter(|tag| *tag != KEEP_TAG).cloned());
            tags.insert(ADOPTED_TAG.to_owned());
        } else {
            tags.remove(KEEP_TAG);
            tags.extend(wanted.tags.iter().cloned());
        }
        if tags != chosen.tags.iter().cloned().collect() {
            self.step(Turn::Expose, Step::TagFloating { id: chosen.id, tags: tags.into_iter().collect() });
        }
    }

    /// Deletes a floating IP of ours, or gives it back to the project if it is to outlive the Service.
    fn give_up(&mut self, turn: Turn, ip: &FloatingIp) {
        if !is_adopted(ip) && !ip.tags.iter().any(|tag| tag == KEEP_TAG) {
            return self.step(turn, Step::DeleteFloating { id: ip.id });
        }
        let tags = ip.tags.iter().filter(|tag| !tag.starts_with("kuryr:")).cloned().collect();
        let description = (!is_adopted(ip)).then(String::new);
        self.step(turn, Step::ReleaseFloating { id: ip.id, description, tags });
    }
}

fn is_adopted(ip: &FloatingIp) -> bool {
    ip.tags.iter().any(|tag| tag == ADOPTED_TAG)
}

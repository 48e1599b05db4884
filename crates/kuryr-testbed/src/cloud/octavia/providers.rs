//! The providers: what each of them refuses, and what it takes without effect.

use std::net::IpAddr;

use ipnet::IpNet;

use super::error::{Error, Result};
use super::model::{ListenerSpec, LoadBalancer, MemberSpec, Pool, PoolSpec};
use crate::cloud::config::{LoadBalancing, OvnRelease};

/// What serves a load balancer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Provider {
    /// As the request named it: `octavia` is another name of `amphora`.
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Ovn(OvnRelease),
    Amphora,
}

impl Provider {
    pub(crate) fn find(config: &LoadBalancing, name: &str) -> Result<Self> {
        let kind = match name {
            _ if !config.providers.iter().any(|known| known == name) => {
                return Err(Error::bad(format!("Provider '{name}' is not enabled.")));
            }
            "ovn" => Kind::Ovn(config.ovn),
            _ => Kind::Amphora,
        };
        Ok(Self { name: name.to_owned(), kind })
    }

    pub(crate) fn is_ovn(&self) -> bool {
        matches!(self.kind, Kind::Ovn(_))
    }

    /// Whether it is an OVN provider of the Zed release.
    pub(crate) fn is_ovn_of_zed(&self) -> bool {
        self.kind == Kind::Ovn(OvnRelease::Zed)
    }

    fn refuse<T>(&self, what: &str) -> Result<T> {
        Err(Error::unsupported(&self.name, what))
    }

    fn check_protocol(&self, protocol: &str) -> Result<()> {
        if self.is_ovn() && !["TCP", "UDP", "SCTP"].contains(&protocol) {
            return self.refuse(&format!("OVN provider does not support {protocol} protocol"));
        }
        Ok(())
    }

    pub(crate) fn check_listener(&self, spec: &ListenerSpec) -> Result<()> {
        self.check_protocol(&spec.protocol)?;
        if self.is_ovn() && !spec.cidrs.is_empty() {
            return self.refuse("OVN provider does not support allowed_cidrs option");
        }
        Ok(())
    }

    pub(crate) fn check_pool(&self, spec: &PoolSpec) -> Result<()> {
        self.check_protocol(&spec.protocol)?;
        let (provider, known): (_, &[&str]) = match self.kind {
            Kind::Ovn(OvnRelease::Zed) => ("OVN", &["SOURCE_IP_PORT"]),
            Kind::Ovn(OvnRelease::Later) => ("OVN", &["SOURCE_IP_PORT", "SOURCE_IP"]),
            Kind::Amphora => ("Amphora", &["ROUND_ROBIN", "SOURCE_IP", "LEAST_CONNECTIONS"]),
        };
        if known.contains(&spec.algorithm.as_str()) {
            return Ok(());
        }
        let stop = if self.is_ovn() { "" } else { "." };
        self.refuse(&format!("{provider} provider does not support {} algorithm{stop}", spec.algorithm))
    }

    pub(crate) fn check_monitor(&self, kind: &str) -> Result<()> {
        if self.is_ovn() && !["UDP-CONNECT", "TCP"].contains(&kind) {
            let message =
                format!("OVN provider does not support {kind} health monitor type. Supported types: UDP-CONNECT, TCP");
            return self.refuse(&message);
        }
        Ok(())
    }

    /// A member that is made or changed. `doing` is the word for that in the messages, `vip_cidr` the subnet of the VIP.
    pub(crate) fn check_member(
        &self,
        balancer: &LoadBalancer,
        pool: &Pool,
        spec: &MemberSpec,
        doing: &str,
        vip_cidr: Option<IpNet>,
    ) -> Result<()> {
        if !self.is_ovn() {
            return self.check_mix(balancer, pool, spec);
        }
        if spec.has_monitor_options() {
            return self.refuse("OVN Load Balancer does not support different member monitor address or port.");
        }
        if pool.row.live.is_some() && spec.address.is_ipv4() != balancer.vip.address.is_ipv4() {
            return self
                .refuse("OVN provider does not support mixing IPv4/IPv6 configuration within the same Load Balancer.");
        }
        self.check_member_subnet(spec, doing, vip_cidr)
    }

    /// OVN has to know where a member is: it guesses the subnet of the VIP when none is named.
    pub(crate) fn check_member_subnet(&self, spec: &MemberSpec, doing: &str, vip_cidr: Option<IpNet>) -> Result<()> {
        if !self.is_ovn() || spec.subnet.is_some() || vip_cidr.is_some_and(|cidr| cidr.contains(&spec.address)) {
            return Ok(());
        }
        self.refuse(&format!(
            "Subnet is required, or Loadbalancer associated with Pool must have a subnet, for Member {doing} with OVN Provider \
             Driver if it is not the same as LB VIP subnet"
        ))
    }

    /// Amphorae pass datagrams only to members of a version that the load balancer has an address of.
    fn check_mix(&self, balancer: &LoadBalancer, pool: &Pool, spec: &MemberSpec) -> Result<()> {
        let further = balancer.additional.iter().filter_map(|vip| vip.address);
        let mut vips = std::iter::once(balancer.vip.address).chain(further);
        let same = |vip: IpAddr| vip.is_ipv4() == spec.address.is_ipv4();
        if !pool.row.spec.is_datagram() || balancer.listeners_of(pool.id()).is_empty() || vips.any(same) {
            return Ok(());
        }
        self.refuse(&format!(
            "This provider doesn't support mixing IPv4 and IPv6 addresses for its VIP and members in {} load balancers.",
            pool.row.spec.protocol
        ))
    }

    /// All that is in a fully populated load balancer. Amphorae are not asked before they are made.
    pub(crate) fn check_tree(&self, balancer: &LoadBalancer) -> Result<()> {
        if !self.is_ovn() {
            return Ok(());
        }
        for listener in &balancer.listeners {
            self.check_listener(&listener.spec)?;
        }
        for pool in &balancer.pools {
            self.check_pool(&pool.row.spec)?;
            if pool.members.iter().any(|member| member.spec.has_monitor_options()) {
                return self.refuse("OVN Load Balancer does not support different member monitor address or port.");
            }
            if let Some(monitor) = pool.monitor.as_ref().filter(|_| !self.is_ovn_of_zed()) {
                self.check_monitor(&monitor.spec.kind)?;
            }
        }
        Ok(())
    }

    /// Whether one client's connections all go to one member. The provider of Zed takes session persistence without effect.
    pub(crate) fn keeps_clients(&self, spec: &PoolSpec) -> bool {
        let by_source = spec.persistence.as_ref().is_some_and(|persistence| persistence.kind == "SOURCE_IP");
        !self.is_ovn_of_zed() && (by_source || spec.algorithm == "SOURCE_IP")
    }

    /// The share of new connections that a member gets: OVN knows neither weights nor members that are administratively down.
    pub(crate) fn weight(&self, spec: &MemberSpec) -> Option<u16> {
        match (self.is_ovn(), spec.enabled) {
            (true, _) => Some(1),
            (false, true) => Some(spec.weight),
            (false, false) => None,
        }
    }
}

//! Where a clause is tried, and what it has made there.

use anyhow::{Context, bail, ensure};
use ipnet::IpNet;
use kuryr_model::{
    DEVICE_OWNER, FloatingIpId, LoadBalancerId, NetworkId, PortId, ProjectId, RouterId, SecurityGroupId, SubnetId,
    TrunkId,
    lb::{Provisioning, Tree},
    neutron::{FloatingIp, Network, Port, Router, SecurityGroup, Subnet, Trunk},
};
use kuryr_openstack::{
    Cloud, CloudConfig, Error, Filter, LoadBalancing, Network as Neutron,
    load_balancer::{NewLoadBalancer, StatusTree},
    network::{
        NewFixedIp, NewPort, NewRouter, NewSubnet, floating_ips::NewFloatingIp, networks::NewNetwork, quotas::Quota,
        routers::Gateway, security_groups::NewSecurityGroup, trunks::NewTrunk,
    },
};
use std::{
    mem::take,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// A cloud, and what must be deleted again.
#[derive(Clone)]
pub struct Site {
    pub(super) config: CloudConfig,
    pub(super) cloud: Cloud,
    made: Arc<Mutex<Vec<Made>>>,
}

/// One thing that a clause has made or changed.
enum Made {
    Network(NetworkId),
    Subnet(SubnetId),
    Port(PortId),
    Router(RouterId),
    Interface(RouterId, SubnetId),
    Group(SecurityGroupId),
    Quota(ProjectId, &'static str, i64),
    LoadBalancer(LoadBalancerId),
    LoadBalancerQuota(ProjectId, i64),
    FloatingIp(FloatingIpId),
    Trunk(TrunkId),
}

/// Every name begins with this, so that a person knows what a killed run has left.
const PREFIX: &str = "kuryr-contract";

/// How often Octavia is asked whether a provider is through: it tells nobody by itself.
const POLL: Duration = Duration::from_millis(200);

/// A name that no other clause and no other run has.
pub(super) fn fresh(what: &str) -> String {
    format!("{PREFIX}-{what}-{}", &uuid::Uuid::new_v4().to_string()[..8])
}

impl Site {
    /// Connects.
    ///
    /// # Errors
    /// The cloud cannot be used.
    pub async fn new(config: CloudConfig) -> anyhow::Result<Self> {
        let cloud = Cloud::connect(config.clone()).await?;
        Ok(Self { config, cloud, made: Arc::default() })
    }

    fn made(&self) -> MutexGuard<'_, Vec<Made>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn neutron(&self) -> Neutron {
        self.cloud.network()
    }

    pub(super) fn octavia(&self) -> LoadBalancing {
        self.cloud.load_balancing()
    }

    pub(super) async fn network(&self) -> anyhow::Result<Network> {
        let new = NewNetwork { name: fresh("network"), ..NewNetwork::default() };
        let network = self.neutron().networks().create(&new).await?;
        self.made().push(Made::Network(network.id));
        Ok(network)
    }

    /// Asks for a subnet as `kuryr setup` does.
    pub(super) async fn try_subnet(&self, network: NetworkId, cidr: &str) -> anyhow::Result<Result<Subnet, Error>> {
        let cidr: IpNet = cidr.parse()?;
        let new = NewSubnet {
            network_id: network,
            ip_version: if cidr.addr().is_ipv6() { 6 } else { 4 },
            cidr: Some(cidr),
            subnetpool_id: None,
            name: fresh("subnet"),
            description: String::new(),
            enable_dhcp: false,
            gateway_ip: None,
            allocation_pools: Vec::new(),
        };
        let made = self.neutron().subnets().create(&new).await;
        if let Ok(subnet) = &made {
            self.made().push(Made::Subnet(subnet.id));
        }
        Ok(made)
    }

    pub(super) async fn subnet(&self, network: NetworkId, cidr: &str) -> anyhow::Result<Subnet> {
        Ok(self.try_subnet(network, cidr).await??)
    }

    /// A network with one subnet.
    pub(super) async fn wire(&self, cidr: &str) -> anyhow::Result<(Network, Subnet)> {
        let network = self.network().await?;
        let subnet = self.subnet(network.id, cidr).await?;
        Ok((network, subnet))
    }

    /// Asks for ports in one request, as the controller does.
    pub(super) async fn ports(&self, new: &[NewPort]) -> Result<Vec<Port>, Error> {
        let made = self.neutron().ports().create_many(new).await;
        self.made().extend(made.iter().flatten().map(|port| Made::Port(port.id)));
        made
    }

    pub(super) async fn port(&self, new: NewPort) -> anyhow::Result<Port> {
        self.ports(&[new]).await?.pop().context("a bulk of one was answered with none")
    }

    pub(super) async fn try_trunk(&self, parent: PortId) -> Result<Trunk, Error> {
        let made = self.neutron().trunks().create(&NewTrunk { name: fresh("trunk"), port_id: parent }).await;
        if let Ok(trunk) = &made {
            self.made().push(Made::Trunk(trunk.id));
        }
        made
    }

    pub(super) async fn group(&self) -> anyhow::Result<SecurityGroup> {
        let new = NewSecurityGroup { name: fresh("group"), description: "of the contract".to_owned() };
        let group = self.neutron().security_groups().create(&new).await?;
        self.made().push(Made::Group(group.id));
        Ok(group)
    }

    pub(super) async fn router(&self) -> anyhow::Result<Router> {
        let new = NewRouter { name: fresh("router"), ..NewRouter::default() };
        let router = self.neutron().routers().create(&new).await?;
        self.made().push(Made::Router(router.id));
        Ok(router)
    }

    pub(super) async fn join(&self, router: RouterId, subnet: SubnetId) -> Result<(), Error> {
        self.neutron().routers().add_interface(router, subnet).await?;
        self.made().push(Made::Interface(router, subnet));
        Ok(())
    }

    /// A network inside that a router joins to one outside: the outside, and the subnets of both.
    pub(super) async fn way_out(&self) -> anyhow::Result<(Network, Subnet, Subnet)> {
        let new = NewNetwork { name: fresh("outside"), external: true, ..NewNetwork::default() };
        let outside = self.neutron().networks().create(&new).await?;
        self.made().push(Made::Network(outside.id));
        let outer = self.subnet(outside.id, "203.0.113.0/28").await?;
        let (_, inner) = self.wire("10.231.0.0/24").await?;
        let router = self.router().await?;
        self.neutron().routers().set_gateway(router.id, Gateway { network_id: outside.id }).await?;
        self.join(router.id, inner.id).await?;
        Ok((outside, outer, inner))
    }

    pub(super) async fn try_floating_ip(&self, new: &NewFloatingIp) -> Result<FloatingIp, Error> {
        let made = self.neutron().floating_ips().create(new).await;
        if let Ok(floating) = &made {
            self.made().push(Made::FloatingIp(floating.id));
        }
        made
    }

    pub(super) async fn try_balancer(&self, new: &NewLoadBalancer) -> Result<Tree, Error> {
        let made = self.octavia().load_balancers().create(new).await;
        if let Ok(tree) = &made {
            self.made().push(Made::LoadBalancer(tree.load_balancer.id));
        }
        made
    }

    /// Makes a load balancer and waits until its provider is through with it.
    pub(super) async fn balancer(&self, new: &NewLoadBalancer) -> anyhow::Result<Tree> {
        let tree = self.try_balancer(new).await?;
        self.ready(tree.load_balancer.id).await?;
        Ok(tree)
    }

    /// Waits until a provider is through: it may say so of the load balancer before it has done all that is in it.
    pub(super) async fn ready(&self, id: LoadBalancerId) -> anyhow::Result<StatusTree> {
        loop {
            let tree = self.octavia().status(id).await?;
            let pools = || tree.listeners.iter().flat_map(|listener| &listener.pools);
            let states: Vec<Provisioning> = std::iter::once(tree.provisioning_status)
                .chain(tree.listeners.iter().map(|listener| listener.provisioning_status))
                .chain(pools().map(|pool| pool.provisioning_status))
                .chain(tree.members().map(|member| member.provisioning_status))
                .collect();
            if states.contains(&Provisioning::Error) {
                bail!("in ERROR: {tree:?}");
            }
            if states.iter().all(|state| *state == Provisioning::Active) {
                return Ok(tree);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Deletes a load balancer as soon as that is possible, and waits until it is gone.
    pub(super) async fn delete_balancer(&self, id: LoadBalancerId) -> Result<(), Error> {
        loop {
            match self.octavia().load_balancers().get(id).await {
                Err(error) if error.is_not_found() => return Ok(()),
                Err(error) => return Err(error),
                Ok(found) if found.provisioning_status.is_pending() => tokio::time::sleep(POLL).await,
                Ok(_) => match self.octavia().load_balancers().delete(id).await {
                    Err(error) if !error.is_immutable() => return Err(error),
                    Ok(()) | Err(_) => {}
                },
            }
        }
    }

    /// The project may have so many load balancers, until the clause ends.
    pub(super) async fn limit_balancers(&self, limit: i64) -> anyhow::Result<()> {
        let project = self.cloud.identity().project.context("the token has no project")?;
        let old = self.octavia().quotas(&project).await?.load_balancers;
        let old = old.map_or(Ok(-1), i64::try_from)?;
        self.made().push(Made::LoadBalancerQuota(project.clone(), old));
        Ok(self.octavia().set_quota(&project, "loadbalancer", limit).await?)
    }

    /// What is left of a quota becomes `free`, until the clause ends.
    pub(super) async fn leave_free(&self, kind: &'static str, free: u64) -> anyhow::Result<()> {
        let project = self.cloud.identity().project.context("the token has no project")?;
        let quotas = self.neutron().quotas(&project).await?;
        let Quota { limit, used, reserved } = quotas.get(kind).with_context(|| format!("no quota of {kind}"))?;
        let wanted = i64::try_from(used + reserved + free)?;
        self.made().push(Made::Quota(project.clone(), kind, *limit));
        Ok(self.neutron().set_quota(&project, kind, wanted).await?)
    }

    /// A host that ports can be bound to.
    pub(super) async fn host(&self) -> anyhow::Result<String> {
        let agents = self.neutron().agents_if_asked_twice(&Filter::new()).await?;
        let alive = agents.into_iter().find(|agent| agent.alive);
        Ok(alive.context("Neutron knows no host that is alive")?.host)
    }

    /// How many ports a network has.
    pub(super) async fn count(&self, network: NetworkId) -> anyhow::Result<usize> {
        Ok(self.neutron().ports().list(&Filter::new().with("network_id", network)).await?.len())
    }

    /// Deletes what was made, the last thing first.
    ///
    /// # Errors
    /// What could not be deleted; the rest is gone.
    pub async fn clean(&self) -> anyhow::Result<()> {
        let mut made = take(&mut *self.made());
        // Neutron keeps the ports of a trunk, and some are made after it.
        made.sort_by_key(|thing| matches!(thing, Made::Trunk(_)));
        let neutron = self.neutron();
        let mut left = Vec::new();
        for thing in made.into_iter().rev() {
            let (what, result) = match thing {
                Made::Network(id) => (format!("network {id}"), neutron.networks().delete(id).await),
                Made::Subnet(id) => (format!("subnet {id}"), neutron.subnets().delete(id).await),
                Made::Port(id) => (format!("port {id}"), neutron.ports().delete(id).await),
                Made::Router(id) => (format!("router {id}"), neutron.routers().delete(id).await),
                Made::Group(id) => (format!("security group {id}"), neutron.security_groups().delete(id).await),
                Made::Interface(router, subnet) => {
                    let parted = neutron.routers().remove_interface(router, subnet).await;
                    (format!("interface of router {router} in subnet {subnet}"), parted)
                }
                Made::LoadBalancer(id) => (format!("load balancer {id}"), self.delete_balancer(id).await),
                Made::Trunk(id) => (format!("trunk {id}"), neutron.trunks().delete(id).await),
                Made::FloatingIp(id) => (format!("floating IP {id}"), neutron.floating_ips().delete(id).await),
                Made::LoadBalancerQuota(project, limit) => {
                    let set = self.octavia().set_quota(&project, "loadbalancer", limit).await;
                    ("quota of load balancers".to_owned(), set)
                }
                Made::Quota(project, kind, limit) => {
                    (format!("quota of {kind}"), neutron.set_quota(&project, kind, limit).await)
                }
            };
            if let Err(error) = result {
                left.push(format!("{what}: {error}"));
            }
        }
        ensure!(left.is_empty(), "not cleaned up: {}", left.join("; "));
        Ok(())
    }
}

/// A port as the controller asks for it.
pub(super) fn new_port(network: NetworkId, subnet: SubnetId) -> NewPort {
    NewPort {
        name: fresh("port"),
        device_owner: DEVICE_OWNER.to_owned(),
        device_id: uuid::Uuid::new_v4().to_string(),
        fixed_ips: vec![NewFixedIp::from(subnet)],
        ..NewPort::new(network)
    }
}

/// The error of a call that must be refused.
pub(super) fn refused<T>(what: &str, result: Result<T, Error>) -> anyhow::Result<Error> {
    match result {
        Ok(_) => bail!("{what} was taken and should have been refused"),
        Err(error) => Ok(error),
    }
}

/// Holds a refusal to its status and to its name.
pub(super) fn is_refusal(error: &Error, status: u16, kinds: &[&str]) -> anyhow::Result<()> {
    let refusal = error.refusal().with_context(|| format!("no answer: {error}"))?;
    ensure!(
        refusal.status == status && kinds.contains(&refusal.kind.as_str()),
        "answered {refusal}, expected {status} {}",
        kinds.join(" or ")
    );
    Ok(())
}

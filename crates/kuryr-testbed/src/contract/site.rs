//! Where a clause is tried, and what it has made there.

use anyhow::{Context, bail, ensure};
use ipnet::IpNet;
use kuryr_model::{
    DEVICE_OWNER, NetworkId, PortId, ProjectId, RouterId, SecurityGroupId, SubnetId,
    neutron::{Network, Port, Router, SecurityGroup, Subnet},
};
use kuryr_openstack::{
    Cloud, CloudConfig, Error, Filter, Network as Neutron,
    network::{
        NewFixedIp, NewPort, NewRouter, NewSubnet, networks::NewNetwork, quotas::Quota,
        security_groups::NewSecurityGroup,
    },
};
use std::{
    mem::take,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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
}

/// Every name begins with this, so that a person knows what a killed run has left.
const PREFIX: &str = "kuryr-contract";

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
        let agents = self.neutron().agents(&Filter::new()).await?;
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
        let made = take(&mut *self.made());
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

//! Limits of the cloud that a scenario sets, and takes away again: the real world is the next scenario's, too.

use super::{Ground, World, spares::with_section};
use anyhow::Context;
use ipnet::IpNet;
use kuryr_model::{NetworkId, neutron::Subnet};
use kuryr_openstack::network::NewSubnet;
use std::fs;

/// Subnets of five addresses each, by name.
const SMALL: [(&str, &str); 2] = [("small-a", "10.20.0.0/29"), ("small-b", "10.20.1.0/29")];

/// Neutron's name of the quota of ports.
const PORTS: &str = "port";

impl World {
    /// Tells a story in which the project may have only so many more ports than it has now. After it the quota is what it was,
    /// whatever became of the story.
    ///
    /// # Errors
    /// The story fails, or Neutron does not change the quota.
    pub async fn with_ports_left(
        &self,
        free: u64,
        story: impl AsyncFnOnce(&Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let project = self.cloud.identity().project.context("the token has no project")?;
        let network = self.cloud.network();
        let quotas = network.quotas(&project).await?;
        let quota = quotas.get(PORTS).context("no quota of ports")?;
        network.set_quota(&project, PORTS, i64::try_from(quota.used + quota.reserved + free)?).await?;
        let told = story(self).await;
        let restored = network.set_quota(&project, PORTS, quota.limit).await.context("the quota of ports");
        told.and(restored)
    }

    /// Makes two subnets of five addresses each, `small-a` and `small-b`, and has the controller use only those.
    ///
    /// # Errors
    /// Something refuses.
    pub async fn use_small_subnets(&mut self) -> anyhow::Result<()> {
        let first = self.pod_subnets().await?.into_iter().next().context("no pod subnet")?;
        for (name, cidr) in SMALL {
            self.add_subnet(first.network_id, name, cidr).await?;
        }
        self.use_subnets(&SMALL.map(|(name, _)| name.to_owned())).await
    }

    /// Tells a story with [`Self::use_small_subnets`], after which they are gone, and the pods in them.
    ///
    /// # Errors
    /// The story fails, or something is left.
    pub async fn with_small_subnets(
        &mut self,
        story: impl AsyncFnOnce(&mut Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let told = match self.use_small_subnets().await {
            Ok(()) => story(self).await,
            failed => failed,
        };
        let restored = self.take_down_small_subnets().await.context("the small subnets");
        told.and(restored)
    }

    async fn take_down_small_subnets(&mut self) -> anyhow::Result<()> {
        self.pods().delete_all().await?;
        self.pods().all_gone().await?;
        self.configure_network("").await?;
        let network = self.cloud.network();
        let subnets = network.subnets().list(&kuryr_openstack::Filter::new()).await?;
        for subnet in subnets.iter().filter(|subnet| SMALL.iter().any(|(name, _)| subnet.name == *name)) {
            network.subnets().delete(subnet.id).await?;
        }
        Ok(())
    }

    pub(super) async fn add_subnet(&self, network_id: NetworkId, name: &str, cidr: &str) -> anyhow::Result<Subnet> {
        let cidr: IpNet = cidr.parse()?;
        let new = NewSubnet {
            network_id,
            ip_version: if cidr.addr().is_ipv4() { 4 } else { 6 },
            cidr: Some(cidr),
            subnetpool_id: None,
            name: name.to_owned(),
            description: String::new(),
            enable_dhcp: false,
            gateway_ip: None,
            allocation_pools: Vec::new(),
        };
        Ok(self.cloud.network().subnets().create(&new).await?)
    }

    pub(super) async fn use_subnets(&mut self, names: &[String]) -> anyhow::Result<()> {
        self.configure_network(&format!("pod_subnets = {names:?}")).await
    }

    /// Gives the controller these settings of `[network]`.
    async fn configure_network(&mut self, lines: &str) -> anyhow::Result<()> {
        match &self.ground {
            Ground::Embedded(embedded) => embedded.configure_network(&format!("[network]\n{lines}\n"))?,
            Ground::Real(_) => {
                let config = fs::read_to_string(&self.kuryr.settings().config)?;
                self.kuryr.use_config(&with_section(&config, "network", lines))?;
            }
        }
        self.renew_controllers().await
    }
}

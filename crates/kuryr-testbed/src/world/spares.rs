//! Port pools of a world's controller, and what they have in Neutron: the same in both worlds.

use super::{Ground, World, pods::PATIENCE};
use anyhow::{Context, bail};
use kube::{Api, api::ListParams};
use kuryr_model::{KuryrPort, PortId, Purpose, mark::cluster_tag, neutron::Port};
use kuryr_openstack::Filter;
use std::{collections::HashSet, fs, time::Duration};
use tokio::time::timeout;

impl World {
    /// Gives the controller port pools of these settings.
    ///
    /// # Errors
    /// It does not start with them.
    pub async fn use_pools(&mut self, lines: &str) -> anyhow::Result<()> {
        match &self.ground {
            Ground::Embedded(embedded) => embedded.configure_pools(lines)?,
            Ground::Real(_) => {
                let config = fs::read_to_string(&self.kuryr.settings().config)?;
                self.kuryr.use_config(&with_section(&config, "pools", lines))?;
            }
        }
        self.renew_controllers().await
    }

    /// Takes its pools from the controller, and waits until no port of them is left that no pod has.
    ///
    /// # Errors
    /// Some are left.
    pub async fn use_no_pools(&mut self) -> anyhow::Result<()> {
        self.use_pools("enabled = false").await?;
        let mut left = 0;
        let gone = async {
            loop {
                let held: HashSet<PortId> =
                    self.all_kuryr_ports().await?.iter().flat_map(|port| port.port_ids().collect::<Vec<_>>()).collect();
                left = self.pool_ports().await?.iter().filter(|port| !held.contains(&port.id)).count();
                if left == 0 {
                    return anyhow::Ok(());
                }
                // Nothing tells when Neutron has deleted something.
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        match timeout(PATIENCE, gone).await {
            Ok(gone) => gone,
            Err(_) => bail!("{left} spare ports are left"),
        }
    }

    async fn all_kuryr_ports(&self) -> anyhow::Result<Vec<KuryrPort>> {
        Ok(Api::all(self.client.clone()).list(&ListParams::default()).await?.items)
    }

    /// The ports of pools in Neutron, spare or of pods.
    ///
    /// # Errors
    /// Neutron does not tell.
    pub async fn pool_ports(&self) -> anyhow::Result<Vec<Port>> {
        let mut ports = self.our_ports().await?;
        ports.retain(|port| port.tags.iter().any(|tag| matches!(tag.parse(), Ok(Purpose::Pool))));
        Ok(ports)
    }

    /// All ports in Neutron that carry this cluster's mark.
    ///
    /// # Errors
    /// Neutron does not tell.
    pub async fn our_ports(&self) -> anyhow::Result<Vec<Port>> {
        Ok(self.cloud.network().ports().list(&Filter::new().tags([cluster_tag(&self.cluster)])).await?)
    }

    /// How many requests the controllers that run have made to Neutron.
    ///
    /// # Errors
    /// One does not tell.
    pub async fn neutron_requests(&self) -> anyhow::Result<u64> {
        let mut sum = 0;
        for controller in self.kuryr.controllers() {
            sum += requests_in(&self.kuryr.controller_metrics(controller).await?)?;
        }
        Ok(sum)
    }
}

/// A configuration with other settings of a section.
pub(super) fn with_section(config: &str, name: &str, lines: &str) -> String {
    let header = format!("[{name}]");
    let mut section = "";
    let mut kept = String::new();
    for line in config.lines() {
        if line.starts_with('[') {
            section = line.trim();
        }
        if section != header {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    format!("{kept}{header}\n{lines}\n")
}

/// How many requests to Neutron a page of metrics counts.
fn requests_in(page: &str) -> anyhow::Result<u64> {
    let ours = |line: &&str| {
        line.starts_with("kuryr_openstack_request_duration_seconds_count{") && line.contains("service=\"network\"")
    };
    let number = |line: &str| line.rsplit(' ').next().unwrap_or_default().parse::<u64>().context(line.to_owned());
    page.lines().filter(ours).map(number).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_gets_other_pools_and_keeps_the_rest() {
        let config = "[controller]\nlisten = \"a\"\n\n[pools]\nenabled = false\n\n[daemon]\nlisten = \"b\"\n";
        let wanted = "[controller]\nlisten = \"a\"\n\n[daemon]\nlisten = \"b\"\n[pools]\nfloor = 3\n";
        assert_eq!(with_section(config, "pools", "floor = 3"), wanted);
        assert_eq!(with_section("[daemon]\n", "pools", "floor = 3"), "[daemon]\n[pools]\nfloor = 3\n");
    }

    #[test]
    fn only_requests_to_neutron_count() {
        let page = "kuryr_openstack_request_duration_seconds_count{service=\"network\",method=\"GET\",result=\"200\"} 4\n\
                    kuryr_openstack_request_duration_seconds_count{service=\"identity\",method=\"POST\",result=\"201\"} 1\n\
                    kuryr_openstack_request_duration_seconds_sum{service=\"network\",method=\"GET\",result=\"200\"} 0.5\n\
                    kuryr_openstack_request_duration_seconds_count{service=\"network\",method=\"POST\",result=\"201\"} 3\n";
        assert_eq!(requests_in(page).unwrap(), 7);
    }
}

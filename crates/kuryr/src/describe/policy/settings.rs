//! What the cloud says and policies do not.

use crate::cloud::{named, only};
use kuryr_controller::{ControllerConfig, survey::services_off};
use kuryr_model::{
    Mark, Purpose,
    mark::Base,
    neutron::{EtherType, Subnet},
};
use kuryr_openstack::{Cloud, Filter};
use kuryr_plan::policy::Settings;

/// The families of pods' addresses, and the ranges that VIPs are from, as the controller has them.
pub(super) async fn settings(config: &ControllerConfig, cloud: &Cloud) -> anyhow::Result<Settings> {
    let pods = subnets(config, cloud, &config.pod_subnets, Base::Pods).await?;
    // Where Services are off there are no VIPs.
    let services = match services_off(config, cloud).await? {
        None => subnets(config, cloud, &config.services.subnets, Base::Services).await?,
        Some(_) => Vec::new(),
    };
    let family = |subnet: &Subnet| if subnet.cidr.addr().is_ipv4() { EtherType::IPv4 } else { EtherType::IPv6 };
    Ok(Settings {
        families: pods.iter().map(family).collect(),
        service_ranges: services.iter().map(|subnet| subnet.cidr).collect(),
    })
}

async fn subnets(
    config: &ControllerConfig,
    cloud: &Cloud,
    names: &[String],
    base: Base,
) -> anyhow::Result<Vec<Subnet>> {
    let network = cloud.network();
    if names.is_empty() {
        let mark = Mark { cluster: config.cluster.clone(), purpose: Purpose::Base(base) };
        return Ok(network.subnets().list(&Filter::new().tags(mark.tags())).await?);
    }
    let mut found = Vec::new();
    for name in names {
        found.push(only("subnet", name, network.subnets().list(&named(name)).await?)?);
    }
    Ok(found)
}

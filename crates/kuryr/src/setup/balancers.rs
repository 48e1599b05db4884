//! What Services have in the cloud goes when Kuryr does: nobody else can take it away, and Kubernetes itself keeps one Service.

use super::PAUSE;
use anyhow::{Context as _, bail};
use kuryr_model::{ClusterId, Mark, PortId, Purpose, lb::LoadBalancer, mark::cluster_tag};
use kuryr_openstack::{Cloud, Error, Filter, Service};
use kuryr_plan::service::{ADOPTED_TAG, KEEP_TAG};
use std::{collections::BTreeSet, io::Write};

/// How often is looked whether Octavia is done, one [`PAUSE`] apart.
const LOOKS: usize = 180;

/// Floating IPs with one of these tags were somebody else's, or are to be kept.
const KEPT: [&str; 2] = [ADOPTED_TAG, KEEP_TAG];

async fn all(cloud: &Cloud, cluster: &ClusterId) -> Result<Vec<LoadBalancer>, Error> {
    if cloud.url(Service::LoadBalancer).is_err() {
        return Ok(Vec::new());
    }
    let ours = Filter::new().tags([cluster_tag(cluster)]);
    let mut all = cloud.load_balancing().load_balancers().list(&ours).await?;
    all.retain(|balancer| is_of_a_service(cluster, &balancer.tags));
    Ok(all)
}

fn is_of_a_service(cluster: &ClusterId, tags: &[String]) -> bool {
    matches!(Mark::read(cluster, tags), Some(Mark { purpose: Purpose::Service(_), .. }))
}

/// The ports of their VIPs, which go with them.
pub(super) async fn vip_ports(cloud: &Cloud, cluster: &ClusterId) -> Result<BTreeSet<PortId>, Error> {
    Ok(all(cloud, cluster).await?.into_iter().filter_map(|balancer| balancer.vip_port_id).collect())
}

/// Deletes the load balancers of Services and their floating IPs, and waits until they are gone.
pub(super) async fn remove(cloud: &Cloud, cluster: &ClusterId, progress: &mut dyn Write) -> anyhow::Result<()> {
    let mut told = BTreeSet::new();
    for _ in 0..LOOKS {
        let left = all(cloud, cluster).await?;
        if left.is_empty() {
            return remove_floating_ips(cloud, cluster, progress).await;
        }
        for balancer in left {
            if told.insert(balancer.id) {
                writeln!(progress, "delete load balancer {} ({})", balancer.name, balancer.id)?;
            }
            match cloud.load_balancing().load_balancers().delete(balancer.id).await {
                // Octavia is at work on it: again after the pause.
                Err(error) if error.is_immutable() => {}
                other => other.with_context(|| format!("cannot delete load balancer {}", balancer.id))?,
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    bail!("Octavia does not delete the load balancers; `openstack loadbalancer list` shows their state")
}

async fn remove_floating_ips(cloud: &Cloud, cluster: &ClusterId, progress: &mut dyn Write) -> anyhow::Result<()> {
    let network = cloud.network();
    for ip in network.floating_ips().list(&Filter::new().tags([cluster_tag(cluster)])).await? {
        if is_of_a_service(cluster, &ip.tags) && !ip.tags.iter().any(|tag| KEPT.contains(&tag.as_str())) {
            writeln!(progress, "delete floating IP {} ({})", ip.floating_ip_address, ip.id)?;
            network
                .floating_ips()
                .delete(ip.id)
                .await
                .with_context(|| format!("cannot delete floating IP {}", ip.id))?;
        }
    }
    Ok(())
}

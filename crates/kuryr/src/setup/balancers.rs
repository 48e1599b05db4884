//! What Services have in the cloud goes when Kuryr does.

use super::PAUSE;
use anyhow::bail;
use kuryr_controller::remove;
use kuryr_model::ClusterId;
use kuryr_openstack::Cloud;
use std::{collections::BTreeSet, io::Write};

/// How often is looked whether Octavia is done, one [`PAUSE`] apart.
const LOOKS: usize = 180;

/// Deletes the load balancers of Services and their floating IPs, and waits until they are gone.
pub(super) async fn remove(cloud: &Cloud, cluster: &ClusterId, progress: &mut dyn Write) -> anyhow::Result<()> {
    // Octavia is asked again for what it was too busy for: that is told once.
    let mut told = BTreeSet::new();
    for _ in 0..LOOKS {
        let mut new = Vec::new();
        let left = remove::remove(cloud, cluster, |step| {
            let step = step.to_string();
            if told.insert(step.clone()) {
                new.push(step);
            }
        })
        .await;
        for step in new {
            writeln!(progress, "{step}")?;
        }
        if !left? {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
    bail!("Octavia does not delete the load balancers; `openstack loadbalancer list` shows their state")
}

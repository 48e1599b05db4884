//! Takes away what all Services of a cluster have in the cloud. When Kuryr goes, nobody else can, and Kubernetes itself keeps one
//! Service.

use super::{calls::call, forward::bring_forward, observe::Observer};
use kuryr_model::{ClusterId, Mark, PortId, Purpose};
use kuryr_openstack::{Cloud, Error as CloudError, Service as CloudService};
use kuryr_plan::service::{Desired, Observed, Step, plan};
use std::collections::{BTreeSet, HashMap};

/// Something cannot be taken away.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// What there is cannot be listed.
    #[error("the load balancers of Services cannot be listed")]
    List(#[from] CloudError),
    /// A step failed.
    #[error("cannot {0}")]
    Step(String, #[source] CloudError),
}

async fn made(cloud: &Cloud, observer: &Observer) -> Result<HashMap<kuryr_model::ServiceUid, Observed>, CloudError> {
    match cloud.url(CloudService::LoadBalancer) {
        Ok(_) => observer.all().await,
        Err(_) => Ok(HashMap::new()),
    }
}

/// The ports of the VIPs that Kuryr made for Services: they go with their load balancers.
///
/// # Errors
/// [`RemoveError::List`].
pub async fn vip_ports(cloud: &Cloud, cluster: &ClusterId) -> Result<BTreeSet<PortId>, RemoveError> {
    let all = made(cloud, &Observer::new(cloud, cluster.clone())).await?;
    let trees = all.into_values().flat_map(|observed| observed.trees).map(|tree| tree.load_balancer);
    let ours = trees
        .filter(|one| Mark::read(cluster, &one.tags).is_some_and(|mark| matches!(mark.purpose, Purpose::Service(_))));
    Ok(ours.filter_map(|one| one.vip_port_id).collect())
}

/// Does all that can be done now; each step is told before it is done. Whether there was anything: then it is to be asked again after
/// a while, since Octavia takes its time. What is somebody else's, or is to be kept, stays.
///
/// # Errors
/// [`RemoveError`]. What was done is done.
pub async fn remove(cloud: &Cloud, cluster: &ClusterId, mut tell: impl FnMut(&Step)) -> Result<bool, RemoveError> {
    let observer = Observer::new(cloud, cluster.clone());
    let mut left = false;
    for (uid, mut observed) in made(cloud, &observer).await? {
        let gone = Desired::gone(cluster.clone(), uid);
        while let Some(step) = plan(&gone, &observed).steps.first() {
            left = true;
            if matches!(step, Step::Wait { .. }) {
                break;
            }
            tell(step);
            match call(&observer.octavia, &observer.network, step).await {
                Ok(answer) => bring_forward(&mut observed, step, answer),
                // Octavia is at work on it.
                Err(error) if error.is_immutable() => break,
                Err(error) => return Err(RemoveError::Step(step.to_string(), error)),
            }
        }
    }
    Ok(left)
}

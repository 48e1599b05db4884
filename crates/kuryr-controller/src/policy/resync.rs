//! All ports of pods, with their groups.

use super::call::Caller;
use kuryr_model::{Mark, PodUid, PortId, Purpose, SecurityGroupId, mark::cluster_tag, neutron::Port};
use kuryr_openstack::{Error, Filter};
use std::collections::{BTreeSet, HashMap};

/// A port: its id, whose it is, if it says so, and its groups.
pub(super) struct Listed {
    id: PortId,
    pod: Option<PodUid>,
    groups: BTreeSet<SecurityGroupId>,
}

/// The ports of pods among those listed. One of a pool does not say whose it is: `holders` know it, the pods whose `KuryrPort`s
/// have ports, or `known`, what was handed out since.
pub(super) fn owned(
    listed: Vec<Listed>,
    holders: &HashMap<PortId, PodUid>,
    known: impl Fn(PortId) -> Option<PodUid>,
) -> Vec<(PortId, PodUid, BTreeSet<SecurityGroupId>)> {
    let owned = |Listed { id, pod, groups }| {
        let pod = pod.or_else(|| holders.get(&id).cloned()).or_else(|| known(id))?;
        Some((id, pod, groups))
    };
    listed.into_iter().filter_map(owned).collect()
}

impl Caller {
    /// All ports that are for pods, or kept ready for some.
    pub(super) async fn ports(&self) -> Result<Vec<Listed>, Error> {
        let ours = Filter::new().tags([cluster_tag(&self.cluster)]);
        let ports = self.cloud.network().ports().list(&ours).await?;
        let listed = |port: Port| {
            let pod = match Mark::read(&self.cluster, &port.tags)?.purpose {
                Purpose::Pod(uid) => Some(uid),
                Purpose::Pool => None,
                Purpose::Service(_) | Purpose::Group(_) | Purpose::Base(_) => return None,
            };
            Some(Listed { id: port.id, pod, groups: port.security_groups.into_iter().collect() })
        };
        Ok(ports.into_iter().filter_map(listed).collect())
    }
}

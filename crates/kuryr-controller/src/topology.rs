//! What the controller finds in the cloud when it starts: the pod subnets, their networks, the base security groups,
//! and the API extensions that it relies on.

use kuryr_model::{
    ClusterId, Mark, NetworkId, Purpose, SecurityGroupId, SubnetId,
    mark::{Base, cluster_tag},
    neutron::{Network, Subnet},
};
use kuryr_openstack::{Cloud, Error as CloudError, Filter};
use kuryr_plan::subnets::{Choice, choices};
use std::collections::HashMap;

/// The parts of Neutron's API that Kuryr cannot do without, and what for. That ports are tagged in the request that makes
/// them (`tag-ports-during-bulk-creation`) is not among them: ML2/OVN does it without listing it, so the answers are looked at.
pub const REQUIRED_EXTENSIONS: [(&str, &str); 4] = [
    ("standard-attr-tag", "what Kuryr makes is found again by its tags"),
    ("security-group", "pods are guarded by security groups"),
    ("binding", "ports are bound to the nodes of their pods"),
    ("revision-if-match", "updates must not overwrite each other"),
];

/// What the cloud has for pods.
#[derive(Debug)]
pub(crate) struct Topology {
    /// Where a port may be, best first. Never empty.
    pub(crate) choices: Vec<Choice>,
    /// The subnets of the choices.
    pub(crate) subnets: Vec<Subnet>,
    /// The networks of the subnets.
    pub(crate) networks: HashMap<NetworkId, Network>,
    /// The groups of a pod that no policy isolates: everything in, everything out.
    pub(crate) open_groups: Vec<SecurityGroupId>,
    /// Neutron can say how full subnets are. Whether our user may know is another matter.
    pub(crate) tells_room: bool,
}

/// The cloud lacks something.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// OpenStack refused, or did not answer.
    #[error("the cloud cannot be looked at: {0}")]
    Cloud(#[from] CloudError),
    /// A configured subnet is not there.
    #[error(
        "[network] pod_subnets names {0:?}, and there is no such subnet; `kuryr setup` makes one and prints the setting"
    )]
    NoSuchSubnet(String),
    /// A name stands for several subnets.
    #[error("[network] pod_subnets names {0:?}, and there are {1} subnets of that name; give the id of one instead")]
    AmbiguousSubnet(String, usize),
    /// No subnet is configured and none was set up.
    #[error(
        "there is no pod subnet: [network] pod_subnets is empty and no subnet carries the tag kuryr:{0}; run \
         `kuryr setup`, or name subnets"
    )]
    NoSubnets(ClusterId),
    /// A base security group is missing.
    #[error("there is no security group tagged {tag} and kuryr:{cluster}; run `kuryr setup`, which makes it")]
    NoGroup {
        /// The missing purpose.
        tag: Purpose,
        /// The cluster.
        cluster: ClusterId,
    },
    /// Neutron lacks an API extension.
    #[error(
        "Neutron lacks the API extension {alias:?}, without which Kuryr cannot work ({why}): have the cloud's operator enable it \
         (`openstack extension list --network` shows what there is), or set [openstack] cloud to another one"
    )]
    NoExtension {
        /// The extension's alias.
        alias: &'static str,
        /// What it is needed for.
        why: &'static str,
    },
}

impl Topology {
    /// Looks at the cloud.
    pub(crate) async fn find(
        cloud: &Cloud,
        cluster: &ClusterId,
        pod_subnets: &[String],
    ) -> Result<Self, TopologyError> {
        let network = cloud.network();
        let extensions = network.extensions().await?;
        for (alias, why) in REQUIRED_EXTENSIONS {
            if !extensions.has(alias) {
                return Err(TopologyError::NoExtension { alias, why });
            }
        }
        let subnets = self::pod_subnets(cloud, cluster, pod_subnets).await?;
        let mut networks = HashMap::new();
        for id in subnets.iter().map(|subnet| subnet.network_id) {
            if let std::collections::hash_map::Entry::Vacant(entry) = networks.entry(id) {
                entry.insert(network.networks().get(id).await?);
            }
        }
        let groups = network.security_groups().list(&ours(cluster)).await?;
        let mut open_groups = Vec::new();
        for base in [Base::IngressOpen, Base::EgressOpen] {
            let tag = Purpose::Base(base);
            let found = groups.iter().find(|group| Mark::read(cluster, &group.tags).is_some_and(|m| m.purpose == tag));
            let group = found.ok_or_else(|| TopologyError::NoGroup { tag, cluster: cluster.clone() })?;
            open_groups.push(group.id);
        }
        let tells_room = extensions.has("network-ip-availability");
        Ok(Self { choices: choices(&subnets), subnets, networks, open_groups, tells_room })
    }
}

/// The subnets of pods: those that are named, else those that were set up. Never empty.
pub(crate) async fn pod_subnets(
    cloud: &Cloud,
    cluster: &ClusterId,
    names: &[String],
) -> Result<Vec<Subnet>, TopologyError> {
    if names.is_empty() { set_up_subnets(cloud, cluster).await } else { named_subnets(cloud, names).await }
}

fn ours(cluster: &ClusterId) -> Filter {
    Filter::new().tags([cluster_tag(cluster)])
}

async fn set_up_subnets(cloud: &Cloud, cluster: &ClusterId) -> Result<Vec<Subnet>, TopologyError> {
    let mut subnets = cloud.network().subnets().list(&ours(cluster)).await?;
    let pods = Purpose::Base(Base::Pods);
    subnets.retain(|subnet| Mark::read(cluster, &subnet.tags).is_some_and(|mark| mark.purpose == pods));
    subnets.sort_by_key(|subnet| (subnet.cidr.addr().is_ipv6(), subnet.name.clone(), subnet.id));
    if subnets.is_empty() { Err(TopologyError::NoSubnets(cluster.clone())) } else { Ok(subnets) }
}

async fn named_subnets(cloud: &Cloud, names: &[String]) -> Result<Vec<Subnet>, TopologyError> {
    let mut subnets = Vec::new();
    for name in names {
        let by = if name.parse::<SubnetId>().is_ok() { "id" } else { "name" };
        let mut found = cloud.network().subnets().list(&Filter::new().with(by, name)).await?;
        match found.len() {
            0 => return Err(TopologyError::NoSuchSubnet(name.clone())),
            1 => subnets.append(&mut found),
            many => return Err(TopologyError::AmbiguousSubnet(name.clone(), many)),
        }
    }
    Ok(subnets)
}

#[cfg(test)]
#[path = "topology_tests.rs"]
mod tests;

//! What groups are called in Neutron.
//!
//! Making a group and tagging it are two requests, so a group must be known before it is tagged: its description says
//! whose it is, and its name ends in the digest of its key, which is in its tag later.

use super::group::GroupKey;
use kuryr_model::{ClusterId, GroupDigest, Mark, ObjectKey, PolicyUid, Purpose};

/// The longest name that Neutron takes, in characters.
const LONGEST: usize = 255;

/// What a name's readable half and the digest have between them.
const BETWEEN: &str = " #";

impl GroupKey {
    /// What stands for the key in tags and names.
    #[must_use]
    pub fn digest(&self) -> GroupDigest {
        GroupDigest::of(&self.to_string())
    }

    /// The tags of its group.
    #[must_use]
    pub fn tags(&self, cluster: &ClusterId) -> Vec<String> {
        Mark { cluster: cluster.clone(), purpose: Purpose::Group(self.digest()) }.tags()
    }

    /// The name of its group, like `policy shop/allow-web #<digest>` or `peers shop{app=web} #<digest>`. `policy` knows the
    /// names of policies.
    pub fn name(&self, policy: impl FnOnce(&PolicyUid) -> Option<ObjectKey>) -> String {
        let readable = self.readable(policy);
        let digest = self.digest();
        let room = LONGEST - BETWEEN.len() - digest.as_str().len();
        let cut: String = if readable.chars().count() > room {
            readable.chars().take(room - 3).chain("...".chars()).collect()
        } else {
            readable
        };
        format!("{cut}{BETWEEN}{digest}")
    }

    /// What it is for, for people.
    pub fn readable(&self, policy: impl FnOnce(&PolicyUid) -> Option<ObjectKey>) -> String {
        match self {
            Self::Policy(group) => {
                let name = policy(&group.policy).map_or_else(|| group.policy.to_string(), |key| key.to_string());
                let ports: String = group.ports.iter().map(|port| format!("[{port}]")).collect();
                format!("policy {name}{ports}")
            }
            Self::Peers(set) => format!("peers {set}"),
            Self::Node(name) => format!("node {name}"),
            Self::Balanced(balanced) => {
                format!("load balancer of {} to {}/{}", balanced.service, balanced.number, balanced.protocol)
            }
            Self::IngressOpen | Self::EgressOpen | Self::Loop(_) | Self::Together(_) => self.to_string(),
        }
    }
}

/// The digest in a group's name.
#[must_use]
pub fn digest_in(name: &str) -> Option<GroupDigest> {
    let (_, digest) = name.rsplit_once(BETWEEN)?;
    GroupDigest::read(digest)
}

/// The description of all groups that NetworkPolicies of a cluster need. A list filtered by it has those too that are not
/// tagged yet.
#[must_use]
pub fn description(cluster: &ClusterId) -> String {
    format!("Made by Kuryr for NetworkPolicies of cluster {cluster}")
}

#[cfg(test)]
mod tests {
    use super::super::{
        group::{PeerSet, Peers, PolicyGroup},
        selector::{Requirement, Selector},
        spec::Namespaces,
    };
    use super::*;
    use kuryr_model::mark::MAX_TAG;
    use std::{collections::BTreeSet, sync::Arc};

    fn peers(values: usize) -> GroupKey {
        let values: BTreeSet<String> = (0..values).map(|n| format!("value-{n}")).collect();
        let pods: Selector = [Requirement::In("app".into(), values)].into_iter().collect();
        GroupKey::Peers(Arc::new(PeerSet { peers: Peers::Labelled(Namespaces::Own("shop".into()), pods), port: None }))
    }

    #[test]
    fn a_key_of_any_length_has_a_name_and_tags_that_neutron_takes() {
        let cluster = ClusterId::from("2f1c9b1e-3f0d-4f0e-8f2e-5d1f0e9a7b11");
        for key in [peers(2), peers(2000), GroupKey::Node("worker-1".into())] {
            let name = key.name(|_| None);
            assert!(name.chars().count() <= LONGEST, "{name}");
            assert_eq!(digest_in(&name), Some(key.digest()));
            assert!(key.tags(&cluster).iter().all(|tag| tag.len() <= MAX_TAG));
            let purpose = Mark::read(&cluster, &key.tags(&cluster)).map(|mark| mark.purpose);
            assert_eq!(purpose, Some(Purpose::Group(key.digest())));
        }
        assert!(description(&cluster).chars().count() <= LONGEST);
    }

    #[test]
    fn keys_that_are_long_and_differ_at_their_ends_differ_in_name() {
        assert_ne!(peers(2000).name(|_| None), peers(2001).name(|_| None));
    }

    #[test]
    fn a_policys_group_has_the_policys_name_and_not_its_uid() {
        let key = GroupKey::Policy(Arc::new(PolicyGroup { policy: "uid-1".into(), ports: BTreeSet::new() }));
        assert!(key.name(|_| Some(ObjectKey::new("shop", "web"))).starts_with("policy shop/web #"));
        assert!(key.name(|_| None).starts_with("policy uid-1 #"));
        assert_eq!(digest_in("policy shop/web"), None);
        assert_eq!(digest_in("policy shop/web #1234"), None);
    }
}

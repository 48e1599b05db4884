//! How Kuryr marks what it makes in OpenStack, so that one filtered list finds it again.
//!
//! Every object carries two tags: `kuryr:<cluster>` says whose it is, and a second one what it is for, such as
//! `kuryr:pod:<uid>`. Neutron allows 60 characters in a tag, Octavia more.

use crate::{ClusterId, GroupDigest, PodUid, ServiceUid};
use std::{fmt, str::FromStr};

/// The longest tag that Neutron takes, in characters.
pub const MAX_TAG: usize = 60;

const PREFIX: &str = "kuryr:";

/// All pools have the same tag: whose a port is and where, its binding and the `KuryrPort`s tell.
const POOLED: &str = "ports";

/// What an OpenStack object of ours is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// The port of one pod.
    Pod(PodUid),
    /// A port of a port pool: spare, or of the pod whose `KuryrPort` has it.
    Pool,
    /// The load balancer of one Service and what belongs to it: listeners, listener pools, health monitors, floating IP.
    Service(ServiceUid),
    /// A security group that NetworkPolicies need. Its tag has a digest of what exactly it is for, which may be a long
    /// text: its name says that.
    Group(GroupDigest),
    /// A thing that `kuryr setup` makes once for the cluster, by the role that it plays.
    Base(Base),
}

/// The things that `kuryr setup` makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Base {
    /// The pod network, its subnets and the router between them and the world.
    Pods,
    /// The network and the subnets that the addresses of Services are in.
    Services,
    /// The security group that lets everything in.
    IngressOpen,
    /// The security group that lets everything out.
    EgressOpen,
}

impl Base {
    /// Every role, in the order in which `kuryr setup` makes them.
    pub const ALL: [Self; 4] = [Self::Pods, Self::Services, Self::IngressOpen, Self::EgressOpen];

    fn as_str(self) -> &'static str {
        match self {
            Self::Pods => "pods",
            Self::Services => "services",
            Self::IngressOpen => "ingress-open",
            Self::EgressOpen => "egress-open",
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(uid) => write!(f, "{PREFIX}pod:{uid}"),
            Self::Pool => write!(f, "{PREFIX}pool:{POOLED}"),
            Self::Service(uid) => write!(f, "{PREFIX}service:{uid}"),
            Self::Group(digest) => write!(f, "{PREFIX}group:{digest}"),
            Self::Base(base) => write!(f, "{PREFIX}base:{}", base.as_str()),
        }
    }
}

/// The text is not the purpose tag of this version of Kuryr.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a tag that says what an object of Kuryr is for")]
pub struct ParsePurposeError(String);

impl FromStr for Purpose {
    type Err = ParsePurposeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed =
            text.strip_prefix(PREFIX).and_then(|rest| rest.split_once(':')).and_then(|(kind, id)| match kind {
                "pod" if !id.is_empty() => Some(Self::Pod(id.into())),
                "service" if !id.is_empty() => Some(Self::Service(id.into())),
                "group" => GroupDigest::read(id).map(Self::Group),
                "pool" if id == POOLED => Some(Self::Pool),
                "base" => Base::ALL.into_iter().find(|base| base.as_str() == id).map(Self::Base),
                _ => None,
            });
        parsed.ok_or_else(|| ParsePurposeError(text.to_owned()))
    }
}

/// Whose an object is and what for: the two tags that it carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The cluster that owns the object.
    pub cluster: ClusterId,
    /// What the object is for.
    pub purpose: Purpose,
}

impl Mark {
    /// The two tags, owner first.
    #[must_use]
    pub fn tags(&self) -> Vec<String> {
        vec![cluster_tag(&self.cluster), self.purpose.to_string()]
    }

    /// Reads the mark of `cluster` from an object's tags. `None`: the object is not ours, or of a purpose that this
    /// version does not know; either way it must be left alone.
    #[must_use]
    pub fn read(cluster: &ClusterId, tags: &[String]) -> Option<Self> {
        let owner = cluster_tag(cluster);
        if !tags.contains(&owner) {
            return None;
        }
        let purpose = tags.iter().filter(|tag| **tag != owner).find_map(|tag| tag.parse().ok())?;
        Some(Self { cluster: cluster.clone(), purpose })
    }
}

/// The tag that everything of `cluster` carries.
#[must_use]
pub fn cluster_tag(cluster: &ClusterId) -> String {
    format!("{PREFIX}{cluster}")
}

/// Whether `text` may be a cluster's id: its tag must fit, and commas separate tags in Neutron's filters.
#[must_use]
pub fn valid_cluster_id(text: &str) -> bool {
    !text.is_empty()
        && text.len() + PREFIX.len() <= MAX_TAG
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(purpose: Purpose) -> Mark {
        Mark { cluster: "2f1c9b1e-3f0d-4f0e-8f2e-5d1f0e9a7b11".into(), purpose }
    }

    #[test]
    fn every_mark_fits_into_neutrons_tags_and_reads_back() {
        let uid = PodUid::from("0d4bbd2b-6a1f-4cf2-9a5a-3d3f9b1f2c11");
        let service = ServiceUid::from(uid.as_str());
        let group = Purpose::Group(GroupDigest::of("peers:shop{app=web}"));
        let each = [Purpose::Pod(uid), Purpose::Service(service), group, Purpose::Pool];
        for purpose in Base::ALL.into_iter().map(Purpose::Base).chain(each) {
            let mark = mark(purpose);
            let mut tags = mark.tags();
            assert!(tags.iter().all(|tag| tag.len() <= MAX_TAG), "{tags:?}");
            tags.insert(0, "somebody-elses".into());
            assert_eq!(Mark::read(&mark.cluster, &tags), Some(mark));
        }
    }

    #[test]
    fn another_clusters_mark_and_unknown_purposes_are_not_ours() {
        let ours = mark(Purpose::Base(Base::Pods));
        assert_eq!(Mark::read(&"other".into(), &ours.tags()), None);
        let newer = vec![cluster_tag(&ours.cluster), "kuryr:teleport:1".to_owned()];
        assert_eq!(Mark::read(&ours.cluster, &newer), None);
    }

    #[test]
    fn a_cluster_id_must_fit_into_a_tag_filter() {
        assert!(valid_cluster_id("prod-1"));
        for bad in ["", "a,b", "white space", &"x".repeat(55)] {
            assert!(!valid_cluster_id(bad), "{bad:?} was taken");
        }
    }
}

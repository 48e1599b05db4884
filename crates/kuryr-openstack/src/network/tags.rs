//! Tags, on whatever has them.

use super::{Network, Rest};
use crate::{Error, rest::escape};
use http::Method;
use kuryr_model::{FloatingIpId, NetworkId, PortId, RouterId, SecurityGroupId, SubnetId, SubnetPoolId, TrunkId};
use serde::Serialize;
use std::fmt;

/// An object that has tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tagged {
    /// A network.
    Network(NetworkId),
    /// A subnet.
    Subnet(SubnetId),
    /// A subnet pool.
    SubnetPool(SubnetPoolId),
    /// A port.
    Port(PortId),
    /// A router.
    Router(RouterId),
    /// A security group.
    SecurityGroup(SecurityGroupId),
    /// A trunk.
    Trunk(TrunkId),
    /// A floating IP.
    FloatingIp(FloatingIpId),
}

impl fmt::Display for Tagged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(id) => write!(f, "network {id}"),
            Self::Subnet(id) => write!(f, "subnet {id}"),
            Self::SubnetPool(id) => write!(f, "subnet pool {id}"),
            Self::Port(id) => write!(f, "port {id}"),
            Self::Router(id) => write!(f, "router {id}"),
            Self::SecurityGroup(id) => write!(f, "security group {id}"),
            Self::Trunk(id) => write!(f, "trunk {id}"),
            Self::FloatingIp(id) => write!(f, "floating IP {id}"),
        }
    }
}

impl Tagged {
    fn path(self) -> String {
        match self {
            Self::Network(id) => format!("/networks/{id}/tags"),
            Self::Subnet(id) => format!("/subnets/{id}/tags"),
            Self::SubnetPool(id) => format!("/subnetpools/{id}/tags"),
            Self::Port(id) => format!("/ports/{id}/tags"),
            Self::Router(id) => format!("/routers/{id}/tags"),
            Self::SecurityGroup(id) => format!("/security-groups/{id}/tags"),
            Self::Trunk(id) => format!("/trunks/{id}/tags"),
            Self::FloatingIp(id) => format!("/floatingips/{id}/tags"),
        }
    }

    fn resource(self) -> &'static str {
        match self {
            Self::Network(_) => "networks/tags",
            Self::Subnet(_) => "subnets/tags",
            Self::SubnetPool(_) => "subnetpools/tags",
            Self::Port(_) => "ports/tags",
            Self::Router(_) => "routers/tags",
            Self::SecurityGroup(_) => "security-groups/tags",
            Self::Trunk(_) => "trunks/tags",
            Self::FloatingIp(_) => "floatingips/tags",
        }
    }
}

/// The calls.
#[derive(Clone, Copy, Debug)]
pub struct Tags<'a>(&'a Rest);

impl Network {
    /// Tags.
    #[must_use]
    pub fn tags(&self) -> Tags<'_> {
        Tags(&self.rest)
    }
}

impl Tags<'_> {
    /// Gives the object these tags and no others.
    pub async fn set(&self, object: Tagged, tags: &[String]) -> Result<Vec<String>, Error> {
        #[derive(Serialize)]
        struct Change<'a> {
            tags: &'a [String],
        }
        self.0.tell(Method::PUT, object.resource(), &object.path(), &Change { tags }, "tags", None).await
    }

    /// Adds a tag. Adding it twice is adding it once.
    pub async fn add(&self, object: Tagged, tag: &str) -> Result<(), Error> {
        let path = format!("{}/{}", object.path(), escape(tag));
        self.0.call(Method::PUT, object.resource(), &path, String::new(), None, None).await.map(drop)
    }

    /// Takes a tag away. Gone already is gone.
    pub async fn remove(&self, object: Tagged, tag: &str) -> Result<(), Error> {
        let path = format!("{}/{}", object.path(), escape(tag));
        self.0.delete_at(object.resource(), &path, String::new()).await
    }
}

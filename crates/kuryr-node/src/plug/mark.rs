//! How host ends are named and marked, so that one look at the node finds them and their owners again.

use kuryr_model::PortId;
use std::path::PathBuf;

/// Opens the alias of every link of ours.
const PREFIX: &str = "kuryr:";

/// Whose a host end is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// The Neutron port.
    pub port_id: PortId,
    /// The sandbox.
    pub container_id: String,
}

impl Owner {
    /// The alias that the host end's link carries: `kuryr:<port>:<container>`.
    #[must_use]
    pub fn alias(&self) -> String {
        format!("{PREFIX}{}:{}", self.port_id, self.container_id)
    }

    /// Reads an alias; `None` if it is not one of ours.
    #[must_use]
    pub fn from_alias(alias: &str) -> Option<Self> {
        let (port, container) = alias.strip_prefix(PREFIX)?.split_once(':')?;
        Some(Self { port_id: port.parse().ok()?, container_id: container.to_owned() })
    }
}

/// Name of the host end for a port: `tap` and the first 11 characters of the id, as Neutron's agents expect.
#[must_use]
pub fn host_end_name(port: PortId) -> String {
    format!("tap{:.11}", port.to_string())
}

/// Something on the host that belongs to a plugged VIF.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostEnd {
    /// What it is.
    pub kind: HostEndKind,
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub owner: Owner,
}

/// The kinds of host end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostEndKind {
    /// A network interface.
    Link,
    /// A port of an Open vSwitch bridge.
    OvsPort,
    /// A sub-interface of the virtual machine's interface: all that there is of a nested pod's, and in the pod's namespace.
    Inside {
        /// That namespace.
        netns: PathBuf,
    },
}

impl HostEndKind {
    /// As people write it.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::OvsPort => "OVS port",
            Self::Inside { .. } => "pod's link",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_names_its_owner_and_fits_the_kernels_limit() {
        let owner = Owner { port_id: PortId(uuid::Uuid::from_u128(7)), container_id: "f".repeat(64) };
        let alias = owner.alias();
        assert!(alias.len() < 256, "{alias}");
        assert_eq!(Owner::from_alias(&alias), Some(owner));
        for foreign in ["", "kuryr:", "kuryr:x:y", "uplink", "kuryr:6e2a7d52-6a7e-4f0e-9d6c-0123456789ab"] {
            assert_eq!(Owner::from_alias(foreign), None, "{foreign:?}");
        }
    }

    #[test]
    fn a_host_ends_name_fits_an_interface_name() {
        let port: PortId = "6e2a7d52-6a7e-4f0e-9d6c-0123456789ab".parse().unwrap();
        assert_eq!(host_end_name(port), "tap6e2a7d52-6a");
    }
}

//! Typed ids: what OpenStack and Kubernetes name by UUID or opaque string, one type for each kind of thing.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::{
    borrow::Cow,
    fmt::{self, Write as _},
    str::FromStr,
};
use uuid::Uuid;

macro_rules! uuid_id {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "format": "uuid" })
            }
        }
    )*};
}

macro_rules! string_id {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        #[schemars(inline)]
        pub struct $name(pub String);

        impl $name {
            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text)
            }
        }
    )*};
}

uuid_id! {
    /// A Neutron port.
    PortId;
    /// A Neutron network.
    NetworkId;
    /// A Neutron subnet.
    SubnetId;
    /// A Neutron subnet pool.
    SubnetPoolId;
    /// A Neutron router.
    RouterId;
    /// A Neutron security group.
    SecurityGroupId;
    /// A rule of a Neutron security group.
    SecurityGroupRuleId;
    /// An address group.
    AddressGroupId;
    /// A Neutron trunk.
    TrunkId;
    /// A Neutron floating IP.
    FloatingIpId;
    /// An Octavia load balancer.
    LoadBalancerId;
    /// A listener of an Octavia load balancer.
    ListenerId;
    /// A listener pool: Octavia's pool of members.
    ListenerPoolId;
    /// A member of a listener pool.
    MemberId;
    /// A health monitor of a listener pool.
    HealthMonitorId;
    /// An Octavia flavor: what a provider is told about the size of a load balancer.
    FlavorId;
}

string_id! {
    /// A Keystone project (32 hexadecimal digits, not a UUID in its usual dress).
    ProjectId;
    /// The UID of a Pod: changes when a pod is recreated under its old name. Static pods have UIDs that are no UUIDs.
    PodUid;
    /// The UID of a Service: changes when a Service is recreated under its old name.
    ServiceUid;
    /// The UID of a NetworkPolicy: changes when a policy is recreated under its old name.
    PolicyUid;
    /// Stands for what a security group of NetworkPolicies is for: 40 hexadecimal digits, a digest of its key's text.
    GroupDigest;
    /// What tells two Kubernetes clusters on one cloud apart; by default the UID of the `kube-system` namespace.
    ClusterId;
}

impl GroupDigest {
    /// The digest of a key's text: the first 160 bits of its SHA-256, so that no tenant finds two selectors that share
    /// a group.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let mut digits = String::with_capacity(40);
        for byte in &Sha256::digest(text.as_bytes())[..20] {
            // Writing into a String does not fail.
            let _: fmt::Result = write!(digits, "{byte:02x}");
        }
        Self(digits)
    }

    /// The digest that `text` is, if it is one.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        (text.len() == 40 && text.bytes().all(digit)).then(|| Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_its_uuid_in_json_and_in_text() {
        let text = "6e2a7d52-6a7e-4f0e-9d6c-0123456789ab";
        let id: PortId = text.parse().unwrap();
        assert_eq!(serde_json::to_value(id).unwrap(), text);
        assert_eq!(format!("{id} {id:?}"), format!("{text} {text}"));
        assert!("port-1".parse::<PortId>().is_err());
    }

    #[test]
    fn a_digest_is_short_and_the_same_in_every_version() {
        let digest = GroupDigest::of("peers:shop{app=web}");
        assert_eq!(digest, GroupDigest::of("peers:shop{app=web}"));
        assert_eq!(GroupDigest::of("abc").as_str(), "ba7816bf8f01cfea414140de5dae2223b00361a3");
        assert_eq!(GroupDigest::read(digest.as_str()), Some(digest));
        assert_eq!(GroupDigest::read("BA7816bf8f01cfea414140de5dae2223b00361a3"), None);
    }
}

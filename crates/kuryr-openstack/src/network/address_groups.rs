//! Address groups: only as far as it takes to find out whether a cloud enforces them. Some take rules that name one and let
//! everyone in.

use super::{Kind, Network, Rest};
use crate::Error;
use ipnet::IpNet;
use kuryr_model::{
    AddressGroupId, SecurityGroupId,
    neutron::{RuleContent, SecurityGroupRule},
};
use serde::{Deserialize, Serialize};

/// The extensions of a Neutron that has address groups and takes rules that name them.
pub const EXTENSIONS: [&str; 2] = ["address-group", "security-groups-remote-address-group"];

const KIND: Kind = Kind { path: "address-groups", plural: "address_groups", single: "address_group", fields: &["id"] };

const RULES: Kind =
    Kind { path: "security-group-rules", plural: "security_group_rules", single: "security_group_rule", fields: &[] };

#[derive(Deserialize)]
struct AddressGroup {
    id: AddressGroupId,
}

/// The calls.
#[derive(Clone, Copy, Debug)]
pub struct AddressGroups<'a>(&'a Rest);

impl Network {
    /// Address groups.
    #[must_use]
    pub fn address_groups(&self) -> AddressGroups<'_> {
        AddressGroups(&self.rest)
    }
}

impl AddressGroups<'_> {
    /// Those of a name.
    pub async fn named(&self, name: &str) -> Result<Vec<AddressGroupId>, Error> {
        let found: Vec<AddressGroup> = self.0.list(&KIND, &super::Filter::new().with("name", name)).await?;
        Ok(found.into_iter().map(|group| group.id).collect())
    }

    /// Creates one of these addresses.
    pub async fn create(&self, name: &str, addresses: &[IpNet]) -> Result<AddressGroupId, Error> {
        #[derive(Serialize)]
        struct New<'a> {
            name: &'a str,
            addresses: &'a [IpNet],
        }
        let made: AddressGroup = self.0.create(&KIND, &New { name, addresses }).await?;
        Ok(made.id)
    }

    /// Creates a rule of a security group whose other side is an address group.
    pub async fn admit(
        &self,
        group: SecurityGroupId,
        allows: &RuleContent,
        addresses: AddressGroupId,
    ) -> Result<SecurityGroupRule, Error> {
        #[derive(Serialize)]
        struct New<'a> {
            security_group_id: SecurityGroupId,
            #[serde(flatten)]
            allows: &'a RuleContent,
            remote_address_group_id: AddressGroupId,
        }
        let new = New { security_group_id: group, allows, remote_address_group_id: addresses };
        self.0.create(&RULES, &new).await
    }

    /// Deletes one. One that is gone already is deleted; one that a rule names cannot be.
    pub async fn delete(&self, id: AddressGroupId) -> Result<(), Error> {
        self.0.delete(&KIND, id).await
    }
}

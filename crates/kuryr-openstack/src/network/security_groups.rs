//! Security groups and their rules.

use super::{Filter, Kind, Network, Rest};
use crate::Error;
use kuryr_model::{
    SecurityGroupId, SecurityGroupRuleId,
    neutron::{RuleContent, SecurityGroup, SecurityGroupRule},
};
use serde::Serialize;

const KIND: Kind = Kind {
    path: "security-groups",
    plural: "security_groups",
    single: "security_group",
    fields: &["id", "name", "security_group_rules", "tags"],
};

const RULES: Kind = Kind {
    path: "security-group-rules",
    plural: "security_group_rules",
    single: "security_group_rule",
    fields: &[
        "id",
        "security_group_id",
        "direction",
        "ethertype",
        "protocol",
        "port_range_min",
        "port_range_max",
        "remote_ip_prefix",
        "remote_group_id",
    ],
};

/// A group to be created. Neutron puts two rules into it that let everything out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NewSecurityGroup {
    /// For people.
    pub name: String,
    /// For people, and to be found by.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// A rule to be created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NewRule {
    /// The group that it is for.
    pub security_group_id: SecurityGroupId,
    /// What it allows.
    #[serde(flatten)]
    pub allows: RuleContent,
}

/// The calls.
#[derive(Clone, Copy, Debug)]
pub struct SecurityGroups<'a>(&'a Rest);

impl Network {
    /// Security groups.
    #[must_use]
    pub fn security_groups(&self) -> SecurityGroups<'_> {
        SecurityGroups(&self.rest)
    }
}

impl SecurityGroups<'_> {
    /// Those that the filter lets through, with their rules.
    pub async fn list(&self, filter: &Filter) -> Result<Vec<SecurityGroup>, Error> {
        self.0.list(&KIND, filter).await
    }

    /// One, with its rules.
    pub async fn get(&self, id: SecurityGroupId) -> Result<SecurityGroup, Error> {
        self.0.get(&KIND, id).await
    }

    /// Creates one.
    pub async fn create(&self, group: &NewSecurityGroup) -> Result<SecurityGroup, Error> {
        self.0.create(&KIND, group).await
    }

    /// Creates all in one request or, if one cannot be created, none.
    pub async fn create_many(&self, groups: &[NewSecurityGroup]) -> Result<Vec<SecurityGroup>, Error> {
        self.0.create_many(&KIND, groups).await
    }

    /// Deletes one. One that is gone already is deleted.
    pub async fn delete(&self, id: SecurityGroupId) -> Result<(), Error> {
        self.0.delete(&KIND, id).await
    }

    /// Rules that the filter lets through.
    pub async fn list_rules(&self, filter: &Filter) -> Result<Vec<SecurityGroupRule>, Error> {
        self.0.list(&RULES, filter).await
    }

    /// Creates all rules in one request or, if one cannot be created, none.
    pub async fn create_rules(&self, rules: &[NewRule]) -> Result<Vec<SecurityGroupRule>, Error> {
        self.0.create_many(&RULES, rules).await
    }

    /// Deletes a rule. One that is gone already is deleted.
    pub async fn delete_rule(&self, id: SecurityGroupRuleId) -> Result<(), Error> {
        self.0.delete(&RULES, id).await
    }
}

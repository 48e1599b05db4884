//! What is to be done in Neutron.

use crate::policy::GroupKey;
use kuryr_model::{PodUid, PortId, SecurityGroupId, SecurityGroupRuleId, neutron::RuleContent};
use std::collections::BTreeSet;

/// Something to be done that waits for nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// List all groups of ours: one may be there that is not known.
    Look,
    /// Make these groups.
    Make(Vec<GroupKey>),
    /// Read a group: somebody else changed it, or an answer about it was lost.
    Read(GroupKey, SecurityGroupId),
    /// Give a group its tags and rules.
    Group(GroupStep),
    /// Give a port just these groups.
    Port {
        /// The port.
        port: PortId,
        /// Whose it is.
        pod: PodUid,
        /// All its groups.
        groups: BTreeSet<SecurityGroupId>,
    },
    /// Delete a group that nobody carries.
    Delete(GroupKey, SecurityGroupId),
    /// Delete a group of ours that is for nothing that is wanted.
    DeleteStray(SecurityGroupId),
}

/// What a group lacks, and has too much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupStep {
    /// What the group is for.
    pub key: GroupKey,
    /// The group.
    pub id: SecurityGroupId,
    /// It has not all its tags yet.
    pub tag: bool,
    /// Rules that are to go.
    pub remove: Vec<SecurityGroupRuleId>,
    /// Rules that are to come.
    pub add: Vec<RuleContent>,
    /// In which order.
    pub order: Order,
}

/// In which order a group's rules are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// No port has it, so it does not matter.
    Any,
    /// First what is to come, so that nothing is interrupted that stays allowed.
    AddFirst,
}

/// What a step is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Object {
    /// A group by what it is for.
    Group(GroupKey),
    /// A group that is for nothing that is wanted.
    Stray(SecurityGroupId),
    /// A port.
    Port(PortId),
}

/// What becomes of a step that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// It is tried again soon: who needs it waits.
    Soon,
    /// It waits for somebody, or has failed often: who needs it does without, and is closed.
    Closed,
}

impl Step {
    /// What it is about.
    #[must_use]
    pub fn objects(&self) -> Vec<Object> {
        match self {
            Self::Look => Vec::new(),
            Self::Make(keys) => keys.iter().cloned().map(Object::Group).collect(),
            Self::Read(key, _) | Self::Delete(key, _) => vec![Object::Group(key.clone())],
            Self::Group(step) => vec![Object::Group(step.key.clone())],
            Self::Port { port, .. } => vec![Object::Port(*port)],
            Self::DeleteStray(id) => vec![Object::Stray(*id)],
        }
    }

    /// One word for metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Look => "look",
            Self::Make(_) => "make",
            Self::Read(..) => "read",
            Self::Group(_) => "rules",
            Self::Port { .. } => "port",
            Self::Delete(..) | Self::DeleteStray(_) => "delete",
        }
    }
}

//! What is known to be in Neutron.

use crate::policy::GroupKey;
use kuryr_model::{PodUid, PortId, SecurityGroupId, SecurityGroupRuleId, neutron::RuleContent};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// A group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenGroup {
    /// Its id.
    pub id: SecurityGroupId,
    /// Its rules.
    pub rules: BTreeMap<RuleContent, SecurityGroupRuleId>,
    /// Rules that it may have, too: a request for them is under way, or was not answered.
    pub(super) maybe: Vec<RuleContent>,
    /// It has its tags.
    pub tagged: bool,
    /// What is known of it is not sure: read it.
    pub(super) stale: bool,
    /// When that became known.
    pub(super) at: u64,
}

impl SeenGroup {
    /// The rules that it has or may have.
    pub(super) fn possible(&self) -> impl Iterator<Item = &RuleContent> {
        self.rules.keys().chain(self.maybe.iter().filter(|rule| !self.rules.contains_key(rule)))
    }
}

/// A port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenPort {
    /// Whose it is.
    pub pod: PodUid,
    /// The groups that it has, or may have.
    pub groups: BTreeSet<SecurityGroupId>,
    /// An answer was lost: it has some of them.
    pub unsure: bool,
    /// Of those, the ones that it has for sure.
    pub(super) sure: BTreeSet<SecurityGroupId>,
    pub(super) at: u64,
}

impl SeenPort {
    /// While it is not known whether it has these groups already: what it may have, and what it has in any case.
    pub(super) fn changing(&self, to: &BTreeSet<SecurityGroupId>) -> Self {
        Self {
            pod: self.pod.clone(),
            groups: self.groups.union(to).copied().collect(),
            unsure: true,
            sure: self.sure.intersection(to).copied().collect(),
            at: self.at,
        }
    }
}

/// All groups of ours and the ports of pods.
#[derive(Debug, Default)]
pub(super) struct Seen {
    groups: HashMap<GroupKey, SeenGroup>,
    keys: HashMap<SecurityGroupId, GroupKey>,
    strays: BTreeMap<SecurityGroupId, u64>,
    ports: HashMap<PortId, SeenPort>,
    of_pod: HashMap<PodUid, Vec<PortId>>,
    /// How many ports have each group.
    carriers: HashMap<SecurityGroupId, usize>,
    /// The groups that have, or may have, rules about the members of another.
    named_by: HashMap<SecurityGroupId, HashSet<GroupKey>>,
}

impl Seen {
    pub(super) fn group(&self, key: &GroupKey) -> Option<&SeenGroup> {
        self.groups.get(key)
    }

    pub(super) fn by_id(&self, id: SecurityGroupId) -> Option<&SeenGroup> {
        self.keys.get(&id).and_then(|key| self.groups.get(key))
    }

    /// What a group is for.
    pub(super) fn key(&self, id: SecurityGroupId) -> Option<&GroupKey> {
        self.keys.get(&id)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &GroupKey> {
        self.groups.keys()
    }

    pub(super) fn set_group(&mut self, key: GroupKey, group: SeenGroup) {
        self.remove_group(&key);
        for remote in group.possible().filter_map(|rule| rule.remote_group_id) {
            self.named_by.entry(remote).or_default().insert(key.clone());
        }
        self.strays.remove(&group.id);
        self.keys.insert(group.id, key.clone());
        self.groups.insert(key, group);
    }

    /// Changes a group.
    pub(super) fn edit(&mut self, key: &GroupKey, edit: impl FnOnce(&mut SeenGroup)) {
        if let Some(mut group) = self.remove_group(key) {
            edit(&mut group);
            self.set_group(key.clone(), group);
        }
    }

    pub(super) fn remove_group(&mut self, key: &GroupKey) -> Option<SeenGroup> {
        let group = self.groups.remove(key)?;
        self.keys.remove(&group.id);
        for remote in group.possible().filter_map(|rule| rule.remote_group_id) {
            if let Some(namers) = self.named_by.get_mut(&remote) {
                namers.remove(key);
                if namers.is_empty() {
                    self.named_by.remove(&remote);
                }
            }
        }
        Some(group)
    }

    /// The groups that have, or may have, rules about a group's members.
    pub(super) fn namers(&self, id: SecurityGroupId) -> impl Iterator<Item = &GroupKey> {
        self.named_by.get(&id).into_iter().flatten()
    }

    pub(super) fn strays(&self) -> impl Iterator<Item = SecurityGroupId> {
        self.strays.keys().copied()
    }

    pub(super) fn set_stray(&mut self, id: SecurityGroupId, at: u64) {
        self.strays.insert(id, at);
    }

    pub(super) fn remove_stray(&mut self, id: SecurityGroupId) {
        self.strays.remove(&id);
    }

    pub(super) fn port(&self, port: PortId) -> Option<&SeenPort> {
        self.ports.get(&port)
    }

    pub(super) fn ports(&self) -> impl Iterator<Item = (PortId, &SeenPort)> {
        self.ports.iter().map(|(id, port)| (*id, port))
    }

    pub(super) fn ports_of(&self, pod: &PodUid) -> impl Iterator<Item = PortId> {
        self.of_pod.get(pod).into_iter().flatten().copied()
    }

    pub(super) fn set_port(&mut self, id: PortId, port: SeenPort) {
        self.remove_port(id);
        for group in &port.groups {
            *self.carriers.entry(*group).or_default() += 1;
        }
        self.of_pod.entry(port.pod.clone()).or_default().push(id);
        self.ports.insert(id, port);
    }

    pub(super) fn remove_port(&mut self, id: PortId) -> Option<SeenPort> {
        let port = self.ports.remove(&id)?;
        for group in &port.groups {
            if let Some(carriers) = self.carriers.get_mut(group) {
                *carriers -= 1;
                if *carriers == 0 {
                    self.carriers.remove(group);
                }
            }
        }
        if let Some(ports) = self.of_pod.get_mut(&port.pod) {
            ports.retain(|other| *other != id);
            if ports.is_empty() {
                self.of_pod.remove(&port.pod);
            }
        }
        Some(port)
    }

    /// Whether any port has a group.
    pub(super) fn is_carried(&self, id: SecurityGroupId) -> bool {
        self.carriers.contains_key(&id)
    }
}

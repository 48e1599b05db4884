//! Neutron, as far as groups and ports go.

use crate::neutron::Cloud;
use kuryr_model::{
    PodUid, PortId, SecurityGroupId, SecurityGroupRuleId,
    neutron::{Direction, EtherType, RuleContent, SecurityGroup, SecurityGroupRule},
};
use kuryr_plan::policy::{GroupKey, World};
use std::collections::{BTreeMap, BTreeSet};

/// Neutron, as far as groups and ports go.
#[derive(Clone, Default)]
pub(super) struct Neutron {
    pub(super) groups: BTreeMap<SecurityGroupId, SecurityGroup>,
    pub(super) ports: BTreeMap<PortId, (PodUid, BTreeSet<SecurityGroupId>)>,
    last: u128,
    /// How often each port was changed.
    pub(super) updates: BTreeMap<PortId, usize>,
}

/// One request.
#[derive(Clone, Debug)]
pub(super) enum Call {
    Look,
    Make(Vec<GroupKey>),
    Read(SecurityGroupId),
    Tag(SecurityGroupId, Vec<String>),
    Remove(SecurityGroupRuleId),
    Add(SecurityGroupId, Vec<RuleContent>),
    Port(PortId, BTreeSet<SecurityGroupId>),
    Delete(SecurityGroupId),
}

pub(super) enum Answer {
    Groups(Vec<SecurityGroup>),
    Rules(Vec<SecurityGroupRule>),
    Done,
    NotFound,
    /// It exists already, or is in use.
    Conflict,
}

impl Neutron {
    pub(super) fn id<T: std::str::FromStr<Err: std::fmt::Debug>>(&mut self) -> T {
        self.last += 1;
        format!("00000000-0000-0000-0000-{:012x}", self.last).parse().unwrap()
    }

    pub(super) fn open(&mut self, direction: Direction) -> SecurityGroupId {
        let id = self.id::<SecurityGroupId>();
        let rules = [EtherType::IPv4, EtherType::IPv6].map(|family| RuleContent::everything(direction, family));
        let group = SecurityGroup {
            id,
            name: "open".into(),
            rules: vec![],
            tags: vec!["kuryr:c1".into(), "kuryr:base:ingress-open".into()],
        };
        self.groups.insert(id, group);
        self.add(id, &rules);
        id
    }

    fn add(&mut self, group: SecurityGroupId, rules: &[RuleContent]) -> Vec<SecurityGroupRule> {
        let new: Vec<SecurityGroupRule> = rules
            .iter()
            .map(|allows| SecurityGroupRule { id: self.id(), security_group_id: group, allows: allows.clone() })
            .collect();
        self.groups.get_mut(&group).unwrap().rules.extend(new.clone());
        new
    }

    pub(super) fn call(&mut self, call: &Call) -> Answer {
        match call {
            Call::Look => Answer::Groups(self.groups.values().filter(|group| group.name != "open").cloned().collect()),
            Call::Make(keys) => {
                let made = keys.iter().map(|key| {
                    let id = self.id::<SecurityGroupId>();
                    let name = key.name(|_| None);
                    self.groups.insert(id, SecurityGroup { id, name, rules: vec![], tags: vec![] });
                    let families = [EtherType::IPv4, EtherType::IPv6];
                    self.add(id, &families.map(|family| RuleContent::everything(Direction::Egress, family)));
                    self.groups[&id].clone()
                });
                Answer::Groups(made.collect())
            }
            Call::Read(id) => self.groups.get(id).map_or(Answer::NotFound, |group| Answer::Groups(vec![group.clone()])),
            Call::Tag(id, tags) => match self.groups.get_mut(id) {
                Some(group) => {
                    group.tags = tags.clone();
                    Answer::Done
                }
                None => Answer::NotFound,
            },
            Call::Remove(id) => {
                for group in self.groups.values_mut() {
                    group.rules.retain(|rule| rule.id != *id);
                }
                Answer::Done
            }
            Call::Add(group, rules) => {
                let remotes = rules.iter().filter_map(|rule| rule.remote_group_id);
                if !remotes.chain([*group]).all(|id| self.groups.contains_key(&id)) {
                    return Answer::NotFound;
                }
                let there = &self.groups[group].rules;
                if rules.iter().any(|new| there.iter().any(|rule| rule.allows == *new)) {
                    return Answer::Conflict;
                }
                Answer::Rules(self.add(*group, rules))
            }
            Call::Port(port, groups) => {
                if !groups.iter().all(|id| self.groups.contains_key(id)) {
                    return Answer::NotFound;
                }
                *self.updates.entry(*port).or_default() += 1;
                self.ports.get_mut(port).unwrap().1.clone_from(groups);
                Answer::Done
            }
            Call::Delete(id) => {
                if self.ports.values().any(|(_, groups)| groups.contains(id)) {
                    return Answer::Conflict;
                }
                self.groups.remove(id);
                for group in self.groups.values_mut() {
                    group.rules.retain(|rule| rule.allows.remote_group_id != Some(*id));
                }
                Answer::Done
            }
        }
    }

    pub(super) fn cloud(&self, world: &World) -> Cloud {
        let addresses = |uid: &PodUid| {
            let pod = world.pods.values().find(|pod| pod.uid == *uid);
            pod.map(|pod| pod.addresses.clone()).unwrap_or_default()
        };
        let rules = |id| self.groups[&id].rules.iter().map(|rule| rule.allows.clone()).collect();
        Cloud::of_ports(self.ports.values().map(|(uid, groups)| (uid, groups)), rules, addresses)
    }
}

//! How steps ended, and what lists said.

use super::{
    Dirty, Due, Enforcer,
    seen::{SeenGroup, SeenPort},
    step::{Hold, Object, Step},
};
use crate::policy::{GroupKey, digest_in};
use kuryr_model::{
    ClusterId, GroupDigest, Mark, PodUid, PortId, Purpose, SecurityGroupId, SecurityGroupRuleId,
    neutron::{RuleContent, SecurityGroup, SecurityGroupRule},
};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// The groups of a port that was [given up](Enforcer::give_up).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Left {
    /// Just these.
    With(BTreeSet<SecurityGroupId>),
    /// That is not known, and nothing changes them.
    Unknown,
    /// A request that changes them is under way.
    Changing,
}

impl Enforcer {
    /// A step's request is on its way: nothing else is done with its objects until [`end`](Self::end).
    pub fn begin(&mut self, step: &Step) {
        match step {
            Step::Look => self.looking = true,
            Step::Port { port, groups, .. } => drop(self.busy_ports.insert(*port, groups.clone())),
            Step::DeleteStray(id) => drop(self.busy_strays.insert(*id)),
            Step::Make(_) | Step::Read(..) | Step::Group(_) | Step::Delete(..) => {
                if let Step::Group(step) = step {
                    self.seen.edit(&step.key, |group| group.maybe.extend(step.add.iter().cloned()));
                }
                let keys = step.objects().into_iter().filter_map(|object| match object {
                    Object::Group(key) => Some(key),
                    Object::Stray(_) | Object::Port(_) => None,
                });
                self.busy_groups.extend(keys);
            }
        }
    }

    /// A step is over, however it ended; call this last.
    pub fn end(&mut self, step: &Step) {
        match step {
            Step::Look => self.looking = false,
            Step::Port { port, .. } => drop(self.busy_ports.remove(port)),
            Step::DeleteStray(id) => drop(self.busy_strays.remove(id)),
            Step::Make(_) | Step::Read(..) | Step::Group(_) | Step::Delete(..) => {
                for object in step.objects() {
                    if let Object::Group(key) = object {
                        self.busy_groups.remove(&key);
                    }
                }
            }
        }
        // What was not answered is not sure until the group is read. Else it has none but those that are known.
        if let Step::Group(step) = step {
            self.seen.edit(&step.key, |group| {
                if !group.stale {
                    group.maybe.clear();
                }
            });
        }
        // One whose deletion failed may be gone: before anybody gets it, it is read.
        if let Step::Delete(key, id) = step
            && self.id(key) == Some(*id)
        {
            self.doubt(key);
        }
    }

    /// Something failed, and is not tried again until it is [released](Self::release).
    pub fn hold(&mut self, object: Object, hold: Hold) {
        self.held.insert(object, hold);
    }

    /// A group was made.
    pub fn made(&mut self, key: &GroupKey, group: &SecurityGroup) {
        let at = self.tick();
        self.seen.set_group(
            key.clone(),
            SeenGroup { id: group.id, rules: rules(group), maybe: Vec::new(), tagged: false, stale: false, at },
        );
        self.groups.entry(key.clone()).or_insert(Due::at(at));
    }

    /// It is not known whether groups were made: the next step is to look.
    pub fn lost(&mut self) {
        self.lost = Some(self.tick());
    }

    /// A group has its tags.
    pub fn tagged(&mut self, key: &GroupKey) {
        let at = self.tick();
        self.seen.edit(key, |group| (group.tagged, group.at) = (true, at));
    }

    /// Rules of a group are gone.
    pub fn removed(&mut self, key: &GroupKey, gone: SecurityGroupRuleId) {
        let at = self.tick();
        self.seen.edit(key, |group| {
            group.rules.retain(|_, id| *id != gone);
            group.at = at;
        });
    }

    /// A group has more rules.
    pub fn added(&mut self, key: &GroupKey, new: &[SecurityGroupRule]) {
        let at = self.tick();
        self.seen.edit(key, |group| {
            group.rules.extend(new.iter().map(|rule| (rule.allows.clone(), rule.id)));
            group.maybe.retain(|rule| !group.rules.contains_key(rule));
            group.at = at;
        });
    }

    /// What is known of a group is not sure any more: it is read before anything else is done with it.
    pub fn doubt(&mut self, key: &GroupKey) {
        let at = self.tick();
        // A list that was asked for before does not tell.
        self.seen.edit(key, |group| (group.stale, group.at) = (true, at));
        self.groups.entry(key.clone()).or_insert(Due::at(at));
    }

    /// A group as it was read; `None`: it is not there.
    pub fn read(&mut self, cluster: &ClusterId, key: &GroupKey, group: Option<&SecurityGroup>) {
        let at = self.tick();
        match group {
            Some(group) => self.seen.set_group(key.clone(), seen(cluster, group, at)),
            None => self.vanished(key),
        }
        self.groups.entry(key.clone()).or_insert(Due::at(at));
    }

    /// A group was deleted, by us or somebody else. Neutron has deleted the rules about its members, too.
    pub fn vanished(&mut self, key: &GroupKey) {
        let Some(group) = self.seen.remove_group(key) else { return };
        let at = self.tick();
        let namers: Vec<GroupKey> = self.seen.namers(group.id).cloned().collect();
        for namer in namers {
            self.seen.edit(&namer, |other| {
                other.rules.retain(|rule, _| rule.remote_group_id != Some(group.id));
                other.maybe.retain(|rule| rule.remote_group_id != Some(group.id));
                other.at = at;
            });
            self.groups.entry(namer).or_insert(Due::at(at));
        }
        self.groups.entry(key.clone()).or_insert(Due::at(at));
    }

    /// A group that was for nothing is deleted.
    pub fn stray_deleted(&mut self, id: SecurityGroupId) {
        self.tick();
        self.seen.remove_stray(id);
    }

    /// A port has these groups: it was made, changed, or found.
    pub fn has(&mut self, port: PortId, pod: &PodUid, groups: BTreeSet<SecurityGroupId>) {
        let at = self.tick();
        self.granted.remove(pod);
        let sure = groups.clone();
        self.seen.set_port(port, SeenPort { pod: pod.clone(), groups, unsure: false, sure, at });
        self.pods.entry(pod.clone()).or_insert(Dirty { due: Due::at(at), own: true });
    }

    /// It is not known whether a port has its new groups already.
    pub fn unsure(&mut self, port: PortId, attempted: &BTreeSet<SecurityGroupId>) {
        let at = self.tick();
        let Some(known) = self.seen.port(port).cloned() else { return };
        self.pods.entry(known.pod.clone()).or_insert(Dirty { due: Due::at(at), own: true });
        self.seen.set_port(port, SeenPort { at, ..known.changing(attempted) });
    }

    /// A port is gone.
    pub fn port_gone(&mut self, port: PortId) {
        self.tick();
        self.seen.remove_port(port);
        self.held.remove(&Object::Port(port));
    }

    /// A port is its pod's no more, and stays: no step of a plan that is made from now on changes it, nor may one that was made
    /// before. What groups it has.
    pub fn give_up(&mut self, port: PortId) -> Left {
        let known = self.seen.port(port).cloned();
        let busy = self.busy_ports.contains_key(&port);
        self.port_gone(port);
        // A plan of before may change it yet.
        self.wanted = self.tick();
        match known {
            _ if busy => Left::Changing,
            Some(known) if !known.unsure => Left::With(known.groups),
            Some(_) | None => Left::Unknown,
        }
    }

    /// Before a list is asked for: what [`looked`](Self::looked) and [`listed_ports`](Self::listed_ports) are given.
    pub fn moment(&mut self) -> u64 {
        self.tick()
    }

    /// All groups of ours as they were listed, asked for at that moment; what has changed since is known better.
    pub fn looked(&mut self, cluster: &ClusterId, moment: u64, listed: &[SecurityGroup]) {
        let at = self.tick();
        let known = self.digests();
        let mut found: HashSet<GroupKey> = HashSet::new();
        let mut strays: HashSet<SecurityGroupId> = HashSet::new();
        for group in listed {
            let Some(digest) = digest(cluster, group) else { continue };
            match known.get(&digest) {
                // Of two that are for the same, the one that is known, or the first.
                Some(key) if self.is_other(key, group.id) || !found.insert(key.clone()) => {
                    strays.insert(group.id);
                }
                Some(key) => self.found(cluster, key, group, moment, at),
                None => drop(strays.insert(group.id)),
            }
        }
        let gone = |key: &&GroupKey| {
            !found.contains(*key)
                && self.seen.group(key).is_some_and(|group| group.at <= moment)
                && !self.busy_groups.contains(*key)
        };
        let gone: Vec<GroupKey> = self.seen.keys().filter(gone).cloned().collect();
        for key in gone {
            self.vanished(&key);
        }
        let before: Vec<SecurityGroupId> = self.seen.strays().filter(|id| !strays.contains(id)).collect();
        for id in before {
            self.seen.remove_stray(id);
        }
        for id in strays {
            self.seen.set_stray(id, at);
        }
        // What is being worked on was passed over.
        let unknown = found.iter().any(|key| self.seen.group(key).is_none());
        self.lost = if unknown { Some(at) } else { self.lost.filter(|since| *since > moment) };
    }

    fn is_other(&self, key: &GroupKey, id: SecurityGroupId) -> bool {
        self.seen.group(key).is_some_and(|group| group.id != id)
    }

    fn found(&mut self, cluster: &ClusterId, key: &GroupKey, group: &SecurityGroup, moment: u64, at: u64) {
        let known = self.seen.group(key);
        if self.busy_groups.contains(key) || known.is_some_and(|known| known.at > moment) {
            return;
        }
        let listed = seen(cluster, group, at);
        let same = known.is_some_and(|known| {
            (known.id, &known.rules, known.tagged, known.stale) == (listed.id, &listed.rules, listed.tagged, false)
        });
        if !same {
            self.seen.set_group(key.clone(), listed);
            self.groups.entry(key.clone()).or_insert(Due::at(at));
        }
        if self.compiler.rules(key).is_none() {
            self.groups.entry(key.clone()).or_insert(Due::at(at));
        }
    }

    /// All ports of pods as they were listed, asked for at that moment.
    pub fn listed_ports(
        &mut self,
        moment: u64,
        listed: impl Iterator<Item = (PortId, PodUid, BTreeSet<SecurityGroupId>)>,
    ) {
        let at = self.tick();
        let mut found: HashSet<PortId> = HashSet::new();
        for (id, pod, groups) in listed {
            found.insert(id);
            let known = self.seen.port(id);
            let newer = known.is_some_and(|known| known.at > moment) || self.busy_ports.contains_key(&id);
            let same = |known: &SeenPort| !known.unsure && known.pod == pod && known.groups == groups;
            if newer || known.is_some_and(same) {
                continue;
            }
            self.pods.entry(pod.clone()).or_insert(Dirty { due: Due::at(at), own: true });
            let sure = groups.clone();
            self.seen.set_port(id, SeenPort { pod, groups, unsure: false, sure, at });
        }
        let gone = |(id, port): &(PortId, &SeenPort)| {
            !found.contains(id) && port.at <= moment && !self.busy_ports.contains_key(id)
        };
        let gone: Vec<PortId> = self.seen.ports().filter(gone).map(|(id, _)| id).collect();
        for id in gone {
            self.seen.remove_port(id);
        }
    }

    /// Whether a group has just its rules.
    pub(super) fn complete(&self, key: &GroupKey) -> bool {
        let Some(group) = self.seen.group(key) else { return false };
        let Some(wanted) = self.compiler.rules(key) else { return false };
        !group.stale
            && wanted.len() == group.rules.len()
            && wanted
                .iter()
                .all(|rule| rule.content(|key| self.id(key)).is_some_and(|content| group.rules.contains_key(&content)))
    }
}

/// What a group is for: its tag says so, or its name while it has none.
#[must_use]
pub fn digest(cluster: &ClusterId, group: &SecurityGroup) -> Option<GroupDigest> {
    match Mark::read(cluster, &group.tags) {
        Some(Mark { purpose: Purpose::Group(digest), .. }) => Some(digest),
        Some(_) => None,
        // Tags of another cluster, or of a later version.
        None if group.tags.iter().any(|tag| tag.starts_with("kuryr:")) => None,
        None => digest_in(&group.name),
    }
}

fn seen(cluster: &ClusterId, group: &SecurityGroup, at: u64) -> SeenGroup {
    let tagged = Mark::read(cluster, &group.tags).is_some();
    SeenGroup { id: group.id, rules: rules(group), maybe: Vec::new(), tagged, stale: false, at }
}

fn rules(group: &SecurityGroup) -> BTreeMap<RuleContent, SecurityGroupRuleId> {
    group.rules.iter().map(|rule| (rule.allows.clone(), rule.id)).collect()
}

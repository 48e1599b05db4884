//! Which steps may be done now.

use super::{
    Due, Enforcer,
    seen::{SeenGroup, SeenPort},
    step::{GroupStep, Hold, Object, Order, Step},
};
use crate::policy::GroupKey;
use kuryr_model::{
    PodUid, PortId, SecurityGroupId, SecurityGroupRuleId,
    neutron::{Direction, RuleContent},
};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// How a group differs from what it is to be.
struct GroupWork {
    due: Due,
    id: SecurityGroupId,
    tag: bool,
    excess: Vec<(RuleContent, Option<SecurityGroupRuleId>)>,
    add: Vec<RuleContent>,
    /// Of those, the ones that must wait for ports that lose, or for rules that are to go.
    later: Vec<RuleContent>,
}

/// How a port differs from what it is to be.
struct PortWork {
    port: PortId,
    pod: PodUid,
    due: Due,
    own: bool,
    rank: Rank,
    target: BTreeSet<SecurityGroupId>,
    /// What it loses.
    lost: BTreeSet<SecurityGroupId>,
    /// The groups that it gains, by what they are for.
    gained: Vec<GroupKey>,
    /// It gains something that cannot be had yet.
    waits: bool,
    held: bool,
}

/// In which order ports are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Nothing passes more or less. It becomes a peer in groups that no port has yet, so that what is to stay allowed is not
    /// interrupted when those come into force.
    Harmless,
    /// Less passes.
    Narrower,
    /// Some less, some more.
    Mixed,
    /// More passes.
    Wider,
}

/// The earliest time at which something became due, if anything is.
#[derive(Clone, Copy, Default)]
struct Earliest(Option<u64>);

impl Earliest {
    fn note(&mut self, due: Due) {
        self.0 = Some(self.0.map_or(due.first, |known| known.min(due.first)));
    }

    /// Whether something is due that became so no later than what else is wanted last.
    fn before(self, due: Due) -> bool {
        self.0.is_some_and(|earliest| earliest <= due.last)
    }
}

/// Since when rules are to go.
#[derive(Clone, Copy, Default)]
struct Removals {
    ingress: Earliest,
    egress: Earliest,
}

impl Enforcer {
    /// The steps that may be done now, side by side and in any order, the most urgent first. To be asked again when some of
    /// them are done.
    pub fn plan(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.lost.is_some() && !self.looking {
            steps.push(Step::Look);
        }
        let mut work = self.group_work(&mut steps);
        let tainted = self.tainted();
        let mut ports = self.port_work(&work, &tainted);
        self.split_mixed(&mut ports);
        let removals = self.removals(&work);
        self.postpone_rules(&mut work, &ports, &removals);
        self.port_steps(&ports, &work, &removals, &mut steps);
        for (key, work) in work {
            let free = !self.is_held(&Object::Group(key.clone())) && !self.busy_groups.contains(&key);
            let later: HashSet<&RuleContent> = work.later.iter().collect();
            let add: Vec<RuleContent> = work.add.iter().filter(|rule| !later.contains(rule)).cloned().collect();
            if free && (work.tag || !work.excess.is_empty() || !add.is_empty()) {
                let order = if self.may_be_carried(work.id) { Order::AddFirst } else { Order::Any };
                let GroupWork { id, tag, excess, .. } = work;
                let remove = excess.into_iter().filter_map(|(_, id)| id).collect();
                steps.push(Step::Group(GroupStep { key, id, tag, remove, add, order }));
            }
        }
        let groups = self.groups.values().map(|due| due.first);
        self.past.forget(groups.chain(self.pods.values().map(|dirty| dirty.due.first)).min());
        for id in self.seen.strays() {
            let free = !self.busy_strays.contains(&id) && !self.is_held(&Object::Stray(id));
            if free && !self.may_be_carried(id) {
                steps.push(Step::DeleteStray(id));
            }
        }
        steps
    }

    /// How groups differ; those to be made, read or deleted go into `steps`.
    fn group_work(&mut self, steps: &mut Vec<Step>) -> BTreeMap<GroupKey, GroupWork> {
        let mut work = BTreeMap::new();
        let (mut make, mut settled) = (Vec::new(), Vec::new());
        for (key, due) in &self.groups {
            let busy = self.busy_groups.contains(key);
            let free = !busy && !self.is_held(&Object::Group(key.clone()));
            match (self.compiler.rules(key), self.seen.group(key)) {
                (Some(_), None) if free && self.lost.is_none() => make.push(key.clone()),
                (_, Some(group)) if group.stale => {
                    if free {
                        steps.push(Step::Read(key.clone(), group.id));
                    }
                }
                (Some(_), Some(group)) => {
                    let (missing, unknown) = self.missing(key, group);
                    let excess = self.excess(key, group);
                    if missing.is_empty() && !unknown && excess.is_empty() && group.tagged {
                        if !busy {
                            settled.push(key.clone());
                        }
                    } else {
                        let (id, tag) = (group.id, !group.tagged);
                        let later = Vec::new();
                        work.insert(key.clone(), GroupWork { due: *due, id, tag, excess, add: missing, later });
                    }
                }
                (None, Some(group)) => {
                    if free && !self.may_be_carried(group.id) {
                        steps.push(Step::Delete(key.clone(), group.id));
                    }
                }
                (None, None) if !busy => settled.push(key.clone()),
                (Some(_) | None, None) => {}
            }
        }
        for key in settled {
            self.groups.remove(&key);
            self.held.remove(&Object::Group(key));
        }
        if !make.is_empty() {
            steps.push(Step::Make(make));
        }
        work
    }

    /// The rules that a group lacks, and whether there are more that name groups which are not there.
    fn missing(&self, key: &GroupKey, group: &SeenGroup) -> (Vec<RuleContent>, bool) {
        let mut unknown = false;
        let mut missing = Vec::new();
        for rule in self.compiler.rules(key).into_iter().flatten() {
            match rule.content(|key| self.id(key)) {
                Some(content) if group.rules.contains_key(&content) => {}
                Some(content) => missing.push(content),
                None => unknown = true,
            }
        }
        (missing, unknown)
    }

    /// The rules that a group has too many, or may have by a step that was begun when they were wanted.
    pub(super) fn excess(&self, key: &GroupKey, group: &SeenGroup) -> Vec<(RuleContent, Option<SecurityGroupRuleId>)> {
        let wanted: BTreeSet<RuleContent> = self
            .compiler
            .rules(key)
            .into_iter()
            .flatten()
            .filter_map(|rule| rule.content(|key| self.id(key)))
            .collect();
        let excess = group.possible().filter(|content| !wanted.contains(content));
        excess.map(|content| (content.clone(), group.rules.get(content).copied())).collect()
    }

    /// Groups that no port may get: they have rules too many, or there are rules too many about their members.
    fn tainted(&self) -> HashSet<SecurityGroupId> {
        let mut tainted = HashSet::new();
        for key in self.groups.keys() {
            let Some(group) = self.seen.group(key) else { continue };
            if self.compiler.rules(key).is_none() {
                continue;
            }
            let excess = self.excess(key, group);
            if !excess.is_empty() || group.stale {
                tainted.insert(group.id);
            }
            if self.may_be_carried(group.id) {
                tainted.extend(excess.iter().filter_map(|(rule, _)| rule.remote_group_id));
            }
        }
        tainted
    }

    /// Whether there are rules too many about a group's members.
    pub(super) fn is_misnamed(&self, id: SecurityGroupId) -> bool {
        self.seen.namers(id).filter(|namer| self.groups.contains_key(*namer)).any(|namer| {
            let excess = self.seen.group(namer).map(|group| self.excess(namer, group)).unwrap_or_default();
            excess.iter().any(|(rule, _)| rule.remote_group_id == Some(id))
        })
    }

    /// How ports differ.
    fn port_work(
        &mut self,
        groups: &BTreeMap<GroupKey, GroupWork>,
        tainted: &HashSet<SecurityGroupId>,
    ) -> Vec<PortWork> {
        let (mut work, mut settled) = (Vec::new(), Vec::new());
        let named = self.to_be_named(groups);
        for (pod, dirty) in &self.pods {
            let Some(keys) = self.compiler.groups(pod) else {
                settled.push(pod.clone());
                continue;
            };
            let mut done = true;
            for port in self.seen.ports_of(pod) {
                let Some(known) = self.possible(port) else { continue };
                let wanted: Option<BTreeSet<SecurityGroupId>> = keys.iter().map(|key| self.id(key)).collect();
                if !known.unsure && wanted.as_ref() == Some(&known.groups) {
                    continue;
                }
                done = false;
                let (target, waits) = self.target(keys, &known, tainted);
                if target == known.groups && !known.unsure {
                    continue;
                }
                let lost: BTreeSet<SecurityGroupId> = known.groups.difference(&target).copied().collect();
                let new =
                    |key: &&GroupKey| self.id(key).is_some_and(|id| target.contains(&id) && !known.sure.contains(&id));
                let gained: Vec<GroupKey> = keys.iter().filter(new).cloned().collect();
                let earlier = |id| named.get(&id).is_some_and(|time| *time < dirty.due.last);
                let rank = self.rank(&known, &target, &lost, &gained, groups, earlier);
                let held = self.is_held(&Object::Port(port));
                let (pod, due, own) = (pod.clone(), dirty.due, dirty.own);
                work.push(PortWork { port, pod, due, own, rank, target, lost, gained, waits, held });
            }
            if done {
                settled.push(pod.clone());
            }
        }
        for pod in settled {
            self.pods.remove(&pod);
        }
        work
    }

    /// The groups that a port is to have as far as they can be had, and whether it is better to wait for more.
    fn target(
        &self,
        keys: &BTreeSet<GroupKey>,
        port: &SeenPort,
        tainted: &HashSet<SecurityGroupId>,
    ) -> (BTreeSet<SecurityGroupId>, bool) {
        let (mut target, mut waits) = (BTreeSet::new(), false);
        for key in keys {
            let closed = self.held(&Object::Group(key.clone())) == Some(Hold::Closed);
            match self.id(key) {
                Some(id) if port.sure.contains(&id) || !tainted.contains(&id) => drop(target.insert(id)),
                Some(_) | None => waits |= !closed,
            }
        }
        (target, waits)
    }

    fn rank(
        &self,
        port: &SeenPort,
        target: &BTreeSet<SecurityGroupId>,
        lost: &BTreeSet<SecurityGroupId>,
        gained: &[GroupKey],
        groups: &BTreeMap<GroupKey, GroupWork>,
        earlier: impl Fn(SecurityGroupId) -> bool,
    ) -> Rank {
        let is_open = |set: &BTreeSet<SecurityGroupId>, direction| {
            let key = match direction {
                Direction::Ingress => GroupKey::IngressOpen,
                Direction::Egress => GroupKey::EgressOpen,
            };
            self.open.get(&key).is_some_and(|id| set.contains(id))
        };
        // What a group allows is nothing new, and no loss, to a port that is open in that direction anyway.
        let is_named = |id| {
            earlier(id) || self.seen.namers(id).any(|namer| self.id(namer).is_some_and(|id| self.may_be_carried(id)))
        };
        let widens = |key: &GroupKey| {
            let Some(group) = self.seen.group(key) else { return true };
            let coming = groups.get(key).into_iter().flat_map(|work| &work.add);
            let mut all = group.possible().chain(coming);
            is_named(group.id) || !all.all(|rule| is_open(&port.sure, rule.direction))
        };
        let narrows = |id: &SecurityGroupId| match self.seen.by_id(*id) {
            // An open group, or one that is to be read, or that nobody knows.
            Some(group) if group.stale => true,
            Some(group) => is_named(*id) || !group.possible().all(|rule| is_open(target, rule.direction)),
            None => true,
        };
        match (gained.iter().any(widens), lost.iter().any(narrows)) {
            (false, false) => Rank::Harmless,
            (false, true) => Rank::Narrower,
            (true, true) => Rank::Mixed,
            (true, false) => Rank::Wider,
        }
    }

    /// A port with all groups that it has or may have, as one whose change is under way.
    pub(super) fn possible(&self, port: PortId) -> Option<SeenPort> {
        let known = self.seen.port(port)?;
        Some(self.busy_ports.get(&port).map_or_else(|| known.clone(), |getting| known.changing(getting)))
    }

    /// The groups about whose members ports are to get rules, and what those wait for: all that is due until then. Who
    /// becomes a member because of something later is let in by them, so that does change what passes.
    fn to_be_named(&self, groups: &BTreeMap<GroupKey, GroupWork>) -> HashMap<SecurityGroupId, u64> {
        let mut gained: HashMap<&GroupKey, u64> = HashMap::new();
        for (pod, dirty) in &self.pods {
            let has = |id: SecurityGroupId| {
                self.seen.ports_of(pod).all(|port| self.seen.port(port).is_some_and(|port| port.sure.contains(&id)))
            };
            for key in self.compiler.groups(pod).into_iter().flat_map(|keys| keys.iter()) {
                if !self.id(key).is_some_and(has) {
                    let time = gained.entry(key).or_insert(dirty.due.last);
                    *time = dirty.due.last.min(*time);
                }
            }
        }
        let coming = gained.iter().flat_map(|(key, time)| {
            let rules = self.seen.group(key).into_iter().flat_map(|group| group.rules.keys());
            let missing = groups.get(*key).into_iter().flat_map(|work| &work.add);
            rules.chain(missing).map(|rule| (rule, *time))
        });
        let carried = groups.values().filter(|work| self.may_be_carried(work.id));
        let new = carried.flat_map(|work| work.add.iter().map(|rule| (rule, work.due.last)));
        let mut named = HashMap::new();
        for (rule, since) in coming.chain(new) {
            if let Some(remote) = rule.remote_group_id {
                let time = named.entry(remote).or_insert(since);
                *time = since.min(*time);
            }
        }
        named
    }

    /// Where a change of something else does it to several pods, they lose first.
    fn split_mixed(&self, ports: &mut [PortWork]) {
        if ports.iter().filter(|work| work.rank == Rank::Mixed).count() < 2 {
            return;
        }
        for work in ports.iter_mut().filter(|work| work.rank == Rank::Mixed && !work.own) {
            let gained: HashSet<SecurityGroupId> = work.gained.iter().filter_map(|key| self.id(key)).collect();
            work.target.retain(|id| !gained.contains(id));
            work.gained.clear();
            work.rank = Rank::Narrower;
        }
    }

    /// New rules of groups that ports have wait for the ports that lose: of those, the ones that a rule may concern. They
    /// also wait for the rules of the other direction that are to go: what lets out before and what lets in afterwards would
    /// be a way together that is in neither world. Two of the same direction are no way.
    fn postpone_rules(&self, work: &mut BTreeMap<GroupKey, GroupWork>, ports: &[PortWork], removals: &Removals) {
        let losers: Vec<&PortWork> = ports.iter().filter(|work| !work.lost.is_empty()).collect();
        for group in work.values_mut().filter(|group| self.may_be_carried(group.id)) {
            let concerned = |rule: &RuleContent, loser: &PortWork| {
                let Some(port) = self.possible(loser.port) else { return false };
                let has = |id: SecurityGroupId| port.groups.contains(&id);
                loser.due.first <= group.due.last && (has(group.id) || rule.remote_group_id.is_none_or(has))
            };
            let waits = |rule: &&RuleContent| {
                let other = match rule.direction {
                    Direction::Ingress => removals.egress,
                    Direction::Egress => removals.ingress,
                };
                other.before(group.due) || losers.iter().any(|loser| concerned(rule, loser))
            };
            group.later = group.add.iter().filter(waits).cloned().collect();
        }
    }

    /// The rules that are to go of groups that ports have.
    fn removals(&self, work: &BTreeMap<GroupKey, GroupWork>) -> Removals {
        let mut removals = Removals::default();
        for (key, due) in &self.groups {
            let Some(group) = self.seen.group(key).filter(|group| self.may_be_carried(group.id)) else { continue };
            // One that is to be read may have any.
            let goes = |direction| {
                let mut excess = work.get(key).into_iter().flat_map(|work| &work.excess);
                group.stale || excess.any(|(rule, _)| rule.direction == direction)
            };
            if goes(Direction::Ingress) {
                removals.ingress.note(*due);
            }
            if goes(Direction::Egress) {
                removals.egress.note(*due);
            }
        }
        removals
    }

    /// The steps for ports, in order of rank.
    fn port_steps(
        &self,
        ports: &[PortWork],
        groups: &BTreeMap<GroupKey, GroupWork>,
        removals: &Removals,
        steps: &mut Vec<Step>,
    ) {
        // A port that Neutron refuses to make narrower is still as wide as before: those that gain wait for it, too.
        let mut due = [Earliest::default(); 3];
        for work in ports.iter().filter(|work| work.rank < Rank::Wider) {
            if !work.held || work.rank > Rank::Harmless {
                due[work.rank as usize].note(work.due);
            }
        }
        // A group that gets rules now, or is being given some: better with them.
        let growing = |key: &GroupKey| {
            let closed = self.held(&Object::Group(key.clone())) == Some(Hold::Closed);
            let adds = groups.get(key).is_some_and(|work| work.add.len() > work.later.len());
            !closed && (self.busy_groups.contains(key) || adds || self.lacks_remotes(key))
        };
        let mut ready: Vec<&PortWork> = Vec::new();
        for work in ports {
            let others = due.iter().take(work.rank as usize).any(|earliest| earliest.before(work.due));
            let rules = [removals.ingress, removals.egress].iter().any(|earliest| earliest.before(work.due));
            let rules = work.rank >= Rank::Mixed && rules;
            let busy = self.busy_ports.contains_key(&work.port);
            let waits = work.waits || work.gained.iter().any(growing);
            if !(busy || work.held || others || rules || waits) {
                ready.push(work);
            }
        }
        ready.sort_by_key(|work| (work.rank, work.due.first));
        steps.extend(ready.into_iter().map(|work| Step::Port {
            port: work.port,
            pod: work.pod.clone(),
            groups: work.target.clone(),
        }));
    }

    /// Whether a group's rules name one that is still to be made.
    fn lacks_remotes(&self, key: &GroupKey) -> bool {
        let Some(group) = self.seen.group(key).filter(|_| self.groups.contains_key(key)) else { return false };
        let waits = |remote: &GroupKey| {
            self.id(remote).is_none() && self.held(&Object::Group(remote.clone())) != Some(Hold::Closed)
        };
        self.missing(key, group).1
            && self.compiler.rules(key).into_iter().flatten().any(|rule| match &rule.remote {
                crate::policy::Remote::Group(remote) => waits(remote),
                _ => false,
            })
    }

    fn is_held(&self, object: &Object) -> bool {
        self.held.contains_key(object)
    }

    /// Whether a port has the group, or is getting it.
    pub(super) fn may_be_carried(&self, id: SecurityGroupId) -> bool {
        self.seen.is_carried(id)
            || self.busy_ports.values().any(|groups| groups.contains(&id))
            || self.granted.values().any(|groups| groups.contains(&id))
    }
}

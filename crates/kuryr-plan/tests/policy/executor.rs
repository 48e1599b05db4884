//! An executor with a Neutron of a few lines, which is late, refuses, and loses answers. After each of its steps it is
//! looked at what passes.

use crate::{
    neutron::Cloud,
    passes::{Passes, passes},
    spec::Cluster,
    worlds::Dice,
};
use kuryr_model::{
    ClusterId, PodUid, PortId, SecurityGroupId, SecurityGroupRuleId,
    neutron::{Direction, EtherType, RuleContent, SecurityGroup, SecurityGroupRule},
};
use kuryr_plan::{
    enforce::{Enforcer, GroupStep, Hold, Object, Order, Step},
    policy::{Change, Compiled, GroupKey, Pod, Settings, World, compile},
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

fn cluster() -> ClusterId {
    "c1".into()
}

/// Neutron, as far as groups and ports go.
#[derive(Clone, Default)]
pub(crate) struct Neutron {
    pub(crate) groups: BTreeMap<SecurityGroupId, SecurityGroup>,
    ports: BTreeMap<PortId, (PodUid, BTreeSet<SecurityGroupId>)>,
    last: u128,
    /// How often each port was changed.
    pub(crate) updates: BTreeMap<PortId, usize>,
}

/// One request.
#[derive(Clone, Debug)]
enum Call {
    Look,
    Make(Vec<GroupKey>),
    Read(SecurityGroupId),
    Tag(SecurityGroupId, Vec<String>),
    Remove(SecurityGroupRuleId),
    Add(SecurityGroupId, Vec<RuleContent>),
    Port(PortId, BTreeSet<SecurityGroupId>),
    Delete(SecurityGroupId),
}

enum Answer {
    Groups(Vec<SecurityGroup>),
    Rules(Vec<SecurityGroupRule>),
    Done,
    NotFound,
    /// It exists already, or is in use.
    Conflict,
}

impl Neutron {
    fn id<T: std::str::FromStr<Err: std::fmt::Debug>>(&mut self) -> T {
        self.last += 1;
        format!("00000000-0000-0000-0000-{:012x}", self.last).parse().unwrap()
    }

    /// How often the ports of a pod were changed.
    pub(crate) fn updates_of(&self, pod: &PodUid) -> impl Iterator<Item = usize> {
        let ports = self.ports.iter().filter(move |(_, (owner, _))| owner == pod);
        ports.filter_map(|(port, _)| self.updates.get(port).copied())
    }

    fn open(&mut self, direction: Direction) -> SecurityGroupId {
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

    fn call(&mut self, call: &Call) -> Answer {
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

    fn cloud(&self, world: &World) -> Cloud {
        let addresses = |uid: &PodUid| {
            let pod = world.pods.values().find(|pod| pod.uid == *uid);
            pod.map(|pod| pod.addresses.clone()).unwrap_or_default()
        };
        let rules = |id| self.groups[&id].rules.iter().map(|rule| rule.allows.clone()).collect();
        Cloud::of_ports(self.ports.values().map(|(uid, groups)| (uid, groups)), rules, addresses)
    }
}

/// The pods that are the same in all worlds, but for those in which they are not there: the ones that come.
fn lasting(worlds: &[World]) -> Vec<Pod> {
    let Some(last) = worlds.last() else { return Vec::new() };
    let same = |pod: &&Pod| {
        let is = |other: &Pod| (&other.uid, &other.addresses, other.counts()) == (&pod.uid, &pod.addresses, true);
        worlds.iter().all(|world| match world.pods.get(&pod.key) {
            Some(other) => is(other),
            None => !worlds[0].pods.contains_key(&pod.key),
        })
    };
    last.pods.values().filter(same).cloned().collect()
}

struct Flight {
    step: Step,
    moment: u64,
    calls: VecDeque<Call>,
    failed: Option<Hold>,
}

pub(crate) struct Executor<'a, 'b> {
    pub(crate) enforcer: Enforcer,
    pub(crate) neutron: Neutron,
    pub(crate) open: BTreeMap<GroupKey, SecurityGroupId>,
    flights: Vec<Flight>,
    dice: &'a mut Dice<'b>,
    /// How many requests are still to fail.
    pub(crate) faults: usize,
    /// What failed, to be tried again in this order.
    held: VecDeque<Object>,
    /// All changes were heard of at once, none on the way.
    pub(crate) at_once: bool,
}

impl Executor<'_, '_> {
    fn calls(&mut self, step: &Step) -> VecDeque<Call> {
        match step {
            Step::Look => [Call::Look].into(),
            Step::Make(keys) => [Call::Make(keys.clone())].into(),
            Step::Read(_, id) => [Call::Read(*id)].into(),
            Step::Port { port, groups, .. } => [Call::Port(*port, groups.clone())].into(),
            Step::Delete(_, id) | Step::DeleteStray(id) => [Call::Delete(*id)].into(),
            Step::Group(GroupStep { key, id, tag, remove, add, order }) => {
                let tags = tag.then(|| Call::Tag(*id, key.tags(&cluster())));
                let add = (!add.is_empty()).then(|| Call::Add(*id, add.clone()));
                let remove = remove.iter().map(|id| Call::Remove(*id));
                let mut calls: VecDeque<Call> = tags.into_iter().chain(add).chain(remove).collect();
                if *order == Order::Any {
                    let by = self.dice.below(calls.len().max(1));
                    calls.rotate_left(by);
                }
                calls
            }
        }
    }

    /// Begins some of what is planned, or goes on with something; `false` if there is nothing to do.
    fn advance(&mut self) -> bool {
        let plan = self.enforcer.plan();
        if plan.is_empty() && self.flights.is_empty() {
            let Some(object) = self.held.pop_front() else { return false };
            self.enforcer.release(&object);
            return true;
        }
        if !plan.is_empty() && (self.flights.is_empty() || self.dice.below(2) == 0) {
            let at = self.dice.below(plan.len());
            let step = plan[at].clone();
            self.enforcer.begin(&step);
            let (calls, moment) = (self.calls(&step), self.enforcer.moment());
            self.flights.push(Flight { step, moment, calls, failed: None });
            return true;
        }
        let at = self.dice.below(self.flights.len());
        let mut flight = self.flights.swap_remove(at);
        match flight.calls.pop_front() {
            Some(call) => {
                self.go(&mut flight, &call);
                self.flights.push(flight);
            }
            None => self.end(&flight),
        }
        true
    }

    fn go(&mut self, flight: &mut Flight, call: &Call) {
        let fate = if self.faults > 0 { self.dice.below(6) } else { 5 };
        if fate < 3 {
            self.faults -= 1;
        }
        let hold = if self.dice.below(2) == 0 { Hold::Soon } else { Hold::Closed };
        match fate {
            // Refused.
            0 => flight.failed = Some(hold),
            // Done, or not, and the answer is lost.
            1 | 2 => {
                if fate == 1 {
                    self.neutron.call(call);
                }
                flight.failed = Some(Hold::Soon);
                match (&flight.step, call) {
                    (Step::Make(_), _) => self.enforcer.lost(),
                    (Step::Port { port, groups, .. }, _) => self.enforcer.unsure(*port, groups),
                    (Step::Group(step), _) => self.enforcer.doubt(&step.key),
                    _ => {}
                }
            }
            _ => {
                let answer = self.neutron.call(call);
                self.heard(flight, call, answer);
            }
        }
    }

    fn heard(&mut self, flight: &mut Flight, call: &Call, answer: Answer) {
        match (&flight.step, call, answer) {
            (Step::Look, _, Answer::Groups(groups)) => self.enforcer.looked(&cluster(), flight.moment, &groups),
            (Step::Make(keys), _, Answer::Groups(groups)) => {
                for (key, group) in keys.iter().zip(&groups) {
                    self.enforcer.made(key, group);
                }
            }
            (Step::Read(key, _), _, Answer::Groups(groups)) => {
                self.enforcer.read(&cluster(), key, groups.first());
            }
            (Step::Read(key, _), _, Answer::NotFound) => self.enforcer.read(&cluster(), key, None),
            (Step::Group(step), Call::Tag(..), Answer::Done) => self.enforcer.tagged(&step.key),
            (Step::Group(step), Call::Remove(id), Answer::Done) => self.enforcer.removed(&step.key, *id),
            (Step::Group(step), Call::Add(..), Answer::Rules(rules)) => self.enforcer.added(&step.key, &rules),
            (Step::Group(step), _, _) => {
                self.enforcer.doubt(&step.key);
                flight.failed = Some(Hold::Soon);
            }
            (Step::Port { port, pod, groups }, _, Answer::Done) => self.enforcer.has(*port, pod, groups.clone()),
            (Step::Port { .. }, _, _) => {
                self.enforcer.lost();
                flight.failed = Some(Hold::Soon);
            }
            (Step::Delete(key, _), _, Answer::Done) => self.enforcer.vanished(key),
            (Step::DeleteStray(id), _, Answer::Done) => self.enforcer.stray_deleted(*id),
            _ => flight.failed = Some(Hold::Soon),
        }
    }

    fn end(&mut self, flight: &Flight) {
        if let Some(hold) = flight.failed {
            for object in flight.step.objects() {
                self.enforcer.hold(object.clone(), hold);
                self.held.push_back(object);
            }
        }
        self.enforcer.end(&flight.step);
    }

    /// Pods that are gone give their ports back, and new ones get theirs, as soon as their groups are there.
    fn pods(&mut self, world: &World) {
        let gone = |uid: &PodUid| !world.pods.values().any(|pod| pod.uid == *uid && pod.counts());
        let ports: Vec<PortId> =
            self.neutron.ports.iter().filter(|(_, (uid, _))| gone(uid)).map(|(id, _)| *id).collect();
        for port in ports {
            self.neutron.ports.remove(&port);
            self.enforcer.port_gone(port);
        }
        for pod in world.pods.values().filter(|pod| pod.counts()) {
            if self.neutron.ports.values().any(|(uid, _)| *uid == pod.uid) {
                continue;
            }
            let Ok(groups) = self.enforcer.grant(&pod.uid) else { continue };
            let port = self.neutron.id::<PortId>();
            self.neutron.ports.insert(port, (pod.uid.clone(), groups.clone()));
            self.enforcer.has(port, &pod.uid, groups);
        }
    }

    /// Whether all is as it should be.
    fn arrived(&self, wanted: &Compiled) -> Result<(), String> {
        let mut ids = self.open.clone();
        for group in self.neutron.groups.values().filter(|group| group.name != "open") {
            let digest = kuryr_plan::enforce::digest(&cluster(), group).ok_or("a group without a digest")?;
            let key =
                wanted.groups.keys().find(|key| key.digest() == digest).ok_or(format!("{} is left", group.name))?;
            if ids.insert(key.clone(), group.id).is_some() {
                return Err(format!("{key} is there twice"));
            }
            if group.tags != key.tags(&cluster()) {
                return Err(format!("{key} has not its tags"));
            }
        }
        for (key, rules) in &wanted.groups {
            let group = &self.neutron.groups[ids.get(key).ok_or(format!("{key} is missing"))?];
            let there: BTreeSet<RuleContent> = group.rules.iter().map(|rule| rule.allows.clone()).collect();
            let should: BTreeSet<RuleContent> =
                rules.iter().map(|rule| rule.content(|key| ids.get(key).copied()).unwrap()).collect();
            if there != should {
                return Err(format!("{key}: {there:?} should be {should:?}"));
            }
        }
        for (uid, keys) in &wanted.pods {
            let should: BTreeSet<SecurityGroupId> = keys.iter().map(|key| ids[key]).collect();
            let port = self.neutron.ports.values().find(|(owner, _)| owner == uid);
            let (_, there) = port.ok_or(format!("pod {uid} has no port"))?;
            if *there != should {
                return Err(format!("pod {uid}: {there:?} should be {should:?}"));
            }
        }
        Ok(())
    }
}

/// What each world allows that is made by taking over some of the changes in their order.
fn between(start: &World, changes: &[Change]) -> Vec<World> {
    (0..1usize << changes.len())
        .map(|some| {
            let mut world = start.clone();
            let taken = changes.iter().enumerate().filter(|(index, _)| some >> index & 1 == 1);
            taken.for_each(|(_, change)| world.apply(change.clone()));
            world
        })
        .collect()
}

/// A cluster, and the executor that has brought it about.
pub(crate) fn settled<'a, 'b>(
    settings: &Settings,
    start: &World,
    dice: &'a mut Dice<'b>,
) -> Result<Executor<'a, 'b>, String> {
    let mut neutron = Neutron::default();
    let open: BTreeMap<GroupKey, SecurityGroupId> = [
        (GroupKey::IngressOpen, neutron.open(Direction::Ingress)),
        (GroupKey::EgressOpen, neutron.open(Direction::Egress)),
    ]
    .into();
    let enforcer = Enforcer::new(settings.clone(), open[&GroupKey::IngressOpen], open[&GroupKey::EgressOpen]);
    let mut executor = Executor {
        enforcer,
        neutron,
        open,
        flights: Vec::new(),
        dice,
        faults: 0,
        held: VecDeque::new(),
        at_once: true,
    };
    executor.enforcer.apply(start.changes().collect());
    let mut steps = 0;
    loop {
        executor.pods(start);
        if !executor.advance() {
            break;
        }
        steps += 1;
        if steps > 20_000 {
            return Err("it never ends".to_owned());
        }
    }
    executor.arrived(&compile(settings.clone(), start)).map_err(|error| format!("at first: {error}"))?;
    Ok(executor)
}

impl Executor<'_, '_> {
    /// Brings changes about, and looks after each step at what passes.
    pub(crate) fn change(&mut self, settings: &Settings, start: &World, changes: &[Change]) -> Result<(), String> {
        let worlds = between(start, changes);
        let pods = lasting(&worlds);
        // Of Services only those count that are the same in all worlds.
        let mut services = start.clone();
        services.services.retain(|key, service| worlds.iter().all(|world| world.services.get(key) == Some(service)));
        let cluster = Cluster { world: services, policies: vec![] };
        let allowed: BTreeSet<Passes> = worlds
            .iter()
            .flat_map(|world| {
                let counting = world.pods.values().filter(|pod| pod.counts());
                let cloud = Cloud::new(&compile(settings.clone(), world), counting);
                passes(&cloud.unwrap(), &pods, &cluster)
            })
            .collect();
        let mut world = start.clone();
        changes.iter().for_each(|change| world.apply(change.clone()));
        // Some are heard of at once, the rest on the way.
        let mut later: VecDeque<Change> = changes.iter().cloned().collect();
        let at_once = later.len() - self.dice.below(later.len());
        self.enforcer.apply(later.drain(..at_once).collect());
        self.at_once = later.is_empty();
        let mut steps = 0;
        loop {
            if !later.is_empty() && self.dice.below(6) == 5 {
                self.enforcer.apply(later.pop_front().into_iter().collect());
            }
            self.pods(&world);
            if !self.advance() {
                if later.is_empty() {
                    break;
                }
                self.enforcer.apply(later.drain(..).collect());
                continue;
            }
            steps += 1;
            let now = passes(&self.neutron.cloud(&world), &pods, &cluster);
            let wider: Vec<&Passes> = now.difference(&allowed).collect();
            if !wider.is_empty() {
                return Err(format!("after {steps} steps {wider:#?} pass"));
            }
            if steps > 20_000 {
                return Err("it never ends".to_owned());
            }
        }
        self.arrived(&compile(settings.clone(), &world))?;
        if self.enforcer.is_settled() { Ok(()) } else { Err("something is left to be done".to_owned()) }
    }
}

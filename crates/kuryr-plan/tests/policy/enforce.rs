//! The way from one world to another: an executor with a Neutron of a few lines, which is late, refuses, and loses answers.
//! At each moment nothing passes that neither world allows, and at the end all is as it should be.

use crate::{
    compare::read,
    incremental,
    neutron::Cloud,
    random,
    spec::{Cluster, Traffic},
    worlds::{self, Dice},
};
use kuryr_model::{
    ClusterId, PodUid, PortId, SecurityGroupId, SecurityGroupRuleId,
    neutron::{Direction, EtherType, RuleContent, SecurityGroup, SecurityGroupRule},
};
use kuryr_plan::{
    enforce::{Enforcer, GroupStep, Hold, Object, Order, Step},
    policy::{Change, Compiled, GroupKey, Pod, Protocol, Settings, World, compile},
};
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
};

const TRAFFIC: [Traffic; 5] = [
    Traffic::To(Protocol::Tcp, 80),
    Traffic::To(Protocol::Tcp, 8080),
    Traffic::To(Protocol::Tcp, 443),
    Traffic::To(Protocol::Udp, 53),
    Traffic::Other,
];

fn cluster() -> ClusterId {
    "c1".into()
}

/// Neutron, as far as groups and ports go.
#[derive(Clone, Default)]
struct Neutron {
    groups: BTreeMap<SecurityGroupId, SecurityGroup>,
    ports: BTreeMap<PortId, (PodUid, BTreeSet<SecurityGroupId>)>,
    last: u128,
    /// How often each port was changed.
    updates: BTreeMap<PortId, usize>,
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

/// What passes between those that are the same before and after.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Passes {
    Direct(String, String, String),
    Out(String, IpAddr, String),
    In(IpAddr, String, String),
    Through(String, String, String),
}

fn passes(cloud: &Cloud, pods: &[Pod], cluster: &Cluster) -> BTreeSet<Passes> {
    let mut all = BTreeSet::new();
    let outside: Vec<IpAddr> =
        ["203.0.113.5", "10.0.0.200", "192.168.0.1", "2001:db8::5"].iter().map(|it| it.parse().unwrap()).collect();
    for a in pods {
        let from = |to: IpAddr| a.addresses.iter().find(|it| it.is_ipv4() == to.is_ipv4()).copied();
        for traffic in TRAFFIC {
            let what = format!("{traffic:?}");
            for b in pods.iter().filter(|b| b.key != a.key) {
                let reaches = |to: &IpAddr| {
                    from(*to).is_some_and(|from| cloud.sends(a, *to, traffic) && cloud.receives(b, from, traffic))
                };
                if b.addresses.iter().any(reaches) {
                    all.insert(Passes::Direct(a.key.to_string(), b.key.to_string(), what.clone()));
                }
            }
            for other in &outside {
                if from(*other).is_some() && cloud.sends(a, *other, traffic) {
                    all.insert(Passes::Out(a.key.to_string(), *other, what.clone()));
                }
                if from(*other).is_some() && cloud.receives(a, *other, traffic) {
                    all.insert(Passes::In(*other, a.key.to_string(), what.clone()));
                }
            }
        }
        for listener in crate::compare::listeners(cluster) {
            let there = Traffic::To(listener.protocol, listener.number);
            let Some(source) = from(listener.vip).filter(|_| cloud.sends(a, listener.vip, there)) else { continue };
            for endpoint in cluster.behind(listener).0 {
                let Some(b) = pods.iter().find(|pod| pod.addresses.contains(&endpoint.address)) else { continue };
                if b.key != a.key && cloud.receives(b, source, Traffic::To(listener.protocol, endpoint.number)) {
                    let end = format!("{endpoint:?}");
                    all.insert(Passes::Through(a.key.to_string(), listener.to_string(), end));
                }
            }
        }
    }
    all
}

/// The pods that are the same in all worlds.
fn lasting(worlds: &[World]) -> Vec<Pod> {
    let same = |pod: &&Pod| {
        worlds.iter().all(|world| {
            world
                .pods
                .get(&pod.key)
                .is_some_and(|other| (&other.uid, &other.addresses, other.counts()) == (&pod.uid, &pod.addresses, true))
        })
    };
    worlds[0].pods.values().filter(same).cloned().collect()
}

struct Flight {
    step: Step,
    moment: u64,
    calls: VecDeque<Call>,
    failed: Option<Hold>,
}

struct Executor<'a, 'b> {
    enforcer: Enforcer,
    neutron: Neutron,
    flights: Vec<Flight>,
    dice: &'a mut Dice<'b>,
    faults: usize,
    held: Vec<Object>,
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
            let Some(object) = self.held.pop() else { return false };
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
                    (Step::Group(step), Call::Add(..)) => self.enforcer.doubt(&step.key),
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
                self.held.push(object);
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
    fn arrived(&self, open: &BTreeMap<GroupKey, SecurityGroupId>, wanted: &Compiled) -> Result<(), String> {
        let mut ids = open.clone();
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

fn run(bytes: &[u8], faults: bool, most: usize) -> Result<(), TestCaseError> {
    let fail = |text: String| TestCaseError::fail(text);
    let mut dice = Dice(bytes.iter());
    let settings: Settings = worlds::settings(&mut dice);
    let Cluster { world: start, policies } = worlds::cluster(&mut dice);
    let start = read(&Cluster { world: start, policies });

    let mut neutron = Neutron::default();
    let open: BTreeMap<GroupKey, SecurityGroupId> = [
        (GroupKey::IngressOpen, neutron.open(Direction::Ingress)),
        (GroupKey::EgressOpen, neutron.open(Direction::Egress)),
    ]
    .into();
    let enforcer = Enforcer::new(settings.clone(), open[&GroupKey::IngressOpen], open[&GroupKey::EgressOpen]);
    let changes_dice: Vec<u8> = dice.0.clone().copied().collect();
    let mut executor =
        Executor { enforcer, neutron, flights: Vec::new(), dice: &mut dice, faults: 0, held: Vec::new() };
    executor.enforcer.apply(start.changes().collect());
    let mut steps = 0;
    loop {
        executor.pods(&start);
        if !executor.advance() {
            break;
        }
        steps += 1;
        prop_assert!(steps < 20_000, "it never ends");
    }
    executor.arrived(&open, &compile(settings.clone(), &start)).map_err(|error| fail(format!("at first: {error}")))?;

    // Other choices than those of the way so far.
    let mut other = Dice(changes_dice.iter());
    let mut changes = Vec::new();
    let mut world = start.clone();
    for _ in 0..=other.below(most) {
        let mut change = incremental::change(&mut other, &world);
        // A port keeps its addresses.
        if let Change::Pod(pod) = &mut change
            && let Some(known) = world.pods.get(&pod.key).filter(|known| known.uid == pod.uid)
        {
            pod.addresses.clone_from(&known.addresses);
        }
        world.apply(change.clone());
        changes.push(change);
    }
    let worlds = between(&start, &changes);
    let pods = lasting(&worlds);
    // Of Services only those count that are the same in all worlds.
    let mut services = start.clone();
    services.services.retain(|key, service| worlds.iter().all(|world| world.services.get(key) == Some(service)));
    let cluster = Cluster { world: services, policies: vec![] };
    let allowed: BTreeSet<Passes> = worlds
        .iter()
        .flat_map(|world| {
            let cloud = Cloud::new(&compile(settings.clone(), world), world.pods.values().filter(|pod| pod.counts()));
            passes(&cloud.unwrap(), &pods, &cluster)
        })
        .collect();
    let before = executor.neutron.clone();
    executor.neutron.updates.clear();
    executor.faults = if faults { 6 } else { 0 };
    executor.enforcer.apply(changes.clone());
    let mut steps = 0;
    loop {
        executor.pods(&world);
        if !executor.advance() {
            break;
        }
        steps += 1;
        prop_assert!(steps < 20_000, "it never ends");
        let now = passes(&executor.neutron.cloud(&world), &pods, &cluster);
        let wider: Vec<&Passes> = now.difference(&allowed).collect();
        prop_assert!(wider.is_empty(), "after {steps} steps {wider:#?} pass\n{changes:#?}\n{start:#?}");
    }
    executor
        .arrived(&open, &compile(settings, &world))
        .map_err(|error| fail(format!("{error}\n{changes:#?}\n{start:#?}")))?;
    prop_assert!(executor.enforcer.is_settled());
    if !faults {
        // Rules of the same content are the same rules still.
        for (id, group) in &before.groups {
            let Some(after) = executor.neutron.groups.get(id) else { continue };
            for rule in &group.rules {
                let twin = after.rules.iter().find(|other| other.allows == rule.allows);
                prop_assert!(twin.is_none_or(|twin| twin.id == rule.id), "a rule was made anew");
            }
        }
        let one = matches!(&changes[..], [Change::Pod(_) | Change::Policy(_) | Change::PolicyGone(_)]);
        let often = executor.neutron.updates.values().any(|updates| *updates > 1);
        prop_assert!(!(one && often && matches!(changes[0], Change::Pod(_))), "a port was changed twice {changes:#?}");
    }
    Ok(())
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 300..1200)
}

#[test]
fn one_change_is_brought_about_without_a_moment_that_is_wider_than_both_worlds() {
    random::runner(10).run(&bytes(), |bytes| run(&bytes, false, 1)).unwrap();
}

#[test]
fn several_changes_at_once_are_never_wider_than_some_world_between() {
    random::runner(10).run(&bytes(), |bytes| run(&bytes, false, 3)).unwrap();
}

#[test]
fn failures_and_lost_answers_make_nothing_wider_and_all_is_right_in_the_end() {
    random::runner(10).run(&bytes(), |bytes| run(&bytes, true, 2)).unwrap();
}

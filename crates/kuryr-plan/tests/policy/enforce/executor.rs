//! Does the steps of a plan, some at a time, with answers that are late, refusals, and lost answers.

use super::{
    cluster,
    neutron::{Answer, Call, Neutron},
};
use crate::worlds::Dice;
use kuryr_model::{PodUid, PortId, SecurityGroupId, neutron::RuleContent};
use kuryr_plan::{
    enforce::{Enforcer, GroupStep, Hold, Object, Order, Step},
    policy::{Compiled, GroupKey, World},
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub(super) struct Flight {
    step: Step,
    moment: u64,
    calls: VecDeque<Call>,
    failed: Option<Hold>,
}

pub(super) struct Executor<'a, 'b> {
    pub(super) enforcer: Enforcer,
    pub(super) neutron: Neutron,
    pub(super) flights: Vec<Flight>,
    pub(super) dice: &'a mut Dice<'b>,
    pub(super) faults: usize,
    pub(super) held: Vec<Object>,
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
    pub(super) fn advance(&mut self) -> bool {
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
    pub(super) fn pods(&mut self, world: &World) {
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
    pub(super) fn arrived(&self, open: &BTreeMap<GroupKey, SecurityGroupId>, wanted: &Compiled) -> Result<(), String> {
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

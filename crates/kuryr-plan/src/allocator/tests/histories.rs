//! Whole histories: whatever is lost, late or refused, every pod has one port in the end.

use super::*;
use crate::{fixtures, pod::Pod};
use kuryr_model::{KuryrPort, ObjectKey, PodUid, PortId};
use proptest::prelude::*;
use std::collections::BTreeSet;

/// What becomes of one request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Answered,
    /// It is carried out, and the answer is lost.
    Lost,
    /// It is carried out so many seconds after it was given up.
    Late(u64),
    /// It never arrives, and that is known.
    Away,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Arrive(usize),
    /// One of the living pods goes.
    Leave(usize),
    /// Something under way goes one step on.
    Step(usize, Fate),
    Pass(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let fate = prop_oneof![
        6 => Just(Fate::Answered),
        1 => Just(Fate::Lost),
        1 => (0u64..70).prop_map(Fate::Late),
        1 => Just(Fate::Away),
    ];
    prop_oneof![
        2 => (1usize..25).prop_map(Event::Arrive),
        2 => any::<usize>().prop_map(Event::Leave),
        8 => (any::<usize>(), fate).prop_map(|(which, fate)| Event::Step(which, fate)),
        2 => (0u64..40).prop_map(Event::Pass),
    ]
}

/// How far a batch is.
#[derive(Debug)]
enum Phase {
    Idle,
    Asked(Ask, Vec<u32>),
    Answered(Ask, Vec<u32>, Result<Vec<u32>, Refusal>),
    Counting(NetworkId, Question),
    Counted(NetworkId, Question, Vec<(SubnetId, u64)>),
}

/// A living pod.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Life {
    Waits(Duration),
    Asks,
    Has(u32),
}

/// A controller as simple as can be, on a clock of its own.
#[derive(Debug)]
struct World {
    now: Duration,
    neutron: Neutron,
    supply: Supply,
    suspects: Suspects,
    pods: BTreeMap<u32, Life>,
    /// Pods that are gone and were not looked after since.
    gone: BTreeSet<u32>,
    under_way: Vec<(Batch<u32>, Phase)>,
    next: u32,
    /// Addresses may be taken that nobody could count on: Neutron did not say how full it is, or did something late.
    blind: bool,
}

fn key(pod: u32) -> ObjectKey {
    ObjectKey::new("shop", format!("pod-{pod}"))
}

fn uid(pod: u32) -> PodUid {
    PodUid(pod.to_string())
}

fn port_id(port: u32) -> PortId {
    format!("00000000-0000-0000-0001-{port:012}").parse().unwrap()
}

impl World {
    fn new(choices: Vec<Choice>, neutron: Neutron) -> Self {
        let mut suspects = Suspects::default();
        suspects.listed([]);
        Self {
            now: seconds(0),
            neutron,
            supply: Supply::new(choices, BULK, true),
            suspects,
            pods: BTreeMap::new(),
            gone: BTreeSet::new(),
            under_way: Vec::new(),
            next: 0,
            blind: false,
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Arrive(count) => {
                for _ in 0..count {
                    self.pods.insert(self.next, Life::Waits(self.now));
                    self.next += 1;
                }
            }
            Event::Leave(which) => self.leave(which),
            Event::Step(which, fate) if !self.under_way.is_empty() => {
                let which = which % self.under_way.len();
                self.step(which, fate);
            }
            Event::Step(..) => {}
            Event::Pass(time) => self.pass(time),
        }
        self.look_after_all();
    }

    fn leave(&mut self, which: usize) {
        let Some(pod) = self.pods.keys().nth(which % self.pods.len().max(1)).copied() else { return };
        if let Some(Life::Has(port)) = self.pods.remove(&pod) {
            self.delete(port);
        }
        self.gone.insert(pod);
    }

    fn delete(&mut self, port: u32) {
        self.neutron.ports.remove(&port).expect("deleted twice");
        self.supply.released(1);
    }

    fn pass(&mut self, time: u64) {
        self.now += seconds(time);
        let now = self.now;
        for (_, choice, pods) in self.neutron.late.extract_if(.., |(at, ..)| *at <= now).collect::<Vec<_>>() {
            let _ = self.neutron.create(&choice, &pods);
        }
        let due = |(_, life): &(&u32, &mut Life)| matches!(life, Life::Waits(at) if *at <= now);
        let mut batch: Vec<u32> = Vec::new();
        for (pod, life) in self.pods.iter_mut().filter(due).take(2 * BULK) {
            let there = if self.suspects.may_have_one(&key(*pod), &uid(*pod)) { self.neutron.of(*pod) } else { vec![] };
            match there.first() {
                Some(port) => *life = Life::Has(*port),
                None => {
                    *life = Life::Asks;
                    batch.push(*pod);
                }
            }
        }
        for (pod, life) in &self.pods {
            if matches!(life, Life::Has(_)) {
                self.suspects.recorded(&key(*pod), &uid(*pod));
            }
        }
        if !batch.is_empty() {
            self.under_way.push((Batch::new(batch), Phase::Idle));
        }
    }

    /// One request or answer of one batch.
    fn step(&mut self, which: usize, fate: Fate) {
        let (mut batch, phase) = self.under_way.swap_remove(which);
        let phase = match phase {
            Phase::Idle => match self.supply.next(&mut batch, self.now) {
                None => return,
                Some(Next::Count(network)) => Phase::Counting(network, self.supply.question()),
                Some(Next::Create(ask, pods)) => Phase::Asked(ask, pods),
                Some(Next::Short(_, pods)) => {
                    self.failed(&pods, false);
                    Phase::Idle
                }
            },
            Phase::Counting(network, question) => {
                let free = self.neutron.sizes.keys().map(|id| (*id, self.neutron.free(*id))).collect();
                Phase::Counted(network, question, free)
            }
            Phase::Counted(network, question, free) => {
                let answer = if fate == Fate::Answered { Counted::Free(free) } else { Counted::NotNow };
                self.blind |= fate != Fate::Answered;
                self.supply.counted(&mut batch, network, &question, answer, self.now);
                Phase::Idle
            }
            Phase::Asked(ask, pods) => {
                let answer = match fate {
                    Fate::Answered => self.neutron.create(&ask.choice, &pods),
                    Fate::Lost => self.neutron.create(&ask.choice, &pods).and(Err(Refusal::Unknown)),
                    Fate::Late(after) => {
                        self.blind = true;
                        self.neutron.late.push((self.now + seconds(after), ask.choice.clone(), pods.clone()));
                        Err(Refusal::Unknown)
                    }
                    Fate::Away => Err(Refusal::All),
                };
                Phase::Answered(ask, pods, answer)
            }
            Phase::Answered(ask, pods, Ok(ports)) => {
                self.supply.made(&ask);
                for (pod, port) in pods.iter().zip(ports) {
                    match self.pods.get_mut(pod) {
                        Some(life) => {
                            *life = Life::Has(port);
                            self.suspects.recorded(&key(*pod), &uid(*pod));
                        }
                        None => self.delete(port),
                    }
                }
                Phase::Idle
            }
            Phase::Answered(ask, pods, Err(refusal)) => {
                let failed = self.supply.refused(&mut batch, &ask, pods, refusal, self.now);
                self.failed(&failed, refusal == Refusal::Unknown);
                Phase::Idle
            }
        };
        self.under_way.push((batch, phase));
    }

    fn failed(&mut self, pods: &[u32], unknown: bool) {
        for pod in pods {
            if unknown {
                self.suspects.add(&key(*pod), &uid(*pod), true, self.now);
            }
            match self.pods.get_mut(pod) {
                Some(life) => *life = Life::Waits(self.now + if unknown { seconds(1) } else { USED_UP_FOR }),
                None => drop(self.gone.insert(*pod)),
            }
        }
    }

    /// What a reconciler does with a key whose time has come.
    fn look_after_all(&mut self) {
        let all: Vec<u32> = self.pods.keys().chain(&self.gone).copied().collect();
        for number in all {
            let asks = self.under_way.iter().any(|(batch, phase)| {
                let (Phase::Asked(_, pods) | Phase::Answered(_, pods, _)) = phase else {
                    return batch.pieces.iter().flatten().any(|pod| *pod == number);
                };
                pods.contains(&number) || batch.pieces.iter().flatten().any(|pod| *pod == number)
            });
            if asks {
                continue; // One worker for each key.
            }
            let (pod, port) = (self.pods.get(&number).map(|_| living(number)), self.recorded(number));
            for Sweep { uid: whose, keep } in self.suspects.sweeps(&key(number), pod.as_ref(), port.as_ref(), self.now)
            {
                assert_eq!(whose, uid(number));
                for port in self.neutron.of(number) {
                    if !keep.contains(&port_id(port)) {
                        self.delete(port);
                    }
                }
                self.suspects.swept(&key(number), &whose, self.now);
            }
            if pod.is_none() && !self.suspects.may_have_one(&key(number), &uid(number)) {
                self.gone.remove(&number);
            }
        }
    }

    fn recorded(&self, pod: u32) -> Option<KuryrPort> {
        let Some(Life::Has(port)) = self.pods.get(&pod) else { return None };
        Some(fixtures::kuryr_port(&key(pod), &uid(pod), port_id(*port)))
    }

    /// Everything goes well for some minutes.
    fn calm_down(&mut self) {
        for _ in 0..40 {
            while !self.under_way.is_empty() {
                self.step(0, Fate::Answered);
            }
            self.look_after_all();
            self.pass(10);
            self.look_after_all();
        }
        while !self.under_way.is_empty() {
            self.step(0, Fate::Answered);
        }
        self.look_after_all();
    }
}

fn living(pod: u32) -> Pod {
    fixtures::pod(&key(pod), &uid(pod))
}

fn history(choices: Vec<Choice>, neutron: Neutron, room: usize, events: Vec<Event>) -> Result<(), TestCaseError> {
    let mut world = World::new(choices, neutron);
    for event in events {
        world.event(event);
    }
    world.calm_down();
    let has = |life: &Life| if let Life::Has(port) = life { Some(*port) } else { None };
    let mut recorded: Vec<u32> = world.pods.values().filter_map(has).collect();
    recorded.sort_unstable();
    let there: Vec<u32> = world.neutron.ports.keys().copied().collect();
    prop_assert_eq!(&recorded, &there, "the ports that there are, are those that pods have");
    let lost: u64 = world.neutron.lost.values().sum();
    prop_assert!(lost == 0 || world.blind, "{} addresses are lost", lost);
    if lost == 0 {
        let possible = world.pods.keys().filter(|pod| !Neutron::impossible(**pod)).count();
        prop_assert_eq!(recorded.len(), possible.min(room), "of {} pods", world.pods.len());
    }
    let waiting = world.pods.len() - recorded.len();
    prop_assert!(world.suspects.count() <= waiting, "{} suspects, {} wait", world.suspects.count(), waiting);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever is lost, late, refused or away, and whoever leaves when: in the end every pod for which there is room has one
    /// port, and there is no other.
    #[test]
    fn every_pod_has_one_port_in_the_end(
        sizes in (0u64..50, 0u64..50), quota in 0usize..120, events in proptest::collection::vec(event(), 0..120),
    ) {
        let neutron = Neutron::new(&[(1, sizes.0), (2, sizes.1)], quota);
        let room = usize::try_from(sizes.0 + sizes.1).unwrap().min(quota);
        history(vec![choice(&[1]), choice(&[2])], neutron, room, events)?;
    }

    /// The same with two subnets for each port.
    #[test]
    fn every_dual_stack_pod_has_one_port_in_the_end(
        sizes in (0u64..50, 0u64..50, 0u64..80), events in proptest::collection::vec(event(), 0..120),
    ) {
        let neutron = Neutron::new(&[(1, sizes.0), (2, sizes.1), (6, sizes.2)], 1000);
        let room = usize::try_from((sizes.0 + sizes.1).min(sizes.2)).unwrap();
        history(vec![choice(&[1, 6]), choice(&[2, 6])], neutron, room, events)?;
    }
}

//! Any history of pools against a model: a map from each port to where it is.

use super::*;
use crate::pool::{Back, BulkId, Refusal, Shortage};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// What happens.
#[derive(Clone, Debug)]
enum Event {
    Pass(u64),
    Take { node: u8, owner: u32 },
    Recorded(usize),
    Returned(usize),
    GiveBack(usize),
    GiveBackTwice(usize),
    Claim(usize),
    Plan { quota: Option<usize>, room: Option<usize> },
    Answer { index: usize, refusal: Option<Refusal>, fate: Fate },
    Placed { index: usize, on: bool },
    Spoilt(usize),
    Deleted(usize),
    Starved { quota: bool, lacking: usize },
    Open { node: u8, room: usize },
    Close(u8),
    Fill { node: u8, count: usize },
    Drain(u8),
    Restart,
}

/// What becomes of ports that are made.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// They are answered for.
    Heard,
    /// A look at all ports finds them before they are answered for.
    SeenFirst,
    /// Their answer is lost.
    Lost,
}

fn event() -> impl Strategy<Value = Event> {
    let one = 0usize..100;
    prop_oneof![
        6 => (0u64..40).prop_map(Event::Pass),
        12 => (0u8..3, 0u32..60).prop_map(|(node, owner)| Event::Take { node, owner }),
        8 => one.clone().prop_map(Event::Recorded),
        2 => one.clone().prop_map(Event::Returned),
        6 => one.clone().prop_map(Event::GiveBack),
        1 => one.clone().prop_map(Event::GiveBackTwice),
        1 => one.clone().prop_map(Event::Claim),
        10 => (prop::option::weighted(0.3, 0usize..40), prop::option::weighted(0.3, 0usize..40))
            .prop_map(|(quota, room)| Event::Plan { quota, room }),
        8 => (one.clone(), prop::option::weighted(0.25, prop_oneof![
            Just(Refusal::Full), Just(Refusal::Quota), Just(Refusal::Other)
        ]), prop_oneof![8 => Just(Fate::Heard), 1 => Just(Fate::SeenFirst), 1 => Just(Fate::Lost)])
            .prop_map(|(index, refusal, fate)| Event::Answer { index, refusal, fate }),
        6 => (one.clone(), prop::bool::weighted(0.8)).prop_map(|(index, on)| Event::Placed { index, on }),
        1 => one.clone().prop_map(Event::Spoilt),
        6 => one.prop_map(Event::Deleted),
        1 => (any::<bool>(), 0usize..8).prop_map(|(quota, lacking)| Event::Starved { quota, lacking }),
        2 => (0u8..3, 0usize..30).prop_map(|(node, room)| Event::Open { node, room }),
        1 => (0u8..3).prop_map(Event::Close),
        1 => (0u8..3, 0usize..15).prop_map(|(node, count)| Event::Fill { node, count }),
        1 => (0u8..3).prop_map(Event::Drain),
        1 => Just(Event::Restart),
    ]
}

#[derive(Clone, Debug, PartialEq)]
enum Where {
    Spare {
        node: u8,
        not_before: Duration,
    },
    Lent {
        node: u8,
        owner: u32,
    },
    Used {
        node: u8,
    },
    /// Made for a trunk, and not there yet.
    Placing {
        node: u8,
    },
    Leaving,
}

/// What there is in the cloud, and where.
struct World {
    pools: Pools,
    settings: Settings,
    now: Duration,
    ports: BTreeMap<PortId, (Port, Where)>,
    bulks: BTreeMap<BulkId, Bulk>,
    open: BTreeSet<u8>,
    made: u32,
    /// Each pod wants once.
    served: BTreeSet<u32>,
}

/// The last one is a virtual machine.
const MACHINE: u8 = 2;

fn place(node: u8) -> Place {
    if node == MACHINE { Place::Trunk(id(0xbb, 2).parse().unwrap()) } else { super::place(node) }
}

fn key(node: u8) -> PoolKey {
    PoolKey { place: place(node), network: network(0) }
}

fn node_of(key: &PoolKey) -> u8 {
    (0..3).find(|node| place(*node) == key.place).unwrap()
}

fn home(port: &Port) -> u8 {
    (0..3).find(|node| place(*node).to_string() == port.host_id).unwrap()
}

fn choices() -> Vec<Choice> {
    vec![choice(0, &[1]), choice(0, &[2])]
}

impl World {
    fn new(settings: Settings) -> Self {
        let pools = Pools::new(settings.clone(), choices());
        let now = seconds(1000);
        let mut world = Self {
            pools,
            settings,
            now,
            ports: BTreeMap::new(),
            bulks: BTreeMap::new(),
            open: BTreeSet::new(),
            made: 0,
            served: BTreeSet::new(),
        };
        for node in 0..3 {
            world.pools.open(&place(node), 30, now);
            world.open.insert(node);
        }
        world
    }

    fn pick(&self, index: usize, which: impl Fn(&Where) -> bool) -> Option<(Port, Where)> {
        let fitting: Vec<_> = self.ports.values().filter(|(_, place)| which(place)).collect();
        fitting.get(index % fitting.len().max(1)).map(|(port, place)| (port.clone(), place.clone()))
    }

    fn put(&mut self, id: PortId, place: Where) {
        self.ports.get_mut(&id).unwrap().1 = place;
    }

    /// These are to be deleted: only what is spare may be.
    fn leave(&mut self, ids: Vec<PortId>) -> Result<(), TestCaseError> {
        for id in ids {
            let place = self.ports[&id].1.clone();
            prop_assert!(matches!(place, Where::Spare { .. }), "{id} is to be deleted and is {place:?}");
            self.put(id, Where::Leaving);
        }
        Ok(())
    }

    fn give_back(&mut self, port: &Port, node: u8) -> Result<(), TestCaseError> {
        match self.pools.give_back(&place(node), port.clone(), self.now) {
            Back::Kept => {
                prop_assert!(self.open.contains(&node), "kept for a node that is gone");
                self.put(port.id, Where::Spare { node, not_before: self.now + self.settings.cooldown });
            }
            Back::Delete => self.put(port.id, Where::Leaving),
        }
        Ok(())
    }

    fn happen(&mut self, event: &Event) -> Result<(), TestCaseError> {
        let now = self.now;
        match *event {
            Event::Pass(time) => self.now += seconds(time),
            Event::Take { node, owner } => self.take(node, owner)?,
            Event::Recorded(index) => {
                if let Some((port, Where::Lent { node, owner })) = self.pick(index, |w| matches!(w, Where::Lent { .. }))
                {
                    self.pools.recorded(&pod(owner));
                    self.served.insert(owner);
                    self.put(port.id, Where::Used { node });
                }
            }
            Event::Returned(index) => {
                if let Some((port, Where::Lent { node, owner })) = self.pick(index, |w| matches!(w, Where::Lent { .. }))
                {
                    let (id, back) = self.pools.returned(&pod(owner), now).unwrap();
                    prop_assert_eq!(id, port.id);
                    let kept = Where::Spare { node, not_before: now };
                    self.put(id, if back == Back::Kept { kept } else { Where::Leaving });
                }
            }
            Event::GiveBack(index) => {
                if let Some((port, Where::Used { node })) = self.pick(index, |w| matches!(w, Where::Used { .. })) {
                    self.give_back(&port, node)?;
                }
            }
            Event::GiveBackTwice(index) => {
                let spare = |w: &Where| matches!(w, Where::Spare { .. } | Where::Leaving);
                if let Some((port, place_of)) = self.pick(index, spare) {
                    let node = home(&port);
                    let back = self.pools.give_back(&place(node), port, now);
                    prop_assert_eq!(back == Back::Delete, place_of == Where::Leaving);
                }
            }
            Event::Claim(index) => {
                if let Some((port, Where::Spare { node, .. })) = self.pick(index, |w| matches!(w, Where::Spare { .. }))
                {
                    prop_assert!(self.pools.claim(port.id));
                    self.put(port.id, Where::Used { node });
                }
            }
            Event::Plan { quota, room } => {
                let subnets = room.map(|left| [(subnet(1), left), (subnet(2), left)].into()).unwrap_or_default();
                self.plan(&Headroom { quota, subnets })?;
            }
            Event::Answer { index, refusal, fate } => self.answer(index, refusal, fate)?,
            Event::Placed { index, on } => self.placed(index, on)?,
            Event::Spoilt(index) => {
                if let Some((port, Where::Lent { owner, .. })) = self.pick(index, |w| matches!(w, Where::Lent { .. })) {
                    prop_assert_eq!(self.pools.spoilt(&pod(owner)), Some(port.id));
                    self.put(port.id, Where::Leaving);
                }
            }
            Event::Deleted(index) => {
                if let Some((port, _)) = self.pick(index, |w| *w == Where::Leaving) {
                    self.pools.deleted(port.id, now);
                    self.ports.remove(&port.id);
                }
            }
            Event::Starved { quota, lacking } => {
                let shortage = if quota { Shortage::Quota } else { Shortage::Subnets(choice(0, &[1])) };
                let victims = self.pools.starved(&shortage, lacking, now);
                let helps = |port: &Port| quota || port.fixed_ips[0].subnet_id == subnet(1);
                let spare = |(port, w): &&(Port, Where)| matches!(w, Where::Spare { .. }) && helps(port);
                let there = self.ports.values().filter(spare).count();
                prop_assert_eq!(victims.len(), lacking.min(there), "spare ports make way before a pod waits");
                self.leave(victims)?;
            }
            Event::Open { node, room } => {
                self.pools.open(&place(node), room, now);
                self.open.insert(node);
            }
            Event::Close(node) => {
                let gone = self.pools.close(&place(node));
                self.leave(gone)?;
                self.open.remove(&node);
                prop_assert_eq!(self.spare(node, None), 0, "a node that is gone has spare ports");
            }
            Event::Fill { node, count } => self.pools.fill(&key(node), count),
            Event::Drain(node) => {
                let gone = self.pools.drain(&key(node));
                self.leave(gone)?;
                prop_assert_eq!(self.spare(node, None), 0);
            }
            Event::Restart => self.restart()?,
        }
        Ok(())
    }

    /// Spare ports of a node; only those that may be handed out at that moment.
    fn spare(&self, node: u8, at: Option<Duration>) -> usize {
        let fits = |w: &Where| matches!(w, Where::Spare { node: n, not_before } if *n == node && at.is_none_or(|at| *not_before <= at));
        self.ports.values().filter(|(_, w)| fits(w)).count()
    }

    fn take(&mut self, node: u8, owner: u32) -> Result<(), TestCaseError> {
        if self.served.contains(&owner) {
            return Ok(());
        }
        let lent = self.ports.values().find(|(_, w)| matches!(w, Where::Lent { owner: o, .. } if *o == owner)).cloned();
        let ready = self.spare(node, Some(self.now));
        match (self.pools.take(&key(node), &pod(owner), self.now), lent) {
            (Some(port), Some((lent, _))) => prop_assert_eq!(port.id, lent.id, "another one than before"),
            (None, Some(_)) => prop_assert!(false, "what was lent to {owner} is not given again"),
            (Some(port), None) => {
                let place_of = &self.ports[&port.id].1;
                let Where::Spare { node: home, not_before } = place_of else {
                    return Err(TestCaseError::fail(format!("{} was handed out and is {place_of:?}", port.id)));
                };
                prop_assert_eq!(*home, node, "a port of another node");
                prop_assert!(*not_before <= self.now, "within the cooldown");
                self.put(port.id, Where::Lent { node, owner });
            }
            (None, None) => prop_assert_eq!(ready, 0, "a pod waits although there is one"),
        }
        Ok(())
    }

    fn plan(&mut self, headroom: &Headroom) -> Result<(), TestCaseError> {
        let plan = self.pools.plan(self.now, headroom);
        self.leave(plan.delete)?;
        let asked = |on: Option<u8>| -> usize {
            let bulks = plan.bulks.iter().filter(|bulk| on.is_none_or(|n| bulk.choice == choice(0, &[n])));
            bulks.flat_map(|bulk| &bulk.parts).map(|(_, count)| count).sum()
        };
        let rooms = [1, 2].map(|n| (asked(Some(n)), headroom.subnets.get(&subnet(n)).copied()));
        for (asked, limit) in rooms.into_iter().chain([(asked(None), headroom.quota)]) {
            let limit = limit.unwrap_or(usize::MAX);
            prop_assert!(asked == 0 || asked + self.settings.reserve <= limit, "{asked} ports of {limit}");
        }
        for bulk in plan.bulks.clone() {
            let count: usize = bulk.parts.iter().map(|(_, count)| count).sum();
            prop_assert!((1..=self.settings.bulk_size).contains(&count));
            self.bulks.insert(bulk.id, bulk);
        }
        prop_assert!(self.bulks.len() <= self.settings.requests);
        let left = |limit: usize, on| limit - asked(on).min(limit);
        let rest = Headroom {
            quota: headroom.quota.map(|limit| left(limit, None)),
            subnets: [1u8, 2]
                .into_iter()
                .filter_map(|n| Some((subnet(n), left(*headroom.subnets.get(&subnet(n))?, Some(n)))))
                .collect(),
        };
        let again = self.pools.plan(self.now, &rest);
        prop_assert!(again.bulks.is_empty() && again.delete.is_empty(), "{again:?} after a plan was carried out");
        Ok(())
    }

    fn placed(&mut self, index: usize, on: bool) -> Result<(), TestCaseError> {
        let placing = |w: &Where| matches!(w, Where::Placing { .. });
        if let Some((port, Where::Placing { node })) = self.pick(index, placing) {
            let back = self.pools.placed(port.id, on, self.now);
            prop_assert!(on || back == Back::Delete, "it is spare and on no trunk");
            let kept = Where::Spare { node, not_before: self.now };
            self.put(port.id, if back == Back::Kept { kept } else { Where::Leaving });
        } else if let Some((port, place_of)) = self.pick(index, |w| *w == Where::Leaving) {
            // Its pool was closed meanwhile, say.
            prop_assert_eq!(self.pools.placed(port.id, on, self.now), Back::Kept, "{:?}", place_of);
        }
        Ok(())
    }

    fn answer(&mut self, index: usize, refusal: Option<Refusal>, fate: Fate) -> Result<(), TestCaseError> {
        let Some(id) = self.bulks.keys().nth(index % self.bulks.len().max(1)).copied() else { return Ok(()) };
        let bulk = self.bulks.remove(&id).unwrap();
        if let Some(refusal) = refusal {
            prop_assert_eq!(self.pools.answered(id, Err(refusal), self.now), []);
            return Ok(());
        }
        let keys = bulk.parts.iter().flat_map(|(key, count)| std::iter::repeat_n(key.clone(), *count));
        let made: Vec<(PoolKey, Port)> = keys
            .map(|key| {
                self.made += 1;
                (key.clone(), port(self.made, &bulk.choice, &key.place))
            })
            .collect();
        for (key, port) in &made {
            let spare = Where::Spare { node: node_of(key), not_before: self.now };
            self.ports.insert(port.id, (port.clone(), spare));
        }
        if fate == Fate::SeenFirst {
            for (key, port) in &made {
                self.give_back(port, node_of(key))?;
            }
            prop_assert_eq!(self.pools.answered(id, Ok(made), self.now), []);
        } else if fate == Fate::Lost {
            // Nobody knows of them until the next look at all ports, which gives them back.
            self.pools.answered(id, Err(Refusal::Other), self.now);
            for (key, port) in made {
                self.give_back(&port, node_of(&key))?;
            }
        } else {
            let ids: Vec<(u8, PortId)> = made.iter().map(|(key, port)| (node_of(key), port.id)).collect();
            let unneeded = self.pools.answered(id, Ok(made), self.now);
            self.leave(unneeded)?;
            for (node, id) in ids.into_iter().filter(|(node, _)| *node == MACHINE) {
                if self.ports[&id].1 != Where::Leaving {
                    self.put(id, Where::Placing { node });
                }
            }
        }
        Ok(())
    }

    /// The controller dies. Its successor knows the nodes, and which ports there are and are in `KuryrPort`s.
    fn restart(&mut self) -> Result<(), TestCaseError> {
        self.pools = Pools::new(self.settings.clone(), choices());
        self.bulks.clear();
        for node in self.open.clone() {
            self.pools.open(&place(node), 30, self.now);
        }
        let ports: Vec<_> = self.ports.values().cloned().collect();
        for (port, place_of) in ports {
            match place_of {
                Where::Used { .. } => {}
                Where::Spare { node, .. } | Where::Lent { node, .. } | Where::Placing { node } => {
                    self.give_back(&port, node)?;
                }
                Where::Leaving => {
                    let node = home(&port);
                    self.give_back(&port, node)?;
                }
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let totals = self.pools.totals();
        let count = |which: fn(&Where) -> bool| self.ports.values().filter(|(_, w)| which(w)).count();
        let spare = count(|w| matches!(w, Where::Spare { .. }));
        let making: usize = self.bulks.values().flat_map(|bulk| &bulk.parts).map(|(_, count)| count).sum();
        let placing = count(|w| matches!(w, Where::Placing { .. }));
        prop_assert_eq!(totals.held, spare + making + placing, "a port was lost, or is there twice");
        prop_assert!(totals.held <= self.settings.budget, "{} spare ports", totals.held);
        prop_assert_eq!(totals.lent, count(|w| matches!(w, Where::Lent { .. })));
        prop_assert_eq!(totals.leaving, count(|w| *w == Where::Leaving));
        for (key, view) in self.pools.view(self.now) {
            let node = node_of(&key);
            let ready = self.spare(node, Some(self.now));
            prop_assert_eq!((view.ready, view.cooling), (ready, self.spare(node, None) - ready), "{}", node);
        }
        Ok(())
    }

    /// Everything answers and nothing more happens: pools come to rest, with what they should have.
    fn comes_to_rest(&mut self) -> Result<(), TestCaseError> {
        self.pools.starved(&Shortage::Quota, 0, self.now);
        self.pools.starved(&Shortage::Subnets(choice(0, &[1])), 0, self.now);
        for _ in 0..20_000 {
            while !self.bulks.is_empty() {
                self.answer(0, None, Fate::Heard)?;
            }
            while self.ports.values().any(|(_, w)| matches!(w, Where::Placing { .. })) {
                self.placed(0, true)?;
            }
            while let Some((port, _)) = self.pick(0, |w| *w == Where::Leaving) {
                self.pools.deleted(port.id, self.now);
                self.ports.remove(&port.id);
            }
            let plan = self.pools.plan(self.now, &Headroom::default());
            let busy = !plan.bulks.is_empty() || !plan.delete.is_empty();
            self.leave(plan.delete)?;
            self.bulks.extend(plan.bulks.into_iter().map(|bulk| (bulk.id, bulk)));
            match plan.again {
                None if !busy => {
                    let views = self.pools.view(self.now);
                    for (_, view) in &views {
                        prop_assert!(view.ready >= view.target, "at rest and too small: {views:?}");
                        prop_assert_eq!(view.cooling + view.refilling, 0);
                    }
                    return self.check();
                }
                again => self.now += again.unwrap_or_default().max(Duration::from_millis(10)),
            }
        }
        Err(TestCaseError::fail(format!("no rest: {:?}", self.pools.view(self.now))))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_no_port_is_lost_shared_or_reused_too_early(
        floor in 0usize..4, ceiling in 2usize..12, budget in 0usize..30, requests in 1usize..4, bulk_size in 1usize..8,
        reserve in 0usize..5, events in proptest::collection::vec(event(), 0..150),
    ) {
        let settings = Settings { floor, ceiling, budget, requests, bulk_size, reserve, ..SETTINGS };
        let mut world = World::new(settings);
        for event in &events {
            world.happen(event)?;
            world.check()?;
        }
        world.comes_to_rest()?;
    }
}

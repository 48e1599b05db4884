//! Any history of a trunk and its writer.

use super::{Neutron, crowded, other, port, settle};
use crate::trunk::{Outcome, Room, Step, Trouble, Writer};
use kuryr_model::{PortId, SegmentationId};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

/// What happens to a trunk and to its writer.
#[derive(Clone, Debug)]
enum Event {
    Want(u16),
    /// A port is to be there for a pod that may come.
    WantSpare(u16),
    Unwant(u16),
    /// The controller writes the `KuryrPort` of a port.
    Tell(u16),
    /// The next step is carried out, and the answer arrives.
    Step,
    /// It is carried out, and the answer does not arrive.
    Lost,
    /// Neutron does not do it and says so.
    NotDone,
    /// The controller is killed and comes back, having done its step or not.
    Crash {
        done: bool,
    },
    /// Somebody removes a subport.
    Removed(u16),
    /// Somebody adds a subport of theirs.
    Added(u16, u16),
    /// Somebody moves one of our subports to another id.
    Moved(u16, u16),
    /// A port becomes unusable, or usable again.
    Break(u16),
    Mend,
    LookAgain,
    /// A subport does not work.
    Again(u16),
}

const PORTS: u16 = 12;

fn event() -> impl Strategy<Value = Event> {
    let ports = || 0..PORTS;
    // Few ids, so that they meet.
    let ids = || 1..16u16;
    prop_oneof![
        6 => ports().prop_map(Event::Want),
        3 => ports().prop_map(Event::WantSpare),
        3 => ports().prop_map(Event::Unwant),
        5 => ports().prop_map(Event::Tell),
        9 => Just(Event::Step),
        2 => Just(Event::Lost),
        1 => Just(Event::NotDone),
        2 => any::<bool>().prop_map(|done| Event::Crash { done }),
        1 => ports().prop_map(Event::Removed),
        1 => (ports(), ids()).prop_map(|(port, id)| Event::Added(port, id)),
        1 => (ports(), ids()).prop_map(|(port, id)| Event::Moved(port, id)),
        1 => ports().prop_map(Event::Break),
        1 => Just(Event::Mend),
        1 => Just(Event::LookAgain),
        1 => ports().prop_map(Event::Again),
    ]
}

/// A cluster: what its `KuryrPort`s say outlives the controller.
#[derive(Default)]
struct World {
    neutron: Neutron,
    /// Pods that want a port, and the ids in their `KuryrPort`s.
    pods: BTreeMap<PortId, Option<SegmentationId>>,
    /// Those of them for which no pod has come.
    spare: BTreeSet<PortId>,
    writer: Writer,
}

impl World {
    fn run(&mut self, event: &Event) {
        match *event {
            Event::Want(n) => {
                let id = *self.pods.entry(port(n)).or_default();
                self.spare.remove(&port(n));
                self.writer.want(port(n), id);
            }
            Event::WantSpare(n) => {
                if let Entry::Vacant(pod) = self.pods.entry(port(n)) {
                    pod.insert(None);
                    self.spare.insert(port(n));
                }
                self.writer.want_spare(port(n));
            }
            Event::Unwant(n) => {
                self.pods.remove(&port(n));
                self.spare.remove(&port(n));
                self.writer.unwant(port(n));
            }
            Event::Tell(n) => self.tell(port(n)),
            Event::Step => self.step(Neutron::carry_out),
            Event::Lost => self.step(|neutron, step| {
                neutron.carry_out(step);
                Outcome::Unknown
            }),
            Event::NotDone => self.step(|_, _| Outcome::NotDone),
            Event::Crash { done } => {
                if let Some(step) = self.writer.plan().step.filter(|_| done) {
                    self.neutron.carry_out(&step);
                }
                self.writer = Writer::new();
                self.spare.clear();
                self.writer.ours((0..PORTS).map(port));
                for (port, id) in &self.pods {
                    self.writer.want(*port, *id);
                }
            }
            Event::Removed(n) => {
                self.neutron.subports.remove(&port(n));
                self.neutron.subports.remove(&other(n));
            }
            Event::Added(n, id) => self.put(other(n), id),
            Event::Moved(n, id) => {
                if self.neutron.subports.contains_key(&port(n)) {
                    self.put(port(n), id);
                }
            }
            Event::Break(n) => {
                self.neutron.unusable.insert(port(n));
            }
            Event::Mend => self.neutron.unusable.clear(),
            Event::LookAgain => self.writer.look_again(),
            Event::Again(n) => self.writer.again(port(n)),
        }
    }

    fn put(&mut self, port: PortId, id: u16) {
        if !self.neutron.subports.values().any(|taken| *taken == u32::from(id)) {
            self.neutron.subports.insert(port, id.into());
        }
    }

    fn step(&mut self, answer: impl FnOnce(&mut Neutron, &Step) -> Outcome) {
        if let Some(step) = self.writer.plan().step {
            if let Step::Add(subports) = &step {
                self.has_an_order(subports);
            }
            let strangers: BTreeMap<PortId, u32> = self.strangers();
            let outcome = answer(&mut self.neutron, &step);
            assert_eq!(self.strangers(), strangers, "{step:?} touched what is not ours");
            self.writer.tell(&step, outcome);
        }
    }

    /// Who waits comes first, and does not wait for many others.
    fn has_an_order(&self, subports: &[(PortId, SegmentationId)]) {
        let is_spare = |port: PortId| self.spare.contains(&port) && self.pods.get(&port).is_some_and(Option::is_none);
        let spare: Vec<bool> = subports.iter().map(|(port, _)| is_spare(*port)).collect();
        let waited_for = spare.iter().filter(|spare| !**spare).count();
        assert!(spare.is_sorted(), "a spare port goes before one that is waited for: {subports:?}");
        assert!(waited_for == 0 || spare.len() <= waited_for.max(5), "{waited_for} of {}", spare.len());
    }

    fn tell(&mut self, port: PortId) {
        if let Some(told) = self.pods.get_mut(&port)
            && let Some(id) = self.writer.pin(port)
        {
            assert!(told.is_none_or(|before| before == id), "{port} had {told:?} and is told {id}");
            *told = Some(id);
        }
    }

    fn strangers(&self) -> BTreeMap<PortId, u32> {
        self.neutron.subports.iter().filter(|(p, _)| **p >= other(0)).map(|(p, id)| (*p, *id)).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// Whatever happens: no two pods are told one id, what is not ours is left alone, and at rest the trunk is as wanted.
    #[test]
    fn a_trunk_comes_to_what_is_wanted_of_it(events in prop::collection::vec(event(), 1..120)) {
        let mut world = World::default();
        for event in &events {
            world.run(event);
            let told: Vec<SegmentationId> = world.pods.values().flatten().copied().collect();
            let different: BTreeSet<SegmentationId> = told.iter().copied().collect();
            prop_assert_eq!(told.len(), different.len(), "two pods have one id after {:?}: {:?}", event, world.pods);
        }
        world.neutron.unusable.clear();
        for (port, id) in &world.pods {
            world.writer.want(*port, *id);
        }
        world.writer.look_again();
        world.writer.ours((0..PORTS).map(port));
        let strangers = world.strangers();
        let troubles = settle(&mut world.writer, &mut world.neutron);
        prop_assert_eq!(&world.strangers(), &strangers);
        // Nothing was refused that a second look would not have prevented, so only strangers are in the way.
        for (port, trouble) in &troubles {
            let Trouble::Taken { id, by } = trouble else { panic!("{port}: {trouble}") };
            prop_assert_eq!(world.pods[port], Some(*id));
            prop_assert_eq!(strangers.get(by), Some(&u32::from(id.get())));
        }
        let ours: BTreeMap<PortId, u32> =
            world.neutron.subports.iter().filter(|(p, _)| **p < other(0)).map(|(p, id)| (*p, *id)).collect();
        let wanted: BTreeSet<PortId> = world.pods.keys().filter(|p| !troubles.contains_key(p)).copied().collect();
        prop_assert_eq!(ours.keys().copied().collect::<BTreeSet<_>>(), wanted);
        for (port, told) in &world.pods {
            if let (Some(told), Some(there)) = (told, ours.get(port)) {
                prop_assert_eq!(u32::from(told.get()), *there);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// Whatever happened on a trunk: as many more ports as it says fit on it, and of one more it says that there is no room.
    #[test]
    fn the_room_of_a_trunk_is_what_still_fits(events in prop::collection::vec(event(), 1..50)) {
        let mut world = World { neutron: crowded(), ..World::default() };
        for event in &events {
            world.run(event);
        }
        let World { mut neutron, mut writer, .. } = world;
        neutron.unusable.clear();
        writer.tell(&Step::Read, Outcome::Done(neutron.shown()));
        let strangers = neutron.subports.keys().filter(|port| **port >= other(0)).count();
        let room = writer.room().unwrap();
        prop_assert_eq!(room.others, strangers);
        let full = |troubles: BTreeMap<PortId, Trouble>| troubles.values().filter(|why| **why == Trouble::Full).count();
        if room.free == 0 {
            // More may be wanted already than fits.
            writer.want(port(100), None);
            prop_assert!(full(settle(&mut writer, &mut neutron)) > 0);
            return Ok(());
        }
        (0..room.free as u16).for_each(|n| writer.want(port(100 + n), None));
        prop_assert_eq!(full(settle(&mut writer, &mut neutron)), 0);
        prop_assert_eq!(writer.room(), Some(Room { free: 0, others: strangers }));
        writer.want(port(100 + room.free as u16), None);
        prop_assert_eq!(full(settle(&mut writer, &mut neutron)), 1);
    }
}

//! The writer of a trunk against a Neutron that knows no more than its rules.

mod model;

use super::{MOST_AT_ONCE, Outcome, Plan, Room, Step, Trouble, Writer};
use kuryr_model::{PortId, SegmentationId, neutron::Subport};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

fn port(n: u16) -> PortId {
    PortId(Uuid::from_u128(n.into()))
}

/// A port that is not ours.
fn other(n: u16) -> PortId {
    port(n + 1000)
}

fn id(n: u16) -> SegmentationId {
    n.try_into().unwrap()
}

/// A trunk as Neutron keeps it.
#[derive(Clone, Debug, Default)]
struct Neutron {
    subports: BTreeMap<PortId, u32>,
    /// Ports that were deleted, or are in use elsewhere.
    unusable: BTreeSet<PortId>,
}

impl Neutron {
    fn shown(&self) -> Vec<Subport> {
        let shown = |(port, id): (&PortId, &u32)| Subport {
            port_id: *port,
            segmentation_type: "vlan".into(),
            segmentation_id: *id,
        };
        self.subports.iter().map(shown).collect()
    }

    /// All or none, as the trunk plugin does it.
    fn carry_out(&mut self, step: &Step) -> Outcome {
        let mut after = self.subports.clone();
        match step {
            Step::Read => {}
            Step::Remove(ports) => {
                assert!(!ports.is_empty());
                if !ports.iter().all(|port| after.remove(port).is_some()) {
                    return Outcome::Refused;
                }
            }
            Step::Add(subports) => {
                assert!(!subports.is_empty());
                for (port, id) in subports {
                    let taken = after.values().any(|taken| *taken == u32::from(id.get()));
                    if taken || self.unusable.contains(port) || after.insert(*port, id.get().into()).is_some() {
                        return Outcome::Refused;
                    }
                }
            }
        }
        self.subports = after;
        Outcome::Done(self.shown())
    }
}

/// Does what is planned until nothing is; what cannot be helped.
fn settle(writer: &mut Writer, neutron: &mut Neutron) -> BTreeMap<PortId, Trouble> {
    for _ in 0..2000 {
        let Plan { step, troubles } = writer.plan();
        let Some(step) = step else { return troubles };
        let outcome = neutron.carry_out(&step);
        writer.tell(&step, outcome);
    }
    panic!("it never ends: {:?}", writer.plan());
}

#[test]
fn nothing_is_asked_of_a_trunk_that_nobody_needs() {
    let mut writer = Writer::new();
    assert_eq!(writer.plan(), Plan::default());
    writer.watch();
    assert_eq!(writer.plan().step, Some(Step::Read), "somebody wants to know what room it has");
    writer.tell(&Step::Read, Outcome::Done(vec![]));
    assert_eq!((writer.plan(), writer.room()), (Plan::default(), Some(Room { free: 4094, others: 0 })));
}

#[test]
fn ports_that_come_together_go_together() {
    let (mut writer, mut neutron) = (Writer::new(), Neutron::default());
    (0..30).for_each(|n| writer.want(port(n), None));
    assert_eq!(writer.plan().step, Some(Step::Read));
    writer.tell(&Step::Read, Outcome::Done(vec![]));
    let first = writer.plan().step.unwrap();
    assert!(matches!(&first, Step::Add(subports) if subports.len() == MOST_AT_ONCE), "{first}");
    let outcome = neutron.carry_out(&first);
    writer.tell(&first, outcome);
    assert!(matches!(writer.plan().step, Some(Step::Add(subports)) if subports.len() == 10));
    assert_eq!(settle(&mut writer, &mut neutron), BTreeMap::new());
    let ids: BTreeSet<_> = (0..30).map(|n| writer.pin(port(n)).unwrap()).collect();
    assert_eq!(ids.len(), 30);
}

#[test]
fn an_id_is_told_only_when_neutron_has_shown_it() {
    let mut writer = Writer::new();
    writer.want(port(1), None);
    writer.tell(&Step::Read, Outcome::Done(vec![]));
    assert_eq!(writer.pin(port(1)), None);
    let step = writer.plan().step.unwrap();
    writer.tell(&step, Outcome::Unknown);
    assert_eq!(writer.pin(port(1)), None);
    assert_eq!(writer.plan().step, Some(Step::Read));
    // It was done after all: the port keeps what it got.
    let shown = Subport { port_id: port(1), segmentation_type: "vlan".into(), segmentation_id: 77 };
    writer.tell(&Step::Read, Outcome::Done(vec![shown]));
    assert_eq!((writer.pin(port(1)), writer.plan()), (Some(id(77)), Plan::default()));
}

#[test]
fn an_id_that_a_pod_may_use_stays_its_own_while_its_subport_is_missing() {
    // A controller comes back; somebody has removed the subport of a running pod.
    let (mut writer, mut neutron) = (Writer::new(), Neutron::default());
    writer.want(port(9), Some(id(1)));
    (1..4).for_each(|n| writer.want(port(n), None));
    assert_eq!(settle(&mut writer, &mut neutron), BTreeMap::new());
    assert_eq!(neutron.subports[&port(9)], 1);
}

#[test]
fn an_id_that_was_told_is_not_told_again_when_somebody_moves_another_subport_to_it() {
    let (mut writer, mut neutron) = (Writer::new(), Neutron::default());
    writer.want(port(1), Some(id(5)));
    writer.want(port(2), None);
    // The first one's subport was removed, and the second one put in its place.
    neutron.subports = [(port(2), 5)].into();
    writer.tell(&Step::Read, Outcome::Done(neutron.shown()));
    assert_eq!(writer.pin(port(2)), None);
    assert_eq!(settle(&mut writer, &mut neutron), BTreeMap::new());
    assert_eq!(neutron.subports[&port(1)], 5);
    assert!(writer.pin(port(2)).is_some_and(|other| other != id(5)));
}

#[test]
fn a_subport_with_the_wrong_id_is_put_right() {
    let mut neutron = Neutron { subports: [(port(1), 5), (port(2), 6)].into(), ..Neutron::default() };
    let mut writer = Writer::new();
    // They have changed places.
    writer.want(port(1), Some(id(6)));
    writer.want(port(2), Some(id(5)));
    assert_eq!(settle(&mut writer, &mut neutron), BTreeMap::new());
    assert_eq!(neutron.subports, [(port(1), 6), (port(2), 5)].into());
}

#[test]
fn what_is_left_over_is_removed_and_what_is_not_ours_stays() {
    let mut neutron =
        Neutron { subports: [(port(1), 1), (other(1), 2), (other(2), 70_000)].into(), ..Neutron::default() };
    let mut writer = Writer::new();
    writer.ours([port(1), port(2)]);
    writer.want(port(3), Some(id(2)));
    let troubles = settle(&mut writer, &mut neutron);
    assert_eq!(neutron.subports, [(other(1), 2), (other(2), 70_000)].into());
    assert_eq!(troubles, [(port(3), Trouble::Taken { id: id(2), by: other(1) })].into());
}

#[test]
fn an_id_that_was_told_is_told_again_while_nobody_knows_what_the_trunk_carries() {
    let (mut writer, mut neutron) = (Writer::new(), Neutron::default());
    writer.want(port(1), None);
    assert_eq!(writer.told(port(1)), None);
    settle(&mut writer, &mut neutron);
    assert_eq!(writer.told(port(1)), None, "it is there, and nobody was told so far");
    let there = writer.pin(port(1)).unwrap();
    writer.look_again();
    assert_eq!((writer.pin(port(1)), writer.told(port(1))), (None, Some(there)));
    // Somebody has removed it.
    writer.tell(&Step::Read, Outcome::Done(Vec::new()));
    assert_eq!(writer.told(port(1)), None);
    neutron.subports.clear();
    settle(&mut writer, &mut neutron);
    assert_eq!(writer.told(port(1)), Some(there));
    writer.want(port(2), Some(there));
    assert_eq!(writer.told(port(1)), None, "another one claims it");
    writer.unwant(port(1));
    assert_eq!(writer.told(port(1)), None);
}

#[test]
fn a_full_trunk_says_so_and_takes_the_next_one_when_there_is_room() {
    let (mut writer, mut neutron) = (Writer::new(), Neutron::default());
    (0..4094).for_each(|n| writer.want(port(n), None));
    assert_eq!(settle(&mut writer, &mut neutron), BTreeMap::new());
    assert_eq!((neutron.subports.len(), writer.room()), (4094, Some(Room { free: 0, others: 0 })));
    writer.want(port(5000), None);
    assert_eq!(settle(&mut writer, &mut neutron), [(port(5000), Trouble::Full)].into());
    writer.unwant(port(17));
    assert_eq!(settle(&mut writer, &mut neutron), BTreeMap::new());
    assert!(neutron.subports.contains_key(&port(5000)));
}

#[test]
fn a_port_that_neutron_does_not_take_holds_up_no_other() {
    let mut neutron = Neutron { unusable: [port(7)].into(), ..Neutron::default() };
    let mut writer = Writer::new();
    (0..20).for_each(|n| writer.want(port(n), None));
    assert_eq!(settle(&mut writer, &mut neutron), [(port(7), Trouble::Refused)].into());
    assert_eq!(neutron.subports.len(), 19);
    neutron.unusable.clear();
    assert_eq!(settle(&mut writer, &mut neutron).len(), 1, "nobody has asked for it again");
    writer.want(port(7), None);
    assert_eq!(settle(&mut writer, &mut neutron), BTreeMap::new());
}

#[test]
fn of_two_that_claim_one_id_the_one_on_the_trunk_has_it() {
    let mut neutron = Neutron { subports: [(port(2), 5)].into(), ..Neutron::default() };
    let mut writer = Writer::new();
    writer.want(port(1), Some(id(5)));
    writer.want(port(2), Some(id(5)));
    assert_eq!(settle(&mut writer, &mut neutron), [(port(1), Trouble::Claimed { id: id(5), by: port(2) })].into());
    assert_eq!(neutron.subports, [(port(2), 5)].into());
}

#[test]
fn a_subport_that_does_not_work_is_put_back_with_its_id() {
    let (mut writer, mut neutron) = (Writer::new(), Neutron::default());
    (0..3).for_each(|n| writer.want(port(n), None));
    settle(&mut writer, &mut neutron);
    let before = neutron.clone();
    writer.pin(port(1)).unwrap();
    writer.again(port(1));
    writer.again(port(9));
    let step = writer.plan().step.unwrap();
    assert_eq!(step, Step::Remove(vec![port(1)]));
    // Whether it was done is not known; that it was, is seen.
    neutron.carry_out(&step);
    writer.tell(&step, Outcome::Unknown);
    settle(&mut writer, &mut neutron);
    assert_eq!(neutron.subports, before.subports);
    assert_eq!(writer.plan(), Plan::default(), "once is enough");
}

#[test]
fn leaving_ports_and_coming_ones_take_turns() {
    let (mut writer, mut neutron) = (Writer::new(), Neutron::default());
    (0..20).for_each(|n| writer.want(port(n), None));
    settle(&mut writer, &mut neutron);
    (0..20).for_each(|n| writer.unwant(port(n)));
    (20..60).for_each(|n| writer.want(port(n), None));
    let kinds: Vec<bool> = (0..3)
        .map(|_| {
            let step = writer.plan().step.unwrap();
            let outcome = neutron.carry_out(&step);
            writer.tell(&step, outcome);
            matches!(step, Step::Add(_))
        })
        .collect();
    assert_eq!(kinds, [false, true, true]);
}

#[test]
fn pods_come_before_spare_ports_and_each_in_its_turn() {
    let (mut writer, mut neutron) = (Writer::new(), Neutron::default());
    writer.tell(&Step::Read, Outcome::Done(vec![]));
    (0..40).rev().for_each(|n| writer.want_spare(port(n)));
    (40..70).rev().for_each(|n| writer.want(port(n), None));
    // One of the spare ones is a pod's by now.
    writer.want(port(20), None);
    let mut batches = Vec::new();
    while let Some(step) = writer.plan().step {
        let Step::Add(subports) = &step else { panic!("{step}") };
        batches.push(subports.iter().map(|(port, _)| *port).collect::<Vec<_>>());
        let outcome = neutron.carry_out(&step);
        writer.tell(&step, outcome);
    }
    let waited_for: Vec<PortId> = std::iter::once(20).chain((40..70).rev()).map(port).collect();
    let spare: Vec<PortId> = (0..40).rev().filter(|n| *n != 20).map(port).collect();
    assert_eq!(batches.concat(), [waited_for, spare].concat());
    assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [20, 11, 20, 19]);
}

#[test]
fn spare_ports_fill_up_a_small_request_of_pods_and_make_no_large_one_of_it() {
    let (mut writer, mut neutron) = (Writer::new(), Neutron::default());
    writer.tell(&Step::Read, Outcome::Done(vec![]));
    (0..40).for_each(|n| writer.want_spare(port(n)));
    let mut sizes = Vec::new();
    for pods in [3, 1, 7, 0] {
        (0..pods).for_each(|n| writer.want(port(100 + 10 * sizes.len() as u16 + n), None));
        let step = writer.plan().step.unwrap();
        let Step::Add(subports) = &step else { panic!("{step}") };
        let spare = subports.iter().filter(|(id, _)| *id < port(100)).count();
        sizes.push((usize::from(pods), spare));
        let outcome = neutron.carry_out(&step);
        writer.tell(&step, outcome);
    }
    assert_eq!(sizes, [(3, 2), (1, 4), (7, 0), (0, MOST_AT_ONCE)]);
}

/// A trunk on which others have all ids but the first fifteen.
fn crowded() -> Neutron {
    Neutron { subports: (16..=4094).map(|id| (other(id), id.into())).collect(), ..Neutron::default() }
}

#[test]
fn what_nobody_wants_any_more_is_room_and_what_a_missing_subport_was_told_is_none() {
    let mut neutron = crowded();
    let mut writer = Writer::new();
    assert_eq!(writer.room(), None);
    writer.ours([port(1)]);
    neutron.subports.insert(port(1), 1);
    writer.want(port(2), Some(id(2)));
    writer.want(port(3), None);
    writer.tell(&Step::Read, Outcome::Done(neutron.shown()));
    assert_eq!(writer.room(), Some(Room { free: 13, others: 4079 }));
    writer.look_again();
    assert_eq!(writer.room(), None);
}

//! How many addresses the subnets have left, so that no bulk is asked for that does not fit: Neutron (ML2, up to at least
//! the release Zed) loses the addresses that it took for the first ports of such a bulk.
//!
//! Neutron is asked now and then (its extension `network-ip-availability`), and from its answer on what is asked for is
//! subtracted. An answer may or may not know of a request that is under way, so all that had no answer when the question
//! left is subtracted too: of our own requests, none is ever overlooked. What others take meanwhile is, hence the
//! reserve that is kept, and the end of an answer's life. Addresses that come back are not noticed until the next answer.

use crate::subnets::Choice;
use kuryr_model::SubnetId;
use std::{collections::HashMap, time::Duration};

/// How long an answer is counted on from.
const GOOD_FOR: Duration = Duration::from_secs(10 * 60);

/// What is known of all subnets.
#[derive(Debug, Default)]
pub(super) struct Rooms(HashMap<SubnetId, Room>);

/// What is known of one subnet.
#[derive(Clone, Copy, Debug, Default)]
struct Room {
    /// Addresses that were ever asked for, without those that were refused.
    taken: u64,
    /// Those of them for which there was an answer.
    answered: u64,
    /// Those for which there was none yet, of requests for several ports.
    bulks: u64,
    count: Option<Count>,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    free: u64,
    /// [`Room::answered`] when Neutron was asked.
    answered: u64,
    until: Duration,
}

/// What is to be done before a bulk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reserved {
    /// So many fit for sure, and are taken now.
    Taken(usize),
    /// That is not known well enough: ask.
    Ask,
}

/// What there had been an answer for when Neutron was asked how full its subnets are.
#[derive(Clone, Debug)]
pub struct Question(HashMap<SubnetId, u64>);

impl Room {
    fn left(&self, now: Duration) -> Option<u64> {
        let count = self.count.filter(|count| now < count.until)?;
        Some(count.free.saturating_sub(self.taken - count.answered))
    }
}

impl Rooms {
    /// Takes `wanted` addresses if there are so many and `reserve` more.
    pub(super) fn reserve(&mut self, choice: &Choice, wanted: usize, reserve: usize, now: Duration) -> Reserved {
        match self.left(choice, now) {
            Some(left) if left >= (wanted + reserve) as u64 => {
                self.take(choice, wanted);
                Reserved::Taken(wanted)
            }
            _ => Reserved::Ask,
        }
    }

    /// Takes as many of `wanted` addresses as there are, but one at least: that one may be refused, and costs nothing then.
    /// Where nothing is known, all.
    pub(super) fn take_some(&mut self, choice: &Choice, wanted: usize, now: Duration) -> usize {
        let left = self.left(choice, now).map_or(wanted, |left| usize::try_from(left).unwrap_or(usize::MAX));
        let some = wanted.min(left.max(1));
        self.take(choice, some);
        some
    }

    /// Takes addresses, whether there are any or not.
    pub(super) fn take(&mut self, choice: &Choice, count: usize) {
        self.change(choice, |room| {
            room.taken += count as u64;
            room.bulks += bulk(count);
        });
    }

    /// There is an answer for so many that were taken: they were made, or nobody knows.
    pub(super) fn answered(&mut self, choice: &Choice, count: usize) {
        self.change(choice, |room| {
            room.answered += count as u64;
            room.bulks -= bulk(count);
        });
    }

    /// So many that were taken were refused.
    pub(super) fn refused(&mut self, choice: &Choice, count: usize) {
        self.change(choice, |room| {
            room.taken -= count as u64;
            room.bulks -= bulk(count);
        });
    }

    /// Whether bulks that are under way have taken all that is left: one more port, made before them, would make them not fit.
    pub(super) fn spoken_for(&self, choice: &Choice, now: Duration) -> bool {
        let mut rooms = choice.subnets.iter().filter_map(|subnet| self.0.get(subnet));
        rooms.any(|room| room.bulks > 0 && room.left(now) == Some(0))
    }

    fn change(&mut self, choice: &Choice, change: impl Fn(&mut Room)) {
        for subnet in &choice.subnets {
            change(self.0.entry(*subnet).or_default());
        }
    }

    /// Neutron is asked from now on.
    pub(super) fn ask(&self) -> Question {
        Question(self.0.iter().map(|(subnet, room)| (*subnet, room.answered)).collect())
    }

    /// Neutron's answer for a subnet.
    pub(super) fn count(&mut self, question: &Question, subnet: SubnetId, free: u64, now: Duration) {
        let answered = question.0.get(&subnet).copied().unwrap_or(0);
        self.0.entry(subnet).or_default().count = Some(Count { free, answered, until: now + GOOD_FOR });
    }

    /// Addresses left for ports of this choice, as far as known.
    fn left(&self, choice: &Choice, now: Duration) -> Option<u64> {
        let left = choice.subnets.iter().map(|subnet| self.0.get(subnet)?.left(now));
        left.min_by_key(|left| left.unwrap_or(0)).flatten()
    }
}

/// What a request for so many ports counts as a bulk.
fn bulk(count: usize) -> u64 {
    if count > 1 { count as u64 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kuryr_model::NetworkId;
    use proptest::prelude::*;

    const NOW: Duration = Duration::from_secs(7);

    fn subnet(n: u8) -> SubnetId {
        format!("00000000-0000-0000-0000-0000000000{n:02x}").parse().unwrap()
    }

    fn choice(subnets: &[u8]) -> Choice {
        let network: NetworkId = "00000000-0000-0000-0000-0000000000ff".parse().unwrap();
        Choice { network, subnets: subnets.iter().map(|n| subnet(*n)).collect() }
    }

    #[test]
    fn neutron_is_asked_at_first_near_the_end_and_when_the_answer_is_old() {
        let (v4, now) = (choice(&[1]), NOW);
        let mut rooms = Rooms::default();
        assert_eq!(rooms.reserve(&v4, 20, 20, now), Reserved::Ask);
        rooms.count(&rooms.ask(), subnet(1), 60, now);
        assert_eq!(rooms.reserve(&v4, 20, 20, now), Reserved::Taken(20));
        assert_eq!(rooms.reserve(&v4, 20, 20, now), Reserved::Taken(20));
        assert_eq!(rooms.reserve(&v4, 1, 20, now), Reserved::Ask, "20 are left");
        rooms.count(&rooms.ask(), subnet(1), 1000, now);
        assert_eq!(rooms.reserve(&v4, 20, 20, now), Reserved::Taken(20));
        assert_eq!(rooms.reserve(&v4, 20, 20, now + GOOD_FOR), Reserved::Ask);
    }

    #[test]
    fn as_many_are_asked_for_as_there_are_and_one_where_none_is_known() {
        let (v4, now) = (choice(&[1]), NOW);
        let mut rooms = Rooms::default();
        assert_eq!(rooms.take_some(&v4, 20, now), 20, "nothing is known");
        rooms.answered(&v4, 20);
        rooms.count(&rooms.ask(), subnet(1), 5, now);
        assert_eq!(rooms.take_some(&v4, 20, now), 5);
        assert_eq!(rooms.take_some(&v4, 15, now), 1);
        rooms.refused(&v4, 1);
        assert_eq!(rooms.left(&v4, now), Some(0));
    }

    #[test]
    fn a_dual_stack_port_needs_an_address_of_both_subnets() {
        let now = NOW;
        let (a, b) = (choice(&[1, 6]), choice(&[2, 6]));
        let mut rooms = Rooms::default();
        rooms.count(&rooms.ask(), subnet(1), 100, now);
        assert_eq!(rooms.left(&a, now), None, "half of it is not known");
        for (n, free) in [(2, 100), (6, 30)] {
            rooms.count(&rooms.ask(), subnet(n), free, now);
        }
        rooms.take(&a, 20);
        assert_eq!((rooms.left(&a, now), rooms.left(&b, now)), (Some(10), Some(10)), "they share the third");
    }

    #[derive(Clone, Copy, Debug)]
    enum Event {
        /// Somebody wants so many ports.
        Wanted(usize),
        /// The oldest request that Neutron has not worked on yet is worked on.
        Worked,
        /// The oldest answer that is on its way to us arrives.
        Answered,
        /// A question leaves if none is under way, else Neutron looks, else its answer arrives.
        Question,
        /// A port of ours is deleted.
        Deleted,
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            (1usize..12).prop_map(Event::Wanted),
            Just(Event::Worked),
            Just(Event::Worked),
            Just(Event::Answered),
            Just(Event::Answered),
            Just(Event::Question),
            Just(Event::Deleted),
        ]
    }

    proptest! {
        /// Against a Neutron whose subnet nobody else uses: whatever overlaps with whatever, a bulk of more than one that was
        /// counted on always fits.
        #[test]
        fn what_was_counted_fits(size in 0u64..80, events in proptest::collection::vec(event(), 0..200)) {
            let now = NOW;
            let one = choice(&[1]);
            let mut rooms = Rooms::default();
            let mut free = size;
            let (mut sent, mut answers) = (std::collections::VecDeque::new(), std::collections::VecDeque::new());
            let mut question: Option<(Question, Option<u64>)> = None;
            for event in events {
                match event {
                    Event::Wanted(wanted) => {
                        let count = match rooms.reserve(&one, wanted, 3, now) {
                            Reserved::Taken(count) => count,
                            Reserved::Ask if rooms.left(&one, now).is_some() => rooms.take_some(&one, wanted, now),
                            Reserved::Ask => continue,
                        };
                        sent.push_back(count);
                    }
                    Event::Worked => if let Some(count) = sent.pop_front() {
                        let fits = free >= count as u64;
                        prop_assert!(fits || count == 1, "{count} ports for {free} addresses");
                        free -= if fits { count as u64 } else { 0 };
                        answers.push_back((count, fits));
                    },
                    Event::Answered => match answers.pop_front() {
                        Some((count, true)) => rooms.answered(&one, count),
                        Some((count, false)) => rooms.refused(&one, count),
                        None => {}
                    },
                    Event::Question => question = match question.take() {
                        None => Some((rooms.ask(), None)),
                        Some((question, None)) => Some((question, Some(free))),
                        Some((question, Some(free))) => {
                            rooms.count(&question, subnet(1), free, now);
                            None
                        }
                    },
                    Event::Deleted => if free < size { free += 1 },
                }
            }
        }
    }
}

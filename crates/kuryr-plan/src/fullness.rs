//! Nodes on which no further pod fits: when that is said on a Node, and in which words.
//!
//! ```text
//!   how many more pods fit ──Border──▶ full or not ──Notice──▶ what the Node is to say ◀─compare─ what it says
//! ```
//!
//! Only nodes that are virtual machines can be full: Neutron limits the VLAN ids of a trunk and the address pairs of a port, but no
//! number of ports of a host.

use kuryr_model::{PortId, SegmentationId, TrunkId};
use std::{fmt, time::Duration};

/// How many more pods fit on a node, and what limits that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Pods that fit beside those that are there or wait.
    pub free: usize,
    /// What is used up by pods.
    pub limit: Limit,
}

/// What limits the pods of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// VLAN ids of its trunk.
    Ids {
        /// The trunk.
        trunk: TrunkId,
        /// How many of them are of subports that Kuryr did not make.
        others: usize,
    },
    /// Address pairs of its port.
    Pairs {
        /// The port.
        parent: PortId,
        /// How many Neutron allows it, as was learnt when it refused one more.
        most: usize,
    },
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ids { trunk, others } => {
                write!(f, "all {} VLAN ids of trunk {trunk} are in use", SegmentationId::COUNT)?;
                if *others > 0 {
                    write!(f, ", {others} of them by subports that Kuryr did not make")?;
                }
                write!(f, ": no further pod fits until one of the node's pods, or such a subport, is gone")
            }
            Self::Pairs { parent, most } => write!(
                f,
                "port {parent} of the node has all {most} address pairs that Neutron allows: no further pod fits until one of the \
                 node's pods is gone; raise max_allowed_address_pair in Neutron's configuration and restart Kuryr's controllers, or \
                 use kind vlan"
            ),
        }
    }
}

/// The longest time for which there has to be room before a node counts as not full any more.
const LONGEST: Duration = Duration::from_secs(60);

/// What happened so long ago says nothing of the future.
const FORGOTTEN: Duration = Duration::from_secs(600);

/// Whether a node counts as full. It does from the moment at which nothing fits any more; and no more as soon as something does, but for
/// a node at the border, where pods come and go: the more often it has been full of late, the longer there has to be room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Border {
    full: bool,
    /// Since when there has been room, though it counts as full.
    room_since: Option<Duration>,
    /// How long there has to be room.
    calm: Duration,
    /// When it stopped to count as full.
    left: Option<Duration>,
}

impl Border {
    /// As an earlier controller left it.
    #[must_use]
    pub fn left(full: bool) -> Self {
        Self { full, ..Self::default() }
    }

    /// Whether a node on which `free` more pods fit counts as full at `now` (on any clock that does not go back), and after which time to
    /// ask again though nothing changes.
    pub fn look(&mut self, free: usize, now: Duration) -> (bool, Option<Duration>) {
        if free == 0 {
            if !self.full {
                let often = self.left.is_some_and(|left| now.saturating_sub(left) < FORGOTTEN);
                let longer = (self.calm * 2).clamp(Duration::from_secs(1), LONGEST);
                self.calm = if often { longer } else { Duration::ZERO };
            }
            (self.full, self.room_since) = (true, None);
            return (true, None);
        }
        if !self.full {
            return (false, None);
        }
        let since = *self.room_since.get_or_insert(now);
        let left = self.calm.saturating_sub(now.saturating_sub(since));
        if !left.is_zero() {
            return (true, Some(left));
        }
        (self.full, self.room_since, self.left) = (false, None, Some(now));
        (false, None)
    }
}

/// What a Node says of this, or is to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notice {
    /// Its condition: whether it is full, and the words.
    pub condition: Option<(bool, String)>,
    /// Whether no pods are scheduled to it for that reason.
    pub tainted: bool,
}

impl Notice {
    /// What a node is to say on which pods are limited so.
    #[must_use]
    pub fn of(full: bool, limit: &Limit) -> Self {
        // Numbers would make it news with every pod.
        let words = if full { limit.to_string() } else { "more pods fit".to_owned() };
        Self { condition: Some((full, words)), tainted: full }
    }

    /// Whether it says that the node is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.condition.as_ref().is_some_and(|(full, _)| *full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_node_is_full_at_once_and_has_room_at_once_the_first_time() {
        let mut border = Border::default();
        assert_eq!(border.look(1, seconds(0)), (false, None));
        assert_eq!(border.look(0, seconds(1)), (true, None));
        assert_eq!(border.look(1, seconds(2)), (false, None));
        assert_eq!(Border::left(true).look(5, seconds(0)), (false, None), "an earlier controller had said so");
    }

    #[test]
    fn at_the_border_there_has_to_be_room_for_longer_each_time() {
        let (mut border, mut now, mut waits) = (Border::default(), seconds(0), Vec::new());
        for _ in 0..9 {
            border.look(0, now);
            let (_, again) = border.look(1, now);
            waits.push(again.unwrap_or_default().as_secs());
            now += again.unwrap_or_default();
            assert_eq!(border.look(1, now), (false, None));
        }
        assert_eq!(waits, [0, 1, 2, 4, 8, 16, 32, 60, 60]);
        // A pod that comes meanwhile begins the wait anew.
        border.look(0, now);
        border.look(1, now);
        border.look(0, now + seconds(59));
        assert_eq!(border.look(1, now + seconds(61)), (true, Some(seconds(60))));
        // And what was is forgotten.
        assert_eq!(border.look(1, now + seconds(121)), (false, None));
        border.look(0, now + seconds(800));
        assert_eq!(border.look(1, now + seconds(801)), (false, None));
    }

    #[test]
    fn only_a_node_that_is_full_says_numbers() {
        let limit = Limit::Ids { trunk: TrunkId(Uuid::from_u128(7)), others: 4093 };
        let (full, room) = (Notice::of(true, &limit), Notice::of(false, &limit));
        let words = full.condition.clone().unwrap().1;
        assert!(full.tainted && words.contains("all 4094 VLAN ids") && words.contains("4093 of them"), "{words}");
        assert!(!room.tainted && room.condition == Some((false, "more pods fit".to_owned())));
        let pairs = Limit::Pairs { parent: PortId(Uuid::from_u128(8)), most: 10 };
        assert!(
            pairs.to_string().contains("all 10 address pairs")
                && pairs.to_string().contains("max_allowed_address_pair")
        );
    }

    /// What is said of a node, and was.
    #[derive(Default)]
    struct Said {
        border: Border,
        full: bool,
        /// When it is to be looked again.
        due: Option<Duration>,
        /// When it became something else.
        flips: Vec<Duration>,
    }

    impl Said {
        fn look(&mut self, free: usize, now: Duration) {
            let (full, again) = self.border.look(free, now);
            self.due = again.map(|again| now + again);
            if full != self.full {
                self.full = full;
                self.flips.push(now);
            }
        }
    }

    proptest! {
        /// Whatever pods do: a node without room is full, one that has had room for a minute is not, and it changes its mind a few times in
        /// ten minutes at most, however fast pods come and go.
        #[test]
        fn a_border_does_not_flap(steps in prop::collection::vec((0u64..40_000, 0usize..3), 1..400)) {
            let (mut said, mut now, mut free, mut room_since) = (Said::default(), Duration::ZERO, 1, None);
            for (after, next) in steps {
                let until = now + Duration::from_millis(after);
                // Nothing changes until then, and it is looked again when it was asked for.
                while let Some(at) = said.due.filter(|at| *at <= until) {
                    said.look(free, at);
                }
                (now, free) = (until, next);
                said.look(free, now);
                let Said { full, due, .. } = said;
                if free == 0 {
                    room_since = None;
                    prop_assert!(full);
                } else {
                    let since = *room_since.get_or_insert(now);
                    prop_assert!(!full || now - since < LONGEST);
                    prop_assert!(!full || due.is_some_and(|at| at > now && at - since <= LONGEST));
                }
            }
            let flips = &said.flips;
            let window = |from: &Duration| flips.iter().filter(|at| **at >= *from && **at < *from + seconds(600)).count();
            prop_assert!(flips.iter().map(window).all(|count| count <= 36), "{:?}", flips);
        }
    }
}

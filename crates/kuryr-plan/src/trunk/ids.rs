//! Which segmentation ids of a trunk are free.

use kuryr_model::SegmentationId;

const WORDS: usize = 4096 / 64;

/// A set of segmentation ids, and where the search for a free one goes on.
#[derive(Clone, Debug)]
pub(super) struct Ids {
    taken: [u64; WORDS],
    /// The id before the one that is tried first. A fresh id is taken rather than one that was just given back: the node
    /// may not have removed that one's interface yet.
    last: SegmentationId,
}

impl Ids {
    pub(super) fn after(last: SegmentationId) -> Self {
        Self { taken: [0; WORDS], last }
    }

    pub(super) fn take(&mut self, id: SegmentationId) {
        let (word, bit) = place(id);
        self.taken[word] |= bit;
    }

    fn is_taken(&self, id: SegmentationId) -> bool {
        let (word, bit) = place(id);
        self.taken[word] & bit != 0
    }

    /// How many are free.
    pub(super) fn free(&self) -> usize {
        SegmentationId::COUNT - self.taken.iter().map(|word| word.count_ones() as usize).sum::<usize>()
    }

    /// Takes a free one, if there is one.
    pub(super) fn give(&mut self) -> Option<SegmentationId> {
        let mut id = self.last;
        for _ in 0..SegmentationId::COUNT {
            id = id.after();
            if !self.is_taken(id) {
                self.take(id);
                self.last = id;
                return Some(id);
            }
        }
        None
    }
}

fn place(id: SegmentationId) -> (usize, u64) {
    let number = usize::from(id.get());
    (number / 64, 1 << (number % 64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_of_the_4094_is_given_once_and_then_none() {
        let mut ids = Ids::after(4000.try_into().unwrap());
        ids.take(7.try_into().unwrap());
        ids.take(7.try_into().unwrap());
        assert_eq!(ids.free(), 4093);
        let given: BTreeSet<_> = std::iter::from_fn(|| ids.give()).map(SegmentationId::get).collect();
        assert_eq!(given, (1..=4094).filter(|id| *id != 7).collect());
        assert_eq!((ids.give(), ids.free()), (None, 0));
    }

    #[test]
    fn the_search_goes_on_after_the_last_one() {
        let mut ids = Ids::after(4093.try_into().unwrap());
        ids.take(1.try_into().unwrap());
        assert_eq!(ids.give().map(SegmentationId::get), Some(4094));
        assert_eq!(ids.give().map(SegmentationId::get), Some(2));
    }
}

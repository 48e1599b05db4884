//! Which selectors may match these labels? An index that answers without asking each.

use crate::policy::selector::{Anchor, Labels, Selector};
use std::collections::{BTreeSet, HashMap};

/// Ids of selectors, each where an object that it matches will look.
#[derive(Debug, Default)]
pub(super) struct LabelIndex {
    anywhere: BTreeSet<u32>,
    keys: HashMap<String, AtKey>,
}

#[derive(Debug, Default)]
struct AtKey {
    any: BTreeSet<u32>,
    values: HashMap<String, BTreeSet<u32>>,
}

impl AtKey {
    fn is_empty(&self) -> bool {
        self.any.is_empty() && self.values.is_empty()
    }
}

impl LabelIndex {
    pub(super) fn insert(&mut self, id: u32, selector: &Selector) {
        match selector.anchor() {
            Anchor::None => drop(self.anywhere.insert(id)),
            Anchor::Key(key) => drop(self.keys.entry(key.to_owned()).or_default().any.insert(id)),
            Anchor::Pairs(key, values) => {
                let at = self.keys.entry(key.to_owned()).or_default();
                for value in values {
                    at.values.entry(value.clone()).or_default().insert(id);
                }
            }
        }
    }

    pub(super) fn remove(&mut self, id: u32, selector: &Selector) {
        let key = match selector.anchor() {
            Anchor::None => {
                self.anywhere.remove(&id);
                return;
            }
            Anchor::Key(key) | Anchor::Pairs(key, _) => key,
        };
        let Some(at) = self.keys.get_mut(key) else { return };
        at.any.remove(&id);
        if let Anchor::Pairs(_, values) = selector.anchor() {
            for value in values {
                if let Some(ids) = at.values.get_mut(value) {
                    ids.remove(&id);
                    if ids.is_empty() {
                        at.values.remove(value);
                    }
                }
            }
        }
        if at.is_empty() {
            self.keys.remove(key);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.anywhere.is_empty() && self.keys.is_empty()
    }

    /// The selectors that may match an object with these labels: all that do, and some more. Each once.
    pub(super) fn candidates<'a>(&'a self, labels: &'a Labels) -> impl Iterator<Item = u32> + 'a {
        let labelled = labels.iter().filter_map(|(key, value)| Some((self.keys.get(key)?, value)));
        let labelled = labelled.flat_map(|(at, value)| at.any.iter().chain(at.values.get(value).into_iter().flatten()));
        self.anywhere.iter().chain(labelled).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::selector::Requirement;

    #[test]
    fn an_object_finds_the_selectors_that_may_match_it_until_they_are_removed() {
        let equals = |key: &str, value: &str| -> Selector { [Requirement::equals(key, value)].into_iter().collect() };
        let exists: Selector = [Requirement::Exists("app".into())].into_iter().collect();
        let absent: Selector = [Requirement::DoesNotExist("app".into())].into_iter().collect();
        let selectors = [equals("app", "web"), equals("app", "db"), exists, absent, Selector::everything()];
        let mut index = LabelIndex::default();
        let ids = || (0u32..).zip(&selectors);
        for (id, selector) in ids() {
            index.insert(id, selector);
        }
        let web: Labels = [("app".to_owned(), "web".to_owned()), ("x".to_owned(), "y".to_owned())].into();
        let found = |index: &LabelIndex, labels: &Labels| index.candidates(labels).collect::<BTreeSet<_>>();
        assert_eq!(found(&index, &web), [0, 2, 3, 4].into());
        assert_eq!(found(&index, &Labels::new()), [3, 4].into());
        for (id, selector) in ids() {
            index.remove(id, selector);
        }
        assert!(index.is_empty());
    }
}

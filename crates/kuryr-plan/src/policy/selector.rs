//! Label selectors, as Kubernetes matches them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// The labels of an object.
pub type Labels = BTreeMap<String, String>;

/// A label selector: all its requirements must be met. One without requirements is met by everything.
///
/// Selectors of equal meaning that are only written differently (`matchLabels` or `In` with one value, another order,
/// the same requirement twice) are equal.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector(BTreeSet<Requirement>);

/// One requirement of a selector.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Requirement {
    /// The label is there and has one of the values.
    In(String, BTreeSet<String>),
    /// The label is not there, or has none of the values.
    NotIn(String, BTreeSet<String>),
    /// The label is there.
    Exists(String),
    /// The label is not there.
    DoesNotExist(String),
}

/// Where an index can look for the objects that a selector may match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor<'a> {
    /// They have this label with one of these values.
    Pairs(&'a str, &'a BTreeSet<String>),
    /// They have this label.
    Key(&'a str),
    /// Anywhere.
    None,
}

impl Selector {
    /// The selector that everything meets.
    #[must_use]
    pub fn everything() -> Self {
        Self::default()
    }

    /// Whether `labels` meet every requirement.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| requirement.is_met(labels))
    }

    /// A requirement that narrows the search most.
    pub(super) fn anchor(&self) -> Anchor<'_> {
        let pairs = self.0.iter().find_map(|requirement| match requirement {
            Requirement::In(key, values) => Some(Anchor::Pairs(key, values)),
            _ => None,
        });
        let key = || {
            self.0.iter().find_map(|requirement| match requirement {
                Requirement::Exists(key) => Some(Anchor::Key(key)),
                _ => None,
            })
        };
        pairs.or_else(key).unwrap_or(Anchor::None)
    }
}

impl FromIterator<Requirement> for Selector {
    fn from_iter<T: IntoIterator<Item = Requirement>>(requirements: T) -> Self {
        Self(requirements.into_iter().collect())
    }
}

impl Requirement {
    /// The requirement that a label has this one value.
    pub fn equals(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self::In(key.into(), [value.into()].into())
    }

    fn is_met(&self, labels: &Labels) -> bool {
        match self {
            Self::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Self::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
            Self::Exists(key) => labels.contains_key(key),
            Self::DoesNotExist(key) => !labels.contains_key(key),
        }
    }
}

/// In the form that `kubectl` takes, `app=web,tier in (a,b),!old`; selectors that differ print differently.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.0.iter().enumerate() {
            write!(f, "{}{requirement}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::In(key, values) => match values.first() {
                Some(value) if values.len() == 1 => write!(f, "{}={}", Plain(key), Plain(value)),
                _ => write!(f, "{} in ({})", Plain(key), Values(values)),
            },
            Self::NotIn(key, values) => write!(f, "{} notin ({})", Plain(key), Values(values)),
            Self::Exists(key) => write!(f, "{}", Plain(key)),
            Self::DoesNotExist(key) => write!(f, "!{}", Plain(key)),
        }
    }
}

struct Values<'a>(&'a BTreeSet<String>);

impl fmt::Display for Values<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, value) in self.0.iter().enumerate() {
            write!(f, "{}{}", if index == 0 { "" } else { "," }, Plain(value))?;
        }
        Ok(())
    }
}

/// A name as it is where it has only the characters that labels and names may have, in quotes elsewhere: what has been
/// put together of several still tells where one ends.
pub(super) struct Plain<'a>(pub(super) &'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
        if !self.0.is_empty() && self.0.bytes().all(fits) { f.write_str(self.0) } else { write!(f, "{:?}", self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn set(values: &[&str]) -> BTreeSet<String> {
        values.iter().map(|value| (*value).to_owned()).collect()
    }

    fn one(requirement: Requirement) -> Selector {
        [requirement].into_iter().collect()
    }

    #[test]
    fn each_operator_treats_a_missing_label_as_kubernetes_does() {
        let web = labels(&[("app", "web")]);
        let bare = labels(&[]);
        let met = |requirement: Requirement| {
            let selector = one(requirement);
            (selector.matches(&web), selector.matches(&bare))
        };
        assert_eq!(met(Requirement::In("app".into(), set(&["web", "db"]))), (true, false));
        assert_eq!(met(Requirement::NotIn("app".into(), set(&["web"]))), (false, true));
        assert_eq!(met(Requirement::NotIn("app".into(), set(&["db"]))), (true, true));
        assert_eq!(met(Requirement::Exists("app".into())), (true, false));
        assert_eq!(met(Requirement::DoesNotExist("app".into())), (false, true));
    }

    #[test]
    fn an_empty_selector_matches_everything_and_an_empty_value_is_a_value() {
        assert!(Selector::everything().matches(&labels(&[])));
        let empty = one(Requirement::equals("app", ""));
        assert!(empty.matches(&labels(&[("app", "")])));
        assert!(!empty.matches(&labels(&[("app", "web")])));
        assert!(!empty.matches(&labels(&[])));
    }

    #[test]
    fn a_selector_prints_as_kubectl_takes_it_and_odd_names_stand_in_quotes() {
        let selector: Selector = [
            Requirement::equals("app", "web"),
            Requirement::In("tier".into(), set(&["a", "b"])),
            Requirement::NotIn("old".into(), set(&["yes"])),
            Requirement::Exists("x/y".into()),
            Requirement::DoesNotExist("z".into()),
        ]
        .into_iter()
        .collect();
        assert_eq!(selector.to_string(), "app=web,tier in (a,b),old notin (yes),x/y,!z");
        assert_eq!(one(Requirement::equals("a", "b,c=d")).to_string(), "a=\"b,c=d\"");
        assert_eq!(one(Requirement::equals("a", "")).to_string(), "a=\"\"");
    }
}

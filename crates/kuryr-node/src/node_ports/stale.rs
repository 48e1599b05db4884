//! Connections that are translated as rules no longer say: pure.
//!
//! UDP has no beginning that a rule could meet anew: as long as a client goes on sending, its packets go where the first
//! one went. So such connections are forgotten, as in Kubernetes' own proxy. TCP is left to its two ends.

use super::ruleset::{Key, Ruleset, Target};
use crate::netlink::conntrack::Connection;
use kuryr_plan::service::{At, Family, Transport};
use std::collections::{BTreeMap, BTreeSet};

/// The UDP destinations of which something has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed(BTreeMap<Key, BTreeSet<Target>>);

impl Changed {
    /// From what was in the kernel, if that is known, to what is now.
    #[must_use]
    pub fn between(old: Option<&Ruleset>, new: &Ruleset) -> Self {
        let keys = old.into_iter().chain([new]).flat_map(|ruleset| ruleset.anyone.keys());
        let udp = keys.filter(|(_, transport)| *transport == Transport::Udp);
        let targets = |ruleset: &Ruleset, key| ruleset.targets(key).collect::<BTreeSet<_>>();
        let changed = udp.filter_map(|key| {
            let now = targets(new, key);
            (old.is_none_or(|old| targets(old, key) != now)).then_some((*key, now))
        });
        Self(changed.collect())
    }

    /// The families that are concerned, as "is it IPv6".
    #[must_use]
    pub fn families(&self) -> BTreeSet<bool> {
        let v6 = |(at, _): &Key| match at {
            At::NodePort(family, _) => *family == Family::V6,
            At::External(ip, _) => ip.is_ipv6(),
        };
        self.0.keys().map(v6).collect()
    }

    /// Whether the connection goes where none would go now. One that is not translated at all is stale where there is a
    /// rule by now.
    #[must_use]
    pub fn is_stale(&self, connection: &Connection) -> bool {
        let (ip, number) = connection.asked;
        let at = [At::External(ip, number), At::NodePort(Family::of(ip), number)];
        let Some(targets) = at.iter().find_map(|at| self.0.get(&(*at, Transport::Udp))) else { return false };
        if targets.is_empty() { connection.answers != connection.asked } else { !targets.contains(&connection.answers) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node_ports::ruleset::Choice;

    fn ruleset(number: u16, anyone: &str, outside: &[&str]) -> Ruleset {
        let key = (At::NodePort(Family::V4, number), Transport::Udp);
        let target = |ip: &str| (ip.parse().unwrap(), 53);
        let to = outside.iter().map(|ip| target(ip)).collect();
        let mut ruleset = Ruleset { anyone: [(key, target(anyone))].into(), ..Ruleset::default() };
        ruleset.outside.insert(key, Choice { transport: Transport::Udp, to, bound: None });
        ruleset
    }

    fn connection(asked: u16, answers: (&str, u16)) -> Connection {
        Connection {
            asked: ("192.0.2.1".parse().unwrap(), asked),
            answers: (answers.0.parse().unwrap(), answers.1),
            id: Vec::new(),
        }
    }

    #[test]
    fn a_connection_is_stale_when_a_changed_rule_would_not_make_it() {
        let (old, new) = (ruleset(30053, "10.96.0.1", &["10.0.0.1"]), ruleset(30053, "10.96.0.1", &["10.0.0.2"]));
        let changed = Changed::between(Some(&old), &new);
        assert_eq!(changed.families(), [false].into());
        let stale = |answers| changed.is_stale(&connection(30053, answers));
        assert!(stale(("10.0.0.1", 53)) && stale(("10.0.0.2", 54)));
        assert!(stale(("192.0.2.1", 30053)), "it began before there was a rule");
        assert!(!stale(("10.0.0.2", 53)) && !stale(("10.96.0.1", 53)));
        assert!(!changed.is_stale(&connection(30054, ("10.0.0.1", 53))), "another's");
        assert_eq!(Changed::between(Some(&new), &new), Changed::default());
        assert_eq!(Changed::between(None, &new), Changed::between(Some(&Ruleset::default()), &new));
    }

    #[test]
    fn of_a_rule_that_is_gone_only_what_was_translated_is_stale() {
        let old = ruleset(30053, "10.96.0.1", &[]);
        let changed = Changed::between(Some(&old), &Ruleset::default());
        assert!(changed.is_stale(&connection(30053, ("10.96.0.1", 53))));
        assert!(!changed.is_stale(&connection(30053, ("192.0.2.1", 30053))));
    }
}

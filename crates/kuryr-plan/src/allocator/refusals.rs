//! Namespaces in which the API server takes no `KuryrPort`: it is being deleted, a `ResourceQuota` there counts them, a webhook
//! refuses. A port that is made for such a pod could only be deleted again, so it is tried first whether the `KuryrPort` is
//! taken, by one pod of the namespace at a time and ever more rarely.

use std::{collections::HashMap, time::Duration};

/// The time until the second try in a namespace; it doubles with each.
const FIRST: Duration = Duration::from_secs(15);
/// The longest time between two tries in a namespace.
const LAST: Duration = Duration::from_secs(5 * 60);
/// What is not tried any more is forgotten after so long.
const FORGET: Duration = Duration::from_secs(60 * 60);

/// The namespaces that refuse.
#[derive(Debug, Default)]
pub struct Refusals(HashMap<String, Refusal>);

#[derive(Clone, Debug)]
struct Refusal {
    why: String,
    tries: u32,
    /// When to try again.
    next: Duration,
    /// A try is under way.
    trying: bool,
}

/// How a pod of a namespace may go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Nothing was refused lately.
    Open,
    /// Try whether its `KuryrPort` is taken, before a port is made for it.
    Try,
    /// Do nothing for so long.
    Wait {
        /// Time until the next try.
        left: Duration,
        /// What the API server said the last time.
        why: String,
    },
}

impl Refusals {
    /// How a pod of `namespace` may go on. [`Admission::Try`] is given to one; its outcome is to be told.
    pub fn admission(&mut self, namespace: &str, now: Duration) -> Admission {
        let Some(refusal) = self.0.get_mut(namespace) else { return Admission::Open };
        if now < refusal.next {
            return Admission::Wait { left: refusal.next - now, why: refusal.why.clone() };
        }
        (refusal.trying, refusal.next) = (true, now + pause(refusal.tries));
        Admission::Try
    }

    /// The API server refused a `KuryrPort` of `namespace`, and will again.
    pub fn refused(&mut self, namespace: &str, why: String, now: Duration) {
        self.0.retain(|_, refusal| now < refusal.next + FORGET);
        match self.0.get_mut(namespace) {
            Some(refusal) if refusal.trying => {
                let tries = refusal.tries.saturating_add(1);
                *refusal = Refusal { why, tries, next: now + pause(tries), trying: false };
            }
            // Others were under way when the first one was refused.
            Some(refusal) => refusal.why = why,
            None => {
                let first = Refusal { why, tries: 1, next: now + pause(1), trying: false };
                self.0.insert(namespace.to_owned(), first);
            }
        }
    }

    /// The API server took one: nothing holds the others up. Whether something did.
    pub fn accepted(&mut self, namespace: &str) -> bool {
        self.0.remove(namespace).is_some()
    }

    /// A `KuryrPort` of `namespace` is gone, so another may be taken: it is tried at once. Whether something waits for it.
    pub fn freed(&mut self, namespace: &str, now: Duration) -> bool {
        let refusal = self.0.get_mut(namespace);
        refusal.map(|refusal| refusal.next = now).is_some()
    }
}

/// The time between two tries, after so many that were refused.
fn pause(tries: u32) -> Duration {
    FIRST.saturating_mul(1 << tries.saturating_sub(1).min(10)).min(LAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    fn waits(left: u64) -> Admission {
        Admission::Wait { left: seconds(left), why: "exceeded quota".into() }
    }

    #[test]
    fn one_pod_of_a_namespace_tries_and_the_others_wait_ever_longer() {
        let mut refusals = Refusals::default();
        assert_eq!(refusals.admission("shop", seconds(0)), Admission::Open);
        // Three were under way at once.
        for _ in 0..3 {
            refusals.refused("shop", "exceeded quota".into(), seconds(0));
        }
        assert_eq!(refusals.admission("shop", seconds(5)), waits(10));
        assert_eq!(refusals.admission("bank", seconds(5)), Admission::Open, "another namespace");
        let mut now = seconds(15);
        for pause in [30, 60, 120, 240, 300, 300] {
            assert_eq!(refusals.admission("shop", now), Admission::Try);
            assert!(matches!(refusals.admission("shop", now), Admission::Wait { .. }), "two try at once");
            refusals.refused("shop", "exceeded quota".into(), now);
            assert_eq!(refusals.admission("shop", now), waits(pause));
            now += seconds(pause);
        }
    }

    #[test]
    fn what_is_taken_or_freed_ends_the_waiting() {
        let mut refusals = Refusals::default();
        assert!(!refusals.freed("shop", seconds(0)) && !refusals.accepted("shop"));
        refusals.refused("shop", "exceeded quota".into(), seconds(0));
        assert!(refusals.freed("shop", seconds(1)));
        assert_eq!(refusals.admission("shop", seconds(1)), Admission::Try);
        assert!(refusals.accepted("shop"));
        assert_eq!(refusals.admission("shop", seconds(1)), Admission::Open);
    }

    #[test]
    fn a_namespace_that_is_gone_is_forgotten() {
        let mut refusals = Refusals::default();
        refusals.refused("gone", "is being terminated".into(), seconds(0));
        refusals.refused("shop", "exceeded quota".into(), seconds(2 * 60 * 60));
        assert_eq!(refusals.0.len(), 1);
    }
}

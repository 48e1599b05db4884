//! Does not ask again and again for what was refused.

use super::Moment;
use std::time::Duration;

/// How long nothing is asked of a full subnet or a used up quota, at first.
pub(super) const PAUSE_FULL: Duration = Duration::from_secs(30);

/// How long nothing is asked of a cloud that is away, at first.
pub(super) const PAUSE_AWAY: Duration = Duration::from_secs(5);

/// Closed while requests succeed. After a refusal it is open for a time that doubles each time; then one port is asked for,
/// and its answer decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Breaker {
    /// Ask for as much as is wanted.
    #[default]
    Closed,
    /// Ask for nothing until then.
    Open {
        /// When to try one.
        until: Moment,
        /// Refusals in a row.
        failures: u32,
    },
    /// One was asked for, and there is no answer yet.
    Probing {
        /// Refusals in a row.
        failures: u32,
    },
}

const LONGEST: Duration = Duration::from_secs(10 * 60);

impl Breaker {
    /// The most ports to ask for now.
    #[must_use]
    pub fn allows(self, now: Moment) -> usize {
        match self {
            Self::Closed => usize::MAX,
            Self::Open { until, .. } if now >= until => 1,
            Self::Open { .. } | Self::Probing { .. } => 0,
        }
    }

    /// What [`Breaker::allows`] was asked for.
    pub fn sent(&mut self) {
        if let Self::Open { failures, .. } = *self {
            *self = Self::Probing { failures };
        }
    }

    /// That was refused; `first` is how long it is open after a first refusal.
    pub fn refused(&mut self, now: Moment, first: Duration) {
        let failures = match *self {
            Self::Closed => 1,
            // Of several requests that were under way at once one refusal counts.
            Self::Open { failures, .. } if self.allows(now) == 0 => failures,
            Self::Open { failures, .. } | Self::Probing { failures } => failures.saturating_add(1),
        };
        let pause = first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST);
        *self = Self::Open { until: now + pause, failures };
    }

    /// That was done.
    pub fn done(&mut self) {
        *self = Self::Closed;
    }

    /// That was refused for another reason, which says nothing about this one: try one more.
    pub fn undecided(&mut self, now: Moment) {
        if let Self::Probing { failures } = *self {
            *self = Self::Open { until: now, failures };
        }
    }

    /// Something that it may have lacked came free: try one now.
    pub fn freed(&mut self, now: Moment) {
        if let Self::Open { until, .. } = self {
            *until = now.min(*until);
        }
    }

    /// When it would be tried again, if it is open.
    #[must_use]
    pub fn until(self) -> Option<Moment> {
        match self {
            Self::Open { until, .. } => Some(until),
            Self::Closed | Self::Probing { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_secs(30);

    fn at(seconds: u64) -> Moment {
        Duration::from_secs(seconds)
    }

    #[test]
    fn after_a_refusal_one_is_tried_after_ever_longer_pauses() {
        let (mut breaker, mut now, mut pauses) = (Breaker::default(), at(0), Vec::new());
        for _ in 0..7 {
            breaker.sent();
            breaker.refused(now, FIRST);
            assert_eq!(breaker.allows(now), 0);
            let until = breaker.until().unwrap();
            pauses.push((until - now).as_secs());
            now = until;
            assert_eq!(breaker.allows(now), 1);
        }
        assert_eq!(pauses, [30, 60, 120, 240, 480, 600, 600]);
        breaker.sent();
        assert_eq!(breaker.allows(now), 0, "its answer decides");
        breaker.done();
        assert_eq!(breaker.allows(now), usize::MAX);
    }

    #[test]
    fn refusals_of_requests_that_were_under_way_together_are_one() {
        let mut breaker = Breaker::default();
        (0..5).for_each(|n| breaker.refused(at(n), FIRST));
        assert_eq!(breaker, Breaker::Open { until: at(34), failures: 1 });
    }

    #[test]
    fn what_came_free_is_tried_at_once() {
        let mut breaker = Breaker::default();
        breaker.refused(at(0), FIRST);
        breaker.freed(at(5));
        assert_eq!(breaker.allows(at(5)), 1);
    }
}

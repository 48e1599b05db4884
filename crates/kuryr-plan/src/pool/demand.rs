//! How many ports will be asked for before a refill can help.

use super::Moment;
use std::{collections::VecDeque, time::Duration};

/// What was asked of one pool of late.
///
/// A pool that is refilled as soon as something is taken is empty only if more is asked for *while it is being refilled*
/// than it held. So what counts is the number of requests within one refill's time: the largest one that was seen, which
/// fades, and rises again at once.
#[derive(Clone, Debug, Default)]
pub struct Demand {
    /// The requests of the last refill's time.
    recent: VecDeque<Moment>,
    /// The largest number of them, and when that was.
    peak: f64,
    at: Moment,
}

impl Demand {
    /// A port is asked for; a refill takes `lead`.
    pub fn note(&mut self, now: Moment, lead: Duration, memory: Duration) {
        while self.recent.front().is_some_and(|then| *then + lead < now) {
            self.recent.pop_front();
        }
        self.recent.push_back(now);
        let count = number(self.recent.len());
        if count >= self.faded(now, memory) {
            (self.peak, self.at) = (count, now);
        }
    }

    /// How many ports should be ready. What has faded to less than half a port is forgotten.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub fn expected(&self, now: Moment, memory: Duration) -> usize {
        let faded = self.faded(now, memory);
        if faded < 0.5 { 0 } else { faded.ceil() as usize }
    }

    fn faded(&self, now: Moment, memory: Duration) -> f64 {
        let halves = now.saturating_sub(self.at).as_secs_f64() / memory.as_secs_f64().max(0.001);
        self.peak * (-halves).exp2()
    }
}

#[expect(clippy::cast_precision_loss)]
fn number(count: usize) -> f64 {
    count as f64
}

/// How long a refill takes, from its request to its ports. Longer ones count at once, shorter ones by and by.
#[derive(Clone, Copy, Debug)]
pub struct Lead(Duration);

/// Until one was seen.
const FIRST_LEAD: Duration = Duration::from_secs(4);

/// However quick Neutron is: pods of one burst do not arrive at one moment.
const LEAST_LEAD: Duration = Duration::from_secs(1);

/// However slow it is: what is away for an hour must not make pools as large as the demand of an hour.
const MOST_LEAD: Duration = Duration::from_secs(60);

impl Default for Lead {
    fn default() -> Self {
        Self(FIRST_LEAD)
    }
}

impl Lead {
    /// One took so long.
    pub fn note(&mut self, took: Duration) {
        let took = took.clamp(LEAST_LEAD, MOST_LEAD);
        self.0 = took.max((self.0 * 7 + took) / 8);
    }

    /// How long the next one takes, presumably.
    #[must_use]
    pub fn time(self) -> Duration {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAD: Duration = Duration::from_secs(4);
    const MEMORY: Duration = Duration::from_secs(600);

    fn at(seconds: u64) -> Moment {
        Duration::from_secs(seconds)
    }

    fn after(requests: impl IntoIterator<Item = u64>) -> Demand {
        let mut demand = Demand::default();
        for second in requests {
            demand.note(at(second), LEAD, MEMORY);
        }
        demand
    }

    #[test]
    fn requests_far_apart_need_one_spare_port_and_a_burst_as_many_as_it_has_pods() {
        assert_eq!(after([0, 100, 200, 300]).expected(at(300), MEMORY), 1);
        assert_eq!(after([7; 30]).expected(at(7), MEMORY), 30);
        assert_eq!(after([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]).expected(at(9), MEMORY), 5, "one a second, four to refill");
    }

    #[test]
    fn a_burst_fades_by_half_in_each_memory_and_is_forgotten_at_last() {
        let demand = after([0; 16]);
        let seen: Vec<usize> = (0..7).map(|n| demand.expected(MEMORY * n, MEMORY)).collect();
        assert_eq!(seen, [16, 8, 4, 2, 1, 1, 0]);
    }

    #[test]
    fn a_small_demand_after_a_large_one_does_not_make_it_forgotten() {
        let mut demand = after([0; 16]);
        demand.note(at(60), LEAD, MEMORY);
        assert_eq!(demand.expected(at(60), MEMORY), 15);
    }

    #[test]
    fn a_slow_refill_counts_at_once_and_a_quick_one_by_and_by() {
        let mut lead = Lead::default();
        lead.note(at(12));
        assert_eq!(lead.time(), at(12));
        lead.note(at(4));
        assert_eq!(lead.time(), at(11));
        (0..100).for_each(|_| lead.note(Duration::ZERO));
        assert!(lead.time() < LEAST_LEAD + Duration::from_millis(10));
        lead.note(at(3600));
        assert_eq!(lead.time(), MOST_LEAD);
    }
}

//! When to ask Octavia again, and how often to change something: pure.

use std::{collections::VecDeque, time::Duration};
use tokio::time::Instant;

/// The first and the longest time between two looks at a load balancer on which Octavia is at work.
const FIRST_LOOK: Duration = Duration::from_millis(100);
const LAST_LOOK: Duration = Duration::from_secs(5);

/// The time between two looks grows with the time waited: to this part of it.
const PART: u32 = 4;

/// So many may be waited for at once before each is looked at less often: Octavia's API should make load balancers, not
/// tell about them.
const MANY: usize = 16;

/// Time until the next look at a load balancer that Octavia has been at work on for `waited`, while so many are waited for.
pub(crate) fn next_look(waited: Duration, waiting: usize) -> Duration {
    let alone = (waited / PART).clamp(FIRST_LOOK, LAST_LOOK);
    let crowd = u32::try_from(waiting / MANY).unwrap_or(u32::MAX).max(1);
    alone.saturating_mul(crowd).min(LAST_LOOK)
}

/// A load balancer in `ERROR` is made anew at once, then ever more rarely: whoever broke it twice breaks it a third time.
const FIRST_REBUILD: Duration = Duration::from_secs(10);
const LAST_REBUILD: Duration = Duration::from_secs(10 * 60);

/// Time from one repair of a load balancer to the next, after so many in a row.
pub(crate) fn next_repair(repairs: u32) -> Duration {
    match repairs {
        0 => Duration::ZERO,
        some => FIRST_REBUILD.saturating_mul(1 << some.saturating_sub(1).min(10)).min(LAST_REBUILD),
    }
}

/// So many changes of members may follow each other at once; then one for each [`PACE`].
const BURST: usize = 4;
const PACE: Duration = Duration::from_secs(1);

/// How often members were changed lately: endpoints that come and go all the time must not keep Octavia busy.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pace {
    recent: VecDeque<Instant>,
}

impl Pace {
    /// How long the next change has to wait; `None`: not at all.
    pub(crate) fn wait(&self, now: Instant) -> Option<Duration> {
        let oldest = self.recent.front().filter(|_| self.recent.len() >= BURST)?;
        let free = *oldest + PACE.saturating_mul(u32::try_from(BURST).unwrap_or(u32::MAX));
        let left = free.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// A change was made.
    pub(crate) fn made(&mut self, now: Instant) {
        while self.recent.len() >= BURST {
            self.recent.pop_front();
        }
        self.recent.push_back(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_begin_at_a_tenth_of_a_second_and_become_rarer() {
        let mut waited = Duration::ZERO;
        let mut looks = 0;
        while waited < Duration::from_secs(60) {
            let next = next_look(waited, 1);
            assert!(next >= FIRST_LOOK && next <= LAST_LOOK && next <= (waited / 4).max(FIRST_LOOK));
            waited += next;
            looks += 1;
        }
        assert!((15..40).contains(&looks), "{looks}");
    }

    #[test]
    fn a_hundred_that_wait_do_not_flood_octavia() {
        let each = next_look(Duration::ZERO, 100);
        assert!(100.0 / each.as_secs_f64() < 250.0, "{each:?}");
        assert_eq!(next_look(Duration::from_secs(3600), 100_000), LAST_LOOK);
    }

    #[test]
    fn what_breaks_again_and_again_is_repaired_ever_more_rarely() {
        assert_eq!(next_repair(0), Duration::ZERO);
        let all: Vec<_> = (1..100).map(next_repair).collect();
        assert!(all.is_sorted() && all[0] == FIRST_REBUILD && all[98] == LAST_REBUILD);
    }

    #[test]
    fn single_changes_go_at_once_and_a_storm_is_slowed_down() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let mut made = 0;
        for tenth in 0..300 {
            let now = start + Duration::from_millis(100) * tenth;
            if pace.wait(now).is_none() {
                pace.made(now);
                made += 1;
                assert!(tenth > 10 || made <= BURST);
            }
        }
        assert!((25..=40).contains(&made), "{made} changes in 30 s");
        assert_eq!(pace.wait(start + Duration::from_secs(60)), None);
    }
}

//! When to ask Octavia again, and how often to change something: pure.

use kuryr_plan::service::{Family, Service, Slice};
use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};
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

/// How often members were changed lately: endpoints that come and go all the time must not keep Octavia busy. Only what
/// adds members waits.
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

/// How long a new Service waits for its `EndpointSlice`s, which come by another watch and a little later: a load balancer that is made
/// with its members is one request less, and one time less that Octavia is at work. Kubernetes makes at least an empty one for
/// each family of a Service with a selector, at 20 requests a second.
const ARRIVAL: Duration = Duration::from_secs(3);

/// So many endpoints are in a slice at most (`--max-endpoints-per-slice` of kube-controller-manager, unless set): after a full one
/// comes another, this soon.
const FULL: usize = 100;
const NEXT: Duration = Duration::from_millis(200);

/// What has come of the `EndpointSlice`s of a new Service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arriving {
    since: Instant,
    slices: usize,
    last: Instant,
}

impl Arriving {
    /// The Service is to be served from now on.
    pub(crate) fn new(now: Instant) -> Self {
        Self { since: now, slices: 0, last: now }
    }

    /// How long its load balancer has to wait, given the slices that are there; `None`: not at all. Every slice that comes is a
    /// reason to ask again.
    pub(crate) fn wait(&mut self, service: &Service, slices: &[Arc<Slice>], now: Instant) -> Option<Duration> {
        if slices.len() > self.slices {
            (self.slices, self.last) = (slices.len(), now);
        }
        let families: BTreeSet<Family> = service.cluster_ips.iter().map(|ip| Family::of(*ip)).collect();
        let end = self.since + ARRIVAL;
        let until = if !service.selector {
            now
        } else if slices.len() < families.len() {
            end
        } else if slices.iter().all(|slice| slice.endpoints.len() >= FULL) {
            end.min(self.last + NEXT)
        } else {
            now
        };
        let left = until.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::lean::tests::{seen, seen_slice};
    use serde_json::json;

    fn slices(sizes: &[usize]) -> Vec<Arc<Slice>> {
        let addresses: Vec<String> = (0..FULL).map(|n| format!("10.0.0.{n}")).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        sizes.iter().map(|size| Arc::new(seen_slice(&addresses[..*size]).slice)).collect()
    }

    #[test]
    fn a_new_service_waits_a_little_for_its_slices() {
        let (start, ms) = (Instant::now(), Duration::from_millis);
        let web = seen(&json!({"clusterIP": "10.96.0.9", "selector": {"app": "web"}})).service;
        let mut arriving = Arriving::new(start);
        assert_eq!(arriving.wait(&web, &[], start + ms(500)), Some(ARRIVAL - ms(500)));
        assert_eq!(
            arriving.wait(&web, &slices(&[0]), start + ms(500)),
            None,
            "an empty slice says that there is nobody"
        );
        assert_eq!(Arriving::new(start).wait(&web, &slices(&[3]), start), None);
        assert_eq!(Arriving::new(start).wait(&web, &[], start + ARRIVAL), None, "not for ever");
        let hand = seen(&json!({"clusterIP": "10.96.0.9"})).service;
        assert_eq!(Arriving::new(start).wait(&hand, &[], start), None, "nobody makes slices but by hand");
        let dual = json!({"clusterIPs": ["10.96.0.9", "fd00::9"], "selector": {"app": "web"}});
        assert_eq!(Arriving::new(start).wait(&seen(&dual).service, &slices(&[1]), start), Some(ARRIVAL));
        assert_eq!(Arriving::new(start).wait(&seen(&dual).service, &slices(&[1, 0]), start), None);
    }

    #[test]
    fn after_a_full_slice_another_is_waited_for() {
        let (start, ms) = (Instant::now(), Duration::from_millis);
        let web = seen(&json!({"clusterIP": "10.96.0.9", "selector": {"app": "web"}})).service;
        let mut arriving = Arriving::new(start);
        assert_eq!(arriving.wait(&web, &slices(&[FULL]), start), Some(NEXT));
        assert_eq!(arriving.wait(&web, &slices(&[FULL, FULL]), start + ms(150)), Some(NEXT), "each anew");
        assert_eq!(arriving.wait(&web, &slices(&[FULL, FULL, 7]), start + ms(160)), None);
        assert_eq!(arriving.wait(&web, &slices(&[FULL, FULL]), start + ms(400)), None, "no more have come since");
    }

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

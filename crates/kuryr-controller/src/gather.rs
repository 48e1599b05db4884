//! Gathers what arrives together, so that it leaves together.
//!
//! Who comes alone must not pay for those who do not come: it is waited for a second one only a moment. Who comes close
//! behind another, or while a request is under way, is taken for part of a burst, and its end is waited for.

use std::{collections::VecDeque, future::Future, sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, mpsc::UnboundedReceiver},
    time::{Instant, timeout},
};

/// How long it is waited for a second one, at most. The others of a burst are much nearer to its first.
const MOMENT: Duration = Duration::from_millis(1);

/// So few are not worth a second request.
const WHOLE: usize = 4;

/// What is gathered, and when it came.
pub(crate) type Arrival<T> = (T, Instant);

/// How much leaves at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The most in one request.
    pub(crate) bulk_size: usize,
    /// The most requests at once.
    pub(crate) bulk_requests: usize,
    /// A burst has ended when none has come for so long. Two that come in half of that begin one.
    pub(crate) burst: Duration,
}

/// Hands over what arrives in batches until nothing can arrive any more. `serve` is called no more often at once than allowed.
pub(crate) async fn gather<T, F>(
    mut arrivals: UnboundedReceiver<Arrival<T>>,
    limits: Limits,
    serve: impl Fn(Vec<T>) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(limits.bulk_requests));
    let mut pace = Pace::new(limits.burst);
    let mut waiting = VecDeque::new();
    loop {
        if waiting.is_empty() {
            let Some((first, at)) = arrivals.recv().await else { return };
            pace.note(at);
            waiting.push_back(first);
        }
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        // What came while all slots were taken is there already.
        while waiting.len() < limits.bulk_size * limits.bulk_requests {
            let under_way = slots.available_permits() + 1 < limits.bulk_requests;
            let Ok(Some((next, at))) = timeout(pace.linger(under_way), arrivals.recv()).await else { break };
            pace.note(at);
            waiting.push_back(next);
        }
        let batch = waiting.drain(..share(waiting.len(), limits.bulk_size, limits.bulk_requests)).collect();
        let served = serve(batch);
        tokio::spawn(async move {
            served.await;
            drop(slot);
        });
    }
}

/// How quickly they come.
#[derive(Debug)]
struct Pace {
    burst: Duration,
    last: Option<Instant>,
    /// The last one came close behind the one before it.
    close: bool,
}

impl Pace {
    fn new(burst: Duration) -> Self {
        Self { burst, last: None, close: false }
    }

    /// One has come.
    fn note(&mut self, at: Instant) {
        self.close = self.last.is_some_and(|last| at.saturating_duration_since(last) <= self.burst / 2);
        self.last = Some(at);
    }

    /// How long to wait for the next one.
    fn linger(&self, under_way: bool) -> Duration {
        if self.close || under_way { self.burst } else { MOMENT.min(self.burst) }
    }
}

/// How many of those that wait go into the next bulk: as many as there are for each slot, for Neutron needs time for every
/// port and makes the ports of one bulk one after another.
fn share(waiting: usize, bulk_size: usize, bulk_requests: usize) -> usize {
    waiting.div_ceil(bulk_requests).max(WHOLE).min(bulk_size).min(waiting)
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use tokio::sync::mpsc::unbounded_channel;

    const LIMITS: Limits = Limits { bulk_size: 20, bulk_requests: 2, burst: Duration::from_millis(10) };

    fn ms(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    #[test]
    fn those_that_wait_are_spread_over_the_slots() {
        for (waiting, bulk_size, slots, wanted) in [
            (1, 20, 2, 1),
            (4, 20, 2, 4),
            (5, 20, 2, 4),
            (20, 20, 2, 10),
            (21, 20, 2, 11),
            (90, 20, 2, 20),
            (9, 3, 2, 3),
        ] {
            assert_eq!(share(waiting, bulk_size, slots), wanted, "{waiting} of {bulk_size} in {slots}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_who_comes_close_behind_another_is_waited_for_long() {
        let start = Instant::now();
        let mut pace = Pace::new(ms(10));
        for (at, linger) in [(0, 1), (100, 1), (105, 10), (106, 10), (112, 1), (112, 10), (1000, 1)] {
            pace.note(start + ms(at));
            assert_eq!(pace.linger(false), ms(linger), "after the one at {at} ms");
            assert_eq!(pace.linger(true), ms(10));
        }
        let mut never = Pace::new(Duration::ZERO);
        never.note(start);
        assert_eq!(never.linger(true), Duration::ZERO);
    }

    /// The batches, with when each left, for arrivals at these moments. A request takes 300 ms and 10 ms for each in it.
    async fn batches(arrivals: impl IntoIterator<Item = Duration>) -> Vec<(Duration, usize)> {
        let (sender, receiver) = unbounded_channel();
        let (start, left) = (Instant::now(), Arc::new(Mutex::new(Vec::new())));
        let seen = left.clone();
        let gathering = tokio::spawn(gather(receiver, LIMITS, move |batch: Vec<Instant>| {
            let (count, took) = (batch.len(), ms(300) + ms(10) * u32::try_from(batch.len()).unwrap());
            seen.lock().push((start.elapsed(), count));
            tokio::time::sleep(took)
        }));
        for at in arrivals {
            tokio::time::sleep_until(start + at).await;
            sender.send((Instant::now(), Instant::now())).unwrap();
        }
        tokio::time::sleep(ms(10)).await;
        drop(sender);
        gathering.await.unwrap();
        left.lock().clone()
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_comes_alone_leaves_after_a_moment() {
        assert_eq!(batches([ms(0), ms(700), ms(1400)]).await, [(ms(1), 1), (ms(701), 1), (ms(1401), 1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn fifty_at_once_leave_as_bulks_that_end_at_about_the_same_time() {
        for apart in [Duration::ZERO, Duration::from_micros(400), Duration::from_micros(900)] {
            let counts: Vec<usize> = batches((0..50).map(|n| apart * n)).await.into_iter().map(|(_, n)| n).collect();
            assert_eq!(counts, [20, 15, 8, 4, 3], "{apart:?} apart");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_whose_first_one_was_early_costs_one_request_more() {
        for apart in [Duration::from_micros(400), ms(5)] {
            let burst = (0..49).map(|n| ms(6) + apart * n);
            let counts: Vec<usize> =
                batches(std::iter::once(ms(0)).chain(burst)).await.into_iter().map(|(_, n)| n).collect();
            assert_eq!(counts, [1, 20, 15, 7, 4, 3], "{apart:?} apart");
        }
    }
}

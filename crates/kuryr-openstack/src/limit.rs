//! How many requests go to one service at once.
//!
//! The limit grows by one for each full round of good answers and is halved, once a round, when the service says that
//! it has too much (429, 503) or does not answer. Interactive requests go before background ones, which also never
//! take the last quarter of the places: a pod that waits does not queue behind housekeeping.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::oneshot;

/// Who waits for a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Priority {
    /// A pod or a person.
    #[default]
    Interactive,
    /// Nobody.
    Background,
}

/// How a request ended, for the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The service coped.
    Fine,
    /// It did not: fewer at once, please.
    Overloaded,
}

const INITIAL: f64 = 8.0;

/// The places at one service.
#[derive(Debug)]
pub(crate) struct Limiter {
    state: Mutex<State>,
    most: f64,
}

#[derive(Debug)]
struct State {
    limit: f64,
    in_flight: usize,
    interactive: VecDeque<oneshot::Sender<Permit>>,
    background: VecDeque<oneshot::Sender<Permit>>,
    /// Grows with every cut: what was sent before a cut says nothing about the limit after it.
    round: u64,
}

impl State {
    fn room(&self, priority: Priority) -> bool {
        let limit = match priority {
            Priority::Interactive => self.limit,
            Priority::Background => (self.limit * 0.75).max(1.0),
        };
        // Truncation is meant: half a place is none.
        self.in_flight < limit as usize
    }

    /// The next who waits and may go. Who has given up is skipped.
    fn next(&mut self) -> Option<oneshot::Sender<Permit>> {
        for priority in [Priority::Interactive, Priority::Background] {
            while self.room(priority) {
                let queue = match priority {
                    Priority::Interactive => &mut self.interactive,
                    Priority::Background => &mut self.background,
                };
                match queue.pop_front() {
                    Some(sender) if sender.is_closed() => {}
                    Some(sender) => return Some(sender),
                    None => break,
                }
            }
        }
        None
    }
}

/// A place, given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    limiter: Arc<Limiter>,
    round: u64,
}

impl Limiter {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        let most = most.max(1) as f64;
        let state = State {
            limit: INITIAL.min(most),
            in_flight: 0,
            interactive: VecDeque::new(),
            background: VecDeque::new(),
            round: 0,
        };
        Arc::new(Self { state: Mutex::new(state), most })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place. Dropping the future gives up the wait.
    pub(crate) async fn acquire(self: &Arc<Self>, priority: Priority) -> Permit {
        let receiver = {
            let mut state = self.state();
            let (sender, receiver) = oneshot::channel();
            match priority {
                Priority::Interactive => state.interactive.push_back(sender),
                Priority::Background => state.background.push_back(sender),
            }
            receiver
        };
        self.admit();
        match receiver.await {
            Ok(permit) => permit,
            // The sender lives in the queue, and the queue as long as the limiter that we hold.
            Err(_) => self.permit(&mut self.state()),
        }
    }

    fn permit(self: &Arc<Self>, state: &mut State) -> Permit {
        state.in_flight += 1;
        Permit { limiter: self.clone(), round: state.round }
    }

    /// Gives free places to who waits. A permit that finds its receiver gone is dropped and comes back here.
    fn admit(self: &Arc<Self>) {
        loop {
            let (sender, permit) = {
                let mut state = self.state();
                let Some(sender) = state.next() else { return };
                (sender, self.permit(&mut state))
            };
            drop(sender.send(permit));
        }
    }

    #[cfg(test)]
    fn limit(&self) -> usize {
        self.state().limit as usize
    }
}

impl Permit {
    /// Reports how the request went.
    pub(crate) fn report(&self, outcome: Outcome) {
        let mut state = self.limiter.state();
        match outcome {
            Outcome::Fine => {
                // Only a limit that is felt is worth raising.
                if state.in_flight as f64 >= state.limit.floor() {
                    state.limit = (state.limit + 1.0 / state.limit).min(self.limiter.most);
                }
            }
            Outcome::Overloaded => {
                if self.round == state.round {
                    state.limit = (state.limit / 2.0).max(1.0);
                    state.round += 1;
                }
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.limiter.state().in_flight -= 1;
        self.limiter.admit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    async fn take(limiter: &Arc<Limiter>, count: usize) -> Vec<Permit> {
        let mut permits = Vec::new();
        for _ in 0..count {
            permits.push(limiter.acquire(Priority::Interactive).await);
        }
        permits
    }

    #[tokio::test]
    async fn interactive_requests_overtake_background_ones() {
        let limiter = Limiter::new(2);
        let mut held = take(&limiter, 2).await;
        let mut background = Box::pin(limiter.acquire(Priority::Background));
        assert!(background.as_mut().now_or_never().is_none());
        let mut interactive = Box::pin(limiter.acquire(Priority::Interactive));
        assert!(interactive.as_mut().now_or_never().is_none());
        held.pop();
        let permit = interactive.as_mut().now_or_never();
        assert!(permit.is_some() && background.as_mut().now_or_never().is_none());
        held.clear();
        drop(permit);
        assert!(background.as_mut().now_or_never().is_some());
    }

    #[tokio::test]
    async fn background_leaves_a_quarter_free() {
        let limiter = Limiter::new(8);
        let mut held = Vec::new();
        while let Some(permit) = limiter.acquire(Priority::Background).now_or_never() {
            held.push(permit);
        }
        assert_eq!(held.len(), 6);
        assert!(limiter.acquire(Priority::Interactive).now_or_never().is_some());
    }

    #[tokio::test]
    async fn who_gives_up_waiting_loses_no_place() {
        let limiter = Limiter::new(1);
        let held = take(&limiter, 1).await;
        let mut first = Box::pin(limiter.acquire(Priority::Interactive));
        assert!(first.as_mut().now_or_never().is_none());
        let mut second = Box::pin(limiter.acquire(Priority::Interactive));
        assert!(second.as_mut().now_or_never().is_none());
        // The first has its permit in the channel when it gives up.
        drop(held);
        drop(first);
        assert!(second.as_mut().now_or_never().is_some());
        drop(second);
        assert!(limiter.acquire(Priority::Background).now_or_never().is_some());
        assert_eq!(limiter.state().in_flight, 0);
    }

    #[tokio::test]
    async fn the_limit_halves_once_a_round_and_grows_back() {
        let limiter = Limiter::new(16);
        for permit in take(&limiter, 8).await {
            permit.report(Outcome::Overloaded);
        }
        assert_eq!(limiter.limit(), 4);
        for _ in 0..200 {
            let full = limiter.limit();
            for permit in take(&limiter, full).await {
                permit.report(Outcome::Fine);
            }
        }
        assert_eq!(limiter.limit(), 16);
        for _ in 0..10 {
            take(&limiter, 1).await[0].report(Outcome::Overloaded);
        }
        assert_eq!(limiter.limit(), 1);
    }
}

//! Neutron, as slow as it was measured.

use crate::clock::{Clock, Event, Millis};
use std::collections::{HashMap, HashSet, VecDeque};

/// What each request takes.
const REQUEST: Millis = 200;
/// What each port in it takes more.
const PORT: Millis = 150;
/// What it takes to delete a port, to mark one, or to change a trunk.
const CHANGE: Millis = 190;
/// What each subport in that takes more.
const SUBPORT: Millis = 140;
/// Requests that it works on at once.
const WORKERS: usize = 4;

/// Requests for which nobody waits that Kuryr sends at once.
const BACKGROUND: usize = 6;

/// A request that is not begun.
struct Request {
    id: u64,
    takes: Millis,
}

pub(crate) struct Neutron<T> {
    next: u64,
    busy: usize,
    waiting: VecDeque<Request>,
    /// Those for which nobody waits and that were not sent yet.
    later: VecDeque<Request>,
    /// Those of them that were sent and are not done.
    sent: HashSet<u64>,
    requests: HashMap<u64, T>,
}

impl<T> Neutron<T> {
    pub(crate) fn new() -> Self {
        Self {
            next: 0,
            busy: 0,
            waiting: VecDeque::new(),
            later: VecDeque::new(),
            sent: HashSet::new(),
            requests: HashMap::new(),
        }
    }

    pub(crate) fn create(&mut self, ports: usize, what: T, clock: &mut Clock) {
        self.send(REQUEST + PORT * ports as u64, what, false, clock);
    }

    /// The same for a pool.
    pub(crate) fn create_spare(&mut self, ports: usize, what: T, clock: &mut Clock) {
        self.send(REQUEST + PORT * ports as u64, what, true, clock);
    }

    pub(crate) fn delete(&mut self, what: T, clock: &mut Clock) {
        self.send(CHANGE, what, true, clock);
    }

    pub(crate) fn mark(&mut self, what: T, clock: &mut Clock) {
        self.send(CHANGE, what, true, clock);
    }

    /// Puts so many ports on a trunk, or takes them off.
    pub(crate) fn change(&mut self, subports: usize, what: T, clock: &mut Clock) {
        self.send(CHANGE + SUBPORT * subports as u64, what, false, clock);
    }

    fn send(&mut self, takes: Millis, what: T, background: bool, clock: &mut Clock) {
        self.next += 1;
        self.requests.insert(self.next, what);
        let queue = if background { &mut self.later } else { &mut self.waiting };
        queue.push_back(Request { id: self.next, takes });
        self.work(clock);
    }

    fn work(&mut self, clock: &mut Clock) {
        while self.sent.len() < BACKGROUND
            && let Some(request) = self.later.pop_front()
        {
            self.sent.insert(request.id);
            self.waiting.push_back(request);
        }
        while self.busy < WORKERS
            && let Some(Request { id, takes }) = self.waiting.pop_front()
        {
            self.busy += 1;
            clock.after(takes, Event::Done { request: id });
        }
    }

    /// What was asked for in this request, which is done.
    pub(crate) fn done(&mut self, request: u64, clock: &mut Clock) -> Option<T> {
        self.busy -= 1;
        self.sent.remove(&request);
        self.work(clock);
        self.requests.remove(&request)
    }

    pub(crate) fn count(&self) -> usize {
        usize::try_from(self.next).unwrap_or(usize::MAX)
    }
}

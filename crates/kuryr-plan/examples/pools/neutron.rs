//! Neutron, as slow as it was measured.

use crate::clock::{Clock, Event, Millis};
use std::collections::{HashMap, VecDeque};

/// What each request takes.
const REQUEST: Millis = 200;
/// What each port in it takes more.
const PORT: Millis = 150;
const DELETE: Millis = 190;
/// Requests that it works on at once.
const WORKERS: usize = 4;

pub(crate) struct Neutron<T> {
    next: u64,
    busy: usize,
    waiting: VecDeque<(u64, Millis)>,
    requests: HashMap<u64, T>,
}

impl<T> Neutron<T> {
    pub(crate) fn new() -> Self {
        Self { next: 0, busy: 0, waiting: VecDeque::new(), requests: HashMap::new() }
    }

    pub(crate) fn create(&mut self, ports: usize, what: T, clock: &mut Clock) {
        self.send(REQUEST + PORT * ports as u64, what, clock);
    }

    pub(crate) fn delete(&mut self, what: T, clock: &mut Clock) {
        self.send(DELETE, what, clock);
    }

    fn send(&mut self, takes: Millis, what: T, clock: &mut Clock) {
        self.next += 1;
        self.requests.insert(self.next, what);
        self.waiting.push_back((self.next, takes));
        self.work(clock);
    }

    fn work(&mut self, clock: &mut Clock) {
        while self.busy < WORKERS
            && let Some((request, takes)) = self.waiting.pop_front()
        {
            self.busy += 1;
            clock.after(takes, Event::Done { request });
        }
    }

    /// What was asked for in this request, which is done.
    pub(crate) fn done(&mut self, request: u64, clock: &mut Clock) -> Option<T> {
        self.busy -= 1;
        self.work(clock);
        self.requests.remove(&request)
    }

    pub(crate) fn count(&self) -> usize {
        usize::try_from(self.next).unwrap_or(usize::MAX)
    }
}

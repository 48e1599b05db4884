//! Pools as kuryr-kubernetes has them: fewer than `min` ports and a pod that asks make it order `batch` more, at most every 20 seconds;
//! a pod that finds none fails and is tried again ever more seldom; what is given back is available after the next round of 20 seconds.

use crate::{
    NODES, Rule,
    clock::{Chance, Clock, Event, Millis},
    neutron::Neutron,
    report::Report,
};
use std::collections::HashMap;

const FREQUENCY: Millis = 20_000;
/// Seconds that a pod waits at least until its next try, and up to three more.
const TRIES: [Millis; 6] = [2, 4, 8, 16, 32, 60];

#[derive(Clone, Default)]
struct Pool {
    available: usize,
    recyclable: usize,
    ordered: usize,
    updated: Option<Millis>,
}

enum Request {
    Bulk { node: usize, count: usize },
    Delete,
}

pub(crate) struct Original {
    min: usize,
    batch: usize,
    max: usize,
    pools: Vec<Pool>,
    neutron: Neutron<Request>,
    chance: Chance,
    pods: HashMap<u32, (usize, Millis)>,
    served: HashMap<u32, usize>,
}

impl Original {
    /// A `max` of 0 is none.
    pub(crate) fn new(min: usize, batch: usize, max: usize) -> Self {
        Self {
            min,
            batch,
            max,
            pools: vec![Pool::default(); NODES],
            neutron: Neutron::new(),
            chance: Chance(7),
            pods: HashMap::new(),
            served: HashMap::new(),
        }
    }

    fn ask(&mut self, pod: u32, tries: usize, clock: &mut Clock, report: &mut Report) {
        let Some((node, since)) = self.pods.get(&pod).copied() else { return };
        let Some(pool) = self.pools.get_mut(node) else { return };
        if pool.available > 0 {
            pool.available -= 1;
            self.served.insert(pod, node);
            report.served(tries == 0, clock.now() - since);
        } else {
            let least = TRIES.get(tries).or(TRIES.last()).copied().unwrap_or(60);
            let wait = least * 1000 + self.chance.below(3000);
            clock.after(wait, Event::Again { pod, tries: tries + 1 });
        }
        self.populate(node, clock);
    }

    fn populate(&mut self, node: usize, clock: &mut Clock) {
        let Some(pool) = self.pools.get_mut(node) else { return };
        if pool.available >= self.min || pool.updated.is_some_and(|then| clock.now() < then + FREQUENCY) {
            return;
        }
        pool.updated = Some(clock.now());
        let count = self.batch.max(self.min - pool.available);
        pool.ordered += count;
        self.neutron.create(count, Request::Bulk { node, count }, clock);
    }

    fn recycle(&mut self, clock: &mut Clock) {
        for pool in &mut self.pools {
            for _ in 0..std::mem::take(&mut pool.recyclable) {
                if self.max == 0 || pool.available < self.max {
                    pool.available += 1;
                } else {
                    self.neutron.delete(Request::Delete, clock);
                }
            }
        }
    }
}

impl Rule for Original {
    fn handle(&mut self, event: Event, clock: &mut Clock, report: &mut Report) {
        match event {
            Event::Begin => clock.after(FREQUENCY, Event::Wake { what: 0 }),
            Event::Start { pod, node } => {
                self.pods.insert(pod, (node, clock.now()));
                self.ask(pod, 0, clock, report);
            }
            Event::Again { pod, tries } => self.ask(pod, tries, clock, report),
            Event::End { pod } => {
                let node = self.served.remove(&pod);
                // One that ends before it had a port asks no more.
                let since = self.pods.remove(&pod);
                match (node.and_then(|node| self.pools.get_mut(node)), since) {
                    (Some(pool), _) => pool.recyclable += 1,
                    (None, Some((_, since))) => report.served(false, clock.now() - since),
                    (None, None) => {}
                }
            }
            Event::Done { request } => {
                if let Some(Request::Bulk { node, count }) = self.neutron.done(request, clock)
                    && let Some(pool) = self.pools.get_mut(node)
                {
                    pool.ordered -= count;
                    pool.available += count;
                }
            }
            Event::Wake { .. } => {
                self.recycle(clock);
                clock.after(FREQUENCY, Event::Wake { what: 0 });
            }
            Event::Cordon { .. } => {}
        }
    }

    fn held(&self) -> usize {
        self.pools.iter().map(|pool| pool.available + pool.recyclable + pool.ordered).sum()
    }

    fn requests(&self) -> usize {
        self.neutron.count()
    }
}

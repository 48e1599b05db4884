//! Where the ports of pods are to come from: what Neutron is asked for next, and what its answers mean.
//!
//! ```text
//!   pods ──▶ Batch ──Supply::next──▶ Count:  how full are the subnets?  ──▶ counted ─┐
//!              ▲                   ├ Create: make these in one request  ──▶ made     │
//!              │                   └ Short:  these cannot have any now      refused ─┤
//!              └────────────────── again: halved, or on the next choice ◀────────────┘
//! ```
//!
//! One [`Supply`] is what is known of the cloud; several [`Batch`]es are under way on it at once. [`Suspects`] are the pods for
//! which there may be ports that nobody has recorded, [`Refusals`] the namespaces that take no `KuryrPort`.
//!
//! Invariants:
//! - Neutron makes all ports of a bulk or none. A bulk that is refused is halved until what Neutron refuses stands alone,
//!   so that it holds up no other.
//! - No bulk is asked for that is known not to fit, and where a subnet was full lately, ports are asked for one by one:
//!   Neutron loses the addresses that it took for the first ports of a bulk that then does not fit.
//! - A quota that is used up is found by few requests and then remembered: no more is asked for than was given back since, and
//!   now and then one port to see whether the quota was raised.
//! - Times are from any fixed moment on, given by the caller.

mod refusals;
mod room;
mod suspects;

pub use refusals::{Admission, Refusals};
pub use room::Question;
pub use suspects::{LATE, Suspects, Sweep};

use crate::subnets::Choice;
use kuryr_model::{NetworkId, SubnetId};
use room::{Reserved, Rooms};
use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

/// How long what was used up is not asked for again, unless something is given back before.
pub const USED_UP_FOR: Duration = Duration::from_secs(30);

/// How long after a subnet was full no bulk is asked of it. ML2 allocates the addresses of a bulk before its transaction begins:
/// when there are too few, those that were allocated stay so for ever, and belong to no port.
const TIGHT_FOR: Duration = Duration::from_secs(60 * 60);

/// Pods that want a port each, on their way through [`Supply::next`]. `R` is what the caller knows them by.
#[derive(Debug)]
pub struct Batch<R> {
    /// Those that are asked for together, as far as there is room. None is empty.
    pieces: VecDeque<Vec<R>>,
    /// The network of which the room was asked for just now.
    counted: Option<NetworkId>,
}

impl<R> Batch<R> {
    /// Those that came together.
    #[must_use]
    pub fn new(pods: Vec<R>) -> Self {
        let mut batch = Self { pieces: VecDeque::new(), counted: None };
        batch.again(pods);
        batch
    }

    /// These are to be asked for again, before the others.
    pub fn again(&mut self, pods: Vec<R>) {
        if !pods.is_empty() {
            self.pieces.push_front(pods);
        }
    }
}

/// What is to be done next for a batch.
#[derive(Debug)]
pub enum Next<R> {
    /// Ask Neutron how full the subnets of this network are; then [`Supply::counted`].
    Count(NetworkId),
    /// Ask Neutron for a port for each of these in one request; then [`Supply::made`] or [`Supply::refused`].
    Create(Ask, Vec<R>),
    /// These cannot have any now; no request is needed to know it.
    Short(Shortage, Vec<R>),
}

/// A request for ports.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Where the ports are to be.
    pub choice: Choice,
    count: usize,
    /// [`Supply::released`] when it was made.
    released: u64,
    /// The quota was used up, so this is of what was given back since.
    rationed: bool,
    /// One more than that, to find out whether the quota was raised.
    probe: bool,
}

/// What there is too little of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// No subnet has an address left.
    Addresses,
    /// The project's quota of ports is used up.
    Quota,
}

/// Why Neutron did not make the ports of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A subnet of the choice has too few addresses left.
    Exhausted,
    /// The project's quota is used up.
    Quota,
    /// Neutron refuses what was asked for: one of the ports, perhaps, and the others would be made.
    Request,
    /// Nothing was done, and no other request would have fared better.
    All,
    /// There is no answer to rely on: it may have been done, or may yet be done. The pods are to be [`Suspects`].
    Unknown,
}

/// What Neutron said when it was asked how full subnets are.
#[derive(Clone, Debug)]
pub enum Counted {
    /// Addresses that no port has.
    Free(Vec<(SubnetId, u64)>),
    /// It cannot say, or our user may not know: do not ask again.
    Never,
    /// Not this time.
    NotNow,
}

/// What is known of what Neutron has left.
#[derive(Debug)]
pub struct Supply {
    /// Where ports may be, best first.
    choices: Vec<Choice>,
    /// The most ports in one request; and so many addresses are kept in reserve for what others may take.
    bulk: usize,
    /// Choices that were full, and when to ask again.
    full: HashMap<Choice, Duration>,
    /// Choices that have had no room for a bulk, and how long they are asked for one port at a time.
    tight: HashMap<Choice, Duration>,
    quota: Option<UsedUp>,
    rooms: Rooms,
    /// Neutron tells how full subnets are.
    told: bool,
    /// Ports that were given back.
    released: u64,
}

/// A quota that is used up.
#[derive(Clone, Copy, Debug)]
struct UsedUp {
    /// When to try whether it was raised.
    until: Duration,
    /// Ports that were given back since.
    freed: usize,
}

impl Supply {
    /// Nothing is known yet. `choices` are tried in their order, `bulk` (1 or more) is the most ports in one request; `told`: Neutron may be
    /// asked how full subnets are.
    #[must_use]
    pub fn new(choices: Vec<Choice>, bulk: usize, told: bool) -> Self {
        let (full, tight, rooms) = (HashMap::new(), HashMap::new(), Rooms::default());
        Self { choices, bulk: bulk.max(1), full, tight, quota: None, rooms, told, released: 0 }
    }

    /// What to do next for `batch`; `None`: every pod in it has its answer.
    pub fn next<R>(&mut self, batch: &mut Batch<R>, now: Duration) -> Option<Next<R>> {
        let mut pods = batch.pieces.pop_front()?;
        let quota = self.quota.map(|used| used.freed + usize::from(now >= used.until));
        if quota == Some(0) {
            return Some(Next::Short(Shortage::Quota, pods));
        }
        let Some(choice) = self.open(now) else { return Some(Next::Short(Shortage::Addresses, pods)) };
        let wanted = pods.len().min(self.bulk).min(quota.unwrap_or(usize::MAX));
        let Some(count) = self.reserve(&choice, wanted, batch.counted == Some(choice.network), now) else {
            batch.again(pods);
            return Some(Next::Count(choice.network));
        };
        batch.counted = None;
        let probe = self.quota.as_mut().is_some_and(|used| used.take(count, now));
        batch.again(pods.split_off(count));
        let (released, rationed) = (self.released, self.quota.is_some());
        Some(Next::Create(Ask { choice, count, released, rationed, probe }, pods))
    }

    /// The best choice that is not full, nor will be once those have their answer who were first.
    fn open(&mut self, now: Duration) -> Option<Choice> {
        self.full.retain(|_, until| *until > now);
        let open = |choice: &&Choice| !self.full.contains_key(*choice) && !self.rooms.spoken_for(choice, now);
        self.choices.iter().find(open).cloned()
    }

    /// Takes room for as many of `wanted` ports as may be asked for in one request; `None`: it is not known well enough.
    fn reserve(&mut self, choice: &Choice, wanted: usize, counted: bool, now: Duration) -> Option<usize> {
        self.tight.retain(|_, until| *until > now);
        let wanted = if self.tight.contains_key(choice) { 1 } else { wanted };
        if wanted == 1 || !self.told {
            self.rooms.take(choice, wanted);
            return Some(wanted);
        }
        if counted {
            let count = self.rooms.take_some(choice, wanted, now);
            if count < wanted {
                self.tight.insert(choice.clone(), now + USED_UP_FOR);
            }
            return Some(count);
        }
        match self.rooms.reserve(choice, wanted, self.bulk, now) {
            Reserved::Taken(count) => Some(count),
            Reserved::Ask => None,
        }
    }

    /// To be kept from before Neutron is asked how full it is until its answer is here.
    #[must_use]
    pub fn question(&self) -> Question {
        self.rooms.ask()
    }

    /// Neutron answered how full the subnets of `network` are, or did not.
    pub fn counted<R>(
        &mut self,
        batch: &mut Batch<R>,
        network: NetworkId,
        question: &Question,
        answer: Counted,
        now: Duration,
    ) {
        batch.counted = Some(network);
        match answer {
            Counted::Free(subnets) => {
                for (subnet, free) in subnets {
                    self.rooms.count(question, subnet, free, now);
                }
            }
            Counted::Never => self.told = false,
            Counted::NotNow => {}
        }
    }

    /// Neutron made what it was asked for.
    pub fn made(&mut self, ask: &Ask) {
        self.rooms.answered(&ask.choice, ask.count);
        if ask.probe {
            self.quota = None;
        }
    }

    /// Neutron did not make what it was asked for. Returns the pods whose request has failed; the others are asked for again.
    #[must_use]
    pub fn refused<R>(
        &mut self,
        batch: &mut Batch<R>,
        ask: &Ask,
        mut pods: Vec<R>,
        refusal: Refusal,
        now: Duration,
    ) -> Vec<R> {
        match refusal {
            Refusal::Unknown => self.rooms.answered(&ask.choice, ask.count),
            _ => self.rooms.refused(&ask.choice, ask.count),
        }
        if refusal == Refusal::Exhausted {
            self.tight.insert(ask.choice.clone(), now + TIGHT_FOR);
        }
        if let Some(used) = self.quota.as_mut().filter(|_| ask.rationed) {
            used.put_back(ask, refusal, now);
        }
        // What was given back while Neutron was busy refusing is there.
        let freed = self.released - ask.released;
        match refusal {
            Refusal::Exhausted | Refusal::Quota | Refusal::Request if pods.len() > 1 => {
                batch.again(pods.split_off(pods.len() / 2));
                batch.again(pods);
                Vec::new()
            }
            Refusal::Exhausted => {
                if freed == 0 {
                    self.full.insert(ask.choice.clone(), now + USED_UP_FOR);
                }
                batch.again(pods);
                Vec::new()
            }
            Refusal::Quota => {
                let freed = usize::try_from(freed).unwrap_or(usize::MAX);
                self.quota = Some(UsedUp { until: now + USED_UP_FOR, freed });
                pods
            }
            Refusal::Request | Refusal::All | Refusal::Unknown => pods,
        }
    }

    /// So many ports were deleted: there is room for as many again.
    pub fn released(&mut self, ports: usize) {
        self.released += ports as u64;
        if ports > 0 {
            self.full.clear();
        }
        if let Some(used) = &mut self.quota {
            used.freed += ports;
        }
    }
}

impl UsedUp {
    /// Takes so many of what was given back; whether one more is asked for, to see whether the quota was raised.
    fn take(&mut self, count: usize, now: Duration) -> bool {
        let probe = now >= self.until;
        if probe {
            self.until = now + USED_UP_FOR;
        }
        self.freed = (self.freed + usize::from(probe)).saturating_sub(count);
        probe
    }

    /// A request that was refused for another reason than the quota has used nothing up, and found nothing out.
    fn put_back(&mut self, ask: &Ask, refusal: Refusal, now: Duration) {
        let some = match refusal {
            Refusal::Unknown => return,
            Refusal::Quota => 1,
            Refusal::Exhausted | Refusal::Request | Refusal::All => {
                if ask.probe {
                    self.until = now;
                }
                usize::from(ask.probe)
            }
        };
        self.freed += ask.count.saturating_sub(some);
    }
}

#[cfg(test)]
mod tests;

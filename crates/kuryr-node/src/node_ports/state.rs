//! Why node ports are not in order, for people.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

/// What can be out of order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The watch of Services.
    Services,
    /// The watch of `EndpointSlice`s.
    Slices,
    /// The rules in the kernel.
    Rules,
    /// The port numbers at which health checks are answered.
    HealthChecks,
}

impl Part {
    /// As people write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Services => "Services",
            Self::Slices => "EndpointSlices",
            Self::Rules => "rules",
            Self::HealthChecks => "health checks",
        }
    }
}

/// The problems that there are now.
#[derive(Debug, Default)]
pub struct State {
    problems: Mutex<BTreeMap<Part, String>>,
    /// Whether the kernel has the rules that it is to have.
    works: watch::Sender<bool>,
}

impl State {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Part, String>> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what is wrong with a part, or that it is in order; logs a change. Whether there is a problem that was not
    /// there before.
    pub fn set(&self, part: Part, problem: Option<String>) -> bool {
        let mut problems = self.lock();
        if problems.get(&part) == problem.as_ref() {
            return false;
        }
        match problem {
            Some(problem) => {
                tracing::warn!(part = part.as_str(), problem, "node ports are not in order");
                problems.insert(part, problem);
                true
            }
            None => {
                tracing::info!(part = part.as_str(), "node ports are in order again");
                problems.remove(&part);
                false
            }
        }
    }

    /// Says whether the kernel has the rules that it is to have.
    pub fn set_works(&self, works: bool) {
        self.works.send_if_modified(|known| std::mem::replace(known, works) != works);
    }

    /// Whether the kernel has the rules that it is to have; not so at first.
    pub fn works(&self) -> watch::Receiver<bool> {
        self.works.subscribe()
    }

    /// All problems, each a sentence.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        self.lock().values().cloned().collect()
    }
}

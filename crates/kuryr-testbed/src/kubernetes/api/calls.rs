//! The call log: how often each client used each verb on each resource.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// What calls are counted by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallKey {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete` or `deletecollection`.
    pub verb: String,
    /// Plural name with the subresource, e.g. `pods/status`.
    pub resource: String,
    /// The client's `User-Agent`, or "".
    pub user_agent: String,
}

impl CallKey {
    /// Whether the call could change something.
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }
}

/// Counts the calls of an API server.
#[derive(Debug, Default)]
pub struct CallLog {
    counts: Mutex<BTreeMap<CallKey, u64>>,
}

impl CallLog {
    pub(crate) fn record(&self, verb: &str, resource: String, user_agent: &str) {
        let key = CallKey { verb: verb.to_owned(), resource, user_agent: user_agent.to_owned() };
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default() += 1;
    }

    /// All counts so far.
    pub fn snapshot(&self) -> BTreeMap<CallKey, u64> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The number of calls that satisfy the predicate.
    pub fn count(&self, predicate: impl Fn(&CallKey) -> bool) -> u64 {
        self.snapshot().iter().filter(|(key, _)| predicate(key)).map(|(_, count)| count).sum()
    }

    /// Starts counting anew.
    pub fn reset(&self) {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

//! Faults by rule: errors, latency, hanging and lost answers for chosen calls.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch;

use super::status::ApiError;

/// What happens to a call that a rule selects.
#[derive(Clone, Debug, PartialEq)]
pub enum FaultEffect {
    /// It is refused with this HTTP status, and `Retry-After` in seconds if given.
    Fail {
        /// HTTP status code.
        code: u16,
        /// Seconds for `Retry-After`.
        retry_after: Option<u32>,
    },
    /// It is served after this time.
    Delay(Duration),
    /// It is never answered.
    Hang,
    /// Its work is done, then the connection breaks instead of an answer.
    LoseAnswer,
    /// Its work is done, and it is never answered.
    HoldAnswer,
}

/// A rule: the calls it selects and what happens to them. What is `None` selects everything.
#[derive(Clone, Debug, Default)]
pub struct Fault {
    /// Verb as in the call log.
    pub verb: Option<String>,
    /// Plural name, with the subresource if one is meant.
    pub resource: Option<String>,
    /// A part of the `User-Agent`.
    pub user_agent: Option<String>,
    /// How many calls it lets pass first.
    pub after: u32,
    /// How many calls it hits before it is used up.
    pub times: Option<u32>,
    /// What happens; refused with 500 if `None`.
    pub effect: Option<FaultEffect>,
}

/// The fault rules of an API server.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    rules: Arc<Mutex<Vec<(u64, Fault)>>>,
    next: Arc<AtomicU64>,
    held: watch::Sender<u64>,
}

/// Ends a fault rule when dropped.
#[derive(Debug)]
#[must_use = "the fault ends when this is dropped"]
pub struct FaultGuard {
    faults: Faults,
    id: u64,
}

impl FaultGuard {
    /// Whether it has hit as many calls as it was to.
    pub fn is_used_up(&self) -> bool {
        self.faults.lock().iter().any(|(id, fault)| *id == self.id && fault.times == Some(0))
    }
}

impl Drop for FaultGuard {
    fn drop(&mut self) {
        self.faults.lock().retain(|(id, _)| *id != self.id);
    }
}

impl Faults {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(u64, Fault)>> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a rule; it holds until the guard is dropped or it is used up.
    pub fn inject(&self, fault: Fault) -> FaultGuard {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.lock().push((id, fault));
        FaultGuard { faults: self.clone(), id }
    }

    /// Ends every rule.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// How many calls were worked on whose answers are held, over all rules and from the begin.
    pub fn held(&self) -> watch::Receiver<u64> {
        self.held.subscribe()
    }

    /// A call was worked on, and its answer is held.
    pub(crate) fn holds(&self) {
        self.held.send_modify(|held| *held += 1);
    }

    /// What happens to this call, if anything.
    pub(crate) fn hit(&self, verb: &str, resource: &str, user_agent: &str) -> Option<FaultEffect> {
        let mut rules = self.lock();
        let selects = |rule: &Fault| {
            rule.verb.as_deref().is_none_or(|v| v == verb)
                && rule.resource.as_deref().is_none_or(|r| r == resource)
                && rule.user_agent.as_deref().is_none_or(|agent| user_agent.contains(agent))
                && rule.times != Some(0)
        };
        let rule = rules.iter_mut().map(|(_, rule)| rule).find(|rule| selects(rule))?;
        if rule.after > 0 {
            rule.after -= 1;
            return None;
        }
        if let Some(times) = &mut rule.times {
            *times -= 1;
        }
        Some(rule.effect.clone().unwrap_or(FaultEffect::Fail { code: 500, retry_after: None }))
    }
}

/// The error that a refused call gets.
pub(crate) fn refusal(code: u16, retry_after: Option<u32>) -> ApiError {
    let reason = match code {
        400 => "BadRequest",
        401 => "Unauthorized",
        403 => "Forbidden",
        409 => "Conflict",
        410 => "Expired",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "InternalError",
    };
    let mut error = ApiError::new(code, reason, "an injected fault refused this call");
    error.retry_after = retry_after;
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_hits_what_it_selects_as_often_as_it_says() {
        let faults = Faults::default();
        let fault = Fault { verb: Some("patch".into()), times: Some(1), ..Fault::default() };
        let guard = faults.inject(fault);
        assert_eq!(faults.hit("get", "pods", "x"), None);
        assert_eq!(faults.hit("patch", "pods", "x"), Some(FaultEffect::Fail { code: 500, retry_after: None }));
        assert_eq!(faults.hit("patch", "pods", "x"), None);
        drop(guard);
        let guard = faults.inject(Fault { effect: Some(FaultEffect::Hang), ..Fault::default() });
        assert_eq!(faults.hit("get", "pods", "x"), Some(FaultEffect::Hang));
        drop(guard);
        assert_eq!(faults.hit("get", "pods", "x"), None);
    }
}

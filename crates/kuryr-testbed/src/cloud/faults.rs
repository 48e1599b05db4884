//! Faults by rule: which calls go wrong, how often and how.
//!
//! The first rule that matches a call, in the order in which rules were added, decides; a rule that has been used up no longer matches.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::{Method, StatusCode};
use tokio::sync::watch;

use super::http::{Call, Service};

/// What Neutron answers when it breaks: the error's kind and its words.
pub(super) const INTERNAL_ERROR: (&str, &str) =
    ("HTTPInternalServerError", "Request Failed: internal server error while processing your request.");

/// Names a rule, for its removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FaultId(u64);

/// What happens to a call that a rule matches.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Nothing is done; this is the answer.
    Answer {
        /// The status.
        status: StatusCode,
        /// The error type in the body, e.g. `OverQuota`.
        kind: String,
        /// The error message in the body.
        message: String,
        /// Value of a `Retry-After` header, in seconds.
        retry_after: Option<u64>,
    },
    /// The call is worked on after this time, even if nobody waits for it any more.
    Delay(Duration),
    /// The call is worked on once the rule is removed.
    Hang,
    /// The connection is closed, nothing is done.
    Drop,
    /// The call is worked on, then the connection is closed without an answer.
    LoseAnswer,
    /// The call is worked on, and answered once the rule is removed.
    HoldAnswer,
    /// Of what a bulk asks for the first half is done, and then the service breaks, with status 500.
    DoHalf,
}

type Predicate = Arc<dyn Fn(&Call) -> bool + Send + Sync>;

/// A rule. Without conditions it matches every call, for ever.
#[derive(Clone)]
pub struct Fault {
    service: Option<Service>,
    method: Option<Method>,
    path: Option<Vec<String>>,
    predicate: Option<Predicate>,
    skip: usize,
    times: Option<usize>,
    effect: Effect,
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fault")
            .field("service", &self.service)
            .field("method", &self.method)
            .field("path", &self.path)
            .field("skip", &self.skip)
            .field("times", &self.times)
            .field("effect", &self.effect)
            .finish_non_exhaustive()
    }
}

impl Fault {
    /// A rule with this effect on every call.
    #[must_use]
    pub fn new(effect: Effect) -> Self {
        Self { service: None, method: None, path: None, predicate: None, skip: 0, times: None, effect }
    }

    /// Answers with a status and an error of the service's own form.
    #[must_use]
    pub fn answer(status: u16, kind: &str, message: &str) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::new(Effect::Answer { status, kind: kind.to_owned(), message: message.to_owned(), retry_after: None })
    }

    /// Neutron's answer to its own bugs and to a lost database.
    #[must_use]
    pub fn internal_error() -> Self {
        Self::answer(500, INTERNAL_ERROR.0, INTERNAL_ERROR.1)
    }

    /// What a proxy says while the service behind it is down.
    #[must_use]
    pub fn unavailable() -> Self {
        Self::answer(
            503,
            "HTTPServiceUnavailable",
            "The server is currently unavailable. Please try again at a later time.",
        )
    }

    /// 429 with `Retry-After`.
    #[must_use]
    pub fn too_many_requests(retry_after: Duration) -> Self {
        Self::new(Effect::Answer {
            status: StatusCode::TOO_MANY_REQUESTS,
            kind: "HTTPTooManyRequests".into(),
            message: "The client has sent too many requests in a given amount of time.".into(),
            retry_after: Some(retry_after.as_secs()),
        })
    }

    /// 409 as for an exceeded quota of `resource`, e.g. `port`.
    #[must_use]
    pub fn over_quota(resource: &str) -> Self {
        Self::answer(409, "OverQuota", &format!("Quota exceeded for resources: ['{resource}']."))
    }

    /// Works on the call later.
    #[must_use]
    pub fn delay(time: Duration) -> Self {
        Self::new(Effect::Delay(time))
    }

    /// Works on the call when the rule is removed.
    #[must_use]
    pub fn hang() -> Self {
        Self::new(Effect::Hang)
    }

    /// Closes the connection and does nothing.
    #[must_use]
    pub fn drop_connection() -> Self {
        Self::new(Effect::Drop)
    }

    /// Does the work and closes the connection without an answer.
    #[must_use]
    pub fn lose_answer() -> Self {
        Self::new(Effect::LoseAnswer)
    }

    /// Does the work and answers when the rule is removed.
    #[must_use]
    pub fn hold_answer() -> Self {
        Self::new(Effect::HoldAnswer)
    }

    /// Does the first half of a bulk, and then breaks.
    #[must_use]
    pub fn do_half() -> Self {
        Self::new(Effect::DoHalf)
    }

    /// Only calls of this service.
    #[must_use]
    pub fn service(mut self, service: Service) -> Self {
        self.service = Some(service);
        self
    }

    /// Only calls of this method whose path below the service's root matches: `*` stands for one segment, a last `**` for any number,
    /// as in `/v2.0/ports/*`.
    #[must_use]
    pub fn on(mut self, method: Method, path: &str) -> Self {
        self.method = Some(method);
        self.path(path)
    }

    /// Only calls whose path matches, see [`Fault::on`].
    #[must_use]
    pub fn path(mut self, path: &str) -> Self {
        self.path = Some(path.split('/').filter(|s| !s.is_empty()).map(str::to_owned).collect());
        self
    }

    /// Only calls for which the function says true.
    #[must_use]
    pub fn when(mut self, predicate: impl Fn(&Call) -> bool + Send + Sync + 'static) -> Self {
        self.predicate = Some(Arc::new(predicate));
        self
    }

    /// Lets the first `skip` matching calls pass.
    #[must_use]
    pub fn after(mut self, skip: usize) -> Self {
        self.skip = skip;
        self
    }

    /// Is used up after `times` calls.
    #[must_use]
    pub fn times(mut self, times: usize) -> Self {
        self.times = Some(times);
        self
    }

    fn matches(&self, call: &Call) -> bool {
        self.service.is_none_or(|service| service == call.service)
            && self.method.as_ref().is_none_or(|method| *method == call.method)
            && self.path.as_ref().is_none_or(|pattern| path_matches(pattern, &call.path))
            && self.predicate.as_ref().is_none_or(|predicate| predicate(call))
    }
}

fn path_matches(pattern: &[String], path: &[String]) -> bool {
    match pattern.split_last() {
        Some((last, front)) if last == "**" => path.len() >= front.len() && path_matches(front, &path[..front.len()]),
        _ => pattern.len() == path.len() && pattern.iter().zip(path).all(|(p, s)| p == "*" || p == s),
    }
}

struct Entry {
    id: FaultId,
    fault: Fault,
    seen: usize,
    hits: usize,
    done: usize,
}

#[derive(Default)]
struct Rules {
    entries: Vec<Entry>,
    next: u64,
}

/// The rules of a cloud. Cheap to clone; clones share the rules.
#[derive(Clone)]
pub struct Faults {
    rules: Arc<Mutex<Rules>>,
    changed: watch::Sender<()>,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.lock().entries.iter().map(|e| &e.fault)).finish()
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self { rules: Arc::default(), changed: watch::Sender::new(()) }
    }
}

impl Faults {
    fn lock(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a rule after all others.
    pub fn add(&self, fault: Fault) -> FaultId {
        let mut rules = self.lock();
        rules.next += 1;
        let id = FaultId(rules.next);
        rules.entries.push(Entry { id, fault, seen: 0, hits: 0, done: 0 });
        id
    }

    /// Removes a rule and lets go of the calls that hang on it. False when it is not there.
    pub fn remove(&self, id: FaultId) -> bool {
        let mut rules = self.lock();
        let before = rules.entries.len();
        rules.entries.retain(|entry| entry.id != id);
        let removed = rules.entries.len() < before;
        drop(rules);
        self.changed.send_replace(());
        removed
    }

    /// Removes all rules.
    pub fn clear(&self) {
        self.lock().entries.clear();
        self.changed.send_replace(());
    }

    /// How many calls the rule has hit; 0 when it is not there.
    #[must_use]
    pub fn hits(&self, id: FaultId) -> usize {
        self.lock().entries.iter().find(|entry| entry.id == id).map_or(0, |entry| entry.hits)
    }

    /// Waits until the rule has hit so many calls, or is gone.
    pub async fn wait_for_hits(&self, id: FaultId, hits: usize) {
        self.wait_until(|rules| rules.entries.iter().all(|entry| entry.id != id || entry.hits >= hits)).await;
    }

    async fn wait_until(&self, mut done: impl FnMut(&Rules) -> bool) {
        let mut changed = self.changed.subscribe();
        while !done(&self.lock()) {
            // The sender lives as long as this does.
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waits until so many calls that the rule holds the answers of are done, or it is gone.
    pub async fn wait_for_done(&self, id: FaultId, done: usize) {
        self.wait_until(|rules| rules.entries.iter().all(|entry| entry.id != id || entry.done >= done)).await;
    }

    /// A call was worked on, and its answer is held.
    pub(super) fn done(&self, id: FaultId) {
        if let Some(entry) = self.lock().entries.iter_mut().find(|entry| entry.id == id) {
            entry.done += 1;
        }
        self.changed.send_replace(());
    }

    /// Finds the rule for a call and counts it.
    pub(super) fn strike(&self, call: &Call) -> Option<(FaultId, Effect)> {
        let mut rules = self.lock();
        for entry in &mut rules.entries {
            if entry.fault.times.is_some_and(|times| entry.hits >= times) || !entry.fault.matches(call) {
                continue;
            }
            entry.seen += 1;
            if entry.seen > entry.fault.skip {
                entry.hits += 1;
                let hit = (entry.id, entry.fault.effect.clone());
                self.changed.send_replace(());
                return Some(hit);
            }
        }
        None
    }

    /// Waits until the rule is gone.
    pub(super) async fn gone(&self, id: FaultId) {
        self.wait_until(|rules| rules.entries.iter().all(|entry| entry.id != id)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Bytes;

    fn call(method: &Method, path: &str) -> Call {
        let (parts, ()) = axum::http::Request::builder().method(method).uri(path).body(()).unwrap().into_parts();
        Call::read(&parts, Bytes::new(), "req-1".into(), None, jiff::Timestamp::UNIX_EPOCH).unwrap()
    }

    #[test]
    fn a_rule_is_used_up_after_its_times() {
        let faults = Faults::default();
        let id = faults.add(Fault::internal_error().on(Method::POST, "/v2.0/ports").times(2));
        let post = call(&Method::POST, "/network/v2.0/ports");
        assert!(faults.strike(&call(&Method::GET, "/network/v2.0/ports")).is_none());
        assert!(faults.strike(&post).is_some());
        assert!(faults.strike(&post).is_some());
        assert!(faults.strike(&post).is_none());
        assert_eq!(faults.hits(id), 2);
    }

    #[test]
    fn a_rule_lets_the_first_calls_pass() {
        let faults = Faults::default();
        faults.add(Fault::unavailable().after(1).times(1));
        let get = call(&Method::GET, "/network/v2.0/ports");
        let hit: Vec<bool> = (0..3).map(|_| faults.strike(&get).is_some()).collect();
        assert_eq!(hit, [false, true, false]);
    }

    #[test]
    fn a_star_stands_for_one_segment_and_two_for_the_rest() {
        let pattern = |p: &str| p.split('/').filter(|s| !s.is_empty()).map(str::to_owned).collect::<Vec<_>>();
        let path = pattern("/v2.0/ports/1");
        assert!(path_matches(&pattern("/v2.0/ports/*"), &path));
        assert!(path_matches(&pattern("/v2.0/**"), &path));
        assert!(!path_matches(&pattern("/v2.0/*"), &path));
        assert!(!path_matches(&pattern("/v2.0/ports"), &path));
    }
}

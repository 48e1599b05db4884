//! The log of calls: what clients asked, how it ended and how long it took.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::Method;
use tokio::sync::watch;

use super::http::Service;

/// How many calls are kept; older ones are forgotten, but stay counted.
const KEPT: usize = 100_000;

/// One call that has ended.
#[derive(Debug, Clone)]
pub struct CallRecord {
    /// The service.
    pub service: Service,
    /// The HTTP method.
    pub method: Method,
    /// The path below the service's root.
    pub path: String,
    /// The path with ids replaced: `/v2.0/ports/{id}`.
    pub template: String,
    /// The query, decoded.
    pub query: Vec<(String, String)>,
    /// The status, or `None` when the connection was closed without an answer.
    pub status: Option<u16>,
    /// From the last byte of the request to the answer.
    pub duration: Duration,
    /// The `x-openstack-request-id` of the answer.
    pub request_id: String,
    /// Objects in the body: the length of a bulk create, else 1 with a body and 0 without.
    pub items: usize,
}

impl CallRecord {
    /// Whether the call changes something: neither a read nor the issue of a token.
    #[must_use]
    pub fn is_write(&self) -> bool {
        self.method != Method::GET && self.method != Method::HEAD && self.service != Service::Identity
    }
}

#[derive(Debug, Default)]
struct Log {
    records: VecDeque<CallRecord>,
    counts: BTreeMap<(Service, String, String), u64>,
    total: u64,
}

/// The log of a cloud. Cheap to clone; clones share the log.
#[derive(Debug, Clone)]
pub struct Calls {
    log: Arc<Mutex<Log>>,
    pushed: watch::Sender<()>,
}

impl Default for Calls {
    fn default() -> Self {
        Self { log: Arc::default(), pushed: watch::Sender::new(()) }
    }
}

impl Calls {
    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, record: CallRecord) {
        let mut log = self.lock();
        log.total += 1;
        *log.counts.entry((record.service, record.method.to_string(), record.template.clone())).or_default() += 1;
        if log.records.len() == KEPT {
            log.records.pop_front();
        }
        log.records.push_back(record);
        drop(log);
        self.pushed.send_replace(());
    }

    /// Waits for a call for which the function says true; one that is in the log already counts.
    pub async fn wait_for(&self, mut wanted: impl FnMut(&CallRecord) -> bool) -> CallRecord {
        let mut pushed = self.pushed.subscribe();
        loop {
            if let Some(found) = self.lock().records.iter().find(|record| wanted(record)) {
                return found.clone();
            }
            if pushed.changed().await.is_err() {
                // The sender lives as long as this does.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Forgets all calls and counts.
    pub fn reset(&self) {
        *self.lock() = Log::default();
    }

    /// Calls since the last reset.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.lock().total
    }

    /// Calls since the last reset by service, method and path template.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<(Service, String, String), u64> {
        self.lock().counts.clone()
    }

    /// Calls of one method and path template since the last reset.
    #[must_use]
    pub fn count(&self, method: &Method, template: &str) -> u64 {
        let log = self.lock();
        log.counts.iter().filter(|((_, m, t), _)| m == method.as_str() && t == template).map(|(_, n)| n).sum()
    }

    /// The calls since the last reset, oldest first; of very many the newest 100,000.
    #[must_use]
    pub fn all(&self) -> Vec<CallRecord> {
        self.lock().records.iter().cloned().collect()
    }

    /// The calls for which the function says true, oldest first.
    #[must_use]
    pub fn filter(&self, mut wanted: impl FnMut(&CallRecord) -> bool) -> Vec<CallRecord> {
        self.lock().records.iter().filter(|record| wanted(record)).cloned().collect()
    }

    /// The calls to a service that change something, oldest first.
    #[must_use]
    pub fn writes(&self, service: Service) -> Vec<CallRecord> {
        self.filter(|record| record.service == service && record.is_write())
    }
}

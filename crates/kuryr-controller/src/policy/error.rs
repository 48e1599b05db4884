//! Why something of a policy does not hold yet, for programs and for people.

use kuryr_openstack::{Class, Error as CloudError, Waits};
use std::time::Duration;

/// The delay after the first failure.
const FIRST_RETRY: Duration = Duration::from_millis(200);
/// The longest delay, and the one of what waits for somebody; whatever is given back cuts it short.
const LAST_RETRY: Duration = Duration::from_secs(30);
/// After so many failures in a row who needs it does without.
const PATIENCE: u32 = 4;

/// A request for a policy failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// One word for conditions, Events and metrics. Each is explained in docs/operating.md.
    pub(crate) reason: &'static str,
    /// For people.
    pub(crate) message: String,
    /// How often in a row.
    pub(crate) times: u32,
    /// It waits for somebody to change something.
    pub(crate) persistent: bool,
    /// When to try again.
    pub(crate) after: Duration,
}

impl Failure {
    /// What comes of an error after so many failures.
    pub(crate) fn of(error: &CloudError, before: u32) -> Self {
        let times = before + 1;
        let back_off = FIRST_RETRY.saturating_mul(1 << before.min(8)).min(LAST_RETRY);
        let (reason, persistent, after) = match error.class() {
            Class::RetryNow => ("CloudUnavailable", false, FIRST_RETRY.min(back_off)),
            Class::RetryLater { after } => ("CloudUnavailable", false, after.unwrap_or_default().max(back_off)),
            Class::Operator(Waits::Quota) => ("QuotaExceeded", true, LAST_RETRY),
            Class::Operator(_) | Class::Owner | Class::Bug => ("CloudRefused", true, LAST_RETRY),
        };
        // The text leaves out the request's id, so that it is the same at each try.
        let message = format!("{}: {}", error.service(), error.kind());
        Self { reason, message, times, persistent, after }
    }

    /// Whether who needs it has waited long enough, and does without from now on.
    pub(crate) fn closes(&self) -> bool {
        self.persistent || self.times >= PATIENCE
    }
}

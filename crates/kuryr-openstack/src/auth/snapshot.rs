//! A token with what came with it.

use crate::{Identity, NoEndpoint, Service, catalog::Catalog};
use http::HeaderValue;
use std::{
    fmt,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};
use tokio::time::Instant;

/// The longest time before its expiry at which a token is renewed.
const AHEAD: Duration = Duration::from_secs(300);

/// A token and the catalog that came with it. Never changed: a new one takes its place.
pub(crate) struct Snapshot {
    token: HeaderValue,
    catalog: Catalog,
    identity: Identity,
    expires: Instant,
    renew: Instant,
    claimed: AtomicBool,
}

impl Snapshot {
    /// `lifetime` is by Keystone's own clock, so that ours need not agree with it.
    pub(crate) fn new(mut token: HeaderValue, catalog: Catalog, identity: Identity, lifetime: Duration) -> Self {
        token.set_sensitive(true);
        let now = Instant::now();
        let renew = now + lifetime.saturating_sub(AHEAD.min(lifetime / 5));
        Self { token, catalog, identity, expires: now + lifetime, renew, claimed: AtomicBool::new(false) }
    }

    pub(crate) fn header(&self) -> HeaderValue {
        self.token.clone()
    }

    pub(crate) fn url(&self, service: Service) -> Result<String, NoEndpoint> {
        self.catalog.url(service)
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(crate) fn expired(&self, now: Instant) -> bool {
        now >= self.expires
    }

    /// Good, but to be renewed.
    pub(crate) fn stale(&self, now: Instant) -> bool {
        now >= self.renew
    }

    /// Whether the caller is the first who wants to renew it ahead of time.
    pub(crate) fn claim_renewal(&self) -> bool {
        !self.claimed.swap(true, Ordering::Relaxed)
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("identity", &self.identity).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(seconds: u64) -> Snapshot {
        let token = HeaderValue::from_static("secret-token");
        Snapshot::new(token, Catalog::default(), Identity::default(), Duration::from_secs(seconds))
    }

    #[test]
    fn it_is_renewed_ahead_of_its_expiry_once() {
        for (lifetime, fresh, stale) in [(3600, 3290, 3310), (100, 70, 90)] {
            let snapshot = snapshot(lifetime);
            let at = |seconds| Instant::now() + Duration::from_secs(seconds);
            assert!(!snapshot.stale(at(fresh)));
            assert!(snapshot.stale(at(stale)) && !snapshot.expired(at(stale)));
            assert!(snapshot.expired(at(lifetime + 1)));
            assert!(snapshot.claim_renewal() && !snapshot.claim_renewal());
        }
    }

    #[test]
    fn it_is_not_shown() {
        let snapshot = snapshot(1);
        assert!(!format!("{snapshot:?} {:?}", snapshot.header()).contains("secret-token"));
    }
}

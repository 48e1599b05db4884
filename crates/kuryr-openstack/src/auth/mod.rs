//! Keystone v3: one token for all requests.
//!
//! ```text
//!  request ─▶ token(): the snapshot, no lock ──────────────────────────▶ send
//!                │ none or expired      │ soon to expire                  │ 401
//!                ▼                      ▼                                 ▼
//!             lock, ask Keystone    renew in the background         renew(snapshot): lock; somebody renewed it
//!                                                                   meanwhile? use that, else ask Keystone
//! ```
//!
//! The configuration is read again before each authentication, so that rotated credentials are used. When an
//! authentication fails, all who waited for it get its error: a wrong password is tried once, not once per request.

mod error;
mod keystone;
mod snapshot;

pub use error::AuthError;
pub(crate) use snapshot::Snapshot;

use crate::{CloudConfig, http::Http, observer::Observer};
use arc_swap::{ArcSwap, ArcSwapOption};
use std::{sync::Arc, time::Duration};
use tokio::{sync::Mutex, time::Instant};

/// Gets and keeps the token.
pub(crate) struct Auth {
    http: Http,
    timeout: Duration,
    observer: Option<Observer>,
    config: ArcSwap<CloudConfig>,
    current: ArcSwapOption<Snapshot>,
    /// Held while Keystone is asked. The last failure is for those who began to wait before it.
    flight: Mutex<Option<(Instant, Arc<AuthError>)>>,
}

impl Auth {
    pub(crate) fn new(http: Http, config: CloudConfig, timeout: Duration, observer: Option<Observer>) -> Self {
        Self {
            http,
            timeout,
            observer,
            config: ArcSwap::from_pointee(config),
            current: ArcSwapOption::empty(),
            flight: Mutex::new(None),
        }
    }

    pub(crate) fn auth_url(&self) -> String {
        self.config.load().auth_url.clone()
    }

    /// The token in use, however old.
    pub(crate) fn current(&self) -> Option<Arc<Snapshot>> {
        self.current.load_full()
    }

    /// A token that is good as far as is known here.
    pub(crate) async fn token(self: &Arc<Self>) -> Result<Arc<Snapshot>, Arc<AuthError>> {
        let Some(current) = self.current() else { return self.replace(None).await };
        let now = Instant::now();
        if current.expired(now) {
            return self.replace(Some(&current)).await;
        }
        if current.stale(now) && current.claim_renewal() {
            let auth = self.clone();
            let old = current.clone();
            tokio::spawn(async move {
                if let Err(error) = auth.replace(Some(&old)).await {
                    tracing::warn!(error = %crate::chain(&error), "the token cannot be renewed ahead of its expiry");
                }
            });
        }
        Ok(current)
    }

    /// A token instead of one that a service refused.
    pub(crate) async fn renew(&self, refused: &Arc<Snapshot>) -> Result<Arc<Snapshot>, Arc<AuthError>> {
        self.replace(Some(refused)).await
    }

    async fn replace(&self, old: Option<&Arc<Snapshot>>) -> Result<Arc<Snapshot>, Arc<AuthError>> {
        let asked = Instant::now();
        let mut failure = self.flight.lock().await;
        if let Some(current) = self.current()
            && old.is_none_or(|old| !Arc::ptr_eq(old, &current))
        {
            return Ok(current);
        }
        if let Some((at, error)) = &*failure
            && *at >= asked
        {
            return Err(error.clone());
        }
        match self.authenticate().await {
            Ok(snapshot) => {
                let snapshot = Arc::new(snapshot);
                self.current.store(Some(snapshot.clone()));
                *failure = None;
                Ok(snapshot)
            }
            Err(error) => {
                let error = Arc::new(error);
                *failure = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    async fn authenticate(&self) -> Result<Snapshot, AuthError> {
        // The first time it has just been read.
        if self.current().is_some() {
            self.reload().await;
        }
        let config = self.config.load_full();
        let token = keystone::authenticate(&self.http, &config, self.timeout, self.observer.as_ref()).await?;
        Ok(token)
    }

    /// Reads the configuration again. What cannot be read is not yet wrong: a secret is being replaced, say.
    async fn reload(&self) {
        let config = self.config.load_full();
        let read = tokio::task::spawn_blocking(move || config.reload()).await;
        match read {
            Ok(Ok(Some(config))) => self.config.store(Arc::new(config)),
            Ok(Ok(None)) | Err(_) => {}
            Ok(Err(error)) => {
                let error = crate::chain(&error);
                tracing::warn!(error, "the cloud's configuration cannot be read again; using what it was");
            }
        }
    }
}

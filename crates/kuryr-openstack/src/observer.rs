//! Whoever is told of every request.

use crate::Service;
use http::Method;
use std::{sync::Arc, time::Duration};

/// One request that was made, for metrics.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The service.
    pub service: Service,
    /// The HTTP method.
    pub method: &'a Method,
    /// What it was about, without ids: `ports`, `ports/tags`.
    pub resource: &'static str,
    /// The HTTP status; none if there was no answer.
    pub status: Option<u16>,
    /// From sending to the whole answer.
    pub duration: Duration,
    /// How long it waited here for its turn.
    pub queued: Duration,
    /// The request's id.
    pub request_id: &'a str,
}

/// Told of every request.
pub type Observer = Arc<dyn Fn(&Call<'_>) + Send + Sync>;

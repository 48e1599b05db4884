//! The one way in which every request goes: queue, token, send, once more after a 401, again after a fault that
//! repeating cannot make worse.

use crate::{
    Error, ErrorKind, Priority, Refusal, Service,
    auth::{Auth, Snapshot},
    catalog::{NoEndpoint, unversioned},
    http::{Answer, Http},
    limit::{Limiter, Outcome},
    observer::{Call, Observer},
};
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use http_body_util::Full;
use std::{fmt, sync::Arc, time::Duration};
use tokio::time::Instant;
use uuid::Uuid;

/// The header in which OpenStack's services give, and take, the id of a request.
const REQUEST_ID: &str = "x-openstack-request-id";
/// How often a read or a delete is repeated.
const RETRIES: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Whoever is to wait longer than this for a busy service is told so and decides.
const LONGEST_WISH: Duration = Duration::from_secs(10);

/// How the client behaves.
#[derive(Clone)]
pub struct Options {
    /// Told of every request.
    pub observer: Option<Observer>,
    /// The most requests at once to one service.
    pub concurrency: usize,
    /// The longest that one request may take.
    pub timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { observer: None, concurrency: 32, timeout: Duration::from_secs(60) }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { observer, concurrency, timeout } = self;
        f.debug_struct("Options")
            .field("observer", &observer.is_some())
            .field("concurrency", concurrency)
            .field("timeout", timeout)
            .finish()
    }
}

/// How one call is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallOptions {
    pub(crate) priority: Priority,
    pub(crate) within: Duration,
}

impl Default for CallOptions {
    fn default() -> Self {
        Self { priority: Priority::Interactive, within: Duration::from_secs(120) }
    }
}

/// A request, still without host and token.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) service: Service,
    pub(crate) method: Method,
    pub(crate) resource: &'static str,
    /// After the version: `/ports/<id>`.
    pub(crate) path: String,
    /// The path comes after the service's root instead, above all its versions.
    pub(crate) above_versions: bool,
    /// Without the question mark.
    pub(crate) query: String,
    pub(crate) body: Option<Bytes>,
    pub(crate) if_match: Option<u64>,
}

/// Connections, token and limits, shared by all clients of one cloud.
pub(crate) struct Session {
    http: Http,
    pub(crate) auth: Arc<Auth>,
    network: Arc<Limiter>,
    load_balancer: Arc<Limiter>,
    options: Options,
}

impl Session {
    pub(crate) fn new(http: Http, auth: Arc<Auth>, options: Options) -> Self {
        let limiter = || Limiter::new(options.concurrency);
        Self { http, auth, network: limiter(), load_balancer: limiter(), options }
    }

    fn limiter(&self, service: Service) -> &Arc<Limiter> {
        match service {
            Service::LoadBalancer => &self.load_balancer,
            Service::Network | Service::Identity => &self.network,
        }
    }

    /// Makes a call: the answer of a success, or an error.
    pub(crate) async fn call(&self, request: &Request, options: CallOptions) -> Result<Answer, Error> {
        let deadline = Instant::now() + options.within;
        let mut retries = 0;
        loop {
            let error = match self.attempt(request, options, deadline).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let pause = pause(retries, error.refusal().and_then(|refusal| refusal.retry_after));
            let too_long = pause > LONGEST_WISH || Instant::now() + pause >= deadline;
            if retries == RETRIES || too_long || !repeatable(&request.method, &error) {
                return Err(error);
            }
            retries += 1;
            tracing::debug!(error = %crate::chain(&error), ?pause, retries, "trying an OpenStack call again");
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt(&self, request: &Request, options: CallOptions, deadline: Instant) -> Result<Answer, Error> {
        let id = format!("req-{}", Uuid::new_v4());
        let queued = Instant::now();
        let fail = |kind| Error::new(request.service, request.method.clone(), request.path.clone(), id.clone(), kind);
        let not_sent = |_| fail(ErrorKind::NotSent(options.within));
        let admitted = self.limiter(request.service).acquire(options.priority);
        let permit = tokio::time::timeout_at(deadline, admitted).await.map_err(not_sent)?;
        let token = tokio::time::timeout_at(deadline, self.auth.token()).await.map_err(not_sent)?;
        let token = token.map_err(|error| fail(ErrorKind::Auth(error)))?;
        let queued = queued.elapsed();
        if Instant::now() >= deadline {
            return Err(fail(ErrorKind::NotSent(options.within)));
        }

        let mut result = self.send(request, &token, &id, queued, deadline).await;
        if matches!(&result, Ok(answer) if answer.status == StatusCode::UNAUTHORIZED) {
            let renewed = tokio::time::timeout_at(deadline, self.auth.renew(&token)).await.map_err(not_sent)?;
            let renewed = renewed.map_err(|error| fail(ErrorKind::Auth(error)))?;
            result = self.send(request, &renewed, &id, queued, deadline).await;
        }
        let overloaded = match &result {
            Ok(answer) => matches!(answer.status.as_u16(), 429 | 503),
            // A caller in a hurry says nothing about the service.
            Err(kind) => matches!(kind, ErrorKind::Timeout(after) if *after >= self.options.timeout),
        };
        permit.report(if overloaded { Outcome::Overloaded } else { Outcome::Fine });
        drop(permit);

        let answer = result.map_err(fail)?;
        if answer.status.is_success() {
            return Ok(answer);
        }
        let refusal = Refusal::read(answer.status.as_u16(), &answer.headers, &answer.body);
        let id = request_id(&answer, &id).to_owned();
        let kind = ErrorKind::Refused(refusal);
        Err(Error::new(request.service, request.method.clone(), request.path.clone(), id, kind))
    }

    async fn send(
        &self,
        request: &Request,
        token: &Snapshot,
        id: &str,
        queued: Duration,
        deadline: Instant,
    ) -> Result<Answer, ErrorKind> {
        let message = build(request, token, id)?;
        let started = Instant::now();
        let timeout = self.options.timeout.min(deadline.saturating_duration_since(started));
        let result = self.http.send(message, timeout).await;
        let duration = started.elapsed();
        let status = result.as_ref().ok().map(|answer| answer.status.as_u16());
        let request_id = result.as_ref().map_or(id, |answer| request_id(answer, id));
        let Request { service, method, resource, path, .. } = request;
        tracing::debug!(%service, %method, path, status, request_id, ms = duration.as_millis(), "OpenStack call");
        if let Some(observer) = &self.options.observer {
            observer(&Call { service: *service, method, resource, status, duration, queued, request_id });
        }
        result
    }
}

fn build(request: &Request, token: &Snapshot, id: &str) -> Result<http::Request<Full<Bytes>>, ErrorKind> {
    let base = token.url(request.service).map_err(|error: NoEndpoint| ErrorKind::NoEndpoint(error))?;
    let base = if request.above_versions { unversioned(&base) } else { &base };
    let mark = if request.query.is_empty() { "" } else { "?" };
    let url = format!("{base}{}{mark}{}", request.path, request.query);
    let mut builder = http::Request::builder()
        .method(&request.method)
        .uri(url)
        .header(header::USER_AGENT, concat!("kuryr/", env!("CARGO_PKG_VERSION")))
        .header(header::ACCEPT, "application/json")
        .header(REQUEST_ID, id)
        .header("x-auth-token", token.header());
    if request.body.is_some() {
        builder = builder.header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    if let Some(revision) = request.if_match {
        builder = builder.header(header::IF_MATCH, format!("revision_number={revision}"));
    }
    // Nothing was sent: the address in the catalog is none.
    builder.body(Full::new(request.body.clone().unwrap_or_default())).map_err(|error| ErrorKind::Connect(error.into()))
}

fn request_id<'a>(answer: &'a Answer, sent: &'a str) -> &'a str {
    answer.headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or(sent)
}

/// Whether trying again can help and cannot do anything twice.
fn repeatable(method: &Method, error: &Error) -> bool {
    let idempotent = matches!(*method, Method::GET | Method::DELETE);
    match error.kind() {
        ErrorKind::Connect(_) => true,
        ErrorKind::Broken(_) | ErrorKind::Timeout(_) => idempotent,
        ErrorKind::Refused(refusal) => match refusal.status {
            429 => true,
            500 | 502 | 503 | 504 => idempotent,
            _ => false,
        },
        ErrorKind::Tls(_)
        | ErrorKind::NotSent(_)
        | ErrorKind::Malformed(_)
        | ErrorKind::Auth(_)
        | ErrorKind::NoEndpoint(_) => false,
    }
}

/// Full jitter over a doubling range, so that those who failed together do not return together. A service's own wish
/// is kept to, plus jitter.
fn pause(retries: u32, wish: Option<Duration>) -> Duration {
    let range = (FIRST_PAUSE * 2u32.saturating_pow(retries)).min(LONGEST_PAUSE);
    let jitter = range.mul_f64(fastrand::f64());
    wish.map_or(range / 4 + jitter.mul_f64(0.75), |wish| wish + jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_stay_bounded_and_keep_to_the_services_wish() {
        for _ in 0..100 {
            assert!(pause(0, None) >= FIRST_PAUSE / 4 && pause(0, None) <= FIRST_PAUSE);
            assert!(pause(40, None) <= LONGEST_PAUSE);
            assert!(pause(1, Some(Duration::from_secs(3))) >= Duration::from_secs(3));
        }
    }
}

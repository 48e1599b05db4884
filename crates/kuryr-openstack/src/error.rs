//! What can go wrong with a call, with all that a person needs to find it in the services' logs.

use crate::{AuthError, Class, NoEndpoint, Service};
use http::{HeaderMap, Method};
pub use kuryr_model::chain;
use serde::Deserialize;
use std::{error::Error as StdError, fmt, sync::Arc, time::Duration};

/// The longest message of a service that is kept, in characters.
const MAX_MESSAGE: usize = 600;

/// A call that did not succeed. Cheap to clone, so that all who waited for one call can have its error.
#[derive(Clone)]
pub struct Error(Arc<Failure>);

struct Failure {
    service: Service,
    method: Method,
    path: String,
    request_id: String,
    kind: ErrorKind,
}

/// How a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No connection: nothing was sent.
    #[error("cannot connect")]
    Connect(#[source] Box<dyn StdError + Send + Sync>),
    /// The server's certificate is not to be trusted, or TLS failed otherwise: nothing was sent.
    #[error("no TLS connection (check cacert)")]
    Tls(#[source] Box<dyn StdError + Send + Sync>),
    /// The connection broke after the request may have been sent.
    #[error("the connection broke before the answer was complete")]
    Broken(#[source] Box<dyn StdError + Send + Sync>),
    /// No answer in time after the request was sent.
    #[error("no answer within {:.1} s", .0.as_secs_f64())]
    Timeout(Duration),
    /// The caller's deadline passed before the request was sent: the service, or its queue here, is too slow.
    #[error("not sent before its deadline of {:.1} s passed", .0.as_secs_f64())]
    NotSent(Duration),
    /// The service answered with something else than success.
    #[error("{0}")]
    Refused(Refusal),
    /// The service answered with success and a body that cannot be read.
    #[error("the answer cannot be understood")]
    Malformed(#[source] Box<dyn StdError + Send + Sync>),
    /// Keystone gave no token.
    #[error("no token")]
    Auth(#[source] Arc<AuthError>),
    /// The catalog does not have the service.
    #[error(transparent)]
    NoEndpoint(#[from] NoEndpoint),
}

/// An answer that is not success.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// Name of the error where the service gives one: Neutron's exception (`OverQuota`), Keystone's title.
    pub kind: String,
    /// What the service says.
    pub message: String,
    /// When the service wants to be asked again.
    pub retry_after: Option<Duration>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        if !self.kind.is_empty() {
            write!(f, " {}", self.kind)?;
        }
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        Ok(())
    }
}

impl Refusal {
    /// Reads the error bodies of Neutron, Octavia, Keystone and the proxies before them.
    #[must_use]
    pub fn read(status: u16, headers: &HeaderMap, body: &[u8]) -> Self {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum NeutronError {
            Whole {
                #[serde(default, rename = "type")]
                kind: String,
                #[serde(default)]
                message: String,
            },
            Text(String),
        }
        #[derive(Deserialize)]
        struct KeystoneError {
            #[serde(default)]
            title: String,
            #[serde(default)]
            message: String,
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Body {
            Neutron {
                #[serde(rename = "NeutronError")]
                error: NeutronError,
            },
            Octavia {
                faultstring: String,
            },
            Keystone {
                error: KeystoneError,
            },
            Plain {
                message: String,
            },
        }
        let (kind, message) = match serde_json::from_slice(body) {
            Ok(Body::Neutron { error: NeutronError::Whole { kind, message } }) => (kind, message),
            Ok(Body::Neutron { error: NeutronError::Text(message) } | Body::Plain { message }) => {
                (String::new(), message)
            }
            Ok(Body::Octavia { faultstring }) => (String::new(), faultstring),
            Ok(Body::Keystone { error }) => (error.title, error.message),
            Err(_) => (String::new(), readable(headers, body)),
        };
        let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
        let message = message.chars().take(MAX_MESSAGE).collect();
        Self { status, kind, message, retry_after: retry_after(headers) }
    }
}

/// The text of a body that is not JSON; the HTML pages of proxies say nothing that the status does not.
fn readable(headers: &HeaderMap, body: &[u8]) -> String {
    let html = headers.get(http::header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    if html { String::new() } else { String::from_utf8_lossy(body).into_owned() }
}

/// Only seconds: the other form, a date, depends on two clocks that agree.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(http::header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

impl Error {
    pub(crate) fn new(service: Service, method: Method, path: String, request_id: String, kind: ErrorKind) -> Self {
        Self(Arc::new(Failure { service, method, path, request_id, kind }))
    }

    /// How it failed.
    #[must_use]
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// The service that was called.
    #[must_use]
    pub fn service(&self) -> Service {
        self.0.service
    }

    /// The HTTP method of the call.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.0.method
    }

    /// The path of the call, without host and query.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.0.path
    }

    /// The request id that the service answered with, else the one that was sent: its logs have both.
    #[must_use]
    pub fn request_id(&self) -> &str {
        &self.0.request_id
    }

    /// What the service answered, if it did.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match self.kind() {
            ErrorKind::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// The HTTP status, if there was an answer that is not success.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.refusal().map(|refusal| refusal.status)
    }

    /// Whether the service does not have what the path names.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(404)
    }

    /// Whether somebody else changed the object since it was read.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.status() == Some(412)
    }

    /// Whether the request may have been carried out although it failed. A read never is: nothing is lost by
    /// repeating it.
    #[must_use]
    pub fn is_ambiguous(&self) -> bool {
        if self.0.method == Method::GET {
            return false;
        }
        match self.kind() {
            ErrorKind::Broken(_) | ErrorKind::Timeout(_) | ErrorKind::Malformed(_) => true,
            // A service that says why it did nothing did nothing, whatever the status.
            ErrorKind::Refused(refusal) => refusal.status >= 500 && matches!(self.class(), Class::RetryLater { .. }),
            ErrorKind::Connect(_)
            | ErrorKind::Tls(_)
            | ErrorKind::NotSent(_)
            | ErrorKind::Auth(_)
            | ErrorKind::NoEndpoint(_) => false,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { service, method, path, request_id, kind } = &*self.0;
        write!(f, "{service}: {method} {path}: {kind} ({request_id})")
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({})", chain(self))
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.kind.source()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: u16, body: &str) -> (String, String) {
        let refusal = Refusal::read(status, &HeaderMap::new(), body.as_bytes());
        (refusal.kind, refusal.message)
    }

    #[test]
    fn every_services_error_body_is_read() {
        let pair = |kind: &str, message: &str| (kind.to_owned(), message.to_owned());
        assert_eq!(
            read(409, r#"{"NeutronError": {"type": "OverQuota", "message": "Quota exceeded", "detail": ""}}"#),
            pair("OverQuota", "Quota exceeded")
        );
        assert_eq!(read(500, r#"{"NeutronError": "Request Failed"}"#), pair("", "Request Failed"));
        assert_eq!(
            read(409, r#"{"faultcode": "Client", "faultstring": "Load Balancer x is immutable", "debuginfo": null}"#),
            pair("", "Load Balancer x is immutable")
        );
        assert_eq!(
            read(401, r#"{"error": {"code": 401, "message": "Wrong.", "title": "Unauthorized"}}"#),
            pair("Unauthorized", "Wrong.")
        );
        assert_eq!(read(503, r#"{"message": "no servers\n  here"}"#), pair("", "no servers here"));
        assert_eq!(read(502, "Bad Gateway"), pair("", "Bad Gateway"));
        assert_eq!(read(500, ""), pair("", ""));
    }

    #[test]
    fn the_html_of_a_proxy_is_left_out_and_long_messages_are_cut() {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "text/html; charset=utf-8".parse().unwrap());
        headers.insert("retry-after", "7".parse().unwrap());
        let refusal = Refusal::read(503, &headers, b"<html><body><h1>503</h1></body></html>");
        assert_eq!(refusal.to_string(), "503");
        assert_eq!(refusal.retry_after, Some(Duration::from_secs(7)));
        assert_eq!(read(500, &"x".repeat(10_000)).1.len(), MAX_MESSAGE);
    }

    #[test]
    fn an_error_names_the_call_and_its_request() {
        let refusal = Refusal { status: 409, kind: "OverQuota".into(), message: "no more".into(), retry_after: None };
        let error = Error::new(
            Service::Network,
            Method::POST,
            "/v2.0/ports".into(),
            "req-1".into(),
            ErrorKind::Refused(refusal),
        );
        assert_eq!(error.to_string(), "network: POST /v2.0/ports: 409 OverQuota: no more (req-1)");
        let broken = ErrorKind::Connect("connection refused".into());
        let error = Error::new(Service::Network, Method::GET, "/v2.0/ports".into(), "req-2".into(), broken);
        assert_eq!(chain(&error), "network: GET /v2.0/ports: cannot connect (req-2): connection refused");
    }
}

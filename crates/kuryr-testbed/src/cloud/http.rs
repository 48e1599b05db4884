//! What a service sees of an HTTP request, and what it answers: plain values, so that services are functions.

use std::fmt;

use axum::body::Bytes;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use serde_json::Value;

/// A service of the cloud, told by the first part of the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Service {
    /// Keystone: `/`, `/v3/...`, `/identity/v3/...`.
    Identity,
    /// Neutron: `/network/v2.0/...`, `/v2.0/...`.
    Network,
    /// Octavia: `/load-balancer/v2/lbaas/...`.
    LoadBalancer,
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Identity => "identity",
            Self::Network => "network",
            Self::LoadBalancer => "load-balancer",
        })
    }
}

/// One request, as the services, the fault rules and the call log see it.
#[derive(Debug, Clone)]
pub struct Call {
    /// The service that it is for.
    pub service: Service,
    /// The HTTP method.
    pub method: Method,
    /// The segments of the path below the service's root, percent-decoded: `["v2.0", "ports", "<id>"]`.
    pub path: Vec<String>,
    /// The query in order, percent-decoded.
    pub query: Vec<(String, String)>,
    /// The body as it came.
    pub body: Bytes,
    /// The id that the answer carries in `x-openstack-request-id`.
    pub request_id: String,
    pub(super) token: Option<String>,
    pub(super) subject_token: Option<String>,
    pub(super) if_match: Option<String>,
    pub(super) base_url: String,
    pub(super) now: Timestamp,
}

impl Call {
    /// Reads a request. `base_url` overrides the URL that is otherwise taken from the Host header. `None` when the path belongs to no
    /// service.
    pub(super) fn read(
        parts: &Parts,
        body: Bytes,
        request_id: String,
        base_url: Option<&str>,
        now: Timestamp,
    ) -> Option<Self> {
        let (service, path) = split_path(parts.uri.path())?;
        let query = form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
        let host = text(&parts.headers, &header::HOST).unwrap_or_else(|| "localhost".to_owned());
        Some(Self {
            service,
            method: parts.method.clone(),
            path,
            query,
            body,
            request_id,
            token: text(&parts.headers, &HeaderName::from_static("x-auth-token")),
            subject_token: text(&parts.headers, &HeaderName::from_static("x-subject-token")),
            if_match: text(&parts.headers, &header::IF_MATCH),
            base_url: base_url.map_or_else(|| format!("http://{host}"), str::to_owned),
            now,
        })
    }

    /// The path below the service's root: `/v2.0/ports/<id>`.
    #[must_use]
    pub fn path_text(&self) -> String {
        format!("/{}", self.path.join("/"))
    }

    /// The path with ids replaced, so that calls of one kind count together: `/v2.0/ports/{id}`.
    #[must_use]
    pub fn template(&self) -> String {
        let mut out = String::new();
        let mut after = "";
        for segment in &self.path {
            out.push('/');
            out.push_str(match after {
                "tags" => "{tag}",
                "quotas" => "{project}",
                _ if uuid::Uuid::try_parse(segment).is_ok() => "{id}",
                _ => segment,
            });
            after = segment;
        }
        if out.is_empty() { "/".to_owned() } else { out }
    }

    /// The body as JSON, if it is JSON.
    #[must_use]
    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// How many objects the body carries: the length of the list of a bulk create, else 1 with a body and 0 without.
    #[must_use]
    pub fn items(&self) -> usize {
        match self.json() {
            Some(Value::Object(map)) => match map.values().next() {
                Some(Value::Array(list)) if map.len() == 1 => list.len(),
                _ => 1,
            },
            Some(_) => 1,
            None => 0,
        }
    }

    /// The same for the first half of what a bulk asks for.
    pub(super) fn first_half(&self) -> Self {
        let mut call = self.clone();
        let mut json = self.json();
        if let Some(Value::Array(list)) =
            json.as_mut().and_then(Value::as_object_mut).and_then(|map| map.values_mut().next())
        {
            list.truncate(list.len() / 2);
            call.body = json.map(|json| json.to_string()).unwrap_or_default().into();
        }
        call
    }

    /// The segments of the path as string slices, for matching.
    pub(super) fn segments(&self) -> Vec<&str> {
        self.path.iter().map(String::as_str).collect()
    }
}

fn split_path(path: &str) -> Option<(Service, Vec<String>)> {
    let mut segments = Vec::new();
    for raw in path.split('/').filter(|s| !s.is_empty()) {
        segments.push(percent_decode_str(raw).decode_utf8().ok()?.into_owned());
    }
    match segments.first().map(String::as_str) {
        Some("identity") => Some((Service::Identity, segments.split_off(1))),
        None | Some("v3") => Some((Service::Identity, segments)),
        Some("network") => Some((Service::Network, segments.split_off(1))),
        Some("v2.0") => Some((Service::Network, segments)),
        Some("load-balancer") => Some((Service::LoadBalancer, segments.split_off(1))),
        Some(_) => None,
    }
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// What a service answers.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: Option<Value>,
}

impl Answer {
    pub(super) fn new(status: StatusCode, body: Value) -> Self {
        Self { status, headers: Vec::new(), body: Some(body) }
    }

    pub(super) fn ok(body: Value) -> Self {
        Self::new(StatusCode::OK, body)
    }

    pub(super) fn empty(status: StatusCode) -> Self {
        Self { status, headers: Vec::new(), body: None }
    }

    /// Adds a header; a value that HTTP does not allow is left out.
    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((HeaderName::from_static(name), value));
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(uri: &str, body: &'static str) -> Option<Call> {
        let (parts, ()) = axum::http::Request::builder().uri(uri).body(()).unwrap().into_parts();
        Call::read(&parts, Bytes::from_static(body.as_bytes()), "req-1".into(), None, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn the_first_segment_chooses_the_service() {
        assert_eq!(call("/network/v2.0/ports", "").unwrap().service, Service::Network);
        assert_eq!(call("/v2.0/ports", "").unwrap().path_text(), "/v2.0/ports");
        assert_eq!(call("/identity/v3/auth/tokens", "").unwrap().path_text(), "/v3/auth/tokens");
        assert_eq!(call("/", "").unwrap().service, Service::Identity);
        assert!(call("/compute/v2.1", "").is_none());
    }

    #[test]
    fn the_template_hides_ids_tags_and_projects() {
        let id = uuid::Uuid::nil();
        assert_eq!(call(&format!("/v2.0/ports/{id}"), "").unwrap().template(), "/v2.0/ports/{id}");
        assert_eq!(
            call(&format!("/v2.0/ports/{id}/tags/kuryr%3Aa"), "").unwrap().template(),
            "/v2.0/ports/{id}/tags/{tag}"
        );
        assert_eq!(
            call("/v2.0/quotas/abc/details.json", "").unwrap().template(),
            "/v2.0/quotas/{project}/details.json"
        );
    }

    #[test]
    fn a_bulk_body_counts_its_items() {
        assert_eq!(call("/v2.0/ports", r#"{"ports":[{},{},{}]}"#).unwrap().items(), 3);
        assert_eq!(call("/v2.0/ports", r#"{"port":{}}"#).unwrap().items(), 1);
        assert_eq!(call("/v2.0/ports", "").unwrap().items(), 0);
    }
}

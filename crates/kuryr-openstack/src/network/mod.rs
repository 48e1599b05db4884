//! Neutron: a file for each kind of object, a function for each call.
//!
//! Lists ask only for the fields that are read and follow pages; filters are by tag wherever the caller looks for what
//! is its own. Deleting what is absent is success. Nothing here retries a create.

pub mod agents;
pub mod extensions;
mod filter;
pub mod ip_availability;
pub mod networks;
mod page;
pub mod ports;
pub mod quotas;
pub mod routers;
pub mod security_groups;
pub mod subnet_pools;
pub mod subnets;
pub mod tags;

pub use filter::Filter;
pub use ports::{NewFixedIp, NewPort, PortUpdate};
pub use routers::NewRouter;
pub use subnets::NewSubnet;

use crate::{
    Error, ErrorKind, Priority, Service,
    http::Answer,
    session::{CallOptions, Request, Session},
};
use bytes::Bytes;
use http::Method;
use serde::{Serialize, de::DeserializeOwned};
use std::{fmt, sync::Arc, time::Duration};

/// How Neutron names a kind of object, and the fields of it that are read.
struct Kind {
    /// In paths: `security-groups`.
    path: &'static str,
    /// In bodies: `security_groups`.
    plural: &'static str,
    /// In bodies: `security_group`.
    single: &'static str,
    fields: &'static [&'static str],
}

/// Neutron's client. Cheap to clone.
#[derive(Clone)]
pub struct Network {
    session: Arc<Session>,
    options: CallOptions,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Network {
    pub(crate) fn new(session: Arc<Session>, options: CallOptions) -> Self {
        Self { session, options }
    }

    /// The same client for requests that nobody waits for: they go after those that somebody does.
    #[must_use]
    pub fn background(&self) -> Self {
        let options = CallOptions { priority: Priority::Background, ..self.options };
        Self { session: self.session.clone(), options }
    }

    /// The same client with another deadline for each call, waiting and repeating included. Two minutes unless said.
    #[must_use]
    pub fn within(&self, time: Duration) -> Self {
        Self { session: self.session.clone(), options: CallOptions { within: time, ..self.options } }
    }

    /// Makes a call. `path` comes after the version.
    async fn call(
        &self,
        method: Method,
        resource: &'static str,
        path: String,
        query: String,
        body: Option<Bytes>,
        if_match: Option<u64>,
    ) -> Result<Answer, Error> {
        let request = Request { service: Service::Network, method, resource, path, query, body, if_match };
        self.session.call(&request, self.options).await
    }

    async fn list<T: DeserializeOwned>(&self, kind: &Kind, filter: &Filter) -> Result<Vec<T>, Error> {
        let mut all = Vec::new();
        for filter in filter.chunks() {
            let mut marker: Option<String> = None;
            loop {
                let query = filter.query(kind.fields, marker.as_deref());
                let path = format!("/{}", kind.path);
                let answer = self.call(Method::GET, kind.path, path.clone(), query, None, None).await?;
                let (items, next) = page::read_list(&answer.body, kind.plural)
                    .map_err(|e| malformed(Method::GET, &path, &answer, e))?;
                let done = items.is_empty() || next.is_none() || next == marker;
                all.extend(items);
                marker = next;
                if done {
                    break;
                }
            }
        }
        Ok(all)
    }

    async fn get<T: DeserializeOwned>(&self, kind: &Kind, id: impl fmt::Display) -> Result<T, Error> {
        let query = Filter::new().fields_only(kind.fields);
        let path = format!("/{}/{id}", kind.path);
        let answer = self.call(Method::GET, kind.path, path.clone(), query, None, None).await?;
        page::read(&answer.body, kind.single).map_err(|error| malformed(Method::GET, &path, &answer, error))
    }

    async fn create<T: DeserializeOwned>(&self, kind: &Kind, new: &impl Serialize) -> Result<T, Error> {
        self.send(Method::POST, kind, format!("/{}", kind.path), kind.single, new, None).await
    }

    /// Creates all or, if one cannot be created, none.
    async fn create_many<T: DeserializeOwned>(&self, kind: &Kind, new: &[impl Serialize]) -> Result<Vec<T>, Error> {
        if new.is_empty() {
            return Ok(Vec::new());
        }
        self.send(Method::POST, kind, format!("/{}", kind.path), kind.plural, &new, None).await
    }

    async fn update<T: DeserializeOwned>(
        &self,
        kind: &Kind,
        id: impl fmt::Display,
        change: &impl Serialize,
        revision: Option<u64>,
    ) -> Result<T, Error> {
        self.send(Method::PUT, kind, format!("/{}/{id}", kind.path), kind.single, change, revision).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        kind: &Kind,
        path: String,
        key: &'static str,
        value: &impl Serialize,
        revision: Option<u64>,
    ) -> Result<T, Error> {
        let body = body(&method, &path, &page::Wrapped(key, value))?;
        let answer = self.call(method.clone(), kind.path, path.clone(), String::new(), Some(body), revision).await?;
        page::read(&answer.body, key).map_err(|error| malformed(method, &path, &answer, error))
    }

    async fn delete(&self, kind: &Kind, id: impl fmt::Display) -> Result<(), Error> {
        let path = format!("/{}/{id}", kind.path);
        match self.call(Method::DELETE, kind.path, path, String::new(), None, None).await {
            Err(error) if !error.is_not_found() => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

/// A request's body. A value that does not serialise is Kuryr's fault and was not sent.
fn body(method: &Method, path: &str, value: &impl Serialize) -> Result<Bytes, Error> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|error| {
        let kind = ErrorKind::Malformed(Box::new(error));
        Error::new(Service::Network, method.clone(), path.to_owned(), "not sent".to_owned(), kind)
    })
}

fn malformed(method: Method, path: &str, answer: &Answer, error: serde_json::Error) -> Error {
    let id = answer.headers.get("x-openstack-request-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
    Error::new(Service::Network, method, path.to_owned(), id.to_owned(), ErrorKind::Malformed(Box::new(error)))
}

//! What the clients of Neutron and Octavia have in common: lists with filters and pages, bodies, and errors about them.

mod filter;
mod page;

pub use filter::Filter;
pub(crate) use filter::escape;
pub(crate) use page::Wrapped;

use crate::{
    Error, ErrorKind, Priority, Service,
    http::Answer,
    session::{CallOptions, Request, Session},
};
use bytes::Bytes;
use http::Method;
use serde::{Serialize, de::DeserializeOwned};
use std::{fmt, sync::Arc, time::Duration};

/// How a service names a kind of object, and the fields of it that are read.
pub(crate) struct Kind {
    /// In paths and metrics: `security-groups`.
    pub(crate) path: &'static str,
    /// In bodies: `security_groups`.
    pub(crate) plural: &'static str,
    /// In bodies: `security_group`.
    pub(crate) single: &'static str,
    pub(crate) fields: &'static [&'static str],
}

/// The calls to one service. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Rest {
    service: Service,
    /// What all paths begin with, after the version.
    root: &'static str,
    session: Arc<Session>,
    options: CallOptions,
}

impl fmt::Debug for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rest").field("service", &self.service).field("options", &self.options).finish_non_exhaustive()
    }
}

impl Rest {
    pub(crate) fn new(service: Service, root: &'static str, session: Arc<Session>, options: CallOptions) -> Self {
        Self { service, root, session, options }
    }

    /// For requests that nobody waits for.
    pub(crate) fn background(&self) -> Self {
        let options = CallOptions { priority: Priority::Background, ..self.options };
        Self { options, ..self.clone() }
    }

    /// With another deadline for each call.
    pub(crate) fn within(&self, within: Duration) -> Self {
        Self { options: CallOptions { within, ..self.options }, ..self.clone() }
    }

    /// Makes a call. `path` comes after the version and the root.
    pub(crate) async fn call(
        &self,
        method: Method,
        resource: &'static str,
        path: &str,
        query: String,
        body: Option<Bytes>,
        if_match: Option<u64>,
    ) -> Result<Answer, Error> {
        let path = self.full(path);
        let request =
            Request { service: self.service, method, resource, path, above_versions: false, query, body, if_match };
        self.session.call(&request, self.options).await
    }

    /// What is under `key` in what the service says about itself, at its root.
    pub(crate) async fn discover<T: DeserializeOwned>(&self, key: &'static str) -> Result<T, Error> {
        let request = Request {
            service: self.service,
            method: Method::GET,
            resource: key,
            path: "/".to_owned(),
            above_versions: true,
            query: String::new(),
            body: None,
            if_match: None,
        };
        let answer = self.session.call(&request, self.options).await?;
        page::read(&answer.body, key).map_err(|error| self.malformed(Method::GET, "", &answer, error))
    }

    fn full(&self, path: &str) -> String {
        format!("{}{path}", self.root)
    }

    /// What is under `key` in the answer to a GET.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        resource: &'static str,
        path: &str,
        query: String,
        key: &str,
    ) -> Result<T, Error> {
        let answer = self.call(Method::GET, resource, path, query, None, None).await?;
        page::read(&answer.body, key).map_err(|error| self.malformed(Method::GET, path, &answer, error))
    }

    /// What is under `key` in the answer to a request with a body.
    pub(crate) async fn tell<T: DeserializeOwned>(
        &self,
        method: Method,
        resource: &'static str,
        path: &str,
        value: &impl Serialize,
        key: &str,
        revision: Option<u64>,
    ) -> Result<T, Error> {
        let body = self.body(&method, path, value)?;
        let answer = self.call(method.clone(), resource, path, String::new(), Some(body), revision).await?;
        page::read(&answer.body, key).map_err(|error| self.malformed(method, path, &answer, error))
    }

    /// The whole answer to a request with a body.
    pub(crate) async fn tell_bare<T: DeserializeOwned>(
        &self,
        method: Method,
        resource: &'static str,
        path: &str,
        value: &impl Serialize,
    ) -> Result<T, Error> {
        let body = self.body(&method, path, value)?;
        let answer = self.call(method.clone(), resource, path, String::new(), Some(body), None).await?;
        serde_json::from_slice(&answer.body).map_err(|error| self.malformed(method, path, &answer, error))
    }

    /// A PUT whose answer says nothing.
    pub(crate) async fn put(&self, resource: &'static str, path: &str, value: &impl Serialize) -> Result<(), Error> {
        let body = self.body(&Method::PUT, path, value)?;
        self.call(Method::PUT, resource, path, String::new(), Some(body), None).await.map(drop)
    }

    /// All objects that the filter lets through.
    pub(crate) async fn list<T: DeserializeOwned>(&self, kind: &Kind, filter: &Filter) -> Result<Vec<T>, Error> {
        self.list_at(kind, &format!("/{}", kind.path), filter).await
    }

    /// The same where the path has an id in it.
    pub(crate) async fn list_at<T: DeserializeOwned>(
        &self,
        kind: &Kind,
        path: &str,
        filter: &Filter,
    ) -> Result<Vec<T>, Error> {
        let mut all = Vec::new();
        for filter in filter.chunks() {
            let mut marker: Option<String> = None;
            loop {
                let query = filter.query(kind.fields, marker.as_deref());
                let answer = self.call(Method::GET, kind.path, path, query, None, None).await?;
                let (items, next) = page::read_list(&answer.body, kind.plural)
                    .map_err(|error| self.malformed(Method::GET, path, &answer, error))?;
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

    pub(crate) async fn get<T: DeserializeOwned>(&self, kind: &Kind, id: impl fmt::Display) -> Result<T, Error> {
        let query = Filter::new().fields_only(kind.fields);
        self.ask(kind.path, &format!("/{}/{id}", kind.path), query, kind.single).await
    }

    pub(crate) async fn create<T: DeserializeOwned>(&self, kind: &Kind, new: &impl Serialize) -> Result<T, Error> {
        let new = page::Wrapped(kind.single, new);
        self.tell(Method::POST, kind.path, &format!("/{}", kind.path), &new, kind.single, None).await
    }

    /// Creates all or, if one cannot be created, none.
    pub(crate) async fn create_many<T: DeserializeOwned>(
        &self,
        kind: &Kind,
        new: &[impl Serialize],
    ) -> Result<Vec<T>, Error> {
        if new.is_empty() {
            return Ok(Vec::new());
        }
        let new = page::Wrapped(kind.plural, &new);
        self.tell(Method::POST, kind.path, &format!("/{}", kind.path), &new, kind.plural, None).await
    }

    /// Changes one; with a revision only if it still has that one.
    pub(crate) async fn update<T: DeserializeOwned>(
        &self,
        kind: &Kind,
        id: impl fmt::Display,
        change: &impl Serialize,
        revision: Option<u64>,
    ) -> Result<T, Error> {
        let change = page::Wrapped(kind.single, change);
        self.tell(Method::PUT, kind.path, &format!("/{}/{id}", kind.path), &change, kind.single, revision).await
    }

    /// Deletes one. One that is gone already is deleted.
    pub(crate) async fn delete(&self, kind: &Kind, id: impl fmt::Display) -> Result<(), Error> {
        self.delete_at(kind.path, &format!("/{}/{id}", kind.path), String::new()).await
    }

    /// The same by path.
    pub(crate) async fn delete_at(&self, resource: &'static str, path: &str, query: String) -> Result<(), Error> {
        match self.call(Method::DELETE, resource, path, query, None, None).await {
            Err(error) if !error.is_not_found() => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// A request's body. A value that does not serialise is Kuryr's fault and was not sent.
    fn body(&self, method: &Method, path: &str, value: &impl Serialize) -> Result<Bytes, Error> {
        serde_json::to_vec(value).map(Bytes::from).map_err(|error| {
            let kind = ErrorKind::Malformed(Box::new(error));
            Error::new(self.service, method.clone(), self.full(path), "not sent".to_owned(), kind)
        })
    }

    fn malformed(&self, method: Method, path: &str, answer: &Answer, error: serde_json::Error) -> Error {
        let id = answer.headers.get("x-openstack-request-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
        let kind = ErrorKind::Malformed(Box::new(error));
        Error::new(self.service, method, self.full(path), id.to_owned(), kind)
    }
}

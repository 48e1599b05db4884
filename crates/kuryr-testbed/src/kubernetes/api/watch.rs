//! Watches: a cursor into a resource's history, sent as lines of JSON.

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};

use super::{
    Shared,
    registry::ResourceDef,
    response::Form,
    selector::Selection,
    status::ApiError,
    store::{Change, ChangeKind, Entry},
};

/// How often a quiet watch says which version it has reached, if the client wants to know.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// What a watch request asks for.
pub(crate) struct WatchRequest {
    pub(crate) def: Arc<ResourceDef>,
    pub(crate) selection: Selection,
    pub(crate) form: Form,
    /// `None` or 0: begin with what exists.
    pub(crate) revision: Option<u64>,
    pub(crate) bookmarks: bool,
    /// Send what exists, then a bookmark that says so.
    pub(crate) initial_events: bool,
    pub(crate) timeout: Duration,
}

struct Watch {
    server: Arc<Shared>,
    request: WatchRequest,
    cursor: u64,
    latest: watch::Receiver<u64>,
    deadline: Instant,
    next_bookmark: Instant,
    first: Option<Vec<u8>>,
    done: bool,
}

/// Begins a watch; its answer is a stream that ends at the timeout, when the version expires or the resource goes.
pub(crate) fn watch(server: Arc<Shared>, request: WatchRequest) -> Result<Body, ApiError> {
    let latest = server.store.subscribe(&request.def.storage).ok_or_else(ApiError::no_such_path)?;
    let now = Instant::now();
    let mut watch = Watch {
        cursor: request.revision.unwrap_or_default(),
        deadline: now + request.timeout,
        next_bookmark: now + BOOKMARK_EVERY,
        first: None,
        done: false,
        server,
        request,
        latest,
    };
    if watch.cursor == 0 || watch.request.initial_events {
        watch.start_with_what_exists();
    }
    Ok(Body::from_stream(stream::unfold(watch, Watch::next)))
}

impl Watch {
    fn start_with_what_exists(&mut self) {
        let Ok((entries, revision)) = self.server.store.snapshot(&self.request.def.storage, None, None) else { return };
        let mut out = Vec::new();
        for entry in entries.iter().filter(|entry| self.request.selection.matches(entry)) {
            self.line(&mut out, "ADDED", entry);
        }
        if self.request.initial_events && self.request.bookmarks {
            self.bookmark(&mut out, revision, true);
        }
        self.cursor = revision;
        self.first = Some(out);
    }

    async fn next(mut self) -> Option<(Result<Bytes, std::convert::Infallible>, Self)> {
        if let Some(first) = self.first.take().filter(|first| !first.is_empty()) {
            return Some((Ok(first.into()), self));
        }
        while !self.done {
            self.latest.mark_unchanged();
            let out = self.collect();
            if !out.is_empty() {
                // Also a watch that is never quiet ends in time.
                self.done |= Instant::now() >= self.deadline;
                return Some((Ok(out.into()), self));
            }
            let mut out = Vec::new();
            tokio::select! {
                changed = self.latest.changed() => self.done = changed.is_err(),
                () = tokio::time::sleep_until(self.deadline) => {
                    self.done = true;
                    if self.request.bookmarks {
                        self.bookmark(&mut out, self.cursor, false);
                    }
                }
                () = tokio::time::sleep_until(self.next_bookmark), if self.request.bookmarks => {
                    self.next_bookmark = Instant::now() + BOOKMARK_EVERY;
                    self.bookmark(&mut out, self.cursor, false);
                }
            }
            if !out.is_empty() {
                return Some((Ok(out.into()), self));
            }
        }
        None
    }

    /// The lines since the cursor.
    fn collect(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        match self.server.store.changes(&self.request.def.storage, self.cursor) {
            Ok((changes, revision)) => {
                for change in &changes {
                    self.change(&mut out, change);
                }
                self.cursor = revision;
            }
            Err(expired) => {
                let message = format!("too old resource version: {} ({})", self.cursor, expired.oldest);
                write_event(&mut out, "ERROR", ApiError::expired(message).body().to_string().as_bytes());
                self.done = true;
            }
        }
        out
    }

    /// An object that enters the selection is added, one that leaves it is deleted.
    fn change(&self, out: &mut Vec<u8>, change: &Change) {
        let selection = &self.request.selection;
        let before = change.before.as_ref().filter(|entry| selection.matches(entry));
        match (before, change.kind) {
            (Some(_), ChangeKind::Deleted) => self.line(out, "DELETED", &change.after),
            (None, ChangeKind::Deleted) => {}
            (before, _) => match (before, selection.matches(&change.after)) {
                (Some(_), true) => self.line(out, "MODIFIED", &change.after),
                (None, true) => self.line(out, "ADDED", &change.after),
                (Some(before), false) => {
                    let mut last = before.value();
                    super::object::set_meta(&mut last, "resourceVersion", Some(json!(change.revision.to_string())));
                    write_event(out, "DELETED", &self.request.form.one(&self.request.def, last));
                }
                (None, false) => {}
            },
        }
    }

    fn line(&self, out: &mut Vec<u8>, kind: &str, entry: &Entry) {
        match self.request.form {
            Form::Json => {
                open_event(out, kind);
                self.request.def.write_json(entry, true, out);
                out.extend_from_slice(b"}\n");
            }
            _ => write_event(out, kind, &self.request.form.one(&self.request.def, entry.value())),
        }
    }

    fn bookmark(&self, out: &mut Vec<u8>, revision: u64, initial: bool) {
        let mut meta = json!({ "resourceVersion": revision.to_string(), "creationTimestamp": Value::Null });
        if initial {
            meta["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        let def = &self.request.def;
        let mark = match self.request.form {
            Form::Partial => {
                json!({ "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": meta })
            }
            Form::Json => json!({ "apiVersion": def.api_version(), "kind": def.kind, "metadata": meta }),
            Form::Table(_) => json!({
                "apiVersion": "meta.k8s.io/v1", "kind": "Table", "columnDefinitions": [], "rows": [],
                "metadata": { "resourceVersion": revision.to_string() },
            }),
        };
        write_event(out, "BOOKMARK", mark.to_string().as_bytes());
    }
}

fn open_event(out: &mut Vec<u8>, kind: &str) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
}

fn write_event(out: &mut Vec<u8>, kind: &str, object: &[u8]) {
    open_event(out, kind);
    out.extend_from_slice(object);
    out.extend_from_slice(b"}\n");
}

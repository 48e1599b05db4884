//! Lists: selection, pages, versions.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{
    Shared,
    registry::ResourceDef,
    request::Query,
    response::Form,
    selector::Selection,
    status::ApiError,
    store::{Entry, Expired},
};

/// The selection that a request's query and namespace make.
pub(crate) fn selection(def: &ResourceDef, namespace: Option<&str>, query: &Query) -> Result<Selection, ApiError> {
    Selection::parse(namespace, query.get("labelSelector"), query.get("fieldSelector"), &def.selectable)
}

/// One page of a list and the list's metadata.
pub(crate) struct Page {
    pub(crate) entries: Vec<Arc<Entry>>,
    pub(crate) meta: Value,
}

/// Where a following page begins: the version of the first page, and the last object of the one before.
struct Continue {
    revision: u64,
    after: (Box<str>, Box<str>),
}

impl Continue {
    fn encode(&self) -> String {
        let (namespace, name) = &self.after;
        URL_SAFE_NO_PAD.encode(json!({ "rv": self.revision, "after": [namespace, name] }).to_string())
    }

    fn decode(token: &str) -> Option<Self> {
        let value: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
        let after = |index: usize| value["after"][index].as_str().map(Box::from);
        Some(Self { revision: value["rv"].as_u64()?, after: (after(0)?, after(1)?) })
    }
}

/// Reads the page that a query asks for.
pub(crate) fn page(server: &Shared, def: &ResourceDef, selection: &Selection, query: &Query) -> Result<Page, ApiError> {
    let revision = query.number("resourceVersion");
    let exact = query.get("resourceVersionMatch") == Some("Exact");
    if query.get("resourceVersion").is_some() && revision.is_none() {
        let text = query.get("resourceVersion").unwrap_or_default();
        return Err(ApiError::bad_request(format!("resourceVersion: Invalid value: {text:?}")));
    }
    if query.get("resourceVersionMatch").is_some() && revision.is_none() {
        let message = "resourceVersionMatch is forbidden unless resourceVersion is provided";
        return Err(ApiError::new(422, "Invalid", message));
    }
    if let Some(revision) = revision.filter(|revision| *revision > server.store.revision()) {
        let message = format!("Too large resource version: {revision}, current: {}", server.store.revision());
        let mut error = ApiError::new(504, "Timeout", message);
        error.details =
            json!({ "causes": [{ "reason": "ResourceVersionTooLarge", "message": "Too large resource version" }] });
        error.retry_after = Some(1);
        return Err(error);
    }
    let token = match query.get("continue") {
        Some(token) => {
            let bad = || ApiError::bad_request("continue key is not valid: it was not made by this server");
            Some(Continue::decode(token).ok_or_else(bad)?)
        }
        None => None,
    };
    let limit = query
        .number("limit")
        .filter(|limit| *limit > 0)
        .map_or(usize::MAX, |limit| limit.try_into().unwrap_or(usize::MAX));
    let at = token.as_ref().map(|token| token.revision).or(if exact { revision } else { None });
    let after = token.as_ref().map(|token| &token.after);
    let (mut entries, revision) = server.store.snapshot(&def.storage, at, after).map_err(|Expired { oldest }| {
        let message = if token.is_some() {
            "The provided continue parameter is too old to display a consistent list result. You can start a new list \
             without the continue parameter."
                .to_owned()
        } else {
            format!("The resourceVersion for the provided list is too old: the oldest is {oldest}.")
        };
        ApiError::expired(message)
    })?;
    entries.retain(|entry| selection.matches(entry));
    let mut meta = json!({ "resourceVersion": revision.to_string() });
    if entries.len() > limit {
        if !selection.is_filtered() {
            meta["remainingItemCount"] = json!(entries.len() - limit);
        }
        entries.truncate(limit);
        if let Some(last) = entries.last() {
            let after = (last.namespace.clone(), last.name.clone());
            meta["continue"] = json!(Continue { revision, after }.encode());
        }
    }
    Ok(Page { entries, meta })
}

/// The JSON of a page.
pub(crate) fn body(def: &ResourceDef, page: &Page, form: Form) -> Vec<u8> {
    form.many(def, &page.entries, &page.meta)
}

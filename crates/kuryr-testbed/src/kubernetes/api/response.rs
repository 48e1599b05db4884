//! The forms in which objects are sent: as they are, only their metadata, or as a table for people.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::{
    object,
    registry::ResourceDef,
    status::ApiError,
    store::Entry,
    table::{self, Include},
};

/// What the client wants to see of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    /// `PartialObjectMetadata`
    Partial,
    /// `Table`
    Table(Include),
}

impl Form {
    /// The first form in `Accept` that this server can send.
    pub(crate) fn negotiate(headers: &HeaderMap, include: Option<&str>) -> Result<Self, ApiError> {
        let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            if !matches!(media, "application/json" | "application/*" | "*/*" | "") {
                continue;
            }
            let form = parts.filter_map(|part| part.strip_prefix("as=")).next();
            match form {
                None => return Ok(Self::Json),
                Some("Table") => return Ok(Self::Table(Include::parse(include)?)),
                Some("PartialObjectMetadata" | "PartialObjectMetadataList") => return Ok(Self::Partial),
                Some(_) => {}
            }
        }
        let message = "only the following media types are accepted: application/json";
        Err(ApiError::new(406, "NotAcceptable", message))
    }

    /// One object, given as stored.
    pub(crate) fn one(self, def: &ResourceDef, stored: Value) -> Vec<u8> {
        match self {
            Self::Json => def.present(stored).to_string().into_bytes(),
            Self::Partial => partial(&stored).to_string().into_bytes(),
            Self::Table(include) => {
                let revision = object::text(&stored, "/metadata/resourceVersion").to_owned();
                let table = table::table(def, vec![stored], include, &json!({ "resourceVersion": revision }));
                table.to_string().into_bytes()
            }
        }
    }

    /// A list of entries; `meta` is the list's metadata.
    pub(crate) fn many(self, def: &ResourceDef, entries: &[std::sync::Arc<Entry>], meta: &Value) -> Vec<u8> {
        match self {
            Self::Json => {
                let mut out =
                    Vec::with_capacity(entries.iter().map(|entry| entry.body.len() + 80).sum::<usize>() + 200);
                let head =
                    json!({ "apiVersion": def.api_version(), "kind": def.list_kind, "metadata": meta }).to_string();
                out.extend_from_slice(head.trim_end_matches('}').as_bytes());
                // The trimmed braces: those of the metadata and of the list.
                out.extend_from_slice(b"},\"items\":[");
                for (index, entry) in entries.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    def.write_json(entry, false, &mut out);
                }
                out.extend_from_slice(b"]}");
                out
            }
            Self::Partial => {
                let items: Vec<Value> = entries.iter().map(|entry| partial(&entry.value())).collect();
                let list = json!({
                    "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList", "metadata": meta, "items": items,
                });
                list.to_string().into_bytes()
            }
            Self::Table(include) => {
                let objects = entries.iter().map(|entry| entry.value()).collect();
                table::table(def, objects, include, meta).to_string().into_bytes()
            }
        }
    }
}

/// The metadata of a stored object.
pub(crate) fn partial(stored: &Value) -> Value {
    json!({ "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": stored["metadata"] })
}

/// An answer of JSON bytes, with the warnings that the client should print.
pub(crate) fn answer(code: StatusCode, body: impl Into<Body>, warnings: &[String]) -> Response {
    let mut response = (code, body.into()).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    for warning in warnings {
        let text = format!("299 - \"{}\"", warning.replace('\\', "\\\\").replace('"', "\\\""));
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.append(header::WARNING, value);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn negotiate(accept: &'static str) -> Option<Form> {
        let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]);
        Form::negotiate(&headers, None).ok()
    }

    #[test]
    fn the_first_form_that_can_be_sent_is_sent() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        assert_eq!(negotiate(kubectl), Some(Form::Table(Include::Metadata)));
        assert_eq!(negotiate("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"), Some(Form::Partial));
        assert_eq!(negotiate("application/vnd.kubernetes.protobuf,application/json"), Some(Form::Json));
        assert_eq!(negotiate("application/vnd.kubernetes.protobuf"), None);
    }
}

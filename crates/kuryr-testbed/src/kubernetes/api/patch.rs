//! Patches: JSON patch, merge patch, strategic merge patch and apply, told apart by their content type.

use http::{HeaderMap, header};
use serde_json::Value;

use super::{
    Shared, apply,
    prepare::{self, Scope, WriteOptions},
    status::ApiError,
    strategic,
    write::{self, Written},
};

const JSON: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

/// Patches one object.
pub(crate) fn patch(
    server: &Shared,
    scope: &Scope,
    options: &WriteOptions,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Written, ApiError> {
    let media = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default().trim();
    let custom = scope.def.custom().is_some();
    if media == APPLY {
        return apply::apply(server, scope, options, prepare::yaml(body)?);
    }
    let document: Value = serde_json::from_slice(body)
        .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?;
    match media {
        JSON => {
            let operations: json_patch::Patch = serde_json::from_value(document)
                .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?;
            write::modify(server, scope, options, |current| {
                let mut wanted = current.clone();
                json_patch::patch(&mut wanted, &operations).map_err(|error| {
                    ApiError::new(
                        422,
                        "Invalid",
                        format!("the server rejected our request due to an error in our request: {error}"),
                    )
                })?;
                Ok(wanted)
            })
        }
        MERGE => {
            if !document.is_object() {
                return Err(ApiError::bad_request("a merge patch must be a JSON object"));
            }
            write::modify(server, scope, options, |current| {
                let mut wanted = current.clone();
                json_patch::merge(&mut wanted, &document);
                Ok(wanted)
            })
        }
        STRATEGIC if !custom => write::modify(server, scope, options, |current| {
            let mut wanted = current.clone();
            strategic::patch(&mut wanted, &document)?;
            Ok(wanted)
        }),
        _ if custom => Err(ApiError::media_type(&[JSON, MERGE, APPLY])),
        _ => Err(ApiError::media_type(&[JSON, MERGE, STRATEGIC, APPLY])),
    }
}

//! What all answers have in common.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::model::Head;
use crate::cloud::http::Answer;

/// A time as the real one writes it, without a zone.
fn time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S").to_string()
}

/// The fields that every object has.
pub(crate) fn head(head: &Head, project: &str, enabled: bool) -> Map<String, Value> {
    let mut shown = Map::new();
    add(
        &mut shown,
        json!({
            "id": head.id, "name": head.name, "provisioning_status": head.provisioning.text(),
            "operating_status": head.operating.text(), "admin_state_up": enabled, "project_id": project, "tenant_id": project,
            "created_at": time(head.created), "updated_at": head.updated.map(time), "tags": head.tags,
        }),
    );
    shown
}

/// Adds the fields of an object to another.
pub(crate) fn add(shown: &mut Map<String, Value>, more: Value) {
    if let Value::Object(more) = more {
        shown.extend(more);
    }
}

/// The OVN provider reports no statistics, so that all counts are 0; and so they are for all providers here.
pub(crate) fn stats() -> Answer {
    let names = ["bytes_in", "bytes_out", "active_connections", "total_connections", "request_errors"];
    let counts: Map<String, Value> = names.into_iter().map(|name| (name.to_owned(), json!(0))).collect();
    Answer::ok(json!({ "stats": counts }))
}

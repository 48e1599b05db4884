//! Small helpers over objects, which are JSON values everywhere in the API server.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// The time as Kubernetes writes it: whole seconds, UTC.
pub(crate) fn timestamp(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Now, as Kubernetes writes it.
pub(crate) fn now() -> String {
    timestamp(Timestamp::now())
}

/// The string at a JSON pointer, or "".
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// `metadata.name`, or "".
pub(crate) fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

/// `metadata.namespace`, or "".
pub(crate) fn namespace(object: &Value) -> &str {
    text(object, "/metadata/namespace")
}

/// `metadata.uid`, or "".
pub(crate) fn uid(object: &Value) -> &str {
    text(object, "/metadata/uid")
}

/// Whether the object is being deleted.
pub(crate) fn deleting(object: &Value) -> bool {
    object.pointer("/metadata/deletionTimestamp").is_some_and(|at| !at.is_null())
}

/// The object's finalizers.
pub(crate) fn finalizers(object: &Value) -> Vec<String> {
    object
        .pointer("/metadata/finalizers")
        .and_then(Value::as_array)
        .map(|list| list.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect())
        .unwrap_or_default()
}

/// The object as a map, made one if it is not.
pub(crate) fn map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = json!({});
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("made an object above"),
    }
}

/// The member of an object, made an object if it is not one.
pub(crate) fn child<'a>(value: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    map(map(value).entry(key).or_insert_with(|| json!({})))
}

/// `metadata`, to be changed.
pub(crate) fn meta(object: &mut Value) -> &mut Map<String, Value> {
    child(object, "metadata")
}

/// Sets a field of `metadata`, or removes it.
pub(crate) fn set_meta(object: &mut Value, key: &str, value: Option<Value>) {
    let meta = meta(object);
    match value {
        Some(value) => meta.insert(key.to_owned(), value),
        None => meta.remove(key),
    };
}

/// Copies a field of `metadata` from another object, or removes it when the other has none.
pub(crate) fn copy_meta(to: &mut Value, from: &Value, key: &str) {
    let value = from.get("metadata").and_then(|meta| meta.get(key)).filter(|value| !value.is_null()).cloned();
    set_meta(to, key, value);
}

/// Copies a top-level field from another object, or removes it when the other has none.
pub(crate) fn copy_field(to: &mut Value, from: &Value, key: &str) {
    match from.get(key).cloned() {
        Some(value) => map(to).insert(key.to_owned(), value),
        None => map(to).remove(key),
    };
}

/// Removes a finalizer; says whether it was there.
pub(crate) fn drop_finalizer(object: &mut Value, finalizer: &str) -> bool {
    let mut left = finalizers(object);
    let before = left.len();
    left.retain(|item| item != finalizer);
    let dropped = left.len() != before;
    if dropped {
        set_meta(object, "finalizers", (!left.is_empty()).then(|| json!(left)));
    }
    dropped
}

/// Sets one condition of `status.conditions`, keeping `lastTransitionTime` while its status stays.
pub(crate) fn set_condition(object: &mut Value, kind: &str, status: &str, reason: &str, message: &str) {
    let mut since = now();
    let list = child(object, "status").entry("conditions").or_insert_with(|| json!([]));
    if !list.is_array() {
        *list = json!([]);
    }
    let Value::Array(list) = list else { return };
    let old = list.iter().position(|item| item["type"] == kind);
    if let Some(old) = old
        && list[old]["status"] == status
        && let Some(at) = list[old]["lastTransitionTime"].as_str()
    {
        since = at.to_owned();
    }
    let mut condition = json!({ "type": kind, "status": status, "lastTransitionTime": since });
    if !reason.is_empty() {
        condition["reason"] = json!(reason);
    }
    if !message.is_empty() {
        condition["message"] = json!(message);
    }
    match old {
        Some(old) => list[old] = condition,
        None => list.push(condition),
    }
}

/// Removes members that are null, at any depth: a null in a manifest means "not given".
pub(crate) fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, item| !item.is_null());
            map.values_mut().for_each(strip_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_keeps_its_transition_time_while_its_status_stays() {
        let mut object = json!({ "status": { "conditions": [
            { "type": "Ready", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z" } ] } });
        set_condition(&mut object, "Ready", "True", "Still", "");
        assert_eq!(text(&object, "/status/conditions/0/lastTransitionTime"), "2020-01-01T00:00:00Z");
        set_condition(&mut object, "Ready", "False", "Broken", "no network");
        assert_ne!(text(&object, "/status/conditions/0/lastTransitionTime"), "2020-01-01T00:00:00Z");
        assert_eq!(object["status"]["conditions"].as_array().unwrap().len(), 1);
    }
}

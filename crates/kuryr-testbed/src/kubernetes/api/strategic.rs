//! Strategic merge patch: merge patch that knows the keys of lists.

use serde_json::{Map, Value};

use super::{
    lists::{ListKind, identity, strategic},
    status::ApiError,
};

/// Applies a patch to an object of a built-in kind.
pub(crate) fn patch(target: &mut Value, patch: &Value) -> Result<(), ApiError> {
    merge(target, patch, "", "")
}

/// `parent` is the field that contains `field`, whose value `target` is.
fn merge(target: &mut Value, patch: &Value, parent: &str, field: &str) -> Result<(), ApiError> {
    match patch {
        Value::Object(changes) => merge_map(target, changes, field),
        Value::Array(changes) => merge_list(target, changes, parent, field),
        other => {
            *target = other.clone();
            Ok(())
        }
    }
}

fn merge_map(target: &mut Value, changes: &Map<String, Value>, field: &str) -> Result<(), ApiError> {
    match changes.get("$patch").and_then(Value::as_str) {
        None | Some("merge") => {}
        Some("replace") => {
            let mut new = changes.clone();
            new.remove("$patch");
            *target = Value::Object(new);
            return Ok(());
        }
        Some("delete") => {
            *target = Value::Object(Map::new());
            return Ok(());
        }
        Some(other) => return Err(ApiError::bad_request(format!("invalid value for $patch directive: {other:?}"))),
    }
    let map = super::object::map(target);
    for (key, change) in changes {
        if key == "$patch" || key == "$retainKeys" || key.starts_with("$setElementOrder/") {
            continue;
        }
        if let Some(list) = key.strip_prefix("$deleteFromPrimitiveList/") {
            let gone = change.as_array().cloned().unwrap_or_default();
            if let Some(Value::Array(items)) = map.get_mut(list) {
                items.retain(|item| !gone.contains(item));
            }
        } else if change.is_null() {
            map.remove(key);
        } else {
            merge(map.entry(key.clone()).or_insert(Value::Null), change, field, key)?;
        }
    }
    if let Some(Value::Array(keys)) = changes.get("$retainKeys") {
        map.retain(|key, _| keys.iter().any(|kept| kept == key));
    }
    // Lists that the patch orders: the named members in that order, after those it does not name.
    for (key, order) in changes.iter().filter_map(|(key, order)| Some((key.strip_prefix("$setElementOrder/")?, order)))
    {
        if let (Some(Value::Array(items)), Some(order)) = (map.get_mut(key), order.as_array()) {
            let rank = |item: &Value| match strategic(field, key) {
                ListKind::Map(keys) => {
                    order.iter().position(|named| identity(named, &keys) == identity(item, &keys)).map(|at| at + 1)
                }
                _ => order.iter().position(|named| named == item).map(|at| at + 1),
            };
            items.sort_by_key(|item| rank(item).unwrap_or_default());
        }
    }
    Ok(())
}

fn merge_list(target: &mut Value, changes: &[Value], parent: &str, field: &str) -> Result<(), ApiError> {
    let replace = changes.iter().any(|change| change["$patch"] == "replace");
    let plain = || changes.iter().filter(|change| change.get("$patch").is_none()).cloned().collect::<Vec<_>>();
    let kind = strategic(parent, field);
    let (true, Some(items)) = (kind != ListKind::Atomic && !replace, target.as_array_mut()) else {
        let mut fresh = Value::Array(plain());
        if let Value::Array(items) = &mut fresh {
            items.iter_mut().for_each(super::object::strip_nulls);
        }
        *target = fresh;
        return Ok(());
    };
    match kind {
        ListKind::Map(keys) => {
            for change in changes {
                if keys.iter().any(|key| change.get(key).is_none() && key != "protocol") {
                    let message = format!("map: {change} does not contain declared merge key: {}", keys.join(", "));
                    return Err(ApiError::bad_request(message));
                }
                let at = items.iter().position(|item| identity(item, &keys) == identity(change, &keys));
                match (at, change["$patch"].as_str()) {
                    (Some(at), Some("delete")) => drop(items.remove(at)),
                    (None, Some("delete")) => {}
                    (Some(at), _) => merge(&mut items[at], change, parent, field)?,
                    (None, _) => {
                        let mut fresh = Value::Object(Map::new());
                        merge(&mut fresh, change, parent, field)?;
                        items.push(fresh);
                    }
                }
            }
        }
        _ => {
            for change in changes {
                if !items.contains(change) {
                    items.push(change.clone());
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn patched(mut target: Value, change: &Value) -> Value {
        patch(&mut target, change).unwrap();
        target
    }

    #[test]
    fn conditions_merge_by_type() {
        let pod = json!({ "status": { "phase": "Pending", "conditions": [
            { "type": "PodScheduled", "status": "True" }, { "type": "Ready", "status": "False", "reason": "x" } ] } });
        let change = json!({ "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True", "reason": null }] } });
        let pod = patched(pod, &change);
        assert_eq!(
            pod,
            json!({ "status": { "phase": "Running", "conditions": [
                { "type": "PodScheduled", "status": "True" }, { "type": "Ready", "status": "True" } ] } })
        );
    }

    #[test]
    fn directives_delete_replace_and_order() {
        let pod = json!({ "spec": { "containers": [{ "name": "a", "image": "1" }, { "name": "b", "image": "1" }] } });
        let change = json!({ "spec": { "$setElementOrder/containers": [{ "name": "c" }, { "name": "b" }],
            "containers": [{ "name": "a", "$patch": "delete" }, { "name": "c", "image": "2" }] } });
        let pod = patched(pod, &change);
        assert_eq!(pod["spec"]["containers"], json!([{ "name": "c", "image": "2" }, { "name": "b", "image": "1" }]));
        let finalizers = json!({ "metadata": { "finalizers": ["a", "b"] } });
        let change = json!({ "metadata": { "$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"] } });
        assert_eq!(patched(finalizers, &change)["metadata"]["finalizers"], json!(["b", "c"]));
        let map = patched(json!({ "spec": { "a": 1, "b": 2 } }), &json!({ "spec": { "$patch": "replace", "c": 3 } }));
        assert_eq!(map, json!({ "spec": { "c": 3 } }));
    }

    #[test]
    fn a_list_member_without_its_key_is_refused() {
        let mut pod = json!({ "spec": { "containers": [{ "name": "a" }] } });
        let error = patch(&mut pod, &json!({ "spec": { "containers": [{ "image": "x" }] } })).unwrap_err();
        assert!(error.message.contains("does not contain declared merge key: name"));
    }
}

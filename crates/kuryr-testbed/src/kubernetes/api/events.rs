//! Events have two shapes of one object: `v1`, which is stored, and `events.k8s.io/v1`.

use serde_json::Value;

/// Field names: of `events.k8s.io/v1`, of `v1`.
const RENAMED: [(&str, &str); 7] = [
    ("note", "message"),
    ("regarding", "involvedObject"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
    ("reportingController", "reportingComponent"),
];

fn rename(mut event: Value, renames: impl Iterator<Item = (&'static str, &'static str)>) -> Value {
    if let Value::Object(map) = &mut event {
        let moved: Vec<_> = renames.filter_map(|(from, to)| map.remove(from).map(|value| (to, value))).collect();
        map.extend(moved.into_iter().map(|(key, value)| (key.to_owned(), value)));
    }
    event
}

/// From `events.k8s.io/v1` to `v1`.
pub(crate) fn to_core(event: Value) -> Value {
    rename(event, RENAMED.into_iter())
}

/// From `v1` to `events.k8s.io/v1`.
pub(crate) fn from_core(event: Value) -> Value {
    rename(event, RENAMED.into_iter().map(|(new, core)| (core, new)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_shapes_tell_the_same() {
        let event = json!({ "note": "n", "regarding": { "name": "p" }, "reportingController": "c", "reason": "r" });
        let core = to_core(event.clone());
        assert_eq!(core["message"], "n");
        assert_eq!(core["involvedObject"]["name"], "p");
        assert_eq!(from_core(core), event);
    }
}

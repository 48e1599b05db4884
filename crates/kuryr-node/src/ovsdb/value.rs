//! OVSDB's dress for values: sets, maps and UUIDs in JSON.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use uuid::Uuid;

/// A row's UUID as a value.
#[must_use]
pub fn uuid(id: Uuid) -> Value {
    json!(["uuid", id])
}

/// The row that an insert of the same transaction makes.
#[must_use]
pub fn named(name: &str) -> Value {
    json!(["named-uuid", name])
}

/// A map of strings as a value.
#[must_use]
pub fn map(entries: &[(&str, &str)]) -> Value {
    let pairs: Vec<Value> = entries.iter().map(|(key, value)| json!([key, value])).collect();
    json!(["map", pairs])
}

/// Reads a UUID.
#[must_use]
pub fn read_uuid(value: &Value) -> Option<Uuid> {
    match value.as_array()?.as_slice() {
        [kind, id] if kind == "uuid" => id.as_str()?.parse().ok(),
        _ => None,
    }
}

/// Reads a set. A set of one is written as its element alone.
#[must_use]
pub fn read_set(value: &Value) -> Vec<&Value> {
    match value.as_array().map(Vec::as_slice) {
        Some([kind, Value::Array(elements)]) if kind == "set" => elements.iter().collect(),
        _ => vec![value],
    }
}

/// Reads a map of strings.
#[must_use]
pub fn read_map(value: &Value) -> Option<BTreeMap<String, String>> {
    let [kind, Value::Array(pairs)] = value.as_array()?.as_slice() else { return None };
    if kind != "map" {
        return None;
    }
    pairs.iter().map(|pair| Some((pair.get(0)?.as_str()?.to_owned(), pair.get(1)?.as_str()?.to_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_none_one_and_many_read_alike() {
        assert_eq!(read_set(&json!(["set", []])).len(), 0);
        assert_eq!(read_set(&json!(7)), [&json!(7)]);
        let id = Uuid::from_u128(7);
        assert_eq!(read_set(&uuid(id)), [&uuid(id)]);
        let many = json!(["set", [uuid(id), uuid(id)]]);
        assert_eq!(read_set(&many).into_iter().filter_map(read_uuid).count(), 2);
    }

    #[test]
    fn a_map_reads_back() {
        let written = map(&[("iface-id", "a"), ("kuryr", "b")]);
        let read = read_map(&written).unwrap();
        assert_eq!(read["iface-id"], "a");
        assert_eq!(read_map(&json!(["map", []])), Some(BTreeMap::new()));
        assert_eq!(read_map(&json!(["set", []])), None);
        assert_eq!(read_map(&json!(["map", [["key", 7]]])), None);
    }
}

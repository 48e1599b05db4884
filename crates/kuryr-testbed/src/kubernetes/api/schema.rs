//! Structural schemas of custom resources: pruning, defaults, validation.
//!
//! Rules in CEL (`x-kubernetes-validations`) are stored and served but not evaluated.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::{crd::CustomVersion, status::FieldError};

/// The regular expressions of a schema, compiled once.
#[derive(Debug, Default)]
pub(crate) struct Patterns(HashMap<String, jsonschema::Validator>);

impl Patterns {
    /// Compiles every `pattern` in a schema; one that does not compile matches everything.
    pub(crate) fn compile(schema: &Value) -> Self {
        let mut patterns = HashMap::new();
        collect_patterns(schema, &mut patterns);
        Self(patterns)
    }

    fn matches(&self, pattern: &str, value: &Value) -> bool {
        self.0.get(pattern).is_none_or(|validator| validator.is_valid(value))
    }
}

fn collect_patterns(schema: &Value, out: &mut HashMap<String, jsonschema::Validator>) {
    match schema {
        Value::Object(map) => {
            if let Some(Value::String(pattern)) = map.get("pattern")
                && let Ok(validator) = jsonschema::validator_for(&json!({ "pattern": pattern }))
            {
                out.insert(pattern.clone(), validator);
            }
            map.values().for_each(|below| collect_patterns(below, out));
        }
        Value::Array(list) => list.iter().for_each(|below| collect_patterns(below, out)),
        _ => {}
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn keeps_unknown(schema: &Value) -> bool {
    schema["x-kubernetes-preserve-unknown-fields"] == true
}

/// The schema of a member of an object.
fn member<'a>(schema: &'a Value, key: &str) -> Option<&'a Value> {
    schema.get("properties").and_then(|properties| properties.get(key)).or_else(|| schema.get("additionalProperties"))
}

/// Removes fields that the schema does not have and reports their paths.
pub(crate) fn prune(value: &mut Value, schema: &Value, path: &str, unknown: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            let keep = keeps_unknown(schema);
            let embedded = schema["x-kubernetes-embedded-resource"] == true || path.is_empty();
            map.retain(|key, _| {
                let known = keep
                    || member(schema, key).is_some_and(|below| *below != json!(false))
                    || (embedded && ["apiVersion", "kind", "metadata"].contains(&key.as_str()));
                if !known {
                    unknown.push(join(path, key));
                }
                known
            });
            for (key, value) in map {
                if let Some(below) = member(schema, key).filter(|below| below.is_object()) {
                    prune(value, below, &join(path, key), unknown);
                }
            }
        }
        Value::Array(items) => {
            if let Some(below) = schema.get("items") {
                for (index, item) in items.iter_mut().enumerate() {
                    prune(item, below, &format!("{path}[{index}]"), unknown);
                }
            }
        }
        _ => {}
    }
}

/// Fills in defaults; a null that the schema does not allow gives way to the default, or goes.
pub(crate) fn default(value: &mut Value, schema: &Value) {
    match value {
        Value::Object(map) => {
            for (key, below) in schema["properties"].as_object().into_iter().flatten() {
                let null = map.get(key).is_some_and(Value::is_null) && below["nullable"] != true;
                match below.get("default") {
                    Some(default) if null || !map.contains_key(key) => drop(map.insert(key.clone(), default.clone())),
                    None if null => drop(map.remove(key)),
                    _ => {}
                }
            }
            for (key, value) in map {
                if let Some(below) = member(schema, key) {
                    default(value, below);
                }
            }
        }
        Value::Array(items) => {
            if let Some(below) = schema.get("items") {
                items.iter_mut().for_each(|item| default(item, below));
            }
        }
        _ => {}
    }
}

/// Checks a value against its schema.
pub(crate) fn validate(value: &Value, version: &CustomVersion, errors: &mut Vec<FieldError>) {
    Check { patterns: &version.patterns }.value(value, &version.schema, "", errors);
}

struct Check<'a> {
    patterns: &'a Patterns,
}

impl Check<'_> {
    fn value(&self, value: &Value, schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
        if !schema.is_object() || (value.is_null() && schema["nullable"] == true) {
            return;
        }
        if let Some((found, wanted)) = type_error(value, schema) {
            errors.push(FieldError::wrong_type(path, found, wanted));
            return;
        }
        if let Some(allowed) = schema["enum"].as_array().filter(|allowed| !allowed.contains(value)) {
            errors.push(FieldError::unsupported(path, value, allowed));
        }
        match value {
            Value::Object(map) => self.object(map, schema, path, errors),
            Value::Array(items) => self.list(items, schema, path, errors),
            Value::String(text) => self.string(text, value, schema, path, errors),
            Value::Number(number) => number_limits(number.as_f64().unwrap_or_default(), value, schema, path, errors),
            _ => {}
        }
        self.combinations(value, schema, path, errors);
    }

    fn object(&self, map: &Map<String, Value>, schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
        for key in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let elsewhere = path.is_empty() && ["metadata", "apiVersion", "kind"].contains(&key);
            if !elsewhere && !map.contains_key(key) {
                errors.push(FieldError::required(join(path, key), ""));
            }
        }
        if let Some(most) = schema["maxProperties"].as_u64().filter(|most| map.len() as u64 > *most) {
            errors.push(FieldError::too_many(path, map.len(), most));
        }
        if let Some(least) = schema["minProperties"].as_u64().filter(|least| (map.len() as u64) < *least) {
            let why = format!("{path} in body should have at least {least} properties");
            errors.push(FieldError::invalid(path, &json!(map.len()), &why));
        }
        for (key, value) in map {
            if let Some(below) = member(schema, key) {
                self.value(value, below, &join(path, key), errors);
            }
        }
    }

    fn list(&self, items: &[Value], schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
        if let Some(most) = schema["maxItems"].as_u64().filter(|most| items.len() as u64 > *most) {
            errors.push(FieldError::too_many(path, items.len(), most));
        }
        if let Some(least) = schema["minItems"].as_u64().filter(|least| (items.len() as u64) < *least) {
            let why = format!("{path} in body should have at least {least} items");
            errors.push(FieldError::invalid(path, &json!(items.len()), &why));
        }
        if let Some(below) = schema.get("items") {
            for (index, item) in items.iter().enumerate() {
                self.value(item, below, &format!("{path}[{index}]"), errors);
            }
        }
        let keys = schema["x-kubernetes-list-map-keys"].as_array();
        let identity = |item: &Value| match (schema["x-kubernetes-list-type"].as_str(), keys) {
            (Some("set"), _) => Some(item.clone()),
            (Some("map"), Some(keys)) => {
                Some(keys.iter().filter_map(Value::as_str).map(|key| (key.to_owned(), item[key].clone())).collect())
            }
            _ => None,
        };
        let mut seen = Vec::new();
        for (index, id) in items.iter().map(identity).enumerate() {
            let Some(id) = id else { continue };
            if seen.contains(&id) {
                errors.push(FieldError::duplicate(format!("{path}[{index}]"), &id));
            }
            seen.push(id);
        }
    }

    fn string(&self, text: &str, value: &Value, schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
        let length = text.chars().count() as u64;
        if let Some(most) = schema["maxLength"].as_u64().filter(|most| length > *most) {
            errors.push(FieldError::too_long(path, most));
        }
        if let Some(least) = schema["minLength"].as_u64().filter(|least| length < *least) {
            let why = format!("{path} in body should be at least {least} chars long");
            errors.push(FieldError::invalid(path, value, &why));
        }
        if let Some(pattern) = schema["pattern"].as_str().filter(|pattern| !self.patterns.matches(pattern, value)) {
            errors.push(FieldError::invalid(path, value, &format!("{path} in body should match '{pattern}'")));
        }
        if let Some(format) = schema["format"].as_str().filter(|format| !has_format(text, format)) {
            let why = format!("{path} in body must be of type {format}: {value}");
            errors.push(FieldError::invalid(path, value, &why));
        }
    }

    fn combinations(&self, value: &Value, schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
        let passes = |branch: &Value| {
            let mut found = Vec::new();
            self.value(value, branch, path, &mut found);
            found.is_empty()
        };
        for branch in schema["allOf"].as_array().into_iter().flatten() {
            self.value(value, branch, path, errors);
        }
        if let Some(branches) = schema["anyOf"].as_array().filter(|branches| !branches.iter().any(passes)) {
            // The first branch says more than "none matched".
            if let Some(first) = branches.first() {
                self.value(value, first, path, errors);
            }
            errors.push(FieldError::invalid(
                path,
                &json!(""),
                &format!("{path:?} must validate at least one schema (anyOf)"),
            ));
        }
        if let Some(branches) = schema["oneOf"].as_array() {
            let passed = branches.iter().filter(|branch| passes(branch)).count();
            if passed != 1 {
                let why = format!(
                    "{path:?} must validate one and only one schema (oneOf). Found {passed} valid alternatives"
                );
                errors.push(FieldError::invalid(path, &json!(""), &why));
            }
        }
        if schema.get("not").is_some_and(passes) {
            errors.push(FieldError::invalid(path, &json!(""), &format!("{path:?} must not validate the schema (not)")));
        }
    }
}

/// Found and wanted type, if they differ.
fn type_error(value: &Value, schema: &Value) -> Option<(&'static str, &'static str)> {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() && number.as_f64().is_some_and(|n| n.fract() != 0.0) => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if schema["x-kubernetes-int-or-string"] == true {
        return (found != "integer" && found != "string").then_some((found, "integer,string"));
    }
    let wanted = ["boolean", "integer", "number", "string", "array", "object"];
    let wanted = wanted.into_iter().find(|wanted| schema["type"] == **wanted)?;
    (found != wanted && !(wanted == "number" && found == "integer")).then_some((found, wanted))
}

fn number_limits(number: f64, value: &Value, schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if let Some(most) = schema["maximum"].as_f64() {
        let exclusive = schema["exclusiveMaximum"] == true;
        if number > most || (exclusive && number >= most) {
            let than = if exclusive { "less than" } else { "less than or equal to" };
            errors.push(FieldError::invalid(path, value, &format!("{path} in body should be {than} {most}")));
        }
    }
    if let Some(least) = schema["minimum"].as_f64() {
        let exclusive = schema["exclusiveMinimum"] == true;
        if number < least || (exclusive && number <= least) {
            let than = if exclusive { "greater than" } else { "greater than or equal to" };
            errors.push(FieldError::invalid(path, value, &format!("{path} in body should be {than} {least}")));
        }
    }
    if let Some(step) = schema["multipleOf"].as_f64().filter(|step| *step != 0.0 && number % step != 0.0) {
        errors.push(FieldError::invalid(path, value, &format!("{path} in body should be a multiple of {step}")));
    }
    let range = match schema["format"].as_str() {
        Some("int32") => Some((f64::from(i32::MIN), f64::from(i32::MAX))),
        _ => None,
    };
    if let (Some((least, most)), Some(format)) = (range, schema["format"].as_str())
        && !(least..=most).contains(&number)
    {
        errors.push(FieldError::invalid(path, value, &format!("{path} in body must be of type {format}: {value}")));
    }
}

/// Whether a string has a format that Kubernetes knows; others say nothing.
fn has_format(text: &str, format: &str) -> bool {
    match format {
        "date-time" => text.parse::<jiff::Timestamp>().is_ok(),
        "date" => text.parse::<jiff::civil::Date>().is_ok(),
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "cidr" => text.parse::<ipnet::IpNet>().is_ok(),
        "uuid" => uuid::Uuid::parse_str(text).is_ok(),
        "mac" => {
            let parts: Vec<&str> = text.split([':', '-']).collect();
            parts.len() == 6 && parts.iter().all(|part| part.len() == 2 && u8::from_str_radix(part, 16).is_ok())
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version() -> CustomVersion {
        let schema = json!({ "type": "object", "required": ["spec"], "properties": {
            "spec": { "type": "object", "required": ["mtu"], "properties": {
                "mtu": { "type": "integer", "minimum": 68, "format": "int32" },
                "kind": { "type": "string", "enum": ["ovs", "tap"], "default": "ovs" },
                "mac": { "type": "string", "pattern": "^[0-9a-f:]+$" },
                "port": { "x-kubernetes-int-or-string": true },
                "any": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
                "labels": { "type": "object", "additionalProperties": { "type": "string" } },
                "hint": { "type": "string", "nullable": true },
                "routes": { "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["to"],
                    "items": { "type": "object", "properties": { "to": { "type": "string" } } } },
            } } } });
        CustomVersion { patterns: Patterns::compile(&schema), schema, columns: Vec::new() }
    }

    fn errors(value: &Value) -> Vec<String> {
        let mut errors = Vec::new();
        validate(value, &version(), &mut errors);
        errors.into_iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
    }

    #[test]
    fn errors_name_field_value_and_rule() {
        assert!(errors(&json!({ "spec": { "mtu": 1500, "hint": null, "port": "http" } })).is_empty());
        assert_eq!(errors(&json!({})), ["spec: Required value"]);
        assert_eq!(
            errors(&json!({ "spec": { "mtu": "big", "kind": "x", "mac": "ZZ", "labels": { "a": 1 } } })),
            [
                "spec.kind: Unsupported value: \"x\": supported values: \"ovs\", \"tap\"",
                "spec.labels.a: Invalid value: \"integer\": spec.labels.a in body must be of type string: \"integer\"",
                "spec.mac: Invalid value: \"ZZ\": spec.mac in body should match '^[0-9a-f:]+$'",
                "spec.mtu: Invalid value: \"string\": spec.mtu in body must be of type integer: \"string\"",
            ]
        );
        assert_eq!(
            errors(&json!({ "spec": { "mtu": 5 } })),
            ["spec.mtu: Invalid value: 5: spec.mtu in body should be greater than or equal to 68"]
        );
        let twice = json!({ "spec": { "mtu": 1500, "routes": [{ "to": "a" }, { "to": "a" }] } });
        assert_eq!(errors(&twice), ["spec.routes[1]: Duplicate value: {\"to\":\"a\"}"]);
    }

    #[test]
    fn unknown_fields_are_pruned_and_named() {
        let mut value =
            json!({ "spec": { "mtu": 1, "mtuu": 2, "any": { "x": 1 }, "routes": [{ "to": "a", "via": "b" }] } });
        let mut unknown = Vec::new();
        prune(&mut value, &version().schema, "", &mut unknown);
        assert_eq!(unknown, ["spec.mtuu", "spec.routes[0].via"]);
        assert_eq!(value, json!({ "spec": { "mtu": 1, "any": { "x": 1 }, "routes": [{ "to": "a" }] } }));
    }

    #[test]
    fn defaults_fill_gaps_and_forbidden_nulls() {
        let mut value = json!({ "spec": { "kind": null, "hint": null, "mac": null } });
        default(&mut value, &version().schema);
        assert_eq!(value, json!({ "spec": { "kind": "ovs", "hint": null } }));
    }
}

//! The body of a request after a service has checked it, and how services show and read values.

use serde_json::{Map, Value};
use uuid::Uuid;

/// A body that passed the checks; values are converted (`"true"` to `true`, MAC addresses and CIDRs to their usual form).
#[derive(Debug, Clone, Default)]
pub(crate) struct Body(Map<String, Value>);

impl Body {
    /// A body whose values have been checked and converted.
    pub(crate) fn new(map: Map<String, Value>) -> Self {
        Self(map)
    }

    /// The value, `Null` included; `None` when it was not given.
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The value unless it is missing or null.
    pub(crate) fn given(&self, name: &str) -> Option<&Value> {
        self.get(name).filter(|value| !value.is_null())
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_str()
    }

    pub(crate) fn boolean(&self, name: &str) -> Option<bool> {
        self.get(name)?.as_bool()
    }

    pub(crate) fn int(&self, name: &str) -> Option<i64> {
        self.get(name)?.as_i64()
    }

    pub(crate) fn uuid(&self, name: &str) -> Option<Uuid> {
        Uuid::try_parse(self.text(name)?).ok()
    }

    pub(crate) fn list(&self, name: &str) -> Option<&[Value]> {
        self.get(name)?.as_array().map(Vec::as_slice)
    }

    pub(crate) fn uuids(&self, name: &str) -> Option<Vec<Uuid>> {
        Some(self.list(name)?.iter().filter_map(|v| Uuid::try_parse(v.as_str()?).ok()).collect())
    }

    pub(crate) fn texts(&self, name: &str) -> Option<Vec<String>> {
        Some(self.list(name)?.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect())
    }

    /// The attribute that `project_id` and `tenant_id` both name.
    pub(crate) fn project(&self) -> Option<&str> {
        self.text("project_id").or_else(|| self.text("tenant_id"))
    }

    /// Sets a text attribute of a resource if it was given.
    pub(crate) fn set_text(&self, name: &str, target: &mut String) {
        if let Some(text) = self.text(name) {
            text.clone_into(target);
        }
    }

    /// Sets a boolean attribute of a resource if it was given.
    pub(crate) fn set_bool(&self, name: &str, target: &mut bool) {
        if let Some(value) = self.boolean(name) {
            *target = value;
        }
    }
}

/// A value as messages show it: as Python prints it.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "None".into(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::Number(number) => number.to_string(),
        Value::Array(items) => format!("[{}]", items.iter().map(quoted).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let one = |(key, value): (&String, &Value)| format!("'{key}': {}", quoted(value));
            format!("{{{}}}", map.iter().map(one).collect::<Vec<_>>().join(", "))
        }
    }
}

fn quoted(value: &Value) -> String {
    match value {
        Value::String(text) => format!("'{text}'"),
        other => shown(other),
    }
}

/// `['a', 'b']`, as Python prints a list.
pub(crate) fn shown_list<'a>(items: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = items.into_iter().map(|item| format!("'{item}'")).collect();
    format!("[{}]", quoted.join(", "))
}

/// Neutron's reading of a boolean.
pub(crate) fn to_bool(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(value) => Some(*value),
        Value::Number(n) if n.as_i64() == Some(0) => Some(false),
        Value::Number(n) if n.as_i64() == Some(1) => Some(true),
        Value::String(text) => match text.to_ascii_lowercase().as_str() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

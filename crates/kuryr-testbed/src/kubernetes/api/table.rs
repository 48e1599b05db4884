//! Tables for people: what `kubectl get` prints.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    columns,
    crd::Column,
    jsonpath,
    object::{self, text},
    registry::ResourceDef,
    response,
    status::ApiError,
};

/// What comes with each row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Include {
    None,
    Metadata,
    Object,
}

impl Include {
    /// Parses `includeObject`.
    pub(crate) fn parse(text: Option<&str>) -> Result<Self, ApiError> {
        match text {
            None | Some("Metadata") => Ok(Self::Metadata),
            Some("None") => Ok(Self::None),
            Some("Object") => Ok(Self::Object),
            Some(other) => Err(ApiError::bad_request(format!("unrecognized includeObject value: {other:?}"))),
        }
    }
}

/// The table of some objects (stored form).
pub(crate) fn table(def: &ResourceDef, objects: Vec<Value>, include: Include, meta: &Value) -> Value {
    let now = Timestamp::now();
    let mut rows = Vec::with_capacity(objects.len());
    for object in objects {
        let cells = match def.custom() {
            Some(version) => custom_cells(&version.columns, &object, now),
            None => columns::cells(def, &object, now),
        };
        let mut row = json!({ "cells": cells });
        match include {
            Include::None => {}
            Include::Metadata => row["object"] = response::partial(&object),
            Include::Object => row["object"] = def.present(object),
        }
        rows.push(row);
    }
    let definitions: Vec<Value> = match def.custom() {
        Some(version) => custom_headers(&version.columns),
        None => columns::headers(def).into_iter().map(|(name, priority)| header(name, "string", priority)).collect(),
    };
    json!({ "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": meta, "columnDefinitions": definitions, "rows": rows })
}

fn header(name: &str, kind: &str, priority: i64) -> Value {
    let format = if name == "Name" { "name" } else { "" };
    json!({ "name": name, "type": kind, "format": format, "description": "", "priority": priority })
}

fn custom_headers(columns: &[Column]) -> Vec<Value> {
    let mut headers = vec![header("Name", "string", 0)];
    headers.extend(columns.iter().map(|column| {
        json!({ "name": column.name, "type": column.kind, "format": column.format,
                "description": column.description, "priority": column.priority })
    }));
    if columns.is_empty() {
        headers.push(header("Age", "date", 0));
    }
    headers
}

fn custom_cells(columns: &[Column], object: &Value, now: Timestamp) -> Vec<Value> {
    let mut cells = vec![json!(object::name(object))];
    for column in columns {
        let found = jsonpath::find(object, &column.path);
        cells.push(match (column.kind.as_str(), found.first()) {
            (_, None) => Value::Null,
            ("date", Some(at)) => json!(age(at.as_str().unwrap_or_default(), now)),
            ("integer" | "number" | "boolean", Some(value)) if !value.is_string() => (*value).clone(),
            (_, Some(_)) => json!(found.iter().map(|value| plain(value)).collect::<Vec<_>>().join(",")),
        });
    }
    if columns.is_empty() {
        cells.push(json!(age(text(object, "/metadata/creationTimestamp"), now)));
    }
    cells
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The time since a timestamp as kubectl says it, `<unknown>` if it is none.
pub(crate) fn age(since: &str, now: Timestamp) -> String {
    match since.parse::<Timestamp>() {
        Ok(at) => duration(now.duration_since(at).as_secs()),
        Err(_) => "<unknown>".into(),
    }
}

/// A duration for people: at most two units, the fewer the longer.
fn duration(seconds: i64) -> String {
    let two = |big: i64, big_unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{big}{big_unit}") } else { format!("{big}{big_unit}{small}{small_unit}") }
    };
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        ..0 => "0s".into(),
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        _ => two(days / 365, "y", days % 365, "d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_in_kubectl() {
        let said: Vec<String> =
            [-5, 0, 119, 130, 600, 10_860, 90_000, 180_000, 864_000].into_iter().map(duration).collect();
        assert_eq!(said, ["0s", "0s", "119s", "2m10s", "10m", "3h1m", "25h", "2d2h", "10d"]);
    }
}

//! The small part of JSONPath that print columns use: `.a.b`, `[0]`, `[*]`, `['a']`, `[?(@.type=="Ready")]`.

use serde_json::Value;

#[derive(Debug, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    All,
    /// Members where the path has this value.
    Filter(Vec<String>, String),
}

/// The values at a path; none if the path is malformed.
pub(crate) fn find<'a>(value: &'a Value, path: &str) -> Vec<&'a Value> {
    let mut found = vec![value];
    for step in parse(path).unwrap_or_else(|| vec![Step::Index(-1), Step::All]) {
        found = found.into_iter().flat_map(|value| take(value, &step)).collect();
    }
    found.retain(|value| !value.is_null());
    found
}

fn take<'a>(value: &'a Value, step: &Step) -> Vec<&'a Value> {
    match step {
        Step::Field(name) => value.get(name).into_iter().collect(),
        Step::Index(index) => {
            let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
            let index = if *index < 0 { index + i64::try_from(items.len()).unwrap_or_default() } else { *index };
            usize::try_from(index).ok().and_then(|index| items.get(index)).into_iter().collect()
        }
        Step::All => match value {
            Value::Array(items) => items.iter().collect(),
            Value::Object(map) => map.values().collect(),
            _ => Vec::new(),
        },
        Step::Filter(path, wanted) => {
            let at = |item: &Value| path.iter().try_fold(item.clone(), |value, part| value.get(part).cloned());
            let is = |item: &&Value| match at(item) {
                Some(Value::String(text)) => text == *wanted,
                Some(other) => serde_json::from_str::<Value>(wanted).is_ok_and(|wanted| wanted == other),
                None => false,
            };
            value.as_array().into_iter().flatten().filter(is).collect()
        }
    }
}

fn parse(path: &str) -> Option<Vec<Step>> {
    let mut rest = path.trim().trim_start_matches('{').trim_end_matches('}').trim_start_matches('$');
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            // A dot in a name is escaped.
            let mut name = String::new();
            let mut chars = after.char_indices().peekable();
            let mut end = after.len();
            while let Some((at, c)) = chars.next() {
                match c {
                    '\\' => name.extend(chars.next().map(|(_, c)| c)),
                    '.' | '[' => {
                        end = at;
                        break;
                    }
                    c => name.push(c),
                }
            }
            steps.push(if name == "*" { Step::All } else { Step::Field(name) });
            rest = &after[end..];
        } else {
            let (inner, after) = rest.strip_prefix('[')?.split_once(']')?;
            steps.push(bracket(inner)?);
            rest = after;
        }
    }
    Some(steps)
}

fn bracket(inner: &str) -> Option<Step> {
    let quoted = |text: &str| text.trim().trim_matches(['\'', '"']).to_owned();
    if inner == "*" {
        return Some(Step::All);
    }
    if let Some(filter) = inner.strip_prefix("?(").and_then(|filter| filter.strip_suffix(')')) {
        let (path, wanted) = filter.split_once("==")?;
        let path = path.trim().strip_prefix("@.")?.split('.').map(str::to_owned).collect();
        return Some(Step::Filter(path, quoted(wanted)));
    }
    if inner.starts_with(['\'', '"']) {
        return Some(Step::Field(quoted(inner)));
    }
    inner.parse().ok().map(Step::Index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn print_columns_find_their_values() {
        let object = json!({ "metadata": { "labels": { "app.io/name": "x" } },
            "status": { "ips": [{ "ip": "a" }, { "ip": "b" }],
                "conditions": [{ "type": "Ready", "status": "True" }, { "type": "Bound", "status": "False" }] } });
        let found = |path: &str| {
            find(&object, path).into_iter().map(|v| v.as_str().unwrap_or("?").to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(found(".status.conditions[?(@.type==\"Ready\")].status"), ["True"]);
        assert_eq!(found(".status.conditions[?(@.type=='Bound')].status"), ["False"]);
        assert_eq!(found(".status.ips[*].ip"), ["a", "b"]);
        assert_eq!(found(".status.ips[-1].ip"), ["b"]);
        assert_eq!(found(".metadata.labels.app\\.io/name"), ["x"]);
        assert_eq!(found(".metadata.labels['app.io/name']"), ["x"]);
        assert!(found(".status.absent").is_empty() && found("status").is_empty());
    }
}

//! The fields that bodies may have, and the check of a body against them, with the words of the real one's types.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::error::{Error, Result};
use crate::cloud::body::{Body, shown, to_bool};
use crate::cloud::http::Call;

/// What values a field takes. `null` is taken by all.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Check {
    /// Text of at most so many characters.
    Text(usize),
    Bool,
    /// A whole number from the first to the second, or text of one.
    Int(i64, i64),
    Uuid,
    Ip,
    /// A list of networks; bits beyond the prefix are cleared.
    Cidrs,
    OneOf(&'static [&'static str]),
    /// A list of texts of at most so many characters.
    Texts(usize),
    /// An object of texts.
    TextMap,
    /// HTTP statuses: `200`, `200,201`, `200-204`.
    Statuses,
    /// The path of a URL.
    Path,
    /// 1.0 or 1.1.
    HttpVersion,
    Object(Fields),
    List(Fields),
}

/// Whether a create has to name a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    Optional,
    Mandatory,
    Yes,
    No,
    Number(i64),
}

/// One field.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    name: &'static str,
    check: Check,
    need: Need,
}

impl Field {
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }
}

/// All fields of a body, in groups that several bodies share.
pub(crate) type Fields = &'static [&'static [Field]];

/// A field that may be left out.
pub(crate) const fn may(name: &'static str, check: Check) -> Field {
    Field { name, check, need: Need::Optional }
}

/// A field that a create must have.
pub(crate) const fn must(name: &'static str, check: Check) -> Field {
    Field { name, check, need: Need::Mandatory }
}

/// A field that has a value when a create leaves it out.
pub(crate) const fn or(name: &'static str, check: Check, default: Need) -> Field {
    Field { name, check, need: default }
}

/// Ports, in the sense of TCP.
pub(crate) const PORT: Check = Check::Int(1, 65535);

/// Who owns the object: taken, but children always belong to the project of their load balancer.
pub(crate) const PROJECT: &[Field] = &[may("project_id", Check::Text(36)), may("tenant_id", Check::Text(36))];

/// Reads the object that the body wraps in `key`. `argument` is the name by which the real one's messages call the body.
pub(crate) fn read(call: &Call, argument: &str, key: &str, fields: Fields) -> Result<Body> {
    let create = call.method == axum::http::Method::POST;
    let reader = Reader { argument, root: Value::Object(json_object(call, argument)?), create };
    let value = reader.wrapped(key)?;
    let Value::Object(map) = value else {
        let kind = if value.is_null() { "NoneType" } else { "list" };
        return Err(Error::internal(format!("'{kind}' object has no attribute 'keys'")));
    };
    Ok(Body::new(reader.object(&format!("{argument}.{key}"), fields, map)?))
}

/// Reads a list of objects that the body wraps in `key`; each is checked as in a create.
pub(crate) fn read_list(call: &Call, argument: &str, key: &str, fields: Fields) -> Result<Vec<Body>> {
    let reader = Reader { argument, root: Value::Object(json_object(call, argument)?), create: true };
    let Value::Array(items) = reader.wrapped(key)? else {
        return Err(reader.whole(&format!("Value not a valid list: {}", shown(reader.wrapped(key)?))));
    };
    let one = |item: &Value| reader.item(&format!("{argument}.{key}"), fields, item).map(Body::new);
    items.iter().map(one).collect()
}

fn json_object(call: &Call, argument: &str) -> Result<Map<String, Value>> {
    if call.body.is_empty() {
        return Err(Error::bad(format!("Missing argument: \"{argument}\"")));
    }
    match call.json() {
        Some(Value::Object(map)) => Ok(map),
        _ => Err(Error::bad("Request is not in valid JSON format")),
    }
}

/// The text of a UUID in its usual form.
fn to_uuid(value: &Value) -> Option<Value> {
    Uuid::try_parse(value.as_str()?).ok().map(|id| Value::String(id.to_string()))
}

struct Reader<'a> {
    argument: &'a str,
    root: Value,
    /// Missing fields get their defaults, or are errors.
    create: bool,
}

impl Reader<'_> {
    fn wrapped(&self, key: &str) -> Result<&Value> {
        let others: Vec<&str> = self
            .root
            .as_object()
            .into_iter()
            .flat_map(Map::keys)
            .map(String::as_str)
            .filter(|name| *name != key)
            .collect();
        if !others.is_empty() {
            return Err(unknown(self.argument, &others));
        }
        let absent = || Error::internal(format!("'UnsetType' object has no attribute '{key}'"));
        self.root.get(key).ok_or_else(absent)
    }

    /// What the types of the real one refuse without naming the field: the message shows the whole body.
    fn whole(&self, reason: &str) -> Error {
        Error::input(self.argument, &self.root, reason)
    }

    fn item(&self, path: &str, fields: Fields, item: &Value) -> Result<Map<String, Value>> {
        let Value::Object(map) = item else {
            return Err(Error::internal(format!("'{}' object has no attribute 'keys'", shown(item))));
        };
        self.object(path, fields, map)
    }

    fn object(&self, path: &str, fields: Fields, map: &Map<String, Value>) -> Result<Map<String, Value>> {
        let all = || fields.iter().flat_map(|group| group.iter());
        let others: Vec<&str> =
            map.keys().map(String::as_str).filter(|name| all().all(|field| field.name != *name)).collect();
        if !others.is_empty() {
            return Err(unknown(path, &others));
        }
        let mut out = Map::new();
        for field in all() {
            let value = match (map.get(field.name), field.need) {
                (Some(value), Need::Mandatory) if value.is_null() && self.create => {
                    return Err(Error::input(field.name, value, "Mandatory field missing."));
                }
                (Some(value), _) => self.value(path, field, value)?,
                (None, _) if !self.create => continue,
                (None, Need::Optional) => continue,
                (None, Need::Mandatory) => {
                    return Err(Error::input(field.name, &Value::Null, "Mandatory field missing."));
                }
                (None, Need::Yes) => Value::Bool(true),
                (None, Need::No) => Value::Bool(false),
                (None, Need::Number(number)) => Value::from(number),
            };
            out.insert(field.name.to_owned(), value);
        }
        Ok(out)
    }

    fn value(&self, path: &str, field: &Field, value: &Value) -> Result<Value> {
        let refuse = |reason: &str| Err(Error::input(field.name, value, reason));
        if value.is_null() {
            return Ok(Value::Null);
        }
        match field.check {
            Check::Text(most) => check_text(field.name, value, most, value).map(|()| value.clone()),
            Check::Bool => match to_bool(value) {
                Some(flag) => Ok(Value::Bool(flag)),
                None => Err(self.whole(&format!("Value not an unambiguous boolean: {}", shown(value)))),
            },
            Check::Int(least, most) => {
                let number = value.as_i64().or_else(|| value.as_str()?.parse().ok());
                match number {
                    None => Err(self.whole(&format!("invalid literal for int() with base 10: '{}'", shown(value)))),
                    Some(number) if number < least => refuse(&format!("Value should be greater or equal to {least}")),
                    Some(number) if number > most => refuse(&format!("Value should be lower or equal to {most}")),
                    Some(number) => Ok(Value::from(number)),
                }
            }
            Check::Uuid => to_uuid(value).map_or_else(|| refuse("Value should be UUID format"), Ok),
            Check::Ip => match value.as_str().and_then(|text| text.parse::<IpAddr>().ok()) {
                Some(ip) => Ok(Value::String(ip.to_string())),
                None => refuse("Value should be IPv4 or IPv6 format"),
            },
            Check::Cidrs => {
                let one = |item: &Value| {
                    let text = item.as_str()?;
                    let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
                    Some(Value::String(net.trunc().to_string()))
                };
                match self.list(value)?.iter().map(one).collect::<Option<Vec<_>>>() {
                    Some(nets) => Ok(Value::Array(nets)),
                    None => refuse("Value should be IPv4 or IPv6 CIDR format"),
                }
            }
            Check::OneOf(allowed) => match value.as_str() {
                Some(text) if allowed.contains(&text) => Ok(value.clone()),
                _ => refuse(&format!("Value should be one of: {}", allowed.join(", "))),
            },
            Check::Texts(most) => {
                for item in self.list(value)? {
                    check_text(field.name, item, most, value)?;
                }
                Ok(value.clone())
            }
            Check::TextMap => match value.as_object() {
                Some(map) if map.values().all(Value::is_string) => Ok(value.clone()),
                _ => refuse("Value should be string"),
            },
            Check::Statuses => match value.as_str() {
                Some(text) if is_statuses(text) => Ok(value.clone()),
                _ => refuse(r"Value should match the pattern ^(\d{3}(\s*,\s*\d{3})*)$|^(\d{3}-\d{3})$"),
            },
            Check::Path => match value.as_str() {
                Some(text) if text.starts_with('/') && !text.contains(char::is_whitespace) => Ok(value.clone()),
                _ => refuse("Value must be a valid URL Path string"),
            },
            Check::HttpVersion => match value.as_f64().or_else(|| value.as_str()?.parse().ok()) {
                Some(version) if [1.0, 1.1].contains(&version) => Ok(Value::from(version)),
                _ => refuse("Value should be one of: 1.0, 1.1"),
            },
            Check::Object(fields) => self.item(&format!("{path}.{}", field.name), fields, value).map(Value::Object),
            Check::List(fields) => {
                let path = format!("{path}.{}", field.name);
                self.list(value)?.iter().map(|item| self.item(&path, fields, item).map(Value::Object)).collect()
            }
        }
    }

    fn list<'v>(&self, value: &'v Value) -> Result<&'v Vec<Value>> {
        value.as_array().ok_or_else(|| self.whole(&format!("Value not a valid list: {}", shown(value))))
    }
}

fn unknown(path: &str, names: &[&str]) -> Error {
    let s = if names.len() == 1 { "" } else { "s" };
    Error::bad(format!("Unknown attribute{s} for argument {path}: {}", names.join(", ")))
}

fn check_text(field: &str, text: &Value, most: usize, whole: &Value) -> Result<()> {
    match text.as_str() {
        None => Err(Error::input(field, whole, "Value should be string")),
        Some(text) if text.chars().count() > most => {
            Err(Error::input(field, whole, format!("Value should have a maximum character requirement of {most}")))
        }
        Some(_) => Ok(()),
    }
}

fn is_statuses(text: &str) -> bool {
    let status = |text: &str| text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    let range = text.split_once('-').is_some_and(|(from, to)| status(from) && status(to));
    range || text.split(',').all(|part| status(part.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const INNER: &[Field] = &[must("port", PORT), or("weight", Check::Int(0, 256), Need::Number(1))];
    const OUTER: &[Field] =
        &[may("name", Check::Text(3)), or("up", Check::Bool, Need::Yes), may("members", Check::List(&[INNER]))];

    fn read_json(method: &axum::http::Method, body: &Value) -> Result<Body> {
        let (parts, ()) = axum::http::Request::builder().method(method).uri("/v3").body(()).unwrap().into_parts();
        let call =
            Call::read(&parts, body.to_string().into(), "req-1".into(), None, jiff::Timestamp::UNIX_EPOCH).unwrap();
        read(&call, "arg_", "thing", &[OUTER])
    }

    fn message(body: &Value) -> String {
        read_json(&axum::http::Method::POST, body).unwrap_err().message
    }

    #[test]
    fn a_create_gets_defaults_and_an_update_does_not() {
        let given = json!({ "thing": { "members": [{ "port": "80" }] } });
        let made = read_json(&axum::http::Method::POST, &given).unwrap();
        assert_eq!(made.list("members").unwrap(), [json!({ "port": 80, "weight": 1 })]);
        assert_eq!(made.boolean("up"), Some(true));
        let changed = read_json(&axum::http::Method::PUT, &json!({ "thing": { "name": null } })).unwrap();
        assert!(changed.has("name") && !changed.has("up"));
    }

    #[test]
    fn a_refusal_names_the_field_and_the_way_to_it() {
        let refused = |thing: Value| message(&json!({ "thing": thing }));
        assert_eq!(refused(json!({ "a": 1, "b": 2 })), "Unknown attributes for argument arg_.thing: a, b");
        assert_eq!(
            refused(json!({ "members": [{ "port": 1, "x": 1 }] })),
            "Unknown attribute for argument arg_.thing.members: x"
        );
        let port = |port: Value| refused(json!({ "members": [{ "port": port }] }));
        assert!(port(json!(0)).ends_with("field/attribute port. Value: '0'. Value should be greater or equal to 1"));
        assert!(port(json!(null)).ends_with("field/attribute port. Value: 'None'. Mandatory field missing."));
        assert!(refused(json!({ "name": "long" })).ends_with("maximum character requirement of 3"));
        assert_eq!(message(&json!({ "thing": {}, "x": 1 })), "Unknown attribute for argument arg_: x");
    }

    #[test]
    fn statuses_are_one_several_or_a_range() {
        assert!(["200", "200,201", "200 , 404", "200-204"].iter().all(|text| is_statuses(text)));
        assert!(["", "20", "200-", "200,2011", "abc"].iter().all(|text| !is_statuses(text)));
    }
}

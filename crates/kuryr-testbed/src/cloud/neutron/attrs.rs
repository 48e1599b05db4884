//! The attributes that a kind of resource has, and the check of a request's body against them.
//!
//! The order of checks is Neutron's: unknown attributes, then attributes that may not be given, then missing ones, then values.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::error::{Error, Result};
pub(crate) use crate::cloud::body::{Body, shown, shown_list, to_bool};

/// Who may set an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Only the cloud.
    Read,
    /// A create.
    Create,
    /// A create, which must.
    Required,
    /// A create; never shown.
    Hidden,
    /// A create and updates.
    Write,
}

/// What values an attribute takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Check {
    /// The verb checks.
    Any,
    /// Text of at most so many characters.
    Text(usize),
    Bool,
    /// A whole number, or text of one.
    Int,
    Uuid,
    UuidOrNull,
    UuidList,
    Ip,
    Cidr,
    Mac,
    Tags,
    OneOf(&'static [&'static str]),
    List,
    Dict,
}

/// One attribute.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attr {
    pub(crate) name: &'static str,
    pub(crate) access: Access,
    pub(crate) check: Check,
}

pub(crate) const fn attr(name: &'static str, access: Access, check: Check) -> Attr {
    Attr { name, access, check }
}

/// The longest tag, in characters: what releases before Zed allow. Later ones allow 255, but Kuryr has to do with 60.
pub(crate) const MAX_TAG: usize = 60;

/// Attributes that every kind has. `tags` is listed by each kind, for only ports take it in a create.
const COMMON: &[Attr] = &[
    attr("id", Access::Read, Check::Uuid),
    attr("project_id", Access::Create, Check::Text(255)),
    attr("tenant_id", Access::Create, Check::Text(255)),
    attr("description", Access::Write, Check::Text(255)),
    attr("created_at", Access::Read, Check::Any),
    attr("updated_at", Access::Read, Check::Any),
    attr("revision_number", Access::Read, Check::Int),
];

/// A kind of resource.
#[derive(Debug)]
pub(crate) struct Kind {
    /// The key of a list in JSON: `security_groups`.
    pub(crate) plural: &'static str,
    /// The key of one in JSON: `security_group`; also the quota's name.
    pub(crate) singular: &'static str,
    /// Attributes beside the common ones.
    pub(crate) attrs: &'static [Attr],
    /// Whether `/{id}/tags` exists.
    pub(crate) tagged: bool,
    /// The error for an id that is not there.
    pub(crate) not_found: fn(&str) -> Error,
}

impl Kind {
    pub(crate) fn all(&self) -> impl Iterator<Item = &'static Attr> {
        COMMON.iter().chain(self.attrs)
    }

    pub(crate) fn find(&self, name: &str) -> Option<&'static Attr> {
        self.all().find(|attr| attr.name == name)
    }
}

impl Body {
    pub(crate) fn of_create(kind: &Kind, map: Map<String, Value>) -> Result<Self> {
        Self::checked(kind, map, true)
    }

    pub(crate) fn of_update(kind: &Kind, map: Map<String, Value>) -> Result<Self> {
        Self::checked(kind, map, false)
    }

    fn checked(kind: &Kind, mut map: Map<String, Value>, create: bool) -> Result<Self> {
        let unknown: Vec<&str> = map.keys().filter(|name| kind.find(name).is_none()).map(String::as_str).collect();
        if !unknown.is_empty() {
            return Err(Error::refused(format!("Unrecognized attribute(s) '{}'", unknown.join(", "))));
        }
        if let (Some(project), Some(tenant)) = (map.get("project_id"), map.get("tenant_id"))
            && project != tenant
        {
            return Err(Error::refused("'project_id' and 'tenant_id' do not match"));
        }
        for attr in kind.all() {
            let given = map.contains_key(attr.name);
            match attr.access {
                Access::Read if given && create => {
                    return Err(Error::refused(format!("Attribute '{}' not allowed in POST", attr.name)));
                }
                Access::Read | Access::Create | Access::Required | Access::Hidden if given && !create => {
                    return Err(Error::refused(format!("Cannot update read-only attribute {}", attr.name)));
                }
                Access::Required if create && !given => {
                    let message = format!("Failed to parse request. Required attribute '{}' not specified", attr.name);
                    return Err(Error::refused(message));
                }
                Access::Read | Access::Create | Access::Required | Access::Hidden | Access::Write => {}
            }
        }
        for attr in kind.all() {
            if let Some(value) = map.get_mut(attr.name) {
                *value = convert(attr, value.take())?;
            }
        }
        Ok(Self::new(map))
    }
}

/// A MAC address in its usual form, lower case with colons.
pub(crate) fn to_mac(text: &str) -> Option<String> {
    let parts: Vec<&str> = text.split([':', '-']).collect();
    let plain = parts.len() == 6 && parts.iter().all(|p| p.len() == 2 && p.chars().all(|c| c.is_ascii_hexdigit()));
    plain.then(|| parts.join(":").to_ascii_lowercase())
}

fn convert(attr: &Attr, value: Value) -> Result<Value> {
    let refuse = |reason: String| Err(Error::attribute(attr.name, reason));
    match attr.check {
        Check::Any => Ok(value),
        Check::Text(max) => match &value {
            Value::String(text) if text.chars().count() > max => {
                refuse(format!("'{text}' exceeds maximum length of {max}"))
            }
            Value::String(_) => Ok(value),
            _ => refuse(format!("'{}' is not a valid string", shown(&value))),
        },
        Check::Bool => match to_bool(&value) {
            Some(value) => Ok(Value::Bool(value)),
            None => Err(Error::invalid(format!("'{}' cannot be converted to boolean", shown(&value)))),
        },
        Check::Int => match &value {
            Value::Number(n) if n.is_i64() => Ok(value),
            Value::Null => Ok(value),
            Value::String(text) if text.parse::<i64>().is_ok() => {
                Ok(Value::from(text.parse::<i64>().unwrap_or_default()))
            }
            _ => Err(Error::invalid(format!("'{}' is not an integer", shown(&value)))),
        },
        Check::Uuid => {
            uuid_value(&value).map_or_else(|| refuse(format!("'{}' is not a valid UUID", shown(&value))), Ok)
        }
        Check::UuidOrNull if value.is_null() => Ok(value),
        Check::UuidOrNull => {
            uuid_value(&value).map_or_else(|| refuse(format!("'{}' is not a valid UUID", shown(&value))), Ok)
        }
        Check::UuidList => match value {
            Value::Null => Ok(Value::Array(Vec::new())),
            Value::Array(items) => {
                let mut seen = BTreeSet::new();
                let mut out = Vec::new();
                for item in items {
                    let Some(id) = uuid_value(&item) else {
                        return Err(Error::invalid(format!("'{}' is not an integer or uuid", shown(&item))));
                    };
                    if seen.insert(shown(&id)) {
                        out.push(id);
                    }
                }
                Ok(Value::Array(out))
            }
            other => Err(Error::invalid(format!("'{}' is not an integer or uuid", shown(&other)))),
        },
        Check::Ip => match value.as_str().map(str::parse::<IpAddr>) {
            Some(Ok(ip)) => Ok(Value::String(ip.to_string())),
            None if value.is_null() => Ok(value),
            _ => refuse(format!("'{}' is not a valid IP address", shown(&value))),
        },
        Check::Cidr => match value.as_str().map(str::parse::<IpNet>) {
            Some(Ok(net)) if net == net.trunc() => Ok(Value::String(net.to_string())),
            Some(Ok(net)) => {
                refuse(format!("'{net}' isn't a recognized IP subnet cidr, '{}' is recommended", net.trunc()))
            }
            None if value.is_null() => Ok(value),
            _ => refuse(format!("'{}' is not a valid IP subnet", shown(&value))),
        },
        Check::Mac => match value.as_str().and_then(to_mac) {
            Some(mac) if mac != "00:00:00:00:00:00" => Ok(Value::String(mac)),
            _ => refuse(format!("'{}' is not a valid MAC address", shown(&value))),
        },
        Check::Tags => {
            check_tags(&value).map_or_else(|reason| Err(Error::attribute(attr.name, reason)), |()| Ok(value))
        }
        Check::OneOf(allowed) => match value.as_str() {
            Some(text) if allowed.contains(&text) => Ok(value),
            None if value.is_null() && allowed.contains(&"") => Ok(value),
            _ => refuse(format!("'{}' is not in {}", shown(&value), shown_list(allowed.iter().copied()))),
        },
        Check::List => match value {
            Value::Array(_) => Ok(value),
            Value::Null => Ok(Value::Array(Vec::new())),
            other => refuse(format!("'{}' is not a list", shown(&other))),
        },
        Check::Dict => match value {
            Value::Object(_) | Value::Null => Ok(value),
            other => refuse(format!("'{}' is not a dictionary", shown(&other))),
        },
    }
}

fn uuid_value(value: &Value) -> Option<Value> {
    Uuid::try_parse(value.as_str()?).ok().map(|id| Value::String(id.to_string()))
}

/// The reason why a list of tags is refused.
pub(crate) fn check_tags(value: &Value) -> std::result::Result<(), String> {
    let Value::Array(tags) = value else {
        return Err(format!("'{}' is not a list", shown(value)));
    };
    let mut seen = BTreeSet::new();
    for tag in tags {
        check_tag(tag)?;
        if !seen.insert(shown(tag)) {
            let all: Vec<String> = tags.iter().map(shown).collect();
            return Err(format!("Duplicate items in the list: '{}'", all.join(", ")));
        }
    }
    Ok(())
}

/// The reason why a tag is refused.
pub(crate) fn check_tag(value: &Value) -> std::result::Result<(), String> {
    match value {
        Value::String(tag) if tag.chars().count() > MAX_TAG => {
            Err(format!("'{tag}' exceeds maximum length of {MAX_TAG}"))
        }
        Value::String(_) => Ok(()),
        other => Err(format!("'{}' is not a valid string", shown(other))),
    }
}

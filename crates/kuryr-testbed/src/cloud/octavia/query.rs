//! Lists: filters, fields, order and pages, as the real one has them.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::error::{Error, Result};
use crate::cloud::body::{shown, to_bool};
use crate::cloud::http::{Answer, Call};

/// One object of a list.
pub(crate) struct Item {
    pub(crate) serial: u64,
    pub(crate) shown: Map<String, Value>,
    /// What is not shown, but may be filtered by.
    pub(crate) hidden: Vec<(&'static str, Value)>,
}

impl Item {
    pub(crate) fn new(serial: u64, shown: Map<String, Value>) -> Self {
        Self { serial, shown, hidden: Vec::new() }
    }

    fn value(&self, name: &str) -> &Value {
        let hidden = || self.hidden.iter().find(|(known, _)| *known == name).map(|(_, value)| value);
        self.shown.get(name).or_else(hidden).unwrap_or(&Value::Null)
    }

    fn id(&self) -> &str {
        self.shown.get("id").and_then(Value::as_str).unwrap_or_default()
    }

    fn tags(&self) -> Vec<&str> {
        self.shown.get("tags").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
    }
}

/// What every kind may be filtered by.
const COMMON: &[&str] = &[
    "id",
    "name",
    "project_id",
    "provisioning_status",
    "operating_status",
    "admin_state_up",
    "created_at",
    "updated_at",
];

/// Answers a list of a kind, which may be filtered by the `names` beside the common ones.
pub(crate) fn list(
    call: &Call,
    plural: &str,
    names: &[&str],
    page_limit: Option<usize>,
    mut items: Vec<Item>,
) -> Result<Answer> {
    let query = Query::read(call, names, page_limit)?;
    items.retain(|item| query.matches(item));
    items.sort_by(|a, b| query.compare(a, b));
    if let Some(marker) = &query.marker {
        let at = items.iter().position(|item| item.id() == *marker);
        let at = at.ok_or_else(|| Error::bad(format!("Supplied pagination marker '{marker}' is not valid.")))?;
        items = if query.reverse { items.drain(..at).collect() } else { items.split_off(at + 1) };
    }
    if let Some(limit) = query.limit {
        items.truncate(limit);
    }
    let links = query.links(call, &items);
    let shown: Vec<Value> = items.into_iter().map(|item| select(item.shown, &query.fields)).collect();
    let body = Map::from_iter([(plural.to_owned(), Value::Array(shown)), (format!("{plural}_links"), json!(links))]);
    Ok(Answer::ok(Value::Object(body)))
}

/// Answers one object, with the fields that the request names.
pub(crate) fn one(call: &Call, status: StatusCode, singular: &str, shown: Map<String, Value>) -> Answer {
    let fields: Vec<&str> = named(call, "fields").collect();
    Answer::new(status, json!({ singular: select(shown, &fields) }))
}

fn select(mut shown: Map<String, Value>, fields: &[&str]) -> Value {
    if !fields.is_empty() {
        shown.retain(|name, _| fields.contains(&name.as_str()));
    }
    Value::Object(shown)
}

fn named<'c>(call: &'c Call, name: &str) -> impl Iterator<Item = &'c str> {
    call.query.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
}

#[derive(Default)]
struct Query<'c> {
    values: BTreeMap<&'c str, &'c str>,
    tags: Vec<&'c str>,
    tags_any: Option<Vec<&'c str>>,
    not_tags: Option<Vec<&'c str>>,
    not_tags_any: Vec<&'c str>,
    fields: Vec<&'c str>,
    /// Name and whether ascending.
    sort: Vec<(&'c str, bool)>,
    /// What the links repeat.
    sort_text: Option<(&'c str, &'c str)>,
    limit: Option<usize>,
    marker: Option<&'c str>,
    reverse: bool,
}

impl<'c> Query<'c> {
    fn read(call: &'c Call, names: &[&str], page_limit: Option<usize>) -> Result<Self> {
        let known = |name: &str| COMMON.contains(&name) || names.contains(&name);
        let mut query = Self::default();
        let (mut keys, mut dirs) = (None, "");
        query.limit = page_limit;
        for (name, value) in &call.query {
            let (name, value) = (name.as_str(), value.as_str());
            match name {
                "fields" => query.fields.push(value),
                "tags" => query.tags.extend(value.split(',')),
                "tags-any" => query.tags_any.get_or_insert_default().extend(value.split(',')),
                "not-tags" => query.not_tags.get_or_insert_default().extend(value.split(',')),
                "not-tags-any" => query.not_tags_any.extend(value.split(',')),
                "limit" => query.limit = limit(value, page_limit)?,
                "marker" => query.marker = Some(value),
                "page_reverse" => query.reverse = value == "True",
                "sort" => {
                    query.sort_text = Some((name, value));
                    for part in value.split(',') {
                        let (key, direction) = part.split_once(':').unwrap_or((part, "asc"));
                        query.sort.push((key, direction_of(direction)?));
                    }
                }
                "sort_key" => keys = Some(value),
                "sort_dir" => dirs = value,
                _ if known(name) && query.values.insert(name, value).is_none() => {}
                _ => return Err(Error::bad("One or more arguments are either duplicate or invalid")),
            }
        }
        if let Some(keys) = keys.filter(|_| query.sort.is_empty()) {
            query.sort_text = Some(("sort_key", keys));
            let mut dirs = dirs.split(',').filter(|dir| !dir.is_empty());
            for key in keys.split(',') {
                query.sort.push((key, direction_of(dirs.next().unwrap_or("asc"))?));
            }
        }
        if let Some((key, _)) = query.sort.iter().find(|(key, _)| !known(key)) {
            return Err(Error::bad(format!("Supplied sort key '{key}' is not valid.")));
        }
        Ok(query)
    }

    fn matches(&self, item: &Item) -> bool {
        let tags = item.tags();
        let has = |tag: &&str| tags.contains(tag);
        self.tags.iter().all(has)
            && self.tags_any.as_ref().is_none_or(|any| any.iter().any(has))
            && self.not_tags.as_ref().is_none_or(|all| !all.iter().all(has))
            && !self.not_tags_any.iter().any(has)
            && self.values.iter().all(|(name, wanted)| is(item.value(name), wanted))
    }

    fn compare(&self, a: &Item, b: &Item) -> Ordering {
        for (key, ascending) in &self.sort {
            let order = match (a.value(key), b.value(key)) {
                (Value::Number(a), Value::Number(b)) => a.as_i64().cmp(&b.as_i64()),
                (a, b) => shown(a).cmp(&shown(b)),
            };
            if order != Ordering::Equal {
                return if *ascending { order } else { order.reverse() };
            }
        }
        a.serial.cmp(&b.serial)
    }

    /// The links to the pages before and after. The real one does not repeat filters and fields in them.
    fn links(&self, call: &Call, items: &[Item]) -> Vec<Value> {
        let (Some(limit), Some(first), Some(last)) = (self.limit, items.first(), items.last()) else {
            return Vec::new();
        };
        let link = |rel: &str, marker: &str, reverse: bool| {
            let mut query = form_urlencoded::Serializer::new(String::new());
            query.append_pair("limit", &limit.to_string());
            if let Some((name, value)) = self.sort_text {
                query.append_pair(name, value);
            }
            query.append_pair("marker", marker);
            if reverse {
                query.append_pair("page_reverse", "True");
            }
            let url = format!("{}/load-balancer{}", call.base_url, call.path_text());
            json!({ "rel": rel, "href": format!("{url}?{}", query.finish()) })
        };
        let mut links = Vec::new();
        if self.marker.is_some() {
            links.push(link("previous", first.id(), true));
        }
        if items.len() >= limit {
            links.push(link("next", last.id(), false));
        }
        links
    }
}

fn limit(text: &str, most: Option<usize>) -> Result<Option<usize>> {
    match text.parse::<i64>() {
        _ if text == "infinite" => Ok(most),
        Err(_) => Err(Error::bad(format!("Supplied pagination limit '{text}' is not valid."))),
        // No limit is what the real one means here, and then cannot make its links.
        Ok(..1) => Err(Error::internal("'>=' not supported between instances of 'int' and 'NoneType'")),
        Ok(number) => {
            let asked = usize::try_from(number).unwrap_or(usize::MAX);
            Ok(Some(most.map_or(asked, |most| most.min(asked))))
        }
    }
}

fn direction_of(text: &str) -> Result<bool> {
    match text.to_ascii_lowercase().as_str() {
        "asc" => Ok(true),
        "desc" => Ok(false),
        other => Err(Error::bad(format!("Supplied sort direction '{other}' is not valid."))),
    }
}

fn is(value: &Value, wanted: &str) -> bool {
    match value {
        Value::Bool(flag) => to_bool(&Value::String(wanted.to_owned())).unwrap_or(false) == *flag,
        Value::String(text) => text == wanted,
        Value::Number(number) => number.to_string() == wanted,
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

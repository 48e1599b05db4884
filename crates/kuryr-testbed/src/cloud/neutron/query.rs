//! The query of a list: filters, fields, order and pages.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde_json::Value;
use uuid::Uuid;

use super::Neutron;
use super::attrs::{Check, Kind, shown, shown_list, to_bool};
use super::error::{Error, Result};
use super::resource::Resource;

/// Filters of a list: all must match.
#[derive(Debug, Default, Clone)]
pub(crate) struct Filters {
    /// By attribute, the values of which one must match.
    pub(crate) values: BTreeMap<String, Vec<String>>,
    /// Tags that must all be there.
    pub(crate) tags: Vec<String>,
    /// Tags of which one must be there.
    tags_any: Option<Vec<String>>,
    /// Tags that must not all be there.
    not_tags: Option<Vec<String>>,
    /// Tags of which none may be there.
    not_tags_any: Vec<String>,
}

/// A whole query.
#[derive(Debug, Default, Clone)]
pub(crate) struct Query {
    pub(crate) filters: Filters,
    /// The attributes to show; empty for all.
    pub(crate) fields: Vec<String>,
    /// Attribute and whether ascending.
    sort: Vec<(String, bool)>,
    pub(crate) limit: Option<usize>,
    marker: Option<String>,
    pub(crate) reverse: bool,
}

impl Query {
    /// Reads a query. `page_limit` is the most that one page may hold.
    pub(crate) fn read(kind: &Kind, pairs: &[(String, String)], page_limit: Option<usize>) -> Result<Self> {
        let mut query = Self::default();
        let (mut keys, mut dirs) = (Vec::new(), Vec::new());
        let mut unknown = Vec::new();
        for (name, value) in pairs {
            let tags = || value.split(',').filter(|tag| !tag.is_empty()).map(str::to_owned);
            match name.as_str() {
                "fields" => query.fields.push(value.clone()),
                "sort_key" => keys.push(value.clone()),
                "sort_dir" => dirs.push(value.clone()),
                "limit" => query.limit = limit(value)?,
                "marker" => query.marker = Some(value.clone()),
                "page_reverse" => query.reverse = value.eq_ignore_ascii_case("true"),
                "tags" => query.filters.tags.extend(tags()),
                "tags-any" => query.filters.tags_any.get_or_insert_default().extend(tags()),
                "not-tags" => query.filters.not_tags.get_or_insert_default().extend(tags()),
                "not-tags-any" => query.filters.not_tags_any.extend(tags()),
                _ => match kind.find(name).filter(|_| is_filter(kind, name)) {
                    None => unknown.push(name.as_str()),
                    Some(attr) => {
                        let bad = attr.check == Check::Bool && to_bool(&Value::String(value.clone())).is_none();
                        if bad {
                            return Err(Error::invalid(format!("'{value}' cannot be converted to boolean")));
                        }
                        query.filters.values.entry(name.clone()).or_default().push(value.clone());
                    }
                },
            }
        }
        if !unknown.is_empty() {
            return Err(Error::refused(format!("{} is invalid attribute for filtering", shown_list(unknown))));
        }
        // It joins the table of tags twice under one name, which MySQL refuses.
        if !query.filters.tags.is_empty() && query.filters.tags_any.is_some() {
            let message = "Request Failed: internal server error while processing your request.";
            return Err(Error::new(StatusCode::INTERNAL_SERVER_ERROR, "HTTPInternalServerError", message));
        }
        query.sort = sorts(kind, keys, &dirs)?;
        query.limit = match (query.limit, page_limit) {
            (Some(asked), Some(most)) => Some(asked.min(most)),
            (asked, most) => asked.or(most),
        };
        Ok(query)
    }

    /// Orders, and cuts out the page.
    pub(crate) fn page<'a, R: Resource>(&self, neutron: &Neutron, mut rows: Vec<&'a R>) -> Result<Vec<&'a R>> {
        // Rows come in the order of their ids, which decides where no sort key does.
        if !self.sort.is_empty() {
            rows.sort_by(|a, b| self.compare(neutron, *a, *b));
        }
        if self.reverse && self.limit.is_some() {
            rows.reverse();
        }
        if let (Some(marker), Some(_)) = (&self.marker, self.limit) {
            let at = rows.iter().position(|row| row.standard().id.to_string() == *marker);
            let at = at.ok_or_else(|| (R::KIND.not_found)(marker))?;
            rows.drain(..=at);
        }
        if let Some(limit) = self.limit {
            rows.truncate(limit);
            if self.reverse {
                rows.reverse();
            }
        }
        Ok(rows)
    }

    fn compare<R: Resource>(&self, neutron: &Neutron, a: &R, b: &R) -> Ordering {
        for (key, ascending) in &self.sort {
            let order = compare_values(&a.value(key, neutron), &b.value(key, neutron));
            if order != Ordering::Equal {
                return if *ascending { order } else { order.reverse() };
            }
        }
        Ordering::Equal
    }

    /// The links to the next and previous page.
    pub(crate) fn links(
        &self,
        url: &str,
        pairs: &[(String, String)],
        first: Option<Uuid>,
        last: Option<Uuid>,
        length: usize,
    ) -> Vec<Value> {
        let Some(limit) = self.limit else { return Vec::new() };
        let link = |rel: &str, marker: Option<Uuid>, reverse: bool| {
            let mut query = form_urlencoded::Serializer::new(String::new());
            query.extend_pairs(pairs.iter().filter(|(name, _)| name != "marker" && name != "page_reverse"));
            if let Some(marker) = marker {
                query.append_pair("marker", &marker.to_string());
            }
            if reverse {
                query.append_pair("page_reverse", "True");
            }
            serde_json::json!({ "rel": rel, "href": format!("{url}?{}", query.finish()) })
        };
        let mut links = Vec::new();
        if length >= limit || self.reverse {
            links.push(link("next", last, false));
        }
        if length >= limit || !self.reverse {
            links.push(link("previous", first, true));
        }
        links
    }
}

/// Attributes that lists cannot be filtered by.
const NO_FILTERS: &[&str] = &[
    "allocation_pools",
    "allowed_address_pairs",
    "availability_zone_hints",
    "availability_zones",
    "binding:profile",
    "binding:vif_details",
    "binding:vif_type",
    "binding:vnic_type",
    "created_at",
    "dns_nameservers",
    "external_gateway_info",
    "host_routes",
    "ipv4_address_scope",
    "ipv6_address_scope",
    "port_security_enabled",
    "prefixes",
    "prefixlen",
    "routes",
    "security_group_rules",
    "service_types",
    "stateful",
    "sub_ports",
    "subnets",
    "updated_at",
    "use_default_subnetpool",
];

fn is_filter(kind: &Kind, name: &str) -> bool {
    let status_of_l3 = name == "status" && ["router", "trunk"].contains(&kind.singular);
    !NO_FILTERS.contains(&name) && !status_of_l3
}

fn limit(text: &str) -> Result<Option<usize>> {
    match text.parse::<usize>() {
        Ok(0) => Ok(None),
        Ok(n) => Ok(Some(n)),
        Err(_) => Err(Error::bad_request(
            "BadRequest",
            format!("Bad limit request: Limit must be an integer 0 or greater and not '{text}'."),
        )),
    }
}

fn sorts(kind: &Kind, keys: Vec<String>, dirs: &[String]) -> Result<Vec<(String, bool)>> {
    if keys.len() != dirs.len() {
        return Err(Error::refused("The number of sort_keys and sort_dirs must be same"));
    }
    let absent: Vec<&str> = keys.iter().filter(|key| kind.find(key).is_none()).map(String::as_str).collect();
    if !absent.is_empty() {
        return Err(Error::refused(format!("{} is invalid attribute for sort_keys", shown_list(absent))));
    }
    let invalid: Vec<&str> = dirs.iter().map(String::as_str).filter(|dir| !["asc", "desc"].contains(dir)).collect();
    if !invalid.is_empty() {
        return Err(Error::refused(format!(
            "{} is invalid value for sort_dirs, valid value is 'asc' and 'desc'",
            shown_list(invalid)
        )));
    }
    Ok(keys.into_iter().zip(dirs.iter().map(|dir| dir == "asc")).collect())
}

fn compare_values(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Null, Value::Null) => Ordering::Equal,
        (Value::Null, _) => Ordering::Less,
        (_, Value::Null) => Ordering::Greater,
        (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        _ => shown(a).cmp(&shown(b)),
    }
}

impl Filters {
    pub(crate) fn match_row<R: Resource>(&self, row: &R, neutron: &Neutron) -> bool {
        let tags = &row.standard().tags;
        self.tags.iter().all(|tag| tags.contains(tag))
            && self.tags_any.as_ref().is_none_or(|any| any.iter().any(|tag| tags.contains(tag)))
            && self.not_tags.as_ref().is_none_or(|all| !all.iter().all(|tag| tags.contains(tag)))
            && !self.not_tags_any.iter().any(|tag| tags.contains(tag))
            && self.values.iter().all(|(name, wanted)| matches(&row.value(name, neutron), wanted))
    }

    /// The values wanted of an attribute as ids, if it is filtered by.
    pub(crate) fn ids(&self, name: &str) -> Option<Vec<Uuid>> {
        Some(self.values.get(name)?.iter().filter_map(|v| Uuid::try_parse(v).ok()).collect())
    }
}

fn matches(value: &Value, wanted: &[String]) -> bool {
    match value {
        Value::String(text) => wanted.iter().any(|w| w == text),
        Value::Bool(value) => wanted.iter().any(|w| to_bool(&Value::String(w.clone())) == Some(*value)),
        Value::Number(n) => wanted.iter().any(|w| *w == n.to_string()),
        Value::Array(items) if items.iter().any(Value::is_object) => {
            items.iter().any(|item| matches_parts(item, wanted))
        }
        Value::Array(items) => wanted.iter().any(|w| items.iter().any(|item| item.as_str() == Some(w))),
        Value::Null => wanted.iter().any(|w| w.is_empty() || w == "None"),
        Value::Object(_) => false,
    }
}

/// A filter such as `fixed_ips=subnet_id=...`: values of one key are alternatives, keys must all match, in the same item.
fn matches_parts(item: &Value, wanted: &[String]) -> bool {
    let mut by_key: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for want in wanted {
        let Some((key, value)) = want.split_once('=') else { return false };
        by_key.entry(key).or_default().push(value);
    }
    by_key.into_iter().all(|(key, values)| {
        if key == "ip_address_substr" {
            let address = item["ip_address"].as_str().unwrap_or_default();
            return values.iter().any(|part| address.contains(part));
        }
        values.iter().any(|value| item[key].as_str() == Some(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_of_one_attribute_are_alternatives() {
        assert!(matches(&json!("b"), &["a".into(), "b".into()]));
        assert!(!matches(&json!("c"), &["a".into(), "b".into()]));
        assert!(matches(&json!(true), &["True".into()]));
        assert!(matches(&json!(["x", "y"]), &["y".into()]));
    }

    #[test]
    fn fixed_ips_match_address_and_subnet_in_one_item() {
        let ips =
            json!([{ "subnet_id": "s1", "ip_address": "10.0.0.1" }, { "subnet_id": "s2", "ip_address": "10.1.0.1" }]);
        assert!(matches(&ips, &["subnet_id=s1".into(), "ip_address=10.0.0.1".into()]));
        assert!(!matches(&ips, &["subnet_id=s1".into(), "ip_address=10.1.0.1".into()]));
        assert!(matches(&ips, &["ip_address=10.9.9.9".into(), "ip_address=10.1.0.1".into()]));
        assert!(matches(&ips, &["ip_address_substr=10.1".into()]));
    }
}

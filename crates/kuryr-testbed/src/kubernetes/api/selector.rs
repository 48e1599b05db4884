//! Label selectors (equality and set based) and field selectors.

use std::collections::BTreeMap;

use super::{status::ApiError, store::Entry};

/// One condition of a label selector.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    Exists(String),
    Absent(String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Greater(String, i64),
    Less(String, i64),
}

impl Requirement {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let number = |key: &String| labels.get(key).and_then(|value| value.parse::<i64>().ok());
        match self {
            Self::Exists(key) => labels.contains_key(key),
            Self::Absent(key) => !labels.contains_key(key),
            Self::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Self::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
            Self::Greater(key, limit) => number(key).is_some_and(|value| value > *limit),
            Self::Less(key, limit) => number(key).is_some_and(|value| value < *limit),
        }
    }
}

/// A condition of a field selector: field, wanted value, whether it must be equal.
type FieldTerm = (String, String, bool);

/// Which objects of a resource a request means.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    /// Only this namespace.
    pub(crate) namespace: Option<String>,
    labels: Vec<Requirement>,
    fields: Vec<FieldTerm>,
}

impl Selection {
    /// Parses the selectors of a request. `selectable` are the resource's fields beyond metadata's.
    pub(crate) fn parse(
        namespace: Option<&str>,
        labels: Option<&str>,
        fields: Option<&str>,
        selectable: &[Box<str>],
    ) -> Result<Self, ApiError> {
        Ok(Self {
            namespace: namespace.map(str::to_owned),
            labels: parse_labels(labels.unwrap_or_default())?,
            fields: parse_fields(fields.unwrap_or_default(), selectable)?,
        })
    }

    /// Narrows the selection to one object.
    pub(crate) fn named(mut self, name: &str) -> Self {
        self.fields.push(("metadata.name".into(), name.into(), true));
        self
    }

    /// Whether labels or fields narrow the selection.
    pub(crate) fn is_filtered(&self) -> bool {
        !self.labels.is_empty() || !self.fields.is_empty()
    }

    pub(crate) fn matches(&self, entry: &Entry) -> bool {
        self.namespace.as_deref().is_none_or(|namespace| namespace == &*entry.namespace)
            && self.labels.iter().all(|requirement| requirement.matches(&entry.labels))
            && self.fields.iter().all(|(field, value, equal)| {
                let found = match field.as_str() {
                    "metadata.name" => &entry.name,
                    "metadata.namespace" => &entry.namespace,
                    field => entry.field(field),
                };
                (found == value) == *equal
            })
    }
}

fn parse_fields(selector: &str, selectable: &[Box<str>]) -> Result<Vec<FieldTerm>, ApiError> {
    let mut terms = Vec::new();
    for term in selector.split(',').map(str::trim).filter(|term| !term.is_empty()) {
        let (field, value, equal) = if let Some((field, value)) = term.split_once("!=") {
            (field, value, false)
        } else if let Some((field, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
            (field, value, true)
        } else {
            return Err(ApiError::bad_request(format!(
                "Unable to find {selector:?} that match label selector \"\", field selector {selector:?}: \
                 invalid selector: '{selector}'; can't understand '{term}'"
            )));
        };
        let known =
            ["metadata.name", "metadata.namespace"].contains(&field) || selectable.iter().any(|f| &**f == field);
        if !known {
            return Err(ApiError::bad_request(format!("field label not supported: {field}")));
        }
        terms.push((field.to_owned(), value.to_owned(), equal));
    }
    Ok(terms)
}

/// Splits at commas that are outside parentheses.
fn split_terms(selector: &str) -> Vec<&str> {
    let mut depth = 0_i32;
    selector
        .split(|c| {
            match c {
                '(' => depth += 1,
                ')' => depth -= 1,
                _ => {}
            }
            c == ',' && depth == 0
        })
        .map(str::trim)
        .filter(|term| !term.is_empty())
        .collect()
}

fn parse_labels(selector: &str) -> Result<Vec<Requirement>, ApiError> {
    split_terms(selector).into_iter().map(parse_requirement).collect()
}

fn parse_requirement(term: &str) -> Result<Requirement, ApiError> {
    let bad = || ApiError::bad_request(format!("unable to parse requirement: {term:?} is not a label selector"));
    let key = |key: &str| {
        let key = key.trim();
        let valid = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
        if valid { Ok(key.to_owned()) } else { Err(bad()) }
    };
    if let Some(open) = term.find('(') {
        let values = term[open + 1..].strip_suffix(')').ok_or_else(bad)?;
        let values = values.split(',').map(|value| value.trim().to_owned()).collect();
        let mut head = term[..open].split_whitespace();
        return match (head.next(), head.next(), head.next()) {
            (Some(name), Some("in"), None) => Ok(Requirement::In(key(name)?, values)),
            (Some(name), Some("notin"), None) => Ok(Requirement::NotIn(key(name)?, values)),
            _ => Err(bad()),
        };
    }
    if let Some(name) = term.strip_prefix('!') {
        return Ok(Requirement::Absent(key(name)?));
    }
    if let Some((name, value)) = term.split_once("!=") {
        return Ok(Requirement::NotIn(key(name)?, vec![value.trim().to_owned()]));
    }
    if let Some((name, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        return Ok(Requirement::In(key(name)?, vec![value.trim().to_owned()]));
    }
    if let Some((name, value)) = term.split_once('>') {
        return Ok(Requirement::Greater(key(name)?, value.trim().parse().map_err(|_| bad())?));
    }
    if let Some((name, value)) = term.split_once('<') {
        return Ok(Requirement::Less(key(name)?, value.trim().parse().map_err(|_| bad())?));
    }
    Ok(Requirement::Exists(key(term)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(selector: &str, labels: &[(&str, &str)]) -> bool {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        parse_labels(selector).unwrap().iter().all(|requirement| requirement.matches(&labels))
    }

    #[test]
    fn label_selectors_follow_kubernetes() {
        let labels = [("app", "web"), ("tier", "front"), ("rank", "7")];
        for yes in ["", "app=web", "app==web", "app in (web, db),tier", "!zone", "zone!=a", "zone notin (a)", "rank>6"]
        {
            assert!(matches(yes, &labels), "{yes:?} should match");
        }
        for no in ["app=db", "app notin (web)", "zone", "!app", "app!=web", "zone in (a,b)", "rank<7"] {
            assert!(!matches(no, &labels), "{no:?} should not match");
        }
    }

    #[test]
    fn malformed_selectors_are_refused() {
        for bad in ["app in web", "a b", "app in (x", "=x", "a>b"] {
            assert_eq!(parse_labels(bad).unwrap_err().code, 400, "{bad:?}");
        }
        assert_eq!(parse_fields("spec.color=red", &[]).unwrap_err().message, "field label not supported: spec.color");
        assert!(parse_fields("spec.color=red", &["spec.color".into()]).is_ok());
        assert!(parse_fields("metadata.name", &[]).is_err());
    }
}

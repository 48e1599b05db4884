//! From a request's body to an object that may be stored: decoding, types, unknown fields, defaults, validation.

use http::{HeaderMap, header};
use serde_json::{Value, json};

use super::{
    defaults,
    object::{self, name},
    protobuf,
    registry::{ResourceDef, Source},
    request::Query,
    schema,
    status::{ApiError, FieldError},
    store,
};

/// What to do with fields that the type does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

/// The options of a write.
#[derive(Clone, Debug)]
pub(crate) struct WriteOptions {
    pub(crate) dry_run: bool,
    /// Field manager.
    pub(crate) manager: String,
    pub(crate) fields: FieldValidation,
    /// Take fields over from other managers (apply only).
    pub(crate) force: bool,
}

impl WriteOptions {
    pub(crate) fn parse(query: &Query, headers: &HeaderMap) -> Result<Self, ApiError> {
        let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or("unknown");
        let fields = match query.get("fieldValidation") {
            None | Some("Warn") => FieldValidation::Warn,
            Some("Ignore") => FieldValidation::Ignore,
            Some("Strict") => FieldValidation::Strict,
            Some(other) => return Err(ApiError::bad_request(format!("fieldValidation: Unsupported value: {other:?}"))),
        };
        Ok(Self {
            dry_run: query.get("dryRun").is_some(),
            manager: query.get("fieldManager").unwrap_or(agent.split('/').next().unwrap_or("unknown")).to_owned(),
            fields,
            force: query.flag("force"),
        })
    }
}

/// Which object a write is about.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    pub(crate) def: std::sync::Arc<ResourceDef>,
    /// "" if the resource is cluster-scoped.
    pub(crate) namespace: String,
    /// "" for a create.
    pub(crate) name: String,
    pub(crate) subresource: Option<String>,
}

impl Scope {
    pub(crate) fn is_status(&self) -> bool {
        self.subresource.as_deref() == Some("status")
    }
}

/// Parses a body that is JSON or YAML.
pub(crate) fn decode(headers: &HeaderMap, body: &[u8]) -> Result<Value, ApiError> {
    let media = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("application/json");
    match media.split(';').next().unwrap_or_default().trim() {
        "application/json" | "" => serde_json::from_slice(body)
            .map_err(|error| ApiError::bad_request(format!("the object provided is not JSON: {error}"))),
        "application/yaml" => yaml(body),
        "application/vnd.kubernetes.protobuf" => protobuf::decode(body),
        _ => {
            Err(ApiError::media_type(&["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"]))
        }
    }
}

/// Parses YAML, of which JSON is a part.
pub(crate) fn yaml(body: &[u8]) -> Result<Value, ApiError> {
    if let Ok(value) = serde_json::from_slice(body) {
        return Ok(value);
    }
    let text = std::str::from_utf8(body).map_err(|error| ApiError::bad_request(format!("not UTF-8: {error}")))?;
    serde_saphyr::from_str(text).map_err(|error| ApiError::bad_request(format!("error parsing YAML: {error}")))
}

/// Checks that a body is of the kind that the URL names.
pub(crate) fn check_kind(def: &ResourceDef, body: &Value) -> Result<(), ApiError> {
    let (api_version, kind) = (object::text(body, "/apiVersion"), object::text(body, "/kind"));
    if !body.is_object() || kind.is_empty() {
        return Err(ApiError::bad_request("Object 'Kind' is missing in the body of the request"));
    }
    if kind != def.kind {
        let message = format!("{kind} in version \"{api_version}\" cannot be handled as a {}", def.kind);
        return Err(ApiError::bad_request(message));
    }
    if api_version != def.api_version() {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({})",
            def.api_version()
        )));
    }
    Ok(())
}

/// Brings a body into its stored form: typed, pruned, with defaults. Also returns warnings.
pub(crate) fn shape(def: &ResourceDef, body: Value, fields: FieldValidation) -> Result<(Value, Vec<String>), ApiError> {
    let mut stored = def.store(body);
    object::meta(&mut stored);
    let cannot = |error: &dyn std::fmt::Display| {
        ApiError::bad_request(format!(
            "{} in version \"{}\" cannot be handled as a {}: {error}",
            def.kind, def.version, def.kind
        ))
    };
    let mut unknown = Vec::new();
    let mut shaped = match &def.source {
        Source::Builtin(builtin) => {
            let before = (fields != FieldValidation::Ignore).then(|| stored.clone());
            let after = builtin.normalize(stored).map_err(|error| cannot(&error))?;
            if let Some(before) = before {
                lost_fields(&before, &after, "", &mut unknown);
            }
            after
        }
        Source::Custom(version) => {
            let given = stored["metadata"].take();
            let typed =
                serde_json::from_value::<k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta>(given.clone());
            let typed = typed.and_then(serde_json::to_value).map_err(|error| cannot(&error))?;
            lost_fields(&given, &typed, "metadata", &mut unknown);
            object::map(&mut stored).remove("metadata");
            schema::prune(&mut stored, &version.schema, "", &mut unknown);
            schema::default(&mut stored, &version.schema);
            object::map(&mut stored).insert("metadata".into(), typed);
            stored
        }
    };
    object::map(&mut shaped).entry("metadata").or_insert_with(|| json!({}));
    let unknown: Vec<String> = unknown.into_iter().map(|field| format!("unknown field \"{field}\"")).collect();
    match fields {
        FieldValidation::Strict if !unknown.is_empty() => {
            let message = format!("strict decoding error: {}", unknown.join(", "));
            Err(ApiError::bad_request(format!(
                "{} in version \"{}\" cannot be handled as a {}: {message}",
                def.kind, def.version, def.kind
            )))
        }
        FieldValidation::Ignore => Ok((shaped, Vec::new())),
        _ => Ok((shaped, unknown)),
    }
}

/// The paths of values that were given and are gone after typing.
fn lost_fields(before: &Value, after: &Value, path: &str, lost: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            for (key, value) in before {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match after.get(key) {
                    Some(after) => lost_fields(value, after, &path, lost),
                    None if is_empty(value) => {}
                    None => lost.push(path),
                }
            }
        }
        (Value::Array(before), Value::Array(after)) => {
            for (index, (before, after)) in before.iter().zip(after).enumerate() {
                lost_fields(before, after, &format!("{path}[{index}]"), lost);
            }
        }
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

/// All that is wrong with an object about to be stored.
pub(crate) fn validate(def: &ResourceDef, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    validate_meta(def, object, &mut errors);
    if let Some(version) = def.custom() {
        let mut body = object.clone();
        object::map(&mut body).remove("metadata");
        schema::validate(&body, version, &mut errors);
    }
    defaults::validate(def, object, &mut errors);
    errors
}

fn validate_meta(def: &ResourceDef, object: &Value, errors: &mut Vec<FieldError>) {
    let wanted = name(object);
    let label_only = def.is_core("namespaces") || def.is_core("services");
    let free = def.group == "rbac.authorization.k8s.io" || def.plural == "events";
    if wanted.is_empty() {
        errors.push(FieldError::required("metadata.name", "name or generateName is required"));
    } else if label_only && !is_dns_label(wanted) {
        let why = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
                   and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
                   '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
        errors.push(FieldError::invalid("metadata.name", &json!(wanted), why));
    } else if !free && !is_dns_subdomain(wanted) {
        let why = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
                   start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
                   '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
        errors.push(FieldError::invalid("metadata.name", &json!(wanted), why));
    }
    if let Some(labels) = object.pointer("/metadata/labels").and_then(Value::as_object) {
        for (key, value) in labels {
            if !is_qualified_name(key) {
                errors.push(FieldError::invalid("metadata.labels", &json!(key), "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"));
            }
            let text = value.as_str().unwrap_or_default();
            if !text.is_empty() && !is_label_name(text) {
                errors.push(FieldError::invalid("metadata.labels", value, "a valid label must be an empty string or consist of at most 63 alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"));
            }
        }
    }
    if let Some(annotations) = object.pointer("/metadata/annotations").and_then(Value::as_object) {
        let size: usize = annotations.iter().map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum();
        if size > 256 * 1024 {
            errors.push(FieldError::too_long("metadata.annotations", 256 * 1024));
        }
        for key in annotations.keys().filter(|key| !is_qualified_name(&key.to_lowercase())) {
            errors.push(FieldError::invalid("metadata.annotations", &json!(key), "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"));
        }
    }
    let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    for (index, owner) in owners.into_iter().flatten().enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if object::text(owner, &format!("/{field}")).is_empty() {
                errors.push(FieldError::required(
                    format!("metadata.ownerReferences[{index}].{field}"),
                    "must not be empty",
                ));
            }
        }
    }
    let controllers = owners.into_iter().flatten().filter(|owner| owner["controller"] == true).count();
    if controllers > 1 {
        let why = "Only one reference can have Controller set to true";
        errors.push(FieldError::invalid("metadata.ownerReferences", &json!(store::owners(object)), why));
    }
}

/// Whether this is a lower-case DNS label of at most 63 characters.
pub(crate) fn is_dns_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && text.len() <= 63 && text.chars().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_dns_subdomain(text: &str) -> bool {
    let part = |part: &str| !part.is_empty() && is_dns_label(&part[..part.len().min(63)]);
    text.len() <= 253 && text.is_ascii() && text.split('.').all(part)
}

fn is_label_name(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    text.len() <= 63 && text.chars().all(inner) && edge(text.chars().next()) && edge(text.chars().last())
}

fn is_qualified_name(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_dns_subdomain(prefix) && is_label_name(name),
        None => is_label_name(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_dns() {
        for good in ["a", "a-1.b", "kuryrports.kuryr.openstack.org"] {
            assert!(is_dns_subdomain(good), "{good}");
        }
        for bad in ["", "A", "-a", "a_b", "a..b", "a-", "a.-b"] {
            assert!(!is_dns_subdomain(bad), "{bad}");
        }
        assert!(is_qualified_name("kubernetes.io/hostname") && is_qualified_name("App_1"));
        assert!(!is_qualified_name("a b") && !is_qualified_name("a/b/c"));
    }
}

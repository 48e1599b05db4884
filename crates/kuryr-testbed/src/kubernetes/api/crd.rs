//! CustomResourceDefinitions: what they define, and what is wrong with them.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    object::{self, child, text},
    registry::{ResourceDef, Source},
    schema::Patterns,
    status::FieldError,
};

/// Finalizer that keeps a definition until its objects are gone.
pub(crate) const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// A column of `kubectl get`.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub(crate) kind: String,
    pub(crate) format: String,
    pub(crate) description: String,
    pub(crate) priority: i64,
    pub(crate) path: String,
}

/// What one version of a definition says beyond names.
#[derive(Debug)]
pub(crate) struct CustomVersion {
    /// The `openAPIV3Schema`.
    pub(crate) schema: Value,
    pub(crate) columns: Vec<Column>,
    /// The compiled patterns of the schema.
    pub(crate) patterns: Patterns,
}

/// The resources that a definition (stored form) defines: one for each served version.
pub(crate) fn definitions(crd: &Value) -> Vec<Arc<ResourceDef>> {
    let versions = crd.pointer("/spec/versions").and_then(Value::as_array);
    versions
        .into_iter()
        .flatten()
        .filter(|version| version["served"] == true)
        .map(|v| Arc::new(definition(crd, v)))
        .collect()
}

fn strings(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array);
    list.into_iter().flatten().filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

fn definition(crd: &Value, version: &Value) -> ResourceDef {
    let names = &crd["spec"]["names"];
    let kind = text(names, "/kind").to_owned();
    let schema = version.pointer("/schema/openAPIV3Schema").cloned().unwrap_or_default();
    let column = |column: &Value| Column {
        name: text(column, "/name").into(),
        kind: text(column, "/type").into(),
        format: text(column, "/format").into(),
        description: text(column, "/description").into(),
        priority: column["priority"].as_i64().unwrap_or_default(),
        path: text(column, "/jsonPath").into(),
    };
    let selectable = version["selectableFields"].as_array();
    ResourceDef {
        group: text(crd, "/spec/group").into(),
        version: text(version, "/name").into(),
        plural: text(names, "/plural").into(),
        singular: match text(names, "/singular") {
            "" => kind.to_lowercase(),
            singular => singular.into(),
        },
        list_kind: match text(names, "/listKind") {
            "" => format!("{kind}List"),
            list => list.into(),
        },
        kind,
        namespaced: text(crd, "/spec/scope") == "Namespaced",
        short_names: strings(names.get("shortNames")),
        categories: strings(names.get("categories")),
        status: version.pointer("/subresources/status").is_some(),
        storage: object::name(crd).into(),
        selectable: selectable
            .into_iter()
            .flatten()
            .map(|field| text(field, "/jsonPath").trim_start_matches('.').into())
            .collect(),
        source: Source::Custom(Box::new(CustomVersion {
            patterns: Patterns::compile(&schema),
            columns: version["additionalPrinterColumns"].as_array().into_iter().flatten().map(column).collect(),
            schema,
        })),
    }
}

/// Completes a definition that is about to be stored: names, conditions, finalizer.
pub(crate) fn establish(crd: &mut Value) {
    let names = object::map(child(crd, "spec").entry("names").or_insert_with(|| json!({})));
    let kind = names.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    names.entry("singular").or_insert_with(|| json!(kind.to_lowercase()));
    names.entry("listKind").or_insert_with(|| json!(format!("{kind}List")));
    let names = names.clone();
    child(crd, "spec").entry("conversion").or_insert_with(|| json!({ "strategy": "None" }));
    let versions = crd.pointer("/spec/versions").and_then(Value::as_array);
    let stored: Vec<Value> =
        versions.into_iter().flatten().filter(|v| v["storage"] == true).map(|v| v["name"].clone()).collect();
    child(crd, "status").insert("acceptedNames".into(), Value::Object(names));
    child(crd, "status").insert("storedVersions".into(), json!(stored));
    object::set_condition(crd, "NamesAccepted", "True", "NoConflicts", "no conflicts found");
    object::set_condition(crd, "Established", "True", "InitialNamesAccepted", "the initial names have been accepted");
    let mut finalizers = object::finalizers(crd);
    if !object::deleting(crd) && !finalizers.iter().any(|item| item == CLEANUP) {
        finalizers.push(CLEANUP.into());
        object::set_meta(crd, "finalizers", Some(json!(finalizers)));
    }
}

/// What is wrong with a definition.
pub(crate) fn validate(crd: &Value, errors: &mut Vec<FieldError>) {
    let expected = format!("{}.{}", text(crd, "/spec/names/plural"), text(crd, "/spec/group"));
    if object::name(crd) != expected {
        let why = "must be spec.names.plural+\".\"+spec.group";
        errors.push(FieldError::invalid("metadata.name", &json!(object::name(crd)), why));
    }
    for field in ["group", "scope", "names/plural", "names/kind"] {
        if text(crd, &format!("/spec/{field}")).is_empty() {
            errors.push(FieldError::required(format!("spec.{}", field.replace('/', ".")), ""));
        }
    }
    let scopes = [json!("Cluster"), json!("Namespaced")];
    if !scopes.contains(&crd["spec"]["scope"]) {
        errors.push(FieldError::unsupported("spec.scope", &crd["spec"]["scope"], &scopes));
    }
    let versions = crd.pointer("/spec/versions").and_then(Value::as_array);
    if versions.into_iter().flatten().filter(|version| version["storage"] == true).count() != 1 {
        let why = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid("spec.versions", &Value::Null, why));
    }
    for (index, version) in versions.into_iter().flatten().enumerate() {
        let path = format!("spec.versions[{index}]");
        let at = format!("{path}.schema.openAPIV3Schema");
        match version.pointer("/schema/openAPIV3Schema") {
            None => errors.push(FieldError::required(at, "schemas are required")),
            Some(schema) if schema["type"] != "object" => {
                errors.push(FieldError::invalid(format!("{at}.type"), &schema["type"], "must be object at the root"));
            }
            Some(schema) => {
                structural(schema, &at, errors);
                selectable_fields(version, schema, &path, errors);
            }
        }
    }
}

fn selectable_fields(version: &Value, schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let fields = version["selectableFields"].as_array();
    if fields.map_or(0, Vec::len) > 8 {
        errors.push(FieldError::too_many(format!("{path}.selectableFields"), fields.map_or(0, Vec::len), 8));
    }
    for (index, field) in fields.into_iter().flatten().enumerate() {
        let json_path = text(field, "/jsonPath");
        let parts: Vec<&str> = json_path.split('.').skip(1).collect();
        let found = parts.iter().try_fold(schema, |schema, part| schema.get("properties")?.get(part));
        let kind = found.and_then(|schema| schema["type"].as_str());
        if parts.first() == Some(&"metadata") || !matches!(kind, Some("string" | "boolean" | "integer")) {
            let at = format!("{path}.selectableFields[{index}].jsonPath");
            let why = "must point to a field of type string, boolean or integer outside metadata";
            errors.push(FieldError::invalid(at, &json!(json_path), why));
        }
    }
}

/// Checks that a schema is structural: every value has one type, stated where it is.
fn structural(schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let free = schema["x-kubernetes-int-or-string"] == true || schema["x-kubernetes-preserve-unknown-fields"] == true;
    if text(schema, "/type").is_empty() && !free {
        errors.push(FieldError::required(format!("{path}.type"), "must not be empty for specified object fields"));
    }
    if schema.get("$ref").is_some() {
        errors.push(FieldError::forbidden(format!("{path}.$ref"), "$ref is not supported"));
    }
    if schema["uniqueItems"] == true {
        let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.push(FieldError::forbidden(format!("{path}.uniqueItems"), why));
    }
    if schema.get("properties").is_some() && schema.get("additionalProperties").is_some() {
        let why = "additionalProperties and properties are mutual exclusive";
        errors.push(FieldError::forbidden(format!("{path}.additionalProperties"), why));
    }
    if schema["type"] == "array" && schema.get("items").is_none() {
        errors.push(FieldError::required(format!("{path}.items"), "must be specified"));
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        if !(path.ends_with("openAPIV3Schema") && ["metadata", "apiVersion", "kind"].contains(&name.as_str())) {
            structural(property, &format!("{path}.properties[{name}]"), errors);
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(below) = schema.get(key).filter(|below| below.is_object()) {
            structural(below, &format!("{path}.{key}"), errors);
        }
    }
    for key in ["anyOf", "oneOf", "allOf"] {
        for (index, branch) in schema[key].as_array().into_iter().flatten().enumerate() {
            value_validation(branch, schema, &format!("{path}.{key}[{index}]"), errors);
        }
    }
    if let Some(not) = schema.get("not") {
        value_validation(not, schema, &format!("{path}.not"), errors);
    }
}

/// Inside `anyOf` and its like a schema may only restrict, not describe.
fn value_validation(branch: &Value, outside: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let int_or_string = outside["x-kubernetes-int-or-string"] == true;
    for key in ["type", "description", "title", "default", "additionalProperties", "nullable"] {
        if branch.get(key).is_some() && !(key == "type" && int_or_string) {
            errors.push(FieldError::forbidden(format!("{path}.{key}"), "must be empty to be structural"));
        }
    }
    for (name, property) in branch["properties"].as_object().into_iter().flatten() {
        let described = &outside["properties"][name];
        if described.is_null() {
            let at = path.rsplit_once('.').map_or(path, |(head, _)| head);
            errors.push(FieldError::required(
                format!("{at}.properties[{name}]"),
                &format!("because it is defined in {path}.properties[{name}]"),
            ));
        }
        value_validation(property, described, &format!("{path}.properties[{name}]"), errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crd(schema: &Value, selectable: &Value) -> Value {
        json!({
            "metadata": { "name": "widgets.example.com" },
            "spec": { "group": "example.com", "scope": "Namespaced",
                "names": { "plural": "widgets", "kind": "Widget" },
                "versions": [{ "name": "v1", "served": true, "storage": true,
                    "schema": { "openAPIV3Schema": schema }, "selectableFields": selectable }] },
        })
    }

    fn causes(crd: &Value) -> Vec<String> {
        let mut errors = Vec::new();
        validate(crd, &mut errors);
        errors.into_iter().map(|error| error.field).collect()
    }

    #[test]
    fn schemas_must_be_structural() {
        let good = json!({ "type": "object", "properties": { "spec": { "type": "object", "properties": { "node": { "type": "string" } } } } });
        assert!(causes(&crd(&good, &json!([{ "jsonPath": ".spec.node" }]))).is_empty());
        let bad = json!({ "type": "object", "properties": { "spec": { "anyOf": [{ "type": "object" }] } } });
        let at = "spec.versions[0].schema.openAPIV3Schema.properties[spec]";
        assert_eq!(causes(&crd(&bad, &json!([]))), [format!("{at}.type"), format!("{at}.anyOf[0].type")]);
    }

    #[test]
    fn selectable_fields_must_be_plain_values() {
        let schema = json!({ "type": "object", "properties": { "spec": { "type": "object" } } });
        let causes = causes(&crd(&schema, &json!([{ "jsonPath": ".spec" }, { "jsonPath": ".spec.absent" }])));
        assert_eq!(causes.len(), 2);
    }

    #[test]
    fn names_must_agree() {
        let mut wrong = crd(&json!({ "type": "object" }), &json!([]));
        wrong["metadata"]["name"] = json!("gadgets.example.com");
        assert_eq!(causes(&wrong), ["metadata.name"]);
    }
}

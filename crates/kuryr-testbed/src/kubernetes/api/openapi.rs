//! OpenAPI, as much as kubectl needs: that writes can validate fields, and the schemas of custom resources.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::registry::{Registry, ResourceDef};

/// `/openapi/v3`: where the document of each group and version is.
pub(crate) fn index(registry: &Registry) -> Value {
    let mut paths = json!({});
    for place in registry.all().iter().map(|def| place(def)).collect::<BTreeSet<_>>() {
        paths[&place] = json!({ "serverRelativeURL": format!("/openapi/v3/{place}") });
    }
    json!({ "paths": paths })
}

fn place(def: &ResourceDef) -> String {
    if def.group.is_empty() { format!("api/{}", def.version) } else { format!("apis/{}/{}", def.group, def.version) }
}

/// The document of `api/v1` or `apis/<group>/<version>`.
pub(crate) fn document(registry: &Registry, wanted: &str) -> Option<Value> {
    let defs: Vec<_> = registry.all().into_iter().filter(|def| place(def) == wanted).collect();
    if defs.is_empty() {
        return None;
    }
    let parameter = |name: &str| json!({ "name": name, "in": "query", "schema": { "type": "string" } });
    let mut paths = json!({});
    let mut schemas = json!({});
    for def in defs {
        let kind = json!({ "group": def.group, "version": def.version, "kind": def.kind });
        let scope = if def.namespaced { "namespaces/{namespace}/" } else { "" };
        let operation = |action: &str| {
            json!({
                "x-kubernetes-group-version-kind": kind, "x-kubernetes-action": action,
                "parameters": [parameter("dryRun"), parameter("fieldManager"), parameter("fieldValidation")],
                "responses": { "200": { "description": "OK" } },
            })
        };
        let one = json!({ "get": operation("get"), "put": operation("put"), "patch": operation("patch") });
        paths[format!("/{wanted}/{scope}{}/{{name}}", def.plural)] = one;
        paths[format!("/{wanted}/{scope}{}", def.plural)] = json!({ "post": operation("post") });
        if let Some(version) = def.custom() {
            let mut schema = version.schema.clone();
            schema["x-kubernetes-group-version-kind"] = json!([kind]);
            if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
                for name in ["apiVersion", "kind"] {
                    properties.insert(name.into(), json!({ "type": "string" }));
                }
                properties
                    .insert("metadata".into(), json!({ "type": "object", "description": "Standard object metadata." }));
            }
            let name = def.group.rsplit('.').collect::<Vec<_>>().join(".");
            schemas[format!("{name}.{}.{}", def.version, def.kind)] = schema;
        }
    }
    Some(json!({
        "openapi": "3.0.0", "info": { "title": "Kubernetes", "version": "v1.34.4" },
        "paths": paths, "components": { "schemas": schemas },
    }))
}

/// `/openapi/v2` as JSON.
pub(crate) fn v2() -> Value {
    json!({ "swagger": "2.0", "info": { "title": "Kubernetes", "version": "v1.34.4" }, "paths": {}, "definitions": {} })
}

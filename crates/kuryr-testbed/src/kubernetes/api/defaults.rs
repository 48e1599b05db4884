//! What creating an object of a built-in kind adds, and what each kind does not accept.

use ipnet::IpNet;
use serde_json::{Value, json};

use super::{
    builtin::StatusRule,
    crd, network_policies,
    object::{self, child},
    pods,
    registry::ResourceDef,
    services,
    status::{ApiError, FieldError},
    store::Transaction,
};

/// Fills in what a new object has from the start.
pub(crate) fn on_create(
    tx: &Transaction<'_>,
    def: &ResourceDef,
    object: &mut Value,
    service_cidrs: &[IpNet],
) -> Result<(), ApiError> {
    let reset = def.builtin().map_or(def.status, |builtin| builtin.status == StatusRule::Reset);
    if reset {
        object::map(object).remove("status");
    }
    match (def.group.as_str(), def.plural.as_str()) {
        ("", "pods") => pods::on_create(object),
        ("", "namespaces") => {
            child(object, "status").insert("phase".into(), json!("Active"));
            child(object, "spec").insert("finalizers".into(), json!(["kubernetes"]));
            let name = object::name(object).to_owned();
            let labels = object::map(object::meta(object).entry("labels").or_insert_with(|| json!({})));
            labels.insert("kubernetes.io/metadata.name".into(), json!(name));
        }
        ("", "services") => services::on_create(tx, def, object, service_cidrs)?,
        _ => {}
    }
    on_write(def, object);
    Ok(())
}

/// Fills in what an object has after every write.
pub(crate) fn on_write(def: &ResourceDef, object: &mut Value) {
    if def.is_crd() {
        crd::establish(object);
    }
    if def.is_core("secrets") {
        secret(object);
    }
    if (def.group.as_str(), def.plural.as_str()) == ("networking.k8s.io", "networkpolicies") {
        network_policies::on_write(object);
    }
}

/// What is wrong with an object of a built-in kind.
pub(crate) fn validate(def: &ResourceDef, object: &Value, errors: &mut Vec<FieldError>) {
    match (def.group.as_str(), def.plural.as_str()) {
        ("", "pods") => pods::validate(object, errors),
        ("apiextensions.k8s.io", "customresourcedefinitions") => crd::validate(object, errors),
        ("", "services") => services::validate(object, errors),
        ("networking.k8s.io", "networkpolicies") => network_policies::validate(object, errors),
        _ => {}
    }
}

/// `stringData` is written into `data`.
fn secret(object: &mut Value) {
    use base64::Engine as _;
    if let Some(Value::Object(strings)) = object::map(object).remove("stringData") {
        let data = child(object, "data");
        for (key, value) in strings {
            let encoded = base64::engine::general_purpose::STANDARD.encode(value.as_str().unwrap_or_default());
            data.insert(key, json!(encoded));
        }
    }
    object::map(object).entry("type").or_insert_with(|| json!("Opaque"));
}

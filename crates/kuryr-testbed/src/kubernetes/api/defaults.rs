//! What creating an object of a built-in kind adds, and what each kind does not accept.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::{
    builtin::StatusRule,
    crd,
    object::{self, child, text},
    pods,
    registry::ResourceDef,
    status::{ApiError, FieldError},
    store::Transaction,
};

/// Fills in what a new object has from the start.
pub(crate) fn on_create(
    tx: &Transaction<'_>,
    def: &ResourceDef,
    object: &mut Value,
    service_cidr: ipnet::Ipv4Net,
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
        ("", "services") => service(tx, def, object, service_cidr)?,
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
}

/// What is wrong with an object of a built-in kind.
pub(crate) fn validate(def: &ResourceDef, object: &Value, errors: &mut Vec<FieldError>) {
    match (def.group.as_str(), def.plural.as_str()) {
        ("", "pods") => pods::validate(object, errors),
        ("apiextensions.k8s.io", "customresourcedefinitions") => crd::validate(object, errors),
        ("", "services") if text(object, "/spec/type") != "ExternalName" => {
            let ports = object.pointer("/spec/ports").and_then(Value::as_array);
            if ports.is_none_or(Vec::is_empty) && text(object, "/spec/clusterIP") != "None" {
                errors.push(FieldError::required("spec.ports", ""));
            }
            for (index, port) in ports.into_iter().flatten().enumerate() {
                if !(1..=65535).contains(&port["port"].as_i64().unwrap_or_default()) {
                    let field = format!("spec.ports[{index}].port");
                    errors.push(FieldError::invalid(field, &port["port"], "must be between 1 and 65535, inclusive"));
                }
                if ports.is_some_and(|ports| ports.len() > 1) && text(port, "/name").is_empty() {
                    errors.push(FieldError::required(format!("spec.ports[{index}].name"), ""));
                }
            }
        }
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

fn service(tx: &Transaction<'_>, def: &ResourceDef, object: &mut Value, cidr: ipnet::Ipv4Net) -> Result<(), ApiError> {
    let name = object::name(object).to_owned();
    let mut taken_ips = HashSet::new();
    let mut taken_ports = HashSet::new();
    tx.any(&def.storage, |entry| {
        let other = entry.value();
        taken_ips.insert(text(&other, "/spec/clusterIP").to_owned());
        for port in other.pointer("/spec/ports").and_then(Value::as_array).into_iter().flatten() {
            taken_ports.extend(port["nodePort"].as_u64());
        }
        false
    });
    let spec = child(object, "spec");
    let kind = spec.entry("type").or_insert_with(|| json!("ClusterIP")).as_str().unwrap_or_default().to_owned();
    if kind == "ExternalName" {
        return Ok(());
    }
    let given = spec.get("clusterIP").and_then(Value::as_str).unwrap_or_default().to_owned();
    let address = match given.as_str() {
        "None" => given,
        "" => {
            let free = cidr.hosts().map(|host| host.to_string()).find(|host| !taken_ips.contains(host));
            free.ok_or_else(|| ApiError::new(500, "InternalError", format!("the service range {cidr} is full")))?
        }
        _ if taken_ips.contains(&given) => {
            let error = FieldError::invalid("spec.clusterIPs", &json!([given]), "provided IP is already allocated");
            return Err(ApiError::invalid(def, &name, &[error]));
        }
        _ => given,
    };
    let family = if address.contains(':') { "IPv6" } else { "IPv4" };
    spec.insert("clusterIP".into(), json!(address));
    spec.entry("clusterIPs").or_insert_with(|| json!([address]));
    spec.entry("ipFamilies").or_insert_with(|| json!([family]));
    for (key, value) in
        [("ipFamilyPolicy", "SingleStack"), ("sessionAffinity", "None"), ("internalTrafficPolicy", "Cluster")]
    {
        spec.entry(key).or_insert_with(|| json!(value));
    }
    let exposed = kind == "NodePort" || kind == "LoadBalancer";
    if exposed {
        spec.entry("externalTrafficPolicy").or_insert_with(|| json!("Cluster"));
    }
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        let number = port["port"].clone();
        let port = object::map(port);
        port.entry("protocol").or_insert_with(|| json!("TCP"));
        port.entry("targetPort").or_insert(number);
        if exposed && port.get("nodePort").and_then(Value::as_u64).is_none_or(|number| number == 0) {
            let free = (30000..=32767_u64).find(|number| !taken_ports.contains(number));
            let free = free.ok_or_else(|| ApiError::new(500, "InternalError", "every node port is taken"))?;
            taken_ports.insert(free);
            port.insert("nodePort".into(), json!(free));
        }
    }
    object::map(child(object, "status").entry("loadBalancer").or_insert_with(|| json!({})));
    Ok(())
}

//! What is special about pods: defaults, what may change, binding.

use serde_json::{Value, json};

use super::{
    Shared,
    object::{self, child, map, text},
    prepare::Scope,
    status::{ApiError, FieldError},
    store::Entry,
};

/// The defaults that clients see on every pod.
pub(crate) fn on_create(pod: &mut Value) {
    let spec = child(pod, "spec");
    for (key, value) in [
        ("restartPolicy", json!("Always")),
        ("terminationGracePeriodSeconds", json!(30)),
        ("dnsPolicy", json!("ClusterFirst")),
        ("schedulerName", json!("default-scheduler")),
        ("enableServiceLinks", json!(true)),
        ("securityContext", json!({})),
        ("serviceAccountName", json!("default")),
    ] {
        spec.entry(key).or_insert(value);
    }
    let mut requests = 0;
    let containers = spec.get_mut("containers").and_then(Value::as_array_mut);
    for container in containers.into_iter().flatten() {
        requests += usize::from(container["resources"].get("requests").is_some());
        let container = map(container);
        for (key, value) in [
            ("imagePullPolicy", json!("IfNotPresent")),
            ("resources", json!({})),
            ("terminationMessagePath", json!("/dev/termination-log")),
            ("terminationMessagePolicy", json!("File")),
        ] {
            container.entry(key).or_insert(value);
        }
        for port in container.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            map(port).entry("protocol").or_insert_with(|| json!("TCP"));
        }
    }
    let class = if requests == 0 { "BestEffort" } else { "Burstable" };
    let status = child(pod, "status");
    status.insert("phase".into(), json!("Pending"));
    status.insert("qosClass".into(), json!(class));
}

pub(crate) fn validate(pod: &Value, errors: &mut Vec<FieldError>) {
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array);
    if containers.is_none_or(Vec::is_empty) {
        errors.push(FieldError::required("spec.containers", ""));
    }
    let mut names = Vec::new();
    for (index, container) in containers.into_iter().flatten().enumerate() {
        let path = format!("spec.containers[{index}]");
        let name = text(container, "/name");
        if name.is_empty() {
            errors.push(FieldError::required(format!("{path}.name"), ""));
        } else if names.contains(&name) {
            errors.push(FieldError::duplicate(format!("{path}.name"), &json!(name)));
        }
        names.push(name);
        if text(container, "/image").is_empty() {
            errors.push(FieldError::required(format!("{path}.image"), ""));
        }
        for (index, port) in container["ports"].as_array().into_iter().flatten().enumerate() {
            if !(1..=65535).contains(&port["containerPort"].as_i64().unwrap_or_default()) {
                let field = format!("{path}.ports[{index}].containerPort");
                errors.push(FieldError::invalid(
                    field,
                    &port["containerPort"],
                    "must be between 1 and 65535, inclusive",
                ));
            }
        }
    }
    let policy = &pod["spec"]["restartPolicy"];
    let policies = [json!("Always"), json!("OnFailure"), json!("Never")];
    if !policy.is_null() && !policies.contains(policy) {
        errors.push(FieldError::unsupported("spec.restartPolicy", policy, &policies));
    }
}

/// Refuses changes of a pod's specification beyond the few that Kubernetes allows.
pub(crate) fn validate_update(before: &Value, after: &Value, errors: &mut Vec<FieldError>) {
    if comparable(before) != comparable(after) {
        let why = "pod updates may not change fields other than `spec.containers[*].image`,\
                   `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to \
                   existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was \
                   previously negative)";
        errors.push(FieldError::forbidden("spec", why));
    }
}

fn comparable(pod: &Value) -> Value {
    let mut spec = pod["spec"].clone();
    for key in ["activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds", "schedulingGates"] {
        map(&mut spec).remove(key);
    }
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            map(container).remove("image");
        }
    }
    spec
}

/// The grace period of a delete, in seconds: 0 for pods that no node runs.
pub(crate) fn grace_period(pod: &Value, asked: Option<i64>) -> i64 {
    let ended = matches!(text(pod, "/status/phase"), "Succeeded" | "Failed");
    if text(pod, "/spec/nodeName").is_empty() || ended {
        return 0;
    }
    asked.or_else(|| pod["spec"]["terminationGracePeriodSeconds"].as_i64()).unwrap_or(30).max(0)
}

/// Serves `pods/binding`: gives the pod its node.
pub(crate) fn bind(server: &Shared, scope: &Scope, binding: &Value) -> Result<std::sync::Arc<Entry>, ApiError> {
    let def = &scope.def;
    let node = text(binding, "/target/name").to_owned();
    if node.is_empty() {
        return Err(ApiError::invalid(def, &scope.name, &[FieldError::required("target.name", "")]));
    }
    server.store.write(|tx| {
        let current = tx.get(&def.storage, &scope.namespace, &scope.name);
        let mut pod = current.ok_or_else(|| ApiError::not_found(def, &scope.name))?.value();
        let conflict = |why: String| Err(ApiError::conflict(def, &scope.name, &why));
        let wanted = object::text(binding, "/metadata/uid");
        if !wanted.is_empty() && wanted != object::uid(&pod) {
            return conflict(format!(
                "Precondition failed: UID in precondition: {wanted}, UID in object meta: {}",
                object::uid(&pod)
            ));
        }
        if object::deleting(&pod) {
            return conflict(format!("pod {} is being deleted, cannot be assigned to a host", scope.name));
        }
        let assigned = text(&pod, "/spec/nodeName");
        if !assigned.is_empty() {
            return conflict(format!("pod {} is already assigned to node {assigned:?}", scope.name));
        }
        child(&mut pod, "spec").insert("nodeName".into(), json!(node));
        object::set_condition(&mut pod, "PodScheduled", "True", "", "");
        Ok(tx.put(&def.storage, pod))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_images_and_a_few_more_may_change() {
        let pod = json!({ "spec": { "nodeName": "a", "containers": [{ "name": "c", "image": "x" }] } });
        let mut errors = Vec::new();
        let image = json!({ "spec": { "nodeName": "a", "containers": [{ "name": "c", "image": "y" }] } });
        validate_update(&pod, &image, &mut errors);
        assert!(errors.is_empty());
        let node = json!({ "spec": { "nodeName": "b", "containers": [{ "name": "c", "image": "x" }] } });
        validate_update(&pod, &node, &mut errors);
        assert_eq!(errors[0].reason, "FieldValueForbidden");
    }

    #[test]
    fn pods_that_no_node_runs_have_no_grace_period() {
        assert_eq!(grace_period(&json!({ "spec": {} }), Some(5)), 0);
        assert_eq!(grace_period(&json!({ "spec": { "nodeName": "a" } }), None), 30);
        assert_eq!(grace_period(&json!({ "spec": { "nodeName": "a" }, "status": { "phase": "Failed" } }), None), 0);
    }
}

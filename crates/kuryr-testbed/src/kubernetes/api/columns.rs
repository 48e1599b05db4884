//! The columns of built-in kinds.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    object::{self, text},
    registry::ResourceDef,
    table::age,
};

/// Column names; those with priority 1 are shown by `-o wide`.
pub(crate) fn headers(def: &ResourceDef) -> Vec<(&'static str, i64)> {
    let (main, wide): (&[&str], &[&str]) = match def.plural.as_str() {
        "pods" => {
            (&["Name", "Ready", "Status", "Restarts", "Age"], &["IP", "Node", "Nominated Node", "Readiness Gates"])
        }
        "nodes" => (
            &["Name", "Status", "Roles", "Age", "Version"],
            &["Internal-IP", "External-IP", "OS-Image", "Kernel-Version", "Container-Runtime"],
        ),
        "namespaces" => (&["Name", "Status", "Age"], &[]),
        "events" => (
            &["Last Seen", "Type", "Reason", "Object", "Message"],
            &["Subobject", "Source", "First Seen", "Count", "Name"],
        ),
        "leases" => (&["Name", "Holder", "Age"], &[]),
        "configmaps" => (&["Name", "Data", "Age"], &[]),
        "secrets" => (&["Name", "Type", "Data", "Age"], &[]),
        "services" => (&["Name", "Type", "Cluster-IP", "External-IP", "Port(s)", "Age"], &["Selector"]),
        "endpointslices" => (&["Name", "AddressType", "Ports", "Endpoints", "Age"], &[]),
        "networkpolicies" => (&["Name", "Pod-Selector", "Age"], &[]),
        "deployments" => (&["Name", "Ready", "Up-to-date", "Available", "Age"], &[]),
        "statefulsets" => (&["Name", "Ready", "Age"], &[]),
        "jobs" => (&["Name", "Status", "Completions", "Duration", "Age"], &[]),
        "customresourcedefinitions" => (&["Name", "Created At"], &[]),
        _ => (&["Name", "Age"], &[]),
    };
    main.iter().map(|name| (*name, 0)).chain(wide.iter().map(|name| (*name, 1))).collect()
}

/// The cells of one object (stored form), as many as there are headers.
pub(crate) fn cells(def: &ResourceDef, object: &Value, now: Timestamp) -> Vec<Value> {
    let name = object::name(object).to_owned();
    let age = age(text(object, "/metadata/creationTimestamp"), now);
    let cells: Vec<String> = match def.plural.as_str() {
        "pods" => pod(object, name, age, now),
        "nodes" => node(object, name, age),
        "namespaces" => vec![name, text(object, "/status/phase").into(), age],
        "events" => event(object, name, now),
        "leases" => vec![name, text(object, "/spec/holderIdentity").into(), age],
        "configmaps" => vec![name, members(object, &["data", "binaryData"]).to_string(), age],
        "secrets" => vec![name, text(object, "/type").into(), members(object, &["data"]).to_string(), age],
        "services" => service(object, name, age),
        "endpointslices" => endpoint_slice(object, name, age),
        "networkpolicies" => vec![name, selector(&object["spec"]["podSelector"]["matchLabels"]), age],
        "deployments" => {
            let count = |path: &str| number(object, path).to_string();
            let ready = format!("{}/{}", count("/status/readyReplicas"), replicas(object));
            vec![name, ready, count("/status/updatedReplicas"), count("/status/availableReplicas"), age]
        }
        "statefulsets" => {
            vec![name, format!("{}/{}", number(object, "/status/readyReplicas"), replicas(object)), age]
        }
        "jobs" => {
            let wanted = object.pointer("/spec/completions").and_then(Value::as_i64).unwrap_or(1);
            let done = number(object, "/status/succeeded");
            let status = if done >= wanted { "Complete" } else { "Running" };
            vec![name, status.into(), format!("{done}/{wanted}"), String::new(), age]
        }
        "customresourcedefinitions" => vec![name, text(object, "/metadata/creationTimestamp").into()],
        _ => vec![name, age],
    };
    cells.into_iter().map(|cell| json!(cell)).collect()
}

fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
}

fn replicas(object: &Value) -> i64 {
    object.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1)
}

fn members(object: &Value, fields: &[&str]) -> usize {
    fields.iter().filter_map(|field| object[field].as_object()).map(serde_json::Map::len).sum()
}

fn or_none(text: &str) -> String {
    if text.is_empty() { "<none>".into() } else { text.into() }
}

fn selector(labels: &Value) -> String {
    let labels = labels.as_object().into_iter().flatten();
    let text = labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect::<Vec<_>>();
    or_none(&text.join(","))
}

fn condition<'a>(object: &'a Value, kind: &str) -> &'a str {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().find(|item| item["type"] == kind).map_or("", |item| text(item, "/status"))
}

fn pod(pod: &Value, name: String, age: String, now: Timestamp) -> Vec<String> {
    let statuses = pod.pointer("/status/containerStatuses").and_then(Value::as_array);
    let statuses = statuses.map(Vec::as_slice).unwrap_or_default();
    let total = pod.pointer("/spec/containers").and_then(Value::as_array).map_or(0, Vec::len);
    let ready = statuses.iter().filter(|status| status["ready"] == true).count();
    let restarts: i64 = statuses.iter().map(|status| number(status, "/restartCount")).sum();
    let last = statuses.iter().map(|status| text(status, "/lastState/terminated/finishedAt")).max().unwrap_or_default();
    let restarts = match (restarts, last) {
        (0, _) | (_, "") => restarts.to_string(),
        (count, last) => format!("{count} ({} ago)", self::age(last, now)),
    };
    let mut status = text(pod, "/status/phase").to_owned();
    let reason = text(pod, "/status/reason");
    if !reason.is_empty() {
        reason.clone_into(&mut status);
    }
    for container in statuses.iter().rev() {
        let waiting = text(container, "/state/waiting/reason");
        let ended = text(container, "/state/terminated/reason");
        if let Some(reason) = [waiting, ended].into_iter().find(|reason| !reason.is_empty()) {
            reason.clone_into(&mut status);
        }
    }
    if object::deleting(pod) {
        status = if reason == "NodeLost" { "Unknown".into() } else { "Terminating".into() };
    }
    let ip = text(pod, "/status/podIP");
    let node = text(pod, "/spec/nodeName");
    let wide = [or_none(ip), or_none(node), "<none>".into(), "<none>".into()];
    [name, format!("{ready}/{total}"), status, restarts, age].into_iter().chain(wide).collect()
}

fn node(node: &Value, name: String, age: String) -> Vec<String> {
    let mut status = match condition(node, "Ready") {
        "True" => "Ready".to_owned(),
        "False" => "NotReady".to_owned(),
        _ => "Unknown".to_owned(),
    };
    if node.pointer("/spec/unschedulable") == Some(&json!(true)) {
        status.push_str(",SchedulingDisabled");
    }
    let labels = node.pointer("/metadata/labels").and_then(Value::as_object);
    let roles = labels.into_iter().flatten().filter_map(|(key, _)| key.strip_prefix("node-role.kubernetes.io/"));
    let roles = or_none(&roles.collect::<Vec<_>>().join(","));
    let addresses = node.pointer("/status/addresses").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let address = |kind: &str| {
        or_none(addresses.iter().find(|item| item["type"] == kind).map_or("", |item| text(item, "/address")))
    };
    let info = |field: &str| match text(node, &format!("/status/nodeInfo/{field}")) {
        "" => "<unknown>".to_owned(),
        value => value.to_owned(),
    };
    vec![
        name,
        status,
        roles,
        age,
        text(node, "/status/nodeInfo/kubeletVersion").into(),
        address("InternalIP"),
        address("ExternalIP"),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

fn event(event: &Value, name: String, now: Timestamp) -> Vec<String> {
    let series = event.get("series").filter(|series| series.is_object());
    let first_of = |pointers: &[&str]| {
        pointers.iter().map(|pointer| text(event, pointer)).find(|at| !at.is_empty()).unwrap_or_default().to_owned()
    };
    let last = first_of(&["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"]);
    let first = first_of(&["/firstTimestamp", "/eventTime", "/metadata/creationTimestamp"]);
    let count = series.map_or_else(|| number(event, "/count").max(1), |series| number(series, "/count"));
    let about = &event["involvedObject"];
    let object = format!("{}/{}", text(about, "/kind").to_lowercase(), text(about, "/name"));
    vec![
        age(&last, now),
        text(event, "/type").into(),
        text(event, "/reason").into(),
        object,
        text(event, "/message").trim().into(),
        text(about, "/fieldPath").into(),
        first_of(&["/reportingComponent", "/source/component"]),
        age(&first, now),
        count.to_string(),
        name,
    ]
}

fn service(service: &Value, name: String, age: String) -> Vec<String> {
    let ports = service.pointer("/spec/ports").and_then(Value::as_array).into_iter().flatten().map(|port| {
        let (number, protocol) = (&port["port"], text(port, "/protocol"));
        match port["nodePort"].as_i64() {
            Some(node) => format!("{number}:{node}/{protocol}"),
            None => format!("{number}/{protocol}"),
        }
    });
    let ports = or_none(&ports.collect::<Vec<_>>().join(","));
    let kind = text(service, "/spec/type");
    let ingress = service.pointer("/status/loadBalancer/ingress").and_then(Value::as_array);
    let external = ingress.into_iter().flatten().map(|item| match text(item, "/ip") {
        "" => text(item, "/hostname"),
        ip => ip,
    });
    let external = external.collect::<Vec<_>>().join(",");
    let external = match (kind, external.as_str()) {
        ("LoadBalancer", "") => "<pending>".into(),
        ("ExternalName", _) => text(service, "/spec/externalName").into(),
        (_, external) => or_none(external),
    };
    let address = or_none(text(service, "/spec/clusterIP"));
    vec![name, kind.into(), address, external, ports, age, selector(&service["spec"]["selector"])]
}

fn endpoint_slice(slice: &Value, name: String, age: String) -> Vec<String> {
    let ports = slice["ports"].as_array().into_iter().flatten().map(|port| port["port"].to_string());
    let endpoints = slice["endpoints"].as_array().into_iter().flatten();
    let addresses = endpoints.flat_map(|endpoint| endpoint["addresses"].as_array().into_iter().flatten());
    let addresses: Vec<&str> = addresses.filter_map(Value::as_str).collect();
    let mut shown = addresses.iter().take(3).copied().collect::<Vec<_>>().join(",");
    if addresses.len() > 3 {
        shown.push_str(&format!(" + {} more...", addresses.len() - 3));
    }
    let kind = text(slice, "/addressType").to_owned();
    vec![name, kind, or_none(&ports.collect::<Vec<_>>().join(",")), or_none(&shown), age]
}

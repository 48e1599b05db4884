//! What is special about Services: cluster IPs of one or two families, node ports, what a change of type lets go.
//!
//! The rules are those of Kubernetes (`pkg/registry/core/service`): a policy asks for families, each family gets one
//! address of its range; what was allocated stays unless the change says otherwise.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde_json::{Value, json};

use super::{
    object::{self, child, map, text},
    registry::ResourceDef,
    status::{ApiError, FieldError},
    store::Transaction,
};

/// Node ports are of this range.
const NODE_PORTS: std::ops::RangeInclusive<u64> = 30000..=32767;

/// As many addresses of a range are handed out at most.
const MOST_ADDRESSES: u128 = 1 << 16;

/// Fills in what a new Service has from the start.
pub(crate) fn on_create(
    tx: &Transaction<'_>,
    def: &ResourceDef,
    service: &mut Value,
    ranges: &[IpNet],
) -> Result<(), ApiError> {
    normalize_addresses(service);
    defaults(service);
    allocate(tx, def, None, service, ranges)?;
    map(child(service, "status").entry("loadBalancer").or_insert_with(|| json!({})));
    Ok(())
}

/// Fills in what a changed Service keeps, gains and loses.
pub(crate) fn on_update(
    tx: &Transaction<'_>,
    def: &ResourceDef,
    old: &Value,
    new: &mut Value,
    ranges: &[IpNet],
) -> Result<(), ApiError> {
    keep_what_was_allocated(old, new);
    normalize_addresses(new);
    drop_what_the_type_has_not(old, new);
    defaults(new);
    let errors = frozen(old, new);
    if !errors.is_empty() {
        return Err(ApiError::invalid(def, object::name(new), &errors));
    }
    allocate(tx, def, Some(old), new, ranges)?;
    if kind(new) != "LoadBalancer" {
        child(new, "status").insert("loadBalancer".into(), json!({}));
    }
    Ok(())
}

/// What is wrong with a Service.
pub(crate) fn validate(service: &Value, errors: &mut Vec<FieldError>) {
    let kinds = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    let ingress = service.pointer("/status/loadBalancer/ingress").and_then(Value::as_array);
    if kind(service) != "LoadBalancer" && ingress.is_some_and(|ingress| !ingress.is_empty()) {
        errors.push(FieldError::forbidden(
            "status.loadBalancer.ingress",
            "may only be used when `spec.type` is 'LoadBalancer'",
        ));
    }
    if !kinds.contains(&kind(service)) {
        let kinds = kinds.map(Value::from);
        errors.push(FieldError::unsupported("spec.type", &service["spec"]["type"], &kinds));
    }
    if kind(service) == "ExternalName" {
        if text(service, "/spec/externalName").is_empty() {
            errors.push(FieldError::required("spec.externalName", ""));
        }
        return;
    }
    let ports = service.pointer("/spec/ports").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if ports.is_empty() && !is_headless(service) {
        errors.push(FieldError::required("spec.ports", ""));
    }
    if is_headless(service) && kind(service) != "ClusterIP" {
        let detail = format!("may not be set to 'None' for {} services", kind(service));
        errors.push(FieldError::invalid("spec.clusterIPs[0]", &json!("None"), &detail));
    }
    let class = &service["spec"]["loadBalancerClass"];
    if !class.is_null() && kind(service) != "LoadBalancer" {
        errors.push(FieldError::forbidden(
            "spec.loadBalancerClass",
            "may only be used when `spec.type` is 'LoadBalancer'",
        ));
    }
    let mut seen = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        if !(1..=65535).contains(&port["port"].as_i64().unwrap_or_default()) {
            let field = format!("spec.ports[{index}].port");
            errors.push(FieldError::invalid(field, &port["port"], "must be between 1 and 65535, inclusive"));
        }
        if ports.len() > 1 && text(port, "/name").is_empty() {
            errors.push(FieldError::required(format!("spec.ports[{index}].name"), ""));
        }
        let both = (&port["protocol"], &port["port"]);
        if seen.contains(&both) {
            errors.push(FieldError::duplicate(format!("spec.ports[{index}]"), port));
        }
        seen.push(both);
    }
}

fn kind(service: &Value) -> &str {
    text(service, "/spec/type")
}

fn is_headless(service: &Value) -> bool {
    text(service, "/spec/clusterIP") == "None"
}

fn needs_node_ports(service: &Value) -> bool {
    let declined = service["spec"]["allocateLoadBalancerNodePorts"] == false;
    kind(service) == "NodePort" || kind(service) == "LoadBalancer" && !declined
}

fn needs_health_check(service: &Value) -> bool {
    kind(service) == "LoadBalancer" && text(service, "/spec/externalTrafficPolicy") == "Local"
}

fn is_exposed(service: &Value) -> bool {
    let external = service.pointer("/spec/externalIPs").and_then(Value::as_array).is_some_and(|ips| !ips.is_empty());
    matches!(kind(service), "NodePort" | "LoadBalancer") || kind(service) == "ClusterIP" && external
}

fn strings(service: &Value, key: &str) -> Vec<String> {
    let list = service["spec"][key].as_array().into_iter().flatten();
    list.filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

fn family(address: &str) -> &'static str {
    if address.contains(':') { "IPv6" } else { "IPv4" }
}

/// `clusterIP` and the first of `clusterIPs` are one.
fn normalize_addresses(service: &mut Value) {
    let mut all = strings(service, "clusterIPs");
    let one = text(service, "/spec/clusterIP").to_owned();
    if all.is_empty() && !one.is_empty() {
        all.push(one);
    }
    let spec = child(service, "spec");
    match all.first() {
        Some(first) => {
            spec.insert("clusterIP".into(), json!(first));
            spec.insert("clusterIPs".into(), json!(all));
        }
        None => {
            spec.remove("clusterIP");
            spec.remove("clusterIPs");
        }
    }
}

fn defaults(service: &mut Value) {
    child(service, "spec").entry("type").or_insert_with(|| json!("ClusterIP"));
    let kind = kind(service).to_owned();
    let exposed = is_exposed(service);
    let spec = child(service, "spec");
    spec.entry("sessionAffinity").or_insert_with(|| json!("None"));
    if spec["sessionAffinity"] == "ClientIP" {
        spec.entry("sessionAffinityConfig").or_insert_with(|| json!({ "clientIP": { "timeoutSeconds": 10800 } }));
    }
    if kind != "ExternalName" {
        spec.entry("internalTrafficPolicy").or_insert_with(|| json!("Cluster"));
    }
    if exposed {
        spec.entry("externalTrafficPolicy").or_insert_with(|| json!("Cluster"));
    }
    if kind == "LoadBalancer" {
        spec.entry("allocateLoadBalancerNodePorts").or_insert_with(|| json!(true));
    }
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        let number = port["port"].clone();
        let port = map(port);
        port.entry("protocol").or_insert_with(|| json!("TCP"));
        port.entry("targetPort").or_insert(number);
    }
}

/// A change that does not speak of addresses and node ports keeps them.
fn keep_what_was_allocated(old: &Value, new: &mut Value) {
    let addressed = |service: &Value| kind(service) != "ExternalName";
    if addressed(old) && addressed(new) {
        let same = text(new, "/spec/clusterIP") == text(old, "/spec/clusterIP");
        let spec = child(new, "spec");
        if spec.get("clusterIP").and_then(Value::as_str).unwrap_or_default().is_empty()
            && !spec.contains_key("clusterIPs")
        {
            spec.insert("clusterIP".into(), old["spec"]["clusterIP"].clone());
            spec.insert("clusterIPs".into(), old["spec"]["clusterIPs"].clone());
        } else if same && !spec.contains_key("clusterIPs") {
            spec.insert("clusterIPs".into(), old["spec"]["clusterIPs"].clone());
        }
    }
    if needs_node_ports(old) && needs_node_ports(new) {
        let before = old["spec"]["ports"].as_array().cloned().unwrap_or_default();
        for port in child(new, "spec").get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            let same = before.iter().find(|other| text(other, "/name") == text(port, "/name"));
            if node_port(port).is_none()
                && let Some(number) = same.and_then(node_port)
            {
                map(port).insert("nodePort".into(), json!(number));
            }
        }
    }
    if needs_health_check(old) && needs_health_check(new) {
        let number = old["spec"]["healthCheckNodePort"].clone();
        child(new, "spec").entry("healthCheckNodePort").or_insert(number);
    }
}

/// What the new type does not have goes, unless the change itself set it.
fn drop_what_the_type_has_not(old: &Value, new: &mut Value) {
    let same = |key: &str, new: &Value| old["spec"].get(key) == new["spec"].get(key);
    let mut gone: Vec<&str> = Vec::new();
    if kind(new) == "ExternalName" && same("clusterIPs", new) {
        gone.extend(["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"]);
    }
    if !needs_health_check(new) && same("healthCheckNodePort", new) {
        gone.push("healthCheckNodePort");
    }
    if kind(new) != "LoadBalancer" {
        gone.extend(["allocateLoadBalancerNodePorts", "loadBalancerClass"].into_iter().filter(|key| same(key, new)));
    }
    if !is_exposed(new) && same("externalTrafficPolicy", new) {
        gone.push("externalTrafficPolicy");
    }
    let ports_stay = needs_node_ports(new);
    let known: Vec<u64> = old["spec"]["ports"].as_array().into_iter().flatten().filter_map(node_port).collect();
    let spec = child(new, "spec");
    for key in gone {
        spec.remove(key);
    }
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        if !ports_stay && node_port(port).is_some_and(|number| known.contains(&number)) {
            map(port).remove("nodePort");
        }
    }
}

/// What may never change.
fn frozen(old: &Value, new: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut check = |field: &str, before: &str, after: &str| {
        if !before.is_empty() && before != after {
            errors.push(FieldError::invalid(field, &json!(after), "may not change once set"));
        }
    };
    if kind(old) != "ExternalName" && kind(new) != "ExternalName" {
        check("spec.clusterIPs[0]", text(old, "/spec/clusterIP"), text(new, "/spec/clusterIP"));
    }
    if kind(old) == "LoadBalancer" && kind(new) == "LoadBalancer" {
        let class = "/spec/loadBalancerClass";
        check("spec.loadBalancerClass", text(old, class), text(new, class));
    }
    errors
}

fn node_port(port: &Value) -> Option<u64> {
    port["nodePort"].as_u64().filter(|number| *number != 0)
}

/// Gives a Service its families, an address of each, and its node ports.
fn allocate(
    tx: &Transaction<'_>,
    def: &ResourceDef,
    old: Option<&Value>,
    service: &mut Value,
    ranges: &[IpNet],
) -> Result<(), ApiError> {
    if kind(service) == "ExternalName" {
        return Ok(());
    }
    let errors = families(old, service, ranges);
    if !errors.is_empty() {
        return Err(ApiError::invalid(def, object::name(service), &errors));
    }
    if !is_headless(service) {
        addresses(tx, def, service, ranges)?;
    }
    node_ports(tx, def, service)
}

/// Decides the families, in the order of the addresses.
fn families(old: Option<&Value>, service: &mut Value, ranges: &[IpNet]) -> Vec<FieldError> {
    let old = old.filter(|old| kind(old) != "ExternalName");
    let served: Vec<&str> = ranges.iter().map(|range| family(&range.addr().to_string())).collect();
    let lone = is_headless(service) && service["spec"].get("selector").is_none_or(|selector| *selector == json!({}));
    let mut ips = strings(service, "clusterIPs");
    let mut families = strings(service, "ipFamilies");
    let given = text(service, "/spec/ipFamilyPolicy");
    let before = old.map(|old| text(old, "/spec/ipFamilyPolicy")).unwrap_or_default();
    let policy = match (given, before) {
        ("", "") if lone => "RequireDualStack",
        ("", "") => "SingleStack",
        ("", before) => before,
        (given, _) => given,
    };
    let policy = policy.to_owned();
    if let Some(old) = old {
        let (old_ips, old_families) = (strings(old, "clusterIPs"), strings(old, "ipFamilies"));
        if policy == "SingleStack" {
            if ips == old_ips {
                ips.truncate(1);
            }
            if families == old_families {
                families.truncate(1);
            }
        } else if before == "PreferDualStack" && policy == before && ips == old_ips && families == old_families {
            return Vec::new();
        }
    }
    let mut errors = Vec::new();
    if policy == "SingleStack" && (ips.len() > 1 || families.len() > 1) {
        let detail = "must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified";
        errors.push(FieldError::invalid("spec.ipFamilyPolicy", &json!(policy), detail));
    }
    for ip in ips.iter().skip(families.len()).filter(|ip| *ip != "None") {
        families.push(family(ip).to_owned());
    }
    if families.is_empty() {
        families.extend(served.first().map(|first| (*first).to_owned()));
    }
    if policy == "RequireDualStack" && served.len() < 2 && !lone {
        let detail = "this cluster is not configured for dual-stack services";
        errors.push(FieldError::invalid("spec.ipFamilyPolicy", &json!(policy), detail));
    }
    for (index, family) in families.iter().enumerate().filter(|(_, family)| !served.contains(&family.as_str()) && !lone)
    {
        let field = format!("spec.ipFamilies[{index}]");
        errors.push(FieldError::invalid(field, &json!(family), "not configured on this cluster"));
    }
    if policy != "SingleStack" && families.len() == 1 && (lone || served.len() == 2) {
        families.push(if families[0] == "IPv4" { "IPv6" } else { "IPv4" }.to_owned());
    }
    let spec = child(service, "spec");
    spec.insert("ipFamilyPolicy".into(), json!(policy));
    spec.insert("ipFamilies".into(), json!(families));
    if !ips.is_empty() {
        spec.insert("clusterIPs".into(), json!(ips));
    }
    errors
}

/// One address of each family: the given one, or one that is free.
fn addresses(tx: &Transaction<'_>, def: &ResourceDef, service: &mut Value, ranges: &[IpNet]) -> Result<(), ApiError> {
    let (own, name) = (object::uid(service).to_owned(), object::name(service).to_owned());
    let held = |ip: &str| {
        let mine = |other: &Value| strings(other, "clusterIPs").iter().any(|held| held == ip);
        taken(tx, def, &own, ip, mine)
    };
    let mut ips = strings(service, "clusterIPs");
    for (index, wanted) in strings(service, "ipFamilies").iter().enumerate() {
        let range = ranges.iter().find(|range| family(&range.addr().to_string()) == wanted);
        let Some(range) = range else { continue };
        if let Some(given) = ips.get(index) {
            let inside = given.parse::<IpAddr>().is_ok_and(|ip| range.contains(&ip));
            let why = match (inside, held(given)) {
                (true, false) => continue,
                (true, true) => "provided IP is already allocated".to_owned(),
                (false, _) => format!("the provided IP is not in the valid range. The range of valid IPs is {range}"),
            };
            let detail = format!("failed to allocate IP {given}: {why}");
            let error = FieldError::invalid("spec.clusterIPs", &json!(ips), &detail);
            return Err(ApiError::invalid(def, &name, &[error]));
        }
        let free = free_address(range, held);
        ips.push(free.ok_or_else(|| ApiError::new(500, "InternalError", format!("range {range} is full")))?);
    }
    let spec = child(service, "spec");
    spec.insert("clusterIP".into(), json!(ips.first()));
    spec.insert("clusterIPs".into(), json!(ips));
    Ok(())
}

/// The first address of a range that may be handed out: that of the Service `kubernetes`.
pub(crate) fn first_address(range: &IpNet) -> Option<IpAddr> {
    match range.network() {
        IpAddr::V4(ip) => ip.to_bits().checked_add(1).map(|bits| Ipv4Addr::from_bits(bits).into()),
        IpAddr::V6(ip) => ip.to_bits().checked_add(1).map(|bits| Ipv6Addr::from_bits(bits).into()),
    }
}

/// An address that nobody holds, at random from the upper part of the range, which Kubernetes prefers.
fn free_address(range: &IpNet, held: impl Fn(&str) -> bool) -> Option<String> {
    let base = match range.network() {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    };
    let size = (1_u128 << (range.max_prefix_len() - range.prefix_len()).min(127)).min(MOST_ADDRESSES);
    let reserved = (size / 16).clamp(16, 256).min(size);
    // Neither the network's own address nor the last one.
    let (upper, lower) = (reserved..size.saturating_sub(1), 1..reserved.min(size.saturating_sub(1)));
    let from = if upper.is_empty() { 0 } else { fastrand::u128(0..upper.end - upper.start) };
    let turned =
        (0..upper.end.saturating_sub(upper.start)).map(|at| (at + from) % (upper.end - upper.start) + upper.start);
    let text = |at: u128| match range {
        IpNet::V4(_) => u32::try_from(base + at).ok().map(|bits| Ipv4Addr::from_bits(bits).to_string()),
        IpNet::V6(_) => Some(Ipv6Addr::from_bits(base + at).to_string()),
    };
    turned.chain(lower).filter_map(text).find(|ip| !held(ip))
}

/// Node ports where the type has them. A number that TCP and UDP share has one node port.
fn node_ports(tx: &Transaction<'_>, def: &ResourceDef, service: &mut Value) -> Result<(), ApiError> {
    let (own, name) = (object::uid(service).to_owned(), object::name(service).to_owned());
    let held = |number: u64| {
        let theirs = |other: &Value| {
            let ports = other["spec"]["ports"].as_array().into_iter().flatten().filter_map(node_port);
            ports.chain(other["spec"]["healthCheckNodePort"].as_u64()).any(|port| port == number)
        };
        taken(tx, def, &own, &number.to_string(), theirs)
    };
    let (wanted, check) = (needs_node_ports(service), needs_health_check(service));
    let mut mine: Vec<(Value, u64)> = Vec::new();
    let spec = child(service, "spec");
    let mut errors = Vec::new();
    let free = |mine: &[(Value, u64)]| {
        let span = NODE_PORTS.end() - NODE_PORTS.start() + 1;
        let from = fastrand::u64(0..span);
        let turned = (0..span).map(|at| (at + from) % span + NODE_PORTS.start());
        let found = turned.into_iter().find(|number| mine.iter().all(|(_, other)| other != number) && !held(*number));
        found.ok_or_else(|| ApiError::new(500, "InternalError", "every node port is taken"))
    };
    let ports = spec.get_mut("ports").and_then(Value::as_array_mut).map(Vec::as_mut_slice).unwrap_or_default();
    for port in ports.iter().filter(|_| wanted) {
        if let Some(number) = node_port(port) {
            if held(number) {
                errors.push(FieldError::invalid(
                    "spec.ports.nodePort",
                    &json!(number),
                    "provided port is already allocated",
                ));
            }
            mine.push((port["port"].clone(), number));
        }
    }
    if !errors.is_empty() {
        return Err(ApiError::invalid(def, &name, &errors));
    }
    for port in ports.iter_mut().filter(|port| wanted && node_port(port).is_none()) {
        let shared = mine.iter().find(|(number, _)| *number == port["port"]).map(|(_, node)| *node);
        let number = match shared {
            Some(number) => number,
            None => free(&mine)?,
        };
        mine.push((port["port"].clone(), number));
        map(port).insert("nodePort".into(), json!(number));
    }
    if check && spec.get("healthCheckNodePort").and_then(Value::as_u64).unwrap_or_default() == 0 {
        spec.insert("healthCheckNodePort".into(), json!(free(&mine)?));
    }
    Ok(())
}

/// Whether another Service `has` it. Only those whose text mentions it are looked into.
fn taken(tx: &Transaction<'_>, def: &ResourceDef, own: &str, text: &str, has: impl Fn(&Value) -> bool) -> bool {
    let mentions = |body: &[u8]| body.windows(text.len()).any(|part| part == text.as_bytes());
    tx.any(&def.storage, |entry| &*entry.uid != own && mentions(&entry.body) && has(&entry.value()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_gives_all_its_hosts_and_then_none() {
        for (range, hosts) in [("10.0.0.0/29", 6), ("fd00::/125", 6), ("10.0.0.0/24", 254)] {
            let range: IpNet = range.parse().unwrap();
            let mut held = std::collections::BTreeSet::new();
            while let Some(ip) = free_address(&range, |ip| held.contains(ip)) {
                assert!(range.contains(&ip.parse::<IpAddr>().unwrap()) && held.insert(ip));
            }
            assert_eq!(held.len(), hosts, "{range}: {held:?}");
        }
    }
}

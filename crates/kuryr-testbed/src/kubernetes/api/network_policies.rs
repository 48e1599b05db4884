//! What is special about NetworkPolicies: defaults, and what the API server does not let pass.

use ipnet::IpNet;
use serde_json::{Value, json};

use super::{
    object::{child, map},
    status::FieldError,
};

const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];

/// The defaults that clients see on every policy, after every write.
pub(crate) fn on_write(policy: &mut Value) {
    let spec = child(policy, "spec");
    let full = |value: Option<&Value>| value.and_then(Value::as_array).is_some_and(|items| !items.is_empty());
    if !full(spec.get("policyTypes")) {
        let egress = full(spec.get("egress")).then_some("Egress");
        let types: Vec<&str> = ["Ingress"].into_iter().chain(egress).collect();
        spec.insert("policyTypes".into(), json!(types));
    }
    for direction in ["ingress", "egress"] {
        let rules = spec.get_mut(direction).and_then(Value::as_array_mut);
        let ports = rules.into_iter().flatten().filter_map(|rule| rule.get_mut("ports")?.as_array_mut()).flatten();
        for port in ports {
            map(port).entry("protocol").or_insert_with(|| json!("TCP"));
        }
    }
}

pub(crate) fn validate(policy: &Value, errors: &mut Vec<FieldError>) {
    let spec = &policy["spec"];
    selector(&spec["podSelector"], "spec.podSelector", errors);
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for (index, rule) in items(&spec[direction]).enumerate() {
            let path = format!("spec.{direction}[{index}]");
            for (index, one) in items(&rule["ports"]).enumerate() {
                port(one, &format!("{path}.ports[{index}]"), errors);
            }
            for (index, one) in items(&rule[peers]).enumerate() {
                peer(one, &format!("{path}.{peers}[{index}]"), errors);
            }
        }
    }
    for (index, kind) in items(&spec["policyTypes"]).enumerate() {
        if !matches!(kind.as_str(), Some("Ingress" | "Egress")) {
            let allowed = [json!("Egress"), json!("Ingress")];
            errors.push(FieldError::unsupported(format!("spec.policyTypes[{index}]"), kind, &allowed));
        }
    }
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn port(port: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let protocol = &port["protocol"];
    if protocol.as_str().is_none_or(|name| !PROTOCOLS.contains(&name)) {
        errors.push(FieldError::unsupported(format!("{path}.protocol"), protocol, &PROTOCOLS.map(|name| json!(name))));
    }
    let (number, end) = (&port["port"], &port["endPort"]);
    let valid = |value: &Value| (1..=65535).contains(&value.as_i64().unwrap_or_default());
    if number.is_number() && !valid(number) {
        errors.push(FieldError::invalid(format!("{path}.port"), number, "must be between 1 and 65535, inclusive"));
    }
    if end.is_null() {
        return;
    }
    let path = format!("{path}.endPort");
    match number.as_i64() {
        None if number.is_null() => {
            errors.push(FieldError::invalid(path, end, "may not be specified when `port` is not specified"));
        }
        None => errors.push(FieldError::invalid(path, end, "may not be specified when `port` is non-numeric")),
        Some(first) if end.as_i64().is_some_and(|last| last < first) => {
            errors.push(FieldError::invalid(path, end, "must be greater than or equal to `port`"));
        }
        Some(_) if !valid(end) => {
            errors.push(FieldError::invalid(path, end, "must be between 1 and 65535, inclusive"));
        }
        Some(_) => {}
    }
}

fn peer(peer: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let selectors = ["podSelector", "namespaceSelector"];
    let selects = selectors.iter().any(|name| !peer[name].is_null());
    for name in selectors {
        selector(&peer[name], &format!("{path}.{name}"), errors);
    }
    let block = &peer["ipBlock"];
    match (selects, block.is_null()) {
        (false, true) => errors.push(FieldError::required(path, "must specify a peer")),
        (true, false) => errors.push(FieldError::forbidden(path, "may not specify both ipBlock and another peer")),
        (true, true) => {}
        (false, false) => ip_block(block, &format!("{path}.ipBlock"), errors),
    }
}

fn ip_block(block: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let network = |value: &Value| value.as_str().and_then(|text| text.parse::<IpNet>().ok());
    let Some(cidr) = network(&block["cidr"]) else {
        errors.push(FieldError::invalid(format!("{path}.cidr"), &block["cidr"], "must be a valid CIDR value"));
        return;
    };
    for (index, except) in items(&block["except"]).enumerate() {
        let path = format!("{path}.except[{index}]");
        match network(except) {
            None => errors.push(FieldError::invalid(path, except, "must be a valid CIDR value")),
            Some(net) if !cidr.contains(&net) || net.prefix_len() == cidr.prefix_len() => {
                errors.push(FieldError::invalid(path, except, "must be a strict subset of `cidr`"));
            }
            Some(_) => {}
        }
    }
}

fn selector(selector: &Value, path: &str, errors: &mut Vec<FieldError>) {
    for (index, one) in items(&selector["matchExpressions"]).enumerate() {
        let path = format!("{path}.matchExpressions[{index}]");
        let values = items(&one["values"]).count();
        match (one["operator"].as_str().unwrap_or_default(), values) {
            ("In" | "NotIn", 0) => {
                let detail = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(FieldError::required(format!("{path}.values"), detail));
            }
            ("Exists" | "DoesNotExist", 1..) => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(FieldError::forbidden(format!("{path}.values"), detail));
            }
            ("In" | "NotIn" | "Exists" | "DoesNotExist", _) => {}
            _ => {
                let detail = "not a valid selector operator";
                errors.push(FieldError::invalid(format!("{path}.operator"), &one["operator"], detail));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(spec: &Value) -> Value {
        json!({"metadata": {"name": "p"}, "spec": spec})
    }

    #[test]
    fn what_a_policy_isolates_follows_from_its_rules_unless_it_says_so() {
        for (spec, expected) in [
            (json!({"podSelector": {}}), json!(["Ingress"])),
            (json!({"podSelector": {}, "egress": []}), json!(["Ingress"])),
            (json!({"podSelector": {}, "egress": [{}]}), json!(["Ingress", "Egress"])),
            (json!({"podSelector": {}, "policyTypes": ["Egress"], "ingress": [{}]}), json!(["Egress"])),
        ] {
            let mut policy = policy(&spec);
            on_write(&mut policy);
            assert_eq!(policy["spec"]["policyTypes"], expected, "{policy}");
        }
        let mut policy =
            policy(&json!({"podSelector": {}, "ingress": [{"ports": [{"port": 53, "protocol": "UDP"}, {}]}]}));
        on_write(&mut policy);
        let ports = json!([{"port": 53, "protocol": "UDP"}, {"protocol": "TCP"}]);
        assert_eq!(policy["spec"]["ingress"][0]["ports"], ports);
    }

    #[test]
    fn what_means_nothing_is_refused_with_its_field() {
        let ingress = |rule: Value| json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [rule]});
        let port = |more: Value| {
            let mut port = json!({"protocol": "TCP"});
            json_patch::merge(&mut port, &more);
            ingress(json!({"ports": [port]}))
        };
        let block =
            |cidr: &str, except: &str| ingress(json!({"from": [{"ipBlock": {"cidr": cidr, "except": [except]}}]}));
        let expression = |operator: &str, values: Value| json!({"podSelector": {"matchExpressions": [{"key": "k", "operator": operator, "values": values}]}});
        for (spec, field) in [
            (port(json!({"protocol": "ICMP"})), "spec.ingress[0].ports[0].protocol"),
            (port(json!({"port": 0})), "spec.ingress[0].ports[0].port"),
            (port(json!({"endPort": 90})), "spec.ingress[0].ports[0].endPort"),
            (port(json!({"port": "web", "endPort": 90})), "spec.ingress[0].ports[0].endPort"),
            (port(json!({"port": 91, "endPort": 90})), "spec.ingress[0].ports[0].endPort"),
            (ingress(json!({"from": [{}]})), "spec.ingress[0].from[0]"),
            (
                ingress(json!({"from": [{"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}]})),
                "spec.ingress[0].from[0]",
            ),
            (block("10.0.0.0/33", "10.0.0.0/8"), "spec.ingress[0].from[0].ipBlock.cidr"),
            (block("10.0.0.0/8", "10.0.0.0/8"), "spec.ingress[0].from[0].ipBlock.except[0]"),
            (block("10.0.0.0/8", "11.0.0.0/16"), "spec.ingress[0].from[0].ipBlock.except[0]"),
            (expression("In", json!([])), "spec.podSelector.matchExpressions[0].values"),
            (expression("Exists", json!(["v"])), "spec.podSelector.matchExpressions[0].values"),
            (expression("Like", json!(["v"])), "spec.podSelector.matchExpressions[0].operator"),
            (json!({"podSelector": {}, "policyTypes": ["Sideways"]}), "spec.policyTypes[0]"),
        ] {
            let mut errors = Vec::new();
            validate(&policy(&spec), &mut errors);
            let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
            assert_eq!(fields, [field], "{spec}");
        }
        let mut errors = Vec::new();
        let whole = json!({"from": [{"podSelector": {}, "namespaceSelector": {}}], "ports": [{"protocol": "SCTP", "port": 1, "endPort": 2}]});
        validate(&policy(&ingress(whole)), &mut errors);
        assert!(errors.is_empty(), "{}", errors.len());
    }
}

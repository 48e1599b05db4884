//! Policies in words.

use kuryr_model::neutron::Direction;
use kuryr_plan::policy::{Namespaces, Peer, PolicyRule, Ports, Selector};

/// `spec.ingress` or `spec.egress`.
pub(crate) fn field(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    }
}

/// What a rule allows: `TCP 80 from pods app=web in namespace shop`.
pub(crate) fn rule(direction: Direction, rule: &PolicyRule) -> String {
    let way = match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    };
    let what = match rule.ports.as_deref() {
        None => "everything".to_owned(),
        Some([]) => return "nothing: none of its ports can be read".to_owned(),
        Some(all) => list(all.iter().map(ports), "and"),
    };
    match rule.peers.as_deref() {
        None => format!("{what} {way} everyone"),
        Some([]) => format!("nothing: none of its peers can be read ({what})"),
        Some(all) => format!("{what} {way} {}", list(all.iter().map(peer), "or")),
    }
}

/// An entry of `ports`.
pub(crate) fn ports(ports: &Ports) -> String {
    match ports {
        Ports::All(protocol) => format!("all of {protocol}"),
        Ports::Range(protocol, first, last) if first == last => format!("{protocol} {first}"),
        Ports::Range(protocol, first, last) => format!("{protocol} {first}-{last}"),
        Ports::Named(protocol, name) => format!("the {protocol} port named {name:?}"),
    }
}

/// An entry of `from` or `to`.
pub(crate) fn peer(peer: &Peer) -> String {
    match peer {
        Peer::Block(block) => format!("addresses in {block}"),
        Peer::Pods { namespaces: Namespaces::Own(namespace), pods } => {
            format!("{} in namespace {namespace}", which_pods(pods))
        }
        Peer::Pods { namespaces: Namespaces::Labelled(namespaces), pods } if *namespaces == Selector::everything() => {
            format!("{} in every namespace", which_pods(pods))
        }
        Peer::Pods { namespaces: Namespaces::Labelled(namespaces), pods } => {
            format!("{} in namespaces {namespaces}", which_pods(pods))
        }
    }
}

/// The pods that a selector means.
pub(crate) fn which_pods(pods: &Selector) -> String {
    if *pods == Selector::everything() { "all pods".to_owned() } else { format!("pods {pods}") }
}

/// `a, b and c`.
pub(crate) fn list(items: impl IntoIterator<Item = String>, last: &str) -> String {
    let mut items: Vec<String> = items.into_iter().collect();
    match items.pop() {
        None => String::new(),
        Some(only) if items.is_empty() => only,
        Some(end) => format!("{} {last} {end}", items.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kuryr_plan::policy::Policy;
    use serde_json::{Value, json};

    fn ingress(rule_json: &Value) -> String {
        let metadata = json!({"namespace": "shop", "name": "np", "uid": "u"});
        let object = json!({"metadata": metadata, "spec": {"podSelector": {}, "ingress": [rule_json]}});
        let policy = Policy::read(&serde_json::from_value(object).unwrap()).unwrap();
        rule(Direction::Ingress, &policy.ingress.unwrap()[0])
    }

    #[test]
    fn a_rule_says_what_it_allows_and_whom() {
        let web = json!({"matchLabels": {"app": "web"}});
        for (rule, words) in [
            (json!({}), "everything from everyone"),
            (json!({"from": [], "ports": []}), "everything from everyone"),
            (json!({"from": [{"podSelector": {}}]}), "everything from all pods in namespace shop"),
            (json!({"from": [{"podSelector": web}]}), "everything from pods app=web in namespace shop"),
            (json!({"from": [{"namespaceSelector": {}}]}), "everything from all pods in every namespace"),
            (
                json!({"from": [{"namespaceSelector": {"matchLabels": {"team": "red"}}, "podSelector": web}]}),
                "everything from pods app=web in namespaces team=red",
            ),
            (
                json!({"ports": [{"port": 80}, {"protocol": "UDP"}, {"port": "dns", "protocol": "UDP"}, {"port": 8000, "endPort": 9000}],
                       "from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}, {"podSelector": {}}]}),
                "TCP 80, all of UDP, the UDP port named \"dns\" and TCP 8000-9000 from addresses in 10.0.0.0/8 except \
                 10.1.0.0/16 or all pods in namespace shop",
            ),
            (json!({"ports": [{"port": 0}]}), "nothing: none of its ports can be read"),
            (json!({"from": [{"ipBlock": {"cidr": "x"}}]}), "nothing: none of its peers can be read (everything)"),
        ] {
            assert_eq!(ingress(&rule), words);
        }
    }
}

//! What cannot be read, or is surely not meant.

use super::{is_policy, stage, to_app};
use kuryr_plan::policy::{Compiler, Problem, Settings};
use serde_json::{Value, json};

#[test]
fn an_entry_that_cannot_be_read_allows_nothing_and_the_others_hold() {
    let rules = json!([
        {"from": [{"ipBlock": {"cidr": "10.0.0.0"}}]},
        {"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["all"]}}]},
        {"from": [{}]},
        {"from": [{"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}]},
        {"from": [{"podSelector": {"matchExpressions": [{"key": "app", "operator": "Near", "values": ["db"]}]}}]},
        {"ports": [{"port": 80, "endPort": 79}]},
        {"ports": [{"port": "http", "endPort": 79}]},
        {"ports": [{"endPort": 79}]},
        {"ports": [{"port": 0}]},
        {"ports": [{"port": 80, "protocol": "ICMP"}]},
        {"from": [{"namespaceSelector": {}}], "ports": [{"port": 81}, {"port": 99999}]},
    ]);
    let stage = stage().policy("a/np", json!({"podSelector": {}, "ingress": rules}));
    assert!(!stage.passes("a/db", "a/web", "80") && !stage.passes("10.0.0.77", "a/web", "80"));
    assert!(stage.passes("b/web", "a/web", "81"));
    let at: Vec<String> =
        stage.problems().iter().map(|it| it.to_string().split(": ").next().unwrap().to_owned()).collect();
    let wanted = [
        "spec.ingress[0].from[0].ipBlock.cidr",
        "spec.ingress[1].from[0].ipBlock.except[0]",
        "spec.ingress[2].from[0]",
        "spec.ingress[3].from[0]",
        "spec.ingress[4].from[0].podSelector.matchExpressions[0]",
        "spec.ingress[5].ports[0]",
        "spec.ingress[6].ports[0]",
        "spec.ingress[7].ports[0]",
        "spec.ingress[8].ports[0].port",
        "spec.ingress[9].ports[0].protocol",
        "spec.ingress[10].ports[1].port",
    ];
    assert_eq!(at, wanted);
}

#[test]
fn a_policy_whose_pods_cannot_be_told_isolates_all_that_it_could_mean() {
    let selector = json!({"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "tier", "operator": "Near"}]});
    let stage = stage().policy("a/np", json!({"podSelector": selector, "policyTypes": ["Ingress", "Outgress"]}));
    assert!(!stage.passes("a/db", "a/web", "80") && !stage.passes("a/web", "a/db", "80"));
    assert!(stage.passes("b/web", "a/db", "80"), "not the others");
    assert_eq!(stage.problems().len(), 2);
}

#[test]
fn a_policy_that_asks_for_too_many_rules_gets_those_that_are_not_too_many() {
    let ports: Vec<Value> = (1..=200).map(|number| json!({"port": number})).collect();
    let peers: Vec<Value> = (0..200).map(|index| to_app(&format!("app{index}"))).collect();
    let stage = stage().policy(
        "a/np",
        json!({"podSelector": {}, "ingress": [{"ports": [{"port": 80}]}, {"from": peers, "ports": ports}]}),
    );
    assert_eq!(stage.problems(), [Problem::TooLarge("spec.ingress[1]".into())]);
    assert_eq!(stage.rules(is_policy), ["in IPv4 tcp 80", "in IPv6 tcp 80"]);
}

#[test]
fn a_policy_says_what_it_comes_to_and_which_port_names_nobody_has() {
    let rules = json!([{"from": [to_app("web")], "ports": [{"port": "http"}]}]);
    let (db, sql) = (json!({"matchLabels": {"app": "db"}}), json!([{"ports": [{"port": "sql"}]}]));
    let stage = stage().policy("a/np", json!({"podSelector": db, "ingress": rules, "egress": sql}));
    let mut compiler = Compiler::new(Settings::default());
    compiler.apply(crate::compare::read(&stage.cluster).changes());
    let report = compiler.report(&"a/np".parse().unwrap()).unwrap();
    assert_eq!(report.pods, ["a/db".parse().unwrap()].into());
    assert_eq!(report.peers.values().copied().collect::<Vec<_>>(), [1]);
    assert_eq!(report.nameless, ["http/TCP".to_owned(), "sql/TCP".to_owned()].into());
}

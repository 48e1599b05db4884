//! The 22 cases that the Python predecessor got wrong, several of them by letting in what was forbidden.

use crate::stage::{Stage, labels};
use kuryr_plan::policy::{Change, Compiler, GroupKey, Policy, Settings};
use serde_json::{Value, json};

/// Three namespaces with a web, a db and a bare pod in the first, one pod in the others, each on 80, 81 and so on.
fn stage() -> Stage {
    Stage::default()
        .namespace("shop", "team=red")
        .namespace("lab", "team=blue")
        .namespace("yard", "team=blue")
        .pod("shop/web", "app=web", "10.0.0.1 fd00::1")
        .pod("shop/db", "app=db", "10.0.0.2 fd00::2")
        .pod("shop/bare", "", "10.0.0.3 fd00::3")
        .pod("lab/x", "app=web", "10.0.1.1 fd00::1:1")
        .pod("yard/x", "app=web", "10.0.2.1 fd00::2:1")
        .node("n0", "192.168.0.1")
        .node("n1", "192.168.0.2")
}

/// A policy in `shop` that isolates `app=db` for ingress with these rules.
fn db_takes(rules: Value) -> Stage {
    let mut spec = json!({"podSelector": {"matchLabels": {"app": "db"}}});
    spec["ingress"] = rules;
    stage().policy("shop/np", spec)
}

/// A policy in `shop` that isolates `app=web` for egress with these rules.
fn web_sends(rules: Value) -> Stage {
    let mut spec = json!({"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Egress"]});
    spec["egress"] = rules;
    stage().policy("shop/np", spec)
}

#[test]
fn row_1_a_pod_that_is_relabelled_gains_and_loses_its_policies_and_its_peer_sets_at_once() {
    let stage = db_takes(json!([{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}]));
    let world = crate::compare::read(&stage.cluster);
    let mut compiler = Compiler::new(Settings::default());
    compiler.apply(world.changes());
    let pod = &world.pods[&"shop/web".parse().unwrap()];
    let before = compiler.groups(&pod.uid).unwrap().clone();
    let mut relabelled = pod.clone();
    relabelled.labels = labels("app=db");
    let delta = compiler.apply([Change::Pod(relabelled)]);
    assert_eq!(delta.pods.keys().collect::<Vec<_>>(), [&pod.uid], "the pod and nothing else");
    assert!(delta.groups.is_empty());
    let unsettled: Vec<String> = delta.unsettled().into_iter().map(ToString::to_string).collect();
    assert_eq!(unsettled, ["ingress-open", "policy:uid-shop-np", "peers:shop{app=web}", "node:n0"]);
    let groups = compiler.groups(&pod.uid).unwrap();
    assert!(groups.iter().any(|key| matches!(key, GroupKey::Policy(_))), "is isolated now");
    assert!(!groups.iter().any(|key| matches!(key, GroupKey::Peers(_) | GroupKey::IngressOpen)), "is no peer any more");
    compiler.apply([Change::Pod(pod.clone())]);
    assert_eq!(compiler.groups(&pod.uid), Some(&before));
}

#[test]
fn row_2_an_ip_block_with_several_exceptions_has_none_of_them() {
    let halves = json!([{"from": [{"ipBlock": {"cidr": "10.9.0.0/24", "except": ["10.9.0.0/25", "10.9.0.128/25"]}}]}]);
    let stage = db_takes(halves);
    assert!(!stage.passes("10.9.0.1", "shop/db", "80") && !stage.passes("10.9.0.200", "shop/db", "80"));
    let two = json!([{"from": [{"ipBlock": {"cidr": "10.9.0.0/24", "except": ["10.9.0.0/26", "10.9.0.192/26"]}}]}]);
    let stage = db_takes(two);
    assert!(!stage.passes("10.9.0.1", "shop/db", "80") && !stage.passes("10.9.0.200", "shop/db", "80"));
    assert!(stage.passes("10.9.0.100", "shop/db", "80"));
}

#[test]
fn row_3_a_namespace_and_a_pod_selector_mean_the_pods_of_all_matching_namespaces() {
    let peer =
        json!({"namespaceSelector": {"matchLabels": {"team": "blue"}}, "podSelector": {"matchLabels": {"app": "web"}}});
    let stage = db_takes(json!([{"from": [peer]}]));
    assert!(stage.passes("lab/x", "shop/db", "80") && stage.passes("yard/x", "shop/db", "80"));
    assert!(!stage.passes("shop/web", "shop/db", "80"));
}

#[test]
fn row_4_an_end_port_means_all_numbers_up_to_it() {
    let stage = db_takes(json!([{"ports": [{"port": 80, "endPort": 90}]}]));
    for (number, passes) in [("79", false), ("80", true), ("85", true), ("90", true), ("91", false)] {
        assert_eq!(stage.passes("shop/web", "shop/db", number), passes, "{number}");
    }
}

#[test]
fn row_5_a_protocol_without_a_number_means_all_numbers() {
    let stage = db_takes(json!([{"ports": [{"protocol": "UDP"}]}]));
    assert!(stage.passes("shop/web", "shop/db", "1/UDP") && stage.passes("203.0.113.1", "shop/db", "65535/UDP"));
    assert!(!stage.passes("shop/web", "shop/db", "80") && !stage.passes("shop/web", "shop/db", "ping"));
}

#[test]
fn row_6_an_empty_rule_allows_all_wherever_it_stands() {
    let stage = db_takes(json!([{"from": [{"podSelector": {"matchLabels": {"app": "nobody"}}}]}, {}]));
    assert!(stage.passes("lab/x", "shop/db", "80") && stage.passes("203.0.113.1", "shop/db", "ping"));
}

#[test]
fn row_7_an_empty_list_of_peers_means_everyone() {
    let stage = db_takes(json!([{"from": []}]));
    assert!(stage.passes("lab/x", "shop/db", "80") && stage.passes("203.0.113.1", "shop/db", "ping"));
    let stage = web_sends(json!([{"to": []}]));
    assert!(stage.passes("shop/web", "lab/x", "80") && stage.passes("shop/web", "203.0.113.1", "ping"));
}

#[test]
fn row_8_rules_for_a_direction_that_is_not_among_the_types_change_nothing() {
    let nobody = json!([{"to": [{"podSelector": {"matchLabels": {"app": "nobody"}}}]}]);
    let stage = stage().policy("shop/np", json!({"podSelector": {}, "policyTypes": ["Ingress"], "egress": nobody}));
    assert!(stage.passes("shop/web", "lab/x", "80") && !stage.passes("lab/x", "shop/web", "80"));
    let nobody = json!([{"from": [{"podSelector": {"matchLabels": {"app": "nobody"}}}]}]);
    let stage =
        self::stage().policy("shop/np", json!({"podSelector": {}, "policyTypes": ["Egress"], "ingress": nobody}));
    assert!(!stage.passes("shop/web", "lab/x", "80") && stage.passes("lab/x", "shop/web", "80"));
}

#[test]
fn row_9_a_port_by_name_without_peers_is_open_to_everyone_at_each_pods_own_number() {
    let stage = stage()
        .port("shop/web", "http=80/TCP")
        .port("shop/db", "http=8080/TCP")
        .policy("shop/np", json!({"podSelector": {}, "ingress": [{"ports": [{"port": "http"}]}]}));
    assert!(stage.passes("203.0.113.1", "shop/web", "80") && !stage.passes("203.0.113.1", "shop/web", "8080"));
    assert!(stage.passes("203.0.113.1", "shop/db", "8080") && !stage.passes("203.0.113.1", "shop/db", "80"));
    assert!(!stage.passes("203.0.113.1", "shop/bare", "80"), "has no such port");
    let groups = stage.rules(|key| matches!(key, GroupKey::Policy(_)));
    assert_eq!(
        groups,
        ["in IPv4 tcp 80", "in IPv6 tcp 80", "in IPv4 tcp 8080", "in IPv6 tcp 8080"],
        "and not a rule for every pod"
    );
}

#[test]
fn row_10_a_port_by_name_has_to_be_of_the_same_protocol() {
    let stage = stage()
        .port("shop/db", "dns=53/UDP")
        .policy("shop/np", json!({"podSelector": {}, "ingress": [{"ports": [{"port": "dns", "protocol": "TCP"}]}]}));
    assert!(!stage.passes("shop/web", "shop/db", "53/TCP") && !stage.passes("shop/web", "shop/db", "53/UDP"));
}

#[test]
fn row_11_a_port_by_name_in_an_ip_block_means_the_pods_in_the_block() {
    let stage = web_sends(json!([{"to": [{"ipBlock": {"cidr": "10.0.0.0/16"}}], "ports": [{"port": "http"}]}]))
        .port("shop/db", "http=8080/TCP")
        .port("lab/x", "http=80/TCP");
    assert!(stage.passes("shop/web", "shop/db", "8080") && !stage.passes("shop/web", "shop/db", "80"));
    assert!(stage.passes("shop/web", "lab/x", "80") && !stage.passes("shop/web", "lab/x", "8080"));
    assert!(!stage.passes("shop/web", "10.0.77.1", "80"), "nobody gives a name to its ports");
}

#[test]
fn row_12_an_empty_value_is_a_value_like_any_other() {
    let stage = stage()
        .pod("shop/empty", "app=", "10.0.0.9 fd00::9")
        .policy("shop/np", json!({"podSelector": {"matchLabels": {"app": ""}}}));
    assert!(!stage.passes("shop/web", "shop/empty", "80") && stage.passes("shop/web", "shop/bare", "80"));
}

#[test]
fn row_13_pods_behind_a_service_are_reached_through_it_whatever_its_own_number() {
    let stage =
        web_sends(json!([{"to": [{"podSelector": {"matchLabels": {"app": "db"}}}], "ports": [{"port": 8080}]}]))
            .service("10.96.0.1", "80", "10.0.0.2:8080");
    assert!(stage.passes("shop/web", "10.96.0.1", "80"));
    assert!(!stage.passes("shop/web", "10.96.0.1", "8080"), "the Service's number, not the policy's");
}

#[test]
fn row_14_an_isolated_pod_takes_from_its_own_node_only_and_from_no_load_balancers_subnet() {
    let stage = db_takes(json!([])).service("10.96.0.1", "80", "10.0.0.1:80").service_range("10.96.0.0/12");
    assert!(stage.passes("192.168.0.1", "shop/db", "80"));
    assert!(!stage.passes("192.168.0.2", "shop/db", "80") && !stage.passes("10.96.0.77", "shop/db", "80"));
}

#[test]
fn row_15_a_host_network_pod_that_a_selector_matches_does_not_let_its_node_in() {
    let stage = db_takes(json!([{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}]))
        .pod("shop/host", "app=web", "192.168.0.2")
        .edit("shop/host", |pod| pod.host_network = true);
    assert!(!stage.passes("192.168.0.2", "shop/db", "80"));
}

#[test]
fn row_16_all_namespaces_means_all_pods_and_nobody_else_of_their_subnets() {
    let stage = db_takes(json!([{"from": [{"namespaceSelector": {}}]}]));
    for pod in ["shop/bare", "lab/x", "yard/x"] {
        assert!(stage.passes(pod, "shop/db", "80"), "{pod}");
    }
    assert!(!stage.passes("10.0.1.200", "shop/db", "80"), "a virtual machine beside the pods");
}

#[test]
fn row_17_every_label_of_a_selector_counts_also_a_pod_template_hash() {
    let stage =
        db_takes(json!([{"from": [{"podSelector": {"matchLabels": {"app": "web", "pod-template-hash": "5d4"}}}]}]))
            .pod("shop/web-5d4", "app=web,pod-template-hash=5d4", "10.0.0.9 fd00::9");
    assert!(stage.passes("shop/web-5d4", "shop/db", "80") && !stage.passes("shop/web", "shop/db", "80"));
}

#[test]
fn row_18_a_service_whose_target_is_a_name_and_whose_load_balancer_hides_the_client_is_usable() {
    let peers =
        json!([{"podSelector": {"matchLabels": {"app": "db"}}}, {"podSelector": {"matchLabels": {"app": "web"}}}]);
    let stage = web_sends(json!([{"to": peers, "ports": [{"port": "sql"}]}]))
        .port("shop/db", "sql=3306/TCP")
        .service("10.96.0.1", "33", "10.0.0.2:3306")
        .hides_client("10.96.0.1");
    assert!(stage.passes("shop/web", "10.96.0.1", "33"));
    let shut = stage.policy("shop/in", json!({"podSelector": {"matchLabels": {"app": "db"}}}));
    assert!(!shut.passes("shop/bare", "10.96.0.1", "33"), "whoever the load balancer speaks for");
}

#[test]
fn row_19_each_pod_behind_a_service_keeps_its_own_policies() {
    let stage = stage()
        .policy("shop/np", json!({"podSelector": {"matchLabels": {"app": "db"}}}))
        .service("10.96.0.1", "80", "10.0.0.1:80")
        .service("10.96.0.2", "80", "10.0.0.2:80");
    assert!(stage.passes("lab/x", "10.96.0.1", "80") && !stage.passes("lab/x", "10.96.0.2", "80"));
}

#[test]
fn row_20_a_group_and_its_rules_are_the_same_however_often_they_are_asked_for() {
    let stage =
        db_takes(json!([{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": 80}]}]));
    let world = crate::compare::read(&stage.cluster);
    let mut compiler = Compiler::new(Settings::default());
    compiler.apply(world.changes());
    let compiled = compiler.compiled();
    assert!(compiler.apply(world.changes()).is_empty());
    for (key, rules) in &compiled.groups {
        assert_eq!(compiler.rules(key), Some(rules), "to compare with what is in Neutron");
    }
}

#[test]
fn row_21_a_policy_without_types_isolates_by_what_it_has() {
    let read = |spec: Value| {
        let metadata = json!({"namespace": "shop", "name": "np", "uid": "u"});
        let policy = serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap();
        let policy = Policy::read(&policy).unwrap();
        (policy.ingress.is_some(), policy.egress.is_some())
    };
    assert_eq!(read(json!({})), (true, false));
    assert_eq!(read(json!(null)), (true, false));
    assert_eq!(read(json!({"policyTypes": null, "egress": []})), (true, false));
    assert_eq!(read(json!({"policyTypes": [], "egress": [{}]})), (true, true));
    assert_eq!(read(json!({"policyTypes": ["Egress"]})), (false, true));
}

#[test]
fn row_22_the_groups_of_a_pod_are_known_before_it_has_an_address() {
    let stage = db_takes(json!([{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}]));
    let with = stage.compiled();
    let without =
        stage.clone().edit("shop/db", |pod| pod.addresses.clear()).edit("shop/web", |pod| pod.addresses.clear());
    assert_eq!(without.compiled(), with);
}

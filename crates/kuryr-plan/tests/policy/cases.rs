//! Cases by name: what the specification says in few words, what was found by comparing, and what things cost.

use crate::stage::Stage;
use kuryr_plan::policy::{Change, Compiler, GroupKey, Policy, Problem, Settings};
use serde_json::{Value, json};

/// Two pods and a stranger; all web servers.
fn stage() -> Stage {
    Stage::default()
        .pod("a/web", "app=web", "10.0.0.1 fd00::1")
        .pod("a/db", "app=db", "10.0.0.2 fd00::2")
        .pod("b/web", "app=web", "10.0.1.1 fd00::1:1")
        .node("n0", "192.168.0.1")
}

/// A policy that isolates all pods of its namespace for egress with these rules.
fn egress(rules: Value) -> Value {
    let mut spec = json!({"podSelector": {}, "policyTypes": ["Egress"]});
    spec["egress"] = rules;
    spec
}

/// The same for pods with this label only, to pods with that.
fn egress_from_to(app: &str, to: &str) -> Value {
    let mut spec = egress(json!([{"to": [to_app(to)]}]));
    spec["podSelector"] = json!({"matchLabels": {"app": app}});
    spec
}

fn to_app(app: &str) -> Value {
    json!({"podSelector": {"matchLabels": {"app": app}}})
}

fn is_policy(key: &GroupKey) -> bool {
    matches!(key, GroupKey::Policy(_))
}

fn is_together(key: &GroupKey) -> bool {
    matches!(key, GroupKey::Together(_))
}

fn is_loop(key: &GroupKey) -> bool {
    matches!(key, GroupKey::Loop(_))
}

// What pods carry

#[test]
fn a_pod_that_no_policy_isolates_has_the_two_open_groups_and_loses_them_one_by_one() {
    assert_eq!(stage().groups("a/web"), ["ingress-open", "egress-open"]);
    let stage = stage().policy("a/in", json!({"podSelector": {}}));
    assert_eq!(stage.groups("a/web"), ["egress-open", "policy:uid-a-in", "node:n0"]);
    assert_eq!(stage.groups("b/web"), ["ingress-open", "egress-open"]);
    let stage = stage.policy("a/out", egress(json!([])));
    assert_eq!(stage.groups("a/web"), ["policy:uid-a-in", "policy:uid-a-out", "node:n0"]);
}

#[test]
fn equal_selectors_are_one_peer_set_whoever_wrote_them_and_however() {
    let expression = json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "web"]}]});
    let stage = stage()
        .policy("a/one", json!({"podSelector": {}, "ingress": [{"from": [to_app("web")]}]}))
        .policy("a/two", json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": expression}]}]}))
        .policy("b/other", json!({"podSelector": {}, "ingress": [{"from": [to_app("web")]}]}));
    let sets: Vec<String> = stage
        .compiled()
        .groups
        .keys()
        .filter(|key| matches!(key, GroupKey::Peers(_)))
        .map(ToString::to_string)
        .collect();
    assert_eq!(sets, ["peers:a{app=web}", "peers:b{app=web}"]);
    assert!(stage.groups("a/web").contains(&"peers:a{app=web}".to_owned()));
    assert!(!stage.groups("a/web").contains(&"peers:b{app=web}".to_owned()));
}

#[test]
fn a_new_pod_that_ten_policies_name_changes_one_port_and_no_rule() {
    let mut stage = stage().pod("a/other", "app=web", "10.0.0.9");
    for index in 0..10 {
        stage = stage.policy(
            &format!("a/np{index}"),
            json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [
                {"from": [to_app("web"), to_app(&format!("{index}"))], "ports": [{"port": 80}]},
            ]}),
        );
    }
    let world = crate::compare::read(&stage.cluster);
    let mut compiler = Compiler::new(Settings::default());
    compiler.apply(world.changes());
    let mut new = world.pods[&"a/other".parse().unwrap()].clone();
    (new.key.name, new.uid) = ("new".into(), "uid-new".into());
    let delta = compiler.apply([Change::Pod(new)]);
    assert!(delta.groups.is_empty());
    assert_eq!(delta.pods.len(), 1);
}

#[test]
fn a_policys_group_and_its_peer_sets_are_there_before_any_pod_is() {
    let stage = Stage::default().policy("a/np", json!({"podSelector": {}, "ingress": [{"from": [to_app("web")]}]}));
    let groups: Vec<String> = stage.compiled().groups.keys().map(ToString::to_string).collect();
    assert_eq!(groups, ["policy:uid-a-np", "peers:a{app=web}"]);
}

#[test]
fn a_host_network_pod_and_one_that_is_over_have_no_groups_and_are_no_peers() {
    let stage = stage()
        .policy("a/np", json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]}))
        .pod("a/over", "", "10.0.1.1")
        .edit("a/over", |pod| pod.completed = true)
        .pod("a/host", "", "192.168.0.9")
        .edit("a/host", |pod| pod.host_network = true);
    assert_eq!(stage.compiled().pods.len(), 3);
    assert!(!stage.passes("b/web", "a/db", "80"), "has the address now that a pod which is over once had");
    assert!(!stage.passes("192.168.0.9", "a/db", "80"));
}

// Selectors and blocks

#[test]
fn a_pods_address_counts_for_an_ip_block_like_any_other() {
    let block = json!({"ipBlock": {"cidr": "10.0.0.0/16", "except": ["10.0.0.0/24"]}});
    let stage = stage().policy("a/np", json!({"podSelector": {}, "ingress": [{"from": [block]}]}));
    assert!(stage.passes("b/web", "a/web", "80") && !stage.passes("a/db", "a/web", "80"));
}

#[test]
fn a_block_of_all_addresses_is_a_rule_without_addresses() {
    let stage =
        stage().policy("a/np", json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}]}));
    assert_eq!(stage.rules(is_policy), ["in IPv4"]);
    let without = json!({"ipBlock": {"cidr": "::/0", "except": ["8000::/1"]}});
    let stage = self::stage().policy("a/np", json!({"podSelector": {}, "ingress": [{"from": [without]}]}));
    assert_eq!(stage.rules(is_policy), ["in IPv6 from ::/1"]);
}

#[test]
fn a_cluster_of_one_family_has_no_rules_for_the_other() {
    let mut stage = stage()
        .policy("a/np", json!({"podSelector": {}, "ingress": [{"from": [to_app("web")]}, {"ports": [{"port": 80}]}]}));
    stage.settings.families = [kuryr_model::neutron::EtherType::IPv4].into();
    assert_eq!(stage.rules(is_policy), ["in IPv4 from peers:a{app=web}", "in IPv4 tcp 80"]);
}

#[test]
fn policies_add_up_and_a_connection_needs_both_sides() {
    let stage = stage()
        .policy(
            "a/web-only",
            json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [{"from": [to_app("web")]}]}),
        )
        .policy(
            "a/80-only",
            json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [{"ports": [{"port": 80}]}]}),
        );
    assert!(stage.passes("a/web", "a/db", "443") && stage.passes("b/web", "a/db", "80"));
    assert!(!stage.passes("b/web", "a/db", "443"));
    let stage = stage.policy("b/none", egress(json!([])));
    assert!(!stage.passes("b/web", "a/db", "80"));
}

#[test]
fn a_policy_may_name_ports_that_its_pods_number_differently_and_still_be_few_groups() {
    let mut stage = stage().policy(
        "a/np",
        json!({"podSelector": {}, "ingress": [{"ports": [{"port": "http"}, {"port": 53, "protocol": "UDP"}]}]}),
    );
    for index in 0..6 {
        let name = format!("a/p{index}");
        stage = stage
            .pod(&name, "", &format!("10.0.0.1{index}"))
            .port(&name, if index % 2 == 0 { "http=80" } else { "http=8080" });
    }
    let groups: Vec<String> =
        stage.compiled().groups.keys().filter(|key| is_policy(key)).map(ToString::to_string).collect();
    assert_eq!(groups, ["policy:uid-a-np", "policy:uid-a-np[http/TCP=80]", "policy:uid-a-np[http/TCP=8080]"]);
    assert!(
        stage.passes("b/web", "a/p0", "80")
            && !stage.passes("b/web", "a/p1", "80")
            && stage.passes("b/web", "a/p1", "8080")
    );
    assert!(!stage.passes("b/web", "a/web", "80") && stage.passes("b/web", "a/web", "53/UDP"));
}

#[test]
fn egress_to_a_port_by_name_is_one_peer_set_for_each_number() {
    let stage = stage()
        .policy("b/np", egress(json!([{"to": [{"namespaceSelector": {}}], "ports": [{"port": "http"}]}])))
        .port("a/web", "http=80")
        .port("a/db", "http=8080");
    assert!(stage.passes("b/web", "a/web", "80") && !stage.passes("b/web", "a/web", "8080"));
    assert!(stage.passes("b/web", "a/db", "8080") && !stage.passes("b/web", "a/db", "80"));
    assert_eq!(stage.groups("a/db"), ["ingress-open", "egress-open", "peers:(){}[http/TCP=8080]"]);
}

#[test]
fn of_two_container_ports_of_one_name_and_protocol_the_first_counts() {
    let stage = stage()
        .policy("a/np", json!({"podSelector": {}, "ingress": [{"ports": [{"port": "http"}]}]}))
        .port("a/web", "http=80")
        .port("a/web", "http=81");
    assert!(stage.passes("b/web", "a/web", "80") && !stage.passes("b/web", "a/web", "81"));
}

#[test]
fn sctp_is_a_protocol_of_its_own() {
    let stage =
        stage().policy("a/np", json!({"podSelector": {}, "ingress": [{"ports": [{"port": 80, "protocol": "SCTP"}]}]}));
    assert!(stage.passes("b/web", "a/web", "80/SCTP") && !stage.passes("b/web", "a/web", "80/TCP"));
}

#[test]
fn no_selector_of_namespaces_matches_one_that_is_not_known_yet() {
    let all = json!([{"from": [{"namespaceSelector": {}}]}]);
    let mut stage = stage().policy("a/np", json!({"podSelector": {}, "ingress": all}));
    assert!(stage.passes("b/web", "a/web", "80"));
    stage.cluster.world.namespaces.remove("b");
    assert!(!stage.passes("b/web", "a/web", "80") && stage.passes("a/db", "a/web", "80"));
}

// The node and the pod itself

#[test]
fn an_isolated_pod_and_its_own_node_reach_each_other_always() {
    let stage = stage()
        .node("n1", "192.168.0.2")
        .policy("a/np", json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}));
    assert!(stage.passes("192.168.0.1", "a/web", "80") && stage.passes("a/web", "192.168.0.1", "10250"));
    assert!(!stage.passes("192.168.0.2", "a/web", "80") && !stage.passes("a/web", "192.168.0.2", "10250"));
}

#[test]
fn a_service_that_answers_at_a_nodes_address_does_not_take_the_node_away_from_its_pods() {
    let stage = stage().policy("a/np", egress(json!([]))).service("192.168.0.1", "80", "10.0.1.1:80");
    let rules = stage.rules(|key| matches!(key, GroupKey::Node(_)));
    assert_eq!(rules, ["in IPv4 from 192.168.0.1/32", "out IPv4 to 192.168.0.1/32"]);
}

#[test]
fn a_pod_reaches_itself_through_its_service_although_policies_allow_it_nothing() {
    let stage = stage().policy("a/np", json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})).service(
        "10.96.0.1",
        "80",
        "10.0.0.1:8080",
    );
    assert!(stage.passes("a/web", "10.96.0.1", "80"));
    assert!(!stage.passes("a/db", "10.96.0.1", "80") && !stage.passes("a/db", "a/web", "8080"));
    assert_eq!(
        stage.rules(is_loop),
        ["out IPv4 tcp 80 to 10.96.0.1/32", "out IPv4 tcp 8080 to loop:10.96.0.1:80/TCP>8080"]
    );
}

#[test]
fn a_pod_does_not_get_at_others_by_way_of_reaching_itself() {
    // Behind one Service, and neither may send to the other.
    let stage = stage().policy("a/np", json!({"podSelector": {}, "policyTypes": ["Egress"]})).service(
        "10.96.0.1",
        "80",
        "10.0.0.1:8080 10.0.0.2:8080",
    );
    assert!(!stage.passes("a/web", "10.96.0.1", "80") && stage.rules(is_loop).is_empty());
    // Each may send to the other but not to its like.
    let stage = self::stage()
        .policy("a/w", egress_from_to("web", "db"))
        .policy("a/d", egress_from_to("db", "web"))
        .service("10.96.0.1", "80", "10.0.0.1:8080 10.0.0.2:8080");
    assert!(stage.passes("a/web", "10.96.0.1", "80") && stage.passes("a/db", "10.96.0.1", "80"));
    assert_eq!(stage.rules(is_loop).len(), 2, "one group for both");
}

#[test]
fn the_way_in_from_a_vip_is_a_rule_of_a_policy_that_is_there_anyway() {
    let stage =
        stage().policy("a/np", json!({"podSelector": {}})).service("10.96.0.1", "80", "10.0.0.1:8080 10.0.0.2:8081");
    assert_eq!(stage.rules(is_policy), ["in IPv4 tcp 8080 from 10.96.0.1/32", "in IPv4 tcp 8081 from 10.96.0.1/32"]);
    assert_eq!(
        stage.groups("a/web"),
        ["egress-open", "policy:uid-a-np", "node:n0"],
        "so that no port changes when a Service does"
    );
}

#[test]
fn a_load_balancer_that_hides_the_client_is_let_in_by_nobody() {
    let stage = stage()
        .policy("a/np", json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}))
        .service("10.96.0.1", "80", "10.0.0.1:8080")
        .hides_client("10.96.0.1");
    assert!(!stage.passes("a/web", "10.96.0.1", "80") && !stage.passes("b/web", "10.96.0.1", "80"));
    assert!(stage.rules(is_loop).is_empty() && stage.rules(is_policy).is_empty());
}

// Egress through Services

#[test]
fn a_vip_is_allowed_when_everything_behind_it_is() {
    let allowed = json!([{"to": [to_app("web")], "ports": [{"port": 8080}]}]);
    let stage = stage()
        .pod("a/client", "", "10.0.0.9")
        .policy("a/np", egress(allowed))
        .service("10.96.0.1", "80", "10.0.0.1:8080")
        .service("10.96.0.2", "80", "10.0.0.1:8080 10.0.0.2:8080")
        .service("10.96.0.3", "80", "10.0.0.1:8081")
        .service("10.96.0.4", "80", "");
    assert!(stage.passes("a/client", "10.96.0.1", "80"));
    for vip in ["10.96.0.2", "10.96.0.3", "10.96.0.4"] {
        assert!(!stage.passes("a/client", vip, "80"), "{vip}");
    }
    assert!(!stage.passes("a/client", "10.96.0.1", "8080"));
}

#[test]
fn a_vip_whose_endpoints_two_policies_allow_only_together_is_allowed_to_the_pods_that_have_both() {
    let stage = stage()
        .pod("a/client", "app=client", "10.0.0.9")
        .pod("a/half", "app=half", "10.0.0.8")
        .policy("a/web", egress(json!([{"to": [to_app("web")]}])))
        .policy("a/db", egress_from_to("client", "db"))
        .service("10.96.0.1", "80", "10.0.0.1:80 10.0.0.2:80");
    assert!(stage.passes("a/client", "10.96.0.1", "80") && !stage.passes("a/half", "10.96.0.1", "80"));
    assert_eq!(stage.rules(is_together), ["out IPv4 tcp 80 to 10.96.0.1/32"]);
    assert!(stage.groups("a/client").contains(&"together:uid-a-db+uid-a-web".to_owned()));
}

#[test]
fn a_vip_in_front_of_a_pod_and_its_own_node_is_allowed_by_policy_and_node_together() {
    let stage = stage()
        .node("n1", "192.168.0.2")
        .pod("a/far", "", "10.0.0.9")
        .edit("a/far", |pod| pod.node = Some("n1".into()))
        .policy("a/np", egress(json!([{"to": [to_app("db")]}])))
        .service("10.96.0.1", "80", "10.0.0.2:80 192.168.0.1:80")
        .service("10.96.0.2", "443", "192.168.0.1:6443");
    assert!(stage.passes("a/web", "10.96.0.1", "80") && stage.passes("a/web", "10.96.0.2", "443"));
    assert!(!stage.passes("a/far", "10.96.0.1", "80") && !stage.passes("a/far", "10.96.0.2", "443"));
}

#[test]
fn a_rule_for_all_addresses_at_one_number_does_not_reach_a_service_of_that_number_with_another_behind_it() {
    let allowed = json!([{"ports": [{"port": 443}]}]);
    let stage = stage().policy("a/np", egress(allowed.clone())).service("10.96.0.1", "443", "10.0.1.1:8443").service(
        "10.96.0.2",
        "443",
        "10.0.1.1:443",
    );
    assert!(!stage.passes("a/web", "10.96.0.1", "443") && stage.passes("a/web", "10.96.0.2", "443"));
    assert!(stage.passes("a/web", "203.0.113.1", "443") && stage.passes("a/web", "b/web", "443"));
    assert_eq!(stage.rules(is_policy).len(), 32 + 1, "all IPv4 addresses but one, and all of IPv6");

    let stage = stage.service_range("10.96.0.0/12");
    assert!(!stage.passes("a/web", "10.96.0.1", "443") && stage.passes("a/web", "10.96.0.2", "443"));
    assert!(stage.passes("a/web", "203.0.113.1", "443"));
    assert_eq!(stage.rules(is_policy).len(), 12 + 1 + 1, "all but the range, and of it the VIP that is allowed");

    let stage = self::stage()
        .policy("a/np", egress(allowed))
        .service("10.96.0.2", "443", "10.0.1.1:443")
        .service_range("10.96.0.0/12");
    assert_eq!(stage.rules(is_policy), ["out IPv4 tcp 443", "out IPv6 tcp 443"], "nothing to cut out, nothing to add");
}

#[test]
fn a_policy_that_allows_everything_has_no_rules_for_services() {
    let stage = stage().policy("a/np", egress(json!([{}]))).service("10.96.0.1", "443", "10.0.1.1:8443");
    assert!(stage.passes("a/web", "10.96.0.1", "443"));
    assert_eq!(stage.rules(is_policy), ["out IPv4", "out IPv6"]);
}

#[test]
fn a_block_of_vips_alone_allows_none_of_them() {
    let block = json!([{"to": [{"ipBlock": {"cidr": "10.96.0.0/12"}}]}]);
    let stage = stage()
        .policy("a/np", egress(block))
        .service("10.96.0.1", "443", "10.0.1.1:8443")
        .service_range("10.96.0.0/12");
    assert!(!stage.passes("a/web", "10.96.0.1", "443"));
    assert!(stage.rules(is_policy).is_empty());
}

// What cannot be read

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

// Found by comparing

#[test]
fn a_name_in_an_ip_block_allows_a_service_in_the_blocks_family_only() {
    // The pod behind has addresses of both families, and one of them is in the block.
    let named = json!([{"to": [{"ipBlock": {"cidr": "::/0"}}], "ports": [{"port": "http"}]}]);
    let stage =
        stage().policy("b/np", egress(named)).port("a/web", "http=80").service("10.96.0.1", "80", "10.0.0.1:80");
    assert!(!stage.passes("b/web", "10.96.0.1", "80"));
    assert!(stage.clone().service("fd96::1", "80", "[fd00::1]:80").passes("b/web", "fd96::1", "80"));
}

#[test]
fn a_policy_that_no_longer_names_a_port_loses_the_groups_that_it_had_for_the_name() {
    let stage = stage().port("a/web", "http=80");
    let with = stage.clone().policy("a/np", json!({"podSelector": {}, "ingress": [{"ports": [{"port": "http"}]}]}));
    let without = stage.policy("a/np", json!({"podSelector": {}}));
    let mut compiler = Compiler::new(Settings::default());
    compiler.apply(crate::compare::read(&with.cluster).changes());
    compiler.apply([Change::Policy(Policy::read(&without.cluster.policies[0]).unwrap())]);
    assert_eq!(compiler.compiled(), without.compiled());
}

#[test]
fn a_policy_may_change_before_there_is_anything_else_in_its_namespace() {
    let first = Stage::default().policy("a/np", json!({"podSelector": {}, "ingress": [{"from": [to_app("web")]}]}));
    let second = Stage::default().policy("a/np", json!({"podSelector": {}, "ingress": [{"from": [to_app("db")]}]}));
    let mut compiler = Compiler::new(Settings::default());
    for stage in [&first, &second] {
        compiler.apply([Change::Policy(Policy::read(&stage.cluster.policies[0]).unwrap())]);
    }
    let pods = second.pod("a/db", "app=db", "10.0.0.2");
    compiler.apply(crate::compare::read(&pods.cluster).changes());
    assert_eq!(compiler.compiled(), pods.compiled());
}

#[test]
fn a_pods_way_to_itself_follows_the_labels_of_those_behind_the_same_service() {
    let stage = stage().policy("a/np", egress(json!([{"to": [to_app("db")]}]))).service(
        "10.96.0.1",
        "80",
        "10.0.0.1:80 10.0.0.2:80",
    );
    let world = crate::compare::read(&stage.cluster);
    let mut compiler = Compiler::new(Settings::default());
    compiler.apply(world.changes());
    let web = &world.pods[&"a/web".parse().unwrap()].uid;
    let loops = |compiler: &Compiler| compiler.groups(web).unwrap().iter().any(is_loop);
    assert!(loops(&compiler), "all but itself is allowed");
    let mut other = world.pods[&"a/db".parse().unwrap()].clone();
    other.labels.clear();
    compiler.apply([Change::Pod(other)]);
    assert!(!loops(&compiler));
    compiler.apply([Change::Pod(world.pods[&"a/db".parse().unwrap()].clone())]);
    assert!(loops(&compiler));
}

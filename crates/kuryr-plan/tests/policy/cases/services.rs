//! The node, the pod itself, and Services.

use super::{egress, egress_from_to, is_loop, is_policy, is_together, stage, to_app};
use kuryr_plan::policy::GroupKey;
use serde_json::json;

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
    let stage = super::stage()
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

    let stage = super::stage()
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

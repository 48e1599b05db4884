//! Selectors, blocks, ports and how policies add up.

use super::{egress, is_policy, stage, to_app};
use serde_json::json;

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
    let stage = super::stage().policy("a/np", json!({"podSelector": {}, "ingress": [{"from": [without]}]}));
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

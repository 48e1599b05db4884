//! What pods carry.

use super::{egress, stage, to_app};
use crate::stage::Stage;
use kuryr_plan::policy::{Change, Compiler, GroupKey, Settings};
use serde_json::json;

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

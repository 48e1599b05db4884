//! Found by comparing.

use super::{egress, is_loop, stage, to_app};
use crate::stage::Stage;
use kuryr_plan::policy::{Change, Compiler, Policy, Settings};
use serde_json::json;

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

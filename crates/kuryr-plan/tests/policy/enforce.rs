//! The way from one world to another: at each moment nothing passes that neither world allows, and at the end all is as
//! it should be.

use crate::{
    compare::read,
    executor::settled,
    incremental, random,
    stage::{Stage, labels},
    worlds,
    worlds::Dice,
};
use kuryr_model::ObjectKey;
use kuryr_plan::policy::{Change, Policy, Settings};
use proptest::prelude::*;
use serde_json::{Value, json};

fn run(bytes: &[u8], faults: bool, most: usize) -> Result<(), TestCaseError> {
    let mut dice = Dice(bytes.iter());
    let settings: Settings = worlds::settings(&mut dice);
    let start = read(&worlds::cluster(&mut dice));
    // Other choices than those of the way.
    let mut other = Dice(dice.0.clone());
    let mut executor = settled(&settings, &start, &mut dice).map_err(TestCaseError::fail)?;
    let mut changes = Vec::new();
    let mut world = start.clone();
    for _ in 0..=other.below(most) {
        let mut change = incremental::change(&mut other, &world);
        // A port keeps its addresses.
        if let Change::Pod(pod) = &mut change
            && let Some(known) = world.pods.get(&pod.key).filter(|known| known.uid == pod.uid)
        {
            pod.addresses.clone_from(&known.addresses);
        }
        world.apply(change.clone());
        changes.push(change);
    }
    let before = executor.neutron.clone();
    executor.neutron.updates.clear();
    executor.faults = if faults { 6 } else { 0 };
    executor
        .change(&settings, &start, &changes)
        .map_err(|error| TestCaseError::fail(format!("{error}\n{changes:#?}\n{start:#?}")))?;
    if !faults && executor.at_once {
        // Rules of the same content are the same rules still. What is heard of on the way may bring back what has gone.
        for (id, group) in &before.groups {
            let Some(after) = executor.neutron.groups.get(id) else { continue };
            for rule in &group.rules {
                let twin = after.rules.iter().find(|other| other.allows == rule.allows);
                prop_assert!(twin.is_none_or(|twin| twin.id == rule.id), "a rule was made anew {changes:#?}");
            }
        }
        // Others may lose first and gain then, if the pod's named ports make several of them change.
        if let [Change::Pod(pod)] = &changes[..] {
            let often = executor.neutron.updates_of(&pod.uid).any(|updates| updates > 1);
            prop_assert!(!often, "the port of the pod was changed twice {changes:#?}");
        }
    }
    Ok(())
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 300..1200)
}

#[test]
fn one_change_is_brought_about_without_a_moment_that_is_wider_than_both_worlds() {
    random::runner(10).run(&bytes(), |bytes| run(&bytes, false, 1)).unwrap();
}

#[test]
fn several_changes_at_once_are_never_wider_than_some_world_between() {
    random::runner(10).run(&bytes(), |bytes| run(&bytes, false, 3)).unwrap();
}

#[test]
fn failures_and_lost_answers_make_nothing_wider_and_all_is_right_in_the_end() {
    random::runner(10).run(&bytes(), |bytes| run(&bytes, true, 2)).unwrap();
}

/// Two pods, and a policy for both: `spec` without its selector. Another policy names pods of a tier, and selects none.
fn two_pods(spec: &Value) -> Stage {
    let mut spec = spec.clone();
    spec["podSelector"] = json!({});
    let tier = json!({"podSelector": {"matchLabels": {"tier": "db"}}});
    let other = json!({"podSelector": {"matchLabels": {"app": "none"}}, "ingress": [{"from": [tier]}]});
    let stage = Stage::default().pod("a/p0", "", "10.0.0.1").pod("a/p1", "app=web", "10.0.0.2");
    stage.policy("a/np", spec).policy("a/other", other)
}

/// The policy is edited, or replaced, after some other changes: in whatever order and with whatever failures, nothing
/// passes that no world between allows.
fn never_wider(old: &Value, others: &[Change], new: &Value) {
    let (before, after) = (read(&two_pods(old).cluster), read(&two_pods(new).cluster));
    let edited = after.policies[&ObjectKey::new("a", "np")].clone();
    let replaced = Policy { uid: "another".into(), ..edited.clone() };
    let way = proptest::collection::vec(any::<u8>(), 0..400);
    random::runner(10)
        .run(&(way, 0..7usize), |(bytes, faults)| {
            for policy in [&edited, &replaced] {
                let mut dice = Dice(bytes.iter());
                let settings = Settings::default();
                let mut executor = settled(&settings, &before, &mut dice).map_err(TestCaseError::fail)?;
                executor.faults = faults;
                let changes: Vec<Change> = others.iter().cloned().chain([Change::Policy(policy.clone())]).collect();
                executor.change(&settings, &before, &changes).map_err(TestCaseError::fail)?;
            }
            Ok(())
        })
        .unwrap();
}

/// From one pod to the other there is only TCP with the first, and nothing with the second: p1 must be limited before p0 is
/// opened.
fn from_ingress_to_egress() -> (Value, Value) {
    (
        json!({"policyTypes": ["Ingress"], "ingress": [{"ports": [{"protocol": "TCP"}]}]}),
        json!({"policyTypes": ["Egress"], "egress": [{"to": [{"podSelector": {"matchLabels": {"app": "web"}}}]}]}),
    )
}

#[test]
fn a_port_that_was_refused_to_lose_holds_up_those_that_gain() {
    let (old, new) = from_ingress_to_egress();
    never_wider(&old, &[], &new);
}

#[test]
fn a_port_that_is_to_gain_more_on_the_way_waits_for_those_that_are_to_lose_since() {
    let (old, new) = from_ingress_to_egress();
    let relabelled = two_pods(&old).edit("a/p0", |pod| pod.labels = labels("tier=db"));
    let pod = relabelled.cluster.world.pods[&ObjectKey::new("a", "p0")].clone();
    never_wider(&old, &[Change::Pod(pod)], &new);
}

/// The change of the policy for two pods, and of nothing else.
fn edited(spec: &Value) -> Change {
    Change::Policy(read(&two_pods(spec).cluster).policies[&ObjectKey::new("a", "np")].clone())
}

#[test]
fn a_port_whose_opening_is_under_way_and_not_wanted_any_more_holds_up_those_that_gain() {
    never_wider(
        &json!({"policyTypes": ["Ingress", "Egress"]}),
        &[edited(&json!({"policyTypes": ["Ingress"]}))],
        &json!({"policyTypes": ["Egress"]}),
    );
}

#[test]
fn a_rule_that_is_under_way_and_not_wanted_any_more_holds_up_those_that_gain() {
    never_wider(
        &json!({"policyTypes": ["Ingress", "Egress"]}),
        &[edited(&json!({"policyTypes": ["Ingress", "Egress"], "ingress": [{"ports": [{"protocol": "TCP"}]}]}))],
        &json!({"policyTypes": ["Ingress"]}),
    );
}

#[test]
fn a_group_whose_deletion_was_not_answered_is_read_before_a_new_pod_gets_it() {
    let spec = json!({"policyTypes": ["Ingress"]});
    let more = two_pods(&spec).pod("a/p2", "", "10.0.0.3");
    let pod = more.cluster.world.pods[&ObjectKey::new("a", "p2")].clone();
    never_wider(&spec, &[Change::PolicyGone(ObjectKey::new("a", "np")), Change::Pod(pod)], &spec);
}

#[test]
fn a_rule_that_was_refused_to_go_holds_up_ports_that_gain() {
    never_wider(
        &json!({
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"ports": [{"protocol": "TCP"}]}], "egress": [{"ports": [{"protocol": "UDP"}]}],
        }),
        &[],
        &json!({"policyTypes": ["Egress"]}),
    );
}

#[test]
fn new_rules_of_one_direction_wait_until_those_of_the_other_are_gone() {
    let (tcp, udp) = (json!([{"ports": [{"protocol": "TCP"}]}]), json!([{"ports": [{"protocol": "UDP"}]}]));
    never_wider(
        &json!({"policyTypes": ["Ingress", "Egress"], "ingress": tcp, "egress": udp}),
        &[],
        &json!({"policyTypes": ["Ingress", "Egress"], "ingress": udp, "egress": tcp}),
    );
}

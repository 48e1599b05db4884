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
use kuryr_model::{ObjectKey, SecurityGroupId};
use kuryr_plan::{
    enforce::{Hold, NotYet, Object},
    policy::{Change, GroupKey, Policy, Settings, World},
};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeSet;

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

/// Brings changes about the way that the bytes tell, with so many failures.
fn bring_about(before: &World, changes: &[Change], way: &[u8], faults: usize) -> Result<(), TestCaseError> {
    let mut dice = Dice(way.iter());
    let settings = Settings::default();
    let mut executor = settled(&settings, before, &mut dice).map_err(TestCaseError::fail)?;
    executor.faults = faults;
    executor
        .change(&settings, before, changes)
        .map_err(|error| TestCaseError::fail(format!("{error}\n{changes:#?}\n{before:#?}")))
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
                let changes: Vec<Change> = others.iter().cloned().chain([Change::Policy(policy.clone())]).collect();
                bring_about(&before, &changes, &bytes, faults)?;
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
fn a_new_pod_waits_for_those_that_lose_by_what_opens_it() {
    let (shut_out, shut_in) = (json!({"policyTypes": ["Egress"]}), json!({"policyTypes": ["Ingress"]}));
    let more = two_pods(&shut_out).pod("a/p2", "", "10.0.0.3");
    let pod = more.cluster.world.pods[&ObjectKey::new("a", "p2")].clone();
    // What p0 and p1 take from everybody before, the new pod may send only afterwards.
    never_wider(&shut_out, &[Change::Pod(pod)], &shut_in);
}

#[test]
fn a_new_pod_does_not_wait_for_a_port_that_cannot_be_made_narrower_but_does_without_what_it_gains() {
    let before = read(&two_pods(&json!({"policyTypes": ["Egress"]})).cluster);
    let more = two_pods(&json!({"policyTypes": ["Ingress"]})).pod("a/p2", "", "10.0.0.3").pod("b/p3", "", "10.0.0.4");
    let after = read(&more.cluster);
    let uid = |name: &str| after.pods[&name.parse().unwrap()].uid.clone();
    let mut dice = Dice([].iter());
    let executor = settled(&Settings::default(), &before, &mut dice).unwrap();
    let (mut enforcer, open) = (executor.enforcer, executor.open);
    enforcer.apply(after.changes().collect());
    let has_open = |groups: &BTreeSet<SecurityGroupId>| {
        [GroupKey::IngressOpen, GroupKey::EgressOpen].map(|key| groups.contains(&open[&key]))
    };
    assert!(matches!(enforcer.grant(&uid("a/p2")), Err(NotYet::After(..))), "others let everybody in still");
    let elsewhere = enforcer.grant(&uid("b/p3")).map(|groups| has_open(&groups));
    assert_eq!(elsewhere, Ok([true, true]), "the policy says nothing of it");
    for pod in ["a/p0", "a/p1"] {
        let ports: Vec<_> = enforcer.ports_of(&uid(pod)).collect();
        ports.into_iter().for_each(|port| enforcer.hold(Object::Port(port), Hold::Closed));
    }
    let groups = enforcer.grant(&uid("a/p2")).unwrap();
    assert!(!groups.is_empty() && has_open(&groups) == [false, false], "nothing lets it out yet: {groups:?}");
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

#[test]
fn a_group_that_is_not_wanted_any_more_and_is_still_getting_rules_holds_up_those_that_gain() {
    let (shut, tcp) = (json!({"policyTypes": ["Ingress", "Egress"]}), json!([{"ports": [{"protocol": "TCP"}]}]));
    let before = two_pods(&shut);
    let open = edited(&json!({"policyTypes": ["Ingress", "Egress"], "ingress": tcp}));
    let after = read(&two_pods(&json!({"policyTypes": ["Ingress"]})).cluster);
    let edited = after.policies[&ObjectKey::new("a", "np")].clone();
    let another = Change::Policy(Policy { uid: "another".into(), ..edited });
    // The rule is on its way to the group that both pods have, and they are to lose this one for a new one. That one is
    // refused, so they can do without: the pod that was shut out is opened while the other is being opened.
    let way = [
        0, 0, 0, 0, 0, 0, 5, 0, 0, 2, 0, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        103, 0, 0, 0, 0, 48, 0, 0, 0, 0, 0, 0, 0, 0, 84, 0, 0, 0, 0, 0, 0, 17, 56, 0, 73, 0, 1, 151, 162,
    ];
    bring_about(&read(&before.cluster), &[open, another], &way, 3).unwrap();
}

#[test]
fn a_pod_that_loses_the_group_whose_rules_were_to_go_holds_up_those_that_waited_for_the_rules() {
    let all = json!({"policyTypes": ["Ingress", "Egress"], "podSelector": {}, "ingress": [], "egress": [
        {}, {"to": [{"podSelector": {"matchLabels": {"tier": "db"}}}], "ports": [{"protocol": "TCP"}]}
    ]});
    let shut = json!({"policyTypes": ["Egress"], "podSelector": {}, "egress": []});
    let before = few_pods().policy("a/np0", all).policy("a/np1", shut);
    let becomes = |spec: Value| {
        let stage = Stage::default().policy("a/np0", spec);
        Change::Policy(read(&stage.cluster).policies[&ObjectKey::new("a", "np0")].clone())
    };
    let (db, web) = (json!({"matchLabels": {"tier": "db"}}), json!({"matchLabels": {"app": "web"}}));
    let both = ["Ingress", "Egress"];
    let changes = [
        becomes(json!({"policyTypes": both, "podSelector": db, "ingress": [], "egress": [{}]})),
        becomes(json!({"policyTypes": ["Ingress"], "podSelector": web, "ingress": []})),
        Change::PolicyGone(ObjectKey::new("a", "np0")),
    ];
    // With the first two p0 is to be opened once the group of p1 lets nobody out any more. A rule is refused to go. With
    // the third p1 is to lose the group, and p0 is still to wait.
    let way = [
        0, 0, 0, 0, 0, 0, 0, 0, 0, 29, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 133, 0, 0, 0,
        110, 151, 90, 156, 0, 0, 109, 6, 0, 18, 76, 0, 0, 0, 9, 0, 0, 0, 107, 0, 104, 0, 0, 189, 0, 18, 0, 19, 0, 54,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 18, 0, 0, 0, 125, 0, 71, 0, 0, 1, 0, 188, 1,
    ];
    bring_about(&read(&before.cluster), &changes, &way, 4).unwrap();
}

/// Three pods of which policies may tell two.
fn few_pods() -> Stage {
    let stage = Stage::default().pod("a/p0", "", "10.0.0.1").pod("a/p1", "app=web", "10.0.0.2");
    stage.pod("a/p2", "tier=db", "10.0.0.3")
}

/// How to select the pods that a policy is for, or lets in or out.
fn selector(dice: &mut Dice) -> Value {
    match dice.below(4) {
        0 | 1 => json!({}),
        2 => json!({"matchLabels": {"app": "web"}}),
        _ => json!({"matchLabels": {"tier": "db"}}),
    }
}

/// What a policy lets through in one direction.
fn rules(dice: &mut Dice, peers: &str) -> Value {
    let rule = |dice: &mut Dice| {
        let mut rule = json!({});
        if dice.below(2) == 0 {
            rule[peers] = match dice.below(4) {
                0 => json!([{"namespaceSelector": {"matchLabels": {"team": "red"}}}]),
                _ => json!([{"podSelector": selector(dice)}]),
            };
        }
        if dice.below(2) == 0 {
            let protocol = ["TCP", "UDP"][dice.below(2)];
            rule["ports"] = json!([{"protocol": protocol}]);
        }
        rule
    };
    (0..dice.below(3)).map(|_| rule(dice)).collect()
}

fn spec(dice: &mut Dice) -> Value {
    let types = [json!(["Ingress"]), json!(["Egress"]), json!(["Ingress", "Egress"])][dice.below(3)].clone();
    let (ingress, egress) = (rules(dice, "from"), rules(dice, "to"));
    json!({"podSelector": selector(dice), "policyTypes": types, "ingress": ingress, "egress": egress})
}

/// One of the policies, pods or the namespace of a small world becomes something else.
fn change(dice: &mut Dice) -> Change {
    let name = format!("a/np{}", dice.below(2));
    match dice.below(8) {
        0..=4 => {
            let stage = Stage::default().policy(&name, spec(dice));
            let mut policy = read(&stage.cluster).policies[&name.parse().unwrap()].clone();
            if dice.one_in(3) {
                policy.uid = format!("another-{name}").as_str().into();
            }
            Change::Policy(policy)
        }
        5 => Change::PolicyGone(name.parse().unwrap()),
        6 => Change::Namespace("a".to_owned(), labels(["", "team=red"][dice.below(2)])),
        _ => {
            let index = dice.below(5);
            pod(dice, index)
        }
    }
}

/// One of the pods of a small world, with whatever labels. Beyond those of [`few_pods`] it is a new one.
fn pod(dice: &mut Dice, index: usize) -> Change {
    let (key, labels) = (format!("a/p{index}"), ["", "app=web", "tier=db"][dice.below(3)]);
    let stage = Stage::default().pod(&key, labels, &format!("10.0.0.{}", index + 1));
    Change::Pod(read(&stage.cluster).pods[&key.parse().unwrap()].clone())
}

/// A small world and its changes.
fn few(dice: &mut Dice) -> (World, Vec<Change>) {
    let stage = few_pods().namespace("a", ["", "team=red"][dice.below(2)]);
    let stage = (0..2).fold(stage, |stage, index| match dice.below(3) {
        0 => stage,
        _ => stage.policy(&format!("a/np{index}"), spec(dice)),
    });
    (read(&stage.cluster), (0..=dice.below(4)).map(|_| change(dice)).collect())
}

/// What happens, on which way, and with how many failures.
fn histories() -> impl Strategy<Value = (Vec<u8>, Vec<u8>, usize)> {
    (proptest::collection::vec(any::<u8>(), 0..120), proptest::collection::vec(any::<u8>(), 0..400), 0..7usize)
}

#[test]
fn a_few_pods_and_policies_that_change_again_and_again_are_never_wider() {
    let run = |(what, way, faults): (Vec<u8>, Vec<u8>, usize)| {
        let (before, changes) = few(&mut Dice(what.iter()));
        bring_about(&before, &changes, &way, faults)
    };
    random::runner(10).run(&histories(), run).unwrap();
}

#[test]
fn a_pod_that_comes_while_others_are_still_to_change_makes_nothing_wider() {
    let run = |(what, way, faults): (Vec<u8>, Vec<u8>, usize)| {
        let mut dice = Dice(what.iter());
        let new = pod(&mut dice, 3);
        let at = dice.below(4);
        let (before, mut changes) = few(&mut dice);
        changes.insert(at.min(changes.len()), new);
        bring_about(&before, &changes, &way, faults)
    };
    random::runner(10).run(&histories(), run).unwrap();
}

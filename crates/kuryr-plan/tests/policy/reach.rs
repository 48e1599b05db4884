//! What people are told about who reaches whom.

use crate::{compare::read, stage::Stage};
use kuryr_model::neutron::Direction;
use kuryr_plan::policy::{Answer, NoAnswer, Place, Protocol, Side, Verdict, reach};
use serde_json::json;

fn ask(stage: &Stage, from: &Place, to: &Place, number: u16) -> Result<Verdict, NoAnswer> {
    reach(&read(&stage.cluster), from, to, Protocol::Tcp, number)
}

fn pod(name: &str) -> Place {
    Place::Pod(name.parse().unwrap())
}

fn service(vip: &str) -> Place {
    Place::Service(kuryr_model::ObjectKey::new("services", vip))
}

fn stage() -> Stage {
    Stage::default()
        .pod("a/web", "app=web", "10.0.0.1")
        .pod("a/db", "app=db", "10.0.0.2")
        .pod("b/web", "app=web", "10.0.1.1")
        .node("n0", "192.168.0.1")
}

#[test]
fn the_rules_that_allow_it_are_named_with_their_place_in_the_object() {
    let db = json!({"matchLabels": {"app": "db"}});
    let stage = stage()
        .policy("a/np", json!({"podSelector": db, "ingress": [{"ports": [{"port": 443}]}, {"ports": [{"port": 80}]}]}));
    let verdict = ask(&stage, &pod("a/web"), &pod("a/db"), 80).unwrap();
    assert_eq!(verdict.answer(), Answer::Yes);
    let [way] = &verdict.ways[..] else { panic!("{verdict:?}") };
    assert_eq!(way.sends, Side::Open);
    let Side::Allowed(causes) = &way.receives else { panic!("{way:?}") };
    assert_eq!(causes.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a/np: spec.ingress[1]"]);
}

#[test]
fn the_policies_that_isolate_a_pod_are_named_if_none_of_them_allows_it() {
    let stage = stage().policy("a/one", json!({"podSelector": {}})).policy("a/two", json!({"podSelector": {}}));
    let verdict = ask(&stage, &pod("b/web"), &pod("a/db"), 80).unwrap();
    assert_eq!(verdict.answer(), Answer::No);
    let both: Vec<kuryr_model::ObjectKey> = ["a/one", "a/two"].map(|name| name.parse().unwrap()).to_vec();
    assert_eq!(verdict.ways[0].receives, Side::Refused(both));
}

#[test]
fn a_node_reaches_its_pods_and_a_pod_itself_whatever_policies_say() {
    let stage = stage().policy("a/np", json!({"podSelector": {}})).service("10.96.0.1", "80", "10.0.0.1:8080");
    let verdict = ask(&stage, &Place::Node("n0".into()), &pod("a/db"), 80).unwrap();
    assert_eq!(
        (verdict.answer(), &verdict.ways[0].sends, &verdict.ways[0].receives),
        (Answer::Yes, &Side::Outside, &Side::OwnNode)
    );
    for to in [pod("a/web"), service("10.96.0.1")] {
        let verdict = ask(&stage, &pod("a/web"), &to, 80).unwrap();
        assert_eq!((verdict.answer(), &verdict.ways[0].receives), (Answer::Yes, &Side::Itself));
    }
}

#[test]
fn a_service_of_which_one_endpoint_is_forbidden_to_the_sender_is_not_reached_at_all() {
    let rules = json!([{"to": [{"podSelector": {"matchLabels": {"app": "db"}}}]}]);
    let selector = json!({"matchLabels": {"app": "web"}});
    let stage = stage()
        .policy("a/np", json!({"podSelector": selector, "policyTypes": ["Egress"], "egress": rules}))
        .service("10.96.0.1", "80", "10.0.0.2:80 10.0.1.1:80");
    let verdict = ask(&stage, &pod("a/web"), &service("10.96.0.1"), 80).unwrap();
    assert_eq!(verdict.answer(), Answer::No);
    assert_eq!(verdict.ways[0].sends, Side::OthersRefused);
    assert_eq!(verdict.ways[1].sends, Side::Refused(vec!["a/np".parse().unwrap()]));
    assert_eq!(ask(&stage, &pod("a/web"), &Place::Address("10.96.0.1".parse().unwrap()), 80), Ok(verdict));
}

#[test]
fn a_service_of_which_one_endpoint_refuses_the_sender_is_reached_now_and_then() {
    let stage =
        stage().policy("b/np", json!({"podSelector": {}})).service("10.96.0.1", "80", "10.0.0.2:80 10.0.1.1:80");
    assert_eq!(ask(&stage, &pod("a/web"), &service("10.96.0.1"), 80).unwrap().answer(), Answer::Partly);
}

#[test]
fn pods_that_have_no_address_yet_are_answered_by_their_labels() {
    let stage = stage()
        .policy("a/np", json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}, {"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}]}))
        .pod("a/new", "", "")
        .pod("b/new", "", "");
    assert_eq!(ask(&stage, &pod("a/new"), &pod("a/db"), 80).unwrap().answer(), Answer::Yes);
    assert_eq!(ask(&stage, &pod("b/new"), &pod("a/new"), 80).unwrap().answer(), Answer::No);
}

#[test]
fn what_is_not_there_is_said() {
    let stage = stage().service("10.96.0.1", "80", "10.0.0.2:80").edit("b/web", |pod| pod.completed = true);
    let no = |from: Place, to: Place, number| ask(&stage, &from, &to, number).unwrap_err().to_string();
    assert_eq!(no(pod("a/x"), pod("a/db"), 80), "there is no pod a/x");
    assert_eq!(no(pod("b/web"), pod("a/db"), 80), "pod b/web is completed");
    assert_eq!(no(pod("a/web"), service("10.96.0.9"), 80), "there is no Service services/10.96.0.9 with a cluster IP");
    assert_eq!(no(pod("a/web"), service("10.96.0.1"), 81), "Service services/10.96.0.1 has no port 81/TCP");
    assert_eq!(
        no(service("10.96.0.1"), pod("a/db"), 80),
        "Service services/10.96.0.1 can be reached, but does not reach out"
    );
    assert_eq!(no(Place::Node("n9".into()), pod("a/db"), 80), "there is no node n9 with an address");
}

#[test]
fn each_rule_that_had_a_say_tells_which_half_of_it_was_met() {
    let web = json!([{"podSelector": {"matchLabels": {"app": "web"}}}]);
    let rules =
        json!([{"from": web, "ports": [{"port": 443}]}, {"ports": [{"port": 80}], "from": [{"podSelector": {}}]}]);
    let stage = stage().policy("a/np", json!({"podSelector": {}, "ingress": rules}));
    let halves = |from: &str, number| {
        let verdict = ask(&stage, &pod(from), &pod("a/db"), number).unwrap();
        let looks = verdict.ways[0].looks(&read(&stage.cluster), Direction::Ingress);
        looks.iter().map(|look| (look.peers, look.ports)).collect::<Vec<_>>()
    };
    assert_eq!(halves("a/web", 80), [(true, false), (true, true)]);
    assert_eq!(halves("b/web", 80), [(false, false), (false, true)]);
    assert_eq!(halves("a/db", 80), [], "it is the pod itself");
}

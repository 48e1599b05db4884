use super::{super::keeper::Keeper, *};
use crate::{index::Index, policy::PodFacts};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kuryr_model::{
    SecurityGroupId,
    neutron::{SecurityGroup, SecurityGroupRule},
};
use kuryr_plan::{
    enforce::{Hold, Step},
    pod::Pod,
    policy::Settings,
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, time::Duration};

fn id<T: std::str::FromStr<Err: std::fmt::Debug>>(n: usize) -> T {
    format!("00000000-0000-0000-0000-{n:012x}").parse().unwrap()
}

fn policy(spec: &Value) -> super::super::lean::SeenPolicy {
    let metadata = json!({"namespace": "shop", "name": "web", "uid": "u1", "generation": 3});
    let object: NetworkPolicy = serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap();
    super::super::lean::policy(object).unwrap()
}

fn pod(name: &str, app: &str) -> (Pod, PodFacts) {
    let pod = Pod {
        key: ObjectKey::new("shop", name),
        uid: format!("uid-{name}").into(),
        node: Some("n1".to_owned()),
        host_network: false,
        completed: false,
        deleting: false,
    };
    (pod, PodFacts { labels: [("app".to_owned(), app.to_owned())].into(), ports: vec![] })
}

/// Pods `web-0` and `friend`, each with a port that is open, and a policy that lets friends in to the web.
fn keeper(spec: &Value) -> Keeper {
    let keeper = Keeper::new(Settings::default(), [id(1), id(2)]);
    let index = Index::default();
    keeper.namespace("shop".to_owned(), [].into());
    keeper.node("n1".to_owned(), ["192.0.2.1".parse().unwrap()].into());
    for (number, (name, app)) in [("web-0", "web"), ("friend", "friend")].into_iter().enumerate() {
        let (pod, facts) = pod(name, app);
        keeper.pod(&index, &pod, facts);
        keeper.has(id(100 + number), &pod.uid, &[id(1), id(2)]);
    }
    keeper.policy(policy(spec));
    keeper
}

fn friends() -> Value {
    let from = json!([{"podSelector": {"matchLabels": {"app": "friend"}}}]);
    json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"from": from}]})
}

/// Does what is planned, as a Neutron would that refuses nothing.
fn carry_out(state: &mut State) {
    let mut last = 1000;
    let mut next = || {
        last += 1;
        last
    };
    for _ in 0..20 {
        for step in state.enforcer.plan() {
            match &step {
                Step::Make(keys) => {
                    for key in keys {
                        let group = SecurityGroup { id: id(next()), name: String::new(), rules: vec![], tags: vec![] };
                        state.enforcer.made(key, &group);
                    }
                }
                Step::Group(group) => {
                    let rule = |allows: &kuryr_model::neutron::RuleContent| SecurityGroupRule {
                        id: id(next()),
                        security_group_id: group.id,
                        allows: allows.clone(),
                    };
                    let rules: Vec<SecurityGroupRule> = group.add.iter().map(rule).collect();
                    state.enforcer.added(&group.key, &rules);
                    state.enforcer.tagged(&group.key);
                }
                Step::Port { port, pod, groups } => state.enforcer.has(*port, pod, groups.clone()),
                other => panic!("{other:?}"),
            }
        }
    }
}

fn said(keeper: &Keeper, before: &KuryrNetworkPolicyStatus) -> (KuryrNetworkPolicyStatus, Phase) {
    let now = "2026-01-02T00:00:00Z".parse().unwrap();
    status(&keeper.state(), &ObjectKey::new("shop", "web"), before, now).unwrap()
}

#[test]
fn a_policy_holds_when_its_groups_and_all_ports_of_its_pods_are_as_they_are_to_be() {
    let keeper = keeper(&friends());
    let (pending, phase) = said(&keeper, &KuryrNetworkPolicyStatus::default());
    assert_eq!((phase, pending.applied_generation), (Phase::Pending, None));
    carry_out(&mut keeper.state());
    let (status, phase) = said(&keeper, &pending);
    assert_eq!((phase, status.applied_generation), (Phase::Holds, Some(3)));
    assert_eq!((status.selected_pods, status.peers, status.rules, &*status.isolates), (1, 1, 2, "Ingress"));
    assert_eq!((status.pods, &*status.peer_sets[0].peers), (vec!["web-0".to_owned()], "shop{app=friend}"));
    assert_eq!((&*status.conditions[0].status, &*status.conditions[0].reason), ("True", "Enforced"));
    assert!(status.groups.iter().all(|group| group.id.is_some() && group.name == "policy shop/web"));
}

#[test]
fn a_policy_that_a_quota_forbids_says_so_and_its_pods_are_closed() {
    let keeper = keeper(&friends());
    {
        let mut state = keeper.state();
        let keys: Vec<GroupKey> = state.enforcer.compiler().all_groups().cloned().collect();
        for key in keys {
            let failure = Failure {
                reason: "QuotaExceeded",
                message: "network: full".to_owned(),
                times: 1,
                persistent: true,
                after: Duration::ZERO,
            };
            state.failures.insert(Object::Group(key.clone()), failure);
            state.enforcer.hold(Object::Group(key), Hold::Closed);
        }
        carry_out(&mut state);
        let has = state.enforcer.port(id(100)).unwrap().groups.clone();
        assert_eq!(has, BTreeSet::from([id::<SecurityGroupId>(2)]), "it may send still, but nothing comes in");
    }
    let (status, _) = said(&keeper, &KuryrNetworkPolicyStatus::default());
    assert_eq!(status.conditions[0].reason, "QuotaExceeded");
    assert!(status.conditions[0].message.contains("closed") && status.applied_generation.is_none());
    let waits = keeper.grant(&ObjectKey::new("shop", "web-0"), &"uid-web-0".into()).unwrap_err();
    assert!(waits.to_string().contains("policy shop/web") && waits.to_string().contains("full"), "{waits}");
}

#[test]
fn what_is_surely_not_meant_is_told() {
    let keeper = keeper(&json!({
        "podSelector": {"matchLabels": {"app": "web"}},
        "ingress": [{"ports": [{"port": "htpp"}]}, {"from": [{"ipBlock": {"cidr": "nonsense"}}]}],
    }));
    let (status, _) = said(&keeper, &KuryrNetworkPolicyStatus::default());
    let reasons: Vec<&str> = status.problems.iter().map(|problem| &*problem.reason).collect();
    assert_eq!(reasons, ["NoSuchPortName", "NotUnderstood"]);
}

#[test]
fn a_condition_keeps_its_time_while_its_status_stays() {
    let keeper = keeper(&friends());
    let (first, _) = said(&keeper, &KuryrNetworkPolicyStatus::default());
    let later = "2026-01-03T00:00:00Z".parse().unwrap();
    let (second, _) = status(&keeper.state(), &ObjectKey::new("shop", "web"), &first, later).unwrap();
    assert_eq!(first, second);
}

#[test]
fn the_groups_of_a_new_pod_are_there_before_its_port_is_made() {
    let keeper = keeper(&friends());
    let (pod, facts) = pod("web-1", "web");
    keeper.pod(&Index::default(), &pod, facts);
    assert!(keeper.grant(&pod.key, &pod.uid).is_err());
    carry_out(&mut keeper.state());
    let groups = keeper.grant(&pod.key, &pod.uid).unwrap();
    assert!(groups.len() == 3 && !groups.contains(&id(1)), "its policy's, its node's, and egress-open: {groups:?}");
    assert!(keeper.grant(&ObjectKey::new("shop", "nobody"), &"uid-nobody".into()).is_err());
}

/// The `KuryrPort` of `web-0`.
fn port(plug: &Value) -> kuryr_model::KuryrPort {
    serde_json::from_value(json!({
        "apiVersion": "kuryr.openstack.org/v1", "kind": "KuryrPort",
        "metadata": {"namespace": "shop", "name": "web-0"},
        "spec": {"podUid": "uid-web-0", "nodeName": "n1", "vifs": [{
            "portId": id::<SecurityGroupId>(100), "networkId": id::<SecurityGroupId>(101), "interface": "eth0",
            "mac": "fa:16:3e:00:00:01", "mtu": 1442, "addresses": [{"ip": "10.0.0.1", "prefixLength": 24}], "plug": plug,
        }]},
    }))
    .unwrap()
}

#[test]
fn a_policy_says_that_it_has_no_effect_on_pods_that_share_the_port_of_their_machine() {
    let keeper = keeper(&friends());
    carry_out(&mut keeper.state());
    let key = ObjectKey::new("shop", "web-0");
    let ready = |before: &KuryrNetworkPolicyStatus| {
        carry_out(&mut keeper.state());
        let (status, phase) = said(&keeper, before);
        (status.conditions[0].reason.clone(), phase == Phase::Holds, status)
    };
    keeper.state().touched.clear();
    keeper.port(&key, Some(&port(&json!({"driver": "ovs", "bridge": "br-int"}))));
    let (reason, holds, before) = ready(&KuryrNetworkPolicyStatus::default());
    assert!(holds && reason == "Enforced" && keeper.state().touched.is_empty(), "{reason}");
    for driver in ["macvlan", "ipvlan"] {
        let parent = json!({"portId": id::<SecurityGroupId>(7), "mac": "fa:16:3e:00:00:02"});
        keeper.port(&key, Some(&port(&json!({"driver": driver, "parent": parent}))));
        let (reason, holds, status) = ready(&before);
        assert!(!holds && reason == "NotEnforced", "{reason}");
        assert!(status.conditions[0].message.contains("no effect on web-0:"), "{}", status.conditions[0].message);
        assert_eq!(status.applied_generation, Some(3), "it is all in Neutron");
    }
    assert!(keeper.state().touched.contains(&ObjectKey::new("shop", "web")), "that is told");
    keeper.port(&key, None);
    assert_eq!(ready(&before).0, "Enforced");
}

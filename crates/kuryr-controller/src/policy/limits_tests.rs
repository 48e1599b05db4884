use super::*;
use crate::{index::Index, policy::PodFacts};
use kuryr_model::{KuryrPort, PodUid, SecurityGroupId};
use kuryr_plan::{
    enforce::Step,
    pod::Pod,
    policy::{Endpoint, GroupKey, Policy, Protocol, ServicePort, Settings},
};
use serde_json::json;
use std::{collections::BTreeSet, net::IpAddr};

const HTTP: (Protocol, u16) = (Protocol::Tcp, 80);

fn id<T: std::str::FromStr<Err: std::fmt::Debug>>(n: usize) -> T {
    format!("00000000-0000-0000-0000-{n:012x}").parse().unwrap()
}

fn key() -> ObjectKey {
    ObjectKey::new("shop", "web")
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The Service `web` with the pod of that name behind it.
fn service() -> Service {
    let endpoints = BTreeSet::from([Endpoint { address: ip("10.0.0.1"), number: 8080 }]);
    let port = ServicePort { protocol: HTTP.0, number: HTTP.1, endpoints };
    let guard = Some(Guard::default());
    Service { key: key(), vips: [ip("10.96.0.1")].into(), ports: vec![port], hides_client: true, guard }
}

fn policy(block: &str) -> crate::policy::lean::SeenPolicy {
    let object = json!({
        "metadata": {"namespace": "shop", "name": "np", "uid": "u1"},
        "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"from": [{"ipBlock": {"cidr": block}}]}]},
    });
    crate::policy::lean::SeenPolicy {
        policy: Policy::read(&serde_json::from_value(object).unwrap()).unwrap(),
        generation: 1,
    }
}

/// A pod `web`, isolated but for a block, behind a load balancer of which nothing is known.
fn keeper() -> Keeper {
    let keeper = Keeper::new(Settings::default(), [id(1), id(2)]);
    let pod = Pod {
        key: key(),
        uid: "uid-web".into(),
        node: Some("n1".to_owned()),
        host_network: false,
        completed: false,
        deleting: false,
    };
    keeper.namespace("shop".to_owned(), [].into());
    keeper.pod(
        &Index::default(),
        &pod,
        PodFacts { labels: [("app".to_owned(), "web".to_owned())].into(), ports: vec![] },
    );
    let port: KuryrPort = serde_json::from_value(json!({
        "apiVersion": "kuryr.openstack.org/v1", "kind": "KuryrPort",
        "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"podUid": "uid-web", "nodeName": "n1", "vifs": [{
            "portId": id::<SecurityGroupId>(100), "networkId": id::<SecurityGroupId>(101), "interface": "eth0",
            "mac": "fa:16:3e:00:00:01", "mtu": 1442,
            "addresses": [{"ip": "10.0.0.1", "prefixLength": 24}], "plug": {"driver": "ovs", "bridge": "br-int"},
        }]},
    }))
    .unwrap();
    keeper.port(&key(), Some(&port));
    keeper.policy(policy("192.0.2.0/24"));
    keeper.service(key(), Some(service()));
    keeper.state_as_it_is().guards.surveyed = true;
    keeper
}

fn guard(clients: &[&str]) -> Guard {
    let clients = clients.iter().map(|net| net.parse().unwrap()).collect();
    Guard { balancers: [ip("10.96.0.1")].into(), admits: [(HTTP, clients)].into() }
}

fn clients(keeper: &Keeper) -> Vec<String> {
    let limits = keeper.limits(&key()).unwrap();
    limits[&HTTP].clients.iter().flatten().map(ToString::to_string).collect()
}

/// Whether the pod is to let the load balancer in.
fn lets_in(keeper: &Keeper) -> bool {
    let state = keeper.state();
    let groups = state.enforcer.compiler().groups(&"uid-web".into()).unwrap();
    groups.iter().any(|key| matches!(key, GroupKey::Balanced(_)))
}

/// Neutron's port of the pod has the group that lets the load balancer in.
fn as_wanted(keeper: &Keeper) {
    let mut state = keeper.state();
    let keys: Vec<GroupKey> = state.enforcer.compiler().all_groups().cloned().collect();
    for (number, key) in keys.iter().enumerate() {
        let group =
            serde_json::from_value(json!({"id": id::<SecurityGroupId>(200 + number), "name": key.name(|_| None)}));
        state.enforcer.made(key, &group.unwrap());
    }
    let pod = PodUid::from("uid-web");
    let wanted =
        state.enforcer.compiler().groups(&pod).unwrap().iter().filter_map(|key| state.enforcer.id(key)).collect();
    state.enforcer.has(id(100), &pod, wanted);
}

#[test]
fn a_pod_lets_its_load_balancer_in_once_the_listener_is_known_to_let_in_nobody_else() {
    let keeper = keeper();
    assert_eq!(clients(&keeper), ["10.0.0.1/32", "192.0.2.0/24"]);
    assert!(!lets_in(&keeper));
    keeper.admits(&key(), guard(&["192.0.2.0/24"]));
    assert!(lets_in(&keeper));
    keeper.admits(&key(), Guard { admits: [].into(), ..guard(&[]) });
    assert!(!lets_in(&keeper), "somebody has changed it");
}

#[test]
fn from_before_a_change_of_a_listener_until_it_is_done_both_count() {
    let keeper = keeper();
    keeper.admits(&key(), guard(&["192.0.2.0/25"]));
    let limits = keeper.limits(&key()).unwrap();
    assert!(keeper.begin(&key(), &limits) && lets_in(&keeper), "the pod lets in all of both");
    keeper.policy(policy("192.0.2.0/25"));
    assert!(!lets_in(&keeper), "the listener may let in the rest of the block by now");
    assert!(!keeper.begin(&key(), &limits), "who decides late decides for what was");
    keeper.admits(&key(), guard(&["192.0.2.0/25"]));
    assert!(lets_in(&keeper));
}

#[test]
fn a_listener_lets_in_no_more_while_a_port_has_the_group_that_it_is_to_lose() {
    let keeper = keeper();
    keeper.admits(&key(), guard(&["192.0.2.0/24"]));
    as_wanted(&keeper);
    // Now the pod lets in others, who are not those that the listener lets in.
    keeper.policy(policy("192.0.0.0/16"));
    assert_eq!(clients(&keeper), ["10.0.0.1/32", "192.0.0.0/16"], "the pod lets the load balancer in before and after");
    keeper.policy(policy("198.51.100.0/24"));
    assert!(!lets_in(&keeper));
    assert_eq!(clients(&keeper), [""; 0], "none of the new ones");
    keeper.state().enforcer.port_gone(id(100));
    assert_eq!(clients(&keeper), ["10.0.0.1/32", "198.51.100.0/24"]);
}

#[test]
fn before_ports_are_known_listeners_let_in_no_more() {
    let keeper = keeper();
    keeper.admits(&key(), guard(&["192.0.2.0/25"]));
    keeper.state_as_it_is().guards.surveyed = false;
    assert_eq!(clients(&keeper), ["192.0.2.0/25"]);
}

#[test]
fn a_service_is_woken_when_its_listeners_are_to_let_in_others() {
    let keeper = keeper();
    assert_eq!(keeper.renewed(), [key()]);
    assert_eq!(keeper.renewed(), []);
    keeper.policy(policy("192.0.2.0/25"));
    assert_eq!(keeper.renewed(), [key()]);
    keeper.service(key(), None);
    assert!(keeper.renewed().is_empty() && keeper.limits(&key()).is_none() && !keeper.is_guarded(&key()));
}

#[test]
fn what_is_known_of_listeners_outlives_another_look_at_the_service() {
    let keeper = keeper();
    keeper.admits(&key(), guard(&["192.0.2.0/24"]));
    keeper.service(key(), Some(service()));
    assert!(lets_in(&keeper));
    let steps = keeper.state().enforcer.plan();
    assert!(steps.iter().any(|step| matches!(step, Step::Make(_))), "{steps:?}");
}

//! Rules from Services to the kernel: what is asked of `nft`, and what the kernel makes of it.

use super::{
    listing, nft,
    ruleset::Ruleset,
    script::{self, TABLE, changes, fresh, remove},
};
use crate::netns::testing::isolated;
use kuryr_model::ObjectKey;
use kuryr_plan::service::{
    At, Endpoint, Family, Kind, NodePortRule, Service, ServicePort, Slice, SlicePort, ThisNode, TrafficPolicy,
    Transport, node_ports,
};
use proptest::{collection, prelude::*, strategy::ValueTree, test_runner::TestRunner};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    slice::from_ref,
};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The Service of that name with both families and a node port for TCP.
fn service(name: &str) -> Service {
    Service {
        key: ObjectKey::new("a", name),
        uid: "s".into(),
        kind: Kind::NodePort,
        cluster_ips: vec![ip("10.96.0.9"), ip("fd00:96::9")],
        ports: vec![ServicePort { name: "web".into(), transport: Transport::Tcp, number: 80, node_port: Some(30080) }],
        external_ips: Vec::new(),
        load_balancer_ip: None,
        load_balancer_class: None,
        source_ranges: Vec::new(),
        external_policy: TrafficPolicy::Cluster,
        internal_policy: TrafficPolicy::Cluster,
        session_affinity: None,
        publish_not_ready: false,
        selector: true,
        health_check_port: None,
        annotations: BTreeMap::new(),
        deleting: false,
        generation: 0,
    }
}

fn slice(endpoints: &[(&str, &str)]) -> Slice {
    let endpoint = |(address, node): &(&str, &str)| Endpoint {
        address: ip(address),
        ready: true,
        serving: true,
        terminating: false,
        node: Some((*node).to_owned()),
        pod: None,
    };
    let ports = vec![SlicePort { name: "web".into(), transport: Transport::Tcp, number: 8080 }];
    Slice { ports, endpoints: endpoints.iter().map(endpoint).collect() }
}

fn of(services: &[Service], slices: &[Slice], answers_return: bool) -> Ruleset {
    let node = ThisNode { name: "here".into(), answers_return };
    Ruleset::new(services.iter().flat_map(|service| node_ports(service, slices, &node)))
}

/// The elements that a script adds to a set.
fn added(script: &str, set: &str) -> Vec<String> {
    let prefix = format!("add element inet {TABLE} {set} {{ ");
    let lines = script.lines().filter_map(|line| line.strip_prefix(&prefix)?.strip_suffix(" }"));
    lines.flat_map(|line| line.split(", ").map(str::to_owned)).collect()
}

#[test]
fn a_node_port_leads_to_the_cluster_ip_of_its_family_and_the_client_is_masked() {
    let ruleset = of(&[service("web")], &[], true);
    let script = fresh(&ruleset);
    assert_eq!(added(&script, "ports4"), ["6 . 30080 : 10.96.0.9 . 80"]);
    assert_eq!(added(&script, "ports6"), ["6 . 30080 : fd00:96::9 . 80"]);
    assert_eq!(added(&script, "masked4"), ["10.96.0.9 . 6 . 80"]);
    assert_eq!(added(&script, "masked6"), ["fd00:96::9 . 6 . 80"]);
    assert!(ruleset.outside.is_empty());
    assert_eq!((ruleset.len(), ruleset.is_empty()), (2, false));
}

#[test]
fn an_external_address_is_translated_in_its_own_family_for_every_port() {
    let mut web = service("web");
    web.kind = Kind::ClusterIp;
    web.ports[0].node_port = None;
    web.ports.push(ServicePort { name: "dns".into(), transport: Transport::Udp, number: 53, node_port: None });
    web.external_ips = vec![ip("203.0.113.9")];
    let script = fresh(&of(&[web], &[], true));
    assert_eq!(
        added(&script, "externals4"),
        ["203.0.113.9 . 17 . 53 : 10.96.0.9 . 53", "203.0.113.9 . 6 . 80 : 10.96.0.9 . 80"]
    );
    assert_eq!(added(&script, "externals6"), [""; 0]);
}

#[test]
fn of_two_services_with_one_external_address_the_first_gets_it() {
    let [mut one, mut other] = [service("one"), service("other")];
    one.external_ips = vec![ip("203.0.113.9")];
    one.cluster_ips = vec![ip("10.96.0.1")];
    other.external_ips.clone_from(&one.external_ips);
    let script = fresh(&of(&[one, other], &[], true));
    assert_eq!(added(&script, "externals4"), ["203.0.113.9 . 6 . 80 : 10.96.0.1 . 80"]);
}

#[test]
fn a_local_policy_sends_outsiders_to_this_nodes_endpoints_only_and_insiders_anywhere() {
    let mut web = service("web");
    web.external_policy = TrafficPolicy::Local;
    let elsewhere = slice(&[("10.0.0.7", "there")]);
    let script = fresh(&of(from_ref(&web), from_ref(&elsewhere), true));
    assert_eq!(added(&script, "outside-ports4"), ["6 . 30080 : drop"]);
    assert_eq!(added(&script, "ports4"), ["6 . 30080 : 10.96.0.9 . 80"]);

    let slices = [elsewhere, slice(&[("10.0.0.1", "here"), ("10.0.0.2", "here")])];
    for (answers_return, masked) in [(true, 1), (false, 3)] {
        let script = fresh(&of(&[web.clone()], &slices, answers_return));
        let [element] = &added(&script, "outside-ports4")[..] else { panic!("{script}") };
        let chain = element.strip_prefix("6 . 30080 : goto ").unwrap();
        let rule = "meta l4proto 6 dnat ip to numgen random mod 2 map { 0 : 10.0.0.1 . 8080, 1 : 10.0.0.2 . 8080 }";
        assert!(script.contains(&format!("add rule inet {TABLE} {chain} {rule}\n")), "{script}");
        assert_eq!(added(&script, "masked4").len(), masked, "the client's address is kept where answers return");
        assert_eq!(added(&script, "outside-ports6"), ["6 . 30080 : drop"], "there are none of IPv6");
    }
}

#[test]
fn a_client_that_is_bound_keeps_its_endpoint_while_others_come_and_go() {
    let mut web = service("web");
    (web.external_policy, web.session_affinity) = (TrafficPolicy::Local, Some(60));
    let with = |endpoints: &[(&str, &str)]| of(from_ref(&web), &[slice(endpoints)], true);
    let (one, two) = (with(&[("10.0.0.1", "here")]), with(&[("10.0.0.1", "here"), ("10.0.0.2", "here")]));
    let script = fresh(&one);
    assert!(script.contains("{ type ipv4_addr; flags dynamic,timeout; timeout 60s; }"), "{script}");
    assert!(script.contains("{ ip saddr } meta l4proto 6 dnat ip to 10.0.0.1:8080\n"), "{script}");
    // The kernel remembers the clients of an endpoint as long as there is its set.
    let more = changes(&one, &two);
    assert!(!more.contains("delete set") && more.matches("add set").count() == 1, "{more}");
    assert!(more.contains("numgen random mod 2 vmap"), "{more}");
    assert_eq!(changes(&two, &one).matches("delete set").count(), 1);
}

#[test]
fn only_what_differs_is_touched() {
    let [one, mut other] = [service("one"), service("other")];
    other.ports[0].node_port = Some(30081);
    let (before, after) = (of(from_ref(&one), &[], true), of(&[one, other], &[], true));
    assert_eq!(changes(&before, &before), "");
    let script = changes(&before, &after);
    assert_eq!(script.lines().count(), 2, "{script}");
    assert_eq!(added(&script, "ports4"), ["6 . 30081 : 10.96.0.9 . 80"]);
    assert!(changes(&after, &before).contains("delete element inet kuryr_node_ports ports4 { 6 . 30081 }\n"));
}

/// Something to do in a namespace of its own, with `nft` at hand.
fn with_nft<F: Future<Output = ()>>(test: &str, story: impl FnOnce() -> F + Send + 'static) {
    isolated(&format!("node_ports::ruleset_tests::{test}"), |_| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(story());
    });
}

/// The table as the kernel has it, without what depends on how it came about: order and handles.
async fn kernel() -> BTreeSet<String> {
    fn without_handles(value: &mut Value) {
        if let Some(object) = value.as_object_mut() {
            object.remove("handle");
        }
        let children = match value {
            Value::Object(object) => object.values_mut().collect::<Vec<_>>(),
            Value::Array(array) => {
                array.sort_by_key(Value::to_string);
                array.iter_mut().collect()
            }
            _ => Vec::new(),
        };
        children.into_iter().for_each(without_handles);
    }
    let mut answer: Value = serde_json::from_slice(&nft::list().await.unwrap().unwrap()).unwrap();
    let objects = answer["nftables"].as_array_mut().unwrap();
    objects.iter_mut().for_each(without_handles);
    objects.iter().map(Value::to_string).collect()
}

/// Rules of a small world, in which much is said twice.
fn rules() -> impl Strategy<Value = Vec<NodePortRule>> {
    let rule =
        (any::<bool>(), any::<bool>(), 0..4_u16, 0..3_u8, 0..4_u8, collection::vec(0..4_u8, 0..4), any::<[bool; 3]>());
    let rule = rule.prop_map(|(v6, external, number, transport, inside, to, [local, masquerade, sticky])| {
        let target = |n: u8| (if v6 { ip(&format!("fd00::{n:x}")) } else { ip(&format!("10.0.0.{n}")) }, 80);
        let family = if v6 { Family::V6 } else { Family::V4 };
        let at = if external { At::External(target(100).0, number) } else { At::NodePort(family, 30000 + number) };
        let inside = target(200 + inside);
        let to: BTreeSet<_> = to.into_iter().map(target).collect();
        NodePortRule {
            service: ObjectKey::new("a", "x"),
            transport: [Transport::Tcp, Transport::Udp, Transport::Sctp][usize::from(transport)],
            at,
            inside,
            to: if local { to.into_iter().collect() } else { vec![inside] },
            masquerade: masquerade || !local,
            affinity: sticky.then_some(60),
        }
    });
    collection::vec(rule, 0..12)
}

#[test]
fn a_changed_table_is_the_same_as_a_new_one() {
    with_nft("a_changed_table_is_the_same_as_a_new_one", || async {
        let mut runner = TestRunner::default();
        let mut before = Ruleset::default();
        nft::run(&fresh(&before)).await.unwrap();
        for _ in 0..60 {
            let after = Ruleset::new(rules().new_tree(&mut runner).unwrap().current());
            nft::run(&changes(&before, &after)).await.unwrap();
            let changed = kernel().await;
            assert!(listing::is(&nft::list().await.unwrap().unwrap(), &after).unwrap(), "{after:?}");
            nft::run(&fresh(&after)).await.unwrap();
            assert_eq!(changed, kernel().await, "from {before:?} to {after:?}");
            before = after;
        }
        nft::run(&remove()).await.unwrap();
        nft::run(&remove()).await.unwrap();
        assert_eq!(nft::list().await.unwrap(), None);
    });
}

#[test]
fn whatever_is_changed_by_hand_is_noticed() {
    with_nft("whatever_is_changed_by_hand_is_noticed", || async {
        let mut web = service("web");
        (web.external_policy, web.session_affinity) = (TrafficPolicy::Local, Some(60));
        let slices = [slice(&[("10.0.0.1", "here"), ("fd00::1", "here")])];
        let ruleset = of(&[web], &slices, true);
        let clients = script::Table::of(&ruleset).clients;
        let (clients, _) = clients.iter().find(|(_, kind)| kind.contains("ipv4_addr")).unwrap();
        let choice = script::Table::of(&ruleset).chains.into_keys().next().unwrap();
        for (tampering, noticed) in [
            (String::new(), false),
            (format!("add table inet {TABLE}"), false),
            (format!("add element inet {TABLE} {clients} {{ 192.0.2.9 }}"), false),
            (format!("add set inet {TABLE} mine {{ type ipv4_addr; flags dynamic,timeout; timeout 60s; }}"), true),
            (format!("flush chain inet {TABLE} arriving"), true),
            (format!("flush chain inet {TABLE} {choice}"), true),
            (format!("add rule inet {TABLE} leaving drop"), true),
            (format!("add chain inet {TABLE} mine"), true),
            (format!("flush map inet {TABLE} ports4"), true),
            (format!("add element inet {TABLE} outside-ports4 {{ 6 . 1 : drop }}"), true),
            (format!("delete element inet {TABLE} masked6 {{ fd00:96::9 . 6 . 80 }}"), true),
            (format!("flush table inet {TABLE}"), true),
        ] {
            nft::run(&fresh(&ruleset)).await.unwrap();
            nft::run(&tampering).await.unwrap();
            let same = listing::is(&nft::list().await.unwrap().unwrap(), &ruleset).unwrap();
            assert_eq!(same, !noticed, "{tampering}");
        }
    });
}

#[test]
fn a_refusal_is_told_in_nfts_words_and_changes_nothing() {
    with_nft("a_refusal_is_told_in_nfts_words_and_changes_nothing", || async {
        let ruleset = of(&[service("web")], &[], true);
        nft::run(&fresh(&ruleset)).await.unwrap();
        let script = format!("{}add rule inet {TABLE} nowhere drop\n", remove());
        let error = nft::run(&script).await.unwrap_err().to_string();
        assert!(error.starts_with("nft refused: ") && error.contains("Error: "), "{error}");
        assert!(listing::is(&nft::list().await.unwrap().unwrap(), &ruleset).unwrap());
    });
}

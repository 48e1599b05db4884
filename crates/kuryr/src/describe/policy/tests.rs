//! A policy of two pods, as it should be and as it should not.

use super::{
    text::text,
    view::{RuleState, Seen, View, view},
};
use crate::can_reach::{Cluster, Objects, take};
use kuryr_model::{ClusterId, ObjectKey, SecurityGroupId, neutron::Port, neutron::SecurityGroup};
use kuryr_plan::policy::{Compiler, GroupKey, Settings};
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn id(n: usize) -> String {
    format!("00000000-0000-4000-8000-{n:012x}")
}

fn cluster_id() -> ClusterId {
    "cluster".into()
}

/// Pods `db` and `web`, and a policy that lets the one reach the other at the port that it calls sql.
fn cluster() -> Cluster {
    let pod = |name: &str, ports: Value| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "shop", "name": name, "uid": format!("uid-{name}"), "labels": {"app": name}},
               "spec": {"containers": [{"name": "c", "ports": ports}]}})
    };
    let port = |name: &str, n: usize| {
        let vif = json!({
            "interface": "eth0", "portId": id(n), "networkId": id(99), "mac": "fa:16:3e:00:00:01", "mtu": 1442,
            "addresses": [{"ip": format!("10.0.0.{n}"), "prefixLength": 24}], "plug": {"driver": "ovs"},
        });
        json!({"apiVersion": "kuryr.openstack.org/v1", "kind": "KuryrPort", "metadata": {"namespace": "shop", "name": name},
               "spec": {"podUid": format!("uid-{name}"), "nodeName": "n1", "vifs": [vif]}})
    };
    let web = json!([{"podSelector": {"matchLabels": {"app": "web"}}}]);
    let spec =
        json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [{"from": web, "ports": [{"port": "sql"}]}]});
    let policy = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                        "metadata": {"namespace": "shop", "name": "db", "uid": "uid-np"}, "spec": spec});
    let mut objects = Objects::default();
    let sql = json!([{"name": "sql", "containerPort": 5432}]);
    for object in [pod("db", sql), pod("web", json!([])), port("db", 1), port("web", 2), policy] {
        assert!(take(object, &mut objects).unwrap());
    }
    objects.cluster()
}

/// What Neutron has if all is as it should be.
fn neutron(compiler: &Compiler) -> (BTreeMap<GroupKey, SecurityGroup>, [SecurityGroup; 2]) {
    let compiled = compiler.compiled();
    let ids: BTreeMap<&GroupKey, SecurityGroupId> =
        compiled.groups.keys().enumerate().map(|(n, key)| (key, id(100 + n).parse().unwrap())).collect();
    let groups = compiled.groups.iter().map(|(key, rules)| {
        let rules = rules.iter().enumerate().map(|(n, rule)| {
            let mut value = serde_json::to_value(rule.content(|key| ids.get(key).copied()).unwrap()).unwrap();
            value["id"] = id(200 + n).into();
            value["security_group_id"] = json!(ids[key]);
            value
        });
        let group = json!({
            "id": ids[key], "name": key.name(|_| Some(ObjectKey::new("shop", "db"))), "tags": key.tags(&cluster_id()),
            "security_group_rules": rules.collect::<Vec<_>>(),
        });
        (key.clone(), serde_json::from_value(group).unwrap())
    });
    let open = |n: usize, role: &str| {
        let tags = ["kuryr:cluster".to_owned(), format!("kuryr:base:{role}")];
        serde_json::from_value(json!({"id": id(n), "name": format!("kuryr-{role}"), "tags": tags})).unwrap()
    };
    (groups.collect(), [open(50, "ingress-open"), open(51, "egress-open")])
}

/// The port of pod `db` with these groups.
fn port(groups: &[SecurityGroupId]) -> Port {
    let value =
        json!({"id": id(1), "network_id": id(99), "mac_address": "fa:16:3e:00:00:01", "security_groups": groups});
    serde_json::from_value(value).unwrap()
}

fn compiler(cluster: &Cluster) -> Compiler {
    let mut compiler =
        Compiler::new(Settings { families: [kuryr_model::neutron::EtherType::IPv4].into(), ..Settings::default() });
    compiler.apply(cluster.world.changes());
    compiler
}

fn shown(groups: &[SecurityGroup], ports: &[Port]) -> View {
    let cluster = cluster();
    let compiler = compiler(&cluster);
    let key = ObjectKey::new("shop", "db");
    let seen = Seen { cluster: &cluster_id(), objects: &cluster, held: None, ports, groups };
    view(&key, &compiler, &compiler.report(&key).unwrap(), &seen).unwrap()
}

/// The groups that pod `db` is to carry.
fn wanted(compiler: &Compiler, groups: &BTreeMap<GroupKey, SecurityGroup>) -> Vec<SecurityGroupId> {
    let keys = compiler.groups(&"uid-db".into()).unwrap();
    let policies = keys.iter().filter_map(|key| groups.get(key)).map(|group| group.id);
    policies.chain([id(51).parse().unwrap()]).collect()
}

#[test]
fn a_policy_that_is_in_neutron_as_it_should_be_has_no_differences() {
    let cluster = cluster();
    let compiler = compiler(&cluster);
    let (groups, open) = neutron(&compiler);
    let ports = [port(&wanted(&compiler, &groups))];
    let mut all: Vec<SecurityGroup> = groups.into_values().collect();
    all.extend(open);
    let view = shown(&all, &ports);
    assert_eq!((&view.differences[..], &view.problems[..]), (&[][..], &[][..]));
    let mut out = Vec::new();
    text(&view, &mut out).unwrap();
    let out = String::from_utf8(out).unwrap();
    for line in [
        "NetworkPolicy shop/db  UID uid-np\n  isolates pods app=db in namespace shop, for ingress\n  ready: False, it has no \
         KuryrNetworkPolicy yet\n  allows\n    spec.ingress[0]: the TCP port named \"sql\" from pods app=web in namespace \
         shop\n  selects 1 pod\n",
        &format!("    shop/db  port {}\n", id(1)),
        "  in IPv4 tcp 5432 from peers shop{app=web}\n",
        "  peers shop{app=web}  1 pods  security group ",
    ] {
        assert!(out.contains(line), "{line:?} is not in\n{out}");
    }
}

#[test]
fn every_way_in_which_neutron_may_differ_is_told() {
    let cluster = cluster();
    let compiler = compiler(&cluster);
    let (groups, open) = neutron(&compiler);
    let right = wanted(&compiler, &groups);
    let all = |groups: &BTreeMap<GroupKey, SecurityGroup>| -> Vec<SecurityGroup> {
        groups.values().cloned().chain(open.clone()).collect()
    };
    let policy = |key: &GroupKey| matches!(key, GroupKey::Policy(_));

    let mut without_group = groups.clone();
    without_group.retain(|key, _| !policy(key));
    let view = shown(&all(&without_group), &[port(&right)]);
    assert!(view.differences.iter().any(|it| it.contains("\"policy shop/db[sql/TCP=5432]\" is not made")), "{view:?}");

    let mut other_rules = groups.clone();
    for (key, group) in &mut other_rules {
        if policy(key) {
            group.rules[0].allows.port_range_max = Some(6000);
        }
    }
    let view = shown(&all(&other_rules), &[port(&right)]);
    let states: Vec<RuleState> = view.groups[0].rules.iter().map(|rule| rule.state).collect();
    assert_eq!(states, [RuleState::Missing, RuleState::Stray], "{view:?}");
    assert_eq!(view.groups[0].rules[1].rule, "in IPv4 tcp 5432-6000 from peers shop{app=web}");
    assert_eq!(view.differences.len(), 2, "{view:?}");

    let view = shown(&all(&groups), &[port(&[])]);
    assert!(view.differences[0].starts_with("pod shop/db lacks kuryr-egress-open and policy shop/db"), "{view:?}");

    let too_many: Vec<SecurityGroupId> = right.iter().copied().chain([open[0].id]).collect();
    let view = shown(&all(&groups), &[port(&too_many)]);
    assert_eq!(view.differences, ["pod shop/db has, and should not have, kuryr-ingress-open"]);
}

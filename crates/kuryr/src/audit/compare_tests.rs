//! A world in order has no findings; each thing put out of order has one.

use super::*;
use crate::view::{
    Unreadable,
    tests::{kuryr_port, network_id, node, pod, port_id},
};
use kuryr_model::neutron::{Direction, EtherType, RuleContent, SecurityGroupRule};
use serde_json::json;

fn port(name: &str, n: u8) -> Port {
    serde_json::from_value(json!({
        "id": port_id(n), "network_id": network_id(), "mac_address": format!("fa:16:3e:00:00:{n:02x}"),
        "name": format!("default/{name}"), "device_id": format!("uid-{name}"), "binding:host_id": "host-1",
        "fixed_ips": [{"subnet_id": network_id(), "ip_address": format!("10.0.0.{n}")}],
        "tags": ["kuryr:c1", format!("kuryr:pod:uid-{name}")],
    }))
    .unwrap()
}

fn group(base: Base, direction: Direction) -> SecurityGroup {
    let id = network_id().parse().unwrap();
    let rules = [EtherType::IPv6, EtherType::IPv4].map(|family| SecurityGroupRule {
        id: network_id().parse().unwrap(),
        security_group_id: id,
        allows: RuleContent::everything(direction, family),
    });
    let mark = Mark { cluster: "c1".into(), purpose: Purpose::Base(base) };
    SecurityGroup { id, name: "g".into(), rules: rules.into(), tags: mark.tags() }
}

/// Two pods with a port each, one host-network pod, one completed, one not bound.
fn world() -> World {
    let mut host = pod("host");
    host.host_network = true;
    let mut done = pod("done");
    done.completed = true;
    let mut unbound = pod("unbound");
    unbound.node = None;
    let mut web = pod("web");
    web.addresses = vec!["10.0.0.1".parse().unwrap()];
    World {
        cluster: "c1".into(),
        now: "2026-01-01T00:10:00Z".parse().unwrap(),
        pools: true,
        view: ClusterView {
            pods: vec![web, pod("db"), host, done, unbound],
            nodes: vec![node("n1")],
            kuryr_ports: vec![kuryr_port("web", Some(1)), kuryr_port("db", Some(2))],
            unreadable: vec![],
        },
        ports: vec![port("web", 1), port("db", 2)],
        groups: vec![group(Base::IngressOpen, Direction::Ingress), group(Base::EgressOpen, Direction::Egress)],
        trunks: vec![],
        pairs: BTreeMap::new(),
        marked: Marked::default(),
        services: Survey::default(),
        policies: Policies::default(),
    }
}

/// The findings after a change, as `kind subject id`.
fn after(change: impl FnOnce(&mut World)) -> Vec<String> {
    let mut world = world();
    change(&mut world);
    compare(&world).iter().map(|f| format!("{} {} {}", f.kind.as_str(), f.subject, f.id)).collect()
}

fn deleted(port: &mut KuryrPort, at: &str) {
    port.metadata.deletion_timestamp = serde_json::from_value(json!(at)).unwrap();
}

#[test]
fn a_world_in_order_has_no_findings() {
    assert_eq!(compare(&world()), []);
}

/// A spare port on this host.
fn spare(n: u8, host: &str) -> Port {
    let mark = Mark { cluster: "c1".into(), purpose: Purpose::Pool };
    let groups = vec![network_id().parse().unwrap(); 2];
    let (device_id, name) = (String::new(), "kuryr-pool".into());
    Port { device_id, name, host_id: host.into(), tags: mark.tags(), security_groups: groups, ..port("spare", n) }
}

#[test]
fn a_spare_port_is_nobodys_business_while_there_are_pools_and_its_node() {
    assert_eq!(after(|world| world.ports.push(spare(9, "host-1"))), [""; 0]);
    let stray = [format!("stray port {}", port_id(9))];
    assert_eq!(after(|world| world.ports.push(spare(9, "host-of-nobody"))), stray);
    let off = |world: &mut World| {
        world.pools = false;
        world.ports.push(spare(9, "host-1"));
    };
    assert_eq!(after(off), stray);
    let mut world = world();
    off(&mut world);
    assert_eq!(compare(&world)[0].prune, Some(Prunable::SparePort(port_id(9).parse().unwrap())));
    let wide = |world: &mut World| {
        let other = port_id(77).parse().unwrap();
        world.ports.push(Port { security_groups: vec![other], ..spare(9, "host-1") });
    };
    assert_eq!(after(wide), [format!("mismatch port {}", port_id(9))]);
}

#[test]
fn a_spare_subport_is_nobodys_business_and_one_on_no_trunk_is() {
    let subport = || Port { device_owner: "trunk:subport".into(), ..spare(9, "host-of-machines") };
    assert_eq!(after(|world| world.ports.push(subport())), [""; 0]);
    let id = port_id(9);
    assert_eq!(after(|world| world.ports.push(spare(9, ""))), [format!("stray port {id}")]);
    let other = |world: &mut World| world.ports.push(Port { security_groups: vec![], ..subport() });
    assert_eq!(after(other), [format!("mismatch port {id}")]);
}

#[test]
fn a_port_of_a_pool_is_its_pods_when_the_kuryr_port_says_so() {
    assert_eq!(
        after(|world| world.ports[1] = Port {
            mac_address: world.ports[1].mac_address,
            fixed_ips: world.ports[1].fixed_ips.clone(),
            ..spare(2, "host-1")
        }),
        [""; 0]
    );
}

#[test]
fn a_pod_without_its_kuryr_port() {
    assert_eq!(
        after(|world| drop(world.view.kuryr_ports.pop())),
        ["missing KuryrPort default/db".to_owned(), format!("stray port {}", port_id(2))]
    );
}

#[test]
fn a_pod_without_a_port_says_why() {
    let mut world = world();
    let mut waiting = kuryr_port("db", None);
    waiting.status = serde_json::from_value(json!({"conditions": [
        {"type": "Allocated", "status": "False", "reason": "SubnetFull", "message": "subnet pods-a has no free address",
         "lastTransitionTime": "2026-01-01T00:00:00Z"}]}))
    .unwrap();
    world.view.kuryr_ports[1] = waiting;
    world.ports.pop();
    let findings = compare(&world);
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].what, "pod default/db has no port: subnet pods-a has no free address");
}

#[test]
fn a_pod_that_was_recreated_under_its_name_does_not_own_the_old_port() {
    let found = after(|world| world.view.pods[1].uid = "another".into());
    assert_eq!(found, ["missing KuryrPort default/db", "stray KuryrPort default/db"]);
}

#[test]
fn the_kuryr_port_of_a_pod_that_is_gone_or_has_ended() {
    assert_eq!(after(|world| drop(world.view.pods.remove(1))), ["stray KuryrPort default/db"]);
    assert_eq!(after(|world| world.view.pods[1].completed = true), ["stray KuryrPort default/db"]);
    // One that is being deleted keeps its port until its sandbox is gone.
    assert_eq!(after(|world| world.view.pods[1].deleting = true), [""; 0]);
}

#[test]
fn a_kuryr_port_on_its_way_out_has_time_and_then_says_who_holds_it() {
    let leave = |at: &'static str| {
        move |world: &mut World| {
            world.view.pods.remove(1);
            deleted(&mut world.view.kuryr_ports[1], at);
            world.ports.pop();
        }
    };
    assert_eq!(after(leave("2026-01-01T00:09:00Z")), [""; 0]);
    let mut world = world();
    leave("2026-01-01T00:05:00Z")(&mut world);
    let findings = compare(&world);
    assert_eq!(findings[0].what, "has been on its way out for 300 s: node n1 has not released it");
    assert_eq!((findings.len(), &findings[0].prune), (1, &None));
}

#[test]
fn a_kuryr_port_that_cannot_be_read_is_one_finding_and_its_port_is_not_pruned() {
    let found = after(|world| {
        world.view.kuryr_ports.pop();
        let key = ObjectKey::new("default", "db");
        world.view.unreadable.push(Unreadable { key, why: "vifs: not a list".into() });
    });
    assert_eq!(found, ["mismatch KuryrPort default/db"]);
}

#[test]
fn a_port_that_neutron_does_not_have() {
    assert_eq!(after(|world| drop(world.ports.pop())), [format!("missing port {}", port_id(2))]);
}

#[test]
fn a_port_that_nobody_has_may_be_pruned_and_no_other() {
    let mut world = world();
    let id = port("gone", 9).id;
    world.ports.push(port("gone", 9));
    world.ports.push(Port { tags: vec!["kuryr:other".into(), "kuryr:pod:x".into()], ..port("theirs", 10) });
    world.ports.push(Port { tags: vec!["kuryr:c1".into(), "kuryr:teleport:x".into()], ..port("newer", 11) });
    world.ports.push(Port { tags: vec!["kuryr:c1".into()], ..port("half", 12) });
    let findings = compare(&world);
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].prune, Some(Prunable::Port(id, "uid-gone".into())));
    assert_eq!(findings[0].what, "made for pod default/gone (UID uid-gone), and no KuryrPort has it");
}

#[test]
fn every_difference_between_a_port_and_its_vif_is_told() {
    type Change = fn(&mut Port);
    let changes: [(Change, &str); 6] = [
        (|port| port.mac_address = "fa:16:3e:ff:ff:ff".parse().unwrap(), "the MAC address is \"fa:16:3e:ff:ff:ff\""),
        (|port| port.fixed_ips.clear(), "the addresses is \"\" instead of \"10.0.0.1\""),
        (|port| port.network_id = port_id(1).parse().unwrap(), "the network is"),
        (|port| port.device_id = "x".into(), "device_id is \"x\" instead of \"uid-web\""),
        (|port| port.host_id = "n1".into(), "binding:host_id is \"n1\" instead of \"host-1\""),
        (|port| port.tags.truncate(1), "its mark is \"kuryr:c1\" instead of \"kuryr:c1 kuryr:pod:uid-web\""),
    ];
    for (change, text) in changes {
        let mut world = world();
        change(&mut world.ports[0]);
        let findings = compare(&world);
        assert_eq!(findings.len(), 1, "{text}: {findings:?}");
        assert!(findings[0].kind == Kind::Mismatch && findings[0].what.contains(text), "{text}: {findings:?}");
    }
}

#[test]
fn two_pods_with_one_port() {
    let found = after(|world| {
        world.view.kuryr_ports[1].spec.vifs = world.view.kuryr_ports[0].spec.vifs.clone();
        world.ports.pop();
    });
    // It is shared, and it is not the second pod's.
    assert_eq!(found, vec![format!("mismatch port {}", port_id(1)); 2]);
}

#[test]
fn a_pod_with_another_address_than_its_port() {
    let found = after(|world| world.view.pods[0].addresses.push("10.9.9.9".parse().unwrap()));
    assert_eq!(found, ["mismatch pod default/web"]);
}

#[test]
fn base_security_groups() {
    assert_eq!(after(|world| drop(world.groups.pop())), ["missing security group kuryr:base:egress-open"]);
    let found = after(|world| drop(world.groups[0].rules.pop()));
    assert_eq!(found, [format!("mismatch security group {}", network_id())]);
    let found = after(|world| world.groups.push(world.groups[0].clone()));
    assert_eq!(found.len(), 2);
}

#[test]
fn only_what_lasts_counts() {
    let mut first = world();
    first.ports.push(port("quick", 7));
    first.ports.push(port("gone", 9));
    let mut second = world();
    second.ports.push(port("gone", 9));
    second.ports.push(port("new", 8));
    let lasting = lasting(&compare(&first), compare(&second));
    assert_eq!(lasting.iter().map(|finding| finding.id.clone()).collect::<Vec<_>>(), [port_id(9)]);
}

#[test]
fn a_port_that_may_still_be_handed_out_is_told_and_never_pruned() {
    let prunable = |change: fn(&mut World)| {
        let mut world = world();
        world.view.kuryr_ports.pop();
        change(&mut world);
        let id = port_id(2);
        compare(&world).iter().find(|finding| finding.id == id).unwrap().prune.clone()
    };
    assert_eq!(prunable(|_| {}), None, "its pod waits");
    assert_eq!(prunable(|world| world.view.pods[1].deleting = true), None, "its pod may get it before it ends");
    let port = Some(Prunable::Port(port_id(2).parse().unwrap(), "uid-db".into()));
    assert_eq!(prunable(|world| world.view.pods[1].completed = true), port);
    assert_eq!(prunable(|world| world.view.pods[1].uid = "another".into()), port);
    assert_eq!(prunable(|world| drop(world.view.pods.remove(1))), port);
}

/// A world where pod `db` is on a virtual machine, whose trunk has these subports.
fn nested(driver: &str, subports: &[(u8, u32)]) -> World {
    let mut world = world();
    let parent = json!({"portId": port_id(9), "mac": "fa:16:3e:00:00:09"});
    let vif = &mut world.view.kuryr_ports[1].spec.vifs[0];
    vif.plug = serde_json::from_value(json!({"driver": driver, "parent": parent})).unwrap();
    if driver == "vlan" {
        vif.plug.vlan = Some(7.try_into().unwrap());
        world.ports[1].device_id.clear();
    }
    world.ports[1].host_id.clear();
    let subports: Vec<_> = subports
        .iter()
        .map(|(n, id)| json!({"port_id": port_id(*n), "segmentation_type": "vlan", "segmentation_id": id}))
        .collect();
    let trunk = json!({"id": port_id(90), "port_id": port_id(9), "sub_ports": subports});
    world.trunks = vec![serde_json::from_value(trunk).unwrap()];
    world
}

#[test]
fn pods_of_virtual_machines_are_where_their_kuryr_ports_say() {
    assert_eq!(compare(&nested("vlan", &[(2, 7)])), []);
    for (subports, words) in
        [(&[][..], "is none, KuryrPort default/db says 7"), (&[(2, 8)], "is 8, KuryrPort default/db says 7")]
    {
        let found = compare(&nested("vlan", subports));
        assert!(found.len() == 1 && found[0].what.contains(words), "{found:?}");
    }
    let mut without = nested("vlan", &[]);
    without.trunks.clear();
    let found = compare(&without);
    assert!(found.len() == 1 && found[0].what.contains("pods cut off: 1"), "{found:?}");

    let mut shared = nested("macvlan", &[]);
    let vif = shared.view.kuryr_ports[1].spec.vifs[0].clone();
    let pair = AddressPair::new(vif.addresses[0].ip, vif.mac);
    let parent = vif.plug.parent.unwrap().port_id;
    shared.pairs = [(parent, vec![])].into();
    let found = compare(&shared);
    assert!(found.len() == 1 && found[0].subject == "address pair", "{found:?}");
    shared.pairs = [(parent, vec![pair])].into();
    assert_eq!(compare(&shared), []);
}

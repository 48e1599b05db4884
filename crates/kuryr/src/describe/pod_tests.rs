use super::*;
use serde_json::{Value, json};

const PORT: usize = 1;
const PARENT: usize = 2;
const TRUNK: usize = 3;

fn id(n: usize) -> String {
    format!("00000000-0000-4000-8000-{n:012x}")
}

fn port(n: usize, address: &str, mac: &str, tag: &str) -> Value {
    json!({
        "id": id(n), "network_id": id(9), "mac_address": mac, "status": "ACTIVE", "tags": [tag], "security_groups": [id(5)],
        "fixed_ips": [{"subnet_id": id(8), "ip_address": address}],
    })
}

/// A pod of node `vm0` that is plugged so, and Neutron as it should be then.
fn seen(plug: &Value) -> Seen {
    let pod = json!({
        "metadata": {"namespace": "shop", "name": "web", "uid": "u"}, "spec": {"nodeName": "vm0", "containers": []},
        "status": {"phase": "Running"},
    });
    let held = json!({
        "apiVersion": "kuryr.openstack.org/v1", "kind": "KuryrPort", "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"podUid": "u", "nodeName": "vm0", "vifs": [{
            "interface": "eth0", "portId": id(PORT), "networkId": id(9), "mac": "fa:16:3e:00:00:01", "mtu": 1442,
            "addresses": [{"ip": "10.0.0.5", "prefixLength": 24}], "plug": plug,
        }]},
        "status": {"attachment": {"state": "Attached", "since": "2026-01-02T00:00:00Z"}},
    });
    let ports = [
        port(PORT, "10.0.0.5", "fa:16:3e:00:00:01", "kuryr:pool:ports"),
        port(PARENT, "10.0.0.2", "fa:16:3e:00:00:02", ""),
    ];
    let trunk = json!({
        "id": id(TRUNK), "port_id": id(PARENT), "status": "ACTIVE",
        "sub_ports": [{"port_id": id(PORT), "segmentation_type": "vlan", "segmentation_id": 7}],
    });
    let pair = json!({"ip_address": "10.0.0.5", "mac_address": "fa:16:3e:00:00:01"});
    let group = json!({"id": id(5), "name": "kuryr-ingress-open"});
    let ports = ports.map(|port| serde_json::from_value::<Port>(port).unwrap());
    let group: SecurityGroup = serde_json::from_value(group).unwrap();
    let parent: PortId = id(PARENT).parse().unwrap();
    Seen {
        key: ObjectKey::new("shop", "web"),
        pod: serde_json::from_value(pod).unwrap(),
        held: serde_json::from_value(held).unwrap(),
        ports: ports.into_iter().map(|port| (port.id, port)).collect(),
        groups: [(group.id, group)].into(),
        trunks: vec![serde_json::from_value(trunk).unwrap()],
        pairs: [(parent, vec![serde_json::from_value(pair).unwrap()])].into(),
    }
}

fn vlan() -> Value {
    json!({"driver": "vlan", "vlan": 7, "parent": {"portId": id(PARENT), "mac": "fa:16:3e:00:00:02"}})
}

fn sharing(driver: &str) -> Value {
    json!({"driver": driver, "parent": {"portId": id(PARENT), "mac": "fa:16:3e:00:00:02"}})
}

fn told(seen: &Seen) -> (String, bool) {
    let description = description(seen);
    let mut out = Vec::new();
    text(&description, &mut out).unwrap();
    (String::from_utf8(out).unwrap(), description.right)
}

#[test]
fn a_nested_pod_is_told_with_its_trunk_and_its_vlan_id() {
    let (port, parent, trunk, network, group) = (id(PORT), id(PARENT), id(TRUNK), id(9), id(5));
    assert_eq!(
        told(&seen(&vlan())),
        (
            format!(
                "Pod shop/web  Running on node vm0  UID u\n  the node says: attached\n  eth0  port {port}  ACTIVE, of a pool\n    \
                 10.0.0.5/24  fa:16:3e:00:00:01  MTU 1442  network {network}\n    plugged as vlan 7 of trunk {trunk} ACTIVE, \
                 machine's port {parent} ACTIVE\n    security groups: kuryr-ingress-open ({group})\n"
            ),
            true
        )
    );
}

#[test]
fn a_pod_of_bare_metal_has_no_machine_and_one_that_shares_a_port_is_not_restricted() {
    let (text, right) = told(&seen(&json!({"driver": "ovs", "bridge": "br-int"})));
    assert!(right && text.contains("    plugged as ovs\n") && !text.contains("machine"), "{text}");
    let mut seen = seen(&sharing("macvlan"));
    let mut down = seen.ports[&id(PORT).parse().unwrap()].clone();
    down.status = PortStatus::Down;
    seen.ports.insert(down.id, down);
    let (text, right) = told(&seen);
    assert!(right && text.contains("plugged as macvlan, machine's port"), "its own port is switched off: {text}");
    assert!(text.contains("note: eth0 shares the port of its machine: no NetworkPolicy holds"), "{text}");
}

#[test]
fn what_is_not_as_it_was_made_is_told() {
    type Spoil = fn(&mut Seen);
    let cases: [(Value, &str, Spoil); 10] = [
        (vlan(), "no port 00000000-0000-4000-8000-000000000001", |seen| {
            seen.ports.remove(&id(PORT).parse().unwrap());
        }),
        (vlan(), "which was the machine's", |seen| {
            seen.ports.remove(&id(PARENT).parse().unwrap());
        }),
        (vlan(), "is no trunk's parent: the pod is cut off", |seen| seen.trunks.clear()),
        (vlan(), "is not on trunk", |seen| seen.trunks[0].sub_ports.clear()),
        (vlan(), "has VLAN id 8 on trunk", |seen| seen.trunks[0].sub_ports[0].segmentation_id = 8),
        (vlan(), "is switched off", |seen| seen.trunks[0].admin_state_up = false),
        (vlan(), "is DOWN: its packets do not pass", |seen| {
            seen.ports.get_mut(&id(PORT).parse().unwrap()).unwrap().status = PortStatus::Down;
        }),
        (vlan(), "has 10.0.0.6 with", |seen| {
            seen.ports.get_mut(&id(PORT).parse().unwrap()).unwrap().fixed_ips[0].ip_address =
                "10.0.0.6".parse().unwrap();
        }),
        (sharing("macvlan"), "may not use 10.0.0.5 with fa:16:3e:00:00:01", |seen| seen.pairs.clear()),
        (vlan(), "those of an earlier pod of this name", |seen| {
            seen.pod.as_mut().unwrap().metadata.uid = Some("another".to_owned());
        }),
    ];
    for (plug, words, spoil) in cases {
        let mut seen = seen(&plug);
        assert!(told(&seen).1, "{plug}");
        spoil(&mut seen);
        let (text, right) = told(&seen);
        assert!(!right && text.contains("WRONG: ") && text.contains(words), "{words}: {text}");
    }
}

#[test]
fn a_pod_without_a_port_says_why() {
    let mut waits = seen(&vlan());
    let held = waits.held.as_mut().unwrap();
    held.spec.vifs.clear();
    held.status = serde_json::from_value(json!({"conditions": [{
        "type": "Allocated", "status": "False", "reason": "TrunkMissing", "message": "make one", "lastTransitionTime": "2026-01-02T00:00:00Z",
    }]}))
    .unwrap();
    let (text, right) = told(&waits);
    assert!(!right && text.contains("  no port: TrunkMissing: make one\n"), "{text}");
    waits.held = None;
    assert!(told(&waits).0.contains("it has no KuryrPort yet"));
    waits.pod.as_mut().unwrap().spec.as_mut().unwrap().host_network = Some(true);
    assert_eq!(
        told(&waits),
        ("Pod shop/web  Running on node vm0  UID u\n  no port: it uses the network of its node\n".to_owned(), true)
    );
}

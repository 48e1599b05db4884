//! Pods in virtual machines: a namespace is the machine, a veth its interface, and another namespace the network behind it.
//!
//! What this kernel does not know is not tried here: the guest of `make test-guest` has a kernel that does.

use super::{
    tests::{block_on, hello, plugger, sandbox, soon, vif},
    *,
};
use crate::{
    netlink::{
        Link, Socket, address,
        link::{self, By, End, Sub},
    },
    netns::testing::{isolated, namespace},
};
use ipnet::IpNet;
use kuryr_model::{MacAddress, Parent, PortId, Vif};
use std::{collections::BTreeMap, os::fd::AsFd, path::Path};

const NIC_MAC: MacAddress = MacAddress([0xfa, 0x16, 0x3e, 9, 9, 9]);

/// Set where every kind must be known.
const GUEST: &str = "KURYR_TEST_GUEST";

/// Whether this kernel knows the kind.
fn known(kind: Sub) -> bool {
    let mut socket = Socket::open().unwrap();
    let end = |name| End { name, mac: None, mtu: 1500 };
    socket.run(&[link::veth(&end("probe-a"), &end("probe-b"), None)]).unwrap();
    let lower = socket.link(By::Name("probe-a")).unwrap().unwrap().index;
    let known = socket.run(&[link::sub(kind, &end("probe"), lower, None)]).is_ok();
    socket.remove_link(By::Name("probe-a")).unwrap();
    assert!(known || std::env::var_os(GUEST).is_none(), "this kernel should know {}", kind.kind());
    if !known {
        println!("this kernel has no {}: it was not tried", kind.kind());
    }
    known
}

/// The machine's interface `ens3` in the test's own namespace; its other end is `wire` in a namespace of that name.
fn machine(directory: &Path) -> std::path::PathBuf {
    let outside = namespace(directory, "wire");
    let there = netns::Namespace::open(&outside).unwrap();
    let near = End { name: "ens3", mac: Some(NIC_MAC), mtu: 1500 };
    let far = End { name: "wire", mac: None, mtu: 1500 };
    let mut socket = Socket::open().unwrap();
    socket.run(&[link::veth(&near, &far, Some(there.as_fd())), link::without_autoconf(By::Name("ens3"))]).unwrap();
    socket.run(&[link::up(By::Name("ens3"))]).unwrap();
    let nic = socket.link(By::Name("ens3")).unwrap().unwrap().index;
    socket.run(&[address::add(nic, "192.0.2.10/24".parse().unwrap())]).unwrap();
    netns::run(&outside, || {
        let mut socket = Socket::open().unwrap();
        socket.run(&[link::up(By::Name("wire"))]).unwrap();
        give("wire", "192.0.2.1/24");
    })
    .unwrap();
    outside
}

/// A plugger that has just started, and knows where sandboxes are.
fn looking_in(directory: &Path) -> Plugger {
    Plugger::new(PlugConfig { namespaces: vec![directory.to_owned()], ..plugger().config })
}

/// Gives a link of this thread's namespace an address.
fn give(name: &str, net: &str) {
    let mut socket = Socket::open().unwrap();
    let index = socket.link(By::Name(name)).unwrap().unwrap().index;
    socket.run(&[address::add(index, net.parse().unwrap())]).unwrap();
}

fn nested(driver: PlugDriver, number: u128) -> Vif {
    let mut vif = vif(driver, number, &[&format!("10.0.0.{number}/24"), &format!("fd00::{number:x}/64")]);
    vif.plug.bridge = None;
    vif.plug.parent = Some(Parent { port_id: PortId(uuid::Uuid::from_u128(99)), mac: NIC_MAC });
    match driver {
        PlugDriver::Vlan => vif.plug.vlan = u16::try_from(100 + number).unwrap().try_into().ok(),
        PlugDriver::Ipvlan => vif.mac = NIC_MAC,
        _ => {}
    }
    vif
}

/// The network's end for a VIF: its VLAN, or the wire itself, with the gateway's addresses.
fn network_of(vif: &Vif, outside: &Path) {
    netns::run(outside, || {
        let mut socket = Socket::open().unwrap();
        let wire = socket.link(By::Name("wire")).unwrap().unwrap().index;
        let name = match vif.plug.vlan {
            Some(id) => {
                let name = format!("v{id}");
                let end = End { name: &name, mac: None, mtu: 1500 };
                socket.run(&[link::sub(Sub::Vlan(id.get()), &end, wire, None)]).unwrap();
                netlink_up(&mut socket, &name);
                name
            }
            None => "wire".to_owned(),
        };
        give(&name, "10.0.0.1/24");
    })
    .unwrap();
}

fn netlink_up(socket: &mut Socket, name: &str) {
    socket.run(&[link::up(By::Name(name))]).unwrap();
}

/// The machine's links with their addresses.
fn state() -> BTreeMap<String, (Link, Vec<IpNet>)> {
    let mut socket = Socket::open().unwrap();
    let links = socket.links().unwrap();
    links.into_iter().map(|link| (link.name.clone(), (link.clone(), socket.addresses(link.index).unwrap()))).collect()
}

fn names(netns: &Path) -> Vec<String> {
    let links = netns::run(netns, || Socket::open().unwrap().links().unwrap()).unwrap();
    links.into_iter().map(|link| link.name).filter(|name| name != "lo").collect()
}

/// A pod is plugged, reaches its network, and is unplugged; the machine is as it was.
fn lives_and_goes(driver: PlugDriver, directory: &Path) {
    if !known(nested::kind(&nested(driver, 5)).unwrap()) {
        return;
    }
    let outside = machine(directory);
    let (vif, pod) = (nested(driver, 5), namespace(directory, "pod"));
    let (plugger, sandbox) = (plugger(), sandbox(&pod));
    network_of(&vif, &outside);
    // What a pod's interface is called, something in the machine is called, too: most often the very interface that carries the pods.
    let end = |name| End { name, mac: None, mtu: 1500 };
    Socket::open().unwrap().run(&[link::veth(&end("eth0"), &end("other"), None)]).unwrap();
    let before = state();
    block_on(plugger.plug(&vif, &sandbox, soon())).unwrap();
    block_on(plugger.check(&vif, &sandbox)).unwrap();
    assert_eq!(state(), before, "something of the machine's own has changed");
    let pod_ip = vif.addresses[0].ip;
    assert_eq!(netns::run(&outside, || hello(&pod, pod_ip)).unwrap(), "hello");
    assert_eq!(netns::run(&pod, || hello(&outside, [10, 0, 0, 1].into())).unwrap(), "hello");
    // The machine's own traffic.
    assert_eq!(hello(&outside, [192, 0, 2, 1].into()), "hello");
    // The interface is found by whoever has forgotten all about it, and not taken for that of another machine.
    let end = HostEnd {
        kind: HostEndKind::Inside { netns: pod.clone() },
        name: "eth0".into(),
        owner: super::owner(&vif, &sandbox),
    };
    assert_eq!(block_on(looking_in(directory).list()).unwrap(), std::slice::from_ref(&end));
    let elsewhere = Plugger::new(PlugConfig { host_netns: Some(outside.clone()), ..looking_in(directory).config });
    assert_eq!(block_on(elsewhere.list()).unwrap(), []);
    let mut other = end.clone();
    other.owner.container_id.push('x');
    block_on(plugger.remove(&other)).unwrap();
    assert_eq!(names(&pod), ["eth0"]);
    block_on(plugger.remove(&end)).unwrap();
    assert_eq!(names(&pod), [""; 0]);
    block_on(plugger.plug(&vif, &sandbox, soon())).unwrap();
    for _ in 0..2 {
        block_on(plugger.unplug(&vif, &sandbox)).unwrap();
        assert_eq!(names(&pod), [""; 0]);
    }
    assert_eq!(block_on(looking_in(directory).list()).unwrap(), []);
    assert_eq!(state(), before);
    assert!(block_on(plugger.check(&vif, &sandbox)).is_err());
}

#[test]
fn a_vlan_pod_lives_and_goes_and_the_machine_is_as_it_was() {
    isolated("plug::nested_tests::a_vlan_pod_lives_and_goes_and_the_machine_is_as_it_was", |directory| {
        lives_and_goes(PlugDriver::Vlan, directory);
    });
}

#[test]
fn a_macvlan_pod_lives_and_goes_and_the_machine_is_as_it_was() {
    isolated("plug::nested_tests::a_macvlan_pod_lives_and_goes_and_the_machine_is_as_it_was", |directory| {
        lives_and_goes(PlugDriver::Macvlan, directory);
    });
}

#[test]
fn an_ipvlan_pod_lives_and_goes_and_the_machine_is_as_it_was() {
    isolated("plug::nested_tests::an_ipvlan_pod_lives_and_goes_and_the_machine_is_as_it_was", |directory| {
        lives_and_goes(PlugDriver::Ipvlan, directory);
    });
}

#[test]
fn pods_of_one_machine_that_share_its_port_reach_each_other() {
    isolated("plug::nested_tests::pods_of_one_machine_that_share_its_port_reach_each_other", |directory| {
        for driver in [PlugDriver::Macvlan, PlugDriver::Ipvlan] {
            if !known(nested::kind(&nested(driver, 5)).unwrap()) {
                continue;
            }
            let folder = directory.join(driver.as_str());
            std::fs::create_dir(&folder).unwrap();
            machine(&folder);
            let pods = [21, 22].map(|number| (nested(driver, number), namespace(&folder, &format!("pod{number}"))));
            for (vif, netns) in &pods {
                block_on(plugger().plug(vif, &sandbox(netns), soon())).unwrap();
            }
            for address in &pods[1].0.addresses {
                let (target, ip) = (pods[1].1.clone(), address.ip);
                assert_eq!(netns::run(&pods[0].1, || hello(&target, ip)).unwrap(), "hello", "{ip}");
            }
            Socket::open().unwrap().remove_link(By::Name("ens3")).unwrap();
        }
    });
}

#[test]
fn pods_on_different_vlans_of_one_machine_do_not_reach_each_other_past_the_trunk() {
    isolated(
        "plug::nested_tests::pods_on_different_vlans_of_one_machine_do_not_reach_each_other_past_the_trunk",
        |directory| {
            if !known(Sub::Vlan(7)) {
                return;
            }
            machine(directory);
            let pods = [21, 22]
                .map(|number| (nested(PlugDriver::Vlan, number), namespace(directory, &format!("pod{number}"))));
            for (vif, netns) in &pods {
                block_on(plugger().plug(vif, &sandbox(netns), soon())).unwrap();
            }
            let target = std::net::SocketAddr::new(pods[1].0.addresses[0].ip, 7000);
            let try_it = || std::net::TcpStream::connect_timeout(&target, Duration::from_millis(300)).is_err();
            assert!(netns::run(&pods[0].1, try_it).unwrap(), "they need the trunk to meet");
        },
    );
}

/// What a daemon that was killed leaves: a sub-interface without its mark, in the sandbox of then.
#[test]
fn what_a_killed_daemon_has_left_is_replaced() {
    isolated("plug::nested_tests::what_a_killed_daemon_has_left_is_replaced", |directory| {
        for driver in [PlugDriver::Vlan, PlugDriver::Macvlan] {
            let vif = nested(driver, 31);
            let kind = nested::kind(&vif).unwrap();
            if !known(kind) {
                continue;
            }
            let folder = directory.join(driver.as_str());
            std::fs::create_dir(&folder).unwrap();
            machine(&folder);
            let old = namespace(&folder, "old");
            let there = netns::Namespace::open(&old).unwrap();
            let mut socket = Socket::open().unwrap();
            let nic = socket.link(By::Name("ens3")).unwrap().unwrap().index;
            let end = End { name: "eth0", mac: Some(vif.mac), mtu: 1442 };
            socket.run(&[link::sub(kind, &end, nic, Some(there.as_fd()))]).unwrap();
            netns::run(&old, || netlink_up(&mut Socket::open().unwrap(), "eth0")).unwrap();
            let new = sandbox(&namespace(&folder, "new"));
            block_on(plugger().plug(&vif, &new, soon())).unwrap();
            block_on(plugger().check(&vif, &new)).unwrap();
            assert_eq!(names(&old), [""; 0]);
            // A late DEL of the old sandbox finds nothing, and takes nothing from the new one.
            block_on(plugger().unplug(&vif, &sandbox(&old))).unwrap();
            block_on(plugger().check(&vif, &new)).unwrap();
            // The same sandbox after the daemon was killed half-way through.
            let strip = || {
                let mut inside = Socket::open().unwrap();
                inside.run(&[link::alias(By::Name("eth0"), "")]).unwrap();
            };
            netns::run(&new.netns, strip).unwrap();
            block_on(plugger().unplug(&vif, &new)).unwrap();
            assert_eq!(names(&new.netns), [""; 0]);
            socket.remove_link(By::Name("ens3")).unwrap();
        }
    });
}

#[test]
fn what_is_the_machines_own_is_neither_used_nor_removed() {
    isolated("plug::nested_tests::what_is_the_machines_own_is_neither_used_nor_removed", |directory| {
        machine(directory);
        let mut socket = Socket::open().unwrap();
        let nic = socket.link(By::Name("ens3")).unwrap().unwrap().index;
        let pod = sandbox(&namespace(directory, "pod"));
        if known(Sub::Vlan(7)) {
            let vif = nested(PlugDriver::Vlan, 41);
            let end = End { name: "storage", mac: None, mtu: 1500 };
            socket.run(&[link::sub(nested::kind(&vif).unwrap(), &end, nic, None)]).unwrap();
            let refused = block_on(plugger().plug(&vif, &pod, soon())).unwrap_err();
            assert!(refused.to_string().contains("by interface storage of the virtual machine"), "{refused}");
            assert!(socket.link(By::Name("storage")).unwrap().is_some());
        }
        // The pod's name is taken by something that is not ours.
        let foreign = || {
            let end = |name| End { name, mac: None, mtu: 1500 };
            Socket::open().unwrap().run(&[link::veth(&end("eth0"), &end("other"), None)]).unwrap();
        };
        netns::run(&pod.netns, foreign).unwrap();
        let vif = nested(PlugDriver::Macvlan, 42);
        let refused = block_on(plugger().plug(&vif, &pod, soon())).unwrap_err();
        assert!(matches!(&refused, PlugError::InterfaceTaken { .. }), "{refused}");
        block_on(plugger().unplug(&vif, &pod)).unwrap();
        assert_eq!(names(&pod.netns).len(), 2);
    });
}

#[test]
fn a_failure_part_way_undoes_what_was_made() {
    isolated("plug::nested_tests::a_failure_part_way_undoes_what_was_made", |directory| {
        machine(directory);
        let pod = sandbox(&namespace(directory, "pod"));
        let mut vif = nested(PlugDriver::Macvlan, 51);
        vif.routes =
            vec![kuryr_model::VifRoute { destination: "192.0.2.0/24".parse().unwrap(), gateway: [255; 4].into() }];
        let refused = block_on(plugger().plug(&vif, &pod, soon())).unwrap_err();
        assert!(refused.to_string().starts_with("cannot add route 192.0.2.0/24"), "{refused}");
        assert_eq!(names(&pod.netns), [""; 0]);
    });
}

#[test]
fn a_kernel_without_the_kind_is_named_with_its_module() {
    isolated("plug::nested_tests::a_kernel_without_the_kind_is_named_with_its_module", |directory| {
        machine(directory);
        let pod = sandbox(&namespace(directory, "pod"));
        let outcome = block_on(plugger().plug(&nested(PlugDriver::Vlan, 61), &pod, soon()));
        if !known(Sub::Vlan(7)) {
            let refused = outcome.unwrap_err();
            assert!(refused.to_string().ends_with("load the module 8021q"), "{refused}");
        }
    });
}

#[test]
fn a_hundred_pods_of_one_machine_are_plugged_at_once() {
    isolated("plug::nested_tests::a_hundred_pods_of_one_machine_are_plugged_at_once", |directory| {
        for driver in [PlugDriver::Vlan, PlugDriver::Macvlan] {
            if !known(nested::kind(&nested(driver, 5)).unwrap()) {
                continue;
            }
            let folder = directory.join(driver.as_str());
            std::fs::create_dir(&folder).unwrap();
            machine(&folder);
            let pods: Vec<_> =
                (2..=101).map(|n| (nested(driver, n), sandbox(&namespace(&folder, &format!("pod{n}"))))).collect();
            let plugger = plugger();
            block_on(async {
                let start = Instant::now();
                let plugs = pods.iter().map(|(vif, sandbox)| plugger.plug(vif, sandbox, soon()));
                let outcomes = futures::future::join_all(plugs).await;
                assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
                println!("100 {} interfaces made in {:.1?}", driver.as_str(), start.elapsed());
            });
            Socket::open().unwrap().remove_link(By::Name("ens3")).unwrap();
            assert!(pods.iter().all(|(_, sandbox)| names(&sandbox.netns).is_empty()));
        }
    });
}

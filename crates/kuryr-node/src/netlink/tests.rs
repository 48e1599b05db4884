//! The parts of netlink that no driver shows.

use super::{
    Socket,
    link::{self, By, End},
    offload, sysctl,
};
use crate::netns::testing::isolated;
use nix::errno::Errno;

fn pair(socket: &mut Socket) {
    let near = End { name: "a", mac: None, mtu: 1500 };
    let far = End { name: "b", mac: None, mtu: 1500 };
    socket.run(&[link::veth(&near, &far, None)]).unwrap();
}

#[test]
fn a_refusal_names_what_was_tried_and_the_kernels_reason() {
    isolated("netlink::tests::a_refusal_names_what_was_tried_and_the_kernels_reason", |_| {
        let mut socket = Socket::open().unwrap();
        let error = socket.run(&[link::up(By::Name("nope"))]).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::ENODEV));
        assert!(error.to_string().starts_with("cannot switch nope on"), "{error}");
        assert!(link::absent(&error));
        // The conversation goes on after a refusal.
        assert!(socket.link(By::Name("lo")).unwrap().is_some());
        socket.remove_link(By::Name("nope")).unwrap();
    });
}

#[test]
fn more_requests_than_one_datagram_holds_are_all_answered() {
    isolated("netlink::tests::more_requests_than_one_datagram_holds_are_all_answered", |_| {
        let mut socket = Socket::open().unwrap();
        let lo = socket.link(By::Name("lo")).unwrap().unwrap().index;
        let net = |number: u32| ipnet::IpNet::from(std::net::IpAddr::from((0x0a00_0000 + number).to_be_bytes()));
        let requests: Vec<_> = (1..=500).map(|number| super::address::add(lo, net(number))).collect();
        assert!(socket.run_each(&requests).unwrap().iter().all(Result::is_ok));
        let addresses = socket.addresses(lo).unwrap();
        assert!((1..=500).all(|number| addresses.contains(&net(number))), "{}", addresses.len());
    });
}

#[test]
fn links_are_renamed_moved_and_bridged() {
    isolated("netlink::tests::links_are_renamed_moved_and_bridged", |directory| {
        let mut socket = Socket::open().unwrap();
        pair(&mut socket);
        let index = socket.link(By::Name("a")).unwrap().unwrap().index;
        socket.run(&[link::rename(index, "c"), link::bridge("br")]).unwrap();
        let bridge = socket.link(By::Name("br")).unwrap().unwrap();
        assert_eq!((&*bridge.kind, bridge.up), ("bridge", false));
        socket.run(&[link::master(By::Index(index), bridge.index)]).unwrap();
        let link = socket.link(By::Name("c")).unwrap().unwrap();
        assert_eq!((link.master, &*link.kind, link.index), (Some(bridge.index), "veth", index));
        let netns = crate::netns::testing::namespace(directory, "other");
        let namespace = crate::netns::Namespace::open(&netns).unwrap();
        socket.run(&[link::hand_over(By::Name("c"), std::os::fd::AsFd::as_fd(&namespace))]).unwrap();
        assert_eq!(socket.link(By::Name("c")).unwrap(), None);
        let there = crate::netns::run(&netns, || Socket::open().unwrap().link(By::Name("c")).unwrap()).unwrap();
        assert_eq!(there.unwrap().kind, "veth");
        assert_eq!(crate::netns::list(directory).unwrap(), [netns]);
    });
}

#[test]
fn checksums_are_no_longer_left_to_the_hardware() {
    isolated("netlink::tests::checksums_are_no_longer_left_to_the_hardware", |_| {
        let mut socket = Socket::open().unwrap();
        pair(&mut socket);
        let index = socket.link(By::Name("a")).unwrap().unwrap().index;
        assert!(offload::fills_checksums(index).unwrap().is_empty());
        offload::disable_checksum(index).unwrap();
        offload::disable_checksum(index).unwrap();
        assert_eq!(offload::fills_checksums(index).unwrap(), ["tx-checksum-ip-generic", "tx-checksum-sctp"]);
        assert!(offload::disable_checksum(9999).is_err());
    });
}

#[test]
fn settings_are_those_of_the_threads_namespace() {
    isolated("netlink::tests::settings_are_those_of_the_threads_namespace", |_| {
        let mut socket = Socket::open().unwrap();
        pair(&mut socket);
        sysctl::set("net/ipv4/conf/a/rp_filter", "1").unwrap();
        assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv4/conf/a/rp_filter").unwrap(), "1\n");
        let error = sysctl::set("net/ipv4/conf/nope/rp_filter", "1").unwrap_err();
        assert!(error.to_string().contains("net/ipv4/conf/nope/rp_filter"), "{error}");
        sysctl::set_if_known("net/ipv4/conf/nope/rp_filter", "1").unwrap();
    });
}

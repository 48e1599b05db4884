use crate::service::{
    Endpoint, Member, Provider, Service, Slice, Transport, annotations, desired,
    fixtures::{id, ip, load_balancer, pods, port, ready, service, site, slice, terminating, unready},
};

fn members(service: &Service, slices: &[Slice]) -> Vec<Member> {
    desired(service, slices, &site(Provider::Amphora)).trees[0].listeners[0].pool.members.clone()
}

fn weights(endpoints: &[Endpoint]) -> Vec<(String, u16)> {
    let members = members(&service(), &pods(endpoints));
    members.into_iter().map(|member| (member.address.to_string(), member.weight)).collect()
}

fn expect(pairs: &[(&str, u16)]) -> Vec<(String, u16)> {
    pairs.iter().map(|(address, weight)| ((*address).to_owned(), *weight)).collect()
}

#[test]
fn a_terminating_endpoint_drains_while_another_is_ready() {
    let found = weights(&[ready("10.10.0.5"), terminating("10.10.0.6")]);
    assert_eq!(found, expect(&[("10.10.0.5", 1), ("10.10.0.6", 0)]));
}

#[test]
fn where_weights_have_no_effect_a_terminating_endpoint_is_left_out() {
    let addresses = |endpoints: &[Endpoint]| {
        let desired = desired(&service(), &pods(endpoints), &site(Provider::Ovn));
        let members = desired.trees[0].listeners[0].pool.members.iter();
        members.map(|member| (member.address.to_string(), member.weight)).collect::<Vec<_>>()
    };
    assert_eq!(addresses(&[ready("10.10.0.5"), terminating("10.10.0.6")]), expect(&[("10.10.0.5", 1)]));
    assert_eq!(addresses(&[terminating("10.10.0.6")]), expect(&[("10.10.0.6", 1)]));
}

#[test]
fn terminating_endpoints_serve_on_when_none_is_ready() {
    let found = weights(&[terminating("10.10.0.6"), unready("10.10.0.7")]);
    assert_eq!(found, expect(&[("10.10.0.6", 1)]));
}

#[test]
fn an_endpoint_that_is_not_ready_or_terminates_and_does_not_answer_is_no_member() {
    let silent = Endpoint { serving: false, ..terminating("10.10.0.6") };
    assert_eq!(weights(&[unready("10.10.0.5"), silent]), []);
}

#[test]
fn families_drain_apart() {
    let dual = Service { cluster_ips: vec![ip("10.96.0.10"), ip("fd00:96::10")], ..service() };
    let found = members(&dual, &pods(&[ready("10.10.0.5"), terminating("fd00:10::6")]));
    assert_eq!(found.iter().map(|member| member.weight).collect::<Vec<_>>(), [1, 1]);
}

#[test]
fn publish_not_ready_addresses_means_all_of_them() {
    let published = Service { publish_not_ready: true, ..service() };
    let found = members(&published, &pods(&[unready("10.10.0.5"), terminating("10.10.0.6")]));
    assert_eq!(found.iter().map(|member| member.weight).collect::<Vec<_>>(), [1, 1]);
}

#[test]
fn an_endpoint_in_two_slices_is_one_member_in_its_better_state() {
    let slices = [
        slice(&[("http", Transport::Tcp, 8080)], &[terminating("10.10.0.5"), ready("10.10.0.6")]),
        slice(&[("http", Transport::Tcp, 8080)], &[ready("10.10.0.5")]),
    ];
    let found = members(&service(), &slices);
    assert_eq!(found.iter().map(|member| member.weight).collect::<Vec<_>>(), [1, 1]);
}

#[test]
fn a_named_target_port_may_have_another_number_in_each_slice() {
    let slices = [
        slice(&[("http", Transport::Tcp, 8080)], &[ready("10.10.0.5")]),
        slice(&[("http", Transport::Tcp, 9090)], &[ready("10.10.0.6")]),
    ];
    let found = members(&service(), &slices);
    let at = found.iter().map(|member| (member.address.to_string(), member.port));
    assert_eq!(at.collect::<Vec<_>>(), [("10.10.0.5".to_owned(), 8080), ("10.10.0.6".to_owned(), 9090)]);
}

#[test]
fn one_address_with_two_port_numbers_is_two_members() {
    let slices = [
        slice(&[("http", Transport::Tcp, 8080)], &[ready("10.10.0.5")]),
        slice(&[("http", Transport::Tcp, 9090)], &[ready("10.10.0.5")]),
    ];
    assert_eq!(members(&service(), &slices).len(), 2);
}

#[test]
fn a_slice_port_belongs_to_the_port_of_its_name_and_protocol() {
    let two = Service {
        ports: vec![port("a", Transport::Tcp, 1), port("a", Transport::Udp, 2), port("b", Transport::Tcp, 3)],
        ..service()
    };
    let slices = [slice(&[("a", Transport::Udp, 22), ("b", Transport::Tcp, 33)], &[ready("10.10.0.5")])];
    let desired = desired(&two, &slices, &site(Provider::Amphora));
    let ports = |listener: &crate::service::Listener| listener.pool.members.iter().map(|m| m.port).collect::<Vec<_>>();
    assert_eq!(desired.trees[0].listeners.iter().map(ports).collect::<Vec<_>>(), [vec![], vec![33], vec![22]]);
}

#[test]
fn hand_made_slices_of_a_service_without_selector_may_lead_anywhere() {
    let unnamed = Service { ports: vec![port("", Transport::Tcp, 5432)], ..service() };
    let outside = Endpoint { node: None, pod: None, ..ready("198.51.100.7") };
    let slices = [slice(&[("", Transport::Tcp, 5432)], &[outside])];
    let found = members(&unnamed, &slices);
    assert_eq!((found[0].subnet, found[0].name.as_str()), (None, ""));
}

#[test]
fn an_annotation_names_the_subnet_of_members_that_are_in_no_known_one() {
    let named = load_balancer(&[(annotations::MEMBER_SUBNET_ID, "00000000-0000-4000-8000-00000000002a")]);
    let found = members(&named, &pods(&[ready("10.10.0.5"), ready("198.51.100.7")]));
    assert_eq!(found[0].subnet, Some(id(crate::service::fixtures::PODS_V4)));
    assert_eq!(found[1].subnet, Some(id(0x2a)));
}

#[test]
fn behind_an_address_of_its_own_members_outside_of_the_pods_are_reached_from_there() {
    let named = load_balancer(&[(annotations::SUBNET_ID, "00000000-0000-4000-8000-00000000002a")]);
    let desired = desired(&named, &pods(&[ready("198.51.100.7")]), &site(Provider::Ovn));
    let subnet = |tree: usize| desired.trees[tree].listeners[0].pool.members[0].subnet;
    assert_eq!((subnet(0), subnet(1)), (Some(id(crate::service::fixtures::SERVICES_V4)), Some(id(0x2a))));
}

use super::*;
use crate::service::fixtures::{ip, pods, port, ready, service, slice, terminating};

fn node(name: &str) -> ThisNode {
    ThisNode { name: name.to_owned(), answers_return: false }
}

fn node_port(number: u16) -> Service {
    let mut service = Service { kind: Kind::NodePort, ..service() };
    service.ports[0].node_port = Some(number);
    service
}

fn local(number: u16) -> Service {
    Service { external_policy: TrafficPolicy::Local, ..node_port(number) }
}

#[test]
fn a_node_port_leads_to_the_cluster_ip_and_back_through_the_node() {
    let rules = node_ports(&node_port(30080), &[], &node("node1"));
    let expected = NodePortRule {
        service: service().key,
        transport: Transport::Tcp,
        at: At::NodePort(Family::V4, 30080),
        to: vec![(ip("10.96.0.10"), 80)],
        masquerade: true,
        affinity: None,
    };
    assert_eq!(rules, [expected]);
}

#[test]
fn each_family_leads_to_its_own_cluster_ip() {
    let dual = Service { cluster_ips: vec![ip("10.96.0.10"), ip("fd00:96::10")], ..node_port(30080) };
    let rules = node_ports(&dual, &[], &node("node1"));
    let found: Vec<_> = rules.iter().map(|rule| (rule.at, rule.to[0].0)).collect();
    let expected =
        [(At::NodePort(Family::V4, 30080), ip("10.96.0.10")), (At::NodePort(Family::V6, 30080), ip("fd00:96::10"))];
    assert_eq!(found, expected);
}

#[test]
fn external_ips_lead_to_the_cluster_ip_of_their_family_whatever_the_type() {
    let external = Service { external_ips: vec![ip("198.51.100.7"), ip("2001:db8::7")], ..service() };
    let rules = node_ports(&external, &[], &node("node1"));
    assert_eq!(rules.iter().map(|rule| rule.at).collect::<Vec<_>>(), [At::External(ip("198.51.100.7"), 80)]);
    assert_eq!(rules[0].to, [(ip("10.96.0.10"), 80)]);
}

#[test]
fn a_service_without_node_ports_needs_nothing() {
    assert_eq!(node_ports(&service(), &[], &node("node1")), []);
    assert_eq!(node_ports(&Service { deleting: true, ..node_port(30080) }, &[], &node("node1")), []);
    assert_eq!(node_ports(&Service { cluster_ips: vec![], ..node_port(30080) }, &[], &node("node1")), []);
}

#[test]
fn local_leads_to_the_endpoints_of_this_node_only() {
    let elsewhere = Endpoint { node: Some("node2".to_owned()), ..ready("10.10.0.6") };
    let slices = pods(&[ready("10.10.0.5"), elsewhere]);
    let to = |name: &str| node_ports(&local(30080), &slices, &node(name))[0].to.clone();
    assert_eq!(to("node1"), [(ip("10.10.0.5"), 8080)]);
    assert_eq!(to("node2"), [(ip("10.10.0.6"), 8080)]);
    // Nothing to lead to: packets are dropped, as clients of `Local` expect.
    assert_eq!(to("node3"), []);
}

#[test]
fn local_endpoints_that_terminate_serve_when_none_here_is_ready() {
    let to = |endpoints: &[Endpoint]| node_ports(&local(30080), &pods(endpoints), &node("node1"))[0].to.clone();
    assert_eq!(to(&[ready("10.10.0.5"), terminating("10.10.0.6")]), [(ip("10.10.0.5"), 8080)]);
    assert_eq!(to(&[terminating("10.10.0.6")]), [(ip("10.10.0.6"), 8080)]);
}

#[test]
fn a_clients_address_is_kept_only_where_the_answer_comes_back() {
    let slices = pods(&[ready("10.10.0.5")]);
    let masquerade = |answers_return| {
        let node = ThisNode { answers_return, ..node("node1") };
        let rule = |service: &Service| node_ports(service, &slices, &node)[0].masquerade;
        (rule(&local(30080)), rule(&node_port(30080)))
    };
    assert_eq!(masquerade(false), (true, true));
    assert_eq!(masquerade(true), (false, true));
}

#[test]
fn affinity_matters_where_the_node_itself_chooses() {
    let bound = |service: Service| Service { session_affinity: Some(60), ..service };
    let affinity = |service: &Service| node_ports(service, &[], &node("node1"))[0].affinity;
    assert_eq!((affinity(&bound(node_port(30080))), affinity(&bound(local(30080)))), (None, Some(60)));
}

#[test]
fn the_same_number_on_tcp_and_udp_is_two_rules() {
    let mut two = node_port(30053);
    two.ports.push(crate::service::ServicePort { node_port: Some(30053), ..port("dns", Transport::Udp, 53) });
    let slices = [slice(&[("dns", Transport::Udp, 53)], &[])];
    let transports: Vec<_> = node_ports(&two, &slices, &node("node1")).iter().map(|rule| rule.transport).collect();
    assert_eq!(transports, [Transport::Tcp, Transport::Udp]);
}

use crate::service::{
    Desired, Effect, Kind, ListenerKey, Nothing, Place, Provider, Reason, Role, Service, TrafficPolicy, Transport, Vip,
    desired,
    fixtures::{self, SERVICE_NETWORK, SERVICES_V4, SERVICES_V6, id, ip, pods, port, ready, service, site, slice},
};
use kuryr_model::lb;

fn plain(service: &Service) -> Desired {
    desired(service, &pods(&[ready("10.10.0.5")]), &site(Provider::Amphora))
}

fn vip(subnet: u32, address: &str) -> Vip {
    Vip { network: Some(id(SERVICE_NETWORK)), subnet: Some(id(subnet)), address: Some(ip(address)) }
}

#[test]
fn a_cluster_ip_service_has_one_load_balancer_at_its_cluster_ip() {
    let desired = plain(&service());
    assert_eq!(desired.problems, []);
    let [tree] = &desired.trees[..] else { panic!("{:?}", desired.trees) };
    assert_eq!(tree.role, Role::Cluster);
    assert_eq!(tree.place, Place::Vips(vec![vip(SERVICES_V4, "10.96.0.10")]));
    assert_eq!(tree.name, "shop/web");
    assert_eq!(tree.tags, ["kuryr:prod", "kuryr:service:0d4bbd2b-6a1f-4cf2-9a5a-3d3f9b1f2c11"]);
    let [listener] = &tree.listeners[..] else { panic!("{:?}", tree.listeners) };
    assert_eq!(listener.key, ListenerKey { transport: Transport::Tcp, number: 80 });
    assert_eq!((listener.protocol, listener.pool.protocol), (lb::Protocol::Tcp, lb::Protocol::Tcp));
    let [member] = &listener.pool.members[..] else { panic!("{:?}", listener.pool.members) };
    assert_eq!((member.address, member.port, member.weight), (ip("10.10.0.5"), 8080, 1));
    assert_eq!((member.subnet, member.name.as_str()), (Some(id(fixtures::PODS_V4)), "shop/web-5"));
}

#[test]
fn a_node_port_service_has_the_same_load_balancer() {
    let mut node_port = Service { kind: Kind::NodePort, ..service() };
    node_port.ports[0].node_port = Some(30080);
    assert_eq!(plain(&node_port).trees, plain(&service()).trees);
}

#[test]
fn headless_services_names_and_those_without_ports_have_none() {
    let none = |service: Service| {
        let desired = plain(&service);
        assert_eq!(desired.trees, []);
        desired.nothing
    };
    assert_eq!(none(Service { cluster_ips: vec![], ..service() }), Some(Nothing::Headless));
    assert_eq!(none(Service { kind: Kind::ExternalName, ..service() }), Some(Nothing::ExternalName));
    assert_eq!(none(Service { ports: vec![], ..service() }), Some(Nothing::NoPorts));
    assert_eq!(none(Service { deleting: true, ..service() }), Some(Nothing::Gone));
}

#[test]
fn several_ports_have_a_listener_each_and_tcp_and_udp_may_share_a_number() {
    let dns = Service {
        ports: vec![
            port("dns-tcp", Transport::Tcp, 53),
            port("dns", Transport::Udp, 53),
            port("sctp", Transport::Sctp, 36412),
            port("metrics", Transport::Tcp, 9153),
        ],
        ..service()
    };
    let slices = [slice(
        &[("dns", Transport::Udp, 5353), ("dns-tcp", Transport::Tcp, 5300), ("metrics", Transport::Tcp, 9153)],
        &[ready("10.10.0.5")],
    )];
    let desired = desired(&dns, &slices, &site(Provider::Ovn));
    assert_eq!(desired.problems, []);
    let listeners = desired.trees[0].listeners.iter();
    let found: Vec<_> = listeners
        .map(|listener| {
            let ports: Vec<u16> = listener.pool.members.iter().map(|member| member.port).collect();
            (listener.key.to_string(), listener.protocol, ports)
        })
        .collect();
    let expected = [
        ("TCP:53".to_owned(), lb::Protocol::Tcp, vec![5300]),
        ("TCP:9153".to_owned(), lb::Protocol::Tcp, vec![9153]),
        ("UDP:53".to_owned(), lb::Protocol::Udp, vec![5353]),
        ("SCTP:36412".to_owned(), lb::Protocol::Sctp, vec![]),
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_renamed_port_keeps_its_listener() {
    let renamed = Service { ports: vec![port("web", Transport::Tcp, 80)], ..service() };
    let key = |service| plain(service).trees[0].listeners[0].key;
    assert_eq!(key(&renamed), key(&service()));
}

#[test]
fn a_dual_stack_service_has_an_address_of_each_family_in_one_load_balancer() {
    let dual = Service { cluster_ips: vec![ip("10.96.0.10"), ip("fd00:96::10")], ..service() };
    let desired = desired(&dual, &pods(&[ready("10.10.0.5"), ready("fd00:10::5")]), &site(Provider::Amphora));
    let [tree] = &desired.trees[..] else { panic!() };
    assert_eq!(tree.place, Place::Vips(vec![vip(SERVICES_V4, "10.96.0.10"), vip(SERVICES_V6, "fd00:96::10")]));
    assert!(!tree.apart);
    let members = &tree.listeners[0].pool.members;
    assert_eq!(members.iter().map(|member| member.address).collect::<Vec<_>>(), [ip("10.10.0.5"), ip("fd00:10::5")]);
    assert_eq!(members[1].subnet, Some(id(fixtures::PODS_V6)));
}

#[test]
fn a_dual_stack_service_has_two_load_balancers_where_one_cannot_have_both_addresses() {
    let dual = Service { cluster_ips: vec![ip("10.96.0.10"), ip("fd00:96::10")], ..service() };
    assert!(desired(&dual, &[], &site(Provider::Ovn)).trees[0].apart);
    let mut two_networks = site(Provider::Amphora);
    two_networks.services[1].network = id(99);
    assert!(desired(&dual, &[], &two_networks).trees[0].apart);
}

#[test]
fn endpoints_of_a_family_that_the_service_does_not_have_are_no_members() {
    let desired = desired(&service(), &pods(&[ready("10.10.0.5"), ready("fd00:10::5")]), &site(Provider::Amphora));
    assert_eq!(desired.trees[0].listeners[0].pool.members.len(), 1);
}

#[test]
fn a_cluster_ip_outside_of_the_service_subnets_is_told_and_the_other_family_works() {
    let lost = Service { cluster_ips: vec![ip("172.30.0.10"), ip("fd00:96::10")], ..service() };
    let desired = plain(&lost);
    assert_eq!(desired.trees[0].place, Place::Vips(vec![vip(SERVICES_V6, "fd00:96::10")]));
    let [problem] = &desired.problems[..] else { panic!("{:?}", desired.problems) };
    assert_eq!((problem.reason, problem.effect), (Reason::VipOutsideSubnets, Effect::NotServed));
    assert!(problem.message.contains("172.30.0.10"));
    let only = plain(&Service { cluster_ips: vec![ip("172.30.0.10")], ..service() });
    assert_eq!((only.trees.len(), only.nothing), (0, Some(Nothing::NoVip)));
}

#[test]
fn a_cluster_ip_that_is_the_subnets_gateway_is_told() {
    let desired = plain(&Service { cluster_ips: vec![ip("10.96.255.254")], ..service() });
    assert_eq!(desired.problems[0].reason, Reason::VipTaken);
    assert_eq!(desired.nothing, Some(Nothing::NoVip));
}

#[test]
fn the_service_of_the_api_server_leads_to_addresses_that_are_no_pods() {
    let kubernetes = Service {
        key: kuryr_model::ObjectKey::new("default", "kubernetes"),
        cluster_ips: vec![ip("10.96.0.1")],
        ports: vec![port("https", Transport::Tcp, 443)],
        ..service()
    };
    let slices = [slice(&[("https", Transport::Tcp, 6443)], &[ready("192.168.7.2")])];
    let member =
        |provider| desired(&kubernetes, &slices, &site(provider)).trees[0].listeners[0].pool.members[0].clone();
    assert_eq!((member(Provider::Amphora).port, member(Provider::Amphora).subnet), (6443, None));
    // The OVN provider refuses a member without a subnet, unless it is in the VIP's.
    assert_eq!(member(Provider::Ovn).subnet, Some(id(SERVICES_V4)));
}

#[test]
fn session_affinity_binds_clients_by_their_address() {
    let bound = Service {
        session_affinity: Some(60),
        ports: vec![port("http", Transport::Tcp, 80), port("dns", Transport::Udp, 53)],
        ..service()
    };
    let found = |provider| {
        let desired = desired(&bound, &[], &site(provider));
        let persistence = |listener: &crate::service::Listener| listener.pool.persistence.clone();
        let all: Vec<_> = desired.trees[0].listeners.iter().filter_map(persistence).collect();
        assert!(all.iter().all(|persistence| persistence.kind == lb::Persistence::SourceIp));
        let timeouts: Vec<_> = all.iter().map(|persistence| persistence.persistence_timeout).collect();
        (timeouts, desired.problems.iter().map(|problem| problem.reason).collect::<Vec<_>>())
    };
    // Octavia takes a time for UDP only.
    assert_eq!(found(Provider::Amphora), (vec![None, Some(60)], vec![Reason::AffinityTimeout]));
    // The OVN provider takes it and sends clients anywhere: that is said, and it is not asked.
    assert_eq!(found(Provider::Ovn), (vec![], vec![Reason::NotSupportedByProvider]));
    let usual = Service { session_affinity: Some(10_800), ..service() };
    assert_eq!(desired(&usual, &[], &site(Provider::Amphora)).problems, []);
}

#[test]
fn local_traffic_policies_are_told_where_they_are_not_kept() {
    let inner = Service { internal_policy: TrafficPolicy::Local, ..service() };
    assert_eq!(plain(&inner).problems[0].reason, Reason::NotNodeLocal);
    let outer = Service { kind: Kind::LoadBalancer, external_policy: TrafficPolicy::Local, ..service() };
    let reasons = |provider| {
        let desired = desired(&outer, &[], &site(provider));
        desired.problems.iter().map(|problem| problem.reason).collect::<Vec<_>>()
    };
    assert_eq!(reasons(Provider::Amphora), [Reason::ClientAddressHidden]);
    // OVN keeps the client's address.
    assert_eq!(reasons(Provider::Ovn), []);
}

use crate::service::{
    Class, Desired, Effect, Family, Feature, Floating, Kind, Place, Provider, Reason, Role, Service, Site, Vip,
    WantedFloating, annotations, desired,
    fixtures::{OTHER_PUBLIC, PUBLIC, id, ip, load_balancer, nets, service, site},
    tree::KEEP_TAG,
};

const SOME: &str = "00000000-0000-4000-8000-000000000042";

fn amphora(service: &Service) -> Desired {
    desired(service, &[], &site(Provider::Amphora))
}

fn with(annotations: &[(&str, &str)]) -> Desired {
    amphora(&load_balancer(annotations))
}

fn wanted(desired: &Desired) -> &WantedFloating {
    match &desired.floating {
        Floating::Wanted(wanted) => wanted,
        other => panic!("{other:?}, {:?}", desired.problems),
    }
}

fn roles(desired: &Desired) -> Vec<Role> {
    desired.trees.iter().map(|tree| tree.role).collect()
}

/// Not exposed, for one reason.
fn held(desired: &Desired) -> Reason {
    assert_eq!((&desired.floating, desired.held, desired.exposed.at), (&Floating::Withheld, true, None));
    assert_eq!(roles(desired), [Role::Cluster]);
    let mut reasons = desired.problems.iter().filter(|problem| problem.effect == Effect::NotExposed);
    reasons.next().map(|problem| problem.reason).expect("a reason")
}

#[test]
fn a_load_balancer_service_has_a_floating_ip_at_its_cluster_ip() {
    let desired = with(&[]);
    assert_eq!(roles(&desired), [Role::Cluster]);
    let floating = wanted(&desired);
    assert_eq!((floating.to, floating.network, floating.address), (Role::Cluster, Some(id(PUBLIC)), None));
    assert!(floating.make && floating.subnets.is_empty());
    assert!(desired.exposed.ours && desired.exposed.at == Some(Role::Cluster));
    assert_eq!(desired.problems, []);
}

#[test]
fn changing_the_type_changes_nothing_but_the_floating_ip() {
    let load_balancer = with(&[]);
    for kind in [Kind::ClusterIp, Kind::NodePort] {
        let other = amphora(&Service { kind, ..service() });
        assert_eq!(other.trees, load_balancer.trees);
        assert_eq!((other.floating, other.exposed.ours), (Floating::None, false));
    }
}

#[test]
fn an_internal_service_has_none() {
    for name in [annotations::INTERNAL, annotations::INTERNAL_LEGACY] {
        let desired = with(&[(name, "true")]);
        assert_eq!((&desired.floating, desired.exposed.at), (&Floating::None, Some(Role::Cluster)));
    }
}

#[test]
fn a_service_of_another_class_is_only_reached_at_its_cluster_ip() {
    let class = |class: &str| Service { load_balancer_class: Some(class.to_owned()), ..load_balancer(&[]) };
    let other = amphora(&class("example.org/other"));
    assert_eq!((&other.floating, other.exposed.ours, roles(&other)), (&Floating::None, false, vec![Role::Cluster]));
    wanted(&amphora(&class(crate::service::site::LOAD_BALANCER_CLASS)));
}

#[test]
fn load_balancer_ip_is_the_floating_ips_address() {
    let at = |text: &str| Service { load_balancer_ip: Some(text.to_owned()), ..load_balancer(&[]) };
    assert_eq!(wanted(&amphora(&at("203.0.113.9"))).address, Some(ip("203.0.113.9")));
    assert_eq!(held(&amphora(&at("www.example.org"))), Reason::BadField);
    assert_eq!(held(&amphora(&at("2001:db8::9"))), Reason::BadField);
}

#[test]
fn load_balancer_ip_is_the_vip_of_an_internal_service_in_a_subnet() {
    let service =
        |pairs: &[(&str, &str)]| Service { load_balancer_ip: Some("10.7.0.9".to_owned()), ..load_balancer(pairs) };
    let desired = amphora(&service(&[(annotations::INTERNAL, "true"), (annotations::SUBNET_ID, SOME)]));
    let vip = Vip { network: None, subnet: Some(id(0x42)), address: Some(ip("10.7.0.9")) };
    assert_eq!(
        (roles(&desired), &desired.trees[1].place),
        (vec![Role::Cluster, Role::External], &Place::Vips(vec![vip]))
    );
    let nowhere = amphora(&service(&[(annotations::INTERNAL, "true")]));
    assert_eq!((nowhere.problems[0].reason, nowhere.problems[0].effect), (Reason::NoEffect, Effect::Ignored));
}

#[test]
fn annotations_ask_for_a_load_balancer_at_another_address() {
    let place = |pairs: &[(&str, &str)]| {
        let desired = with(pairs);
        assert_eq!((roles(&desired), wanted(&desired).to), (vec![Role::Cluster, Role::External], Role::External));
        assert_eq!(desired.trees[1].families, [Family::V4]);
        desired.trees[1].place.clone()
    };
    let vip = Vip { network: None, subnet: None, address: None };
    let subnet = Vip { subnet: Some(id(0x42)), ..vip };
    let network = Vip { network: Some(id(0x42)), ..vip };
    assert_eq!(place(&[(annotations::SUBNET_ID, SOME)]), Place::Vips(vec![subnet]));
    assert_eq!(place(&[(annotations::NETWORK_ID, SOME)]), Place::Vips(vec![network]));
    assert_eq!(place(&[(annotations::PORT_ID, SOME), (annotations::SUBNET_ID, SOME)]), Place::Port(id(0x42)));
    assert_eq!(
        place(&[(annotations::LOAD_BALANCER_ID, SOME), (annotations::PORT_ID, SOME)]),
        Place::Existing(id(0x42))
    );
}

#[test]
fn they_mean_nothing_for_services_that_are_not_exposed() {
    let inner = Service { kind: Kind::ClusterIp, ..load_balancer(&[(annotations::SUBNET_ID, SOME)]) };
    assert_eq!(roles(&amphora(&inner)), [Role::Cluster]);
}

#[test]
fn a_load_balancer_of_somebody_else_gets_no_floating_ip_from_us() {
    let desired = with(&[(annotations::LOAD_BALANCER_ID, SOME)]);
    assert!(!wanted(&desired).make);
}

#[test]
fn a_floating_ip_comes_from_the_network_and_subnet_that_are_asked_for() {
    let (public, other) = ("00000000-0000-4000-8000-000000000003", "00000000-0000-4000-8000-000000000004");
    let (b, dmz) = ("00000000-0000-4000-8000-000000000016", "00000000-0000-4000-8000-000000000017");
    let place = |pairs: &[(&str, &str)]| {
        let desired = with(pairs);
        let floating = wanted(&desired);
        (floating.network, floating.subnets.clone())
    };
    let network = |n| Some(id(n));
    assert_eq!(place(&[(annotations::FLOATING_NETWORK_ID, other)]), (network(OTHER_PUBLIC), vec![]));
    assert_eq!(place(&[(annotations::FLOATING_SUBNET_ID, b)]), (network(PUBLIC), vec![id(22)]));
    // The subnet tells its network.
    assert_eq!(place(&[(annotations::FLOATING_SUBNET_ID, dmz)]), (network(OTHER_PUBLIC), vec![id(23)]));
    // One that Neutron does not show is believed in.
    assert_eq!(place(&[(annotations::FLOATING_SUBNET_ID, SOME)]), (network(PUBLIC), vec![id(0x42)]));
    assert_eq!(place(&[(annotations::FLOATING_SUBNET, "public-?")]), (network(PUBLIC), vec![id(21), id(22)]));
    assert_eq!(place(&[(annotations::FLOATING_SUBNET, "!*-b")]), (network(PUBLIC), vec![id(21)]));
    assert_eq!(place(&[(annotations::FLOATING_SUBNET_TAGS, "&fast, cheap")]), (network(PUBLIC), vec![id(21)]));
    assert_eq!(held(&with(&[(annotations::FLOATING_SUBNET, "private-*")])), Reason::UnknownSubnet);
    let elsewhere = [(annotations::FLOATING_NETWORK_ID, public), (annotations::FLOATING_SUBNET_ID, dmz)];
    assert_eq!(held(&with(&elsewhere)), Reason::UnknownSubnet);
}

#[test]
fn a_class_of_the_configuration_goes_before_single_annotations() {
    let mut site = site(Provider::Amphora);
    let class = Class { floating_network: Some(id(OTHER_PUBLIC)), subnet: Some(id(0x55)), ..Class::default() };
    site.classes.insert("dmz".to_owned(), class);
    let pairs = [
        (annotations::CLASS, "dmz"),
        (annotations::SUBNET_ID, SOME),
        (annotations::FLOATING_NETWORK_ID, "00000000-0000-4000-8000-000000000003"),
    ];
    let desired = desired(&load_balancer(&pairs), &[], &site);
    let vip = Vip { network: None, subnet: Some(id(0x55)), address: None };
    assert_eq!(desired.trees[1].place, Place::Vips(vec![vip]));
    assert_eq!(wanted(&desired).network, Some(id(OTHER_PUBLIC)));
    assert_eq!(held(&with(&[(annotations::CLASS, "dmz")])), Reason::UnknownClass);
}

#[test]
fn without_a_network_for_floating_ips_the_service_is_not_exposed_and_says_so() {
    let site = Site { floating_network: None, ..site(Provider::Amphora) };
    assert_eq!(held(&desired(&load_balancer(&[]), &[], &site)), Reason::NoFloatingNetwork);
    assert_eq!(desired(&load_balancer(&[(annotations::INTERNAL, "true")]), &[], &site).problems, []);
    // An address that is there already needs no network.
    let named = Service { load_balancer_ip: Some("203.0.113.9".to_owned()), ..load_balancer(&[]) };
    assert_eq!(wanted(&desired(&named, &[], &site)).network, None);
}

#[test]
fn a_wrong_value_for_what_exposes_a_service_holds_it_and_keeps_what_it_has() {
    assert_eq!(held(&with(&[(annotations::SUBNET_ID, "my-subnet")])), Reason::BadAnnotation);
    assert_eq!(held(&with(&[(annotations::INTERNAL, "yes")])), Reason::BadAnnotation);
    let harmless = with(&[(annotations::CONNECTION_LIMIT, "many")]);
    assert_eq!((wanted(&harmless).make, harmless.problems[0].effect), (true, Effect::Ignored));
}

#[test]
fn a_kept_floating_ip_is_known_by_a_tag() {
    assert!(wanted(&with(&[(annotations::KEEP_FLOATING_IP, "true")])).tags.iter().any(|tag| tag == KEEP_TAG));
    assert!(!wanted(&with(&[])).tags.iter().any(|tag| tag == KEEP_TAG));
}

#[test]
fn an_ipv6_service_is_exposed_at_its_own_address() {
    let desired = amphora(&Service { cluster_ips: vec![ip("fd00:96::10")], ..load_balancer(&[]) });
    assert_eq!((desired.floating, desired.exposed.at, desired.problems), (Floating::None, Some(Role::Cluster), vec![]));
}

#[test]
fn source_ranges_let_in_their_clients_and_those_in_the_cluster() {
    let limited = Service { source_ranges: vec!["192.0.2.9/24".to_owned()], ..load_balancer(&[]) };
    let desired = amphora(&limited);
    let allowed = &desired.trees[0].listeners[0].allowed_cidrs;
    assert_eq!(*allowed, nets(&["10.10.0.0/16", "10.96.0.0/16", "192.0.2.0/24", "192.168.7.0/24"]));
    assert_eq!(desired.problems, []);
    let legacy = with(&[(annotations::SOURCE_RANGES, "192.0.2.9/24")]);
    assert_eq!(legacy.trees, desired.trees);
}

#[test]
fn source_ranges_of_a_load_balancer_at_another_address_leave_the_cluster_ip_alone() {
    let limited =
        Service { source_ranges: vec!["192.0.2.0/24".to_owned()], ..load_balancer(&[(annotations::SUBNET_ID, SOME)]) };
    let desired = amphora(&limited);
    assert_eq!(desired.trees[0].listeners[0].allowed_cidrs, []);
    assert_eq!(desired.trees[1].listeners[0].allowed_cidrs, nets(&["192.0.2.0/24"]));
}

#[test]
fn source_ranges_that_mean_everybody_limit_nobody() {
    let open = Service { source_ranges: vec!["0.0.0.0/0".to_owned()], ..load_balancer(&[]) };
    assert_eq!(amphora(&open).trees[0].listeners[0].allowed_cidrs, []);
}

#[test]
fn source_ranges_that_cannot_be_read_let_nobody_in_but_the_cluster() {
    let unread = Service { source_ranges: vec!["everybody".to_owned()], ..load_balancer(&[]) };
    let desired = amphora(&unread);
    assert_eq!(desired.problems[0].reason, Reason::BadField);
    let allowed = &desired.trees[0].listeners[0].allowed_cidrs;
    assert_eq!(*allowed, nets(&["10.10.0.0/16", "10.96.0.0/16", "127.0.0.1/32", "192.168.7.0/24"]));
    let outside =
        Service { source_ranges: vec!["everybody".to_owned()], ..load_balancer(&[(annotations::SUBNET_ID, SOME)]) };
    let allowed = amphora(&outside).trees[1].listeners[0].allowed_cidrs.clone();
    assert!(!allowed.is_empty() && allowed.iter().all(|range| range.addr().is_loopback()));
}

#[test]
fn source_ranges_that_cannot_be_enforced_expose_nothing() {
    let mut site = site(Provider::Ovn);
    site.refusals.learn(Provider::Ovn, Feature::AllowedCidrs);
    let limited = Service { source_ranges: vec!["192.0.2.0/24".to_owned()], ..load_balancer(&[]) };
    let desired = desired(&limited, &[], &site);
    assert_eq!(held(&desired), Reason::SourceRangesNotEnforced);
    assert_eq!(desired.trees[0].listeners[0].allowed_cidrs, []);
}

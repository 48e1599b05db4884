use crate::service::{
    Desired, Effect, Feature, Listener, Provider, Reason, Service, Transport, annotations, desired,
    fixtures::{load_balancer, port, service, site},
    tree::Timeouts,
};
use kuryr_model::lb::{Algorithm, MonitorType, Protocol};

fn with(provider: Provider, annotations: &[(&str, &str)]) -> Desired {
    desired(&load_balancer(annotations), &[], &site(provider))
}

fn listener(desired: &Desired) -> &Listener {
    &desired.trees[0].listeners[0]
}

fn reasons(desired: &Desired) -> Vec<Reason> {
    desired.problems.iter().map(|problem| problem.reason).collect()
}

#[test]
fn endpoints_share_the_load_as_the_provider_can() {
    let algorithm = |provider| listener(&with(provider, &[])).pool.algorithm;
    assert_eq!(algorithm(Provider::Amphora), Algorithm::RoundRobin);
    assert_eq!(algorithm(Provider::Ovn), Algorithm::SourceIpPort);
    assert_eq!(algorithm(Provider::Other("f5".into())), Algorithm::RoundRobin);
}

#[test]
fn a_provider_that_nothing_is_known_of_is_learned_from_its_refusals() {
    let f5 = Provider::Other("f5".into());
    let mut site = site(f5.clone());
    let algorithm = |site: &crate::service::Site| desired(&service(), &[], site).trees[0].listeners[0].pool.algorithm;
    assert_eq!(algorithm(&site), Algorithm::RoundRobin);
    site.refusals.learn(f5, Feature::Algorithm(Algorithm::RoundRobin));
    assert_eq!(algorithm(&site), Algorithm::SourceIpPort);
}

#[test]
fn a_method_that_the_provider_does_not_have_is_told_and_its_own_is_used() {
    let ovn = with(Provider::Ovn, &[(annotations::LB_METHOD, "LEAST_CONNECTIONS")]);
    assert_eq!(listener(&ovn).pool.algorithm, Algorithm::SourceIpPort);
    assert_eq!(reasons(&ovn), [Reason::NotSupportedByProvider]);
    let amphora = with(Provider::Amphora, &[(annotations::LB_METHOD, "LEAST_CONNECTIONS")]);
    assert_eq!((listener(&amphora).pool.algorithm, reasons(&amphora)), (Algorithm::LeastConnections, vec![]));
}

#[test]
fn x_forwarded_for_makes_tcp_ports_http() {
    let service = Service {
        ports: vec![port("http", Transport::Tcp, 80), port("quic", Transport::Udp, 80)],
        ..load_balancer(&[(annotations::X_FORWARDED_FOR, "true")])
    };
    let listeners = desired(&service, &[], &site(Provider::Amphora)).trees[0].listeners.clone();
    assert_eq!((listeners[0].protocol, listeners[0].pool.protocol), (Protocol::Http, Protocol::Http));
    assert_eq!(listeners[0].insert_headers["X-Forwarded-For"], "true");
    assert_eq!((listeners[1].protocol, listeners[1].insert_headers.len()), (Protocol::Udp, 0));
}

#[test]
fn the_proxy_protocol_is_spoken_to_members_only() {
    for (value, protocol) in [("true", Protocol::Proxy), ("v2", Protocol::ProxyV2)] {
        let desired = with(Provider::Amphora, &[(annotations::PROXY_PROTOCOL, value)]);
        let listener = listener(&desired);
        assert_eq!((listener.protocol, listener.pool.protocol), (Protocol::Tcp, protocol));
    }
}

#[test]
fn what_ovn_cannot_do_is_known_before_it_is_asked() {
    let ovn = with(
        Provider::Ovn,
        &[
            (annotations::X_FORWARDED_FOR, "true"),
            (annotations::FLAVOR_ID, "00000000-0000-4000-8000-000000000042"),
            (annotations::AVAILABILITY_ZONE, "az1"),
            (annotations::CONNECTION_LIMIT, "100"),
            (annotations::TIMEOUT_CLIENT_DATA, "1000"),
        ],
    );
    let about: Vec<_> = ovn.problems.iter().map(|p| (p.reason, p.about.as_str(), p.effect)).collect();
    let ignored = Effect::Ignored;
    assert_eq!(
        about,
        [
            (Reason::NotSupportedByProvider, annotations::AVAILABILITY_ZONE, ignored),
            (Reason::NotSupportedByProvider, annotations::FLAVOR_ID, ignored),
            (Reason::NotSupportedByProvider, annotations::X_FORWARDED_FOR, ignored),
            (Reason::NoEffect, annotations::CONNECTION_LIMIT, ignored),
            (Reason::NoEffect, annotations::TIMEOUT_CLIENT_DATA, ignored),
        ]
    );
    let tree = &ovn.trees[0];
    assert_eq!((tree.flavor, &tree.availability_zone), (None, &None));
    let listener = listener(&ovn);
    assert_eq!((listener.protocol, listener.connection_limit, listener.timeouts), (Protocol::Tcp, -1, None));
    let proxy = with(Provider::Ovn, &[(annotations::PROXY_PROTOCOL, "true")]);
    assert_eq!((reasons(&proxy), listener.pool.protocol), (vec![Reason::NotSupportedByProvider], Protocol::Tcp));
}

#[test]
fn an_annotation_chooses_the_provider_of_one_service() {
    let desired = with(Provider::Ovn, &[(annotations::LB_PROVIDER, "amphora"), (annotations::X_FORWARDED_FOR, "true")]);
    assert_eq!(desired.trees[0].provider, Provider::Amphora);
    assert_eq!((listener(&desired).protocol, reasons(&desired)), (Protocol::Http, vec![]));
}

#[test]
fn limits_and_timeouts_are_set_where_they_work() {
    let set =
        with(Provider::Amphora, &[(annotations::CONNECTION_LIMIT, "100"), (annotations::TIMEOUT_MEMBER_DATA, "3000")]);
    let timeouts = Timeouts { client_data: 50_000, member_connect: 5_000, member_data: 3_000, tcp_inspect: 0 };
    assert_eq!((listener(&set).connection_limit, listener(&set).timeouts), (100, Some(timeouts)));
    assert_eq!(listener(&with(Provider::Amphora, &[])).connection_limit, -1);
}

#[test]
fn health_monitors_ask_as_the_port_speaks_and_as_the_provider_can() {
    let service = Service {
        ports: vec![port("a", Transport::Tcp, 1), port("b", Transport::Udp, 2), port("c", Transport::Sctp, 3)],
        ..load_balancer(&[(annotations::ENABLE_HEALTH_MONITOR, "true"), (annotations::HEALTH_MONITOR_DELAY, "1")])
    };
    let monitors = |provider| {
        let desired = desired(&service, &[], &site(provider));
        let monitor = |listener: &Listener| listener.pool.monitor.as_ref().map(|monitor| (monitor.kind, monitor.delay));
        (desired.trees[0].listeners.iter().map(monitor).collect::<Vec<_>>(), reasons(&desired))
    };
    // Octavia wants 3 seconds between questions over UDP.
    let (tcp, udp) = (Some((MonitorType::Tcp, 1)), Some((MonitorType::UdpConnect, 3)));
    assert_eq!(monitors(Provider::Amphora), (vec![tcp, udp, Some((MonitorType::Sctp, 1))], vec![]));
    assert_eq!(monitors(Provider::Ovn), (vec![tcp, udp, None], vec![Reason::NotSupportedByProvider]));
    assert_eq!(listener(&with(Provider::Ovn, &[])).pool.monitor, None);
}

#[test]
fn a_port_whose_protocol_was_refused_is_not_served_and_the_others_are() {
    let mut site = site(Provider::Other("f5".into()));
    site.refusals.learn(site.provider.clone(), Feature::Protocol(Protocol::Sctp));
    let service = Service { ports: vec![port("a", Transport::Tcp, 1), port("c", Transport::Sctp, 3)], ..service() };
    let desired = desired(&service, &[], &site);
    assert_eq!(desired.trees[0].listeners.len(), 1);
    assert_eq!(desired.problems[0].effect, Effect::NotServed);
}

#[test]
fn a_problem_of_both_load_balancers_is_told_once() {
    let two = with(
        Provider::Ovn,
        &[(annotations::SUBNET_ID, "00000000-0000-4000-8000-000000000042"), (annotations::AVAILABILITY_ZONE, "az1")],
    );
    assert_eq!((two.trees.len(), reasons(&two)), (2, vec![Reason::NotSupportedByProvider]));
}

use super::*;

fn read(pairs: &[(&str, &str)]) -> (Options, Vec<Problem>) {
    parse(&pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
}

const ID: &str = "6e2a7d52-6a7e-4f0e-9d6c-0123456789ab";

#[test]
fn a_service_without_annotations_asks_for_nothing_special() {
    let (options, problems) = read(&[("example.org/other", "x")]);
    assert_eq!(problems, []);
    assert!(!options.internal && !options.held && !options.keep_floating_ip);
    assert_eq!((options.monitor, options.algorithm, options.proxy_protocol), (None, None, None));
}

#[test]
fn every_annotation_is_read() {
    let (options, problems) = read(&[
        (INTERNAL_LEGACY, "true"),
        (SOURCE_RANGES, "192.0.2.0/24, 2001:db8::/32"),
        (LOAD_BALANCER_ID, ID),
        (PORT_ID, ID),
        (SUBNET_ID, ID),
        (NETWORK_ID, ID),
        (MEMBER_SUBNET_ID, ID),
        (FLOATING_NETWORK_ID, ID),
        (FLOATING_SUBNET_ID, ID),
        (FLOATING_SUBNET, "public-*"),
        (FLOATING_SUBNET_TAGS, "a,b"),
        (CLASS, "dmz"),
        (KEEP_FLOATING_IP, "true"),
        (HOSTNAME, "www.example.org"),
        (LOAD_BALANCER_ADDRESS, "192.0.2.7"),
        (LB_PROVIDER, "ovn"),
        (FLAVOR_ID, ID),
        (AVAILABILITY_ZONE, "az1"),
        (CONNECTION_LIMIT, "100"),
        (TIMEOUT_CLIENT_DATA, "1000"),
        (TIMEOUT_MEMBER_CONNECT, "2000"),
        (TIMEOUT_MEMBER_DATA, "3000"),
        (TIMEOUT_TCP_INSPECT, "4000"),
        (X_FORWARDED_FOR, "true"),
        (PROXY_PROTOCOL, "false"),
        (LB_METHOD, "SOURCE_IP"),
        (ENABLE_HEALTH_MONITOR, "true"),
        (HEALTH_MONITOR_DELAY, "10"),
        (HEALTH_MONITOR_TIMEOUT, "5"),
        (HEALTH_MONITOR_MAX_RETRIES, "2"),
        (HEALTH_MONITOR_MAX_RETRIES_DOWN, "4"),
    ]);
    assert_eq!(problems, []);
    let expected = Options {
        internal: true,
        load_balancer: ID.parse().ok(),
        port: ID.parse().ok(),
        subnet: ID.parse().ok(),
        network: ID.parse().ok(),
        member_subnet: ID.parse().ok(),
        floating_network: ID.parse().ok(),
        floating_subnet: Some(SubnetChoice::Id(ID.parse().unwrap())),
        class: Some("dmz".into()),
        keep_floating_ip: true,
        hostname: Some("www.example.org".into()),
        provider: Some(Provider::Ovn),
        flavor: ID.parse().ok(),
        availability_zone: Some("az1".into()),
        connection_limit: Some(100),
        timeouts: Timeouts { client_data: 1000, member_connect: 2000, member_data: 3000, tcp_inspect: 4000 },
        timeouts_asked: vec![TIMEOUT_CLIENT_DATA, TIMEOUT_MEMBER_CONNECT, TIMEOUT_MEMBER_DATA, TIMEOUT_TCP_INSPECT],
        x_forwarded_for: true,
        proxy_protocol: None,
        algorithm: Some(Algorithm::SourceIp),
        source_ranges: vec!["192.0.2.0/24".into(), "2001:db8::/32".into()],
        monitor: Some(MonitorOptions { delay: 10, timeout: 5, max_retries: 2, max_retries_down: 4 }),
        held: false,
    };
    assert_eq!(options, expected);
}

#[test]
fn a_wrong_value_names_annotation_value_and_fix_and_leaves_the_rest_as_it_is() {
    for name in ALL.iter().filter(|name| !FREE.contains(name)) {
        let (options, problems) = read(&[(name, "§"), (AVAILABILITY_ZONE, "az1")]);
        assert_eq!(problems.len(), 1, "{name}: {problems:?}");
        let problem = &problems[0];
        assert!(problem.about == *name && problem.message.contains(name), "{problem:?}");
        assert_eq!(options.held, problem.effect == Effect::NotExposed, "{problem:?}");
        assert_eq!(options.availability_zone.as_deref(), Some("az1"));
        if problem.reason == Reason::BadAnnotation {
            assert!(problem.message.contains("\"§\"") && problem.message.contains("must be"), "{problem:?}");
        }
    }
}

/// Annotations that may have any value, as far as can be told without knowing the cloud.
const FREE: [&str; 7] = [
    SOURCE_RANGES,
    CLASS,
    FLOATING_SUBNET,
    FLOATING_SUBNET_TAGS,
    LOAD_BALANCER_ADDRESS,
    LB_PROVIDER,
    AVAILABILITY_ZONE,
];

#[test]
fn a_wrong_value_for_what_exposes_a_service_holds_it() {
    let holding = [
        INTERNAL,
        INTERNAL_LEGACY,
        LOAD_BALANCER_ID,
        PORT_ID,
        SUBNET_ID,
        NETWORK_ID,
        FLOATING_NETWORK_ID,
        FLOATING_SUBNET_ID,
        DEFAULT_TLS_CONTAINER_REF,
    ];
    for name in ALL.iter().filter(|name| !FREE.contains(name)) {
        assert_eq!(read(&[(name, "no such thing")]).0.held, holding.contains(name), "{name}");
    }
    assert!(read(&[(INTERNAL, "yes")]).0.internal);
    assert!(read(&[(FLOATING_SUBNET, "~public.*")]).0.held);
}

#[test]
fn internal_by_one_name_and_not_by_the_other_holds_the_service() {
    let (options, problems) = read(&[(INTERNAL, "false"), (INTERNAL_LEGACY, "true")]);
    assert!(options.internal && options.held);
    assert_eq!(problems[0].reason, Reason::AnnotationConflict);
    assert!(!read(&[(INTERNAL, "true"), (INTERNAL_LEGACY, "true")]).0.held);
}

#[test]
fn the_proxy_protocol_has_two_versions_and_excludes_the_header() {
    for (value, protocol) in [("true", Protocol::Proxy), ("v1", Protocol::Proxy), ("v2", Protocol::ProxyV2)] {
        assert_eq!(read(&[(PROXY_PROTOCOL, value)]).0.proxy_protocol, Some(protocol));
    }
    let (options, problems) = read(&[(PROXY_PROTOCOL, "v2"), (X_FORWARDED_FOR, "true")]);
    assert_eq!((options.x_forwarded_for, options.proxy_protocol), (false, Some(Protocol::ProxyV2)));
    assert_eq!(problems[0].reason, Reason::AnnotationConflict);
}

#[test]
fn a_health_monitor_never_waits_longer_than_until_its_next_question() {
    let monitor = |pairs: &[(&str, &str)]| {
        let all: Vec<_> = pairs.iter().copied().chain([(ENABLE_HEALTH_MONITOR, "true")]).collect();
        let (options, problems) = read(&all);
        (options.monitor.map(|monitor| (monitor.delay, monitor.timeout)), problems.len())
    };
    assert_eq!(monitor(&[]), (Some((60, 30)), 0));
    assert_eq!(monitor(&[(HEALTH_MONITOR_DELAY, "5")]), (Some((5, 5)), 0));
    assert_eq!(monitor(&[(HEALTH_MONITOR_TIMEOUT, "90")]), (Some((60, 30)), 1));
}

#[test]
fn a_floating_ip_is_kept_when_in_doubt() {
    assert!(read(&[(KEEP_FLOATING_IP, "yes please")]).0.keep_floating_ip);
    assert!(!read(&[(KEEP_FLOATING_IP, "false")]).0.keep_floating_ip);
}

#[test]
fn an_empty_value_is_none() {
    let pairs: Vec<_> = ALL.iter().map(|name| (*name, " ")).collect();
    assert_eq!(read(&pairs), read(&[]));
}

#[test]
fn a_limit_of_connections_is_a_number_or_none() {
    assert_eq!(read(&[(CONNECTION_LIMIT, "-1")]).0.connection_limit, Some(-1));
    for bad in ["0", "-2", "1e3", "99999999999"] {
        assert_eq!(read(&[(CONNECTION_LIMIT, bad)]).1.len(), 1, "{bad}");
    }
}

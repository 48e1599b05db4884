//! Load balancers and floating IPs with packets.

use super::{
    CORE, FloatingIp, Inside, Listener, LoadBalancer, Member, Provider, Snapshot,
    balance_model::{Through, balancers, eligible, services, through},
    changes, compile, compile_core, initial, initial_core,
    lab::{Lab, PATIENCE, SILENCE, everything, open_world, port, runtime},
    model_tests::{NODES, Opening, change, id, world},
    namespaces::testing::isolated,
    probe::{self, Answer, Datagrams, Echo},
    ruleset::Ruleset,
    worker::nft,
};
use fastrand::Rng;
use futures::future::join_all;
use ipnet::IpNet;
use kuryr_model::{
    SecurityGroupId,
    neutron::{Direction, EtherType, RuleContent},
};
use kuryr_node::netns;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    path::Path,
    time::{Duration, Instant},
};

const VIP: &str = "10.0.0.220";
const VIP_V6: &str = "fd00::dc";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Where a port of [`open_world`] has its addresses.
fn own(number: u64, v6: bool) -> IpAddr {
    ip(&if v6 { format!("fd00::{:x}", 9 + number) } else { format!("10.0.0.{}", 9 + number) })
}

fn member(ip: IpAddr) -> Member {
    Member { ip, number: 8080, weight: 1, online: true }
}

/// Port number 80 of both virtual addresses, over TCP and UDP, with these ports of the world at 8080 behind it.
fn balancer(provider: Provider, members: &[u64]) -> LoadBalancer {
    let members: Vec<Member> =
        members.iter().flat_map(|number| [false, true].map(|v6| member(own(*number, v6)))).collect();
    let listener =
        |protocol| Listener { protocol, number: 80, clients: Vec::new(), sticky: false, members: members.clone() };
    LoadBalancer { provider, vips: vec![ip(VIP), ip(VIP_V6)], listeners: vec![listener(6), listener(17)] }
}

fn vip(v6: bool) -> SocketAddr {
    SocketAddr::new(ip(if v6 { VIP_V6 } else { VIP }), 80)
}

/// Servers on these ports at 8080, each named by its number.
async fn serve(lab: &Lab, members: &[u64]) -> Vec<Echo> {
    let mut echoes = Vec::new();
    for number in members {
        for v6 in [false, true] {
            let address = SocketAddr::new(own(*number, v6), 8080);
            echoes.push(probe::listen_as(lab.netns(port(*number)), address, &number.to_string()).await.unwrap());
        }
    }
    echoes
}

/// Who answers a connection and a datagram.
async fn ask(netns: &Path, target: SocketAddr, patience: Duration) -> [Result<Answer, probe::Error>; 2] {
    let datagram = async { Datagrams::open(netns, None, target).await?.who(patience).await };
    tokio::join!(probe::who(netns, target, patience), datagram).into()
}

async fn answers(netns: &Path, target: SocketAddr) -> [Answer; 2] {
    ask(netns, target, PATIENCE).await.map(|answer| answer.unwrap_or_else(|error| panic!("{target}: {error:?}")))
}

async fn nobody_answers(netns: &Path, target: SocketAddr) {
    for answer in ask(netns, target, SILENCE).await {
        assert!(answer.is_err(), "{target}: {answer:?}");
    }
}

fn group(number: u64) -> SecurityGroupId {
    SecurityGroupId(id(number))
}

fn toward(address: IpAddr, number: u16, direction: Direction) -> RuleContent {
    let family = if address.is_ipv4() { EtherType::IPv4 } else { EtherType::IPv6 };
    RuleContent {
        protocol: Some("tcp".into()),
        port_range_min: Some(number),
        port_range_max: Some(number),
        remote_ip_prefix: Some(address.into()),
        ..RuleContent::everything(direction, family)
    }
}

/// Lets a port ask nothing but what these rules say; it may be asked everything.
fn restrict(world: &mut Snapshot, number: u64, rules: Vec<RuleContent>) {
    let ingress = [EtherType::IPv4, EtherType::IPv6].map(|family| RuleContent::everything(Direction::Ingress, family));
    let own = group(100 + number);
    world.groups.insert(own, [ingress.to_vec(), rules].concat());
    world.ports.get_mut(&port(number)).unwrap().groups = [own].into();
}

fn name(test: &str) -> String {
    format!("dataplane::balance_tests::{test}")
}

#[test]
fn a_restricted_sender_needs_the_rule_of_the_vip_and_that_of_the_member() {
    let test = name("a_restricted_sender_needs_the_rule_of_the_vip_and_that_of_the_member");
    isolated(&test, |inside| {
        // 1 is the member; 3 is on its node, 2 on the other.
        let mut world = open_world(3);
        world.load_balancers = vec![balancer(Provider::Ovn, &[1])];
        runtime().block_on(async {
            let mut lab = Lab::start(inside, &world).await;
            let _echoes = serve(&lab, &[1]).await;
            for v6 in [false, true] {
                let to_vip = toward(vip(v6).ip(), 80, Direction::Egress);
                let to_member = toward(own(1, v6), 8080, Direction::Egress);
                // The numbers must fit their addresses too.
                let crossed =
                    [toward(vip(v6).ip(), 8080, Direction::Egress), toward(own(1, v6), 80, Direction::Egress)];
                for (rules, expected) in [
                    (vec![], Through::Nothing),
                    (vec![to_member.clone()], Through::Nothing),
                    (crossed.to_vec(), Through::Nothing),
                    (vec![to_vip.clone()], Through::Opens),
                    (vec![to_vip, to_member], Through::Works),
                ] {
                    for sender in [2, 3] {
                        restrict(&mut world, sender, rules.clone());
                    }
                    lab.follow(&world).await;
                    for sender in [2, 3] {
                        let netns = lab.netns(port(sender));
                        let found = match probe::connect(netns, vip(v6), SILENCE * 2).await {
                            Err(_) => Through::Nothing,
                            Ok(mut session) => match session.exchange(SILENCE * 2).await {
                                Err(_) => Through::Opens,
                                Ok(()) => Through::Works,
                            },
                        };
                        assert_eq!(found, expected, "{sender} with {rules:?}");
                    }
                }
            }
        });
    });
}

#[test]
fn an_open_connection_through_a_vip_ends_with_the_members_rule_and_not_with_the_vips() {
    let test = name("an_open_connection_through_a_vip_ends_with_the_members_rule_and_not_with_the_vips");
    isolated(&test, |inside| {
        let mut world = open_world(3);
        world.load_balancers = vec![balancer(Provider::Ovn, &[1])];
        let rules = [toward(ip(VIP), 80, Direction::Egress), toward(own(1, false), 8080, Direction::Egress)];
        runtime().block_on(async {
            let mut lab = Lab::start(inside, &world).await;
            let _echoes = serve(&lab, &[1]).await;
            for sender in [2, 3] {
                restrict(&mut world, sender, rules.to_vec());
                lab.follow(&world).await;
                let netns = lab.netns(port(sender)).to_owned();
                let mut session = probe::connect(&netns, vip(false), PATIENCE).await.unwrap();
                session.exchange(PATIENCE).await.unwrap();
                // OVN looks at an established connection's member alone.
                restrict(&mut world, sender, rules[1..].to_vec());
                lab.follow(&world).await;
                session.exchange(PATIENCE).await.unwrap();
                assert!(probe::connect(&netns, vip(false), SILENCE).await.unwrap_err().is_silent());
                restrict(&mut world, sender, rules[..1].to_vec());
                lab.follow(&world).await;
                assert!(session.exchange(SILENCE).await.unwrap_err().is_silent());
                restrict(&mut world, sender, rules.to_vec());
                lab.follow(&world).await;
                session.exchange(PATIENCE * 3).await.unwrap();
                // The receiver's side likewise.
                let groups = std::mem::take(&mut world.ports.get_mut(&port(1)).unwrap().groups);
                lab.follow(&world).await;
                assert!(session.exchange(SILENCE).await.unwrap_err().is_silent());
                world.ports.get_mut(&port(1)).unwrap().groups = groups;
                lab.follow(&world).await;
                session.exchange(PATIENCE * 3).await.unwrap();
            }
        });
    });
}

#[test]
fn a_member_sees_the_client_and_itself_as_the_vip_and_its_rules_do_too() {
    let test = name("a_member_sees_the_client_and_itself_as_the_vip_and_its_rules_do_too");
    isolated(&test, |inside| {
        let mut world = open_world(3);
        world.load_balancers = vec![balancer(Provider::Ovn, &[1])];
        runtime().block_on(async {
            let mut lab = Lab::start(inside, &world).await;
            let _echoes = serve(&lab, &[1]).await;
            for v6 in [false, true] {
                for (sender, seen) in [(1, vip(v6).ip()), (2, own(2, v6)), (3, own(3, v6))] {
                    for answer in answers(lab.netns(port(sender)), vip(v6)).await {
                        assert_eq!((answer.name.as_str(), answer.source.ip()), ("1", seen));
                    }
                }
            }
            let let_in = |world: &mut Snapshot, sources: &[IpAddr]| {
                let egress =
                    [EtherType::IPv4, EtherType::IPv6].map(|family| RuleContent::everything(Direction::Egress, family));
                let rules = sources.iter().map(|source| toward(*source, 8080, Direction::Ingress));
                world.groups.insert(group(9), egress.into_iter().chain(rules).collect());
                world.ports.get_mut(&port(1)).unwrap().groups = [group(9)].into();
            };
            for (sources, admitted) in
                [(vec![own(1, false), own(2, false)], vec![2]), (vec![vip(false).ip(), own(3, false)], vec![1, 3])]
            {
                let_in(&mut world, &sources);
                lab.follow(&world).await;
                for sender in 1..=3 {
                    let reached = probe::reach(lab.netns(port(sender)), vip(false), SILENCE * 2).await;
                    assert_eq!(reached.is_ok(), admitted.contains(&sender), "{sender}: {reached:?}");
                }
            }
        });
    });
}

/// How often each member answers so many connections, and datagrams, from one place.
async fn census(netns: &Path, count: usize) -> BTreeMap<String, usize> {
    let asked = join_all((0..count).map(|_| answers(netns, vip(false)))).await;
    let mut counts = BTreeMap::new();
    asked.into_iter().flatten().for_each(|answer| *counts.entry(answer.name).or_insert(0) += 1);
    counts
}

#[test]
fn connections_spread_over_members_and_stay_where_they_are() {
    isolated(&name("connections_spread_over_members_and_stay_where_they_are"), |inside| {
        let mut world = open_world(5);
        world.load_balancers = vec![balancer(Provider::Ovn, &[1, 2, 3, 4])];
        runtime().block_on(async {
            let mut lab = Lab::start(inside, &world).await;
            let _echoes = serve(&lab, &[1, 2, 3, 4]).await;
            let client = lab.netns(port(5)).to_owned();
            let counts = census(&client, 100).await;
            assert!(counts.len() == 4 && counts.values().all(|count| (20..90).contains(count)), "{counts:?}");

            // Everybody has a connection when one is drained, one is found ill and one is removed.
            let mut sessions = BTreeMap::new();
            while sessions.len() < 4 {
                let mut session = probe::connect(&client, vip(false), PATIENCE).await.unwrap();
                let who = session.who(PATIENCE).await.unwrap();
                sessions.entry(who.name).or_insert(session);
            }
            for listener in &mut world.load_balancers[0].listeners {
                listener.members.iter_mut().filter(|member| member.ip == own(1, false)).for_each(|it| it.weight = 0);
                listener
                    .members
                    .iter_mut()
                    .filter(|member| member.ip == own(2, false))
                    .for_each(|it| it.online = false);
                listener.members.retain(|member| member.ip != own(3, false));
            }
            lab.follow(&world).await;
            assert_eq!(census(&client, 20).await.into_keys().collect::<Vec<_>>(), ["4"]);
            // OVN of this age leaves what is established to connection tracking.
            for (name, session) in &mut sessions {
                assert_eq!(session.who(PATIENCE).await.unwrap().name, *name);
            }

            // Who sticks, sticks, and not all to the same.
            for listener in &mut world.load_balancers[0].listeners {
                listener.members = [1, 2, 3, 4].map(|number| member(own(number, false))).to_vec();
                listener.sticky = true;
            }
            lab.follow(&world).await;
            let mut chosen = BTreeSet::new();
            for sender in 1..=5 {
                let counts = census(lab.netns(port(sender)), 20).await;
                assert_eq!(counts.len(), 1, "{sender}: {counts:?}");
                chosen.extend(counts.into_keys());
            }
            assert!(chosen.len() > 1, "{chosen:?}");
        });
    });
}

#[test]
fn a_vip_is_reached_from_everywhere_that_it_is_routed_to_and_is_nobody_else() {
    isolated(&name("a_vip_is_reached_from_everywhere_that_it_is_routed_to_and_is_nobody_else"), |inside| {
        // 2 is in a joined subnet, 3 in one alone.
        let mut world = open_world(4);
        for (number, subnet) in [(2, 1), (3, 2)] {
            world.ports.get_mut(&port(number)).unwrap().ips =
                vec![ip(&format!("10.0.{subnet}.99")), ip(&format!("fd0{subnet}::99"))];
        }
        world.load_balancers = vec![balancer(Provider::Ovn, &[1])];
        runtime().block_on(async {
            let mut lab = Lab::start(inside, &world).await;
            let _echoes = serve(&lab, &[1]).await;
            let sources = |lab: &Lab| -> Vec<(std::path::PathBuf, [IpAddr; 2])> {
                let pod = |number, ips| (lab.netns(port(number)).to_owned(), ips);
                let nodes = lab.fabric.nodes().iter();
                let nodes = nodes.map(|node| (node.netns.clone(), [node.address.into(), node.address_v6.into()]));
                let outside = (lab.fabric.outside().to_owned(), [CORE.into(), super::CORE_V6.into()]);
                let pods = [pod(4, [own(4, false), own(4, true)]), pod(2, [ip("10.0.1.99"), ip("fd01::99")])];
                pods.into_iter().chain(nodes).chain([outside]).collect()
            };
            for (netns, seen) in sources(&lab) {
                for (v6, seen) in [false, true].into_iter().zip(seen) {
                    for answer in answers(&netns, vip(v6)).await {
                        assert_eq!((answer.name.as_str(), answer.source.ip()), ("1", seen), "from {}", netns.display());
                    }
                    assert!(probe::ping(&netns, vip(v6).ip(), SILENCE).await.is_err(), "a VIP answers no ping");
                    nobody_answers(&netns, SocketAddr::new(vip(v6).ip(), 81)).await;
                }
            }
            for v6 in [false, true] {
                nobody_answers(lab.netns(port(3)), vip(v6)).await;
            }
            // Nobody behind it: silence. Not routed: only its own subnet is left.
            let members = std::mem::take(&mut world.load_balancers[0].listeners[0].members);
            lab.follow(&world).await;
            for (netns, _) in sources(&lab) {
                let error = probe::connect(&netns, vip(false), SILENCE).await.unwrap_err();
                assert!(error.is_silent(), "from {}: {error:?}", netns.display());
            }
            world.load_balancers[0].listeners[0].members = members;
            world.routers.clear();
            lab.follow(&world).await;
            for (number, (netns, _)) in sources(&lab).into_iter().enumerate() {
                let reached = probe::connect(&netns, vip(false), if number == 0 { PATIENCE } else { SILENCE }).await;
                assert_eq!(reached.is_ok(), number == 0, "from {}: {reached:?}", netns.display());
            }
        });
    });
}

#[test]
fn the_testbeds_own_servers_can_be_members() {
    isolated(&name("the_testbeds_own_servers_can_be_members"), |inside| {
        let mut world = open_world(2);
        let mut balancer = balancer(Provider::Ovn, &[]);
        balancer.listeners[0].members = vec![Member { number: 6443, ..member(CORE.into()) }];
        let node = |number: u8| member(IpAddr::from([100, 64, 1, 1 + number]));
        balancer.listeners.push(Listener { number: 81, members: vec![node(0)], ..balancer.listeners[0].clone() });
        world.load_balancers = vec![balancer];
        runtime().block_on(async {
            let lab = Lab::start(inside, &world).await;
            let outside = lab.fabric.outside().to_owned();
            let _api = probe::listen_as(&outside, (CORE, 6443).into(), "api").await.unwrap();
            let first = &lab.fabric.nodes()[0];
            let _node = probe::listen_as(&first.netns, (first.address, 8080).into(), "node").await.unwrap();
            for netns in [lab.netns(port(1)), lab.netns(port(2)), &first.netns, &outside] {
                for (number, server) in [(80, "api"), (81, "node")] {
                    let answer = probe::who(netns, SocketAddr::new(ip(VIP), number), PATIENCE).await.unwrap();
                    assert_eq!(answer.name, server, "from {}", netns.display());
                }
            }
        });
    });
}

#[test]
fn an_amphora_hides_its_client_knows_who_may_connect_and_refuses_for_nobody() {
    isolated(&name("an_amphora_hides_its_client_knows_who_may_connect_and_refuses_for_nobody"), |inside| {
        let mut world = open_world(3);
        world.load_balancers = vec![balancer(Provider::Amphora, &[1])];
        let floating = FloatingIp { floating: [172, 24, 0, 7].into(), fixed: [10, 0, 0, 220].into(), port: port(99) };
        world.floating_ips = vec![floating];
        runtime().block_on(async {
            let mut lab = Lab::start(inside, &world).await;
            let _echoes = serve(&lab, &[1]).await;
            let outside = lab.fabric.outside().to_owned();
            let node = lab.fabric.nodes()[1].netns.clone();
            let everywhere = [1, 2, 3].map(|number| lab.netns(port(number)).to_owned()).into_iter();
            for netns in everywhere.chain([outside.clone(), node]) {
                for v6 in [false, true] {
                    for answer in answers(&netns, vip(v6)).await {
                        assert_eq!((answer.name.as_str(), answer.source.ip()), ("1", vip(v6).ip()));
                    }
                    nobody_answers(&netns, SocketAddr::new(vip(v6).ip(), 81)).await;
                    assert!(probe::ping(&netns, vip(v6).ip(), SILENCE).await.is_err());
                }
                for answer in answers(&netns, (floating.floating, 80).into()).await {
                    assert_eq!((answer.name.as_str(), answer.source.ip()), ("1", vip(false).ip()));
                }
            }
            // A sender need not be allowed to reach the member, who in turn is asked by the VIP.
            restrict(&mut world, 2, vec![toward(ip(VIP), 80, Direction::Egress)]);
            lab.follow(&world).await;
            let mut session = probe::connect(lab.netns(port(2)), vip(false), PATIENCE).await.unwrap();
            session.exchange(PATIENCE).await.unwrap();

            // Who may connect is asked for every packet.
            let clients: Vec<IpNet> = vec![IpNet::from(own(3, false))];
            world.load_balancers[0].listeners.iter_mut().for_each(|listener| listener.clients = clients.clone());
            lab.follow(&world).await;
            assert!(session.exchange(SILENCE).await.unwrap_err().is_silent());
            answers(lab.netns(port(3)), vip(false)).await;
            for refused in [lab.netns(port(1)), &outside] {
                nobody_answers(refused, vip(false)).await;
                nobody_answers(refused, (floating.floating, 80).into()).await;
            }
            for listener in &mut world.load_balancers[0].listeners {
                listener.clients.clear();
                listener.members.clear();
            }
            lab.follow(&world).await;
            for netns in [lab.netns(port(1)), lab.netns(port(3)), &outside] {
                for v6 in [false, true] {
                    for answer in ask(netns, vip(v6), PATIENCE).await {
                        assert!(matches!(answer, Err(probe::Error::Refused { .. })), "{answer:?}");
                    }
                }
            }
        });
    });
}

#[test]
fn ovn_lets_in_whom_a_listener_allows() {
    isolated(&name("ovn_lets_in_whom_a_listener_allows"), |inside| {
        let mut world = open_world(3);
        world.load_balancers = vec![balancer(Provider::Ovn, &[1])];
        for listener in &mut world.load_balancers[0].listeners {
            listener.clients = vec![own(2, false).into(), own(2, true).into(), "100.64.0.0/16".parse().unwrap()];
        }
        runtime().block_on(async {
            let lab = Lab::start(inside, &world).await;
            let _echoes = serve(&lab, &[1]).await;
            answers(lab.netns(port(2)), vip(false)).await;
            answers(lab.netns(port(2)), vip(true)).await;
            answers(lab.fabric.outside(), vip(false)).await;
            nobody_answers(lab.netns(port(3)), vip(false)).await;
            nobody_answers(lab.netns(port(3)), vip(true)).await;
            nobody_answers(lab.fabric.outside(), vip(true)).await;
        });
    });
}

#[test]
fn a_floating_ip_stands_for_its_port_both_ways_until_it_is_taken_away() {
    isolated(&name("a_floating_ip_stands_for_its_port_both_ways_until_it_is_taken_away"), |inside| {
        let mut world = open_world(4);
        let floating = |last: u8, number: u8| FloatingIp {
            floating: [172, 24, 0, last].into(),
            fixed: [10, 0, 0, 9 + number].into(),
            port: port(number.into()),
        };
        // 1 and 3 are on one node, 2 and 4 on the other.
        world.floating_ips = vec![floating(1, 1), floating(2, 2), floating(3, 3)];
        let at = |last| SocketAddr::new([172, 24, 0, last].into(), 8080);
        runtime().block_on(async {
            let mut lab = Lab::start(inside, &world).await;
            let _echoes = serve(&lab, &[1, 2]).await;
            let outside = lab.fabric.outside().to_owned();
            let _server = probe::listen_as(&outside, (CORE, 6443).into(), "outside").await.unwrap();
            let pods = [1, 2, 3, 4].map(|number| lab.netns(port(number)).to_owned());
            let netns = |number: usize| pods[number - 1].clone();
            let node = |number: usize| (lab.fabric.nodes()[number].netns.clone(), lab.fabric.nodes()[number].address);
            for (from, seen, last, server) in [
                (outside.clone(), CORE.into(), 1, "1"),
                (outside.clone(), CORE.into(), 2, "2"),
                (node(0).0, node(0).1.into(), 1, "1"),
                (node(0).0, node(0).1.into(), 2, "2"),
                // With one of its own, a port is seen as that; without, as itself.
                (netns(3), at(3).ip(), 1, "1"),
                (netns(3), at(3).ip(), 2, "2"),
                (netns(4), own(4, false), 1, "1"),
                (netns(4), own(4, false), 2, "2"),
                (netns(1), at(1).ip(), 1, "1"),
            ] {
                for answer in answers(&from, at(last)).await {
                    assert_eq!((answer.name.as_str(), answer.source.ip()), (server, seen), "{last} from {seen}");
                }
            }
            probe::ping(&outside, at(1).ip(), PATIENCE).await.unwrap();
            for (number, seen) in [(1, at(1).ip()), (2, at(2).ip()), (4, own(4, false))] {
                let answer = probe::who(&netns(number), (CORE, 6443).into(), PATIENCE).await.unwrap();
                assert_eq!((answer.name.as_str(), answer.source.ip()), ("outside", seen));
            }
            // Among themselves ports are who they are.
            let direct = SocketAddr::new(own(1, false), 8080);
            assert_eq!(answers(&netns(3), direct).await[0].source.ip(), own(3, false));

            // Security groups: the sender's see the floating IP, the receiver's the one of the sender.
            restrict(&mut world, 3, vec![toward(at(1).ip(), 8080, Direction::Egress)]);
            let egress = RuleContent::everything(Direction::Egress, EtherType::IPv4);
            world.groups.insert(group(9), vec![egress, toward(at(3).ip(), 8080, Direction::Ingress)]);
            world.ports.get_mut(&port(1)).unwrap().groups = [group(9)].into();
            lab.follow(&world).await;
            probe::reach(&netns(3), at(1), PATIENCE).await.unwrap();
            for (from, target) in [(netns(3), at(2)), (netns(4), at(1)), (outside.clone(), at(1))] {
                assert!(probe::reach(&from, target, SILENCE).await.is_err(), "{target} was reached");
            }
            everything(&mut world);

            // Moved from 1 to 4: what was open through it ends, both ways.
            lab.follow(&world).await;
            let mut sessions = [
                probe::connect(&outside, at(1), PATIENCE).await.unwrap(),
                probe::connect(&netns(1), (CORE, 6443).into(), PATIENCE).await.unwrap(),
            ];
            for session in &mut sessions {
                session.exchange(PATIENCE).await.unwrap();
            }
            world.floating_ips[0] = floating(1, 4);
            lab.follow(&world).await;
            for session in &mut sessions {
                assert!(session.exchange(SILENCE).await.is_err());
            }
            let seen = probe::who(&netns(4), (CORE, 6443).into(), PATIENCE).await.unwrap();
            assert_eq!(seen.source.ip(), at(1).ip());
            world.floating_ips.clear();
            lab.follow(&world).await;
            nobody_answers(&outside, at(1)).await;
            let seen = probe::who(&netns(1), (CORE, 6443).into(), PATIENCE).await.unwrap();
            assert_eq!(seen.source.ip(), own(1, false));
        });
    });
}

#[test]
fn a_floating_ip_of_a_vip_leads_to_its_members_with_the_client_in_sight() {
    isolated(&name("a_floating_ip_of_a_vip_leads_to_its_members_with_the_client_in_sight"), |inside| {
        let mut world = open_world(3);
        world.load_balancers = vec![balancer(Provider::Ovn, &[1])];
        let floating = FloatingIp { floating: [172, 24, 0, 7].into(), fixed: [10, 0, 0, 220].into(), port: port(99) };
        // A client's own does not matter on this way.
        let own_one = FloatingIp { floating: [172, 24, 0, 3].into(), fixed: [10, 0, 0, 12].into(), port: port(3) };
        world.floating_ips = vec![floating, own_one];
        runtime().block_on(async {
            let mut lab = Lab::start(inside, &world).await;
            let _echoes = serve(&lab, &[1]).await;
            let target: SocketAddr = (floating.floating, 80).into();
            let outside = lab.fabric.outside().to_owned();
            let node = &lab.fabric.nodes()[1];
            for (from, seen) in [
                (outside.clone(), CORE.into()),
                (node.netns.clone(), node.address.into()),
                (lab.netns(port(1)).to_owned(), target.ip()),
                (lab.netns(port(2)).to_owned(), own(2, false)),
                (lab.netns(port(3)).to_owned(), own(3, false)),
            ] {
                for answer in answers(&from, target).await {
                    assert_eq!((answer.name.as_str(), answer.source.ip()), ("1", seen));
                }
                nobody_answers(&from, (floating.floating, 81).into()).await;
            }
            world.floating_ips.clear();
            lab.follow(&world).await;
            nobody_answers(&outside, target).await;
            answers(&outside, vip(false)).await;
        });
    });
}

#[test]
fn what_a_node_translates_by_itself_meets_the_receivers_rules() {
    isolated(&name("what_a_node_translates_by_itself_meets_the_receivers_rules"), |inside| {
        let mut world = open_world(2);
        runtime().block_on(async {
            let mut lab = Lab::start(inside, &world).await;
            let _echoes = serve(&lab, &[1, 2]).await;
            // As for node ports: 1 is on this node, 2 on the other.
            let node = lab.fabric.nodes()[0].clone();
            let rules = |family: &str, address: IpAddr, to: [SocketAddr; 2]| {
                let [first, second] = to;
                format!(
                    "table {family} ports {{
                        chain in {{
                            type nat hook prerouting priority dstnat - 5; policy accept;
                            {family} daddr {address} tcp dport 30001 dnat to {first}
                            {family} daddr {address} tcp dport 30002 dnat to {second}
                        }}
                        chain out {{
                            type nat hook postrouting priority srcnat - 5; policy accept;
                            ct status dnat ct original {family} daddr {address} masquerade
                        }}
                    }}
                    "
                )
            };
            let members = |v6| [1, 2].map(|number| SocketAddr::new(own(number, v6), 8080));
            let rules =
                rules("ip", node.address.into(), members(false)) + &rules("ip6", node.address_v6.into(), members(true));
            netns::run(&node.netns, || nft("node", &rules)).unwrap().unwrap();
            let outside = lab.fabric.outside().to_owned();
            let addresses = [IpAddr::from(node.address), node.address_v6.into()];
            let targets = addresses.map(|ip| [(1, SocketAddr::new(ip, 30001)), (2, SocketAddr::new(ip, 30002))]);
            for (number, target) in targets.as_flattened() {
                let answer = probe::who(&outside, *target, PATIENCE).await.unwrap();
                assert_eq!((answer.name, answer.source.ip()), (number.to_string(), target.ip()));
            }
            let egress = RuleContent::everything(Direction::Egress, EtherType::IPv4);
            world.groups.insert(group(9), vec![egress, toward(CORE.into(), 8080, Direction::Ingress)]);
            for number in [1, 2] {
                world.ports.get_mut(&port(number)).unwrap().groups = [group(9)].into();
            }
            lab.follow(&world).await;
            for (_, target) in targets.as_flattened() {
                assert!(probe::connect(&outside, *target, SILENCE).await.unwrap_err().is_silent());
            }
        });
    });
}

/// What came of a connection, or of datagrams, and who answered.
async fn outcome(lab: &Lab, opening: &Opening) -> (Through, Option<Answer>) {
    let (netns, target) = (lab.netns(opening.from), SocketAddr::new(opening.destination, opening.number));
    let patience = SILENCE * 2;
    if opening.protocol == 17 {
        let mut datagrams = Datagrams::open(netns, None, target).await.unwrap();
        match datagrams.who(patience).await {
            Err(_) => (Through::Nothing, None),
            Ok(answer) => match datagrams.who(patience).await {
                Err(_) => (Through::Opens, Some(answer)),
                Ok(again) => {
                    assert_eq!(answer, again);
                    (Through::Works, Some(again))
                }
            },
        }
    } else {
        match probe::connect(netns, target, patience).await {
            Err(_) => (Through::Nothing, None),
            Ok(mut session) => match session.who(patience).await {
                Err(_) => (Through::Opens, None),
                Ok(answer) => (Through::Works, Some(answer)),
            },
        }
    }
}

#[test]
fn packets_meet_ovns_and_octavias_ways_in_random_worlds() {
    isolated(&name("packets_meet_ovns_and_octavias_ways_in_random_worlds"), |inside| {
        let seed = 11;
        let mut random = Rng::with_seed(seed);
        let mut world = world(&mut random, 5);
        balancers(&mut random, &mut world);
        runtime().block_on(async {
            let mut lab = Lab::start(inside, &world).await;
            let mut echoes = Vec::new();
            for (id, port) in &world.ports {
                for (ip, number) in port.ips.iter().flat_map(|ip| [80, 81, 82].map(|number| (*ip, number))) {
                    echoes.push(probe::listen(lab.netns(*id), SocketAddr::new(ip, number)).await.unwrap());
                }
            }
            let mut counts = BTreeMap::new();
            for round in 0..10 {
                check_round(&lab, &world, round, &mut counts).await;
                change(&mut random, &mut world);
                balancers(&mut random, &mut world);
                lab.follow(&world).await;
            }
            println!("{counts:?}");
            assert!(counts.len() == 3 && counts.values().all(|count| *count >= 5), "the worlds prove little");
        });
    });
}

async fn check_round(lab: &Lab, world: &Snapshot, round: usize, counts: &mut BTreeMap<Through, usize>) {
    let services = services(world);
    let mut questions = Vec::new();
    for (service, vip, balancer, listener) in &services {
        for (from, sender) in &world.ports {
            let source = *sender.ips.iter().find(|ip| ip.is_ipv6() == service.ip.is_ipv6()).unwrap();
            let opening = Opening {
                from: *from,
                to: *from,
                mac: sender.mac,
                source,
                destination: service.ip,
                protocol: service.protocol,
                number: service.number,
            };
            questions.push((opening, *vip, *balancer, *listener));
        }
    }
    let found = join_all(questions.iter().map(|(opening, ..)| outcome(lab, opening))).await;
    for ((opening, vip, balancer, listener), (found, answer)) in questions.into_iter().zip(found) {
        let context = || format!("round {round}: {opening:?} {answer:?}\n{world:#?}");
        let members = eligible(listener, opening.destination.is_ipv6());
        let expected: BTreeMap<String, (Through, IpAddr)> = members
            .iter()
            .map(|member| {
                let place = SocketAddr::new(member.ip, member.number);
                (place.to_string(), through(world, &opening, vip, balancer, listener, member))
            })
            .collect();
        *counts.entry(found).or_insert(0) += 1;
        match &answer {
            Some(answer) => assert_eq!(expected[&answer.name], (found, answer.source.ip()), "{}", context()),
            // Any of them may have been chosen.
            None if expected.is_empty() => assert_eq!(found, Through::Nothing, "{}", context()),
            None => assert!(expected.values().any(|(through, _)| *through == found), "{}", context()),
        }
    }
}

#[test]
fn a_thousand_load_balancers_are_made_quickly_and_changed_at_once() {
    isolated(&name("a_thousand_load_balancers_are_made_quickly_and_changed_at_once"), |inside| {
        let mut world = open_world(100);
        let members = |from: u64| (0..10).map(move |place| member(own(1 + (from * 7 + place) % 100, false)));
        world.load_balancers = (0..1000u64)
            .map(|number| {
                let [_, _, _, _, _, _, high, low] = number.to_be_bytes();
                let listener = Listener {
                    protocol: 6,
                    number: 80,
                    clients: Vec::new(),
                    sticky: false,
                    members: members(number).collect(),
                };
                let vips = vec![IpAddr::from([10, 0, 100 + high, low])];
                LoadBalancer { provider: Provider::Ovn, vips, listeners: vec![listener] }
            })
            .collect();
        cost(inside, &mut world);
    });
}

fn cost(inside: &Inside, world: &mut Snapshot) {
    type Compile = fn(&Snapshot) -> Ruleset;
    let places: [(&str, String, Ruleset, Compile); 2] = [
        ("node", initial(), Ruleset::empty(), |world| compile(world, NODES[0])),
        ("core", initial_core(), Ruleset::empty_core(), compile_core),
    ];
    for (name, begin, empty, compile) in places {
        let netns = inside.directory().join(name);
        netns::create(&netns).unwrap();
        let apply = |script: &str| {
            let start = Instant::now();
            netns::run(&netns, || nft(name, script)).unwrap().unwrap();
            start.elapsed()
        };
        apply(&begin);
        let timed = |old: &Ruleset, world: &Snapshot| {
            let start = Instant::now();
            let wanted = compile(world);
            let script = changes(old, &wanted);
            (wanted, start.elapsed(), apply(&script), script)
        };
        let (mut ruleset, compiled, applied, _) = timed(&empty, world);
        println!("{name}: 1,000 load balancers of 10 members: compiled in {compiled:.1?}, nft {applied:.1?}");
        let mut times = Vec::new();
        for number in 0..20 {
            let members = &mut world.load_balancers[number * 37].listeners[0].members;
            members.remove(number % 5);
            let (wanted, compiled, applied, script) = timed(&ruleset, world);
            // The service, and the slots from the member's on.
            assert!(script.lines().count() <= 8 && script.len() < 3000, "{script}");
            times.push((applied, compiled));
            ruleset = wanted;
        }
        times.sort();
        let (applied, compiled) = times[10];
        println!("{name}: one member less: compiled in {compiled:.1?}, nft {applied:.1?}");
        assert!(applied < Duration::from_millis(100), "{times:?}");
    }
}

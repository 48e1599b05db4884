//! Load balancers and floating IPs with packets.

use super::{
    CORE, CORE_V6, FloatingIp, Listener, Member, Provider, Snapshot,
    balance_model::Through,
    lab::{
        Lab, PATIENCE, SILENCE, VIP, answers, ask, balancer, group, ip, member, nobody_answers, open_world, own, port,
        restrict, runtime, serve, toward, vip,
    },
    namespaces::testing::isolated,
    probe::{self, sctp},
    worker::nft,
};
use futures::future::join_all;
use ipnet::IpNet;
use kuryr_model::neutron::{Direction, EtherType, RuleContent};
use kuryr_node::netns;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

#[test]
fn a_restricted_sender_needs_the_rule_of_the_vip_and_that_of_the_member() {
    isolated(
        "dataplane::balance_tests::a_restricted_sender_needs_the_rule_of_the_vip_and_that_of_the_member",
        |inside| {
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
        },
    );
}

#[test]
fn an_open_connection_through_a_vip_ends_with_the_members_rule_and_not_with_the_vips() {
    isolated(
        "dataplane::balance_tests::an_open_connection_through_a_vip_ends_with_the_members_rule_and_not_with_the_vips",
        |inside| {
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
        },
    );
}

#[test]
fn a_member_sees_the_client_and_itself_as_the_vip_and_its_rules_do_too() {
    isolated(
        "dataplane::balance_tests::a_member_sees_the_client_and_itself_as_the_vip_and_its_rules_do_too",
        |inside| {
            let mut world = open_world(3);
            world.load_balancers = vec![balancer(Provider::Ovn, &[1])];
            runtime().block_on(async {
                let mut lab = Lab::start(inside, &world).await;
                let echoes = serve(&lab, &[1]).await;
                for v6 in [false, true] {
                    for (sender, seen) in [(1, vip(v6).ip()), (2, own(2, v6)), (3, own(3, v6))] {
                        for answer in answers(lab.netns(port(sender)), vip(v6)).await {
                            assert_eq!((answer.name.as_str(), answer.source.ip()), ("1", seen));
                        }
                    }
                }
                // What a member's host says of a number that nobody listens at comes back through the VIP too.
                drop(echoes);
                for sender in 1..=3 {
                    for answer in ask(lab.netns(port(sender)), vip(false), PATIENCE).await {
                        assert!(matches!(answer, Err(probe::Error::Refused { .. })), "{answer:?}");
                    }
                }
                let _echoes = serve(&lab, &[1]).await;
                let let_in = |world: &mut Snapshot, sources: &[IpAddr]| {
                    let egress = [EtherType::IPv4, EtherType::IPv6]
                        .map(|family| RuleContent::everything(Direction::Egress, family));
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
        },
    );
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
    isolated("dataplane::balance_tests::connections_spread_over_members_and_stay_where_they_are", |inside| {
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
            // Not the client from before: a datagram from a port number that it had used would go where the last one did.
            let fresh = lab.fabric.nodes()[0].netns.clone();
            assert_eq!(census(&fresh, 20).await.into_keys().collect::<Vec<_>>(), ["4"]);
            // OVN of this age leaves what is established to connection tracking.
            for (name, session) in &mut sessions {
                assert_eq!(session.who(PATIENCE).await.unwrap().name, *name);
            }

            // Even if nobody is chosen any more. In the core, as on OVN's routers, that is the end.
            let outside = lab.fabric.outside().to_owned();
            let mut from_outside = probe::connect(&outside, vip(false), PATIENCE).await.unwrap();
            from_outside.exchange(PATIENCE).await.unwrap();
            let balancers = std::mem::take(&mut world.load_balancers);
            lab.follow(&world).await;
            for session in sessions.values_mut() {
                session.exchange(PATIENCE).await.unwrap();
            }
            assert!(from_outside.exchange(SILENCE).await.unwrap_err().is_silent());
            nobody_answers(&client, vip(false)).await;
            world.load_balancers = balancers;

            // Who sticks, sticks, and not all to the same.
            for listener in &mut world.load_balancers[0].listeners {
                listener.members = [1, 2, 3, 4].map(|number| member(own(number, false))).to_vec();
                listener.sticky = true;
            }
            lab.follow(&world).await;
            let mut chosen = BTreeSet::new();
            for sender in 1..=4 {
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
    isolated(
        "dataplane::balance_tests::a_vip_is_reached_from_everywhere_that_it_is_routed_to_and_is_nobody_else",
        |inside| {
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
                let sources = |lab: &Lab| -> Vec<(PathBuf, [IpAddr; 2])> {
                    let pod = |number, ips| (lab.netns(port(number)).to_owned(), ips);
                    let nodes = lab.fabric.nodes().iter();
                    let nodes = nodes.map(|node| (node.netns.clone(), [node.address.into(), node.address_v6.into()]));
                    let outside = (lab.fabric.outside().to_owned(), [CORE.into(), CORE_V6.into()]);
                    let pods = [pod(4, [own(4, false), own(4, true)]), pod(2, [ip("10.0.1.99"), ip("fd01::99")])];
                    pods.into_iter().chain(nodes).chain([outside]).collect()
                };
                for (netns, seen) in sources(&lab) {
                    for (v6, seen) in [false, true].into_iter().zip(seen) {
                        for answer in answers(&netns, vip(v6)).await {
                            assert_eq!(
                                (answer.name.as_str(), answer.source.ip()),
                                ("1", seen),
                                "from {}",
                                netns.display()
                            );
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
                    let reached =
                        probe::connect(&netns, vip(false), if number == 0 { PATIENCE } else { SILENCE }).await;
                    assert_eq!(reached.is_ok(), number == 0, "from {}: {reached:?}", netns.display());
                }
            });
        },
    );
}

#[test]
fn sctp_is_balanced_like_the_others() {
    isolated("dataplane::balance_tests::sctp_is_balanced_like_the_others", |inside| {
        let mut world = open_world(3);
        world.load_balancers = vec![balancer(Provider::Ovn, &[1])];
        world.load_balancers[0].listeners[0].protocol = 132;
        let rule = |ip, number| RuleContent { protocol: Some("sctp".into()), ..toward(ip, number, Direction::Egress) };
        runtime().block_on(async {
            let mut lab = Lab::start(inside, &world).await;
            let mut servers = Vec::new();
            for v6 in [false, true] {
                servers.push(sctp::listen(lab.netns(port(1)), SocketAddr::new(own(1, v6), 8080)).await.unwrap());
            }
            for v6 in [false, true] {
                for from in [2, 3].map(|number| lab.netns(port(number))).into_iter().chain([lab.fabric.outside()]) {
                    sctp::reach(from, vip(v6), PATIENCE).await.unwrap();
                    let closed = SocketAddr::new(vip(v6).ip(), 81);
                    assert!(sctp::reach(from, closed, SILENCE).await.is_err());
                }
            }
            let mut open = sctp::connect(lab.netns(port(2)), vip(false), PATIENCE).await.unwrap();
            open.exchange(PATIENCE).await.unwrap();
            restrict(&mut world, 2, vec![rule(vip(false).ip(), 80)]);
            lab.follow(&world).await;
            assert!(open.exchange(SILENCE).await.is_err());
            restrict(&mut world, 2, vec![rule(vip(false).ip(), 80), rule(own(1, false), 8080)]);
            lab.follow(&world).await;
            sctp::reach(lab.netns(port(2)), vip(false), PATIENCE).await.unwrap();
            assert!(sctp::reach(lab.netns(port(2)), vip(true), SILENCE).await.is_err());
        });
    });
}

#[test]
fn the_testbeds_own_servers_can_be_members() {
    isolated("dataplane::balance_tests::the_testbeds_own_servers_can_be_members", |inside| {
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
    isolated(
        "dataplane::balance_tests::an_amphora_hides_its_client_knows_who_may_connect_and_refuses_for_nobody",
        |inside| {
            let mut world = open_world(3);
            world.load_balancers = vec![balancer(Provider::Amphora, &[1])];
            let floating =
                FloatingIp { floating: [172, 24, 0, 7].into(), fixed: [10, 0, 0, 220].into(), port: port(99) };
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
        },
    );
}

#[test]
fn ovn_lets_in_whom_a_listener_allows() {
    isolated("dataplane::balance_tests::ovn_lets_in_whom_a_listener_allows", |inside| {
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
fn what_a_node_translates_by_itself_meets_the_receivers_rules() {
    isolated("dataplane::balance_tests::what_a_node_translates_by_itself_meets_the_receivers_rules", |inside| {
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

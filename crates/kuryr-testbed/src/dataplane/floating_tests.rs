//! Floating IPs with packets.

use super::{
    CORE, FloatingIp, Provider,
    lab::{
        Lab, PATIENCE, SILENCE, answers, balancer, everything, group, ip, nobody_answers, open_world, own, port,
        restrict, runtime, serve, toward, vip,
    },
    namespaces::testing::isolated,
    probe,
};
use kuryr_model::neutron::{Direction, EtherType, RuleContent};
use std::net::SocketAddr;

#[test]
fn a_floating_ip_stands_for_its_port_both_ways_until_it_is_taken_away() {
    isolated(
        "dataplane::floating_tests::a_floating_ip_stands_for_its_port_both_ways_until_it_is_taken_away",
        |inside| {
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
                let node =
                    |number: usize| (lab.fabric.nodes()[number].netns.clone(), lab.fabric.nodes()[number].address);
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
        },
    );
}

#[test]
fn a_floating_ip_of_a_vip_leads_to_its_members_with_the_client_in_sight() {
    isolated(
        "dataplane::floating_tests::a_floating_ip_of_a_vip_leads_to_its_members_with_the_client_in_sight",
        |inside| {
            let mut world = open_world(3);
            world.load_balancers = vec![balancer(Provider::Ovn, &[1])];
            let floating =
                FloatingIp { floating: [172, 24, 0, 7].into(), fixed: [10, 0, 0, 220].into(), port: port(99) };
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
        },
    );
}

#[test]
fn a_port_on_an_external_network_is_outside() {
    isolated("dataplane::floating_tests::a_port_on_an_external_network_is_outside", |inside| {
        // 2 is on an external network, 3 in a subnet without a router.
        let mut world = open_world(3);
        world.ports.get_mut(&port(2)).unwrap().ips = vec![ip("172.24.0.50")];
        world.ports.get_mut(&port(3)).unwrap().ips = vec![ip("10.0.2.99")];
        world.load_balancers = vec![balancer(Provider::Ovn, &[1])];
        runtime().block_on(async {
            let lab = Lab::start(inside, &world).await;
            let _echoes = serve(&lab, &[1]).await;
            let there = SocketAddr::new(ip("172.24.0.50"), 80);
            let _server = probe::listen_as(lab.netns(port(2)), there, "2").await.unwrap();
            for from in [lab.fabric.outside(), lab.netns(port(1))] {
                answers(from, there).await;
            }
            nobody_answers(lab.netns(port(3)), there).await;
            for target in [vip(false), SocketAddr::new(own(1, false), 8080)] {
                assert_eq!(answers(lab.netns(port(2)), target).await[0].source.ip(), there.ip());
            }
        });
    });
}

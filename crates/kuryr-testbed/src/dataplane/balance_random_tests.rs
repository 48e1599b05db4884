//! Load balancers in random worlds, and many of them, with packets.

use super::{
    Listener, LoadBalancer, Provider, Snapshot,
    balance_model::{Through, balancers, eligible, services, through},
    lab::{Lab, PATIENCE, SILENCE, everything, member, open_world, own, port, runtime},
    model_tests::{Opening, change, world},
    namespaces::testing::isolated,
    probe::{self, Answer, Datagrams},
};
use fastrand::Rng;
use futures::future::join_all;
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

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
    isolated("dataplane::balance_random_tests::packets_meet_ovns_and_octavias_ways_in_random_worlds", |inside| {
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
            for round in 0..14 {
                check_round(&lab, &world, round, &mut counts).await;
                change(&mut random, &mut world);
                balancers(&mut random, &mut world);
                lab.follow(&world).await;
            }
            println!("{counts:?}");
            assert!(counts.len() == 3 && counts.values().all(|count| *count > 1), "the worlds prove little");
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
    let name = "dataplane::balance_random_tests::a_thousand_load_balancers_are_made_quickly_and_changed_at_once";
    isolated(name, |inside| {
        let mut world = open_world(3);
        let address = |number: u16| -> IpAddr {
            let [high, low] = number.to_be_bytes();
            [10, 0, high, low].into()
        };
        world.subnets.values_mut().next().unwrap().net = "10.0.0.0/16".parse().unwrap();
        everything(&mut world);
        let empty = world.clone();
        world.load_balancers = (0..1000)
            .map(|number| {
                let others = (0..9).map(|place| member(address(20_000 + number * 9 + place)));
                let members = others.chain([member(own(1, false))]).collect();
                let listener = Listener { protocol: 6, number: 80, clients: Vec::new(), sticky: false, members };
                let vips = vec![address(10_000 + number)];
                LoadBalancer { provider: Provider::Ovn, vips, listeners: vec![listener] }
            })
            .collect();
        runtime().block_on(async {
            let mut lab = Lab::start(inside, &empty).await;
            let place = SocketAddr::new(own(1, false), 8080);
            let _echo = probe::listen(lab.netns(port(1)), place).await.unwrap();
            let timed = async |lab: &mut Lab, world: &Snapshot| {
                let start = Instant::now();
                lab.follow(world).await;
                start.elapsed()
            };
            let made = timed(&mut lab, &world).await;
            let mut changes = Vec::new();
            for number in 0..20 {
                world.load_balancers[number * 37].listeners[0].members.remove(number % 5);
                changes.push(timed(&mut lab, &world).await);
            }
            changes.sort();
            println!(
                "1,000 load balancers of 10 members, two nodes and the core: {made:.1?}; a member less: {:.1?}",
                changes[10]
            );
            assert!(made < Duration::from_secs(5) && changes[10] < Duration::from_secs(1), "{made:?} {changes:?}");
            // The last of them works.
            world.load_balancers[999].listeners[0].members.drain(..9);
            lab.follow(&world).await;
            let target = SocketAddr::new(address(10_999), 80);
            let answer = probe::who(lab.netns(port(2)), target, PATIENCE).await.unwrap();
            assert_eq!(answer.name, place.to_string());
        });
    });
}

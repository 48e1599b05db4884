//! Random worlds: security groups let through what Kubernetes allows, and nothing else.

use crate::{
    compare::{addresses, compare, listeners, read, traffic},
    spec::Traffic,
    worlds,
};
use kuryr_plan::policy::{GroupKey, Place, Pod, Protocol, Remote, Rule, compile, open, reach};
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};
use std::net::IpAddr;

/// How many worlds: some thousands, or as many as the environment says (`make test-policies`); for what takes long, a
/// share of them.
pub(crate) fn runner(share: u32) -> TestRunner {
    let worlds = std::env::var("KURYR_POLICY_WORLDS").ok().map_or(2_000, |text| text.parse().unwrap());
    let cases = worlds / share;
    TestRunner::new(Config { cases, max_shrink_iters: 20_000, failure_persistence: None, ..Config::default() })
}

pub(crate) fn bytes() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 200..700)
}

#[test]
fn security_groups_let_through_exactly_what_kubernetes_allows() {
    let world = |bytes: Vec<u8>| {
        let mut dice = worlds::Dice(bytes.iter());
        let settings = worlds::settings(&mut dice);
        let cluster = worlds::cluster(&mut dice);
        compare(&cluster, settings).map_err(|difference| TestCaseError::fail(format!("{difference}\n{cluster:#?}")))
    };
    runner(1).run(&bytes(), world).unwrap();
}

#[test]
fn in_a_cluster_of_one_family_nothing_is_missed_without_rules_for_the_other() {
    let world = |bytes: Vec<u8>| {
        let mut dice = worlds::Dice(bytes.iter());
        let settings = worlds::settings(&mut dice);
        let (cluster, settings) = worlds::only_ipv4(worlds::cluster(&mut dice), settings);
        compare(&cluster, settings).map_err(|difference| TestCaseError::fail(format!("{difference}\n{cluster:#?}")))
    };
    runner(8).run(&bytes(), world).unwrap();
}

#[test]
fn what_is_explained_to_people_is_what_kubernetes_allows() {
    let world = |bytes: Vec<u8>| {
        let mut dice = worlds::Dice(bytes.iter());
        let cluster = worlds::cluster(&mut dice);
        let world = read(&cluster);
        let passes = |from: &Pod, to: Place, protocol, number| {
            let verdict = reach(&world, &Place::Pod(from.key.clone()), &to, protocol, number).unwrap();
            verdict
                .ways
                .iter()
                .map(|way| (way.from.unwrap(), way.to.unwrap(), way.sends.passes(), way.receives.passes()))
                .collect::<Vec<_>>()
        };
        let named = |what: &str, from: &Pod, to: IpAddr, traffic| {
            format!("{} {to} {traffic:?}: {what} in {cluster:#?}", from.key)
        };
        for from in cluster.pods().filter(|pod| !pod.addresses.is_empty()) {
            for (to, traffic) in
                addresses(&cluster).into_iter().flat_map(|to| traffic().map(move |traffic| (to, traffic)))
            {
                let Traffic::To(protocol, number) = traffic else { continue };
                for (source, _, sends, receives) in passes(from, Place::Address(to), protocol, number) {
                    prop_assert_eq!(
                        sends,
                        cluster.may_send(from, to, traffic),
                        "{}",
                        named("sends", from, to, traffic)
                    );
                    let wanted = cluster.pod_at(to).is_none_or(|pod| cluster.may_receive(pod, source, traffic));
                    prop_assert_eq!(receives, wanted, "{}", named("receives", from, to, traffic));
                }
            }
            for listener in listeners(&cluster) {
                let (endpoints, hides) = cluster.behind(listener);
                let ways = passes(from, Place::Address(listener.vip), listener.protocol, listener.number);
                let same_family = from.addresses.iter().any(|it| it.is_ipv4() == listener.vip.is_ipv4());
                prop_assert_eq!(ways.len(), if same_family { endpoints.len() } else { 0 });
                for ((source, to, sends, receives), endpoint) in ways.into_iter().zip(endpoints) {
                    let traffic = Traffic::To(listener.protocol, endpoint.number);
                    prop_assert_eq!(
                        sends,
                        cluster.may_use(from, listener),
                        "{}",
                        named("uses", from, listener.vip, traffic)
                    );
                    let seen = if hides { listener.vip } else { source };
                    let wanted = cluster.pod_at(to).is_none_or(|pod| cluster.may_receive(pod, seen, traffic));
                    prop_assert_eq!(receives, wanted, "{}", named("receives", from, to, traffic));
                }
            }
        }
        Ok(())
    };
    runner(4).run(&bytes(), world).unwrap();
}

#[test]
fn random_worlds_have_groups_of_every_kind_or_comparing_them_would_prove_little() {
    type Kind = fn(&GroupKey) -> bool;
    let kinds: [(&str, u32, Kind); 7] = [
        ("a node", 300, |key| matches!(key, GroupKey::Node(_))),
        ("peers by a named port", 50, |key| matches!(key, GroupKey::Peers(set) if set.port.is_some())),
        ("pods that give a name a number", 30, |key| matches!(key, GroupKey::Policy(it) if !it.ports.is_empty())),
        ("pods that give two names a number", 5, |key| matches!(key, GroupKey::Policy(it) if it.ports.len() > 1)),
        ("a way to itself", 50, |key| matches!(key, GroupKey::Loop(_))),
        ("policies together", 5, |key| matches!(key, GroupKey::Together(it) if it.policies.len() > 1)),
        ("a policy and a node together", 3, |key| matches!(key, GroupKey::Together(it) if it.node.is_some())),
    ];
    let mut runner = TestRunner::deterministic();
    let (mut found, mut cut, mut problems) = ([0; 7], 0, 0);
    for _ in 0..1_000 {
        let bytes = bytes().new_tree(&mut runner).unwrap().current();
        let mut dice = worlds::Dice(bytes.iter());
        let settings = worlds::settings(&mut dice);
        let world = read(&worlds::cluster(&mut dice));
        let compiled = compile(settings, &world);
        for ((_, _, is_kind), found) in kinds.iter().zip(&mut found) {
            *found += u32::from(compiled.groups.keys().any(is_kind));
        }
        let is_cut = |rule: &Rule| rule.remote == Remote::Block("128.0.0.0/1".parse().unwrap());
        cut += u32::from(compiled.groups.values().flatten().any(is_cut));
        problems += u32::from(world.policies.values().any(|policy| !policy.problems.is_empty()));
    }
    for ((what, wanted, _), found) in kinds.iter().zip(found) {
        assert!(found >= *wanted, "{found} worlds of 1,000 have {what}");
    }
    assert!(
        cut >= 10 && (50..500).contains(&problems),
        "{cut} worlds have blocks without VIPs, {problems} have problems"
    );
}

#[test]
fn the_port_numbers_that_are_open_are_those_at_which_one_reaches_the_other() {
    let world = |(bytes, more): (Vec<u8>, Vec<u16>)| {
        let mut dice = worlds::Dice(bytes.iter());
        let cluster = worlds::cluster(&mut dice);
        let world = read(&cluster);
        let pods: Vec<Place> =
            world.pods.values().filter(|pod| !pod.completed).map(|pod| Place::Pod(pod.key.clone())).collect();
        let vips = world.services.values().flat_map(|service| &service.vips).copied().map(Place::Address);
        for (from, to) in
            pods.iter().flat_map(|from| pods.iter().cloned().chain(vips.clone()).map(move |to| (from, to)))
        {
            let spans = open(&world, from, &to).unwrap();
            for protocol in Protocol::ALL {
                let mut next = 1u32;
                for span in spans.iter().filter(|span| span.protocol == protocol) {
                    prop_assert_eq!(u32::from(span.first), next);
                    next = u32::from(span.last) + 1;
                    let inside = [span.first, span.last].into_iter().chain(more.iter().copied());
                    for number in inside.filter(|number| (span.first..=span.last).contains(number)) {
                        let answer = reach(&world, from, &to, protocol, number).unwrap().answer();
                        prop_assert_eq!(
                            answer,
                            span.answer,
                            "{:?} {:?} {:?} {} in {:#?}",
                            from,
                            to,
                            protocol,
                            number,
                            &world
                        );
                    }
                }
                prop_assert_eq!(next, 65_536);
            }
        }
        Ok(())
    };
    let numbers = proptest::collection::vec(prop_oneof![1u16..100, 400u16..450, 8000u16..9000, 1u16..], 12);
    runner(8).run(&(bytes(), numbers), world).unwrap();
}

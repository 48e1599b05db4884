//! Load balancers that hide their clients and tell them apart themselves.
//!
//! A client reaches a pod through one if the listener lets the client in, and the pod's security groups the load balancer. What
//! that should be is asked of the specification, for the client itself.

use crate::{
    compare::{addresses, read},
    neutron::Cloud,
    random::{bytes, runner},
    spec::{Cluster, Traffic},
    stage::Stage,
    worlds,
};
use ipnet::IpNet;
use kuryr_model::ObjectKey;
use kuryr_plan::policy::{
    Change, Compiler, Endpoint, GroupKey, Guard, Limits, MAX_CLIENTS, Pod, Protocol, Service, World,
};
use proptest::prelude::*;
use serde_json::json;
use std::{collections::BTreeMap, net::IpAddr};

const BALANCER: &str = "10.96.0.250";
const BALANCER_V6: &str = "fd96::250";

/// What the listeners of all Services let in; one that is not here lets in anybody.
type Listeners = BTreeMap<(ObjectKey, Protocol, u16), Vec<IpNet>>;

fn guard(listeners: &Listeners, service: &ObjectKey) -> Guard {
    let own = listeners.iter().filter(|((key, ..), _)| key == service);
    Guard {
        balancers: [BALANCER, BALANCER_V6].map(|it| it.parse().unwrap()).into(),
        admits: own.map(|((_, protocol, number), nets)| ((*protocol, *number), nets.clone())).collect(),
    }
}

fn guarded(world: &mut World, listeners: &Listeners) {
    for service in world.services.values_mut().filter(|service| service.hides_client) {
        service.guard = Some(guard(listeners, &service.key));
    }
}

/// What Octavia has when it has done what it was asked for.
fn asked_for(limits: &BTreeMap<ObjectKey, Limits>) -> Listeners {
    let mut listeners = Listeners::new();
    for (key, limits) in limits {
        for ((protocol, number), limit) in limits {
            let clients = limit.clients.clone().map(|nets| ((key.clone(), *protocol, *number), nets));
            listeners.extend(clients);
        }
    }
    listeners
}

/// Whether the listener lets a client in.
fn admits(listeners: &Listeners, service: &ObjectKey, protocol: Protocol, number: u16, client: IpAddr) -> bool {
    let known = listeners.get(&(service.clone(), protocol, number));
    known.is_none_or(|nets| nets.iter().any(|net| net.contains(&client)))
}

/// Every way from a client through a guarded listener to a pod: the Service, the protocol, the listener's number, the pod
/// and the endpoint.
fn ways(cluster: &Cluster) -> Vec<(&Service, Protocol, u16, &Pod, Endpoint)> {
    let services = cluster.world.services.values().filter(|service| service.hides_client);
    let ports = services.flat_map(|service| service.ports.iter().map(move |port| (service, port)));
    let mut seen = std::collections::BTreeSet::new();
    let first = ports.filter(|(service, port)| seen.insert((&service.key, port.protocol, port.number)));
    first
        .flat_map(|(service, port)| {
            port.endpoints.iter().filter_map(move |endpoint| {
                Some((service, port.protocol, port.number, cluster.pod_at(endpoint.address)?, *endpoint))
            })
        })
        .collect()
}

/// Whether the load balancer gets to a pod.
fn lets_in(cloud: &Cloud, pod: &Pod, protocol: Protocol, endpoint: Endpoint) -> bool {
    let balancer = if endpoint.address.is_ipv4() { BALANCER } else { BALANCER_V6 };
    cloud.receives(pod, balancer.parse().unwrap(), Traffic::To(protocol, endpoint.number))
}

fn cloud(compiler: &Compiler, cluster: &Cluster) -> Cloud {
    Cloud::new(&compiler.compiled(), cluster.pods()).unwrap()
}

/// Finds a client that gets through and must not.
fn leak(cluster: &Cluster, cloud: &Cloud, listeners: &Listeners) -> Option<String> {
    for (service, protocol, number, pod, endpoint) in ways(cluster) {
        for client in addresses(cluster) {
            let passes =
                admits(listeners, &service.key, protocol, number, client) && lets_in(cloud, pod, protocol, endpoint);
            if passes && !cluster.may_receive(pod, client, Traffic::To(protocol, endpoint.number)) {
                return Some(format!("{client} gets to {} at {endpoint:?} through {}", pod.key, service.key));
            }
        }
    }
    None
}

/// Of each protocol and number the first port only, as the API server would have it, and some more Services that hide.
fn world(dice: &mut worlds::Dice<'_>) -> Cluster {
    let mut cluster = worlds::cluster(dice);
    for service in cluster.world.services.values_mut() {
        service.hides_client = !dice.one_in(4);
        let mut seen = std::collections::BTreeSet::new();
        service.ports.retain(|port| seen.insert((port.protocol, port.number)));
    }
    cluster
}

#[test]
fn nobody_reaches_a_pod_through_a_guarded_listener_whom_its_policies_forbid() {
    let mut ways_in = 0;
    let ways_in_seen = std::cell::RefCell::new(&mut ways_in);
    let world = |bytes: Vec<u8>| {
        let mut dice = worlds::Dice(bytes.iter());
        let settings = worlds::settings(&mut dice);
        let cluster = world(&mut dice);
        let mut now = read(&cluster);
        guarded(&mut now, &Listeners::new());
        let mut compiler = Compiler::new(settings.clone());
        compiler.apply(now.changes());
        let fail = |leak: String| TestCaseError::fail(format!("{leak}\n{cluster:#?}"));
        // As long as listeners let in anybody.
        leak(&cluster, &cloud(&compiler, &cluster), &Listeners::new()).map_or(Ok(()), |leak| Err(fail(leak)))?;
        let limits = compiler.all_limits();
        let listeners = asked_for(&limits);
        guarded(&mut now, &listeners);
        compiler.apply(now.services.values().cloned().map(Change::Service));
        let cloud = cloud(&compiler, &cluster);
        leak(&cluster, &cloud, &listeners).map_or(Ok(()), |leak| Err(fail(leak)))?;
        prop_assert_eq!(
            compiler.compiled(),
            kuryr_plan::policy::compile(settings.clone(), &now),
            "another way to the same world"
        );
        // Whom every pod behind lets in, of those that let in anybody, comes in: all clients but the pods' own nodes and themselves,
        // which count for one pod each.
        for (service, protocol, number, pod, endpoint) in ways(&cluster) {
            let mates: Vec<(&Pod, Endpoint)> = ways(&cluster)
                .into_iter()
                .filter(|way| (way.0.key == service.key) && (way.1, way.2) == (protocol, number))
                .map(|way| (way.3, way.4))
                .collect();
            let named = |(pod, endpoint): &(&Pod, Endpoint), client: IpAddr| {
                let mut apart = cluster.clone();
                apart.world.nodes.clear();
                let mut stranger = (*pod).clone();
                stranger.addresses.clear();
                apart.may_receive(&stranger, client, Traffic::To(protocol, endpoint.number))
            };
            let clients = addresses(&cluster);
            let opens = |mate: &&(&Pod, Endpoint)| {
                // Blocks may let in somebody who is not among the addresses that are tried.
                clients.iter().any(|client| named(mate, *client))
            };
            let all: Vec<&(&Pod, Endpoint)> = mates.iter().filter(opens).collect();
            if !all.iter().any(|(other, at)| other.key == pod.key && *at == endpoint) {
                continue;
            }
            let limit = &limits[&service.key][&(protocol, number)];
            for client in clients.iter().filter(|client| all.iter().all(|mate| named(mate, **client))) {
                if mates.len() != all.len() || limit.too_many.is_some() {
                    continue;
                }
                **ways_in_seen.borrow_mut() += 1;
                let passes = admits(&listeners, &service.key, protocol, number, *client)
                    && lets_in(&cloud, pod, protocol, endpoint);
                prop_assert!(
                    passes,
                    "{} does not get to {} through {} {}/{}: {:#?}\n{:#?}",
                    client,
                    pod.key,
                    service.key,
                    number,
                    protocol,
                    limit,
                    &cluster
                );
            }
        }
        Ok(())
    };
    runner(4).run(&bytes(), world).unwrap();
    assert!(ways_in > 1_000, "{ways_in} ways in were tried");
}

#[test]
fn while_the_world_changes_nobody_gets_through_a_listener_that_lags_behind_whom_pods_forbid() {
    let worlds = |(first, second): (Vec<u8>, Vec<u8>)| {
        let mut dice = worlds::Dice(first.iter());
        let settings = worlds::settings(&mut dice);
        let before = world(&mut dice);
        let mut now = read(&before);
        guarded(&mut now, &Listeners::new());
        let mut compiler = Compiler::new(settings);
        compiler.apply(now.changes());
        let listeners = asked_for(&compiler.all_limits());
        guarded(&mut now, &listeners);
        compiler.apply(now.services.values().cloned().map(Change::Service));
        // Other policies and pods, and the same Services.
        let mut dice = worlds::Dice(second.iter());
        let mut after = world(&mut dice);
        after.world.services = before.world.services.clone();
        let mut next = read(&after);
        guarded(&mut next, &listeners);
        let gone: Vec<Change> = now
            .pods
            .keys()
            .filter(|key| !next.pods.contains_key(*key))
            .map(|key| Change::PodGone(key.clone()))
            .chain(
                now.policies
                    .keys()
                    .filter(|key| !next.policies.contains_key(*key))
                    .map(|key| Change::PolicyGone(key.clone())),
            )
            .chain(
                now.nodes.keys().filter(|key| !next.nodes.contains_key(*key)).map(|key| Change::NodeGone(key.clone())),
            )
            .chain(
                now.namespaces
                    .keys()
                    .filter(|key| !next.namespaces.contains_key(*key))
                    .map(|key| Change::NamespaceGone(key.clone())),
            )
            .collect();
        compiler.apply(gone.into_iter().chain(next.changes()));
        let leak = leak(&after, &cloud(&compiler, &after), &listeners);
        prop_assert!(leak.is_none(), "{}\n{:#?}", leak.unwrap_or_default(), after);
        Ok(())
    };
    runner(4).run(&(bytes(), bytes()), worlds).unwrap();
}

fn web(number: usize) -> String {
    format!("10.0.0.{number}")
}

/// Two pods behind a Service whose load balancer hides its clients, and one that is a client.
fn stage() -> Stage {
    Stage::default()
        .pod("a/web1", "app=web", &web(1))
        .pod("a/web2", "app=web", &web(2))
        .pod("a/client", "app=client", "10.0.1.1")
        .service("10.96.0.1", "80", "10.0.0.1:8080 10.0.0.2:8080")
        .hides_client("10.96.0.1")
}

fn key() -> ObjectKey {
    ObjectKey::new("services", "10.96.0.1")
}

fn compiler(stage: &Stage, listeners: &Listeners) -> Compiler {
    let mut world = read(&stage.cluster);
    guarded(&mut world, listeners);
    let mut compiler = Compiler::new(stage.settings.clone());
    compiler.apply(world.changes());
    compiler
}

fn clients(stage: &Stage) -> Option<Vec<String>> {
    let limits = compiler(stage, &Listeners::new()).limits(&key()).unwrap();
    let clients = limits[&(Protocol::Tcp, 80)].clients.clone()?;
    Some(clients.iter().map(ToString::to_string).collect())
}

fn wider(stage: &Stage) -> Vec<String> {
    let limits = compiler(stage, &Listeners::new()).limits(&key()).unwrap();
    limits[&(Protocol::Tcp, 80)].wider.iter().cloned().collect()
}

/// The pods that let the load balancer in, by its own group.
fn closed_behind(stage: &Stage, listener: &[&str]) -> Vec<String> {
    let listener = listener.iter().map(|net| net.parse().unwrap()).collect();
    let compiler = compiler(stage, &[((key(), Protocol::Tcp, 80), listener)].into());
    let balanced = |pod: &&Pod| {
        let groups = compiler.groups(&pod.uid).unwrap();
        groups.iter().any(|key| matches!(key, GroupKey::Balanced(_)))
    };
    stage.cluster.pods().filter(balanced).map(|pod| pod.key.name.clone()).collect()
}

fn from_client() -> serde_json::Value {
    json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}]})
}

#[test]
fn a_listener_lets_in_the_pods_that_a_peer_selects_and_the_pods_let_the_load_balancer_in_once_it_does() {
    let stage = stage().policy("a/np", from_client());
    assert_eq!(clients(&stage).unwrap(), ["10.0.1.1/32"]);
    assert_eq!(wider(&stage), [""; 0]);
    assert_eq!(closed_behind(&stage, &["10.0.1.1/32"]), ["web1", "web2"]);
    assert_eq!(closed_behind(&stage, &["10.0.1.0/24"]), [""; 0], "not while it may let in others");
    let rules = compiler(&stage, &[((key(), Protocol::Tcp, 80), vec!["10.0.1.1/32".parse().unwrap()])].into());
    let rules = rules.compiled().groups.into_iter().filter(|(key, _)| matches!(key, GroupKey::Balanced(_)));
    let rules: Vec<String> = rules.flat_map(|(_, rules)| rules).map(|rule| rule.to_string()).collect();
    assert_eq!(rules, ["in IPv4 tcp 8080 from 10.96.0.250/32", "in IPv6 tcp 8080 from fd96::250/128"]);
}

#[test]
fn a_listener_before_pods_that_no_policy_isolates_or_that_let_in_everybody_lets_in_anybody() {
    assert_eq!(clients(&stage()), None);
    let all = json!({"podSelector": {}, "ingress": [{"ports": [{"port": 8080}]}]});
    assert_eq!(clients(&stage().policy("a/np", all)), None);
    let nobody = json!({"podSelector": {}});
    assert_eq!(clients(&stage().policy("a/np", nobody)), None, "those pods stay closed");
}

#[test]
fn the_number_that_counts_is_the_pods_and_a_name_is_what_each_pod_makes_of_it() {
    let named = json!({
        "podSelector": {"matchLabels": {"app": "web"}},
        "ingress": [{"from": [{"ipBlock": {"cidr": "192.0.2.0/24"}}], "ports": [{"port": "http"}]}],
    });
    let stage = stage().port("a/web1", "http=8080").port("a/web2", "http=80").policy("a/np", named);
    assert_eq!(clients(&stage).unwrap(), ["10.0.0.1/32", "192.0.2.0/24"], "and web1 itself");
    assert_eq!(closed_behind(&stage, &["192.0.2.0/24"]), ["web1"], "web2 lets in nobody at that number");
}

#[test]
fn exceptions_of_a_block_are_no_clients() {
    let block = json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.128/25"]}}]}]});
    assert_eq!(clients(&stage().policy("a/np", block)).unwrap(), ["192.0.2.0/25"]);
}

#[test]
fn where_pods_behind_one_listener_differ_only_those_come_in_whom_all_let_in_and_that_is_told() {
    let one = |name: &str, cidrs: &[&str]| {
        let from: Vec<_> = cidrs.iter().map(|cidr| json!({"ipBlock": {"cidr": cidr}})).collect();
        json!({"podSelector": {"matchLabels": {"name": name}}, "ingress": [{"from": from}]})
    };
    let label = |stage: Stage, pod: &str, name: &str| {
        stage.edit(pod, |pod| drop(pod.labels.insert("name".to_owned(), name.to_owned())))
    };
    let stage = label(label(stage(), "a/web1", "one"), "a/web2", "two");
    let differ = stage
        .clone()
        .policy("a/one", one("one", &["192.0.2.0/24", "198.51.100.0/24"]))
        .policy("a/two", one("two", &["192.0.2.0/25"]));
    assert_eq!(clients(&differ).unwrap(), ["192.0.2.0/25"]);
    assert_eq!(wider(&differ), ["a/web1"]);
    assert_eq!(closed_behind(&differ, &["192.0.2.0/25"]), ["web1", "web2"]);
    assert_eq!(closed_behind(&differ, &["192.0.2.0/24"]), ["web1"], "not yet");
    let half = stage.policy("a/one", one("one", &["192.0.2.0/24"]));
    assert_eq!(clients(&half).unwrap(), ["10.0.0.1/32", "192.0.2.0/24"], "and web1 itself, which both let in");
    assert_eq!(wider(&half), ["a/web2"]);
}

#[test]
fn a_block_that_has_the_load_balancer_does_not_let_it_in() {
    let block = json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]});
    let stage = stage().service_range("10.96.0.0/16").policy("a/np", block);
    let cloud = cloud(&compiler(&stage, &Listeners::new()), &stage.cluster);
    let pod = &stage.cluster.world.pods[&ObjectKey::new("a", "web1")];
    let receives = |from: &str| cloud.receives(pod, from.parse().unwrap(), Traffic::To(Protocol::Tcp, 8080));
    assert!(!receives(BALANCER) && !receives("10.96.0.1") && receives("10.0.1.1") && receives("10.97.0.1"));
}

#[test]
fn too_many_clients_are_not_let_in_and_blocks_still_are() {
    let mut stage = stage().policy(
        "a/np",
        json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"from": [
            {"podSelector": {"matchLabels": {"app": "client"}}}, {"ipBlock": {"cidr": "192.0.2.0/24"}},
        ]}]}),
    );
    assert_eq!(clients(&stage).unwrap(), ["10.0.1.1/32", "192.0.2.0/24"]);
    for n in 2..=MAX_CLIENTS {
        stage = stage.pod(&format!("a/client{n}"), "app=client", &format!("10.0.1.{n}"));
    }
    assert_eq!(clients(&stage).unwrap(), ["192.0.2.0/24"]);
    let limits = compiler(&stage, &Listeners::new()).limits(&key()).unwrap();
    assert_eq!(limits[&(Protocol::Tcp, 80)].too_many, Some(MAX_CLIENTS + 1));
    let inexact = compiler(&stage, &Listeners::new()).inexact_behind(&ObjectKey::new("a", "np"));
    assert_eq!(inexact.keys().collect::<Vec<_>>(), [&key()]);
}

#[test]
fn a_client_that_is_gone_closes_nothing_until_another_pod_has_its_address() {
    let mut stage = stage().policy("a/np", from_client());
    stage.settings.pod_ranges.push("10.0.0.0/16".parse().unwrap());
    let listener = ["10.0.1.1/32", "10.0.1.2/31"];
    assert_eq!(closed_behind(&stage, &listener), ["web1", "web2"]);
    let reused = stage.clone().pod("b/other", "", "10.0.1.3");
    assert_eq!(closed_behind(&reused, &listener), [""; 0]);
    assert_eq!(closed_behind(&stage, &["10.0.1.1/32", "192.0.2.7/32"]), [""; 0], "that is somebody else's");
}

//! What happens to a Service in its life, in calls.

use super::{done, made, octavia::Octavia, settle, steps, want};
use crate::service::{
    Desired, Kind, Members, Provider, Service, Step, Transport, annotations, desired, digest,
    fixtures::{self, ip, load_balancer, pods, port, ready, service, site, slice, terminating},
    plan,
};
use kuryr_model::lb::Provisioning;

fn addresses(count: u8) -> Vec<crate::service::Endpoint> {
    (1..=count).map(|n| ready(&format!("10.10.0.{n}"))).collect()
}

#[test]
fn a_new_service_is_one_call_of_any_size_and_then_patience() {
    let ports: Vec<_> = (0..20).map(|n| port(&format!("p{n}"), Transport::Tcp, 1000 + n)).collect();
    let names: Vec<(String, u16)> = (0..20).map(|n| (format!("p{n}"), 8000 + n)).collect();
    let slice_ports: Vec<_> = names.iter().map(|(name, n)| (name.as_str(), Transport::Tcp, *n)).collect();
    let big = Service { ports, ..service() };
    let desired = desired(&big, &[slice(&slice_ports, &addresses(30))], &site(Provider::Amphora));
    let mut octavia = Octavia::new();
    let all = settle(&mut octavia, &desired);
    assert!(matches!(&all[..], [Step::CreateTree(_), Step::Wait { .. }]), "{all:?}");
}

#[test]
fn a_step_reads_well() {
    let desired = want(&service(), &addresses(3));
    assert_eq!(
        steps(&desired, &Octavia::new().there),
        ["create load balancer shop/web at 10.96.0.10, TCP:80 with 3 members"]
    );
}

#[test]
fn scaling_up_and_down_is_one_batch_each_way() {
    let mut octavia = made(&want(&service(), &addresses(3)));
    assert_eq!(done(&mut octavia, &want(&service(), &addresses(30))), ["set members of TCP:80: 30 members"]);
    assert_eq!(done(&mut octavia, &want(&service(), &addresses(3))), ["set members of TCP:80: 3 members"]);
}

#[test]
fn only_listener_pools_that_change_are_touched() {
    let two = Service { ports: vec![port("http", Transport::Tcp, 80), port("dns", Transport::Udp, 53)], ..service() };
    let with = |http: &[crate::service::Endpoint]| {
        let slices = [
            slice(&[("http", Transport::Tcp, 8080)], http),
            slice(&[("dns", Transport::Udp, 53)], &[ready("10.10.0.9")]),
        ];
        desired(&two, &slices, &site(Provider::Amphora))
    };
    let mut octavia = made(&with(&addresses(1)));
    assert_eq!(done(&mut octavia, &with(&addresses(2))), ["set members of TCP:80: 2 members"]);
}

#[test]
fn a_rollout_drains_what_goes_in_the_same_batch_in_which_the_new_comes() {
    let mut octavia = made(&want(&service(), &[ready("10.10.0.1")]));
    let rolling = want(&service(), &[terminating("10.10.0.1"), ready("10.10.0.2")]);
    assert_eq!(done(&mut octavia, &rolling), ["set members of TCP:80: 2 members, 1 of them draining"]);
    assert_eq!(done(&mut octavia, &want(&service(), &[ready("10.10.0.2")])), ["set members of TCP:80: 1 member"]);
}

#[test]
fn what_changes_while_octavia_is_at_work_is_merged() {
    let mut octavia = made(&want(&service(), &addresses(1)));
    let id = octavia.there.trees[0].load_balancer.id;
    octavia.apply(&plan(&want(&service(), &addresses(2)), &octavia.there).steps[0]);
    for count in 3..30 {
        let [Step::Wait { load_balancer, status }] =
            plan(&want(&service(), &addresses(count)), &octavia.there).steps[..]
        else {
            panic!("not patient")
        };
        assert_eq!((load_balancer, status), (id, Provisioning::PendingUpdate));
    }
    assert_eq!(done(&mut octavia, &want(&service(), &addresses(30))), ["set members of TCP:80: 30 members"]);
}

#[test]
fn a_port_that_comes_is_filled_before_it_is_opened() {
    let two =
        Service { ports: vec![port("http", Transport::Tcp, 80), port("https", Transport::Tcp, 443)], ..service() };
    let slices = [slice(&[("http", Transport::Tcp, 8080), ("https", Transport::Tcp, 8443)], &addresses(2))];
    let mut octavia = made(&want(&service(), &addresses(2)));
    let done = done(&mut octavia, &desired(&two, &slices, &site(Provider::Amphora)));
    let expected =
        ["create listener pool shop/web:TCP:443", "set members of TCP:443: 2 members", "create listener TCP:443"];
    assert_eq!(done, expected);
}

#[test]
fn a_port_that_goes_is_closed_before_its_pool_goes() {
    let two =
        Service { ports: vec![port("http", Transport::Tcp, 80), port("https", Transport::Tcp, 443)], ..service() };
    let mut octavia = made(&want(&two, &addresses(2)));
    let gone = octavia.there.trees[0].pools.iter().find(|pool| pool.pool.name.ends_with(":443")).unwrap().pool.id;
    let expected = ["delete listener TCP:443".to_owned(), format!("delete listener pool {gone}")];
    assert_eq!(done(&mut octavia, &want(&service(), &addresses(2))), expected);
}

#[test]
fn a_port_number_that_changes_makes_room_before_it_takes_some() {
    let moved = Service { ports: vec![port("http", Transport::Tcp, 8080)], ..service() };
    let mut octavia = made(&want(&service(), &addresses(1)));
    let done = done(&mut octavia, &want(&moved, &addresses(1)));
    assert!(done[0] == "delete listener TCP:80" && done.last().unwrap() == "create listener TCP:8080", "{done:?}");
}

#[test]
fn a_renamed_port_is_no_change() {
    let renamed = Service { ports: vec![port("web", Transport::Tcp, 80)], ..service() };
    let slices = [slice(&[("web", Transport::Tcp, 8080)], &addresses(2))];
    let mut octavia = made(&want(&service(), &addresses(2)));
    assert_eq!(done(&mut octavia, &desired(&renamed, &slices, &site(Provider::Amphora))), [""; 0]);
}

#[test]
fn settings_change_in_place() {
    let with = |pairs: &[(&str, &str)]| want(&load_balancer(pairs), &addresses(1));
    let mut octavia = made(&with(&[]));
    let mut change = |pairs: &[(&str, &str)]| done(&mut octavia, &with(pairs));
    assert_eq!(change(&[(annotations::CONNECTION_LIMIT, "9")]), ["update listener TCP:80"]);
    assert_eq!(change(&[]), ["update listener TCP:80"]);
    assert_eq!(change(&[(annotations::LB_METHOD, "SOURCE_IP")]), ["update listener pool shop/web:TCP:80"]);
    let monitor = (annotations::ENABLE_HEALTH_MONITOR, "true");
    assert_eq!(change(&[monitor]), ["update listener pool shop/web:TCP:80", "create health monitor shop/web:TCP:80"]);
    assert_eq!(change(&[monitor, (annotations::HEALTH_MONITOR_DELAY, "9")]), ["update health monitor shop/web:TCP:80"]);
    assert!(change(&[])[0].starts_with("delete health monitor"));
}

#[test]
fn on_ovn_health_monitors_follow_their_load_balancer() {
    let watched = load_balancer(&[(annotations::ENABLE_HEALTH_MONITOR, "true")]);
    let desired = |site| desired(&watched, &pods(&addresses(2)), &site);
    let mut octavia = Octavia::new();
    let all = done(&mut octavia, &desired(site(Provider::Ovn)));
    assert_eq!(
        all[..2],
        ["create load balancer shop/web at 10.96.0.10, TCP:80 with 2 members", "create health monitor shop/web:TCP:80"]
    );
    let at_once = done(&mut Octavia::new(), &desired(site(Provider::Amphora)));
    assert!(!at_once.iter().any(|step| step.contains("monitor")), "{at_once:?}");
}

#[test]
fn what_members_speak_changes_behind_a_listener_that_stays() {
    let mut octavia = made(&want(&load_balancer(&[]), &addresses(2)));
    let listener = octavia.there.trees[0].listeners[0].id;
    let done = done(&mut octavia, &want(&load_balancer(&[(annotations::PROXY_PROTOCOL, "true")]), &addresses(2)));
    let expected =
        ["create listener pool shop/web:TCP:80", "set members of TCP:80: 2 members", "update listener TCP:80"];
    assert_eq!(done[..3], expected);
    assert!(done[3].starts_with("delete listener pool") && done.len() == 4, "{done:?}");
    assert_eq!(octavia.there.trees[0].listeners[0].id, listener);
}

#[test]
fn a_listener_of_another_protocol_goes_just_before_its_successor_comes() {
    let mut octavia = made(&want(&load_balancer(&[]), &addresses(2)));
    let done = done(&mut octavia, &want(&load_balancer(&[(annotations::X_FORWARDED_FOR, "true")]), &addresses(2)));
    let expected = [
        "create listener pool shop/web:TCP:80",
        "set members of TCP:80: 2 members",
        "delete listener TCP:80",
        "create listener TCP:80",
    ];
    assert_eq!(done[..4], expected);
    assert!(done[4].starts_with("delete listener pool") && done.len() == 5, "{done:?}");
}

#[test]
fn a_change_of_type_leaves_the_load_balancer_alone() {
    let mut octavia = made(&want(&service(), &addresses(2)));
    let exposed = want(&load_balancer(&[]), &addresses(2));
    assert_eq!(done(&mut octavia, &exposed), ["create floating IP"]);
    let node_port = want(&Service { kind: Kind::NodePort, ..service() }, &addresses(2));
    let done = done(&mut octavia, &node_port);
    assert!(done.len() == 1 && done[0].starts_with("delete floating IP"), "{done:?}");
}

#[test]
fn what_cannot_be_changed_is_made_anew_at_the_same_address_with_the_same_floating_ip() {
    let changes: [&[(&str, &str)]; 3] = [
        &[(annotations::LB_PROVIDER, "ovn")],
        &[(annotations::FLAVOR_ID, "00000000-0000-4000-8000-000000000042")],
        &[(annotations::AVAILABILITY_ZONE, "az2")],
    ];
    for change in changes {
        let mut octavia = made(&want(&load_balancer(&[]), &addresses(1)));
        let floating = octavia.there.floating[0].id;
        let done = done(&mut octavia, &want(&load_balancer(change), &addresses(1)));
        assert!(done[0].starts_with("delete load balancer"), "{done:?}");
        assert!(done[1].starts_with("create load balancer shop/web at 10.96.0.10"), "{done:?}");
        assert!(done[2].starts_with(&format!("lead floating IP {floating}")), "{done:?}");
        assert_eq!(done.len(), 3, "{done:?}");
    }
}

#[test]
fn a_second_family_comes_beside_the_first_and_goes_alone() {
    let dual = Service { cluster_ips: vec![ip("10.96.0.10"), ip("fd00:96::10")], ..service() };
    let endpoints = [ready("10.10.0.1"), ready("fd00:10::1")];
    let mut octavia = made(&want(&service(), &endpoints));
    let first = octavia.there.trees[0].load_balancer.id;
    assert_eq!(
        done(&mut octavia, &want(&dual, &endpoints)),
        ["create load balancer shop/web at fd00:96::10, TCP:80 with 1 member"]
    );
    let gone = done(&mut octavia, &want(&service(), &endpoints));
    assert!(gone.len() == 1 && gone[0].ends_with("nothing wants it"), "{gone:?}");
    assert_eq!(octavia.there.trees[0].load_balancer.id, first);
}

#[test]
fn a_provider_that_makes_one_address_of_two_gets_a_second_load_balancer() {
    let dual = Service { cluster_ips: vec![ip("10.96.0.10"), ip("fd00:96::10")], ..service() };
    let desired = want(&dual, &[ready("10.10.0.1"), ready("fd00:10::1")]);
    let mut octavia = Octavia::new();
    octavia.one_vip = true;
    let expected = [
        "create load balancer shop/web at 10.96.0.10 and fd00:96::10, TCP:80 with 2 members",
        "create load balancer shop/web at fd00:96::10, TCP:80 with 1 member",
        "set members of TCP:80: 1 member",
    ];
    assert_eq!(done(&mut octavia, &desired), expected);
}

#[test]
fn a_service_that_is_gone_loses_everything_in_two_calls() {
    let desired = want(&load_balancer(&[]), &addresses(2));
    let mut octavia = made(&desired);
    let done = done(&mut octavia, &Desired::gone(desired.cluster, desired.uid));
    assert!(done[0].starts_with("delete floating IP") && done[1].ends_with("nothing wants it"), "{done:?}");
    assert!(octavia.there.trees.is_empty() && octavia.there.floating.is_empty() && done.len() == 2);
}

#[test]
fn a_service_that_goes_before_its_load_balancer_is_ready_waits_for_it() {
    let desired = want(&service(), &addresses(2));
    let mut octavia = Octavia::new();
    octavia.apply(&plan(&desired, &octavia.there).steps[0]);
    let gone = Desired::gone(desired.cluster, desired.uid);
    let kinds: Vec<bool> = settle(&mut octavia, &gone).iter().map(|step| matches!(step, Step::Wait { .. })).collect();
    assert_eq!(kinds, [true, false, true]);
    assert!(octavia.there.trees.is_empty());
}

#[test]
fn after_a_restart_members_are_trusted_as_far_as_they_were_recorded() {
    let desired = want(&service(), &addresses(3));
    let mut octavia = made(&desired);
    let pool = octavia.there.trees[0].pools[0].pool.id;
    octavia.there.trees[0].pools[0].members = Members::Counted;
    assert_eq!(octavia.there.unsure(&desired, Some(&digest(&desired))), []);
    assert_eq!(steps(&desired, &octavia.there), [""; 0]);
    // Another pod took the place of one meanwhile: the number alone would not tell.
    let changed = want(&service(), &[ready("10.10.0.1"), ready("10.10.0.2"), ready("10.10.0.9")]);
    assert_eq!(octavia.there.unsure(&changed, Some(&digest(&desired))), [pool]);
    assert_eq!(octavia.there.unsure(&desired, None), [pool]);
    // A number that is wrong tells all.
    assert_eq!(steps(&want(&service(), &addresses(2)), &octavia.there), ["set members of TCP:80: 2 members"]);
}

#[test]
fn the_digest_tells_members_and_nothing_else() {
    let base = digest(&want(&service(), &addresses(3)));
    assert_eq!(digest(&want(&load_balancer(&[(annotations::CONNECTION_LIMIT, "9")]), &addresses(3))), base);
    let renamed: Vec<_> =
        addresses(3).into_iter().map(|endpoint| crate::service::Endpoint { pod: None, ..endpoint }).collect();
    assert_eq!(digest(&want(&service(), &renamed)), base);
    assert_ne!(digest(&want(&service(), &addresses(2))), base);
    let other = Service { ports: vec![port("http", Transport::Tcp, 81)], ..service() };
    assert_ne!(digest(&want(&other, &addresses(3))), base);
    let draining = [ready("10.10.0.1"), ready("10.10.0.2"), terminating("10.10.0.3")];
    assert_ne!(digest(&want(&service(), &draining)), base);
    // Recorded by one version, compared by another.
    assert_eq!(base, "7e187c7a3e616abda8299b6a1aadfaf1");
}

#[test]
fn a_services_two_load_balancers_do_not_wait_for_each_other() {
    let subnet = (annotations::SUBNET_ID, "00000000-0000-4000-8000-000000000042");
    let mut octavia = made(&want(&load_balancer(&[subnet]), &addresses(1)));
    octavia.there.trees[0].load_balancer.provisioning_status = Provisioning::PendingUpdate;
    let steps = steps(&want(&load_balancer(&[subnet]), &addresses(2)), &octavia.there);
    assert_eq!(steps[0], "set members of TCP:80: 2 members");
    assert!(steps[1].starts_with("wait for load balancer") && steps.len() == 2, "{steps:?}");
}

#[test]
fn the_dual_stack_service_of_ovn_has_two_load_balancers() {
    let dual = Service { cluster_ips: vec![ip("10.96.0.10"), ip("fd00:96::10")], ..load_balancer(&[]) };
    let desired = desired(&dual, &pods(&[ready("10.10.0.1"), ready("fd00:10::1")]), &fixtures::site(Provider::Ovn));
    let mut octavia = Octavia::new();
    let expected = [
        "create load balancer shop/web at 10.96.0.10, TCP:80 with 1 member",
        "create load balancer shop/web at fd00:96::10, TCP:80 with 1 member",
        "create floating IP",
    ];
    let mut done = done(&mut octavia, &desired);
    done.sort_by_key(|step| step.starts_with("create floating"));
    assert_eq!(done, expected);
    let first =
        octavia.there.trees.iter().find(|tree| tree.load_balancer.vip_address == Some(ip("10.96.0.10"))).unwrap();
    assert_eq!(octavia.there.floating[0].port_id, first.load_balancer.vip_port_id);
}

//! Floating IPs: made, used, kept, given back.

use super::{done, made, octavia::Octavia, want};
use crate::service::{
    Desired, Feature, Ingress, Kind, Provider, Reason, Service, Site, Step, annotations, desired,
    fixtures::{self, PUBLIC, id, ip, load_balancer, ready, service},
    ingress, plan,
    tree::{ADOPTED_TAG, KEEP_TAG},
};
use kuryr_model::lb::Provisioning;
use std::net::IpAddr;

fn at(address: Option<&str>) -> Desired {
    let service = Service { load_balancer_ip: address.map(str::to_owned), ..load_balancer(&[]) };
    want(&service, &[ready("10.10.0.1")])
}

fn shown(desired: &Desired, octavia: &Octavia) -> Vec<Option<IpAddr>> {
    ingress(desired, &octavia.there).into_iter().map(|entry| entry.ip).collect()
}

#[test]
fn a_floating_ip_waits_for_the_data_plane_to_have_the_load_balancer() {
    let desired = at(None);
    let mut octavia = Octavia::new();
    octavia.apply(&plan(&desired, &octavia.there).steps[0]);
    let waiting = plan(&desired, &octavia.there).steps;
    assert!(waiting.len() == 1 && waiting[0].to_string().starts_with("wait"), "{waiting:?}");
    assert_eq!(shown(&desired, &octavia), []);
    octavia.apply(&waiting[0]);
    assert_eq!(done(&mut octavia, &desired), ["create floating IP"]);
    assert_eq!(shown(&desired, &octavia), [Some(octavia.there.floating[0].floating_ip_address)]);
}

#[test]
fn a_floating_ip_of_ovn_comes_when_nothing_else_is_under_way() {
    for (provider, last) in [(Provider::Ovn, true), (Provider::Amphora, false)] {
        let site = fixtures::site(provider.clone());
        let mut octavia = made(&desired(&service(), &fixtures::pods(&[ready("10.10.0.1")]), &site));
        let endpoints = fixtures::pods(&[ready("10.10.0.1"), ready("10.10.0.2")]);
        let desired = desired(&load_balancer(&[]), &endpoints, &site);
        let first = plan(&desired, &octavia.there).steps;
        let floating = first.iter().position(Step::leads_floating);
        assert!(first[0].changes_load_balancer() && floating.is_none() == last, "{provider:?}: {first:?}");
        octavia.apply(&first[0]);
        let pending = plan(&desired, &octavia.there).steps;
        assert_eq!(pending.iter().any(Step::leads_floating), !last, "{provider:?}: {pending:?}");
        let done = done(&mut octavia, &desired);
        assert!(done.iter().any(|step| step == "create floating IP"), "{provider:?}: {done:?}");
    }
}

#[test]
fn a_floating_ip_that_is_there_is_used_and_given_back() {
    let mut octavia = made(&want(&service(), &[ready("10.10.0.1")]));
    let theirs = octavia.somebodys_floating("203.0.113.9", None);
    let desired = at(Some("203.0.113.9"));
    let used = done(&mut octavia, &desired);
    assert!(used[0].starts_with("tag floating IP") && used[1].starts_with("lead floating IP") && used.len() == 2);
    assert!(octavia.there.floating[0].tags.iter().any(|tag| tag == ADOPTED_TAG));
    assert_eq!(shown(&desired, &octavia), [Some(ip("203.0.113.9"))]);
    let given_back = done(&mut octavia, &want(&service(), &[ready("10.10.0.1")]));
    assert!(given_back.len() == 1 && given_back[0].starts_with("give floating IP"), "{given_back:?}");
    // As it was, to the last tag.
    assert_eq!(octavia.there.floating, [theirs]);
}

#[test]
fn a_floating_ip_of_a_given_address_is_made_if_it_is_not_there() {
    let mut octavia = made(&want(&service(), &[ready("10.10.0.1")]));
    assert_eq!(done(&mut octavia, &at(Some("203.0.113.9"))), ["create floating IP 203.0.113.9"]);
}

#[test]
fn another_address_takes_the_place_of_the_first_when_it_is_there() {
    let mut octavia = made(&at(None));
    let old = octavia.there.floating[0].id;
    let done = done(&mut octavia, &at(Some("203.0.113.9")));
    assert_eq!(done[0], "create floating IP 203.0.113.9 that leads nowhere yet");
    assert_eq!(done[1], format!("lead floating IP {old} nowhere"));
    assert!(done[2].starts_with("lead floating IP"), "{done:?}");
    assert_eq!(done[3], format!("delete floating IP {old}"));
}

#[test]
fn a_floating_ip_that_leads_elsewhere_is_not_taken() {
    let mut octavia = made(&at(None));
    octavia.somebodys_floating("203.0.113.9", Some(id(4711)));
    let desired = at(Some("203.0.113.9"));
    let plan = plan(&desired, &octavia.there);
    assert_eq!(plan.problems.iter().map(|problem| problem.reason).collect::<Vec<_>>(), [Reason::FloatingIpInUse]);
    // Rather no address than another one than was asked for; the one that it has is not lost.
    let done = done(&mut octavia, &desired);
    assert!(done.len() == 1 && done[0].ends_with("nowhere"), "{done:?}");
    assert_eq!((octavia.there.floating.len(), shown(&desired, &octavia)), (2, vec![]));
}

#[test]
fn an_address_that_cannot_be_made_is_told() {
    let site = Site { floating_network: None, ..fixtures::site(Provider::Amphora) };
    let named = Service { load_balancer_ip: Some("203.0.113.9".to_owned()), ..load_balancer(&[]) };
    let desired = desired(&named, &[], &site);
    let mut octavia = made(&desired);
    let problems = plan(&desired, &octavia.there).problems;
    assert_eq!(problems[0].reason, Reason::FloatingIpNotFound);
    octavia.somebodys_floating("203.0.113.9", None);
    assert_eq!(done(&mut octavia, &desired).len(), 2);
}

#[test]
fn a_floating_ip_that_somebody_leads_to_the_load_balancer_is_shown_and_stays_theirs() {
    let mut octavia = made(&want(&service(), &[ready("10.10.0.1")]));
    let port = octavia.there.trees[0].load_balancer.vip_port_id;
    let theirs = octavia.somebodys_floating("203.0.113.9", port);
    assert_eq!(done(&mut octavia, &at(None)), [""; 0]);
    assert_eq!(shown(&at(None), &octavia), [Some(ip("203.0.113.9"))]);
    assert_eq!(done(&mut octavia, &want(&service(), &[ready("10.10.0.1")])), [""; 0]);
    assert_eq!(octavia.there.floating, [theirs]);
}

#[test]
fn a_kept_floating_ip_outlives_its_service_and_is_nobodys() {
    let kept = want(&load_balancer(&[(annotations::KEEP_FLOATING_IP, "true")]), &[]);
    let mut octavia = made(&kept);
    assert!(octavia.there.floating[0].tags.iter().any(|tag| tag == KEEP_TAG));
    let done = done(&mut octavia, &Desired::gone(kept.cluster, kept.uid));
    assert!(done[0].starts_with("give floating IP"), "{done:?}");
    let [ip] = &octavia.there.floating[..] else { panic!() };
    assert_eq!((ip.port_id, &ip.tags[..], ip.description.as_str()), (None, &[][..], ""));
}

#[test]
fn whether_a_floating_ip_is_kept_may_be_decided_later() {
    let with = |pairs: &[(&str, &str)]| want(&load_balancer(pairs), &[]);
    let keep: &[(&str, &str)] = &[(annotations::KEEP_FLOATING_IP, "true")];
    let mut octavia = made(&with(&[]));
    for pairs in [keep, &[]] {
        let done = done(&mut octavia, &with(pairs));
        assert!(done.len() == 1 && done[0].starts_with("tag floating IP"), "{done:?}");
    }
}

#[test]
fn a_floating_ip_whose_tags_never_came_is_known_by_its_description() {
    let desired = at(None);
    let mut octavia = made(&desired);
    octavia.there.floating[0].tags.clear();
    let done = done(&mut octavia, &desired);
    assert!(done.len() == 1 && done[0].starts_with("tag floating IP"), "{done:?}");
}

#[test]
fn of_two_floating_ips_one_is_enough() {
    let desired = at(None);
    let mut octavia = made(&desired);
    let mut second = octavia.there.floating[0].clone();
    (second.id, second.port_id, second.floating_ip_address) = (id(9999), None, ip("203.0.113.50"));
    octavia.there.floating.push(second);
    assert_eq!(done(&mut octavia, &desired), [format!("delete floating IP {}", id::<kuryr_model::FloatingIpId>(9999))]);
}

#[test]
fn a_service_that_must_not_be_exposed_loses_the_way_not_the_address() {
    let desired = at(None);
    let mut octavia = made(&desired);
    let address = octavia.there.floating[0].floating_ip_address;
    let mut site = fixtures::site(Provider::Amphora);
    site.refusals.learn(Provider::Amphora, Feature::AllowedCidrs);
    let limited = Service { source_ranges: vec!["192.0.2.0/24".to_owned()], ..load_balancer(&[]) };
    let limited = crate::service::desired(&limited, &fixtures::pods(&[ready("10.10.0.1")]), &site);
    let taken = done(&mut octavia, &limited);
    assert!(taken.len() == 1 && taken[0].ends_with("nowhere"), "{taken:?}");
    assert_eq!(shown(&limited, &octavia), []);
    done(&mut octavia, &desired);
    assert_eq!(shown(&desired, &octavia), [Some(address)]);
}

#[test]
fn a_floating_ip_moves_with_the_service_to_another_load_balancer() {
    let mut octavia = made(&at(None));
    let id = octavia.there.floating[0].id;
    let subnet = (annotations::SUBNET_ID, "00000000-0000-4000-8000-000000000042");
    let moved = want(&load_balancer(&[subnet]), &[ready("10.10.0.1")]);
    let done = done(&mut octavia, &moved);
    assert!(done[0].starts_with("create load balancer shop/web at an address of its own"), "{done:?}");
    assert!(done[1].starts_with(&format!("lead floating IP {id} to port")) && done.len() == 2, "{done:?}");
}

#[test]
fn a_hostname_is_shown_in_place_of_the_address() {
    let desired = want(&load_balancer(&[(annotations::HOSTNAME, "shop.example.org")]), &[]);
    let octavia = made(&desired);
    let [Ingress { ip: None, hostname: Some(name), .. }] = &ingress(&desired, &octavia.there)[..] else { panic!() };
    assert_eq!(name, "shop.example.org");
    assert_eq!(ingress(&desired, &Octavia::new().there), []);
}

#[test]
fn an_internal_service_shows_its_vips() {
    let desired = want(&load_balancer(&[(annotations::INTERNAL, "true")]), &[]);
    let mut octavia = made(&desired);
    assert_eq!(shown(&desired, &octavia), [Some(ip("10.96.0.10"))]);
    octavia.there.trees[0].load_balancer.provisioning_status = Provisioning::PendingCreate;
    assert_eq!(shown(&desired, &octavia), []);
}

#[test]
fn a_dual_stack_service_shows_its_floating_ip_and_a_public_ipv6_address() {
    let mut site = fixtures::site(Provider::Amphora);
    site.services.push(fixtures::subnet(15, fixtures::SERVICE_NETWORK, "2001:db8:96::/112", "2001:db8:96::fffe"));
    for (v6, public) in [("2001:db8:96::10", true), ("fd00:96::10", false)] {
        let dual = Service { cluster_ips: vec![ip("10.96.0.10"), ip(v6)], ..load_balancer(&[]) };
        let desired = desired(&dual, &[], &site);
        let octavia = made(&desired);
        let floating = Some(octavia.there.floating[0].floating_ip_address);
        let expected = if public { vec![floating, Some(ip(v6))] } else { vec![floating] };
        assert_eq!(shown(&desired, &octavia), expected);
    }
}

#[test]
fn a_cluster_ip_service_shows_nothing() {
    let desired = want(&Service { kind: Kind::ClusterIp, ..load_balancer(&[]) }, &[]);
    assert_eq!(ingress(&desired, &made(&desired).there), []);
}

#[test]
fn a_floating_ip_of_another_network_is_replaced() {
    let mut octavia = made(&at(None));
    assert_eq!(octavia.there.floating[0].floating_network_id, id(PUBLIC));
    let other = [(annotations::FLOATING_NETWORK_ID, "00000000-0000-4000-8000-000000000004")];
    done(&mut octavia, &want(&load_balancer(&other), &[ready("10.10.0.1")]));
    assert_eq!((octavia.there.floating.len(), octavia.there.floating[0].floating_network_id), (1, id(4)));
}

//! Listeners that stand in for pods.

use super::super::{
    Provider, Service,
    desired::desired,
    diff::tests::made,
    fixtures::{self, nets, ready, service, site},
};
use super::*;

fn limits(clients: Option<&[&str]>) -> Limits {
    let clients = clients.map(nets);
    [((Protocol::Tcp, 80), Limit { clients, ..Limit::default() })].into()
}

fn want(service: &Service, limits: &Limits) -> Desired {
    desired(service, &fixtures::pods(&[ready("10.10.0.5")]), &site(Provider::Amphora)).limited(limits)
}

fn allowed_by(desired: &Desired) -> Vec<IpNet> {
    desired.trees[0].listeners[0].allowed_cidrs.clone()
}

#[test]
fn a_listener_lets_in_whom_the_pods_behind_it_would() {
    let some = limits(Some(&["10.10.0.7/32", "192.0.2.0/24", "fd00::/64"]));
    assert_eq!(allowed_by(&want(&service(), &some)), nets(&["10.10.0.7/32", "192.0.2.0/24"]), "of its own family");
    assert_eq!(allowed_by(&want(&service(), &limits(None))), nets(&[]));
    assert_eq!(allowed_by(&want(&service(), &Limits::new())), nets(&[]));
}

#[test]
fn nobody_is_not_everybody() {
    for clients in [&[][..], &["fd00::/64"]] {
        assert_eq!(allowed_by(&want(&service(), &limits(Some(clients)))), [nobody(Family::V4)]);
    }
}

#[test]
fn source_ranges_count_too() {
    let closed = Service { source_ranges: vec!["203.0.113.0/24".into()], ..fixtures::load_balancer(&[]) };
    let allowed = |clients| allowed_by(&want(&closed, &limits(Some(clients))));
    assert_eq!(allowed(&["203.0.113.9/32", "198.51.100.0/24"]), nets(&["203.0.113.9/32"]));
    assert_eq!(allowed(&["0.0.0.0/0"]), allowed_by(&want(&closed, &limits(None))));
    assert_eq!(allowed(&["198.51.100.0/24"]), [nobody(Family::V4)]);
}

#[test]
fn what_is_not_exact_is_told_and_a_provider_that_limits_nobody_is_not_asked_to() {
    let reasons = |desired: &Desired| desired.problems.iter().map(|problem| problem.reason).collect::<Vec<_>>();
    let mut some = limits(Some(&["10.10.0.7/32"]));
    assert_eq!(reasons(&want(&service(), &some)), []);
    let limit = some.get_mut(&(Protocol::Tcp, 80)).unwrap();
    limit.wider = (0..7).map(|n| format!("shop/web-{n}")).collect();
    let told = want(&service(), &some);
    assert_eq!(reasons(&told), [Reason::PoliciesDiffer]);
    let message = &told.problems[0].message;
    assert!(
        message.contains("TCP:80") && message.contains("shop/web-4, 2 more") && !message.contains("web-5"),
        "{message}"
    );
    some.get_mut(&(Protocol::Tcp, 80)).unwrap().too_many = Some(300);
    assert_eq!(reasons(&want(&service(), &some)), [Reason::PoliciesDiffer, Reason::TooManyClients]);
    let mut old = site(Provider::Amphora);
    old.refusals.learn(Provider::Amphora, super::super::Feature::AllowedCidrs);
    let refused = desired(&service(), &[], &old).limited(&some);
    assert_eq!((reasons(&refused), allowed_by(&refused)), (vec![Reason::ClientsNotLimited], nets(&[])));
}

#[test]
fn whom_a_listener_lets_in_is_known_once_octavia_is_done() {
    let some = limits(Some(&["10.10.0.7/32"]));
    let limited = want(&service(), &some);
    let mut octavia = made(&limited);
    let known = admission(&limited, &octavia.there).unwrap();
    assert_eq!(known.admits, [((Protocol::Tcp, 80), nets(&["10.10.0.7/32"]))].into());
    assert_eq!(known.balancers.len(), 1);
    assert_eq!(known.balancers[0].vips, ["10.96.0.10".parse::<IpAddr>().unwrap()]);
    octavia.there.trees[0].load_balancer.provisioning_status = Provisioning::PendingUpdate;
    assert_eq!(admission(&limited, &octavia.there), None);
    let open = want(&service(), &limits(None));
    assert_eq!(admission(&open, &made(&open).there).unwrap().admits, [].into(), "one that lets in anybody");
    assert_eq!(admission(&limited, &Observed::default()), Some(Admission::default()), "one that is not there");
}

#[test]
fn a_load_balancer_of_somebody_else_is_never_known() {
    let shared = [(super::super::annotations::LOAD_BALANCER_ID, "00000000-0000-4000-8000-0000000003e9")];
    let service = fixtures::load_balancer(&shared);
    let limited = want(&service, &limits(Some(&["10.10.0.7/32"])));
    let mut there = made(&want(&fixtures::service(), &Limits::new())).there;
    there.trees[0].load_balancer.id = "00000000-0000-4000-8000-0000000003e9".parse().unwrap();
    there.trees[0].load_balancer.tags.clear();
    assert_eq!(admission(&limited, &there).map(|known| known.admits), Some([].into()));
}

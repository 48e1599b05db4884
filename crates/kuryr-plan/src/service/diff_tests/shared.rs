//! Load balancers that somebody else made, and ours that others use.

use super::{done, made, octavia::Octavia, want};
use crate::service::{
    Desired, Place, Reason, Role, annotations,
    fixtures::{id, load_balancer, ready, service},
    ingress, plan,
};
use kuryr_model::lb::Provisioning;

const SHARED: &str = "00000000-0000-4000-8000-00000000004d";

fn on_shared() -> Desired {
    want(&load_balancer(&[(annotations::LOAD_BALANCER_ID, SHARED)]), &[ready("10.10.0.1")])
}

fn theirs(port: u16) -> Octavia {
    let mut octavia = made(&want(&service(), &[ready("10.10.0.1")]));
    octavia.somebodys_tree(SHARED.parse().unwrap(), port);
    octavia
}

#[test]
fn a_service_puts_its_listeners_into_a_load_balancer_that_is_there() {
    let mut octavia = theirs(8080);
    let done = done(&mut octavia, &on_shared());
    let expected =
        ["create listener pool shop/web:TCP:80", "set members of TCP:80: 1 member", "create listener TCP:80"];
    assert_eq!(done, expected);
    let vip = octavia.there.trees[1].load_balancer.vip_address;
    assert_eq!(ingress(&on_shared(), &octavia.there)[0].ip, vip);
}

#[test]
fn it_takes_them_away_again_and_nothing_else() {
    let mut octavia = theirs(8080);
    let before = octavia.there.trees[1].clone();
    done(&mut octavia, &on_shared());
    let desired = on_shared();
    done(&mut octavia, &Desired::gone(desired.cluster, desired.uid));
    let [left] = &mut octavia.there.trees[..] else { panic!("{:?}", octavia.there.trees) };
    // Octavia is still at work on the last call; there is nothing to wait for.
    left.load_balancer.provisioning_status = Provisioning::Active;
    assert_eq!(*left, before);
}

#[test]
fn a_port_number_that_is_taken_there_is_told() {
    let mut octavia = theirs(80);
    assert_eq!(done(&mut octavia, &on_shared()), [""; 0]);
    let problems = plan(&on_shared(), &octavia.there).problems;
    assert_eq!(
        (problems[0].reason, problems[0].about.as_str()),
        (Reason::ListenerTaken, annotations::LOAD_BALANCER_ID)
    );
}

#[test]
fn one_that_is_not_there_or_broken_is_told_and_the_cluster_ip_works() {
    let mut octavia = made(&want(&service(), &[ready("10.10.0.1")]));
    assert_eq!(done(&mut octavia, &on_shared()), [""; 0]);
    assert_eq!(plan(&on_shared(), &octavia.there).problems[0].reason, Reason::LoadBalancerNotFound);
    let mut octavia = theirs(8080);
    octavia.there.trees[1].load_balancer.provisioning_status = Provisioning::Error;
    assert_eq!(done(&mut octavia, &on_shared()), [""; 0]);
    assert_eq!(plan(&on_shared(), &octavia.there).problems[0].reason, Reason::LoadBalancerInError);
}

#[test]
fn ours_stays_as_long_as_another_service_uses_it() {
    let mut octavia = made(&want(&service(), &[ready("10.10.0.1")]));
    let id = octavia.there.trees[0].load_balancer.id;
    octavia.somebodys_tree(id, 9999);
    let mut another = octavia.there.trees.pop().unwrap().listeners.remove(0);
    another.tags = vec!["kuryr:prod".to_owned(), "kuryr:service:another".to_owned()];
    octavia.there.trees[0].listeners.push(another);
    let desired = on_shared();
    let gone = Desired::gone(desired.cluster, desired.uid);
    let cleared = done(&mut octavia, &gone);
    assert!(cleared[0] == "delete listener TCP:80" && cleared.len() == 2, "{cleared:?}");
    assert_eq!(plan(&gone, &octavia.there).problems[0].reason, Reason::StillShared);
    octavia.there.trees[0].listeners.clear();
    assert!(done(&mut octavia, &gone)[0].ends_with("nothing wants it"));
}

#[test]
fn a_service_that_names_its_own_load_balancer_has_only_that_one() {
    let mut octavia = made(&want(&load_balancer(&[]), &[ready("10.10.0.1")]));
    let own = octavia.there.trees[0].load_balancer.id.to_string();
    let desired = want(&load_balancer(&[(annotations::LOAD_BALANCER_ID, &own)]), &[ready("10.10.0.1")]);
    assert_eq!(desired.trees[1].role, Role::External);
    assert_eq!(desired.trees[1].place, Place::Existing(own.parse().unwrap()));
    assert_eq!(done(&mut octavia, &desired), [""; 0]);
    assert_eq!(ingress(&desired, &octavia.there)[0].ip, Some(octavia.there.floating[0].floating_ip_address));
}

#[test]
fn a_typing_error_empties_a_load_balancer_at_another_address_and_keeps_the_address() {
    let subnet = |id: &str| want(&load_balancer(&[(annotations::SUBNET_ID, id)]), &[ready("10.10.0.1")]);
    let good = subnet("00000000-0000-4000-8000-000000000042");
    let mut octavia = made(&good);
    let lb = octavia.there.trees[1].load_balancer.id;
    let done_wrong = done(&mut octavia, &subnet("00000000-0000-4000-8000-000000000042x"));
    assert!(done_wrong[0].ends_with("nowhere") && done_wrong[1] == "delete listener TCP:80", "{done_wrong:?}");
    done(&mut octavia, &good);
    assert_eq!(octavia.there.trees[1].load_balancer.id, lb);
}

#[test]
fn a_port_that_the_user_made_has_the_vip() {
    let port = "00000000-0000-4000-8000-000000000058";
    let desired = want(&load_balancer(&[(annotations::PORT_ID, port)]), &[ready("10.10.0.1")]);
    let octavia = made(&desired);
    assert_eq!(octavia.there.trees[1].load_balancer.vip_port_id, Some(id(0x58)));
}

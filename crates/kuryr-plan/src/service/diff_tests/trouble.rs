//! What goes wrong in Octavia, and what happens behind our back.

use super::{done, made, octavia::Octavia, steps, want};
use crate::service::{
    Effect, Members, Provider, Reason, Service, Transport, annotations, desired,
    fixtures::{load_balancer, pods, port, ready, service, site},
    plan,
};
use kuryr_model::lb::Provisioning;

#[test]
fn a_load_balancer_in_error_is_failed_over_once_and_then_made_anew() {
    let desired = want(&load_balancer(&[]), &[ready("10.10.0.1")]);
    let mut octavia = made(&desired);
    let floating = octavia.there.floating[0].id;
    octavia.failover_helps = false;
    octavia.there.trees[0].load_balancer.provisioning_status = Provisioning::Error;
    let done = done(&mut octavia, &desired);
    assert!(done[0].starts_with("fail over") && done[1].ends_with("it is in ERROR"), "{done:?}");
    assert!(done[2].starts_with("create load balancer shop/web at 10.96.0.10"), "{done:?}");
    assert!(done[3].starts_with(&format!("lead floating IP {floating}")) && done.len() == 4, "{done:?}");
}

#[test]
fn a_failover_that_helps_is_all() {
    let desired = want(&service(), &[ready("10.10.0.1")]);
    let mut octavia = made(&desired);
    octavia.there.trees[0].load_balancer.provisioning_status = Provisioning::Error;
    assert_eq!(done(&mut octavia, &desired).len(), 1);
}

#[test]
fn ovn_cannot_fail_over_so_its_load_balancer_is_made_anew() {
    let desired = desired(&service(), &pods(&[ready("10.10.0.1")]), &site(Provider::Ovn));
    let mut octavia = made(&desired);
    octavia.there.trees[0].load_balancer.provisioning_status = Provisioning::Error;
    let done = done(&mut octavia, &desired);
    assert!(done[0].starts_with("delete load balancer") && done.len() == 2, "{done:?}");
}

#[test]
fn a_load_balancer_that_was_deleted_comes_back_with_its_floating_ip() {
    let desired = want(&load_balancer(&[]), &[ready("10.10.0.1")]);
    let mut octavia = made(&desired);
    octavia.there.trees.clear();
    octavia.there.floating[0].port_id = None;
    let done = done(&mut octavia, &desired);
    assert!(done[0].starts_with("create load balancer") && done[1].starts_with("lead floating IP"), "{done:?}");
    assert_eq!(done.len(), 2);
}

#[test]
fn a_member_that_was_deleted_comes_back() {
    let desired = want(&service(), &[ready("10.10.0.1"), ready("10.10.0.2")]);
    let mut octavia = made(&desired);
    let pool = &mut octavia.there.trees[0].pools[0];
    let Members::Known(members) = &mut pool.members else { panic!() };
    members.pop();
    assert_eq!(done(&mut octavia, &desired), ["set members of TCP:80: 2 members"]);
}

#[test]
fn a_listener_pool_that_was_deleted_comes_back_behind_its_listener() {
    let desired = want(&service(), &[ready("10.10.0.1")]);
    let mut octavia = made(&desired);
    octavia.there.trees[0].pools.clear();
    octavia.there.trees[0].listeners[0].default_pool_id = None;
    let expected =
        ["create listener pool shop/web:TCP:80", "set members of TCP:80: 1 member", "update listener TCP:80"];
    assert_eq!(done(&mut octavia, &desired), expected);
}

#[test]
fn a_controller_that_died_in_the_middle_goes_on_where_it_was() {
    let two = Service { ports: vec![port("http", Transport::Tcp, 80), port("more", Transport::Tcp, 81)], ..service() };
    let goal = want(&two, &[ready("10.10.0.1")]);
    // As many steps as it takes, dying after each of them: the sum is what one that lives needs.
    let mut octavia = made(&want(&service(), &[ready("10.10.0.1")]));
    let pools = |octavia: &Octavia| octavia.there.trees[0].pools.len();
    while let Some(step) = plan(&goal, &octavia.there).steps.first().cloned() {
        octavia.apply(&step);
        assert!(pools(&octavia) <= 2, "a second one was made after: {step}");
    }
    assert_eq!(pools(&octavia), 2);
}

#[test]
fn what_is_in_error_below_a_load_balancer_is_replaced() {
    let monitored = load_balancer(&[(annotations::ENABLE_HEALTH_MONITOR, "true"), (annotations::INTERNAL, "true")]);
    let desired = want(&monitored, &[ready("10.10.0.1")]);
    let broken = |strike: &dyn Fn(&mut crate::service::ObservedTree)| {
        let mut octavia = made(&desired);
        strike(&mut octavia.there.trees[0]);
        done(&mut octavia, &desired)
            .iter()
            .map(|step| step.split(" 0000").next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let error = Provisioning::Error;
    assert_eq!(
        broken(&|tree| tree.listeners[0].provisioning_status = error),
        ["delete listener TCP:80", "create listener TCP:80"]
    );
    assert_eq!(
        broken(&|tree| tree.pools[0].monitor.as_mut().unwrap().provisioning_status = error),
        ["delete health monitor", "create health monitor shop/web:TCP:80"]
    );
    assert_eq!(
        broken(&|tree| tree.pools[0].pool.provisioning_status = error),
        [
            "create listener pool shop/web:TCP:80",
            "set members of TCP:80: 1 member",
            "create health monitor shop/web:TCP:80",
            "update listener TCP:80",
            "delete listener pool"
        ]
    );
}

#[test]
fn somebody_elses_listener_is_left_alone_and_told() {
    let desired = want(&service(), &[ready("10.10.0.1")]);
    let mut octavia = made(&desired);
    octavia.there.trees[0].listeners[0].tags.clear();
    let plan = plan(&desired, &octavia.there);
    let [problem] = &plan.problems[..] else { panic!("{:?}", plan.problems) };
    assert_eq!((problem.reason, problem.effect), (Reason::ListenerTaken, Effect::NotServed));
    assert_eq!(steps(&desired, &octavia.there), [""; 0]);
}

#[test]
fn clients_that_are_not_allowed_are_shut_out_before_all_else() {
    let endpoints = [ready("10.10.0.1"), ready("10.10.0.2")];
    let mut octavia = made(&want(&load_balancer(&[]), &endpoints[..1]));
    let limited = Service { source_ranges: vec!["192.0.2.0/24".to_owned()], ..load_balancer(&[]) };
    let expected = ["update listener TCP:80", "set members of TCP:80: 2 members"];
    assert_eq!(done(&mut octavia, &want(&limited, &endpoints)), expected);
}

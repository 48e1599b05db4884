//! What must hold, told.

use super::*;

#[test]
fn a_pod_that_neutron_refuses_holds_up_no_other() {
    let mut supply = Supply::new(vec![choice(&[1])], BULK, true);
    let mut neutron = Neutron::new(&[(1, 1000)], 1000);
    let (with, without) = drive(&mut supply, &mut neutron, (0..20).collect(), seconds(0));
    assert_eq!((with.len(), without), (19, vec![7]));
}

#[test]
fn a_quota_that_is_used_up_costs_few_requests() {
    let mut supply = Supply::new(vec![choice(&[1]), choice(&[2])], BULK, true);
    let mut neutron = Neutron::new(&[(1, 1000), (2, 1000)], 0);
    let pods = |range: std::ops::Range<u32>| range.filter(|pod| !Neutron::impossible(*pod)).take(BULK).collect();
    // Two hundred pods in ten batches: only the first one finds out.
    for n in 0..10 {
        let (with, without) = drive(&mut supply, &mut neutron, pods(n * 100..n * 100 + 99), seconds(1));
        assert_eq!((with.len(), without.len()), (0, BULK));
    }
    assert_eq!(neutron.requests, [20, 10, 5, 2, 1]);
    // They all try again after a while, for ever.
    neutron.requests.clear();
    for round in 1..=10 {
        for n in 0..10 {
            drive(&mut supply, &mut neutron, pods(n * 100..n * 100 + 99), seconds(1 + 30 * round));
        }
    }
    assert_eq!(neutron.requests, [1; 10], "one request for each round of two hundred pods");
    // Three ports are given back: three pods get them, and no more is asked for.
    neutron.requests.clear();
    neutron.quota = 3;
    supply.released(3);
    let (with, without) = drive(&mut supply, &mut neutron, pods(0..99), seconds(302));
    assert_eq!((with.len(), without.len(), neutron.requests.as_slice()), (3, 17, [3].as_slice()));
    // The quota is raised, which one request finds out.
    neutron.requests.clear();
    neutron.quota = 100;
    let (with, _) = drive(&mut supply, &mut neutron, pods(100..199), seconds(400));
    assert_eq!((with.len(), neutron.requests.as_slice()), (20, [1, 19].as_slice()));
}

#[test]
fn what_is_given_back_while_neutron_refuses_is_not_overlooked() {
    for refusal in [Refusal::Quota, Refusal::Exhausted] {
        let mut supply = Supply::new(vec![choice(&[1])], BULK, false);
        let mut batch = Batch::new(vec![1]);
        let Some(Next::Create(ask, pods)) = supply.next(&mut batch, seconds(0)) else { panic!() };
        supply.released(1);
        let failed = supply.refused(&mut batch, &ask, pods, refusal, seconds(0));
        let mut next = Batch::new(if failed.is_empty() { vec![] } else { vec![2] });
        let batch = if failed.is_empty() { &mut batch } else { &mut next };
        assert!(matches!(supply.next(batch, seconds(0)), Some(Next::Create(..))), "{refusal:?}");
    }
}

#[test]
fn a_full_subnet_is_left_alone_until_something_is_given_back() {
    let mut supply = Supply::new(vec![choice(&[1]), choice(&[2])], BULK, true);
    let mut neutron = Neutron::new(&[(1, 5), (2, 6)], 1000);
    let pods = (0..50).filter(|pod| !Neutron::impossible(*pod)).take(12).collect();
    let (with, without) = drive(&mut supply, &mut neutron, pods, seconds(0));
    assert_eq!((with.len(), without.len()), (11, 1));
    assert!(neutron.lost.values().all(|lost| *lost == 0), "{:?}", neutron.lost);
    let before = neutron.requests.len();
    assert_eq!(drive(&mut supply, &mut neutron, vec![100], seconds(29)).1, [100]);
    assert_eq!(neutron.requests.len(), before, "both are known to be full");
    neutron.ports.pop_first();
    supply.released(1);
    assert_eq!(drive(&mut supply, &mut neutron, vec![100], seconds(29)).0, [100]);
}

#[test]
fn nothing_is_asked_again_of_a_cloud_that_is_away() {
    let mut supply = Supply::new(vec![choice(&[1])], BULK, false);
    for refusal in [Refusal::All, Refusal::Unknown] {
        let mut batch = Batch::new((0..20).collect());
        let Some(Next::Create(ask, pods)) = supply.next(&mut batch, seconds(0)) else { panic!() };
        assert_eq!(supply.refused(&mut batch, &ask, pods, refusal, seconds(0)).len(), 20);
        assert!(supply.next(&mut batch, seconds(0)).is_none());
    }
}

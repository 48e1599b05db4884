use super::*;
use crate::pool::{Back, HeldUp, Refusal, Shortage};

#[test]
fn every_node_gets_its_floor_and_then_there_is_peace() {
    let mut stage = Stage::new(SETTINGS, 3);
    assert_eq!([0, 1, 2].map(|node| stage.ready(node)), [2, 2, 2]);
    assert_eq!(stage.requests, 2, "the ports of several nodes are one request");
    let plan = stage.pools.plan(seconds(1), &Headroom::default());
    assert_eq!(plan, super::super::Plan::default());
}

#[test]
fn a_pod_gets_a_port_at_once_and_the_same_again_until_it_is_recorded() {
    let mut stage = Stage::new(SETTINGS, 1);
    let first = stage.take(0, 1).unwrap();
    assert_eq!(stage.take(0, 1).unwrap().id, first.id);
    stage.pools.recorded(&pod(1));
    assert_ne!(stage.take(0, 1).unwrap().id, first.id);
    assert_eq!(stage.view(0).hits, 2);
}

#[test]
fn a_burst_is_remembered_and_fades() {
    let mut stage = Stage::new(SETTINGS, 1);
    let got = (0..10).filter(|n| stage.take(0, *n).is_some()).count();
    assert_eq!((got, stage.view(0).misses, stage.view(0).waiting), (2, 8, 8));
    (0..10).for_each(|n| stage.pools.waits_no_more(&key(0), &pod(n)));
    stage.work();
    assert_eq!(stage.ready(0), 10);
    let rested = stage.pass(seconds(10 * 3600));
    assert_eq!((stage.ready(0), stage.deleted.len()), (2, 8));
    assert!(rested < seconds(2 * 3600), "no plan after {rested:?}");
}

#[test]
fn a_port_that_was_given_back_is_handed_out_again_after_the_cooldown_only() {
    let mut stage = Stage::new(Settings { floor: 1, ..SETTINGS }, 1);
    let first = stage.take(0, 1).unwrap();
    stage.pools.recorded(&pod(1));
    assert_eq!(stage.pools.give_back(&place(0), first.clone(), stage.now), Back::Kept);
    assert_eq!(stage.pools.give_back(&place(0), first.clone(), stage.now), Back::Kept, "twice is once");
    for second in 0..30 {
        stage.now = seconds(second);
        assert_eq!(stage.take(0, 2), None, "after {second} s");
    }
    stage.now = seconds(30);
    assert_eq!(stage.take(0, 2).unwrap().id, first.id);
    assert_eq!((stage.view(0).misses, stage.view(0).hits), (1, 1), "who asks again is one pod");
}

#[test]
fn scaled_to_nothing_and_back_needs_no_request() {
    let mut stage = Stage::new(SETTINGS, 1);
    let mut ports = Vec::new();
    for n in 0..20 {
        ports.push(stage.take(0, n).unwrap_or_else(|| {
            stage.maker.0 += 1;
            port(stage.maker.0, &choice(0, &[1]), &place(0))
        }));
        stage.pools.recorded(&pod(n));
        stage.pools.waits_no_more(&key(0), &pod(n));
    }
    stage.pass(seconds(60));
    for port in ports {
        assert_eq!(stage.pools.give_back(&place(0), port, stage.now), Back::Kept);
    }
    let before = stage.requests;
    stage.pass(seconds(60));
    assert!((100..120).all(|n| stage.take(0, n).is_some()));
    assert_eq!((stage.requests, stage.deleted.len()), (before, 0));
}

#[test]
fn the_budget_is_shared_and_a_pool_with_too_many_makes_way() {
    let mut stage = Stage::new(Settings { budget: 10, ..SETTINGS }, 4);
    assert_eq!([0, 1, 2, 3].map(|node| stage.ready(node)), [2, 2, 2, 2]);
    for n in 0..2 {
        let extra = port(900 + n, &choice(0, &[1]), &place(0));
        assert_eq!(stage.pools.give_back(&place(0), extra, stage.now), Back::Kept);
    }
    let last = port(999, &choice(0, &[1]), &place(0));
    assert_eq!(stage.pools.give_back(&place(0), last, stage.now), Back::Delete, "ten is all");
    stage.pools.deleted(port_id(999), stage.now);
    stage.pools.open(&place(4), 110, stage.now);
    stage.work();
    assert_eq!(stage.ready(4), 2, "those of node 0 made way");
    assert_eq!(stage.pools.totals().held, 10);
}

#[test]
fn a_node_that_is_gone_has_no_ports_and_what_is_made_for_it_is_not_kept() {
    let mut stage = Stage::new(SETTINGS, 2);
    (0..3).for_each(|n| drop(stage.take(0, n)));
    let bulks = stage.pools.plan(stage.now, &Headroom::default()).bulks;
    assert_eq!(bulks.len(), 1);
    stage.pools.waits_no_more(&key(0), &pod(2));
    assert_eq!(stage.pools.close(&place(0)), []);
    let made = stage.maker.make(&bulks[0]);
    let unneeded = stage.pools.answered(bulks[0].id, Ok(made.clone()), stage.now);
    assert_eq!(unneeded, made.iter().map(|(_, port)| port.id).collect::<Vec<_>>());
    assert_eq!(stage.pools.close(&place(1)).len(), 2);
    stage.work();
    assert_eq!(stage.pools.view(stage.now), []);
    let lent = port_id(1);
    assert!(stage.pools.knows(lent), "what is lent stays so");
}

#[test]
fn a_port_on_a_network_that_is_not_for_pods_any_more_is_deleted() {
    // As one that is found when the controller was restarted with other subnets.
    let mut stage = Stage::new(SETTINGS, 2);
    let late = port(77, &choice(1, &[1]), &place(0));
    assert_eq!(stage.pools.give_back(&place(0), late, stage.now), Back::Delete);
}

#[test]
fn a_full_subnet_is_left_alone_and_the_next_one_is_asked() {
    let mut pools = Pools::new(SETTINGS, vec![choice(0, &[1]), choice(0, &[2])]);
    pools.open(&place(0), 110, seconds(0));
    let first = pools.plan(seconds(0), &Headroom::default()).bulks.remove(0);
    assert_eq!(first.choice, choice(0, &[1]));
    pools.answered(first.id, Err(Refusal::Full), seconds(1));
    let second = pools.plan(seconds(1), &Headroom::default()).bulks.remove(0);
    assert_eq!(second.choice, choice(0, &[2]));
    pools.answered(second.id, Err(Refusal::Full), seconds(2));
    let plan = pools.plan(seconds(2), &Headroom::default());
    assert_eq!((plan.bulks, plan.short, plan.again), (vec![], true, Some(seconds(29))));
    let probe = pools.plan(seconds(31), &Headroom::default()).bulks.remove(0);
    assert_eq!((probe.choice, probe.parts), (choice(0, &[1]), vec![(key(0), 1)]), "one port only");
}

#[test]
fn a_quota_refusal_stops_all_pools_until_something_is_deleted() {
    let mut stage = Stage::new(SETTINGS, 1);
    stage.pools.open(&place(1), 110, stage.now);
    let bulk = stage.pools.plan(stage.now, &Headroom::default()).bulks.remove(0);
    stage.pools.answered(bulk.id, Err(Refusal::Quota), stage.now);
    assert_eq!(stage.pools.plan(stage.now, &Headroom::default()).bulks, []);
    stage.pools.deleted(port_id(500), stage.now);
    let probe = stage.pools.plan(stage.now, &Headroom::default()).bulks.remove(0);
    assert_eq!(probe.parts, [(key(1), 1)]);
    let made = stage.maker.make(&probe);
    stage.pools.answered(probe.id, Ok(made), stage.now);
    stage.work();
    assert_eq!(stage.ready(1), 2);
}

#[test]
fn who_asks_why_pools_do_not_grow_is_told() {
    let held_up = |refusal: Option<Refusal>, headroom: &Headroom| {
        let mut pools = Pools::new(Settings { reserve: 5, ..SETTINGS }, vec![choice(0, &[1])]);
        pools.open(&place(0), 110, seconds(0));
        if let Some(refusal) = refusal {
            let bulk = pools.plan(seconds(0), &Headroom::default()).bulks.remove(0);
            pools.answered(bulk.id, Err(refusal), seconds(1));
        }
        let first = pools.plan(seconds(1), headroom).held_up;
        // While one is tried it is not known to be better, and when there are enough nobody is held up.
        let probe = pools.plan(seconds(100), headroom);
        assert_eq!(probe.held_up.is_some(), first.is_some(), "{first:?}");
        for bulk in probe.bulks {
            let keys = bulk.parts.iter().flat_map(|(key, count)| vec![key; *count]);
            let made = (1..).zip(keys).map(|(n, key)| (key.clone(), port(n, &bulk.choice, &key.place))).collect();
            pools.answered(bulk.id, Ok(made), seconds(100));
        }
        pools.close(&place(0));
        assert_eq!(pools.plan(seconds(101), headroom).held_up, None);
        first
    };
    let left = |quota, addresses| Headroom { quota, subnets: [(choice(0, &[1]).subnets[0], addresses)].into() };
    assert_eq!(held_up(None, &Headroom::default()), None);
    assert_eq!(held_up(None, &left(Some(6), 6)), None);
    assert_eq!(held_up(None, &left(Some(5), 100)), Some(HeldUp::Quota), "they are for pods");
    assert_eq!(held_up(None, &left(None, 5)), Some(HeldUp::Addresses), "they are for pods");
    assert_eq!(held_up(Some(Refusal::Quota), &Headroom::default()), Some(HeldUp::Quota));
    assert_eq!(held_up(Some(Refusal::Full), &Headroom::default()), Some(HeldUp::Addresses));
    assert_eq!(held_up(Some(Refusal::Other), &Headroom::default()), Some(HeldUp::Cloud));
}

#[test]
fn a_refusal_for_one_reason_does_not_leave_another_undecided_for_ever() {
    let mut pools = Pools::new(SETTINGS, vec![choice(0, &[1])]);
    pools.open(&place(0), 110, seconds(0));
    let mut now = seconds(0);
    for refusal in [Refusal::Quota, Refusal::Full, Refusal::Other, Refusal::Quota, Refusal::Full, Refusal::Other] {
        let bulk = pools.plan(now, &Headroom::default()).bulks.remove(0);
        pools.answered(bulk.id, Err(refusal), now);
        while pools.plan(now, &Headroom::default()).bulks.is_empty() {
            now += pools.clone().plan(now, &Headroom::default()).again.unwrap();
            if !pools.clone().plan(now, &Headroom::default()).bulks.is_empty() {
                break;
            }
        }
    }
}

#[test]
fn pools_leave_the_reserve_of_quota_and_subnets_to_pods() {
    let mut pools = Pools::new(Settings { reserve: 10, floor: 5, ..SETTINGS }, vec![choice(0, &[1])]);
    pools.open(&place(0), 110, seconds(0));
    let short = |pools: &Pools, headroom: Headroom| {
        let plan = pools.clone().plan(seconds(0), &headroom);
        plan.bulks.iter().flat_map(|bulk| &bulk.parts).map(|(_, count)| *count).sum::<usize>()
    };
    let subnets = |left| Headroom { quota: None, subnets: [(subnet(1), left)].into() };
    assert_eq!(short(&pools, Headroom { quota: Some(13), ..Headroom::default() }), 3);
    assert_eq!([9, 11, 99].map(|left| short(&pools, subnets(left))), [0, 1, 5]);
}

#[test]
fn pods_that_find_no_room_get_that_of_idle_nodes_and_what_is_given_back() {
    let mut stage = Stage::new(Settings { floor: 4, ..SETTINGS }, 3);
    (0..3).for_each(|n| drop(stage.take(0, n)));
    stage.work();
    let victims = stage.pools.starved(&Shortage::Quota, 5, stage.now);
    assert_eq!([0, 1, 2].map(|node| stage.ready(node)), [4, 1, 2], "the busy one keeps what it expects to need");
    assert_eq!(victims.len(), 5);
    stage.gone(victims);
    assert_eq!(stage.pools.plan(stage.now, &Headroom::default()).bulks, [], "pools do not take it from the pods");
    let rest = stage.pools.starved(&Shortage::Quota, 9, stage.now);
    assert_eq!(rest.len(), 7, "that is all there is");
    for (n, back) in [(701, Back::Delete), (702, Back::Delete), (703, Back::Kept)] {
        let given = port(n, &choice(0, &[1]), &place(1));
        assert_eq!(stage.pools.give_back(&place(1), given, stage.now), back);
    }
    stage.pools.starved(&Shortage::Quota, 0, stage.now);
    assert_eq!(stage.pools.plan(stage.now, &Headroom::default()).bulks, [], "not before something came free");
    stage.pools.deleted(port_id(701), stage.now);
    assert_eq!(stage.pools.plan(stage.now, &Headroom::default()).bulks.len(), 1);
}

#[test]
fn only_ports_of_the_full_subnet_make_way_for_it() {
    let mut pools = Pools::new(SETTINGS, vec![choice(0, &[1]), choice(0, &[2])]);
    pools.open(&place(0), 110, seconds(0));
    for (n, net) in [(1, 1), (2, 2), (3, 1)] {
        let _ = pools.give_back(&place(0), port(n, &choice(0, &[net]), &place(0)), seconds(0));
    }
    let victims = pools.starved(&Shortage::Subnets(choice(0, &[1])), 3, seconds(40));
    assert_eq!(victims, [port_id(1), port_id(3)]);
}

#[test]
fn after_a_restart_one_list_fills_the_pools() {
    let mut pools = Pools::new(SETTINGS, vec![choice(0, &[1])]);
    (0..2).for_each(|n| pools.open(&place(n), 110, seconds(0)));
    let backs = [0, 0, 1, 1, 7]
        .into_iter()
        .zip(1..)
        .map(|(node, n)| pools.give_back(&place(node), port(n, &choice(0, &[1]), &place(node)), seconds(0)));
    let backs: Vec<Back> = backs.collect();
    assert_eq!(backs, [Back::Kept, Back::Kept, Back::Kept, Back::Kept, Back::Delete], "node 7 is gone");
    assert!(pools.claim(port_id(2)), "a KuryrPort has it after all");
    assert_eq!(pools.take(&key(0), &pod(1), seconds(29)), None);
    assert_eq!(pools.take(&key(0), &pod(1), seconds(30)).unwrap().id, port_id(1));
    assert_eq!(pools.take(&key(0), &pod(2), seconds(30)), None);
}

#[test]
fn a_cordoned_node_wants_nothing_and_a_full_one_no_more_than_it_has_room_for() {
    let mut stage = Stage::new(SETTINGS, 1);
    stage.pools.open(&place(0), 1, stage.now);
    (0..4).for_each(|n| drop(stage.take(0, n)));
    stage.work();
    assert_eq!(stage.ready(0), 1);
    stage.pools.open(&place(0), 0, stage.now);
    let rested = stage.pass(seconds(3600));
    assert_eq!((stage.view(0).target, stage.ready(0)), (0, 0));
    assert!(rested < seconds(900));
}

#[test]
fn an_operator_fills_and_drains() {
    let mut stage = Stage::new(SETTINGS, 1);
    stage.pools.fill(&key(0), 30);
    stage.work();
    assert_eq!(stage.ready(0), 30, "beyond the ceiling");
    stage.pass(seconds(7200));
    assert_eq!(stage.ready(0), 30);
    let gone = stage.pools.drain(&key(0));
    assert_eq!(gone.len(), 30);
    stage.gone(gone);
    stage.pass(seconds(7200));
    assert_eq!(stage.ready(0), 0);
    stage.pools.fill(&key(0), 0);
    stage.work();
    assert_eq!(stage.ready(0), 2);
}

#[test]
fn a_lent_port_that_no_kuryr_port_has_is_ready_again_at_once() {
    let mut stage = Stage::new(SETTINGS, 1);
    let lent = stage.take(0, 1).unwrap().id;
    assert_eq!(stage.pools.returned(&pod(1), stage.now), Some((lent, Back::Kept)));
    assert_eq!(stage.pools.returned(&pod(1), stage.now), None);
    assert_eq!(stage.ready(0), 2);
}

#[test]
fn a_port_of_a_pod_comes_to_a_pool_where_there_is_room_for_all() {
    let mut stage = Stage::new(SETTINGS, 2);
    assert!(stage.pools.takes(&key(0)));
    assert!(!stage.pools.takes(&key(7)), "there is no such node");
    assert!(stage.take(0, 1).is_some());
    let bulk = stage.pools.plan(stage.now, &Headroom::default()).bulks.remove(0);
    assert_eq!(stage.pools.answered(bulk.id, Err(Refusal::Quota), stage.now), []);
    assert!(stage.pools.has_room(&key(0)) && !stage.pools.takes(&key(0)), "the quota is used up");
    stage.pass(seconds(120));
    assert!(stage.pools.takes(&key(0)), "it is not any more");
}

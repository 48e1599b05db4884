//! Pools of trunks: a port is ready only when it is on its trunk.

use super::*;
use crate::pool::{Back, PoolView};

const TRUNK: u8 = 7;

fn trunk() -> PoolKey {
    PoolKey { place: Place::Trunk(id(0xbb, TRUNK.into()).parse().unwrap()), network: network(0) }
}

/// One node, and one that is a virtual machine.
fn pools() -> Pools {
    let mut pools = Pools::new(SETTINGS, vec![choice(0, &[1])]);
    pools.open(&place(0), usize::MAX, Duration::ZERO);
    pools.open(&trunk().place, usize::MAX, Duration::ZERO);
    pools
}

/// Makes all that is planned; the ports that are to be put on the trunk.
fn make(pools: &mut Pools, maker: &mut Maker, now: Duration) -> Vec<PortId> {
    let mut made = Vec::new();
    for bulk in pools.plan(now, &Headroom::default()).bulks {
        let ports = maker.make(&bulk);
        made.extend(ports.iter().map(|(_, port)| port.id));
        assert_eq!(pools.answered(bulk.id, Ok(ports), now), []);
    }
    made.retain(|id| pools.is_placing(*id));
    made
}

fn view(pools: &Pools, key: &PoolKey) -> PoolView {
    pools.view(seconds(0)).into_iter().find(|(pool, _)| pool == key).unwrap().1
}

#[test]
fn a_port_of_a_trunk_is_ready_when_it_is_there_and_one_of_a_node_at_once() {
    let (mut pools, mut maker) = (pools(), Maker::default());
    let placing = make(&mut pools, &mut maker, seconds(0));
    assert_eq!((placing.len(), view(&pools, &key(0)).ready), (2, 2));
    assert_eq!((view(&pools, &trunk()).ready, view(&pools, &trunk()).refilling), (0, 2));
    assert_eq!(pools.take(&trunk(), &pod(1), seconds(1)), None, "it has no id yet");
    assert!(pools.plan(seconds(1), &Headroom::default()).bulks.is_empty(), "they are on their way");
    assert_eq!(pools.placed(placing[0], true, seconds(2)), Back::Kept);
    assert_eq!(pools.take(&trunk(), &pod(1), seconds(2)).map(|port| port.id), Some(placing[0]));
    assert!(pools.knows(placing[1]), "a look at all ports takes it for nobody's");
}

#[test]
fn a_trunk_that_takes_no_ports_is_tried_ever_more_seldom_and_holds_up_no_other() {
    let (mut pools, mut maker) = (pools(), Maker::default());
    let mut tries = Vec::new();
    for second in 0u32..300 {
        for id in make(&mut pools, &mut maker, seconds(second.into())) {
            assert_eq!(pools.placed(id, false, seconds(second.into())), Back::Delete);
            pools.deleted(id, seconds(second.into()));
            tries.push(second);
        }
        // Each takes one of the other node's.
        if let Some(port) = pools.take(&key(0), &pod(second), seconds(second.into())) {
            pools.recorded(&pod(second));
            assert_eq!(port.host_id, "node0");
        }
    }
    assert_eq!(tries, [0, 0, 5, 15, 35, 75, 155], "one at a time, after twice as long");
    assert_eq!((view(&pools, &key(0)).misses, view(&pools, &trunk()).ready), (0, 0));
    let again = make(&mut pools, &mut maker, seconds(400));
    assert_eq!(again.len(), 1);
    assert_eq!(pools.placed(again[0], true, seconds(400)), Back::Kept);
    assert_eq!(make(&mut pools, &mut maker, seconds(401)).len(), 1, "the rest at once");
}

#[test]
fn a_port_whose_trunk_goes_while_it_is_put_there_is_deleted() {
    let (mut pools, mut maker) = (pools(), Maker::default());
    let placing = make(&mut pools, &mut maker, seconds(0));
    assert_eq!(pools.close(&trunk().place), []);
    assert!(placing.iter().all(|id| pools.placed(*id, true, seconds(1)) == Back::Delete));
}

#[test]
fn a_port_that_cannot_be_used_is_deleted_and_its_pod_gets_another() {
    let (mut pools, mut maker) = (pools(), Maker::default());
    for id in make(&mut pools, &mut maker, seconds(0)) {
        assert_eq!(pools.placed(id, true, seconds(0)), Back::Kept);
    }
    let first = pools.take(&trunk(), &pod(1), seconds(1)).unwrap();
    assert_eq!(pools.spoilt(&pod(1)), Some(first.id));
    assert_ne!(pools.take(&trunk(), &pod(1), seconds(1)).unwrap().id, first.id);
    assert_eq!(pools.totals().leaving, 1);
}

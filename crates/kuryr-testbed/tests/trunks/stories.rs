//! What must hold, told.

use crate::world::{World, ids, place_all};
use kuryr_controller::trunks::{TrunkError, Trunks};
use kuryr_openstack::{
    Class, Waits,
    network::{NewPort, PortUpdate},
};
use kuryr_plan::trunk::Room;
use kuryr_testbed::cloud::{Fault, TrunkStatus};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn ports_that_come_together_leave_in_batches_and_go_in_batches() {
    let world = World::new().await;
    let (trunks, ports) = (world.trunks(), world.ports(50).await);
    world.cloud.calls().reset();
    let placed = ids(place_all(&trunks, world.trunk, &ports).await);
    assert_eq!(world.changes(), 3, "50 in batches of 20");
    let carried = world.carried().await;
    assert_eq!(ports.iter().map(|port| carried[port]).collect::<Vec<_>>(), placed);
    world.cloud.calls().reset();
    let left = futures::future::join_all(ports.iter().map(|port| trunks.leave(world.trunk, *port))).await;
    assert!(left.iter().all(Result::is_ok), "{left:?}");
    assert_eq!((world.changes(), world.carried().await.len()), (3, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trunk_has_one_request_at_a_time_and_trunks_do_not_wait_for_each_other() {
    let world = World::new().await;
    let (trunks, other) = (world.trunks(), world.new_trunk().await);
    let ports = world.ports(8).await;
    let path = format!("/v2.0/trunks/{}/add_subports", world.trunk);
    let faults = world.cloud.faults();
    let hung = faults.add(Fault::hang().path(&path));
    let early = tokio::spawn({
        let (trunks, trunk, port) = (trunks.clone(), world.trunk, ports[0]);
        async move { trunks.place(trunk, port).await }
    });
    while faults.hits(hung) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(ids(place_all(&trunks, other, &ports[6..]).await).len(), 2);
    // What is asked for meanwhile waits for the first request, and then goes together.
    let (late, _) = tokio::join!(place_all(&trunks, world.trunk, &ports[1..6]), async { faults.remove(hung) });
    assert_eq!(ids(late).len(), 5);
    early.await.unwrap().unwrap();
    assert_eq!(world.cloud.calls().filter(|call| call.path.ends_with(&path)).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_unseen_is_not_done_twice() {
    let world = World::new().await;
    let (trunks, ports) = (world.trunks(), world.ports(5).await);
    world.cloud.faults().add(Fault::lose_answer().path(&format!("/v2.0/trunks/{}/add_subports", world.trunk)).times(1));
    let first = place_all(&trunks, world.trunk, &ports).await;
    assert!(first.iter().all(|placed| matches!(placed, Err(TrunkError::Cloud(error)) if error.is_ambiguous())));
    let placed = ids(place_all(&trunks, world.trunk, &ports).await);
    let carried = world.carried().await;
    assert_eq!(ports.iter().map(|port| carried[port]).collect::<Vec<_>>(), placed);
    assert_eq!(world.changes(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_comes_back_keeps_what_pods_have_and_removes_what_nobody_wants() {
    let world = World::new().await;
    let ports = world.ports(4).await;
    let before = ids(place_all(&world.trunks(), world.trunk, &ports[..3]).await);
    // It was killed: one of these is in a KuryrPort, one was never recorded, and somebody removed the third one, which is.
    world.neutron.trunks().remove_subports(world.trunk, &ports[2..3]).await.unwrap();
    let trunks = world.trunks();
    let told = [0, 2].map(|n| (ports[n], u16::try_from(before[n]).unwrap().try_into().unwrap()));
    trunks.begin(world.trunk, told, ports.clone());
    let fresh = ids(place_all(&trunks, world.trunk, &ports[3..]).await);
    assert!(!before.contains(&fresh[0]), "{fresh:?} was another's: {before:?}");
    trunks.leave(world.trunk, ports[1]).await.unwrap();
    let expected = [(ports[0], before[0]), (ports[2], before[2]), (ports[3], fresh[0])];
    assert_eq!(world.carried().await, expected.into());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_neutron_does_not_take_holds_up_no_other_and_may_be_mended() {
    let world = World::new().await;
    let trunks = world.trunks();
    let mut ports = world.ports(9).await;
    let used = NewPort { device_id: "somebody".into(), ..NewPort::new(world.network) };
    let used = world.neutron.ports().create(&used).await.unwrap().id;
    ports.insert(4, used);
    let placed = place_all(&trunks, world.trunk, &ports).await;
    for (port, placed) in ports.iter().zip(&placed) {
        match placed {
            Err(TrunkError::Cloud(error)) if *port == used => assert_eq!(error.refusal().unwrap().kind, "PortInUse"),
            placed => assert!(placed.is_ok() && *port != used, "{placed:?}"),
        }
    }
    let free = PortUpdate { device_id: Some(String::new()), ..PortUpdate::default() };
    world.neutron.ports().update(used, &free, None).await.unwrap();
    trunks.place(world.trunk, used).await.unwrap();
    assert_eq!(world.carried().await.len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_somebody_took_meanwhile_is_left_to_them() {
    let world = World::new().await;
    let (trunks, ports) = (world.trunks(), world.ports(2).await);
    trunks.place(world.trunk, ports[0]).await.unwrap();
    // The next id in turn.
    let taken = (world.ports(1).await[0], 2.try_into().unwrap());
    world.neutron.trunks().add_subports(world.trunk, &[taken]).await.unwrap();
    // It is refused alone, and tried again when it is asked for again.
    let id = match trunks.place(world.trunk, ports[1]).await {
        Ok(id) => id,
        Err(_) => trunks.place(world.trunk, ports[1]).await.unwrap(),
    };
    assert_eq!(id.get(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_can_do_something_is_told() {
    let world = World::new().await;
    let (trunks, ports) = (world.trunks(), world.ports(3).await);
    trunks.place(world.trunk, ports[0]).await.unwrap();
    world.cloud.set_trunk_status(world.trunk.0, TrunkStatus::Error);
    let error = trunks.place(world.trunk, ports[1]).await.unwrap_err();
    let TrunkError::Cloud(error) = error else { panic!("{error}") };
    assert_eq!(error.class(), Class::Operator(Waits::Configuration));
    world.cloud.set_trunk_status(world.trunk.0, TrunkStatus::Active);
    trunks.place(world.trunk, ports[1]).await.unwrap();

    // One whose calls do not wait for Neutron to come back.
    let trunks = Trunks::new(world.neutron.within(Duration::from_millis(300)), Duration::ZERO);
    trunks.place(world.trunk, ports[1]).await.unwrap();
    world.cloud.go_away();
    let error = trunks.place(world.trunk, ports[2]).await.unwrap_err();
    assert!(matches!(&error, TrunkError::Cloud(error) if matches!(error.class(), Class::RetryLater { .. })), "{error}");
    world.cloud.come_back();
    trunks.place(world.trunk, ports[2]).await.unwrap();

    world.neutron.trunks().delete(world.trunk).await.unwrap();
    trunks.look_again(world.trunk);
    let error = trunks.place(world.trunk, ports[2]).await.unwrap_err();
    assert!(matches!(error, TrunkError::Gone(trunk) if trunk == world.trunk), "{error}");
    trunks.leave(world.trunk, ports[0]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_4095th_subport_is_told_why_and_comes_when_there_is_room() {
    let world = World::new().await;
    let trunks = world.trunks();
    let mut rooms = trunks.rooms();
    let mut ports = Vec::new();
    assert_eq!(trunks.room(world.trunk), None, "nobody has asked for it");
    while ports.len() < 4094 {
        ports.extend(world.ports(89).await);
    }
    let mut all = ids(place_all(&trunks, world.trunk, &ports).await);
    all.sort_unstable();
    assert_eq!(all, (1..=4094).collect::<Vec<u32>>());
    assert_eq!(trunks.room(world.trunk), Some(Room { free: 0, others: 0 }));
    let next = world.ports(1).await[0];
    let error = trunks.place(world.trunk, next).await.unwrap_err();
    assert!(error.to_string().contains("no further pod fits"), "{error}");
    trunks.leave(world.trunk, ports[7]).await.unwrap();
    trunks.place(world.trunk, next).await.unwrap();
    trunks.leave(world.trunk, ports[8]).await.unwrap();
    rooms.wait_for(|rooms| rooms[&world.trunk].free == 1).await.unwrap();
}

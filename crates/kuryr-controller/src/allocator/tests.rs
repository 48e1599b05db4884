//! The executor against a Neutron in memory.

use super::*;
use crate::{
    config::PoolsConfig,
    error::Reason,
    fake::{Fate, Neutron, keeper, topology, vif},
    lean::{NodeState, Said},
};
use futures::future::join_all;
use kuryr_model::{Host, Mark};
use kuryr_plan::{fullness::Notice, pool::Settings};
use prometheus_client::registry::Registry;

async fn allocator(neutron: &Neutron) -> Allocator {
    start(neutron, None).await
}

/// With a node, and pools if there are settings for them.
async fn start(neutron: &Neutron, pools: Option<Settings>) -> Allocator {
    start_with(neutron, pools, Arc::default()).await
}

async fn start_with(neutron: &Neutron, pools: Option<Settings>, index: Arc<Index>) -> Allocator {
    let mut config = ControllerConfig::new("ours".into(), "us".into());
    config.bulk_requests = 1;
    config.pools = pools.map(|sizes| PoolsConfig { sizes, names: false });
    let node = NodeState {
        name: "node0".into(),
        host: Host::of("node0", None),
        said: Said::default(),
        addresses: [].into(),
        out_of_service: false,
        cordoned: false,
        notice: Notice::default(),
        version: None,
    };
    index.apply_node(node, Instant::now());
    let metrics = Metrics::new(&mut Registry::default());
    let allocator = Allocator::start(neutron.cloud().await, topology(), &config, metrics, keeper(), index);
    allocator.resynced([]);
    allocator
}

fn request(n: usize) -> Request {
    let (key, uid) = (ObjectKey::new("shop", format!("pod-{n}")), PodUid(format!("u{n}")));
    Request { key, uid, host: "node0".into(), machine: None, groups: topology().open_groups.to_vec() }
}

async fn ask(allocator: &Allocator, pods: std::ops::Range<usize>) -> Vec<Result<Allocated, PodError>> {
    join_all(pods.map(|n| allocator.allocate(request(n)))).await
}

#[tokio::test]
async fn those_that_come_together_leave_together_and_each_gets_its_own() {
    let neutron = Neutron::start().await;
    let allocator = allocator(&neutron).await;
    let answers = ask(&allocator, 0..20).await;
    assert_eq!(neutron.take_log(), ["POST 20"]);
    let mut ports: Vec<PortId> = answers.into_iter().map(|answer| answer.unwrap().vif.port_id).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 20);
}

#[tokio::test]
async fn a_lost_answer_is_looked_for_and_makes_no_second_port() {
    let neutron = Neutron::start().await;
    let allocator = allocator(&neutron).await;
    neutron.next(&[Fate::Lost]);
    assert!(ask(&allocator, 0..3).await.iter().all(Result::is_err));
    let answers = ask(&allocator, 0..4).await;
    assert!(answers.iter().take(3).all(|answer| !answer.as_ref().unwrap().made), "they were there");
    assert!(answers[3].as_ref().unwrap().made);
    assert_eq!(neutron.ports().len(), 4);
    assert_eq!(neutron.take_log(), ["POST 3", "GET", "POST 1"]);
}

#[tokio::test]
async fn a_quota_that_is_used_up_is_not_asked_for_again_and_again() {
    let neutron = Neutron::start().await;
    let allocator = allocator(&neutron).await;
    neutron.set_quota(0);
    for round in 0..3 {
        let answers = ask(&allocator, 0..60).await;
        assert!(answers.iter().all(|answer| answer.as_ref().unwrap_err().reason() == Reason::QuotaExceeded));
        let requests = neutron.take_log();
        let most = if round == 0 { 5 } else { 0 };
        assert!(requests.len() <= most, "round {round}: {requests:?}");
    }
    // Two ports are deleted, so two are asked for.
    neutron.set_quota(2);
    for _ in 0..2 {
        allocator.release(&vif("00000000-0000-0000-0001-000000009999")).await.unwrap();
    }
    neutron.take_log();
    let answers = ask(&allocator, 0..5).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 2);
    assert_eq!(neutron.take_log(), ["POST 2"]);
}

#[tokio::test]
async fn those_who_look_at_the_same_time_share_a_request() {
    let neutron = Neutron::start().await;
    let allocator = allocator(&neutron).await;
    ask(&allocator, 0..10).await;
    neutron.take_log();
    let sweeps: Vec<Sweep> = (0..10).map(|n| Sweep { uid: request(n).uid, keep: [].into() }).collect();
    let swept = join_all(sweeps.iter().map(|sweep| allocator.sweep(sweep))).await;
    assert!(swept.into_iter().all(|swept| swept.unwrap() == 1));
    assert_eq!(neutron.take_log().iter().filter(|request| *request == "GET").count(), 1);
    assert_eq!(neutron.ports(), [""; 0]);
}

const POOLS: Settings = Settings {
    floor: 4,
    ceiling: 50,
    budget: 100,
    cooldown: Duration::ZERO,
    memory: Duration::from_secs(60),
    shrink_after: Duration::from_secs(60),
    bulk_size: 20,
    requests: 1,
    reserve: 0,
};

/// Lets pools work until there are so many ports.
async fn filled(neutron: &Neutron, allocator: &Allocator, ports: usize) {
    let listed = allocator.list_all().await.unwrap();
    let spare = listed.iter().map(|port| port.id).collect();
    allocator.listed(&listed, spare, &HashMap::new());
    let pools = allocator.clone();
    tokio::spawn(async move { pools.keep_pools().await });
    while neutron.ports().len() < ports {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    neutron.take_log();
}

fn uid(n: usize) -> PodUid {
    request(n).uid
}

#[tokio::test]
async fn a_pod_gets_a_spare_port_without_any_request_and_the_next_one_gets_it_after_it() {
    let neutron = Neutron::start().await;
    let allocator = start(&neutron, Some(Settings { floor: 1, ceiling: 1, ..POOLS })).await;
    filled(&neutron, &allocator, 1).await;
    let first = ask(&allocator, 0..1).await.remove(0).unwrap().vif.port_id;
    assert!(!neutron.take_log().contains(&"POST 2".to_owned()));
    assert_eq!(ask(&allocator, 0..1).await.remove(0).unwrap().vif.port_id, first, "the same until it is recorded");
    allocator.recorded(&request(0).key, &uid(0));
    assert_eq!(allocator.release(&vif(&first.to_string())).await.unwrap(), Released::Kept);
    let (second, third) = (ask(&allocator, 1..2).await.remove(0), ask(&allocator, 2..3).await.remove(0));
    assert!([second, third].into_iter().any(|answer| answer.unwrap().vif.port_id == first));
}

#[tokio::test]
async fn a_burst_that_is_larger_than_the_pool_takes_what_is_there_and_makes_the_rest_together() {
    let neutron = Neutron::start().await;
    let allocator = start(&neutron, Some(POOLS)).await;
    filled(&neutron, &allocator, 4).await;
    // The pool asks for more at once, too, and would else be answered first.
    let held = neutron.hold_creates().await;
    let burst = tokio::spawn(async move { ask(&allocator, 0..12).await });
    while !neutron.take_log().contains(&"POST 8".to_owned()) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(held);
    let answers = burst.await.unwrap();
    let mut ports: Vec<PortId> = answers.into_iter().map(|answer| answer.unwrap().vif.port_id).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 12);
}

#[tokio::test]
async fn a_pod_with_a_spare_port_waits_for_nobody_whose_port_is_made() {
    let neutron = Neutron::start().await;
    let allocator = start(&neutron, Some(Settings { floor: 1, ceiling: 1, budget: 1, ..POOLS })).await;
    filled(&neutron, &allocator, 1).await;
    let held = neutron.hold_creates().await;
    let crowd = tokio::spawn({
        let allocator = allocator.clone();
        let elsewhere = |n| Request { host: "node1".into(), ..request(n) };
        async move { join_all((1..40).map(|n| allocator.allocate(elsewhere(n)))).await }
    });
    // The only slot is taken.
    while !neutron.take_log().iter().any(|request| request.starts_with("POST")) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    ask(&allocator, 0..1).await.remove(0).unwrap();
    assert!(!crowd.is_finished());
    drop(held);
    assert!(crowd.await.unwrap().iter().all(Result::is_ok));
}

#[tokio::test]
async fn a_port_that_no_kuryr_port_has_for_sure_is_spare_again() {
    let neutron = Neutron::start().await;
    let allocator = start(&neutron, Some(Settings { floor: 1, ceiling: 1, ..POOLS })).await;
    filled(&neutron, &allocator, 1).await;
    ask(&allocator, 0..1).await.remove(0).unwrap();
    assert!(allocator.returned(&uid(0)));
    assert!(!allocator.returned(&uid(0)));
}

#[tokio::test]
async fn after_a_restart_the_pools_are_as_they_were() {
    let neutron = Neutron::start().await;
    let before = start(&neutron, Some(POOLS)).await;
    filled(&neutron, &before, 4).await;
    let there = neutron.ports();
    let allocator = start(&neutron, Some(POOLS)).await;
    filled(&neutron, &allocator, 4).await;
    let got: Vec<String> =
        ask(&allocator, 0..4).await.into_iter().map(|answer| answer.unwrap().vif.port_id.to_string()).collect();
    assert!(got.iter().all(|port| there.contains(port)), "{got:?} of {there:?}");
}

#[tokio::test]
async fn spare_ports_make_way_where_the_quota_is_used_up() {
    let neutron = Neutron::start().await;
    let allocator = start(&neutron, Some(POOLS)).await;
    filled(&neutron, &allocator, 4).await;
    neutron.set_quota(4);
    let mut elsewhere = request(0);
    elsewhere.host = "node1".into();
    allocator.allocate(elsewhere).await.unwrap();
    assert_eq!(neutron.ports().len(), 4);
    assert!(neutron.take_log().contains(&"DELETE".to_owned()));
}

/// Requests that change something.
fn writes(neutron: &Neutron) -> Vec<String> {
    neutron.take_log().into_iter().filter(|request| request != "GET").collect()
}

#[tokio::test]
async fn a_pod_gets_its_groups_on_the_spare_port_first_and_the_pool_gets_that_back_without_them() {
    let neutron = Neutron::start().await;
    let allocator = start(&neutron, Some(Settings { floor: 1, ceiling: 1, budget: 1, ..POOLS })).await;
    filled(&neutron, &allocator, 1).await;
    let closed = "00000000-0000-0000-0000-000000000009";
    let isolated = || Request { groups: vec![closed.parse().unwrap()], ..request(0) };
    let port = allocator.allocate(isolated()).await.unwrap().vif.port_id;
    assert_eq!(neutron.groups(&port), [closed]);
    let again = allocator.allocate(isolated()).await.unwrap();
    assert_eq!((again.vif.port_id, again.made), (port, false), "its KuryrPort may have it");
    assert_eq!(writes(&neutron).iter().filter(|request| *request == "PUT").count(), 1, "once is enough");
    allocator.recorded(&request(0).key, &uid(0));
    // It may have been filled up meanwhile: then there is no room for this one.
    let released = allocator.release(&vif(&port.to_string())).await.unwrap();
    let open: Vec<String> = topology().open_groups.iter().map(ToString::to_string).collect();
    match released {
        Released::Kept => assert_eq!(neutron.groups(&port), open),
        Released::Deleted => assert!(!neutron.ports().contains(&port.to_string())),
    }
}

#[tokio::test]
async fn a_spare_port_that_a_kuryr_port_has_all_the_same_is_handed_out_to_nobody() {
    let neutron = Neutron::start().await;
    let index = Arc::new(Index::default());
    let allocator =
        start_with(&neutron, Some(Settings { floor: 1, ceiling: 1, budget: 1, ..POOLS }), index.clone()).await;
    filled(&neutron, &allocator, 1).await;
    let taken = neutron.ports().remove(0);
    let held: KuryrPort = serde_json::from_value(serde_json::json!({
        "apiVersion": "kuryr.openstack.org/v1", "kind": "KuryrPort",
        "metadata": {"namespace": "shop", "name": "x", "uid": "k", "resourceVersion": "1"},
        "spec": {"podUid": "other", "nodeName": "node0", "vifs": [{
            "interface": "eth0", "portId": taken, "networkId": taken, "mac": "fa:16:3e:00:00:01", "mtu": 1442,
            "addresses": [], "plug": {"driver": "ovs"}}]},
    }))
    .unwrap();
    index.apply_port(held);
    let port = ask(&allocator, 0..1).await.remove(0).unwrap().vif.port_id;
    assert_ne!(port.to_string(), taken);
}

#[tokio::test]
async fn what_is_given_back_while_pods_wait_for_room_is_deleted_for_them() {
    let neutron = Neutron::start().await;
    let allocator = start(&neutron, Some(Settings { floor: 1, ceiling: 1, ..POOLS })).await;
    filled(&neutron, &allocator, 1).await;
    let first = ask(&allocator, 0..1).await.remove(0).unwrap().vif.port_id;
    allocator.recorded(&request(0).key, &uid(0));
    while neutron.ports().len() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    neutron.set_quota(2);
    // One takes the spare one, and the next waits.
    let second = allocator.allocate(request(1)).await.unwrap();
    allocator.recorded(&request(1).key, &uid(1));
    assert_eq!(allocator.allocate(request(2)).await.unwrap_err().reason(), Reason::QuotaExceeded);
    assert_eq!(allocator.release(&vif(&first.to_string())).await.unwrap(), Released::Deleted);
    allocator.allocate(request(2)).await.unwrap();
    allocator.recorded(&request(2).key, &uid(2));
    allocator.relieved();
    assert_eq!(
        allocator.release(&vif(&second.vif.port_id.to_string())).await.unwrap(),
        Released::Kept,
        "nobody waits any more"
    );
}

#[tokio::test]
async fn a_suspect_gets_a_spare_port_although_nobody_can_look_for_its_own() {
    let neutron = Neutron::start().await;
    let allocator = start(&neutron, Some(Settings { floor: 1, ceiling: 1, budget: 1, ..POOLS })).await;
    filled(&neutron, &allocator, 1).await;
    allocator.suspect(&request(0).key, &uid(0));
    neutron.refuse_lists(true);
    assert!(ask(&allocator, 0..1).await.remove(0).is_ok(), "the spare one");
    assert!(ask(&allocator, 1..2).await.remove(0).is_ok(), "and who is no suspect has one made");
    allocator.drain_pools("node0", None).unwrap();
    allocator.suspect(&request(2).key, &uid(2));
    assert!(ask(&allocator, 2..3).await.remove(0).is_err(), "there may be one already");
}

/// A port that was made for the first pod, because its pool had none.
async fn missed(neutron: &Neutron) -> (Allocator, Vif) {
    let allocator = start(neutron, Some(Settings { floor: 0, ceiling: 0, ..POOLS })).await;
    filled(neutron, &allocator, 0).await;
    let made = ask(&allocator, 0..1).await.remove(0).unwrap().vif;
    allocator.recorded(&request(0).key, &uid(0));
    (allocator, made)
}

#[tokio::test]
async fn a_port_that_was_made_for_a_pod_is_spare_when_the_pod_goes() {
    let neutron = Neutron::start().await;
    let (allocator, made) = missed(&neutron).await;
    let before = allocator.list_all().await.unwrap();
    neutron.take_log();
    assert_eq!(allocator.release(&made).await.unwrap(), Released::Kept);
    assert_eq!(writes(&neutron).first().map(String::as_str), Some("PUT tags"));
    let after = allocator.list_all().await.unwrap();
    let mark = Mark::read(&"ours".into(), &after[0].tags).unwrap();
    assert_eq!((after.len(), mark.purpose), (1, Purpose::Pool));
    // Who looked before that takes it for a port of a pod that is gone.
    allocator.discard(&before[0]).await.unwrap();
    assert_eq!(neutron.ports(), [made.port_id.to_string()]);
    let next = ask(&allocator, 1..2).await.remove(0).unwrap();
    assert_eq!(next.vif.port_id, made.port_id);
    allocator.discard(&before[0]).await.unwrap();
    assert_eq!(allocator.sweep(&Sweep { uid: uid(0), keep: [].into() }).await.unwrap(), 0);
    assert_eq!(neutron.ports(), [made.port_id.to_string()], "it is the next one's");
    while allocator.list_all().await.unwrap()[0].device_id != *"" {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_port_that_is_given_back_twice_stays_spare() {
    let neutron = Neutron::start().await;
    let allocator = start(&neutron, Some(Settings { floor: 1, ceiling: 1, ..POOLS })).await;
    filled(&neutron, &allocator, 1).await;
    let [spare, made] = [0, 1].map(|n| allocator.allocate(request(n)));
    for (n, port) in [spare.await.unwrap().vif, made.await.unwrap().vif].into_iter().enumerate() {
        allocator.recorded(&request(n).key, &uid(n));
        // The KuryrPort was changed meanwhile, so its finalizer is still there, and the step is done again.
        for _ in 0..2 {
            assert_eq!(allocator.release(&port).await.unwrap(), Released::Kept);
        }
        assert!(neutron.ports().contains(&port.port_id.to_string()));
    }
}

#[tokio::test]
async fn a_port_that_cannot_be_marked_is_deleted_with_its_pod() {
    let neutron = Neutron::start().await;
    let (allocator, made) = missed(&neutron).await;
    neutron.refuse_tags(true);
    assert_eq!(allocator.release(&made).await.unwrap(), Released::Deleted);
    assert_eq!(neutron.ports(), [""; 0]);
}

#[tokio::test]
async fn where_there_is_no_room_for_it_a_port_that_was_made_for_a_pod_is_deleted_with_it() {
    let neutron = Neutron::start().await;
    let allocator = start(&neutron, Some(Settings { floor: 0, ceiling: 0, budget: 0, ..POOLS })).await;
    filled(&neutron, &allocator, 0).await;
    let made = ask(&allocator, 0..1).await.remove(0).unwrap().vif;
    allocator.recorded(&request(0).key, &uid(0));
    neutron.take_log();
    assert_eq!(allocator.release(&made).await.unwrap(), Released::Deleted);
    assert_eq!(writes(&neutron), ["DELETE"]);
}

#[tokio::test]
async fn a_pod_that_is_refused_waits_until_it_has_a_port_and_is_one_miss_however_often_it_tries() {
    let neutron = Neutron::start().await;
    let allocator = start(&neutron, Some(Settings { floor: 1, ceiling: 1, ..POOLS })).await;
    filled(&neutron, &allocator, 1).await;
    ask(&allocator, 0..1).await.remove(0).unwrap();
    allocator.recorded(&request(0).key, &uid(0));
    allocator.drain_pools("node0", None).unwrap();
    neutron.set_quota(neutron.ports().len());
    let row = || allocator.pools().unwrap().pools.remove(0);
    for _ in 0..3 {
        assert!(ask(&allocator, 1..3).await.iter().all(Result::is_err));
        assert_eq!((row().view.waiting, row().view.hits, row().view.misses), (2, 1, 2));
    }
    // One is deleted, and the other one gets its port.
    allocator.waits_no_more(&request(1).key);
    assert_eq!(row().view.waiting, 1);
    neutron.set_quota(100);
    allocator.release(&vif(&neutron.ports()[0])).await.unwrap();
    allocator.allocate(request(2)).await.unwrap();
    assert_eq!((row().view.waiting, row().view.hits, row().view.misses), (0, 1, 2));
}

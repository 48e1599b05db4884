//! The executor against a Neutron in memory.

use super::*;
use crate::{
    error::Reason,
    fake::{Fate, Neutron, keeper, topology, vif},
};
use futures::future::join_all;
use prometheus_client::registry::Registry;

async fn allocator(neutron: &Neutron) -> Allocator {
    let mut config = ControllerConfig::new("ours".into(), "us".into());
    config.bulk_requests = 1;
    let metrics = Metrics::new(&mut Registry::default());
    let allocator = Allocator::start(neutron.cloud().await, topology(), &config, metrics, keeper(), Arc::default());
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

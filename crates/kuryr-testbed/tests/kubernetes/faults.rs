//! Faults on purpose, and the call log.

use std::time::{Duration, Instant};

use kuryr_testbed::kubernetes::{Fault, FaultEffect};

use super::*;

#[tokio::test]
async fn faults_hit_the_calls_they_select() {
    let (server, client) = cluster();
    let maps = config_maps(&client);
    let rule = |effect| Fault {
        verb: Some("create".into()),
        resource: Some("configmaps".into()),
        times: Some(1),
        effect: Some(effect),
        ..Fault::default()
    };
    let guard = server.faults().inject(rule(FaultEffect::Fail { code: 500, retry_after: None }));
    assert_eq!(refusal(maps.create(&PostParams::default(), &config_map("a", "k", "1")).await).code, 500);
    drop(guard);

    let guard = server.faults().inject(rule(FaultEffect::LoseAnswer));
    assert!(maps.create(&PostParams::default(), &config_map("lost", "k", "1")).await.is_err());
    assert!(maps.get("lost").await.is_ok(), "the work was done");
    drop(guard);

    let guard = server.faults().inject(rule(FaultEffect::Delay(Duration::from_millis(50))));
    let begun = Instant::now();
    create(&maps, &config_map("b", "k", "1")).await;
    assert!(begun.elapsed() >= Duration::from_millis(50));
    drop(guard);

    let _guard = server.faults().inject(rule(FaultEffect::Hang));
    let parameters = PostParams::default();
    let map = config_map("c", "k", "1");
    let hanging = tokio::time::timeout(Duration::from_millis(100), maps.create(&parameters, &map)).await;
    assert!(hanging.is_err(), "no answer ever comes");
}

#[tokio::test]
async fn calls_are_counted_by_client() {
    let (server, client) = cluster();
    let maps = config_maps(&client);
    server.calls().reset();
    create(&maps, &config_map("a", "k", "1")).await;
    maps.get("a").await.unwrap();
    config_maps(&server.client("other")).get("a").await.unwrap();
    assert_eq!(server.calls().count(|call| call.user_agent == "test"), 2);
    assert_eq!(server.calls().count(kuryr_testbed::kubernetes::CallKey::is_write), 1);
}

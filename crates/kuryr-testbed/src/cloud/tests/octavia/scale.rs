use std::time::{Duration, Instant};

use serde_json::json;

use super::{Site, service};

const BALANCERS: usize = 1000;

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[times.len() / 2]
}

/// The bound is relative, so that neither a debug build nor a busy machine breaks it, but work that grows with what is there does.
#[tokio::test]
async fn a_thousand_load_balancers_with_ten_members_each_are_made_seen_and_listed() {
    let site = Site::new().await;
    let subnet = super::subnet(&site.world.neutron, &site.network, "10.64.0.0/16").await;
    let members: Vec<String> = (1..=10).map(|n| format!("10.64.9.{n}")).collect();
    let members: Vec<&str> = members.iter().map(String::as_str).collect();
    let mut made = Vec::new();
    for n in 0..BALANCERS {
        let body = json!({ "name": format!("default/s-{n}"), "vip_subnet_id": subnet, "tags": ["kuryr:c", format!("kuryr:service:{n}")],
            "listeners": [service("TCP", 80, &members)] });
        let started = Instant::now();
        site.ask(body).await.expect(201);
        made.push(started.elapsed());
    }
    let (first, last) = (median(&made[..200]), median(&made[BALANCERS - 200..]));
    site.hooks().settled().await;
    let seen = site.world.cloud.snapshot().load_balancers;
    assert!(seen.len() == BALANCERS && seen.iter().all(|seen| seen.listeners[0].members.len() == 10));
    let started = Instant::now();
    let all = site.get("/loadbalancers?tags=kuryr:c&fields=id&fields=tags").await["loadbalancers"].take();
    let listed = started.elapsed();
    assert_eq!(all.as_array().unwrap().len(), BALANCERS);
    println!("one made: first {first:?}, last {last:?}; all listed {listed:?}");
    assert!(last < first * 6, "creates slow down: {first:?}, later {last:?}");
}

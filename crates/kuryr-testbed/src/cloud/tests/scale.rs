use std::time::{Duration, Instant};

use serde_json::json;

use super::{World, network, subnet};

const BATCHES: usize = 100;
const BATCH: usize = 100;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Bounds are relative, so that neither a debug build nor a busy machine breaks them, but work that grows with what is there does.
#[tokio::test]
async fn ten_thousand_ports_are_made_found_listed_and_deleted_without_scans() {
    let world = World::new().await;
    let net = network(&world.neutron, "n").await;
    subnet(&world.neutron, &net, "10.0.0.0/16").await;
    let mut made = Vec::new();
    for batch in 0..BATCHES {
        let ports: Vec<_> = (0..BATCH)
            .map(|n| {
                let tags = json!(["kuryr:c", format!("kuryr:pod:{batch}-{n}")]);
                json!({ "network_id": net, "name": format!("default/p-{batch}-{n}"), "tags": tags })
            })
            .collect();
        let started = Instant::now();
        world.neutron.post("/v2.0/ports", &json!({ "ports": ports })).await.expect(201);
        made.push(started.elapsed());
    }
    let (first, last) = (median(made[..30].to_vec()), median(made[BATCHES - 30..].to_vec()));

    let mut found = Vec::new();
    for n in 0..21 {
        let started = Instant::now();
        let path = format!("/v2.0/ports?tags=kuryr:c,kuryr:pod:42-{n}&fields=id&fields=name");
        let one = world.neutron.get(&path).await.expect(200);
        found.push(started.elapsed());
        assert_eq!(one["ports"][0]["name"], format!("default/p-42-{n}"));
    }
    let found = median(found);

    let started = Instant::now();
    let all = world.neutron.get("/v2.0/ports?tags=kuryr:c&fields=id&fields=name&fields=tags").await.expect(200);
    let listed = started.elapsed();
    let all = all["ports"].as_array().unwrap();
    assert_eq!(all.len(), BATCHES * BATCH);

    let mut deleted = Vec::new();
    for port in all.iter().take(200) {
        let started = Instant::now();
        world.neutron.delete(&format!("/v2.0/ports/{}", port["id"].as_str().unwrap())).await.expect(204);
        deleted.push(started.elapsed());
    }
    let deleted = median(deleted);
    println!(
        "batch of {BATCH}: first {first:?}, last {last:?}; one found {found:?}; all listed {listed:?}; one deleted {deleted:?}"
    );
    assert!(last < first * 4, "creates slow down: {first:?}, later {last:?}");
    assert!(found * 10 < listed, "a tag is not looked up but scanned for: {found:?} of {listed:?}");
    assert!(deleted * 10 < listed, "a delete scans: {deleted:?} of {listed:?}");
}

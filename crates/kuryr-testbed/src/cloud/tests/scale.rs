use std::time::{Duration, Instant};

use serde_json::json;

use super::{World, network, subnet};

/// Debug builds are some ten times slower than what users run: the bounds only tell linear work from quadratic.
#[tokio::test]
async fn ten_thousand_ports_are_made_listed_and_deleted_without_quadratic_work() {
    let world = World::new().await;
    let net = network(&world.neutron, "n").await;
    subnet(&world.neutron, &net, "10.0.0.0/16").await;
    let started = Instant::now();
    for batch in 0..100 {
        let ports: Vec<_> = (0..100)
            .map(|n| {
                let tags = json!(["kuryr:c", format!("kuryr:pod:{batch}-{n}")]);
                json!({ "network_id": net, "name": format!("default/p-{batch}-{n}"), "tags": tags })
            })
            .collect();
        world.neutron.post("/v2.0/ports", &json!({ "ports": ports })).await.expect(201);
    }
    let made = started.elapsed();

    let started = Instant::now();
    let one = world.neutron.get("/v2.0/ports?tags=kuryr:c,kuryr:pod:42-42&fields=id&fields=name").await.expect(200);
    let looked_up = started.elapsed();
    assert_eq!(one["ports"][0]["name"], "default/p-42-42");

    let started = Instant::now();
    let all = world.neutron.get("/v2.0/ports?tags=kuryr:c&fields=id&fields=name&fields=tags").await.expect(200);
    let listed = started.elapsed();
    let all = all["ports"].as_array().unwrap();
    assert_eq!(all.len(), 10_000);

    let started = Instant::now();
    for port in all.iter().take(1000) {
        world.neutron.delete(&format!("/v2.0/ports/{}", port["id"].as_str().unwrap())).await.expect(204);
    }
    let deleted = started.elapsed();
    println!(
        "10,000 made in {made:?}, one found in {looked_up:?}, all listed in {listed:?}, 1,000 deleted in {deleted:?}"
    );
    assert!(made < Duration::from_secs(30), "{made:?}");
    assert!(looked_up < Duration::from_millis(100), "{looked_up:?}");
    assert!(listed < Duration::from_secs(3), "{listed:?}");
}

//! From a bound pod to its `KuryrPort`.

use super::{
    figure::{Budget, Figure, Unit},
    lab::{self, Scale},
};
use crate::{cloud::Latency, world::World};
use std::time::Duration;

pub(super) const GROUP: &str = "allocation";

/// Pods of the burst.
const BURST: usize = 50;

pub(super) async fn measure(scale: &Scale) -> anyhow::Result<Vec<Figure>> {
    let world = lab::world_without_kubelet(scale, Latency::default()).await?;
    let quick = without_latency(&world, scale).await;
    world.shut_down().await?;
    let mut figures = quick?;
    let world = lab::world_without_kubelet(scale, Latency::measured()).await?;
    let slow = with_latency(&world, scale).await;
    world.shut_down().await?;
    figures.extend(slow?);
    Ok(figures)
}

async fn without_latency(world: &World, scale: &Scale) -> anyhow::Result<Vec<Figure>> {
    let node = world.nodes[0].clone();
    let calls = world.inside()?.cloud.calls();
    let filled = lab::ports_filled(&world.client);
    let warm = lab::names("warm", 5);
    for name in &warm {
        lab::bound_pod(&world.client, name, &node).await?;
        filled.when(name).await?;
    }
    calls.reset();
    let mut single = Vec::new();
    for name in lab::names("single", scale.samples(300)) {
        let (asked, _) = lab::bound_pod(&world.client, &name, &node).await?;
        single.push(lab::ms(asked, filled.when(&name).await?));
    }
    let (posts, ports, _) = lab::neutron_calls(calls);
    let single_calls = format!("{posts} POST for {ports} ports");

    let (mut last, mut each, mut burst_calls) = (Vec::new(), Vec::new(), String::new());
    for round in 0..scale.samples(5) {
        calls.reset();
        let names = lab::names(&format!("burst{round}"), BURST);
        let (asked, _) = lab::bound_pods(&world.client, &names, &node).await?;
        let mut times = Vec::new();
        for name in &names {
            times.push(lab::ms(asked, filled.when(name).await?));
        }
        last.push(times.iter().copied().fold(0.0, f64::max));
        each.extend(times);
        let (posts, ports, _) = lab::neutron_calls(calls);
        burst_calls = format!("{posts} POST for {ports} ports");
    }
    Ok(vec![
        Figure::new(GROUP, "pod bound -> KuryrPort written, cloud without latency", Unit::Milliseconds, single)
            .budget(Budget::of(10.0, 50.0))
            .calls(single_calls)
            .original("1600 ms, pool hit")
            .note(
                "without pools: one HTTP request to a cloud that answers at once, and the moment that the allocator waits for more \
                 requests to join it; from before the request that makes the bound pod until our own watch shows the KuryrPort; one \
                 pod at a time",
            ),
        Figure::new(GROUP, "the same, 50 pods at once, each", Unit::Milliseconds, each).calls(burst_calls.clone()),
        Figure::new(GROUP, "the same, 50 pods at once, the last", Unit::Milliseconds, last).calls(burst_calls),
    ])
}

async fn with_latency(world: &World, scale: &Scale) -> anyhow::Result<Vec<Figure>> {
    let node = world.nodes[0].clone();
    let calls = world.inside()?.cloud.calls();
    let latency = Latency::measured();
    let filled = lab::ports_filled(&world.client);
    lab::bound_pod(&world.client, "warm", &node).await?;
    filled.when("warm").await?;
    let mut figures = Vec::new();
    for (count, original) in [(1_u32, "8.1 s to Running"), (10, "19.4 s to Running"), (20, "28.7 s to Running")] {
        let (mut samples, mut posts) = (Vec::new(), 0);
        for round in 0..scale.samples(5) {
            calls.reset();
            let names = lab::names(&format!("slow{count}-{round}"), count as usize);
            let (asked, _) = lab::bound_pods(&world.client, &names, &node).await?;
            let mut last = 0.0_f64;
            for name in &names {
                last = last.max(lab::ms(asked, filled.when(name).await?) / 1000.0);
            }
            samples.push(last);
            posts = lab::neutron_calls(calls).0;
        }
        let bulk: Duration = latency.create + latency.create_item * count;
        let pods = if count == 1 { "1 pod".to_owned() } else { format!("{count} pods") };
        let what = format!("{pods} bound -> last KuryrPort, cloud as slow as a real one");
        figures.push(
            Figure::new(GROUP, what, Unit::Seconds, samples)
                .budget(Budget::most(bulk.as_secs_f64() + 2.0))
                .calls(format!("{posts} POST for {count} ports"))
                .original(original)
                .note(format!(
                    "Neutron's own time for {count} ports in one request is {:.2} s here ({} ms, and {} ms for each); the budget \
                     is that and 2 s",
                    bulk.as_secs_f64(),
                    latency.create.as_millis(),
                    latency.create_item.as_millis(),
                )),
        );
    }
    Ok(figures)
}

//! What an operator does before there are pods.

use crate::{
    cloud::{Fault, Service},
    world::{World, set_up},
};
use anyhow::ensure;
use std::time::Duration;
use tokio::time::Instant;

pub(super) async fn setup_does_at_once_what_it_can(world: &mut World) -> anyhow::Result<()> {
    const EACH: Duration = Duration::from_millis(300);
    for controller in world.kuryr.controllers() {
        world.kuryr.stop_controller(controller).await?;
    }
    let cloud = world.inside()?.cloud.clone();
    let slow = cloud.faults().add(Fault::delay(EACH).service(Service::Network));
    let cidrs = ["10.30.0.0/20".to_owned(), "fd00:30::/64".to_owned()];
    let [_, setup] = set_up(&cidrs, &["10.96.0.0/16".to_owned()]);
    for args in [vec!["setup".to_owned(), "--teardown".to_owned()], setup] {
        cloud.calls().reset();
        let started = Instant::now();
        let (code, output) = world.kuryr.run(args.clone()).await?;
        let took = started.elapsed();
        ensure!(code == Some(0), "kuryr {} ended with {code:?}: {output}", args.join(" "));
        let calls = cloud.calls().filter(|call| call.service == Service::Network).len();
        let one_by_one = EACH * u32::try_from(calls)?;
        ensure!(took < one_by_one / 2, "{calls} calls of {EACH:?} took {took:?}");
        tracing::info!(command = args.join(" "), calls, ?took, "done");
    }
    cloud.faults().remove(slow);
    let subnets = world.pod_subnets().await?;
    ensure!(subnets.len() == 2, "there are the subnets {subnets:?}");
    // Kubernetes' own Service has a load balancer again.
    world.kuryr.start_controller().await?;
    world.leader_elected().await?;
    crate::world::Services::new(&world.client, "default").ready("kubernetes", 1).await.map(drop)
}

//! How an operator sees that all is well, and the end of everything.

use super::{
    begin::run,
    show::{Show, many},
};
use crate::world::{Vm, World, pods::PATIENCE};
use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams},
};
use tokio::time::{Instant, timeout};

pub(super) async fn status(show: &Show, world: &World) -> anyhow::Result<()> {
    show.chapter("kuryr status", "One screen that says what works and what does not, and why.");
    let output = run(show, world, vec!["status".to_owned()]).await?;
    show.gap();
    show.quote("kuryr status", &output);
    show.gap();
    // It exits with 1 if anything does not work.
    show.claim(true, "it found nothing that does not work")
}

pub(super) async fn nothing_left(show: &Show, world: &World, vm: Vm) -> anyhow::Result<()> {
    show.chapter(
        "Everything is deleted",
        "All pods, and the VM. Then `kuryr audit` compares Kubernetes, OpenStack and what the daemons find on their nodes (links, \
         namespaces), and lists every stray or missing thing.",
    );
    let (pods, cloud) = (world.pods(), &world.inside()?.cloud);
    world.stop_vm(vm).await?;
    let work = async {
        let all = pods.api().list_metadata(&ListParams::default()).await?;
        pods.api().delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
        for pod in all {
            let name = pod.name_any();
            pods.when(&name, "gone", PATIENCE, |pod: Option<&Pod>| pod.is_none()).await?;
            pods.port_gone(&name).await?;
        }
        anyhow::Ok(())
    };
    let work = async { timeout(PATIENCE, work).await.context("pods are left")? };
    let ours = || cloud.ports().iter().filter(|port| port.name.starts_with("demo/")).count();
    show.watch("all pods are deleted", || format!("{} left", many(ours(), "port")), work).await?;
    let audit = async {
        let started = Instant::now();
        loop {
            let (clean, report) = world.kuryr.audit(&world.nodes).await?;
            if clean {
                return Ok(report);
            }
            if started.elapsed() > PATIENCE {
                bail!("the audit finds something:\n{report}");
            }
        }
    };
    let report = show.wait("kuryr audit", audit).await?;
    show.gap();
    show.quote("kuryr audit", &report);
    show.gap();
    show.claim(ours() == 0, "the audit is clean, and no port of a pod is left in Neutron")
}

pub(super) async fn teardown(show: &Show, world: &mut World) -> anyhow::Result<()> {
    show.chapter(
        "And the cloud as it was",
        "Kuryr is stopped, and `kuryr setup --teardown` removes what setup had made, and the load balancer of Kubernetes' own Service, \
         which cannot be deleted.",
    );
    show.wait("Kuryr stops", world.kuryr.stop_all()).await?;
    run(show, world, vec!["setup".to_owned(), "--teardown".to_owned()]).await?;
    let left = world.inside()?.cloud.snapshot();
    let groups = left.security_groups.values().filter(|group| group.name != "default").count();
    let networks = left.networks.values().filter(|network| !network.external).count();
    let subnets =
        left.subnets.values().filter(|subnet| left.networks.get(&subnet.network).is_none_or(|at| !at.external));
    let all = left.ports.len() + networks + subnets.count() + left.routers.len() + groups + left.load_balancers.len();
    show.claim(
        all == 0,
        "the cloud has no network, subnet, router, port, security group or load balancer of ours any more",
    )
}

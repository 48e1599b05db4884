//! Who reaches whom, and why.

use super::{
    pods::group_names,
    show::{Show, seconds},
};
use crate::{
    dataplane::probe,
    world::{Vm, World, addresses},
};
use anyhow::Context;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kuryr_model::SecurityGroupId;
use kuryr_openstack::network::PortUpdate;
use std::{collections::BTreeSet, net::IpAddr, path::PathBuf, time::Duration};
use tokio::time::Instant;

const WITHIN: Duration = Duration::from_secs(10);
/// How long nothing must come to call it silence.
const SILENCE: Duration = Duration::from_millis(700);

/// Somebody on the network.
struct Peer {
    name: String,
    node: String,
    netns: PathBuf,
    ip: IpAddr,
}

fn pod_peer(world: &World, pod: &Pod) -> anyhow::Result<Peer> {
    Ok(Peer {
        name: format!("pod {}", pod.name_any()),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
        netns: world.netns(pod)?,
        ip: *addresses(pod)?.first().context("a pod without address")?,
    })
}

fn vm_peer(world: &World, vm: &Vm) -> anyhow::Result<Peer> {
    let ip = *vm.addresses.first().context("a VM without address")?;
    Ok(Peer { name: "VM".to_owned(), node: world.nodes[0].clone(), netns: vm.netns.clone(), ip })
}

pub(super) async fn everyone(show: &Show, world: &World, pods: &[Pod]) -> anyhow::Result<Vm> {
    show.chapter(
        "Everyone reaches everyone",
        "A virtual machine joins: a port that was made and bound outside Kuryr, as Nova would. Then packets are sent from inside each \
         one's network namespace: a ping, and a TCP connection with a word that comes back.",
    );
    let vm = show.wait("the VM starts", world.start_vm("vm")).await?;
    show.gap();
    let peers: Vec<Peer> = pods.iter().map(|pod| pod_peer(world, pod)).collect::<anyhow::Result<_>>()?;
    let (front, back, store) = (&peers[0], &peers[1], &peers[2]);
    let vm_peer = vm_peer(world, &vm)?;
    let pairs = [
        (front, back),
        (back, front),
        (front, store),
        (store, front),
        (front, &vm_peer),
        (&vm_peer, front),
        (store, &vm_peer),
        (&vm_peer, store),
    ];
    let mut rows = Vec::new();
    for (from, to) in pairs {
        let (ping, tcp) = reach(from, to).await.with_context(|| format!("{} to {}", from.name, to.name))?;
        let way = if from.node == to.node { "one node" } else { "across nodes" };
        let place = |peer: &Peer| format!("{} on {}", peer.name, peer.node);
        rows.push(vec![
            place(from),
            "→".to_owned(),
            place(to),
            to.ip.to_string(),
            seconds(ping),
            seconds(tcp),
            way.to_owned(),
        ]);
    }
    show.table(&["FROM", "", "TO", "ADDRESS", ">PING", ">TCP", "WAY"], &rows);
    show.gap();
    show.claim(rows.len() == pairs.len(), "pods reach pods and VMs, both ways, by ping and TCP")?;
    Ok(vm)
}

/// How long a ping took, and a TCP connection with an echo.
async fn reach(from: &Peer, to: &Peer) -> anyhow::Result<(Duration, Duration)> {
    let server = probe::listen(&to.netns, (to.ip, 0).into()).await?;
    let ping = probe::ping(&from.netns, to.ip, WITHIN).await?;
    Ok((ping, probe::reach(&from.netns, server.address(), WITHIN).await?))
}

pub(super) async fn groups(show: &Show, world: &World, pods: &[Pod], vm: &Vm) -> anyhow::Result<()> {
    show.chapter(
        "Security groups decide",
        "Neutron's groups only allow: a port without any drops everything. So each pod has two base groups, one for each direction. \
         To see that they are what lets packets through, the VM's are taken away for a moment.",
    );
    let snapshot = world.inside()?.cloud.snapshot();
    let names = group_names(world);
    let base = ["kuryr-ingress-open", "kuryr-egress-open"];
    for (id, group) in snapshot.security_groups.iter().filter(|(_, group)| base.contains(&group.name.as_str())) {
        let rule = |rule: &crate::cloud::RuleView| {
            let family = if rule.v6 { "IPv6" } else { "IPv4" };
            format!("{} {family}", if rule.ingress { "ingress" } else { "egress" })
        };
        let rules: Vec<String> = group.rules.iter().map(rule).collect();
        show.fact(&group.name, &format!("{id} allows {}", rules.join(", ")));
    }
    let base: BTreeSet<&str> = base.into();
    let has_both = |pod: &Pod| {
        let port = snapshot.ports.values().find(|port| Some(&port.device_id) == pod.metadata.uid.as_ref());
        let own = port.iter().flat_map(|port| &port.security_groups).filter_map(|id| names.get(id).map(String::as_str));
        own.collect::<BTreeSet<_>>() == base
    };
    show.claim(pods.iter().all(has_both), "every pod's port has exactly these two")?;
    let ports = world.cloud.network();
    let ports = ports.ports();
    let before = ports.get(vm.port).await?.security_groups;
    let (front, peer) = (pod_peer(world, pods.first().context("no pod")?)?, vm_peer(world, vm)?);
    let give = |security_groups: Vec<SecurityGroupId>| PortUpdate {
        security_groups: Some(security_groups),
        ..PortUpdate::default()
    };
    let silent = async {
        ports.update(vm.port, &give(Vec::new()), None).await?;
        answers(&front, &peer, false).await
    };
    let silent = show.wait("the VM's port has no groups", silent).await?;
    show.claim(silent, "pod front gets no answer from the VM any more")?;
    let again = async {
        ports.update(vm.port, &give(before), None).await?;
        answers(&front, &peer, true).await
    };
    let again = show.wait("the VM's port has its groups again", again).await?;
    show.claim(again, "pod front gets answers from the VM again")
}

/// Whether pings come to be answered, or not to be. The data plane follows Neutron in its own time.
async fn answers(from: &Peer, to: &Peer, wanted: bool) -> anyhow::Result<bool> {
    let started = Instant::now();
    loop {
        let answered = match probe::ping(&from.netns, to.ip, SILENCE).await {
            Ok(_) => true,
            Err(error) if error.is_silent() => false,
            Err(error) => return Err(error.into()),
        };
        if answered == wanted || started.elapsed() > WITHIN {
            return Ok(answered == wanted);
        }
    }
}

//! Pods on both nodes, step by step, and what was made for them.

use super::{
    show::Show,
    timeline::{Steps, Timeline, steps},
};
use crate::{
    kubernetes::PodTiming,
    world::{NewPod, World, addresses},
};
use anyhow::Context;
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kuryr_model::neutron::{Port, PortStatus};
use serde_json::Value;
use std::{collections::BTreeMap, net::IpAddr};

/// The pods of the first chapters, and the number of the node that each is on.
const PODS: [(&str, usize); 4] = [("front", 0), ("back", 0), ("store", 1), ("cache", 1)];

pub(super) async fn start(show: &Show, world: &World, timeline: &Timeline) -> anyhow::Result<Vec<Pod>> {
    show.chapter(
        "Pods on both nodes",
        "Four pods are created at once. For each the controller asks Neutron for a port and writes a KuryrPort; meanwhile the node \
         starts the pod's sandbox and calls kuryr-cni, whose ADD waits in the daemon until the KuryrPort is there, then plugs.",
    );
    let work = async {
        let new: Vec<NewPod> = PODS.iter().map(|&(name, node)| NewPod::new(name).on(&world.nodes[node])).collect();
        let pods = world.pods();
        try_join_all(new.iter().map(|pod| pods.create(pod))).await?;
        try_join_all(PODS.iter().map(|(name, _)| pods.running(name))).await
    };
    let progress = || format!("{} of {} Running", timeline.running(""), PODS.len());
    let pods = show.watch("create, allocate, plug, run", progress, work).await?;
    show.gap();
    let mut rows = Vec::new();
    let mut all = Vec::new();
    for pod in &pods {
        let moments = timeline.of(&pod.uid().context("a pod without UID")?).await;
        let timing = timing(world, &moments.node, pod)?;
        let steps = steps(&moments, timing.as_ref());
        rows.push(row(pod, &moments.node, &steps));
        all.push(steps);
    }
    show.table(
        &[
            "POD",
            "NODE",
            ">SCHEDULED",
            ">ADD CALLED",
            ">PORT MADE",
            ">KURYRPORT",
            ">PLUGGED",
            ">RUNNING",
            " ",
            ">ADD WAITED",
            ">PLUG",
        ],
        &rows,
    );
    show.prose("Milliseconds since the pod was created; on the right, how long its ADD waited for the KuryrPort and how long plugging took.");
    show.gap();
    let in_order = |steps: &Steps| {
        let moments = [steps.port, steps.recorded, steps.plugged, steps.running];
        // The clocks of several watchers: a step may be seen a moment before the one that led to it.
        moments.iter().all(Option::is_some) && moments.is_sorted_by(|early, late| early.map(|time| time - 50) <= *late)
    };
    show.claim(
        all.iter().all(in_order),
        "each pod had its port made, then its KuryrPort written, then was plugged, then ran",
    )?;
    let apart: Vec<IpAddr> = all_addresses(&pods)?;
    let (unique, all) = (apart.iter().collect::<std::collections::BTreeSet<_>>().len(), apart.len());
    show.claim(unique == all && all == PODS.len(), "each has an address of its own from the Neutron subnet")?;
    Ok(pods)
}

fn timing(world: &World, node: &str, pod: &Pod) -> anyhow::Result<Option<PodTiming>> {
    let kubelet = world.inside()?.kubelets.get(node).with_context(|| format!("no kubelet on {node:?}"))?;
    Ok(kubelet.timings().into_iter().rev().find(|timing| timing.name == pod.name_any()))
}

fn row(pod: &Pod, node: &str, steps: &Steps) -> Vec<String> {
    let text = |time: Option<i128>| time.map_or_else(|| "?".to_owned(), |time| time.to_string());
    let mut cells = vec![pod.name_any(), node.to_owned()];
    let moments = [steps.scheduled, steps.called, steps.port, steps.recorded, steps.plugged, steps.running];
    cells.extend(moments.map(text));
    cells.push("│".to_owned());
    cells.extend([steps.waited, steps.plug].map(text));
    cells
}

/// The addresses of all.
pub(super) fn all_addresses(pods: &[Pod]) -> anyhow::Result<Vec<IpAddr>> {
    let lists: Vec<Vec<IpAddr>> = pods.iter().map(addresses).collect::<anyhow::Result<_>>()?;
    Ok(lists.concat())
}

pub(super) async fn ports(show: &Show, world: &World, pods: &[Pod]) -> anyhow::Result<()> {
    show.chapter(
        "What was made for them in Neutron",
        "An ordinary port for each, as `openstack port list` shows it: named after its pod, bound to its pod's node, with two tags by \
         which Kuryr finds it again, whatever happens.",
    );
    let ports =
        show.wait("Neutron is asked", async { try_join_all(pods.iter().map(|pod| world.port_of(pod))).await }).await?;
    show.gap();
    let ip =
        |port: &Port| port.fixed_ips.iter().map(|fixed| fixed.ip_address.to_string()).collect::<Vec<_>>().join(" ");
    let rows: Vec<Vec<String>> = ports
        .iter()
        .map(|port| {
            let status = format!("{:?}", port.status).to_uppercase();
            vec![
                port.name.clone(),
                port.id.to_string(),
                ip(port),
                port.mac_address.to_string(),
                port.host_id.clone(),
                status,
            ]
        })
        .collect();
    show.table(&["NAME", "ID", "FIXED IP", "MAC", "HOST", "STATUS"], &rows);
    show.gap();
    let groups = group_names(world);
    if let Some(port) = ports.first() {
        show.fact("tags", &format!("{} (those of {})", port.tags.join(" "), port.name));
        let names = port.security_groups.iter().map(|id| groups.get(&id.0).map_or("?", String::as_str));
        show.fact("security groups", &format!("{} (those of each)", names.collect::<Vec<_>>().join(" ")));
    }
    show.gap();
    show.quote("kubectl get kuryrports -n demo -o wide", &kuryr_ports(world).await?.join("\n"));
    show.gap();
    let mine = |(pod, port): (&Pod, &Port)| {
        let ips: Vec<IpAddr> = port.fixed_ips.iter().map(|fixed| fixed.ip_address).collect();
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        Some(port.device_id.clone()) == pod.uid()
            && port.name == format!("demo/{}", pod.name_any())
            && Some(port.host_id.clone()) == node
            && addresses(pod).is_ok_and(|own| own == ips)
    };
    show.claim(
        pods.iter().zip(&ports).all(mine),
        "each port belongs to exactly one pod: its UID, its name, its node, its address",
    )?;
    show.claim(ports.iter().all(|port| port.status == PortStatus::Active), "each port is ACTIVE: the data plane has it")
}

/// The names of security groups by id.
pub(super) fn group_names(world: &World) -> BTreeMap<uuid::Uuid, String> {
    let snapshot = world.inside().map(|inside| inside.cloud.snapshot());
    let groups = snapshot.map(|snapshot| snapshot.security_groups).unwrap_or_default();
    groups.into_iter().map(|(id, group)| (id, group.name)).collect()
}

/// What `kubectl get kuryrports -o wide` prints: the server makes the table, kubectl only prints it.
async fn kuryr_ports(world: &World) -> anyhow::Result<Vec<String>> {
    let path = format!("/apis/kuryr.openstack.org/v1/namespaces/{}/kuryrports", world.namespace());
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let request = http::Request::get(path).header(http::header::ACCEPT, accept).body(Vec::new())?;
    let table: Value = world.client.request(request).await?;
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let headers: Vec<String> =
        array(&table["columnDefinitions"]).map(|column| text(&column["name"]).to_uppercase()).collect();
    let cell = |value: &Value| if value.is_null() { String::new() } else { text(value) };
    let rows: Vec<Vec<String>> = array(&table["rows"]).map(|row| array(&row["cells"]).map(cell).collect()).collect();
    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
    Ok(super::show::table(&headers, &rows))
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

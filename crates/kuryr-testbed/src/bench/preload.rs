//! Very many pods that have run for a while, written into the embedded API server and cloud without kubelets.

use super::lab::NAMESPACE;
use crate::{cloud::HostKind, world::World};
use anyhow::Context;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use kuryr_model::{
    DEVICE_OWNER, KuryrPort, KuryrPortSpec, Mark, NESTED_ANNOTATION, PARENT_PORT_ANNOTATION, PORT_FINALIZER, PodUid,
    Purpose, SecurityGroupId, SegmentationId, SubnetId, TrunkId,
    mark::cluster_tag,
    neutron::{Network, Port, Subnet},
    vif::Parent,
};
use kuryr_openstack::{
    Filter,
    network::{NewFixedIp, NewPort},
};
use kuryr_plan::{
    nested::{Found, Pods, nested_vif},
    vif::vif,
};
use serde_json::{Value, json};
use std::{collections::HashMap, time::Duration};

/// Pods of one node.
pub(super) const PER_NODE: usize = 100;
/// Pods with the same label `slot`: their numbers but for the last digit.
pub(super) const SLOT: usize = 10;
/// Ports that are made in one request.
const BULK: usize = 50;

/// What all pods share.
struct Ground {
    network: Network,
    subnets: Vec<Subnet>,
    groups: Vec<SecurityGroupId>,
}

/// What the nodes of the pods are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nodes {
    Bare,
    /// Virtual machines: the pods are subports of their trunks.
    Machines,
}

/// One of them.
struct Home {
    name: String,
    /// Its port, and its trunk.
    machine: Option<(Found, TrunkId)>,
}

/// Makes `count` pods on nodes of their own, with their ports and `KuryrPort`s. Gives the size of a pod's JSON in bytes.
pub(super) async fn pods(world: &World, count: usize, nodes: Nodes) -> anyhow::Result<usize> {
    let subnets = world.pod_subnets().await?;
    let first = subnets.first().context("no pod subnet")?;
    let network = world.cloud.network().networks().get(first.network_id).await?;
    let groups =
        world.cloud.network().security_groups().list(&Filter::new().tags([cluster_tag(&world.cluster)])).await?;
    let ground = Ground { network, subnets, groups: groups.into_iter().map(|group| group.id).collect() };
    let mut size = 0;
    for first in (0..count).step_by(PER_NODE) {
        let home = make_node(world, &ground, &format!("many-{}", first / PER_NODE), nodes).await?;
        for start in (first..count.min(first + PER_NODE)).step_by(BULK) {
            let end = count.min(first + PER_NODE).min(start + BULK);
            let names: Vec<(usize, String)> =
                (start..end).map(|number| (number - first, format!("web-{number}"))).collect();
            size = batch(world, &ground, &home, &names).await?;
        }
    }
    Ok(size)
}

async fn make_node(world: &World, ground: &Ground, name: &str, kind: Nodes) -> anyhow::Result<Home> {
    let (mut annotations, mut machine) = (json!({}), None);
    if kind == Nodes::Machines {
        let port = world.cloud.network().ports().create(&NewPort::new(ground.network.id)).await?;
        let trunk = world.make_trunk(name, port.id).await?;
        annotations = json!({ NESTED_ANNOTATION: "vlan", PARENT_PORT_ANNOTATION: port.id });
        let parent = Parent { port_id: port.id, mac: port.mac_address };
        machine = Some((Found { parent, network: ground.network.id, pods: Pods::Subports(trunk) }, trunk));
    } else {
        world.inside()?.cloud.add_host(name, HostKind::Tap);
    }
    let nodes: Api<Node> = Api::all(world.client.clone());
    // Cordoned ones would have no pools; that they are not Ready keeps the scheduler away.
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name, "annotations": annotations } });
    nodes.create(&PostParams::default(), &serde_json::from_value(node)?).await?;
    Ok(Home { name: name.to_owned(), machine })
}

/// Makes pods of a node: each one's number on it, and its name.
async fn batch(world: &World, ground: &Ground, home: &Home, names: &[(usize, String)]) -> anyhow::Result<usize> {
    let node = home.name.as_str();
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), NAMESPACE);
    let made: Vec<Pod> = stream::iter(names)
        .map(|(_, name)| async {
            let made = pods.create(&PostParams::default(), &serde_json::from_value(pod(name, node))?).await?;
            let status = Patch::Merge(json!({ "status": status(&made) }));
            anyhow::Ok(pods.patch_status(name, &PatchParams::default(), &status).await?)
        })
        .buffered(4)
        .try_collect()
        .await?;
    let size = made.first().map(|pod| serde_json::to_vec(pod).map(|text| text.len())).transpose()?.unwrap_or(0);
    let subnet = ground.subnets.first().context("no pod subnet")?.id;
    let wanted: Vec<NewPort> = made.iter().map(|pod| new_port(world, ground, subnet, home, pod)).collect();
    let network = world.cloud.network().within(Duration::from_secs(60));
    let ports = network.ports().create_many(&wanted).await?;
    let mut ports: HashMap<String, Port> = ports.into_iter().map(|port| (port.name.clone(), port)).collect();
    let mut of_pods = Vec::with_capacity(made.len());
    for (pod, (number, _)) in made.iter().zip(names) {
        let port = ports.remove(&full_name(pod)).context("Neutron left a port out")?;
        of_pods.push((pod, port, SegmentationId::try_from(u16::try_from(number + 1)?)?));
    }
    if let Some((_, trunk)) = home.machine {
        let subports: Vec<_> = of_pods.iter().map(|(_, port, id)| (port.id, *id)).collect();
        network.trunks().add_subports(trunk, &subports).await?;
    }
    let api: Api<KuryrPort> = Api::namespaced(world.client.clone(), NAMESPACE);
    for (pod, port, id) in &of_pods {
        let object = kuryr_port(ground, home, pod, port, *id)?;
        api.create(&PostParams::default(), &object).await?;
        let attachment = json!({ "status": { "attachment": {
            "state": "Attached", "containerId": format!("{:0>64}", pod.name_any()), "since": "2026-01-01T00:00:00Z",
        } } });
        api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(attachment)).await?;
    }
    Ok(size)
}

fn full_name(pod: &Pod) -> String {
    format!("{NAMESPACE}/{}", pod.name_any())
}

/// A port that carries the cluster's mark for a pod.
fn new_port(world: &World, ground: &Ground, subnet: SubnetId, home: &Home, pod: &Pod) -> NewPort {
    let uid = pod.uid().unwrap_or_default();
    let port = marked_port(world, ground, subnet, &home.name, &full_name(pod), &uid);
    match home.machine {
        // What has a host or a device comes to no trunk.
        Some(_) => NewPort { host_id: None, device_id: String::new(), ..port },
        None => port,
    }
}

fn marked_port(world: &World, ground: &Ground, subnet: SubnetId, node: &str, name: &str, uid: &str) -> NewPort {
    let mark = Mark { cluster: world.cluster.clone(), purpose: Purpose::Pod(PodUid(uid.to_owned())) };
    NewPort {
        name: name.to_owned(),
        fixed_ips: vec![NewFixedIp::from(subnet)],
        security_groups: ground.groups.clone(),
        host_id: Some(node.to_owned()),
        device_owner: DEVICE_OWNER.to_owned(),
        device_id: uid.to_owned(),
        tags: mark.tags(),
        ..NewPort::new(ground.network.id)
    }
}

/// A port with our mark that nobody wants, as a controller that died leaves it.
pub(super) async fn stray(world: &World) -> anyhow::Result<()> {
    let subnets = world.pod_subnets().await?;
    let first = subnets.first().context("no pod subnet")?;
    let network = world.cloud.network().networks().get(first.network_id).await?;
    let ground = Ground { network, subnets: Vec::new(), groups: Vec::new() };
    let uid = "00000000-0000-4000-8000-000000000000";
    world.cloud.network().ports().create(&marked_port(world, &ground, first.id, "many-0", "stray", uid)).await?;
    Ok(())
}

fn kuryr_port(ground: &Ground, home: &Home, pod: &Pod, port: &Port, id: SegmentationId) -> anyhow::Result<KuryrPort> {
    let mut vif = match &home.machine {
        Some((found, _)) => nested_vif("eth0", port, &ground.network, &ground.subnets, found)?,
        None => vif("eth0", port, &ground.network, &ground.subnets)?,
    };
    vif.plug.vlan = home.machine.map(|_| id);
    let (pod_uid, node_name) = (PodUid(pod.uid().unwrap_or_default()), home.name.clone());
    let spec = KuryrPortSpec { pod_uid, node_name, vifs: vec![vif] };
    let mut object = KuryrPort::new(&pod.name_any(), spec);
    object.metadata.finalizers = Some(vec![PORT_FINALIZER.to_owned()]);
    let owner =
        json!({ "apiVersion": "v1", "kind": "Pod", "name": pod.name_any(), "uid": pod.uid(), "controller": true });
    object.metadata.owner_references = Some(vec![serde_json::from_value(owner)?]);
    Ok(object)
}

/// A pod as a Deployment's is: its JSON has a size that is met in clusters.
fn pod(name: &str, node: &str) -> Value {
    let variables: Vec<Value> = (0..8)
        .map(|number| json!({ "name": format!("SETTING_{number}"), "value": format!("value of setting {number}") }))
        .collect();
    let probe = json!({ "httpGet": { "path": "/healthz", "port": 8080, "scheme": "HTTP" }, "periodSeconds": 10, "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3 });
    let mount = json!({ "name": "kube-api-access", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true });
    let container = |name: &str| {
        json!({
            "name": name, "image": format!("registry.example.org/team/{name}:1.2.3"), "env": variables, "volumeMounts": [mount],
            "ports": [{ "name": "http", "containerPort": 8080, "protocol": "TCP" }],
            "resources": { "requests": { "cpu": "100m", "memory": "128Mi" }, "limits": { "memory": "256Mi" } },
            "livenessProbe": probe, "readinessProbe": probe, "imagePullPolicy": "IfNotPresent",
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
        })
    };
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": { "app": "web", "app.kubernetes.io/name": "web", "app.kubernetes.io/part-of": "shop", "pod-template-hash": "6d4cf56db6", "slot": slot(name) },
            "annotations": { "prometheus.io/scrape": "true", "checksum/config": "5f8d1a6f3c1c9b5b8f8c2a7e0f7b6c4d3e2f1a0b9c8d7e6f5a4b3c2d1e0f9a8b" },
        },
        "spec": {
            "nodeName": node, "restartPolicy": "Always", "serviceAccountName": "default", "dnsPolicy": "ClusterFirst",
            "containers": [container("web"), container("sidecar")],
            "tolerations": [
                { "key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300 },
                { "key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300 },
            ],
            "volumes": [{ "name": "kube-api-access", "projected": { "defaultMode": 420, "sources": [
                { "serviceAccountToken": { "expirationSeconds": 3607, "path": "token" } },
                { "configMap": { "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
            ] } }],
        },
    })
}

/// The label of ten pods.
fn slot(name: &str) -> String {
    let number: usize = name.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or_default();
    (number / SLOT).to_string()
}

fn status(pod: &Pod) -> Value {
    let since = "2026-01-01T00:00:00Z";
    let condition =
        |kind: &str| json!({ "type": kind, "status": "True", "lastProbeTime": null, "lastTransitionTime": since });
    let conditions: Vec<Value> =
        ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"].map(condition).into();
    let container = |name: &str| {
        json!({
            "name": name, "image": format!("registry.example.org/team/{name}:1.2.3"), "ready": true, "started": true, "restartCount": 0,
            "imageID": format!("registry.example.org/team/{name}@sha256:{:0>64}", 7), "containerID": format!("containerd://{:0>64}", pod.name_any()),
            "state": { "running": { "startedAt": since } }, "lastState": {},
        })
    };
    json!({
        "phase": "Running", "hostIP": "192.0.2.10", "podIP": "10.10.0.5", "podIPs": [{ "ip": "10.10.0.5" }], "qosClass": "Burstable",
        "startTime": since, "conditions": conditions, "containerStatuses": [container("web"), container("sidecar")],
    })
}

//! The Node object: made once, changed only when the node changes.

use std::time::Duration;

use k8s_openapi::api::{coordination::v1::Lease, core::v1::Node};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

use super::{
    KubeletConfig,
    cni::{Cni, CniError, CniVerb},
};

/// Registers the node, or brings an existing Node up to date.
pub(crate) async fn register(config: &KubeletConfig, not_ready: Option<&CniError>) -> Result<(), kube::Error> {
    let nodes = Api::<Node>::all(config.client.clone());
    let mut labels = json!({
        "kubernetes.io/hostname": config.node, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
    });
    for (key, value) in &config.labels {
        labels[key] = json!(value);
    }
    let status = json!({
        "addresses": [
            { "type": "InternalIP", "address": config.address },
            { "type": "Hostname", "address": config.node },
        ],
        "capacity": { "cpu": "2", "memory": "4Gi", "pods": "1000" },
        "allocatable": { "cpu": "2", "memory": "4Gi", "pods": "1000" },
        "conditions": [ready(not_ready)],
        "nodeInfo": {
            "architecture": "amd64", "bootID": "", "containerRuntimeVersion": "testbed://1", "kernelVersion": kernel(),
            "kubeProxyVersion": "", "kubeletVersion": "v1.34.4", "machineID": "", "operatingSystem": "linux",
            "osImage": "testbed", "systemUUID": "",
        },
    });
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": { "name": config.node, "labels": labels }, "status": status,
    });
    let object = serde_json::from_value(node).map_err(kube::Error::SerdeError)?;
    match nodes.create(&PostParams::default(), &object).await {
        Err(kube::Error::Api(answer)) if answer.code == 409 => {
            let patch = Patch::Strategic(json!({ "metadata": { "labels": labels } }));
            nodes.patch(&config.node, &PatchParams::default(), &patch).await?;
            let patch = Patch::Strategic(json!({ "status": status }));
            nodes.patch_status(&config.node, &PatchParams::default(), &patch).await.map(drop)
        }
        other => other.map(drop),
    }
}

fn kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").map(|text| text.trim().to_owned()).unwrap_or_default()
}

fn ready(not_ready: Option<&CniError>) -> Value {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let (status, reason, message) = match not_ready {
        None => ("True", "KubeletReady", "kubelet is posting ready status".to_owned()),
        Some(error) => ("False", "KubeletNotReady", format!("container runtime network not ready: {error}")),
    };
    json!({
        "type": "Ready", "status": status, "reason": reason, "message": message,
        "lastHeartbeatTime": now, "lastTransitionTime": now,
    })
}

/// Lets the node's readiness follow the plugin's STATUS.
pub(crate) async fn follow_status(config: KubeletConfig, cni: Cni, every: Duration, mut was_ready: bool) {
    let nodes = Api::<Node>::all(config.client.clone());
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let status = cni.call(CniVerb::Status, None, None, &[]).await;
        if status.is_ok() == was_ready {
            continue;
        }
        let patch = Patch::Strategic(json!({ "status": { "conditions": [ready(status.as_ref().err())] } }));
        match nodes.patch_status(&config.node, &PatchParams::default(), &patch).await {
            Ok(_) => was_ready = status.is_ok(),
            Err(error) => tracing::debug!(%error, node = config.node, "cannot write the node's readiness"),
        }
    }
}

/// Renews the node's Lease: by it a real Kubernetes tells that the node lives.
pub(crate) async fn renew_lease(config: KubeletConfig, every: Duration) {
    let leases = Api::<Lease>::namespaced(config.client.clone(), "kube-node-lease");
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": config.node },
            "spec": { "holderIdentity": config.node, "leaseDurationSeconds": 40, "renewTime": now },
        });
        let ours = PatchParams::apply("kubelet").force();
        if let Err(error) = leases.patch(&config.node, &ours, &Patch::Apply(lease)).await {
            tracing::warn!(%error, node = config.node, "cannot renew the node's Lease");
        }
    }
}

//! What a pod's status says, from what the kubelet knows. Pure functions.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

/// The state of the pod's container.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Container {
    Running {
        since: Timestamp,
    },
    /// It will be started again.
    Waiting {
        reason: &'static str,
        message: String,
    },
    Ended {
        code: i32,
        reason: &'static str,
        started: Timestamp,
        finished: Timestamp,
    },
}

fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

impl Container {
    /// As it ended by itself.
    pub(crate) fn ended(code: i32, started: Timestamp) -> Self {
        let reason = if code == 0 { "Completed" } else { "Error" };
        Self::Ended { code, reason, started, finished: Timestamp::now() }
    }

    fn json(&self, id: &str) -> Value {
        match self {
            Self::Running { since } => json!({ "running": { "startedAt": time(*since) } }),
            Self::Waiting { reason, message } => json!({ "waiting": { "reason": reason, "message": message } }),
            Self::Ended { code, reason, started, finished } => json!({ "terminated": {
                "exitCode": code, "reason": reason, "startedAt": time(*started), "finishedAt": time(*finished),
                "containerID": format!("testbed://{id}"),
            } }),
        }
    }
}

/// What a status is made of.
pub(crate) struct Report<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) container_id: &'a str,
    pub(crate) addresses: &'a [String],
    pub(crate) node_address: &'a str,
    pub(crate) container: &'a Container,
    pub(crate) restarts: u32,
    pub(crate) phase: &'static str,
    pub(crate) started: Timestamp,
}

/// The strategic merge patch of the pod's status. It carries the uid, so that it cannot hit a pod of the same name.
pub(crate) fn patch(report: &Report<'_>) -> Value {
    let now = time(Timestamp::now());
    let running = matches!(report.container, Container::Running { .. });
    let ended = matches!(report.phase, "Succeeded" | "Failed");
    let reason = match (running, ended, report.phase) {
        (true, ..) => None,
        (false, true, "Succeeded") => Some("PodCompleted"),
        (false, true, _) => Some("PodFailed"),
        (false, false, _) => Some("ContainersNotReady"),
    };
    let flag = |yes: bool| if yes { "True" } else { "False" };
    let condition = |kind: &str, yes: bool, reason: Option<&str>| {
        let mut condition = json!({ "type": kind, "status": flag(yes), "lastTransitionTime": now });
        condition["reason"] = json!(reason);
        condition
    };
    let containers = report.pod.spec.iter().flat_map(|spec| &spec.containers);
    let statuses: Vec<Value> = containers
        .map(|container| {
            json!({
                "name": container.name, "image": container.image, "imageID": "", "ready": running, "started": running,
                "restartCount": report.restarts, "containerID": format!("testbed://{}", report.container_id),
                "state": report.container.json(report.container_id),
            })
        })
        .collect();
    let addresses: Vec<Value> = report.addresses.iter().map(|address| json!({ "ip": address })).collect();
    json!({
        "metadata": { "uid": report.pod.metadata.uid },
        "status": {
            "phase": report.phase,
            "hostIP": report.node_address,
            "hostIPs": [{ "ip": report.node_address }],
            "podIP": report.addresses.first(),
            "podIPs": addresses,
            "startTime": time(report.started),
            "conditions": [
                condition("PodReadyToStartContainers", !ended, None),
                condition("Initialized", true, reason.filter(|reason| *reason == "PodCompleted")),
                condition("Ready", running, reason),
                condition("ContainersReady", running, reason),
            ],
            "containerStatuses": statuses,
        },
    })
}

/// How a pod ends whose container ended so.
pub(crate) fn final_phase(code: i32) -> &'static str {
    if code == 0 { "Succeeded" } else { "Failed" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_pod_is_ready_and_says_where() {
        let pod: Pod =
            serde_json::from_value(json!({ "metadata": { "uid": "u" }, "spec": { "containers": [{ "name": "c" }] } }))
                .unwrap();
        let now = Timestamp::now();
        let report = Report {
            pod: &pod,
            container_id: "abc",
            addresses: &["10.0.0.5".to_owned()],
            node_address: "192.0.2.1",
            container: &Container::Running { since: now },
            restarts: 0,
            phase: "Running",
            started: now,
        };
        let patch = patch(&report);
        assert_eq!(patch["metadata"]["uid"], "u");
        assert_eq!(patch["status"]["podIP"], "10.0.0.5");
        assert_eq!(patch["status"]["conditions"][2]["status"], "True");
        assert_eq!(patch["status"]["containerStatuses"][0]["ready"], true);
    }
}

//! Scheduler and kubelet, with a CNI plugin that is a shell script.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use k8s_openapi::api::{core::v1::Node, events::v1::Event};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams},
    runtime::wait::{await_condition, conditions},
};
use kuryr_testbed::kubernetes::{CniVerb, Kubelet, KubeletConfig, Scheduler};
use serde_json::json;

use super::*;

/// Writes every call to a log, and fails or hangs as files beside it say.
const PLUGIN: &str = r#"#!/bin/sh
dir=$(dirname "$0")
conf=$(cat)
echo "$CNI_COMMAND $CNI_CONTAINERID $CNI_ARGS" >> "$dir/calls"
echo "$conf" >> "$dir/confs"
case $CNI_COMMAND in
ADD)
    [ -e "$dir/hang" ] && exec sleep 1000
    if [ -e "$dir/fail" ]; then
        rm "$dir/fail"
        echo '{"cniVersion":"1.0.0","code":11,"msg":"subnet pods-a has no free address"}'
        exit 1
    fi
    echo '{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.5/24"},{"address":"fd00::5/64"}]}' ;;
DEL)
    if [ -e "$dir/fail-del" ]; then
        rm "$dir/fail-del"
        echo '{"code":11,"msg":"try again"}'
        exit 1
    fi ;;
esac
exit 0
"#;

struct Rig {
    server: ApiServer,
    client: Client,
    folder: tempfile::TempDir,
    _scheduler: Scheduler,
}

impl Rig {
    fn new() -> Self {
        let (server, client) = cluster();
        let folder = tempfile::tempdir().unwrap();
        let plugin = folder.path().join("fake-cni");
        fs::write(&plugin, PLUGIN).unwrap();
        fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755)).unwrap();
        let scheduler = Scheduler::start(server.client("kube-scheduler"));
        Self { server, client, folder, _scheduler: scheduler }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn kubelet(&self) -> Kubelet {
        self.kubelet_with(self.server.client("kubelet")).await
    }

    async fn kubelet_with(&self, client: Client) -> Kubelet {
        let conf = json!({ "cniVersion": "1.0.0", "name": "kuryr", "plugins": [{ "type": "fake-cni" }] });
        let mut config = KubeletConfig::new("n1", client, self.path("fake-cni"), conf, self.folder.path());
        config.backoff.0 = Duration::from_millis(20);
        Kubelet::start(config).await.unwrap()
    }

    /// The verbs of the plugin so far.
    fn calls(&self) -> Vec<String> {
        let log = fs::read_to_string(self.path("calls")).unwrap_or_default();
        log.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
    }

    async fn running(&self, name: &str) -> Pod {
        let pod = await_condition(pods(&self.client), name, conditions::is_pod_running());
        soon("the pod's start", pod).await.unwrap().unwrap()
    }

    async fn gone(&self, pod: &Pod) {
        let (name, uid) = (pod.name_any(), pod.uid().unwrap());
        let gone = await_condition(pods(&self.client), &name, conditions::is_deleted(&uid));
        soon("the pod's end", gone).await.unwrap();
    }

    /// Nothing of any pod is left on the node.
    fn assert_clean(&self) {
        for folder in ["netns", "sandboxes"] {
            let left: Vec<_> =
                fs::read_dir(self.path(folder)).into_iter().flatten().map(|f| f.unwrap().path()).collect();
            assert!(left.is_empty(), "{left:?}");
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(self.folder.path().to_str().unwrap()), "{mounts}");
    }
}

fn program(name: &str, command: &[&str], policy: &str) -> Pod {
    typed(json!({ "metadata": { "name": name }, "spec": { "restartPolicy": policy, "terminationGracePeriodSeconds": 20,
        "containers": [{ "name": "c", "image": "i", "command": command }] } }))
}

fn is_root() -> bool {
    let root = fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if !root {
        println!("network namespaces need root: not tested");
    }
    root
}

fn alive(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_runs_in_its_own_network_and_leaves_nothing() {
    if !is_root() {
        return;
    }
    let rig = Rig::new();
    let kubelet = rig.kubelet().await;
    create(&pods(&rig.client), &program("a", &["sleep", "1000"], "Always")).await;
    let pod = rig.running("a").await;
    let status = pod.status.clone().unwrap();
    assert_eq!(status.pod_ip.as_deref(), Some("10.0.0.5"));
    assert_eq!(untyped(&status.pod_ips), json!([{ "ip": "10.0.0.5" }, { "ip": "fd00::5" }]));
    assert_eq!(pod.spec.as_ref().unwrap().node_name.as_deref(), Some("n1"));

    let sandbox = kubelet.sandbox("default", "a").unwrap();
    let (netns, pid) = (sandbox.netns.clone().unwrap(), sandbox.pid.unwrap());
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
    assert_eq!(inode(&netns), inode(Path::new(&format!("/proc/{pid}/ns/net"))));
    assert_ne!(inode(&netns), inode(Path::new("/proc/self/ns/net")));
    let args = fs::read_to_string(rig.path("calls")).unwrap();
    let wanted = format!(
        "ADD {id} IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=a;K8S_POD_INFRA_CONTAINER_ID={id};K8S_POD_UID={uid}\n",
        id = sandbox.container_id,
        uid = pod.uid().unwrap()
    );
    assert_eq!(args, wanted);

    kubelet.cni(CniVerb::Check, "default", "a").await.unwrap();
    kubelet.cni(CniVerb::Gc, "", "").await.unwrap();
    let confs = fs::read_to_string(rig.path("confs")).unwrap();
    let confs: Vec<Value> = confs.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((confs[0]["name"].as_str(), confs[0].get("prevResult")), (Some("kuryr"), None));
    assert_eq!(confs[1]["prevResult"]["ips"][0]["address"], "10.0.0.5/24");
    assert_eq!(confs[2]["cni.dev/valid-attachments"][0]["containerID"], sandbox.container_id);
    let timing = kubelet.timings().pop().unwrap();
    assert!(timing.total >= timing.netns + timing.cni_add && !timing.running.is_zero(), "{timing:?}");

    pods(&rig.client).delete("a", &DeleteParams::default()).await.unwrap();
    rig.gone(&pod).await;
    assert!(!alive(pid));
    assert_eq!(rig.calls(), ["ADD", "CHECK", "GC", "DEL"]);
    rig.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_add_is_reported_undone_and_tried_again() {
    if !is_root() {
        return;
    }
    let rig = Rig::new();
    fs::write(rig.path("fail"), "").unwrap();
    fs::write(rig.path("fail-del"), "").unwrap();
    let kubelet = rig.kubelet().await;
    create(&pods(&rig.client), &pod("a")).await;
    rig.running("a").await;
    assert_eq!(rig.calls(), ["ADD", "DEL", "DEL", "ADD"]);
    let ids = fs::read_to_string(rig.path("calls")).unwrap();
    let ids: Vec<_> = ids.lines().map(|line| line.split(' ').nth(1).unwrap()).collect();
    assert!(ids[0] == ids[1] && ids[0] != ids[3], "a new attempt is a new sandbox: {ids:?}");
    let events: Api<Event> = Api::namespaced(rig.client.clone(), "default");
    let event = soon("the event", async {
        loop {
            let list = events.list(&ListParams::default().fields("reason=FailedCreatePodSandBox")).await.unwrap();
            match list.items.into_iter().next() {
                Some(event) => break event,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    })
    .await;
    assert!(event.note.unwrap().contains("subnet pods-a has no free address"));
    kubelet.shutdown().await;
    rig.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_deleted_or_vanished_while_add_waits_is_cleaned_up() {
    if !is_root() {
        return;
    }
    let rig = Rig::new();
    fs::write(rig.path("hang"), "").unwrap();
    let kubelet = rig.kubelet().await;
    for (name, grace) in [("deleted", None), ("forced", Some(0))] {
        let made = create(&pods(&rig.client), &pod(name)).await;
        soon("ADD", async {
            while !rig.calls().ends_with(&["ADD".to_owned()]) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        let parameters = DeleteParams { grace_period_seconds: grace, ..DeleteParams::default() };
        pods(&rig.client).delete(name, &parameters).await.unwrap();
        rig.gone(&made).await;
        soon("DEL", async {
            while kubelet.sandbox("default", name).is_some() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
    assert_eq!(rig.calls(), ["ADD", "DEL", "ADD", "DEL"]);
    rig.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_ends_ends_its_pod() {
    if !is_root() {
        return;
    }
    let rig = Rig::new();
    let kubelet = rig.kubelet().await;
    for (name, script, policy, phase) in [
        ("done", "echo hello", "Never", "Succeeded"),
        ("broken", "exit 3", "Never", "Failed"),
        ("retried", "test -e $HOME_/x || { touch $HOME_/x; exit 1; }", "OnFailure", "Succeeded"),
    ] {
        let script = script.replace("$HOME_", rig.folder.path().to_str().unwrap());
        create(&pods(&rig.client), &program(name, &["sh", "-c", &script], policy)).await;
        let ended = |pod: Option<&Pod>| {
            pod.and_then(|pod| pod.status.as_ref()?.phase.as_deref())
                .is_some_and(|phase| matches!(phase, "Succeeded" | "Failed"))
        };
        let pod = soon("the end", await_condition(pods(&rig.client), name, ended)).await.unwrap().unwrap();
        let status = pod.status.unwrap();
        assert_eq!(status.phase.as_deref(), Some(phase), "{name}");
        let container = &status.container_statuses.unwrap()[0];
        assert_eq!(container.restart_count, i32::from(name == "retried"));
        assert!(container.state.as_ref().unwrap().terminated.is_some());
    }
    assert_eq!(fs::read_to_string(rig.path("log/default_done.log")).unwrap(), "hello\n");
    soon("the sandboxes' end", async {
        while !kubelet.sandboxes().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    rig.assert_clean();
    pods(&rig.client).delete("done", &DeleteParams::default()).await.unwrap();
    assert_eq!(refusal(pods(&rig.client).get("done").await).code, 404, "an ended pod goes at once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_kubelet_finds_its_pods_and_cleans_what_vanished() {
    if !is_root() {
        return;
    }
    let rig = Rig::new();
    let kubelet = rig.kubelet().await;
    create(&pods(&rig.client), &program("kept", &["sleep", "1000"], "Always")).await;
    create(&pods(&rig.client), &program("lost", &["sleep", "1000"], "Always")).await;
    let kept = rig.running("kept").await;
    rig.running("lost").await;
    let before = kubelet.sandbox("default", "kept").unwrap();
    let lost = kubelet.sandbox("default", "lost").unwrap();
    kubelet.stop().await;
    assert!(alive(before.pid.unwrap()) && alive(lost.pid.unwrap()));
    pods(&rig.client).delete("lost", &DeleteParams::default().grace_period(0)).await.unwrap();

    let kubelet = rig.kubelet().await;
    soon("the clean-up", async {
        while rig.calls().iter().filter(|verb| *verb == "DEL").count() < 1 || lost.netns.as_ref().unwrap().exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert!(!alive(lost.pid.unwrap()));
    soon("the adoption", async {
        while kubelet.sandbox("default", "kept").is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(kubelet.sandbox("default", "kept"), Some(before.clone()), "the same sandbox with the same process");
    assert!(alive(before.pid.unwrap()));
    pods(&rig.client).delete("kept", &DeleteParams::default()).await.unwrap();
    rig.gone(&kept).await;
    assert!(!alive(before.pid.unwrap()));
    rig.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_pods_start_in_parallel_and_idle_is_silent() {
    if !is_root() {
        return;
    }
    let rig = Rig::new();
    let kubelet = rig.kubelet().await;
    let begun = std::time::Instant::now();
    for index in 0..50 {
        create(&pods(&rig.client), &pod(&format!("p{index}"))).await;
    }
    for index in 0..50 {
        rig.running(&format!("p{index}")).await;
    }
    println!("50 pods in {:?}", begun.elapsed());
    rig.server.calls().reset();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let noise = rig.server.calls().snapshot();
    assert!(noise.is_empty(), "{noise:?}");
    let selected = PatchParams::default();
    let nodes: Api<Node> = Api::all(rig.client.clone());
    nodes.patch("n1", &selected, &Patch::Merge(json!({ "spec": { "unschedulable": true } }))).await.unwrap();
    create(&pods(&rig.client), &pod("waiting")).await;
    let unschedulable = |pod: Option<&Pod>| {
        let conditions = pod.and_then(|pod| pod.status.as_ref()?.conditions.as_ref());
        conditions.is_some_and(|list| list.iter().any(|c| c.reason.as_deref() == Some("Unschedulable")))
    };
    soon("the reason", await_condition(pods(&rig.client), "waiting", unschedulable)).await.unwrap();
    nodes.patch("n1", &selected, &Patch::Merge(json!({ "spec": { "unschedulable": null } }))).await.unwrap();
    rig.running("waiting").await;
    kubelet.shutdown().await;
    rig.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_recreated_under_its_name_is_another_pod() {
    if !is_root() {
        return;
    }
    let rig = Rig::new();
    let kubelet = rig.kubelet().await;
    let mut ids = std::collections::HashSet::new();
    for _ in 0..5 {
        create(&pods(&rig.client), &program("a", &["sleep", "1000"], "Always")).await;
        let pod = rig.running("a").await;
        assert!(ids.insert(pod.uid()));
        pods(&rig.client).delete("a", &DeleteParams::default().grace_period(0)).await.unwrap();
    }
    kubelet.shutdown().await;
    assert_eq!(rig.calls().iter().filter(|verb| *verb == "ADD").count(), 5);
    assert!(rig.calls().iter().filter(|verb| *verb == "DEL").count() >= 5);
    rig.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stubborn_program_is_killed_when_its_grace_ends() {
    if !is_root() {
        return;
    }
    let rig = Rig::new();
    let kubelet = rig.kubelet().await;
    let script = "trap '' TERM; echo ready; while :; do sleep 1000 & wait; done";
    create(&pods(&rig.client), &program("a", &["sh", "-c", script], "Always")).await;
    let pod = rig.running("a").await;
    let pid = kubelet.sandbox("default", "a").unwrap().pid.unwrap();
    soon("the trap", async {
        while fs::read_to_string(rig.path("log/default_a.log")).unwrap_or_default() != "ready\n" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    pods(&rig.client).delete("a", &DeleteParams::default()).await.unwrap();
    assert!(alive(pid), "it ignores SIGTERM and has 20 s");
    // A second, shorter grace period counts.
    let begun = std::time::Instant::now();
    pods(&rig.client).delete("a", &DeleteParams::default().grace_period(1)).await.unwrap();
    rig.gone(&pod).await;
    assert!(begun.elapsed() < Duration::from_secs(15) && !alive(pid));
    rig.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_start_and_end_across_an_outage_of_the_server() {
    if !is_root() {
        return;
    }
    let rig = Rig::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let handle = rig.server.serve(listener).unwrap();
    let kubelet = rig.kubelet_with(kuryr_testbed::kubernetes::client(&handle.url(), "kubelet").unwrap()).await;
    create(&pods(&rig.client), &program("old", &["sleep", "1000"], "Always")).await;
    let old = rig.running("old").await;
    let pid = kubelet.sandbox("default", "old").unwrap().pid.unwrap();
    handle.suspend().await;
    create(&pods(&rig.client), &pod("new")).await;
    pods(&rig.client).delete("old", &DeleteParams::default()).await.unwrap();
    assert!(alive(pid), "nobody can have told the kubelet");
    handle.resume().await;
    rig.gone(&old).await;
    rig.running("new").await;
    assert!(!alive(pid));
    kubelet.shutdown().await;
    rig.assert_clean();
}

//! A world that stays up, seen from the machine: what a person's own clients see.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail them")]

use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    runtime::wait::{await_condition, conditions},
};
use kuryr_model::KuryrPort;
use kuryr_openstack::{Cloud, CloudConfig, Filter, Sources};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;
use std::{path::Path, process::Stdio, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

const SOON: Duration = Duration::from_secs(60);

fn testbed() -> Command {
    Command::new(env!("CARGO_BIN_EXE_kuryr-testbed"))
}

/// Starts it and waits until it says that it is up.
async fn start(folder: &Path) -> Child {
    let mut child = testbed()
        .args(["up", "--nodes=1", "--folder"])
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let up = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.starts_with("  kubectl delete") {
                return true;
            }
        }
        false
    };
    assert!(timeout(SOON, up).await.unwrap(), "it ended without being up");
    // It goes on writing: whoever reads must stay.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    child
}

async fn kubernetes(folder: &Path) -> Client {
    let file = Kubeconfig::read_from(folder.join("kubeconfig")).unwrap();
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

async fn openstack(folder: &Path) -> Cloud {
    let clouds_file = Some(folder.join("clouds.yaml"));
    let sources = Sources { cloud: Some("kuryr".into()), clouds_file, secret_dir: None };
    Cloud::connect(CloudConfig::load(&sources).unwrap()).await.unwrap()
}

#[tokio::test]
async fn the_machine_s_own_clients_reach_it_and_nothing_is_left_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = start(folder.path()).await;
    let (client, cloud) = (kubernetes(folder.path()).await, openstack(folder.path()).await);

    let pods = Api::default_namespaced(client.clone());
    let pod = serde_json::from_value(json!({
        "metadata": {"name": "one"}, "spec": {"containers": [{"name": "main", "image": "any"}]},
    }));
    pods.create(&PostParams::default(), &pod.unwrap()).await.unwrap();
    timeout(SOON, await_condition(pods.clone(), "one", conditions::is_pod_running())).await.unwrap().unwrap();

    // The catalog has led the client to Neutron: by the address that it came to.
    let kuryr_port: KuryrPort = Api::default_namespaced(client).get("one").await.unwrap();
    let held = kuryr_port.port_ids().next().unwrap();
    let ports = cloud.network().ports().list(&Filter::new().with("id", held)).await.unwrap();
    assert_eq!(ports.len(), 1);

    let address = ports[0].fixed_ips[0].ip_address.to_string();
    let mut inside = testbed();
    inside.arg("exec").arg("--folder").arg(folder.path()).args(["one", "--", "cat", "/proc/net/fib_trie"]);
    let inside = inside.output().await.unwrap();
    let seen = String::from_utf8_lossy(&inside.stdout).into_owned();
    assert!(inside.status.success() && seen.contains(&address), "{inside:?}");
    let nobody = testbed().arg("exec").arg("--folder").arg(folder.path()).args(["nobody", "--", "true"]).output().await;
    let nobody = nobody.unwrap();
    assert!(
        !nobody.status.success() && String::from_utf8_lossy(&nobody.stderr).contains("default/nobody"),
        "{nobody:?}"
    );

    // Pools are shown where the controller runs, and the configuration that clients are told of is Kuryr's.
    let env = std::fs::read_to_string(folder.path().join("env")).unwrap();
    let config = env.lines().find_map(|line| line.strip_prefix("export KURYR_CONFIG=")).unwrap().trim_matches('\'');
    assert!(std::fs::read_to_string(config).unwrap().contains("provider = \"ovn\""), "{env}");
    let mut beside = testbed();
    beside.arg("exec").arg("--folder").arg(folder.path()).args([
        "--controller",
        "--",
        "sh",
        "-c",
        "echo $KURYR_CONFIG; cat /proc/net/tcp",
    ]);
    let beside = beside.output().await.unwrap();
    let seen = String::from_utf8_lossy(&beside.stdout).into_owned();
    assert!(beside.status.success() && seen.starts_with(config) && seen.contains("0100007F:"), "{beside:?}");

    pods.delete("one", &DeleteParams::default().grace_period(0)).await.unwrap();
    kill(Pid::from_raw(child.id().unwrap().try_into().unwrap()), Signal::SIGTERM).unwrap();
    assert!(timeout(SOON, child.wait()).await.unwrap().unwrap().success());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "files are left");
}

#[tokio::test]
async fn a_port_number_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let number = taken.local_addr().unwrap().port();
    let output = testbed().arg("up").arg(format!("--cloud-port={number}")).output().await.unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && complaint.contains("--cloud-port"), "{complaint}");
}

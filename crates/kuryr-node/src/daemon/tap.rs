//! The whole daemon with the kernel: routed VIFs in namespaces that are made for the test.

use super::{
    api_server::{Api, api_server},
    harness::{Daemon, request},
};
use crate::{
    netns::testing::{isolated, namespace},
    plug::{PlugConfig, Plugger},
    testing::kuryr_port,
};
use kube::Client;
use serde_json::{Value, json};
use std::{path::Path, sync::Arc};

/// Runs a story on a node of its own: a directory for namespaces and state, an API server, and a way to start the daemon.
fn on_a_node<F>(test: &str, story: impl FnOnce(std::path::PathBuf, Arc<Api>, Client) -> F + Send + 'static)
where
    F: Future<Output = ()>,
{
    isolated(test, |folder| {
        // Its threads are made in the test's namespace.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (api, client) = api_server().await;
            story(folder.to_owned(), api, client).await;
        });
    });
}

async fn start(folder: &Path, client: &Client) -> Daemon {
    // No data plane is on these nodes.
    let config = PlugConfig { await_routes: false, ..PlugConfig::default() };
    let daemon = Daemon::start(folder, client.clone(), Plugger::new(config)).await;
    daemon.ready().await;
    daemon
}

async fn cni(daemon: &Daemon, command: &str, n: u64, netns: &Path, change: impl FnOnce(&mut Value)) -> (u16, Value) {
    let mut request = request(command, &format!("c{n}"), n);
    request["netns"] = netns.to_str().into();
    change(&mut request["config"]);
    daemon.post("/cni", &request.to_string()).await
}

#[test]
fn a_pod_outlives_the_daemon_and_is_detached_by_the_next_one() {
    on_a_node(
        "daemon::tap::a_pod_outlives_the_daemon_and_is_detached_by_the_next_one",
        |folder, api, client| async move {
            api.put(&kuryr_port("web-1", 1));
            let netns = namespace(&folder, "pod-1");
            let daemon = start(&folder, &client).await;
            let (status, result) = cni(&daemon, "ADD", 1, &netns, |_| ()).await;
            assert_eq!(status, 200, "{result}");
            daemon.stop().await;

            let daemon = start(&folder, &client).await;
            let with_result = |config: &mut Value| config["prevResult"] = result.clone();
            assert_eq!(cni(&daemon, "CHECK", 1, &netns, with_result).await, (200, "".into()));
            assert_eq!(cni(&daemon, "ADD", 1, &netns, |_| ()).await, (200, result.clone()), "repeated");
            assert_eq!(daemon.get("/attachments").await.1["findings"], json!([]));
            for _ in 0..2 {
                assert_eq!(cni(&daemon, "DEL", 1, &netns, |_| ()).await, (200, "".into()));
            }
            let report = daemon.get("/attachments").await.1;
            assert_eq!((&report["attachments"], &report["findings"]), (&json!([]), &json!([])));
            let (status, error) = cni(&daemon, "CHECK", 1, &netns, with_result).await;
            assert_eq!((status, &error["code"]), (500, &3.into()));
            daemon.stop().await;
        },
    );
}

#[test]
fn fifty_pods_at_once_and_a_namespace_that_is_gone() {
    on_a_node("daemon::tap::fifty_pods_at_once_and_a_namespace_that_is_gone", |folder, api, client| async move {
        let daemon = start(&folder, &client).await;
        let pods: Vec<_> = (1..=50).map(|n| (n, namespace(&folder, &format!("pod-{n}")))).collect();
        for (n, _) in &pods {
            api.put(&kuryr_port(&format!("web-{n}"), *n));
        }
        let adds = pods.iter().map(|(n, netns)| cni(&daemon, "ADD", *n, netns, |_| ()));
        for (status, result) in futures::future::join_all(adds).await {
            assert_eq!(status, 200, "{result}");
        }
        let report = daemon.get("/attachments").await.1;
        assert_eq!((report["attachments"].as_array().unwrap().len(), &report["findings"]), (50, &json!([])));

        let (n, netns) = &pods[0];
        crate::netns::delete(netns).unwrap();
        assert_eq!(daemon.get("/attachments").await.1["findings"][0]["finding"], "sandboxGone");
        assert_eq!(cni(&daemon, "DEL", *n, netns, |_| ()).await.0, 200);
        let (n, netns) = &pods[1];
        assert_eq!(cni(&daemon, "DEL", *n, Path::new(""), |_| ()).await.0, 200, "without CNI_NETNS");
        let (status, error) = cni(&daemon, "ADD", *n, &netns.with_file_name("none"), |_| ()).await;
        assert_eq!((status, &error["code"]), (500, &3.into()), "{error}");

        let gc = |config: &mut Value| {
            config["cniVersion"] = "1.1.0".into();
            config["cni.dev/valid-attachments"] = json!([{ "containerID": "c3", "ifname": "eth0" }]);
        };
        assert_eq!(cni(&daemon, "GC", 0, Path::new(""), gc).await, (200, "".into()));
        let report = daemon.get("/attachments").await.1;
        assert_eq!((report["attachments"].as_array().unwrap().len(), &report["findings"]), (1, &json!([])));
        daemon.stop().await;
    });
}

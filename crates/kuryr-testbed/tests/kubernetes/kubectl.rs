//! The real kubectl, where there is one.

use std::process::Stdio;

use kuryr_testbed::kubernetes::{ServerHandle, kubeconfig};
use serde_json::json;
use tokio::{io::AsyncWriteExt as _, process::Command};

use super::*;

struct Kubectl {
    _handle: ServerHandle,
    folder: tempfile::TempDir,
}

impl Kubectl {
    /// `None` if this machine has no kubectl.
    async fn new(server: &ApiServer) -> Option<Self> {
        let found = Command::new("kubectl")
            .args(["version", "--client"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .await;
        if !found.is_ok_and(|status| status.success()) {
            println!("no kubectl here: not tested");
            return None;
        }
        let handle = server.serve(tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config"), kubeconfig(&handle.url())).unwrap();
        Some(Self { _handle: handle, folder })
    }

    async fn try_run(&self, arguments: &str, input: Option<&Value>) -> Result<String, String> {
        let mut child = Command::new("kubectl")
            .args(arguments.split_whitespace())
            .arg("--cache-dir")
            .arg(self.folder.path().join("cache"))
            .env("KUBECONFIG", self.folder.path().join("config"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.map(Value::to_string).unwrap_or_default().as_bytes()).await.unwrap();
        drop(stdin);
        let output = soon("kubectl", child.wait_with_output()).await.unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if output.status.success() { Ok(text) } else { Err(text) }
    }

    async fn run(&self, arguments: &str, input: Option<&Value>) -> String {
        self.try_run(arguments, input).await.unwrap_or_else(|text| panic!("kubectl {arguments}: {text}"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_works_with_pods() {
    let (server, _client) = cluster();
    let Some(kubectl) = Kubectl::new(&server).await else { return };
    let pod = |image: &str| {
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "a", "labels": { "app": "x" } },
        "spec": { "containers": [{ "name": "c", "image": image }] } })
    };
    assert!(kubectl.run("apply -f -", Some(&pod("one"))).await.contains("pod/a created"));
    assert!(kubectl.run("apply -f -", Some(&pod("one"))).await.contains("pod/a unchanged"));
    assert!(kubectl.run("apply -f -", Some(&pod("two"))).await.contains("pod/a configured"));
    assert!(
        kubectl
            .run("apply --server-side --force-conflicts -f -", Some(&pod("three")))
            .await
            .contains("serverside-applied")
    );
    let wide = kubectl.run("get pods -o wide", None).await;
    assert!(
        wide.contains("READY") && wide.contains("NODE") && wide.contains("0/1") && wide.contains("Pending"),
        "{wide}"
    );
    assert!(kubectl.run("get pods -A -l app=x --no-headers", None).await.starts_with("default"));
    assert!(kubectl.run("get pod a -o jsonpath={.spec.containers[0].image}", None).await.contains("three"));
    assert!(kubectl.run("describe pod a", None).await.contains("three"));
    assert!(kubectl.run("label pod a tier=front", None).await.contains("labeled"));
    assert!(kubectl.run("annotate pod a note=hello", None).await.contains("annotated"));
    assert!(
        kubectl
            .run("wait --for=jsonpath={.status.phase}=Pending pod/a --timeout=10s", None)
            .await
            .contains("condition met")
    );
    let watched = kubectl.run("get pods -w --request-timeout=2s", None).await;
    assert!(watched.contains("Pending"), "{watched}");
    let mut typo = pod("two");
    typo["spec"]["restartPolicyy"] = json!("Never");
    let refused = kubectl.try_run("apply -f -", Some(&typo)).await.unwrap_err();
    assert!(refused.contains("unknown field \"spec.restartPolicyy\""), "{refused}");
    assert!(kubectl.run("delete pod a", None).await.contains("deleted"));
    assert!(kubectl.try_run("get pod a", None).await.unwrap_err().contains("NotFound"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_works_with_custom_resources_and_the_rest() {
    let (server, _client) = cluster();
    let Some(kubectl) = Kubectl::new(&server).await else { return };
    let mut definition = untyped(&custom::definition());
    definition["apiVersion"] = json!("apiextensions.k8s.io/v1");
    definition["kind"] = json!("CustomResourceDefinition");
    assert!(kubectl.run("apply -f -", Some(&definition)).await.contains("created"));
    kubectl.run("wait --for=condition=Established crd/widgets.example.com --timeout=10s", None).await;
    let widget = json!({ "apiVersion": "example.com/v1", "kind": "Widget", "metadata": { "name": "w" }, "spec": { "nodeName": "n1" } });
    assert!(kubectl.run("create -f -", Some(&widget)).await.contains("created"));
    let table = kubectl.run("get wd", None).await;
    assert!(table.contains("NODE") && table.contains("n1") && table.contains("1500"), "{table}");
    assert!(kubectl.run("explain widget.spec", None).await.contains("nodeName"));
    let resources = kubectl.run("api-resources", None).await;
    assert!(resources.contains("widgets") && resources.contains("networkpolicies"), "{resources}");
    assert!(kubectl.run("version", None).await.contains("v1.34"));
    assert!(kubectl.run("create namespace team", None).await.contains("created"));
    assert!(kubectl.run("create configmap c --from-literal=a=b -n team", None).await.contains("created"));
    assert!(kubectl.run("create service clusterip s --tcp=80:80 -n team", None).await.contains("created"));
    assert!(kubectl.run("create deployment d --image=x -n team", None).await.contains("created"));
    assert!(kubectl.run("get all,cm,netpol,ns,nodes,events,leases,crd -A", None).await.contains("service/s"));
    assert!(kubectl.run("delete namespace team", None).await.contains("deleted"));
    assert!(kubectl.run("get --raw /readyz", None).await.contains("ok"));
}

//! Calls of the CNI executable as a container runtime makes them.

use super::{World, process::executable};
use anyhow::Context;
use serde_json::{Value, json};
use std::{process::Stdio, time::Duration};
use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

/// What a CNI call came to.
pub struct CniAnswer {
    /// Exit code 0.
    pub success: bool,
    /// What it printed.
    pub output: String,
}

impl CniAnswer {
    /// The CNI error code that it printed.
    #[must_use]
    pub fn code(&self) -> Option<u64> {
        serde_json::from_str::<Value>(&self.output).ok()?.get("code")?.as_u64()
    }
}

/// Runs the CNI executable.
async fn call(verb: &str, container: &str, netns: &str, args: &str, input: &str) -> anyhow::Result<CniAnswer> {
    let mut child = Command::new(executable("kuryr-cni")?)
        .env_clear()
        .env("CNI_COMMAND", verb)
        .env("CNI_CONTAINERID", container)
        .env("CNI_NETNS", netns)
        .env("CNI_ARGS", args)
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", "/opt/cni/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // It may refuse without reading; that it does not listen any more is then no error.
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    let output = child.wait_with_output().await?;
    Ok(CniAnswer { success: output.status.success(), output: String::from_utf8_lossy(&output.stdout).into_owned() })
}

impl World {
    /// Waits until a node's daemon has an ADD that waits for its pod's port.
    ///
    /// # Errors
    /// It has none, in time.
    pub async fn add_waits(&self, node: &str) -> anyhow::Result<()> {
        let waits = async {
            loop {
                let metrics = self.kuryr.daemon_metrics(node).await?;
                if metrics.lines().any(|line| line.starts_with("kuryr_cni_waiting ") && !line.ends_with(" 0")) {
                    return anyhow::Ok(());
                }
                // A gauge has no notification.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(30), waits).await.context("no ADD waits")?
    }

    /// Calls the CNI executable of a node.
    ///
    /// # Errors
    /// It cannot be run.
    pub async fn cni(&self, node: &str, verb: &str, container: &str, namespace: &str) -> anyhow::Result<CniAnswer> {
        call(verb, container, namespace, "", &self.cni_conf(node)).await
    }

    /// Calls the CNI executable of a node to add a sandbox of the pod of this name and UID.
    ///
    /// # Errors
    /// It cannot be run.
    pub async fn cni_add(&self, node: &str, pod: &str, uid: &str, netns: &str) -> anyhow::Result<CniAnswer> {
        let args = format!("K8S_POD_NAMESPACE={};K8S_POD_NAME={pod};K8S_POD_UID={uid}", self.namespace());
        call("ADD", &format!("sandbox-of-{pod}"), netns, &args, &self.cni_conf(node)).await
    }

    fn cni_conf(&self, node: &str) -> String {
        let socket = self.kuryr.socket(node);
        json!({"cniVersion": "1.1.0", "name": "kuryr", "type": "kuryr-cni", "kuryrSocket": socket}).to_string()
    }

    /// The same with any input.
    ///
    /// # Errors
    /// It cannot be run.
    pub async fn cni_raw(
        &self,
        verb: &str,
        container: &str,
        namespace: &str,
        input: &str,
    ) -> anyhow::Result<CniAnswer> {
        call(verb, container, namespace, "", input).await
    }
}

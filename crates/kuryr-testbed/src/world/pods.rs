//! Pods in a world: made, waited for, deleted. All waiting is on watches.

use anyhow::Context;
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
    runtime::wait::{Condition, await_condition, conditions},
};
use kuryr_model::{FULL_TAINT, KuryrPort};
use serde_json::{Value, json};
use std::{collections::BTreeMap, net::IpAddr, time::Duration};
use tokio::time::timeout;

/// The image that pods of the real world run; the embedded kubelet runs commands of the machine instead.
const IMAGE: &str = "kuryr.test/busybox:1";

/// The taint of nodes that are virtual machines: no pod of another scenario shall come to one.
const MACHINE: &str = "kuryr.test/machine";

/// How long a pod may take to get where it should.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A pod to be made.
#[derive(Clone, Debug)]
pub struct NewPod {
    name: String,
    labels: BTreeMap<String, String>,
    node: Option<String>,
    ports: Vec<Value>,
    grace: u32,
    command: Vec<String>,
    host_network: bool,
    restart: &'static str,
}

impl NewPod {
    /// A pod that does nothing until it is deleted.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            labels: [("app".to_owned(), "kuryr-scenario".to_owned())].into(),
            node: None,
            ports: Vec::new(),
            grace: 1,
            command: Vec::new(),
            host_network: false,
            restart: "Always",
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// With this label `app`.
    #[must_use]
    pub fn app(self, app: &str) -> Self {
        self.label("app", app)
    }

    /// With this label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// With a name for a TCP port number of its container.
    #[must_use]
    pub fn named_port(self, name: &str, number: u16) -> Self {
        self.named_port_of("TCP", name, number)
    }

    /// With a name for a port number of this protocol.
    #[must_use]
    pub fn named_port_of(mut self, protocol: &str, name: &str, number: u16) -> Self {
        self.ports.push(json!({"name": name, "containerPort": number, "protocol": protocol}));
        self
    }

    /// One that takes its time to end: it does not listen to SIGTERM.
    #[must_use]
    pub fn slow_to_end(mut self, seconds: u32) -> Self {
        self.grace = seconds;
        self.command(&["sh", "-c", "trap '' TERM; while :; do sleep 1; done"])
    }

    /// On this node.
    #[must_use]
    pub fn on(mut self, node: &str) -> Self {
        self.node = Some(node.to_owned());
        self
    }

    /// A pod that runs this.
    #[must_use]
    pub fn command(mut self, command: &[&str]) -> Self {
        self.command = command.iter().map(ToString::to_string).collect();
        self
    }

    /// A pod that runs a command once and is then complete.
    #[must_use]
    pub fn job(self, command: &[&str]) -> Self {
        Self { restart: "Never", ..self.command(command) }
    }

    /// A pod on its node's own network.
    #[must_use]
    pub fn host_network(mut self) -> Self {
        self.host_network = true;
        self
    }

    fn object(&self) -> Value {
        let mut container = json!({"name": "main", "image": IMAGE, "imagePullPolicy": "IfNotPresent"});
        if !self.command.is_empty() {
            container["command"] = json!(self.command);
        }
        if !self.ports.is_empty() {
            container["ports"] = json!(self.ports);
        }
        let mut spec = json!({
            "containers": [container],
            "restartPolicy": self.restart,
            // Not 0: that would make every deletion a forced one. What runs in the pod ends when it is asked to.
            "terminationGracePeriodSeconds": self.grace,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "hostNetwork": self.host_network,
        });
        if let Some(node) = &self.node {
            spec["nodeSelector"] = json!({"kubernetes.io/hostname": node});
            // Whoever names a node means it.
            spec["tolerations"] =
                json!([{"key": MACHINE, "operator": "Exists"}, {"key": FULL_TAINT, "operator": "Exists"}]);
        }
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": self.name, "labels": self.labels}, "spec": spec})
    }
}

/// The pods of one namespace.
#[derive(Clone)]
pub struct Pods {
    pods: Api<Pod>,
    ports: Api<KuryrPort>,
}

impl Pods {
    /// The pods of `namespace`.
    #[must_use]
    pub fn new(client: &Client, namespace: &str) -> Self {
        Self { pods: Api::namespaced(client.clone(), namespace), ports: Api::namespaced(client.clone(), namespace) }
    }

    /// Asks for a pod; its UID.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn create(&self, pod: &NewPod) -> anyhow::Result<String> {
        let object = serde_json::from_value(pod.object())?;
        let made =
            self.pods.create(&PostParams::default(), &object).await.with_context(|| format!("pod {}", pod.name))?;
        made.uid().context("a pod without UID")
    }

    /// Asks for pods of these names, all at once.
    ///
    /// # Errors
    /// The API server refuses one.
    pub async fn create_all(&self, names: &[String]) -> anyhow::Result<()> {
        let pods: Vec<NewPod> = names.iter().map(NewPod::new).collect();
        try_join_all(pods.iter().map(|pod| self.create(pod))).await.map(drop)
    }

    /// Waits until a pod runs; as it is then.
    ///
    /// # Errors
    /// It does not, within [`PATIENCE`].
    pub async fn running(&self, name: &str) -> anyhow::Result<Pod> {
        let pod = self.when(name, "running", PATIENCE, conditions::is_pod_running()).await?;
        pod.with_context(|| format!("pod {name} is gone"))
    }

    /// Waits until a pod has completed.
    ///
    /// # Errors
    /// It does not, within [`PATIENCE`].
    pub async fn succeeded(&self, name: &str) -> anyhow::Result<()> {
        let done = |pod: Option<&Pod>| phase(pod) == Some("Succeeded");
        self.when(name, "completed", PATIENCE, done).await.map(drop)
    }

    /// Waits until a pod of this name and all that Kuryr holds for it are gone.
    ///
    /// # Errors
    /// They are not, within [`PATIENCE`].
    pub async fn gone(&self, name: &str) -> anyhow::Result<()> {
        self.when(name, "gone", PATIENCE, |pod: Option<&Pod>| pod.is_none()).await?;
        self.port_gone(name).await
    }

    /// Waits until there is no `KuryrPort` of this name.
    ///
    /// # Errors
    /// There still is, after [`PATIENCE`].
    pub async fn port_gone(&self, name: &str) -> anyhow::Result<()> {
        self.port(name, "gone", PATIENCE, |port: Option<&KuryrPort>| port.is_none()).await.map(drop)
    }

    /// Waits for something about a pod.
    ///
    /// # Errors
    /// It is not so within the time given.
    pub async fn when(
        &self,
        name: &str,
        what: &str,
        within: Duration,
        condition: impl Condition<Pod>,
    ) -> anyhow::Result<Option<Pod>> {
        match timeout(within, await_condition(self.pods.clone(), name, condition)).await {
            Ok(pod) => Ok(pod?),
            Err(_) => {
                let state = self.pods.get_opt(name).await?;
                let phase = phase(state.as_ref()).unwrap_or("absent").to_owned();
                let port = self.ports.get_opt(name).await?.and_then(|port| serde_json::to_string(&port).ok());
                anyhow::bail!("pod {name} is {phase}, not {what}, after {within:?}; its KuryrPort: {port:?}")
            }
        }
    }

    /// Waits for something about a pod's `KuryrPort`.
    ///
    /// # Errors
    /// It is not so within the time given.
    pub async fn port(
        &self,
        name: &str,
        what: &str,
        within: Duration,
        condition: impl Condition<KuryrPort>,
    ) -> anyhow::Result<Option<KuryrPort>> {
        match timeout(within, await_condition(self.ports.clone(), name, condition)).await {
            Ok(port) => Ok(port?),
            Err(_) => {
                let port = self.ports.get_opt(name).await?.and_then(|port| serde_json::to_string(&port).ok());
                anyhow::bail!("the KuryrPort {name} is not {what} after {within:?}; it is {port:?}")
            }
        }
    }

    /// Deletes a pod as `kubectl delete` does; that it is gone is fine.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn delete(&self, name: &str) -> anyhow::Result<()> {
        self.delete_with(name, &DeleteParams::default()).await
    }

    /// Deletes a pod as `kubectl delete --force --grace-period=0` does: it vanishes while its sandbox still runs.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn force_delete(&self, name: &str) -> anyhow::Result<()> {
        self.delete_with(name, &DeleteParams::default().grace_period(0)).await
    }

    async fn delete_with(&self, name: &str, params: &DeleteParams) -> anyhow::Result<()> {
        match self.pods.delete(name, params).await {
            Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(()),
            other => Ok(other.map(drop)?),
        }
    }

    /// Asks for all to be deleted.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn delete_all(&self) -> anyhow::Result<()> {
        self.pods.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
        Ok(())
    }

    /// Waits until all pods and all that Kuryr holds for them are gone.
    ///
    /// # Errors
    /// Something is left.
    pub async fn all_gone(&self) -> anyhow::Result<()> {
        for port in self.ports.list_metadata(&ListParams::default()).await? {
            self.port_gone(&port.name_any()).await?;
        }
        for pod in self.pods.list_metadata(&ListParams::default()).await? {
            self.gone(&pod.name_any()).await?;
        }
        Ok(())
    }

    /// The API of the pods.
    #[must_use]
    pub fn api(&self) -> &Api<Pod> {
        &self.pods
    }

    /// The API of the `KuryrPort`s.
    #[must_use]
    pub fn ports(&self) -> &Api<KuryrPort> {
        &self.ports
    }
}

fn phase(pod: Option<&Pod>) -> Option<&str> {
    pod?.status.as_ref()?.phase.as_deref()
}

/// The addresses of a running pod.
///
/// # Errors
/// It has none.
pub fn addresses(pod: &Pod) -> anyhow::Result<Vec<IpAddr>> {
    let status = pod.status.as_ref().context("no status")?;
    let ips = status.pod_ips.iter().flatten().map(|ip| Ok(ip.ip.parse()?));
    let ips: Vec<IpAddr> = ips.collect::<anyhow::Result<_>>()?;
    anyhow::ensure!(!ips.is_empty(), "pod {} runs without an address", pod.name_any());
    Ok(ips)
}

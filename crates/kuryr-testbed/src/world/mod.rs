//! A world is a cloud, a Kubernetes and some nodes with Kuryr on them. The scenarios run in two: the embedded one, and
//! a real OpenStack with a real Kubernetes.
//!
//! ```text
//!            ┌─ embedded: cloud, API server, kubelets and data plane in this process
//!  World ────┤                                                   both: `kuryr controller`, `kuryr daemon` as processes
//!            └─ real: Keystone, Neutron, OVN, kube-apiserver, kubelet, containerd
//! ```

mod actions;
mod cni;
mod embedded;
pub mod guests;
mod kuryr;
mod limits;
mod machines;
pub mod pods;
pub mod policies;
pub mod process;
mod real;
mod secrets;
pub mod services;
mod spares;
mod vm;
mod wiring;

pub use actions::mtu;
pub use cni::CniAnswer;
pub(crate) use embedded::PROVIDER;
pub use embedded::{
    AVAILABILITY_ZONE, EXTERNAL, Embedded, EmbeddedConfig, FLAVOR, SERVICE_CIDR, SERVICE_CIDR_V6, set_up,
};
pub use guests::{Asker, Guest, Server};
pub use kuryr::{Kuryr, Settings};
pub use machines::{KnownBy, Machine};
pub use pods::{NewPod, Pods, addresses};
pub use policies::Policies;
pub use real::{Real, RealConfig};
pub use services::{Backend, Services, cluster_ip, node_port};
pub use vm::Vm;
pub use wiring::Flaw;

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use kuryr_model::{ClusterId, PodUid, Purpose, mark::cluster_tag, neutron::Port};
use kuryr_openstack::{Cloud, Filter};
use serde_json::json;
use std::{collections::BTreeMap, path::PathBuf, time::Duration};
use tokio::time::{Instant, timeout};

/// How long the world may take to be clean again after a scenario.
const CLEAN_WITHIN: Duration = Duration::from_secs(60);

/// What is under the feet of a world.
pub enum Ground {
    /// All in this process.
    Embedded(Box<Embedded>),
    /// Somebody else's.
    Real(Box<Real>),
}

/// A cloud, a Kubernetes and nodes, with Kuryr.
pub struct World {
    /// An administrator's client for Kubernetes.
    pub client: Client,
    /// An administrator's client for the cloud.
    pub cloud: Cloud,
    /// The cluster's id.
    pub cluster: ClusterId,
    /// Names of the nodes.
    pub nodes: Vec<String>,
    /// Kuryr's processes.
    pub kuryr: Kuryr,
    /// Where it all is.
    pub ground: Ground,
    namespace: String,
    /// Namespaces that the scenario has beside that.
    more_namespaces: Vec<String>,
}

impl World {
    /// The embedded one, with Kuryr running.
    ///
    /// # Errors
    /// Something does not start.
    pub async fn embedded(config: EmbeddedConfig) -> anyhow::Result<Self> {
        embedded::start(config).await
    }

    /// The real one, with Kuryr running.
    ///
    /// # Errors
    /// Something does not start.
    pub async fn real(config: RealConfig) -> anyhow::Result<Self> {
        real::start(config).await
    }

    /// The real one, where somebody else keeps Kuryr running.
    ///
    /// # Errors
    /// Kubernetes or the cloud does not answer.
    pub async fn real_beside_others(config: RealConfig) -> anyhow::Result<Self> {
        real::join(config).await
    }

    /// The parts of the embedded world, for scenarios that need faults.
    ///
    /// # Errors
    /// This is the real one.
    pub fn inside(&self) -> anyhow::Result<&Embedded> {
        match &self.ground {
            Ground::Embedded(embedded) => Ok(embedded),
            Ground::Real(_) => bail!("this needs the embedded world"),
        }
    }

    /// The same, to change them.
    ///
    /// # Errors
    /// This is the real one.
    pub fn inside_mut(&mut self) -> anyhow::Result<&mut Embedded> {
        match &mut self.ground {
            Ground::Embedded(embedded) => Ok(embedded),
            Ground::Real(_) => bail!("this needs the embedded world"),
        }
    }

    /// Makes the namespace that the pods of a scenario are in.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn use_namespace(&mut self, name: &str) -> anyhow::Result<()> {
        self.make_namespace(name, &BTreeMap::new()).await?;
        name.clone_into(&mut self.namespace);
        Ok(())
    }

    /// Makes one more namespace for a scenario, with these labels.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn add_namespace(&mut self, name: &str, labels: &BTreeMap<String, String>) -> anyhow::Result<()> {
        self.make_namespace(name, labels).await?;
        self.more_namespaces.push(name.to_owned());
        Ok(())
    }

    /// One that an earlier scenario has left is taken, with the labels of this one.
    async fn make_namespace(&self, name: &str, labels: &BTreeMap<String, String>) -> anyhow::Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let metadata = json!({"name": name, "labels": labels});
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata});
        match namespaces.create(&PostParams::default(), &serde_json::from_value(object)?).await {
            Err(kube::Error::Api(answer)) if answer.code == 409 => {
                let labels = json!({"metadata": {"labels": labels}});
                namespaces.patch(name, &PatchParams::default(), &Patch::Merge(labels)).await?;
            }
            other => drop(other?),
        }
        Ok(())
    }

    /// The pods of the scenario's namespace.
    #[must_use]
    pub fn pods(&self) -> Pods {
        Pods::new(&self.client, &self.namespace)
    }

    /// The pods of any namespace.
    #[must_use]
    pub fn pods_of(&self, namespace: &str) -> Pods {
        Pods::new(&self.client, namespace)
    }

    /// The scenario's namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Makes a pod and waits until it runs: from then on its packets pass.
    ///
    /// # Errors
    /// It does not come to run.
    pub async fn run_pod(&self, pod: &NewPod, name: &str) -> anyhow::Result<Pod> {
        self.pods().create(pod).await?;
        self.pods().running(name).await
    }

    /// The network namespace of a running pod, as its node's daemon remembers it.
    ///
    /// # Errors
    /// The daemon does not know the pod.
    pub fn netns(&self, pod: &Pod) -> anyhow::Result<PathBuf> {
        Ok(self.attachment(pod)?.netns)
    }

    /// All ports in Neutron that carry this cluster's mark and are for pods.
    ///
    /// # Errors
    /// Neutron does not tell.
    pub async fn pod_ports(&self) -> anyhow::Result<Vec<Port>> {
        let mut ports = self.our_ports().await?;
        ports.retain(|port| port.tags.iter().any(|tag| matches!(tag.parse(), Ok(Purpose::Pod(_)))));
        Ok(ports)
    }

    /// The port in Neutron of a pod.
    ///
    /// # Errors
    /// It has none, or several.
    pub async fn port_of(&self, pod: &Pod) -> anyhow::Result<Port> {
        let uid = PodUid(pod.uid().context("a pod without UID")?);
        let mark = [cluster_tag(&self.cluster), Purpose::Pod(uid).to_string()];
        let mut ports = self.cloud.network().ports().list(&Filter::new().tags(mark)).await?;
        match (ports.pop(), ports.len()) {
            (Some(port), 0) => Ok(port),
            (last, more) => bail!("pod {} has {} ports", pod.name_any(), usize::from(last.is_some()) + more),
        }
    }

    /// Deletes the scenario's Services, NetworkPolicies and pods, and waits until its pods and their ports are gone.
    ///
    /// # Errors
    /// Something is left.
    pub async fn clear_away(&self) -> anyhow::Result<()> {
        let namespaces: Vec<&str> = self.more_namespaces.iter().chain([&self.namespace]).map(String::as_str).collect();
        for namespace in &namespaces {
            Services::new(&self.client, namespace).delete_all().await?;
            self.policies_of(namespace).delete_all().await?;
            Pods::new(&self.client, namespace).delete_all().await?;
        }
        let left = async {
            for namespace in &namespaces {
                Pods::new(&self.client, namespace).all_gone().await?;
            }
            anyhow::Ok(())
        };
        timeout(CLEAN_WITHIN, left).await.context("pods or KuryrPorts are left")?
    }

    /// Does that, waits until all that was made for them is gone, too, and asks `kuryr audit`.
    ///
    /// # Errors
    /// Something is left, or the audit finds something.
    pub async fn end_scenario(&self) -> anyhow::Result<()> {
        self.clear_away().await?;
        let started = Instant::now();
        loop {
            let (clean, report) = self.kuryr.audit(&self.nodes).await?;
            if clean {
                return Ok(());
            }
            if started.elapsed() > CLEAN_WITHIN {
                bail!("the audit finds something:\n{report}");
            }
            // Nothing tells when a cloud has become clean: the audit is the question.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Ends Kuryr and, in the embedded world, everything else.
    ///
    /// # Errors
    /// Something does not end, or a log has a secret in it.
    pub async fn shut_down(mut self) -> anyhow::Result<()> {
        self.kuryr.stop_all().await?;
        let settings = self.kuryr.settings();
        let mut secrets = secrets::of(settings);
        if let Ground::Embedded(embedded) = &self.ground {
            secrets.extend(embedded.cloud.issued_tokens());
        }
        let told = secrets::told(&settings.folder, &secrets);
        match self.ground {
            Ground::Embedded(embedded) => embedded.shut_down().await,
            Ground::Real(_) => {}
        }
        ensure!(!secrets.is_empty(), "no secrets were looked for in the logs");
        ensure!(told.is_empty(), "there are secrets in the logs:\n{}", told.join("\n"));
        Ok(())
    }

    /// The end of every log, for whoever has to find out why a scenario failed.
    #[must_use]
    pub fn logs(&self) -> String {
        let folder = &self.kuryr.settings().folder;
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut logs: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
        logs.sort();
        logs.iter().map(|log| format!("--- {}\n{}\n", log.display(), process::tail(log))).collect()
    }
}

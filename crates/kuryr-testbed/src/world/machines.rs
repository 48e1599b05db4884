//! Nodes that are virtual machines; those of the real world are in `guests`.
//!
//! In the embedded world those whose pods are subports have nobody on them who plugs: the kernel under the tests may have no VLANs. Their kubelet and their
//! daemon are played, as far as the API sees them: a pod runs when its `KuryrPort` has VIFs, which is then attached, and what is
//! on its way out is released. How such pods are plugged is shown in a guest whose kernel has VLANs.

use super::{
    Ground, World,
    embedded::{HEALTH, cni_conf},
    kuryr::NodePlace,
    process::executable,
};
use crate::{
    cloud,
    kubernetes::{Kubelet, KubeletConfig},
};
use anyhow::{Context, bail, ensure};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    runtime::{
        WatchStreamExt,
        watcher::{self, watcher},
    },
};
use kuryr_model::{
    KuryrPort, NESTED_ANNOTATION, NetworkId, ObjectKey, PARENT_PORT_ANNOTATION, PortId, TrunkId,
    kuryr_port::AttachmentState, neutron::PortStatus,
};
use kuryr_node::{netlink::sysctl, netns, plug::mark::host_end_name};
use kuryr_openstack::network::{NewPort, NewTrunk};
use serde_json::{Value, json};
use std::{collections::BTreeMap, net::IpAddr, time::Duration};
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

/// A node whose pods are subports of its trunk.
pub struct Machine {
    /// The node's name.
    pub name: String,
    /// The machine's port.
    pub parent: PortId,
    /// Its trunk.
    pub trunk: TrunkId,
}

/// Somebody who plays a node's kubelet and its daemon until this is dropped.
pub(super) struct Played(#[expect(dead_code)] [AbortOnDropHandle<()>; 2]);

/// How a Node says what its port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownBy {
    /// By its address.
    Address,
    /// By Nova's id of the machine.
    Server,
    /// By the annotation.
    Annotation,
}

impl World {
    /// Makes a node that is a virtual machine, whose pods are subports of a trunk.
    ///
    /// # Errors
    /// This is the real world, or something refuses.
    pub async fn add_machine(&mut self, name: &str, known_by: KnownBy) -> anyhow::Result<Machine> {
        self.inside()?;
        let network = self.pod_network().await?;
        let device_id = format!("server-{name}");
        let new = NewPort { name: name.to_owned(), device_id, ..NewPort::new(network) };
        let port = self.cloud.network().ports().create(&new).await?;
        let trunk = self.make_trunk(name, port.id).await?;
        let ip = port.fixed_ips.first().context("the machine's port has no address")?.ip_address;
        let mut annotations = BTreeMap::from([(NESTED_ANNOTATION, "vlan".to_owned())]);
        if known_by == KnownBy::Annotation {
            annotations.insert(PARENT_PORT_ANNOTATION, port.id.to_string());
        }
        let address = (known_by == KnownBy::Address).then_some(ip);
        let server = (known_by == KnownBy::Server).then(|| format!("openstack:///{}", port.device_id));
        register(&self.client, name, &annotations, server, address).await?;
        let played = play(&self.client, name);
        self.inside_mut()?.played.insert(name.to_owned(), played);
        Ok(Machine { name: name.to_owned(), parent: port.id, trunk })
    }

    /// A node that is a virtual machine, whose pods are subports of a trunk: a new one, and in the real world one that may have been
    /// booted before.
    ///
    /// # Errors
    /// It does not come up.
    pub async fn machine(&mut self) -> anyhow::Result<Machine> {
        if self.inside().is_ok() {
            let machine = self.add_machine("vm", KnownBy::Address).await?;
            self.inside()?.cloud.set_port_status(machine.parent.0, cloud::PortStatus::Active);
            return Ok(machine);
        }
        let guest = self.guests(&["vm0"]).await?.pop().context("no machine was started")?;
        let trunk = self.cloud.network().trunks().of_parent(guest.port).await?;
        let trunk = trunk.with_context(|| format!("the port of {} has no trunk", guest.name))?.id;
        Ok(Machine { name: guest.name, parent: guest.port, trunk })
    }

    /// A machine fails for good: nobody on it says anything any more.
    ///
    /// # Errors
    /// There is none of that name.
    pub async fn burn_machine(&mut self, name: &str) -> anyhow::Result<()> {
        match &mut self.ground {
            Ground::Embedded(embedded) => {
                embedded.played.remove(name).map(drop).with_context(|| format!("no machine {name}"))
            }
            Ground::Real(real) => real.script("machines.sh", &["burn", name]).await.map(drop),
        }
    }

    /// Somebody deletes what a machine had in the cloud.
    ///
    /// # Errors
    /// Something is not there.
    pub async fn delete_machine(&self, machine: &Machine) -> anyhow::Result<()> {
        let network = self.cloud.network();
        network.trunks().delete(machine.trunk).await?;
        network.ports().delete(machine.parent).await?;
        Ok(())
    }

    /// How many nodes have ports of their own to keep in a pool: those whose pods share their machine's port have none.
    ///
    /// # Errors
    /// The API server does not tell.
    pub async fn sites(&self) -> anyhow::Result<usize> {
        let nodes = Api::<Node>::all(self.client.clone()).list(&ListParams::default()).await?;
        let shares = |node: &&Node| node.annotations().get(NESTED_ANNOTATION).is_some_and(|kind| kind != "vlan");
        Ok(nodes.items.len() - nodes.iter().filter(shares).count())
    }

    /// A subport goes down, and will be so for ever. Taken off its trunk and put back, it is not.
    ///
    /// # Errors
    /// There is no such subport.
    pub async fn break_subport(&self, port: PortId) -> anyhow::Result<()> {
        match &self.ground {
            Ground::Embedded(embedded) => {
                let found = embedded.cloud.set_port_status(port.0, cloud::PortStatus::Down);
                ensure!(found, "there is no port {port}");
                Ok(())
            }
            Ground::Real(real) => real.believe_down(port).await,
        }
    }

    /// Waits until Neutron says so of a port.
    ///
    /// # Errors
    /// It does not, in time.
    pub async fn port_becomes(&self, port: PortId, status: PortStatus, within: Duration) -> anyhow::Result<()> {
        let becomes = async {
            while self.cloud.network().ports().get(port).await?.status != status {
                // Neutron tells nobody.
                sleep(Duration::from_millis(500)).await;
            }
            anyhow::Ok(())
        };
        timeout(within, becomes).await.with_context(|| format!("port {port} is not {status:?} after {within:?}"))?
    }

    /// Makes a node that is a virtual machine on the first node, whose pods are plugged as `kind`: `macvlan` or `ipvlan`.
    ///
    /// # Errors
    /// This is the real world, or something refuses.
    pub async fn add_sharing_machine(&mut self, name: &str, kind: &str) -> anyhow::Result<PortId> {
        let vm = self.start_vm(name).await?;
        let (port, netns) = (vm.port, vm.netns.clone());
        let address = *vm.addresses.first().context("a VM without address")?;
        let host = self.inside()?.fabric.nodes().first().context("no node")?.netns.clone();
        // The data plane routes, and those whom the machine takes for neighbours are on other links: the node answers for them.
        let answer = format!("net/ipv4/conf/{}/proxy_arp", host_end_name(port));
        netns::run(&host, || sysctl::set(&answer, "1"))??;
        let place = NodePlace { name: name.to_owned(), netns: Some(netns), listen: (address, HEALTH).into() };
        self.kuryr.add_place(place);
        self.kuryr.start_daemon(name).await?;
        let conf = cni_conf(&self.kuryr.socket(name))?;
        let embedded = self.inside_mut()?;
        let client = embedded.api.client("kubelet");
        let folder = embedded.folder().join(name);
        let mut settings = KubeletConfig::new(name, client, executable("kuryr-cni")?, conf, &folder);
        settings.netns_dir = embedded.netns_folder().join(format!("pods-{name}"));
        settings.address = address;
        let kubelet = Kubelet::start(settings).await?;
        embedded.kubelets.insert(name.to_owned(), kubelet);
        embedded.vms.push(vm);
        let say = json!({"metadata": {"annotations": {(NESTED_ANNOTATION): kind}}});
        Api::<Node>::all(self.client.clone()).patch(name, &PatchParams::default(), &Patch::Merge(say)).await?;
        self.nodes.push(name.to_owned());
        Ok(port)
    }

    /// The network of pods.
    ///
    /// # Errors
    /// There is none.
    pub async fn pod_network(&self) -> anyhow::Result<NetworkId> {
        Ok(self.pod_subnets().await?.first().context("no pod subnet")?.network_id)
    }

    /// Makes the trunk of a machine's port.
    ///
    /// # Errors
    /// Neutron refuses.
    pub async fn make_trunk(&self, name: &str, port_id: PortId) -> anyhow::Result<TrunkId> {
        Ok(self.cloud.network().trunks().create(&NewTrunk { name: name.to_owned(), port_id }).await?.id)
    }

    /// The subports of a trunk, with their ids.
    ///
    /// # Errors
    /// Neutron does not tell.
    pub async fn subports(&self, trunk: TrunkId) -> anyhow::Result<BTreeMap<PortId, u32>> {
        let trunk = self.cloud.network().trunks().get(trunk).await?;
        Ok(trunk.sub_ports.iter().map(|subport| (subport.port_id, subport.segmentation_id)).collect())
    }

    /// Compares what the `KuryrPort`s of a machine's pods say with its trunk, which carries nothing else; the ids.
    ///
    /// # Errors
    /// They differ.
    pub async fn agree(&self, machine: &Machine) -> anyhow::Result<BTreeMap<PortId, u32>> {
        let mut said = BTreeMap::new();
        for held in &self.pods().ports().list(&kube::api::ListParams::default()).await? {
            for vif in held.spec.vifs.iter().filter(|_| held.spec.node_name == machine.name) {
                let parent = vif.plug.parent.context("a VIF without parent")?;
                let id = vif.plug.vlan.context("a VIF without VLAN id")?;
                ensure!(parent.port_id == machine.parent, "{} has another parent", held.name_any());
                ensure!(!said.values().any(|other| *other == u32::from(id.get())), "two pods have VLAN id {id}");
                said.insert(vif.port_id, u32::from(id.get()));
            }
        }
        let there = self.subports(machine.trunk).await?;
        ensure!(said == there, "the trunk carries {there:?}, the KuryrPorts say {said:?}");
        Ok(said)
    }
}

/// A Node, as its kubelet and the cloud's controller make it.
async fn register(
    client: &Client,
    name: &str,
    annotations: &BTreeMap<&str, String>,
    provider_id: Option<String>,
    address: Option<IpAddr>,
) -> anyhow::Result<()> {
    let addresses: Vec<Value> =
        address.iter().map(|address| json!({"type": "InternalIP", "address": address})).collect();
    let node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}, "annotations": annotations},
        "spec": {"providerID": provider_id},
        "status": {"addresses": addresses, "conditions": [{"type": "Ready", "status": "True"}]},
    });
    Api::<Node>::all(client.clone()).create(&PostParams::default(), &serde_json::from_value(node)?).await?;
    Ok(())
}

/// Plays the node's kubelet and its daemon.
fn play(client: &Client, node: &str) -> Played {
    let on = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
    let (pods, ports) = (Api::<Pod>::all(client.clone()), Api::<KuryrPort>::all(client.clone()));
    let kubelet = {
        let (client, stream) = (client.clone(), watcher(pods, on.clone()).default_backoff().applied_objects());
        async move {
            let mut stream = std::pin::pin!(stream);
            while let Some(event) = stream.next().await {
                let Ok(pod) = event else { continue };
                if pod.metadata.deletion_timestamp.is_some() {
                    let api = Api::<Pod>::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
                    // Gone already is fine.
                    let _ = api.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await;
                }
            }
        }
    };
    let daemon = {
        let (client, stream) = (client.clone(), watcher(ports, on).default_backoff().applied_objects());
        async move {
            let mut stream = std::pin::pin!(stream);
            while let Some(event) = stream.next().await {
                let Ok(port) = event else { continue };
                if let Err(error) = attend(&client, &port).await {
                    tracing::warn!(port = port.name_any(), error = %format!("{error:#}"), "a played daemon failed");
                }
            }
        }
    };
    Played([AbortOnDropHandle::new(tokio::spawn(kubelet)), AbortOnDropHandle::new(tokio::spawn(daemon))])
}

/// Does for a `KuryrPort` what its node would.
async fn attend(client: &Client, port: &KuryrPort) -> anyhow::Result<()> {
    let ObjectKey { namespace, name } = port.key();
    let state = match (port.deleting(), port.attachment_state()) {
        (true, Some(AttachmentState::Released)) | (false, Some(_)) => return Ok(()),
        (true, _) => AttachmentState::Released,
        (false, None) if port.spec.vifs.is_empty() => return Ok(()),
        (false, None) => AttachmentState::Attached,
    };
    let attachment = json!({"state": state, "since": jiff::Timestamp::now()});
    let status = Patch::Merge(json!({"status": {"attachment": attachment}}));
    let ports = Api::<KuryrPort>::namespaced(client.clone(), &namespace);
    match ports.patch_status(&name, &PatchParams::default(), &status).await {
        Err(kube::Error::Api(answer)) if answer.code == 404 => return Ok(()),
        written => drop(written?),
    }
    if state == AttachmentState::Attached {
        let ips: Vec<IpAddr> = port.spec.vifs.iter().flat_map(|vif| &vif.addresses).map(|address| address.ip).collect();
        let Some(first) = ips.first() else { bail!("a VIF without address") };
        let all: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
        let status = json!({"status": {"phase": "Running", "podIP": first, "podIPs": all}});
        let pods = Api::<Pod>::namespaced(client.clone(), &namespace);
        match pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await {
            Err(kube::Error::Api(answer)) if answer.code == 404 => {}
            written => drop(written?),
        }
    }
    Ok(())
}

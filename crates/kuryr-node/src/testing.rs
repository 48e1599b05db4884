//! What tests of several modules need: objects with a number each, and a plugger that only remembers.

use crate::{
    attachments::{self, Attachment, Attachments},
    cni::{AttachmentId, args::PodRef},
    events::{Event, Events},
    locks::Locks,
    metrics::Metrics,
    node::{Limits, Node, Plugs},
    plug::{
        HostEnd, HostEndKind, Mismatch, PlugError, PlugTimes, Sandbox,
        mark::{Owner, host_end_name},
    },
    ports::{Known, Ports},
};
use http::{Request, Response};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};
use kube::{Client, client::Body};
use kuryr_model::{
    KuryrPort, KuryrPortSpec, KuryrPortStatus, MacAddress, NetworkId, ObjectKey, Plug, PodUid, PortId, Vif, VifAddress,
    VifRoute,
    kuryr_port::{Attachment as Written, AttachmentState, CONDITION_ALLOCATED},
    vif::PlugDriver,
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    convert::Infallible,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    sync::{Semaphore, mpsc},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

/// The number is where the names of host ends have their share of the id.
pub(crate) fn port_id(n: u64) -> PortId {
    PortId(Uuid::from_u128(u128::from(n) << 96))
}

pub(crate) fn uid(n: u64) -> PodUid {
    Uuid::from_u128(n.into()).to_string().into()
}

pub(crate) fn pod(name: &str, n: u64) -> PodRef {
    PodRef { key: ObjectKey::new("shop", name), uid: Some(uid(n)) }
}

pub(crate) fn vif(n: u64) -> Vif {
    let [high, low] = u16::try_from(n).unwrap().to_be_bytes();
    Vif {
        interface: "eth0".into(),
        port_id: port_id(n),
        network_id: NetworkId(Uuid::nil()),
        mac: MacAddress([0xfa, 0x16, 0x3e, 0, high, low]),
        mtu: 1442,
        addresses: vec![
            VifAddress { ip: [10, 1, high, low].into(), prefix_length: 16, gateway: "10.1.255.254".parse().ok() },
            VifAddress {
                ip: format!("fd00::{n:x}").parse().unwrap(),
                prefix_length: 64,
                gateway: "fd00::ffff".parse().ok(),
            },
        ],
        routes: vec![VifRoute { destination: "192.0.2.0/24".parse().unwrap(), gateway: [10, 1, 0, 254].into() }],
        plug: Plug::own(PlugDriver::Tap, None),
    }
}

pub(crate) fn kuryr_port(name: &str, n: u64) -> KuryrPort {
    let spec = KuryrPortSpec { pod_uid: uid(n), node_name: "node-1".into(), vifs: vec![vif(n)] };
    let mut port = KuryrPort::new(name, spec);
    port.metadata.namespace = Some("shop".into());
    port.metadata.uid = Some(format!("kp-{n}"));
    port.metadata.resource_version = Some("1".into());
    port
}

pub(crate) fn delete(port: &mut KuryrPort) {
    mark_deleted(&mut port.metadata);
}

pub(crate) fn mark_deleted(metadata: &mut ObjectMeta) {
    metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
}

pub(crate) fn attached(port: &mut KuryrPort, container_id: &str) {
    let since = Time(jiff::Timestamp::UNIX_EPOCH);
    let attachment = Written { state: AttachmentState::Attached, container_id: Some(container_id.into()), since };
    port.status.get_or_insert_default().attachment = Some(attachment);
}

pub(crate) fn unallocated(port: &mut KuryrPort, message: &str) {
    let condition = Condition {
        type_: CONDITION_ALLOCATED.into(),
        status: "False".into(),
        reason: "SubnetFull".into(),
        message: message.into(),
        last_transition_time: Time(jiff::Timestamp::UNIX_EPOCH),
        observed_generation: None,
    };
    port.status = Some(KuryrPortStatus { attachment: None, conditions: vec![condition] });
}

pub(crate) fn attachment(container_id: &str, n: u64) -> Attachment {
    Attachment {
        id: AttachmentId { container_id: container_id.into(), ifname: "eth0".into() },
        network: "kuryr".into(),
        netns: "/proc/self/ns/net".into(),
        pod_namespace: "shop".into(),
        pod_name: format!("web-{n}"),
        pod_uid: uid(n),
        vifs: vec![vif(n)],
        boot_id: attachments::boot_id(),
        since: jiff::Timestamp::UNIX_EPOCH,
    }
}

pub(crate) fn host_end(container_id: &str, n: u64) -> HostEnd {
    let owner = Owner { port_id: port_id(n), container_id: container_id.into() };
    HostEnd { kind: HostEndKind::Link, name: host_end_name(owner.port_id), owner }
}

/// Plugs nothing, remembers everything, and fails where it is told to.
#[derive(Debug)]
pub(crate) struct FakePlugs {
    pub(crate) plugged: Mutex<BTreeSet<HostEnd>>,
    pub(crate) log: Mutex<Vec<String>>,
    /// Ports that cannot be plugged, unplugged, or are not in order.
    pub(crate) broken: Mutex<HashSet<(&'static str, PortId)>>,
    /// Every plug takes a permit.
    pub(crate) gate: Semaphore,
}

impl Default for FakePlugs {
    fn default() -> Self {
        Self {
            plugged: Mutex::default(),
            log: Mutex::default(),
            broken: Mutex::default(),
            gate: Semaphore::new(10_000),
        }
    }
}

impl FakePlugs {
    fn fails(&self, doing: &'static str, vif: &Vif) -> Result<(), PlugError> {
        self.log.lock().unwrap().push(format!("{doing} {}", vif.mac));
        if self.broken.lock().unwrap().contains(&(doing, vif.port_id)) {
            return Err(PlugError::BadVif { port: vif.port_id, reason: "it was told to".into() });
        }
        Ok(())
    }

    pub(crate) fn break_it(&self, doing: &'static str, n: u64) {
        self.broken.lock().unwrap().insert((doing, port_id(n)));
    }

    pub(crate) fn repair(&self) {
        self.broken.lock().unwrap().clear();
    }

    /// The numbers of the plugged ports with their containers.
    pub(crate) fn plugged(&self) -> Vec<(u128, String)> {
        let plugged = self.plugged.lock().unwrap();
        plugged.iter().map(|end| (end.owner.port_id.0.as_u128() >> 96, end.owner.container_id.clone())).collect()
    }
}

fn end(vif: &Vif, sandbox: &Sandbox) -> HostEnd {
    let owner = Owner { port_id: vif.port_id, container_id: sandbox.container_id.clone() };
    HostEnd { kind: HostEndKind::Link, name: host_end_name(vif.port_id), owner }
}

impl Plugs for Arc<FakePlugs> {
    async fn plug(&self, vif: &Vif, sandbox: &Sandbox, deadline: Instant) -> Result<PlugTimes, PlugError> {
        let late = PlugError::Unready { port: vif.port_id, waited: Duration::ZERO, signal: "the gate".into() };
        let permit = tokio::time::timeout_at(deadline, self.gate.acquire()).await.map_err(|_| late)?;
        permit.unwrap().forget();
        self.fails("plug", vif)?;
        let mut plugged = self.plugged.lock().unwrap();
        assert!(plugged.iter().all(|end| end.owner.port_id != vif.port_id), "port {} is plugged twice", vif.port_id);
        plugged.insert(end(vif, sandbox));
        Ok(PlugTimes::default())
    }

    async fn unplug(&self, vif: &Vif, sandbox: &Sandbox) -> Result<(), PlugError> {
        self.fails("unplug", vif)?;
        self.plugged.lock().unwrap().remove(&end(vif, sandbox));
        Ok(())
    }

    async fn check(&self, vif: &Vif, sandbox: &Sandbox) -> Result<(), Vec<Mismatch>> {
        let broken = self.fails("check", vif).is_err() || !self.plugged.lock().unwrap().contains(&end(vif, sandbox));
        let mismatch = || Mismatch { what: "MTU of eth0".into(), expected: "1442".into(), found: "1500".into() };
        if broken { Err(vec![mismatch()]) } else { Ok(()) }
    }

    async fn list(&self) -> Result<Vec<HostEnd>, PlugError> {
        Ok(self.plugged.lock().unwrap().iter().cloned().collect())
    }

    async fn remove(&self, end: &HostEnd) -> Result<(), PlugError> {
        self.plugged.lock().unwrap().remove(end);
        Ok(())
    }
}

/// An API server whose only pods are these, and the paths that it was asked for. Watches tell nothing.
pub(crate) fn pods_api(pods: Vec<Value>) -> (Client, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&asked);
    let service = tower::service_fn(move |request: Request<Body>| {
        let path = request.uri().path_and_query().unwrap().to_string();
        let watched = path.contains("watch=true");
        let of_that_name =
            |pod: &&Value| path.contains(&format!("metadata.name%3D{}&", pod["metadata"]["name"].as_str().unwrap()));
        let items: Vec<_> = pods.iter().filter(of_that_name).collect();
        let list = json!({
            "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": { "resourceVersion": "1" },
            "items": items,
        });
        let list = list.to_string();
        noted.lock().unwrap().push(path);
        async move {
            if watched {
                std::future::pending::<()>().await;
            }
            Ok::<_, Infallible>(Response::new(Body::from(list.into_bytes())))
        }
    });
    (Client::new(service, "default"), asked)
}

/// The metadata of pod number `n` as the API server has it.
pub(crate) fn known_pod(n: u64) -> Value {
    json!({ "metadata": { "namespace": "shop", "name": format!("web-{n}"), "uid": uid(n) } })
}

/// A node whose state is in `folder`, with the Events that it publishes.
pub(crate) fn node(folder: &Path) -> (Arc<Node<Arc<FakePlugs>>>, mpsc::Receiver<Event>) {
    node_with(folder, pods_api((1..=100).map(known_pod).collect()).0)
}

/// The same with another API server.
pub(crate) fn node_with(folder: &Path, client: Client) -> (Arc<Node<Arc<FakePlugs>>>, mpsc::Receiver<Event>) {
    let (events, published) = Events::channel();
    let node = Node {
        name: "node-1".into(),
        limits: Limits { add: Duration::from_secs(60), plug: Duration::from_secs(30) },
        client,
        ovsdb_socket: folder.join("no-ovsdb.sock"),
        boot_id: attachments::boot_id(),
        plugs: Arc::default(),
        attachments: Attachments::load(folder.join("attachments")).unwrap(),
        ports: Arc::new(Ports::of_node("node-1")),
        locks: Locks::default(),
        events,
        metrics: Metrics::default(),
        node_ports: crate::node_ports::State::default(),
        full: crate::fullness::State::default(),
        stopping: CancellationToken::new(),
        tasks: TaskTracker::new(),
    };
    node.ports.replace(HashMap::new());
    (Arc::new(node), published)
}

pub(crate) fn apply<P>(node: &Node<P>, port: &KuryrPort) {
    node.ports.apply(port.key(), Known::Port(port.clone().into()));
}

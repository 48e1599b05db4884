//! The handshake between controller and node, in any order: pods come and go, kubelet adds, hangs up and deletes, watches
//! lag, plugs take their time. A port that the controller takes back is never plugged, and in the end everything is taken back.

use super::{host_end_of, look};
use crate::{
    cni::Request,
    node::Node,
    ports::Known,
    testing::{self, FakePlugs, port_id, uid},
    verbs,
};
use kuryr_model::{KuryrPort, kuryr_port::AttachmentState};
use proptest::prelude::*;
use serde_json::json;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::task::JoinHandle;

/// How many names pods have: few, so that much happens to each.
const NAMES: u64 = 2;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The controller makes the `KuryrPort` of a new pod of this name, with the port that the name always has.
    Create(u64),
    /// The pod is deleted.
    Delete(u64),
    /// The daemon's watch brings what the API server has.
    Watch(u64),
    /// Kubelet starts a sandbox for the latest pod of this name.
    Add(u64),
    /// One plug may go on.
    Plug,
    /// Kubelet gives up on its latest ADD.
    HangUp,
    /// Kubelet deletes its oldest sandbox.
    Del,
    /// The daemon writes the status.
    Write(u64),
    /// The controller takes back the port, if it may.
    TakeBack(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let name = 0..NAMES;
    prop_oneof![
        name.clone().prop_map(Step::Create),
        name.clone().prop_map(Step::Delete),
        name.clone().prop_map(Step::Watch),
        name.clone().prop_map(Step::Watch),
        name.clone().prop_map(Step::Add),
        Just(Step::Plug),
        Just(Step::HangUp),
        Just(Step::Del),
        name.clone().prop_map(Step::Write),
        name.clone().prop_map(Step::Write),
        name.prop_map(Step::TakeBack),
    ]
}

struct World {
    _folder: tempfile::TempDir,
    node: Arc<Node<Arc<FakePlugs>>>,
    /// The API server's objects, by name.
    api: BTreeMap<u64, KuryrPort>,
    version: u64,
    /// How many pods of a name there were.
    pods: BTreeMap<u64, u64>,
    sandboxes: Vec<(Request, Option<JoinHandle<bool>>)>,
}

/// Whether the controller may take the port back.
fn released(port: &KuryrPort) -> bool {
    port.deleting() && port.attachment_state() == Some(AttachmentState::Released)
}

fn name(n: u64) -> String {
    format!("web-{n}")
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (node, _events) = testing::node(folder.path());
        node.plugs.gate.forget_permits(10_000);
        Self { _folder: folder, node, api: BTreeMap::new(), version: 0, pods: BTreeMap::new(), sandboxes: vec![] }
    }

    fn pod_uid(&self, n: u64) -> u64 {
        n * 1000 + self.pods.get(&n).copied().unwrap_or_default()
    }

    fn changed(&mut self, n: u64) {
        self.version += 1;
        self.api.get_mut(&n).unwrap().metadata.resource_version = Some(self.version.to_string());
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Create(n) if !self.api.contains_key(&n) => {
                *self.pods.entry(n).or_default() += 1;
                let mut port = testing::kuryr_port(&name(n), n);
                port.spec.pod_uid = uid(self.pod_uid(n));
                self.api.insert(n, port);
                self.changed(n);
            }
            Step::Delete(n) if self.api.get(&n).is_some_and(|port| !port.deleting()) => {
                testing::delete(self.api.get_mut(&n).unwrap());
                self.changed(n);
            }
            Step::Watch(n) => match self.api.get(&n) {
                Some(port) => self.node.ports.apply(port.key(), Known::Port(port.clone().into())),
                None => self.node.ports.delete(kuryr_model::ObjectKey::new("shop", name(n))),
            },
            Step::Add(n) => self.add(n),
            Step::Plug => self.node.plugs.gate.add_permits(1),
            Step::HangUp => {
                if let Some((_, Some(add))) = self.sandboxes.last() {
                    add.abort();
                }
            }
            Step::Del if !self.sandboxes.is_empty() => {
                // Kubelet deletes a sandbox only after its ADD has ended one way or the other.
                let (add, task) = self.sandboxes.remove(0);
                match task {
                    Some(task) if !task.is_finished() => self.sandboxes.insert(0, (add, Some(task))),
                    _ => {
                        let node = Arc::clone(&self.node);
                        let del = Request { command: "DEL".into(), ..add };
                        tokio::spawn(async move { verbs::serve(&node, &del).await.unwrap() });
                    }
                }
            }
            Step::Write(n) => self.write(n).await,
            Step::TakeBack(n) => self.take_back(n),
            Step::Create(_) | Step::Delete(_) | Step::Del => {}
        }
        // With paused time this returns when nothing can go on by itself.
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.check(step);
    }

    /// Whatever happened: a port that is said to be released, or is taken back, is not plugged.
    fn check(&self, step: Step) {
        let plugged = self.node.plugs.plugged.lock().unwrap();
        for n in 0..NAMES {
            let may_be = self.api.get(&n).is_some_and(|port| !released(port));
            assert!(
                may_be || plugged.iter().all(|end| end.owner.port_id != port_id(n)),
                "port {n} is plugged after {step:?}"
            );
        }
    }

    fn add(&mut self, n: u64) {
        let container = format!("c{}-{}", n, self.version * 1000 + self.sandboxes.len() as u64);
        let uid = uid(self.pod_uid(n));
        let request = Request {
            command: "ADD".into(),
            container_id: container,
            netns: "/proc/self/ns/net".into(),
            ifname: "eth0".into(),
            args: format!("K8S_POD_NAMESPACE=shop;K8S_POD_NAME={};K8S_POD_UID={uid}", name(n)),
            path: String::new(),
            config: json!({ "cniVersion": "1.0.0", "name": "kuryr" }),
        };
        let (node, add) = (Arc::clone(&self.node), request.clone());
        let task = tokio::spawn(async move { verbs::serve(&node, &add).await.is_ok() });
        self.sandboxes.push((request, Some(task)));
    }

    /// What [`super::settle`] does, with the API server's check of the version.
    async fn write(&mut self, n: u64) {
        let key = kuryr_model::ObjectKey::new("shop", name(n));
        let Some((seen, wanted)) = look(&self.node.ports, &self.node.attachments, &key) else { return };
        if wanted.state == AttachmentState::Released && host_end_of(&self.node, &seen).await.unwrap().is_some() {
            return;
        }
        let Some(port) = self.api.get_mut(&n) else { return };
        if port.metadata.resource_version == seen.metadata.resource_version {
            testing::attached(port, wanted.container_id.as_deref().unwrap_or_default());
            port.status.as_mut().unwrap().attachment.as_mut().unwrap().state = wanted.state;
            self.changed(n);
        }
    }

    fn take_back(&mut self, n: u64) {
        if self.api.get(&n).is_some_and(released) {
            self.api.remove(&n);
        }
    }

    /// Everything that has begun comes to its end.
    async fn finish(&mut self) {
        self.node.plugs.gate.add_permits(1000);
        for n in 0..NAMES {
            for step in [Step::Delete(n), Step::Watch(n)] {
                self.step(step).await;
            }
        }
        // ADDs that wait for what never comes end by themselves.
        tokio::time::sleep(Duration::from_secs(200)).await;
        while !self.sandboxes.is_empty() {
            self.step(Step::Del).await;
        }
        for n in 0..NAMES {
            for step in [Step::Write(n), Step::Watch(n), Step::Write(n), Step::TakeBack(n)] {
                self.step(step).await;
            }
        }
        assert_eq!(self.node.plugs.plugged(), []);
        assert_eq!(self.node.attachments.count(), 0);
        assert!(self.api.is_empty(), "not everything is taken back: {:?}", self.api);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_port_is_taken_back_while_it_is_plugged_and_all_are_in_the_end(steps in prop::collection::vec(step(), 0..150)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut world = World::new();
            for step in steps {
                world.step(step).await;
            }
            world.finish().await;
        });
    }
}

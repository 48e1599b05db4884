//! A tiny scheduler: pods without a node are bound in turn to the nodes that are ready, schedulable and selected.

use std::collections::BTreeMap;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::json;
use tokio_util::task::AbortOnDropHandle;

/// Binds pods until it is dropped.
pub struct Scheduler {
    _task: AbortOnDropHandle<()>,
}

impl Scheduler {
    /// Starts to schedule, with a client of the cluster. Must be called within a tokio runtime.
    pub fn start(client: Client) -> Self {
        Self { _task: AbortOnDropHandle::new(tokio::spawn(run(client))) }
    }
}

enum Change {
    Node(Box<watcher::Event<Node>>),
    Pod(Box<watcher::Event<Pod>>),
}

/// Namespace and name.
type PodKey = (String, String);

#[derive(Default)]
struct State {
    nodes: BTreeMap<String, Node>,
    pending: BTreeMap<PodKey, Pod>,
    /// What a running list has shown so far.
    fresh_nodes: Option<BTreeMap<String, Node>>,
    fresh_pods: Option<BTreeMap<PodKey, Pod>>,
    turn: usize,
}

async fn run(client: Client) {
    let nodes = watcher(Api::<Node>::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .map_ok(|event| Change::Node(Box::new(event)));
    let waiting = watcher::Config::default().fields("spec.nodeName=");
    let pods = watcher(Api::<Pod>::all(client.clone()), waiting)
        .default_backoff()
        .map_ok(|event| Change::Pod(Box::new(event)));
    let mut changes = std::pin::pin!(stream::select(nodes, pods));
    let mut state = State::default();
    while let Some(change) = changes.next().await {
        match change {
            Ok(change) => state.observe(change),
            Err(error) => tracing::debug!(%error, "the scheduler lost its watch"),
        }
        state.schedule(&client).await;
    }
}

fn key(pod: &Pod) -> PodKey {
    (pod.namespace().unwrap_or_default(), pod.name_any())
}

/// Keeps a map like the cluster; `fresh` collects a list until it is complete.
fn update<K: Ord, V>(
    map: &mut BTreeMap<K, V>,
    fresh: &mut Option<BTreeMap<K, V>>,
    event: watcher::Event<V>,
    key: impl Fn(&V) -> K,
) {
    match event {
        watcher::Event::Init => *fresh = Some(BTreeMap::new()),
        watcher::Event::InitApply(object) => {
            fresh.get_or_insert_default().insert(key(&object), object);
        }
        watcher::Event::InitDone => *map = fresh.take().unwrap_or_default(),
        watcher::Event::Apply(object) => {
            map.insert(key(&object), object);
        }
        watcher::Event::Delete(object) => {
            map.remove(&key(&object));
        }
    }
}

impl State {
    fn observe(&mut self, change: Change) {
        match change {
            Change::Node(event) => update(&mut self.nodes, &mut self.fresh_nodes, *event, Node::name_any),
            Change::Pod(event) => update(&mut self.pending, &mut self.fresh_pods, *event, key),
        }
    }

    async fn schedule(&mut self, client: &Client) {
        for ((namespace, name), pod) in std::mem::take(&mut self.pending) {
            if pod.metadata.deletion_timestamp.is_some() {
                continue;
            }
            let pods = Api::<Pod>::namespaced(client.clone(), &namespace);
            let result = match self.choose(&pod) {
                Some(node) => bind(&pods, &pod, &node).await,
                None => {
                    let result = report_unschedulable(&pods, &pod, self.nodes.len()).await;
                    self.pending.insert((namespace.clone(), name.clone()), pod.clone());
                    result
                }
            };
            match result {
                Ok(()) => {}
                // Somebody was faster, or the pod is gone: the watch tells.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                Err(error) => {
                    tracing::debug!(%error, name, "could not schedule a pod, will try again");
                    self.pending.insert((namespace, name), pod);
                }
            }
        }
    }

    /// The node whose turn it is.
    fn choose(&mut self, pod: &Pod) -> Option<String> {
        let fitting: Vec<&String> =
            self.nodes.iter().filter(|(_, node)| fits(pod, node)).map(|(name, _)| name).collect();
        let node = (*fitting.get(self.turn % fitting.len().max(1))?).clone();
        self.turn = self.turn.wrapping_add(1);
        Some(node)
    }
}

fn fits(pod: &Pod, node: &Node) -> bool {
    let ready = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = ready.filter(|condition| condition.type_ == "Ready").any(|condition| condition.status == "True");
    let schedulable = node.spec.as_ref().is_none_or(|spec| spec.unschedulable != Some(true));
    let wanted = pod.spec.iter().flat_map(|spec| spec.node_selector.iter().flatten());
    let mut selected = wanted.map(|(key, value)| node.labels().get(key) == Some(value));
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let mut keeping_off = taints.filter(|taint| taint.effect != "PreferNoSchedule" && !tolerates(pod, taint));
    ready
        && schedulable
        && keeping_off.next().is_none()
        && node.metadata.deletion_timestamp.is_none()
        && selected.all(|selected| selected)
}

fn tolerates(pod: &Pod, taint: &Taint) -> bool {
    let mut all = pod.spec.iter().flat_map(|spec| spec.tolerations.iter().flatten());
    all.any(|toleration| {
        let exists = toleration.operator.as_deref() == Some("Exists");
        let key = toleration.key.as_deref().map_or(exists, |key| key == taint.key);
        let value =
            exists || toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default();
        key && value && toleration.effect.as_ref().is_none_or(|effect| *effect == taint.effect)
    })
}

async fn bind(pods: &Api<Pod>, pod: &Pod, node: &str) -> Result<(), kube::Error> {
    let name = pod.name_any();
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding",
        "metadata": { "name": name, "namespace": pod.namespace(), "uid": pod.uid() },
        "target": { "apiVersion": "v1", "kind": "Node", "name": node },
    });
    let parameters = PostParams::default();
    pods.create_subresource::<_, serde_json::Value>("binding", &name, &parameters, &binding).await.map(drop)
}

/// Says once on the pod that no node fits.
async fn report_unschedulable(pods: &Api<Pod>, pod: &Pod, nodes: usize) -> Result<(), kube::Error> {
    let message = format!("0/{nodes} nodes are available: none is ready, schedulable and selected by the pod.");
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut scheduled = conditions.filter(|condition| condition.type_ == "PodScheduled");
    if scheduled.any(|condition| condition.status == "False" && condition.message.as_ref() == Some(&message)) {
        return Ok(());
    }
    let condition = json!({
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
        "lastTransitionTime": jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    });
    let patch = json!({ "status": { "conditions": [condition] } });
    pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(patch)).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, ready: &str) -> Node {
        let node = json!({ "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } },
            "status": { "conditions": [{ "type": "Ready", "status": ready }] } });
        serde_json::from_value(node).unwrap()
    }

    #[test]
    fn a_taint_keeps_off_whoever_does_not_tolerate_it() {
        let mut tainted = node("a", "True");
        let pod = |tolerations| -> Pod {
            serde_json::from_value(json!({ "spec": { "containers": [], "tolerations": tolerations } })).unwrap()
        };
        let tolerations = [
            (json!([]), false),
            (json!([{ "operator": "Exists" }]), true),
            (json!([{ "key": "full", "operator": "Exists", "effect": "NoSchedule" }]), true),
            (json!([{ "key": "full", "operator": "Exists", "effect": "NoExecute" }]), false),
            (json!([{ "key": "full", "value": "yes" }]), false),
            (json!([{ "key": "other", "operator": "Exists" }]), false),
        ];
        for (effect, keeps_off) in [("NoSchedule", true), ("PreferNoSchedule", false)] {
            let spec = json!({ "taints": [{ "key": "full", "effect": effect }] });
            tainted.spec = Some(serde_json::from_value(spec).unwrap());
            for (tolerations, tolerated) in &tolerations {
                assert_eq!(
                    fits(&pod(tolerations.clone()), &tainted),
                    *tolerated || !keeps_off,
                    "{effect} {tolerations}"
                );
            }
        }
    }

    #[test]
    fn ready_nodes_take_turns_and_selectors_are_respected() {
        let mut state = State::default();
        for (name, ready) in [("a", "True"), ("b", "False"), ("c", "True")] {
            state.nodes.insert(name.into(), node(name, ready));
        }
        let pod = Pod::default();
        let chosen: Vec<_> = (0..4).map(|_| state.choose(&pod).unwrap()).collect();
        assert_eq!(chosen, ["a", "c", "a", "c"]);
        let picky = json!({ "spec": { "containers": [], "nodeSelector": { "kubernetes.io/hostname": "c" } } });
        let picky: Pod = serde_json::from_value(picky).unwrap();
        assert_eq!(state.choose(&picky).as_deref(), Some("c"));
        let lost = json!({ "spec": { "containers": [], "nodeSelector": { "kubernetes.io/hostname": "b" } } });
        assert_eq!(state.choose(&serde_json::from_value(lost).unwrap()), None);
    }
}

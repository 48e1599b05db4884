//! `KuryrPort`s and their conditions, as they are written.

use crate::own::{self, owned_by};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::ObjectMeta;
use kuryr_model::{KuryrPort, KuryrPortSpec, PORT_FINALIZER, Vif, kuryr_port::CONDITION_ALLOCATED};
use kuryr_plan::pod::Pod;
use serde_json::json;

pub(super) fn new_kuryr_port(pod: &Pod, node: &str, vifs: Vec<Vif>) -> KuryrPort {
    let spec = KuryrPortSpec { pod_uid: pod.uid.clone(), node_name: node.to_owned(), vifs };
    let metadata = ObjectMeta {
        finalizers: Some(vec![PORT_FINALIZER.to_owned()]),
        ..owned_by("v1", "Pod", &pod.key, pod.uid.to_string())
    };
    KuryrPort { metadata, ..KuryrPort::new(&pod.key.name, spec) }
}

pub(super) fn condition(port: &KuryrPort, state: &str, reason: &str, message: String) -> Condition {
    let before =
        port.status.as_ref().and_then(|status| status.conditions.iter().find(|c| c.type_ == CONDITION_ALLOCATED));
    own::condition(CONDITION_ALLOCATED, (state, reason, message), before, port.metadata.generation, Timestamp::now())
}

/// The only condition, so that writing the whole list loses nothing.
pub(super) fn status(condition: &Condition) -> serde_json::Value {
    json!({"status": {"conditions": [condition]}})
}

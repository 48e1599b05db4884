//! `KuryrPort`s and their conditions, as they are written.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, OwnerReference, Time};
use kube::api::ObjectMeta;
use kuryr_model::{KuryrPort, KuryrPortSpec, PORT_FINALIZER, Vif, kuryr_port::CONDITION_ALLOCATED};
use kuryr_plan::pod::Pod;
use serde_json::json;

pub(super) fn new_kuryr_port(pod: &Pod, node: &str, vifs: Vec<Vif>) -> KuryrPort {
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        name: pod.key.name.clone(),
        uid: pod.uid.to_string(),
        // A blocking owner reference would need the right to change the finalizers of pods.
        block_owner_deletion: None,
        controller: Some(true),
    };
    let spec = KuryrPortSpec { pod_uid: pod.uid.clone(), node_name: node.to_owned(), vifs };
    let metadata = ObjectMeta {
        name: Some(pod.key.name.clone()),
        namespace: Some(pod.key.namespace.clone()),
        owner_references: Some(vec![owner]),
        finalizers: Some(vec![PORT_FINALIZER.to_owned()]),
        ..ObjectMeta::default()
    };
    KuryrPort { metadata, ..KuryrPort::new(&pod.key.name, spec) }
}

pub(super) fn condition(port: &KuryrPort, state: &str, reason: &str, message: String) -> Condition {
    let before =
        port.status.as_ref().and_then(|status| status.conditions.iter().find(|c| c.type_ == CONDITION_ALLOCATED));
    let since = before.filter(|before| before.status == state).map(|before| before.last_transition_time.clone());
    Condition {
        type_: CONDITION_ALLOCATED.to_owned(),
        status: state.to_owned(),
        reason: reason.to_owned(),
        message,
        last_transition_time: since.unwrap_or(Time(Timestamp::now())),
        observed_generation: port.metadata.generation,
    }
}

/// The only condition, so that writing the whole list loses nothing.
pub(super) fn status(condition: &Condition) -> serde_json::Value {
    json!({"status": {"conditions": [condition]}})
}

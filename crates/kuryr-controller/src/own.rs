//! What all of Kuryr's own objects have in common: each belongs to one object of the user's and has its name, and says in a
//! condition how far it is.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, OwnerReference, Time};
use kube::api::ObjectMeta;
use kuryr_model::ObjectKey;

/// The metadata of an object of ours that goes when the object of this name, kind and UID does.
pub(crate) fn owned_by(api_version: &str, kind: &str, key: &ObjectKey, uid: String) -> ObjectMeta {
    let owner = OwnerReference {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        name: key.name.clone(),
        uid,
        // A blocking owner reference would need the right to change the finalizers of users' objects.
        block_owner_deletion: None,
        controller: Some(true),
    };
    ObjectMeta {
        name: Some(key.name.clone()),
        namespace: Some(key.namespace.clone()),
        owner_references: Some(vec![owner]),
        ..ObjectMeta::default()
    }
}

/// A condition of an object of ours, whose status is as old as that of the one before it if it is the same.
pub(crate) fn condition(
    type_: &str,
    (status, reason, message): (&str, &str, String),
    before: Option<&Condition>,
    observed_generation: Option<i64>,
    now: Timestamp,
) -> Condition {
    let since = before.filter(|before| before.status == status).map(|before| before.last_transition_time.clone());
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        last_transition_time: since.unwrap_or(Time(now)),
        observed_generation,
    }
}

//! Deletes: preconditions, grace periods, finalizers and propagation.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{
    Shared,
    object::{self, child, set_meta},
    pods,
    registry::ResourceDef,
    request::Query,
    status::ApiError,
    store::Entry,
};

/// Finalizer that waits for dependents to be deleted.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer that waits for dependents to be released.
pub(crate) const ORPHAN: &str = "orphan";

/// What happens to dependents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Propagation {
    #[default]
    Background,
    Foreground,
    Orphan,
}

/// The options of a delete.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeleteOptions {
    pub(crate) grace: Option<i64>,
    pub(crate) propagation: Propagation,
    pub(crate) uid: Option<String>,
    pub(crate) revision: Option<String>,
    pub(crate) dry_run: bool,
}

impl DeleteOptions {
    pub(crate) fn parse(query: &Query, body: &Value) -> Result<Self, ApiError> {
        let propagation = query.get("propagationPolicy").or_else(|| body["propagationPolicy"].as_str());
        let orphan = query.flag("orphanDependents") || body["orphanDependents"] == true;
        Ok(Self {
            grace: query
                .get("gracePeriodSeconds")
                .and_then(|text| text.parse().ok())
                .or_else(|| body["gracePeriodSeconds"].as_i64()),
            propagation: match propagation {
                _ if orphan => Propagation::Orphan,
                None | Some("Background") => Propagation::Background,
                Some("Foreground") => Propagation::Foreground,
                Some("Orphan") => Propagation::Orphan,
                Some(other) => {
                    return Err(ApiError::bad_request(format!("propagationPolicy: Unsupported value: {other:?}")));
                }
            },
            uid: body.pointer("/preconditions/uid").and_then(Value::as_str).map(str::to_owned),
            revision: body.pointer("/preconditions/resourceVersion").and_then(Value::as_str).map(str::to_owned),
            dry_run: query.get("dryRun").is_some() || body["dryRun"].as_array().is_some_and(|list| !list.is_empty()),
        })
    }
}

/// What became of a deleted object.
pub(crate) enum Deleted {
    /// It stays until its grace period or its finalizers end.
    Pending(Arc<Entry>),
    /// It is gone; its last state.
    Gone(Arc<Entry>),
}

impl Deleted {
    pub(crate) fn entry(&self) -> &Arc<Entry> {
        match self {
            Self::Pending(entry) | Self::Gone(entry) => entry,
        }
    }
}

/// Deletes one object.
pub(crate) fn delete(
    server: &Shared,
    def: &ResourceDef,
    namespace: &str,
    name: &str,
    options: &DeleteOptions,
) -> Result<Deleted, ApiError> {
    server.store.write(|tx| {
        let current = tx.get(&def.storage, namespace, name).ok_or_else(|| ApiError::not_found(def, name))?;
        check_preconditions(def, &current, options)?;
        let mut object = current.value();
        hold_for_dependents(&mut object, options.propagation);

        let was_deleting = object::deleting(&object);
        let grace = if def.is_core("pods") { pods::grace_period(&object, options.grace) } else { 0 };
        let left = object["metadata"]["deletionGracePeriodSeconds"].as_i64();
        if was_deleting && left.is_some_and(|left| grace >= left && left > 0) {
            return Ok(Deleted::Pending(current));
        }
        let held = !object::finalizers(&object).is_empty() || is_held_namespace(def, &object);
        if grace == 0 && !held {
            if options.dry_run {
                return Ok(Deleted::Gone(current));
            }
            mark(&mut object, 0);
            return Ok(Deleted::Gone(tx.remove(&def.storage, object)));
        }
        if !was_deleting || left != Some(grace) {
            mark(&mut object, grace);
        }
        if def.is_core("namespaces") {
            child(&mut object, "status").insert("phase".into(), json!("Terminating"));
        }
        if options.dry_run || object == current.value() {
            return Ok(Deleted::Pending(current));
        }
        Ok(Deleted::Pending(tx.put(&def.storage, object)))
    })
}

fn check_preconditions(def: &ResourceDef, current: &Entry, options: &DeleteOptions) -> Result<(), ApiError> {
    if let Some(uid) = options.uid.as_deref().filter(|uid| **uid != *current.uid) {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", current.uid);
        return Err(ApiError::conflict(def, &current.name, &why));
    }
    let revision = current.revision.to_string();
    if let Some(wanted) = options.revision.as_deref().filter(|wanted| **wanted != revision) {
        let why = format!(
            "Precondition failed: ResourceVersion in precondition: {wanted}, ResourceVersion in object meta: {revision}"
        );
        return Err(ApiError::conflict(def, &current.name, &why));
    }
    Ok(())
}

/// Sets the deletion timestamp, or brings it forward.
fn mark(object: &mut Value, grace: i64) {
    let now = Timestamp::now();
    let old = object::text(object, "/metadata/deletionTimestamp").parse::<Timestamp>().ok();
    let old_grace = object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or_default();
    let begun = old.map_or(now, |at| at - SignedDuration::from_secs(old_grace));
    let at = begun + SignedDuration::from_secs(grace);
    set_meta(object, "deletionTimestamp", Some(json!(object::timestamp(at))));
    set_meta(object, "deletionGracePeriodSeconds", Some(json!(grace)));
    if old.is_none()
        && let Some(generation) = object["metadata"]["generation"].as_i64()
    {
        set_meta(object, "generation", Some(json!(generation + 1)));
    }
}

fn hold_for_dependents(object: &mut Value, propagation: Propagation) {
    let wanted = match propagation {
        Propagation::Background => None,
        Propagation::Foreground => Some(FOREGROUND),
        Propagation::Orphan => Some(ORPHAN),
    };
    let mut finalizers = object::finalizers(object);
    let before = finalizers.clone();
    finalizers.retain(|item| item != FOREGROUND && item != ORPHAN);
    finalizers.extend(wanted.map(str::to_owned));
    if finalizers != before {
        set_meta(object, "finalizers", (!finalizers.is_empty()).then(|| json!(finalizers)));
    }
}

fn is_held_namespace(def: &ResourceDef, object: &Value) -> bool {
    def.is_core("namespaces")
        && object.pointer("/spec/finalizers").and_then(Value::as_array).is_some_and(|list| !list.is_empty())
}

/// The answer to a delete whose object is gone.
pub(crate) fn success(def: &ResourceDef, entry: &Entry) -> Value {
    let mut details = json!({ "name": &*entry.name, "kind": def.plural, "uid": &*entry.uid });
    if !def.group.is_empty() {
        details["group"] = json!(def.group);
    }
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details })
}

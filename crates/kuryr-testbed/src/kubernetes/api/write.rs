//! Creates and updates: the steps that every write of an object goes through.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    Shared, defaults, managed,
    object::{self, copy_field, copy_meta, set_meta},
    pods,
    prepare::{self, Scope, WriteOptions},
    registry::ResourceDef,
    services,
    status::{ApiError, FieldError},
    store::{Entry, Transaction},
};

/// The result of a write.
pub(crate) struct Written {
    pub(crate) entry: Arc<Entry>,
    pub(crate) created: bool,
    pub(crate) warnings: Vec<String>,
}

/// Characters of generated names: no vowels, so no words.
const SUFFIX: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

fn random_suffix() -> String {
    (0..5).map(|_| char::from(SUFFIX[fastrand::usize(..SUFFIX.len())])).collect()
}

/// Creates the object in `body`.
pub(crate) fn create(server: &Shared, scope: &Scope, options: &WriteOptions, body: Value) -> Result<Written, ApiError> {
    prepare::check_kind(&scope.def, &body)?;
    let written = server.store.write(|tx| create_in(tx, server, scope, options, body))?;
    server.after_write(&scope.def, options, &written.entry);
    Ok(written)
}

/// Creates an object within a write.
pub(crate) fn create_in(
    tx: &mut Transaction<'_>,
    server: &Shared,
    scope: &Scope,
    options: &WriteOptions,
    body: Value,
) -> Result<Written, ApiError> {
    let def = &scope.def;
    let (mut object, warnings) = prepare::shape(def, body, options.fields)?;
    place(scope, &mut object)?;
    if object::name(&object).is_empty() {
        let base = object::text(&object, "/metadata/generateName");
        if !base.is_empty() {
            let generated = format!("{}{}", base.get(..58).unwrap_or(base), random_suffix());
            set_meta(&mut object, "name", Some(json!(generated)));
        }
    }
    let name = object::name(&object).to_owned();
    check_namespace(tx, def, &scope.namespace, &name)?;
    for key in ["deletionTimestamp", "deletionGracePeriodSeconds", "resourceVersion", "selfLink"] {
        set_meta(&mut object, key, None);
    }
    set_meta(&mut object, "uid", Some(json!(uuid::Uuid::new_v4().to_string())));
    set_meta(&mut object, "creationTimestamp", Some(json!(object::now())));
    let counts = def.builtin().is_none_or(|builtin| builtin.generation);
    set_meta(&mut object, "generation", counts.then(|| json!(1)));
    defaults::on_create(tx, def, &mut object, &server.config.service_cidrs)?;
    let errors = prepare::validate(def, &object);
    if !errors.is_empty() {
        return Err(ApiError::invalid(def, &name, &errors));
    }
    if tx.get(&def.storage, &scope.namespace, &name).is_some() {
        return Err(ApiError::already_exists(def, &name));
    }
    let entry = if options.dry_run { tx.sketch(&def.storage, &object) } else { tx.put(&def.storage, object) };
    Ok(Written { entry, created: true, warnings })
}

/// The object must be in the namespace of the URL.
fn place(scope: &Scope, object: &mut Value) -> Result<(), ApiError> {
    let given = object::namespace(object);
    if scope.def.namespaced {
        if !given.is_empty() && given != scope.namespace {
            let message = format!(
                "the namespace of the provided object does not match the namespace sent on the request: {given:?} is not {:?}",
                scope.namespace
            );
            return Err(ApiError::bad_request(message));
        }
        set_meta(object, "namespace", Some(json!(scope.namespace)));
    } else {
        set_meta(object, "namespace", None);
    }
    Ok(())
}

/// New objects need a namespace that is there to stay.
fn check_namespace(tx: &Transaction<'_>, def: &ResourceDef, namespace: &str, name: &str) -> Result<(), ApiError> {
    if !def.namespaced {
        return Ok(());
    }
    let Some(entry) = tx.get("namespaces", "", namespace) else {
        let mut error = ApiError::new(404, "NotFound", format!("namespaces \"{namespace}\" not found"));
        error.details = json!({ "name": namespace, "kind": "namespaces" });
        return Err(error);
    };
    if entry.field("status.phase") == "Terminating" {
        let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
        let mut error = ApiError::forbidden(def, name, &why);
        error.details["causes"] = json!([{
            "reason": "NamespaceTerminating", "field": "metadata.namespace",
            "message": format!("namespace {namespace} is being terminated"),
        }]);
        return Err(error);
    }
    Ok(())
}

/// Changes an object: `change` gets the current one as the client sees it and returns the wanted one.
pub(crate) fn modify(
    server: &Shared,
    scope: &Scope,
    options: &WriteOptions,
    change: impl FnOnce(&Value) -> Result<Value, ApiError>,
) -> Result<Written, ApiError> {
    let def = &scope.def;
    let written = server.store.write(|tx| {
        let current = tx.get(&def.storage, &scope.namespace, &scope.name);
        let current = current.ok_or_else(|| ApiError::not_found(def, &scope.name))?;
        let wanted = change(&def.present(current.value()))?;
        update_in(tx, server, scope, options, &current, wanted, Tracking::Update)
    })?;
    server.after_write(def, options, &written.entry);
    Ok(written)
}

/// Who keeps `metadata.managedFields` of an update.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tracking {
    /// The changed fields go to the writer.
    Update,
    /// The wanted object brings its own.
    Given,
}

/// Puts a wanted object in the place of the current one, within a write.
pub(crate) fn update_in(
    tx: &mut Transaction<'_>,
    server: &Shared,
    scope: &Scope,
    options: &WriteOptions,
    current: &Arc<Entry>,
    wanted: Value,
    tracking: Tracking,
) -> Result<Written, ApiError> {
    let def = &scope.def;
    prepare::check_kind(def, &wanted)?;
    let old = current.value();
    let (mut new, warnings) = prepare::shape(def, wanted, options.fields)?;
    place(scope, &mut new)?;
    check_identity(scope, current, &old, &new)?;

    for key in
        ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "generateName"]
    {
        copy_meta(&mut new, &old, key);
    }
    keep_what_is_not_written(scope, &old, &mut new);
    if def.is_core("services") && !scope.is_status() {
        services::on_update(tx, def, &old, &mut new, &server.config.service_cidrs)?;
    }
    defaults::on_write(def, &mut new);
    let mut errors = prepare::validate(def, &new);
    if def.is_core("pods") && !scope.is_status() {
        pods::validate_update(&old, &new, &mut errors);
    }
    if object::deleting(&old) {
        let before = object::finalizers(&old);
        let added: Vec<String> = object::finalizers(&new).into_iter().filter(|item| !before.contains(item)).collect();
        if !added.is_empty() {
            let why = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"
            );
            errors.push(FieldError::forbidden("metadata.finalizers", &why));
        }
    }
    if !errors.is_empty() {
        return Err(ApiError::invalid(def, &scope.name, &errors));
    }
    if let Some(generation) = old["metadata"]["generation"].as_i64()
        && specification(def, &old) != specification(def, &new)
    {
        set_meta(&mut new, "generation", Some(json!(generation + 1)));
    }
    if tracking == Tracking::Update {
        managed::track_update(def, scope.subresource.as_deref(), &options.manager, &old, &mut new);
    }
    copy_meta(&mut new, &old, "resourceVersion");
    // An empty list says the same as none; a no-op must compare equal.
    for key in ["finalizers", "ownerReferences", "labels", "annotations"] {
        let empty = new["metadata"].get(key).is_some_and(|v| *v == json!([]) || *v == json!({}));
        if empty && old["metadata"].get(key) != new["metadata"].get(key) {
            set_meta(&mut new, key, None);
        }
    }
    let entry = if old == new {
        current.clone()
    } else if options.dry_run {
        tx.sketch(&def.storage, &new)
    } else if is_finished(def, &new) {
        tx.remove(&def.storage, new)
    } else {
        tx.put(&def.storage, new)
    };
    Ok(Written { entry, created: false, warnings })
}

/// Name, uid and version must be those of the current object.
fn check_identity(scope: &Scope, current: &Entry, old: &Value, new: &Value) -> Result<(), ApiError> {
    let def = &scope.def;
    if object::name(new) != scope.name {
        let message = format!(
            "the name of the object ({}) does not match the name on the URL ({})",
            object::name(new),
            scope.name
        );
        return Err(ApiError::bad_request(message));
    }
    let (uid, old_uid) = (object::uid(new), object::uid(old));
    if !uid.is_empty() && uid != old_uid {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {old_uid}");
        return Err(ApiError::conflict(def, &scope.name, &why));
    }
    let revision = object::text(new, "/metadata/resourceVersion");
    if revision.is_empty() && def.custom().is_some() {
        let error = FieldError::invalid("metadata.resourceVersion", &json!(0), "must be specified for an update");
        return Err(ApiError::invalid(def, &scope.name, &[error]));
    }
    if !revision.is_empty() && revision != current.revision.to_string() {
        return Err(ApiError::stale(def, &scope.name));
    }
    Ok(())
}

/// A write of the status leaves the rest alone and the other way round.
fn keep_what_is_not_written(scope: &Scope, old: &Value, new: &mut Value) {
    let def = &scope.def;
    if !scope.is_status() {
        if def.status && !(def.is_core("namespaces") && scope.subresource.as_deref() == Some("finalize")) {
            copy_field(new, old, "status");
        }
        if def.is_core("namespaces") && scope.subresource.is_none() {
            copy_field(new, old, "spec");
        }
        return;
    }
    if def.custom().is_some() {
        let status = new.get("status").cloned();
        let managed = new["metadata"].get("managedFields").cloned();
        *new = old.clone();
        match status {
            Some(status) => object::map(new).insert("status".into(), status),
            None => object::map(new).remove("status"),
        };
        set_meta(new, "managedFields", managed);
    } else {
        let keys: Vec<String> =
            old.as_object().into_iter().chain(new.as_object()).flat_map(|map| map.keys().cloned()).collect();
        for key in keys.iter().filter(|key| *key != "status" && *key != "metadata") {
            copy_field(new, old, key);
        }
        copy_meta(new, old, "ownerReferences");
        copy_meta(new, old, "finalizers");
    }
}

/// The part of an object whose changes `metadata.generation` counts.
fn specification(def: &ResourceDef, object: &Value) -> Value {
    let mut copy = object.clone();
    let map = object::map(&mut copy);
    map.remove("metadata");
    if def.status {
        map.remove("status");
    }
    copy
}

/// An object being deleted is finished when nothing holds it any more.
fn is_finished(def: &ResourceDef, object: &Value) -> bool {
    object::deleting(object)
        && object::finalizers(object).is_empty()
        && object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or_default() == 0
        && !(def.is_core("namespaces") && object.pointer("/spec/finalizers").is_some_and(|list| *list != json!([])))
}

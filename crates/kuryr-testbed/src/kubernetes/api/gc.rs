//! The garbage collector: dependents follow their owners, namespaces and definitions empty themselves.
//!
//! It works on notices from the store, never on a timer, and in the background as the real one does.

use std::sync::{Arc, Weak};

use serde_json::Value;
use tokio::sync::mpsc;

use super::{
    Shared, crd,
    delete::{self, DeleteOptions, FOREGROUND, ORPHAN},
    object,
    store::{Notice, ObjectKey},
};

/// Serves notices until the server is dropped.
pub(crate) async fn run(server: Weak<Shared>, mut notices: mpsc::UnboundedReceiver<Notice>) {
    while let Some(notice) = notices.recv().await {
        let Some(server) = server.upgrade() else { return };
        match notice {
            Notice::Attention(key) => attend(&server, &key),
            Notice::Gone { key, uid, owners } => after_removal(&server, &key, &uid, &owners),
        }
        drop(server);
        // Let writers in between.
        tokio::task::yield_now().await;
    }
}

fn read(server: &Shared, key: &ObjectKey) -> Option<Value> {
    server.store.get(&key.storage, &key.namespace, &key.name).map(|entry| entry.value())
}

fn attend(server: &Arc<Shared>, key: &ObjectKey) {
    let Some(object) = read(server, key) else { return };
    if !object::deleting(&object) {
        check_owners(server, key, &object);
        return;
    }
    match &*key.storage {
        "namespaces" => empty_namespace(server, &key.name),
        "customresourcedefinitions.apiextensions.k8s.io" => empty_definition(server, &key.name),
        _ => {}
    }
    let finalizers = object::finalizers(&object);
    if finalizers.iter().any(|item| item == ORPHAN) {
        release_dependents(server, key, object::uid(&object));
    }
    if finalizers.iter().any(|item| item == FOREGROUND) {
        delete_dependents_first(server, key, object::uid(&object));
    }
}

fn after_removal(server: &Arc<Shared>, key: &ObjectKey, uid: &str, owners: &[Box<str>]) {
    for dependent in server.store.dependents(uid) {
        if let Some(object) = read(server, &dependent) {
            check_owners(server, &dependent, &object);
        }
    }
    for owner in owners {
        if let Some(owner_key) = server.store.by_uid(owner)
            && let Some(object) = read(server, &owner_key)
            && object::finalizers(&object).iter().any(|item| item == FOREGROUND)
        {
            delete_dependents_first(server, &owner_key, owner);
        }
    }
    if !key.namespace.is_empty() && server.store.population(&key.namespace) == 0 {
        empty_namespace(server, &key.namespace);
    }
    if &*key.storage == "nodes" {
        tokio::spawn(delete_orphaned_pods(Arc::downgrade(server), key.clone()));
    }
    if key.storage.contains('.') {
        empty_definition(server, &key.storage);
    }
    if &*key.storage == "customresourcedefinitions.apiextensions.k8s.io" && read(server, key).is_none() {
        server.registry.remove_storage(&key.name);
        server.store.unregister(&key.name);
    }
}

/// Deletes an object all of whose owners are gone; forgets the gone ones if others are left.
fn check_owners(server: &Arc<Shared>, key: &ObjectKey, object: &Value) {
    let references = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    let references = references.map(Vec::as_slice).unwrap_or_default();
    let exists = |reference: &Value| {
        let (api_version, kind) = (object::text(reference, "/apiVersion"), object::text(reference, "/kind"));
        // An owner of a kind that is not served cannot be looked up, so it is not known to be gone.
        !server.registry.knows_kind(api_version, kind)
            || server.store.by_uid(object::text(reference, "/uid")).is_some_and(|owner| {
                (owner.namespace.is_empty() || owner.namespace == key.namespace)
                    && &*owner.name == object::text(reference, "/name")
            })
    };
    let solid: Vec<Value> = references.iter().filter(|reference| exists(reference)).cloned().collect();
    if references.is_empty() || solid.len() == references.len() {
        return;
    }
    if solid.is_empty() {
        remove(server, key, Some(object::uid(object)));
    } else {
        rewrite(server, key, |object| object::set_meta(object, "ownerReferences", Some(Value::Array(solid))));
    }
}

fn remove(server: &Shared, key: &ObjectKey, uid: Option<&str>) {
    let Some(def) = server.registry.by_storage(&key.storage) else { return };
    let options = DeleteOptions { uid: uid.map(str::to_owned), ..DeleteOptions::default() };
    if let Err(error) = delete::delete(server, &def, &key.namespace, &key.name, &options)
        && error.code != 404
    {
        tracing::debug!(%error, name = %key.name, "garbage collector could not delete");
    }
}

/// Changes an object in place; one being deleted that nothing holds any more goes.
fn rewrite(server: &Shared, key: &ObjectKey, change: impl FnOnce(&mut Value)) {
    // The closure cannot fail, so neither can the write.
    let _: Result<(), std::convert::Infallible> = server.store.write(|tx| {
        if let Some(entry) = tx.get(&key.storage, &key.namespace, &key.name) {
            let mut object = entry.value();
            change(&mut object);
            let graceful = object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or_default() > 0;
            if object::deleting(&object) && object::finalizers(&object).is_empty() && !graceful {
                tx.remove(&key.storage, object);
            } else if object != entry.value() {
                tx.put(&key.storage, object);
            }
        }
        Ok(())
    });
}

fn without_owner(object: &mut Value, uid: &str) {
    if let Some(Value::Array(references)) = object.pointer_mut("/metadata/ownerReferences") {
        references.retain(|reference| reference["uid"] != uid);
        if references.is_empty() {
            object::set_meta(object, "ownerReferences", None);
        }
    }
}

fn release_dependents(server: &Shared, key: &ObjectKey, uid: &str) {
    for dependent in server.store.dependents(uid) {
        rewrite(server, &dependent, |object| without_owner(object, uid));
    }
    rewrite(server, key, |object| {
        object::drop_finalizer(object, ORPHAN);
    });
}

fn delete_dependents_first(server: &Arc<Shared>, key: &ObjectKey, uid: &str) {
    let mut blocked = false;
    for dependent in server.store.dependents(uid) {
        let Some(object) = read(server, &dependent) else { continue };
        let references = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
        let mut references = references.into_iter().flatten();
        blocked |= references.clone().any(|r| r["uid"] == uid && r["blockOwnerDeletion"] == true);
        if object::deleting(&object) {
            continue;
        }
        if references.all(|reference| reference["uid"] == uid) {
            remove(server, &dependent, Some(object::uid(&object)));
        } else {
            rewrite(server, &dependent, |object| without_owner(object, uid));
        }
    }
    let left = server.store.dependents(uid);
    if left.is_empty() || !blocked {
        rewrite(server, key, |object| {
            object::drop_finalizer(object, FOREGROUND);
        });
    }
}

/// Deletes the pods of a node that is gone and stays gone: no kubelet will do it.
async fn delete_orphaned_pods(server: Weak<Shared>, node: ObjectKey) {
    let Some(pause) = server.upgrade().map(|server| server.config.orphaned_pods_after) else { return };
    tokio::time::sleep(pause).await;
    let Some(server) = server.upgrade().filter(|server| read(server, &node).is_none()) else { return };
    let Some(def) = server.registry.find("", "v1", "pods") else { return };
    let Ok((pods, _)) = server.store.snapshot("pods", None, None) else { return };
    for pod in pods.iter().filter(|pod| pod.field("spec.nodeName") == &*node.name) {
        let options = DeleteOptions { grace: Some(0), uid: Some(pod.uid.to_string()), ..DeleteOptions::default() };
        if let Err(error) = delete::delete(&server, &def, &pod.namespace, &pod.name, &options) {
            tracing::debug!(%error, name = %pod.name, "could not delete the pod of a node that is gone");
        }
    }
}

/// Deletes what is in a namespace that is being deleted, then the namespace.
fn empty_namespace(server: &Arc<Shared>, name: &str) {
    let key = ObjectKey { storage: "namespaces".into(), namespace: "".into(), name: name.into() };
    let Some(namespace) = read(server, &key).filter(object::deleting) else { return };
    for resident in server.store.residents(name) {
        if read(server, &resident).is_some_and(|object| !object::deleting(&object)) {
            remove(server, &resident, None);
        }
    }
    if server.store.population(name) == 0 && namespace.pointer("/spec/finalizers").is_some() {
        rewrite(server, &key, |object| drop(object::child(object, "spec").remove("finalizers")));
    }
}

/// Deletes the objects of a definition that is being deleted, then the definition.
fn empty_definition(server: &Arc<Shared>, name: &str) {
    let storage: Arc<str> = "customresourcedefinitions.apiextensions.k8s.io".into();
    let key = ObjectKey { storage, namespace: "".into(), name: name.into() };
    if read(server, &key).is_none_or(|crd| !object::deleting(&crd)) {
        return;
    }
    let Ok((entries, _)) = server.store.snapshot(name, None, None) else { return };
    for entry in &entries {
        if !object::deleting(&entry.value()) {
            let storage = name.into();
            let key = ObjectKey { storage, namespace: entry.namespace.clone(), name: entry.name.clone() };
            remove(server, &key, None);
        }
    }
    let empty = server.store.snapshot(name, None, None).is_ok_and(|(entries, _)| entries.is_empty());
    if empty {
        // Before the definition goes, so that its end means that nothing is served any more.
        server.registry.remove_storage(name);
        server.store.unregister(name);
        rewrite(server, &key, |object| {
            object::drop_finalizer(object, crd::CLEANUP);
        });
    }
}

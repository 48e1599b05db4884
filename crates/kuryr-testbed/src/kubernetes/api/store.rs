//! The store: every object as its JSON bytes, one global resource version, and a window of history per resource.
//!
//! One lock guards everything; a writer computes its change inside [`Store::write`], so there are no lost updates and no
//! retries. Watchers are cursors into the history and are woken by a channel that holds one number: a slow watcher
//! never blocks a writer, it only falls out of the window and is told that its version has expired.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::object;

/// Where an object lives: storage name of its resource, namespace ("" if cluster-scoped), name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ObjectKey {
    pub(crate) storage: Arc<str>,
    pub(crate) namespace: Box<str>,
    pub(crate) name: Box<str>,
}

/// A stored object. Its bytes are JSON without `apiVersion` and `kind`, which depend on the version asked for.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) namespace: Box<str>,
    pub(crate) name: Box<str>,
    pub(crate) uid: Box<str>,
    pub(crate) revision: u64,
    pub(crate) labels: BTreeMap<String, String>,
    fields: Vec<(Box<str>, Box<str>)>,
    pub(crate) body: Bytes,
}

impl Entry {
    fn new(object: &Value, revision: u64, selectable: &[Box<str>]) -> Self {
        let labels = object.pointer("/metadata/labels").and_then(Value::as_object);
        let labels = labels.map(|labels| {
            labels.iter().map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
        });
        Self {
            namespace: object::namespace(object).into(),
            name: object::name(object).into(),
            uid: object::uid(object).into(),
            revision,
            labels: labels.unwrap_or_default(),
            fields: selectable.iter().map(|field| (field.clone(), field_value(object, field))).collect(),
            body: Bytes::from(object.to_string()),
        }
    }

    /// The value of a selectable field, "" if it has none.
    pub(crate) fn field(&self, field: &str) -> &str {
        self.fields.iter().find(|(name, _)| &**name == field).map_or("", |(_, value)| value)
    }

    /// The object, parsed.
    pub(crate) fn value(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    fn key(&self) -> (Box<str>, Box<str>) {
        (self.namespace.clone(), self.name.clone())
    }
}

/// The text of a field named like `spec.nodeName`.
fn field_value(object: &Value, field: &str) -> Box<str> {
    let found = field.split('.').try_fold(object, |value, part| value.get(part));
    match found {
        Some(Value::String(text)) => text.as_str().into(),
        None | Some(Value::Null) => "".into(),
        Some(other) => other.to_string().into(),
    }
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChangeKind {
    Added,
    Modified,
    Deleted,
}

/// One line of a resource's history.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) revision: u64,
    pub(crate) kind: ChangeKind,
    /// The object before, unless it was added.
    pub(crate) before: Option<Arc<Entry>>,
    /// The object after; its last state if it was deleted.
    pub(crate) after: Arc<Entry>,
}

/// What the garbage collector is told.
#[derive(Clone, Debug)]
pub(crate) enum Notice {
    /// An object is being deleted, or names owners.
    Attention(ObjectKey),
    /// An object is gone.
    Gone { key: ObjectKey, uid: Box<str>, owners: Vec<Box<str>> },
}

/// The version a reader asked for is older than the history.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expired {
    /// The oldest version that can still be asked for.
    pub(crate) oldest: u64,
}

type Key = (Box<str>, Box<str>);

struct Table {
    selectable: Arc<[Box<str>]>,
    objects: BTreeMap<Key, Arc<Entry>>,
    history: VecDeque<Arc<Change>>,
    /// Every change after this version is in the history.
    floor: u64,
    latest: watch::Sender<u64>,
}

struct Inner {
    revision: u64,
    tables: HashMap<Arc<str>, Table>,
    /// Live objects by uid.
    uids: HashMap<Box<str>, ObjectKey>,
    /// Objects by the uid of each of their owners.
    dependents: HashMap<Box<str>, BTreeSet<ObjectKey>>,
    /// Number of objects in each namespace.
    population: HashMap<Box<str>, usize>,
}

/// See the module's documentation.
pub(crate) struct Store {
    inner: Mutex<Inner>,
    window: usize,
    notices: mpsc::UnboundedSender<Notice>,
}

impl Store {
    /// An empty store that keeps the last `window` changes of each resource.
    pub(crate) fn new(window: usize) -> (Self, mpsc::UnboundedReceiver<Notice>) {
        let (notices, receiver) = mpsc::unbounded_channel();
        let inner = Inner {
            revision: 1,
            tables: HashMap::new(),
            uids: HashMap::new(),
            dependents: HashMap::new(),
            population: HashMap::new(),
        };
        (Self { inner: Mutex::new(inner), window, notices }, receiver)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for a resource, or changes its selectable fields.
    pub(crate) fn register(&self, storage: &Arc<str>, selectable: &[Box<str>]) {
        let mut inner = self.lock();
        let floor = inner.revision;
        let table = inner.tables.entry(storage.clone()).or_insert_with(|| Table {
            selectable: Arc::from([]),
            objects: BTreeMap::new(),
            history: VecDeque::new(),
            floor,
            latest: watch::Sender::new(floor),
        });
        if *table.selectable != *selectable {
            table.selectable = selectable.into();
            for entry in table.objects.values_mut() {
                *entry = Arc::new(Entry::new(&entry.value(), entry.revision, selectable));
            }
        }
    }

    /// Forgets a resource; its watches end.
    pub(crate) fn unregister(&self, storage: &str) {
        self.lock().tables.remove(storage);
    }

    /// Runs one write: everything the closure does happens at once, and nothing of it if it fails.
    ///
    /// A closure must do all that can fail before its first `put` or `remove`.
    pub(crate) fn write<T, E>(&self, body: impl FnOnce(&mut Transaction<'_>) -> Result<T, E>) -> Result<T, E> {
        let mut inner = self.lock();
        let mut transaction = Transaction { inner: &mut inner, window: self.window, notices: Vec::new() };
        let result = body(&mut transaction);
        let notices = transaction.notices;
        drop(inner);
        for notice in notices {
            // Nobody listens only while the server is being dropped.
            let _ = self.notices.send(notice);
        }
        result
    }

    pub(crate) fn get(&self, storage: &str, namespace: &str, name: &str) -> Option<Arc<Entry>> {
        let inner = self.lock();
        inner.tables.get(storage)?.objects.get(&(namespace.into(), name.into()) as &Key).cloned()
    }

    pub(crate) fn by_uid(&self, uid: &str) -> Option<ObjectKey> {
        self.lock().uids.get(uid).cloned()
    }

    /// The objects that name this uid as an owner.
    pub(crate) fn dependents(&self, uid: &str) -> Vec<ObjectKey> {
        self.lock().dependents.get(uid).map(|keys| keys.iter().cloned().collect()).unwrap_or_default()
    }

    /// The number of objects in a namespace.
    pub(crate) fn population(&self, namespace: &str) -> usize {
        self.lock().population.get(namespace).copied().unwrap_or_default()
    }

    /// Every object in a namespace.
    pub(crate) fn residents(&self, namespace: &str) -> Vec<ObjectKey> {
        let inner = self.lock();
        let mut found = Vec::new();
        for (storage, table) in &inner.tables {
            let keys = table.objects.range((Bound::Included((namespace.into(), "".into())), Bound::Unbounded));
            let keys = keys.take_while(|((place, _), _)| &**place == namespace);
            found.extend(keys.map(|((namespace, name), _)| ObjectKey {
                storage: storage.clone(),
                namespace: namespace.clone(),
                name: name.clone(),
            }));
        }
        found
    }

    /// The objects of a resource as they were at a version (now, if `None`), in order after `after`, and that version.
    pub(crate) fn snapshot(
        &self,
        storage: &str,
        at: Option<u64>,
        after: Option<&Key>,
    ) -> Result<(Vec<Arc<Entry>>, u64), Expired> {
        let inner = self.lock();
        let Some(table) = inner.tables.get(storage) else { return Ok((Vec::new(), inner.revision)) };
        let start = after.map_or(Bound::Unbounded, |key| Bound::Excluded(key.clone()));
        let current = table.objects.range((start.clone(), Bound::Unbounded));
        let Some(at) = at.filter(|at| *at < inner.revision) else {
            return Ok((current.map(|(_, entry)| entry.clone()).collect(), inner.revision));
        };
        if at < table.floor {
            return Err(Expired { oldest: table.floor });
        }
        // Undo what happened since: the first change of an object after `at` tells what it was then.
        let mut undone: BTreeMap<Key, Option<Arc<Entry>>> = BTreeMap::new();
        for change in table.history.range(table.history.partition_point(|change| change.revision <= at)..) {
            undone.entry(change.after.key()).or_insert_with(|| change.before.clone());
        }
        let mut then: BTreeMap<Key, Arc<Entry>> = current.map(|(key, entry)| (key.clone(), entry.clone())).collect();
        for (key, entry) in undone {
            if after.is_some_and(|after| key <= *after) {
                continue;
            }
            match entry {
                Some(entry) => then.insert(key, entry),
                None => then.remove(&key),
            };
        }
        Ok((then.into_values().collect(), at))
    }

    /// The changes of a resource after a version, and the version they lead to.
    pub(crate) fn changes(&self, storage: &str, after: u64) -> Result<(Vec<Arc<Change>>, u64), Expired> {
        let inner = self.lock();
        let Some(table) = inner.tables.get(storage) else { return Ok((Vec::new(), after)) };
        if after < table.floor {
            return Err(Expired { oldest: table.floor });
        }
        let start = table.history.partition_point(|change| change.revision <= after);
        Ok((table.history.range(start..).cloned().collect(), inner.revision.max(after)))
    }

    /// Is woken by every change of a resource; closed when the resource is gone.
    pub(crate) fn subscribe(&self, storage: &str) -> Option<watch::Receiver<u64>> {
        self.lock().tables.get(storage).map(|table| table.latest.subscribe())
    }

    pub(crate) fn revision(&self) -> u64 {
        self.lock().revision
    }

    /// Forgets all history, as an API server does that restarts.
    pub(crate) fn forget_history(&self) {
        let mut inner = self.lock();
        let revision = inner.revision;
        for table in inner.tables.values_mut() {
            table.history.clear();
            table.floor = revision;
        }
    }
}

/// One write in progress.
pub(crate) struct Transaction<'a> {
    inner: &'a mut Inner,
    window: usize,
    notices: Vec<Notice>,
}

impl Transaction<'_> {
    pub(crate) fn get(&self, storage: &str, namespace: &str, name: &str) -> Option<Arc<Entry>> {
        self.inner.tables.get(storage)?.objects.get(&(namespace.into(), name.into()) as &Key).cloned()
    }

    /// Whether any object of the resource satisfies the predicate.
    pub(crate) fn any(&self, storage: &str, predicate: impl FnMut(&Arc<Entry>) -> bool) -> bool {
        self.inner.tables.get(storage).is_some_and(|table| table.objects.values().any(predicate))
    }

    /// Stores an object that has its metadata, and gives it the next version.
    pub(crate) fn put(&mut self, storage: &Arc<str>, mut object: Value) -> Arc<Entry> {
        let revision = self.next();
        object::set_meta(&mut object, "resourceVersion", Some(json!(revision.to_string())));
        let entry = self.entry(storage, &object, revision);
        let key = self.key(storage, &entry);
        let Some(table) = self.inner.tables.get_mut(storage) else { return entry };
        let before = table.objects.insert(entry.key(), entry.clone());
        match &before {
            Some(before) => self.disown(&key, &before.value()),
            None => {
                self.inner.uids.insert(entry.uid.clone(), key.clone());
                *self.inner.population.entry(entry.namespace.clone()).or_default() += 1;
            }
        }
        let owners = owners(&object);
        if !owners.is_empty() || object::deleting(&object) {
            self.notices.push(Notice::Attention(key.clone()));
        }
        for owner in owners {
            self.inner.dependents.entry(owner).or_default().insert(key.clone());
        }
        let kind = if before.is_some() { ChangeKind::Modified } else { ChangeKind::Added };
        self.record(storage, Change { revision, kind, before, after: entry.clone() });
        entry
    }

    /// An entry as `put` would make it, not stored (dry run).
    pub(crate) fn sketch(&self, storage: &str, object: &Value) -> Arc<Entry> {
        self.entry(storage, object, self.inner.revision)
    }

    fn entry(&self, storage: &str, object: &Value, revision: u64) -> Arc<Entry> {
        let selectable = self.inner.tables.get(storage).map(|table| table.selectable.clone()).unwrap_or_default();
        Arc::new(Entry::new(object, revision, &selectable))
    }

    /// Removes an object; `object` is its last state.
    pub(crate) fn remove(&mut self, storage: &Arc<str>, mut object: Value) -> Arc<Entry> {
        let revision = self.next();
        object::set_meta(&mut object, "resourceVersion", Some(json!(revision.to_string())));
        let entry = self.entry(storage, &object, revision);
        let key = self.key(storage, &entry);
        let Some(table) = self.inner.tables.get_mut(storage) else { return entry };
        let Some(before) = table.objects.remove(&entry.key()) else { return entry };
        let stored = before.value();
        self.disown(&key, &stored);
        self.inner.uids.remove(&before.uid);
        if let Some(count) = self.inner.population.get_mut(&before.namespace) {
            *count -= 1;
            if *count == 0 {
                self.inner.population.remove(&before.namespace);
            }
        }
        self.notices.push(Notice::Gone { key, uid: before.uid.clone(), owners: owners(&stored) });
        let kind = ChangeKind::Deleted;
        self.record(storage, Change { revision, kind, before: Some(before), after: entry.clone() });
        entry
    }

    fn next(&mut self) -> u64 {
        self.inner.revision += 1;
        self.inner.revision
    }

    fn key(&self, storage: &Arc<str>, entry: &Entry) -> ObjectKey {
        ObjectKey { storage: storage.clone(), namespace: entry.namespace.clone(), name: entry.name.clone() }
    }

    fn disown(&mut self, key: &ObjectKey, object: &Value) {
        for owner in owners(object) {
            if let Some(keys) = self.inner.dependents.get_mut(&owner) {
                keys.remove(key);
                if keys.is_empty() {
                    self.inner.dependents.remove(&owner);
                }
            }
        }
    }

    fn record(&mut self, storage: &str, change: Change) {
        let Some(table) = self.inner.tables.get_mut(storage) else { return };
        let revision = change.revision;
        table.history.push_back(Arc::new(change));
        while table.history.len() > self.window {
            if let Some(dropped) = table.history.pop_front() {
                table.floor = dropped.revision;
            }
        }
        table.latest.send_replace(revision);
    }
}

/// The uids of an object's owners.
pub(crate) fn owners(object: &Value) -> Vec<Box<str>> {
    let references = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    references.map(|list| list.iter().map(|owner| object::text(owner, "/uid").into()).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(window: usize) -> (Store, Arc<str>) {
        let (store, _notices) = Store::new(window);
        let storage: Arc<str> = "things".into();
        store.register(&storage, &["spec.color".into()]);
        (store, storage)
    }

    fn put(store: &Store, storage: &Arc<str>, name: &str, color: &str) -> u64 {
        let object = json!({ "metadata": { "name": name, "namespace": "a", "uid": name }, "spec": { "color": color } });
        store.write(|tx| Ok::<_, ()>(tx.put(storage, object).revision)).unwrap()
    }

    fn colors(store: &Store, at: Option<u64>) -> Vec<String> {
        let (entries, _) = store.snapshot("things", at, None).unwrap();
        entries.iter().map(|entry| format!("{}={}", entry.name, entry.field("spec.color"))).collect()
    }

    #[test]
    fn a_snapshot_shows_the_past_exactly() {
        let (store, storage) = store(100);
        put(&store, &storage, "x", "red");
        let then = put(&store, &storage, "y", "red");
        put(&store, &storage, "x", "blue");
        put(&store, &storage, "z", "red");
        let gone = json!({ "metadata": { "name": "y", "namespace": "a", "uid": "y" } });
        store.write(|tx| Ok::<_, ()>(tx.remove(&storage, gone))).unwrap();
        assert_eq!(colors(&store, Some(then)), ["x=red", "y=red"]);
        assert_eq!(colors(&store, None), ["x=blue", "z=red"]);
    }

    #[test]
    fn history_outside_the_window_has_expired() {
        let (store, storage) = store(2);
        let first = put(&store, &storage, "x", "1");
        for color in ["2", "3", "4"] {
            put(&store, &storage, "x", color);
        }
        assert!(store.changes("things", first).is_err());
        assert_eq!(store.changes("things", store.revision() - 2).unwrap().0.len(), 2);
        store.forget_history();
        assert!(store.changes("things", store.revision() - 1).is_err());
        assert!(store.changes("things", store.revision()).unwrap().0.is_empty());
    }
}

//! The resources that the API server serves: built-in ones and those of CustomResourceDefinitions.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use serde_json::Value;

use super::{builtin::Builtin, crd::CustomVersion, events, store::Entry};

/// Where a resource's definition comes from.
#[derive(Debug)]
pub(crate) enum Source {
    /// Known to this program.
    Builtin(&'static Builtin),
    /// One version of a CustomResourceDefinition.
    Custom(Box<CustomVersion>),
}

/// A resource in one version.
#[derive(Debug)]
pub(crate) struct ResourceDef {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) kind: String,
    pub(crate) list_kind: String,
    pub(crate) namespaced: bool,
    pub(crate) short_names: Vec<String>,
    pub(crate) categories: Vec<String>,
    /// Whether there is a `status` subresource.
    pub(crate) status: bool,
    /// Name of the table in the store, shared by all versions.
    pub(crate) storage: Arc<str>,
    /// Fields for field selectors, beyond metadata's.
    pub(crate) selectable: Vec<Box<str>>,
    pub(crate) source: Source,
}

impl ResourceDef {
    /// `v1` or `apps/v1`.
    pub(crate) fn api_version(&self) -> String {
        group_version(&self.group, &self.version)
    }

    /// `pods` or `deployments.apps`, as error messages say it.
    pub(crate) fn group_resource(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    pub(crate) fn custom(&self) -> Option<&CustomVersion> {
        match &self.source {
            Source::Custom(version) => Some(version),
            Source::Builtin(_) => None,
        }
    }

    pub(crate) fn builtin(&self) -> Option<&'static Builtin> {
        match &self.source {
            Source::Builtin(builtin) => Some(builtin),
            Source::Custom(_) => None,
        }
    }

    /// Whether this is a built-in resource of the core group.
    pub(crate) fn is_core(&self, plural: &str) -> bool {
        self.group.is_empty() && self.plural == plural
    }

    /// Whether this is the definition of custom resources itself.
    pub(crate) fn is_crd(&self) -> bool {
        self.plural == "customresourcedefinitions" && self.builtin().is_some()
    }

    fn is_converted(&self) -> bool {
        self.group == "events.k8s.io"
    }

    /// From the stored form to this version's, with `apiVersion` and `kind`.
    pub(crate) fn present(&self, stored: Value) -> Value {
        let mut value = if self.is_converted() { events::from_core(stored) } else { stored };
        let map = super::object::map(&mut value);
        map.insert("apiVersion".into(), self.api_version().into());
        map.insert("kind".into(), self.kind.clone().into());
        value
    }

    /// From this version's form to the stored one, without `apiVersion` and `kind`.
    pub(crate) fn store(&self, value: Value) -> Value {
        let mut value = if self.is_converted() { events::to_core(value) } else { value };
        let map = super::object::map(&mut value);
        map.remove("apiVersion");
        map.remove("kind");
        value
    }

    /// Appends the JSON of an entry in this version to a buffer; members of built-in lists go without their type.
    pub(crate) fn write_json(&self, entry: &Entry, typed: bool, out: &mut Vec<u8>) {
        if self.is_converted() {
            let value = self.present(entry.value());
            out.extend_from_slice(value.to_string().as_bytes());
        } else if typed || self.custom().is_some() {
            out.extend_from_slice(b"{\"apiVersion\":\"");
            out.extend_from_slice(self.api_version().as_bytes());
            out.extend_from_slice(b"\",\"kind\":\"");
            out.extend_from_slice(self.kind.as_bytes());
            out.extend_from_slice(b"\",");
            out.extend_from_slice(entry.body.get(1..).unwrap_or_default());
        } else {
            out.extend_from_slice(&entry.body);
        }
    }
}

/// `v1` or `apps/v1`.
pub(crate) fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// Group, version and plural name.
type DefKey = (String, String, String);

/// Every resource served now.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    defs: RwLock<BTreeMap<DefKey, Arc<ResourceDef>>>,
}

impl Registry {
    pub(crate) fn add(&self, def: Arc<ResourceDef>) {
        let key = (def.group.clone(), def.version.clone(), def.plural.clone());
        self.defs.write().unwrap_or_else(PoisonError::into_inner).insert(key, def);
    }

    /// Removes every version of a stored resource.
    pub(crate) fn remove_storage(&self, storage: &str) {
        self.defs.write().unwrap_or_else(PoisonError::into_inner).retain(|_, def| &*def.storage != storage);
    }

    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<ResourceDef>> {
        let key = (group.to_owned(), version.to_owned(), plural.to_owned());
        self.defs.read().unwrap_or_else(PoisonError::into_inner).get(&key).cloned()
    }

    /// Any version of a stored resource.
    pub(crate) fn by_storage(&self, storage: &str) -> Option<Arc<ResourceDef>> {
        self.all().into_iter().find(|def| &*def.storage == storage)
    }

    /// Whether a kind of an `apiVersion` is served.
    pub(crate) fn knows_kind(&self, api_version: &str, kind: &str) -> bool {
        self.all().iter().any(|def| def.kind == kind && def.api_version() == api_version)
    }

    /// All, ordered by group, version and plural name.
    pub(crate) fn all(&self) -> Vec<Arc<ResourceDef>> {
        self.defs.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

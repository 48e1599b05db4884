//! Discovery: which groups, versions and resources there are.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};

use super::{
    builtin::StatusRule,
    registry::{Registry, ResourceDef, group_version},
};

/// `/version`
pub(crate) fn version() -> Value {
    json!({
        "major": "1", "minor": "34", "gitVersion": "v1.34.4", "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "2026-01-01T00:00:00Z", "goVersion": "none", "compiler": "rustc", "platform": "linux/amd64",
    })
}

/// `/api`
pub(crate) fn core_versions(address: &str) -> Value {
    json!({ "kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{ "clientCIDR": "0.0.0.0/0", "serverAddress": address }] })
}

/// Versions of each named group.
fn groups(registry: &Registry) -> BTreeMap<String, Vec<String>> {
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for def in registry.all().iter().filter(|def| !def.group.is_empty()) {
        let versions = groups.entry(def.group.clone()).or_default();
        if !versions.contains(&def.version) {
            versions.push(def.version.clone());
        }
    }
    groups
}

fn group(name: &str, versions: &[String]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| json!({ "groupVersion": group_version(name, version), "version": version }))
        .collect();
    json!({ "name": name, "versions": versions, "preferredVersion": versions.first() })
}

/// `/apis`
pub(crate) fn group_list(registry: &Registry) -> Value {
    let list: Vec<Value> = groups(registry).iter().map(|(name, versions)| group(name, versions)).collect();
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": list })
}

/// `/apis/<group>`
pub(crate) fn one_group(registry: &Registry, name: &str) -> Option<Value> {
    let mut found = group(name, groups(registry).get(name)?);
    found["kind"] = json!("APIGroup");
    found["apiVersion"] = json!("v1");
    Some(found)
}

fn served(registry: &Registry, group: &str, version: &str) -> Vec<Arc<ResourceDef>> {
    registry.all().into_iter().filter(|def| def.group == group && def.version == version).collect()
}

const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// Subresources with the group, version and kind they take, and their verbs.
fn subresources(def: &ResourceDef) -> Vec<(&'static str, Value, &'static [&'static str])> {
    let mut list = Vec::new();
    let own = |kind: &str| json!({ "group": def.group, "version": def.version, "kind": kind });
    for sub in def.builtin().map(|builtin| builtin.subresources).unwrap_or_default() {
        list.push(match *sub {
            "binding" => ("binding", own("Binding"), &["create"][..]),
            "eviction" => {
                ("eviction", json!({ "group": "policy", "version": "v1", "kind": "Eviction" }), &["create"][..])
            }
            sub => (sub, own(&def.kind), &["update"][..]),
        });
    }
    if def.status && def.builtin().is_none_or(|builtin| builtin.status != StatusRule::None) {
        list.push(("status", own(&def.kind), &["get", "patch", "update"][..]));
    }
    list
}

/// `/api/v1` and `/apis/<group>/<version>`
pub(crate) fn resource_list(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let defs = served(registry, group, version);
    if defs.is_empty() {
        return None;
    }
    let mut resources = Vec::new();
    for def in defs {
        let mut line = json!({
            "name": def.plural, "singularName": def.singular, "namespaced": def.namespaced, "kind": def.kind, "verbs": VERBS,
        });
        if !def.short_names.is_empty() {
            line["shortNames"] = json!(def.short_names);
        }
        if !def.categories.is_empty() {
            line["categories"] = json!(def.categories);
        }
        resources.push(line);
        for (sub, takes, verbs) in subresources(&def) {
            let mut line = takes;
            line["name"] = json!(format!("{}/{sub}", def.plural));
            line["singularName"] = json!("");
            line["namespaced"] = json!(def.namespaced);
            line["verbs"] = json!(verbs);
            resources.push(line);
        }
    }
    Some(json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version(group, version), "resources": resources,
    }))
}

/// Aggregated discovery: all of it in one answer, of the core group or of the named ones.
pub(crate) fn aggregated(registry: &Registry, core: bool) -> Value {
    let mut items = Vec::new();
    let groups = if core { BTreeMap::from([(String::new(), vec!["v1".to_owned()])]) } else { groups(registry) };
    for (name, versions) in groups {
        let versions: Vec<Value> = versions
            .iter()
            .map(|version| {
                let resources =
                    served(registry, &name, version).iter().map(|def| aggregated_resource(def)).collect::<Vec<_>>();
                json!({ "version": version, "freshness": "Current", "resources": resources })
            })
            .collect();
        let meta = if name.is_empty() { json!({}) } else { json!({ "name": name }) };
        items.push(json!({ "metadata": meta, "versions": versions }));
    }
    json!({ "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items })
}

fn aggregated_resource(def: &ResourceDef) -> Value {
    let own = json!({ "group": def.group, "version": def.version, "kind": def.kind });
    let subresources: Vec<Value> = subresources(def)
        .into_iter()
        .map(|(sub, takes, verbs)| json!({ "subresource": sub, "responseKind": takes, "verbs": verbs }))
        .collect();
    json!({
        "resource": def.plural, "responseKind": own, "scope": if def.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": def.singular, "verbs": VERBS, "shortNames": def.short_names, "categories": def.categories,
        "subresources": subresources,
    })
}

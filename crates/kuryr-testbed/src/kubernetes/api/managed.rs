//! Field ownership: sets of field paths, and `metadata.managedFields` which holds one per manager.
//!
//! An object that nobody has ever applied carries no `managedFields`: ownership begins with the first apply, which
//! finds all other fields owned by `before-first-apply`, as in Kubernetes for objects from before server-side apply.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{
    lists::{ListKind, Shape, identity},
    object,
    registry::ResourceDef,
};

/// A path in the notation of `fieldsV1`: `f:name`, `k:{...}`, `v:...`.
pub(crate) type Path = Vec<String>;
/// A set of owned fields.
pub(crate) type Fields = BTreeSet<Path>;

/// The type of the objects of a resource.
pub(crate) fn shape(def: &ResourceDef) -> Shape<'_> {
    match def.custom() {
        Some(version) => Shape::Custom(&version.schema),
        None => Shape::Builtin { parent: "", field: "" },
    }
}

/// Metadata that no manager owns.
const UNOWNED: [&str; 12] = [
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "selfLink",
    "generateName",
    "clusterName",
];

/// The fields that an object (stored form) has.
pub(crate) fn fields_of(object: &Value, shape: Shape<'_>) -> Fields {
    let mut fields = Fields::new();
    for (key, value) in object.as_object().into_iter().flatten() {
        match key.as_str() {
            "apiVersion" | "kind" => {}
            "metadata" => {
                for (key, value) in
                    value.as_object().into_iter().flatten().filter(|(k, _)| !UNOWNED.contains(&k.as_str()))
                {
                    let mut path = vec!["f:metadata".to_owned(), format!("f:{key}")];
                    collect(value, shape.field("metadata").field(key), &mut path, &mut fields);
                }
            }
            _ => collect(value, shape.field(key), &mut vec![format!("f:{key}")], &mut fields),
        }
    }
    fields
}

fn collect(value: &Value, shape: Shape<'_>, path: &mut Path, out: &mut Fields) {
    match value {
        Value::Object(map) if !map.is_empty() && !shape.is_atomic_map() => {
            for (key, value) in map {
                path.push(format!("f:{key}"));
                collect(value, shape.field(key), path, out);
                path.pop();
            }
        }
        Value::Array(items) if !items.is_empty() => match shape.list() {
            ListKind::Atomic => {
                out.insert(path.clone());
            }
            ListKind::Set => {
                for item in items {
                    path.push(format!("v:{item}"));
                    out.insert(path.clone());
                    path.pop();
                }
            }
            ListKind::Map(keys) => {
                for item in items {
                    path.push(format!("k:{}", identity(item, &keys)));
                    out.insert(path.clone());
                    for (key, value) in item.as_object().into_iter().flatten() {
                        path.push(format!("f:{key}"));
                        collect(value, shape.item().field(key), path, out);
                        path.pop();
                    }
                    path.pop();
                }
            }
        },
        _ => {
            out.insert(path.clone());
        }
    }
}

/// The value at a path.
pub(crate) fn value_at<'a>(object: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, part| match part.split_at_checked(2)? {
        ("f:", field) => value.get(field),
        ("k:", key) => value.as_array()?.iter().find(|item| is_member(item, key)),
        ("v:", wanted) => value.as_array()?.iter().find(|item| is_value(item, wanted)),
        _ => None,
    })
}

fn is_value(item: &Value, text: &str) -> bool {
    serde_json::from_str::<Value>(text).is_ok_and(|wanted| wanted == *item)
}

fn is_member(item: &Value, key: &str) -> bool {
    let Ok(Value::Object(wanted)) = serde_json::from_str::<Value>(key) else { return false };
    let keys: Vec<String> = wanted.keys().cloned().collect();
    identity(item, &keys) == Value::Object(wanted)
}

/// Removes the value at a path, and objects and lists that become empty.
pub(crate) fn remove_at(object: &mut Value, path: &[String]) {
    let Some((first, rest)) = path.split_first() else { return };
    let (kind, key) = first.split_at_checked(2).unwrap_or_default();
    match object {
        Value::Object(map) if kind == "f:" => {
            if let (Some(child), false) = (map.get_mut(key), rest.is_empty()) {
                remove_at(child, rest);
                if *child != json!({}) && *child != json!([]) {
                    return;
                }
            }
            map.remove(key);
        }
        Value::Array(items) => {
            let at = items.iter().position(|item| match kind {
                "k:" => is_member(item, key),
                _ => is_value(item, key),
            });
            match at {
                Some(at) if rest.is_empty() => drop(items.remove(at)),
                Some(at) => remove_at(&mut items[at], rest),
                None => {}
            }
        }
        _ => {}
    }
}

/// As `fieldsV1`.
pub(crate) fn to_tree(fields: &Fields) -> Value {
    let mut root = json!({});
    for path in fields {
        let mut node = &mut root;
        for part in path {
            node = object::map(node).entry(part.clone()).or_insert_with(|| json!({}));
        }
        // A member of a keyed list is also owned itself.
        if path.last().is_some_and(|part| part.starts_with("k:")) {
            object::map(node).insert(".".into(), json!({}));
        }
    }
    root
}

/// From `fieldsV1`.
pub(crate) fn from_tree(tree: &Value) -> Fields {
    fn walk(tree: &Map<String, Value>, path: &mut Path, out: &mut Fields) {
        for (key, below) in tree {
            if key == "." {
                out.insert(path.clone());
                continue;
            }
            path.push(key.clone());
            match below.as_object().filter(|below| !below.is_empty()) {
                Some(below) => walk(below, path, out),
                None => {
                    out.insert(path.clone());
                }
            }
            path.pop();
        }
    }
    let mut fields = Fields::new();
    if let Some(tree) = tree.as_object() {
        walk(tree, &mut Vec::new(), &mut fields);
    }
    fields
}

/// One line of `managedFields`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Manager {
    pub(crate) name: String,
    /// `Apply` or `Update`.
    pub(crate) operation: &'static str,
    pub(crate) subresource: String,
    pub(crate) api_version: String,
    pub(crate) time: String,
    pub(crate) fields: Fields,
}

impl Manager {
    /// Whether this line is about the same writer.
    pub(crate) fn is(&self, name: &str, operation: &str, subresource: &str) -> bool {
        self.name == name && self.operation == operation && self.subresource == subresource
    }
}

/// The managers of an object; empty if ownership has not begun.
pub(crate) fn managers(object: &Value) -> Vec<Manager> {
    let lines = object.pointer("/metadata/managedFields").and_then(Value::as_array);
    let manager = |line: &Value| Manager {
        name: object::text(line, "/manager").to_owned(),
        operation: if line["operation"] == "Apply" { "Apply" } else { "Update" },
        subresource: object::text(line, "/subresource").to_owned(),
        api_version: object::text(line, "/apiVersion").to_owned(),
        time: object::text(line, "/time").to_owned(),
        fields: from_tree(&line["fieldsV1"]),
    };
    lines.into_iter().flatten().map(manager).collect()
}

/// Writes the managers into an object; those who own nothing are left out.
pub(crate) fn set_managers(object: &mut Value, managers: &[Manager]) {
    let lines: Vec<Value> = managers
        .iter()
        .filter(|manager| !manager.fields.is_empty())
        .map(|manager| {
            let mut line = json!({
                "manager": manager.name, "operation": manager.operation, "apiVersion": manager.api_version,
                "time": manager.time, "fieldsType": "FieldsV1", "fieldsV1": to_tree(&manager.fields),
            });
            if !manager.subresource.is_empty() {
                line["subresource"] = json!(manager.subresource);
            }
            line
        })
        .collect();
    object::set_meta(object, "managedFields", (!lines.is_empty()).then(|| json!(lines)));
}

/// Gives the fields that an update changed to its writer.
pub(crate) fn track_update(def: &ResourceDef, subresource: Option<&str>, writer: &str, old: &Value, new: &mut Value) {
    object::copy_meta(new, old, "managedFields");
    let mut managers = managers(old);
    if managers.is_empty() {
        return;
    }
    let (before, after) = (fields_of(old, shape(def)), fields_of(new, shape(def)));
    let changed: Fields = after
        .iter()
        .filter(|path| !before.contains(*path) || (!is_member_path(path) && value_at(old, path) != value_at(new, path)))
        .cloned()
        .collect();
    let gone: Fields = before.difference(&after).cloned().collect();
    if changed.is_empty() && gone.is_empty() {
        return;
    }
    let subresource = subresource.unwrap_or_default();
    for manager in &mut managers {
        let own = manager.is(writer, "Update", subresource);
        manager.fields.retain(|path| !gone.contains(path) && (own || !changed.contains(path)));
    }
    if !changed.is_empty() {
        if !managers.iter().any(|manager| manager.is(writer, "Update", subresource)) {
            managers.push(Manager {
                name: writer.to_owned(),
                operation: "Update",
                subresource: subresource.to_owned(),
                api_version: def.api_version(),
                time: String::new(),
                fields: Fields::new(),
            });
        }
        for manager in managers.iter_mut().filter(|manager| manager.is(writer, "Update", subresource)) {
            manager.fields.extend(changed.iter().cloned());
            manager.time = object::now();
        }
    }
    set_managers(new, &managers);
}

/// Whether a path names a member of a keyed list as such, not one of its values.
pub(crate) fn is_member_path(path: &[String]) -> bool {
    path.last().is_some_and(|part| part.starts_with("k:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: Shape<'_> = Shape::Builtin { parent: "", field: "" };

    #[test]
    fn fields_survive_the_way_through_their_tree() {
        let pod = json!({ "metadata": { "name": "p", "labels": { "a": "b" }, "finalizers": ["x/y"] },
            "spec": { "containers": [{ "name": "c", "image": "i", "command": ["sh"] }] } });
        let fields = fields_of(&pod, POD);
        let tree = to_tree(&fields);
        assert_eq!(
            tree["f:spec"]["f:containers"]["k:{\"name\":\"c\"}"],
            json!({ ".": {}, "f:name": {}, "f:image": {}, "f:command": {} })
        );
        assert_eq!(tree["f:metadata"], json!({ "f:labels": { "f:a": {} }, "f:finalizers": { "v:\"x/y\"": {} } }));
        assert_eq!(from_tree(&tree), fields);
        for path in &fields {
            assert!(value_at(&pod, path).is_some(), "{path:?}");
        }
    }

    #[test]
    fn removing_a_value_removes_what_becomes_empty() {
        let mut object = json!({ "metadata": { "labels": { "a": "b" }, "name": "x" } });
        remove_at(&mut object, &["f:metadata".into(), "f:labels".into(), "f:a".into()]);
        assert_eq!(object, json!({ "metadata": { "name": "x" } }));
    }
}

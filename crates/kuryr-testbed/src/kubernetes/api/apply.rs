//! Server-side apply: the wanted fields of one manager merged into the live object.

use serde_json::{Value, json};

use super::{
    Shared,
    lists::{ListKind, Shape, identity},
    managed::{self, Fields, Manager, fields_of, is_member_path, managers, remove_at, set_managers, value_at},
    object,
    prepare::{self, Scope, WriteOptions},
    registry::ResourceDef,
    status::ApiError,
    write::{self, Tracking, Written},
};

/// Applies a configuration; creates the object if it does not exist.
pub(crate) fn apply(
    server: &Shared,
    scope: &Scope,
    options: &WriteOptions,
    mut config: Value,
) -> Result<Written, ApiError> {
    let def = &scope.def;
    prepare::check_kind(def, &config)?;
    object::strip_nulls(&mut config);
    if config.pointer("/metadata/managedFields").is_some() {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    if object::name(&config).is_empty() {
        object::set_meta(&mut config, "name", Some(json!(scope.name)));
    }
    if object::name(&config) != scope.name {
        let message = format!(
            "the name of the object ({}) does not match the name on the URL ({})",
            object::name(&config),
            scope.name
        );
        return Err(ApiError::bad_request(message));
    }
    let subresource = scope.subresource.clone().unwrap_or_default();
    let written = server.store.write(|tx| {
        let wanted = def.store(config.clone());
        let Some(current) = tx.get(&def.storage, &scope.namespace, &scope.name) else {
            if !subresource.is_empty() {
                return Err(ApiError::not_found(def, &scope.name));
            }
            let mut first = config;
            let me = manager(options, def, "", owned(scope, &wanted));
            set_managers(&mut first, &[me]);
            return write::create_in(tx, server, scope, options, first);
        };
        let live = current.value();
        let merged = merge(scope, options, &subresource, &live, &wanted)?;
        write::update_in(tx, server, scope, options, &current, def.present(merged), Tracking::Given)
    })?;
    server.after_write(def, options, &written.entry);
    Ok(written)
}

fn manager(options: &WriteOptions, def: &ResourceDef, subresource: &str, fields: Fields) -> Manager {
    Manager {
        name: options.manager.clone(),
        operation: "Apply",
        subresource: subresource.to_owned(),
        api_version: def.api_version(),
        time: object::now(),
        fields,
    }
}

/// The fields of a configuration that an apply to this (sub)resource can own.
fn owned(scope: &Scope, config: &Value) -> Fields {
    let mut fields = fields_of(config, managed::shape(&scope.def));
    if scope.def.status {
        let status = scope.is_status();
        fields.retain(|path| path.first().is_some_and(|first| (first == "f:status") == status));
    }
    fields
}

/// The live object (stored form) with the configuration merged in.
fn merge(
    scope: &Scope,
    options: &WriteOptions,
    subresource: &str,
    live: &Value,
    config: &Value,
) -> Result<Value, ApiError> {
    let def = &scope.def;
    let shape = managed::shape(def);
    let mut managers = managers(live);
    if managers.is_empty() {
        managers.push(Manager {
            name: "before-first-apply".into(),
            operation: "Update",
            subresource: String::new(),
            api_version: def.api_version(),
            time: object::now(),
            fields: fields_of(live, shape),
        });
    }
    let wanted = owned(scope, config);
    let is_me = |manager: &Manager| manager.is(&options.manager, "Apply", subresource);
    resolve_conflicts(options, &mut managers, live, config, &wanted, is_me)?;

    let mut merged = live.clone();
    for path_root in wanted.iter().filter_map(|path| path.first()).collect::<std::collections::BTreeSet<_>>() {
        let key = path_root.trim_start_matches("f:");
        if let Some(value) = config.get(key) {
            let into = object::map(&mut merged).entry(key.to_owned()).or_insert(Value::Null);
            if key == "metadata" {
                // Identity is checked elsewhere and not merged.
                for (key, value) in value.as_object().into_iter().flatten().filter(|(key, _)| !is_identity(key)) {
                    let into = object::map(into).entry(key.clone()).or_insert(Value::Null);
                    merge_value(into, value, shape.field("metadata").field(key));
                }
            } else {
                merge_value(into, value, shape.field(key));
            }
        }
    }
    // What this manager applied before and leaves out now goes away, unless somebody else owns it too.
    let before =
        managers.iter().find(|manager| is_me(manager)).map(|manager| manager.fields.clone()).unwrap_or_default();
    for path in before.difference(&wanted).collect::<Vec<_>>().into_iter().rev() {
        let shared = managers.iter().filter(|manager| !is_me(manager)).any(|manager| {
            manager.fields.contains(path)
                || (is_member_path(path) && manager.fields.iter().any(|other| other.starts_with(path)))
        });
        if !shared {
            remove_at(&mut merged, path);
        }
    }
    match managers.iter_mut().find(|manager| is_me(manager)) {
        Some(mine) if mine.fields == wanted => {}
        Some(mine) => *mine = manager(options, def, subresource, wanted),
        None => managers.push(manager(options, def, subresource, wanted)),
    }
    set_managers(&mut merged, &managers);
    // A given version is a precondition.
    if let Some(revision) = config.pointer("/metadata/resourceVersion") {
        object::set_meta(&mut merged, "resourceVersion", Some(revision.clone()));
    }
    if let Some(uid) = config.pointer("/metadata/uid") {
        object::set_meta(&mut merged, "uid", Some(uid.clone()));
    }
    Ok(merged)
}

fn is_identity(key: &str) -> bool {
    matches!(key, "name" | "namespace" | "uid" | "resourceVersion" | "creationTimestamp" | "generation")
}

/// Fields that others own with another value are conflicts, or are taken over by force.
fn resolve_conflicts(
    options: &WriteOptions,
    managers: &mut [Manager],
    live: &Value,
    config: &Value,
    wanted: &Fields,
    is_me: impl Fn(&Manager) -> bool,
) -> Result<(), ApiError> {
    let mut causes = Vec::new();
    for other in managers.iter_mut().filter(|manager| !is_me(manager)) {
        let contested: Fields = wanted
            .intersection(&other.fields)
            .filter(|path| !is_member_path(path) && value_at(live, path) != value_at(config, path))
            .cloned()
            .collect();
        if options.force {
            other.fields.retain(|path| !contested.contains(path));
            continue;
        }
        let mut who = format!("conflict with {:?}", other.name);
        if !other.subresource.is_empty() {
            who.push_str(&format!(" with subresource {:?}", other.subresource));
        }
        who.push_str(&format!(" using {}", other.api_version));
        causes.extend(contested.iter().map(|path| (who.clone(), dotted(path))));
    }
    if causes.is_empty() {
        return Ok(());
    }
    let list = causes.iter().map(|(who, field)| format!("{who}: {field}")).collect::<Vec<_>>().join("\n");
    let plural = if causes.len() == 1 { "" } else { "s" };
    let mut error =
        ApiError::new(409, "Conflict", format!("Apply failed with {} conflict{plural}: {list}", causes.len()));
    error.details = json!({ "causes": causes.iter().map(|(who, field)| {
        json!({ "reason": "FieldManagerConflict", "message": who, "field": field })
    }).collect::<Vec<_>>() });
    Err(error)
}

/// `.spec.containers[name="c"].image`
fn dotted(path: &[String]) -> String {
    let part = |part: &String| match part.split_at_checked(2) {
        Some(("f:", field)) => format!(".{field}"),
        Some(("k:", key)) => {
            let keys: serde_json::Map<String, Value> = serde_json::from_str(key).unwrap_or_default();
            let keys = keys.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>();
            format!("[{}]", keys.join(","))
        }
        Some(("v:", value)) => format!("[={value}]"),
        _ => part.clone(),
    };
    path.iter().map(part).collect()
}

/// Merges a wanted value into a live one.
fn merge_value(live: &mut Value, wanted: &Value, shape: Shape<'_>) {
    match (&mut *live, wanted) {
        (Value::Object(into), Value::Object(from)) if !shape.is_atomic_map() => {
            for (key, value) in from {
                merge_value(into.entry(key.clone()).or_insert(Value::Null), value, shape.field(key));
            }
        }
        (Value::Array(into), Value::Array(from)) => match shape.list() {
            ListKind::Atomic => *live = wanted.clone(),
            ListKind::Set => {
                for item in from {
                    if !into.contains(item) {
                        into.push(item.clone());
                    }
                }
            }
            ListKind::Map(keys) => {
                for item in from {
                    match into.iter_mut().find(|old| identity(old, &keys) == identity(item, &keys)) {
                        Some(old) => merge_value(old, item, shape.item()),
                        None => into.push(item.clone()),
                    }
                }
            }
        },
        _ => *live = wanted.clone(),
    }
}

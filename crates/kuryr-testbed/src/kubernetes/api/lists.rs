//! How lists merge: as one value, as a set, or as a map with keys.
//!
//! Built-in kinds have tables here, by the name of the list and of what contains it; custom resources say it in their
//! schema (`x-kubernetes-list-type`). Strategic merge patch and server-side apply differ in a few keys.

use serde_json::{Value, json};

/// How the members of a list are identified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ListKind {
    /// The list is one value.
    Atomic,
    /// Members are values, each at most once.
    Set,
    /// Members are objects, identified by these fields.
    Map(Vec<String>),
}

/// The merge key of a list of a built-in kind for strategic merge patch.
pub(crate) fn strategic(parent: &str, field: &str) -> ListKind {
    let key = match (parent, field) {
        ("metadata", "finalizers") | ("spec", "podCIDRs") => return ListKind::Set,
        ("metadata", "ownerReferences") => "uid",
        ("containers" | "initContainers" | "ephemeralContainers", "ports") => "containerPort",
        ("spec", "ports") => "port",
        (_, "conditions" | "addresses") => "type",
        (
            _,
            "containers"
            | "initContainers"
            | "ephemeralContainers"
            | "env"
            | "volumes"
            | "imagePullSecrets"
            | "secrets",
        ) => "name",
        (_, "volumeMounts") => "mountPath",
        (_, "volumeDevices") => "devicePath",
        (_, "hostAliases" | "podIPs" | "hostIPs") => "ip",
        ("spec", "taints") => "key",
        (_, "topologySpreadConstraints") => "topologyKey",
        _ => return ListKind::Atomic,
    };
    ListKind::Map(vec![key.to_owned()])
}

fn applied(parent: &str, field: &str) -> ListKind {
    let keys: &[&str] = match (parent, field) {
        ("containers" | "initContainers" | "ephemeralContainers", "ports") => &["containerPort", "protocol"],
        ("spec", "ports") => &["port", "protocol"],
        (_, "topologySpreadConstraints") => &["topologyKey", "whenUnsatisfiable"],
        ("spec", "taints") => return ListKind::Atomic,
        _ => return strategic(parent, field),
    };
    ListKind::Map(keys.iter().map(|key| (*key).to_owned()).collect())
}

/// Where in the type of an object a walk is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape<'a> {
    /// In a built-in type: name of the containing field and of this one.
    Builtin { parent: &'a str, field: &'a str },
    /// In a custom type, with its schema there, if any.
    Schema(Option<&'a Value>),
    /// At the top of a custom object.
    Custom(&'a Value),
}

impl<'a> Shape<'a> {
    /// The shape of a member of an object.
    pub(crate) fn field(self, name: &'a str) -> Shape<'a> {
        match self {
            Self::Builtin { field, .. } => Self::Builtin { parent: field, field: name },
            Self::Custom(_) if name == "metadata" => Self::Builtin { parent: "", field: name },
            Self::Schema(schema) => Self::member(schema, name),
            Self::Custom(schema) => Self::member(Some(schema), name),
        }
    }

    fn member(schema: Option<&'a Value>, name: &str) -> Shape<'a> {
        let known = schema.and_then(|schema| schema.get("properties")?.get(name));
        Self::Schema(known.or_else(|| schema?.get("additionalProperties").filter(|more| more.is_object())))
    }

    /// The shape of the members of a list.
    pub(crate) fn item(self) -> Shape<'a> {
        match self {
            Self::Builtin { .. } => self,
            Self::Schema(schema) => Self::Schema(schema.and_then(|schema| schema.get("items"))),
            Self::Custom(_) => Self::Schema(None),
        }
    }

    /// How a list here merges.
    pub(crate) fn list(self) -> ListKind {
        match self {
            Self::Builtin { parent, field } => applied(parent, field),
            Self::Custom(_) | Self::Schema(None) => ListKind::Atomic,
            Self::Schema(Some(schema)) => match schema["x-kubernetes-list-type"].as_str() {
                Some("set") => ListKind::Set,
                Some("map") => {
                    let keys = schema["x-kubernetes-list-map-keys"].as_array();
                    ListKind::Map(
                        keys.into_iter().flatten().filter_map(|key| key.as_str().map(str::to_owned)).collect(),
                    )
                }
                _ => ListKind::Atomic,
            },
        }
    }

    /// Whether an object here is one value.
    pub(crate) fn is_atomic_map(self) -> bool {
        match self {
            Self::Builtin { field, .. } => {
                matches!(field, "selector" | "nodeSelector" | "resourceFieldRef" | "fieldRef")
            }
            Self::Schema(Some(schema)) => schema["x-kubernetes-map-type"] == "atomic",
            Self::Schema(None) | Self::Custom(_) => false,
        }
    }
}

/// The identity of a list's member: its key fields.
pub(crate) fn identity(item: &Value, keys: &[String]) -> Value {
    let mut identity = json!({});
    for key in keys {
        let value = item.get(key).cloned();
        // The one key field with a default that clients leave out.
        let value = value.or_else(|| (key == "protocol").then(|| json!("TCP")));
        identity[key] = value.unwrap_or_default();
    }
    identity
}

//! The built-in resources, one line each.

use std::sync::Arc;

use k8s_openapi::{
    api::{apps, batch, coordination, core, discovery, networking, policy, rbac, scheduling},
    apiextensions_apiserver::pkg::apis::apiextensions,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::registry::{ResourceDef, Source};

/// What a resource does with `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StatusRule {
    /// It has no `status` subresource.
    None,
    /// A create starts with an empty status.
    Reset,
    /// A create may bring its status (nodes).
    Keep,
}

/// A built-in resource.
#[derive(Debug)]
pub(crate) struct Builtin {
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    kind: &'static str,
    namespaced: bool,
    short: &'static [&'static str],
    category: &'static [&'static str],
    pub(crate) status: StatusRule,
    /// Whether `metadata.generation` counts changes of the specification.
    pub(crate) generation: bool,
    selectable: &'static [&'static str],
    /// Subresources beyond `status`.
    pub(crate) subresources: &'static [&'static str],
    normalize: fn(Value) -> Result<Value, serde_json::Error>,
}

impl Builtin {
    /// The object as the type sees it: unknown fields are gone. An error says which value has a wrong type.
    pub(crate) fn normalize(&self, object: Value) -> Result<Value, serde_json::Error> {
        (self.normalize)(object)
    }
}

/// Through the type and back. The types carry `apiVersion` and `kind`, so these are put in and taken out again.
fn typed<T: DeserializeOwned + Serialize + k8s_openapi::Resource>(
    mut object: Value,
) -> Result<Value, serde_json::Error> {
    let map = super::object::map(&mut object);
    map.insert("apiVersion".into(), T::API_VERSION.into());
    map.insert("kind".into(), T::KIND.into());
    let mut object = serde_json::to_value(serde_json::from_value::<T>(object)?)?;
    let map = super::object::map(&mut object);
    map.remove("apiVersion");
    map.remove("kind");
    Ok(object)
}

const EVENT_FIELDS: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
];

const POD_FIELDS: &[&str] = &[
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.nominatedNodeName",
];

const fn base(
    kind: &'static str,
    plural: &'static str,
    normalize: fn(Value) -> Result<Value, serde_json::Error>,
) -> Builtin {
    Builtin {
        group: "",
        version: "v1",
        plural,
        kind,
        namespaced: true,
        short: &[],
        category: &[],
        status: StatusRule::None,
        generation: false,
        selectable: &[],
        subresources: &[],
        normalize,
    }
}

static BUILTINS: &[Builtin] = &[
    Builtin {
        namespaced: false,
        short: &["ns"],
        status: StatusRule::Reset,
        selectable: &["status.phase"],
        subresources: &["finalize"],
        ..base("Namespace", "namespaces", typed::<core::v1::Namespace>)
    },
    Builtin {
        namespaced: false,
        short: &["no"],
        status: StatusRule::Keep,
        selectable: &["spec.unschedulable"],
        ..base("Node", "nodes", typed::<core::v1::Node>)
    },
    Builtin {
        short: &["po"],
        category: &["all"],
        status: StatusRule::Reset,
        generation: true,
        selectable: POD_FIELDS,
        subresources: &["binding", "eviction"],
        ..base("Pod", "pods", typed::<core::v1::Pod>)
    },
    Builtin { short: &["ev"], selectable: EVENT_FIELDS, ..base("Event", "events", typed::<core::v1::Event>) },
    Builtin {
        group: "events.k8s.io",
        short: &["ev"],
        selectable: EVENT_FIELDS,
        ..base("Event", "events", typed::<core::v1::Event>)
    },
    Builtin { short: &["cm"], ..base("ConfigMap", "configmaps", typed::<core::v1::ConfigMap>) },
    Builtin { selectable: &["type"], ..base("Secret", "secrets", typed::<core::v1::Secret>) },
    Builtin { short: &["sa"], ..base("ServiceAccount", "serviceaccounts", typed::<core::v1::ServiceAccount>) },
    Builtin {
        short: &["svc"],
        category: &["all"],
        status: StatusRule::Reset,
        selectable: &["spec.clusterIP", "spec.type"],
        ..base("Service", "services", typed::<core::v1::Service>)
    },
    Builtin { short: &["ep"], ..base("Endpoints", "endpoints", typed::<core::v1::Endpoints>) },
    Builtin {
        group: "apps",
        short: &["deploy"],
        category: &["all"],
        status: StatusRule::Reset,
        generation: true,
        ..base("Deployment", "deployments", typed::<apps::v1::Deployment>)
    },
    Builtin {
        group: "apps",
        short: &["sts"],
        category: &["all"],
        status: StatusRule::Reset,
        generation: true,
        ..base("StatefulSet", "statefulsets", typed::<apps::v1::StatefulSet>)
    },
    Builtin {
        group: "apps",
        short: &["ds"],
        category: &["all"],
        status: StatusRule::Reset,
        generation: true,
        ..base("DaemonSet", "daemonsets", typed::<apps::v1::DaemonSet>)
    },
    Builtin {
        group: "apps",
        short: &["rs"],
        category: &["all"],
        status: StatusRule::Reset,
        generation: true,
        ..base("ReplicaSet", "replicasets", typed::<apps::v1::ReplicaSet>)
    },
    Builtin {
        group: "batch",
        category: &["all"],
        status: StatusRule::Reset,
        generation: true,
        ..base("Job", "jobs", typed::<batch::v1::Job>)
    },
    Builtin { group: "coordination.k8s.io", ..base("Lease", "leases", typed::<coordination::v1::Lease>) },
    Builtin {
        group: "discovery.k8s.io",
        generation: true,
        ..base("EndpointSlice", "endpointslices", typed::<discovery::v1::EndpointSlice>)
    },
    Builtin {
        group: "networking.k8s.io",
        short: &["netpol"],
        generation: true,
        ..base("NetworkPolicy", "networkpolicies", typed::<networking::v1::NetworkPolicy>)
    },
    Builtin {
        group: "policy",
        short: &["pdb"],
        status: StatusRule::Reset,
        generation: true,
        ..base("PodDisruptionBudget", "poddisruptionbudgets", typed::<policy::v1::PodDisruptionBudget>)
    },
    Builtin {
        group: "scheduling.k8s.io",
        namespaced: false,
        short: &["pc"],
        ..base("PriorityClass", "priorityclasses", typed::<scheduling::v1::PriorityClass>)
    },
    Builtin { group: "rbac.authorization.k8s.io", ..base("Role", "roles", typed::<rbac::v1::Role>) },
    Builtin {
        group: "rbac.authorization.k8s.io",
        ..base("RoleBinding", "rolebindings", typed::<rbac::v1::RoleBinding>)
    },
    Builtin {
        group: "rbac.authorization.k8s.io",
        namespaced: false,
        ..base("ClusterRole", "clusterroles", typed::<rbac::v1::ClusterRole>)
    },
    Builtin {
        group: "rbac.authorization.k8s.io",
        namespaced: false,
        ..base("ClusterRoleBinding", "clusterrolebindings", typed::<rbac::v1::ClusterRoleBinding>)
    },
    Builtin {
        group: "apiextensions.k8s.io",
        namespaced: false,
        short: &["crd", "crds"],
        category: &["api-extensions"],
        status: StatusRule::Reset,
        generation: true,
        ..base(
            "CustomResourceDefinition",
            "customresourcedefinitions",
            typed::<apiextensions::v1::CustomResourceDefinition>,
        )
    },
];

/// The definitions of all built-in resources.
pub(crate) fn definitions() -> Vec<Arc<ResourceDef>> {
    BUILTINS.iter().map(|builtin| Arc::new(definition(builtin))).collect()
}

fn definition(builtin: &'static Builtin) -> ResourceDef {
    // Both kinds of Event are one.
    let group = if builtin.group == "events.k8s.io" { "" } else { builtin.group };
    let storage = if group.is_empty() { builtin.plural.to_owned() } else { format!("{}.{group}", builtin.plural) };
    let owned = |list: &[&str]| list.iter().map(|item| (*item).to_owned()).collect();
    ResourceDef {
        group: builtin.group.to_owned(),
        version: builtin.version.to_owned(),
        plural: builtin.plural.to_owned(),
        singular: builtin.kind.to_lowercase(),
        kind: builtin.kind.to_owned(),
        list_kind: format!("{}List", builtin.kind),
        namespaced: builtin.namespaced,
        short_names: owned(builtin.short),
        categories: owned(builtin.category),
        status: builtin.status != StatusRule::None,
        storage: storage.into(),
        selectable: builtin.selectable.iter().map(|field| (*field).into()).collect(),
        source: Source::Builtin(builtin),
    }
}

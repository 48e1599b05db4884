//! Policies and namespaces, read as far as they matter.

use crate::lean::Lean;
use k8s_openapi::api::{core::v1::Namespace, networking::v1::NetworkPolicy};
use kube::ResourceExt;
use kuryr_model::{KuryrNetworkPolicy, KuryrNetworkPolicySpec, KuryrNetworkPolicyStatus};
use kuryr_plan::policy::{Labels, Policy};
use serde::de::IgnoredAny;
use serde_json::Value;

/// A namespace.
pub(crate) type LeanNamespace = Lean<Namespace, IgnoredAny, IgnoredAny>;

/// A `KuryrNetworkPolicy` of which spec and status may be anything: somebody may have written them by hand.
pub(crate) type LeanHeld = Lean<KuryrNetworkPolicy, Value, Value>;

/// A policy and which version of it this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SeenPolicy {
    pub(crate) policy: Policy,
    pub(crate) generation: i64,
}

/// Name and labels of a namespace.
///
/// # Errors
/// Never: a namespace always has a name.
pub(crate) fn namespace(object: LeanNamespace) -> Result<(String, Labels), String> {
    let name = object.name_any();
    let (metadata, ..) = object.into_parts();
    Ok((name, metadata.labels.unwrap_or_default()))
}

/// What matters of a policy.
///
/// # Errors
/// It has no name or UID, which no API server sends.
#[expect(clippy::needless_pass_by_value, reason = "as watches and lists hand it over")]
pub(crate) fn policy(object: NetworkPolicy) -> Result<SeenPolicy, String> {
    let generation = object.metadata.generation.unwrap_or_default();
    let policy = Policy::read(&object).map_err(|error| error.to_string())?;
    Ok(SeenPolicy { policy, generation })
}

/// A `KuryrNetworkPolicy`.
///
/// # Errors
/// Its spec or its status is not what the definition says.
pub(crate) fn held(object: LeanHeld) -> Result<KuryrNetworkPolicy, String> {
    let (metadata, spec, status) = object.into_parts();
    let spec: KuryrNetworkPolicySpec =
        serde_json::from_value(spec.unwrap_or_default()).map_err(|error| format!("spec: {error}"))?;
    let status: Option<KuryrNetworkPolicyStatus> =
        status.map(serde_json::from_value).transpose().map_err(|error| format!("status: {error}"))?;
    Ok(KuryrNetworkPolicy { metadata, spec, status })
}

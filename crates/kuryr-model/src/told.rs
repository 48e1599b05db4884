//! What the statuses of Kuryr's own objects have in common: how they say that all is well, and what is not.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The condition that says whether all of what the object is about is as its owner asks.
pub const CONDITION_READY: &str = "Ready";

/// The condition `Ready` of a status.
#[must_use]
pub fn ready(conditions: &[Condition]) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == CONDITION_READY)
}

/// Something that the owner of the object should know, while the rest of it works.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// One word for programs.
    pub reason: String,
    /// What it is, and what to do, for people.
    pub message: String,
}

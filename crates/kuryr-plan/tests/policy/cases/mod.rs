//! Cases by name: what the specification says in few words, what was found by comparing, and what things cost.

mod found;
mod groups;
mod odd;
mod selectors;
mod services;

use crate::stage::Stage;
use kuryr_plan::policy::GroupKey;
use serde_json::{Value, json};

/// Two pods and a stranger; all web servers.
fn stage() -> Stage {
    Stage::default()
        .pod("a/web", "app=web", "10.0.0.1 fd00::1")
        .pod("a/db", "app=db", "10.0.0.2 fd00::2")
        .pod("b/web", "app=web", "10.0.1.1 fd00::1:1")
        .node("n0", "192.168.0.1")
}

/// A policy that isolates all pods of its namespace for egress with these rules.
fn egress(rules: Value) -> Value {
    let mut spec = json!({"podSelector": {}, "policyTypes": ["Egress"]});
    spec["egress"] = rules;
    spec
}

/// The same for pods with this label only, to pods with that.
fn egress_from_to(app: &str, to: &str) -> Value {
    let mut spec = egress(json!([{"to": [to_app(to)]}]));
    spec["podSelector"] = json!({"matchLabels": {"app": app}});
    spec
}

fn to_app(app: &str) -> Value {
    json!({"podSelector": {"matchLabels": {"app": app}}})
}

fn is_policy(key: &GroupKey) -> bool {
    matches!(key, GroupKey::Policy(_))
}

fn is_together(key: &GroupKey) -> bool {
    matches!(key, GroupKey::Together(_))
}

fn is_loop(key: &GroupKey) -> bool {
    matches!(key, GroupKey::Loop(_))
}

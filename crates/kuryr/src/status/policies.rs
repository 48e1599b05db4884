//! NetworkPolicies: how many hold, and those that do not.

use super::{
    collect::Known,
    judge::{Area, Check, NAMED, State, check},
};
use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::{Api, Client, api::ListParams};
use kuryr_model::{KuryrNetworkPolicy, ObjectKey};
use std::collections::BTreeMap;

/// Applying a policy takes seconds; a large one in a slow cloud some more.
const PATIENCE: SignedDuration = SignedDuration::from_secs(30);

/// A NetworkPolicy, and what is said of it.
#[derive(Debug)]
pub(crate) struct PolicyFacts {
    key: ObjectKey,
    created: Option<Timestamp>,
    generation: Option<i64>,
    held: Option<KuryrNetworkPolicy>,
}

/// Reads all NetworkPolicies.
pub(super) async fn read(client: &Client) -> anyhow::Result<Vec<PolicyFacts>> {
    let all = ListParams::default();
    let policies = Api::<NetworkPolicy>::all(client.clone()).list(&all).await;
    let policies = policies.context("NetworkPolicies cannot be listed")?;
    let held = Api::<KuryrNetworkPolicy>::all(client.clone()).list(&all).await;
    let held =
        held.context("KuryrNetworkPolicies cannot be listed (are the definitions applied? kuryr crds --apply)")?;
    let mut held: BTreeMap<ObjectKey, KuryrNetworkPolicy> = held.into_iter().map(|held| (held.key(), held)).collect();
    let facts = policies.iter().map(|policy| {
        let key = ObjectKey::of(policy);
        PolicyFacts {
            created: policy.metadata.creation_timestamp.as_ref().map(|time| time.0),
            generation: policy.metadata.generation,
            held: held.remove(&key),
            key,
        }
    });
    Ok(facts.collect())
}

/// How many are applied, and which are not and why.
pub(super) fn policies(now: Timestamp, facts: &Known<Vec<PolicyFacts>>, checks: &mut Vec<Check>) {
    let facts = match facts {
        Ok(facts) => facts,
        Err(error) => return checks.push(check(Area::Policies, "NetworkPolicies", State::Wrong, error, "")),
    };
    let (mut applied, mut busy, mut wrong, mut said) = (0usize, 0usize, Vec::new(), Vec::new());
    for policy in facts {
        match progress(now, policy) {
            Progress::Applied => applied += 1,
            Progress::Busy => busy += 1,
            Progress::Wrong(why) => wrong.push((policy, why)),
        }
        let problems = policy.held.iter().filter_map(|held| held.status.as_ref()).flat_map(|status| &status.problems);
        said.extend(problems.map(|problem| (policy, problem)));
    }
    let detail = format!("{applied} are applied, {busy} are in progress, {} are not applied", wrong.len());
    // The policies themselves follow: a fault counts once.
    let state = if wrong.is_empty() { State::Ok } else { State::Note };
    checks.push(check(Area::Policies, "NetworkPolicies", state, detail, ""));
    for (policy, why) in wrong.iter().take(NAMED) {
        let fix = format!("kuryr describe policy {}", policy.key);
        checks.push(check(Area::Policies, &policy.key.to_string(), State::Wrong, why, &fix));
    }
    if wrong.len() > NAMED {
        let more = format!("{} more are not applied", wrong.len() - NAMED);
        checks.push(check(Area::Policies, "...", State::Wrong, more, ""));
    }
    // The rest of such a policy holds.
    for (policy, problem) in said.iter().take(NAMED) {
        let detail = format!("{}: {}", problem.reason, problem.message);
        checks.push(check(Area::Policies, &policy.key.to_string(), State::Note, detail, ""));
    }
}

enum Progress {
    Applied,
    Busy,
    Wrong(String),
}

fn progress(now: Timestamp, policy: &PolicyFacts) -> Progress {
    let long = |since: Timestamp| now.duration_since(since) > PATIENCE;
    let unsaid = |since: Option<Timestamp>, why: &str| {
        let old = since.is_some_and(long);
        if old { Progress::Wrong(format!("{why}: look at the controller's log")) } else { Progress::Busy }
    };
    let Some(held) = &policy.held else {
        return unsaid(policy.created, "it has no KuryrNetworkPolicy");
    };
    let Some(ready) = held.ready() else {
        let created = held.metadata.creation_timestamp.as_ref().map(|time| time.0);
        return unsaid(created, "nothing was said of it yet");
    };
    let applied = held.status.as_ref().and_then(|status| status.applied_generation);
    if ready.status == "True" {
        // What is said may be of what the policy was before.
        return if applied.is_none() || applied >= policy.generation { Progress::Applied } else { Progress::Busy };
    }
    let message = if ready.message.is_empty() { String::new() } else { format!(": {}", ready.message) };
    let waits = ready.reason == "Pending" && !long(ready.last_transition_time.0);
    if waits { Progress::Busy } else { Progress::Wrong(format!("{}{message}", ready.reason)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn policy(name: &str, ready: Option<(&str, &str)>, since: &str) -> PolicyFacts {
        let held = ready.map(|(status, reason)| {
            let condition = json!({"type": "Ready", "status": status, "reason": reason, "message": "the words", "lastTransitionTime": since});
            let problems = json!([{"reason": "NoSuchPort", "message": "no pod has it"}]);
            let problems = if name == "odd" { problems } else { json!([]) };
            let status = json!({"appliedGeneration": 2, "conditions": [condition], "problems": problems});
            let held = json!({
                "apiVersion": "kuryr.openstack.org/v1", "kind": "KuryrNetworkPolicy",
                "metadata": {"namespace": "a", "name": name}, "spec": {"policyUid": "u"}, "status": status,
            });
            serde_json::from_value(held).unwrap()
        });
        PolicyFacts { key: ObjectKey::new("a", name), created: since.parse().ok(), generation: Some(2), held }
    }

    #[test]
    fn only_policies_that_are_not_applied_are_named_and_those_with_a_problem() {
        let (old, new) = ("2026-01-01T00:00:00Z", "2026-01-01T00:59:50Z");
        let mut changed = policy("changed", Some(("True", "Applied")), old);
        changed.generation = Some(3);
        let facts = vec![
            policy("good", Some(("True", "Applied")), old),
            policy("odd", Some(("True", "Applied")), old),
            changed,
            policy("fresh", None, new),
            policy("making", Some(("False", "Pending")), new),
            policy("slow", Some(("False", "Pending")), old),
            policy("large", Some(("False", "QuotaExceeded")), new),
            policy("forgotten", None, old),
        ];
        let mut checks = Vec::new();
        policies("2026-01-01T01:00:00Z".parse().unwrap(), &Ok(facts), &mut checks);
        let told: Vec<String> = checks.iter().map(|check| format!("{} {}", check.subject, check.detail)).collect();
        assert_eq!(
            told,
            [
                "NetworkPolicies 2 are applied, 3 are in progress, 3 are not applied",
                "a/slow Pending: the words",
                "a/large QuotaExceeded: the words",
                "a/forgotten it has no KuryrNetworkPolicy: look at the controller's log",
                "a/odd NoSuchPort: no pod has it",
            ]
        );
        let wrong = checks.iter().filter(|check| check.state == State::Wrong).count();
        assert_eq!(wrong, 3);
    }
}

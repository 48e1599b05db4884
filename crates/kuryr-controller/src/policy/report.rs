//! Writes what is to be said of policies: their `KuryrNetworkPolicy`s, and Events.
//!
//! Nothing waits for it. That a policy holds, or cannot be brought about, is told at once; that other pods are selected is
//! gathered for a while, for it changes with every pod.

use super::{
    keeper::Keeper,
    status::{Phase, status},
};
use crate::{events::Events, metrics::Metrics, own::owned_by, service::patch};
use jiff::Timestamp;
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use kuryr_model::{KuryrNetworkPolicy, KuryrNetworkPolicySpec, KuryrNetworkPolicyStatus, ObjectKey, PolicyUid, told};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, sleep, sleep_until};

/// How long what has become of a policy is gathered.
const SOON: Duration = Duration::from_millis(50);
/// How long a policy may be on its way before that is told.
const PENDING: Duration = Duration::from_secs(2);
/// How long counts are gathered.
const COUNTS: Duration = Duration::from_secs(10);
/// Time until the next try of a write that failed.
const RETRY: Duration = Duration::from_secs(5);

pub(super) struct Reporter {
    pub(super) client: Client,
    pub(super) keeper: Arc<Keeper>,
    pub(super) events: Events,
    pub(super) metrics: Metrics,
}

/// What is to be written, and when.
enum Due {
    Later(Duration),
    Never,
}

impl Reporter {
    /// Writes, for ever.
    pub(super) async fn run(self) {
        // Policies of which there is something to write, and when.
        let mut due: HashMap<ObjectKey, Instant> = HashMap::new();
        loop {
            let next = due.values().min().copied();
            tokio::select! {
                () = self.keeper.reportable.notified() => sleep(SOON).await,
                () = async { match next { Some(at) => sleep_until(at).await, None => std::future::pending().await } } => {}
            }
            let now = Instant::now();
            let touched = std::mem::take(&mut self.keeper.state().touched);
            let pending: Vec<ObjectKey> = due.keys().cloned().collect();
            for key in touched.into_iter().chain(pending).collect::<BTreeSet<_>>() {
                let late = due.get(&key).is_some_and(|at| *at <= now);
                match self.look(&key, late).await {
                    Ok(Due::Never) => drop(due.remove(&key)),
                    Ok(Due::Later(after)) => {
                        // One that is set for later stays so, unless it is earlier now.
                        let at = due.get(&key).filter(|at| **at > now).map_or(now + after, |at| (*at).min(now + after));
                        due.insert(key, at);
                    }
                    Err(error) => {
                        tracing::debug!(policy = %key, error = %error, "the KuryrNetworkPolicy was not written");
                        due.insert(key, now + RETRY);
                    }
                }
            }
            self.count();
        }
    }

    /// Looks at a policy, and writes what is new; what only counts or passes is written if it is `late`.
    async fn look(&self, key: &ObjectKey, late: bool) -> Result<Due, kube::Error> {
        let (uid, held, told) = {
            let state = self.keeper.state();
            let Some(known) = state.policies.get(key) else { return Ok(Due::Never) };
            let held = state.held.get(key).cloned();
            let before = held.iter().filter(|held| held.spec.policy_uid == known.uid);
            let before = before.filter_map(|held| held.status.clone()).next().unwrap_or_default();
            let told = status(&state, key, &before, Timestamp::now()).map(|(after, phase)| (before, after, phase));
            (known.uid.clone(), held, told)
        };
        let Some((before, after, phase)) = told else { return Ok(Due::Later(PENDING)) };
        if before == after && held.is_some() {
            // What does not hold yet is looked at again.
            return Ok(if at_rest(&phase) { Due::Never } else { Due::Later(PENDING) });
        }
        let wait = match phase {
            Phase::Pending => Some(PENDING),
            _ if says(&before) == says(&after) && before.problems == after.problems => Some(COUNTS),
            _ => None,
        };
        if let Some(wait) = wait.filter(|_| !late) {
            return Ok(Due::Later(wait));
        }
        let Some(held) = self.hold(key, &uid, held).await? else { return Ok(Due::Later(RETRY)) };
        self.warn(key, &uid, &before, &after, &phase);
        let body = Patch::Merge(patch(&before, &after));
        match self.api(key).patch_status(&key.name, &PatchParams::default(), &body).await {
            Ok(written) => self.keeper.told(written),
            // Gone, or another object by now: the watch will tell.
            Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => {}
            Err(error) => return Err(error),
        }
        drop(held);
        // What is still on its way is looked at again.
        Ok(if at_rest(&phase) { Due::Never } else { Due::Later(PENDING) })
    }

    /// The object to write to. `None`: there is another one under this name still.
    async fn hold(
        &self,
        key: &ObjectKey,
        uid: &PolicyUid,
        held: Option<Arc<KuryrNetworkPolicy>>,
    ) -> Result<Option<Arc<KuryrNetworkPolicy>>, kube::Error> {
        match held {
            Some(held) if held.spec.policy_uid == *uid && !held.deleting() => Ok(Some(held)),
            Some(other) => {
                let preconditions = Preconditions { uid: other.metadata.uid.clone(), resource_version: None };
                let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
                match self.api(key).delete(&key.name, &params).await {
                    Ok(_) => Ok(None),
                    Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => Ok(None),
                    Err(error) => Err(error),
                }
            }
            None => match self.api(key).create(&PostParams::default(), &new(key, uid)).await {
                Ok(made) => {
                    self.keeper.told(made.clone());
                    Ok(Some(Arc::new(made)))
                }
                // The watch will tell.
                Err(kube::Error::Api(answer)) if answer.code == 409 => Ok(None),
                // Its namespace is being deleted.
                Err(kube::Error::Api(answer)) if matches!(answer.code, 403 | 404) => Ok(None),
                Err(error) => Err(error),
            },
        }
    }

    /// Warns on the NetworkPolicy of what is new for its owner.
    fn warn(
        &self,
        key: &ObjectKey,
        uid: &PolicyUid,
        before: &KuryrNetworkPolicyStatus,
        after: &KuryrNetworkPolicyStatus,
        phase: &Phase,
    ) {
        for problem in after.problems.iter().filter(|problem| !before.problems.contains(problem)) {
            self.events.warn_policy(key, uid, &problem.reason, problem.message.clone());
        }
        if says(before) == says(after) {
            return;
        }
        match phase {
            Phase::Failed(failure) => {
                let note = format!("the policy does not hold yet: {}", failure.message);
                self.events.warn_policy(key, uid, failure.reason, note);
            }
            Phase::Open(message) => {
                if let Some(ready) = told::ready(&after.conditions) {
                    self.events.warn_policy(
                        key,
                        uid,
                        &ready.reason,
                        format!("the policy does not hold for all: {message}"),
                    );
                }
            }
            Phase::Holds | Phase::Pending => {}
        }
    }

    fn count(&self) {
        let state = self.keeper.state();
        let ready = |key: &&ObjectKey| {
            let held = state.held.get(*key);
            held.and_then(|held| held.ready()).is_some_and(|ready| ready.status == "True")
        };
        let ready = state.policies.keys().filter(ready).count();
        self.metrics.policies(ready, state.policies.len() - ready);
    }

    fn api(&self, key: &ObjectKey) -> Api<KuryrNetworkPolicy> {
        Api::namespaced(self.client.clone(), &key.namespace)
    }
}

/// Nothing becomes of it until something changes.
fn at_rest(phase: &Phase) -> bool {
    matches!(phase, Phase::Holds | Phase::Open(_))
}

/// What the condition says, in short.
fn says(status: &KuryrNetworkPolicyStatus) -> Option<(&str, &str, Option<i64>)> {
    let ready = told::ready(&status.conditions)?;
    Some((&ready.status, &ready.reason, status.applied_generation))
}

fn new(key: &ObjectKey, uid: &PolicyUid) -> KuryrNetworkPolicy {
    let metadata = owned_by("networking.k8s.io/v1", "NetworkPolicy", key, uid.to_string());
    let spec = KuryrNetworkPolicySpec { policy_uid: uid.clone() };
    KuryrNetworkPolicy { metadata, ..KuryrNetworkPolicy::new(&key.name, spec) }
}

//! One step for one key.
//!
//! ```text
//!   key ──▶ index ──▶ kuryr_plan::pod::step ──▶ Allocate, Fill: admit ─▶ allocator ─▶ record     ┐
//!                                               Confirm, Delete, Release: record                 ├─▶ look after suspects
//!                                               AwaitNode, and what failed: report               ┘
//! ```
//!
//! One worker has a key at a time, so while it is looked after the suspects of a key, no port is being made for them.

mod objects;
mod record;
mod report;
#[cfg(test)]
mod tests;
mod waiting;

use crate::{
    allocator::{Allocator, Request},
    error::{PodError, Remedy},
    events::Events,
    index::{Index, Known},
    metrics::Metrics,
    policy::Keeper,
    queue::{Outcome, Queue},
};
use kube::{Api, Client};
use kuryr_model::{KuryrPort, ObjectKey, PodUid};
use kuryr_plan::{
    allocator::Refusals,
    pod::{Node, Pod, Step, step},
};
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, timeout};
pub(crate) use waiting::Waiting;

/// How long a pod waits for Neutron before that is said on it.
const PATIENCE: Duration = Duration::from_secs(10);

/// A failure that time may mend is said on the pod only when it came this often in a row.
const SILENT_FAILURES: u32 = 1;

/// How long a pod waits for what is on its way, unless it is woken before.
const BRIEFLY: Duration = Duration::from_secs(2);

/// Does the steps.
pub(crate) struct Reconciler {
    pub(crate) client: Client,
    pub(crate) index: Arc<Index>,
    pub(crate) queue: Arc<Queue<ObjectKey>>,
    pub(crate) allocator: Allocator,
    pub(crate) policies: Arc<Keeper>,
    pub(crate) events: Events,
    pub(crate) metrics: Metrics,
    pub(crate) cooldown: Duration,
    /// Pods that have no ports.
    pub(crate) waiting: Mutex<Waiting>,
    /// Namespaces that take no `KuryrPort`.
    pub(crate) refusals: Mutex<Refusals>,
    pub(crate) began: Instant,
}

impl Reconciler {
    /// Does the next step for `key`.
    pub(crate) async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let outcome = self.step(key).await;
        self.look_after_suspects(key, outcome).await
    }

    async fn step(&self, key: &ObjectKey) -> Outcome {
        let known = self.index.get(key);
        if let Some(odd) = &known.odd {
            return self.keep_apart(odd, known.pod.as_deref()).await;
        }
        let node =
            known.port.as_ref().map_or(Node::Present, |port| self.index.node(&port.spec.node_name, Instant::now()));
        match (step(known.pod.as_deref(), known.port.as_deref(), node, self.cooldown), known) {
            (Step::Allocate | Step::Fill, Known { pod: Some(pod), port, .. }) => {
                self.allocate(&pod, port.is_none()).await
            }
            (Step::Confirm, Known { port: Some(port), .. }) => {
                self.outcome_for(&port, "confirm", self.confirm(&port).await)
            }
            (Step::Delete, Known { port: Some(port), .. }) => {
                self.outcome_for(&port, "delete", self.delete(&port).await)
            }
            (Step::Release, Known { port: Some(port), .. }) => {
                self.outcome_for(&port, "release", self.release(&port).await)
            }
            (Step::AwaitNode { again, blocks }, known) => {
                match (known.pod, known.port) {
                    (Some(pod), Some(port)) if blocks => self.say_that_it_waits(&pod, &port),
                    _ => self.no_longer_waits(key),
                }
                again.map_or(Outcome::Settled, Outcome::After)
            }
            // It has what it wants, or wants nothing.
            _ => {
                self.no_longer_waits(key);
                Outcome::Settled
            }
        }
    }

    fn outcome_for(&self, port: &KuryrPort, step: &'static str, result: Result<(), PodError>) -> Outcome {
        self.outcome(&port.key(), &port.spec.pod_uid, step, result)
    }

    fn outcome(&self, key: &ObjectKey, uid: &PodUid, step: &'static str, result: Result<(), PodError>) -> Outcome {
        match result {
            Ok(()) => Outcome::Settled,
            Err(error) => {
                let (reason, request_id) = (error.reason().as_str(), error.request_id());
                tracing::warn!(
                    pod = %key, uid = %uid, step, reason, request_id, error = %error,
                    "the step failed and is tried again"
                );
                self.metrics.step_failed(step, reason);
                Outcome::Retry(error.retry_after())
            }
        }
    }

    /// Gets a port for `pod` and records it; `first`: it has no `KuryrPort` yet.
    async fn allocate(&self, pod: &Pod, first: bool) -> Outcome {
        let Some(node) = &pod.node else { return Outcome::Settled };
        let result = match if first { self.admit(pod, node).await } else { Ok(()) } {
            Ok(()) => self.allocate_and_record(pod, node).await,
            Err(error) => Err(error),
        };
        match result {
            Ok(()) => {
                self.no_longer_waits(&pod.key);
                Outcome::Settled
            }
            Err(error) => {
                self.policies.ungrant(&pod.uid);
                if error.is_brief() && self.queue.failures(&pod.key) < SILENT_FAILURES {
                    // As with the first pod on a node that a policy isolates.
                    tracing::debug!(pod = %pod.key, reason = %error, "the pod waits");
                    return Outcome::Retry(BRIEFLY);
                }
                let passing = matches!(error.remedy(), Remedy::Time(_));
                if !passing || self.queue.failures(&pod.key) >= SILENT_FAILURES {
                    self.say_why(pod, node, &error).await;
                }
                self.outcome(&pod.key, &pod.uid, "allocate", Err(error))
            }
        }
    }

    async fn allocate_and_record(&self, pod: &Pod, node: &str) -> Result<(), PodError> {
        let started = Instant::now();
        let groups = self.policies.grant(&pod.key, &pod.uid)?;
        let home = self.index.home(node);
        let mut allocation = std::pin::pin!(async {
            let machine = self.allocator.machine(node, &home).await?;
            let (key, uid, host) = (pod.key.clone(), pod.uid.clone(), home.host.clone());
            self.allocator.allocate(Request { key, uid, host, machine, groups }).await
        });
        let allocated = match timeout(PATIENCE, &mut allocation).await {
            Ok(allocated) => allocated?,
            Err(_) => {
                self.say_why(pod, node, &PodError::Slow).await;
                allocation.await?
            }
        };
        self.metrics.step("allocate", started.elapsed());
        self.record(pod, node, allocated).await
    }

    /// Deletes what lost and late answers left behind for pods of this name, and sees to it that it is looked again.
    async fn look_after_suspects(&self, key: &ObjectKey, outcome: Outcome) -> Outcome {
        let known = self.index.get(key);
        let (begun, sweeps) = self.allocator.sweeps(key, known.pod.as_deref(), known.port.as_deref());
        let mut outcome = outcome;
        for sweep in sweeps {
            let swept = self.outcome(key, &sweep.uid, "sweep", self.sweep(key, &sweep, begun).await);
            if swept != Outcome::Settled && !matches!(outcome, Outcome::Retry(_)) {
                outcome = swept;
            }
        }
        match (outcome, self.allocator.look_after(key)) {
            (Outcome::Settled, Some(left)) => Outcome::After(left),
            (Outcome::After(time), Some(left)) => Outcome::After(time.min(left)),
            (outcome, _) => outcome,
        }
    }

    fn still_wanted(&self, pod: &Pod) -> bool {
        let now = self.index.get(&pod.key).pod;
        now.is_some_and(|now| now.uid == pod.uid && !now.completed)
    }

    fn api(&self, key: &ObjectKey) -> Api<KuryrPort> {
        Api::namespaced(self.client.clone(), &key.namespace)
    }
}

//! What is told of a Service while it is worked on, and when that is over.

use super::{
    error::ServiceError,
    memory::Memory,
    reconciler::{ServiceReconciler, Subject},
    status::{Facts, Phase, members},
    target::{Target, Wish},
};
use crate::{error::Remedy, queue::Outcome};
use jiff::Timestamp;
use kuryr_model::{KuryrLoadBalancer, ObjectKey, ServiceUid};
use kuryr_plan::service::{Desired, Kind, Problem, Slice, Step, ingress, summary};
use std::{pin::pin, sync::Arc, time::Duration};
use tokio::time::timeout;

/// How long Octavia is waited for before that is said.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// How long Octavia may be at work before somebody should look at it.
const SLOW: Duration = Duration::from_secs(5 * 60);

/// A failure that time may mend is said only when it came this often in a row.
const SILENT_FAILURES: u32 = 1;

impl ServiceReconciler {
    pub(super) fn failed(&self, subject: &Subject, step: &'static str, error: &ServiceError) -> Outcome {
        let (reason, after) = (error.reason(), error.retry_after());
        match subject {
            Subject::Service(key) => {
                tracing::warn!(service = %key, step, reason, error = %error, "the step failed and is tried again");
            }
            Subject::Stray(uid) => {
                tracing::warn!(%uid, step, reason, error = %error, "a load balancer that nobody wants stays for now");
            }
        }
        self.metrics.service_step_failed(step, reason);
        Outcome::Retry(after)
    }

    pub(super) async fn serve_failed(
        &self,
        key: &ObjectKey,
        held: &KuryrLoadBalancer,
        memory: &Memory,
        error: &ServiceError,
    ) -> Outcome {
        let subject = Subject::Service(key.clone());
        let passing = matches!(error.remedy(), Remedy::Time(_));
        if !passing || self.queue.failures(&subject) >= SILENT_FAILURES {
            let told = self.tell_all(key, &held.spec.service_uid, held, memory, Phase::Failed(error)).await;
            if let Err(error) = told {
                tracing::debug!(service = %key, error = %error, "the status was not written");
            }
        }
        self.failed(&subject, "serve", error)
    }

    /// Says what is the case: on the `KuryrLoadBalancer`, and in the Service's own status.
    pub(super) async fn tell_all(
        &self,
        key: &ObjectKey,
        uid: &ServiceUid,
        held: &KuryrLoadBalancer,
        memory: &Memory,
        phase: Phase<'_>,
    ) -> Result<(), ServiceError> {
        let Some(Wish { desired, slices, .. }) = self.wanted(Target::Service(key, uid)) else { return Ok(()) };
        self.tell(held, &desired, &slices, &memory.problems, memory, phase).await?;
        let Some(seen) = self.index.get(key).service.filter(|seen| seen.service.uid == *uid) else { return Ok(()) };
        if !desired.exposed.ours || seen.service.kind != Kind::LoadBalancer {
            return Ok(());
        }
        let wanted = ingress(&desired, &memory.observed);
        // While something is repaired, what was told stays: addresses are kept, and others act on them.
        let settled = matches!(phase, Phase::Settled);
        if seen.ingress != wanted && (settled || !wanted.is_empty()) {
            self.reporter.show(key, &wanted).await?;
        }
        Ok(())
    }

    pub(super) async fn tell(
        &self,
        held: &KuryrLoadBalancer,
        desired: &Desired,
        slices: &[Arc<Slice>],
        problems: &[Problem],
        memory: &Memory,
        phase: Phase<'_>,
    ) -> Result<(), ServiceError> {
        // As it is now: it may have been written since this began.
        let known = self.index.get(&held.key()).load_balancer;
        let held = known.as_deref().filter(|known| known.metadata.uid == held.metadata.uid).unwrap_or(held);
        let mut all: Vec<Problem> = desired.problems.iter().chain(problems).cloned().collect();
        all.sort();
        all.dedup();
        let facts = Facts {
            held,
            desired,
            summary: &summary(desired, &memory.observed),
            problems: &all,
            members: members(slices.iter().map(AsRef::as_ref)),
            applied: &memory.applied,
            phase,
            now: Timestamp::now(),
        };
        if let Some(written) = self.reporter.tell(&facts).await? {
            self.index.apply_load_balancer(written);
        }
        Ok(())
    }

    /// Waits for an answer; if that takes long, what is waited for is told meanwhile.
    pub(super) async fn patiently<T>(
        &self,
        target: Target<'_>,
        step: &Step,
        memory: &Memory,
        answer: impl Future<Output = T>,
    ) -> T {
        let mut answer = pin!(answer);
        if let Ok(answer) = timeout(PATIENCE, &mut answer).await {
            return answer;
        }
        let tell = async {
            let Target::Service(key, uid) = target else { return };
            let Some(held) = self.index.get(key).load_balancer else { return };
            if let Err(error) = self.tell_all(key, uid, &held, memory, Phase::Asking(step)).await {
                tracing::debug!(service = %key, error = %error, "the status was not written");
            }
        };
        tokio::join!(answer, tell).0
    }

    pub(super) async fn tell_that_it_waits(
        &self,
        key: &ObjectKey,
        uid: &ServiceUid,
        held: &KuryrLoadBalancer,
        memory: &Memory,
    ) -> Result<(), ServiceError> {
        let longest = memory.work.iter().min_by_key(|(_, work)| work.since);
        let Some((id, since)) =
            longest.map(|(id, work)| (*id, work.since)).filter(|(_, since)| since.elapsed() > PATIENCE)
        else {
            return Ok(());
        };
        let status = memory.observed.trees.iter().find(|tree| tree.load_balancer.id == id);
        let status = status.map(|tree| tree.load_balancer.provisioning_status).unwrap_or_default();
        if since.elapsed() > SLOW {
            self.tell_all(key, uid, held, memory, Phase::Failed(&ServiceError::Slow(id, status))).await
        } else {
            self.tell_all(key, uid, held, memory, Phase::Working).await
        }
    }
}

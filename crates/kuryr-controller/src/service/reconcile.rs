//! From what is known of a Service to what is done for it.

use super::{
    bring::Progress,
    error::ServiceError,
    memory::{Memory, Recall},
    reconciler::{ServiceReconciler, Subject},
    status::Phase,
    step::{Step as Hold, step},
    target::Target,
    tell::PATIENCE,
};
use crate::queue::Outcome;
use kuryr_model::{KuryrLoadBalancer, ObjectKey, ServiceUid};
use kuryr_plan::service::Desired;
use std::time::Duration;
use tokio::time::Instant;

impl ServiceReconciler {
    /// Does what is to be done for a subject that has waited for this long.
    pub(crate) async fn reconcile(&self, subject: &Subject, waited: Duration) -> Outcome {
        // When the event came that is now worked on.
        let since = Instant::now().checked_sub(waited);
        match subject {
            Subject::Service(key) => self.service(key, since).await,
            Subject::Stray(uid) => self.stray(uid).await,
        }
    }

    async fn service(&self, key: &ObjectKey, since: Option<Instant>) -> Outcome {
        loop {
            let known = self.index.get(key);
            let wish = self.wish(&known);
            let result = match (step(wish.as_ref(), known.load_balancer.as_deref()), wish, known.load_balancer) {
                (Hold::Nothing, wish, _) => {
                    self.reporter.forget(key);
                    // Also without an object that tells of it there may be something: somebody deleted that by force.
                    let uid = wish.map(|wish| wish.uid).or_else(|| self.memories.named(key));
                    match uid.filter(|uid| self.memories.has_something(uid)) {
                        Some(uid) => return self.stray(&uid).await,
                        None => return Outcome::Settled,
                    }
                }
                (Hold::Hold, Some(wish), _) => self.reporter.hold(key, &wish.uid).await.map(Some),
                (Hold::Serve, Some(wish), Some(held)) => match self.serve(key, &wish.uid, &held, since).await {
                    Some(outcome) => return outcome,
                    None => Ok(None),
                },
                (Hold::Drop, _, Some(held)) => self.reporter.delete(&held).await.inspect(|left| {
                    if left.is_none() {
                        self.index.remove_load_balancer(key, held.metadata.uid.as_deref());
                    }
                }),
                (Hold::Release(uid), _, Some(held)) => match self.release(&uid, &held).await {
                    Ok(Progress::Settled | Progress::Changed) => Ok(None),
                    Ok(Progress::Waiting(after)) => return Outcome::After(after),
                    Err(error) => Err(error),
                },
                (Hold::LetGo, Some(wish), Some(held)) => match self.reporter.stays(key, &wish.uid).await {
                    Ok(true) => self.let_go(&held).await.map(|()| None),
                    // It went with its Service: when our watch tells of that, both are released.
                    Ok(false) => return Outcome::Settled,
                    Err(error) => Err(error),
                },
                // A step comes with what it is about.
                _ => return Outcome::Settled,
            };
            match result {
                Ok(written) => {
                    if let Some(written) = written {
                        self.index.apply_load_balancer(written);
                    }
                }
                Err(error) => return self.failed(&Subject::Service(key.clone()), "hold", &error),
            }
        }
    }

    async fn let_go(&self, held: &KuryrLoadBalancer) -> Result<(), ServiceError> {
        self.reporter.let_go(held).await?;
        self.index.remove_load_balancer(&held.key(), held.metadata.uid.as_deref());
        Ok(())
    }

    /// Deletes all that there is of a Service that nothing in Kubernetes tells of.
    async fn stray(&self, uid: &ServiceUid) -> Outcome {
        let mut memory = match self.recall(uid).await {
            Ok(memory) => memory,
            Err(error) => return self.failed(&Subject::Stray(uid.clone()), "observe", &error),
        };
        match self.bring(Target::Nobody(uid), &mut memory, None).await {
            Ok(Progress::Settled | Progress::Changed) => {
                self.memories.forget(uid);
                self.wake_starved();
                Outcome::Settled
            }
            Ok(Progress::Waiting(after)) => {
                self.memories.keep(uid, memory);
                Outcome::After(after)
            }
            Err(error) => {
                self.after_failure(uid, memory, &error);
                self.failed(&Subject::Stray(uid.clone()), "delete", &error)
            }
        }
    }

    /// Deletes all that there is of a Service, then lets its `KuryrLoadBalancer` go.
    async fn release(&self, uid: &ServiceUid, held: &KuryrLoadBalancer) -> Result<Progress, ServiceError> {
        let started = Instant::now();
        let mut memory = self.recall(uid).await?;
        let busy = *memory.busy.get_or_insert(started);
        match self.bring(Target::Nobody(uid), &mut memory, None).await {
            Ok(Progress::Settled | Progress::Changed) => {
                self.memories.forget(uid);
                self.let_go(held).await?;
                self.reporter.forget(&held.key());
                self.metrics.service_step("release", busy.elapsed());
                tracing::info!(service = %held.key(), %uid, "released");
                self.wake_starved();
                Ok(Progress::Settled)
            }
            Ok(Progress::Waiting(after)) => {
                if busy.elapsed() > PATIENCE {
                    let gone = Desired::gone(self.site.cluster(), uid.clone());
                    self.tell(held, &gone, &[], &[], &memory, Phase::Deleting).await?;
                }
                self.memories.keep(uid, memory);
                Ok(Progress::Waiting(after))
            }
            Err(error) => {
                self.after_failure(uid, memory, &error);
                Err(error)
            }
        }
    }

    /// Brings what a Service has to what it should have. `None`: it changed under our hands.
    async fn serve(
        &self,
        key: &ObjectKey,
        uid: &ServiceUid,
        held: &KuryrLoadBalancer,
        since: Option<Instant>,
    ) -> Option<Outcome> {
        let mut memory = match self.recall(uid).await {
            Ok(memory) => memory,
            Err(error) => return Some(self.serve_failed(key, held, &Memory::default(), &error).await),
        };
        if memory.applied.is_empty() {
            memory.applied = held.status.as_ref().map(|status| status.applied.clone()).unwrap_or_default();
        }
        self.memories.name(key, uid);
        let target = Target::Service(key, uid);
        match self.bring(target, &mut memory, since).await {
            Ok(Progress::Changed) => {
                self.memories.keep(uid, memory);
                None
            }
            Ok(Progress::Settled) => {
                if let Some(busy) = memory.busy.take() {
                    self.metrics.service_step("settle", busy.elapsed());
                    tracing::info!(service = %key, %uid, "its load balancer is as it should be");
                }
                let result = self.tell_all(key, uid, held, &memory, Phase::Settled).await;
                self.memories.keep(uid, memory);
                Some(match result {
                    Ok(()) => Outcome::Settled,
                    Err(error) => self.failed(&Subject::Service(key.clone()), "write", &error),
                })
            }
            Ok(Progress::Waiting(after)) => {
                let result = self.tell_that_it_waits(key, uid, held, &memory).await;
                self.memories.keep(uid, memory);
                Some(match result {
                    Ok(()) => Outcome::After(after),
                    Err(error) => self.failed(&Subject::Service(key.clone()), "write", &error),
                })
            }
            Err(error) => {
                let outcome = self.serve_failed(key, held, &memory, &error).await;
                self.after_failure(uid, memory, &error);
                Some(outcome)
            }
        }
    }

    /// What is known of a Service, by memory or by asking.
    async fn recall(&self, uid: &ServiceUid) -> Result<Memory, ServiceError> {
        match self.memories.take(uid) {
            Recall::Known(memory) => Ok(*memory),
            Recall::NotListed(why) => {
                Err(ServiceError::NotListed(why.unwrap_or_else(|| "they are being listed".to_owned())))
            }
            Recall::Ask => {
                let started = Instant::now();
                let observed = self.observer.one(uid).await.map_err(ServiceError::cloud)?;
                self.metrics.service_step("observe", started.elapsed());
                Ok(Memory::of(observed))
            }
        }
    }

    /// A step failed: what is known is either still true, or it has to be asked for.
    fn after_failure(&self, uid: &ServiceUid, memory: Memory, error: &ServiceError) {
        if error.leaves_doubt() {
            self.memories.suspect(uid);
        } else {
            self.memories.keep(uid, memory);
        }
    }

    /// There is room again: those that wait for it need not wait for their next try.
    fn wake_starved(&self) {
        for key in self.reporter.starved() {
            self.queue.add(Subject::Service(key));
        }
    }
}

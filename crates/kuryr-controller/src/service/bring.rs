//! Step after step towards what a Service is to have.

use super::{
    calls::{self, Answer, call},
    error::ServiceError,
    forward::{bring_forward, looked_at},
    memory::{Memory, Work},
    observe::add_floating,
    reconciler::ServiceReconciler,
    target::{Target, Wish},
    wait::{Arriving, next_look, next_repair},
};
use kuryr_model::{LoadBalancerId, lb::Provisioning};
use kuryr_plan::service::{Desired, Floating, Members, Place, Step, digest, plan, step::Why};
use std::time::Duration;
use tokio::time::Instant;

/// More steps than any plan has: so many without an end means that they have no effect.
const MOST_STEPS: usize = 1000;

/// The OVN provider hears of a floating IP by an event, and then writes all that the load balancer leads to anew, from what
/// it knew when it heard. No answer tells when that is done, and a change of members in between would be lost, or the
/// floating IP would be: so none is asked for during this time.
const LEADING: Duration = Duration::from_secs(2);

/// How far a Service was brought.
pub(super) enum Progress {
    /// There is nothing left to do.
    Settled,
    /// Octavia is at work: look again after this time.
    Waiting(Duration),
    /// What is wanted is not what it was: begin anew.
    Changed,
}

impl ServiceReconciler {
    /// Does step after step until there is none left, or one has to be waited for.
    pub(super) async fn bring(
        &self,
        target: Target<'_>,
        memory: &mut Memory,
        since: Option<Instant>,
    ) -> Result<Progress, ServiceError> {
        let mut reaction = since;
        for _ in 0..MOST_STEPS {
            // As it is now: what came while the last step was done is part of the next one.
            let Some(wish) = self.wanted(target) else { return Ok(Progress::Changed) };
            self.look_up(&wish.desired, memory).await?;
            if let Target::Service(key, _) = target {
                if self.show_guarded(key, &wish) {
                    continue;
                }
                self.tell_guard(key, &wish.desired, memory).await?;
            }
            let Wish { seen, desired, slices, limits } = wish;
            let plan = plan(&desired, &memory.observed);
            memory.problems = plan.problems;
            let Some(next) = plan.steps.first() else {
                memory.applied = digest(&desired);
                memory.repairs = None;
                memory.work.clear();
                return Ok(Progress::Settled);
            };
            let now = Instant::now();
            if next.changes_load_balancer()
                && let Some(after) = memory.led.and_then(|led| LEADING.checked_sub(now.saturating_duration_since(led)))
            {
                return Ok(Progress::Waiting(after));
            }
            match next {
                Step::Wait { .. } => {
                    let pending = plan.steps.iter().filter_map(Step::load_balancer).collect::<Vec<_>>();
                    if let Some(after) = self.look(&pending, memory).await? {
                        return Ok(Progress::Waiting(after));
                    }
                    continue;
                }
                Step::CreateTree(_) if memory.observed.trees.is_empty() => {
                    let arriving = memory.arriving.get_or_insert_with(|| Arriving::new(now));
                    if let Some(after) = seen.and_then(|seen| arriving.wait(&seen.service, &slices, now)) {
                        return Ok(Progress::Waiting(after));
                    }
                }
                Step::SetMembers { pool, members, .. } => {
                    let later = memory.pace.wait(now).filter(|_| !memory.observed.takes_away(*pool, members));
                    if let Some(after) = later {
                        return Ok(Progress::Waiting(after));
                    }
                    memory.pace.made(now);
                }
                Step::Failover { load_balancer } | Step::DeleteTree { load_balancer, why: Why::Error } => {
                    let (repairs, last) = memory.repairs.unwrap_or((0, now));
                    let wait = next_repair(repairs).saturating_sub(now.saturating_duration_since(last));
                    if !wait.is_zero() {
                        return Err(ServiceError::Broken(*load_balancer, wait));
                    }
                    memory.repairs = Some((repairs + 1, now));
                }
                _ => {}
            }
            if !self.may_let_in(target, next, limits.as_ref()) {
                continue;
            }
            memory.busy.get_or_insert(now);
            if let Some(since) = reaction.take() {
                self.metrics.service_step("react", since.elapsed());
            }
            self.execute(target, &desired, next, memory).await?;
        }
        Err(ServiceError::LeftOut("any effect of a plan's steps"))
    }

    /// Does one step.
    async fn execute(
        &self,
        target: Target<'_>,
        desired: &Desired,
        next: &Step,
        memory: &mut Memory,
    ) -> Result<(), ServiceError> {
        let started = Instant::now();
        memory.version += 1;
        let asked = call(&self.observer.octavia, &self.observer.network, next);
        let answer = self.patiently(target, next, memory, asked).await;
        memory.version += 1;
        let uid = target.uid();
        match answer {
            Ok(answer) => {
                self.metrics.service_step(calls::name(next), started.elapsed());
                tracing::info!(service = target.name(), %uid, step = %next, "done");
                self.accept(desired, next, answer, memory).await
            }
            Err(error) => {
                tracing::info!(service = target.name(), %uid, step = %next, error = %error, "refused");
                self.refused(uid, desired, next, error, memory).await
            }
        }
    }

    async fn accept(
        &self,
        desired: &Desired,
        next: &Step,
        answer: Answer,
        memory: &mut Memory,
    ) -> Result<(), ServiceError> {
        if let (Step::CreateTree(wanted), Answer::Tree(made)) = (next, &answer) {
            let tags = &made.load_balancer.tags;
            if !wanted.tags.iter().all(|tag| tags.contains(tag)) {
                let id = made.load_balancer.id;
                self.observer.octavia.load_balancers().delete(id).await.map_err(ServiceError::cloud)?;
                return Err(ServiceError::Untagged);
            }
        }
        if let Some(id) = next.load_balancer().or_else(|| made(&answer)) {
            let now = Instant::now();
            memory.work.insert(id, Work { since: now, next: now + next_look(Duration::ZERO, self.memories.waiting()) });
        }
        if next.leads_floating() && memory.observed.trees.iter().any(|tree| tree.load_balancer.is_of_ovn()) {
            memory.led = Some(Instant::now());
        }
        bring_forward(&mut memory.observed, next, answer);
        if let Step::SetMembers { .. } = next {
            memory.applied = digest(desired);
        }
        Ok(())
    }

    /// Asks for what a plan needs and nothing has told yet.
    async fn look_up(&self, desired: &Desired, memory: &mut Memory) -> Result<(), ServiceError> {
        for tree in &desired.trees {
            if let Place::Existing(id) = tree.place
                && memory.asked.insert(format!("load balancer {id}"))
                && memory.observed.trees.iter().all(|there| there.load_balancer.id != id)
            {
                let found = self.observer.tree(id).await.map_err(ServiceError::cloud)?;
                memory.observed.trees.extend(found);
            }
        }
        if let Floating::Wanted(wanted) = &desired.floating
            && let Some(address) = wanted.address
            && memory.asked.insert(format!("floating IP {address}"))
            && memory.observed.floating.iter().all(|ip| ip.floating_ip_address != address)
            && let Some(ip) = self.observer.floating(address).await.map_err(ServiceError::cloud)?
        {
            add_floating(&mut memory.observed, ip);
        }
        let applied = Some(memory.applied.as_str()).filter(|applied| !applied.is_empty());
        for id in memory.observed.unsure(desired, applied) {
            let members = self.observer.members(id).await.map_err(ServiceError::cloud)?;
            let pools = memory.observed.trees.iter_mut().flat_map(|tree| &mut tree.pools);
            for pool in pools.filter(|pool| pool.pool.id == id) {
                pool.members = Members::Known(members.clone());
            }
        }
        Ok(())
    }

    /// Looks at those load balancers whose time has come. When to look again, if Octavia is still at work on all of them.
    async fn look(&self, pending: &[LoadBalancerId], memory: &mut Memory) -> Result<Option<Duration>, ServiceError> {
        memory.work.retain(|id, _| pending.contains(id));
        let mut changed = false;
        for id in pending {
            let now = Instant::now();
            let work = *memory.work.entry(*id).or_insert(Work { since: now, next: now });
            if work.next > now {
                continue;
            }
            let seen = self.observer.whole(*id).await.map_err(ServiceError::cloud)?;
            let status = seen.as_ref().map(|seen| seen.provisioning_status);
            memory.version += 1;
            if status.is_some_and(is_pending) {
                let now = Instant::now();
                let next = now + next_look(now.saturating_duration_since(work.since), self.memories.waiting());
                memory.work.insert(*id, Work { next, ..work });
            } else {
                self.metrics.service_step("wait", work.since.elapsed());
                memory.work.remove(id);
                changed = true;
            }
            looked_at(&mut memory.observed, *id, seen);
            // What of it is broken, only a list of all that is below it tells.
            if status == Some(Provisioning::Error)
                && let Some(mut tree) = self.observer.tree(*id).await.map_err(ServiceError::cloud)?
                && let Some(there) = memory.observed.trees.iter_mut().find(|there| there.load_balancer.id == *id)
            {
                tree.failed_over = there.failed_over;
                *there = tree;
            }
        }
        if changed { Ok(None) } else { Ok(Some(memory.next_look(Instant::now()).unwrap_or_default())) }
    }
}

fn is_pending(status: Provisioning) -> bool {
    status.is_pending() || status == Provisioning::Other
}

fn made(answer: &Answer) -> Option<LoadBalancerId> {
    match answer {
        Answer::Tree(tree) => Some(tree.load_balancer.id),
        _ => None,
    }
}

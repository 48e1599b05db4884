//! From what is known of a Service to what is done for it.

use super::{
    calls::{self, Answer, call},
    error::ServiceError,
    forward::{bring_forward, is_at_work, looked_at},
    index::{Known, ServiceIndex},
    memory::{Memories, Memory, Recall, Work},
    observe::{Observer, add_floating},
    report::Reporter,
    status::{Facts, Phase, members},
    step::{Step as Hold, step},
    topology::SiteState,
    wait::{next_look, next_repair},
};
use crate::{
    error::Remedy,
    metrics::Metrics,
    queue::{Outcome, Queue},
};
use jiff::Timestamp;
use kuryr_model::{KuryrLoadBalancer, LoadBalancerId, ObjectKey, ServiceUid, lb::Provisioning};
use kuryr_openstack::Error as CloudError;
use kuryr_plan::service::{
    Desired, Feature, Floating, Kind, Members, Place, Problem, Provider, Slice, Step, Tree, Vip, desired, digest,
    ingress, plan, step::Why, summary,
};
use std::{net::IpAddr, sync::Arc, time::Duration};
use tokio::time::Instant;

/// What the queue of Services is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Subject {
    /// A Service, and the `KuryrLoadBalancer` of its name.
    Service(ObjectKey),
    /// What carries the mark of a Service that is gone, with nothing in Kubernetes that tells of it.
    Stray(ServiceUid),
}

/// How long Octavia is waited for before that is said.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long Octavia may be at work before somebody should look at it.
const SLOW: Duration = Duration::from_secs(5 * 60);

/// A failure that time may mend is said only when it came this often in a row.
const SILENT_FAILURES: u32 = 1;

/// More steps than any plan has: so many without an end means that they have no effect.
const MOST_STEPS: usize = 1000;

/// Does the steps.
pub(crate) struct ServiceReconciler {
    pub(crate) index: Arc<ServiceIndex>,
    pub(crate) queue: Arc<Queue<Subject>>,
    pub(crate) observer: Observer,
    pub(crate) site: Arc<SiteState>,
    pub(crate) memories: Arc<Memories>,
    pub(crate) reporter: Reporter,
    pub(crate) metrics: Metrics,
    /// Held by the one who finds out whom Octavia takes when no provider is asked for.
    pub(crate) first: tokio::sync::Mutex<()>,
}

/// How far a Service was brought.
enum Progress {
    /// There is nothing left to do.
    Settled,
    /// Octavia is at work: look again after this time.
    Waiting(Duration),
    /// What is wanted is not what it was: begin anew.
    Changed,
}

/// For whom things are brought to what they should be.
#[derive(Clone, Copy)]
enum Target<'a> {
    /// The Service of this key, as long as it has this UID.
    Service(&'a ObjectKey, &'a ServiceUid),
    /// Nobody: all that there is of this Service goes.
    Nobody(&'a ServiceUid),
}

impl Target<'_> {
    fn uid(&self) -> &ServiceUid {
        match self {
            Self::Service(_, uid) | Self::Nobody(uid) => uid,
        }
    }
}

/// What is wanted for a target, and from what that follows.
struct Wish {
    desired: Desired,
    slices: Vec<Arc<Slice>>,
}

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

    fn wish(&self, known: &Known) -> Option<Desired> {
        let seen = known.service.as_ref()?;
        let slices: Vec<Slice> = known.slices.iter().map(|slice| Slice::clone(slice)).collect();
        let site = self.site.with_nodes(self.index.nodes());
        Some(desired(&seen.service, &slices, &site))
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

    fn failed(&self, subject: &Subject, step: &'static str, error: &ServiceError) -> Outcome {
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

    async fn serve_failed(
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

    /// What is wanted now. `None`: not what was wanted when this began.
    fn wanted(&self, target: Target<'_>) -> Option<Wish> {
        let (key, uid) = match target {
            Target::Nobody(uid) => {
                return Some(Wish { desired: Desired::gone(self.site.cluster(), uid.clone()), slices: Vec::new() });
            }
            Target::Service(key, uid) => (key, uid),
        };
        let known = self.index.get(key);
        let desired = self.wish(&known).filter(|desired| desired.uid == *uid)?;
        let same = step(Some(&desired), known.load_balancer.as_deref()) == Hold::Serve;
        same.then_some(Wish { desired, slices: known.slices })
    }

    /// Does step after step until there is none left, or one has to be waited for.
    async fn bring(
        &self,
        target: Target<'_>,
        memory: &mut Memory,
        since: Option<Instant>,
    ) -> Result<Progress, ServiceError> {
        let mut reaction = since;
        for _ in 0..MOST_STEPS {
            // As it is now: what came while the last step was done is part of the next one.
            let Some(Wish { desired, .. }) = self.wanted(target) else { return Ok(Progress::Changed) };
            self.look_up(&desired, memory).await?;
            let plan = plan(&desired, &memory.observed);
            memory.problems = plan.problems;
            let Some(next) = plan.steps.first() else {
                memory.applied = digest(&desired);
                memory.repairs = None;
                memory.work.clear();
                return Ok(Progress::Settled);
            };
            let now = Instant::now();
            match next {
                Step::Wait { .. } => {
                    let pending = plan.steps.iter().filter_map(Step::load_balancer).collect::<Vec<_>>();
                    if let Some(after) = self.look(&pending, memory).await? {
                        return Ok(Progress::Waiting(after));
                    }
                    continue;
                }
                Step::SetMembers { .. } => {
                    if let Some(after) = memory.pace.wait(now) {
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
        let bare;
        let (mut next, mut alone) = (next, None);
        if let Step::CreateTree(tree) = next
            && tree.provider == Provider::Default
            && !self.site.knows_default_provider()
        {
            alone = Some(self.first.lock().await);
            if self.site.knows_default_provider() {
                // What it can do may not be what was planned.
                return Ok(());
            }
            bare = Step::CreateTree(Box::new(Tree { listeners: Vec::new(), ..(**tree).clone() }));
            next = &bare;
        }
        let started = Instant::now();
        memory.version += 1;
        let answer = call(&self.observer.octavia, &self.observer.network, next).await;
        memory.version += 1;
        let uid = target.uid();
        match answer {
            Ok(answer) => {
                self.metrics.service_step(calls::name(next), started.elapsed());
                tracing::info!(service = name(target), %uid, step = %next, "done");
                let result = self.accept(desired, next, answer, memory).await;
                drop(alone);
                result
            }
            Err(error) => {
                tracing::info!(service = name(target), %uid, step = %next, error = %error, "refused");
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
            if wanted.provider == Provider::Default && self.site.default_provider(&made.load_balancer.provider) {
                self.wake_all();
            }
        }
        if let Some(id) = next.load_balancer().or_else(|| made(&answer)) {
            let now = Instant::now();
            memory.work.insert(id, Work { since: now, next: now + next_look(Duration::ZERO, self.memories.waiting()) });
        }
        bring_forward(&mut memory.observed, next, answer);
        if let Step::SetMembers { .. } = next {
            memory.applied = digest(desired);
        }
        Ok(())
    }

    /// A step was refused. `Ok`: what is known is now truer than it was, and the next plan does better.
    async fn refused(
        &self,
        uid: &ServiceUid,
        desired: &Desired,
        next: &Step,
        error: CloudError,
        memory: &mut Memory,
    ) -> Result<(), ServiceError> {
        if error.is_immutable()
            && let Some(id) = next.load_balancer()
        {
            // Somebody else has it changed, or it is broken: only a look tells.
            is_at_work(&mut memory.observed, id);
            let now = Instant::now();
            memory.work.entry(id).or_insert(Work { since: now, next: now });
            return Ok(());
        }
        if let Step::CreateTree(tree) = next {
            let freed = self.free_vips(uid, tree, &error).await?;
            if freed && error.is_address_in_use() {
                return Ok(());
            }
        }
        if error.is_unsupported() {
            if let Step::Failover { load_balancer } = next {
                memory
                    .observed
                    .trees
                    .iter_mut()
                    .filter(|tree| tree.load_balancer.id == *load_balancer)
                    .for_each(|tree| tree.failed_over = true);
                return Ok(());
            }
            let message = error.refusal().map(|refusal| refusal.message.clone()).unwrap_or_default();
            let provider = provider(desired, next, memory);
            if let Some(feature) = Feature::refused(&message)
                && self.site.learn(provider.clone(), feature)
            {
                tracing::warn!(%provider, %feature, "the provider cannot do this; going on without it");
                return Ok(());
            }
            return Err(ServiceError::ProviderRefuses(error));
        }
        if let Step::CreateTree(tree) = next
            && error.is_address_in_use()
            && let Some((vip, ip)) = vips(tree).next()
        {
            return Err(self.observer.holder(&vip, ip, error).await);
        }
        Err(ServiceError::cloud(error))
    }

    /// Deletes the ports that a refused create left behind at the addresses of a tree: nothing else can have these. Whether there
    /// were any.
    async fn free_vips(&self, uid: &ServiceUid, tree: &Tree, error: &CloudError) -> Result<bool, ServiceError> {
        if ServiceError::cloud(error.clone()).leaves_doubt() {
            self.memories.lost(uid);
            return Ok(false);
        }
        if self.memories.may_be_in_flight(uid) {
            return Ok(false);
        }
        let mut freed = false;
        for (vip, ip) in vips(tree) {
            for port in self.observer.left_behind(&vip, ip).await.map_err(ServiceError::cloud)? {
                tracing::warn!(%uid, %port, %ip, "deleting the port that Octavia left behind when it refused a load balancer");
                self.observer.network.ports().delete(port).await.map_err(ServiceError::cloud)?;
                freed = true;
            }
        }
        Ok(freed)
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

    /// Says what is the case: on the `KuryrLoadBalancer`, and in the Service's own status.
    async fn tell_all(
        &self,
        key: &ObjectKey,
        uid: &ServiceUid,
        held: &KuryrLoadBalancer,
        memory: &Memory,
        phase: Phase<'_>,
    ) -> Result<(), ServiceError> {
        let Some(Wish { desired, slices }) = self.wanted(Target::Service(key, uid)) else { return Ok(()) };
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

    async fn tell(
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

    async fn tell_that_it_waits(
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

    /// There is room again: those that wait for it need not wait for their next try.
    fn wake_starved(&self) {
        for key in self.reporter.starved() {
            self.queue.add(Subject::Service(key));
        }
    }

    fn wake_all(&self) {
        for key in self.index.keys() {
            self.queue.add(Subject::Service(key));
        }
    }
}

fn name(target: Target<'_>) -> String {
    match target {
        Target::Service(key, _) => key.to_string(),
        Target::Nobody(_) => String::new(),
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

/// Who was asked: of a new load balancer the provider as it is asked for, of another one its own.
fn provider(desired: &Desired, step: &Step, memory: &Memory) -> Provider {
    if let Step::CreateTree(tree) = step {
        return tree.provider.clone();
    }
    let id = step.load_balancer();
    let there = memory.observed.trees.iter().find(|tree| Some(tree.load_balancer.id) == id);
    let named = there.map(|tree| Provider::named(&tree.load_balancer.provider));
    named.or_else(|| desired.trees.first().map(|tree| tree.provider.clone())).unwrap_or_default()
}

/// The addresses that a tree must have.
fn vips(tree: &Tree) -> impl Iterator<Item = (Vip, IpAddr)> {
    let vips: &[Vip] = match &tree.place {
        Place::Vips(vips) => vips,
        Place::Port(_) | Place::Existing(_) => &[],
    };
    vips.iter().filter_map(|vip| Some((*vip, vip.address?)))
}

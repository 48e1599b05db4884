//! The time during which this controller brings policies about.

use super::{
    answer::{Again, Answer},
    call::Caller,
    keeper::Keeper,
    report::Reporter,
    resync::{Listed, owned},
};
use crate::{events::Events, index::Index, metrics::Metrics, queue::Queue};
use kube::Client;
use kuryr_model::{ClusterId, ObjectKey, SecurityGroupId};
use kuryr_openstack::{Cloud, Error};
use kuryr_plan::{
    enforce::{Object, Step},
    policy::GroupKey,
};
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

/// How many steps are under way at once. How many requests Neutron gets at once is the client's matter.
const STEPS: usize = 32;

/// How long changes are gathered: those of a rollout come within a few milliseconds of each other.
const LINGER: Duration = Duration::from_millis(5);

/// Time until the next try of a search that failed.
const RETRY: Duration = Duration::from_secs(5);

/// How long steps that are under way may take to end when the controller stops; the next one finds what they have done.
const DRAIN: Duration = Duration::from_secs(5);

/// What a term needs for policies.
pub(crate) struct PolicyTerm {
    pub(crate) client: Client,
    pub(crate) cloud: Cloud,
    pub(crate) cluster: ClusterId,
    pub(crate) metrics: Metrics,
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) events: Events,
    /// Knows whose a port of a pool is.
    pub(crate) index: Arc<Index>,
    /// The queue of pods, which wait for their groups.
    pub(crate) pods: Arc<Queue<ObjectKey>>,
    /// Time between two looks at all that is there.
    pub(crate) interval: Duration,
    /// The groups that let everything in and out.
    pub(crate) open: [SecurityGroupId; 2],
}

/// What is under way.
enum Ended {
    Step(Step, Answer, Duration),
    Ports(u64, Result<Vec<Listed>, Error>),
}

struct Work {
    term: PolicyTerm,
    caller: Caller,
    running: JoinSet<Ended>,
    /// Planned, and waiting for a place.
    ready: VecDeque<Step>,
    /// What was wanted then.
    planned: u64,
    timers: JoinSet<Object>,
    /// The groups, and the ports, have been listed once: before that nothing is known, so nothing may be done.
    groups_known: bool,
    ports_known: bool,
    listing_ports: bool,
    /// A look failed: not again before.
    look_after: Instant,
    /// Since when there has been something to do.
    since: Option<Instant>,
}

impl PolicyTerm {
    /// Works until `stop` is cancelled.
    pub(crate) async fn serve(self, stop: &CancellationToken) {
        let reporter = Reporter {
            client: self.client.clone(),
            keeper: self.keeper.clone(),
            events: self.events.clone(),
            metrics: self.metrics.clone(),
        };
        // It ends with this, be it cut off because the Lease is lost.
        let mut background = JoinSet::new();
        background.spawn(reporter.run());
        let caller = Caller { cloud: self.cloud.clone(), cluster: self.cluster.clone() };
        // Before that, pods would be closed to load balancers only because nobody has looked at these.
        if stop.run_until_cancelled(self.keeper.guards_known()).await.is_none() {
            return;
        }
        let mut work = Work {
            term: self,
            caller,
            running: JoinSet::new(),
            ready: VecDeque::new(),
            planned: 0,
            timers: JoinSet::new(),
            groups_known: false,
            ports_known: false,
            listing_ports: false,
            look_after: Instant::now(),
            since: None,
        };
        work.run(stop).await;
    }
}

impl Work {
    async fn run(&mut self, stop: &CancellationToken) {
        {
            let mut state = self.term.keeper.state();
            state.enforcer.set_open(self.term.open[0], self.term.open[1]);
        }
        let mut resync = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = sleep_until(resync) => {
                    self.resync();
                    resync = Instant::now() + self.term.interval;
                }
                () = self.term.keeper.changed.notified() => {
                    sleep(LINGER).await;
                    self.ready.clear();
                }
                Some(ended) = self.running.join_next() => match ended {
                    Ok(ended) => resync = self.ended(ended).unwrap_or(resync),
                    Err(error) => tracing::error!(error = %error, "a step for policies broke"),
                },
                Some(Ok(object)) = self.timers.join_next() => {
                    self.term.keeper.state().enforcer.release(&object);
                    self.ready.clear();
                }
            }
            self.go_on();
        }
        let begun = self.running.len();
        if timeout(DRAIN, async { while self.running.join_next().await.is_some() {} }).await.is_err() {
            tracing::warn!(begun, "some steps for policies were cut off; the next controller ends them");
        }
    }

    /// Looks at all that is there.
    fn resync(&mut self) {
        let mut state = self.term.keeper.state();
        state.enforcer.lost();
        if !self.listing_ports {
            self.listing_ports = true;
            let moment = state.enforcer.moment();
            let caller = self.caller.clone();
            self.running.spawn(async move { Ended::Ports(moment, caller.ports().await) });
        }
    }

    /// Takes over how something ended; when to look at all again, if that is not as it was.
    fn ended(&mut self, ended: Ended) -> Option<Instant> {
        let mut state = self.term.keeper.state();
        let again = match ended {
            Ended::Ports(moment, result) => {
                self.listing_ports = false;
                match result {
                    Ok(listed) => {
                        tracing::info!(ports = listed.len(), "looked at the security groups of all ports");
                        let known = |id| state.enforcer.port(id).map(|port| port.pod.clone());
                        let owned = owned(listed, &self.term.index.holders(), known);
                        state.enforcer.listed_ports(moment, owned.into_iter());
                        self.ports_known = true;
                    }
                    Err(error) => {
                        tracing::warn!(error = %error, "the ports cannot be listed; trying again");
                        return Some(Instant::now() + RETRY);
                    }
                }
                Vec::new()
            }
            Ended::Step(step, answer, took) => {
                self.term.metrics.policy_step(step.name(), took);
                let failed_look = matches!(answer, Answer::Looked(_, Err(_)));
                self.groups_known |= matches!(answer, Answer::Looked(_, Ok(_)));
                if let (Step::DeleteStray(id), Answer::Deleted(Ok(()))) = (&step, &answer) {
                    tracing::warn!(group = %id, "deleted a security group that nobody wants");
                    self.term.metrics.pruned_group();
                }
                let again = state.answer(&self.term.cluster, &step, answer);
                for failed in &again {
                    if let Some(failure) = state.failures.get(&failed.object) {
                        self.term.metrics.policy_step_failed(step.name(), failure.reason);
                    }
                }
                if failed_look {
                    self.look_after = Instant::now() + RETRY;
                    return Some(self.look_after);
                }
                again
            }
        };
        if !again.is_empty() {
            self.term.keeper.reportable.notify_one();
        }
        drop(state);
        for Again { object, after } in again {
            self.timers.spawn(async move {
                sleep(after).await;
                object
            });
        }
        None
    }

    /// Plans, if there is nothing planned, and begins what there is room for.
    fn go_on(&mut self) {
        let mut state = self.term.keeper.state();
        let known = self.groups_known && self.ports_known;
        state.guards.surveyed = known;
        if self.ready.is_empty() || self.planned != state.enforcer.wanted() {
            let plan = state.enforcer.plan();
            self.planned = state.enforcer.wanted();
            self.ready.clear();
            let may_look = Instant::now() >= self.look_after;
            self.ready.extend(plan.into_iter().filter(|step| if *step == Step::Look { may_look } else { known }));
        }
        while self.running.len() < STEPS
            && let Some(step) = self.ready.pop_front()
        {
            state.enforcer.begin(&step);
            let caller = self.caller.clone();
            let moment = state.enforcer.moment();
            let names = names(&step, |key| key.name(|uid| state.enforcer.compiler().policy(uid).cloned()));
            self.running.spawn(async move {
                let started = Instant::now();
                let answer = carry_out(&caller, &step, moment, names).await;
                Ended::Step(step, answer, started.elapsed())
            });
        }
        let idle = self.running.is_empty();
        let woken: Vec<_> = state
            .waiting
            .iter()
            .filter(|(pod, _)| state.enforcer.grantable(pod).is_ok() || state.enforcer.compiler().groups(pod).is_none())
            .map(|(pod, key)| (pod.clone(), key.clone()))
            .collect();
        for (pod, key) in woken {
            state.waiting.remove(&pod);
            self.term.pods.add(key);
        }
        self.term.metrics.policy_backlog(state.enforcer.backlog());
        self.since = match (self.since, state.enforcer.is_settled()) {
            (Some(since), true) => {
                self.term.metrics.policies_settled(since.elapsed());
                None
            }
            (None, false) => Some(Instant::now()),
            (since, _) => since,
        };
        drop(state);
        self.term.keeper.progress.send_replace(());
        if idle {
            self.term.keeper.reportable.notify_one();
        }
    }
}

/// The names of the groups that a step makes.
fn names(step: &Step, name: impl Fn(&GroupKey) -> String) -> Vec<String> {
    match step {
        Step::Make(keys) => keys.iter().map(name).collect(),
        _ => Vec::new(),
    }
}

async fn carry_out(caller: &Caller, step: &Step, moment: u64, names: Vec<String>) -> Answer {
    match step {
        Step::Look => Answer::Looked(moment, caller.look().await),
        Step::Make(keys) => Answer::Made(caller.make(keys.iter().cloned().zip(names).collect()).await),
        Step::Read(_, id) => Answer::Read(caller.read(*id).await),
        Step::Group(step) => Answer::Group(caller.group(step).await),
        Step::Port { port, groups, .. } => Answer::Port(caller.port(*port, groups).await),
        Step::Delete(_, id) | Step::DeleteStray(id) => Answer::Deleted(caller.delete(*id).await),
    }
}

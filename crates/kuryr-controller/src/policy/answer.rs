//! What an answer changes of what is known, and what becomes of a failure.

use super::{call::GroupDone, error::Failure, keeper::State};
use kuryr_model::{ClusterId, SecurityGroupId, neutron::SecurityGroup};
use kuryr_openstack::Error;
use kuryr_plan::{
    enforce::{Hold, Object, Step},
    policy::GroupKey,
};
use std::{collections::BTreeSet, time::Duration};

/// What was answered to a step.
#[derive(Debug)]
pub(super) enum Answer {
    /// To a look, which began at that moment.
    Looked(u64, Result<Vec<SecurityGroup>, Error>),
    Made(Vec<(GroupKey, Result<SecurityGroup, Error>)>),
    Read(Result<Option<SecurityGroup>, Error>),
    Group(GroupDone),
    Port(Result<BTreeSet<SecurityGroupId>, Error>),
    Deleted(Result<(), Error>),
}

/// Something that failed, and when to try it again.
pub(super) struct Again {
    pub(super) object: Object,
    pub(super) after: Duration,
}

impl State {
    /// Takes over the answer to a step.
    pub(super) fn answer(&mut self, cluster: &ClusterId, step: &Step, answer: Answer) -> Vec<Again> {
        let mut again = Vec::new();
        match (step, answer) {
            (_, Answer::Looked(moment, Ok(groups))) => self.enforcer.looked(cluster, moment, &groups),
            // Asked again with the next plan.
            (_, Answer::Looked(_, Err(error))) => {
                tracing::warn!(error = %error, "the security groups cannot be listed");
            }
            (Step::Make(keys), Answer::Made(made)) => self.made(keys, made, &mut again),
            (Step::Read(key, _), Answer::Read(Ok(group))) => {
                self.enforcer.read(cluster, key, group.as_ref());
            }
            (Step::Read(key, _), Answer::Read(Err(error))) | (Step::Delete(key, _), Answer::Deleted(Err(error))) => {
                self.fail(Object::Group(key.clone()), step, &error, &mut again);
            }
            (Step::Group(group), Answer::Group(done)) => {
                if done.tagged {
                    self.enforcer.tagged(&group.key);
                }
                for id in &done.removed {
                    self.enforcer.removed(&group.key, *id);
                }
                self.enforcer.added(&group.key, &done.added);
                let object = Object::Group(group.key.clone());
                if done.errors.is_empty() {
                    self.failures.remove(&object);
                }
                for error in &done.errors {
                    // What somebody else did, or we did without hearing of it.
                    if error.is_ambiguous() || error.is_not_found() || is(error, "SecurityGroupRuleExists") {
                        self.enforcer.doubt(&group.key);
                    }
                    self.fail(object.clone(), step, error, &mut again);
                }
                if !done.removed.is_empty() {
                    self.enforcer.release_closed();
                }
            }
            (Step::Port { port, .. }, Answer::Port(Ok(groups))) => {
                self.failures.remove(&Object::Port(*port));
                let pod = self.enforcer.port(*port).map(|port| port.pod.clone());
                if let Some(pod) = pod {
                    self.enforcer.has(*port, &pod, groups);
                }
            }
            (Step::Port { port, .. }, Answer::Port(Err(error))) if is(&error, "PortNotFound") => {
                self.failures.remove(&Object::Port(*port));
                self.enforcer.port_gone(*port);
            }
            (Step::Port { port, groups, .. }, Answer::Port(Err(error))) => {
                if error.is_ambiguous() {
                    self.enforcer.unsure(*port, groups);
                }
                if error.is_not_found() {
                    // A group is gone.
                    self.enforcer.lost();
                }
                self.fail(Object::Port(*port), step, &error, &mut again);
            }
            (Step::Delete(key, _), Answer::Deleted(Ok(()))) => {
                self.failures.remove(&Object::Group(key.clone()));
                self.enforcer.vanished(key);
                self.enforcer.release_closed();
            }
            (Step::DeleteStray(id), Answer::Deleted(Ok(()))) => {
                self.failures.remove(&Object::Stray(*id));
                self.enforcer.stray_deleted(*id);
                self.enforcer.release_closed();
            }
            (Step::DeleteStray(id), Answer::Deleted(Err(error))) => {
                self.fail(Object::Stray(*id), step, &error, &mut again);
            }
            (step, answer) => tracing::error!(?step, ?answer, "an answer to another step"),
        }
        self.enforcer.end(step);
        again
    }

    fn made(
        &mut self,
        wanted: &[GroupKey],
        made: Vec<(GroupKey, Result<SecurityGroup, Error>)>,
        again: &mut Vec<Again>,
    ) {
        if made.len() < wanted.len() {
            tracing::warn!("Neutron answered a bulk create without some of the groups");
            self.enforcer.lost();
        }
        for (key, result) in made {
            match result {
                Ok(group) => {
                    tracing::info!(group = %group.id, name = group.name, "made a security group");
                    self.failures.remove(&Object::Group(key.clone()));
                    self.enforcer.made(&key, &group);
                }
                Err(error) => {
                    if error.is_ambiguous() {
                        self.enforcer.lost();
                    }
                    self.fail(Object::Group(key.clone()), &Step::Make(Vec::new()), &error, again);
                }
            }
        }
    }

    /// Notes a failure, and who goes without for it.
    fn fail(&mut self, object: Object, step: &Step, error: &Error, again: &mut Vec<Again>) {
        let before = self.failures.get(&object).map_or(0, |failure| failure.times);
        let failure = Failure::of(error, before);
        tracing::warn!(
            object = ?object, step = step.name(), reason = failure.reason, times = failure.times,
            error = %error, request = error.request_id(), "a step for policies failed and is tried again"
        );
        self.enforcer.hold(object.clone(), if failure.closes() { Hold::Closed } else { Hold::Soon });
        again.push(Again { object: object.clone(), after: failure.after });
        self.failures.insert(object, failure);
    }
}

fn is(error: &Error, kind: &str) -> bool {
    error.refusal().is_some_and(|refusal| refusal.kind == kind)
}

//! The requests of each step. Nothing here decides anything: what came of a request is handed back as it was answered.

use futures::future::join_all;
use kuryr_model::{
    ClusterId, PortId, SecurityGroupId, SecurityGroupRuleId,
    neutron::{RuleContent, SecurityGroup, SecurityGroupRule},
};
use kuryr_openstack::{
    Cloud, Error, Filter,
    network::{
        PortUpdate,
        security_groups::{NewRule, NewSecurityGroup},
        tags::Tagged,
    },
};
use kuryr_plan::{
    enforce::{GroupStep, Order},
    policy::{GroupKey, description},
};
use std::collections::BTreeSet;

/// Groups made in one request. Neutron makes them one after another.
const GROUPS: usize = 20;

/// Rules made in one request. Neutron was seen to take 1.7 seconds for 50.
const RULES: usize = 100;

/// What came of a group's step: as far as it went, and what ended it.
#[derive(Debug, Default)]
pub(super) struct GroupDone {
    pub(super) tagged: bool,
    pub(super) removed: Vec<SecurityGroupRuleId>,
    pub(super) added: Vec<SecurityGroupRule>,
    pub(super) errors: Vec<Error>,
}

/// Makes requests to Neutron for one cluster.
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) cloud: Cloud,
    pub(super) cluster: ClusterId,
}

impl Caller {
    /// All groups of ours, tagged or not.
    pub(super) async fn look(&self) -> Result<Vec<SecurityGroup>, Error> {
        let ours = Filter::new().with("description", description(&self.cluster));
        self.cloud.network().security_groups().list(&ours).await
    }

    /// Makes groups, each with its name. A request that Neutron refuses is halved until the group that it refuses stands
    /// alone.
    pub(super) async fn make(&self, wanted: Vec<(GroupKey, String)>) -> Vec<(GroupKey, Result<SecurityGroup, Error>)> {
        let mut done = Vec::with_capacity(wanted.len());
        let mut left: Vec<Vec<(GroupKey, String)>> = wanted.chunks(GROUPS).rev().map(<[_]>::to_vec).collect();
        while let Some(mut some) = left.pop() {
            let new = some
                .iter()
                .map(|(_, name)| NewSecurityGroup { name: name.clone(), description: description(&self.cluster) });
            match self.cloud.network().security_groups().create_many(&new.collect::<Vec<_>>()).await {
                Ok(made) => done.extend(matched(some, made)),
                Err(error) if error.is_quota() && some.len() > 1 => {
                    let rest = some.split_off(some.len() / 2);
                    left.push(rest);
                    left.push(some);
                }
                Err(error) => done.extend(some.into_iter().map(|(key, _)| (key, Err(error.clone())))),
            }
        }
        done
    }

    /// One group; `None` if it is not there.
    pub(super) async fn read(&self, id: SecurityGroupId) -> Result<Option<SecurityGroup>, Error> {
        match self.cloud.network().security_groups().get(id).await {
            Ok(group) => Ok(Some(group)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Gives a group its tags and rules.
    pub(super) async fn group(&self, step: &GroupStep) -> GroupDone {
        let mut done = GroupDone::default();
        match step.order {
            Order::Any => {
                let (tagged, removed, added) =
                    tokio::join!(self.tag(step), self.remove(&step.remove), self.add(step.id, &step.add));
                done.tags(tagged);
                done.removed(removed);
                done.added(added);
            }
            Order::AddFirst => {
                let (tagged, added) = tokio::join!(self.tag(step), self.add(step.id, &step.add));
                done.tags(tagged);
                done.added(added);
                // Where there is no room for what is to come, what is to go makes some.
                done.removed(self.remove(&step.remove).await);
            }
        }
        done
    }

    async fn tag(&self, step: &GroupStep) -> Option<Result<(), Error>> {
        if !step.tag {
            return None;
        }
        let tags = step.key.tags(&self.cluster);
        Some(self.cloud.network().tags().set(Tagged::SecurityGroup(step.id), &tags).await.map(drop))
    }

    async fn remove(&self, rules: &[SecurityGroupRuleId]) -> Vec<Result<SecurityGroupRuleId, Error>> {
        let network = self.cloud.network();
        let network = &network;
        join_all(rules.iter().map(|id| async move { network.security_groups().delete_rule(*id).await.map(|()| *id) }))
            .await
    }

    async fn add(&self, group: SecurityGroupId, rules: &[RuleContent]) -> Vec<Result<Vec<SecurityGroupRule>, Error>> {
        let mut results = Vec::new();
        for some in rules.chunks(RULES) {
            let new: Vec<NewRule> =
                some.iter().map(|allows| NewRule { security_group_id: group, allows: allows.clone() }).collect();
            let result = self.cloud.network().security_groups().create_rules(&new).await;
            let failed = result.is_err();
            results.push(result);
            if failed {
                break;
            }
        }
        results
    }

    /// Gives a port just these groups; those that it has then.
    pub(super) async fn port(
        &self,
        port: PortId,
        groups: &BTreeSet<SecurityGroupId>,
    ) -> Result<BTreeSet<SecurityGroupId>, Error> {
        let change = PortUpdate { security_groups: Some(groups.iter().copied().collect()), ..PortUpdate::default() };
        let port = self.cloud.network().ports().update(port, &change, None).await?;
        Ok(port.security_groups.into_iter().collect())
    }

    /// Deletes a group.
    pub(super) async fn delete(&self, id: SecurityGroupId) -> Result<(), Error> {
        self.cloud.network().security_groups().delete(id).await
    }
}

impl GroupDone {
    fn tags(&mut self, result: Option<Result<(), Error>>) {
        match result {
            None => {}
            Some(Ok(())) => self.tagged = true,
            Some(Err(error)) => self.errors.push(error),
        }
    }

    fn removed(&mut self, results: Vec<Result<SecurityGroupRuleId, Error>>) {
        for result in results {
            match result {
                Ok(id) => self.removed.push(id),
                Err(error) => self.errors.push(error),
            }
        }
    }

    fn added(&mut self, results: Vec<Result<Vec<SecurityGroupRule>, Error>>) {
        for result in results {
            match result {
                Ok(mut rules) => self.added.append(&mut rules),
                Err(error) => self.errors.push(error),
            }
        }
    }
}

/// What was made, by what was wanted: by name, for Neutron promises no order.
fn matched(
    wanted: Vec<(GroupKey, String)>,
    mut made: Vec<SecurityGroup>,
) -> Vec<(GroupKey, Result<SecurityGroup, Error>)> {
    let mut done = Vec::new();
    for (key, name) in wanted {
        if let Some(at) = made.iter().position(|group| group.name == name) {
            done.push((key, Ok(made.swap_remove(at))));
        }
    }
    done
}

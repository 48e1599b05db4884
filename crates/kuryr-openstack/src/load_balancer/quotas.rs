//! How much a project may have. Octavia does not say how much of it is used: count.

use super::LoadBalancing;
use crate::Error;
use kuryr_model::ProjectId;
use std::collections::BTreeMap;

/// The most that a project may have of each kind; `None`: as many as wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quotas {
    /// Load balancers.
    pub load_balancers: Option<u64>,
    /// Listeners.
    pub listeners: Option<u64>,
    /// Listener pools.
    pub pools: Option<u64>,
    /// Members of all listener pools together.
    pub members: Option<u64>,
    /// Health monitors.
    pub health_monitors: Option<u64>,
}

/// Octavia's answer: older releases write `load_balancer`, newer ones `loadbalancer`, some both.
type Answer = BTreeMap<String, Option<i64>>;

impl From<&Answer> for Quotas {
    fn from(answer: &Answer) -> Self {
        // -1 is no limit.
        let of = |names: &[&str]| {
            let limit = names.iter().find_map(|name| answer.get(*name).copied().flatten());
            limit.and_then(|limit| u64::try_from(limit).ok())
        };
        Self {
            load_balancers: of(&["loadbalancer", "load_balancer"]),
            listeners: of(&["listener"]),
            pools: of(&["pool"]),
            members: of(&["member"]),
            health_monitors: of(&["healthmonitor", "health_monitor"]),
        }
    }
}

impl LoadBalancing {
    /// The quotas of a project.
    pub async fn quotas(&self, project: &ProjectId) -> Result<Quotas, Error> {
        let answer: Answer = self.rest.ask("quotas", &format!("/quotas/{project}"), String::new(), "quota").await?;
        Ok(Quotas::from(&answer))
    }

    /// Changes one quota of a project, by Octavia's name of the kind (`loadbalancer`, `member`); less than 0: as many as
    /// wanted. Only administrators may.
    pub async fn set_quota(&self, project: &ProjectId, kind: &str, limit: i64) -> Result<(), Error> {
        let change = BTreeMap::from([("quota", BTreeMap::from([(kind, limit)]))]);
        self.rest.put("quotas", &format!("/quotas/{project}"), &change).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn quotas_are_read_under_their_old_and_new_names() {
        for names in [["loadbalancer", "healthmonitor"], ["load_balancer", "health_monitor"]] {
            let answer = json!({names[0]: 10, "listener": -1, "pool": 0, "member": null, names[1]: 7, "l7rule": 3});
            let quotas = Quotas::from(&serde_json::from_value(answer).unwrap());
            assert_eq!((quotas.load_balancers, quotas.health_monitors), (Some(10), Some(7)));
            assert_eq!((quotas.listeners, quotas.pools, quotas.members), (None, Some(0), None));
        }
    }
}

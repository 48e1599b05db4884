//! What a project may have, and has.

use super::Network;
use crate::Error;
use kuryr_model::ProjectId;
use serde::Deserialize;
use std::collections::BTreeMap;

/// A project's quota of one kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Quota {
    /// The most that there may be; less than 0: as many as wanted.
    pub limit: i64,
    /// How many there are.
    pub used: u64,
    /// How many are just being made.
    #[serde(default)]
    pub reserved: u64,
}

impl Quota {
    /// How many more there may be; none: as many as wanted.
    #[must_use]
    pub fn free(&self) -> Option<u64> {
        let limit = u64::try_from(self.limit).ok()?;
        Some(limit.saturating_sub(self.used + self.reserved))
    }
}

impl Network {
    /// All quotas of a project by Neutron's name of the kind: `port`, `security_group_rule`. Needs the extension
    /// `quota_details`.
    pub async fn quotas(&self, project: &ProjectId) -> Result<BTreeMap<String, Quota>, Error> {
        self.rest.ask("quotas", &format!("/quotas/{project}/details.json"), String::new(), "quota").await
    }

    /// Changes one quota of a project; less than 0: as many as wanted. Only administrators may.
    pub async fn set_quota(&self, project: &ProjectId, kind: &str, limit: i64) -> Result<(), Error> {
        let change = BTreeMap::from([("quota", BTreeMap::from([(kind, limit)]))]);
        self.rest.put("quotas", &format!("/quotas/{project}"), &change).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_being_made_counts() {
        assert_eq!(Quota { limit: 10, used: 7, reserved: 1 }.free(), Some(2));
        assert_eq!(Quota { limit: 5, used: 7, reserved: 0 }.free(), Some(0));
        assert_eq!(Quota { limit: -1, used: 7, reserved: 0 }.free(), None);
    }
}

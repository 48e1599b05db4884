//! Health monitors: what watches the members of listener pools.

use super::{Filter, Kind, LoadBalancing, Rest};
use crate::Error;
use kuryr_model::{
    HealthMonitorId, ListenerPoolId,
    lb::{HealthMonitor, MonitorType},
};
use serde::Serialize;

const KIND: Kind = Kind {
    path: "healthmonitors",
    plural: "healthmonitors",
    single: "healthmonitor",
    fields: &[
        "id",
        "name",
        "provisioning_status",
        "operating_status",
        "type",
        "delay",
        "timeout",
        "max_retries",
        "max_retries_down",
        "http_method",
        "url_path",
        "expected_codes",
        "pools",
        "tags",
    ],
};

/// A health monitor to be created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NewHealthMonitor {
    /// For people.
    pub name: String,
    /// How it asks.
    #[serde(rename = "type")]
    pub kind: MonitorType,
    /// Time between two questions, in seconds. Octavia wants at least 3 (unless configured otherwise) for `UDP-CONNECT`.
    pub delay: u32,
    /// How long a member may take to answer, in seconds; less than `delay`.
    pub timeout: u32,
    /// Good answers after which a member is up, 1 to 10.
    pub max_retries: u32,
    /// Missing answers after which a member is down, 1 to 10; 3 unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_retries_down: Option<u32>,
    /// The HTTP method; `GET` unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_method: Option<String>,
    /// The path of the HTTP request; `/` unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_path: Option<String>,
    /// The HTTP statuses that are good; `200` unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_codes: Option<String>,
    /// Its tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

/// What is to change of a health monitor; what is `None` stays, what is `Some(None)` returns to Octavia's default. Its
/// type and its listener pool cannot change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HealthMonitorUpdate {
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Time between two questions, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<u32>,
    /// How long a member may take to answer, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u32>,
    /// Good answers after which a member is up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_retries: Option<u32>,
    /// Missing answers after which a member is down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_retries_down: Option<Option<u32>>,
    /// The HTTP method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_method: Option<Option<String>>,
    /// The path of the HTTP request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_path: Option<Option<String>>,
    /// The HTTP statuses that are good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_codes: Option<Option<String>>,
    /// All its tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
}

/// The calls.
#[derive(Clone, Copy, Debug)]
pub struct HealthMonitors<'a>(&'a Rest);

impl LoadBalancing {
    /// Health monitors.
    #[must_use]
    pub fn health_monitors(&self) -> HealthMonitors<'_> {
        HealthMonitors(&self.rest)
    }
}

impl HealthMonitors<'_> {
    /// Those that the filter lets through; `pool_id` is a key of it.
    pub async fn list(&self, filter: &Filter) -> Result<Vec<HealthMonitor>, Error> {
        self.0.list(&KIND, filter).await
    }

    /// One.
    pub async fn get(&self, id: HealthMonitorId) -> Result<HealthMonitor, Error> {
        self.0.get(&KIND, id).await
    }

    /// Creates one for a listener pool that is there and has none.
    pub async fn create(&self, pool: ListenerPoolId, monitor: &NewHealthMonitor) -> Result<HealthMonitor, Error> {
        #[derive(Serialize)]
        struct New<'a> {
            pool_id: ListenerPoolId,
            #[serde(flatten)]
            monitor: &'a NewHealthMonitor,
        }
        self.0.create(&KIND, &New { pool_id: pool, monitor }).await
    }

    /// Changes one.
    pub async fn update(&self, id: HealthMonitorId, change: &HealthMonitorUpdate) -> Result<HealthMonitor, Error> {
        self.0.update(&KIND, id, change, None).await
    }

    /// Deletes one. One that is gone already is deleted.
    pub async fn delete(&self, id: HealthMonitorId) -> Result<(), Error> {
        self.0.delete(&KIND, id).await
    }
}

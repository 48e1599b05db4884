//! What Octavia keeps: a load balancer with all that is in it.
//!
//! Each thing has two sides: what was asked for last (`spec`), and what its provider has made of it (`live`). They are the same
//! unless a change is on its way or was lost.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;
use serde_json::{Map, Value};
use tokio::time::Instant;
use uuid::Uuid;

use super::providers::Provider;
use super::provisioning::Step;
use crate::cloud::body::Body;

/// `provisioning_status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Provisioning {
    PendingCreate,
    PendingUpdate,
    PendingDelete,
    Active,
    Error,
}

impl Provisioning {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::PendingCreate => "PENDING_CREATE",
            Self::PendingUpdate => "PENDING_UPDATE",
            Self::PendingDelete => "PENDING_DELETE",
            Self::Active => "ACTIVE",
            Self::Error => "ERROR",
        }
    }
}

/// `operating_status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operating {
    Online,
    Offline,
    NoMonitor,
    Draining,
    Degraded,
    Error,
}

impl Operating {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Online => "ONLINE",
            Self::Offline => "OFFLINE",
            Self::NoMonitor => "NO_MONITOR",
            Self::Draining => "DRAINING",
            Self::Degraded => "DEGRADED",
            Self::Error => "ERROR",
        }
    }
}

/// What everything has.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Head {
    pub(crate) id: Uuid,
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) tags: BTreeSet<String>,
    pub(crate) provisioning: Provisioning,
    pub(crate) operating: Operating,
    pub(crate) created: Timestamp,
    pub(crate) updated: Option<Timestamp>,
    /// Counts what was made, so that lists have the order of creation.
    pub(crate) serial: u64,
}

impl Head {
    pub(crate) fn new(serial: u64, now: Timestamp, body: &Body) -> Self {
        let mut head = Self {
            id: Uuid::new_v4(),
            name: String::new(),
            description: String::new(),
            tags: BTreeSet::new(),
            provisioning: Provisioning::PendingCreate,
            operating: Operating::Offline,
            created: now,
            updated: None,
            serial,
        };
        head.write(body);
        head
    }

    /// Takes over what a request names; `null` clears.
    pub(crate) fn write(&mut self, body: &Body) {
        for (name, target) in [("name", &mut self.name), ("description", &mut self.description)] {
            if body.has(name) {
                *target = body.text(name).unwrap_or_default().to_owned();
            }
        }
        if let Some(tags) = body.texts("tags") {
            self.tags = tags.into_iter().collect();
        }
    }
}

/// A thing with what was asked for and what is live.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row<S> {
    pub(crate) head: Head,
    pub(crate) spec: S,
    pub(crate) live: Option<S>,
}

impl<S: Clone> Row<S> {
    pub(crate) fn new(head: Head, spec: S) -> Self {
        Self { head, spec, live: None }
    }

    /// Makes live what was asked for.
    pub(crate) fn put(&mut self, now: Timestamp) {
        self.live = Some(self.spec.clone());
        self.head.provisioning = Provisioning::Active;
        self.head.updated = Some(now);
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ListenerSpec {
    pub(crate) enabled: bool,
    pub(crate) protocol: String,
    pub(crate) port: u16,
    pub(crate) connection_limit: i64,
    pub(crate) pool: Option<Uuid>,
    pub(crate) insert_headers: Map<String, Value>,
    pub(crate) cidrs: Vec<IpNet>,
    /// In milliseconds, in the order of [`super::listeners::TIMEOUTS`].
    pub(crate) timeouts: [i64; 4],
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Persistence {
    pub(crate) kind: String,
    pub(crate) cookie: Option<String>,
    pub(crate) timeout: Option<i64>,
    pub(crate) granularity: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PoolSpec {
    pub(crate) enabled: bool,
    pub(crate) protocol: String,
    pub(crate) algorithm: String,
    pub(crate) persistence: Option<Persistence>,
}

impl PoolSpec {
    pub(crate) fn is_datagram(&self) -> bool {
        ["UDP", "SCTP"].contains(&self.protocol.as_str())
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MemberSpec {
    pub(crate) enabled: bool,
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    pub(crate) weight: u16,
    pub(crate) backup: bool,
    pub(crate) subnet: Option<Uuid>,
    pub(crate) monitor_address: Option<IpAddr>,
    pub(crate) monitor_port: Option<u16>,
}

impl MemberSpec {
    pub(crate) fn has_monitor_options(&self) -> bool {
        self.monitor_address.is_some() || self.monitor_port.is_some()
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MonitorSpec {
    pub(crate) enabled: bool,
    pub(crate) kind: String,
    pub(crate) delay: i64,
    pub(crate) timeout: i64,
    pub(crate) max_retries: i64,
    pub(crate) max_retries_down: i64,
    pub(crate) http_method: Option<String>,
    pub(crate) url_path: Option<String>,
    pub(crate) expected_codes: Option<String>,
    pub(crate) http_version: Option<f64>,
    pub(crate) domain_name: Option<String>,
}

pub(crate) type Listener = Row<ListenerSpec>;
pub(crate) type Member = Row<MemberSpec>;
pub(crate) type Monitor = Row<MonitorSpec>;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pool {
    pub(crate) row: Row<PoolSpec>,
    pub(crate) members: Vec<Member>,
    pub(crate) monitor: Option<Monitor>,
}

impl Pool {
    pub(crate) fn id(&self) -> Uuid {
        self.row.head.id
    }
}

/// The address of a load balancer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Vip {
    pub(crate) address: IpAddr,
    pub(crate) port: Uuid,
    pub(crate) subnet: Uuid,
    pub(crate) network: Uuid,
    pub(crate) qos: Option<Uuid>,
    /// Whether the port was made for it, and so goes with it.
    pub(crate) owned: bool,
}

/// A further address. Without a port nothing answers at it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AdditionalVip {
    pub(crate) subnet: Uuid,
    pub(crate) address: Option<IpAddr>,
    pub(crate) port: Option<Uuid>,
}

/// Whether the provider works on a load balancer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    No,
    Until(Instant),
    UntilReleased,
}

/// A load balancer with all that is in it.
#[derive(Debug, Clone)]
pub(crate) struct LoadBalancer {
    pub(crate) head: Head,
    pub(crate) project: String,
    pub(crate) enabled: bool,
    /// `enabled` as the provider has it; `None` until the provider has made it.
    pub(crate) live: Option<bool>,
    pub(crate) provider: Provider,
    pub(crate) vip: Vip,
    pub(crate) additional: Vec<AdditionalVip>,
    pub(crate) flavor: Option<Uuid>,
    pub(crate) zone: Option<String>,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) pools: Vec<Pool>,
    /// What the provider has still to do, in order.
    pub(crate) queue: VecDeque<Step>,
    /// When the first step of the queue is done.
    pub(crate) due: Option<Instant>,
    pub(crate) hold: Hold,
}

impl LoadBalancer {
    pub(crate) fn listener(&self, id: Uuid) -> Option<&Listener> {
        self.listeners.iter().find(|listener| listener.head.id == id)
    }

    pub(crate) fn listener_mut(&mut self, id: Uuid) -> Option<&mut Listener> {
        self.listeners.iter_mut().find(|listener| listener.head.id == id)
    }

    pub(crate) fn pool(&self, id: Uuid) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.id() == id)
    }

    pub(crate) fn pool_mut(&mut self, id: Uuid) -> Option<&mut Pool> {
        self.pools.iter_mut().find(|pool| pool.id() == id)
    }

    pub(crate) fn member(&self, id: Uuid) -> Option<(&Pool, &Member)> {
        self.pools.iter().find_map(|pool| Some((pool, pool.members.iter().find(|member| member.head.id == id)?)))
    }

    pub(crate) fn member_mut(&mut self, id: Uuid) -> Option<&mut Member> {
        self.pools.iter_mut().flat_map(|pool| &mut pool.members).find(|member| member.head.id == id)
    }

    pub(crate) fn monitor(&self, id: Uuid) -> Option<(&Pool, &Monitor)> {
        let of = |pool: &&Pool| pool.monitor.as_ref().is_some_and(|monitor| monitor.head.id == id);
        self.pools.iter().find(of).and_then(|pool| Some((pool, pool.monitor.as_ref()?)))
    }

    pub(crate) fn monitor_mut(&mut self, id: Uuid) -> Option<&mut Monitor> {
        self.pools.iter_mut().filter_map(|pool| pool.monitor.as_mut()).find(|monitor| monitor.head.id == id)
    }

    /// The listeners whose default pool this is.
    pub(crate) fn listeners_of(&self, pool: Uuid) -> Vec<Uuid> {
        self.listeners.iter().filter(|listener| listener.spec.pool == Some(pool)).map(|l| l.head.id).collect()
    }

    /// The ids of all that is in it.
    pub(crate) fn children(&self) -> Vec<Uuid> {
        let mut ids: Vec<Uuid> = self.listeners.iter().map(|listener| listener.head.id).collect();
        for pool in &self.pools {
            ids.push(pool.id());
            ids.extend(pool.members.iter().map(|member| member.head.id));
            ids.extend(pool.monitor.iter().map(|monitor| monitor.head.id));
        }
        ids
    }
}

//! How the embedded cloud behaves: who may log in, how large quotas are, how long calls take.

use std::collections::BTreeMap;
use std::time::Duration;

use uuid::Uuid;

/// Settings of a [`Cloud`](super::Cloud). `Config::default()` is a cloud without limits and without latency.
#[derive(Debug, Clone)]
pub struct Config {
    /// The URL that catalog and links start with; `None` takes the Host header of each request.
    pub base_url: Option<String>,
    /// The only region.
    pub region: String,
    /// The administrator's name, in domain `Default`.
    pub user: String,
    /// The administrator's password.
    pub password: String,
    /// Projects by name; the first is the one that an application credential belongs to. All are in domain `Default`.
    pub projects: Vec<String>,
    /// The application credential's id, name and secret.
    pub application_credential: ApplicationCredential,
    /// How long a token is good for.
    pub token_lifetime: Duration,
    /// Quotas of every project that has none of its own.
    pub quotas: Quotas,
    /// MTU of networks that are made without one, in bytes.
    pub mtu: u16,
    /// `pagination_max_limit`: the most objects that one answer lists; `None` for no limit.
    pub page_limit: Option<usize>,
    /// The aliases that `/v2.0/extensions` lists.
    pub extensions: Vec<String>,
    /// What rules that name address groups are worth.
    pub address_groups: AddressGroups,
    /// How long calls take.
    pub latency: Latency,
    /// How Octavia behaves.
    pub load_balancing: LoadBalancing,
}

/// What becomes of a security group's rule that names an address group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AddressGroups {
    /// As on Zed with ML2/OVN: it is accepted and shown, and admits everyone.
    #[default]
    OpenToEveryone,
    /// As on releases since 2023.2: it admits the addresses of the group.
    Enforced,
}

/// How Octavia behaves.
#[derive(Debug, Clone)]
pub struct LoadBalancing {
    /// The provider of load balancers that name none.
    pub default_provider: String,
    /// The providers that may be named: `ovn` is the OVN provider, all others are amphorae.
    pub providers: Vec<String>,
    /// What the OVN provider can do.
    pub ovn: OvnRelease,
    /// Flavors, each of one provider.
    pub flavors: Vec<Flavor>,
    /// The names of availability zones.
    pub availability_zones: Vec<String>,
    /// Quotas of every project that has none of its own: `load_balancer`, `listener`, `pool`, `member`, `health_monitor`.
    pub quotas: Quotas,
    /// How long providers take.
    pub provisioning: Provisioning,
}

/// A release of the OVN provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OvnRelease {
    /// Takes additional VIPs, session persistence and, in a fully populated create, health monitors without effect; cannot use a given
    /// port as VIP; and deletes the port of a VIP whoever made it.
    Zed,
    /// Does all of these, and the algorithm `SOURCE_IP`.
    Later,
}

/// A flavor of load balancers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flavor {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// The provider that it is for.
    pub provider: String,
    /// Whether it may be used.
    pub enabled: bool,
}

/// How long providers take for what was asked of them, from the answer on. A load balancer is immutable meanwhile, so a little time is
/// the least.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provisioning {
    /// To make a load balancer.
    pub create: Duration,
    /// To make, change or delete something in it, or to change itself.
    pub update: Duration,
    /// To delete it with all that is in it.
    pub delete: Duration,
    /// To build it anew.
    pub failover: Duration,
    /// Each further object of the same request: the listeners, pools and members of a fully populated create, and all members of a
    /// batch but the first.
    pub object: Duration,
}

impl Default for Provisioning {
    fn default() -> Self {
        let short = Duration::from_millis(4);
        Self { create: short, update: short, delete: short, failover: short, object: Duration::from_millis(1) }
    }
}

impl Provisioning {
    /// About what a small real cloud (OVN provider, two cores) was measured to need.
    #[must_use]
    pub fn measured() -> Self {
        Self {
            create: Duration::from_millis(3_500),
            update: Duration::from_millis(3_000),
            delete: Duration::from_millis(3_000),
            failover: Duration::from_secs(60),
            object: Duration::from_millis(300),
        }
    }
}

impl Default for LoadBalancing {
    fn default() -> Self {
        Self {
            default_provider: "ovn".into(),
            providers: ["amphora", "octavia", "ovn"].map(str::to_owned).into(),
            ovn: OvnRelease::Zed,
            flavors: Vec::new(),
            availability_zones: Vec::new(),
            quotas: Quotas(OCTAVIA_QUOTAS.iter().map(|&name| (name, -1)).collect()),
            provisioning: Provisioning::default(),
        }
    }
}

const OCTAVIA_QUOTAS: [&str; 7] =
    ["load_balancer", "listener", "pool", "member", "health_monitor", "l7policy", "l7rule"];

/// An application credential of the administrator.
#[derive(Debug, Clone)]
pub struct ApplicationCredential {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its secret.
    pub secret: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            base_url: None,
            region: "RegionOne".into(),
            user: "admin".into(),
            password: "secret".into(),
            projects: vec!["admin".into(), "kuryr".into()],
            application_credential: ApplicationCredential {
                id: "6f3a4c1be8f94b2f9c7a3a0d1e5b7c21".into(),
                name: "kuryr".into(),
                secret: "application-credential-secret".into(),
            },
            token_lifetime: Duration::from_secs(3600),
            quotas: Quotas::unlimited(),
            mtu: 1442,
            page_limit: None,
            extensions: EXTENSIONS.iter().map(|&alias| alias.to_owned()).collect(),
            address_groups: AddressGroups::default(),
            latency: Latency::default(),
            load_balancing: LoadBalancing::default(),
        }
    }
}

/// What ML2/OVN of the Zed release lists, as far as the embedded cloud does it.
const EXTENSIONS: &[&str] = &[
    "address-group",
    "agent",
    "allowed-address-pairs",
    "binding",
    "default-subnetpools",
    "empty-string-filtering",
    "external-net",
    "ext-gw-mode",
    "filter-validation",
    "ip-substring-filtering",
    "net-mtu",
    "net-mtu-writable",
    "network-ip-availability",
    "pagination",
    "port-security",
    "project-id",
    "quotas",
    "quota_details",
    "revision-if-match",
    "router",
    "security-group",
    "security-groups-normalized-cidr",
    "security-groups-remote-address-group",
    "sorting",
    "standard-attr-description",
    "standard-attr-revisions",
    "standard-attr-tag",
    "standard-attr-timestamp",
    "stateful-security-group",
    "subnet_allocation",
    "tag-ports-during-bulk-creation",
    "trunk",
];

/// How many objects of each kind a project may have; -1 is unlimited, as in Neutron.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quotas(pub(super) BTreeMap<&'static str, i64>);

const NEUTRON_QUOTAS: &[(&str, i64)] = &[
    ("address_group", -1),
    ("floatingip", 50),
    ("network", 100),
    ("port", 500),
    ("rbac_policy", 10),
    ("router", 10),
    ("security_group", 10),
    ("security_group_rule", 100),
    ("subnet", 100),
    ("subnetpool", -1),
    ("trunk", -1),
];

impl Quotas {
    /// No limits.
    #[must_use]
    pub fn unlimited() -> Self {
        Self(NEUTRON_QUOTAS.iter().map(|&(name, _)| (name, -1)).collect())
    }

    /// Neutron's defaults: 500 ports, 10 security groups, ...
    #[must_use]
    pub fn neutron_defaults() -> Self {
        Self(NEUTRON_QUOTAS.iter().copied().collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<i64> {
        self.0.get(name).copied()
    }

    /// Sets one limit; false when no quota has that name.
    pub fn set(&mut self, name: &str, limit: i64) -> bool {
        match self.0.get_mut(name) {
            Some(value) => {
                *value = limit;
                true
            }
            None => false,
        }
    }
}

/// How long calls take before they are worked on. All zero by default.
#[derive(Debug, Clone, Default)]
pub struct Latency {
    /// Issue of a token.
    pub token: Duration,
    /// A list or show.
    pub read: Duration,
    /// A create of one object, or the fixed part of a bulk create.
    pub create: Duration,
    /// Each object of a bulk create, the first included.
    pub create_item: Duration,
    /// An update.
    pub update: Duration,
    /// Each subport that is put on a trunk or taken off it, besides the update.
    pub subport: Duration,
    /// A delete.
    pub delete: Duration,
    /// How many calls are worked on at once, as API workers are; `None` for any number.
    pub workers: Option<usize>,
}

impl Latency {
    /// About what a small real cloud (ML2/OVN, two cores) was measured to need.
    #[must_use]
    pub fn measured() -> Self {
        Self {
            token: Duration::from_millis(400),
            read: Duration::from_millis(100),
            create: Duration::from_millis(180),
            create_item: Duration::from_millis(170),
            update: Duration::from_millis(190),
            subport: Duration::from_millis(140),
            delete: Duration::from_millis(190),
            workers: Some(4),
        }
    }
}

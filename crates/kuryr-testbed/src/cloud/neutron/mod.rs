//! Neutron v2.0 (ML2/OVN, as of Zed) in memory.
//!
//! ```text
//!  Call ─▶ dispatch ─▶ verbs (list, show, create, update, delete) ─▶ one file per kind ─▶ tables, indexes, addresses
//! ```
//!
//! Invariants: a failed call has changed nothing; every change counts up the revision of what it changed; what an index says is what
//! a scan would find.

pub(super) mod address_groups;
mod addresses;
mod agents;
mod attrs;
mod availability;
mod binding;
mod discovery;
mod error;
pub(super) mod external;
mod floating_ips;
mod group_rules;
mod groups;
#[cfg(test)]
mod invariants;
mod ipam;
mod networks;
mod port_checks;
mod ports;
mod query;
mod quotas;
mod resource;
mod router_interfaces;
mod routers;
mod service;
mod subnet_pools;
mod subnets;
mod tags;
mod trunks;
mod verbs;
pub(super) mod view;

use std::collections::{BTreeMap, HashMap};

use axum::http::Method;
use uuid::Uuid;

use self::address_groups::AddressGroup;
pub use self::binding::HostKind;
pub(super) use self::error::Error;
use self::error::Result;
use self::floating_ips::FloatingIp;
use self::group_rules::Rule;
use self::groups::Group;
use self::ipam::Allocator;
use self::networks::Network;
pub use self::ports::PortStatus;
use self::ports::{Port, PortIndex};
pub(super) use self::resource::Caller;
use self::resource::{Resource, Table};
use self::routers::Router;
use self::subnet_pools::SubnetPool;
use self::subnets::Subnet;
use self::trunks::Trunk;
pub use self::trunks::TrunkStatus;
use super::config::{AddressGroups, Config, Quotas};
use super::http::{Answer, Call};

/// What the operator of this Neutron has configured.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) mtu: u16,
    pub(crate) page_limit: Option<usize>,
    pub(crate) quotas: Quotas,
    pub(crate) extensions: Vec<String>,
    /// ML2's extension driver `tag_ports_during_bulk_creation` is missing: the tags that a port is made with are ignored.
    pub(crate) drops_port_tags: bool,
    pub(crate) address_groups: AddressGroups,
}

/// Newer releases, which enforce address groups, can be told by an extension that has nothing to do with them.
fn extensions(config: &Config) -> Vec<String> {
    let newer = (config.address_groups == AddressGroups::Enforced).then(|| "security-groups-default-rules".to_owned());
    config.extensions.iter().cloned().chain(newer).collect()
}

/// All of Neutron's state.
#[derive(Debug)]
pub(crate) struct Neutron {
    pub(crate) settings: Settings,
    networks: Table<Network>,
    subnets: Table<Subnet>,
    subnet_pools: Table<SubnetPool>,
    ports: Table<Port>,
    port_index: PortIndex,
    routers: Table<Router>,
    floating_ips: Table<FloatingIp>,
    groups: Table<Group>,
    rules: Table<Rule>,
    address_groups: Table<AddressGroup>,
    trunks: Table<Trunk>,
    /// By subnet.
    allocators: HashMap<Uuid, Allocator>,
    /// The `default` security group of each project that has needed one.
    default_groups: HashMap<String, Uuid>,
    hosts: BTreeMap<String, HostKind>,
    /// Limits of projects that have their own.
    quotas: HashMap<String, BTreeMap<String, i64>>,
}

impl Neutron {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            settings: Settings {
                mtu: config.mtu,
                page_limit: config.page_limit,
                quotas: config.quotas.clone(),
                extensions: extensions(config),
                drops_port_tags: false,
                address_groups: config.address_groups,
            },
            networks: Table::default(),
            subnets: Table::default(),
            subnet_pools: Table::default(),
            ports: Table::default(),
            port_index: PortIndex::default(),
            routers: Table::default(),
            floating_ips: Table::default(),
            groups: Table::default(),
            rules: Table::default(),
            address_groups: Table::default(),
            trunks: Table::default(),
            allocators: HashMap::new(),
            default_groups: HashMap::new(),
            hosts: BTreeMap::new(),
            quotas: HashMap::new(),
        }
    }

    /// How many addresses are taken that no port has.
    pub(crate) fn lost_addresses(&self) -> usize {
        self.allocators.values().map(Allocator::lost).sum()
    }

    /// Works on one call.
    pub(crate) fn handle(&mut self, caller: &Caller, call: &Call) -> Answer {
        self.dispatch(caller, call).unwrap_or_else(|error| error.answer())
    }

    fn dispatch(&mut self, caller: &Caller, call: &Call) -> Result<Answer> {
        let mut path = call.segments();
        if let Some(last) = path.last_mut() {
            *last = last.strip_suffix(".json").unwrap_or(last);
        }
        let path = path.as_slice();
        let Some(("v2.0", path)) = path.split_first().map(|(first, rest)| (*first, rest)) else {
            return if path.is_empty() { Ok(discovery::versions(call)) } else { Err(Error::no_such_path()) };
        };
        let Some((&collection, rest)) = path.split_first() else {
            return Ok(discovery::resources(call));
        };
        match collection {
            "extensions" => discovery::extensions(self, call, rest),
            "agents" => agents::handle(self, call, rest),
            "network-ip-availabilities" => availability::handle(self, call, rest),
            "quotas" => quotas::handle(self, caller, call, rest),
            "networks" => self.collection::<Network>(caller, call, rest),
            "subnets" => self.collection::<Subnet>(caller, call, rest),
            "subnetpools" => self.collection::<SubnetPool>(caller, call, rest),
            "ports" => self.collection::<Port>(caller, call, rest),
            "routers" => match (&call.method, rest) {
                (&Method::PUT, [id, "add_router_interface"]) => router_interfaces::add(self, caller, call, id),
                (&Method::PUT, [id, "remove_router_interface"]) => router_interfaces::remove(self, caller, call, id),
                _ => self.collection::<Router>(caller, call, rest),
            },
            "floatingips" => self.collection::<FloatingIp>(caller, call, rest),
            "security-groups" => self.collection::<Group>(caller, call, rest),
            "security-group-rules" => self.collection::<Rule>(caller, call, rest),
            "address-groups" => match (&call.method, rest) {
                (&Method::PUT, [id, "add_addresses"]) => address_groups::add_addresses(self, caller, call, id),
                (&Method::PUT, [id, "remove_addresses"]) => address_groups::remove_addresses(self, caller, call, id),
                _ => self.collection::<AddressGroup>(caller, call, rest),
            },
            "trunks" => match (&call.method, rest) {
                (&Method::PUT, [id, "add_subports"]) => trunks::add_subports(self, caller, call, id),
                (&Method::PUT, [id, "remove_subports"]) => trunks::remove_subports(self, caller, call, id),
                (&Method::GET, [id, "get_subports"]) => trunks::get_subports(self, id),
                _ => self.collection::<Trunk>(caller, call, rest),
            },
            _ => Err(Error::no_such_path()),
        }
    }

    fn collection<R: Resource>(&mut self, caller: &Caller, call: &Call, rest: &[&str]) -> Result<Answer> {
        match (&call.method, rest) {
            (&Method::GET, []) => verbs::list::<R>(self, caller, call),
            (&Method::POST, []) => verbs::create::<R>(self, caller, call),
            (&Method::GET, [id]) => verbs::show::<R>(self, call, id),
            (&Method::PUT, [id]) => verbs::update::<R>(self, caller, call, id),
            (&Method::DELETE, [id]) => verbs::delete::<R>(self, caller, call, id),
            (_, [id, "tags", rest @ ..]) if R::KIND.tagged => tags::handle::<R>(self, caller, call, id, rest),
            (_, [] | [_]) => Err(Error::no_such_method()),
            _ => Err(Error::no_such_path()),
        }
    }

    /// The limit of a project; -1 for none.
    fn quota(&self, project: &str, name: &str) -> i64 {
        let own = self.quotas.get(project).and_then(|own| own.get(name)).copied();
        own.or_else(|| self.settings.quotas.0.get(name).copied()).unwrap_or(-1)
    }

    pub(crate) fn set_quota(&mut self, project: &str, name: &str, limit: i64) {
        self.quotas.entry(project.to_owned()).or_default().insert(name.to_owned(), limit);
    }

    pub(crate) fn add_host(&mut self, name: &str, kind: HostKind) {
        self.hosts.insert(name.to_owned(), kind);
    }

    pub(crate) fn remove_host(&mut self, name: &str) -> bool {
        self.hosts.remove(name).is_some()
    }
}

//! The embedded cloud: Keystone v3, Neutron v2.0 and Octavia v2 in memory, on one HTTP port, strict as the real ones.
//!
//! ```text
//!             HTTP                                         typed values
//!  clients ──────────▶ wire ─▶ server ─▶ Keystone, Neutron, Octavia ──▶ data plane
//!                              │  ▲                                 ◀── port status
//!                     call log ◀  ▶ faults, latency
//! ```
//!
//! A service is a function of its state and a [`Call`]; all that goes wrong on purpose happens around it, in the server. So a fault
//! cannot leave half a change behind, and what is in the state is always what some real cloud could hold.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use kuryr_testbed::cloud::{Cloud, Config, Fault, HostKind};
//!
//! let cloud = Cloud::new(Config::default());
//! cloud.add_host("node-1", HostKind::Tap);
//! let server = cloud.serve(tokio::net::TcpListener::bind("127.0.0.1:0").await?)?;
//! cloud.faults().add(Fault::unavailable().path("/v2.0/**").times(3));
//! println!("OS_AUTH_URL={}", server.auth_url());
//! # Ok(()) }
//! ```

mod body;
mod calls;
mod config;
mod faults;
mod http;
mod keystone;
mod neutron;
mod octavia;
mod server;
#[cfg(test)]
mod tests;
mod wire;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use uuid::Uuid;

pub use self::calls::{CallRecord, Calls};
pub use self::config::{
    AddressGroups, ApplicationCredential, Config, Flavor, Latency, LoadBalancing as LoadBalancingConfig, OvnRelease,
    Provisioning, Quotas,
};
pub use self::faults::{Effect, Fault, FaultId, Faults};
pub use self::http::{Call, Service};
use self::keystone::Keystone;
use self::neutron::Neutron;
pub use self::neutron::view::{
    AddressPair, FloatingIpView, ListenerView, LoadBalancerView, MemberView, NetworkView, PortView, RouterView,
    RuleView, SecurityGroupView, Snapshot, SubnetView,
};
pub use self::neutron::{HostKind, PortStatus, TrunkStatus};
use self::octavia::Octavia;
pub use self::octavia::hooks::{LoadBalancerState, LoadBalancing};
pub use self::server::Server;
use self::wire::Connections;

/// The embedded cloud. Cheap to clone; clones are the same cloud.
#[derive(Clone)]
pub struct Cloud(Arc<Inner>);

struct Inner {
    config: Config,
    keystone: Mutex<Keystone>,
    /// Locked before Neutron, if both are.
    octavia: Mutex<Octavia>,
    neutron: Mutex<Neutron>,
    faults: Faults,
    calls: Calls,
    changes: watch::Sender<u64>,
    connections: Arc<Connections>,
    workers: Option<Semaphore>,
}

impl fmt::Debug for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cloud").field("changes", &*self.0.changes.borrow()).finish_non_exhaustive()
    }
}

impl Cloud {
    /// A cloud with its projects and its user, and nothing else in it.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self(Arc::new(Inner {
            keystone: Mutex::new(Keystone::new(&config)),
            octavia: Mutex::new(Octavia::new(&config)),
            neutron: Mutex::new(Neutron::new(&config)),
            faults: Faults::default(),
            calls: Calls::default(),
            changes: watch::Sender::new(0),
            connections: Arc::default(),
            workers: config.latency.workers.map(Semaphore::new),
            config,
        }))
    }

    /// Serves on a listener until the handle is dropped. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The listener has no local address.
    pub fn serve(&self, listener: tokio::net::TcpListener) -> std::io::Result<Server> {
        server::serve(self.clone(), listener)
    }

    /// The settings that the cloud was made with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The rules by which calls go wrong.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.0.faults
    }

    /// The log of calls.
    #[must_use]
    pub fn calls(&self) -> &Calls {
        &self.0.calls
    }

    /// Cuts all connections, and closes new ones at once, until [`Cloud::come_back`].
    pub fn go_away(&self) {
        self.0.connections.set_away(true);
    }

    /// Ends [`Cloud::go_away`].
    pub fn come_back(&self) {
        self.0.connections.set_away(false);
    }

    /// Makes all tokens that were issued bad.
    pub fn expire_tokens(&self) {
        self.keystone().expire_tokens();
    }

    /// Every token that was ever issued.
    pub fn issued_tokens(&self) -> Vec<String> {
        self.keystone().issued.clone()
    }

    /// Whether a port keeps the tags that it is made with. Neutron drops them without a word unless ML2's extension driver
    /// `tag_ports_during_bulk_creation` is configured.
    pub fn keep_port_tags(&self, keep: bool) {
        self.neutron().settings.drops_port_tags = !keep;
    }

    /// Adds a project, or finds the one of that name; its id.
    #[must_use]
    pub fn add_project(&self, name: &str) -> String {
        self.keystone().add_project(name)
    }

    /// The id of a project by its name.
    #[must_use]
    pub fn project_id(&self, name: &str) -> Option<String> {
        self.keystone().project_id(name).map(str::to_owned)
    }

    /// Sets a quota of a project (by id), e.g. `port`; -1 for no limit.
    pub fn set_quota(&self, project: &str, name: &str, limit: i64) {
        self.neutron().set_quota(project, name, limit);
    }

    /// How many addresses Neutron has lost: taken for the first ports of bulk creates that then did not fit, and never given back.
    #[must_use]
    pub fn lost_addresses(&self) -> usize {
        self.neutron().lost_addresses()
    }

    /// Makes an external network with one subnet, both of this name, as whoever runs a cloud does. False when Neutron refuses it.
    pub fn add_external_network(&self, name: &str, cidr: ipnet::IpNet) -> bool {
        let caller = neutron::Caller { project: self.add_project("operator"), now: Timestamp::now() };
        let made = neutron::external::create(&mut self.neutron(), &caller, name, cidr).is_ok();
        self.announce();
        made
    }

    /// Adds a rule to a security group that admits the addresses of an address group made for it, as a user might. False when
    /// Neutron refuses it.
    pub fn admit_address_group(&self, group: Uuid, addresses: &[ipnet::IpNet]) -> bool {
        let caller = neutron::Caller { project: self.add_project("operator"), now: Timestamp::now() };
        let made = neutron::address_groups::admit(&mut self.neutron(), &caller, group, addresses).is_ok();
        self.announce();
        made
    }

    /// Makes a host known: from now on ports with this `binding:host_id` are bound.
    pub fn add_host(&self, name: &str, kind: HostKind) {
        self.neutron().add_host(name, kind);
        self.announce();
    }

    /// Makes a host unknown. Ports that are bound to it stay so. False when it was not known.
    pub fn remove_host(&self, name: &str) -> bool {
        self.neutron().remove_host(name)
    }

    /// Counts the changes of Neutron's and Octavia's state; a data plane waits for it and reads a [`Cloud::snapshot`].
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// All that a data plane needs, at one moment.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.provision();
        let octavia = self.octavia();
        let mut snapshot = self.neutron().snapshot();
        snapshot.load_balancers = octavia.views();
        snapshot
    }

    /// Octavia's load balancers behind the back of its API.
    #[must_use]
    pub fn load_balancing(&self) -> LoadBalancing {
        LoadBalancing(self.clone())
    }

    /// One port.
    #[must_use]
    pub fn port(&self, id: Uuid) -> Option<PortView> {
        self.neutron().port(id)
    }

    /// All ports in the order of their ids.
    #[must_use]
    pub fn ports(&self) -> Vec<PortView> {
        self.neutron().port_views()
    }

    /// What the data plane says of a port. False when there is no such port.
    pub fn set_port_status(&self, id: Uuid, status: PortStatus) -> bool {
        let found = self.neutron().set_port_status(id, status, Timestamp::now());
        if found {
            self.announce();
        }
        found
    }

    /// What the driver says of a trunk. False when there is no such trunk.
    pub fn set_trunk_status(&self, id: Uuid, status: TrunkStatus) -> bool {
        self.neutron().set_trunk_status(id, status, Timestamp::now())
    }

    fn keystone(&self) -> MutexGuard<'_, Keystone> {
        self.0.keystone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn neutron(&self) -> MutexGuard<'_, Neutron> {
        self.0.neutron.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn octavia(&self) -> MutexGuard<'_, Octavia> {
        self.0.octavia.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what the providers of load balancers have done by now; when they are through with the next thing.
    fn provision(&self) -> Option<Instant> {
        let (changed, next) = {
            let mut octavia = self.octavia();
            octavia.advance(&mut self.neutron(), Instant::now(), Timestamp::now())
        };
        if changed {
            self.announce();
        }
        next
    }

    fn announce(&self) {
        self.0.changes.send_modify(|changes| *changes += 1);
    }
}

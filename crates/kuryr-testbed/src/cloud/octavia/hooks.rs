//! What can be done to load balancers from outside of the API, for tests.

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use uuid::Uuid;

use super::Octavia;
use super::model::{Hold, LoadBalancer, Operating};
use crate::cloud::Cloud;

/// What goes wrong on purpose.
#[derive(Debug, Default)]
pub(crate) struct Hooks {
    pub(crate) hold_new: bool,
    failing_creates: usize,
    failing_failovers: usize,
}

fn take_one(left: &mut usize) -> bool {
    let taken = *left > 0;
    *left = left.saturating_sub(1);
    taken
}

impl Hooks {
    pub(crate) fn take_failing_create(&mut self) -> bool {
        take_one(&mut self.failing_creates)
    }

    pub(crate) fn take_failing_failover(&mut self) -> bool {
        take_one(&mut self.failing_failovers)
    }
}

/// A load balancer as a test sees it, without asking the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadBalancerState {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// `ACTIVE`, `PENDING_CREATE`, ...
    pub provisioning_status: &'static str,
    /// `ONLINE`, `OFFLINE`, ...
    pub operating_status: &'static str,
    /// Its address.
    pub vip_address: IpAddr,
    /// The port that holds its address.
    pub vip_port: Uuid,
    /// Its tags in order.
    pub tags: Vec<String>,
    /// Whether its provider has still something to do.
    pub busy: bool,
}

/// Octavia's load balancers behind the back of its API. From [`Cloud::load_balancing`].
#[derive(Debug, Clone)]
pub struct LoadBalancing(pub(crate) Cloud);

impl LoadBalancing {
    fn with<T>(&self, change: impl FnOnce(&mut Octavia) -> T) -> T {
        let out = change(&mut self.0.octavia());
        self.0.announce();
        out
    }

    /// Changes a load balancer; false when it is not there.
    fn change(&self, id: Uuid, change: impl FnOnce(&mut LoadBalancer)) -> bool {
        self.with(|octavia| octavia.change(id, change).is_some())
    }

    /// All load balancers in the order in which they were made.
    #[must_use]
    pub fn all(&self) -> Vec<LoadBalancerState> {
        self.0.provision();
        let octavia = self.0.octavia();
        let mut all: Vec<&LoadBalancer> = octavia.balancers().collect();
        all.sort_by_key(|balancer| balancer.head.serial);
        all.into_iter().map(state).collect()
    }

    /// One load balancer.
    #[must_use]
    pub fn get(&self, id: Uuid) -> Option<LoadBalancerState> {
        self.0.provision();
        self.0.octavia().balancers.get(&id).map(state)
    }

    /// Waits until no provider has anything to do, but for load balancers that are held until they are released.
    pub async fn settled(&self) {
        let mut changes = self.0.subscribe();
        while let Some(due) = self.0.provision() {
            tokio::select! {
                _ = changes.changed() => {}
                () = tokio::time::sleep_until(due) => {}
            }
        }
    }

    /// Puts a load balancer into `ERROR`. The data plane keeps what it had. False when it is not there.
    pub fn fail(&self, id: Uuid) -> bool {
        self.change(id, LoadBalancer::fail)
    }

    /// Makes a load balancer vanish with all that is in it, and with its port. False when it is not there.
    pub fn lose(&self, id: Uuid) -> bool {
        let lost = self.with(|octavia| octavia.remove(id));
        for port in lost.iter().flat_map(LoadBalancer::own_ports) {
            self.0.neutron().drop_port(port, Timestamp::now());
        }
        self.0.announce();
        lost.is_some()
    }

    /// Makes the members with this address and port number vanish from a load balancer. False when there is none.
    pub fn lose_member(&self, id: Uuid, address: IpAddr, port: u16) -> bool {
        let mut lost = false;
        self.change(id, |balancer| {
            for pool in &mut balancer.pools {
                let before = pool.members.len();
                pool.members.retain(|member| (member.spec.address, member.spec.port) != (address, port));
                lost |= pool.members.len() < before;
            }
            balancer.observe();
        });
        lost
    }

    /// Makes a provider stop working on a load balancer, which so stays in its `PENDING_*` state, until [`LoadBalancing::release`].
    /// False when it is not there.
    pub fn hold(&self, id: Uuid) -> bool {
        self.change(id, |balancer| balancer.hold = Hold::UntilReleased)
    }

    /// The same for a time from now on.
    pub fn hold_for(&self, id: Uuid, time: Duration) -> bool {
        self.change(id, |balancer| balancer.hold = Hold::Until(Instant::now() + time))
    }

    /// Ends [`LoadBalancing::hold`]. False when it is not there.
    pub fn release(&self, id: Uuid) -> bool {
        self.change(id, |balancer| balancer.hold = Hold::No)
    }

    /// Holds every load balancer that is made from now on, until each is released; or, with `false`, none any more.
    pub fn hold_new(&self, hold: bool) {
        self.with(|octavia| octavia.hooks.hold_new = hold);
    }

    /// Makes the next so many creates end in `ERROR`.
    pub fn fail_creates(&self, times: usize) {
        self.with(|octavia| octavia.hooks.failing_creates = times);
    }

    /// Makes the next so many failovers end in `ERROR`.
    pub fn fail_failovers(&self, times: usize) {
        self.with(|octavia| octavia.hooks.failing_failovers = times);
    }

    /// Sets a quota of a project (by id), e.g. `load_balancer`; -1 for no limit.
    pub fn set_quota(&self, project: &str, name: &str, limit: i64) {
        self.with(|octavia| octavia.set_quota(project, name, limit));
    }

    /// What health monitors have seen of the members with this address and port number: whether they answer. Members that nothing
    /// watches stay as they are. False when there is none.
    pub fn report_member(&self, id: Uuid, address: IpAddr, port: u16, online: bool) -> bool {
        let mut found = false;
        self.change(id, |balancer| {
            for pool in balancer.pools.iter_mut().filter(|pool| pool.monitor.is_some()) {
                let is =
                    |member: &&mut super::model::Member| (member.spec.address, member.spec.port) == (address, port);
                for member in pool.members.iter_mut().filter(is) {
                    member.head.operating = if online { Operating::Online } else { Operating::Error };
                    found = true;
                }
            }
            balancer.observe();
        });
        found
    }
}

fn state(balancer: &LoadBalancer) -> LoadBalancerState {
    LoadBalancerState {
        id: balancer.head.id,
        name: balancer.head.name.clone(),
        provisioning_status: balancer.head.provisioning.text(),
        operating_status: balancer.head.operating.text(),
        vip_address: balancer.vip.address,
        vip_port: balancer.vip.port,
        tags: balancer.head.tags.iter().cloned().collect(),
        busy: !balancer.queue.is_empty(),
    }
}

//! Stories of pools, and any history against a model that shares no code with them.

mod model;
mod stories;
mod trunks;

use super::{Bulk, Headroom, Place, PoolKey, Pools, Settings};
use crate::subnets::Choice;
use kuryr_model::{
    NetworkId, PodUid, PortId, SubnetId,
    neutron::{FixedIp, Port, PortStatus, VifDetails},
};
use std::time::Duration;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn id(kind: u8, n: u32) -> String {
    format!("000000{kind:02x}-0000-0000-0000-0000{n:08x}")
}

fn network(n: u8) -> NetworkId {
    id(0xee, n.into()).parse().unwrap()
}

fn subnet(n: u8) -> SubnetId {
    id(0xdd, n.into()).parse().unwrap()
}

fn choice(net: u8, subnets: &[u8]) -> Choice {
    Choice { network: network(net), subnets: subnets.iter().map(|n| subnet(*n)).collect() }
}

fn place(n: u8) -> Place {
    Place::Host(format!("node{n}"))
}

fn key(n: u8) -> PoolKey {
    PoolKey { place: place(n), network: network(0) }
}

fn pod(n: u32) -> PodUid {
    format!("pod-{n}").into()
}

fn port_id(n: u32) -> PortId {
    id(0xaa, n).parse().unwrap()
}

fn port(n: u32, choice: &Choice, host: &Place) -> Port {
    let fixed = |subnet: &SubnetId| FixedIp { subnet_id: *subnet, ip_address: [10, 0, (n >> 8) as u8, n as u8].into() };
    Port {
        id: port_id(n),
        network_id: choice.network,
        mac_address: "fa:16:3e:00:00:01".parse().unwrap(),
        name: String::new(),
        fixed_ips: choice.subnets.iter().map(fixed).collect(),
        security_groups: vec![],
        status: PortStatus::Down,
        device_owner: String::new(),
        device_id: String::new(),
        tags: vec![],
        revision_number: 1,
        host_id: host.to_string(),
        vif_type: "ovs".into(),
        vif_details: VifDetails::default(),
    }
}

/// A Neutron that makes every port that it is asked for.
#[derive(Default)]
struct Maker(u32);

impl Maker {
    fn make(&mut self, bulk: &Bulk) -> Vec<(PoolKey, Port)> {
        let keys = bulk.parts.iter().flat_map(|(key, count)| std::iter::repeat_n(key, *count));
        keys.map(|key| {
            self.0 += 1;
            (key.clone(), port(self.0, &bulk.choice, &key.place))
        })
        .collect()
    }
}

const SETTINGS: Settings = Settings {
    floor: 2,
    ceiling: 20,
    budget: 100,
    cooldown: Duration::from_secs(30),
    memory: Duration::from_secs(600),
    shrink_after: Duration::from_secs(300),
    bulk_size: 20,
    requests: 2,
    reserve: 0,
};

/// Pools of some nodes, and the cloud that fills them.
struct Stage {
    pools: Pools,
    maker: Maker,
    now: Duration,
    /// Deleted, in order.
    deleted: Vec<PortId>,
    requests: usize,
}

impl Stage {
    fn new(settings: Settings, nodes: u8) -> Self {
        let mut pools = Pools::new(settings, vec![choice(0, &[1])]);
        for n in 0..nodes {
            pools.open(&place(n), 110, Duration::ZERO);
        }
        let mut stage = Self { pools, maker: Maker::default(), now: Duration::ZERO, deleted: Vec::new(), requests: 0 };
        stage.work();
        stage
    }

    /// Plans and does it until nothing is left to do at this moment.
    fn work(&mut self) {
        loop {
            let plan = self.pools.plan(self.now, &Headroom::default());
            if plan.bulks.is_empty() && plan.delete.is_empty() {
                return;
            }
            for bulk in plan.bulks {
                self.requests += 1;
                let made = self.maker.make(&bulk);
                let unneeded = self.pools.answered(bulk.id, Ok(made), self.now);
                self.gone(unneeded);
            }
            self.gone(plan.delete);
        }
    }

    fn gone(&mut self, ports: Vec<PortId>) {
        for id in ports {
            self.pools.deleted(id, self.now);
            self.deleted.push(id);
        }
    }

    /// Lets time pass, planning whenever it is asked for. How long until no further plan is asked for, at most `time`.
    fn pass(&mut self, time: Duration) -> Duration {
        let (start, end) = (self.now, self.now + time);
        loop {
            self.work();
            let Some(again) = self.pools.plan(self.now, &Headroom::default()).again else {
                let rested = self.now - start;
                self.now = end;
                return rested;
            };
            if self.now + again > end {
                self.now = end;
                return time;
            }
            self.now += again.max(Duration::from_millis(1));
        }
    }

    fn take(&mut self, node: u8, owner: u32) -> Option<Port> {
        self.pools.take(&key(node), &pod(owner), self.now)
    }

    fn ready(&self, node: u8) -> usize {
        self.view(node).ready
    }

    fn view(&self, node: u8) -> super::PoolView {
        self.pools.view(self.now).into_iter().find(|(pool, _)| *pool == key(node)).unwrap().1
    }
}

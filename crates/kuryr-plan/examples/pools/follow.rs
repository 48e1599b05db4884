//! The rule of Kuryr, and with other settings pools of a fixed size and none.

use crate::{
    NODES, Rule,
    clock::{Clock, Event, Millis},
    duration,
    neutron::Neutron,
    report::Report,
};
use kuryr_model::{
    NetworkId, PodUid, PortId, SubnetId,
    neutron::{FixedIp, Port, PortStatus, VifDetails},
};
use kuryr_plan::{
    pool::{Back, Bulk, Headroom, Place, PoolKey, Pools, Settings, split},
    subnets::Choice,
};
use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

/// Requests for ports of pods that found none, at once.
const SLOTS: usize = 2;
/// How long those of one burst are gathered.
const LINGER: Millis = 10;
const ROOM: usize = 110;

const PLAN: u32 = 0;
const GATHER: u32 = 1;

enum Request {
    Bulk(Bulk),
    Pods(Vec<u32>),
    Delete(PortId),
}

pub(crate) struct Follow {
    pools: Pools,
    neutron: Neutron<Request>,
    choice: Choice,
    pods: HashMap<u32, (usize, Millis)>,
    ports: HashMap<u32, Port>,
    /// Ended before they had a port.
    gone: Vec<u32>,
    missed: VecDeque<u32>,
    under_way: usize,
    gathers: bool,
    plans: Option<Millis>,
    made: u32,
}

pub(crate) fn none() -> Settings {
    Settings { budget: 0, ..Settings::default() }
}

pub(crate) fn fixed(size: usize) -> Settings {
    Settings { floor: size, ceiling: size, budget: 2000, ..Settings::default() }
}

fn uid(pod: u32) -> PodUid {
    pod.to_string().into()
}

fn place(node: usize) -> Place {
    Place::Host(format!("node{node}"))
}

impl Follow {
    pub(crate) fn new(settings: Settings) -> Self {
        let choice = Choice { network: NetworkId(uuid(1)), subnets: vec![SubnetId(uuid(2))] };
        Self {
            pools: Pools::new(settings, vec![choice.clone()]),
            neutron: Neutron::new(),
            choice,
            pods: HashMap::new(),
            ports: HashMap::new(),
            gone: Vec::new(),
            missed: VecDeque::new(),
            under_way: 0,
            gathers: false,
            plans: None,
            made: 0,
        }
    }

    fn key(&self, node: usize) -> PoolKey {
        PoolKey { place: place(node), network: self.choice.network }
    }

    fn new_port(&mut self, place: &Place) -> Port {
        self.made += 1;
        let ip_address = std::net::Ipv4Addr::from_bits(0x0a00_0000 + self.made).into();
        Port {
            id: PortId(uuid(u128::from(self.made) << 64)),
            network_id: self.choice.network,
            mac_address: kuryr_model::MacAddress([0xfa, 0x16, 0x3e, 0, 0, 1]),
            name: String::new(),
            fixed_ips: self.choice.subnets.iter().map(|id| FixedIp { subnet_id: *id, ip_address }).collect(),
            security_groups: Vec::new(),
            status: PortStatus::Down,
            device_owner: String::new(),
            device_id: String::new(),
            tags: Vec::new(),
            revision_number: 1,
            host_id: place.to_string(),
            vif_type: String::new(),
            vif_details: VifDetails::default(),
        }
    }

    fn start(&mut self, pod: u32, node: usize, clock: &mut Clock, report: &mut Report) {
        self.pods.insert(pod, (node, clock.now()));
        match self.pools.take(&self.key(node), &uid(pod), duration(clock.now())) {
            Some(port) => {
                self.pools.recorded(&uid(pod));
                self.ports.insert(pod, port);
                report.served(true, 0);
            }
            None => {
                self.missed.push_back(pod);
                self.gather(clock);
            }
        }
    }

    fn gather(&mut self, clock: &mut Clock) {
        if !self.gathers {
            self.gathers = true;
            clock.after(LINGER, Event::Wake { what: GATHER });
        }
    }

    /// Ports are asked for for those that found none.
    fn ask(&mut self, clock: &mut Clock) {
        for size in split(self.missed.len(), 20, SLOTS - self.under_way) {
            self.under_way += 1;
            let pods: Vec<u32> = self.missed.drain(..size).collect();
            self.neutron.create(size, Request::Pods(pods), clock);
        }
    }

    fn end(&mut self, pod: u32, clock: &mut Clock) {
        let Some((node, _)) = self.pods.get(&pod).copied() else { return };
        match self.ports.remove(&pod) {
            Some(port) => self.back(&place(node), port, clock),
            None => self.gone.push(pod),
        }
    }

    fn back(&mut self, place: &Place, port: Port, clock: &mut Clock) {
        let id = port.id;
        if self.pools.give_back(place, port, duration(clock.now())) == Back::Delete {
            self.neutron.delete(Request::Delete(id), clock);
        }
    }

    fn done(&mut self, request: Request, clock: &mut Clock, report: &mut Report) {
        let now = duration(clock.now());
        match request {
            Request::Bulk(bulk) => {
                let keys: Vec<PoolKey> =
                    bulk.parts.iter().flat_map(|(key, count)| std::iter::repeat_n(key.clone(), *count)).collect();
                let made = keys.into_iter().map(|key| {
                    let port = self.new_port(&key.place);
                    (key, port)
                });
                let made = made.collect();
                for id in self.pools.answered(bulk.id, Ok(made), now) {
                    self.neutron.delete(Request::Delete(id), clock);
                }
            }
            Request::Pods(pods) => {
                self.under_way -= 1;
                for pod in pods {
                    let Some((node, since)) = self.pods.get(&pod).copied() else { continue };
                    self.pools.waits_no_more(&self.key(node), &uid(pod));
                    report.served(false, clock.now() - since);
                    let port = self.new_port(&place(node));
                    if self.gone.contains(&pod) {
                        self.back(&place(node), port, clock);
                    } else {
                        self.ports.insert(pod, port);
                    }
                }
                self.gather(clock);
            }
            Request::Delete(id) => self.pools.deleted(id, now),
        }
    }

    fn plan(&mut self, clock: &mut Clock) {
        self.plans = None;
        let plan = self.pools.plan(duration(clock.now()), &Headroom::default());
        for bulk in plan.bulks {
            let count = bulk.parts.iter().map(|(_, count)| count).sum();
            self.neutron.create(count, Request::Bulk(bulk), clock);
        }
        for id in plan.delete {
            self.neutron.delete(Request::Delete(id), clock);
        }
        if let Some(again) = plan.again {
            self.plan_within(Millis::try_from(again.as_millis()).unwrap_or(Millis::MAX), clock);
        }
    }

    fn plan_within(&mut self, time: Millis, clock: &mut Clock) {
        let when = clock.now() + time.max(LINGER);
        if self.plans.is_none_or(|planned| when < planned) {
            self.plans = Some(when);
            clock.at(when, Event::Wake { what: PLAN });
        }
    }
}

fn uuid(n: u128) -> uuid::Uuid {
    uuid::Uuid::from_u128(n)
}

impl Rule for Follow {
    fn handle(&mut self, event: Event, clock: &mut Clock, report: &mut Report) {
        match event {
            Event::Begin => (0..NODES).for_each(|node| self.pools.open(&place(node), ROOM, Duration::ZERO)),
            Event::Start { pod, node } => self.start(pod, node, clock, report),
            Event::End { pod } => self.end(pod, clock),
            Event::Cordon { node, on } => {
                self.pools.open(&place(node), if on { 0 } else { ROOM }, duration(clock.now()));
            }
            Event::Done { request } => {
                if let Some(request) = self.neutron.done(request, clock) {
                    self.done(request, clock, report);
                }
            }
            Event::Wake { what: GATHER } => {
                self.gathers = false;
                self.ask(clock);
            }
            Event::Wake { .. } => {
                if self.plans.is_some_and(|planned| planned <= clock.now()) {
                    self.plan(clock);
                }
                return;
            }
            Event::Again { .. } => {}
        }
        self.plan_within(0, clock);
    }

    fn held(&self) -> usize {
        self.pools.totals().held
    }

    fn requests(&self) -> usize {
        self.neutron.count()
    }
}

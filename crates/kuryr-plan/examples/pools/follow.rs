//! The rule of Kuryr, and with other settings pools of a fixed size and none.

use crate::{
    NODES, Rule,
    clock::{Clock, Event, Millis},
    duration,
    neutron::Neutron,
    report::Report,
    trunks::{self, Trunk},
};
use kuryr_model::{
    NetworkId, PodUid, PortId, SubnetId, TrunkId,
    neutron::{FixedIp, Port, PortStatus, VifDetails},
};
use kuryr_plan::{
    pool::{Back, Bulk, Headroom, Place, PoolKey, Pools, Settings, split},
    subnets::Choice,
    trunk::Step,
};
use std::{
    collections::{HashMap, HashSet, VecDeque},
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
    /// A port that was made for a pod comes to the pool.
    Mark(Place, Box<Port>),
    Trunk(usize, Step),
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
    /// Ports that were made for pods.
    own: HashSet<PortId>,
    /// One for each node, if nodes are virtual machines.
    trunks: Vec<Trunk>,
    /// Ports that are on trunks, or are to be, and on whose.
    on: HashMap<PortId, usize>,
    /// Ports of pods that are on their way there.
    coming: HashMap<PortId, (u32, Port)>,
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

/// The places of nodes and of virtual machines.
fn place(node: usize, nested: bool) -> Place {
    if nested { Place::Trunk(TrunkId(uuid(node as u128))) } else { Place::Host(format!("node{node}")) }
}

impl Follow {
    /// `nested`: nodes are virtual machines.
    pub(crate) fn new(settings: Settings, nested: bool) -> Self {
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
            own: HashSet::new(),
            trunks: if nested { (0..NODES).map(|_| Trunk::new()).collect() } else { Vec::new() },
            on: HashMap::new(),
            coming: HashMap::new(),
        }
    }

    fn key(&self, node: usize) -> PoolKey {
        PoolKey { place: self.place(node), network: self.choice.network }
    }

    fn place(&self, node: usize) -> Place {
        place(node, !self.trunks.is_empty())
    }

    fn new_port(&mut self, place: &Place) -> Port {
        self.made += 1;
        let ip_address = std::net::Ipv4Addr::from_bits(0x0a00_0000 + self.made).into();
        Port {
            id: PortId(uuid(u128::from(scatter(self.made)) << 64)),
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
        if !self.lend(pod, true, clock, report) {
            self.missed.push_back(pod);
            self.gather(clock);
        }
    }

    fn gather(&mut self, clock: &mut Clock) {
        if !self.gathers {
            self.gathers = true;
            clock.after(LINGER, Event::Wake { what: GATHER });
        }
    }

    /// Ports are asked for for those that found none.
    fn ask(&mut self, clock: &mut Clock, report: &mut Report) {
        for size in split(self.missed.len(), 20, SLOTS - self.under_way) {
            let mut pods: Vec<u32> = self.missed.drain(..size).collect();
            // Some may have become ready meanwhile.
            pods.retain(|pod| !self.lend(*pod, false, clock, report));
            if !pods.is_empty() {
                self.under_way += 1;
                self.neutron.create(pods.len(), Request::Pods(pods), clock);
            }
        }
    }

    /// Gives a pod a spare port, if there is one.
    fn lend(&mut self, pod: u32, hit: bool, clock: &Clock, report: &mut Report) -> bool {
        let Some((node, since)) = self.pods.get(&pod).copied() else { return true };
        let Some(port) = self.pools.take(&self.key(node), &uid(pod), duration(clock.now())) else { return false };
        self.pools.recorded(&uid(pod));
        self.ports.insert(pod, port);
        report.served(hit, clock.now() - since);
        true
    }

    fn end(&mut self, pod: u32, clock: &mut Clock) {
        let Some((node, _)) = self.pods.get(&pod).copied() else { return };
        match self.ports.remove(&pod) {
            Some(port) => self.back(&self.place(node), port, clock),
            None => self.gone.push(pod),
        }
    }

    /// Deletes a port, from its trunk if it is on one.
    fn delete(&mut self, id: PortId, clock: &mut Clock) {
        match self.on.get(&id).copied() {
            Some(node) => {
                if let Some(trunk) = self.trunks.get_mut(node) {
                    trunk.writer.unwant(id);
                }
                self.write(node, clock);
            }
            None => self.neutron.delete(Request::Delete(id), clock),
        }
    }

    /// Puts a port on a trunk: that of a pod, or a spare one.
    fn put(&mut self, node: usize, id: PortId, pod: Option<(u32, Port)>, clock: &mut Clock) {
        let Some(Trunk { writer, .. }) = self.trunks.get_mut(node) else { return };
        match pod {
            Some(pod) => {
                writer.want(id, None);
                self.coming.insert(id, pod);
            }
            None => writer.want_spare(id),
        }
        self.on.insert(id, node);
        self.write(node, clock);
    }

    /// Changes a trunk, unless that is under way.
    fn write(&mut self, node: usize, clock: &mut Clock) {
        if let Some(step) = self.trunks.get_mut(node).and_then(Trunk::next) {
            self.neutron.change(trunks::size(&step), Request::Trunk(node, step), clock);
        }
    }

    fn written(&mut self, node: usize, step: &Step, clock: &mut Clock, report: &mut Report) {
        if let Some(trunk) = self.trunks.get_mut(node) {
            trunk.done(step);
        }
        match step {
            Step::Read => {}
            Step::Add(added) => added.iter().for_each(|(id, _)| self.placed(node, *id, clock, report)),
            Step::Remove(ports) => {
                for id in ports {
                    self.on.remove(id);
                    self.neutron.delete(Request::Delete(*id), clock);
                }
            }
        }
        self.write(node, clock);
    }

    fn placed(&mut self, node: usize, id: PortId, clock: &mut Clock, report: &mut Report) {
        if let Some((pod, port)) = self.coming.remove(&id) {
            self.serve(pod, node, port, clock, report);
        } else if self.pools.placed(id, true, duration(clock.now())) == Back::Delete {
            self.delete(id, clock);
        }
    }

    /// A pod has a port of its own.
    fn serve(&mut self, pod: u32, node: usize, port: Port, clock: &mut Clock, report: &mut Report) {
        let Some((_, since)) = self.pods.get(&pod).copied() else { return };
        self.pools.waits_no_more(&self.key(node), &uid(pod));
        report.served(false, clock.now() - since);
        if self.gone.contains(&pod) {
            self.back(&self.place(node), port, clock);
        } else {
            self.ports.insert(pod, port);
        }
    }

    fn back(&mut self, place: &Place, port: Port, clock: &mut Clock) {
        let id = port.id;
        if self.own.remove(&id) {
            let key = PoolKey { place: place.clone(), network: self.choice.network };
            if self.pools.takes(&key) {
                self.neutron.mark(Request::Mark(place.clone(), Box::new(port)), clock);
            } else {
                self.delete(id, clock);
            }
            return;
        }
        if self.pools.give_back(place, port, duration(clock.now())) == Back::Delete {
            self.delete(id, clock);
        }
    }

    fn done(&mut self, request: Request, clock: &mut Clock, report: &mut Report) {
        let now = duration(clock.now());
        match request {
            Request::Bulk(bulk) => {
                let keys = bulk.parts.iter().flat_map(|(key, count)| std::iter::repeat_n(key, *count));
                let made: Vec<(PoolKey, Port)> = keys.map(|key| (key.clone(), self.new_port(&key.place))).collect();
                let to_put: Vec<(PortId, Place)> =
                    made.iter().map(|(key, port)| (port.id, key.place.clone())).collect();
                for id in self.pools.answered(bulk.id, Ok(made), now) {
                    self.neutron.delete(Request::Delete(id), clock);
                }
                for (id, on) in to_put.into_iter().filter(|(_, on)| matches!(on, Place::Trunk(_))) {
                    if let Some(node) = (0..NODES).find(|node| self.place(*node) == on) {
                        self.put(node, id, None, clock);
                    }
                }
            }
            Request::Pods(pods) => {
                self.under_way -= 1;
                for pod in pods {
                    let Some((node, _)) = self.pods.get(&pod).copied() else { continue };
                    let port = self.new_port(&self.place(node));
                    self.own.insert(port.id);
                    if self.trunks.is_empty() {
                        self.serve(pod, node, port, clock, report);
                    } else {
                        self.put(node, port.id, Some((pod, port)), clock);
                    }
                }
                self.gather(clock);
            }
            Request::Trunk(node, step) => self.written(node, &step, clock, report),
            Request::Mark(place, port) => self.back(&place, *port, clock),
            Request::Delete(id) => self.pools.deleted(id, now),
        }
    }

    fn plan(&mut self, clock: &mut Clock) {
        self.plans = None;
        let plan = self.pools.plan(duration(clock.now()), &Headroom::default());
        for bulk in plan.bulks {
            let count = bulk.parts.iter().map(|(_, count)| count).sum();
            self.neutron.create_spare(count, Request::Bulk(bulk), clock);
        }
        for id in plan.delete {
            self.delete(id, clock);
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

/// Ids of ports say nothing of their order.
fn scatter(n: u32) -> u64 {
    u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn uuid(n: u128) -> uuid::Uuid {
    uuid::Uuid::from_u128(n)
}

impl Rule for Follow {
    fn handle(&mut self, event: Event, clock: &mut Clock, report: &mut Report) {
        match event {
            Event::Begin => {
                (0..NODES).for_each(|node| self.pools.open(&self.place(node), ROOM, Duration::ZERO));
            }
            Event::Start { pod, node } => self.start(pod, node, clock, report),
            Event::End { pod } => self.end(pod, clock),
            Event::Cordon { node, on } => {
                self.pools.open(&self.place(node), if on { 0 } else { ROOM }, duration(clock.now()));
            }
            Event::Done { request } => {
                if let Some(request) = self.neutron.done(request, clock) {
                    self.done(request, clock, report);
                }
            }
            Event::Wake { what: GATHER } => {
                self.gathers = false;
                self.ask(clock, report);
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

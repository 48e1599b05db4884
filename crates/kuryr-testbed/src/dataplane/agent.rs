//! The agent: makes nodes what the cloud wants, and tells the cloud what works.

use super::{
    Error, balance,
    compile::{compile, compile_core},
    fabric::{Fabric, LOOPBACK, Node, core_end, index},
    ruleset::Ruleset,
    script::{changes, initial, initial_core},
    snapshot::{Port, Snapshot},
    worker::{Job, Worker},
};
use futures::future::join_all;
use ipnet::IpNet;
use kuryr_model::{MacAddress, PortId};
use kuryr_node::{
    netlink::{
        LinkEvent, Monitor, Request, Socket, address, neighbour,
        route::{self, Route},
    },
    netns,
    plug::mark::host_end_name,
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressScope, CacheInfo},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
};

/// How long after a failure everything is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// A running agent for all nodes of a fabric. Stops when dropped; the nodes stay as they are.
#[derive(Debug)]
pub struct Agent {
    task: JoinHandle<()>,
    applied: watch::Receiver<Arc<Snapshot>>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Agent {
    /// Starts making the fabric's nodes what `desired` says, now and after every change, and calls `report` with every
    /// port that begins or ceases to work. Needs a tokio runtime; the calling thread must be in the core's namespace.
    ///
    /// # Errors
    /// A node could not be prepared, as when `nft` is missing.
    pub fn start(
        fabric: &Fabric,
        desired: watch::Receiver<Arc<Snapshot>>,
        report: impl Fn(PortId, bool) + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let (events, incoming) = mpsc::unbounded_channel();
        let mut watchers = JoinSet::new();
        let mut places = Vec::new();
        for (number, node) in fabric.nodes().iter().enumerate() {
            let (worker, subscription) = Worker::start(&node.name, Some(&node.netns))?;
            watchers.spawn(forward(number, Monitor::new(subscription)?, events.clone()));
            places.push(Place::new(Some(node.clone()), worker));
        }
        let (worker, _) = Worker::start("core", None)?;
        places.push(Place::new(None, worker));
        let mut core = Socket::open()?;
        let wires = (0..fabric.nodes().len()).map(|number| index(&mut core, &core_end(number)));
        let wires = wires.collect::<Result<_, _>>()?;
        let state = State { places, wires, working: BTreeSet::new(), _watchers: watchers };
        let (publish, applied) = watch::channel(Arc::default());
        Ok(Self { task: tokio::spawn(run(state, desired, incoming, report, publish)), applied })
    }

    /// Waits until every node is what `snapshot`, that very one or a later one that was sent in its stead, says. Host
    /// ends that appear meanwhile are reported on their own.
    pub async fn applied(&self, snapshot: &Arc<Snapshot>) {
        // The agent ends only when it is dropped.
        let _ = self.applied.clone().wait_for(|applied| Arc::ptr_eq(applied, snapshot)).await;
    }
}

async fn forward(node: usize, mut monitor: Monitor, events: mpsc::UnboundedSender<(usize, LinkEvent)>) {
    while let Ok(news) = monitor.next().await {
        for event in news {
            if events.send((node, event)).is_err() {
                return;
            }
        }
    }
}

/// A node, or the core, and what it has been made so far.
#[derive(Debug)]
struct Place {
    /// `None` for the core.
    node: Option<Node>,
    worker: Worker,
    /// Host ends through which packets pass, with their indexes.
    ends: BTreeMap<String, u32>,
    /// `None`: the table must be made anew.
    ruleset: Option<Ruleset>,
    /// What that ruleset is for.
    compiled: Option<Arc<Snapshot>>,
    routes: BTreeSet<Route>,
    neighbours: BTreeSet<(u32, IpAddr, MacAddress)>,
    /// Addresses of routers, on the loopback.
    gateways: BTreeSet<IpAddr>,
}

impl Place {
    fn new(node: Option<Node>, worker: Worker) -> Self {
        let (ends, routes, neighbours, gateways) = Default::default();
        let mut place = Self { node, worker, ends, ruleset: None, compiled: None, routes, neighbours, gateways };
        place.ruleset = Some(place.empty());
        place
    }

    /// The rules that its table begins with.
    fn empty(&self) -> Ruleset {
        if self.node.is_some() { Ruleset::empty() } else { Ruleset::empty_core() }
    }

    fn is(&self, host: &str) -> bool {
        self.node.as_ref().is_some_and(|node| node.name == host)
    }
}

struct State {
    places: Vec<Place>,
    /// Indexes of the core's ends of the wires to the nodes.
    wires: Vec<u32>,
    working: BTreeSet<PortId>,
    _watchers: JoinSet<()>,
}

async fn run(
    mut state: State,
    mut desired: watch::Receiver<Arc<Snapshot>>,
    mut events: mpsc::UnboundedReceiver<(usize, LinkEvent)>,
    report: impl Fn(PortId, bool) + Send + Sync + 'static,
    publish: watch::Sender<Arc<Snapshot>>,
) {
    // Host ends may be there already; what a node has is looked at once and then told.
    for number in 0..state.places.len() {
        state.note(number, LinkEvent::Lost).await;
    }
    loop {
        let snapshot = desired.borrow_and_update().clone();
        let fine = state.reconcile(&snapshot, &report).await;
        if fine {
            publish.send_if_modified(|applied| {
                let new = !Arc::ptr_eq(applied, &snapshot);
                applied.clone_from(&snapshot);
                new
            });
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY), if !fine => {}
            changed = desired.changed() => if changed.is_err() {
                return;
            },
            Some((number, event)) = events.recv() => {
                state.note(number, event).await;
                while let Ok((number, event)) = events.try_recv() {
                    state.note(number, event).await;
                }
            }
        }
    }
}

impl State {
    /// Takes notice of a host end that came or went.
    async fn note(&mut self, number: usize, event: LinkEvent) {
        let place = &mut self.places[number];
        match event {
            LinkEvent::Changed(link) if link.name.starts_with("tap") && link.running => {
                // A link that was replaced between two looks has another index, and no routes.
                if place.ends.insert(link.name, link.index) != Some(link.index) {
                    place.forget(link.index);
                }
            }
            LinkEvent::Changed(link) | LinkEvent::Gone(link) => {
                if place.ends.get(&link.name) == Some(&link.index) {
                    place.ends.remove(&link.name);
                    place.forget(link.index);
                }
            }
            LinkEvent::Lost => {
                let Some(node) = place.node.clone() else { return };
                let look = move || netns::run(&node.netns, || Socket::open()?.links());
                match netns::spawn(look).await {
                    Ok(Ok(Ok(links))) => {
                        let ends = links.into_iter().filter(|link| link.name.starts_with("tap") && link.running);
                        let ends: BTreeMap<String, u32> = ends.map(|link| (link.name, link.index)).collect();
                        let gone: Vec<u32> = place
                            .ends
                            .values()
                            .filter(|index| !ends.values().any(|end| end == *index))
                            .copied()
                            .collect();
                        gone.into_iter().for_each(|index| place.forget(index));
                        place.ends = ends;
                    }
                    failed => tracing::error!(number, ?failed, "a node's links cannot be listed"),
                }
            }
        }
    }

    /// Makes every place what `snapshot` wants, and reports what has changed. Whether that worked.
    async fn reconcile(&mut self, snapshot: &Arc<Snapshot>, report: &(impl Fn(PortId, bool) + Send + Sync)) -> bool {
        let plugged: Vec<(PortId, &Port, usize, u32)> = snapshot
            .ports
            .iter()
            .filter(|(_, port)| port.up)
            .filter_map(|(id, port)| {
                let number = self.places.iter().position(|place| place.is(&port.host))?;
                let end = self.places[number].ends.get(&host_end_name(*id))?;
                Some((*id, port, number, *end))
            })
            .collect();
        // What stops working is said before anything is taken away, what works after all is in place.
        let now: BTreeSet<PortId> = plugged.iter().map(|(id, ..)| *id).collect();
        for id in self.working.difference(&now) {
            report(*id, false);
        }
        self.working.retain(|id| now.contains(id));
        let homes: Vec<Option<Node>> = self.places.iter().map(|place| place.node.clone()).collect();
        let ways: Vec<Ways> =
            (0..homes.len()).map(|number| ways(number, &self.wires, &homes, snapshot, &plugged)).collect();
        let work = self.places.iter_mut().zip(&ways).map(|(place, ways)| async move {
            place.settle(snapshot).await && (place.node.is_some() || place.lead(ways).await)
        });
        let mut fine = join_all(work).await.into_iter().all(|fine| fine);
        if fine {
            // A node's route to a port tells its daemon that the port's packets pass: it comes after all else, everywhere.
            let nodes = self.places.iter_mut().zip(&ways).filter(|(place, _)| place.node.is_some());
            let work = nodes.map(|(place, ways)| place.lead(ways));
            fine = join_all(work).await.into_iter().all(|fine| fine);
        }
        if fine {
            for id in now.difference(&self.working) {
                report(*id, true);
            }
            self.working = now;
        }
        fine
    }
}

/// Routes and neighbours of a place.
type Ways = (BTreeSet<Route>, BTreeSet<(u32, IpAddr, MacAddress)>);

/// The routes and neighbours that a place should have: a node leads to its own ports and the core to all of them, and
/// to floating IPs.
fn ways(
    number: usize,
    wires: &[u32],
    homes: &[Option<Node>],
    snapshot: &Snapshot,
    plugged: &[(PortId, &Port, usize, u32)],
) -> Ways {
    let (mut routes, mut neighbours) = (BTreeMap::new(), BTreeSet::new());
    let owned: BTreeSet<IpAddr> = snapshot.ports.values().flat_map(|port| port.ips.iter().copied()).collect();
    for (_, port, home, end) in plugged {
        let own = port.ips.iter().map(|ip| (*ip, port.mac));
        // A single other address that no port has leads to the port that may use it.
        let pairs = port
            .pairs
            .iter()
            .filter(|pair| pair.net.prefix_len() == pair.net.max_prefix_len() && !owned.contains(&pair.net.addr()))
            .map(|pair| (pair.net.addr(), pair.mac.unwrap_or(port.mac)));
        for (ip, mac) in own.chain(pairs) {
            let Some(node) = &homes[*home] else { continue };
            let route = if *home == number {
                neighbours.insert((*end, ip, mac));
                // The node itself asks as itself, not as the router that it plays.
                Route { source: Some(node.address_like(ip)), ..Route::on(ip.into(), *end) }
            } else if homes[number].is_none() {
                Route::via(ip.into(), node.address_like(ip), wires[*home])
            } else {
                continue;
            };
            routes.entry(IpNet::from(ip)).or_insert(route);
        }
    }
    if homes[number].is_none() {
        for floating in &snapshot.floating_ips {
            let Some((_, _, home, _)) = plugged.iter().find(|(id, ..)| *id == floating.port) else { continue };
            let Some(node) = &homes[*home] else { continue };
            let ip = IpAddr::from(floating.floating);
            routes.entry(ip.into()).or_insert(Route::via(ip.into(), node.address_like(ip), wires[*home]));
        }
        // What the core itself asks there is translated before it leaves, but not without a route.
        for (vip, _) in snapshot.load_balancers.iter().flat_map(|balancer| balance::addresses(snapshot, balancer)) {
            let Some((Some(node), wire)) = homes.first().zip(wires.first()) else { continue };
            routes.entry(vip.into()).or_insert(Route::via(vip.into(), node.address_like(vip), *wire));
        }
    }
    (routes.into_values().collect(), neighbours)
}

/// Gives a node a router's address, to answer there. The node must not take it for itself when it chooses a source, as
/// when it masquerades: whom it asks must see the node.
fn gateway(ip: IpAddr) -> Request {
    let mut request = address::add(LOOPBACK, ip.into());
    if let RouteNetlinkMessage::NewAddress(message) = &mut request.message {
        if ip.is_ipv4() {
            message.header.scope = AddressScope::Host;
        } else {
            // Valid for ever, preferred never.
            let mut deprecated = CacheInfo::default();
            deprecated.ifa_valid = u32::MAX;
            message.attributes.push(AddressAttribute::CacheInfo(deprecated));
        }
    }
    request
}

impl Place {
    /// The kernel has removed what belonged to a link.
    fn forget(&mut self, link: u32) {
        self.routes.retain(|route| route.link != link);
        self.neighbours.retain(|(end, ..)| *end != link);
    }

    /// Makes the place's rules and addresses what they should be. Whether that worked.
    async fn settle(&mut self, snapshot: &Arc<Snapshot>) -> bool {
        // Every node is every router. The core is none: it is the outside.
        let interfaces = snapshot.routers.iter().flat_map(|router| router.interfaces.iter().map(|(_, ip)| *ip));
        let gateways: BTreeSet<IpAddr> = interfaces.filter(|_| self.node.is_some()).collect();
        let gone = self.gateways.difference(&gateways).map(|ip| address::delete(LOOPBACK, (*ip).into()));
        let new = gateways.difference(&self.gateways).map(|ip| gateway(*ip));
        let mut job = Job { script: String::new(), requests: gone.chain(new).collect() };
        // Most news is about host ends, or about what packets cannot see.
        let known = self.compiled.as_ref().is_some_and(|compiled| compiled == snapshot);
        let wanted = (!known).then(|| match &self.node {
            Some(node) => compile(snapshot, &node.name),
            None => compile_core(snapshot),
        });
        if let Some(wanted) = &wanted {
            job.script = match (&self.ruleset, &self.node) {
                (Some(ruleset), _) => changes(ruleset, wanted),
                (None, Some(_)) => initial() + &changes(&self.empty(), wanted),
                (None, None) => initial_core() + &changes(&self.empty(), wanted),
            };
        }
        let done = self.perform(job).await;
        if done {
            self.ruleset = wanted.or(self.ruleset.take());
            self.compiled = Some(Arc::clone(snapshot));
            self.gateways = gateways;
        }
        done
    }

    /// Makes the place's routes what they should be. Whether that worked.
    async fn lead(&mut self, (routes, neighbours): &Ways) -> bool {
        let mut requests: Vec<Request> = self
            .routes
            .difference(routes)
            .filter(|old| routes.iter().all(|new| new.destination != old.destination))
            .map(route::delete)
            .collect();
        requests.extend(
            neighbours.difference(&self.neighbours).map(|(end, ip, mac)| neighbour::permanent(*end, *ip, *mac)),
        );
        requests.extend(routes.difference(&self.routes).map(route::replace));
        let done = self.perform(Job { script: String::new(), requests }).await;
        if done {
            (self.routes, self.neighbours) = (routes.clone(), neighbours.clone());
        }
        done
    }

    /// Does a job. Whether that worked; if not, nothing is known of the place any more, and all is begun anew.
    async fn perform(&mut self, job: Job) -> bool {
        if job.script.is_empty() && job.requests.is_empty() {
            return true;
        }
        let Err(error) = self.worker.perform(job).await else { return true };
        let node = self.node.as_ref().map_or("core", |node| &node.name);
        tracing::error!(node, error = kuryr_node::plug::error::chain(&error), "a node could not be changed");
        (self.ruleset, self.compiled) = (None, None);
        self.routes.clear();
        self.neighbours.clear();
        self.gateways.clear();
        false
    }
}

//! Load balancers that hide their clients and can tell them apart themselves: what each of their listeners has to do in
//! place of the pods behind it, and which pods may let the load balancer in because it does.

use super::{
    Compiler,
    state::{Owner, PodId, PodState},
};
use crate::policy::{
    cidr::whole,
    clause::{Clause, ClausePorts, ClauseRemote, QueryId},
    group::{Balanced, GroupKey, Rule},
    nets::{intersect, rest, tidy, within},
    spec::Protocol,
    world::{Endpoint, Pod, Service, ServicePort},
};
use ipnet::IpNet;
use kuryr_model::{
    ObjectKey,
    neutron::{Direction, EtherType},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

/// The most blocks that one listener is given: Octavia makes a security group rule of each.
pub const MAX_CLIENTS: usize = 100;

/// So many addresses of a block are looked at one by one, to see whether anybody has one.
const MANY: u32 = 8;

/// Whom a listener may let in, for the sake of the pods behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// These, sorted; empty: nobody. `None`: anybody, for no policy says otherwise or the pods see to it themselves.
    pub clients: Option<Vec<IpNet>>,
    /// The pods and other endpoints that would let in more, which the listener must not: others behind it would not.
    pub wider: BTreeSet<String>,
    /// How many blocks it would take, if that is more than [`MAX_CLIENTS`]: then peers that are pods are left out, and if that
    /// is not enough, nobody is let in.
    pub too_many: Option<usize>,
}

/// The limits of a Service, by protocol and port number.
pub type Limits = BTreeMap<(Protocol, u16), Limit>;

/// The addresses of the pods that queries mean.
type Members = HashMap<QueryId, Vec<IpNet>>;

/// Whom an isolated pod lets in at one port number.
struct Clients {
    /// A rule has no peers: everybody, the load balancer too.
    anyone: bool,
    blocks: Vec<IpNet>,
    /// Pods that peers select.
    pods: Vec<IpNet>,
    /// Its own node and itself.
    always: Vec<IpNet>,
}

/// Who is behind a listener. An address that no pod has, and a pod that is not isolated, let in everybody.
struct Behind<'a> {
    endpoint: Endpoint,
    pod: Option<&'a Pod>,
    id: Option<PodId>,
    clients: Option<Clients>,
}

impl Limit {
    /// Lets in only those who come in already.
    pub fn hold_back(&mut self, admits: &[IpNet]) {
        self.clients = Some(match &self.clients {
            Some(clients) => intersect(clients, admits),
            None => tidy(admits.iter().copied()),
        });
    }
}

impl Clients {
    /// Whether no policy lets anybody in: then it stays closed to the load balancer, and its listener need not care.
    fn nobody(&self) -> bool {
        !self.anyone && self.blocks.is_empty() && self.pods.is_empty()
    }

    fn named(&self) -> Vec<IpNet> {
        let everyone = [EtherType::IPv4, EtherType::IPv6].map(whole);
        let everyone = everyone.into_iter().filter(|_| self.anyone);
        tidy(everyone.chain(self.blocks.iter().copied()).chain(self.pods.iter().copied()))
    }

    fn all(&self) -> Vec<IpNet> {
        tidy(self.named().into_iter().chain(self.always.iter().copied()))
    }

    fn without_pods(&self) -> Vec<IpNet> {
        if self.anyone { self.all() } else { tidy(self.blocks.iter().chain(&self.always).copied()) }
    }
}

impl Behind<'_> {
    /// The clients that count for the listener.
    fn counted(&self) -> Option<&Clients> {
        self.clients.as_ref().filter(|clients| !clients.nobody())
    }

    fn name(&self) -> String {
        self.pod.map_or_else(|| self.endpoint.address.to_string(), |pod| pod.key.to_string())
    }
}

impl Compiler {
    /// The Services that are guarded by their listeners.
    pub fn guarded(&self) -> impl Iterator<Item = &ObjectKey> {
        self.guarded.keys()
    }

    /// What the listeners of a Service have to do; `None` if it is not guarded by them.
    #[must_use]
    pub fn limits(&self, service: &ObjectKey) -> Option<Limits> {
        let service = self.guarded.get(service)?;
        let members = self.members_for([service].into_iter());
        Some(self.limits_of(service, &members))
    }

    /// The same for all Services.
    #[must_use]
    pub fn all_limits(&self) -> BTreeMap<ObjectKey, Limits> {
        let members = self.members_for(self.guarded.values());
        self.guarded.iter().map(|(key, service)| (key.clone(), self.limits_of(service, &members))).collect()
    }

    /// The guarded Services that pods are behind which a policy isolates for ingress, with those of their limits that are
    /// not exact.
    #[must_use]
    pub fn inexact_behind(&self, policy: &ObjectKey) -> BTreeMap<ObjectKey, Limits> {
        let Some(id) = self.policies.get(policy) else { return BTreeMap::new() };
        if self.guarded.is_empty() || self.grantors.get(id).is_none_or(|grantor| grantor.ingress.is_none()) {
            return BTreeMap::new();
        }
        let isolated = |it: &Endpoint| self.at(&it.address).any(|pod| pod.facts.policies.contains(id));
        let concerned = |service: &Service, key: &(Protocol, u16)| {
            let mut ports = service.ports.iter().filter(|port| (port.protocol, port.number) == *key);
            ports.any(|port| port.endpoints.iter().any(isolated))
        };
        let services = self
            .guarded
            .values()
            .filter(|service| service.ports.iter().any(|port| concerned(service, &(port.protocol, port.number))));
        let mut inexact = BTreeMap::new();
        for service in services {
            let mut limits = self.limits(&service.key).unwrap_or_default();
            limits
                .retain(|key, limit| (limit.too_many.is_some() || !limit.wider.is_empty()) && concerned(service, key));
            if !limits.is_empty() {
                inexact.insert(service.key.clone(), limits);
            }
        }
        inexact
    }

    /// The policies that isolate pods behind a guarded Service for ingress.
    #[must_use]
    pub fn policies_behind(&self, service: &ObjectKey) -> BTreeSet<ObjectKey> {
        let ends =
            self.guarded.get(service).into_iter().flat_map(|service| &service.ports).flat_map(|port| &port.endpoints);
        let pods = ends.flat_map(|endpoint| self.at(&endpoint.address));
        let policies = pods.flat_map(|state| &state.facts.policies).filter_map(|id| self.grantors.get(id));
        let isolating = policies.filter(|grantor| grantor.ingress.is_some());
        isolating
            .filter_map(|grantor| match &grantor.owner {
                Owner::Policy(policy) => Some(policy.key.clone()),
                Owner::Node(..) => None,
            })
            .collect()
    }

    /// Takes over how far a Service is guarded by its listeners.
    pub(super) fn set_guarded(&mut self, key: &ObjectKey, service: Option<&Service>) {
        let now = service.filter(|service| service.hides_client && service.guard.is_some());
        if self.guarded.get(key) == now {
            return;
        }
        match now {
            Some(service) => drop(self.guarded.insert(key.clone(), service.clone())),
            None => drop(self.guarded.remove(key)),
        }
        let own = |group: &&GroupKey| matches!(group, GroupKey::Balanced(it) if it.service == *key);
        self.dirty.groups.extend(self.groups.keys().filter(own).cloned().collect::<Vec<_>>());
        self.renew_holes();
    }

    /// What blocks of ingress rules must not have: there the load balancers are, which let in whom they like as far as the
    /// block is concerned.
    fn renew_holes(&mut self) {
        let balancers = self.guarded.values().flat_map(|service| {
            let others = service.guard.iter().flat_map(|guard| &guard.balancers);
            service.vips.iter().chain(others)
        });
        let holes = tidy(balancers.map(|address| self.settings.range_of(*address)));
        if holes == self.balancer_holes {
            return;
        }
        self.balancer_holes = holes;
        let by_block = |clause: &Clause| matches!(clause.remote, ClauseRemote::Block(_));
        for (id, grantor) in &self.grantors {
            let is_policy = matches!(grantor.owner, Owner::Policy(_));
            if is_policy && grantor.ingress.iter().flatten().any(by_block) {
                self.dirty.rules.insert(*id);
            }
        }
    }

    /// Which pods let load balancers in.
    ///
    /// Looks at all guarded Services, whatever has changed: who may connect depends on the labels and addresses of any pod.
    pub(super) fn settle_guards(&mut self) {
        if self.guarded.is_empty() && self.let_in.is_empty() {
            return;
        }
        let members = self.members_for(self.guarded.values());
        let mut now: HashMap<PodId, BTreeSet<GroupKey>> = HashMap::new();
        for service in self.guarded.values() {
            for (pod, key) in self.let_in_by(service, &members) {
                now.entry(pod).or_default().insert(key);
            }
        }
        let before = std::mem::take(&mut self.let_in);
        let changed = |id: &&PodId| before.get(*id) != now.get(*id);
        self.dirty.grouping.extend(before.keys().chain(now.keys()).filter(changed));
        self.let_in = now;
    }

    /// The pods that let a Service's load balancer in, each with the group for that.
    fn let_in_by(&self, service: &Service, members: &Members) -> Vec<(PodId, GroupKey)> {
        let Some(guard) = service.guard.as_ref().filter(|guard| !guard.balancers.is_empty()) else {
            return Vec::new();
        };
        let mut safe: BTreeMap<(PodId, Protocol, u16), bool> = BTreeMap::new();
        for port in &service.ports {
            let admits = guard.admits.get(&(port.protocol, port.number));
            for behind in self.behind_port(port, members) {
                let Some((id, clients)) = behind.id.zip(behind.counted().filter(|clients| !clients.anyone)) else {
                    continue;
                };
                let is_safe = admits.is_some_and(|admits| self.is_idle(&rest(admits, &clients.all())));
                *safe.entry((id, port.protocol, behind.endpoint.number)).or_insert(true) &= is_safe;
            }
        }
        let key = |(id, protocol, number)| {
            let balanced = Balanced { service: service.key.clone(), protocol, number };
            (id, GroupKey::Balanced(Arc::new(balanced)))
        };
        safe.into_iter().filter(|(_, safe)| *safe).map(|(place, _)| key(place)).collect()
    }

    /// Whether nobody has these addresses: they are of pods, and no pod or node has them now. So a pod that was a client and is
    /// gone closes nothing until its address is another's.
    fn is_idle(&self, nets: &[IpNet]) -> bool {
        nets.iter().all(|net| {
            let few = u32::from(net.max_prefix_len() - net.prefix_len()) <= MANY;
            let of_pods = self.settings.pod_ranges.iter().any(|range| range.contains(net));
            let addresses = || net.subnets(net.max_prefix_len()).into_iter().flatten().map(|host| host.addr());
            few && of_pods && addresses().all(|it| !self.pods_at.contains_key(&it) && !self.nodes_at.contains_key(&it))
        })
    }

    /// The rules of a group that lets a load balancer in.
    pub(super) fn balanced_rules(&self, balanced: &Balanced) -> BTreeSet<Rule> {
        let guard = self.guarded.get(&balanced.service).and_then(|service| service.guard.as_ref());
        let addresses = guard.iter().flat_map(|guard| &guard.balancers);
        let rule =
            |address: &IpAddr| Rule::with(Direction::Ingress, (*address).into()).on(balanced.protocol, balanced.number);
        addresses.map(rule).collect()
    }

    fn limits_of(&self, service: &Service, members: &Members) -> Limits {
        let mut limits = Limits::new();
        for port in &service.ports {
            // The API server takes no two ports of the same protocol and number.
            limits.entry((port.protocol, port.number)).or_insert_with(|| self.limit(port, members));
        }
        limits
    }

    fn limit(&self, port: &ServicePort, members: &Members) -> Limit {
        let behind = self.behind_port(port, members);
        let counted: Vec<&Clients> = behind.iter().filter_map(Behind::counted).collect();
        // Pods that let in everybody let in the load balancer, too: nothing is to be done for them.
        if counted.iter().all(|clients| clients.anyone) {
            return Limit::default();
        }
        let common = |of: fn(&Clients) -> Vec<IpNet>| {
            let mut sets = counted.iter().map(|clients| of(clients));
            let first = sets.next().unwrap_or_default();
            sets.fold(first, |common, set| intersect(&common, &set))
        };
        let mut clients = common(Clients::all);
        let too_many = Some(clients.len()).filter(|count| *count > MAX_CLIENTS);
        if too_many.is_some() {
            clients = common(Clients::without_pods);
            if clients.len() > MAX_CLIENTS {
                clients.clear();
            }
        }
        let lets_in_more = |behind: &&Behind<'_>| match &behind.clients {
            None => true,
            Some(own) => !within(&own.named(), &clients),
        };
        let wider = behind.iter().filter(|_| too_many.is_none()).filter(lets_in_more).map(Behind::name).collect();
        Limit { clients: Some(clients), wider, too_many }
    }

    fn behind_port<'a>(&'a self, port: &ServicePort, members: &Members) -> Vec<Behind<'a>> {
        let mut all = Vec::with_capacity(port.endpoints.len());
        for endpoint in &port.endpoints {
            let before = all.len();
            for id in self.pods_at.get(&endpoint.address).into_iter().flatten() {
                let Some(state) = self.pods.get(id) else { continue };
                let clients = self.clients(state, port.protocol, endpoint.number, members);
                all.push(Behind { endpoint: *endpoint, pod: Some(&state.pod), id: Some(*id), clients });
            }
            if all.len() == before {
                all.push(Behind { endpoint: *endpoint, pod: None, id: None, clients: None });
            }
        }
        all
    }

    /// Whom a pod lets in at a port number; `None`: it is not isolated.
    fn clients(&self, state: &PodState, protocol: Protocol, number: u16, members: &Members) -> Option<Clients> {
        let isolating = |id: &u32| self.grantors.get(id).and_then(|grantor| grantor.ingress.as_ref());
        let mut policies = state.facts.policies.iter().filter_map(isolating).peekable();
        policies.peek()?;
        let mut clients = Clients { anyone: false, blocks: Vec::new(), pods: Vec::new(), always: Vec::new() };
        for clause in policies.flatten().filter(|clause| is_about(clause, &state.pod, protocol, number)) {
            match &clause.remote {
                ClauseRemote::Anywhere => clients.anyone = true,
                ClauseRemote::Block(block) => clients.blocks.extend(&block.pieces),
                ClauseRemote::Pods(query) => clients.pods.extend(members.get(query).into_iter().flatten()),
            }
        }
        let node = state.pod.node.as_deref().and_then(|name| self.nodes.get(name));
        if let Some(Owner::Node(_, addresses)) = node.and_then(|id| self.grantors.get(id)).map(|it| &it.owner) {
            clients.always.extend(addresses.iter().map(|address| IpNet::from(*address)));
        }
        clients.always.extend(state.pod.addresses.iter().map(|address| IpNet::from(*address)));
        Some(clients)
    }

    /// The addresses of the pods that peers of the pods behind these Services select.
    fn members_for<'a>(&self, services: impl Iterator<Item = &'a Service>) -> Members {
        let ends = services.flat_map(|service| &service.ports).flat_map(|port| &port.endpoints);
        let pods = ends.flat_map(|endpoint| self.at(&endpoint.address));
        let policies: HashSet<u32> = pods.flat_map(|state| state.facts.policies.iter().copied()).collect();
        let grantors = policies.iter().filter_map(|id| self.grantors.get(id));
        let asked: HashSet<QueryId> =
            grantors.flat_map(|grantor| grantor.ingress.iter().flatten()).filter_map(Clause::query).collect();
        let mut members = Members::new();
        if asked.is_empty() {
            return members;
        }
        for state in self.pods.values() {
            for query in state.facts.answers.keys().filter(|query| asked.contains(query)) {
                let own = state.pod.addresses.iter().map(|address| IpNet::from(*address));
                members.entry(*query).or_default().extend(own);
            }
        }
        members
    }
}

/// Whether a clause for ingress to this pod is about a port number.
fn is_about(clause: &Clause, pod: &Pod, protocol: Protocol, number: u16) -> bool {
    match &clause.ports {
        ClausePorts::Own(own, name) => *own == protocol && pod.port(protocol, name) == Some(number),
        _ => clause.has(protocol, number),
    }
}

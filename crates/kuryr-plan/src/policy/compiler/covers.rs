//! The second step: how far each grantor of egress allows each listener.

use super::{
    Compiler,
    state::{Cover, Covered, Grantor, GrantorId, Listener, Owner, PodId},
    take_out,
};
use crate::policy::{
    cidr::family,
    clause::{Clause, ClauseRemote},
    group::{ListenerKey, Peers},
    spec::Protocol,
    world::{Endpoint, Service},
};
use kuryr_model::ObjectKey;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

impl Compiler {
    pub(super) fn set_service(&mut self, service: &Service) {
        self.set_guarded(&service.key, Some(service));
        let mut wanted: BTreeMap<ListenerKey, BTreeSet<Endpoint>> = BTreeMap::new();
        for vip in &service.vips {
            for port in &service.ports {
                let key = ListenerKey { vip: *vip, protocol: port.protocol, number: port.number };
                wanted.entry(key).or_default().extend(&port.endpoints);
            }
        }
        let keys = wanted.keys().copied().collect();
        let before = self.services.insert(service.key.clone(), keys).unwrap_or_default();
        for key in before.iter().filter(|key| !wanted.contains_key(key)) {
            self.remove_source(*key, &service.key);
        }
        for (key, endpoints) in wanted {
            let source = (endpoints, service.hides_client);
            let sources = &mut self.listeners.entry(key).or_default().sources;
            if sources.get(&service.key) != Some(&source) {
                sources.insert(service.key.clone(), source);
                self.dirty.listeners.insert(key);
            }
        }
    }

    pub(super) fn remove_service(&mut self, service: &ObjectKey) {
        self.set_guarded(service, None);
        for key in self.services.remove(service).unwrap_or_default() {
            self.remove_source(key, service);
        }
    }

    fn remove_source(&mut self, key: ListenerKey, service: &ObjectKey) {
        if let Some(listener) = self.listeners.get_mut(&key) {
            listener.sources.remove(service);
            self.dirty.listeners.insert(key);
        }
    }

    pub(super) fn set_node(&mut self, name: Arc<str>, addresses: BTreeSet<IpAddr>) {
        let known = self.nodes.get(&name).and_then(|id| self.grantors.get(id)).map(|grantor| &grantor.owner);
        if matches!(known, Some(Owner::Node(_, known)) if *known == addresses) {
            return;
        }
        self.remove_node(&name);
        let id = self.next_id();
        for address in &addresses {
            self.nodes_at.entry(*address).or_default().insert(id);
        }
        self.nodes.insert(Arc::clone(&name), id);
        self.dirty.grouping.extend(self.pods_on.get(&*name).into_iter().flatten());
        self.add_grantor(id, Grantor::node(name, addresses));
    }

    pub(super) fn remove_node(&mut self, name: &str) {
        let Some(id) = self.nodes.remove(name) else { return };
        self.dirty.groups.extend(self.keys(id));
        self.dirty.grouping.extend(self.pods_on.get(name).into_iter().flatten());
        if let Some(Grantor { owner: Owner::Node(_, addresses), .. }) = self.remove_grantor(id) {
            for address in addresses {
                take_out(&mut self.nodes_at, &address, &id);
            }
        }
    }

    pub(super) fn add_grantor(&mut self, id: GrantorId, grantor: Grantor) {
        if matches!(grantor.owner, Owner::Policy(_)) && grantor.egress_by_address() {
            self.by_address.insert(id);
        }
        if grantor.egress.is_some() && !grantor.everything {
            self.dirty.covers.insert(id);
        }
        self.dirty.rules.insert(id);
        self.grantors.insert(id, grantor);
    }

    /// Takes a grantor out of all that knows it but classes: the pods in those are to be grouped anew.
    pub(super) fn remove_grantor(&mut self, id: GrantorId) -> Option<Grantor> {
        let grantor = self.grantors.remove(&id)?;
        self.by_address.remove(&id);
        self.dirty.covers.remove(&id);
        self.dirty.rules.remove(&id);
        for key in &grantor.listeners {
            if let Some(listener) = self.listeners.get_mut(key) {
                listener.covers.remove(&id);
            }
        }
        Some(grantor)
    }

    pub(super) fn settle_covers(&mut self) {
        let listeners = std::mem::take(&mut self.dirty.listeners);
        for key in &listeners {
            self.renew_listener(*key);
        }
        let pairs = std::mem::take(&mut self.dirty.pairs);
        for (key, id) in pairs.into_iter().filter(|(key, _)| !listeners.contains(key)) {
            self.renew_cover(key, id);
        }
        for id in std::mem::take(&mut self.dirty.covers) {
            let others: Vec<ListenerKey> =
                self.listeners.keys().filter(|key| !listeners.contains(key)).copied().collect();
            for key in others {
                self.renew_cover(key, id);
            }
        }
    }

    /// Puts a listener's endpoints together, and lets every grantor look at it that may allow any of it.
    fn renew_listener(&mut self, key: ListenerKey) {
        let Some(listener) = self.listeners.get_mut(&key) else { return };
        let before = std::mem::take(&mut listener.endpoints);
        let endpoints = listener.sources.values().flat_map(|(endpoints, _)| endpoints);
        let endpoints: BTreeSet<Endpoint> =
            endpoints.filter(|it| family(it.address) == family(key.vip)).copied().collect();
        listener.endpoints = endpoints.into_iter().collect();
        listener.hides_client = listener.sources.values().any(|(_, hides)| *hides);
        let gone = listener.sources.is_empty();
        let mut grantors: BTreeSet<GrantorId> = listener.covers.keys().copied().collect();

        let now = listener.endpoints.clone();
        for endpoint in &before {
            take_out(&mut self.listeners_at, &endpoint.address, &key);
        }
        for endpoint in &now {
            self.listeners_at.entry(endpoint.address).or_default().insert(key);
        }
        let behind = before.iter().chain(&now).filter_map(|endpoint| self.pods_at.get(&endpoint.address));
        self.dirty.grouping.extend(behind.flatten());

        grantors.extend(self.candidates(key.vip, &now));
        for id in grantors {
            self.renew_cover(key, id);
        }
        if gone {
            self.listeners.remove(&key);
        }
    }

    /// The grantors that may allow any of these endpoints, or the VIP by its address.
    fn candidates(&self, vip: IpAddr, endpoints: &[Endpoint]) -> BTreeSet<GrantorId> {
        let mut candidates = BTreeSet::new();
        if endpoints.is_empty() {
            return candidates;
        }
        candidates.extend(&self.by_address);
        candidates.extend(self.nodes_at.get(&vip).into_iter().flatten());
        for endpoint in endpoints {
            candidates.extend(self.nodes_at.get(&endpoint.address).into_iter().flatten());
            let answers = self.at(&endpoint.address).flat_map(|state| state.facts.answers.keys());
            let users = answers.filter_map(|query| self.queries.get(query)).flat_map(|state| &state.users);
            candidates.extend(users.filter(|(_, egress)| **egress).map(|(user, _)| *user));
        }
        candidates
    }

    fn renew_cover(&mut self, key: ListenerKey, id: GrantorId) {
        let Some(listener) = self.listeners.get(&key) else { return };
        let cover = self.grantors.get(&id).and_then(|grantor| self.cover(key, listener, grantor));
        if listener.covers.get(&id) == cover.as_ref() {
            return;
        }
        // Pods behind it that have this grantor: whether they need help to reach themselves depends on it.
        let behind = listener.endpoints.iter().flat_map(|endpoint| self.pods_at.get(&endpoint.address)).flatten();
        let granted = |pod: &&PodId| self.pods.get(pod).is_some_and(|state| self.is_granted_by(state, id));
        self.dirty.grouping.extend(behind.filter(granted).copied().collect::<Vec<_>>());
        if let Some(grantor) = self.grantors.get_mut(&id) {
            match cover {
                Some(_) => grantor.listeners.insert(key),
                None => grantor.listeners.remove(&key),
            };
            self.dirty.joint.extend(grantor.classes.iter().map(|class| (Arc::clone(class), key)));
            self.dirty.rules.insert(id);
        }
        if let Some(listener) = self.listeners.get_mut(&key) {
            match cover {
                Some(cover) => listener.covers.insert(id, cover),
                None => listener.covers.remove(&id),
            };
        }
    }

    /// How far a grantor allows a listener. A listener with nothing behind it is neither allowed nor refused: there is
    /// nothing to reach.
    fn cover(&self, key: ListenerKey, listener: &Listener, grantor: &Grantor) -> Option<Cover> {
        if grantor.everything || listener.endpoints.is_empty() {
            return None;
        }
        let clauses = || grantor.egress.iter().flatten();
        let literal = clauses().any(|clause| clause.has(key.protocol, key.number) && clause.has_address(key.vip));
        let allowed = |it: &Endpoint| clauses().any(|clause| self.allows(clause, key.protocol, it));
        let allowed: Box<[bool]> = listener.endpoints.iter().map(allowed).collect();
        let endpoints = if allowed.iter().all(|it| *it) {
            Covered::All
        } else if allowed.iter().any(|it| *it) {
            Covered::Some(allowed)
        } else {
            Covered::None
        };
        (literal || endpoints != Covered::None).then_some(Cover { literal, endpoints })
    }

    /// Whether a clause allows an endpoint. Where several pods have its address, it must allow each.
    fn allows(&self, clause: &Clause, protocol: Protocol, endpoint: &Endpoint) -> bool {
        if !clause.has(protocol, endpoint.number) {
            return false;
        }
        let ClauseRemote::Pods(query) = &clause.remote else { return clause.has_address(endpoint.address) };
        // Its rules are for the block's family only, whatever other addresses a pod in it has.
        if let Some(Peers::Within(block)) = self.queries.get(query).map(|state| &state.query.peers)
            && !block.contains(endpoint.address)
        {
            return false;
        }
        let mut pods = self.at(&endpoint.address).peekable();
        let meant = |answer: &Option<u16>| answer.is_none_or(|number| number == endpoint.number);
        pods.peek().is_some() && pods.all(|state| state.facts.answers.get(query).is_some_and(meant))
    }
}

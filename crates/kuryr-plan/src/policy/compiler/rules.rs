//! The last step: which groups there are, and their rules.

use super::{
    Compiler,
    state::{Covered, Grantor, GrantorId, Owner},
};
use crate::policy::{
    cidr::{subtract, whole},
    clause::{Clause, ClausePorts, ClauseRemote, Query},
    group::{GroupChange, GroupKey, ListenerKey, LoopPath, Peers, Remote, Rule, Together},
    spec::Protocol,
    world::NamedPort,
};
use ipnet::IpNet;
use kuryr_model::neutron::{Direction, EtherType};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Protocol and port numbers of a rule.
type Traffic = (Option<Protocol>, Option<(u16, u16)>);

impl Compiler {
    /// Brings groups and rules up to date.
    pub(super) fn settle_groups(&mut self) -> BTreeMap<GroupKey, GroupChange> {
        let mut keys = std::mem::take(&mut self.dirty.groups);
        for id in std::mem::take(&mut self.dirty.rules) {
            keys.extend(self.keys(id));
        }
        let mut changes = BTreeMap::new();
        for key in keys {
            let Some(rules) = self.rules_of(&key) else {
                if self.groups.remove(&key).is_some() {
                    changes.insert(key, GroupChange::Gone);
                }
                continue;
            };
            match self.groups.get(&key) {
                None => drop(changes.insert(key.clone(), GroupChange::Made(rules.clone()))),
                Some(before) if *before == rules => continue,
                Some(before) => {
                    let added = rules.difference(before).cloned().collect();
                    let removed = before.difference(&rules).cloned().collect();
                    changes.insert(key.clone(), GroupChange::Changed { added, removed });
                }
            }
            self.groups.insert(key, rules);
        }
        changes
    }

    /// The groups of a grantor, those that are about to be too.
    pub(super) fn keys(&self, id: GrantorId) -> Vec<GroupKey> {
        let Some(grantor) = self.grantors.get(&id) else { return Vec::new() };
        let first = grantor.key(BTreeSet::new());
        let same = |key: &&GroupKey| match (key, &grantor.owner) {
            (GroupKey::Policy(group), Owner::Policy(policy)) => group.policy == policy.uid,
            (key, _) => **key == first,
        };
        let mut keys: Vec<GroupKey> =
            self.groups.range(&first..).map(|(key, _)| key).take_while(same).cloned().collect();
        if keys.first() != Some(&first) {
            keys.push(first);
        }
        keys
    }

    /// The rules of a group; `None` if there is to be no such group.
    ///
    /// A group that nobody carries is there all the same if it is a policy's only one or a plain peer set: then a pod
    /// that is to carry it has not to wait for it.
    fn rules_of(&self, key: &GroupKey) -> Option<BTreeSet<Rule>> {
        let carried = self.carriers.contains_key(key);
        let rules = match key {
            GroupKey::IngressOpen | GroupKey::EgressOpen => return None,
            GroupKey::Policy(group) => {
                let grantor = self.grantors.get(self.policies_by_uid.get(&group.policy)?)?;
                let only = grantor.names.is_empty() && group.ports.is_empty();
                (carried || only).then(|| self.grantor_rules(grantor, &group.ports))?
            }
            GroupKey::Peers(set) => {
                let query = || set.port.is_none() && self.is_asked(&set.peers);
                (carried || query()).then(BTreeSet::new)?
            }
            GroupKey::Node(name) => {
                let grantor = self.grantors.get(self.nodes.get(name).filter(|_| carried)?)?;
                self.grantor_rules(grantor, &BTreeSet::new())
            }
            GroupKey::Loop(paths) => carried.then(|| loop_rules(key, paths))?,
            GroupKey::Together(together) => carried.then(|| self.together_rules(together))?,
            GroupKey::Balanced(balanced) => carried.then(|| self.balanced_rules(balanced))?,
        };
        Some(rules.into_iter().filter(|rule| self.settings.families.contains(&rule.ethertype)).collect())
    }

    /// Whether some clause names just these peers, not by a port's name.
    fn is_asked(&self, peers: &Peers) -> bool {
        let query = Query { peers: peers.clone(), name: None };
        self.query_ids.contains_key(&query)
    }

    fn grantor_rules(&self, grantor: &Grantor, ports: &BTreeSet<NamedPort>) -> BTreeSet<Rule> {
        let mut rules: BTreeSet<Rule> = grantor.hairpins.keys().cloned().collect();
        for clause in grantor.ingress.iter().flatten() {
            if let Some(traffic) = traffic(clause, ports) {
                let holes: &[IpNet] = match (&clause.remote, &grantor.owner) {
                    (ClauseRemote::Block(_), Owner::Policy(_)) => &self.balancer_holes,
                    _ => &[],
                };
                self.emit(Direction::Ingress, clause, traffic, holes, &mut rules);
            }
        }
        let (allowed, refused) = self.listeners_of(grantor);
        // The VIPs that the rules about addresses allow anyway.
        let mut literal: BTreeSet<ListenerKey> = BTreeSet::new();
        for clause in grantor.egress.iter().flatten() {
            let holes = self.holes(clause, &refused);
            let outside = |key: &&ListenerKey| !holes.iter().any(|hole| hole.contains(&key.vip));
            let reached =
                allowed.iter().filter(|key| clause.has(key.protocol, key.number) && clause.has_address(key.vip));
            literal.extend(reached.filter(outside));
            if let Some(traffic) = traffic(clause, ports) {
                self.emit(Direction::Egress, clause, traffic, &holes, &mut rules);
            }
        }
        rules.extend(allowed.difference(&literal).map(vip_rule));
        rules
    }

    /// The listeners that a grantor allows, and those that it must not allow although a clause has their address. A
    /// node stays allowed to its pods as a whole, also if somebody's Service answers at its address.
    fn listeners_of(&self, grantor: &Grantor) -> (BTreeSet<ListenerKey>, BTreeSet<ListenerKey>) {
        let id = match &grantor.owner {
            Owner::Policy(policy) => self.policies_by_uid.get(&policy.uid),
            Owner::Node(name, _) => self.nodes.get(name),
        };
        let cover = |key: &ListenerKey| self.listeners.get(key)?.covers.get(id?);
        let is_policy = matches!(grantor.owner, Owner::Policy(_));
        let (mut allowed, mut refused) = (BTreeSet::new(), BTreeSet::new());
        for key in &grantor.listeners {
            match cover(key) {
                Some(cover) if cover.endpoints == Covered::All => drop(allowed.insert(*key)),
                Some(cover) if cover.literal && is_policy => drop(refused.insert(*key)),
                _ => {}
            }
        }
        (allowed, refused)
    }

    /// What to cut out of a clause's addresses, so that it has no VIP that is refused.
    fn holes(&self, clause: &Clause, refused: &BTreeSet<ListenerKey>) -> Vec<IpNet> {
        let within = refused.iter().filter(|key| clause.has(key.protocol, key.number) && clause.has_address(key.vip));
        within.map(|key| self.settings.range_of(key.vip)).collect::<BTreeSet<IpNet>>().into_iter().collect()
    }

    /// The rules for one clause.
    fn emit(
        &self,
        direction: Direction,
        clause: &Clause,
        traffic: Traffic,
        holes: &[IpNet],
        rules: &mut BTreeSet<Rule>,
    ) {
        let (protocol, ports) = traffic;
        let mut nets = |nets: Vec<IpNet>| {
            let rule = |net| Rule { protocol, ports, ..Rule::with(direction, net) };
            rules.extend(nets.into_iter().flat_map(|net| subtract(net, holes)).map(rule));
        };
        match &clause.remote {
            ClauseRemote::Anywhere => nets(vec![whole(EtherType::IPv4), whole(EtherType::IPv6)]),
            ClauseRemote::Block(block) => nets(block.pieces.clone()),
            ClauseRemote::Pods(query) => {
                let Some(state) = self.queries.get(query) else { return };
                let families = match &state.query.peers {
                    Peers::Within(block) => vec![block.family()],
                    Peers::Everyone | Peers::Labelled(..) => vec![EtherType::IPv4, EtherType::IPv6],
                };
                for (answer, (key, _)) in &state.answers {
                    let ports = answer.map(|number| (number, number)).or(ports);
                    let remote = Remote::Group(key.clone());
                    let rule = |ethertype| Rule { direction, ethertype, protocol, ports, remote: remote.clone() };
                    rules.extend(families.iter().copied().map(rule));
                }
            }
        }
    }

    /// The VIPs that these allow together and none of them alone.
    fn together_rules(&self, together: &Together) -> BTreeSet<Rule> {
        let policies = together.policies.iter().filter_map(|uid| self.policies_by_uid.get(uid));
        let node = together.node.iter().filter_map(|name| self.nodes.get(name));
        let ids: Vec<GrantorId> = policies.chain(node).copied().collect();
        let grantors = ids.iter().filter_map(|id| self.grantors.get(id));
        let keys: BTreeSet<&ListenerKey> = grantors.flat_map(|grantor| &grantor.listeners).collect();
        keys.into_iter().filter(|key| self.only_together(&ids, **key)).map(vip_rule).collect()
    }
}

/// The traffic of a clause's rules; `None` if the pod has no port of that name.
fn traffic(clause: &Clause, own: &BTreeSet<NamedPort>) -> Option<Traffic> {
    Some(match &clause.ports {
        ClausePorts::All => (None, None),
        ClausePorts::Protocol(protocol) | ClausePorts::Peers(protocol) => (Some(*protocol), None),
        ClausePorts::Range(protocol, first, last) => (Some(*protocol), Some((*first, *last))),
        ClausePorts::Own(protocol, name) => {
            let port = own.iter().find(|port| port.protocol == *protocol && port.name == *name)?;
            (Some(*protocol), Some((port.number, port.number)))
        }
    })
}

/// Egress to a VIP.
fn vip_rule(key: &ListenerKey) -> Rule {
    Rule::with(Direction::Egress, key.vip.into()).on(key.protocol, key.number)
}

/// To the VIPs and, once the load balancer has chosen the pod itself, to its own port. Others who carry the group are
/// behind the same listeners with the same port numbers and allowed anyway.
fn loop_rules(key: &GroupKey, paths: &Arc<BTreeSet<LoopPath>>) -> BTreeSet<Rule> {
    let rules = paths.iter().flat_map(|path| {
        let vip = vip_rule(&path.listener);
        let own = Rule { remote: Remote::Group(key.clone()), ports: Some((path.target, path.target)), ..vip.clone() };
        [vip, own]
    });
    rules.collect()
}

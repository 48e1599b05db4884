//! The first step: which policies select each pod, and what it answers to the queries of their clauses.

use super::{
    Compiler,
    index::LabelIndex,
    state::{Facts, Grantor, GrantorId, Grouping, Namespace, Owner, PodId, PodState, QueryState},
    take_out,
};
use crate::policy::{
    clause::{Clause, Query, QueryId, clauses},
    group::Peers,
    selector::{Anchor, Labels, Selector},
    spec::{Namespaces, Policy, PolicyRule},
    world::Pod,
};
use kuryr_model::{ObjectKey, neutron::Direction};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, LazyLock},
};

/// From so many new queries on, it is less work to match all pods anew with an index than all pods with each of them.
const MANY: usize = 16;

/// What the queries stand under that are about all pods.
static EVERYTHING: LazyLock<Selector> = LazyLock::new(Selector::everything);

impl Compiler {
    pub(super) fn set_pod(&mut self, pod: Pod) {
        let known = self.pods_by_key.get(&pod.key).copied();
        let same = known.filter(|id| self.pods.get(id).is_some_and(|state| state.pod.uid == pod.uid));
        if same.is_none() || !pod.counts() {
            self.remove_pod(&pod.key);
        }
        if !pod.counts() {
            return;
        }
        let id = same.unwrap_or_else(|| self.next_id());
        let state = self.pods.remove(&id);
        if state.as_ref().is_some_and(|state| state.pod == pod) {
            self.pods.extend(state.map(|state| (id, state)));
            return;
        }
        let addresses = state.as_ref().map(|state| state.pod.addresses.clone()).unwrap_or_default();
        self.move_addresses(id, &addresses, &pod.addresses);
        let node = state.as_ref().and_then(|state| state.pod.node.clone());
        self.move_node(id, node.as_deref(), pod.node.as_deref());
        if state.is_none() {
            self.namespace(&pod.key.namespace).pods.insert(id);
            self.pods_by_key.insert(pod.key.clone(), id);
            self.pods_by_uid.insert(pod.uid.clone(), id);
            self.dirty.before.entry(pod.uid.clone()).or_insert(None);
        }
        let (facts, grouping) = state.map(|state| (state.facts, state.grouping)).unwrap_or_default();
        self.pods.insert(id, PodState { pod, facts, grouping });
        self.dirty.facts.insert(id);
        // Its numbers for names and its node count where its facts do not.
        self.dirty.grouping.insert(id);
    }

    pub(super) fn remove_pod(&mut self, key: &ObjectKey) {
        let Some(id) = self.pods_by_key.remove(key) else { return };
        self.set_facts(id, Facts::default());
        self.set_grouping(id, Grouping::default());
        let Some(PodState { pod, .. }) = self.pods.remove(&id) else { return };
        self.move_addresses(id, &pod.addresses, &BTreeSet::new());
        self.move_node(id, pod.node.as_deref(), None);
        self.pods_by_uid.remove(&pod.uid);
        if let Some(namespace) = self.namespaces.get_mut(&key.namespace) {
            namespace.pods.remove(&id);
        }
        self.tidy_namespace(&key.namespace);
    }

    fn move_addresses(&mut self, id: PodId, from: &BTreeSet<IpAddr>, to: &BTreeSet<IpAddr>) {
        for address in from.difference(to) {
            take_out(&mut self.pods_at, address, &id);
        }
        for address in to.difference(from) {
            self.pods_at.entry(*address).or_default().insert(id);
        }
        for address in from.symmetric_difference(to) {
            self.dirty.listeners.extend(self.listeners_at.get(address).into_iter().flatten());
        }
    }

    fn move_node(&mut self, id: PodId, from: Option<&str>, to: Option<&str>) {
        if from == to {
            return;
        }
        if let Some(from) = from {
            take_out(&mut self.pods_on, from, &id);
        }
        if let Some(to) = to {
            self.pods_on.entry(to.to_owned()).or_default().insert(id);
        }
    }

    /// The namespace, known or not.
    fn namespace(&mut self, name: &str) -> &mut Namespace {
        self.namespaces.entry(name.to_owned()).or_default()
    }

    pub(super) fn set_namespace(&mut self, name: &str, labels: Option<Labels>) {
        let namespace = self.namespaces.entry(name.to_owned()).or_default();
        if namespace.labels != labels {
            namespace.labels = labels;
            self.dirty.facts.extend(&namespace.pods);
        }
        self.tidy_namespace(name);
    }

    /// Forgets a namespace that is not known and in which there is nothing.
    fn tidy_namespace(&mut self, name: &str) {
        let idle = |it: &Namespace| {
            it.labels.is_none() && it.pods.is_empty() && it.policies.is_empty() && it.queries.is_empty()
        };
        if self.namespaces.get(name).is_some_and(idle) {
            self.namespaces.remove(name);
        }
    }

    pub(super) fn set_policy(&mut self, policy: Policy) {
        let known = self.policies.get(&policy.key).copied();
        let owner = known.and_then(|id| self.grantors.get(&id)).map(|grantor| &grantor.owner);
        if matches!(owner, Some(Owner::Policy(known)) if *known == policy) {
            return;
        }
        let id = self.next_id();
        let ingress = policy.ingress.as_ref().map(|rules| self.clauses(Direction::Ingress, rules));
        let egress = policy.egress.as_ref().map(|rules| self.clauses(Direction::Egress, rules));
        let grantor = Grantor::policy(policy.clone(), ingress, egress);
        // What the new one asks is asked before the old one is removed, so that what both ask is asked all the time.
        self.start_asking(id, &grantor);
        self.remove_policy(&policy.key);
        self.namespace(&policy.key.namespace).policies.insert(id, &policy.pods);
        self.policies.insert(policy.key, id);
        self.policies_by_uid.insert(policy.uid, id);
        self.dirty.policies.insert(id);
        self.add_grantor(id, grantor);
    }

    pub(super) fn remove_policy(&mut self, key: &ObjectKey) {
        let Some(id) = self.policies.remove(key) else { return };
        self.dirty.groups.extend(self.keys(id));
        let Some(grantor) = self.remove_grantor(id) else { return };
        if let Owner::Policy(policy) = &grantor.owner {
            self.policies_by_uid.remove(&policy.uid);
            if let Some(namespace) = self.namespaces.get_mut(&key.namespace) {
                namespace.policies.remove(id, &policy.pods);
                for pod in &namespace.pods {
                    if self.pods.get_mut(pod).is_some_and(|state| state.facts.policies.remove(&id)) {
                        self.dirty.grouping.insert(*pod);
                    }
                }
            }
        }
        for query in grantor.queries().into_keys() {
            self.stop_asking(id, query);
        }
        self.dirty.policies.remove(&id);
        self.tidy_namespace(&key.namespace);
    }

    fn clauses(&mut self, direction: Direction, rules: &[PolicyRule]) -> Vec<Clause> {
        clauses(direction, rules, |query| {
            if let Some(id) = self.query_ids.get(&query) {
                return *id;
            }
            let id = self.next_id();
            let query = Arc::new(query);
            let (index, selector) = self.index(&query);
            index.insert(id, selector);
            self.query_ids.insert(Arc::clone(&query), id);
            self.queries.insert(id, QueryState::new(query));
            self.dirty.queries.insert(id);
            id
        })
    }

    /// The index that a query belongs into, and the selector under which it stands there. Those of policies about their
    /// own namespace are of no concern to others; of the rest, most name the pods more exactly than the namespaces.
    fn index<'a>(&mut self, query: &'a Query) -> (&mut LabelIndex, &'a Selector) {
        match &query.peers {
            Peers::Labelled(Namespaces::Own(name), pods) => (&mut self.namespace(name).queries, pods),
            Peers::Labelled(Namespaces::Labelled(namespaces), pods) if pods.anchor() == Anchor::None => {
                (&mut self.by_namespace, namespaces)
            }
            Peers::Labelled(_, pods) => (&mut self.by_pod, pods),
            Peers::Everyone | Peers::Within(_) => (&mut self.by_pod, &EVERYTHING),
        }
    }

    fn start_asking(&mut self, user: GrantorId, grantor: &Grantor) {
        for (query, egress) in grantor.queries() {
            if let Some(state) = self.queries.get_mut(&query) {
                state.users.insert(user, egress);
                self.dirty.groups.extend(state.answers.get(&None).map(|(key, _)| key.clone()));
            }
        }
    }

    fn stop_asking(&mut self, user: GrantorId, id: QueryId) {
        let Some(state) = self.queries.get_mut(&id) else { return };
        state.users.remove(&user);
        if !state.users.is_empty() {
            return;
        }
        let Some(state) = self.queries.remove(&id) else { return };
        self.query_ids.remove(&state.query);
        let (index, selector) = self.index(&state.query);
        index.remove(id, selector);
        self.dirty.queries.remove(&id);
        self.dirty.groups.extend(state.answers.into_values().map(|(key, _)| key));
        self.dirty.unasked.insert(id, state.query);
    }

    /// Matches what is new: pods with everything, and the other pods with new queries and policies.
    pub(super) fn settle_facts(&mut self) {
        self.forget_answers();
        if self.dirty.queries.len() > MANY {
            let new = self.dirty.queries.iter().filter_map(|id| self.queries.get(id));
            self.dirty.facts.extend(self.pods_in_places_of(new.map(|state| &*state.query)));
        }
        let dirty = std::mem::take(&mut self.dirty.facts);
        for id in &dirty {
            if let Some(facts) = self.pods.get(id).map(|state| self.facts(&state.pod)) {
                self.set_facts(*id, facts);
            }
        }
        for query in std::mem::take(&mut self.dirty.queries) {
            let Some(asked) = self.queries.get(&query).map(|state| Arc::clone(&state.query)) else { continue };
            let pods = self.pods_in_question(&asked).filter(|id| !dirty.contains(id));
            let answers = pods.filter_map(|id| Some((id, asked.answer(&self.pods.get(&id)?.pod)?)));
            for (id, answer) in answers.collect::<Vec<_>>() {
                self.revise_facts(id, |facts| {
                    facts.answers.insert(query, answer);
                });
            }
        }
        for policy in std::mem::take(&mut self.dirty.policies) {
            let Some(grantor) = self.grantors.get(&policy) else { continue };
            let Owner::Policy(Policy { key, pods: selector, .. }) = &grantor.owner else { continue };
            let pods = self.namespaces.get(&key.namespace).into_iter().flat_map(|namespace| &namespace.pods);
            let selected = |id: &&PodId| self.pods.get(id).is_some_and(|state| selector.matches(&state.pod.labels));
            let selected: Vec<PodId> = pods.filter(|id| !dirty.contains(id)).filter(selected).copied().collect();
            for id in selected {
                self.revise_facts(id, |facts| {
                    facts.policies.insert(policy);
                });
            }
        }
    }

    /// Takes the answers to queries that nobody asks any more from the pods.
    fn forget_answers(&mut self) {
        let unasked = std::mem::take(&mut self.dirty.unasked);
        if unasked.is_empty() {
            return;
        }
        let pods = self.pods_in_places_of(unasked.values().map(|query| &**query));
        for id in pods {
            let Some(state) = self.pods.get_mut(&id) else { continue };
            let answers = &mut state.facts.answers;
            let before = answers.len();
            answers.retain(|query, _| !unasked.contains_key(query));
            if answers.len() != before {
                self.dirty.grouping.insert(id);
            }
        }
    }

    /// The pods of these queries' own namespaces; all, as soon as one is about others too.
    fn pods_in_places_of<'a>(&self, queries: impl Iterator<Item = &'a Query>) -> Vec<PodId> {
        let own = |query: &'a Query| match &query.peers {
            Peers::Labelled(Namespaces::Own(name), _) => Some(name),
            _ => None,
        };
        match queries.map(own).collect::<Option<BTreeSet<&String>>>() {
            None => self.pods.keys().copied().collect(),
            Some(names) => names
                .into_iter()
                .filter_map(|name| self.namespaces.get(name))
                .flat_map(|it| &it.pods)
                .copied()
                .collect(),
        }
    }

    /// The pods of the namespaces that a query is about.
    fn pods_in_question(&self, query: &Query) -> impl Iterator<Item = PodId> {
        let namespaces = self.namespaces.iter().filter(|(name, namespace)| applies(query, name, namespace));
        namespaces.flat_map(|(_, namespace)| &namespace.pods).copied()
    }

    fn facts(&self, pod: &Pod) -> Facts {
        let Some(namespace) = self.namespaces.get(&pod.key.namespace) else { return Facts::default() };
        let selects = |id: &GrantorId| {
            self.grantors.get(id).and_then(Grantor::selector).is_some_and(|selector| selector.matches(&pod.labels))
        };
        let of_namespace = namespace.labels.iter().flat_map(|labels| self.by_namespace.candidates(labels));
        let of_pod = namespace.queries.candidates(&pod.labels).chain(self.by_pod.candidates(&pod.labels));
        let answer = |id: QueryId| {
            let query = &self.queries.get(&id)?.query;
            let applies = applies(query, &pod.key.namespace, namespace);
            applies.then(|| query.answer(pod)).flatten().map(|answer| (id, answer))
        };
        Facts {
            policies: namespace.policies.candidates(&pod.labels).filter(selects).collect(),
            answers: of_pod.chain(of_namespace).filter_map(answer).collect(),
        }
    }

    fn revise_facts(&mut self, id: PodId, revise: impl FnOnce(&mut Facts)) {
        let Some(mut facts) = self.pods.get(&id).map(|state| state.facts.clone()) else { return };
        revise(&mut facts);
        self.set_facts(id, facts);
    }

    fn set_facts(&mut self, id: PodId, facts: Facts) {
        let Some(state) = self.pods.get_mut(&id) else { return };
        if state.facts == facts {
            return;
        }
        let before = std::mem::replace(&mut state.facts, facts);
        let now = &state.facts.answers;
        let gone = difference(&before.answers, now);
        let new = difference(now, &before.answers);
        let addresses = &state.pod.addresses;
        let listeners = addresses.iter().flat_map(|address| self.listeners_at.get(address).into_iter().flatten());
        let listeners: BTreeSet<_> = listeners.copied().collect();
        let gone = gone.into_iter().map(|(query, answer)| (query, answer, false));
        let new = new.into_iter().map(|(query, answer)| (query, answer, true));
        for (query, answer, is_new) in gone.chain(new) {
            let Some(query) = self.queries.get_mut(&query) else { continue };
            let changes_rules = if is_new { query.count(answer) } else { query.discount(answer) };
            if changes_rules {
                self.dirty.rules.extend(query.users.keys());
            }
            let users = query.users.iter().filter(|(_, egress)| **egress);
            self.dirty.pairs.extend(users.flat_map(|(user, _)| listeners.iter().map(|listener| (*listener, *user))));
        }
        self.dirty.grouping.insert(id);
    }
}

/// What is in `a` and not, or differently, in `b`.
fn difference(a: &BTreeMap<QueryId, Option<u16>>, b: &BTreeMap<QueryId, Option<u16>>) -> Vec<(QueryId, Option<u16>)> {
    a.iter().filter(|(id, answer)| b.get(id) != Some(answer)).map(|(id, answer)| (*id, *answer)).collect()
}

/// Whether a query can mean pods in this namespace.
fn applies(query: &Query, name: &str, namespace: &Namespace) -> bool {
    match &query.peers {
        Peers::Everyone | Peers::Within(_) => true,
        Peers::Labelled(Namespaces::Own(own), _) => own == name,
        Peers::Labelled(Namespaces::Labelled(selector), _) => {
            namespace.labels.as_ref().is_some_and(|labels| selector.matches(labels))
        }
    }
}

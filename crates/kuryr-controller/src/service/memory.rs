//! What is known of each Service's things in the cloud, so that a change costs the calls that change something and no more.
//!
//! Invariants: what is known of a Service is either what OpenStack said, brought forward by the answers to our own calls, or
//! it is forgotten. Once all that carries our mark was listed, a Service of which nothing is known has nothing there,
//! unless it is a *suspect*: of one whose call was lost it is asked.

use super::wait::{Arriving, Pace};
use kuryr_model::{LoadBalancerId, ObjectKey, ServiceUid};
use kuryr_plan::service::{Balancer, Observed, ObservedTree, Problem};
use parking_lot::Mutex;
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
    time::Duration,
};
use tokio::time::Instant;

/// From where load balancers connect to pods.
#[derive(Clone, Debug)]
pub(crate) struct Balancers {
    pub(super) of: Vec<Balancer>,
    pub(super) addresses: BTreeSet<IpAddr>,
    pub(super) since: Instant,
}

/// What is known of one Service.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    /// What is there.
    pub(crate) observed: Observed,
    /// Load balancers on which Octavia is at work.
    pub(crate) work: HashMap<LoadBalancerId, Work>,
    /// How often members were changed lately.
    pub(crate) pace: Pace,
    /// When a floating IP of a load balancer of OVN was last led somewhere else.
    pub(crate) led: Option<Instant>,
    /// How often a load balancer in `ERROR` was repaired since all was well, and when last.
    pub(crate) repairs: Option<(u32, Instant)>,
    /// The members that were applied last, as a digest.
    pub(crate) applied: String,
    /// What stood in the way of the last plan.
    pub(crate) problems: Vec<Problem>,
    /// Addresses and load balancers of others that were asked for, so that they are not asked for again.
    pub(crate) asked: HashSet<String>,
    /// From where its load balancers connect to pods, where that was asked for.
    pub(crate) balancers: Option<Balancers>,
    /// How far its `EndpointSlice`s had come when its load balancer was to be made.
    pub(crate) arriving: Option<Arriving>,
    /// Since when it is on its way to what is wanted.
    pub(crate) busy: Option<Instant>,
    /// Grows with every change that was made.
    pub(crate) version: u64,
}

/// Octavia is at work on a load balancer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    /// Since when.
    pub(crate) since: Instant,
    /// When to look again.
    pub(crate) next: Instant,
}

impl Memory {
    /// What was just listed, with nothing done yet.
    pub(crate) fn of(observed: Observed) -> Self {
        Self { observed, ..Self::default() }
    }

    /// The least time until a load balancer has to be looked at.
    pub(crate) fn next_look(&self, now: Instant) -> Option<Duration> {
        self.work.values().map(|work| work.next.saturating_duration_since(now)).min()
    }
}

/// What is known of all Services.
#[derive(Default)]
pub(crate) struct Memories {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    known: HashMap<ServiceUid, Memory>,
    /// Services of which it must be asked.
    suspects: HashSet<ServiceUid>,
    /// All that carries our mark was listed once.
    listed: bool,
    /// Why not yet.
    trouble: Option<String>,
    /// The Service of each name that was served last.
    names: HashMap<ObjectKey, ServiceUid>,
    /// Load balancers that are waited for.
    waiting: HashMap<ServiceUid, usize>,
    /// Until when Octavia may still be at work on a create of which nobody here has an answer.
    in_flight: HashMap<ServiceUid, Instant>,
}

/// No create takes Octavia's API longer to answer, whoever has stopped to wait for it.
const IN_FLIGHT: Duration = Duration::from_secs(3 * 60);

/// What there is to begin with.
pub(crate) enum Recall {
    /// This.
    Known(Box<Memory>),
    /// OpenStack has to be asked.
    Ask,
    /// The first listing is not through, for this reason if it has failed.
    NotListed(Option<String>),
}

impl Memories {
    /// Takes out what is known of a Service; it is to be put back by [`Memories::keep`], or it is forgotten.
    pub(crate) fn take(&self, uid: &ServiceUid) -> Recall {
        let mut state = self.state.lock();
        if !state.listed {
            return Recall::NotListed(state.trouble.clone());
        }
        if state.suspects.contains(uid) {
            return Recall::Ask;
        }
        Recall::Known(Box::new(state.known.remove(uid).unwrap_or_default()))
    }

    /// Remembers what is known of a Service.
    pub(crate) fn keep(&self, uid: &ServiceUid, memory: Memory) {
        let mut state = self.state.lock();
        state.suspects.remove(uid);
        if memory.work.is_empty() {
            state.waiting.remove(uid);
        } else {
            state.waiting.insert(uid.clone(), memory.work.len());
        }
        state.known.insert(uid.clone(), memory);
    }

    /// Forgets a Service of which nothing is left.
    pub(crate) fn forget(&self, uid: &ServiceUid) {
        let mut state = self.state.lock();
        state.known.remove(uid);
        state.suspects.remove(uid);
        state.waiting.remove(uid);
        state.names.retain(|_, named| named != uid);
    }

    /// The Service of this name is served.
    pub(crate) fn name(&self, key: &ObjectKey, uid: &ServiceUid) {
        self.state.lock().names.insert(key.clone(), uid.clone());
    }

    /// The Service of this name that was served last, if there may be something of it.
    pub(crate) fn named(&self, key: &ObjectKey) -> Option<ServiceUid> {
        self.state.lock().names.get(key).cloned()
    }

    /// What is there for this Service is not sure: ask before anything else.
    pub(crate) fn suspect(&self, uid: &ServiceUid) {
        let mut state = self.state.lock();
        state.known.remove(uid);
        state.waiting.remove(uid);
        state.suspects.insert(uid.clone());
    }

    /// Whether there is, or may be, something of a Service.
    pub(crate) fn has_something(&self, uid: &ServiceUid) -> bool {
        let state = self.state.lock();
        state.suspects.contains(uid)
            || state.known.get(uid).is_some_and(|memory| memory.observed != Observed::default())
    }

    /// All Services of which there is, or may be, something.
    pub(crate) fn uids(&self) -> Vec<ServiceUid> {
        let state = self.state.lock();
        let known = state.known.iter().filter(|(_, memory)| memory.observed != Observed::default());
        known.map(|(uid, _)| uid).chain(&state.suspects).cloned().collect()
    }

    /// An earlier controller may just have asked for load balancers for these Services.
    pub(crate) fn begin(&self, services: impl IntoIterator<Item = ServiceUid>) {
        let until = Instant::now() + IN_FLIGHT;
        self.state.lock().in_flight.extend(services.into_iter().map(|uid| (uid, until)));
    }

    /// The answer to a create for this Service was lost.
    pub(crate) fn lost(&self, uid: &ServiceUid) {
        self.state.lock().in_flight.insert(uid.clone(), Instant::now() + IN_FLIGHT);
    }

    /// Whether Octavia may be making a load balancer for this Service that it does not show yet.
    pub(crate) fn may_be_in_flight(&self, uid: &ServiceUid) -> bool {
        let now = Instant::now();
        let mut state = self.state.lock();
        state.in_flight.retain(|_, until| *until > now);
        state.in_flight.contains_key(uid)
    }

    /// How many load balancers are waited for.
    pub(crate) fn waiting(&self) -> usize {
        self.state.lock().waiting.values().sum()
    }

    /// The first listing failed.
    pub(crate) fn not_listed(&self, why: String) {
        self.state.lock().trouble = Some(why);
    }

    /// The versions of all that is known, before a listing.
    pub(crate) fn versions(&self) -> HashMap<ServiceUid, u64> {
        self.state.lock().known.iter().map(|(uid, memory)| (uid.clone(), memory.version)).collect()
    }

    /// Takes over a listing of everything, begun after `before` was taken. A Service for which something was done since, or
    /// is being done, is left as it is known.
    pub(crate) fn listed(&self, mut found: HashMap<ServiceUid, Observed>, before: &HashMap<ServiceUid, u64>) {
        let mut state = self.state.lock();
        state.trouble = None;
        if !std::mem::replace(&mut state.listed, true) {
            state.known = found.into_iter().map(|(uid, observed)| (uid, Memory::of(observed))).collect();
            return;
        }
        for (uid, memory) in &mut state.known {
            let mut observed = found.remove(uid).unwrap_or_default();
            if before.get(uid) == Some(&memory.version) {
                keep_repairs(&memory.observed, &mut observed);
                memory.observed = observed;
                memory.asked.clear();
                memory.version += 1;
            }
        }
        // Of these nothing was known: somebody is just at work on them, or they are not as they were left.
        state.suspects.extend(found.into_keys());
    }
}

/// Whether a load balancer was failed over is nowhere in OpenStack.
fn keep_repairs(known: &Observed, listed: &mut Observed) {
    for tree in &mut listed.trees {
        let same = |before: &&ObservedTree| before.load_balancer.id == tree.load_balancer.id;
        tree.failed_over = known.trees.iter().find(same).is_some_and(|before| before.failed_over);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kuryr_model::{FloatingIpId, NetworkId, neutron::FloatingIp};

    fn with(floating: u8) -> Observed {
        let id = |n: u8| format!("00000000-0000-0000-0000-0000000000{n:02x}");
        let floating = FloatingIp {
            id: id(floating).parse::<FloatingIpId>().unwrap(),
            floating_network_id: id(1).parse::<NetworkId>().unwrap(),
            floating_ip_address: "203.0.113.9".parse().unwrap(),
            fixed_ip_address: None,
            port_id: None,
            router_id: None,
            status: Default::default(),
            description: String::new(),
            tags: vec![],
        };
        Observed { trees: vec![], floating: vec![floating] }
    }

    fn known(memories: &Memories, uid: &str) -> Option<Memory> {
        match memories.take(&uid.into()) {
            Recall::Known(memory) => Some(*memory),
            Recall::Ask => None,
            Recall::NotListed(_) => panic!("not listed"),
        }
    }

    fn list(memories: &Memories, found: &[(&str, Observed)], before: &HashMap<ServiceUid, u64>) {
        memories.listed(found.iter().map(|(uid, observed)| ((*uid).into(), observed.clone())).collect(), before);
    }

    #[test]
    fn before_the_first_listing_nothing_is_known() {
        let memories = Memories::default();
        assert!(matches!(memories.take(&"a".into()), Recall::NotListed(None)));
        memories.not_listed("away".into());
        assert!(matches!(memories.take(&"a".into()), Recall::NotListed(Some(_))));
        list(&memories, &[("a", with(1))], &HashMap::new());
        assert_eq!(known(&memories, "a").unwrap().observed, with(1));
        assert_eq!(known(&memories, "b").unwrap().observed, Observed::default(), "a new one has nothing");
    }

    #[test]
    fn a_suspect_is_asked_for_until_something_is_known_again() {
        let memories = Memories::default();
        list(&memories, &[], &HashMap::new());
        memories.suspect(&"a".into());
        assert!(known(&memories, "a").is_none() && known(&memories, "a").is_none());
        memories.keep(&"a".into(), Memory::of(with(1)));
        assert_eq!(known(&memories, "a").unwrap().observed, with(1));
    }

    #[test]
    fn a_listing_does_not_undo_what_was_done_meanwhile() {
        let memories = Memories::default();
        list(&memories, &[("idle", with(1)), ("worked", with(1)), ("working", with(1))], &HashMap::new());
        let before = memories.versions();
        let mut worked = known(&memories, "worked").unwrap();
        (worked.observed, worked.version) = (with(2), worked.version + 1);
        memories.keep(&"worked".into(), worked);
        let working = known(&memories, "working").unwrap();
        list(&memories, &[("worked", with(1)), ("working", with(1)), ("stray", with(3))], &before);
        memories.keep(&"working".into(), working);
        assert_eq!(known(&memories, "idle").unwrap().observed, Observed::default(), "gone behind our back");
        assert_eq!(known(&memories, "worked").unwrap().observed, with(2));
        assert_eq!(known(&memories, "working").unwrap().observed, with(1));
        assert!(known(&memories, "stray").is_none(), "to be asked for");
    }
}

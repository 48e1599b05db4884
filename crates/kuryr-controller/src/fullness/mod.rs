//! Says on Nodes that are virtual machines whether a further pod fits on them: in a condition, and in a taint that keeps the scheduler from
//! sending pods where they would wait.
//!
//! ```text
//!   trunks, address pairs ──Machines::room_of──▶ kuryr_plan::fullness: full? what is to be said? ──▶ what the Node says differs ──▶ write
//! ```
//!
//! Invariants
//! - What is not known yet changes nothing: a controller that begins leaves what its predecessor said until it knows.
//! - Nothing of ours stays on a Node that is no virtual machine, or of which there is nothing to say.
//! - Of a Node nothing but our own condition and our own taint is changed.

mod write;

use crate::{
    allocator::Allocator,
    index::Index,
    machines::{Machines, Room},
    metrics::Metrics,
};
use futures::stream::{self, StreamExt};
use kube::Client;
use kuryr_model::TrunkId;
use kuryr_plan::fullness::{Border, Limit, Notice};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, sleep, sleep_until};

/// What changes within this time is looked at together.
const GATHER: Duration = Duration::from_millis(100);

/// Time until the next try of what failed.
const RETRY: Duration = Duration::from_secs(30);

/// How often it is looked whether others have taken their subports off a trunk that is full because of them.
const OTHERS: Duration = Duration::from_secs(60);

/// So many Nodes are written at once.
const WRITES: usize = 8;

/// Whoever says it.
pub(crate) struct Fullness {
    pub(crate) client: Client,
    pub(crate) index: Arc<Index>,
    pub(crate) allocator: Allocator,
    pub(crate) metrics: Metrics,
}

/// What is remembered from one look to the next.
struct Memory {
    began: Instant,
    borders: HashMap<String, Border>,
    /// When it was last looked for others' subports on a trunk that is full.
    looked: HashMap<TrunkId, Instant>,
}

impl Fullness {
    /// Says it for ever.
    pub(crate) async fn run(self) {
        let machines = self.allocator.machines();
        let mut changes = machines.changes();
        let mut nodes = self.index.nodes_changed.subscribe();
        let mut memory = Memory { began: Instant::now(), borders: HashMap::new(), looked: HashMap::new() };
        loop {
            let again = self.look(machines, &mut memory).await;
            tokio::select! {
                () = changes.next() => {}
                () = self.allocator.pools_changed() => {}
                // It is ours, too.
                _ = nodes.changed() => {}
                () = at(again) => {}
            }
            sleep(GATHER).await;
        }
    }

    /// Brings all Nodes to what they are to say; when to look again, whatever happens.
    async fn look(&self, machines: &Machines, memory: &mut Memory) -> Option<Instant> {
        let mut again = Again(None);
        let notices = self.index.notices();
        let mut wanted = self.wanted(machines, &notices, memory, &mut again);
        let mut differs = Vec::new();
        for (node, before) in notices {
            if let Some(wanted) = wanted.remove(&node).filter(|wanted| *wanted != before) {
                differs.push((node, before, wanted));
            }
        }
        let writes = differs.into_iter().map(|(node, before, wanted)| self.tell(node, before, wanted));
        let done: Vec<bool> = stream::iter(writes).buffer_unordered(WRITES).collect().await;
        if done.contains(&false) {
            again.at(Some(Instant::now() + RETRY));
        }
        again.0
    }

    /// Has a Node say what is `wanted` in place of what it said `before`; whether that is done.
    async fn tell(&self, node: String, before: Notice, wanted: Notice) -> bool {
        match write::write(&self.client, &node, &before, &wanted).await {
            Ok(Some(state)) => {
                if before.is_full() != wanted.is_full() {
                    tracing::info!(node, full = wanted.is_full(), "the Node says whether a further pod fits");
                }
                self.index.noticed(&node, state.notice, state.version);
                true
            }
            // It is gone, or somebody else has seen to it.
            Ok(None) => true,
            Err(error) => {
                tracing::warn!(node, error = %error, "the Node cannot be told whether a further pod fits; trying again");
                false
            }
        }
    }

    /// What each Node is to say; those of which that is not known yet are left out.
    fn wanted(
        &self,
        machines: &Machines,
        notices: &HashMap<String, Notice>,
        memory: &mut Memory,
        again: &mut Again,
    ) -> HashMap<String, Notice> {
        let now = Instant::now();
        let mut wanted: HashMap<String, Notice> =
            notices.keys().map(|node| (node.clone(), Notice::default())).collect();
        let ready = self.allocator.ready_on_trunks();
        let mut free = BTreeMap::new();
        let mut full_by_others = HashMap::new();
        let all: HashMap<String, _> = self.index.machines().into_iter().collect();
        memory.borders.retain(|node, _| all.contains_key(node));
        for (node, machine) in all {
            match machines.room_of(&node, &machine) {
                Room::NotYet => drop(wanted.remove(&node)),
                Room::Nothing => drop(memory.borders.remove(&node)),
                Room::Of(mut capacity) => {
                    // Spare ports have ids already, and are there for pods.
                    if let Limit::Ids { trunk, .. } = &capacity.limit {
                        capacity.free += ready.get(trunk).copied().unwrap_or_default();
                    }
                    let left = || Border::left(notices.get(&node).is_some_and(Notice::is_full));
                    let border = memory.borders.entry(node.clone()).or_insert_with(left);
                    let (full, later) = border.look(capacity.free, now - memory.began);
                    again.at(later.map(|later| now + later));
                    if let Limit::Ids { trunk, others: 1.. } = capacity.limit
                        && capacity.free == 0
                    {
                        full_by_others.insert(trunk, memory.looked.get(&trunk).copied().unwrap_or(now));
                    }
                    free.insert(node.clone(), capacity.free);
                    wanted.insert(node, Notice::of(full, &capacity.limit));
                }
            }
        }
        for (trunk, looked) in &mut full_by_others {
            if now.duration_since(*looked) >= OTHERS {
                machines.look_again(*trunk);
                *looked = now;
            }
            again.at(Some(*looked + OTHERS));
        }
        memory.looked = full_by_others;
        self.metrics.rooms(&free);
        wanted
    }
}

/// The earliest of several moments.
struct Again(Option<Instant>);

impl Again {
    fn at(&mut self, time: Option<Instant>) {
        self.0 = [self.0, time].into_iter().flatten().min();
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

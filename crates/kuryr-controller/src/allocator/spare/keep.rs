//! Keeps pools as they should be.

use super::{Spares, State, refill::Answer};
use crate::{allocator::Shared, error::PodError};
use futures::{
    FutureExt,
    future::BoxFuture,
    stream::{FuturesUnordered, StreamExt},
};
use kuryr_model::{PortId, SegmentationId, TrunkId};
use kuryr_plan::pool::{Back, BulkId, Headroom, HeldUp, Plan};
use std::{collections::HashSet, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, sleep_until};

/// So many ports are deleted at once.
const DELETES: usize = 4;

/// So many ports are named at once.
const NAMINGS: usize = 2;

/// Time between two tries to delete ports.
const RETRY: Duration = Duration::from_secs(10);

/// How long it is relied on what Neutron said that it has left.
const HEADROOM_FOR: Duration = Duration::from_secs(60);

/// How often numbers are published, at most.
const PUBLISH: Duration = Duration::from_millis(500);

/// What is under way.
#[derive(Default)]
struct Work<'a> {
    bulks: FuturesUnordered<BoxFuture<'a, (BulkId, Answer)>>,
    /// As many as there are: a trunk's writer asks for all of them together.
    places: FuturesUnordered<BoxFuture<'a, (PortId, Result<SegmentationId, PodError>)>>,
    leaves: FuturesUnordered<BoxFuture<'a, (PortId, Result<(), PodError>)>>,
    deletes: FuturesUnordered<BoxFuture<'a, Option<PortId>>>,
    namings: FuturesUnordered<BoxFuture<'a, PortId>>,
    /// The ports of these.
    named: HashSet<PortId>,
    question: FuturesUnordered<BoxFuture<'a, Headroom>>,
    /// What Neutron has left, and until when that is relied on.
    headroom: Option<(Headroom, Instant)>,
}

/// Makes, deletes and names spare ports as planned, for ever.
pub(in crate::allocator) async fn keep(shared: &Arc<Shared>) {
    let Some(spares) = &shared.spares else { return };
    let mut work = Work::default();
    let mut publish = Some(Instant::now());
    let (mut nodes, mut machines) = (spares.index.nodes_changed.subscribe(), shared.machines.news());
    loop {
        let again = work.begin(shared, spares);
        tokio::select! {
            Some((id, answer)) = work.bulks.next() => shared.arrived(spares, id, answer),
            Some((id, placed)) = work.places.next() => shared.was_placed(spares, id, &placed),
            Some((id, left)) = work.leaves.next() => {
                let mut state = spares.state.lock();
                if left.is_ok() {
                    state.on.remove(&id);
                }
                state.delete.push(id);
            }
            Some(failed) = work.deletes.next() => spares.state.lock().delete.extend(failed),
            Some(id) = work.namings.next() => drop(work.named.remove(&id)),
            Some(headroom) = work.question.next() => work.headroom = Some((headroom, Instant::now() + HEADROOM_FOR)),
            () = spares.changed.notified() => {}
            // Whoever tells lives as long as this.
            _ = nodes.changed() => {}
            _ = machines.changed() => {}
            () = at(again.map(|time| Instant::now() + time)) => {}
            () = at(publish) => {
                shared.publish(spares);
                publish = None;
                continue;
            }
        }
        publish.get_or_insert_with(|| Instant::now() + PUBLISH);
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

impl<'a> Work<'a> {
    /// Begins what is to be done now; after which time to look again, whatever happens.
    fn begin(&mut self, shared: &'a Arc<Shared>, spares: &Spares) -> Option<Duration> {
        let now = shared.now();
        let mut state = spares.state.lock();
        state.follow(spares.index.serving(), &shared.machines, now);
        state.adopt(shared, now);
        let lacks = state.pools.lacks(now);
        let known = self.headroom.as_ref().filter(|(_, until)| Instant::now() < *until);
        if lacks && known.is_none() && self.question.is_empty() {
            self.question.push(shared.headroom().boxed());
        }
        // Nothing is made before it is known how much may be.
        let sure = known.is_some();
        let mut headroom = match known {
            Some((headroom, _)) => headroom.clone(),
            None => Headroom { quota: Some(0), ..Headroom::default() },
        };
        let Plan { bulks, delete, again, short: _, held_up } = state.pools.plan(now, &headroom);
        if sure || held_up.is_none() {
            state.is_held_up(held_up);
        }
        state.delete.extend(delete);
        for bulk in bulks {
            let count: usize = bulk.parts.iter().map(|(_, count)| count).sum();
            let less = |left: &mut usize| *left = left.saturating_sub(count);
            headroom.quota.iter_mut().for_each(less);
            let choice = &bulk.choice.subnets;
            headroom.subnets.iter_mut().filter(|(id, _)| choice.contains(id)).for_each(|(_, left)| less(left));
            state.made_since = true;
            self.bulks.push(shared.refill(bulk).boxed());
        }
        if let Some((known, _)) = &mut self.headroom {
            *known = headroom;
        }
        self.move_about(shared, &mut state);
        let count = state.delete.len().min(DELETES.saturating_sub(self.deletes.len()));
        for id in state.delete.drain(..count) {
            self.deletes.push(shared.withdraw(id).boxed());
        }
        let count = NAMINGS.saturating_sub(self.namings.len());
        let free = state.rename.keys().filter(|id| !self.named.contains(*id)).take(count).copied();
        for id in free.collect::<Vec<_>>() {
            if let Some(name) = state.rename.remove(&id) {
                self.named.insert(id);
                self.namings.push(
                    async move {
                        shared.rename(id, name).await;
                        id
                    }
                    .boxed(),
                );
            }
        }
        let unfit = state.unfit.values().min().map(|until| until.saturating_sub(now));
        again.into_iter().chain(unfit).min()
    }

    /// Puts ports on trunks and takes them off.
    fn move_about(&mut self, shared: &'a Arc<Shared>, state: &mut State) {
        for (trunk, id) in std::mem::take(&mut state.to_place) {
            self.places.push(async move { (id, shared.machines.place(trunk, id).await) }.boxed());
        }
        let (on, off): (Vec<_>, Vec<_>) =
            std::mem::take(&mut state.delete).into_iter().partition(|id| state.on.contains_key(id));
        state.delete = off;
        for (id, trunk) in on.into_iter().filter_map(|id| Some((id, *state.on.get(&id)?))) {
            self.leaves.push(async move { (id, shared.leave(trunk, id).await) }.boxed());
        }
    }
}

impl State {
    /// Remembers why pools do not get what they lack, and says so when it is news.
    fn is_held_up(&mut self, why: Option<HeldUp>) {
        if why == self.held_up {
            return;
        }
        self.held_up = why;
        let because = match why {
            None => return tracing::info!("pools get their ports again"),
            Some(HeldUp::Quota) => "the quota of ports has nothing left but the reserve for pods",
            Some(HeldUp::Addresses) => "the pod subnets have nothing left but the reserve for pods",
            Some(HeldUp::Cloud) => "the last spare ports were not made; that is tried again",
        };
        tracing::info!(because, "pools do not grow");
    }
}

impl Shared {
    /// Takes a port off its trunk; if that fails, it is to be tried again when this ends.
    async fn leave(&self, trunk: TrunkId, id: PortId) -> Result<(), PodError> {
        let left = self.machines.leave(trunk, id).await;
        if let Err(error) = &left {
            tracing::info!(port = %id, %trunk, reason = %error, "a spare port does not leave its trunk; trying again");
            sleep(RETRY).await;
        }
        left
    }

    /// A spare port is on its trunk, or is not.
    fn was_placed(&self, spares: &Spares, id: PortId, placed: &Result<SegmentationId, PodError>) {
        if let Err(error) = placed {
            tracing::info!(port = %id, reason = %error, "a spare port does not get on its trunk");
            if matches!(error, PodError::TrunkGone(_)) {
                self.look_soon(Duration::ZERO);
            }
        }
        let mut state = spares.state.lock();
        if state.pools.placed(id, placed.is_ok(), self.now()) == Back::Delete {
            state.delete.push(id);
        }
    }

    /// Deletes a port; if that fails, it is to be tried again when this ends.
    async fn withdraw(&self, id: PortId) -> Option<PortId> {
        let error = self.delete(id).await.err()?;
        tracing::info!(port = %id, reason = %error, "a spare port was not deleted; trying again");
        sleep(RETRY).await;
        Some(id)
    }
}

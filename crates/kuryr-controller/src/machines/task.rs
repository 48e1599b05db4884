//! The task of one machine's port.

use kuryr_model::PortId;
use kuryr_openstack::{Error as CloudError, Network};
use kuryr_plan::pairs::{Limit, Used, plan};
use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};
use tokio::{
    sync::{mpsc::UnboundedReceiver, oneshot, watch},
    time::timeout,
};

/// How often it is read and written again because somebody else was faster.
const TRIES: usize = 5;

type Reply = oneshot::Sender<Result<(), CloudError>>;

/// What a port's task is asked for.
pub(super) enum Ask {
    Place { used: BTreeSet<Used>, reply: Reply },
    Leave { used: BTreeSet<Used>, reply: Reply },
}

impl Ask {
    /// How many pairs it asks for.
    fn places(&self) -> usize {
        match self {
            Self::Place { used, .. } => used.len(),
            Self::Leave { .. } => 0,
        }
    }
}

pub(super) struct Task {
    parent: PortId,
    network: Network,
    linger: Duration,
    /// What pods use.
    wanted: BTreeSet<Used>,
    /// What pods used, or were to use, and do no more.
    gone: BTreeSet<Used>,
    /// How many it may have.
    limit: Limit,
    limits: watch::Sender<HashMap<PortId, Limit>>,
}

impl Task {
    pub(super) fn new(
        parent: PortId,
        network: Network,
        linger: Duration,
        limits: watch::Sender<HashMap<PortId, Limit>>,
    ) -> Self {
        let (wanted, gone) = (BTreeSet::new(), BTreeSet::new());
        Self { parent, network, linger, wanted, gone, limit: Limit::default(), limits }
    }

    /// Works until nobody can ask any more.
    pub(super) async fn run(mut self, mut asks: UnboundedReceiver<Ask>) {
        while let Some(first) = asks.recv().await {
            let mut batch = vec![first];
            while let Ok(Some(ask)) = timeout(self.linger, asks.recv()).await {
                batch.push(ask);
            }
            self.serve(batch).await;
        }
    }

    /// Tells how many it may have, if that is known or was, and is news.
    fn publish(&self) {
        self.limits.send_if_modified(|limits| match self.limit.most() {
            Some(_) => limits.insert(self.parent, self.limit) != Some(self.limit),
            None => limits.remove(&self.parent).is_some(),
        });
    }

    /// All in one change, or each on its own if that is more than the port may have.
    async fn serve(&mut self, batch: Vec<Ask>) {
        for ask in &batch {
            self.take_in(ask);
        }
        // One of a batch that is refused may still fit: how many are for one pod is known of those alone.
        let each = batch.iter().map(Ask::places).max().unwrap_or_default();
        let done = self.change(each).await;
        if batch.len() > 1 && done.as_ref().is_err_and(CloudError::is_pairs_exhausted) {
            for ask in &batch {
                self.take_back(ask);
            }
            // Who leaves makes room for who comes.
            let (places, leaves): (Vec<Ask>, Vec<Ask>) =
                batch.into_iter().partition(|ask| matches!(ask, Ask::Place { .. }));
            for ask in leaves.into_iter().chain(places) {
                self.take_in(&ask);
                let done = self.change(ask.places()).await;
                self.publish();
                self.answer(ask, done);
            }
            return;
        }
        // Before the answers: whoever is told that there is no room can see it.
        self.publish();
        for ask in batch {
            self.answer(ask, done.clone());
        }
    }

    fn take_in(&mut self, ask: &Ask) {
        match ask {
            Ask::Place { used, .. } => {
                self.wanted.extend(used);
                self.gone.retain(|gone| !used.contains(gone));
            }
            Ask::Leave { used, .. } => {
                self.wanted.retain(|wanted| !used.contains(wanted));
                self.gone.extend(used);
            }
        }
    }

    /// What was not done for sure is not wanted any more: whoever wants it asks again.
    fn take_back(&mut self, ask: &Ask) {
        if let Ask::Place { used, .. } = ask {
            self.wanted.retain(|wanted| !used.contains(wanted));
            self.gone.extend(used);
        }
    }

    fn answer(&mut self, ask: Ask, done: Result<(), CloudError>) {
        if done.is_err() {
            self.take_back(&ask);
        }
        let (Ask::Place { reply, .. } | Ask::Leave { reply, .. }) = ask;
        // Whoever asked may have gone.
        let _ = reply.send(done);
    }

    /// Makes the port's pairs what they shall be, of which a pod has `each`.
    async fn change(&mut self, each: usize) -> Result<(), CloudError> {
        for left in (0..TRIES).rev() {
            let there = self.network.address_pairs(self.parent).await?;
            let Some(pairs) = plan(&there.pairs, &self.wanted, &self.gone) else {
                self.limit.has(there.pairs.len());
                break;
            };
            match self.network.set_address_pairs(self.parent, &pairs, there.revision_number).await {
                Ok(_) => {
                    self.limit.has(pairs.len());
                    break;
                }
                Err(error) if error.is_stale() && left > 0 => {}
                Err(error) => {
                    if error.is_pairs_exhausted() {
                        self.limit.refused(there.pairs.len(), pairs.len(), each);
                    }
                    return Err(error);
                }
            }
        }
        tracing::debug!(port = %self.parent, wanted = self.wanted.len(), gone = self.gone.len(), "its pairs are right");
        self.gone.clear();
        Ok(())
    }
}

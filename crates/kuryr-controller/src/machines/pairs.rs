//! The addresses that the ports of virtual machines may use for their pods.
//!
//! Each port has one task, which has one request under way: all pairs of a port are changed at once, and only as of the revision
//! that was read. What is asked for meanwhile is part of the next change.

use super::task::{Ask, Task};
use kuryr_model::PortId;
use kuryr_openstack::{Error as CloudError, Network};
use kuryr_plan::pairs::{Limit, Used};
use parking_lot::Mutex;
use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};
use tokio::sync::{mpsc, oneshot, watch};

/// The handle; the work is done in tasks of its own, which end with it.
pub(super) struct Pairs {
    network: Network,
    linger: Duration,
    tasks: Mutex<HashMap<PortId, mpsc::UnboundedSender<Ask>>>,
    /// How many pairs each port may have, as far as its task has learnt.
    pub(super) limits: watch::Sender<HashMap<PortId, Limit>>,
}

impl Pairs {
    pub(super) fn new(network: Network, linger: Duration) -> Self {
        Self { network, linger, tasks: Mutex::default(), limits: watch::Sender::default() }
    }

    /// Lets a machine's port use these, too.
    pub(super) async fn place(&self, parent: PortId, used: BTreeSet<Used>) -> Result<(), CloudError> {
        self.ask(parent, |reply| Ask::Place { used, reply }).await
    }

    /// A machine's port shall use these no more. That there is no such port is success.
    pub(super) async fn leave(&self, parent: PortId, used: BTreeSet<Used>) -> Result<(), CloudError> {
        match self.ask(parent, |reply| Ask::Leave { used, reply }).await {
            Err(error) if error.is_not_found() => Ok(()),
            left => left,
        }
    }

    async fn ask(
        &self,
        parent: PortId,
        ask: impl FnOnce(oneshot::Sender<Result<(), CloudError>>) -> Ask,
    ) -> Result<(), CloudError> {
        let (reply, answer) = oneshot::channel();
        {
            let mut tasks = self.tasks.lock();
            let task = tasks.entry(parent).or_insert_with(|| {
                let (sender, asks) = mpsc::unbounded_channel();
                let task = Task::new(parent, self.network.clone(), self.linger, self.limits.clone());
                tokio::spawn(task.run(asks));
                sender
            });
            // The task lives as long as its sender, which is here.
            let _ = task.send(ask(reply));
        }
        // Without an answer the process is ending.
        answer.await.unwrap_or(Ok(()))
    }
}

//! The subports of the trunks of nodes that are virtual machines.
//!
//! ```text
//!   place(trunk, port) ─▶ the trunk's task ─ Writer: what next? ─▶ Neutron, one request at a time ─▶ its segmentation id
//!   leave(trunk, port) ─▶      "                                                              ─▶ gone from the trunk
//! ```
//!
//! What is asked for and what an answer means is decided in [`kuryr_plan::trunk`]; here it is done.
//!
//! Invariants
//! - Each trunk has one task, which has one request under way: Neutron stumbles over two. Trunks do not wait for each other.
//! - What is asked for meanwhile leaves in the next request, together; what pods wait for before spare ports.
//! - An id is told only when Neutron has shown it, and stays its port's until [`Trunks::leave`] has ended well.

mod task;

use kuryr_model::{PortId, SegmentationId, TrunkId, neutron::Subport};
use kuryr_openstack::{Error as CloudError, Network};
use kuryr_plan::trunk::{Room, Trouble};
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc, time::Duration};
use task::{Ask, Task};
use tokio::sync::{mpsc, oneshot, watch};

/// Why a port is not on its trunk, or not off it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TrunkError {
    /// Neutron refused, or did not answer.
    #[error(transparent)]
    Cloud(#[from] CloudError),
    /// The trunk has no place for it.
    #[error(transparent)]
    Trouble(Trouble),
    /// Somebody has deleted the trunk.
    #[error(
        "trunk {0} is gone; make one of the node's port again: openstack network trunk create --parent-port PORT NAME"
    )]
    Gone(TrunkId),
    /// The controller is being stopped.
    #[error("the controller is stopping")]
    Stopping,
}

/// The handle; the work is done in tasks of its own. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Trunks {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    network: Network,
    /// Those that come within this time of each other leave in one request.
    linger: Duration,
    tasks: Mutex<HashMap<TrunkId, mpsc::UnboundedSender<Ask>>>,
    /// What room each trunk has, as its task knows it.
    rooms: watch::Sender<HashMap<TrunkId, Room>>,
}

impl Trunks {
    /// Nothing is asked of Neutron before there is something to do. The tasks end with the last handle.
    #[must_use]
    pub fn new(network: Network, linger: Duration) -> Self {
        Self { shared: Arc::new(Shared { network, linger, tasks: Mutex::default(), rooms: watch::Sender::default() }) }
    }

    /// What is known of a trunk when a controller begins: the ids in `KuryrPort`s, and the ports that carry our mark. To be told
    /// before anything else is asked for on that trunk, or an id that a pod has could be given away.
    pub fn begin(
        &self,
        trunk: TrunkId,
        told: impl IntoIterator<Item = (PortId, SegmentationId)>,
        ours: impl IntoIterator<Item = PortId>,
    ) {
        self.ask(trunk, Ask::Begin { told: told.into_iter().collect(), ours: ours.into_iter().collect() });
    }

    /// Puts a pod's port on a trunk; the id that it has there. A port that is there already keeps its id, and where that was told before it
    /// is told again without any request.
    ///
    /// # Errors
    /// It is not on the trunk. It is tried until [`Self::leave`] is called; calling this again waits for it again.
    pub async fn place(&self, trunk: TrunkId, port: PortId) -> Result<SegmentationId, TrunkError> {
        self.put(trunk, port, false).await
    }

    /// The same for a port that is nobody's yet: those of pods go before it.
    ///
    /// # Errors
    /// As those of [`Self::place`].
    pub async fn place_spare(&self, trunk: TrunkId, port: PortId) -> Result<SegmentationId, TrunkError> {
        self.put(trunk, port, true).await
    }

    async fn put(&self, trunk: TrunkId, port: PortId, spare: bool) -> Result<SegmentationId, TrunkError> {
        let (reply, answer) = oneshot::channel();
        self.ask(trunk, Ask::Place { port, spare, reply });
        answer.await.map_err(|_| TrunkError::Stopping)?
    }

    /// Takes a port off a trunk; only then Neutron deletes it. One that is not there, or whose trunk is gone, is off.
    ///
    /// # Errors
    /// It is still there.
    pub async fn leave(&self, trunk: TrunkId, port: PortId) -> Result<(), TrunkError> {
        let (reply, answer) = oneshot::channel();
        self.ask(trunk, Ask::Leave { port, reply });
        answer.await.map_err(|_| TrunkError::Stopping)?
    }

    /// A port that is not on the trunk need not come there any more: perhaps it is deleted.
    pub fn gone(&self, trunk: TrunkId, port: PortId) {
        self.ask(trunk, Ask::Gone { port });
    }

    /// A port that is on the trunk does not work there: it is taken off and put back with its id.
    pub fn again(&self, trunk: TrunkId, port: PortId) {
        self.ask(trunk, Ask::Again { port });
    }

    /// Somebody may have changed the trunk: what is missing is put back, what is left over removed.
    pub fn look_again(&self, trunk: TrunkId) {
        self.ask(trunk, Ask::LookAgain);
    }

    /// What room a trunk has is to be known, be it that no port of ours is on it. These were on it when it was just listed: what its task has
    /// read itself counts more.
    pub fn watch(&self, trunk: TrunkId, carries: Vec<Subport>) {
        self.ask(trunk, Ask::Watch { carries });
    }

    /// How many more ports could be placed on a trunk, with all that were asked for so far there; `None`: it was not read yet, or is
    /// gone. While it is read again that is what was known before. Nothing is asked of Neutron.
    #[must_use]
    pub fn room(&self, trunk: TrunkId) -> Option<Room> {
        self.shared.rooms.borrow().get(&trunk).copied()
    }

    /// The room of all trunks that were read, and whether that has changed.
    #[must_use]
    pub fn rooms(&self) -> watch::Receiver<HashMap<TrunkId, Room>> {
        self.shared.rooms.subscribe()
    }

    fn ask(&self, trunk: TrunkId, ask: Ask) {
        let mut tasks = self.shared.tasks.lock();
        let task = tasks.entry(trunk).or_insert_with(|| {
            let (sender, asks) = mpsc::unbounded_channel();
            let Shared { network, linger, rooms, .. } = &*self.shared;
            tokio::spawn(Task::new(trunk, network.clone(), *linger, rooms.clone()).run(asks));
            sender
        });
        // The task lives as long as its sender, which is here.
        let _ = task.send(ask);
    }
}

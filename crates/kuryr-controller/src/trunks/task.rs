//! The task of one trunk.

use super::TrunkError;
use kuryr_model::{
    PortId, SegmentationId, TrunkId,
    neutron::{Subport, Trunk},
};
use kuryr_openstack::{Error as CloudError, Network};
use kuryr_plan::trunk::{Outcome, Room, Step, Trouble, Writer};
use std::{
    collections::{BTreeMap, HashMap},
    pin::pin,
    time::Duration,
};
use tokio::{
    sync::{
        mpsc::{UnboundedReceiver, error::TryRecvError},
        oneshot, watch,
    },
    time::timeout,
};

/// The first and the longest time after which what Neutron did not do is tried again.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

type Placed = oneshot::Sender<Result<SegmentationId, TrunkError>>;
type Left = oneshot::Sender<Result<(), TrunkError>>;

/// What a trunk's task is asked for.
pub(super) enum Ask {
    Begin { told: Vec<(PortId, SegmentationId)>, ours: Vec<PortId> },
    Place { port: PortId, spare: bool, reply: Placed },
    Leave { port: PortId, reply: Left },
    Gone { port: PortId },
    Again { port: PortId },
    LookAgain,
    Watch { carries: Vec<Subport> },
}

impl Ask {
    /// Whether what is known of the port for which `later` asks may be something else after this.
    fn counts_before(&self, later: &Self) -> bool {
        let Self::Place { port: wanted, .. } = later else { return false };
        match self {
            Self::Leave { port, .. } | Self::Gone { port } | Self::Again { port } => port == wanted,
            Self::Begin { .. } | Self::LookAgain => true,
            Self::Place { .. } | Self::Watch { .. } => false,
        }
    }
}

pub(super) struct Task {
    trunk: TrunkId,
    network: Network,
    linger: Duration,
    rooms: watch::Sender<HashMap<TrunkId, Room>>,
    writer: Writer,
    placing: Vec<(PortId, Placed)>,
    leaving: Vec<(PortId, Left)>,
    /// Why Neutron refused a port.
    refusals: HashMap<PortId, CloudError>,
    rest: Rest,
    /// Somebody may have changed the trunk since it was read last, or it is gone: what was told is not told again before that is known.
    doubt: bool,
    /// It has asked Neutron for something, so that what others have seen may be older than what it knows.
    asked: bool,
    /// How often in a row Neutron did not do what it was asked for.
    failures: u32,
}

/// What is waited for before Neutron is asked for what it did not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    No,
    For(Duration),
    UntilAsked,
}

impl Task {
    pub(super) fn new(
        trunk: TrunkId,
        network: Network,
        linger: Duration,
        rooms: watch::Sender<HashMap<TrunkId, Room>>,
    ) -> Self {
        Self {
            trunk,
            network,
            linger,
            rooms,
            writer: Writer::new(),
            placing: Vec::new(),
            leaving: Vec::new(),
            refusals: HashMap::new(),
            rest: Rest::No,
            doubt: false,
            asked: false,
            failures: 0,
        }
    }

    /// Works until nobody can ask any more.
    pub(super) async fn run(mut self, mut asks: UnboundedReceiver<Ask>) {
        loop {
            let plan = self.writer.plan();
            // Before the answers: whoever is told that there is no room can see it.
            self.publish();
            self.answer(&plan.troubles);
            match (plan.step, self.rest) {
                (Some(step), Rest::No) => {
                    self.step(&step, &mut asks).await;
                    // All that came meanwhile is part of the next plan.
                    if !self.take(&mut asks) {
                        return;
                    }
                }
                (Some(_), Rest::For(wait)) => match timeout(wait, asks.recv()).await {
                    Ok(Some(ask)) => self.take_in(ask),
                    Ok(None) => return,
                    Err(_) => self.rest = Rest::No,
                },
                (None, _) | (Some(_), Rest::UntilAsked) => {
                    let Some(ask) = asks.recv().await else { return };
                    let Some(ask) = self.at_once(ask) else { continue };
                    self.take_in(ask);
                    // A bulk of ports is asked for one by one.
                    while let Ok(Some(ask)) = timeout(self.linger, asks.recv()).await {
                        self.take_in(ask);
                    }
                }
            }
        }
    }

    /// Takes in all that was asked for by now. False: nobody can ask any more.
    fn take(&mut self, asks: &mut UnboundedReceiver<Ask>) -> bool {
        loop {
            match asks.try_recv() {
                Ok(ask) => self.take_in(ask),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// Answers whoever asks for an id that is known already; what is asked for else.
    fn at_once(&mut self, ask: Ask) -> Option<Ask> {
        match ask {
            Ask::Place { port, spare, reply } if !self.doubt => match self.writer.told(port) {
                Some(id) => {
                    // Whoever asked may have gone.
                    let _ = reply.send(Ok(id));
                    None
                }
                None => Some(Ask::Place { port, spare, reply }),
            },
            other => Some(other),
        }
    }

    fn take_in(&mut self, ask: Ask) {
        let Some(ask) = self.at_once(ask) else { return };
        match ask {
            Ask::Begin { told, ours } => {
                self.writer.ours(ours);
                for (port, id) in told {
                    self.writer.want(port, Some(id));
                }
                self.writer.look_again();
                self.doubt = true;
            }
            Ask::Place { port, spare, reply } => {
                self.refusals.remove(&port);
                if spare {
                    self.writer.want_spare(port);
                } else {
                    self.writer.want(port, None);
                }
                self.placing.push((port, reply));
                // Somebody waits: Neutron may be back.
                self.rest = Rest::No;
            }
            Ask::Leave { port, reply } => {
                self.writer.unwant(port);
                self.writer.ours([port]);
                self.refusals.remove(&port);
                // Whoever waits for its place waits for nothing.
                self.placing.retain(|(placed, _)| *placed != port);
                self.leaving.push((port, reply));
                self.rest = Rest::No;
            }
            Ask::Gone { port } => {
                self.writer.unwant(port);
                self.refusals.remove(&port);
                self.placing.retain(|(placed, _)| *placed != port);
            }
            Ask::Again { port } => self.writer.again(port),
            Ask::LookAgain => {
                self.writer.look_again();
                self.doubt = true;
                self.rest = Rest::No;
            }
            Ask::Watch { carries } => {
                self.writer.watch();
                if !self.asked {
                    self.writer.tell(&Step::Read, Outcome::Done(carries));
                    self.doubt = false;
                }
            }
        }
    }

    /// Tells what room there is, if that is known and news.
    fn publish(&self) {
        let Some(room) = self.writer.room() else { return };
        self.rooms.send_if_modified(|rooms| rooms.insert(self.trunk, room) != Some(room));
    }

    /// Answers those whose ports are where they shall be, and those that cannot be helped.
    fn answer(&mut self, troubles: &BTreeMap<PortId, Trouble>) {
        for (port, reply) in std::mem::take(&mut self.placing) {
            let answer = match (troubles.get(&port), self.writer.pin(port)) {
                (_, Some(id)) => Ok(id),
                (Some(trouble), None) => Err(match self.refusals.get(&port) {
                    Some(error) if *trouble == Trouble::Refused => TrunkError::Cloud(error.clone()),
                    _ => TrunkError::Trouble(trouble.clone()),
                }),
                (None, None) => {
                    self.placing.push((port, reply));
                    continue;
                }
            };
            // Whoever asked may have gone; then its port is somebody else's to remove.
            let _ = reply.send(answer);
        }
        for (port, reply) in std::mem::take(&mut self.leaving) {
            if self.writer.carries(port) {
                self.leaving.push((port, reply));
            } else {
                let _ = reply.send(Ok(()));
            }
        }
    }

    /// Asks Neutron. Whoever asks meanwhile for what is known does not wait for that: it may take seconds.
    async fn step(&mut self, step: &Step, asks: &mut UnboundedReceiver<Ask>) {
        self.asked = true;
        let (network, trunk) = (self.network.clone(), self.trunk);
        let mut request = pin!(async move {
            let trunks = network.trunks();
            match step {
                Step::Read => trunks.get(trunk).await,
                Step::Add(subports) => trunks.add_subports(trunk, subports).await,
                Step::Remove(ports) => trunks.remove_subports(trunk, ports).await,
            }
        });
        let mut later = Vec::new();
        let result = loop {
            tokio::select! {
                result = &mut request => break result,
                Some(ask) = asks.recv() => {
                    // In the order in which they came, where that matters.
                    let ask = if later.iter().any(|earlier: &Ask| earlier.counts_before(&ask)) { Some(ask) } else { self.at_once(ask) };
                    later.extend(ask);
                }
            }
        };
        self.did(step, result);
        for ask in later {
            self.take_in(ask);
        }
    }

    /// What came of it.
    fn did(&mut self, step: &Step, result: Result<Trunk, CloudError>) {
        match result {
            Ok(Trunk { sub_ports, .. }) => {
                tracing::debug!(trunk = %self.trunk, %step, carries = sub_ports.len(), "done");
                self.failures = 0;
                self.doubt = false;
                self.writer.tell(step, Outcome::Done(sub_ports));
            }
            Err(error) if error.is_trunk_gone() => {
                self.fail(&TrunkError::Gone(self.trunk));
                self.rooms.send_if_modified(|rooms| rooms.remove(&self.trunk).is_some());
                for (_, reply) in self.leaving.drain(..) {
                    let _ = reply.send(Ok(()));
                }
                self.writer.look_again();
                self.doubt = true;
                self.rest = Rest::UntilAsked;
            }
            Err(error) if error.is_about_subports() => {
                tracing::debug!(trunk = %self.trunk, %step, reason = %error, "refused; is it one of them?");
                if let Step::Add(subports) = step
                    && let [(port, _)] = **subports
                {
                    self.refusals.insert(port, error);
                }
                self.writer.tell(step, Outcome::Refused);
            }
            Err(error) => {
                let outcome = if error.is_ambiguous() { Outcome::Unknown } else { Outcome::NotDone };
                self.writer.tell(step, outcome);
                let error = TrunkError::Cloud(error);
                for (_, reply) in self.leaving.drain(..) {
                    let _ = reply.send(Err(error.clone()));
                }
                self.fail(&error);
            }
        }
    }

    /// Tells all that wait for a place that there is none now, and waits longer each time.
    fn fail(&mut self, error: &TrunkError) {
        tracing::warn!(trunk = %self.trunk, reason = %error, "the trunk's subports cannot be changed now");
        for (_, reply) in self.placing.drain(..) {
            let _ = reply.send(Err(error.clone()));
        }
        let (first, longest) = RETRY;
        self.rest = Rest::For(first.saturating_mul(1 << self.failures.min(16)).min(longest));
        self.failures += 1;
    }
}

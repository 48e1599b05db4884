//! What the parts of the daemon share: the node as they see it.

use crate::{
    attachments::{self, Attachment, Attachments},
    audit::{self, Finding, NodeReport, Seen},
    cni::AttachmentId,
    config::LOCK_TIMEOUT,
    events::Events,
    fullness,
    locks::{Held, Locks},
    metrics::Metrics,
    node_ports,
    plug::{HostEnd, Mismatch, PlugError, PlugTimes, Plugger, Sandbox, error::chain},
    ports::Ports,
};
use kube::Client;
use kuryr_model::{ObjectKey, PodUid, Vif, vif::PlugDriver};
use std::{
    collections::{BTreeSet, HashSet},
    future::Future,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::UnixStream,
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

/// Plugs VIFs: the node's [`Plugger`], or in tests one that only remembers.
pub trait Plugs: Send + Sync + 'static {
    /// See [`Plugger::plug`].
    fn plug(
        &self,
        vif: &Vif,
        sandbox: &Sandbox,
        deadline: Instant,
    ) -> impl Future<Output = Result<PlugTimes, PlugError>> + Send;
    /// See [`Plugger::unplug`].
    fn unplug(&self, vif: &Vif, sandbox: &Sandbox) -> impl Future<Output = Result<(), PlugError>> + Send;
    /// See [`Plugger::check`].
    fn check(&self, vif: &Vif, sandbox: &Sandbox) -> impl Future<Output = Result<(), Vec<Mismatch>>> + Send;
    /// See [`Plugger::list`].
    fn list(&self) -> impl Future<Output = Result<Vec<HostEnd>, PlugError>> + Send;
    /// See [`Plugger::remove`].
    fn remove(&self, end: &HostEnd) -> impl Future<Output = Result<(), PlugError>> + Send;
}

impl Plugs for Plugger {
    async fn plug(&self, vif: &Vif, sandbox: &Sandbox, deadline: Instant) -> Result<PlugTimes, PlugError> {
        Plugger::plug(self, vif, sandbox, deadline).await
    }

    async fn unplug(&self, vif: &Vif, sandbox: &Sandbox) -> Result<(), PlugError> {
        Plugger::unplug(self, vif, sandbox).await
    }

    async fn check(&self, vif: &Vif, sandbox: &Sandbox) -> Result<(), Vec<Mismatch>> {
        Plugger::check(self, vif, sandbox).await
    }

    async fn list(&self) -> Result<Vec<HostEnd>, PlugError> {
        Plugger::list(self).await
    }

    async fn remove(&self, end: &HostEnd) -> Result<(), PlugError> {
        Plugger::remove(self, end).await
    }
}

/// What only one operation at a time may work on. Whoever needs several takes the pod first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LockKey {
    /// A pod, for ADD: two sandboxes of one pod are made one after the other.
    Pod(ObjectKey),
    /// An attachment, for every verb.
    Attachment(AttachmentId),
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// An ADD's wait for the pod's port.
    pub add: Duration,
    /// Plugging after that.
    pub plug: Duration,
}

/// The node.
pub struct Node<P> {
    /// The Kubernetes node's name.
    pub name: String,
    /// How long things may take.
    pub limits: Limits,
    /// The API server, asked about pods whose ADDs wait long.
    pub client: Client,
    /// The socket of Open vSwitch's database, asked for STATUS.
    pub ovsdb_socket: PathBuf,
    /// The id of this boot.
    pub boot_id: String,
    /// Plugs and unplugs.
    pub plugs: P,
    /// What is plugged.
    pub attachments: Attachments,
    /// What is to be plugged.
    pub ports: Arc<Ports>,
    /// One operation at a time.
    pub locks: Locks<LockKey>,
    /// Events on pods.
    pub events: Events,
    /// Counters and times.
    pub metrics: Metrics,
    /// What is wrong with node ports.
    pub node_ports: node_ports::State,
    /// Whether a further pod fits, where STATUS is to say that.
    pub full: fullness::State,
    /// Set when the daemon stops: waiting ADDs end, those that plug are finished.
    pub stopping: CancellationToken,
    /// What must not be interrupted half-way.
    pub tasks: TaskTracker,
}

/// Why an attachment could not be undone.
#[derive(Debug, thiserror::Error)]
pub enum DetachError {
    /// Something could not be unplugged.
    #[error("cannot unplug everything")]
    Unplug(#[source] PlugError),
    /// It could not be forgotten.
    #[error("cannot forget the attachment")]
    Forget(#[source] attachments::Error),
}

impl<P: Plugs> Node<P> {
    /// Takes the lock of an attachment; `None` if another operation holds it until `deadline`.
    pub async fn lock(&self, id: &AttachmentId, deadline: Instant) -> Option<Held<LockKey>> {
        self.locks.lock(LockKey::Attachment(id.clone()), deadline).await
    }

    /// Unplugs all of an attachment and forgets it. The caller holds its lock.
    ///
    /// # Errors
    /// What could not be done. Everything else has been; the attachment is still remembered and this can be repeated.
    pub async fn detach(&self, attachment: &Attachment) -> Result<(), DetachError> {
        let sandbox = sandbox(attachment);
        let (pod, uid, container) = (attachment.pod(), &attachment.pod_uid, &attachment.id.container_id);
        let span = tracing::info_span!("detach", %pod, %uid, container);
        let mut errors = Vec::new();
        for vif in &attachment.vifs {
            if let Err(error) = self.plugs.unplug(vif, &sandbox).instrument(span.clone()).await {
                errors.push(error);
            }
        }
        match errors.pop() {
            None => {}
            Some(error) if errors.is_empty() => return Err(DetachError::Unplug(error)),
            Some(error) => {
                errors.push(error);
                return Err(DetachError::Unplug(PlugError::Several(errors)));
            }
        }
        self.attachments.remove(&attachment.id).await.map_err(DetachError::Forget)?;
        self.ports.changed.put(pod);
        Ok(())
    }

    /// Why the data plane is away, if some pod of this node needs it: Open vSwitch's database must take connections.
    pub async fn data_plane_trouble(&self) -> Option<String> {
        let uses_ovs = |vifs: &[Vif]| vifs.iter().any(|vif| vif.plug.driver == PlugDriver::Ovs);
        let needed = self.attachments.all().iter().any(|attachment| uses_ovs(&attachment.vifs))
            || self.ports.all().iter().any(|port| uses_ovs(&port.spec.vifs));
        if !needed {
            return None;
        }
        let socket = self.ovsdb_socket.display();
        match timeout(Duration::from_secs(2), UnixStream::connect(&self.ovsdb_socket)).await {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(format!("Open vSwitch's database at {socket} is away: {error}")),
            Err(_) => Some(format!("Open vSwitch's database at {socket} does not answer")),
        }
    }

    /// The attachments whose sandbox is certainly gone, of those that `of` selects.
    fn gone(&self, of: impl Fn(&Attachment) -> bool) -> BTreeSet<AttachmentId> {
        let attachments = self.attachments.all();
        let gone =
            |attachment: &&Arc<Attachment>| of(attachment) && attachments::sandbox_gone(attachment, &self.boot_id);
        attachments.iter().filter(gone).map(|attachment| attachment.id.clone()).collect()
    }

    /// Looks at the node and reports what is plugged, and what is stray or missing.
    ///
    /// # Errors
    /// The kernel or Open vSwitch could not be asked.
    pub async fn report(&self) -> Result<NodeReport, PlugError> {
        let finished = self.attachments.finished();
        let ends = self.plugs.list().await?;
        let attachments = self.attachments.all();
        let pods: Option<HashSet<_>> =
            self.ports.synced().then(|| self.ports.all().iter().map(|port| port.spec.pod_uid.clone()).collect());
        let gone = self.gone(|_| true);
        let seen =
            Seen { attachments: &attachments, finished: &finished, ends: &ends, gone: &gone, pods: pods.as_ref() };
        let mut findings = audit::audit(&seen);
        let problems = self.node_ports.problems().into_iter();
        findings.extend(problems.map(|problem| Finding::NodePorts { problem }));
        let attachments = attachments.iter().map(|attachment| Attachment::clone(attachment)).collect();
        Ok(NodeReport { node: self.name.clone(), attachments, findings })
    }

    /// Undoes the attachments whose sandbox is gone. What fails is reported and left for another time.
    pub async fn clean_gone(&self) -> Vec<String> {
        self.clean(self.gone(|_| true)).await
    }

    /// Undoes those of one pod.
    pub async fn clean_gone_of(&self, pod: &PodUid) -> Vec<String> {
        self.clean(self.gone(|attachment| attachment.pod_uid == *pod)).await
    }

    async fn clean(&self, gone: BTreeSet<AttachmentId>) -> Vec<String> {
        let mut problems = Vec::new();
        for id in gone {
            let Some(_held) = self.lock(&id, Instant::now() + LOCK_TIMEOUT).await else { continue };
            let Some(attachment) = self.attachments.get(&id) else { continue };
            let (pod, uid, container) = (attachment.pod(), &attachment.pod_uid, &id.container_id);
            match self.detach(&attachment).await {
                Ok(()) => tracing::info!(%pod, %uid, container, "unplugged a pod whose sandbox is gone"),
                Err(error) => {
                    let error = chain(&error);
                    tracing::warn!(%pod, %uid, container, error, "cannot unplug a pod whose sandbox is gone");
                    problems.push(format!("pod {pod}: {error}"));
                }
            }
        }
        problems
    }

    /// Removes the host ends that carry our mark and belong to no attachment, but not those of the sandboxes in `keep`.
    /// Returns what could not be removed, or looked at.
    pub async fn clean_strays(&self, keep: &HashSet<&str>) -> Vec<String> {
        let ends = match self.plugs.list().await {
            Ok(ends) => ends,
            Err(error) => return vec![chain(&error)],
        };
        // Read after the ends: an ADD remembers before it plugs, a DEL forgets after it has unplugged.
        let attachments = self.attachments.all();
        let mut problems = Vec::new();
        for end in audit::strays(&attachments, &ends).filter(|end| !keep.contains(end.owner.container_id.as_str())) {
            let (kind, name, port) = (end.kind.as_str(), &end.name, end.owner.port_id);
            match self.plugs.remove(end).await {
                Ok(()) => {
                    tracing::info!(kind, name, %port, container = end.owner.container_id, "removed a stray");
                    self.ports.look_again_at(port);
                }
                Err(error) => {
                    let error = chain(&error);
                    tracing::warn!(kind, name, %port, error, "cannot remove a stray");
                    problems.push(format!("{kind} {name}: {error}"));
                }
            }
        }
        problems
    }
}

/// The sandbox of an attachment, as it is plugged into.
#[must_use]
pub fn sandbox(attachment: &Attachment) -> Sandbox {
    Sandbox { container_id: attachment.id.container_id.clone(), netns: attachment.netns.clone() }
}

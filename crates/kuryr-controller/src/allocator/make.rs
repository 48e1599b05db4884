//! Makes ports for pods, or answers with those that are there.

use super::{Allocated, Reply, Request, Shared, port::free, spare::Ways};
use crate::error::PodError;
use futures::future::join_all;
use kuryr_model::{NetworkId, PodUid, neutron::Port};
use kuryr_openstack::{Class, Error as CloudError, Waits, network::NewPort};
use kuryr_plan::allocator::{Ask, Batch, Counted, Next, Refusal, Shortage};
use std::{collections::HashMap, time::Duration};

/// How long Neutron may take to say how full subnets are. Pods wait for it, and do without if it takes longer.
const COUNT_WITHIN: Duration = Duration::from_secs(3);

impl Shared {
    /// Answers every request of a batch: by what is there already, then by what is made.
    pub(super) async fn serve(&self, batch: Vec<(Request, Reply)>) {
        let suspects: Vec<PodUid> = {
            let state = self.state.lock();
            let suspect = |request: &Request| state.suspects.may_have_one(&request.key, &request.uid);
            let batch = batch.iter().map(|(request, _)| request);
            batch.filter(|request| suspect(request)).map(|request| request.uid.clone()).collect()
        };
        let mut found: HashMap<PodUid, Port> = HashMap::new();
        if !suspects.is_empty() {
            match self.find(&suspects, false).await {
                // The first one of several, the same at each look. The others go when this one is recorded.
                Ok(ports) => {
                    for port in ports {
                        let Some(owner) = self.owner(&port) else { continue };
                        let first = found.entry(owner).or_insert_with(|| port.clone());
                        if port.id < first.id {
                            *first = port;
                        }
                    }
                }
                // A spare port needs no look: of two ports of one pod, the one that its KuryrPort does not name is swept. And who is
                // no suspect need not wait for those who are.
                Err(error) => {
                    let without = self.lend(batch).await;
                    let (unsure, sure): (Vec<_>, Vec<_>) =
                        without.into_iter().partition(|(request, _)| suspects.contains(&request.uid));
                    fail(unsure, &error);
                    self.make(sure).await;
                    return;
                }
            }
        }
        let mut without = Vec::new();
        for (request, reply) in batch {
            match found.remove(&request.uid) {
                Some(port) => self.answer(&request, reply, port, false).await,
                None => without.push((request, reply)),
            }
        }
        let without = self.lend(without).await;
        self.make(without).await;
    }

    /// Makes ports for those that have none.
    async fn make(&self, pods: Vec<(Request, Reply)>) {
        let mut on: HashMap<Option<NetworkId>, Vec<(Request, Reply)>> = HashMap::new();
        for (request, reply) in pods {
            on.entry(request.only()).or_default().push((request, reply));
        }
        join_all(on.into_iter().map(|(only, pods)| self.make_on(only, pods))).await;
    }

    /// The same for those that may be on any network, or only on that one.
    async fn make_on(&self, only: Option<NetworkId>, pods: Vec<(Request, Reply)>) {
        let (mut batch, mut ways) = (Batch::new(pods), Ways::default());
        loop {
            let next = self.state.lock().supply(only).next(&mut batch, self.now());
            match next {
                None => break,
                Some(Next::Count(network)) => self.count(only, &mut batch, network).await,
                Some(Next::Create(ask, pods)) => self.create(only, &mut batch, &mut ways, ask, pods).await,
                Some(Next::Short(shortage, pods)) => {
                    // That is no reason to wait while ports lie about in pools.
                    if self.make_way(&mut ways, shortage, pods.len()).await {
                        batch.again(pods);
                    } else {
                        fail(pods, &self.short(only, shortage));
                    }
                }
            }
        }
        self.ways_were_made(&ways);
    }

    /// Asks Neutron for ports in one request.
    async fn create(
        &self,
        only: Option<NetworkId>,
        batch: &mut Batch<(Request, Reply)>,
        ways: &mut Ways,
        ask: Ask,
        pods: Vec<(Request, Reply)>,
    ) {
        let wanted: Vec<NewPort> = pods.iter().map(|(request, _)| self.new_port(request, &ask.choice)).collect();
        self.metrics.bulk(pods.len());
        match self.cloud.network().ports().create_many(&wanted).await {
            Ok(ports) => {
                self.state.lock().supply(only).made(&ask);
                // Not by the mark: whether Neutron kept the mark is looked at when it is answered. The port of a virtual machine's
                // pod says only by its name whose it is.
                let mut made: HashMap<(String, String), Port> =
                    ports.into_iter().map(|port| ((port.device_id.clone(), port.name.clone()), port)).collect();
                for ((request, reply), asked) in pods.into_iter().zip(wanted) {
                    match made.remove(&(asked.device_id, asked.name)) {
                        Some(port) => self.answer(&request, reply, port, true).await,
                        None => {
                            self.suspect(&request.key, &request.uid, false);
                            let _ = reply.send(Err(PodError::LeftOut(request.key)));
                        }
                    }
                }
            }
            Err(error) => {
                let refusal = refusal(&error);
                if refusal == Refusal::Exhausted && pods.len() == 1 {
                    let subnets = self.names(&ask.choice.subnets).join(", ");
                    tracing::warn!(subnets, request_id = error.request_id(), "the subnet has no free address");
                }
                let error = PodError::from(error);
                let now = self.now();
                let failed = {
                    let mut state = self.state.lock();
                    if refusal == Refusal::Quota {
                        state.quota = Some(error.clone());
                    }
                    state.supply(only).refused(batch, &ask, pods, refusal, now)
                };
                if refusal == Refusal::Unknown {
                    for (request, _) in &failed {
                        self.suspect(&request.key, &request.uid, true);
                    }
                }
                if refusal == Refusal::Quota && self.make_way(ways, Shortage::Quota, failed.len()).await {
                    batch.again(failed);
                } else {
                    fail(failed, &error);
                }
            }
        }
    }

    /// Asks Neutron how full the subnets of a network are.
    pub(super) async fn count<R>(&self, only: Option<NetworkId>, batch: &mut Batch<R>, network: NetworkId) {
        let question = self.state.lock().supply(only).question();
        let answer = match self.cloud.network().within(COUNT_WITHIN).ip_availability(network).await {
            Ok(subnets) => Counted::Free(subnets.iter().map(|subnet| (subnet.subnet_id, free(subnet))).collect()),
            Err(error) if error.is_not_found() || error.class() == Class::Operator(Waits::Forbidden) => {
                tracing::info!(
                    reason = %error,
                    "Neutron does not say how full subnets are (policy get_network_ip_availability): a subnet that fills up \
                     may lose some addresses"
                );
                Counted::Never
            }
            Err(error) => {
                tracing::debug!(reason = %error, "it is not known how full the subnets are");
                Counted::NotNow
            }
        };
        self.state.lock().supply(only).counted(batch, network, &question, answer, self.now());
    }

    fn short(&self, only: Option<NetworkId>, shortage: Shortage) -> PodError {
        match shortage {
            Shortage::Addresses => self.all_full(only),
            Shortage::Quota => self.state.lock().quota.clone().unwrap_or(PodError::QuotaUsedUp),
        }
    }

    /// Answers one request with the VIF for its port. A port that was made and cannot be plugged, or is wanted no more, is deleted.
    async fn answer(&self, request: &Request, reply: Reply, port: Port, made: bool) {
        let id = port.id;
        let result = self.vif(request, &port).map(|vif| Allocated { vif, made });
        let unusable = result.is_err();
        if !unusable {
            self.policies.has(id, &request.uid, &port.security_groups);
            self.has_own(request, &port);
        }
        if reply.send(result).is_err() || unusable {
            // One that was found and is unusable is in no KuryrPort: it would have been unusable then, too.
            let deleted = (made || unusable) && self.discard(&port).await.is_ok();
            if !deleted {
                self.suspect(&request.key, &request.uid, false);
            }
        }
    }
}

/// Tells all of them why they have no port.
fn fail(pods: Vec<(Request, Reply)>, error: &PodError) {
    for (_, reply) in pods {
        let _ = reply.send(Err(error.clone()));
    }
}

/// What an answer of Neutron means to those who asked for ports.
pub(super) fn refusal(error: &CloudError) -> Refusal {
    if error.is_ambiguous() {
        return Refusal::Unknown;
    }
    match error.class() {
        Class::Operator(Waits::Exhausted) => Refusal::Exhausted,
        Class::Operator(Waits::Quota) => Refusal::Quota,
        // It was refused for what was asked for, rather than not listened to at all.
        Class::Operator(_) | Class::Owner | Class::Bug if error.refusal().is_some() => Refusal::Request,
        Class::Operator(_) | Class::Owner | Class::Bug | Class::RetryNow | Class::RetryLater { .. } => Refusal::All,
    }
}

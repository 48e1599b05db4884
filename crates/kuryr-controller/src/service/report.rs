//! What is written into Kubernetes for a Service: its `KuryrLoadBalancer`, its status, Events on it.

use super::{
    error::ServiceError,
    status::{Facts, Phase, patch, status},
};
use crate::{events::Events, metrics::Metrics};
use k8s_openapi::{api::core::v1::Service as KubeService, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{
    Api, Client,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions},
};
use kuryr_model::{
    KuryrLoadBalancer, KuryrLoadBalancerSpec, KuryrLoadBalancerStatus, LOAD_BALANCER_FINALIZER, ObjectKey, ServiceUid,
    kuryr_load_balancer::LoadBalancerState,
};
use kuryr_plan::service::Ingress;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// Writes.
pub(crate) struct Reporter {
    client: Client,
    events: Events,
    metrics: Metrics,
    /// What each `KuryrLoadBalancer` said last: its state, and why it is not ready.
    said: Mutex<HashMap<ObjectKey, Said>>,
}

/// What a `KuryrLoadBalancer` says, in short.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Said {
    state: Option<LoadBalancerState>,
    /// The reason of `Ready` = `False`.
    waits: Option<String>,
}

impl Said {
    fn of(status: &KuryrLoadBalancerStatus) -> Self {
        let waits = status.conditions.iter().find(|condition| condition.status == "False");
        Self { state: status.state, waits: waits.map(|condition| condition.reason.clone()) }
    }
}

fn load_balancer(error: kube::Error) -> ServiceError {
    ServiceError::Kubernetes("the KuryrLoadBalancer", Arc::new(error))
}

/// Gone, or another object by now: the watch will tell.
fn is_other(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(answer) if matches!(answer.code, 404 | 409))
}

impl Reporter {
    pub(crate) fn new(client: Client, events: Events, metrics: Metrics) -> Self {
        Self { client, events, metrics, said: Mutex::default() }
    }

    fn api(&self, key: &ObjectKey) -> Api<KuryrLoadBalancer> {
        Api::namespaced(self.client.clone(), &key.namespace)
    }

    /// Makes the `KuryrLoadBalancer` of a Service.
    pub(crate) async fn hold(&self, key: &ObjectKey, uid: &ServiceUid) -> Result<KuryrLoadBalancer, ServiceError> {
        let owner = OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Service".to_owned(),
            name: key.name.clone(),
            uid: uid.to_string(),
            // A blocking owner reference would need the right to change the finalizers of Services.
            block_owner_deletion: None,
            controller: Some(true),
        };
        let metadata = ObjectMeta {
            name: Some(key.name.clone()),
            namespace: Some(key.namespace.clone()),
            owner_references: Some(vec![owner]),
            finalizers: Some(vec![LOAD_BALANCER_FINALIZER.to_owned()]),
            ..ObjectMeta::default()
        };
        let spec = KuryrLoadBalancerSpec { service_uid: uid.clone() };
        let new = KuryrLoadBalancer { metadata, ..KuryrLoadBalancer::new(&key.name, spec) };
        self.api(key).create(&PostParams::default(), &new).await.map_err(load_balancer)
    }

    /// Deletes a `KuryrLoadBalancer`; what it is then, if it is held.
    pub(crate) async fn delete(&self, held: &KuryrLoadBalancer) -> Result<Option<KuryrLoadBalancer>, ServiceError> {
        let key = held.key();
        let preconditions = Preconditions { uid: held.metadata.uid.clone(), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
        match self.api(&key).delete(&key.name, &params).await {
            Ok(either) => Ok(either.left()),
            Err(error) if is_other(&error) => Ok(None),
            Err(error) => Err(load_balancer(error)),
        }
    }

    /// Whether a Service of this UID is there to stay, as the API server knows it: our watches may be behind, and tell of the
    /// deletion of its `KuryrLoadBalancer` before they tell of its own.
    pub(crate) async fn stays(&self, key: &ObjectKey, uid: &ServiceUid) -> Result<bool, ServiceError> {
        let api = Api::<KubeService>::namespaced(self.client.clone(), &key.namespace);
        let found = api.get_metadata_opt(&key.name).await;
        let found = found.map_err(|error| ServiceError::Kubernetes("the Service", Arc::new(error)))?;
        let stays =
            |metadata: ObjectMeta| metadata.uid.as_ref() == Some(&uid.0) && metadata.deletion_timestamp.is_none();
        Ok(found.is_some_and(|service| stays(service.metadata)))
    }

    /// Lets a `KuryrLoadBalancer` go.
    pub(crate) async fn let_go(&self, held: &KuryrLoadBalancer) -> Result<(), ServiceError> {
        let mut finalizers = held.metadata.finalizers.clone().unwrap_or_default();
        finalizers.retain(|finalizer| finalizer != LOAD_BALANCER_FINALIZER);
        let key = held.key();
        let body = json!({"metadata": {
            "uid": held.metadata.uid, "resourceVersion": held.metadata.resource_version, "finalizers": finalizers,
        }});
        match self.api(&key).patch(&key.name, &PatchParams::default(), &Patch::Merge(&body)).await {
            Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(()),
            Err(error) => Err(load_balancer(error)),
            Ok(_) => Ok(()),
        }
    }

    /// Writes the status of a `KuryrLoadBalancer` if it says something new, and warns on the Service of what is new for its
    /// owner. What was written.
    pub(crate) async fn tell(&self, facts: &Facts<'_>) -> Result<Option<KuryrLoadBalancer>, ServiceError> {
        let key = facts.held.key();
        let before = facts.held.status.clone().unwrap_or_default();
        let after = status(facts);
        self.remember(&key, Some(Said::of(&after)));
        if before == after {
            return Ok(None);
        }
        if !matches!(facts.phase, Phase::Deleting) {
            self.warn(&key, &facts.held.spec.service_uid, &before, &after);
        }
        let patch = Patch::Merge(patch(&before, &after));
        match self.api(&key).patch_status(&key.name, &PatchParams::default(), &patch).await {
            Ok(written) => Ok(Some(written)),
            Err(error) if is_other(&error) => Ok(None),
            Err(error) => Err(load_balancer(error)),
        }
    }

    fn warn(
        &self,
        key: &ObjectKey,
        uid: &ServiceUid,
        before: &KuryrLoadBalancerStatus,
        after: &KuryrLoadBalancerStatus,
    ) {
        for problem in after.problems.iter().filter(|problem| !before.problems.contains(problem)) {
            self.events.warn_service(key, uid, &problem.reason, problem.message.clone());
        }
        let failure = |status: &KuryrLoadBalancerStatus| {
            let failed = status.conditions.iter().find(|c| c.status == "False" && !c.message.is_empty());
            failed.map(|condition| (condition.reason.clone(), condition.message.clone()))
        };
        if let Some((reason, message)) = failure(after).filter(|now| failure(before).as_ref() != Some(now))
            && !after.problems.iter().any(|problem| problem.message == message)
        {
            self.events.warn_service(key, uid, &reason, message);
        }
    }

    /// Writes where a Service is reached from outside.
    pub(crate) async fn show(&self, key: &ObjectKey, ingress: &[Ingress]) -> Result<(), ServiceError> {
        let entries: Vec<Value> = ingress.iter().map(entry).collect();
        let body = json!({"status": {"loadBalancer": {"ingress": entries}}});
        let api = Api::<KubeService>::namespaced(self.client.clone(), &key.namespace);
        match api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(&body)).await {
            Ok(_) => Ok(()),
            // Gone, or of another type by now.
            Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409 | 422) => Ok(()),
            Err(error) => Err(ServiceError::Kubernetes("the status of the Service", Arc::new(error))),
        }
    }

    /// There is no `KuryrLoadBalancer` any more.
    pub(crate) fn forget(&self, key: &ObjectKey) {
        self.remember(key, None);
    }

    fn remember(&self, key: &ObjectKey, said: Option<Said>) {
        let mut all = self.said.lock();
        let changed = all.get(key) != said.as_ref();
        match said {
            Some(said) => drop(all.insert(key.clone(), said)),
            None => drop(all.remove(key)),
        }
        if changed {
            let states = all.values().filter_map(|said| said.state);
            let waits = all.values().filter_map(|said| said.waits.as_deref());
            self.metrics.load_balancers(states, waits);
        }
    }

    /// The Services that lack what something else of ours may have given back.
    pub(crate) fn starved(&self) -> HashSet<ObjectKey> {
        let all = self.said.lock();
        let lacks = |said: &Said| said.waits.as_deref().is_some_and(ServiceError::lacks_room);
        all.iter().filter(|(_, said)| lacks(said)).map(|(key, _)| key.clone()).collect()
    }
}

fn entry(ingress: &Ingress) -> Value {
    let ports: Vec<Value> =
        ingress.ports.iter().map(|(transport, port)| json!({"port": port, "protocol": transport.as_str()})).collect();
    let mut entry = json!({"ports": ports});
    if let Some(ip) = ingress.ip {
        // Traffic from within the cluster to the address goes through the load balancer, too.
        (entry["ip"], entry["ipMode"]) = (json!(ip), json!("VIP"));
    }
    if let Some(name) = &ingress.hostname {
        entry["hostname"] = json!(name);
    }
    entry
}

//! What policies come to and what Neutron has of it, read in one go: for those who compare, not for the controller.

use super::{call::Caller, keeper::addresses, lean as policies, resync::owned};
use crate::{
    config::ControllerConfig,
    lean::{LeanNode, LeanPod, LeanPort},
    resync::list,
    service::{Observer, Services, ServicesError, guards as guarding, shown, survey::Survey as ServicesSurvey},
    topology::{TopologyError, open_group, pod_subnets},
};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::{Api, Client};
use kuryr_model::{KuryrPort, ObjectKey, PodUid, PolicyUid, PortId, mark::Base};
use kuryr_openstack::{Cloud, Error as CloudError};
use kuryr_plan::{
    enforce::{Enforcer, Step},
    policy::{Change, Compiler, GroupKey, Guard, Pod, Settings},
    service::admission,
};
use std::collections::{BTreeMap, HashMap};

/// What was found.
#[derive(Debug, Default)]
pub struct Survey {
    /// What is left to be done in Neutron.
    pub left: Vec<Left>,
    /// The NetworkPolicies.
    pub policies: BTreeMap<ObjectKey, PolicyUid>,
    /// The `KuryrNetworkPolicy`s, and the policy that each is for.
    pub held: BTreeMap<ObjectKey, PolicyUid>,
}

/// A step that is left, and what its groups are for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// The step.
    pub step: Step,
    /// What each of its groups is for, in their order.
    pub groups: Vec<String>,
}

/// The survey cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    /// OpenStack refused, or did not answer.
    #[error("security groups cannot be listed")]
    Cloud(#[from] CloudError),
    /// Kubernetes refused, or did not answer.
    #[error("{0} cannot be listed")]
    Kubernetes(&'static str, #[source] kube::Error),
}

/// The controller could not start with these settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The pod subnets are not there.
    #[error(transparent)]
    Pods(#[from] TopologyError),
    /// What Services need is not there.
    #[error(transparent)]
    Services(#[from] ServicesError),
}

/// The settings of the compiler as the controller has them. Without pod subnets they are of no family.
///
/// # Errors
/// [`SettingsError`].
pub async fn settings(config: &ControllerConfig, cloud: &Cloud) -> Result<Settings, SettingsError> {
    let pods = match pod_subnets(cloud, &config.cluster, &config.pod_subnets).await {
        Err(TopologyError::NoSubnets(_)) => Vec::new(),
        found => found?,
    };
    let services = Services::find(cloud, config, &pods).await?;
    Ok(super::settings(&pods, services.ranges()))
}

/// Compares what policies come to with what Neutron has. Services are given as they were surveyed.
///
/// # Errors
/// [`SurveyError`].
pub async fn survey(
    config: &ControllerConfig,
    cloud: &Cloud,
    client: &Client,
    services: &mut ServicesSurvey,
) -> Result<Survey, SurveyError> {
    // OpenStack first: what is made meanwhile is not stray.
    let caller = Caller { cloud: cloud.clone(), cluster: config.cluster.clone() };
    let (groups, ports) = (caller.look().await?, caller.ports().await?);
    let guards = guards(&Observer::new(cloud, config.cluster.clone()), services).await?;
    let mut survey = Survey::default();
    let (mut changes, holders) = cluster(client, &mut survey).await?;
    changes.extend(all_shown(services, &guards));
    let (Some(ingress), Some(egress)) =
        (open(cloud, config, Base::IngressOpen).await?, open(cloud, config, Base::EgressOpen).await?)
    else {
        // Told by whoever looks at the base.
        return Ok(survey);
    };
    let mut enforcer = Enforcer::new(super::settings(&services.pods, services.ranges.clone()), ingress, egress);
    enforcer.apply(changes);
    limit(enforcer.compiler(), services);
    let moment = enforcer.moment();
    enforcer.looked(&config.cluster, moment, &groups);
    enforcer.listed_ports(moment, owned(ports, &holders, |_| None).into_iter());
    let steps = enforcer.plan();
    let readable = |key: &GroupKey| key.readable(|uid| enforcer.compiler().policy(uid).cloned());
    let name = |step: Step| {
        let groups = match &step {
            Step::Make(keys) => keys.iter().map(readable).collect(),
            Step::Read(key, _) | Step::Delete(key, _) => vec![readable(key)],
            Step::Group(group) => vec![readable(&group.key)],
            Step::Look | Step::Port { .. } | Step::DeleteStray(_) => Vec::new(),
        };
        Left { step, groups }
    };
    survey.left = steps.into_iter().map(name).collect();
    Ok(survey)
}

/// Gives the listeners of Services that are limited in place of pods those limits, in what they should have.
///
/// # Errors
/// [`SurveyError`].
pub async fn limit_listeners(client: &Client, services: &mut ServicesSurvey) -> Result<(), SurveyError> {
    let changes = all_shown(services, &BTreeMap::new());
    if !changes.iter().any(|change| matches!(change, Change::Service(service) if service.guard.is_some())) {
        return Ok(());
    }
    let mut compiler = Compiler::new(super::settings(&services.pods, services.ranges.clone()));
    compiler.apply(cluster(client, &mut Survey::default()).await?.0.into_iter().chain(changes));
    limit(&compiler, services);
    Ok(())
}

fn limit(compiler: &Compiler, services: &mut ServicesSurvey) {
    for (key, limits) in compiler.all_limits() {
        if let Some(surveyed) = services.services.get_mut(&key) {
            surveyed.desired = surveyed.desired.clone().limited(&limits);
        }
    }
}

/// The Services as policies see them.
fn all_shown(services: &ServicesSurvey, guards: &BTreeMap<ObjectKey, Guard>) -> Vec<Change> {
    let known = services.services.iter().filter_map(|(key, surveyed)| {
        let provider = &services.held.get(key)?.status.as_ref()?.provider;
        let mut service = shown(&surveyed.service, &surveyed.slices, provider).filter(|_| !provider.is_empty())?;
        service.guard = service.guard.map(|guard| guards.get(key).cloned().unwrap_or(guard));
        Some(Change::Service(service))
    });
    known.collect()
}

/// Whom the listeners of Services let in.
async fn guards(observer: &Observer, services: &ServicesSurvey) -> Result<BTreeMap<ObjectKey, Guard>, SurveyError> {
    let mut guards = BTreeMap::new();
    for (key, surveyed) in &services.services {
        let held = services.held.get(key).and_then(|held| held.status.as_ref());
        if !held.is_some_and(|status| guarding(&status.provider)) {
            continue;
        }
        let Some(admission) = admission(&surveyed.desired, &surveyed.observed) else { continue };
        let balancers = observer.balancers(&admission.balancers).await?;
        guards.insert(key.clone(), Guard { balancers, admits: admission.admits });
    }
    Ok(guards)
}

async fn open(
    cloud: &Cloud,
    config: &ControllerConfig,
    base: Base,
) -> Result<Option<kuryr_model::SecurityGroupId>, SurveyError> {
    match open_group(cloud, &config.cluster, base).await {
        Ok(id) => Ok(Some(id)),
        Err(TopologyError::Cloud(error)) => Err(error.into()),
        Err(_) => Ok(None),
    }
}

/// What of the cluster decides what policies come to, but Services.
/// With whose each port is that a `KuryrPort` has.
async fn cluster(client: &Client, survey: &mut Survey) -> Result<(Vec<Change>, HashMap<PortId, PodUid>), SurveyError> {
    let refused = |what| move |error| SurveyError::Kubernetes(what, error);
    let mut changes = Vec::new();
    let namespaces = list(Api::all(client.clone()), |it| policies::namespace(it).ok());
    for (name, labels) in namespaces.await.map_err(refused("namespaces"))? {
        changes.push(Change::Namespace(name, labels));
    }
    let nodes = list(Api::all(client.clone()), |node: LeanNode| node.read().ok());
    changes
        .extend(nodes.await.map_err(refused("nodes"))?.into_iter().map(|node| Change::Node(node.name, node.addresses)));
    let found = list(Api::all(client.clone()), |it: NetworkPolicy| policies::policy(it).ok());
    for seen in found.await.map_err(refused("NetworkPolicies"))? {
        survey.policies.insert(seen.policy.key.clone(), seen.policy.uid.clone());
        changes.push(Change::Policy(seen.policy));
    }
    let held = list(Api::all(client.clone()), |it| policies::held(it).ok());
    let definitions = "KuryrNetworkPolicies (are the definitions applied? kuryr crds --apply)";
    for held in held.await.map_err(refused(definitions))? {
        survey.held.insert(held.key(), held.spec.policy_uid);
    }
    let ports = list(Api::all(client.clone()), |port: LeanPort| {
        let key = ObjectKey::of(&port);
        Some((key, port.read().ok()?))
    });
    let ports: BTreeMap<ObjectKey, KuryrPort> = ports.await.map_err(refused("KuryrPorts"))?.into_iter().collect();
    let holder = |port: &KuryrPort| {
        let pod = port.spec.pod_uid.clone();
        port.port_ids().map(move |id| (id, pod.clone())).collect::<Vec<_>>()
    };
    let holders = ports.values().flat_map(holder).collect();
    let pods = list(Api::all(client.clone()), |pod: LeanPod| pod.read().ok());
    for (pod, facts) in pods.await.map_err(refused("pods"))? {
        let own = ports.get(&pod.key).filter(|port| port.spec.pod_uid == pod.uid);
        changes.push(Change::Pod(Pod {
            addresses: own.map(addresses).unwrap_or_default(),
            key: pod.key,
            uid: pod.uid,
            node: pod.node,
            labels: facts.labels,
            host_network: pod.host_network,
            completed: pod.completed,
            ports: facts.ports,
        }));
    }
    Ok((changes, holders))
}

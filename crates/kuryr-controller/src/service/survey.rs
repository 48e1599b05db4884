//! What every Service should have and what it has, read in one go: for those who compare, not for the controller.

use super::{
    ServicesError,
    lean::{self, LeanLoadBalancer},
    observe::Observer,
    topology::{Services, SiteState},
};
use crate::{
    config::ControllerConfig,
    resync::list,
    topology::{TopologyError, pod_subnets},
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::{core::v1::Service as KubeService, discovery::v1::EndpointSlice};
use kube::{Api, Client, ResourceExt as _};
use kuryr_model::{KuryrLoadBalancer, ObjectKey, ServiceUid};
use kuryr_openstack::{Cloud, Error as CloudError, Service as CloudService};
use kuryr_plan::service::{
    Desired, Feature, Members, Observed, Plan, Provider, Reason, Service, Slice, annotations::LB_PROVIDER, desired,
    plan,
};
use std::collections::{BTreeMap, HashMap};

/// Requests at once.
const AT_ONCE: usize = 8;

/// What was found.
#[derive(Debug, Default)]
pub struct Survey {
    /// Why Services get no load balancers, if so; then there are no [`Self::services`].
    pub off: Option<String>,
    /// The Services, by their names.
    pub services: BTreeMap<ObjectKey, Surveyed>,
    /// What there is of Services that are gone.
    pub strays: BTreeMap<ServiceUid, Observed>,
    /// All `KuryrLoadBalancer`s, by their names.
    pub held: BTreeMap<ObjectKey, KuryrLoadBalancer>,
    /// Those that cannot be read, and why.
    pub unreadable: BTreeMap<ObjectKey, String>,
}

/// One Service.
#[derive(Debug)]
pub struct Surveyed {
    /// As Kubernetes has it.
    pub service: Service,
    /// What is behind it.
    pub slices: Vec<Slice>,
    /// What it should have.
    pub desired: Desired,
    /// What it has.
    pub observed: Observed,
}

impl Surveyed {
    /// The steps from what it has to what it should have.
    #[must_use]
    pub fn plan(&self) -> Plan {
        plan(&self.desired, &self.observed)
    }
}

/// The survey cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    /// The cloud lacks something that Services need.
    #[error(transparent)]
    Services(#[from] ServicesError),
    /// OpenStack refused, or did not answer.
    #[error("load balancers cannot be listed")]
    Cloud(#[from] CloudError),
    /// Kubernetes refused, or did not answer.
    #[error("{0} cannot be listed")]
    Kubernetes(&'static str, #[source] kube::Error),
}

/// Why Services get no load balancers in this cloud, if so.
///
/// # Errors
/// They should, and cannot: a setting is wrong, or OpenStack does not answer.
pub async fn services_off(config: &ControllerConfig, cloud: &Cloud) -> Result<Option<String>, SurveyError> {
    Ok(match find(config, cloud).await? {
        Services::On(_) => None,
        Services::Off(why) => Some(why),
    })
}

/// A cluster whose pods have no subnet yet is told so elsewhere.
async fn find(config: &ControllerConfig, cloud: &Cloud) -> Result<Services, SurveyError> {
    let pods = match pod_subnets(cloud, &config.cluster, &config.pod_subnets).await {
        Err(TopologyError::Cloud(error)) => return Err(SurveyError::Cloud(error)),
        found => found.unwrap_or_default(),
    };
    Ok(Services::find(cloud, config, &pods).await?)
}

/// Looks at all Services, or at one. Of one, only its own members are listed.
///
/// # Errors
/// [`SurveyError`].
pub async fn survey(
    config: &ControllerConfig,
    cloud: &Cloud,
    client: &Client,
    only: Option<&ObjectKey>,
) -> Result<Survey, SurveyError> {
    let services = find(config, cloud).await?;
    // OpenStack first: what is made for a Service meanwhile is not stray.
    let mut found = HashMap::new();
    let observer = Observer::new(cloud, config.cluster.clone());
    if cloud.url(CloudService::LoadBalancer).is_ok() {
        found = observer.all().await?;
    }
    let refused = |what| move |error| SurveyError::Kubernetes(what, error);
    let seen = list(Api::all(client.clone()), |service: KubeService| lean::service(service).ok());
    let seen = seen.await.map_err(refused("Services"))?;
    let slices = list(Api::all(client.clone()), |slice: EndpointSlice| lean::slice(slice).ok());
    let slices = slices.await.map_err(refused("EndpointSlices"))?;
    let held = list(Api::all(client.clone()), |held: LeanLoadBalancer| {
        let key = ObjectKey::new(held.namespace().unwrap_or_default(), held.name_any());
        Some((key, held.read()))
    });
    let held = held.await.map_err(refused("KuryrLoadBalancers (are the definitions applied? kuryr crds --apply)"))?;

    let mut behind: HashMap<ObjectKey, Vec<Slice>> = HashMap::new();
    for slice in slices {
        if let Some(key) = slice.service {
            behind.entry(key).or_default().push(slice.slice);
        }
    }
    let mut survey = Survey::default();
    for (key, held) in held {
        match held {
            Ok(held) => drop(survey.held.insert(key, held)),
            Err(why) => drop(survey.unreadable.insert(key, why)),
        }
    }
    let site = match services {
        Services::On(site) => Some(SiteState::new(*site)),
        Services::Off(why) => {
            survey.off = Some(why);
            None
        }
    };
    let all: Vec<Service> = seen.into_iter().map(|seen| seen.service).collect();
    if let Some(site) = &site {
        learn(site, &all, &found, &survey);
    }
    for service in all {
        let observed = found.remove(&service.uid).unwrap_or_default();
        let Some(site) = &site else { continue };
        if only.is_some_and(|only| *only != service.key) {
            continue;
        }
        let slices = behind.remove(&service.key).unwrap_or_default();
        let desired = desired(&service, &slices, &site.with_nodes(Vec::new()));
        survey.services.insert(service.key.clone(), Surveyed { service, slices, desired, observed });
    }
    survey.strays = found.into_iter().collect();
    list_members(&observer, &mut survey).await?;
    Ok(survey)
}

/// What the controller learned from answers, as far as it shows: who is asked when nobody is asked for, and who cannot limit
/// clients.
fn learn(site: &SiteState, services: &[Service], found: &HashMap<ServiceUid, Observed>, survey: &Survey) {
    for service in services {
        let Some(tree) = found.get(&service.uid).and_then(|observed| observed.trees.first()) else { continue };
        let provider = &tree.load_balancer.provider;
        if site.asks_for_no_provider() && !service.annotations.contains_key(LB_PROVIDER) {
            site.default_provider(provider);
        }
        let problems =
            survey.held.get(&service.key).and_then(|held| held.status.as_ref()).map(|status| &status.problems);
        let open = |reason: &str| reason == Reason::SourceRangesNotEnforced.as_str();
        if problems.is_some_and(|problems| problems.iter().any(|problem| open(&problem.reason))) {
            site.learn(Provider::named(provider), Feature::AllowedCidrs);
        }
    }
}

async fn list_members(observer: &Observer, survey: &mut Survey) -> Result<(), SurveyError> {
    let counted = survey.services.values().flat_map(|surveyed| surveyed.observed.unsure(&surveyed.desired, None));
    let listed: HashMap<_, _> = stream::iter(counted.collect::<Vec<_>>())
        .map(|id| async move { observer.members(id).await.map(|members| (id, members)) })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let trees = survey.services.values_mut().flat_map(|surveyed| &mut surveyed.observed.trees);
    for pool in trees.flat_map(|tree| &mut tree.pools) {
        if let Some(members) = listed.get(&pool.pool.id) {
            pool.members = Members::Known(members.clone());
        }
    }
    Ok(())
}

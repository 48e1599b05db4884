//! Services in a world, and servers behind them. All waiting is on watches.

use super::{Ground, NewPod, World, addresses, pods::PATIENCE};
use crate::dataplane::probe::{self, Echo};
use anyhow::{Context, bail, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::{
    core::v1::{Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    runtime::wait::{Condition, await_condition},
};
use kuryr_model::{KuryrLoadBalancer, kuryr_load_balancer::LoadBalancerState};
use serde_json::{Value, json};
use std::{net::IpAddr, ops::Range, path::PathBuf, time::Duration};
use tokio::time::timeout;

/// The port number at which backends serve.
pub const SERVED: u16 = 8080;

/// A pod with a server in it that tells its name.
pub struct Backend {
    /// The pod, running.
    pub pod: Pod,
    /// Its network namespace.
    pub netns: PathBuf,
    /// Its first address.
    pub address: IpAddr,
    /// Serves as long as it is kept.
    _echoes: Vec<Echo>,
}

impl Backend {
    /// The name that its server tells: the pod's.
    #[must_use]
    pub fn name(&self) -> String {
        self.pod.name_any()
    }
}

/// The Services of one namespace.
#[derive(Clone)]
pub struct Services {
    services: Api<Service>,
    held: Api<KuryrLoadBalancer>,
    slices: Api<EndpointSlice>,
}

impl World {
    /// The Services of the scenario's namespace.
    #[must_use]
    pub fn services(&self) -> Services {
        Services::new(&self.client, self.namespace())
    }

    /// Where the rest of the world is: a network namespace that floating IPs are reached from.
    #[must_use]
    pub fn outside(&self) -> PathBuf {
        match &self.ground {
            Ground::Embedded(embedded) => embedded.fabric.outside().to_owned(),
            Ground::Real(real) => real.outside_netns(),
        }
    }

    /// Pods `<app>-0` and so on, with the label `app`, all made at once; each serves at [`SERVED`].
    ///
    /// # Errors
    /// One does not come to run.
    pub async fn backends(&self, app: &str, numbers: Range<usize>) -> anyhow::Result<Vec<Backend>> {
        try_join_all(numbers.map(|number| self.backend(app, format!("{app}-{number}"), &[SERVED]))).await
    }

    /// A pod with the label `app` that serves at these port numbers, TCP and UDP.
    ///
    /// # Errors
    /// It does not come to run.
    pub async fn backend(&self, app: &str, name: String, numbers: &[u16]) -> anyhow::Result<Backend> {
        self.backend_of(NewPod::new(name).app(app), numbers).await
    }

    /// The same for any pod.
    ///
    /// # Errors
    /// It does not come to run.
    pub async fn backend_of(&self, pod: NewPod, numbers: &[u16]) -> anyhow::Result<Backend> {
        let name = pod.name().to_owned();
        let pod = self.run_pod(&pod, &name).await?;
        let netns = self.netns(&pod)?;
        let ips = addresses(&pod)?;
        let mut echoes = Vec::new();
        for number in numbers {
            for ip in &ips {
                echoes.push(probe::listen_as(&netns, (*ip, *number).into(), &name).await?);
            }
        }
        Ok(Backend { pod, netns, address: ips[0], _echoes: echoes })
    }
}

impl Services {
    /// The Services of `namespace`.
    #[must_use]
    pub fn new(client: &Client, namespace: &str) -> Self {
        Self {
            services: Api::namespaced(client.clone(), namespace),
            held: Api::namespaced(client.clone(), namespace),
            slices: Api::namespaced(client.clone(), namespace),
        }
    }

    /// Asks for a Service in front of the pods with the label `app` of the same name: port number 80, TCP, unless `spec`
    /// says otherwise.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn create(&self, name: &str, spec: Value) -> anyhow::Result<Service> {
        self.create_with(name, spec, json!({})).await
    }

    /// The same with annotations.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn create_with(&self, name: &str, spec: Value, annotations: Value) -> anyhow::Result<Service> {
        let mut whole = json!({"selector": {"app": name}, "ports": [{"port": 80, "targetPort": SERVED}]});
        json_patch::merge(&mut whole, &spec);
        let object = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "annotations": annotations}, "spec": whole,
        });
        let object = serde_json::from_value(object)?;
        self.services.create(&PostParams::default(), &object).await.with_context(|| format!("service {name}"))
    }

    /// Changes a Service.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn change(&self, name: &str, patch: Value) -> anyhow::Result<Service> {
        Ok(self.services.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?)
    }

    /// Makes an `EndpointSlice` by hand, as one does for a Service without a selector.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn create_slice(&self, name: &str, service: &str, slice: Value) -> anyhow::Result<()> {
        let mut whole = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": service}},
        });
        json_patch::merge(&mut whole, &slice);
        self.slices.create(&PostParams::default(), &serde_json::from_value(whole)?).await?;
        Ok(())
    }

    /// Changes an `EndpointSlice` that was made by hand.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn change_slice(&self, name: &str, patch: Value) -> anyhow::Result<()> {
        self.slices.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Deletes a Service; that it is gone is fine.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn delete(&self, name: &str) -> anyhow::Result<()> {
        match self.services.delete(name, &DeleteParams::default()).await {
            Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(()),
            other => Ok(other.map(drop)?),
        }
    }

    /// Waits until a Service's load balancer is as the Service asks, with this many members, all ready; what
    /// `KuryrLoadBalancer` then says.
    ///
    /// # Errors
    /// It is not, within [`PATIENCE`].
    pub async fn ready(&self, name: &str, members: u32) -> anyhow::Result<KuryrLoadBalancer> {
        self.ready_of(name, members, members).await
    }

    /// The same with so many members of which so many are ready.
    ///
    /// # Errors
    /// It is not, within [`PATIENCE`].
    pub async fn ready_of(&self, name: &str, ready: u32, total: u32) -> anyhow::Result<KuryrLoadBalancer> {
        let done = move |held: Option<&KuryrLoadBalancer>| held.is_some_and(|held| is_ready(held, (ready, total)));
        let held = self.when(name, &format!("ready with {ready} of {total} members"), PATIENCE, done).await?;
        held.with_context(|| format!("the KuryrLoadBalancer {name} is gone"))
    }

    /// Waits until there is no load balancer for a Service of this name.
    ///
    /// # Errors
    /// There still is, after [`PATIENCE`].
    pub async fn gone(&self, name: &str) -> anyhow::Result<()> {
        self.when(name, "gone", PATIENCE, |held: Option<&KuryrLoadBalancer>| held.is_none()).await.map(drop)
    }

    /// Waits for something about a Service's `KuryrLoadBalancer`.
    ///
    /// # Errors
    /// It is not so within the time given.
    pub async fn when(
        &self,
        name: &str,
        what: &str,
        within: Duration,
        condition: impl Condition<KuryrLoadBalancer>,
    ) -> anyhow::Result<Option<KuryrLoadBalancer>> {
        match timeout(within, await_condition(self.held.clone(), name, condition)).await {
            Ok(held) => Ok(held?),
            Err(_) => {
                let held = self.held.get_opt(name).await?.and_then(|held| serde_json::to_string(&held).ok());
                bail!("the KuryrLoadBalancer {name} is not {what} after {within:?}; it is {held:?}")
            }
        }
    }

    /// Waits until the Service shows an address for the outside, and gives it.
    ///
    /// # Errors
    /// It does not, within [`PATIENCE`].
    pub async fn ingress(&self, name: &str) -> anyhow::Result<IpAddr> {
        let address = |service: &Service| {
            let ingress = service.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?;
            ingress.first()?.ip.as_ref()?.parse::<IpAddr>().ok()
        };
        let shown = move |service: Option<&Service>| service.and_then(address).is_some();
        let service = timeout(PATIENCE, await_condition(self.services.clone(), name, shown))
            .await
            .with_context(|| format!("service {name} shows no address for the outside after {PATIENCE:?}"))??;
        service.as_ref().and_then(address).context("the address is gone again")
    }

    /// Deletes all Services and waits until all that was made for them is gone.
    ///
    /// # Errors
    /// Something is left.
    pub async fn delete_all(&self) -> anyhow::Result<()> {
        for service in self.services.list_metadata(&ListParams::default()).await? {
            // The API server makes this one again.
            if service.name_any() != "kubernetes" {
                self.delete(&service.name_any()).await?;
            }
        }
        for held in self.held.list_metadata(&ListParams::default()).await? {
            if held.name_any() != "kubernetes" {
                self.gone(&held.name_any()).await?;
            }
        }
        Ok(())
    }

    /// The API of the Services.
    #[must_use]
    pub fn api(&self) -> &Api<Service> {
        &self.services
    }

    /// The API of the `KuryrLoadBalancer`s.
    #[must_use]
    pub fn held(&self) -> &Api<KuryrLoadBalancer> {
        &self.held
    }
}

fn is_ready(held: &KuryrLoadBalancer, members: (u32, u32)) -> bool {
    let Some(status) = &held.status else { return false };
    let there = status.members.as_ref().map_or((0, 0), |members| (members.ready, members.total));
    let ready = status.conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    status.state == Some(LoadBalancerState::Active) && ready && there == members
}

/// The first cluster IP of a Service.
///
/// # Errors
/// It has none.
pub fn cluster_ip(service: &Service) -> anyhow::Result<IpAddr> {
    let ip = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()).unwrap_or_default();
    ensure!(!ip.is_empty() && ip != "None", "service {} has no cluster IP", service.name_any());
    Ok(ip.parse()?)
}

/// The node port of a Service's first port.
///
/// # Errors
/// It has none.
pub fn node_port(service: &Service) -> anyhow::Result<u16> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
    let number = ports.and_then(|ports| ports.first()?.node_port).context("no node port")?;
    Ok(number.try_into()?)
}

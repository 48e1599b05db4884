//! Services in a world: made, waited for, deleted. All waiting is on watches.

use anyhow::Context;
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    runtime::wait::{Condition, await_condition},
};
use kuryr_model::{KuryrLoadBalancer, kuryr_load_balancer::Members};
use serde_json::{Value, json};
use std::{net::IpAddr, time::Duration};
use tokio::time::timeout;

/// How long a Service may take to get where it should.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// The Services of one namespace.
#[derive(Clone)]
pub struct Services {
    services: Api<Service>,
    slices: Api<EndpointSlice>,
    held: Api<KuryrLoadBalancer>,
}

impl Services {
    /// The Services of `namespace`.
    #[must_use]
    pub fn new(client: &Client, namespace: &str) -> Self {
        Self {
            services: Api::namespaced(client.clone(), namespace),
            slices: Api::namespaced(client.clone(), namespace),
            held: Api::namespaced(client.clone(), namespace),
        }
    }

    /// Makes a Service of this name with this `spec`.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn create(&self, name: &str, spec: Value) -> anyhow::Result<Service> {
        self.create_annotated(name, &[], spec).await
    }

    /// The same with annotations.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn create_annotated(
        &self,
        name: &str,
        annotations: &[(&str, &str)],
        spec: Value,
    ) -> anyhow::Result<Service> {
        let annotations: serde_json::Map<String, Value> =
            annotations.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        let object = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "annotations": annotations}, "spec": spec,
        });
        let made = self.services.create(&PostParams::default(), &serde_json::from_value(object)?).await;
        made.with_context(|| format!("Service {name}"))
    }

    /// Changes a Service by a merge patch.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn change(&self, name: &str, patch: Value) -> anyhow::Result<Service> {
        Ok(self.services.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?)
    }

    /// Gives a Service without selector exactly these endpoints, all ready, on one port number (of a port without name).
    ///
    /// # Errors
    /// The API server refuses them.
    pub async fn endpoints(&self, name: &str, addresses: &[IpAddr], port: u16) -> anyhow::Result<()> {
        let endpoints: Vec<Value> = addresses
            .iter()
            .map(|ip| json!({"addresses": [ip], "conditions": {"ready": true, "serving": true, "terminating": false}}))
            .collect();
        self.slice(name, &endpoints, json!([{"name": "", "port": port, "protocol": "TCP"}])).await
    }

    /// The same with whole endpoints and ports.
    ///
    /// # Errors
    /// The API server refuses them.
    pub async fn slice(&self, name: &str, endpoints: &[Value], ports: Value) -> anyhow::Result<()> {
        let object = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4", "endpoints": endpoints, "ports": ports,
        });
        let params = PatchParams::apply("scenario").force();
        self.slices.patch(name, &params, &Patch::Apply(&object)).await?;
        Ok(())
    }

    /// Waits until all of a Service is as it asks, with so many of its endpoints ready.
    ///
    /// # Errors
    /// It is not, within [`PATIENCE`].
    pub async fn ready(&self, name: &str, ready: u32, total: u32) -> anyhow::Result<KuryrLoadBalancer> {
        let wanted = Members::new(ready, total);
        let what = format!("ready with {}", wanted.summary);
        let is = move |held: Option<&KuryrLoadBalancer>| {
            let members = held.and_then(|held| held.status.as_ref()).and_then(|status| status.members.as_ref());
            members == Some(&wanted)
                && held.and_then(KuryrLoadBalancer::ready).is_some_and(|ready| ready.status == "True")
        };
        self.held(name, &what, is).await?.context("it is gone")
    }

    /// Waits until a Service is not ready for this reason.
    ///
    /// # Errors
    /// It is not so, within [`PATIENCE`].
    pub async fn waits(&self, name: &str, reason: &'static str) -> anyhow::Result<KuryrLoadBalancer> {
        let is = move |held: Option<&KuryrLoadBalancer>| {
            held.and_then(KuryrLoadBalancer::ready)
                .is_some_and(|ready| ready.status == "False" && ready.reason == reason)
        };
        self.held(name, &format!("waiting for {reason}"), is).await?.context("it is gone")
    }

    /// Waits until a Service shows an address for the world; that address.
    ///
    /// # Errors
    /// It does not, within [`PATIENCE`].
    pub async fn exposed(&self, name: &str) -> anyhow::Result<IpAddr> {
        let shows = |service: Option<&Service>| service.is_some_and(|service| !shown(service).is_empty());
        let service = timeout(PATIENCE, await_condition(self.services.clone(), name, shows)).await;
        let service = service.with_context(|| format!("Service {name} shows no address"))??.context("it is gone")?;
        shown(&service).first().copied().context("no address")
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

    /// Waits until a Service and all that Kuryr holds for it are gone.
    ///
    /// # Errors
    /// They are not, within [`PATIENCE`].
    pub async fn gone(&self, name: &str) -> anyhow::Result<()> {
        let gone = |service: Option<&Service>| service.is_none();
        timeout(PATIENCE, await_condition(self.services.clone(), name, gone)).await.context("the Service stays")??;
        self.held(name, "gone", |held: Option<&KuryrLoadBalancer>| held.is_none()).await.map(drop)
    }

    /// Deletes all Services of the namespace and waits until nothing of them is left.
    ///
    /// # Errors
    /// Something is left, after [`PATIENCE`].
    pub async fn delete_all(&self) -> anyhow::Result<()> {
        for service in self.services.list_metadata(&ListParams::default()).await? {
            self.delete(&service.name_any()).await?;
        }
        self.slices.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
        for held in self.held.list_metadata(&ListParams::default()).await? {
            self.gone(&held.name_any()).await?;
        }
        Ok(())
    }

    /// Waits for something about a Service's `KuryrLoadBalancer`.
    ///
    /// # Errors
    /// It is not so within [`PATIENCE`].
    pub async fn held(
        &self,
        name: &str,
        what: &str,
        condition: impl Condition<KuryrLoadBalancer>,
    ) -> anyhow::Result<Option<KuryrLoadBalancer>> {
        match timeout(PATIENCE, await_condition(self.held.clone(), name, condition)).await {
            Ok(held) => Ok(held?),
            Err(_) => {
                let held = self.held.get_opt(name).await?.and_then(|held| serde_json::to_string(&held).ok());
                anyhow::bail!("the KuryrLoadBalancer {name} is not {what} after {PATIENCE:?}; it is {held:?}")
            }
        }
    }

    /// The API of the Services.
    #[must_use]
    pub fn api(&self) -> &Api<Service> {
        &self.services
    }

    /// The API of the `KuryrLoadBalancer`s.
    #[must_use]
    pub fn load_balancers(&self) -> &Api<KuryrLoadBalancer> {
        &self.held
    }
}

/// The addresses that a Service shows in its status.
fn shown(service: &Service) -> Vec<IpAddr> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.into_iter().flat_map(|status| status.ingress.iter().flatten());
    ingress.filter_map(|entry| entry.ip.as_ref()?.parse().ok()).collect()
}

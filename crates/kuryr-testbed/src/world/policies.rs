//! NetworkPolicies in a world. All waiting is on watches.

use super::{World, pods::PATIENCE};
use anyhow::{Context, bail};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
    runtime::wait::{Condition, await_condition},
};
use kuryr_model::KuryrNetworkPolicy;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::timeout;

/// The NetworkPolicies of one namespace.
#[derive(Clone)]
pub struct Policies {
    policies: Api<NetworkPolicy>,
    held: Api<KuryrNetworkPolicy>,
}

impl World {
    /// The NetworkPolicies of the scenario's namespace.
    #[must_use]
    pub fn policies(&self) -> Policies {
        self.policies_of(self.namespace())
    }

    /// The NetworkPolicies of any namespace.
    #[must_use]
    pub fn policies_of(&self, namespace: &str) -> Policies {
        Policies::new(&self.client, namespace)
    }
}

impl Policies {
    /// Those of `namespace`.
    #[must_use]
    pub fn new(client: &Client, namespace: &str) -> Self {
        Self { policies: Api::namespaced(client.clone(), namespace), held: Api::namespaced(client.clone(), namespace) }
    }

    /// Asks for a policy.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn create(&self, name: &str, spec: &Value) -> anyhow::Result<NetworkPolicy> {
        let object = serde_json::from_value(json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec,
        }))?;
        self.policies.create(&PostParams::default(), &object).await.with_context(|| format!("NetworkPolicy {name}"))
    }

    /// Gives a policy that is there another specification.
    ///
    /// # Errors
    /// It is not there, or the API server refuses it.
    pub async fn replace(&self, name: &str, spec: &Value) -> anyhow::Result<NetworkPolicy> {
        let mut object = self.policies.get(name).await?;
        object.spec = Some(serde_json::from_value(spec.clone())?);
        Ok(self.policies.replace(name, &PostParams::default(), &object).await?)
    }

    /// Deletes a policy; that it is gone is fine.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn delete(&self, name: &str) -> anyhow::Result<()> {
        match self.policies.delete(name, &DeleteParams::default()).await {
            Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(()),
            other => Ok(other.map(drop)?),
        }
    }

    /// Waits until all of a policy, as it is now, holds in Neutron; what its `KuryrNetworkPolicy` then says.
    ///
    /// # Errors
    /// It does not, within [`PATIENCE`].
    pub async fn ready(&self, name: &str) -> anyhow::Result<KuryrNetworkPolicy> {
        let policy = self.policies.get(name).await?;
        let (uid, generation) = (policy.uid(), policy.metadata.generation);
        let done = move |held: Option<&KuryrNetworkPolicy>| {
            held.is_some_and(|held| {
                let applied = held.status.as_ref().and_then(|status| status.applied_generation);
                let ready = held.ready().is_some_and(|ready| ready.status == "True");
                ready && applied >= generation && uid.as_deref() == Some(held.spec.policy_uid.as_str())
            })
        };
        let held = self.when(name, "ready", PATIENCE, done).await?;
        held.with_context(|| format!("the KuryrNetworkPolicy {name} is gone"))
    }

    /// Waits until a policy does not hold for this reason.
    ///
    /// # Errors
    /// It does, or for another one, after [`PATIENCE`].
    pub async fn waits_with(&self, name: &str, reason: &'static str) -> anyhow::Result<KuryrNetworkPolicy> {
        let waits = move |held: Option<&KuryrNetworkPolicy>| {
            let ready = held.and_then(KuryrNetworkPolicy::ready);
            ready.is_some_and(|ready| ready.status == "False" && ready.reason == reason)
        };
        let held = self.when(name, &format!("waiting with {reason}"), PATIENCE, waits).await?;
        held.with_context(|| format!("the KuryrNetworkPolicy {name} is gone"))
    }

    /// Waits for something about a policy's `KuryrNetworkPolicy`.
    ///
    /// # Errors
    /// It is not so within the time given.
    pub async fn when(
        &self,
        name: &str,
        what: &str,
        within: Duration,
        condition: impl Condition<KuryrNetworkPolicy>,
    ) -> anyhow::Result<Option<KuryrNetworkPolicy>> {
        match timeout(within, await_condition(self.held.clone(), name, condition)).await {
            Ok(held) => Ok(held?),
            Err(_) => {
                let held = self.held.get_opt(name).await?.and_then(|held| serde_json::to_string(&held).ok());
                bail!("the KuryrNetworkPolicy {name} is not {what} after {within:?}; it is {held:?}")
            }
        }
    }

    /// Deletes all policies and waits until nothing is said of them any more.
    ///
    /// # Errors
    /// Something is left.
    pub async fn delete_all(&self) -> anyhow::Result<()> {
        self.policies.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
        for held in self.held.list_metadata(&ListParams::default()).await? {
            let gone = |held: Option<&KuryrNetworkPolicy>| held.is_none();
            self.when(&held.name_any(), "gone", PATIENCE, gone).await?;
        }
        Ok(())
    }

    /// The API of the policies.
    #[must_use]
    pub fn api(&self) -> &Api<NetworkPolicy> {
        &self.policies
    }

    /// The API of the `KuryrNetworkPolicy`s.
    #[must_use]
    pub fn held(&self) -> &Api<KuryrNetworkPolicy> {
        &self.held
    }
}

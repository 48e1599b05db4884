//! The watches of what only policies look at.

use super::{
    keeper::Keeper,
    lean::{self, SeenPolicy},
};
use crate::{
    metrics::Metrics,
    watch::{Seen, Synced, events, run},
};
use kube::Client;
use kuryr_model::KuryrNetworkPolicy;
use kuryr_plan::policy::Labels;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What the watches write to.
#[derive(Clone)]
pub(crate) struct PolicyWatches {
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) metrics: Metrics,
    pub(crate) synced: watch::Sender<Synced>,
}

impl PolicyWatches {
    /// Starts the watches; they end when `stop` is cancelled.
    pub(crate) fn start(&self, client: &Client, stop: &CancellationToken) {
        let (this, stream) = (self.clone(), events(client, "namespaces", &self.metrics, lean::namespace));
        run(stop, stream, move |event| this.namespace(event));
        let (this, stream) = (self.clone(), events(client, "networkpolicies", &self.metrics, lean::policy));
        run(stop, stream, move |event| this.policy(event));
        let (this, stream) = (self.clone(), events(client, "kuryrnetworkpolicies", &self.metrics, lean::held));
        run(stop, stream, move |event| this.held(event));
    }

    fn namespace(&self, event: Seen<(String, Labels)>) {
        match event {
            Seen::Apply(namespace) => self.keeper.namespace(namespace.0, namespace.1),
            Seen::Delete(key) => self.keeper.namespace_gone(key.name),
            Seen::Listed(seen) => {
                self.keeper.retain_namespaces(&seen);
                self.synced.send_modify(|synced| synced.policies.namespaces = true);
            }
        }
    }

    fn policy(&self, event: Seen<SeenPolicy>) {
        match event {
            Seen::Apply(policy) => self.keeper.policy(*policy),
            Seen::Delete(key) => self.keeper.policy_gone(key),
            Seen::Listed(seen) => {
                self.keeper.retain_policies(&seen);
                self.synced.send_modify(|synced| synced.policies.policies = true);
            }
        }
    }

    fn held(&self, event: Seen<KuryrNetworkPolicy>) {
        match event {
            Seen::Apply(held) => self.keeper.told(*held),
            Seen::Delete(key) => self.keeper.untold(key),
            Seen::Listed(seen) => {
                self.keeper.retain_told(&seen);
                self.synced.send_modify(|synced| synced.policies.held = true);
            }
        }
    }
}

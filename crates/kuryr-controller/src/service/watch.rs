//! The watches that feed the index of Services and wake their queue.

use super::{
    guard::shown,
    index::ServiceIndex,
    lean::{self, LeanLoadBalancer, Seen, SeenSlice},
    reconciler::Subject,
};
use crate::{
    metrics::Metrics,
    policy::Keeper,
    queue::Queue,
    watch::{Seen as Event, Synced, events, run},
};
use kube::Client;
use kuryr_model::{KuryrLoadBalancer, ObjectKey};
use std::{net::IpAddr, sync::Arc};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What the watches write to.
#[derive(Clone)]
pub(crate) struct ServiceWatches {
    pub(crate) index: Arc<ServiceIndex>,
    pub(crate) queue: Arc<Queue<Subject>>,
    pub(crate) policies: Arc<Keeper>,
    pub(crate) metrics: Metrics,
    pub(crate) synced: watch::Sender<Synced>,
}

impl ServiceWatches {
    /// Starts the watches; they end when `stop` is cancelled.
    pub(crate) fn start(&self, client: &Client, stop: &CancellationToken) {
        let (this, stream) = (self.clone(), events(client, "services", &self.metrics, lean::service));
        run(stop, stream, move |event| this.service(event));
        let (this, stream) = (self.clone(), events(client, "endpointslices", &self.metrics, named_slice));
        run(stop, stream, move |event| this.slice(event));
        let (this, stream) =
            (self.clone(), events(client, "kuryrloadbalancers", &self.metrics, LeanLoadBalancer::read));
        run(stop, stream, move |event| this.load_balancer(event));
        let (this, stream) = (self.clone(), events(client, "nodes", &self.metrics, lean::node));
        run(stop, stream, move |event| this.node(event));
    }

    fn wake(&self, keys: impl IntoIterator<Item = ObjectKey>) {
        for key in keys {
            self.show(&key);
            self.queue.add(Subject::Service(key));
        }
    }

    /// Shows a Service to policies, once it is known who carries its load balancer out: before that nothing answers there.
    fn show(&self, key: &ObjectKey) {
        let known = self.index.get(key);
        let status = known.load_balancer.as_ref().and_then(|held| held.status.as_ref());
        let provider = status.map(|status| status.provider.as_str()).filter(|provider| !provider.is_empty());
        // One that is just being made may be shown already.
        let provider = provider.or_else(|| self.policies.is_guarded(key).then_some("amphora"));
        let slices = known.slices.iter().map(AsRef::as_ref);
        let seen = known.service.as_ref().zip(provider);
        let service = seen.and_then(|(seen, provider)| shown(&seen.service, slices, provider));
        self.policies.service(key.clone(), service);
    }

    fn service(&self, event: Event<Seen>) {
        match event {
            Event::Apply(seen) => {
                let key = seen.service.key.clone();
                if self.index.apply_service(*seen) {
                    self.wake([key]);
                }
            }
            Event::Delete(key) => {
                self.index.remove_service(&key);
                self.wake([key]);
            }
            Event::Listed(seen) => {
                self.wake(self.index.retain_services(&seen));
                self.synced.send_modify(|synced| synced.services.services = true);
            }
        }
    }

    fn slice(&self, event: Event<(ObjectKey, SeenSlice)>) {
        match event {
            Event::Apply(slice) => {
                let (key, seen) = *slice;
                self.wake(self.index.apply_slice(&key, seen));
            }
            Event::Delete(key) => self.wake(self.index.remove_slice(&key)),
            Event::Listed(seen) => {
                self.wake(self.index.retain_slices(&seen));
                self.synced.send_modify(|synced| synced.services.slices = true);
            }
        }
    }

    fn load_balancer(&self, event: Event<KuryrLoadBalancer>) {
        match event {
            Event::Apply(held) => {
                let key = held.key();
                if self.index.apply_load_balancer(*held) {
                    self.wake([key]);
                } else {
                    self.show(&key);
                }
            }
            Event::Delete(key) => {
                self.index.remove_load_balancer(&key, None);
                self.wake([key]);
            }
            Event::Listed(seen) => {
                self.wake(self.index.retain_load_balancers(&seen));
                self.synced.send_modify(|synced| synced.services.load_balancers = true);
            }
        }
    }

    /// A node's address counts for every Service that lets in only some clients, so all are looked at again.
    fn node(&self, event: Event<(String, Vec<IpAddr>)>) {
        let changed = match event {
            Event::Apply(node) => self.index.apply_node(node.0, node.1),
            Event::Delete(key) => self.index.remove_node(&key.name),
            Event::Listed(seen) => {
                let changed = self.index.retain_nodes(&seen);
                self.synced.send_modify(|synced| synced.services.nodes = true);
                changed
            }
        };
        if changed {
            self.wake(self.index.keys());
        }
    }
}

fn named_slice(slice: k8s_openapi::api::discovery::v1::EndpointSlice) -> Result<(ObjectKey, SeenSlice), String> {
    let metadata = &slice.metadata;
    let key = ObjectKey::new(metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default());
    Ok((key, lean::slice(slice)?))
}

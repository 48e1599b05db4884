//! What the controller says on this node's own Node: whether no further pod fits on it.

use crate::{metrics::Metrics, plug::error::chain};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Node as KubeNode;
use kube::{
    Api, Client,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use kuryr_model::FULL_CONDITION;
use std::{
    pin::pin,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// What is known of it.
#[derive(Debug, Default)]
pub struct State(Mutex<Option<String>>);

impl State {
    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why no further pod fits, if none does.
    #[must_use]
    pub fn why(&self) -> Option<String> {
        self.lock().clone()
    }

    /// Says why no further pod fits, or that one does; logs a change.
    pub fn set(&self, why: Option<String>) {
        let mut known = self.lock();
        if *known == why {
            return;
        }
        match &why {
            Some(why) => tracing::warn!(why, "no further pod fits on this node: STATUS says so"),
            None => tracing::info!("more pods fit on this node"),
        }
        *known = why;
    }
}

/// Watches the Node of this name, for ever. Errors are reported and outlived: what is known stays good.
pub async fn keep(name: &str, full: &State, metrics: &Metrics, client: Client) {
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = pin!(watcher(Api::<KubeNode>::all(client), config).default_backoff());
    let mut listed = None;
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed = None,
            Ok(Event::InitApply(object)) => listed = why(&object),
            Ok(Event::InitDone) => full.set(listed.take()),
            Ok(Event::Apply(object)) => full.set(why(&object)),
            Ok(Event::Delete(_)) => full.set(None),
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(
                    error,
                    "cannot watch this node's Node, trying again; may the service account list and watch nodes?"
                );
                metrics.watch_failures.inc();
            }
        }
    }
}

fn why(object: &KubeNode) -> Option<String> {
    let mut conditions = object.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let full = conditions.find(|condition| condition.type_ == FULL_CONDITION && condition.status == "True")?;
    Some(full.message.clone().unwrap_or_default())
}

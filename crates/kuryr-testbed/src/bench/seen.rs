//! When objects came to be as they should: one watch, so that the clock is read when the API server tells, not when
//! somebody asks.

use anyhow::Context;
use futures::StreamExt;
use kube::{
    Api, Resource, ResourceExt,
    runtime::{WatchStreamExt, watcher, watcher::Event},
};
use serde::de::DeserializeOwned;
use std::{collections::HashMap, fmt::Debug, time::Duration, time::Instant};
use tokio::{sync::watch, time::timeout};
use tokio_util::task::AbortOnDropHandle;

/// How long something may take to be seen.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a watch has shown, by name.
pub(super) struct Seen {
    times: watch::Receiver<HashMap<String, Instant>>,
    _task: AbortOnDropHandle<()>,
}

impl Seen {
    /// Notes the first moment at which each object is as `wanted`.
    pub(super) fn watch<K>(api: Api<K>, wanted: impl Fn(&K) -> bool + Send + 'static) -> Self
    where
        K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let (sender, times) = watch::channel(HashMap::new());
        let task = tokio::spawn(async move {
            let mut events = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
            while let Some(event) = events.next().await {
                let now = Instant::now();
                if let Ok(Event::Apply(object) | Event::InitApply(object)) = event
                    && wanted(&object)
                {
                    sender.send_modify(|times: &mut HashMap<String, Instant>| {
                        times.entry(object.name_any()).or_insert(now);
                    });
                }
            }
        });
        Self { times, _task: AbortOnDropHandle::new(task) }
    }

    /// The moment at which the object of this name was as wanted; waits for it.
    pub(super) async fn when(&self, name: &str) -> anyhow::Result<Instant> {
        let mut times = self.times.clone();
        let found = timeout(PATIENCE, times.wait_for(|times| times.contains_key(name))).await;
        let found = found.with_context(|| format!("{name} was not seen within {PATIENCE:?}"))??;
        found.get(name).copied().context("a moment was lost")
    }
}

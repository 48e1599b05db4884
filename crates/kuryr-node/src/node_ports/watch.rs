//! Keeps the [`Index`] like the API server.

use super::{
    index::{Index, kept_service, kept_slice},
    state::{Part, State},
};
use crate::{metrics::Metrics, plug::error::chain};
use futures::TryStreamExt;
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::{
    Api, Client, Resource,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use kuryr_model::ObjectKey;
use serde::de::DeserializeOwned;
use std::{
    collections::{BTreeMap, HashMap},
    fmt::Debug,
    pin::pin,
};

/// Objects of one answer. Of most of them little or nothing is kept, so not many are held at once.
const SERVICES: u32 = 50;

/// These may have a hundred endpoints each.
const SLICES: u32 = 10;

/// What the watches report to.
#[derive(Clone, Copy)]
pub(super) struct Report<'a> {
    pub(super) metrics: &'a Metrics,
    pub(super) state: &'a State,
}

/// Watches Services, for ever.
pub(super) async fn services(client: &Client, index: &Index, report: Report<'_>) {
    let mut listed = BTreeMap::new();
    let handle = |event: Event<Service>| match event {
        Event::Init => listed.clear(),
        Event::InitApply(object) => listed.extend(kept_service(object)),
        Event::InitDone => index.replace_services(std::mem::take(&mut listed)),
        Event::Apply(object) => {
            index.put_service(ObjectKey::of(&object), kept_service(object).map(|(_, service)| service));
        }
        Event::Delete(object) => index.put_service(ObjectKey::of(&object), None),
    };
    follow(Api::all(client.clone()), watcher::Config::default().page_size(SERVICES), Part::Services, report, handle)
        .await;
}

/// Watches `EndpointSlice`s, for ever, from the moment at which a Service needs them.
pub(super) async fn slices(client: &Client, index: &Index, report: Report<'_>) {
    index.slices_needed().await;
    let mut listed = HashMap::new();
    let kept = |object| kept_slice(object, index.node());
    let handle = |event: Event<EndpointSlice>| match event {
        Event::Init => listed.clear(),
        Event::InitApply(object) => {
            let key = ObjectKey::of(&object);
            listed.extend(kept(object).map(|slice| (key, slice)));
        }
        Event::InitDone => index.replace_slices(std::mem::take(&mut listed)),
        Event::Apply(object) => index.put_slice(ObjectKey::of(&object), kept(object)),
        Event::Delete(object) => index.put_slice(ObjectKey::of(&object), None),
    };
    // A headless Service has no node ports.
    let config = watcher::Config::default().labels("!service.kubernetes.io/headless").page_size(SLICES);
    follow(Api::all(client.clone()), config, Part::Slices, report, handle).await;
}

/// Hands all events to `handle`. Errors are reported and outlived: what is known stays good.
async fn follow<K>(
    api: Api<K>,
    config: watcher::Config,
    part: Part,
    report: Report<'_>,
    mut handle: impl FnMut(Event<K>),
) where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut events = pin!(watcher(api, config).default_backoff());
    loop {
        match events.try_next().await {
            Ok(Some(event)) => {
                report.state.set(part, None);
                handle(event);
            }
            Ok(None) => return,
            Err(error) => {
                report.metrics.watch_failures.inc();
                report.state.set(part, Some(explain(&error, part)));
            }
        }
    }
}

/// What is wrong, and what to do about it where that is known.
fn explain(error: &watcher::Error, part: Part) -> String {
    let code = match error {
        watcher::Error::WatchError(status)
        | watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code,
        _ => 0,
    };
    let fix = if matches!(code, 401 | 403) {
        "; give the daemon's service account list and watch on services and on endpointslices.discovery.k8s.io"
    } else {
        ""
    };
    format!("cannot watch {}: {}{fix}", part.as_str(), chain(error))
}

//! Keeps [`Ports`](crate::ports::Ports) like the API server's `KuryrPort`s of this node.

use crate::{node::Node, plug::error::chain, ports::Known};
use futures::TryStreamExt;
use kube::{
    Api, Client,
    core::DeserializeGuard,
    runtime::{
        WatchStreamExt,
        utils::Backoff,
        watcher::{self, DefaultBackoff, Event},
    },
};
use kuryr_model::{KuryrPort, ObjectKey};
use std::{collections::HashMap, pin::pin, time::Duration};
use tokio_util::sync::CancellationToken;

/// kube's back-off with its jitter, in a quarter of its time: pods wait for this, so 0.2 to 7.5 seconds instead of 0.8 to 30.
struct Sooner(DefaultBackoff);

impl Iterator for Sooner {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next().map(|delay| delay / 4)
    }
}

impl Backoff for Sooner {
    fn reset(&mut self) {
        self.0.reset();
    }
}

/// Watches until `stop`. Errors are reported and outlived: what is in memory stays good for plugged and assigned pods.
pub async fn keep<P>(node: &Node<P>, client: Client, stop: &CancellationToken) {
    let api = Api::<DeserializeGuard<KuryrPort>>::all(client);
    let config = watcher::Config::default().fields(&format!("spec.nodeName={}", node.name));
    let mut events = pin!(watcher::watcher(api, config).backoff(Sooner(DefaultBackoff::default())));
    let mut listed = HashMap::new();
    loop {
        let event = tokio::select! {
            event = events.try_next() => event,
            () = stop.cancelled() => return,
        };
        match event {
            Ok(Some(event)) => {
                if node.ports.trouble().is_some() {
                    tracing::info!("the API server answers again");
                    node.ports.set_trouble(None);
                }
                take_in(node, event, &mut listed);
            }
            Ok(None) => return,
            Err(error) => {
                let trouble = explain(&error);
                tracing::warn!(error = trouble, "cannot watch KuryrPorts, trying again");
                node.metrics.watch_failures.inc();
                node.ports.set_trouble(Some(trouble));
            }
        }
    }
}

fn take_in<P>(node: &Node<P>, event: Event<DeserializeGuard<KuryrPort>>, listed: &mut HashMap<ObjectKey, Known>) {
    match event {
        Event::Apply(object) => {
            let (key, known) = read(object);
            node.ports.apply(key, known);
        }
        Event::Delete(object) => node.ports.delete(ObjectKey::of(&object)),
        Event::Init => listed.clear(),
        Event::InitApply(object) => {
            let (key, known) = read(object);
            listed.insert(key, known);
        }
        Event::InitDone => {
            tracing::info!(kuryrports = listed.len(), "listed the KuryrPorts of this node");
            node.ports.replace(std::mem::take(listed));
        }
    }
}

fn read(object: DeserializeGuard<KuryrPort>) -> (ObjectKey, Known) {
    let key = ObjectKey::of(&object);
    match object.0 {
        Ok(mut port) => {
            port.metadata.managed_fields = None;
            (key, Known::Port(port.into()))
        }
        Err(invalid) => {
            tracing::error!(pod = %key, error = invalid.error, "skipping a malformed KuryrPort");
            (key, Known::Malformed(invalid.error))
        }
    }
}

/// What is wrong, and what to do about it where that is known.
fn explain(error: &watcher::Error) -> String {
    let code = match error {
        watcher::Error::WatchError(status)
        | watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code,
        _ => 0,
    };
    let fix = match code {
        400 => "; KuryrPorts are selected by spec.nodeName, which needs Kubernetes 1.31 or later",
        401 | 403 => "; give the daemon's service account get, list and watch on kuryrports.kuryr.openstack.org",
        404 => "; install the custom resource definition kuryrports.kuryr.openstack.org",
        _ => "",
    };
    format!("{}{fix}", chain(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    #[test]
    fn what_an_operator_must_fix_is_said() {
        for (code, words) in [(400, "1.31"), (403, "service account"), (404, "definition"), (500, "oops")] {
            let status = Box::new(Status::failure("oops", "Oops").with_code(code));
            let error = watcher::Error::InitialListFailed(kube::Error::Api(status));
            assert!(explain(&error).contains(words), "{}", explain(&error));
        }
    }
}

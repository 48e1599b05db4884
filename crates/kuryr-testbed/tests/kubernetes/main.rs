//! The embedded Kubernetes as its clients see it: kube-rs, kubectl, a CNI plugin.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::needless_pass_by_value,
    reason = "all of this is a test"
)]

mod applying;
mod collecting;
mod custom;
mod faults;
mod kubectl;
mod model;
mod nodes;
mod objects;
mod services;
mod watching;

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{Api, Client, api::PostParams};
use kuryr_testbed::kubernetes::ApiServer;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// No single step of a test takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

fn typed<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn untyped(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap()
}

fn cluster() -> (ApiServer, Client) {
    let server = ApiServer::new();
    let client = server.client("test");
    (server, client)
}

fn pods(client: &Client) -> Api<Pod> {
    Api::namespaced(client.clone(), "default")
}

fn config_maps(client: &Client) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), "default")
}

fn pod(name: &str) -> Pod {
    typed(
        json!({ "metadata": { "name": name, "labels": { "app": name } }, "spec": { "containers": [{ "name": "c", "image": "i" }] } }),
    )
}

fn config_map(name: &str, key: &str, value: &str) -> ConfigMap {
    typed(json!({ "metadata": { "name": name }, "data": { key: value } }))
}

async fn create<K>(api: &Api<K>, object: &K) -> K
where
    K: Clone + Serialize + DeserializeOwned + std::fmt::Debug,
{
    api.create(&PostParams::default(), object).await.unwrap()
}

/// The Status of a refused call.
#[track_caller]
fn refusal<T: std::fmt::Debug>(result: Result<T, kube::Error>) -> kube::core::Status {
    match result {
        Err(kube::Error::Api(status)) => *status,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} took too long"))
}

//! Which cloud, which cluster: what every command that talks to OpenStack is told.

use anyhow::{Context as _, bail};
use clap::Args;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client};
use kuryr_model::{ClusterId, mark::valid_cluster_id};
use kuryr_openstack::{Cloud, CloudConfig, Filter, Options, Sources};
use serde::Deserialize;
use std::{path::PathBuf, time::Duration};
use uuid::Uuid;

/// How to find the cloud's credentials: `[openstack]` in the configuration, or options.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CloudArgs {
    /// Name of the cloud in clouds.yaml; by default OS_CLOUD, and without it the OS_* variables
    #[arg(long = "os-cloud", global = true, value_name = "NAME")]
    pub(crate) cloud: Option<String>,
    /// The clouds.yaml to read, in place of the usual places
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) clouds_file: Option<PathBuf>,
    /// A directory with a file for each setting (a mounted Secret), in place of clouds.yaml and OS_*
    #[arg(long = "cloud-secret-dir", global = true, value_name = "DIR")]
    pub(crate) secret_dir: Option<PathBuf>,
    /// The longest that one request to OpenStack may take
    #[arg(skip)]
    #[serde(deserialize_with = "crate::config::some_duration")]
    pub(crate) request_timeout: Option<Duration>,
}

impl CloudArgs {
    /// Where the client is to look.
    pub(crate) fn sources(&self) -> Sources {
        let Self { cloud, clouds_file, secret_dir, request_timeout: _ } = self.clone();
        Sources { cloud, clouds_file, secret_dir }
    }

    /// These, and what they leave open from `others`.
    #[must_use]
    pub(crate) fn or(self, others: Self) -> Self {
        Self {
            cloud: self.cloud.or(others.cloud),
            clouds_file: self.clouds_file.or(others.clouds_file),
            secret_dir: self.secret_dir.or(others.secret_dir),
            request_timeout: self.request_timeout.or(others.request_timeout),
        }
    }

    /// Reads the configuration and connects.
    pub(crate) async fn connect(&self, options: Options) -> anyhow::Result<Cloud> {
        let config = CloudConfig::load(&self.sources())?;
        let options = Options { timeout: self.request_timeout.unwrap_or(options.timeout), ..options };
        Ok(Cloud::connect_with(config, options).await?)
    }
}

/// The cluster's id: the one given, else the UID of the namespace kube-system.
pub(crate) async fn cluster_id(given: Option<&str>, client: Option<&Client>) -> anyhow::Result<ClusterId> {
    if let Some(id) = given {
        if !valid_cluster_id(id) {
            bail!("cluster id {id:?}: use 1 to 54 letters, digits, '-', '_' or '.': it becomes part of a Neutron tag");
        }
        return Ok(id.into());
    }
    let Some(client) = client else {
        bail!("the cluster has no id: give --cluster-id, or a kubeconfig with which its id can be read");
    };
    let namespace = Api::<Namespace>::all(client.clone()).get("kube-system").await;
    let namespace = namespace.context("the cluster's id, the UID of namespace kube-system, cannot be read")?;
    namespace.metadata.uid.map(ClusterId).context("namespace kube-system has no UID: give --cluster-id")
}

/// The filter for what a person named, by id or by name.
pub(crate) fn named(name: &str) -> Filter {
    let key = if name.parse::<Uuid>().is_ok() { "id" } else { "name" };
    Filter::new().with(key, name)
}

/// The one object of those that were found under a name.
pub(crate) fn only<T>(what: &str, name: &str, mut found: Vec<T>) -> anyhow::Result<T> {
    match (found.pop(), found.len()) {
        (Some(one), 0) => Ok(one),
        (None, _) => bail!("there is no {what} {name:?} that this project can see"),
        (Some(_), more) => bail!("there are {} {what}s of the name {name:?}: give the id of one instead", more + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_an_id_is_looked_up_as_one() {
        let id = "6e2a7d52-6a7e-4f0e-9d6c-0123456789ab";
        assert_eq!(named(id), Filter::new().with("id", id));
        assert_eq!(named("pods"), Filter::new().with("name", "pods"));
    }

    #[test]
    fn none_and_several_are_told_apart() {
        assert_eq!(only("router", "r", vec![1]).unwrap(), 1);
        assert!(only("router", "r", Vec::<u8>::new()).unwrap_err().to_string().contains("there is no router \"r\""));
        assert!(only("router", "r", vec![1, 2]).unwrap_err().to_string().contains("there are 2 routers"));
    }

    #[tokio::test]
    async fn a_cluster_id_must_fit_into_a_tag() {
        assert_eq!(cluster_id(Some("prod-1"), None).await.unwrap().as_str(), "prod-1");
        assert!(cluster_id(Some("a,b"), None).await.is_err());
        assert!(cluster_id(None, None).await.unwrap_err().to_string().contains("--cluster-id"));
    }
}

//! `kuryr describe policy`

#[cfg(test)]
mod tests;
mod text;
mod view;

use crate::{can_reach, output::Output};
use anyhow::Context as _;
use kube::{Api, Client, api::ListParams};
use kuryr_controller::{ControllerConfig, policy_survey};
use kuryr_model::{KuryrNetworkPolicy, ObjectKey, mark::cluster_tag, neutron::SecurityGroup};
use kuryr_openstack::{Cloud, Filter};
use kuryr_plan::policy::{Compiler, description};
use std::{collections::BTreeMap, io::Write};
use view::{Seen, view};

/// Prints one NetworkPolicy. True: it is applied, and Neutron has it as it should be.
pub(super) async fn describe(
    key: &ObjectKey,
    output: Output,
    config: &ControllerConfig,
    cloud: &Cloud,
    client: &Client,
    out: &mut dyn Write,
) -> anyhow::Result<bool> {
    let cluster = can_reach::objects(client).await?.cluster();
    anyhow::ensure!(cluster.world.policies.contains_key(key), "there is no NetworkPolicy {key}");
    // Listed: who may run this may not need to read single ones.
    let held = Api::<KuryrNetworkPolicy>::namespaced(client.clone(), &key.namespace).list(&ListParams::default()).await;
    let held =
        held.context("KuryrNetworkPolicies cannot be listed (are the definitions applied? kuryr crds --apply)")?;
    let held = held.items.into_iter().find(|held| held.key() == *key);

    let mut compiler = Compiler::new(policy_survey::settings(config, cloud).await?);
    compiler.apply(cluster.world.changes());
    let report = compiler.report(key).unwrap_or_default();
    let ids = report.pods.iter().filter_map(|pod| cluster.ports.get(pod)).flatten();
    let network = cloud.network();
    let ports = network.ports().list(&Filter::new().any("id", ids)).await.context("ports cannot be listed")?;
    let seen = Seen {
        cluster: &config.cluster,
        objects: &cluster,
        held: held.as_ref(),
        ports: &ports,
        groups: &groups(config, cloud).await.context("security groups cannot be listed")?,
    };
    let view = view(key, &compiler, &report, &seen).with_context(|| format!("there is no NetworkPolicy {key}"))?;
    output.print(&view, text::text, out)?;
    Ok(view.differences.is_empty() && view.ready.starts_with("True"))
}

/// Kuryr's groups, those that are not tagged yet among them.
async fn groups(config: &ControllerConfig, cloud: &Cloud) -> Result<Vec<SecurityGroup>, kuryr_openstack::Error> {
    let network = cloud.network();
    let by_tag = network.security_groups().list(&Filter::new().tags([cluster_tag(&config.cluster)])).await?;
    let by_text = Filter::new().with("description", description(&config.cluster));
    let by_text = network.security_groups().list(&by_text).await?;
    let all: BTreeMap<_, _> = by_tag.into_iter().chain(by_text).map(|group| (group.id, group)).collect();
    Ok(all.into_values().collect())
}

//! `kuryr crds`: the custom resource definitions, printed or applied.

use anyhow::Context as _;
use clap::Args;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, CustomResourceExt as _, ResourceExt as _,
    api::{Patch, PatchParams},
};
use kuryr_model::{KuryrLoadBalancer, KuryrNetworkPolicy, KuryrPort};
use std::io::Write;

/// Print the custom resource definitions, or apply them
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct CrdsArgs {
    /// Apply them to the cluster instead of printing them
    #[arg(long)]
    pub(crate) apply: bool,
}

/// All definitions of this version.
fn definitions() -> Vec<CustomResourceDefinition> {
    vec![KuryrPort::crd(), KuryrLoadBalancer::crd(), KuryrNetworkPolicy::crd()]
}

/// Prints them as one YAML stream, for `kubectl apply -f -`.
pub(crate) fn print(out: &mut dyn Write) -> anyhow::Result<()> {
    for definition in definitions() {
        writeln!(out, "---\n{}", serde_saphyr::to_string(&definition)?.trim_end())?;
    }
    Ok(())
}

/// Applies them: made where there are none, changed where they are older.
pub(crate) async fn apply(client: &Client, out: &mut dyn Write) -> anyhow::Result<()> {
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    for definition in definitions() {
        let name = definition.name_any();
        let params = PatchParams::apply("kuryr").force();
        let applied = api.patch(&name, &params, &Patch::Apply(&definition)).await;
        applied.with_context(|| format!("the definition {name} cannot be applied"))?;
        writeln!(out, "{name} is as this version wants it")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn what_is_printed_reads_back() {
        let mut out = Vec::new();
        print(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let printed = text.split("---\n").skip(1).map(|part| serde_saphyr::from_str::<Value>(part).unwrap());
        let known =
            definitions().iter().map(|definition| serde_json::to_value(definition).unwrap()).collect::<Vec<_>>();
        assert_eq!(printed.collect::<Vec<_>>(), known);
    }
}

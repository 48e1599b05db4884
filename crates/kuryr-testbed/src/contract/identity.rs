//! Keystone, and what Neutron says it can do.

use super::Site;
use anyhow::{bail, ensure};
use kuryr_openstack::{Cloud, config::Credential};

pub(super) async fn a_wrong_password_is_refused_for_good(site: &Site) -> anyhow::Result<()> {
    let mut config = site.config.clone();
    match &mut config.credential {
        Credential::Password { password, .. } => *password = "wrong".into(),
        Credential::ApplicationCredential { secret, .. } => *secret = "wrong".into(),
        Credential::Token { token, .. } => *token = "wrong".into(),
    }
    match Cloud::connect(config).await {
        Ok(_) => bail!("Keystone took a wrong secret"),
        Err(error) => ensure!(!error.is_transient(), "a wrong secret looks like a passing fault: {error}"),
    }
    Ok(())
}

pub(super) async fn the_project_and_the_extensions_are_told(site: &Site) -> anyhow::Result<()> {
    let identity = site.cloud.identity();
    ensure!(identity.project.is_some() && !identity.project_name.is_empty(), "the token says no project: {identity:?}");
    let extensions = site.neutron().extensions().await?;
    // Not tag-ports-during-bulk-creation: ML2/OVN does it without listing it, a clause about tags sees whether it does.
    let wanted = ["standard-attr-tag", "security-group", "binding", "revision-if-match"];
    let missing = extensions.missing(wanted);
    ensure!(missing.is_empty(), "Neutron lacks {missing:?}");
    Ok(())
}

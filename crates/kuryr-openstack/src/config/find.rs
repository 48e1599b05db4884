//! Where settings are looked for.

use super::{
    ConfigError, Sources, clouds, env, secret,
    settings::{Origin, Settings},
};
use std::path::{Path, PathBuf};

/// Looks for settings: a secret if there is one, a chosen cloud, `OS_*` variables, the only cloud of a file.
pub(super) fn find(
    sources: &Sources,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<(Settings, Origin), ConfigError> {
    let cloud = sources.cloud.clone().or_else(|| variable("OS_CLOUD")).filter(|cloud| !cloud.is_empty());
    if let Some(dir) = &sources.secret_dir {
        let file = dir.join("clouds.yaml");
        return if file.is_file() { clouds::read(&file, cloud.as_deref()) } else { secret::read(dir) };
    }
    if sources.clouds_file.is_none() && cloud.is_none() && variable("OS_AUTH_URL").is_some() {
        return Ok((env::read(variable), Origin::Environment));
    }
    let places = places(sources, variable);
    let searched = || places.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
    let file = match &sources.clouds_file {
        Some(file) => Some(file),
        None => places.iter().find(|path| path.is_file()),
    };
    match (file, cloud) {
        (Some(file), cloud) => clouds::read(file, cloud.as_deref()),
        (None, Some(cloud)) => Err(ConfigError::NoFile { cloud, searched: searched() }),
        (None, None) => Err(ConfigError::Nothing { searched: searched() }),
    }
}

/// The files that may be the `clouds.yaml`, first the one that wins.
fn places(sources: &Sources, variable: &dyn Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    if let Some(file) = &sources.clouds_file {
        return vec![file.clone()];
    }
    let chosen = variable("OS_CLIENT_CONFIG_FILE").map(PathBuf::from);
    let home = variable("XDG_CONFIG_HOME")
        .filter(|dir| !dir.is_empty())
        .map(PathBuf::from)
        .or_else(|| variable("HOME").map(|home| Path::new(&home).join(".config")));
    let directories = [Some(PathBuf::from(".")), home.map(|dir| dir.join("openstack")), Some("/etc/openstack".into())];
    let usual = directories.into_iter().flatten().flat_map(|dir| [dir.join("clouds.yaml"), dir.join("clouds.yml")]);
    chosen.into_iter().chain(usual).collect()
}

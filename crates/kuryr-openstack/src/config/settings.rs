//! Settings as read, before anything is made of them, and where they are from.

use super::{ConfigError, Sources, clouds, env, secret};
use secrecy::{ExposeSecret as _, SecretString};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Settings by their names in `clouds.yaml`, those of its `auth` part beside the others. Any may be a secret.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings(BTreeMap<String, SecretString>);

impl Settings {
    pub(super) fn set(&mut self, key: &str, value: &str) {
        if !value.is_empty() {
            self.0.insert(key.to_owned(), value.into());
        }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    pub(super) fn secret(&self, key: &str) -> Option<SecretString> {
        self.0.get(key).cloned()
    }

    /// A setting that is no secret.
    pub(super) fn text(&self, key: &str) -> Option<String> {
        self.0.get(key).map(|value| value.expose_secret().trim().to_owned()).filter(|value| !value.is_empty())
    }

    /// Takes over what `other` has.
    pub(super) fn merge(&mut self, other: Self) {
        self.0.extend(other.0);
    }
}

/// Where settings are from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A cloud of a `clouds.yaml`.
    Clouds {
        /// The file.
        file: PathBuf,
        /// The cloud's name in it.
        cloud: String,
    },
    /// `OS_*` variables.
    Environment,
    /// A directory with a file for each setting.
    Secret(PathBuf),
    /// The program itself.
    Given,
}

impl Origin {
    /// A setting as the person who wrote it knows it.
    #[must_use]
    pub fn setting(&self, key: &str) -> String {
        match self {
            Self::Clouds { file, cloud } => format!("{key} of cloud {cloud:?} in {}", file.display()),
            Self::Environment => format!("OS_{}", key.to_uppercase()),
            Self::Secret(dir) => dir.join(key).display().to_string(),
            Self::Given => key.to_owned(),
        }
    }
}

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

//! Settings as read, before anything is made of them, and where they are from.

use secrecy::{ExposeSecret as _, SecretString};
use std::{collections::BTreeMap, path::PathBuf};

/// Every setting, by its name in `clouds.yaml`.
pub(super) const KEYS: &[&str] = &[
    "auth_url",
    "auth_type",
    "username",
    "user_id",
    "user_domain_name",
    "user_domain_id",
    "password",
    "project_name",
    "project_id",
    "project_domain_name",
    "project_domain_id",
    "domain_name",
    "domain_id",
    "default_domain",
    "application_credential_id",
    "application_credential_name",
    "application_credential_secret",
    "token",
    "region_name",
    "interface",
    "endpoint_type",
    "cacert",
    "cert",
    "key",
    "verify",
    "insecure",
    "identity_api_version",
    "network_endpoint_override",
    "load_balancer_endpoint_override",
];

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

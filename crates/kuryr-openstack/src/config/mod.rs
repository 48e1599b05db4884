//! How to reach a cloud: from `clouds.yaml`, `OS_*` variables or a mounted secret.
//!
//! ```text
//!  clouds.yaml (+ secure.yaml) ─┐
//!  OS_* variables ──────────────┼─▶ Settings: flat, secret ─▶ interpret ─▶ CloudConfig
//!  a directory of files ────────┘        + Origin: how to name a setting to a person
//! ```

mod clouds;
mod env;
mod find;
mod interpret;
mod secret;
mod settings;

pub use settings::Origin;

use crate::{Interface, Service};
use secrecy::SecretString;
use std::{collections::BTreeMap, fmt, path::PathBuf};

/// Where to look for the cloud's configuration. What is not given is looked for where every OpenStack client looks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// The cloud's name in `clouds.yaml`; else `OS_CLOUD`.
    pub cloud: Option<String>,
    /// The `clouds.yaml`; else `OS_CLIENT_CONFIG_FILE`, the working directory, `~/.config/openstack`,
    /// `/etc/openstack`.
    pub clouds_file: Option<PathBuf>,
    /// A directory with a file for each setting, or with a `clouds.yaml`: a mounted Kubernetes Secret.
    pub secret_dir: Option<PathBuf>,
}

/// All that is needed to reach a cloud. `Debug` shows no credential.
#[derive(Clone, Debug)]
pub struct CloudConfig {
    /// Keystone's address, ending in `/v3`.
    pub auth_url: String,
    /// Who we are.
    pub credential: Credential,
    /// Only endpoints of this region.
    pub region: Option<String>,
    /// Only endpoints of this interface.
    pub interface: Interface,
    /// Addresses to use instead of the catalog's.
    pub overrides: BTreeMap<Service, String>,
    /// How servers are checked.
    pub tls: Tls,
    /// Where all this is from.
    pub origin: Origin,
    /// How to read it again; none: it was not read from anywhere.
    sources: Option<Sources>,
}

/// How to prove who we are.
#[derive(Clone, Debug)]
pub enum Credential {
    /// User and password.
    Password {
        /// The user.
        user: Name,
        /// Their password.
        password: SecretString,
        /// What the token is to be for.
        scope: Scope,
    },
    /// An application credential.
    ApplicationCredential {
        /// Its id, or its name if there is a user.
        id: String,
        /// Whose credential of that name it is.
        user: Option<Name>,
        /// Its secret.
        secret: SecretString,
    },
    /// A token that somebody else got.
    Token {
        /// The token.
        token: SecretString,
        /// What the new token is to be for.
        scope: Scope,
    },
}

/// How Keystone's API names a user, project or domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// By id.
    Id(String),
    /// By a name that is unique in the cloud: a domain.
    Name(String),
    /// By a name that is unique in its domain.
    InDomain {
        /// The name.
        name: String,
        /// The domain.
        domain: Box<Name>,
    },
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(text) | Self::Name(text) => f.write_str(text),
            Self::InDomain { name, domain } => write!(f, "{name} of domain {domain}"),
        }
    }
}

/// What a token is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A project.
    Project(Name),
    /// A domain.
    Domain(Name),
    /// Whatever the user's default is.
    Default,
}

/// How servers are checked, and how we prove ourselves to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// More certificate authorities than the system's: a PEM bundle.
    pub cacert: Option<PathBuf>,
    /// Whether certificates are checked at all.
    pub verify: bool,
    /// Our certificate, with its chain.
    pub cert: Option<PathBuf>,
    /// The key of our certificate.
    pub key: Option<PathBuf>,
}

impl Default for Tls {
    fn default() -> Self {
        Self { cacert: None, verify: true, cert: None, key: None }
    }
}

/// The configuration cannot be used. One sentence that names the setting and the fix.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// No source has anything.
    #[error(
        "no cloud is configured: set OS_CLOUD and put a clouds.yaml into {searched}, or set OS_AUTH_URL and the other OS_* variables"
    )]
    Nothing {
        /// The places that were looked at.
        searched: String,
    },
    /// A file cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is not YAML of the right form.
    #[error("{} is not a clouds.yaml: line {line}, column {column}", path.display())]
    Yaml {
        /// The file.
        path: PathBuf,
        /// Line of the fault, from 1.
        line: u64,
        /// Column of the fault, from 1.
        column: u64,
    },
    /// A cloud that no file has.
    #[error("cloud {cloud:?} is not in {}, which has: {}", path.display(), found.join(", "))]
    NoSuchCloud {
        /// The cloud.
        cloud: String,
        /// The file.
        path: PathBuf,
        /// The clouds that it has.
        found: Vec<String>,
    },
    /// Several clouds and none chosen.
    #[error("{} has several clouds, and none is chosen: set OS_CLOUD to one of {}", path.display(), found.join(", "))]
    WhichCloud {
        /// The file.
        path: PathBuf,
        /// The clouds that it has.
        found: Vec<String>,
    },
    /// A cloud is chosen and there is no file.
    #[error("cloud {cloud:?} is chosen, but there is no clouds.yaml in {searched}")]
    NoFile {
        /// The cloud.
        cloud: String,
        /// The places that were looked at.
        searched: String,
    },
    /// A setting without which it cannot go on.
    #[error("{setting} is missing: {fix}")]
    Missing {
        /// The setting.
        setting: String,
        /// What to do.
        fix: &'static str,
    },
    /// A setting with a value that makes no sense.
    #[error("{setting} is {value:?}: {fix}")]
    Invalid {
        /// The setting.
        setting: String,
        /// Its value; never that of a secret.
        value: String,
        /// What to do.
        fix: &'static str,
    },
    /// A file in the secret's directory that is no setting.
    #[error("{} is no setting: remove it from the secret; the settings are {}", path.display(), settings::KEYS.join(", "))]
    Unknown {
        /// The file.
        path: PathBuf,
    },
}

impl CloudConfig {
    /// Finds and reads the configuration of this process.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let variable = |name: &str| std::env::var(name).ok();
        Self::load_with(sources, &variable)
    }

    /// The same with other environment variables.
    pub fn load_with(sources: &Sources, variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let (settings, origin) = find::find(sources, variable)?;
        let mut config = interpret::interpret(&settings, origin)?;
        config.sources = Some(sources.clone());
        Ok(config)
    }

    /// User and password in a project of a domain, with no TLS and no files: for tests and tools that are told all.
    #[must_use]
    pub fn password(auth_url: &str, user: &str, password: &str, project: &str, domain: &str) -> Self {
        let domain = Box::new(Name::Name(domain.to_owned()));
        let in_domain = |name: &str| Name::InDomain { name: name.to_owned(), domain: domain.clone() };
        Self {
            auth_url: interpret::keystone_url(auth_url),
            credential: Credential::Password {
                user: in_domain(user),
                password: password.into(),
                scope: Scope::Project(in_domain(project)),
            },
            region: None,
            interface: Interface::Public,
            overrides: BTreeMap::new(),
            tls: Tls::default(),
            origin: Origin::Given,
            sources: None,
        }
    }

    /// Reads it again from where it was read; none if it was given by the program.
    pub(crate) fn reload(&self) -> Result<Option<Self>, ConfigError> {
        self.sources.as_ref().map(Self::load).transpose()
    }
}

//! `clouds.yaml`, with the secrets that may be in a `secure.yaml` beside it.

use super::{
    ConfigError,
    settings::{Origin, Settings},
};
use serde::Deserialize;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    clouds: BTreeMap<String, Cloud>,
}

#[derive(Deserialize)]
struct Cloud {
    /// As text, whatever it looks like: a password may be all digits.
    #[serde(default)]
    auth: BTreeMap<String, Option<String>>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

impl Cloud {
    fn settings(self) -> Settings {
        let mut settings = Settings::default();
        for (key, value) in self.rest {
            match value {
                Value::String(text) => settings.set(&key, &text),
                Value::Bool(_) | Value::Number(_) => settings.set(&key, &value.to_string()),
                // Nothing that Kuryr reads.
                Value::Null | Value::Array(_) | Value::Object(_) => {}
            }
        }
        for (key, value) in self.auth {
            settings.set(&key, &value.unwrap_or_default());
        }
        settings
    }
}

/// Reads one cloud; without a name, the only one.
pub(super) fn read(path: &Path, cloud: Option<&str>) -> Result<(Settings, Origin), ConfigError> {
    let mut clouds = parse(path)?.clouds;
    let found: Vec<_> = clouds.keys().cloned().collect();
    let path_of = || path.to_owned();
    let name = match (cloud, &found[..]) {
        (Some(cloud), _) => cloud.to_owned(),
        (None, [only]) => only.clone(),
        // What tools that write secrets for Kubernetes call it.
        (None, several) if several.iter().any(|name| name == "openstack") => "openstack".to_owned(),
        (None, _) => return Err(ConfigError::WhichCloud { path: path_of(), found }),
    };
    let Some(cloud) = clouds.remove(&name) else {
        return Err(ConfigError::NoSuchCloud { cloud: name, path: path_of(), found });
    };
    let mut settings = cloud.settings();
    if let Some(secure) = secure(path)
        && let Some(cloud) = parse(&secure)?.clouds.remove(&name)
    {
        settings.merge(cloud.settings());
    }
    Ok((settings, Origin::Clouds { file: path_of(), cloud: name }))
}

fn secure(clouds: &Path) -> Option<PathBuf> {
    ["secure.yaml", "secure.yml"].into_iter().map(|name| clouds.with_file_name(name)).find(|path| path.is_file())
}

/// The parser's own message is left out: it quotes the file, which has passwords in it.
fn parse(path: &Path) -> Result<File, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    serde_saphyr::from_str(&text).map_err(|error| {
        let place = error.location();
        ConfigError::Yaml {
            path: path.to_owned(),
            line: place.map_or(1, |place| place.line()),
            column: place.map_or(1, |place| place.column()),
        }
    })
}

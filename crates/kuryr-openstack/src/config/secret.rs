//! A directory with a file for each setting: a mounted Kubernetes Secret.

use super::{
    ConfigError,
    settings::{KEYS, Origin, Settings},
};
use std::{fs, io, path::Path};

/// Settings that name a file. In a secret they may hold the file's content instead.
const FILES: &[&str] = &["cacert", "cert", "key"];

/// Reads all files. Those that begin with a dot are Kubernetes' own.
pub(super) fn read(dir: &Path) -> Result<(Settings, Origin), ConfigError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| ConfigError::Read { path, source }
    };
    let mut settings = Settings::default();
    for entry in fs::read_dir(dir).map_err(failed(dir))? {
        let path = entry.map_err(failed(dir))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with('.') || path.is_dir() {
            continue;
        }
        if !KEYS.contains(&name.as_str()) {
            return Err(ConfigError::Unknown { path });
        }
        let text = fs::read_to_string(&path).map_err(failed(&path))?;
        if FILES.contains(&name.as_str()) && text.contains("-----BEGIN") {
            settings.set(&name, &path.to_string_lossy());
        } else {
            settings.set(&name, text.trim_end_matches(['\r', '\n']));
        }
    }
    Ok((settings, Origin::Secret(dir.to_owned())))
}

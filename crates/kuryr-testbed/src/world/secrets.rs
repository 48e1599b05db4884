//! What must stand in no log: passwords, secrets and tokens.

use super::Settings;
use serde_json::Value;
use std::{fs, path::Path};

/// Under these names files have something secret.
const NAMES: [&str; 6] =
    ["token", "password", "secret", "application_credential_secret", "client-key-data", "client-certificate-data"];

/// What is shorter may be anybody's word.
const SHORTEST: usize = 12;

/// The secrets in the files that Kuryr's processes are given.
pub(super) fn of(settings: &Settings) -> Vec<String> {
    let clouds =
        settings.cloud_env.iter().filter(|(name, _)| name == "OS_CLIENT_CONFIG_FILE").map(|(_, file)| file.into());
    let kubeconfigs = [&settings.controller_kubeconfig, &settings.daemon_kubeconfig, &settings.admin_kubeconfig];
    let mut secrets = Vec::new();
    for file in kubeconfigs.into_iter().cloned().chain(clouds) {
        let text = fs::read_to_string(&file).unwrap_or_default();
        collect(&serde_saphyr::from_str(&text).unwrap_or_default(), &mut secrets);
    }
    secrets
}

fn collect(value: &Value, secrets: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str() {
                    Some(text) if NAMES.contains(&&**name) && text.len() >= SHORTEST => secrets.push(text.to_owned()),
                    _ => collect(value, secrets),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, secrets)),
        _ => {}
    }
}

/// The lines of the logs in a folder that have one of these secrets in them, each with the secret covered up.
pub(super) fn told(folder: &Path, secrets: &[String]) -> Vec<String> {
    let files = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut told = Vec::new();
    for log in files.filter(|path| path.extension().is_some_and(|end| end == "log")) {
        // A log may have anything in it.
        let text = String::from_utf8_lossy(&fs::read(&log).unwrap_or_default()).into_owned();
        for line in text.lines() {
            if let Some(secret) = secrets.iter().find(|secret| line.contains(secret.as_str())) {
                told.push(format!("{}: {}", log.display(), line.replace(secret.as_str(), "***")));
            }
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_secret_is_found_in_files_and_in_logs() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("kubeconfig"), "users: [{user: {token: a-token-of-kubernetes}}]").unwrap();
        fs::write(
            at("clouds.yaml"),
            "clouds: {x: {auth: {password: a-password-to-guess, username: somebody-or-other}}}",
        )
        .unwrap();
        let settings = Settings {
            folder: folder.path().to_owned(),
            config: at("kuryr.toml"),
            controller_kubeconfig: at("kubeconfig"),
            daemon_kubeconfig: at("nowhere"),
            admin_kubeconfig: at("nowhere"),
            cloud_env: vec![("OS_CLIENT_CONFIG_FILE".to_owned(), at("clouds.yaml").display().to_string())],
            log: String::new(),
        };
        let secrets = of(&settings);
        assert_eq!(secrets, ["a-token-of-kubernetes", "a-password-to-guess"]);
        fs::write(at("a.log"), "somebody-or-other logs in\nwith a-password-to-guess\n").unwrap();
        let told = told(folder.path(), &secrets);
        assert!(told.len() == 1 && told[0].ends_with("a.log: with ***"), "{told:?}");
    }
}

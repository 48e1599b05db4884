//! From settings to a configuration: one pure function, whatever they were read from.

use super::{
    CloudConfig, ConfigError, Credential, Name, Scope, Tls,
    settings::{Origin, Settings},
};
use crate::{Interface, Service};
use http::Uri;
use secrecy::SecretString;
use std::{collections::BTreeMap, path::PathBuf};

/// Makes a configuration of settings, or says which setting is wrong.
pub(super) fn interpret(settings: &Settings, origin: Origin) -> Result<CloudConfig, ConfigError> {
    let reader = Reader { settings, origin: &origin };
    let auth_url =
        reader.required("auth_url", "set it to Keystone's address, such as https://cloud.example:5000/v3")?;
    let auth_url = keystone_url(reader.url("auth_url", &auth_url)?);
    let interface = ["interface", "endpoint_type"].into_iter().find_map(|key| Some((key, settings.text(key)?)));
    let interface = match interface {
        None => Interface::default(),
        Some((key, text)) => {
            Interface::parse(&text).ok_or_else(|| reader.invalid(key, &text, "set public, internal or admin"))?
        }
    };
    let mut overrides = BTreeMap::new();
    for service in [Service::Network, Service::LoadBalancer] {
        let key = service.override_setting();
        if let Some(url) = settings.text(key) {
            overrides.insert(service, reader.url(key, &url)?.to_owned());
        }
    }
    let path = |key| settings.text(key).map(PathBuf::from);
    let verify = match reader.flag("insecure")? {
        Some(insecure) => !insecure,
        None => reader.flag("verify")?.unwrap_or(true),
    };
    Ok(CloudConfig {
        auth_url,
        credential: reader.credential()?,
        region: settings.text("region_name"),
        interface,
        overrides,
        tls: Tls { cacert: path("cacert"), verify, cert: path("cert"), key: path("key") },
        sources: None,
        origin,
    })
}

/// Keystone's address with its version: people write it with and without.
pub(super) fn keystone_url(url: &str) -> String {
    let url = url.trim_end_matches('/');
    if url.ends_with("/v3") { url.to_owned() } else { format!("{}/v3", url.trim_end_matches("/v2.0")) }
}

struct Reader<'a> {
    settings: &'a Settings,
    origin: &'a Origin,
}

impl Reader<'_> {
    fn missing(&self, key: &str, fix: &'static str) -> ConfigError {
        ConfigError::Missing { setting: self.origin.setting(key), fix }
    }

    fn invalid(&self, key: &str, value: &str, fix: &'static str) -> ConfigError {
        ConfigError::Invalid { setting: self.origin.setting(key), value: value.to_owned(), fix }
    }

    fn required(&self, key: &str, fix: &'static str) -> Result<String, ConfigError> {
        self.settings.text(key).ok_or_else(|| self.missing(key, fix))
    }

    fn secret(&self, key: &str, fix: &'static str) -> Result<SecretString, ConfigError> {
        self.settings.secret(key).ok_or_else(|| self.missing(key, fix))
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        let Some(text) = self.settings.text(key) else { return Ok(None) };
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Ok(Some(true)),
            "false" | "no" | "off" | "0" => Ok(Some(false)),
            _ => Err(self.invalid(key, &text, "set true or false")),
        }
    }

    fn url<'a>(&self, key: &str, url: &'a str) -> Result<&'a str, ConfigError> {
        let fix = "set an address like https://cloud.example:5000/v3";
        // A password in an address would end in logs.
        if url.contains('@') {
            return Err(self.invalid(key, "<an address with a user in it>", fix));
        }
        let uri: Uri = url.parse().map_err(|_| self.invalid(key, url, fix))?;
        match (uri.scheme_str(), uri.host()) {
            (Some("http" | "https"), Some(_)) if uri.query().is_none() => Ok(url),
            _ => Err(self.invalid(key, url, fix)),
        }
    }

    fn credential(&self) -> Result<Credential, ConfigError> {
        let has = |key| self.settings.has(key);
        let kind = self.settings.text("auth_type");
        let kind = match kind.as_deref() {
            Some(kind) => kind,
            None if has("application_credential_id") || has("application_credential_secret") => {
                "v3applicationcredential"
            }
            None if has("token") && !has("password") => "v3token",
            None => "password",
        };
        match kind {
            "password" | "v3password" => Ok(Credential::Password {
                user: self.user()?,
                password: self.secret("password", "set the user's password")?,
                scope: self.scope()?,
            }),
            "v3applicationcredential" => self.application_credential(),
            "token" | "v3token" => Ok(Credential::Token {
                token: self.secret("token", "set a token, or use an application credential, which can be renewed")?,
                scope: self.scope()?,
            }),
            other => Err(self.invalid("auth_type", other, "set password, v3applicationcredential or token")),
        }
    }

    fn application_credential(&self) -> Result<Credential, ConfigError> {
        let secret =
            self.secret("application_credential_secret", "set the secret that came with the application credential")?;
        if let Some(id) = self.settings.text("application_credential_id") {
            return Ok(Credential::ApplicationCredential { id, user: None, secret });
        }
        match self.settings.text("application_credential_name") {
            Some(id) => Ok(Credential::ApplicationCredential { id, user: Some(self.user()?), secret }),
            None => Err(self.missing("application_credential_id", "set the application credential's id")),
        }
    }

    fn user(&self) -> Result<Name, ConfigError> {
        if let Some(id) = self.settings.text("user_id") {
            return Ok(Name::Id(id));
        }
        let name = self.required("username", "set the user's name, or user_id")?;
        Ok(Name::InDomain { name, domain: Box::new(self.domain("user_domain")) })
    }

    fn scope(&self) -> Result<Scope, ConfigError> {
        if let Some(id) = self.settings.text("project_id") {
            return Ok(Scope::Project(Name::Id(id)));
        }
        if let Some(name) = self.settings.text("project_name") {
            return Ok(Scope::Project(Name::InDomain { name, domain: Box::new(self.domain("project_domain")) }));
        }
        if self.settings.has("domain_id") || self.settings.has("domain_name") {
            return Ok(Scope::Domain(self.domain("domain")));
        }
        Err(self.missing("project_name", "set the project in which Kuryr is to make its ports, or project_id"))
    }

    /// The domain of a user or project, else the default domain, as the other clients have it.
    fn domain(&self, key: &str) -> Name {
        let text = |suffix: &str| self.settings.text(&format!("{key}_{suffix}"));
        text("id")
            .map(Name::Id)
            .or_else(|| text("name").map(Name::Name))
            .unwrap_or_else(|| Name::Id(self.settings.text("default_domain").unwrap_or_else(|| "default".to_owned())))
    }
}

//! `POST /v3/auth/tokens`.

use super::{AuthError, Snapshot, error::Answer};
use crate::{
    CloudConfig, ErrorKind, Identity, Refusal, Service,
    catalog::{Catalog, Entry},
    config::{Credential, Name, Scope},
    http::Http,
    observer::{Call, Observer},
};
use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::Full;
use kuryr_model::ProjectId;
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

/// Lifetime of a token of which Keystone does not say it.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(3600);

/// Asks Keystone for a token.
pub(super) async fn authenticate(
    http: &Http,
    config: &CloudConfig,
    timeout: Duration,
    observer: Option<&Observer>,
) -> Result<Snapshot, AuthError> {
    let url = &config.auth_url;
    let not_keystone = |source| AuthError::NotKeystone { url: url.clone(), origin: config.origin.clone(), source };
    let request = Request::post(format!("{url}/auth/tokens"))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, concat!("kuryr/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(Bytes::from(body(config).to_string())))
        .map_err(|error| not_keystone(error.into()))?;
    let started = Instant::now();
    let result = http.send(request, timeout).await;
    if let Some(observer) = observer {
        observer(&Call {
            service: Service::Identity,
            method: &Method::POST,
            resource: "auth/tokens",
            status: result.as_ref().ok().map(|answer| answer.status.as_u16()),
            duration: started.elapsed(),
            queued: Duration::ZERO,
            request_id: "",
        });
    }
    let answer = result.map_err(|source| match source {
        ErrorKind::Malformed(source) => not_keystone(source),
        source => AuthError::Unreachable { url: url.clone(), origin: config.origin.clone(), source },
    })?;
    if !answer.status.is_success() {
        return Err(refused(config, Refusal::read(answer.status.as_u16(), &answer.headers, &answer.body)));
    }
    let token = answer.headers.get("x-subject-token").ok_or_else(|| not_keystone("no X-Subject-Token".into()))?;
    let Body { token: details } = serde_json::from_slice(&answer.body).map_err(|error| not_keystone(error.into()))?;
    Ok(snapshot(config, token.clone(), details))
}

#[derive(Deserialize)]
struct Body {
    token: Details,
}

#[derive(Deserialize)]
struct Details {
    #[serde(default)]
    catalog: Vec<Entry>,
    #[serde(default)]
    issued_at: Option<jiff::Timestamp>,
    #[serde(default)]
    expires_at: Option<jiff::Timestamp>,
    #[serde(default)]
    project: Option<Project>,
    #[serde(default)]
    user: Option<Named>,
    #[serde(default)]
    roles: Vec<Named>,
}

#[derive(Deserialize)]
struct Project {
    id: String,
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct Named {
    #[serde(default)]
    name: String,
}

fn snapshot(config: &CloudConfig, token: http::HeaderValue, details: Details) -> Snapshot {
    let Details { catalog, issued_at, expires_at, project, user, roles } = details;
    let lifetime = issued_at
        .zip(expires_at)
        .and_then(|(from, to)| Duration::try_from(to.duration_since(from)).ok())
        .unwrap_or(DEFAULT_LIFETIME);
    let (project, project_name) = project.map_or((None, String::new()), |p| (Some(ProjectId(p.id)), p.name));
    let identity = Identity {
        user: user.map(|user| user.name).unwrap_or_default(),
        project,
        project_name,
        roles: roles.into_iter().map(|role| role.name).collect(),
    };
    let catalog = Catalog::new(catalog, config.region.clone(), config.interface, config.overrides.clone());
    Snapshot::new(token, catalog, identity, lifetime)
}

fn refused(config: &CloudConfig, refusal: Refusal) -> AuthError {
    let url = config.auth_url.clone();
    let origin = &config.origin;
    match (refusal.status, &config.credential) {
        (401 | 404, Credential::Token { .. }) if refusal.status == 401 || refusal.kind == "Not Found" => {
            AuthError::TokenExpired { origin: origin.clone() }
        }
        (400 | 401 | 403, credential) => {
            let (who, settings) = describe(credential);
            let settings: Vec<_> = settings.iter().map(|setting| origin.setting(setting)).collect();
            AuthError::Refused { url, who, fix: settings.join(", "), source: Answer(refusal) }
        }
        (429 | 500.., _) => AuthError::Failed { url, source: Answer(refusal) },
        _ => AuthError::NotKeystone { url, origin: origin.clone(), source: Box::new(Answer(refusal)) },
    }
}

/// Who asks, and the settings that say so.
fn describe(credential: &Credential) -> (String, &'static [&'static str]) {
    match credential {
        Credential::Password { user, .. } => (
            format!("user {user} (wrong name, password, domain or project)"),
            &["username", "password", "project_name"],
        ),
        Credential::ApplicationCredential { id, .. } => (
            format!("application credential {id} (wrong, expired or deleted)"),
            &["application_credential_id", "application_credential_secret"],
        ),
        Credential::Token { .. } => ("the token".to_owned(), &["token"]),
    }
}

/// The request's body. Holds the secret: it goes nowhere but into the request.
fn body(config: &CloudConfig) -> Value {
    match &config.credential {
        Credential::Password { user, password, scope } => {
            let mut user = name(user);
            user["password"] = json!(password.expose_secret());
            with_scope(&json!({"methods": ["password"], "password": {"user": user}}), scope)
        }
        Credential::ApplicationCredential { id, user, secret } => {
            let mut credential = match user {
                None => json!({"id": id}),
                Some(user) => json!({"name": id, "user": name(user)}),
            };
            credential["secret"] = json!(secret.expose_secret());
            json!({"auth": {"identity": {"methods": ["application_credential"], "application_credential": credential}}})
        }
        Credential::Token { token, scope } => {
            with_scope(&json!({"methods": ["token"], "token": {"id": token.expose_secret()}}), scope)
        }
    }
}

fn with_scope(identity: &Value, scope: &Scope) -> Value {
    let mut auth = json!({"identity": identity});
    match scope {
        Scope::Project(project) => auth["scope"] = json!({"project": name(project)}),
        Scope::Domain(domain) => auth["scope"] = json!({"domain": name(domain)}),
        Scope::Default => {}
    }
    json!({"auth": auth})
}

fn name(value: &Name) -> Value {
    match value {
        Name::Id(id) => json!({"id": id}),
        Name::Name(text) => json!({"name": text}),
        Name::InDomain { name: text, domain } => json!({"name": text, "domain": name(domain)}),
    }
}

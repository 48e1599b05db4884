//! `/v3/auth/tokens`: issue, validation and revocation of tokens.

use axum::http::StatusCode;
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::{DOMAIN_ID, DOMAIN_NAME, Keystone, Token, error, hex_id, not_found, unauthorized};
use crate::cloud::http::{Answer, Call};

/// What a scope asks for.
enum Scope {
    None,
    Project(String),
}

impl Keystone {
    pub(super) fn issue(&mut self, call: &Call) -> Answer {
        let Some(body) = call.json() else {
            return error(StatusCode::BAD_REQUEST, "The request body is not valid JSON.");
        };
        let auth = &body["auth"];
        let Some(methods) = auth["identity"]["methods"].as_array().filter(|methods| !methods.is_empty()) else {
            let missing = if auth.is_object() { "identity" } else { "auth" };
            let message = format!("'{missing}' is a required property");
            return error(StatusCode::BAD_REQUEST, &message);
        };
        let methods: Vec<String> = methods.iter().filter_map(|m| m.as_str().map(str::to_owned)).collect();
        let mut scope = self.scope(&auth["scope"]);
        for method in &methods {
            let identity = &auth["identity"][method.as_str()];
            let admitted = match method.as_str() {
                "password" => self.password_is_right(&identity["user"]),
                "application_credential" => {
                    // A credential is bound to its project: asking for a scope is refused.
                    let asked = !auth["scope"].is_null();
                    scope = self.projects.first().map(|project| Scope::Project(project.id.clone()));
                    !asked && self.credential_is_right(identity)
                }
                "token" => match self.token(identity["id"].as_str(), call.now) {
                    Some(token) => {
                        if auth["scope"].is_null() {
                            scope = Some(token.project.clone().map_or(Scope::None, Scope::Project));
                        }
                        true
                    }
                    None => false,
                },
                _ => false,
            };
            if !admitted {
                return unauthorized(call);
            }
        }
        let project = match scope {
            Some(Scope::Project(id)) => Some(id),
            Some(Scope::None) => None,
            None => return unauthorized(call),
        };
        // Forget what has expired, so that a long run does not grow.
        self.tokens.retain(|_, token| token.expires > call.now);
        let lifetime = SignedDuration::try_from(self.lifetime).unwrap_or(SignedDuration::MAX);
        let token = Token {
            project,
            methods,
            audit_id: hex_id()[..22].to_owned(),
            issued: call.now,
            expires: call.now.checked_add(lifetime).unwrap_or(jiff::Timestamp::MAX),
        };
        let id = format!("gAAAAA{}{}", hex_id(), hex_id());
        let body = self.token_body(call, &token);
        self.tokens.insert(id.clone(), token);
        self.issued.push(id.clone());
        Answer::new(StatusCode::CREATED, body).with("x-subject-token", &id).with("vary", "X-Auth-Token")
    }

    /// `None` for a project that does not exist.
    fn scope(&self, scope: &Value) -> Option<Scope> {
        let project = &scope["project"];
        if project.is_null() {
            return Some(Scope::None);
        }
        let found = self.projects.iter().find(|known| match (project["id"].as_str(), project["name"].as_str()) {
            (Some(id), _) => known.id == id,
            (None, Some(name)) => known.name == name && is_domain(&project["domain"]),
            (None, None) => false,
        });
        found.map(|project| Scope::Project(project.id.clone()))
    }

    fn is_user(&self, user: &Value) -> bool {
        match (user["id"].as_str(), user["name"].as_str()) {
            (Some(id), _) => id == self.user_id,
            (None, Some(name)) => name == self.user && is_domain(&user["domain"]),
            (None, None) => false,
        }
    }

    fn password_is_right(&self, user: &Value) -> bool {
        self.is_user(user) && user["password"].as_str() == Some(&self.password)
    }

    fn credential_is_right(&self, given: &Value) -> bool {
        let known = match (given["id"].as_str(), given["name"].as_str()) {
            (Some(id), _) => id == self.credential.id,
            (None, Some(name)) => name == self.credential.name && self.is_user(&given["user"]),
            (None, None) => false,
        };
        known && given["secret"].as_str() == Some(&self.credential.secret)
    }

    pub(super) fn validate(&self, call: &Call) -> Answer {
        match self.token(call.subject_token.as_deref(), call.now) {
            Some(token) => {
                let subject = call.subject_token.as_deref().unwrap_or_default();
                Answer::ok(self.token_body(call, token)).with("x-subject-token", subject)
            }
            None => not_found("Could not find token."),
        }
    }

    pub(super) fn revoke(&mut self, call: &Call) -> Answer {
        match call.subject_token.as_deref().and_then(|id| self.tokens.remove(id)) {
            Some(_) => Answer::empty(StatusCode::NO_CONTENT),
            None => not_found("Could not find token."),
        }
    }

    fn token_body(&self, call: &Call, token: &Token) -> Value {
        let domain = json!({ "id": DOMAIN_ID, "name": DOMAIN_NAME });
        let time = |time: jiff::Timestamp| time.strftime("%Y-%m-%dT%H:%M:%S.000000Z").to_string();
        let mut body = json!({
            "methods": token.methods, "audit_ids": [token.audit_id], "issued_at": time(token.issued), "expires_at": time(token.expires),
            "user": { "id": self.user_id, "name": self.user, "domain": domain, "password_expires_at": null },
        });
        let project = token.project.as_ref().and_then(|id| self.projects.iter().find(|project| project.id == *id));
        if let Some(project) = project {
            body["project"] = json!({ "id": project.id, "name": project.name, "domain": domain });
            body["is_domain"] = json!(false);
            body["roles"] = json!([
                { "id": "admin", "name": "admin" }, { "id": "member", "name": "member" }, { "id": "reader", "name": "reader" },
            ]);
            if !call.query.iter().any(|(name, _)| name == "nocatalog") {
                body["catalog"] = self.catalog(call);
            }
        }
        json!({ "token": body })
    }
}

fn is_domain(value: &Value) -> bool {
    match (value["id"].as_str(), value["name"].as_str()) {
        (Some(id), _) => id == DOMAIN_ID,
        (None, Some(name)) => name == DOMAIN_NAME,
        (None, None) => false,
    }
}

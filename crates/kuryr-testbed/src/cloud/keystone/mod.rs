//! Keystone v3 in memory: one domain, one user, some projects.
//!
//! What is asked with a token is answered to whoever has one: there are no roles to tell users apart.

mod auth;
mod directory;

use std::collections::HashMap;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::config::{ApplicationCredential, Config};
use super::http::{Answer, Call};

/// The only domain.
const DOMAIN_ID: &str = "default";
const DOMAIN_NAME: &str = "Default";

/// A project.
#[derive(Debug, Clone)]
pub(crate) struct Project {
    pub(crate) id: String,
    pub(crate) name: String,
}

/// A token that was issued.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    /// Id of the project that it is scoped to.
    pub(crate) project: Option<String>,
    methods: Vec<String>,
    audit_id: String,
    issued: Timestamp,
    expires: Timestamp,
}

/// All of Keystone's state.
#[derive(Debug)]
pub(crate) struct Keystone {
    region: String,
    user_id: String,
    user: String,
    password: String,
    credential: ApplicationCredential,
    lifetime: Duration,
    projects: Vec<Project>,
    tokens: HashMap<String, Token>,
    /// The ids of all of them, also of those that are no longer good.
    pub(crate) issued: Vec<String>,
}

fn hex_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

impl Keystone {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            region: config.region.clone(),
            user_id: hex_id(),
            user: config.user.clone(),
            password: config.password.clone(),
            credential: config.application_credential.clone(),
            lifetime: config.token_lifetime,
            projects: config.projects.iter().map(|name| Project { id: hex_id(), name: name.clone() }).collect(),
            tokens: HashMap::new(),
            issued: Vec::new(),
        }
    }

    /// The token, if it was issued and is still good.
    pub(crate) fn token(&self, id: Option<&str>, now: Timestamp) -> Option<&Token> {
        self.tokens.get(id?).filter(|token| token.expires > now)
    }

    /// Makes all tokens that were issued bad.
    pub(crate) fn expire_tokens(&mut self) {
        self.tokens.clear();
    }

    /// The id of a project by its name.
    pub(crate) fn project_id(&self, name: &str) -> Option<&str> {
        self.projects.iter().find(|project| project.name == name).map(|project| project.id.as_str())
    }

    /// Adds a project, or finds the one of that name; its id.
    pub(crate) fn add_project(&mut self, name: &str) -> String {
        if let Some(id) = self.project_id(name) {
            return id.to_owned();
        }
        let id = hex_id();
        self.projects.push(Project { id: id.clone(), name: name.to_owned() });
        id
    }

    /// Works on one call.
    pub(crate) fn handle(&mut self, call: &Call) -> Answer {
        let path = call.segments();
        let (method, path) = (&call.method, path.as_slice());
        match (method, path) {
            (&Method::GET, []) => {
                let body = json!({ "versions": { "values": [version(call)] } });
                return Answer::new(StatusCode::MULTIPLE_CHOICES, body);
            }
            (&Method::GET, ["v3"]) => return Answer::ok(json!({ "version": version(call) })),
            (&Method::POST, ["v3", "auth", "tokens"]) => return self.issue(call),
            _ => {}
        }
        let Some(token) = self.token(call.token.as_deref(), call.now).cloned() else { return unauthorized(call) };
        match (method, path) {
            (&Method::GET | &Method::HEAD, ["v3", "auth", "tokens"]) => self.validate(call),
            (&Method::DELETE, ["v3", "auth", "tokens"]) => self.revoke(call),
            (&Method::GET, ["v3", rest @ ..]) => self.look_up(call, &token, rest),
            _ => not_found(&format!("Could not find {}.", call.path_text())),
        }
    }

    fn catalog(&self, call: &Call) -> Value {
        let entries: Vec<Value> = services()
            .into_iter()
            .map(|(id, kind, name, path)| {
                let endpoints: Vec<Value> = ["public", "internal", "admin"]
                    .into_iter()
                    .map(|interface| self.endpoint(call, id, path, interface))
                    .collect();
                json!({ "id": id, "type": kind, "name": name, "endpoints": endpoints })
            })
            .collect();
        Value::Array(entries)
    }

    fn endpoint(&self, call: &Call, service: &str, path: &str, interface: &str) -> Value {
        json!({
            "id": format!("{service}-{interface}"), "interface": interface, "region": self.region, "region_id": self.region,
            "url": format!("{}{path}", call.base_url),
        })
    }
}

/// Id, type, name and path of each service.
fn services() -> [(&'static str, &'static str, &'static str, &'static str); 3] {
    [
        ("identity", "identity", "keystone", "/identity"),
        ("network", "network", "neutron", "/network"),
        ("load-balancer", "load-balancer", "octavia", "/load-balancer"),
    ]
}

fn version(call: &Call) -> Value {
    json!({
        "id": "v3.14", "status": "stable", "updated": "2020-04-07T00:00:00Z",
        "links": [{ "rel": "self", "href": format!("{}/identity/v3/", call.base_url) }],
        "media-types": [{ "base": "application/json", "type": "application/vnd.openstack.identity-v3+json" }],
    })
}

/// An error as Keystone, and the middleware that asks it, writes them.
pub(crate) fn error(status: StatusCode, message: &str) -> Answer {
    let title = status.canonical_reason().unwrap_or_default();
    Answer::new(status, json!({ "error": { "code": status.as_u16(), "message": message, "title": title } }))
}

pub(crate) fn unauthorized(call: &Call) -> Answer {
    error(StatusCode::UNAUTHORIZED, "The request you have made requires authentication.")
        .with("www-authenticate", &format!("Keystone uri=\"{}/identity\"", call.base_url))
}

fn not_found(message: &str) -> Answer {
    error(StatusCode::NOT_FOUND, message)
}

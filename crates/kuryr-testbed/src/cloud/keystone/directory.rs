//! Projects, users, services and endpoints, for clients that look names up.

use serde_json::{Value, json};

use super::{DOMAIN_ID, DOMAIN_NAME, Keystone, Token, not_found, services};
use crate::cloud::http::{Answer, Call};

impl Keystone {
    /// A list (`/v3/projects?name=...`) or one of it (`/v3/projects/<id>`).
    pub(super) fn look_up(&self, call: &Call, token: &Token, path: &[&str]) -> Answer {
        let (plural, singular, items) = match path {
            ["auth", "catalog"] => return Answer::ok(json!({ "catalog": self.catalog(call), "links": {} })),
            ["projects", ..] | ["auth" | "users", .., "projects"] => ("projects", "project", self.projects()),
            ["users", ..] => ("users", "user", vec![self.user_body(token)]),
            ["domains", ..] | ["auth", "domains"] => ("domains", "domain", vec![domain()]),
            ["services", ..] => ("services", "service", services_list()),
            ["endpoints", ..] => ("endpoints", "endpoint", self.endpoints(call)),
            ["regions", ..] => {
                ("regions", "region", vec![json!({ "id": self.region, "description": "", "parent_region_id": null })])
            }
            ["roles", ..] => ("roles", "role", vec![json!({ "id": "admin", "name": "admin", "domain_id": null })]),
            _ => return not_found(&format!("Could not find {}.", call.path_text())),
        };
        if let [kind, id] = path
            && *kind == plural
        {
            return match items.into_iter().find(|item| item["id"].as_str() == Some(id)) {
                Some(item) => Answer::ok(json!({ singular: item })),
                None => not_found(&format!("Could not find {singular}: {id}.")),
            };
        }
        let wanted = |item: &Value| {
            call.query.iter().all(|(key, value)| match &item[key.as_str()] {
                Value::String(text) => text == value,
                Value::Bool(flag) => flag.to_string() == value.to_ascii_lowercase(),
                _ => true,
            })
        };
        let items: Vec<Value> = items.into_iter().filter(wanted).collect();
        let itself = format!("{}/identity{}", call.base_url, call.path_text());
        Answer::ok(json!({ plural: items, "links": { "self": itself, "next": null, "previous": null } }))
    }

    fn projects(&self) -> Vec<Value> {
        let one = |project: &super::Project| {
            json!({
                "id": project.id, "name": project.name, "domain_id": DOMAIN_ID, "parent_id": DOMAIN_ID, "enabled": true,
                "is_domain": false, "description": "", "tags": [], "options": {},
            })
        };
        self.projects.iter().map(one).collect()
    }

    fn user_body(&self, token: &Token) -> Value {
        json!({
            "id": self.user_id, "name": self.user, "domain_id": DOMAIN_ID, "enabled": true, "password_expires_at": null,
            "default_project_id": token.project, "options": {},
        })
    }

    fn endpoints(&self, call: &Call) -> Vec<Value> {
        let mut out = Vec::new();
        for (id, _, _, path) in services() {
            for interface in ["public", "internal", "admin"] {
                let mut endpoint = self.endpoint(call, id, path, interface);
                endpoint["service_id"] = json!(id);
                endpoint["enabled"] = json!(true);
                out.push(endpoint);
            }
        }
        out
    }
}

fn domain() -> Value {
    json!({ "id": DOMAIN_ID, "name": DOMAIN_NAME, "enabled": true, "description": "The default domain", "options": {} })
}

fn services_list() -> Vec<Value> {
    let one = |(id, kind, name, _): (&str, &str, &str, &str)| json!({ "id": id, "type": kind, "name": name, "enabled": true, "description": "" });
    services().into_iter().map(one).collect()
}

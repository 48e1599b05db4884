//! `/v2/lbaas/quotas`: limits of projects.

use axum::http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::error::{Error, Result};
use super::fields::{Check, Field, may, read};
use super::model::LoadBalancer;
use super::{Context, Octavia};
use crate::cloud::body::Body;
use crate::cloud::http::Answer;

const LIMIT: Check = Check::Int(-1, 2_000_000_000);

const FIELDS: &[Field] = &[
    may("loadbalancer", LIMIT),
    may("load_balancer", LIMIT),
    may("listener", LIMIT),
    may("member", LIMIT),
    may("pool", LIMIT),
    may("healthmonitor", LIMIT),
    may("health_monitor", LIMIT),
    may("l7policy", LIMIT),
    may("l7rule", LIMIT),
];

/// The names of quotas, and for those that count something here, what messages call it.
const NAMES: [(&str, &str); 7] = [
    ("load_balancer", "Load Balancer"),
    ("listener", "Listener"),
    ("member", "Member"),
    ("pool", "Pool"),
    ("health_monitor", "Health Monitor"),
    ("l7policy", ""),
    ("l7rule", ""),
];

/// Two names have two spellings.
fn spelling(name: &str) -> &str {
    match name {
        "loadbalancer" => "load_balancer",
        "healthmonitor" => "health_monitor",
        other => other,
    }
}

fn used(balancer: &LoadBalancer, name: &str) -> usize {
    match name {
        "load_balancer" => 1,
        "listener" => balancer.listeners.len(),
        "pool" => balancer.pools.len(),
        "member" => balancer.pools.iter().map(|pool| pool.members.len()).sum(),
        "health_monitor" => balancer.pools.iter().filter(|pool| pool.monitor.is_some()).count(),
        _ => 0,
    }
}

impl Octavia {
    /// The limit of a project; -1 for none.
    fn quota(&self, project: &str, name: &str) -> i64 {
        let own = self.quotas.get(project).and_then(|own| own.get(name)).copied();
        own.or_else(|| self.config.quotas.get(name)).unwrap_or(-1)
    }

    pub(crate) fn set_quota(&mut self, project: &str, name: &str, limit: i64) {
        self.quotas.entry(project.to_owned()).or_default().insert(spelling(name).to_owned(), limit);
    }

    /// Whether a project may have so many more.
    pub(crate) fn check_quota(&self, project: &str, name: &str, more: usize) -> Result<()> {
        let limit = self.quota(project, name);
        let of_project = self.balancers().filter(|balancer| balancer.project == project);
        let wanted = more + of_project.map(|balancer| used(balancer, name)).sum::<usize>();
        if more == 0 || usize::try_from(limit).map_or(true, |limit| wanted <= limit) {
            return Ok(());
        }
        let kind = NAMES.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind).unwrap_or_default();
        Err(Error::quota(kind))
    }
}

fn limits(octavia: &Octavia, project: &str) -> Answer {
    let limits: Map<String, Value> =
        NAMES.iter().map(|(name, _)| ((*name).to_owned(), json!(octavia.quota(project, name)))).collect();
    Answer::ok(json!({ "quota": limits }))
}

/// All that have limits of their own; what of them is not set is null.
fn all(octavia: &Octavia) -> Answer {
    let one = |(project, own): (&String, &std::collections::BTreeMap<String, i64>)| {
        let mut shown = Map::from_iter([("project_id".into(), json!(project)), ("tenant_id".into(), json!(project))]);
        for name in FIELDS.iter().map(Field::name) {
            shown.insert(name.to_owned(), json!(own.get(spelling(name))));
        }
        Value::Object(shown)
    };
    let all: Vec<Value> = octavia.quotas.iter().map(one).collect();
    Answer::ok(json!({ "quotas": all, "quotas_links": [] }))
}

pub(crate) fn handle(octavia: &mut Octavia, context: &Context, rest: &[&str]) -> Result<Answer> {
    match (&context.call.method, rest) {
        (&Method::GET, []) => Ok(all(octavia)),
        (&Method::GET, [_, "default"] | ["defaults"]) => Ok(limits(octavia, "")),
        (&Method::GET, [project]) => Ok(limits(octavia, project)),
        (&Method::PUT, [project]) => {
            let body: Body = read(context.call, "quotas", "quota", &[FIELDS])?;
            for name in FIELDS.iter().map(Field::name) {
                if let Some(limit) = body.int(name) {
                    octavia.set_quota(project, name, limit);
                }
            }
            Ok(Answer { status: StatusCode::ACCEPTED, ..limits(octavia, project) })
        }
        (&Method::DELETE, [project]) => {
            octavia.quotas.remove(*project);
            Ok(Answer::empty(StatusCode::ACCEPTED))
        }
        (_, [] | [_]) => Err(Error::no_such_method()),
        _ => Err(Error::no_such_path()),
    }
}

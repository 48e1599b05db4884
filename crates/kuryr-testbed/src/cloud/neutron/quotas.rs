//! `/v2.0/quotas`: limits and use of projects.

use axum::http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::Neutron;
use super::attrs::shown;
use super::error::{Error, Result};
use super::resource::Caller;
use super::verbs::json_object;
use crate::cloud::http::{Answer, Call};

pub(crate) fn handle(neutron: &mut Neutron, caller: &Caller, call: &Call, rest: &[&str]) -> Result<Answer> {
    match (&call.method, rest) {
        (&Method::GET, []) => {
            let all: Vec<Value> = neutron.quotas.keys().map(|project| limits(neutron, project, true)).collect();
            Ok(Answer::ok(json!({ "quotas": all })))
        }
        (&Method::GET, ["tenant"]) => Ok(Answer::ok(json!({ "tenant": { "tenant_id": caller.project } }))),
        (&Method::GET, ["project"]) => Ok(Answer::ok(json!({ "project": { "project_id": caller.project } }))),
        (&Method::GET, [project]) => Ok(Answer::ok(json!({ "quota": limits(neutron, project, false) }))),
        (&Method::GET, [_, "default"]) => {
            let limits: Map<String, Value> =
                neutron.settings.quotas.0.iter().map(|(name, limit)| ((*name).to_owned(), json!(limit))).collect();
            Ok(Answer::ok(json!({ "quota": limits })))
        }
        (&Method::GET, [project, "details"]) => Ok(Answer::ok(json!({ "quota": details(neutron, project) }))),
        (&Method::PUT, [project]) => update(neutron, call, project),
        (&Method::DELETE, [project]) => match neutron.quotas.remove(*project) {
            Some(_) => Ok(Answer::empty(StatusCode::NO_CONTENT)),
            None => {
                let message = format!("Quota for tenant {project} could not be found.");
                Err(Error::not_found("TenantQuotaNotFound", message))
            }
        },
        (_, [] | [_]) => Err(Error::no_such_method()),
        _ => Err(Error::no_such_path()),
    }
}

fn names(neutron: &Neutron) -> Vec<&'static str> {
    neutron.settings.quotas.0.keys().copied().collect()
}

fn limits(neutron: &Neutron, project: &str, with_project: bool) -> Value {
    let mut map: Map<String, Value> =
        names(neutron).into_iter().map(|name| (name.to_owned(), json!(neutron.quota(project, name)))).collect();
    if with_project {
        map.insert("tenant_id".into(), json!(project));
        map.insert("project_id".into(), json!(project));
    }
    Value::Object(map)
}

fn details(neutron: &Neutron, project: &str) -> Value {
    let one = |name: &'static str| {
        let limit = neutron.quota(project, name);
        (name.to_owned(), json!({ "limit": limit, "used": used(neutron, project, name), "reserved": 0 }))
    };
    Value::Object(names(neutron).into_iter().map(one).collect())
}

fn used(neutron: &Neutron, project: &str, name: &str) -> i64 {
    match name {
        "network" => neutron.networks.used(project),
        "subnet" => neutron.subnets.used(project),
        "subnetpool" => neutron.subnet_pools.used(project),
        "port" => neutron.ports.used(project),
        "router" => neutron.routers.used(project),
        "floatingip" => neutron.floating_ips.used(project),
        "security_group" => neutron.groups.used(project),
        "security_group_rule" => neutron.rules.used(project),
        "address_group" => neutron.address_groups.used(project),
        "trunk" => neutron.trunks.used(project),
        _ => 0,
    }
}

fn update(neutron: &mut Neutron, call: &Call, project: &str) -> Result<Answer> {
    let body = json_object(call)?;
    let Some(Value::Object(quota)) = body.get("quota") else {
        return Err(Error::refused("Unable to find 'quota' in request body"));
    };
    let known = names(neutron);
    let mut limits_given = Vec::new();
    for (name, value) in quota {
        if !known.contains(&name.as_str()) {
            return Err(Error::refused(format!("Unrecognized attribute(s) '{name}'")));
        }
        let limit = shown(value).parse::<i64>().ok().filter(|limit| (-1..=i64::from(i32::MAX)).contains(limit));
        let limit = limit.ok_or_else(|| {
            Error::attribute(name, format!("'{}' is not an integer between -1 and {}", shown(value), i32::MAX))
        })?;
        limits_given.push((name, limit));
    }
    for (name, limit) in limits_given {
        neutron.set_quota(project, name, limit);
    }
    Ok(Answer::ok(json!({ "quota": limits(neutron, project, false) })))
}

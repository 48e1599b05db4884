//! Versions, providers, flavors and availability zones.

use axum::http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::error::{Error, Result};
use super::query::{Item, list, one};
use super::{Context, Octavia};
use crate::cloud::http::{Answer, Call};

/// The minor versions of the Zed release, the days on which they began, and what came with those that matter here:
/// tags in 2.5, additive batches of members in 2.11, `allowed_cidrs` in 2.12, SCTP in 2.23, additional VIPs in 2.26.
const VERSIONS: [&str; 27] = [
    "2016-12-11T00:00:00Z",
    "2018-04-20T00:00:00Z",
    "2018-07-31T00:00:00Z",
    "2018-12-18T00:00:00Z",
    "2018-12-19T00:00:00Z",
    "2019-01-21T00:00:00Z",
    "2019-01-25T00:00:00Z",
    "2018-01-25T12:00:00Z",
    "2019-02-12T00:00:00Z",
    "2019-03-04T00:00:00Z",
    "2019-03-05T00:00:00Z",
    "2019-06-24T00:00:00Z",
    "2019-09-11T00:00:00Z",
    "2019-09-13T00:00:00Z",
    "2019-11-10T00:00:00Z",
    "2020-03-10T00:00:00Z",
    "2020-03-15T00:00:00Z",
    "2020-04-29T00:00:00Z",
    "2020-04-29T01:00:00Z",
    "2020-05-12T00:00:00Z",
    "2020-08-02T00:00:00Z",
    "2020-09-03T00:00:00Z",
    "2020-09-04T00:00:00Z",
    "2020-09-07T00:00:00Z",
    "2020-10-15T00:00:00Z",
    "2021-10-02T00:00:00Z",
    "2022-08-29T00:00:00Z",
];

pub(crate) fn versions(call: &Call) -> Answer {
    let links = json!([{ "href": format!("{}/load-balancer/v2", call.base_url), "rel": "self" }]);
    let one = |(minor, updated): (usize, &&str)| {
        let status = if minor + 1 == VERSIONS.len() { "CURRENT" } else { "SUPPORTED" };
        json!({ "id": format!("v2.{minor}"), "status": status, "updated": updated, "links": links })
    };
    let versions: Vec<Value> = VERSIONS.iter().enumerate().map(one).collect();
    Answer::ok(json!({ "versions": versions }))
}

pub(crate) fn providers(octavia: &Octavia, context: &Context, rest: &[&str]) -> Result<Answer> {
    let one = |name: &String| json!({ "name": name, "description": format!("The {name} driver.") });
    match (&context.call.method, rest) {
        (&Method::GET, []) => {
            let providers: Vec<Value> = octavia.config.providers.iter().map(one).collect();
            Ok(Answer::ok(json!({ "providers": providers })))
        }
        (_, []) => Err(Error::no_such_method()),
        _ => Err(Error::no_such_path()),
    }
}

fn items(shown: Vec<Map<String, Value>>) -> Vec<Item> {
    (0..).zip(shown).map(|(serial, shown)| Item::new(serial, shown)).collect()
}

fn flavors_shown(octavia: &Octavia) -> Vec<Map<String, Value>> {
    let one = |flavor: &crate::cloud::config::Flavor| {
        let shown = json!({
            "id": flavor.id, "name": flavor.name, "description": "", "enabled": flavor.enabled,
            "flavor_profile_id": flavor.id,
        });
        shown.as_object().cloned().unwrap_or_default()
    };
    octavia.config.flavors.iter().map(one).collect()
}

pub(crate) fn flavors(octavia: &Octavia, context: &Context, rest: &[&str]) -> Result<Answer> {
    let shown = flavors_shown(octavia);
    match (&context.call.method, rest) {
        (&Method::GET, []) => {
            list(context.call, "flavors", &["enabled", "flavor_profile_id"], octavia.page_limit, items(shown))
        }
        (&Method::GET, [id]) => {
            let found = shown.into_iter().find(|flavor| flavor["id"] == *id);
            let found = found.ok_or_else(|| Error::not_found("Flavor", id))?;
            Ok(one(context.call, StatusCode::OK, "flavor", found))
        }
        (_, [] | [_]) => Err(Error::no_such_method()),
        _ => Err(Error::no_such_path()),
    }
}

pub(crate) fn availability_zones(octavia: &Octavia, context: &Context, rest: &[&str]) -> Result<Answer> {
    let one_zone = |name: &String| {
        let shown = json!({ "name": name, "description": "", "enabled": true, "availability_zone_profile_id": null });
        shown.as_object().cloned().unwrap_or_default()
    };
    let shown: Vec<Map<String, Value>> = octavia.config.availability_zones.iter().map(one_zone).collect();
    match (&context.call.method, rest) {
        (&Method::GET, []) => list(context.call, "availability_zones", &["enabled"], octavia.page_limit, items(shown)),
        (&Method::GET, [name]) => {
            let found = shown.into_iter().find(|zone| zone["name"] == *name);
            let found = found.ok_or_else(|| Error::not_found("Availability Zone", name))?;
            Ok(one(context.call, StatusCode::OK, "availability_zone", found))
        }
        (_, [] | [_]) => Err(Error::no_such_method()),
        _ => Err(Error::no_such_path()),
    }
}

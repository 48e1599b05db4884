//! Version documents and `/v2.0/extensions`.

use axum::http::Method;
use serde_json::{Value, json};

use super::Neutron;
use super::error::{Error, Result};
use crate::cloud::http::{Answer, Call};

pub(crate) fn versions(call: &Call) -> Answer {
    let link = json!([{ "rel": "self", "href": format!("{}/network/v2.0/", call.base_url) }]);
    Answer::ok(json!({ "versions": [{ "id": "v2.0", "status": "CURRENT", "links": link }] }))
}

pub(crate) fn resources(call: &Call) -> Answer {
    let names = ["network", "subnet", "subnetpool", "port"];
    let one = |name: &str| {
        let href = format!("{}/network/v2.0/{name}s", call.base_url);
        json!({ "name": name, "collection": format!("{name}s"), "links": [{ "rel": "self", "href": href }] })
    };
    Answer::ok(json!({ "resources": names.map(one) }))
}

pub(crate) fn extensions(neutron: &Neutron, call: &Call, rest: &[&str]) -> Result<Answer> {
    if call.method != Method::GET {
        return Err(Error::no_such_method());
    }
    let one = |alias: &String| -> Value {
        json!({
            "alias": alias, "name": alias, "description": format!("The {alias} extension."),
            "updated": "2016-01-01T00:00:00-00:00", "links": [],
        })
    };
    match rest {
        [] => {
            let list: Vec<Value> = neutron.settings.extensions.iter().map(one).collect();
            Ok(Answer::ok(json!({ "extensions": list })))
        }
        [alias] => match neutron.settings.extensions.iter().find(|known| known == alias) {
            Some(found) => Ok(Answer::ok(json!({ "extension": one(found) }))),
            None => Err(Error::not_found("HTTPNotFound", format!("Extension with alias {alias} does not exist"))),
        },
        _ => Err(Error::no_such_path()),
    }
}

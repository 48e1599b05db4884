//! `/{id}/tags`.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use super::Neutron;
use super::attrs::{check_tag, check_tags};
use super::error::{Error, Result};
use super::resource::{Caller, Resource};
use super::verbs::{check_revision, id_of, json_object};
use crate::cloud::http::{Answer, Call};

pub(crate) fn handle<R: Resource>(
    neutron: &mut Neutron,
    caller: &Caller,
    call: &Call,
    id: &str,
    rest: &[&str],
) -> Result<Answer> {
    // The tagging plugin has its own way to say that the resource is not there.
    let missing = |_| {
        let message = format!("Resource {} {id} could not be found.", R::KIND.plural);
        Error::not_found("TagResourceNotFound", message)
    };
    let row_id = id_of::<R>(neutron, id).map_err(missing)?;
    let mut row = R::table(neutron).find(row_id)?.clone();
    let refused = |reason: String| Error::invalid(reason);
    let tags = &mut row.standard_mut().tags;
    let answer = match (&call.method, rest) {
        (&Method::GET, []) => return Ok(Answer::ok(json!({ "tags": tags }))),
        (&Method::GET, [tag]) => {
            check_tag(&json!(tag)).map_err(refused)?;
            return if tags.contains(*tag) { Ok(Answer::empty(StatusCode::NO_CONTENT)) } else { Err(not_found(tag)) };
        }
        (&Method::PUT, []) => {
            let body = json_object(call)?;
            let Some(list) = body.get("tags") else { return Err(Error::invalid("Invalid tags body")) };
            check_tags(list).map_err(refused)?;
            *tags = list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
            Answer::ok(json!({ "tags": tags }))
        }
        (&Method::PUT, [tag]) => {
            check_tag(&json!(tag)).map_err(refused)?;
            tags.insert((*tag).to_owned());
            Answer::empty(StatusCode::CREATED)
        }
        (&Method::DELETE, []) => {
            tags.clear();
            Answer::empty(StatusCode::NO_CONTENT)
        }
        (&Method::DELETE, [tag]) => {
            if !tags.remove(*tag) {
                return Err(not_found(tag));
            }
            Answer::empty(StatusCode::NO_CONTENT)
        }
        (_, [] | [_]) => return Err(Error::no_such_method()),
        _ => return Err(Error::no_such_path()),
    };
    check_revision(R::table(neutron).find(row_id)?, call)?;
    R::table_mut(neutron).replace(row, caller.now);
    Ok(answer)
}

fn not_found(tag: &str) -> Error {
    Error::not_found("TagNotFound", format!("Tag {tag} could not be found."))
}

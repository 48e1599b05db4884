//! The verbs that all kinds share: list, show, create (single and bulk), update, delete.

use axum::http::StatusCode;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::Neutron;
use super::attrs::{Access, Body, Kind, shown_list};
use super::error::{Error, Result};
use super::query::Query;
use super::resource::{Caller, Resource};
use crate::cloud::http::{Answer, Call};

/// Reads an id of a path; what is no id is not found.
pub(crate) fn id_of<R: Resource>(neutron: &Neutron, text: &str) -> Result<Uuid> {
    let text = text.strip_suffix(".json").unwrap_or(text);
    match Uuid::try_parse(text) {
        Ok(id) if R::table(neutron).get(id).is_some() => Ok(id),
        _ => Err((R::KIND.not_found)(text)),
    }
}

/// The attributes to show: the given fields, or all.
fn columns(kind: &Kind, fields: &[String]) -> Vec<&'static str> {
    let wanted = |name: &str| fields.is_empty() || fields.iter().any(|field| field == name);
    kind.all().filter(|attr| attr.access != Access::Hidden && wanted(attr.name)).map(|attr| attr.name).collect()
}

fn render_columns<R: Resource>(neutron: &Neutron, row: &R, columns: &[&'static str]) -> Value {
    Value::Object(columns.iter().map(|&name| (name.to_owned(), row.value(name, neutron))).collect())
}

/// The JSON of a resource with the given fields, or all.
pub(crate) fn render<R: Resource>(neutron: &Neutron, row: &R, fields: &[String]) -> Value {
    render_columns(neutron, row, &columns(R::KIND, fields))
}

fn one<R: Resource>(neutron: &Neutron, id: Uuid, fields: &[String]) -> Result<Value> {
    let row = R::table(neutron).find(id)?;
    Ok(Value::Object(Map::from_iter([(R::KIND.singular.to_owned(), render(neutron, row, fields))])))
}

pub(crate) fn list<R: Resource>(neutron: &mut Neutron, caller: &Caller, call: &Call) -> Result<Answer> {
    let query = Query::read(R::KIND, &call.query, neutron.settings.page_limit)?;
    R::before_list(neutron, caller);
    let neutron = &*neutron;
    let table = R::table(neutron);
    let filters = &query.filters;
    let rows: Vec<&R> = match candidates::<R>(neutron, &query) {
        Some(ids) => {
            ids.iter().filter_map(|&id| table.get(id)).filter(|row| filters.match_row(*row, neutron)).collect()
        }
        None => table.iter().filter(|row| filters.match_row(*row, neutron)).collect(),
    };
    let rows = query.page(neutron, rows)?;
    let columns = columns(R::KIND, &query.fields);
    let items: Vec<Value> = rows.iter().map(|&row| render_columns(neutron, row, &columns)).collect();
    let mut body = Map::from_iter([(R::KIND.plural.to_owned(), Value::Array(items))]);
    let url = format!("{}/network{}", call.base_url, call.path_text());
    let ends = (rows.first().map(|row| row.standard().id), rows.last().map(|row| row.standard().id));
    let links = query.links(&url, &call.query, ends.0, ends.1, rows.len());
    if !links.is_empty() {
        body.insert(format!("{}_links", R::KIND.plural), Value::Array(links));
    }
    Ok(Answer::ok(Value::Object(body)))
}

/// Ids in order among which all results are, if an index knows: by id, by the kind's own index, or by the rarest tag.
fn candidates<R: Resource>(neutron: &Neutron, query: &Query) -> Option<Vec<Uuid>> {
    if let Some(mut ids) = query.filters.ids("id") {
        ids.sort_unstable();
        ids.dedup();
        return Some(ids);
    }
    if let Some(ids) = R::candidates(neutron, &query.filters) {
        return Some(ids.into_iter().collect());
    }
    let table = R::table(neutron);
    let sets = query.filters.tags.iter().map(|tag| table.tagged(tag));
    sets.min_by_key(|set| set.map_or(0, std::collections::BTreeSet::len))
        .map(|set| set.map(|ids| ids.iter().copied().collect()).unwrap_or_default())
}

pub(crate) fn show<R: Resource>(neutron: &Neutron, call: &Call, id: &str) -> Result<Answer> {
    let id = id_of::<R>(neutron, id)?;
    let fields: Vec<String> = call.query.iter().filter(|(name, _)| name == "fields").map(|(_, v)| v.clone()).collect();
    Ok(Answer::ok(one::<R>(neutron, id, &fields)?))
}

pub(crate) fn create<R: Resource>(neutron: &mut Neutron, caller: &Caller, call: &Call) -> Result<Answer> {
    let kind = R::KIND;
    let mut body = json_object(call)?;
    if let Some(items) = body.remove(kind.plural) {
        let bodies = bulk_bodies(kind, items)?;
        check_quota::<R>(neutron, caller, &bodies)?;
        R::check_bulk(neutron, &bodies)?;
        let ids = create_all::<R>(neutron, caller, &bodies)?;
        let items: Vec<Value> =
            ids.iter().filter_map(|&id| R::table(neutron).get(id)).map(|row| render(neutron, row, &[])).collect();
        let body = Map::from_iter([(kind.plural.to_owned(), Value::Array(items))]);
        return Ok(Answer::new(StatusCode::CREATED, Value::Object(body)));
    }
    let bodies = [Body::of_create(kind, resource_map(kind, &mut body)?)?];
    check_quota::<R>(neutron, caller, &bodies)?;
    R::check_bulk(neutron, &bodies)?;
    let id = R::create(neutron, caller, &bodies[0])?;
    Ok(Answer::new(StatusCode::CREATED, one::<R>(neutron, id, &[])?))
}

/// Makes all or none.
fn create_all<R: Resource>(neutron: &mut Neutron, caller: &Caller, bodies: &[Body]) -> Result<Vec<Uuid>> {
    let mut ids = Vec::with_capacity(bodies.len());
    for body in bodies {
        match R::create(neutron, caller, body) {
            Ok(id) => ids.push(id),
            Err(error) => {
                for id in ids {
                    R::delete(neutron, caller, id)?;
                }
                return Err(error);
            }
        }
    }
    Ok(ids)
}

pub(crate) fn check_quota<R: Resource>(neutron: &Neutron, caller: &Caller, bodies: &[Body]) -> Result<()> {
    let kind = R::KIND;
    for body in bodies {
        let project = body.project().unwrap_or(&caller.project);
        let limit = neutron.quota(project, kind.singular);
        let asked = bodies.iter().filter(|b| b.project().unwrap_or(&caller.project) == project).count();
        let asked = i64::try_from(asked).unwrap_or(i64::MAX);
        if limit >= 0 && R::table(neutron).used(project) + asked > limit {
            let message = format!("Quota exceeded for resources: {}.", shown_list([kind.singular]));
            return Err(Error::conflict("OverQuota", message));
        }
    }
    Ok(())
}

pub(crate) fn update<R: Resource>(neutron: &mut Neutron, caller: &Caller, call: &Call, id: &str) -> Result<Answer> {
    let mut body = json_object(call)?;
    let body = Body::of_update(R::KIND, resource_map(R::KIND, &mut body)?)?;
    let id = id_of::<R>(neutron, id)?;
    check_revision(R::table(neutron).find(id)?, call)?;
    R::update(neutron, caller, id, &body)?;
    Ok(Answer::ok(one::<R>(neutron, id, &[])?))
}

pub(crate) fn delete<R: Resource>(neutron: &mut Neutron, caller: &Caller, call: &Call, id: &str) -> Result<Answer> {
    let id = id_of::<R>(neutron, id)?;
    check_revision(R::table(neutron).find(id)?, call)?;
    R::delete(neutron, caller, id)?;
    Ok(Answer::empty(StatusCode::NO_CONTENT))
}

/// `If-Match: revision_number=N`.
pub(crate) fn check_revision<R: Resource>(row: &R, call: &Call) -> Result<()> {
    // Other entity tags are no business of Neutron's.
    let header = call.if_match.as_deref().unwrap_or_default();
    let mut tags = header.split(',').filter_map(|tag| tag.trim().trim_matches('"').strip_prefix("revision_number="));
    let Some(tag) = tags.next() else { return Ok(()) };
    let bad = |message: &str| Error::bad_request("BadRequest", format!("Bad if-match request: {message}."));
    if tags.next().is_some() {
        return Err(bad("Multiple revision_number etags are not supported."));
    }
    let wanted: u64 =
        tag.parse().map_err(|_| bad("Revision number etag must be in the format of revision_number=<int>"))?;
    let current = row.standard().revision;
    if wanted == current {
        return Ok(());
    }
    let message = format!("Constrained to {wanted}, but current revision is {current}");
    Err(Error::new(StatusCode::PRECONDITION_FAILED, "RevisionNumberConstraintFailed", message))
}

/// The body as a JSON object.
pub(crate) fn json_object(call: &Call) -> Result<Map<String, Value>> {
    if call.body.is_empty() {
        return Err(Error::refused("Resource body required"));
    }
    match call.json() {
        Some(Value::Object(map)) => Ok(map),
        _ => Err(Error::refused("Body contains invalid data")),
    }
}

fn resource_map(kind: &Kind, body: &mut Map<String, Value>) -> Result<Map<String, Value>> {
    match body.remove(kind.singular) {
        Some(Value::Object(map)) => Ok(map),
        Some(Value::Null) | None => Err(Error::refused(format!("Unable to find '{}' in request body", kind.singular))),
        Some(_) => Err(Error::refused(format!("Object '{}' contains invalid data", kind.singular))),
    }
}

fn bulk_bodies(kind: &Kind, items: Value) -> Result<Vec<Body>> {
    let Value::Array(items) = items else {
        return Err(Error::refused("Body contains invalid data"));
    };
    if items.is_empty() {
        return Err(Error::refused("Resources required"));
    }
    let mut bodies = Vec::with_capacity(items.len());
    for item in items {
        // Neutron accepts both a bare object and one wrapped in the resource's name.
        let map = match item {
            Value::Object(mut map) if map.len() == 1 && map.contains_key(kind.singular) => {
                resource_map(kind, &mut map)?
            }
            Value::Object(map) => map,
            _ => return Err(Error::refused("Body contains invalid data")),
        };
        bodies.push(Body::of_create(kind, map)?);
    }
    Ok(bodies)
}

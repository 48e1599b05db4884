//! One request: taken apart, perhaps hit by a fault, logged, dispatched by verb.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, header, request::Parts};
use serde_json::{Value, json};

use super::{
    Shared,
    builtin::StatusRule,
    delete::{self, DeleteOptions, Deleted},
    discovery,
    faults::{self, FaultEffect},
    list, openapi, patch, pods,
    prepare::{self, Scope, WriteOptions},
    registry::ResourceDef,
    request::{Query, Target},
    response::{Form, answer},
    status::{ApiError, FieldError},
    watch::{self, WatchRequest},
    write::{self, Written},
};

/// Larger bodies are refused, as the real server does.
const BODY_LIMIT: usize = 3 * 1024 * 1024;

/// How long a watch lasts that names no timeout: between one and two of these.
const WATCH_SECONDS: u64 = 1800;

/// Serves any request.
pub(crate) async fn handle(State(server): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Some(target) = Target::parse(parts.uri.path()) else { return plain(&server, &parts) };
    let query = Query::parse(parts.uri.query());
    let verb = target.verb(&parts.method, &query);
    let agent = parts.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let resource = target.full_resource();
    let fault = server.faults.hit(verb, &resource, agent);
    server.calls.record(verb, resource, agent);
    match fault {
        Some(FaultEffect::Fail { code, retry_after }) => return faults::refusal(code, retry_after).into_response(),
        Some(FaultEffect::Delay(time)) => tokio::time::sleep(time).await,
        Some(FaultEffect::Hang) => std::future::pending().await,
        Some(FaultEffect::LoseAnswer | FaultEffect::HoldAnswer) | None => {}
    }
    let result = match axum::body::to_bytes(body, BODY_LIMIT).await {
        Ok(body) => serve(&server, &target, &query, verb, &parts, &body),
        Err(error) => Err(ApiError::new(413, "RequestEntityTooLarge", format!("cannot read the request: {error}"))),
    };
    let response = result.unwrap_or_else(IntoResponse::into_response);
    if fault == Some(FaultEffect::HoldAnswer) {
        server.faults.holds();
        std::future::pending::<()>().await;
    }
    if fault == Some(FaultEffect::LoseAnswer) {
        let broken = futures::stream::once(async { Err::<Bytes, _>(std::io::Error::other("the answer is lost")) });
        return Response::new(Body::from_stream(broken));
    }
    response
}

fn json_answer(value: &Value) -> Response {
    answer(StatusCode::OK, value.to_string(), &[])
}

/// Paths that name no resource: discovery and health.
fn plain(server: &Shared, parts: &Parts) -> Response {
    let path: Vec<&str> = parts.uri.path().split('/').filter(|part| !part.is_empty()).collect();
    let accept = parts.headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let aggregated = accept.contains("as=APIGroupDiscoveryList") && accept.contains("v=v2;");
    let registry = &server.registry;
    let found = match path.as_slice() {
        ["healthz" | "readyz" | "livez", ..] => return "ok".into_response(),
        ["version"] => Some(discovery::version()),
        ["api" | "apis"] if aggregated => {
            let mut response = json_answer(&discovery::aggregated(registry, path == ["api"]));
            let kind = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
            response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
            return response;
        }
        ["api"] => {
            let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
            Some(discovery::core_versions(host))
        }
        ["apis"] => Some(discovery::group_list(registry)),
        ["api", version] => discovery::resource_list(registry, "", version),
        ["apis", group] => discovery::one_group(registry, group),
        ["apis", group, version] => discovery::resource_list(registry, group, version),
        ["openapi", "v2"] if accept.contains("protobuf") => {
            // No bytes are an empty document.
            let mut response = Response::new(Body::empty());
            let kind = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
            response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
            return response;
        }
        ["openapi", "v2"] => Some(openapi::v2()),
        ["openapi", "v3"] => Some(openapi::index(registry)),
        ["openapi", "v3", place @ ..] => openapi::document(registry, &place.join("/")),
        [] => Some(
            json!({ "paths": ["/api", "/apis", "/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"] }),
        ),
        _ => None,
    };
    found.map_or_else(|| ApiError::no_such_path().into_response(), |value| json_answer(&value))
}

/// Serves a request about a resource.
fn serve(
    server: &Arc<Shared>,
    target: &Target,
    query: &Query,
    verb: &str,
    parts: &Parts,
    body: &Bytes,
) -> Result<Response, ApiError> {
    let def =
        server.registry.find(&target.group, &target.version, &target.resource).ok_or_else(ApiError::no_such_path)?;
    check_place(&def, target, verb)?;
    let headers = &parts.headers;
    let form = Form::negotiate(headers, query.get("includeObject"))?;
    let scope = Scope {
        namespace: target.namespace.clone().unwrap_or_default(),
        name: target.name.clone().unwrap_or_default(),
        subresource: target.subresource.clone(),
        def,
    };
    let options = || WriteOptions::parse(query, headers);
    match (verb, target.subresource.as_deref()) {
        ("watch", _) => start_watch(server, scope, target, query, form),
        ("list", _) => {
            let selection = list::selection(&scope.def, target.namespace.as_deref(), query)?;
            let page = list::page(server, &scope.def, &selection, query)?;
            Ok(answer(StatusCode::OK, list::body(&scope.def, &page, form), &[]))
        }
        ("get", _) => {
            let entry = server.store.get(&scope.def.storage, &scope.namespace, &scope.name);
            let entry = entry.ok_or_else(|| ApiError::not_found(&scope.def, &scope.name))?;
            Ok(answer(StatusCode::OK, form.one(&scope.def, entry.value()), &[]))
        }
        ("create", Some("binding")) => {
            pods::bind(server, &scope, &prepare::decode(headers, body)?)?;
            let status =
                json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 });
            Ok(answer(StatusCode::CREATED, status.to_string(), &[]))
        }
        ("create", Some("eviction")) => evict(server, &scope, query, headers, body),
        ("create", None) => {
            let written = write::create(server, &scope, &options()?, prepare::decode(headers, body)?)?;
            Ok(send(&scope.def, form, &written))
        }
        ("update", _) => {
            let wanted = prepare::decode(headers, body)?;
            let written = write::modify(server, &scope, &options()?, |_| Ok(wanted.clone()));
            // Leases may be created by an update.
            let written = match written {
                Err(error) if error.code == 404 && scope.def.plural == "leases" => {
                    write::create(server, &scope, &options()?, wanted)?
                }
                other => other?,
            };
            Ok(send(&scope.def, form, &written))
        }
        ("patch", _) => Ok(send(&scope.def, form, &patch::patch(server, &scope, &options()?, headers, body)?)),
        ("delete", None) => {
            let options = delete_options(query, headers, body)?;
            let deleted = delete::delete(server, &scope.def, &scope.namespace, &scope.name, &options)?;
            Ok(match &deleted {
                Deleted::Gone(entry) if !scope.def.is_core("pods") => json_answer(&delete::success(&scope.def, entry)),
                deleted => answer(StatusCode::OK, form.one(&scope.def, deleted.entry().value()), &[]),
            })
        }
        ("deletecollection", None) => {
            let options = delete_options(query, headers, body)?;
            let selection = list::selection(&scope.def, target.namespace.as_deref(), query)?;
            let page = list::page(server, &scope.def, &selection, &Query::default())?;
            for entry in &page.entries {
                match delete::delete(server, &scope.def, &entry.namespace, &entry.name, &options) {
                    Err(error) if error.code != 404 => return Err(error),
                    _ => {}
                }
            }
            Ok(answer(StatusCode::OK, list::body(&scope.def, &page, Form::Json), &[]))
        }
        _ => Err(ApiError::not_allowed()),
    }
}

/// The path must fit the resource: its scope, its subresources.
fn check_place(def: &ResourceDef, target: &Target, verb: &str) -> Result<(), ApiError> {
    if target.namespace.is_some() && !def.namespaced {
        return Err(ApiError::no_such_path());
    }
    let across = matches!(verb, "list" | "watch" | "deletecollection");
    if def.namespaced && target.namespace.is_none() && !across {
        return Err(ApiError::no_such_path());
    }
    match target.subresource.as_deref() {
        None => Ok(()),
        Some("status") if def.status && def.builtin().is_none_or(|builtin| builtin.status != StatusRule::None) => {
            Ok(())
        }
        Some(sub) if def.builtin().is_some_and(|builtin| builtin.subresources.contains(&sub)) => Ok(()),
        Some(_) => Err(ApiError::no_such_path()),
    }
}

fn send(def: &ResourceDef, form: Form, written: &Written) -> Response {
    let code = if written.created { StatusCode::CREATED } else { StatusCode::OK };
    answer(code, form.one(def, written.entry.value()), &written.warnings)
}

fn delete_options(query: &Query, headers: &HeaderMap, body: &[u8]) -> Result<DeleteOptions, ApiError> {
    let body = if body.is_empty() { Value::Null } else { prepare::decode(headers, body)? };
    DeleteOptions::parse(query, &body)
}

fn evict(
    server: &Shared,
    scope: &Scope,
    query: &Query,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Response, ApiError> {
    let eviction = prepare::decode(headers, body)?;
    let options = DeleteOptions::parse(query, &eviction["deleteOptions"])?;
    delete::delete(server, &scope.def, &scope.namespace, &scope.name, &options)?;
    let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 });
    Ok(answer(StatusCode::CREATED, status.to_string(), &[]))
}

fn start_watch(
    server: &Arc<Shared>,
    scope: Scope,
    target: &Target,
    query: &Query,
    form: Form,
) -> Result<Response, ApiError> {
    if target.subresource.is_some() || query.get("continue").is_some() {
        return Err(ApiError::bad_request("a watch takes neither a subresource nor a continue token"));
    }
    let mut selection = list::selection(&scope.def, target.namespace.as_deref(), query)?;
    if let Some(name) = &target.name {
        selection = selection.named(name);
    }
    let initial_events = query.flag("sendInitialEvents");
    if initial_events && query.get("resourceVersionMatch") != Some("NotOlderThan") {
        let field = "resourceVersionMatch";
        let error =
            FieldError::forbidden(field, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
        return Err(ApiError::new(422, "Invalid", format!("ListOptions is invalid: {field}: {}", error.message)));
    }
    let revision = match query.get("resourceVersion") {
        None => None,
        Some(text) => {
            let bad = |_| ApiError::bad_request(format!("resourceVersion: Invalid value: {text:?}"));
            Some(text.parse().map_err(bad)?)
        }
    };
    let seconds = query.number("timeoutSeconds").unwrap_or_else(|| WATCH_SECONDS + fastrand::u64(..WATCH_SECONDS));
    let request = WatchRequest {
        def: scope.def,
        selection,
        form,
        revision,
        bookmarks: query.flag("allowWatchBookmarks"),
        initial_events,
        timeout: Duration::from_secs(seconds),
    };
    Ok(answer(StatusCode::OK, watch::watch(server.clone(), request)?, &[]))
}

//! Tells load balancers outside of the cluster whether a node has endpoints of a Service: `healthCheckNodePort`, with the answers of
//! Kubernetes' own proxy (`pkg/proxy/healthcheck/service_health.go`).

use super::{
    index::{Check, Index},
    state::{Part, State},
};
use axum::{
    Router,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;
use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};
use tokio::{
    net::TcpListener,
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// A port number that is taken is tried again this much later.
const RETRY: Duration = Duration::from_secs(5);

/// One that listens; it ends with the guard.
struct Server {
    told: watch::Sender<(Check, bool)>,
    _stop: DropGuard,
}

/// Serves health checks until it is dropped.
pub(super) async fn serve(index: &Index, state: &State) {
    let (mut changed, mut works) = (index.told(), state.works());
    let mut servers: BTreeMap<u16, Server> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    loop {
        let mut retry = None;
        if let Some(wanted) = index.health_checks() {
            let healthy = *works.borrow_and_update();
            servers.retain(|number, _| wanted.contains_key(number));
            let mut problems = Vec::new();
            for (number, check) in wanted {
                if let Some(server) = servers.get(&number) {
                    server.told.send_replace((check, healthy));
                    continue;
                }
                match listen(number).await {
                    Ok(listener) => {
                        servers.insert(number, start(listener, (check, healthy), &mut tasks));
                    }
                    Err(error) => problems.push(format!(
                        "cannot listen on healthCheckNodePort {number} of Service {}: {error}",
                        check.service
                    )),
                }
            }
            if !problems.is_empty() {
                retry = Some(Instant::now() + RETRY);
            }
            state.set(Part::HealthChecks, (!problems.is_empty()).then(|| problems.join("; ")));
        }
        tokio::select! {
            // Both senders live as long as this does.
            _ = changed.changed() => {}
            _ = works.changed() => {}
            () = sleep_until(retry.unwrap_or_else(Instant::now)), if retry.is_some() => {}
            Some(_) = tasks.join_next() => {}
        }
    }
}

/// At all addresses of the node, of both families where it has both.
async fn listen(number: u16) -> io::Result<TcpListener> {
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, number)).await {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, number)).await
        }
        other => other,
    }
}

fn start(listener: TcpListener, first: (Check, bool), tasks: &mut JoinSet<()>) -> Server {
    let (told, seen) = watch::channel(first);
    let stop = CancellationToken::new();
    let routes = Router::new().fallback(move || std::future::ready(answer(&seen.borrow())));
    let serving = axum::serve(listener, routes).with_graceful_shutdown(stop.clone().cancelled_owned());
    tasks.spawn(async move {
        if let Err(error) = serving.await {
            tracing::warn!(%error, "a health check is not served any more");
        }
    });
    Server { told, _stop: stop.drop_guard() }
}

/// Whoever balances over nodes sends here what comes for the Service only after a 200.
fn answer((check, healthy): &(Check, bool)) -> Response {
    let good = check.endpoints > 0 && *healthy;
    let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({
        "service": {"namespace": check.service.namespace, "name": check.service.name},
        "localEndpoints": check.endpoints,
        "serviceProxyHealthy": healthy,
    });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (HeaderName::from_static("x-load-balancing-endpoint-weight"), HeaderValue::from(check.endpoints)),
    ];
    (status, headers, body.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kuryr_model::ObjectKey;

    #[test]
    fn a_node_is_good_for_a_service_if_it_has_an_endpoint_and_leads_there() {
        let status = |endpoints, healthy| {
            let answer = answer(&(Check { service: ObjectKey::new("a", "web"), endpoints }, healthy));
            let weight = answer.headers()["x-load-balancing-endpoint-weight"].to_str().unwrap().to_owned();
            (answer.status().as_u16(), weight)
        };
        assert_eq!(status(2, true), (200, "2".to_owned()));
        assert_eq!(status(0, true), (503, "0".to_owned()));
        assert_eq!(status(2, false), (503, "2".to_owned()));
    }
}

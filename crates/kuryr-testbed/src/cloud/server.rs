//! From a connection to a service and back: faults, latency, the log of calls.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, Response, StatusCode, header};
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::calls::CallRecord;
use super::config::Latency;
use super::faults::{Effect, FaultId, INTERNAL_ERROR};
use super::http::{Answer, Call, Service};
use super::neutron::{Caller, Error};
use super::wire::{Connection, GatedListener};
use super::{Cloud, keystone, octavia};

/// The largest body that is read, in bytes.
const MAX_BODY: usize = 64 << 20;

/// A cloud that serves on a port number. It stops when this is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    cloud: Cloud,
    stop: CancellationToken,
    tasks: [JoinHandle<()>; 2],
}

impl Server {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL that Keystone is at, the `auth_url` of clients.
    #[must_use]
    pub fn auth_url(&self) -> String {
        format!("{}/identity/v3", self.url())
    }

    /// A `clouds.yaml` with two clouds: `kuryr`, by password, and `kuryr-app`, by application credential.
    #[must_use]
    pub fn clouds_yaml(&self) -> String {
        let config = self.cloud.config();
        let (auth_url, region) = (self.auth_url(), &config.region);
        let project = self.project();
        let credential = &config.application_credential;
        // JSON strings are YAML strings, whatever is in them.
        let text = |text: &str| serde_json::Value::from(text).to_string();
        format!(
            "clouds:\n  kuryr:\n    region_name: {region}\n    identity_api_version: 3\n    auth:\n      auth_url: {auth_url}\n      \
             username: {user}\n      password: {password}\n      project_name: {project}\n      user_domain_name: Default\n      \
             project_domain_name: Default\n  kuryr-app:\n    region_name: {region}\n    identity_api_version: 3\n    \
             auth_type: v3applicationcredential\n    auth:\n      auth_url: {auth_url}\n      \
             application_credential_id: {id}\n      application_credential_secret: {secret}\n",
            region = text(region),
            auth_url = text(&auth_url),
            user = text(&config.user),
            password = text(&config.password),
            project = text(project),
            id = text(&credential.id),
            secret = text(&credential.secret),
        )
    }

    /// The administrator's name.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.cloud.config().user
    }

    /// The project that `clouds.yaml` names.
    #[must_use]
    pub fn project(&self) -> &str {
        self.cloud.config().projects.first().map(String::as_str).unwrap_or_default()
    }

    /// The URL that the services are below.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
        for task in &self.tasks {
            task.abort();
        }
        self.cloud.0.connections.cut_all();
    }
}

#[derive(Clone)]
struct App {
    cloud: Cloud,
    stop: CancellationToken,
}

pub(super) fn serve(cloud: Cloud, listener: TcpListener) -> std::io::Result<Server> {
    let address = listener.local_addr()?;
    let stop = CancellationToken::new();
    let app = App { cloud: cloud.clone(), stop: stop.clone() };
    let router = Router::new().fallback(entry).with_state(app);
    let listener = GatedListener { listener, connections: Arc::clone(&cloud.0.connections) };
    let service = router.into_make_service_with_connect_info::<Connection>();
    let task = tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, service).await {
            tracing::error!(%error, "embedded cloud stopped");
        }
    });
    let providers = tokio::spawn(provision(cloud.clone()));
    Ok(Server { address, cloud, stop, tasks: [task, providers] })
}

async fn entry(
    State(app): State<App>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    request: Request,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let request_id = format!("req-{}", uuid::Uuid::new_v4());
    let Ok(body) = to_bytes(body, MAX_BODY).await else {
        return plain(StatusCode::PAYLOAD_TOO_LARGE);
    };
    let base_url = app.cloud.0.config.base_url.as_deref();
    let Some(call) = Call::read(&parts, body, request_id, base_url, Timestamp::now()) else {
        return plain(StatusCode::NOT_FOUND);
    };
    // A task of its own: like a real service, this one goes on working when its client has gone.
    let stop = app.stop.clone();
    let work = async move {
        tokio::select! {
            answer = work(&app.cloud, call) => answer,
            () = stop.cancelled() => None,
        }
    };
    match tokio::spawn(work).await {
        Ok(Some((answer, request_id))) => respond(answer, &request_id),
        _ => {
            connection.0.cut();
            plain(StatusCode::BAD_GATEWAY)
        }
    }
}

/// Works on a call with the faults and the latency that it meets. `None` when there shall be no answer.
async fn work(cloud: &Cloud, call: Call) -> Option<(Answer, String)> {
    let started = Instant::now();
    let outcome = match cloud.0.faults.strike(&call) {
        None => Some(serve_call(cloud, &call).await),
        Some((id, effect)) => suffer(cloud, &call, id, effect).await,
    };
    cloud.0.calls.push(CallRecord {
        service: call.service,
        path: call.path_text(),
        template: call.template(),
        status: outcome.as_ref().map(|answer| answer.status.as_u16()),
        duration: started.elapsed(),
        items: call.items(),
        method: call.method,
        query: call.query,
        request_id: call.request_id.clone(),
    });
    outcome.map(|answer| (answer, call.request_id))
}

async fn suffer(cloud: &Cloud, call: &Call, id: FaultId, effect: Effect) -> Option<Answer> {
    match effect {
        Effect::Answer { status, kind, message, retry_after } => {
            let answer = match call.service {
                Service::Identity => keystone::error(status, &message),
                Service::Network => Error::new(status, &kind, message).answer(),
                Service::LoadBalancer => octavia::Error::new(status, message).answer(),
            };
            Some(match retry_after {
                Some(seconds) => answer.with("retry-after", &seconds.to_string()),
                None => answer,
            })
        }
        Effect::Delay(time) => {
            // In a task of its own: a service does not notice that its client has gone.
            let (cloud, call) = (cloud.clone(), call.clone());
            let late = async move {
                tokio::time::sleep(time).await;
                serve_call(&cloud, &call).await
            };
            tokio::spawn(late).await.ok()
        }
        Effect::Hang => {
            cloud.0.faults.gone(id).await;
            Some(serve_call(cloud, call).await)
        }
        Effect::Drop => None,
        Effect::LoseAnswer => {
            serve_call(cloud, call).await;
            None
        }
        Effect::DoHalf => {
            let half = call.first_half();
            if half.items() > 0 && half.items() < call.items() {
                serve_call(cloud, &half).await;
            }
            let (kind, message) = INTERNAL_ERROR;
            Some(Error::new(StatusCode::INTERNAL_SERVER_ERROR, kind, message).answer())
        }
        Effect::HoldAnswer => {
            let answer = serve_call(cloud, call).await;
            cloud.0.faults.done(id);
            cloud.0.faults.gone(id).await;
            Some(answer)
        }
    }
}

async fn serve_call(cloud: &Cloud, call: &Call) -> Answer {
    let time = latency(&cloud.0.config.latency, call);
    // The semaphore is never closed; without a permit the call is only less late.
    let _worker = match &cloud.0.workers {
        Some(workers) => workers.acquire().await.ok(),
        None => None,
    };
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
    match call.service {
        Service::Identity => cloud.keystone().handle(call),
        Service::Network | Service::LoadBalancer => of_project(cloud, call),
    }
}

fn latency(latency: &Latency, call: &Call) -> std::time::Duration {
    let items = || u32::try_from(call.items()).unwrap_or(u32::MAX);
    let of_subports = || call.path.last().is_some_and(|last| last.ends_with("_subports"));
    match (call.service, &call.method) {
        (Service::Identity, &Method::POST) => latency.token,
        (_, &Method::POST) => latency.create + latency.create_item * items(),
        (_, &Method::PUT) if of_subports() => latency.update + latency.subport * items(),
        (_, &Method::PUT) => latency.update,
        (_, &Method::DELETE) => latency.delete,
        _ => latency.read,
    }
}

/// Works on a call to a service that asks Keystone who calls.
fn of_project(cloud: &Cloud, call: &Call) -> Answer {
    let token = cloud.keystone().token(call.token.as_deref(), call.now).cloned();
    // The list of versions is for everyone.
    let open = call.path.is_empty();
    let caller = match token {
        None if open => Caller { project: String::new(), now: call.now },
        None => return keystone::unauthorized(call),
        Some(token) => match token.project {
            Some(project) => Caller { project, now: call.now },
            None => {
                return forbidden(call);
            }
        },
    };
    let answer = if call.service == Service::Network {
        cloud.neutron().handle(&caller, call)
    } else {
        // What is done by now is done before the call, whether or not somebody has waited for it.
        cloud.provision();
        let mut octavia = cloud.octavia();
        octavia.handle(&mut cloud.neutron(), &caller, call, Instant::now())
    };
    if call.method != Method::GET && answer.status.is_success() {
        cloud.announce();
    }
    answer
}

/// The answer to one whose token has no project.
fn forbidden(call: &Call) -> Answer {
    if call.service == Service::Network {
        let message = format!("{} is disallowed by policy", call.method);
        return Error::new(StatusCode::FORBIDDEN, "PolicyNotAuthorized", message).answer();
    }
    octavia::Error::new(StatusCode::FORBIDDEN, "Policy does not allow this request to be performed.").answer()
}

/// Works off what the providers of load balancers are through with, when they are.
async fn provision(cloud: Cloud) {
    let mut changes = cloud.subscribe();
    loop {
        let next = cloud.provision();
        let due = async {
            match next {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}

fn respond(answer: Answer, request_id: &str) -> Response<Body> {
    let mut builder = Response::builder().status(answer.status);
    for (name, value) in answer.headers {
        builder = builder.header(name, value);
    }
    if let Ok(value) = HeaderValue::from_str(request_id) {
        builder = builder.header(HeaderName::from_static("x-openstack-request-id"), value);
    }
    let response = match answer.body {
        Some(body) => builder.header(header::CONTENT_TYPE, "application/json").body(Body::from(body.to_string())),
        None => builder.body(Body::empty()),
    };
    response.unwrap_or_else(|error| {
        tracing::error!(%error, "answer that HTTP does not allow");
        plain(StatusCode::INTERNAL_SERVER_ERROR)
    })
}

fn plain(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

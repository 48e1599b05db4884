//! The API server: a store, the resources it serves, and the Kubernetes API over HTTP in front of them.
//!
//! ```text
//! request ─▶ handle ─▶ Target, Query ─▶ fault? log ─▶ get list watch ───────────▶ store (snapshot, changes)
//!                                                     create update patch delete ─▶ prepare ─▶ store.write
//!                                                                                              │ notices
//!                                                                              gc ◀────────────┘
//! ```
//!
//! - Objects are JSON; built-in kinds pass through their Rust types, custom ones through their schema.
//! - Every write happens under the store's lock; readers get shared, immutable entries.
//! - Nothing polls: watches and the garbage collector wait for changes.

mod apply;
mod builtin;
mod calls;
mod columns;
mod crd;
mod defaults;
mod delete;
mod discovery;
mod events;
mod faults;
mod gc;
mod handle;
mod jsonpath;
mod list;
mod lists;
mod managed;
mod network_policies;
mod object;
mod openapi;
mod patch;
mod pods;
mod prepare;
mod protobuf;
mod registry;
mod request;
mod response;
mod schema;
mod selector;
mod serve;
mod services;
mod status;
mod store;
mod strategic;
mod table;
mod watch;
mod write;

use std::{sync::Arc, time::Duration};

use axum::{Router, extract::Request, middleware};
use http::{HeaderValue, header};
use serde_json::{Value, json};

pub use calls::{CallKey, CallLog};
pub use faults::{Fault, FaultEffect, FaultGuard, Faults};
pub use serve::ServerHandle;

use prepare::{FieldValidation, Scope, WriteOptions};
use registry::{Registry, ResourceDef};
use store::{Entry, Store};

/// Where Services get their cluster IPs from unless said otherwise: dual stack, IPv4 preferred.
pub const SERVICE_CIDRS: [&str; 2] = ["10.96.0.0/16", "fd00:10:96::/112"];

/// How an API server is set up.
#[derive(Clone, Debug)]
pub struct ApiServerConfig {
    /// How many changes of each resource a watch can look back.
    pub history: usize,
    /// Where Services get their cluster IPs from: one range, or one of each family, the preferred one first.
    pub service_cidrs: Vec<ipnet::IpNet>,
    /// How long after its node a pod is deleted by force (40 s in Kubernetes).
    pub orphaned_pods_after: Duration,
}

impl Default for ApiServerConfig {
    fn default() -> Self {
        let service_cidrs = SERVICE_CIDRS.iter().filter_map(|cidr| cidr.parse().ok()).collect();
        Self { history: 20_000, service_cidrs, orphaned_pods_after: Duration::from_secs(2) }
    }
}

pub(crate) struct Shared {
    config: ApiServerConfig,
    store: Store,
    registry: Registry,
    calls: CallLog,
    faults: Faults,
}

impl Shared {
    /// What follows a write: a definition brings its resources.
    fn after_write(&self, def: &ResourceDef, options: &WriteOptions, entry: &Entry) {
        if !def.is_crd() || options.dry_run || self.store.get(&def.storage, "", &entry.name).is_none() {
            return;
        }
        let defs = crd::definitions(&entry.value());
        self.registry.remove_storage(&entry.name);
        for def in defs {
            self.store.register(&def.storage, &def.selectable);
            self.registry.add(def);
        }
    }
}

/// An embedded Kubernetes API server. Clones are the same server.
#[derive(Clone)]
pub struct ApiServer {
    shared: Arc<Shared>,
}

impl Default for ApiServer {
    fn default() -> Self {
        Self::new()
    }
}

impl ApiServer {
    /// A server with the usual namespaces. Must be called within a tokio runtime, where its garbage collector runs.
    pub fn new() -> Self {
        Self::with_config(ApiServerConfig::default())
    }

    /// As [`ApiServer::new`], with a configuration.
    pub fn with_config(config: ApiServerConfig) -> Self {
        let (store, notices) = Store::new(config.history);
        let registry = Registry::default();
        for def in builtin::definitions() {
            store.register(&def.storage, &def.selectable);
            registry.add(def);
        }
        let faults = Faults::default();
        let shared = Arc::new(Shared { config, store, registry, calls: CallLog::default(), faults });
        tokio::spawn(gc::run(Arc::downgrade(&shared), notices));
        let server = Self { shared };
        for namespace in ["default", "kube-node-lease", "kube-public", "kube-system"] {
            let body = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } });
            server.create("namespaces", "", body);
        }
        server.create_own_service();
        server
    }

    /// The Service `kubernetes`, by which pods find this server; it always has the first address of the first range.
    fn create_own_service(&self) {
        let Some(address) = self.shared.config.service_cidrs.first().and_then(services::first_address) else { return };
        let port = json!({ "name": "https", "port": 443, "protocol": "TCP" });
        let body = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": "kubernetes", "labels": { "component": "apiserver", "provider": "kubernetes" } },
            "spec": { "type": "ClusterIP", "clusterIP": address.to_string(), "ports": [port] },
        });
        self.create("services", "default", body);
    }

    /// The endpoint of the Service `kubernetes`. One that only this host can reach is none.
    fn create_own_endpoint(&self, address: std::net::SocketAddr) {
        let ip = address.ip();
        if ip.is_loopback() || ip.is_unspecified() {
            return;
        }
        let port = json!({ "name": "https", "port": address.port(), "protocol": "TCP" });
        let body = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": { "name": "kubernetes", "labels": { "kubernetes.io/service-name": "kubernetes" } },
            "addressType": if ip.is_ipv4() { "IPv4" } else { "IPv6" },
            "endpoints": [{ "addresses": [ip.to_string()], "conditions": { "ready": true } }],
            "ports": [port],
        });
        self.create("endpointslices", "default", body);
    }

    fn create(&self, plural: &str, namespace: &str, body: Value) {
        let api_version = object::text(&body, "/apiVersion");
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let Some(def) = self.shared.registry.find(group, version, plural) else { return };
        let scope = Scope { def, namespace: namespace.to_owned(), name: String::new(), subresource: None };
        let options = WriteOptions {
            dry_run: false,
            manager: "kube-apiserver".into(),
            fields: FieldValidation::Ignore,
            force: false,
        };
        if let Err(error) = write::create(&self.shared, &scope, &options, body) {
            tracing::error!(%error, plural, "could not create what the API server brings");
        }
    }

    /// The API as a service, for in-process clients or for a server of one's own.
    pub fn router(&self) -> Router {
        Router::new().fallback(handle::handle).with_state(self.shared.clone())
    }

    /// Serves the API over HTTP on a listener until the handle is dropped.
    ///
    /// # Errors
    /// If the listener has no local address.
    pub fn serve(&self, listener: tokio::net::TcpListener) -> std::io::Result<ServerHandle> {
        self.create_own_endpoint(listener.local_addr()?);
        ServerHandle::start(self.clone(), listener)
    }

    /// A client that talks to this server within the process and calls itself `user_agent`. It does not notice when a
    /// [`ServerHandle`] is suspended; what should notice talks to the handle's URL.
    pub fn client(&self, user_agent: &str) -> kube::Client {
        let agent = HeaderValue::from_str(user_agent).unwrap_or(HeaderValue::from_static("unknown"));
        let named = move |mut request: Request| {
            request.headers_mut().entry(header::USER_AGENT).or_insert_with(|| agent.clone());
            std::future::ready(request)
        };
        kube::Client::new(self.router().layer(middleware::map_request(named)), "default")
    }

    /// How often each client used each verb on each resource.
    pub fn calls(&self) -> &CallLog {
        &self.shared.calls
    }

    /// Faults for chosen calls.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// The version of the last write.
    pub fn revision(&self) -> u64 {
        self.shared.store.revision()
    }

    /// Forgets the history of changes: watches from older versions are told that these have expired.
    pub fn forget_history(&self) {
        self.shared.store.forget_history();
    }
}

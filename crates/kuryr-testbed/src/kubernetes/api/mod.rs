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

/// How an API server is set up.
#[derive(Clone, Debug)]
pub struct ApiServerConfig {
    /// How many changes of each resource a watch can look back.
    pub history: usize,
    /// Where Services get their cluster IPs from.
    pub service_cidr: ipnet::Ipv4Net,
    /// How long after its node a pod is deleted by force (40 s in Kubernetes).
    pub orphaned_pods_after: Duration,
}

impl Default for ApiServerConfig {
    fn default() -> Self {
        let service_cidr = ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::new(10, 96, 0, 0), 16);
        Self { history: 20_000, service_cidr, orphaned_pods_after: Duration::from_secs(2) }
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
            server.create_namespace(namespace);
        }
        server
    }

    fn create_namespace(&self, name: &str) {
        let Some(def) = self.shared.registry.find("", "v1", "namespaces") else { return };
        let scope = Scope { def, namespace: String::new(), name: String::new(), subresource: None };
        let options = WriteOptions {
            dry_run: false,
            manager: "kube-apiserver".into(),
            fields: FieldValidation::Ignore,
            force: false,
        };
        let body: Value = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
        if let Err(error) = write::create(&self.shared, &scope, &options, body) {
            tracing::error!(%error, name, "could not create a namespace");
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

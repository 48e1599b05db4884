//! The daemon as a whole: starts its parts and stops them in order.

use crate::{
    attachments::{self, Attachments},
    config::{ConfigError, DaemonConfig, NodePorts},
    events::{self, Events},
    fullness,
    locks::Locks,
    metrics::Metrics,
    node::{Limits, Node, Plugs},
    node_ports,
    plug::{Plugger, error::chain},
    ports::Ports,
    server::{
        api, health,
        socket::{self, Peer},
    },
    status, watch,
};
use kube::Client;
use std::{io, net::SocketAddr, sync::Arc};
use tokio::net::{TcpListener, UnixListener};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Why the daemon could not start.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// A setting is wrong.
    #[error("bad configuration")]
    Config(#[from] ConfigError),
    /// The state folder cannot be used.
    #[error("cannot read what is plugged")]
    State(#[from] attachments::Error),
    /// The socket cannot be made.
    #[error("cannot listen for kuryr-cni")]
    Socket(#[from] socket::Error),
    /// The health address cannot be used.
    #[error("cannot serve health and metrics on {address}; is the port number taken? Set another HTTP address")]
    Http {
        /// The address.
        address: SocketAddr,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

/// Runs the daemon until `shutdown`. Then operations that are in flight are finished, and pods stay plugged.
///
/// # Errors
/// The daemon could not start. Once it runs it ends only by `shutdown`: an API server or a data plane that is away is
/// reported and waited for.
pub async fn run(config: DaemonConfig, client: Client, shutdown: CancellationToken) -> Result<(), DaemonError> {
    let plugger = Plugger::new(config.plug.clone());
    run_with(config, client, plugger, shutdown).await
}

async fn run_with<P: Plugs>(
    config: DaemonConfig,
    client: Client,
    plugs: P,
    shutdown: CancellationToken,
) -> Result<(), DaemonError> {
    config.check()?;
    let longest_stop = config.longest_stop();
    let DaemonConfig {
        node_name,
        socket,
        state_folder,
        http_address,
        add_timeout,
        plug_timeout,
        plug,
        node_ports: what,
        not_ready_when_full,
    } = config;
    let attachments = Attachments::load(state_folder.join("attachments"))?;
    let http = TcpListener::bind(http_address).await;
    let http = http.map_err(|source| DaemonError::Http { address: http_address, source })?;
    let listener = socket::bind(&socket)?;
    let (events, written) = Events::channel();
    let node = Arc::new(Node {
        ports: Arc::new(Ports::of_node(&node_name)),
        name: node_name,
        limits: Limits { add: add_timeout, plug: plug_timeout },
        client: client.clone(),
        ovsdb_socket: plug.ovsdb_socket,
        boot_id: attachments::boot_id(),
        plugs,
        attachments,
        locks: Locks::default(),
        events,
        metrics: Metrics::default(),
        node_ports: node_ports::State::default(),
        full: fullness::State::default(),
        stopping: shutdown.clone(),
        tasks: TaskTracker::new(),
    });
    tracing::info!(node = node.name, socket = %socket.display(), http = %http_address, attachments = node.attachments.count(), "the kuryr daemon is running");

    let background = CancellationToken::new();
    let serving = serve(&node, listener, http, shutdown.clone());
    let helping = async {
        tokio::join!(
            watch::keep(&*node, client.clone(), &background),
            status::keep(&node, &client, &background),
            background.run_until_cancelled(events::keep(client.clone(), &node.name, written)),
            background.run_until_cancelled(node.clean_gone()),
            background.run_until_cancelled(keep_node_ports(&node, client.clone(), what)),
            background.run_until_cancelled(async {
                if not_ready_when_full {
                    fullness::keep(&node.name, &node.full, &node.metrics, client.clone()).await;
                }
            }),
        );
    };
    let stopping = async {
        let work = async {
            serving.await;
            node.tasks.close();
            node.tasks.wait().await;
        };
        // Plugging has its own limit, and a client ends its request: this one is for what ignores both.
        let overdue = async {
            shutdown.cancelled().await;
            tokio::time::sleep(longest_stop).await;
        };
        tokio::select! {
            () = work => {}
            () = overdue => tracing::warn!(
                operations = node.tasks.len(),
                "stopping although operations or connections have not ended; the next start finds what they leave"
            ),
        }
        background.cancel();
    };
    tokio::join!(stopping, helping);
    // A socket file without a daemon would only make kuryr-cni's error less clear.
    if let Err(error) = std::fs::remove_file(&socket) {
        tracing::debug!(socket = %socket.display(), %error, "cannot remove the socket");
    }
    tracing::info!(node = node.name, "the kuryr daemon has stopped; pods stay plugged");
    Ok(())
}

async fn keep_node_ports<P>(node: &Node<P>, client: Client, what: NodePorts) {
    match what {
        NodePorts::Keep => node_ports::keep(node, client).await,
        NodePorts::Remove => node_ports::remove(node).await,
        NodePorts::Leave => {}
    }
}

/// Serves both addresses until `shutdown`, and then what is in flight.
async fn serve<P: Plugs>(node: &Arc<Node<P>>, listener: UnixListener, http: TcpListener, shutdown: CancellationToken) {
    let api = api::routes(Arc::clone(node)).into_make_service_with_connect_info::<Peer>();
    let api = axum::serve(listener, api).with_graceful_shutdown(shutdown.cancelled_owned());
    let health = axum::serve(http, health::routes(Arc::clone(node)));
    let api = async {
        if let Err(error) = api.await {
            tracing::error!(error = chain(&error), "the socket cannot be served");
        }
    };
    // Health is served for as long as there is something to be healthy; its connections may be idle for ever.
    tokio::select! {
        () = api => {}
        Err(error) = health.into_future() => tracing::error!(error = chain(&error), "health cannot be served"),
    }
}

#[cfg(test)]
mod api_server;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod lab;
#[cfg(test)]
mod services;
#[cfg(test)]
mod tap;
#[cfg(test)]
mod tests;

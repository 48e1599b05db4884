//! A running daemon, and requests to it over its real sockets.

use super::{DaemonError, run_with};
use crate::{
    config::{DaemonConfig, NodePorts},
    node::Plugs,
    testing::uid,
};
use kube::Client;
use serde_json::{Value, json};
use std::{net::SocketAddr, path::Path, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UnixStream},
};
use tokio_util::sync::CancellationToken;

/// A running daemon.
pub(super) struct Daemon {
    socket: std::path::PathBuf,
    http: SocketAddr,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), DaemonError>>,
}

impl Daemon {
    pub(super) async fn start<P: Plugs>(folder: &Path, client: Client, plugs: P) -> Self {
        Self::start_with(folder, client, plugs, |_| ()).await
    }

    pub(super) async fn start_with<P: Plugs>(
        folder: &Path,
        client: Client,
        plugs: P,
        change: impl FnOnce(&mut DaemonConfig),
    ) -> Self {
        let mut config = DaemonConfig::new("node-1");
        config.socket = folder.join("run/cni.sock");
        config.state_folder = folder.join("state");
        config.http_address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        // Tests without a network of their own must not touch the machine's.
        config.node_ports = NodePorts::Leave;
        change(&mut config);
        let (socket, http, shutdown) = (config.socket.clone(), config.http_address, CancellationToken::new());
        let task = tokio::spawn(run_with(config, client, plugs, shutdown.clone()));
        while !socket.exists() {
            assert!(!task.is_finished(), "the daemon has not started");
            tokio::task::yield_now().await;
        }
        Self { socket, http, shutdown, task }
    }

    pub(super) async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
        assert!(!self.socket.exists());
    }

    /// A request about the sandbox `container`, in this process's namespace, of the pod `web-<n>`.
    pub(super) async fn cni(&self, command: &str, container: &str, n: u64) -> (u16, Value) {
        self.post("/cni", &request(command, container, n).to_string()).await
    }

    pub(super) async fn post(&self, path: &str, body: &str) -> (u16, Value) {
        let stream = UnixStream::connect(&self.socket).await.unwrap();
        let length = body.len();
        http(
            stream,
            &format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"),
        )
        .await
    }

    /// The beginning of a request, and the connection on which it stands.
    pub(super) async fn begin(&self, request: &str) -> UnixStream {
        let mut stream = UnixStream::connect(&self.socket).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    pub(super) async fn get(&self, path: &str) -> (u16, Value) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        match path {
            "/attachments" => http(UnixStream::connect(&self.socket).await.unwrap(), &request).await,
            _ => http(tokio::net::TcpStream::connect(self.http).await.unwrap(), &request).await,
        }
    }

    pub(super) async fn ready(&self) {
        let ready = async {
            while self.get("/readyz").await.0 != 200 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), ready).await.expect("ready in time");
    }
}

/// Status and body, which is a string where it is not JSON.
async fn http(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, request: &str) -> (u16, Value) {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let body = serde_json::from_str(body).unwrap_or_else(|_| body.into());
    (head[9..12].parse().unwrap(), body)
}

/// What `kuryr-cni` would send about the sandbox `container` of the pod `web-<n>`.
pub(super) fn request(command: &str, container: &str, n: u64) -> Value {
    json!({
        "command": command, "containerId": container, "netns": "/proc/self/ns/net", "ifname": "eth0",
        "args": format!("K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-{n};K8S_POD_UID={}", uid(n)),
        "path": "", "config": { "cniVersion": "1.0.0", "name": "kuryr" },
    })
}

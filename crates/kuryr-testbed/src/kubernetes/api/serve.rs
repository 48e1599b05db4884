//! The server on its TCP port, which can go away for a while like one that restarts.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use axum::serve::Listener;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};

use super::ApiServer;

/// A server that listens. Dropping it ends it with all its connections.
pub struct ServerHandle {
    server: ApiServer,
    address: SocketAddr,
    up: watch::Sender<bool>,
    /// The state that the listener has reached.
    reached: watch::Receiver<bool>,
    _stop: DropGuard,
}

impl ServerHandle {
    pub(crate) fn start(server: ApiServer, listener: TcpListener) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (up, wanted) = watch::channel(true);
        let (reached_tx, reached) = watch::channel(true);
        let stop = CancellationToken::new();
        let gate = Gate {
            address,
            listener: Some(listener),
            wanted,
            reached: reached_tx,
            connections: stop.child_token(),
            stop: stop.clone(),
        };
        let router = server.router();
        let stopped = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                result = async { axum::serve(gate, router).await } => {
                    if let Err(error) = result {
                        tracing::error!(%error, "the API server ended");
                    }
                }
                () = stopped.cancelled() => {}
            }
        });
        Ok(Self { server, address, up, reached, _stop: stop.drop_guard() })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://<address>`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Drops every connection and refuses new ones until [`ServerHandle::resume`]. The store stays; its history goes.
    pub async fn suspend(&self) {
        self.up.send_replace(false);
        self.server.forget_history();
        self.reach(false).await;
    }

    /// Listens again after [`ServerHandle::suspend`].
    pub async fn resume(&self) {
        self.up.send_replace(true);
        self.reach(true).await;
    }

    /// Away for `pause`, then back, as when the API server's process is restarted.
    pub async fn restart(&self, pause: std::time::Duration) {
        self.suspend().await;
        tokio::time::sleep(pause).await;
        self.resume().await;
    }

    async fn reach(&self, state: bool) {
        // An error means that the server has ended, and with it the wait.
        let _ = self.reached.clone().wait_for(|reached| *reached == state).await;
    }
}

/// A listener that closes and opens as it is told.
struct Gate {
    address: SocketAddr,
    listener: Option<TcpListener>,
    wanted: watch::Receiver<bool>,
    reached: watch::Sender<bool>,
    /// Ends the connections accepted so far.
    connections: CancellationToken,
    stop: CancellationToken,
}

impl Gate {
    fn close(&mut self) {
        self.listener = None;
        self.connections.cancel();
        self.connections = self.stop.child_token();
        self.reached.send_replace(false);
    }

    async fn open(&mut self) {
        match TcpListener::bind(self.address).await {
            Ok(listener) => {
                self.listener = Some(listener);
                self.reached.send_replace(true);
            }
            Err(error) => {
                tracing::warn!(%error, address = %self.address, "cannot listen again yet");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
}

impl Listener for Gate {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            let wanted = *self.wanted.borrow_and_update();
            match (&self.listener, wanted) {
                (Some(listener), true) => {
                    tokio::select! {
                        accepted = listener.accept() => match accepted {
                            Ok((stream, peer)) => {
                                // Only latency is lost if the kernel refuses.
                                let _ = stream.set_nodelay(true);
                                let ended = Box::pin(self.connections.clone().cancelled_owned());
                                return (Connection { stream, ended }, peer);
                            }
                            Err(error) => tracing::warn!(%error, "cannot accept a connection"),
                        },
                        changed = self.wanted.changed() => {
                            if changed.is_err() {
                                std::future::pending::<()>().await;
                            }
                        }
                    }
                }
                (Some(_), false) => self.close(),
                (None, true) => self.open().await,
                (None, false) => {
                    if self.wanted.changed().await.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

/// A connection that ends when it is told to.
struct Connection {
    stream: TcpStream,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Connection {
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.ended.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionReset.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

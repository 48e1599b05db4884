//! Connections that can be cut from inside: to lose answers, and to be away.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use futures::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// Cuts one connection.
#[derive(Debug, Default)]
pub(super) struct Gate {
    cut: AtomicBool,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Gate {
    /// From now on nothing is read or written, and the connection is closed.
    pub(super) fn cut(&self) {
        self.cut.store(true, Ordering::Release);
        self.reader.wake();
        self.writer.wake();
    }

    fn check(&self, waker: &AtomicWaker, cx: &Context<'_>) -> io::Result<()> {
        waker.register(cx.waker());
        if self.cut.load(Ordering::Acquire) { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }
}

/// The connections of a cloud, and whether it takes new ones.
#[derive(Debug, Default)]
pub(super) struct Connections {
    away: AtomicBool,
    gates: Mutex<Vec<Weak<Gate>>>,
}

impl Connections {
    /// Away: all connections are cut and new ones are closed at once.
    pub(super) fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::Release);
        if away {
            self.cut_all();
        }
    }

    pub(super) fn cut_all(&self) {
        for gate in self.gates.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            if let Some(gate) = gate.upgrade() {
                gate.cut();
            }
        }
    }

    /// A gate for a new connection; `None` when away.
    fn admit(&self) -> Option<Arc<Gate>> {
        let gate = Arc::new(Gate::default());
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        gates.retain(|gate| gate.strong_count() > 0);
        gates.push(Arc::downgrade(&gate));
        drop(gates);
        // Looked at after the gate is in the list: whoever goes away now finds it there.
        (!self.away.load(Ordering::Acquire)).then_some(gate)
    }
}

/// A listener whose connections have gates.
#[derive(Debug)]
pub(super) struct GatedListener {
    pub(super) listener: TcpListener,
    pub(super) connections: Arc<Connections>,
}

impl Listener for GatedListener {
    type Io = GatedStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            // The trait's accept of a TcpListener waits out errors such as too many open files.
            let (stream, address) = Listener::accept(&mut self.listener).await;
            if let Some(gate) = self.connections.admit() {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "connection without TCP_NODELAY");
                }
                return (GatedStream { stream, gate }, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection with a gate.
#[derive(Debug)]
pub(super) struct GatedStream {
    stream: TcpStream,
    gate: Arc<Gate>,
}

impl AsyncRead for GatedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.gate.check(&self.gate.reader, cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for GatedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.gate.check(&self.gate.writer, cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.gate.check(&self.gate.writer, cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// What a handler knows of the connection that its request came on.
#[derive(Debug, Clone)]
pub(super) struct Connection(pub(super) Arc<Gate>);

impl Connected<IncomingStream<'_, GatedListener>> for Connection {
    fn connect_info(stream: IncomingStream<'_, GatedListener>) -> Self {
        Self(Arc::clone(&stream.io().gate))
    }
}

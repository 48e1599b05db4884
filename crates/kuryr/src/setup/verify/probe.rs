//! Packets: a server in one namespace, and attempts to reach it from others.

use anyhow::Context as _;
use kuryr_node::netns;
use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    time::Duration,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::task::AbortOnDropHandle;

/// The port numbers at which the server answers.
pub(super) const NUMBERS: [u16; 3] = [41_000, 41_001, 41_002];

/// How long an answer may take: shorter than TCP needs to repeat itself, so one attempt is one packet.
const PATIENCE: Duration = Duration::from_millis(700);

/// One attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Probe {
    Tcp(u16),
    Udp(u16),
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The server answered.
    Passed,
    /// Nothing came back.
    Dropped,
}

/// Servers that send back what they get, until they are dropped.
pub(super) struct Servers {
    _tasks: Vec<AbortOnDropHandle<()>>,
}

impl Servers {
    pub(super) fn start(netns: &Path, addresses: &[IpAddr]) -> anyhow::Result<Self> {
        let mut tasks = Vec::new();
        for at in addresses.iter().flat_map(|address| NUMBERS.map(|number| SocketAddr::new(*address, number))) {
            let bind = move || -> io::Result<(TcpListener, UdpSocket)> {
                let (listener, socket) = (TcpListener::bind(at)?, UdpSocket::bind(at)?);
                listener.set_nonblocking(true)?;
                socket.set_nonblocking(true)?;
                Ok((listener, socket))
            };
            let (listener, socket) = netns::run(netns, bind)?.with_context(|| format!("nobody can listen at {at}"))?;
            let (listener, socket) =
                (tokio::net::TcpListener::from_std(listener)?, tokio::net::UdpSocket::from_std(socket)?);
            tasks.push(AbortOnDropHandle::new(tokio::spawn(serve_tcp(listener))));
            tasks.push(AbortOnDropHandle::new(tokio::spawn(serve_udp(socket))));
        }
        Ok(Self { _tasks: tasks })
    }
}

async fn serve_tcp(listener: tokio::net::TcpListener) {
    let mut open = tokio::task::JoinSet::new();
    while let Ok((mut stream, _)) = listener.accept().await {
        open.spawn(async move {
            let mut buffer = [0; 64];
            while let Ok(length) = stream.read(&mut buffer).await {
                if length == 0 || stream.write_all(&buffer[..length]).await.is_err() {
                    break;
                }
            }
        });
    }
}

async fn serve_udp(socket: tokio::net::UdpSocket) {
    let mut buffer = [0; 64];
    loop {
        // What an earlier answer met comes back as an error here, and is of no concern.
        if let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let _ = socket.send_to(&buffer[..length], from).await;
        }
    }
}

/// Makes an attempt from a namespace.
pub(super) async fn send(netns: &Path, to: IpAddr, probe: Probe) -> anyhow::Result<Outcome> {
    let netns = netns.to_owned();
    let work = move || -> anyhow::Result<Outcome> {
        netns::Namespace::open(&netns)?.enter()?;
        let tried = match probe {
            Probe::Tcp(number) => TcpStream::connect_timeout(&SocketAddr::new(to, number), PATIENCE).map(drop),
            Probe::Udp(number) => ask(SocketAddr::new(to, number)),
        };
        outcome(tried)
    };
    netns::spawn(work).await?
}

fn ask(to: SocketAddr) -> io::Result<()> {
    let any: IpAddr = if to.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(to)?;
    socket.send(b"?")?;
    socket.recv(&mut [0; 8]).map(drop)
}

/// Silence is an answer, too; what else may come is not.
fn outcome(tried: io::Result<()>) -> anyhow::Result<Outcome> {
    match tried {
        Ok(()) => Ok(Outcome::Passed),
        Err(error) if matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock) => {
            Ok(Outcome::Dropped)
        }
        // A firewall that says no, or a neighbour that does not answer.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::HostUnreachable
                    | io::ErrorKind::NetworkUnreachable
                    | io::ErrorKind::PermissionDenied
            ) =>
        {
            Ok(Outcome::Dropped)
        }
        Err(error) => Err(error).context("a packet cannot be sent"),
    }
}

/// Opens a connection that is kept.
pub(super) async fn connect(netns: &Path, to: IpAddr, number: u16) -> anyhow::Result<TcpStream> {
    let netns = netns.to_owned();
    let work = move || -> anyhow::Result<TcpStream> {
        netns::Namespace::open(&netns)?.enter()?;
        let stream = TcpStream::connect_timeout(&SocketAddr::new(to, number), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    netns::spawn(work).await?
}

/// Whether something sent through a connection comes back.
pub(super) async fn still_works(stream: &TcpStream) -> anyhow::Result<Outcome> {
    let mut stream = stream.try_clone()?;
    let work = move || -> io::Result<()> {
        stream.write_all(b"?")?;
        match stream.read(&mut [0; 64])? {
            0 => Err(io::ErrorKind::ConnectionRefused.into()),
            _ => Ok(()),
        }
    };
    let tried = netns::spawn(work).await?;
    match tried {
        Ok(()) => Ok(Outcome::Passed),
        // However it ends, it has ended.
        Err(_) => Ok(Outcome::Dropped),
    }
}

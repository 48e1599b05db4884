//! Questions asked with packets, from inside a namespace.
//!
//! A socket belongs for ever to the namespace of the thread that makes it. So each probe makes its socket on a thread that
//! has entered, and works with it from the caller's runtime.

pub mod icmp;

use kuryr_node::netns;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::{
    io,
    net::{self, IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream, UdpSocket},
    task::{JoinHandle, JoinSet},
    time::{Instant, timeout, timeout_at},
};

pub use icmp::ping;

/// Why a probe got no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing came back in time: packets were dropped.
    #[error("{target} did not answer in {waited:.1?}")]
    Silent {
        /// Who was asked.
        target: String,
        /// How long.
        waited: Duration,
    },
    /// The network or the other side said no.
    #[error("{target} cannot be talked to")]
    Refused {
        /// Who was asked.
        target: String,
        /// What was said.
        #[source]
        source: io::Error,
    },
    /// The probe itself could not be made.
    #[error("no socket in namespace {}", .netns.display())]
    Socket {
        /// The namespace.
        netns: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The namespace could not be used.
    #[error(transparent)]
    Namespace(#[from] netns::Error),
}

impl Error {
    /// Whether packets were dropped, which is what security groups do.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        matches!(self, Self::Silent { .. })
    }
}

/// A TCP connection to an [`Echo`].
#[derive(Debug)]
pub struct Session {
    stream: TcpStream,
    target: SocketAddr,
}

/// Makes something in a namespace.
async fn inside<T: Send + 'static>(
    netns: &Path,
    make: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Error> {
    let path = netns.to_owned();
    let made = netns::spawn(move || netns::run(&path, make)).await??;
    made.map_err(|source| Error::Socket { netns: netns.to_owned(), source })
}

/// Opens a TCP connection from `netns` to `target`.
///
/// # Errors
/// [`Error::Silent`] after `patience`, or what the network says.
pub async fn connect(netns: &Path, target: SocketAddr, patience: Duration) -> Result<Session, Error> {
    let family = if target.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let make = move || {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket: OwnedFd = socket(family, SockType::Stream, flags, None)?;
        Ok(net::TcpStream::from(socket))
    };
    let socket = TcpSocket::from_std_stream(inside(netns, make).await?);
    match timeout(patience, socket.connect(target)).await {
        Ok(Ok(stream)) => Ok(Session { stream, target }),
        Ok(Err(source)) => Err(Error::Refused { target: target.to_string(), source }),
        Err(_) => Err(Error::Silent { target: target.to_string(), waited: patience }),
    }
}

/// Opens a TCP connection and has one word echoed; how long both took.
///
/// # Errors
/// As of [`connect`].
pub async fn reach(netns: &Path, target: SocketAddr, patience: Duration) -> Result<Duration, Error> {
    let start = Instant::now();
    connect(netns, target, patience).await?.exchange(patience).await?;
    Ok(start.elapsed())
}

impl Session {
    /// Has one word echoed over the open connection.
    ///
    /// # Errors
    /// [`Error::Silent`] after `patience`, or why the connection ended.
    pub async fn exchange(&mut self, patience: Duration) -> Result<(), Error> {
        let word = fastrand::u64(..).to_ne_bytes();
        let refused = |source| Error::Refused { target: self.target.to_string(), source };
        let deadline = Instant::now() + patience;
        let answer = async {
            self.stream.write_all(&word).await?;
            // What an earlier exchange gave up waiting for may come first.
            let mut answer = [0; 8];
            while answer != word {
                self.stream.read_exact(&mut answer).await?;
            }
            Ok(())
        };
        match timeout_at(deadline, answer).await {
            Ok(done) => done.map_err(refused),
            Err(_) => Err(Error::Silent { target: self.target.to_string(), waited: patience }),
        }
    }
}

/// A server that sends back whatever it gets, over TCP and UDP. Ends when dropped.
#[derive(Debug)]
pub struct Echo {
    address: SocketAddr,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Echo {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Listens in `netns` and echoes.
///
/// # Errors
/// The address cannot be listened on.
pub async fn listen(netns: &Path, address: SocketAddr) -> Result<Echo, Error> {
    let make = move || {
        let tcp = net::TcpListener::bind(address)?;
        let udp = net::UdpSocket::bind(SocketAddr::new(address.ip(), tcp.local_addr()?.port()))?;
        tcp.set_nonblocking(true)?;
        udp.set_nonblocking(true)?;
        Ok((tcp, udp))
    };
    let (tcp, udp) = inside(netns, make).await?;
    let failed = |source| Error::Socket { netns: netns.to_owned(), source };
    let address = tcp.local_addr().map_err(failed)?;
    let (tcp, udp) = (TcpListener::from_std(tcp).map_err(failed)?, UdpSocket::from_std(udp).map_err(failed)?);
    Ok(Echo { address, tasks: [tokio::spawn(serve_tcp(tcp)), tokio::spawn(serve_udp(udp))] })
}

async fn serve_tcp(listener: TcpListener) {
    // Sessions end with the server: they are the set's.
    let mut sessions = JoinSet::new();
    while let Ok((mut stream, _)) = listener.accept().await {
        while sessions.try_join_next().is_some() {}
        sessions.spawn(async move {
            let (mut read, mut write) = stream.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
        });
    }
}

async fn serve_udp(socket: UdpSocket) {
    let mut buffer = vec![0; 65_536];
    loop {
        // An error is an ICMP message about an answer of ours; the next question may fare better.
        if let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let _ = socket.send_to(&buffer[..length], from).await;
        }
    }
}

/// Has one datagram echoed; how long that took. `source` is the address to send from, any if none.
///
/// # Errors
/// [`Error::Silent`] after `patience`, or what the network says.
pub async fn datagram(
    netns: &Path,
    source: Option<IpAddr>,
    target: SocketAddr,
    patience: Duration,
) -> Result<Duration, Error> {
    let any = if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let source = source.unwrap_or(any);
    let make = move || {
        let socket = net::UdpSocket::bind((source, 0))?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    let socket = inside(netns, make).await?;
    let socket = UdpSocket::from_std(socket).map_err(|source| Error::Socket { netns: netns.to_owned(), source })?;
    let start = Instant::now();
    let word = fastrand::u64(..).to_ne_bytes();
    let answer = async {
        socket.connect(target).await?;
        socket.send(&word).await?;
        let mut answer = [0; 16];
        while socket.recv(&mut answer).await? != word.len() || answer[..word.len()] != word {}
        Ok(())
    };
    match timeout(patience, answer).await {
        Ok(Ok(())) => Ok(start.elapsed()),
        Ok(Err(source)) => Err(Error::Refused { target: target.to_string(), source }),
        Err(_) => Err(Error::Silent { target: target.to_string(), waited: patience }),
    }
}

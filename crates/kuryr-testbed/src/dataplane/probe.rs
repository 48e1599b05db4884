//! Questions asked with packets, from inside a namespace.
//!
//! A socket belongs for ever to the namespace of the thread that makes it. So each probe makes its socket on a thread that
//! has entered, and works with it from the caller's runtime.

mod echo;
mod guard;
pub mod icmp;
mod many;
pub mod sctp;
mod udp;

use echo::{WHO, WORD};
use kuryr_node::netns;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::{
    io,
    net::{self, SocketAddr},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{Instant, timeout},
};

pub use echo::{Answer, Echo, listen, listen_as};
pub use guard::Guards;
pub use icmp::ping;
pub use many::{Outcome, Question, Transport, ask_all};
pub use udp::{Datagrams, datagram};

/// More words than any answer has.
const WORDS: usize = 1024;

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

/// Opens a TCP connection and asks who answers.
///
/// # Errors
/// As of [`connect`].
pub async fn who(netns: &Path, target: SocketAddr, patience: Duration) -> Result<Answer, Error> {
    connect(netns, target, patience).await?.who(patience).await
}

/// Asks an HTTP server for whatever it has, and gives the status of its answer.
///
/// # Errors
/// As of [`connect`].
pub async fn http_status(netns: &Path, target: SocketAddr, patience: Duration) -> Result<u16, Error> {
    let ask = async |stream: &mut TcpStream| {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "this is no HTTP"))
    };
    connect(netns, target, patience).await?.within(patience, ask).await
}

impl Session {
    /// Has one word echoed over the open connection.
    ///
    /// # Errors
    /// [`Error::Silent`] after `patience`, or why the connection ended.
    pub async fn exchange(&mut self, patience: Duration) -> Result<(), Error> {
        self.within(patience, async |stream| stream_word(stream, fastrand::u64(..).to_ne_bytes()).await).await
    }

    /// Asks who answers.
    ///
    /// # Errors
    /// As of [`Session::exchange`].
    pub async fn who(&mut self, patience: Duration) -> Result<Answer, Error> {
        let ask = async |stream: &mut TcpStream| {
            stream_word(stream, WHO).await?;
            let words = stream.read_u64().await?;
            let mut text = vec![0; usize::try_from(words).unwrap_or_default().min(WORDS) * WORD];
            stream.read_exact(&mut text).await?;
            Answer::from_words(&text)
        };
        self.within(patience, ask).await
    }

    async fn within<T>(
        &mut self,
        patience: Duration,
        ask: impl AsyncFnOnce(&mut TcpStream) -> io::Result<T>,
    ) -> Result<T, Error> {
        match timeout(patience, ask(&mut self.stream)).await {
            Ok(done) => done.map_err(|source| Error::Refused { target: self.target.to_string(), source }),
            Err(_) => Err(Error::Silent { target: self.target.to_string(), waited: patience }),
        }
    }
}

/// Sends a word and waits for it to come back.
async fn stream_word(stream: &mut TcpStream, word: [u8; WORD]) -> io::Result<()> {
    stream.write_all(&word).await?;
    // What an earlier exchange gave up waiting for may come first.
    let mut answer = [0; WORD];
    while answer != word {
        stream.read_exact(&mut answer).await?;
    }
    Ok(())
}

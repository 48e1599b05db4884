//! Many questions at once, from one namespace: a table of who reaches whom is asked in the time of its slowest answer.

use super::{Error, Session, inside, sctp};
use futures::future::join_all;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::{
    fmt,
    io::{self, ErrorKind},
    net::{self, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
    path::Path,
    time::Duration,
};
use tokio::{
    net::{TcpSocket, UdpSocket},
    time::{Instant, timeout, timeout_at},
};

/// After how long a datagram is sent again.
const AGAIN: Duration = Duration::from_millis(150);

/// What carries a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP, from a raw socket.
    Sctp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// A question to a server that echoes.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// What carries it.
    pub transport: Transport,
    /// Where it is sent.
    pub target: SocketAddr,
    /// How long an answer is waited for.
    pub patience: Duration,
}

/// What came of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered.
    Answered,
    /// A TCP connection opened, and then nothing passed.
    Opened,
    /// The other side said no: packets passed, both ways.
    Refused,
    /// Nothing came back.
    Silent,
}

enum Prepared {
    Tcp(net::TcpStream),
    Udp(net::UdpSocket),
    Sctp,
}

/// Asks all of them at the same time, each from a socket of its own, made in `netns`.
///
/// # Errors
/// The namespace cannot be entered, or has no room for sockets.
pub async fn ask_all(netns: &Path, questions: &[Question]) -> Result<Vec<Outcome>, Error> {
    let wanted: Vec<(Transport, bool)> = questions.iter().map(|one| (one.transport, one.target.is_ipv6())).collect();
    let prepare = move || wanted.into_iter().map(|(transport, v6)| prepared(transport, v6)).collect::<io::Result<_>>();
    let sockets: Vec<Prepared> = inside(netns, prepare).await?;
    Ok(join_all(sockets.into_iter().zip(questions).map(|(socket, question)| ask(netns, socket, *question))).await)
}

fn prepared(transport: Transport, v6: bool) -> io::Result<Prepared> {
    Ok(match transport {
        Transport::Tcp => {
            let family = if v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            let socket: OwnedFd = socket(family, SockType::Stream, flags, None)?;
            Prepared::Tcp(socket.into())
        }
        Transport::Udp => {
            let any = if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
            let socket = net::UdpSocket::bind(SocketAddr::new(any, 0))?;
            socket.set_nonblocking(true)?;
            Prepared::Udp(socket)
        }
        Transport::Sctp => Prepared::Sctp,
    })
}

async fn ask(netns: &Path, socket: Prepared, question: Question) -> Outcome {
    match socket {
        Prepared::Tcp(socket) => connect(TcpSocket::from_std_stream(socket), question).await,
        Prepared::Udp(socket) => match UdpSocket::from_std(socket) {
            Ok(socket) => datagram(&socket, question).await.unwrap_or_else(|error| said(&error)),
            Err(error) => said(&error),
        },
        Prepared::Sctp => match sctp::reach(netns, question.target, question.patience).await {
            Ok(_) => Outcome::Answered,
            Err(Error::Refused { source, .. }) => said(&source),
            Err(_) => Outcome::Silent,
        },
    }
}

/// That there is no way is the sender's own word, and not an answer.
fn said(error: &io::Error) -> Outcome {
    match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Outcome::Refused,
        _ => Outcome::Silent,
    }
}

async fn connect(socket: TcpSocket, Question { target, patience, .. }: Question) -> Outcome {
    let until = Instant::now() + patience;
    match timeout_at(until, socket.connect(target)).await {
        Ok(Ok(stream)) => {
            let exchanged = Session { stream, target }.exchange(until - Instant::now()).await;
            if exchanged.is_ok() { Outcome::Answered } else { Outcome::Opened }
        }
        Ok(Err(error)) => said(&error),
        Err(_) => Outcome::Silent,
    }
}

async fn datagram(socket: &UdpSocket, Question { target, patience, .. }: Question) -> io::Result<Outcome> {
    let until = Instant::now() + patience;
    socket.connect(target).await?;
    let (word, mut answer) = (fastrand::u64(..).to_ne_bytes(), [0; 64]);
    while Instant::now() < until {
        socket.send(&word).await?;
        let wait = AGAIN.min(until - Instant::now());
        if let Ok(received) = timeout(wait, socket.recv(&mut answer)).await {
            received?;
            return Ok(Outcome::Answered);
        }
    }
    Ok(Outcome::Silent)
}

//! SCTP over raw sockets: kernels without it translate, track and filter it all the same.
//!
//! As much of RFC 9260 as firewalls look at: an association is set up with its four chunks and then kept alive with
//! heartbeats, which are the question and the answer of a probe.

use super::{Error, inside};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use std::{
    io,
    net::{self, IpAddr, SocketAddr},
    os::fd::OwnedFd,
    path::Path,
    time::Duration,
};
use tokio::{
    net::UdpSocket,
    task::JoinHandle,
    time::{Instant, timeout},
};

/// Port numbers, tag, checksum.
const HEADER: usize = 12;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const HEARTBEAT: u8 = 4;
const HEARTBEAT_ACK: u8 = 5;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;

/// A packet of one chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Packet {
    from: u16,
    to: u16,
    tag: u32,
    chunk: u8,
    value: Vec<u8>,
}

impl Packet {
    fn to_bytes(&self) -> Vec<u8> {
        let length = u16::try_from(self.value.len() + 4).unwrap_or(u16::MAX);
        let mut bytes = [
            self.from.to_be_bytes().as_slice(),
            &self.to.to_be_bytes(),
            &self.tag.to_be_bytes(),
            &[0; 4],
            &[self.chunk, 0],
            &length.to_be_bytes(),
            &self.value,
        ]
        .concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        let sum = crc32c(&bytes);
        bytes[8..HEADER].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// The first chunk of a packet; none if it is broken.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let word = |at| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let tag = u32::from_be_bytes(bytes.get(4..8)?.try_into().ok()?);
        let length = usize::from(word(HEADER + 2)?);
        let value = bytes.get(HEADER + 4..HEADER + length)?.to_vec();
        Some(Self { from: word(0)?, to: word(2)?, tag, chunk: *bytes.get(HEADER)?, value })
    }

    /// What goes back to where this came from.
    fn answer(&self, tag: u32, chunk: u8, value: Vec<u8>) -> Self {
        Self { from: self.to, to: self.from, tag, chunk, value }
    }
}

/// What INIT and its answer say: the tag that this side wants to see, then window, streams and a first number.
fn init(tag: u32, more: &[u8]) -> Vec<u8> {
    [tag.to_be_bytes().as_slice(), &65_535_u32.to_be_bytes(), &[0, 1, 0, 1], &1_u32.to_be_bytes(), more].concat()
}

fn initiated_tag(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.get(..4)?.try_into().ok()?))
}

/// The cookie is the first parameter of an answer to INIT: type 7, length, cookie.
fn cookie(value: &[u8]) -> Option<Vec<u8>> {
    let parameter = value.get(16..)?;
    let length = u16::from_be_bytes(parameter.get(2..4)?.try_into().ok()?);
    parameter.get(4..usize::from(length)).map(<[u8]>::to_vec)
}

/// RFC 9260, appendix A.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |sum: u32| if sum & 1 == 1 { sum >> 1 ^ 0x82f6_3b78 } else { sum >> 1 };
    !bytes.iter().fold(!0, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), |sum, _| step(sum)))
}

/// A raw socket; its packets begin with the header of SCTP.
struct Raw {
    socket: UdpSocket,
    v6: bool,
}

impl Raw {
    async fn open(netns: &Path, v6: bool) -> Result<Self, Error> {
        let make = move || {
            let family = if v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            let socket: OwnedFd = socket(family, SockType::Raw, flags, SockProtocol::Sctp)?;
            // It sends and receives like one for UDP.
            Ok(net::UdpSocket::from(socket))
        };
        let failed = |source| Error::Socket { netns: netns.to_owned(), source };
        Ok(Self { socket: UdpSocket::from_std(inside(netns, make).await?).map_err(failed)?, v6 })
    }

    async fn send(&self, to: IpAddr, packet: &Packet) -> io::Result<()> {
        self.socket.send_to(&packet.to_bytes(), SocketAddr::new(to, 0)).await?;
        Ok(())
    }

    async fn receive(&self) -> io::Result<(IpAddr, Packet)> {
        let mut buffer = [0; 1500];
        loop {
            let (length, from) = self.socket.recv_from(&mut buffer).await?;
            // IPv4 raw sockets see the IP header, whose length in words is in its first byte.
            let start = if self.v6 { 0 } else { usize::from(buffer[0] & 0x0f) * 4 };
            if let Some(packet) = buffer[..length].get(start..).and_then(Packet::from_bytes) {
                return Ok((from.ip(), packet));
            }
        }
    }
}

/// A server that accepts associations and answers heartbeats. Ends when dropped.
#[derive(Debug)]
pub struct Server {
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Listens in `netns`, on all its addresses of the family of `address`, at its port number.
///
/// # Errors
/// A raw socket cannot be made.
pub async fn listen(netns: &Path, address: SocketAddr) -> Result<Server, Error> {
    let raw = Raw::open(netns, address.is_ipv6()).await?;
    Ok(Server { task: tokio::spawn(serve(raw, address.port())) })
}

/// Keeps no state: a cookie is the client's tag.
async fn serve(raw: Raw, number: u16) {
    let own = fastrand::u32(1..);
    let mut peers = std::collections::BTreeMap::new();
    loop {
        // An error is an ICMP message about an answer of ours; the next question may fare better.
        let Ok((from, packet)) = raw.receive().await else { continue };
        if packet.to != number {
            continue;
        }
        let peer = (from, packet.from);
        let answer = match packet.chunk {
            INIT => initiated_tag(&packet.value).map(|tag| {
                let cookie = [&[0, 7, 0, 8], tag.to_be_bytes().as_slice()].concat();
                packet.answer(tag, INIT_ACK, init(own, &cookie))
            }),
            COOKIE_ECHO => initiated_tag(&packet.value).map(|tag| {
                peers.insert(peer, tag);
                packet.answer(tag, COOKIE_ACK, Vec::new())
            }),
            HEARTBEAT => peers.get(&peer).map(|tag| packet.answer(*tag, HEARTBEAT_ACK, packet.value.clone())),
            _ => None,
        };
        if let Some(answer) = answer {
            let _ = raw.send(from, &answer).await;
        }
    }
}

/// An association with a [`Server`].
pub struct Association {
    raw: Raw,
    target: SocketAddr,
    number: u16,
    tag: u32,
    /// What the other side wants to see.
    theirs: u32,
}

/// Sets up an association from `netns` with `target`.
///
/// # Errors
/// [`Error::Silent`] after `patience`, or what the network says.
pub async fn connect(netns: &Path, target: SocketAddr, patience: Duration) -> Result<Association, Error> {
    let raw = Raw::open(netns, target.is_ipv6()).await?;
    let (number, tag) = (fastrand::u16(32_768..61_000), fastrand::u32(1..));
    let mut association = Association { raw, target, number, tag, theirs: 0 };
    let set_up = async {
        let answer = association.ask(INIT, init(tag, &[]), INIT_ACK).await?;
        let malformed = || io::Error::new(io::ErrorKind::InvalidData, "not an answer to INIT");
        let (theirs, cookie) = initiated_tag(&answer).zip(cookie(&answer)).ok_or_else(malformed)?;
        association.theirs = theirs;
        association.ask(COOKIE_ECHO, cookie, COOKIE_ACK).await
    };
    within(target, patience, set_up).await?;
    Ok(association)
}

/// Sets up an association and has one heartbeat answered; how long both took.
///
/// # Errors
/// As of [`connect`].
pub async fn reach(netns: &Path, target: SocketAddr, patience: Duration) -> Result<Duration, Error> {
    let start = Instant::now();
    connect(netns, target, patience).await?.exchange(patience).await?;
    Ok(start.elapsed())
}

impl Association {
    /// Has one heartbeat answered.
    ///
    /// # Errors
    /// As of [`connect`].
    pub async fn exchange(&mut self, patience: Duration) -> Result<(), Error> {
        // One parameter: type 1, length, whatever.
        let beat = [&[0, 1, 0, 12], fastrand::u64(..).to_be_bytes().as_slice()].concat();
        let target = self.target;
        within(target, patience, async {
            while self.ask(HEARTBEAT, beat.clone(), HEARTBEAT_ACK).await? != beat {}
            Ok(())
        })
        .await
    }

    /// Sends a chunk and waits for its answer.
    async fn ask(&mut self, chunk: u8, value: Vec<u8>, answered: u8) -> io::Result<Vec<u8>> {
        let packet = Packet { from: self.number, to: self.target.port(), tag: self.theirs, chunk, value };
        self.raw.send(self.target.ip(), &packet).await?;
        loop {
            let (from, packet) = self.raw.receive().await?;
            let ours = (from, packet.from, packet.to) == (self.target.ip(), self.target.port(), self.number);
            if ours && packet.tag == self.tag && packet.chunk == answered {
                return Ok(packet.value);
            }
        }
    }
}

async fn within<T>(
    target: SocketAddr,
    patience: Duration,
    asked: impl Future<Output = io::Result<T>>,
) -> Result<T, Error> {
    match timeout(patience, asked).await {
        Ok(answered) => answered.map_err(|source| Error::Refused { target: target.to_string(), source }),
        Err(_) => Err(Error::Silent { target: target.to_string(), waited: patience }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_read_back_and_sums_up_as_the_standard_says() {
        // RFC 3720, B.4: 32 bytes of zeroes.
        assert_eq!(crc32c(&[0; 32]).to_le_bytes(), [0xaa, 0x36, 0x91, 0x8a]);
        for length in 0..6 {
            let packet = Packet { from: 1, to: 2, tag: 3, chunk: HEARTBEAT, value: vec![7; length] };
            let bytes = packet.to_bytes();
            assert_eq!(bytes.len() % 4, 0);
            assert_eq!(Packet::from_bytes(&bytes), Some(packet));
        }
        assert_eq!(Packet::from_bytes(&[0; 14]), None);
    }
}

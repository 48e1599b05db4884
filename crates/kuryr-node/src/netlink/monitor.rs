//! Being told when links appear, change and go.

use super::{
    error::Error,
    link::{By, Link},
    socket::{Socket, messages},
};
use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, socket},
};
use std::{
    io,
    os::unix::net,
    time::{Duration, Instant},
};
use tokio::net::UnixDatagram;

/// The group of link events, as a bit.
const RTMGRP_LINK: u32 = 1;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const AF_UNSPEC: u8 = 0;
const DATAGRAM: usize = 64 * 1024;
const DOING: &str = "watch links";

/// What happened to a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// It appeared or changed.
    Changed(Link),
    /// It is gone from this namespace.
    Gone(Link),
    /// Events came faster than they were read and some are lost: list the links again.
    Lost,
}

/// A subscription to the link events of one namespace.
#[derive(Debug)]
pub struct Monitor {
    // Any datagram socket can be read as one of the Unix family.
    socket: UnixDatagram,
    buffer: Vec<u8>,
}

/// A subscription made in a namespace's thread, to be used from a tokio task.
#[derive(Debug)]
pub struct Subscription(net::UnixDatagram);

impl Subscription {
    /// Subscribes to the link events of the calling thread's namespace. Nothing that happens from here on is missed.
    ///
    /// # Errors
    /// The kernel gives no socket.
    pub fn open() -> Result<Self, Error> {
        Ok(Self(subscribe(RTMGRP_LINK, DOING)?))
    }
}

/// A socket, not blocking, that is told of the events of `groups` in the calling thread's namespace.
pub(super) fn subscribe(groups: u32, doing: &str) -> Result<net::UnixDatagram, Error> {
    let failed = |errno: Errno| Error::Socket { doing: doing.into(), source: errno.into() };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute).map_err(failed)?;
    bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &NetlinkAddr::new(0, groups)).map_err(failed)?;
    Ok(socket.into())
}

/// Waits for the next datagram of such a socket; `None` if events came faster than they were read and some are lost.
pub(super) async fn receive<'a>(
    socket: &UnixDatagram,
    buffer: &'a mut Vec<u8>,
    doing: &str,
) -> Result<Option<&'a [u8]>, Error> {
    buffer.resize(DATAGRAM, 0);
    loop {
        match socket.recv(buffer).await {
            Ok(length) => return Ok(Some(&buffer[..length])),
            Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(Error::Socket { doing: doing.into(), source }),
        }
    }
}

impl Subscription {
    /// Blocks until the link of that index runs, however long the kernel takes to notice that both its ends are on.
    /// False: it did not within `patience`, or is gone. `socket` is of the same namespace, the subscription older than
    /// what made the link run.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn wait_running(self, socket: &mut Socket, index: u32, patience: Duration) -> Result<bool, Error> {
        wait(&self.0, "wait for a link", patience, || {
            Ok(match socket.link(By::Index(index))? {
                Some(link) if link.running => Some(true),
                Some(_) => None,
                None => Some(false),
            })
        })
    }
}

/// Blocks until `look` says how it ended; it looks again whenever `socket` has heard of anything. False after `patience`.
pub(super) fn wait(
    socket: &net::UnixDatagram,
    doing: &str,
    patience: Duration,
    mut look: impl FnMut() -> Result<Option<bool>, Error>,
) -> Result<bool, Error> {
    let failed = |source| Error::Socket { doing: doing.into(), source };
    socket.set_nonblocking(false).map_err(failed)?;
    let deadline = Instant::now() + patience;
    let mut buffer = vec![0; DATAGRAM];
    loop {
        if let Some(end) = look()? {
            return Ok(end);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        socket.set_read_timeout(Some(left)).map_err(failed)?;
        match socket.recv(&mut buffer) {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {}
            Err(error) => return Err(failed(error)),
        }
    }
}

impl Monitor {
    /// Reads a subscription from the current tokio runtime.
    ///
    /// # Errors
    /// The runtime cannot take the socket.
    pub fn new(subscription: Subscription) -> Result<Self, Error> {
        let socket =
            UnixDatagram::from_std(subscription.0).map_err(|source| Error::Socket { doing: DOING.into(), source })?;
        Ok(Self { socket, buffer: Vec::new() })
    }

    /// Waits for the next events. May be dropped while it waits: no event is lost by that.
    ///
    /// # Errors
    /// The socket failed for good.
    pub async fn next(&mut self) -> Result<Vec<LinkEvent>, Error> {
        loop {
            let events = match receive(&self.socket, &mut self.buffer, DOING).await? {
                Some(datagram) => events(datagram),
                None => vec![LinkEvent::Lost],
            };
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }
}

fn events(datagram: &[u8]) -> Vec<LinkEvent> {
    let mut events = Vec::new();
    for message in messages(datagram) {
        let Ok(message) = message else { return vec![LinkEvent::Lost] };
        let body = message.payload();
        // A bridge tells of its ports on the same channel, with its own family: those are no links that come or go.
        if body.first() != Some(&AF_UNSPEC) {
            continue;
        }
        match (message.message_type(), Link::read(body)) {
            (RTM_NEWLINK, Some(link)) => events.push(LinkEvent::Changed(link)),
            (RTM_DELLINK, Some(link)) => events.push(LinkEvent::Gone(link)),
            (RTM_NEWLINK | RTM_DELLINK, None) => events.push(LinkEvent::Lost),
            _ => {}
        }
    }
    events
}

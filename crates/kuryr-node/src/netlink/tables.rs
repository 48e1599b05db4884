//! Being told when nftables change.

use super::error::Error;
use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, socket},
};
use std::{
    io,
    os::{fd::AsRawFd, unix::net},
};
use tokio::net::UnixDatagram;

/// `NFNLGRP_NFTABLES`, as a bit.
const NFTABLES: u32 = 1 << (7 - 1);
const DATAGRAM: usize = 64 * 1024;

/// A subscription to the changes of the table of one name, of any family.
#[derive(Debug)]
pub struct Tables {
    // Any datagram socket can be read as one of the Unix family.
    socket: UnixDatagram,
    /// The name as it is in messages.
    name: Vec<u8>,
    buffer: Vec<u8>,
}

impl Tables {
    /// Subscribes in the calling thread's namespace. Nothing that happens from here on is missed.
    ///
    /// # Errors
    /// The kernel gives no socket, or the current tokio runtime cannot take it.
    pub fn open(name: &str) -> Result<Self, Error> {
        let failed = |errno: Errno| Error::Socket { doing: "watch nftables".into(), source: errno.into() };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket =
            socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkNetFilter).map_err(failed)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, NFTABLES)).map_err(failed)?;
        let socket = UnixDatagram::from_std(net::UnixDatagram::from(socket))
            .map_err(|source| Error::Socket { doing: "watch nftables".into(), source })?;
        Ok(Self { socket, name: [name.as_bytes(), b"\0"].concat(), buffer: vec![0; DATAGRAM] })
    }

    /// Waits until the table, or something in it, has changed; it may also say so when it has not. May be dropped while
    /// it waits.
    ///
    /// # Errors
    /// The socket failed for good.
    pub async fn changed(&mut self) -> Result<(), Error> {
        loop {
            match self.socket.recv(&mut self.buffer).await {
                // Every message names its table.
                Ok(length) if self.buffer[..length].windows(self.name.len()).any(|bytes| bytes == self.name) => {
                    return Ok(());
                }
                Ok(_) => {}
                // Some are lost.
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(Error::Socket { doing: "watch nftables".into(), source }),
            }
        }
    }
}

//! Ping, over a raw socket.

use super::{Error, inside};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use std::{
    net::{self, IpAddr, SocketAddr},
    os::fd::OwnedFd,
    path::Path,
    time::Duration,
};
use tokio::{
    net::UdpSocket,
    time::{Instant, timeout},
};

const REQUEST_V4: u8 = 8;
const REPLY_V4: u8 = 0;
const REQUEST_V6: u8 = 128;
const REPLY_V6: u8 = 129;
/// Type, code, checksum, identifier, sequence number.
const HEADER: usize = 8;

/// Pings `target` from `netns`; how long the answer took.
///
/// # Errors
/// [`Error::Silent`] after `patience`, or what the network says.
pub async fn ping(netns: &Path, target: IpAddr, patience: Duration) -> Result<Duration, Error> {
    let v6 = target.is_ipv6();
    let make = move || {
        let (family, protocol) =
            if v6 { (AddressFamily::Inet6, SockProtocol::IcmpV6) } else { (AddressFamily::Inet, SockProtocol::Icmp) };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket: OwnedFd = socket(family, SockType::Raw, flags, protocol)?;
        // A raw socket sends and receives like one for UDP.
        Ok(net::UdpSocket::from(socket))
    };
    let socket = inside(netns, make).await?;
    let socket = UdpSocket::from_std(socket).map_err(|source| Error::Socket { netns: netns.to_owned(), source })?;
    let identifier = fastrand::u16(..).to_be_bytes();
    let start = Instant::now();
    let answer = async {
        socket.send_to(&request(v6, identifier), SocketAddr::new(target, 0)).await?;
        let mut buffer = [0; 1500];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).await?;
            if from.ip() == target && answers(v6, identifier, &buffer[..length]) {
                return Ok(());
            }
        }
    };
    match timeout(patience, answer).await {
        Ok(Ok(())) => Ok(start.elapsed()),
        Ok(Err(source)) => Err(Error::Refused { target: target.to_string(), source }),
        Err(_) => Err(Error::Silent { target: target.to_string(), waited: patience }),
    }
}

fn request(v6: bool, identifier: [u8; 2]) -> [u8; HEADER] {
    let mut message = [0; HEADER];
    message[0] = if v6 { REQUEST_V6 } else { REQUEST_V4 };
    message[4..6].copy_from_slice(&identifier);
    message[7] = 1;
    if !v6 {
        // For IPv6 the kernel does it: the checksum covers addresses that it chooses.
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    message
}

fn answers(v6: bool, identifier: [u8; 2], packet: &[u8]) -> bool {
    // IPv4 raw sockets see the IP header, whose length in words is in its first byte.
    let start = if v6 { 0 } else { packet.first().map_or(0, |first| usize::from(first & 0x0f) * 4) };
    let reply = if v6 { REPLY_V6 } else { REPLY_V4 };
    packet
        .get(start..)
        .is_some_and(|message| message.len() >= HEADER && message[0] == reply && message[4..6] == identifier)
}

/// RFC 1071.
fn checksum(message: &[u8]) -> u16 {
    let mut sum: u32 =
        message.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low))).sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_with_its_checksum_sums_up_to_nothing() {
        assert_eq!(checksum(&request(false, [0x12, 0x34])), 0);
    }
}

//! Connections that the kernel tracks.

use super::{error::Error, offload::attribute, socket::Socket};
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::errno::Errno;
use std::net::IpAddr;

const NFNL_SUBSYS_CTNETLINK: u16 = 1;
const IPCTNL_MSG_CT_GET: u16 = 1;
const IPCTNL_MSG_CT_DELETE: u16 = 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
/// `CTA_IP_V4_SRC`, `CTA_IP_V4_DST`, and the same of IPv6.
const SOURCES: [u16; 2] = [1, 3];
const DESTINATIONS: [u16; 2] = [2, 4];
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
/// `NLA_TYPE_MASK`: without the flag that says that there are attributes inside.
const KIND: u16 = 0x3fff;
const NESTED: u16 = 0x8000;
/// `struct nfgenmsg`
const HEADER: usize = 4;
const NLMSG_HEADER: usize = 16;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const UDP: u8 = 17;

/// A connection as its opener asked for it, and as it is answered. The two differ where it is translated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The destination of what the opener sends.
    pub asked: (IpAddr, u16),
    /// The source of what it is answered.
    pub answers: (IpAddr, u16),
    /// The attributes by which the kernel finds it.
    pub id: Vec<u8>,
}

/// A conversation about the connections of one network namespace.
#[derive(Debug)]
pub struct Conntrack(Socket);

impl Conntrack {
    /// For the calling thread's namespace.
    ///
    /// # Errors
    /// The kernel gives no socket.
    pub fn open() -> Result<Self, Error> {
        Socket::with_protocol(NETLINK_NETFILTER).map(Self)
    }

    /// The UDP connections of a family that `wanted` wants. They are looked at one by one: there can be a great many.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn udp(&mut self, v6: bool, wanted: impl Fn(&Connection) -> bool) -> Result<Vec<Connection>, Error> {
        let mut found = Vec::new();
        let make = |sequence| message(IPCTNL_MSG_CT_GET, NLM_F_REQUEST | NLM_F_DUMP, sequence, v6, &[]);
        self.0.dump_each(make, "list connections", |body| {
            found.extend(body.get(HEADER..).and_then(read_udp).filter(|connection| wanted(connection)));
        })?;
        Ok(found)
    }

    /// Has a connection of that family forgotten: its next packet meets the rules anew. Absent is success.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn forget(&mut self, connection: &Connection, v6: bool) -> Result<(), Error> {
        let make = |sequence| message(IPCTNL_MSG_CT_DELETE, NLM_F_REQUEST | NLM_F_ACK, sequence, v6, &connection.id);
        match self.0.exchange(make, "forget a connection") {
            Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(()),
            done => done.map(drop),
        }
    }
}

/// Reads a connection's attributes; `None` if it is not of UDP.
fn read_udp(attributes: &[u8]) -> Option<Connection> {
    let original = value(attributes, CTA_TUPLE_ORIG)?;
    let reply = value(attributes, CTA_TUPLE_REPLY)?;
    if value(value(original, CTA_TUPLE_PROTO)?, CTA_PROTO_NUM)? != [UDP] {
        return None;
    }
    let mut id = attribute(CTA_TUPLE_ORIG | NESTED, original);
    for kind in [CTA_ZONE, CTA_ID] {
        if let Some(value) = value(attributes, kind) {
            id.extend(attribute(kind, value));
        }
    }
    let asked = place(original, DESTINATIONS, CTA_PROTO_DST_PORT)?;
    let answers = place(reply, SOURCES, CTA_PROTO_SRC_PORT)?;
    Some(Connection { asked, answers, id })
}

fn place(tuple: &[u8], addresses: [u16; 2], number: u16) -> Option<(IpAddr, u16)> {
    let bytes = addresses.iter().find_map(|kind| value(value(tuple, CTA_TUPLE_IP)?, *kind))?;
    let ip = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        _ => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
    };
    let number = value(value(tuple, CTA_TUPLE_PROTO)?, number)?;
    Some((ip, u16::from_be_bytes(number.try_into().ok()?)))
}

/// The value of an attribute, borrowed: there are many to look at.
fn value(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    let mut rest = attributes;
    while let [low, high, kind_low, kind_high, ..] = *rest {
        let length = usize::from(u16::from_ne_bytes([low, high]));
        let found = rest.get(4..length)?;
        if u16::from_ne_bytes([kind_low, kind_high]) & KIND == kind {
            return Some(found);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

fn message(kind: u16, flags: u16, sequence: u32, v6: bool, attributes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(NLMSG_HEADER + HEADER + attributes.len()).unwrap_or(u32::MAX);
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend((NFNL_SUBSYS_CTNETLINK << 8 | kind).to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend([if v6 { AF_INET6 } else { AF_INET }, 0, 0, 0]);
    bytes.extend(attributes);
    bytes
}

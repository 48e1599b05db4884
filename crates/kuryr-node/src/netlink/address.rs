//! Addresses of links.

use super::{
    error::Error,
    socket::{Request, Socket},
};
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE, Parseable};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope},
};
use std::net::IpAddr;

pub(super) fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn message(index: u32, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address.addr());
    message.header.prefix_len = address.prefix_len();
    message.header.index = index;
    message.attributes.push(AddressAttribute::Address(address.addr()));
    match address {
        IpNet::V4(address) => {
            message.attributes.push(AddressAttribute::Local(IpAddr::V4(address.addr())));
            if address.prefix_len() < 31 {
                message.attributes.push(AddressAttribute::Broadcast(address.broadcast()));
            }
        }
        // Neutron has made sure that nobody else has the address: use it at once, without looking for duplicates.
        IpNet::V6(address) => {
            message.header.flags = AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
            if address.addr().is_unicast_link_local() {
                message.header.scope = AddressScope::Link;
            }
        }
    }
    message
}

/// Gives a link an address (with its subnet's prefix length); it may be there already.
#[must_use]
pub fn add(index: u32, address: IpNet) -> Request {
    Request {
        message: RouteNetlinkMessage::NewAddress(message(index, address)),
        flags: NLM_F_CREATE | NLM_F_REPLACE,
        doing: format!("add address {address}"),
    }
}

/// Takes an address away.
#[must_use]
pub fn delete(index: u32, address: IpNet) -> Request {
    Request {
        message: RouteNetlinkMessage::DelAddress(message(index, address)),
        flags: 0,
        doing: format!("remove address {address}"),
    }
}

impl Socket {
    /// The addresses of a link with their prefix lengths, IPv6 link-local ones among them.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn addresses(&mut self, index: u32) -> Result<Vec<IpNet>, Error> {
        let message = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let request = Request { message, flags: 0, doing: "list addresses".into() };
        let mut addresses = Vec::new();
        for body in self.dump(&request)? {
            let message = AddressMessage::parse(&body)
                .map_err(|error| Error::Malformed { doing: request.doing.clone(), reason: error.to_string() })?;
            if message.header.index != index {
                continue;
            }
            let length = message.header.prefix_len;
            // IPv4: LOCAL is the address, ADDRESS the peer's on point-to-point links. IPv6 has ADDRESS only.
            let local = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Local(ip) => Some(*ip),
                _ => None,
            });
            let address = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Address(ip) => Some(*ip),
                _ => None,
            });
            addresses.extend(local.or(address).and_then(|ip| IpNet::new(ip, length).ok()));
        }
        Ok(addresses)
    }
}

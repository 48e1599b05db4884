//! Routes of the main table.

use super::{
    address::family,
    error::Error,
    socket::{Request, Socket},
};
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Parseable};
use netlink_packet_route::{
    RouteNetlinkMessage,
    route::{RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// The table of what the machine itself has (`linux/rtnetlink.h`).
const RT_TABLE_LOCAL: u8 = 255;

/// A route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// Where to; `0.0.0.0/0` and `::/0` are the default routes.
    pub destination: IpNet,
    /// The next hop; none if the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// Index of the link.
    pub link: u32,
    /// Take the gateway to be on the link even if no address says so.
    pub onlink: bool,
    /// Address that packets of the node's own have as source on this route.
    pub source: Option<IpAddr>,
}

impl Route {
    /// The route to `destination` over a link, through a gateway that is taken to be on it.
    #[must_use]
    pub fn via(destination: IpNet, gateway: IpAddr, link: u32) -> Self {
        Self { destination, gateway: Some(gateway), link, onlink: true, source: None }
    }

    /// The route to what is on a link.
    #[must_use]
    pub fn on(destination: IpNet, link: u32) -> Self {
        Self { destination, gateway: None, link, onlink: false, source: None }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.destination)?;
        match self.gateway {
            Some(gateway) => write!(f, " via {gateway}"),
            None => Ok(()),
        }
    }
}

/// The default destination of an address's family.
#[must_use]
pub fn everywhere(like: IpAddr) -> IpNet {
    let zero = if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    match zero {
        IpAddr::V4(zero) => IpNet::V4(ipnet::Ipv4Net::new_assert(zero, 0)),
        IpAddr::V6(zero) => IpNet::V6(ipnet::Ipv6Net::new_assert(zero, 0)),
    }
}

fn message(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.address_family = family(route.destination.addr());
    header.destination_prefix_length = route.destination.prefix_len();
    header.table = RouteHeader::RT_TABLE_MAIN;
    header.protocol = RouteProtocol::Static;
    header.kind = RouteType::Unicast;
    if route.onlink && route.gateway.is_some() {
        header.flags = RouteFlags::Onlink;
    }
    if route.gateway.is_none() && route.destination.addr().is_ipv4() {
        header.scope = RouteScope::Link;
    }
    if route.destination.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(route.destination.network().into()));
    }
    message.attributes.extend(route.gateway.map(|gateway| RouteAttribute::Gateway(gateway.into())));
    message.attributes.extend(route.source.map(|source| RouteAttribute::PrefSource(source.into())));
    message.attributes.push(RouteAttribute::Oif(route.link));
    message
}

/// Adds a route; an equal destination must not have one yet.
#[must_use]
pub fn add(route: &Route) -> Request {
    Request {
        message: RouteNetlinkMessage::NewRoute(message(route)),
        flags: NLM_F_CREATE | NLM_F_EXCL,
        doing: format!("add route {route}"),
    }
}

/// Adds a route in place of the one to the same destination.
#[must_use]
pub fn replace(route: &Route) -> Request {
    Request {
        message: RouteNetlinkMessage::NewRoute(message(route)),
        flags: NLM_F_CREATE | NLM_F_REPLACE,
        doing: format!("set route {route}"),
    }
}

/// Removes a route.
#[must_use]
pub fn delete(route: &Route) -> Request {
    Request { message: RouteNetlinkMessage::DelRoute(message(route)), flags: 0, doing: format!("remove route {route}") }
}

impl Socket {
    /// The unicast routes of the main table.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn routes(&mut self) -> Result<Vec<Route>, Error> {
        let message = RouteNetlinkMessage::GetRoute(RouteMessage::default());
        let request = Request { message, flags: 0, doing: "list routes".into() };
        let mut routes = Vec::new();
        for body in self.dump(&request)? {
            let message = RouteMessage::parse(&body)
                .map_err(|error| Error::Malformed { doing: request.doing.clone(), reason: error.to_string() })?;
            if message.header.table == RouteHeader::RT_TABLE_MAIN && message.header.kind == RouteType::Unicast {
                routes.extend(read(&message));
            }
        }
        Ok(routes)
    }

    /// The IPv6 addresses of a link that the kernel takes packets in for.
    pub(super) fn local_v6(&mut self, link: u32) -> Result<Vec<Ipv6Addr>, Error> {
        let mut wanted = RouteMessage::default();
        wanted.header.address_family = netlink_packet_route::AddressFamily::Inet6;
        let message = RouteNetlinkMessage::GetRoute(wanted);
        let request = Request { message, flags: 0, doing: "list local addresses".into() };
        let mut addresses = Vec::new();
        for body in self.dump(&request)? {
            let message = RouteMessage::parse(&body)
                .map_err(|error| Error::Malformed { doing: request.doing.clone(), reason: error.to_string() })?;
            if message.header.table == RT_TABLE_LOCAL
                && message.header.kind == RouteType::Local
                && let Some(Route { destination: IpNet::V6(address), link: on, .. }) = read(&message)
                && on == link
            {
                addresses.push(address.addr());
            }
        }
        Ok(addresses)
    }
}

/// A route from a message's body; `None` if it is not a unicast route of the main table.
pub(super) fn parse(body: &[u8]) -> Option<Route> {
    let message = RouteMessage::parse(body).ok()?;
    let ours = message.header.table == RouteHeader::RT_TABLE_MAIN && message.header.kind == RouteType::Unicast;
    read(&message).filter(|_| ours)
}

/// `None`: a route of a kind that is never made here, such as one with several next hops.
fn read(message: &RouteMessage) -> Option<Route> {
    let zero: IpAddr = match message.header.address_family {
        netlink_packet_route::AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        netlink_packet_route::AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let (mut destination, mut gateway, mut link, mut source) = (zero, None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(ip) => destination = address(ip)?,
            RouteAttribute::Gateway(ip) => gateway = Some(address(ip)?),
            RouteAttribute::PrefSource(ip) => source = Some(address(ip)?),
            RouteAttribute::Oif(index) => link = Some(*index),
            _ => {}
        }
    }
    let destination = IpNet::new(destination, message.header.destination_prefix_length).ok()?;
    let onlink = message.header.flags.contains(RouteFlags::Onlink);
    Some(Route { destination, gateway, link: link?, onlink, source })
}

fn address(address: &netlink_packet_route::route::RouteAddress) -> Option<IpAddr> {
    match address {
        netlink_packet_route::route::RouteAddress::Inet(ip) => Some((*ip).into()),
        netlink_packet_route::route::RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}

//! Links: making, changing, finding and removing network interfaces.

use super::{
    error::Error,
    socket::{Request, Socket},
};
use kuryr_model::MacAddress;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NlasIterator};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{
        AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoIpVlan, InfoKind, InfoMacVlan, InfoVeth, InfoVlan,
        IpVlanMode, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, MacVlanMode,
    },
};
use nix::errno::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};

/// What the kernel says about a link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its index, unique in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its alias, a text for people and programs; empty if it has none.
    pub alias: String,
    /// Its kind, such as `veth` or `bridge`; empty for hardware and loopback.
    pub kind: String,
    /// Its Ethernet address, if it has one.
    pub mac: Option<MacAddress>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether it is switched on.
    pub up: bool,
    /// Whether packets pass: it is up, so is its other end, and the kernel has taken notice of both, which takes it a
    /// moment.
    pub running: bool,
    /// Index of the bridge that it is in.
    pub master: Option<u32>,
    /// Index of the link that it is a sub-interface of, or of a veth's other end.
    pub lower: Option<u32>,
    /// The number ([`Socket::number_of`]) of that one's namespace; none if it is in the same.
    pub lower_in: Option<i32>,
    /// The VLAN id of a VLAN sub-interface.
    pub vlan: Option<u16>,
}

/// Which link a request is about.
#[derive(Clone, Copy, Debug)]
pub enum By<'a> {
    /// The one of this name.
    Name(&'a str),
    /// The one of this index.
    Index(u32),
}

/// One end of a veth pair to be made.
#[derive(Clone, Debug)]
pub struct End<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its Ethernet address; none for a random one.
    pub mac: Option<MacAddress>,
    /// Its MTU in bytes.
    pub mtu: u32,
}

impl By<'_> {
    fn message(self) -> LinkMessage {
        let mut message = LinkMessage::default();
        match self {
            Self::Name(name) => message.attributes.push(LinkAttribute::IfName(name.to_owned())),
            Self::Index(index) => message.header.index = index,
        }
        message
    }
}

impl std::fmt::Display for By<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Index(index) => write!(f, "link {index}"),
        }
    }
}

fn attributes(end: &End<'_>) -> Vec<LinkAttribute> {
    let mut attributes = vec![LinkAttribute::IfName(end.name.to_owned()), LinkAttribute::Mtu(end.mtu)];
    attributes.extend(end.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    attributes
}

fn create(message: LinkMessage, doing: String) -> Request {
    Request { message: RouteNetlinkMessage::NewLink(message), flags: NLM_F_CREATE | NLM_F_EXCL, doing }
}

fn change(message: LinkMessage, doing: String) -> Request {
    Request { message: RouteNetlinkMessage::SetLink(message), flags: 0, doing }
}

/// Makes a veth pair, both ends down: `near` in the socket's namespace and `far` in `namespace` (or with `near`).
#[must_use]
pub fn veth(near: &End<'_>, far: &End<'_>, namespace: Option<BorrowedFd<'_>>) -> Request {
    let mut peer = LinkMessage::default();
    peer.attributes = attributes(far);
    peer.attributes.extend(namespace.map(|fd| LinkAttribute::NetNsFd(fd.as_raw_fd())));
    let mut message = LinkMessage::default();
    message.attributes = attributes(near);
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    create(message, format!("make the veth pair {} and {}", near.name, far.name))
}

/// The kinds of sub-interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sub {
    /// All frames with this VLAN id.
    Vlan(u16),
    /// All frames for its own Ethernet address. Those of one link reach each other within the kernel.
    Macvlan,
    /// All packets for its own addresses; it has its link's Ethernet address.
    Ipvlan,
}

impl Sub {
    /// The kernel's name for the kind.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::Vlan(_) => "vlan",
            Self::Macvlan => "macvlan",
            Self::Ipvlan => "ipvlan",
        }
    }

    fn info(self) -> Vec<LinkInfo> {
        let (kind, data) = match self {
            Self::Vlan(id) => (InfoKind::Vlan, InfoData::Vlan(vec![InfoVlan::Id(id)])),
            Self::Macvlan => (InfoKind::MacVlan, InfoData::MacVlan(vec![InfoMacVlan::Mode(MacVlanMode::Bridge)])),
            Self::Ipvlan => (InfoKind::IpVlan, InfoData::IpVlan(vec![InfoIpVlan::Mode(IpVlanMode::L2)])),
        };
        vec![LinkInfo::Kind(kind), LinkInfo::Data(data)]
    }
}

/// Makes a sub-interface, down, of the link with index `lower` in the socket's namespace: in `namespace`, or there too. It is
/// never seen anywhere else.
#[must_use]
pub fn sub(kind: Sub, end: &End<'_>, lower: u32, namespace: Option<BorrowedFd<'_>>) -> Request {
    let mut message = LinkMessage::default();
    message.attributes = attributes(end);
    message.attributes.push(LinkAttribute::Link(lower));
    message.attributes.extend(namespace.map(|fd| LinkAttribute::NetNsFd(fd.as_raw_fd())));
    message.attributes.push(LinkAttribute::LinkInfo(kind.info()));
    create(message, format!("make the {} interface {}", kind.kind(), end.name))
}

/// Makes a bridge, down.
#[must_use]
pub fn bridge(name: &str) -> Request {
    let mut message = By::Name(name).message();
    message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
    create(message, format!("make bridge {name}"))
}

/// Switches a link on.
#[must_use]
pub fn up(link: By<'_>) -> Request {
    let mut message = link.message();
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    change(message, format!("switch {link} on"))
}

/// Switches a link off.
#[must_use]
pub fn down(link: By<'_>) -> Request {
    let mut message = link.message();
    message.header.change_mask = LinkFlags::Up;
    change(message, format!("switch {link} off"))
}

/// Puts a link into the bridge of that index.
#[must_use]
pub fn master(link: By<'_>, bridge: u32) -> Request {
    let mut message = link.message();
    message.attributes.push(LinkAttribute::Controller(bridge));
    change(message, format!("put {link} into bridge {bridge}"))
}

/// Sets a link's MTU in bytes.
#[must_use]
pub fn mtu(link: By<'_>, mtu: u32) -> Request {
    let mut message = link.message();
    message.attributes.push(LinkAttribute::Mtu(mtu));
    change(message, format!("set the MTU of {link} to {mtu}"))
}

/// Sets a link's Ethernet address.
#[must_use]
pub fn address(link: By<'_>, mac: MacAddress) -> Request {
    let mut message = link.message();
    message.attributes.push(LinkAttribute::Address(mac.0.to_vec()));
    change(message, format!("set the address of {link} to {mac}"))
}

/// Sets a link's alias and keeps it from giving itself IPv6 addresses. The link must be down.
#[must_use]
pub fn mark(link: By<'_>, alias: &str) -> Request {
    let mut message = link.message();
    message.attributes.push(LinkAttribute::IfAlias(alias.to_owned()));
    message.attributes.push(no_autoconf());
    change(message, format!("mark {link} as {alias}"))
}

/// Sets a link's alias.
#[must_use]
pub fn alias(link: By<'_>, alias: &str) -> Request {
    let mut message = link.message();
    message.attributes.push(LinkAttribute::IfAlias(alias.to_owned()));
    change(message, format!("mark {link} as {alias}"))
}

/// Keeps a link from giving itself IPv6 addresses. The link must be down.
#[must_use]
pub fn without_autoconf(link: By<'_>) -> Request {
    let mut message = link.message();
    message.attributes.push(no_autoconf());
    change(message, format!("switch IPv6 autoconfiguration of {link} off"))
}

fn no_autoconf() -> LinkAttribute {
    let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])])
}

/// Gives a link that is down another name.
#[must_use]
pub fn rename(index: u32, name: &str) -> Request {
    let mut message = By::Index(index).message();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    change(message, format!("rename link {index} to {name}"))
}

/// Moves a link to another namespace. It arrives down and without addresses.
#[must_use]
pub fn hand_over(link: By<'_>, namespace: BorrowedFd<'_>) -> Request {
    let mut message = link.message();
    message.attributes.push(LinkAttribute::NetNsFd(namespace.as_raw_fd()));
    change(message, format!("move {link} to another namespace"))
}

/// Removes a link; the other end of a veth pair goes with it.
#[must_use]
pub fn delete(link: By<'_>) -> Request {
    let doing = format!("remove {link}");
    Request { message: RouteNetlinkMessage::DelLink(link.message()), flags: 0, doing }
}

/// Whether an error says that there is no such link.
#[must_use]
pub fn absent(error: &Error) -> bool {
    matches!(error.errno(), Some(Errno::ENODEV | Errno::ENXIO))
}

impl Socket {
    /// The link, if it exists.
    ///
    /// # Errors
    /// The kernel refused for another reason.
    pub fn link(&mut self, link: By<'_>) -> Result<Option<Link>, Error> {
        let doing = format!("look at {link}");
        let request = Request { message: RouteNetlinkMessage::GetLink(link.message()), flags: 0, doing };
        match self.get(&request) {
            Ok(body) => Link::read(&body).map(Some).ok_or_else(|| malformed(&request.doing)),
            Err(error) if absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All links of the namespace.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn links(&mut self) -> Result<Vec<Link>, Error> {
        let message = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let request = Request { message, flags: 0, doing: "list links".into() };
        self.dump(&request)?.iter().map(|body| Link::read(body).ok_or_else(|| malformed(&request.doing))).collect()
    }

    /// Removes a link if it is there.
    ///
    /// # Errors
    /// It is there and stays.
    pub fn remove_link(&mut self, link: By<'_>) -> Result<(), Error> {
        match self.run(&[delete(link)]) {
            Err(error) if !absent(&error) => Err(error),
            _ => Ok(()),
        }
    }
}

fn malformed(doing: &str) -> Error {
    Error::Malformed { doing: doing.to_owned(), reason: "it describes no link".into() }
}

/// `struct ifinfomsg`
const HEADER: usize = 16;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_VLAN_ID: u16 = 1;
const NESTED: u16 = 0x8000;
const IFF_UP: u32 = 1;
const IFF_RUNNING: u32 = 1 << 6;

impl Link {
    /// Reads the few attributes that matter here: a link message has some sixty, and newer kernels make some of them
    /// longer than a parser of everything expects.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let (header, attributes) = body.split_at_checked(HEADER)?;
        let mut link = Self { index: number(&header[4..8])?, ..Self::default() };
        let flags = number(&header[8..12])?;
        (link.up, link.running) = (flags & IFF_UP != 0, flags & IFF_RUNNING != 0);
        for attribute in NlasIterator::new(attributes) {
            let attribute = attribute.ok()?;
            let value = attribute.value();
            match attribute.kind() {
                IFLA_ADDRESS => link.mac = value.try_into().ok().map(MacAddress),
                IFLA_IFNAME => link.name = text(value),
                IFLA_IFALIAS => link.alias = text(value),
                IFLA_MTU => link.mtu = number(value)?,
                IFLA_MASTER => link.master = Some(number(value)?),
                IFLA_LINK => link.lower = Some(number(value)?),
                IFLA_LINK_NETNSID => link.lower_in = Some(i32::from_ne_bytes(value.try_into().ok()?)),
                IFLA_LINKINFO => {
                    link.kind = part(value, IFLA_INFO_KIND).map(text).unwrap_or_default();
                    if link.kind == "vlan" {
                        let id = part(value, IFLA_INFO_DATA).and_then(|data| part(data, IFLA_VLAN_ID));
                        link.vlan = id.and_then(|id| id.try_into().ok()).map(u16::from_ne_bytes);
                    }
                }
                _ => {}
            }
        }
        Some(link)
    }
}

/// The value of the attribute of that kind among nested ones.
fn part(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    let mut rest = attributes;
    loop {
        let (header, _) = rest.split_at_checked(4)?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let found = u16::from_ne_bytes([header[2], header[3]]) & !NESTED;
        if found == kind {
            return rest.get(4..length);
        }
        rest = rest.get(length.max(4).next_multiple_of(4)..)?;
    }
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}

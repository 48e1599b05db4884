//! Switching checksum offload off.
//!
//! A userspace switch sees packets as the sender's kernel hands them over. With transmit checksum offload that is before
//! the checksum is filled in, so ping works and TCP stalls. This speaks the kernel's `ethtool` family of generic netlink
//! (Linux 5.6), whose two messages are short enough to be made by hand and need no ioctl.

use super::{error::Error, socket::Socket};
use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NlasIterator};
use netlink_sys::protocols::NETLINK_GENERIC;

const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const ETHTOOL_MSG_FEATURES_GET: u8 = 11;
const ETHTOOL_MSG_FEATURES_SET: u8 = 12;
const ETHTOOL_A_FEATURES_HEADER: u16 = 1;
const ETHTOOL_A_FEATURES_WANTED: u16 = 3;
const ETHTOOL_A_FEATURES_ACTIVE: u16 = 4;
const ETHTOOL_A_HEADER_DEV_INDEX: u16 = 1;
const ETHTOOL_A_HEADER_FLAGS: u16 = 3;
const ETHTOOL_FLAG_OMIT_REPLY: u32 = 2;
const ETHTOOL_A_BITSET_BITS: u16 = 3;
const ETHTOOL_A_BITSET_BITS_BIT: u16 = 1;
const ETHTOOL_A_BITSET_BIT_NAME: u16 = 2;
const NESTED: u16 = 0x8000;
/// `struct genlmsghdr`
const GENERIC_HEADER: usize = 4;

/// The checksums that a veth leaves to its hardware.
const CHECKSUMS: [&str; 2] = ["tx-checksum-ip-generic", "tx-checksum-sctp"];

/// Makes the link of that index, in the calling thread's namespace, fill in the checksums of what it sends.
///
/// # Errors
/// The kernel refused, or is older than Linux 5.6.
pub fn disable_checksum(index: u32) -> Result<(), Error> {
    let mut socket = Socket::with_protocol(NETLINK_GENERIC)?;
    let family = family(&mut socket)?;
    let doing = format!("switch checksum offload of link {index} off");
    socket.exchange(|sequence| message(family, sequence, ETHTOOL_MSG_FEATURES_SET, &features(index)), &doing)?;
    Ok(())
}

/// Which of the checksums the link of that index fills in itself, by the kernel's names for them.
///
/// # Errors
/// The kernel refused.
pub fn fills_checksums(index: u32) -> Result<Vec<&'static str>, Error> {
    let mut socket = Socket::with_protocol(NETLINK_GENERIC)?;
    let family = family(&mut socket)?;
    let doing = format!("look at the checksum offload of link {index}");
    let header =
        attribute(ETHTOOL_A_FEATURES_HEADER | NESTED, &attribute(ETHTOOL_A_HEADER_DEV_INDEX, &index.to_ne_bytes()));
    let answers = socket.exchange(|sequence| message(family, sequence, ETHTOOL_MSG_FEATURES_GET, &header), &doing)?;
    let active = answers
        .iter()
        .filter_map(|body| body.get(GENERIC_HEADER..))
        .find_map(|attributes| value(attributes, ETHTOOL_A_FEATURES_ACTIVE))
        .ok_or_else(|| Error::Malformed { doing, reason: "it lists no active features".into() })?;
    let bits = value(&active, ETHTOOL_A_BITSET_BITS).unwrap_or_default();
    let names: Vec<Vec<u8>> =
        NlasIterator::new(&*bits).flatten().filter_map(|bit| value(bit.value(), ETHTOOL_A_BITSET_BIT_NAME)).collect();
    let left_to_hardware = |name: &&str| names.iter().any(|active| active.strip_suffix(&[0]) == Some(name.as_bytes()));
    Ok(CHECKSUMS.into_iter().filter(|name| !left_to_hardware(name)).collect())
}

fn value(attributes: &[u8], kind: u16) -> Option<Vec<u8>> {
    NlasIterator::new(attributes).flatten().find(|found| found.kind() == kind).map(|found| found.value().to_vec())
}

fn family(socket: &mut Socket) -> Result<u16, Error> {
    let doing = "find the kernel's ethtool family";
    let name = attribute(CTRL_ATTR_FAMILY_NAME, b"ethtool\0");
    let answers = socket.exchange(|sequence| message(GENL_ID_CTRL, sequence, CTRL_CMD_GETFAMILY, &name), doing)?;
    answers
        .iter()
        .filter_map(|body| body.get(GENERIC_HEADER..))
        .flat_map(|attributes| NlasIterator::new(attributes).flatten())
        .find(|attribute| attribute.kind() == CTRL_ATTR_FAMILY_ID)
        .and_then(|id| id.value().try_into().ok().map(u16::from_ne_bytes))
        .ok_or_else(|| Error::Malformed { doing: doing.into(), reason: "it has no family id".into() })
}

fn features(index: u32) -> Vec<u8> {
    let mut header = attribute(ETHTOOL_A_HEADER_DEV_INDEX, &index.to_ne_bytes());
    header.extend(attribute(ETHTOOL_A_HEADER_FLAGS, &ETHTOOL_FLAG_OMIT_REPLY.to_ne_bytes()));
    // A bit that is named without a value is asked to be off.
    let bits: Vec<u8> = CHECKSUMS
        .iter()
        .flat_map(|name| {
            let name = attribute(ETHTOOL_A_BITSET_BIT_NAME, format!("{name}\0").as_bytes());
            attribute(ETHTOOL_A_BITSET_BITS_BIT | NESTED, &name)
        })
        .collect();
    let wanted = attribute(ETHTOOL_A_BITSET_BITS | NESTED, &bits);
    let mut body = attribute(ETHTOOL_A_FEATURES_HEADER | NESTED, &header);
    body.extend(attribute(ETHTOOL_A_FEATURES_WANTED | NESTED, &wanted));
    body
}

fn message(kind: u16, sequence: u32, command: u8, attributes: &[u8]) -> Vec<u8> {
    let length = 16 + GENERIC_HEADER + attributes.len();
    let mut message = Vec::with_capacity(length);
    message.extend((length as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend([0; 4]);
    message.extend([command, 1, 0, 0]);
    message.extend(attributes);
    message
}

pub(super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = 4 + value.len();
    let mut attribute = Vec::with_capacity(length.next_multiple_of(4));
    attribute.extend((length as u16).to_ne_bytes());
    attribute.extend(kind.to_ne_bytes());
    attribute.extend(value);
    attribute.resize(length.next_multiple_of(4), 0);
    attribute
}

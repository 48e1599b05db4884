//! How namespaces know each other: by numbers, which each gives to those that its links lead to.

use super::{
    error::Error,
    socket::{Request, Socket},
};
use netlink_packet_core::NlasIterator;
use netlink_packet_route::{
    RouteNetlinkMessage,
    nsid::{NsidAttribute, NsidMessage},
};
use std::os::fd::{AsRawFd, BorrowedFd};

/// `struct rtgenmsg`, aligned.
const HEADER: usize = 4;
const NETNSA_NSID: u16 = 1;

impl Socket {
    /// The number by which the socket's namespace knows `namespace`; none if no link of the one leads to the other. To be asked
    /// for after links were listed: that is when numbers are given.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn number_of(&mut self, namespace: BorrowedFd<'_>) -> Result<Option<i32>, Error> {
        let mut message = NsidMessage::default();
        if let Ok(fd) = namespace.as_raw_fd().try_into() {
            message.attributes.push(NsidAttribute::Fd(fd));
        }
        let doing = "ask for the number of a namespace".to_owned();
        let request = Request { message: RouteNetlinkMessage::GetNsId(message), flags: 0, doing };
        let body = self.get(&request)?;
        let attributes = body.get(HEADER..).unwrap_or_default();
        let number = NlasIterator::new(attributes).flatten().find(|attribute| attribute.kind() == NETNSA_NSID);
        let number = number.and_then(|number| number.value().try_into().ok()).map(i32::from_ne_bytes);
        // -1: it has none.
        Ok(number.filter(|number| *number >= 0))
    }
}

//! The socket: requests out, acknowledgements and answers back.

use super::error::{Error, Words};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{SocketAddr, protocols::NETLINK_ROUTE};
use nix::{errno::Errno, libc};
use std::io;

/// The most requests that go out in one datagram: their acknowledgements must fit the socket's receive buffer.
pub const BATCH: usize = 64;

/// The largest datagram that the kernel makes for a dump.
const DATAGRAM: usize = 64 * 1024;

/// How often a dump is repeated that changed while it was read.
const DUMPS: usize = 16;

/// One thing that the kernel is asked to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The message.
    pub message: RouteNetlinkMessage,
    /// Flags besides "request" and "acknowledge".
    pub flags: u16,
    /// What it does, for errors, as in "cannot ...".
    pub doing: String,
}

/// A conversation with the kernel about one network namespace.
#[derive(Debug)]
pub struct Socket {
    inner: netlink_sys::Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// A socket for the links, addresses, routes and neighbours of the calling thread's network namespace.
    ///
    /// # Errors
    /// The kernel gives no socket.
    pub fn open() -> Result<Self, Error> {
        Self::with_protocol(NETLINK_ROUTE)
    }

    /// A socket of another netlink protocol.
    pub(super) fn with_protocol(protocol: isize) -> Result<Self, Error> {
        let failed = |source| Error::Socket { doing: "open a netlink socket".into(), source };
        let mut inner = netlink_sys::Socket::new(protocol).map_err(failed)?;
        inner.bind_auto().map_err(failed)?;
        inner.connect(&SocketAddr::new(0, 0)).map_err(failed)?;
        // Both are niceties: errors in the kernel's own words, without our request repeated in them.
        let _ = inner.set_ext_ack(true);
        let _ = inner.set_cap_ack(true);
        Ok(Self { inner, sequence: 0, buffer: Vec::with_capacity(DATAGRAM) })
    }

    /// Does all of `requests`, in order.
    ///
    /// # Errors
    /// The first refusal. The requests after a refused one have been tried too: undo, do not resume.
    pub fn run(&mut self, requests: &[Request]) -> Result<(), Error> {
        let mut first = Ok(());
        for outcome in self.run_each(requests)? {
            first = first.and(outcome);
        }
        first
    }

    /// Does all of `requests`, in order, and says for each how it went.
    ///
    /// # Errors
    /// The conversation itself failed; nothing is known about the requests.
    pub fn run_each(&mut self, requests: &[Request]) -> Result<Vec<Result<(), Error>>, Error> {
        let mut outcomes = Vec::with_capacity(requests.len());
        for batch in requests.chunks(BATCH) {
            let first = self.sequence.wrapping_add(1);
            let mut datagram = Vec::new();
            for request in batch {
                self.sequence = self.sequence.wrapping_add(1);
                append(&mut datagram, request, self.sequence, request.flags | NLM_F_REQUEST | NLM_F_ACK);
            }
            let doing = &batch[0].doing;
            self.send(&datagram, doing)?;
            let mut answers: Vec<Option<Result<(), Error>>> = batch.iter().map(|_| None).collect();
            let mut open = batch.len();
            while open > 0 {
                self.receive(doing)?;
                for message in messages(&self.buffer) {
                    let message = message.map_err(|reason| Error::Malformed { doing: doing.clone(), reason })?;
                    let place = message.sequence_number().wrapping_sub(first) as usize;
                    // An answer to an earlier conversation that was given up, or the data of an answer.
                    if place >= batch.len() || message.message_type() != NLMSG_ERROR || answers[place].is_some() {
                        continue;
                    }
                    answers[place] = Some(acknowledgement(&message, &batch[place].doing));
                    open -= 1;
                }
            }
            outcomes.extend(answers.into_iter().flatten());
        }
        Ok(outcomes)
    }

    /// Asks for one object; its message body, or the refusal.
    pub(super) fn get(&mut self, request: &Request) -> Result<Vec<u8>, Error> {
        let mut answers = self.ask(request, 0)?;
        answers.pop().ok_or_else(|| Error::Malformed { doing: request.doing.clone(), reason: "no answer".into() })
    }

    /// Asks for all objects of a kind; their message bodies.
    pub(super) fn dump(&mut self, request: &Request) -> Result<Vec<Vec<u8>>, Error> {
        for _ in 1..DUMPS {
            match self.ask(request, NLM_F_DUMP) {
                Err(Error::Refused { errno: Errno::EINTR, .. }) => {}
                done => return done,
            }
        }
        self.ask(request, NLM_F_DUMP)
    }

    fn ask(&mut self, request: &Request, flags: u16) -> Result<Vec<Vec<u8>>, Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let dump = flags & NLM_F_DUMP == NLM_F_DUMP;
        let acknowledge = if dump { 0 } else { NLM_F_ACK };
        let mut datagram = Vec::new();
        append(&mut datagram, request, self.sequence, request.flags | flags | NLM_F_REQUEST | acknowledge);
        self.send(&datagram, &request.doing)?;
        let mut bodies = Vec::new();
        let mut interrupted = false;
        loop {
            self.receive(&request.doing)?;
            for message in messages(&self.buffer) {
                let message = message.map_err(|reason| Error::Malformed { doing: request.doing.clone(), reason })?;
                if message.sequence_number() != self.sequence {
                    continue;
                }
                interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
                match message.message_type() {
                    NLMSG_DONE if interrupted => {
                        return Err(refused(&request.doing, Errno::EINTR, Words::default()));
                    }
                    NLMSG_DONE => return Ok(bodies),
                    NLMSG_ERROR => return acknowledgement(&message, &request.doing).map(|()| bodies),
                    _ => bodies.push(message.payload().to_vec()),
                }
            }
        }
    }

    /// Sends a request that was made by hand and waits for its acknowledgement; the bodies that came before it.
    pub(super) fn exchange(&mut self, make: impl FnOnce(u32) -> Vec<u8>, doing: &str) -> Result<Vec<Vec<u8>>, Error> {
        let mut bodies = Vec::new();
        self.dump_each(make, doing, |body| bodies.push(body.to_vec()))?;
        Ok(bodies)
    }

    /// Sends a request that was made by hand for all objects of a kind, and hands over their bodies one by one.
    pub(super) fn dump_each(
        &mut self,
        make: impl FnOnce(u32) -> Vec<u8>,
        doing: &str,
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), Error> {
        self.sequence = self.sequence.wrapping_add(1);
        self.send(&make(self.sequence), doing)?;
        loop {
            self.receive(doing)?;
            for message in messages(&self.buffer) {
                let message = message.map_err(|reason| Error::Malformed { doing: doing.to_owned(), reason })?;
                match message.message_type() {
                    _ if message.sequence_number() != self.sequence => {}
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return acknowledgement(&message, doing),
                    _ => each(message.payload()),
                }
            }
        }
    }

    fn send(&mut self, datagram: &[u8], doing: &str) -> Result<(), Error> {
        loop {
            match self.inner.send(datagram, 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(Error::Socket { doing: doing.to_owned(), source }),
            }
        }
    }

    fn receive(&mut self, doing: &str) -> Result<(), Error> {
        loop {
            self.buffer.clear();
            match self.inner.recv(&mut self.buffer, libc::MSG_TRUNC) {
                Ok(length) if length > self.buffer.len() => {
                    let reason = format!("{length} bytes in one datagram");
                    return Err(Error::Malformed { doing: doing.to_owned(), reason });
                }
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(Error::Socket { doing: doing.to_owned(), source }),
            }
        }
    }
}

/// Appends a request to a datagram. Netlink messages begin at multiples of four bytes.
fn append(datagram: &mut Vec<u8>, request: &Request, sequence: u32, flags: u16) {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request.message.clone()));
    message.finalize();
    let start = datagram.len();
    datagram.resize(start + message.buffer_len(), 0);
    message.serialize(&mut datagram[start..]);
    datagram.resize(datagram.len().next_multiple_of(4), 0);
}

/// The messages of a datagram. After a malformed one there is no next.
pub(super) fn messages(datagram: &[u8]) -> impl Iterator<Item = Result<NetlinkBuffer<&[u8]>, String>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        match NetlinkBuffer::new_checked(rest) {
            Ok(message) => {
                let length = (message.length() as usize).next_multiple_of(4).min(rest.len());
                rest = &rest[length..];
                Some(Ok(message))
            }
            Err(error) => {
                rest = &[];
                Some(Err(error.to_string()))
            }
        }
    })
}

/// Bytes of the request's header that the kernel repeats in front of its explanation.
const HEADER: usize = 16;
/// `NLMSGERR_ATTR_MSG`
const WORDS: u16 = 1;

fn acknowledgement(message: &NetlinkBuffer<&[u8]>, doing: &str) -> Result<(), Error> {
    let payload = message.payload();
    let Some((code, rest)) = payload.split_first_chunk() else {
        return Err(Error::Malformed {
            doing: doing.to_owned(),
            reason: "acknowledgement without error number".into(),
        });
    };
    match i32::from_ne_bytes(*code) {
        0 => Ok(()),
        code => {
            let words = if message.flags() & NLM_F_ACK_TLVS == 0 { None } else { rest.get(HEADER..).and_then(words) };
            Err(refused(doing, Errno::from_raw(code.saturating_neg()), Words(words)))
        }
    }
}

fn words(attributes: &[u8]) -> Option<String> {
    let text = NlasIterator::new(attributes).flatten().find(|attribute| attribute.kind() == WORDS)?;
    Some(String::from_utf8_lossy(text.value()).trim_end_matches('\0').to_owned())
}

fn refused(doing: &str, errno: Errno, words: Words) -> Error {
    Error::Refused { doing: doing.to_owned(), words, errno }
}

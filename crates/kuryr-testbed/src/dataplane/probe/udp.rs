//! Questions in datagrams.

use super::{
    Error,
    echo::{Answer, WHO, WORD},
    inside,
};
use std::{
    io,
    net::{self, IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    time::Duration,
};
use tokio::{
    net::UdpSocket,
    time::{Instant, timeout},
};

/// A socket that sends to one place: what it sends is one flow for as long as it lives.
#[derive(Debug)]
pub struct Datagrams {
    socket: UdpSocket,
    target: SocketAddr,
}

/// Has one datagram echoed; how long that took. `source` is the address to send from, any if none.
///
/// # Errors
/// [`Error::Silent`] after `patience`, or what the network says.
pub async fn datagram(
    netns: &Path,
    source: Option<IpAddr>,
    target: SocketAddr,
    patience: Duration,
) -> Result<Duration, Error> {
    Datagrams::open(netns, source, target).await?.exchange(patience).await
}

impl Datagrams {
    /// Makes the socket, in `netns`.
    ///
    /// # Errors
    /// `source` is no address there, or there is no way to the target.
    pub async fn open(netns: &Path, source: Option<IpAddr>, target: SocketAddr) -> Result<Self, Error> {
        let any = if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let source = source.unwrap_or(any);
        let make = move || {
            let socket = net::UdpSocket::bind((source, 0))?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let socket = inside(netns, make).await?;
        let socket = UdpSocket::from_std(socket).map_err(|source| Error::Socket { netns: netns.to_owned(), source })?;
        let refused = |source| Error::Refused { target: target.to_string(), source };
        socket.connect(target).await.map_err(refused)?;
        Ok(Self { socket, target })
    }

    /// Has one datagram echoed; how long that took.
    ///
    /// # Errors
    /// [`Error::Silent`] after `patience`, or what the network says.
    pub async fn exchange(&mut self, patience: Duration) -> Result<Duration, Error> {
        let start = Instant::now();
        let word = fastrand::u64(..).to_ne_bytes();
        self.ask(word, patience, |answer| (answer == word).then_some(Ok(()))).await?;
        Ok(start.elapsed())
    }

    /// Asks who answers.
    ///
    /// # Errors
    /// As of [`Datagrams::exchange`].
    pub async fn who(&mut self, patience: Duration) -> Result<Answer, Error> {
        self.ask(WHO, patience, |answer| Some(Answer::from_words(answer.strip_prefix(&WHO)?.get(WORD..)?))).await
    }

    /// Sends a word, and waits for the datagram that `read` takes for the answer.
    async fn ask<T>(
        &mut self,
        word: [u8; WORD],
        patience: Duration,
        read: impl Fn(&[u8]) -> Option<io::Result<T>>,
    ) -> Result<T, Error> {
        let answer = async {
            self.socket.send(&word).await?;
            let mut buffer = [0; 1500];
            loop {
                // What an earlier question gave up waiting for may come first.
                let length = self.socket.recv(&mut buffer).await?;
                if let Some(read) = read(&buffer[..length]) {
                    return read;
                }
            }
        };
        match timeout(patience, answer).await {
            Ok(answered) => answered.map_err(|source| Error::Refused { target: self.target.to_string(), source }),
            Err(_) => Err(Error::Silent { target: self.target.to_string(), waited: patience }),
        }
    }
}

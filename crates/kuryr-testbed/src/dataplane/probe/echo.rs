//! The server that answers probes.

use super::{Error, inside};
use std::{
    io,
    net::{self, SocketAddr},
    path::Path,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    task::{JoinHandle, JoinSet},
};

/// All that is asked and answered is made of words of this many bytes.
pub(super) const WORD: usize = 8;

/// The word that asks who answers, and whom it sees asking; every other one comes back.
pub(super) const WHO: [u8; WORD] = *b"who-sees";

/// Who answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The server's name.
    pub name: String,
    /// Where the question came from, as the server saw it.
    pub source: SocketAddr,
}

impl Answer {
    /// The word that was asked, how many words follow, and those.
    fn to_bytes(&self) -> Vec<u8> {
        let mut text = format!("{} {}", self.source, self.name).into_bytes();
        text.resize(text.len().next_multiple_of(WORD), 0);
        let words = (text.len() / WORD) as u64;
        [WHO.as_slice(), &words.to_be_bytes(), &text].concat()
    }

    /// Of the words that follow.
    pub(super) fn from_words(words: &[u8]) -> io::Result<Self> {
        let text = String::from_utf8_lossy(words);
        let parsed = text
            .trim_end_matches('\0')
            .split_once(' ')
            .and_then(|(source, name)| Some(Self { name: name.to_owned(), source: source.parse().ok()? }));
        parsed.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not an answer of ours"))
    }
}

/// A server that sends back what it gets, in words of 8 bytes, over TCP and UDP, and says who it is if asked. Ends when
/// dropped.
#[derive(Debug)]
pub struct Echo {
    address: SocketAddr,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Echo {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Listens in `netns` and echoes.
///
/// # Errors
/// The address cannot be listened on.
pub async fn listen(netns: &Path, address: SocketAddr) -> Result<Echo, Error> {
    listen_as(netns, address, &address.to_string()).await
}

/// The same under a name, for who wants to know which of several answered.
///
/// # Errors
/// As of [`listen`].
pub async fn listen_as(netns: &Path, address: SocketAddr, name: &str) -> Result<Echo, Error> {
    let make = move || {
        let tcp = net::TcpListener::bind(address)?;
        let udp = net::UdpSocket::bind(SocketAddr::new(address.ip(), tcp.local_addr()?.port()))?;
        tcp.set_nonblocking(true)?;
        udp.set_nonblocking(true)?;
        Ok((tcp, udp))
    };
    let (tcp, udp) = inside(netns, make).await?;
    let failed = |source| Error::Socket { netns: netns.to_owned(), source };
    let address = tcp.local_addr().map_err(failed)?;
    let (tcp, udp) = (TcpListener::from_std(tcp).map_err(failed)?, UdpSocket::from_std(udp).map_err(failed)?);
    let tasks = [tokio::spawn(serve_tcp(tcp, name.to_owned())), tokio::spawn(serve_udp(udp, name.to_owned()))];
    Ok(Echo { address, tasks })
}

async fn serve_tcp(listener: TcpListener, name: String) {
    // Sessions end with the server: they are the set's.
    let mut sessions = JoinSet::new();
    while let Ok((stream, source)) = listener.accept().await {
        while sessions.try_join_next().is_some() {}
        let answer = Answer { name: name.clone(), source };
        sessions.spawn(async move {
            // It ends when the other side ends it.
            let _ = serve_session(stream, &answer).await;
        });
    }
}

async fn serve_session(mut stream: TcpStream, answer: &Answer) -> io::Result<()> {
    loop {
        let mut word = [0; WORD];
        stream.read_exact(&mut word).await?;
        if word == WHO {
            stream.write_all(&answer.to_bytes()).await?;
        } else {
            stream.write_all(&word).await?;
        }
    }
}

async fn serve_udp(socket: UdpSocket, name: String) {
    let mut buffer = vec![0; 65_536];
    loop {
        // An error is an ICMP message about an answer of ours; the next question may fare better.
        if let Ok((length, source)) = socket.recv_from(&mut buffer).await {
            let asked = &buffer[..length];
            let answer = if asked == WHO { Answer { name: name.clone(), source }.to_bytes() } else { asked.to_vec() };
            let _ = socket.send_to(&answer, source).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_made_of_whole_words_and_read_back() {
        for name in ["", "web-1", "name with spaces"] {
            let answer = Answer { name: name.into(), source: "[fd00::5]:40000".parse().unwrap() };
            let bytes = answer.to_bytes();
            assert_eq!(bytes.len() % WORD, 0);
            assert_eq!(Answer::from_words(&bytes[2 * WORD..]).unwrap(), answer);
        }
        assert!(Answer::from_words(b"no source").is_err());
    }
}

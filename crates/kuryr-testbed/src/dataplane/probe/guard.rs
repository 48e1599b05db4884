//! A guard knocks where nobody may be let in, all the time, and tells of the first packet that gets through.

use super::{Error, inside};
use std::{
    io::ErrorKind,
    net::{self, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{net::UdpSocket, task::JoinSet, time::MissedTickBehavior};

/// Time between two packets of one guard.
const PACE: Duration = Duration::from_millis(3);

/// Guards at work. They end when this is dropped.
#[derive(Debug, Default)]
pub struct Guards {
    tasks: JoinSet<()>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    sent: u64,
    through: Vec<String>,
}

impl Guards {
    /// Sends datagrams from `netns` to `target` from now on. That nothing listens there does not matter: the word of the
    /// kernel that nobody does is an answer, too.
    ///
    /// # Errors
    /// There is no socket to be had in `netns`.
    pub async fn post(&mut self, netns: &Path, target: SocketAddr, what: &str) -> Result<(), Error> {
        let any = if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let make = move || {
            let socket = net::UdpSocket::bind(SocketAddr::new(any, 0))?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let socket = inside(netns, make).await?;
        let socket = UdpSocket::from_std(socket).map_err(|source| Error::Socket { netns: netns.to_owned(), source })?;
        let (state, what) = (self.state.clone(), format!("{what} ({target})"));
        self.tasks.spawn(async move { knock(&socket, target, &what, &state).await });
        Ok(())
    }

    /// How many datagrams were sent.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).sent
    }

    /// Where something got through so far.
    #[must_use]
    pub fn through(&self) -> Vec<String> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).through.clone()
    }
}

async fn knock(socket: &UdpSocket, target: SocketAddr, what: &str, state: &Mutex<State>) {
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut connected = false;
    let mut buffer = [0; 64];
    loop {
        pace.tick().await;
        // There may be no way yet: a pod's link comes after its namespace.
        if !connected {
            connected = socket.connect(target).await.is_ok();
            continue;
        }
        // A word that is known by what it begins with, should it be echoed.
        let sent = socket.try_send(b"knocking");
        let answer = socket.try_recv(&mut buffer);
        let refused =
            |error: Option<std::io::Error>| error.is_some_and(|error| error.kind() == ErrorKind::ConnectionRefused);
        let through = answer.is_ok() || refused(answer.err()) || refused(sent.as_ref().err().map(again));
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.sent += u64::from(sent.is_ok());
        if through {
            state.through.push(what.to_owned());
            return;
        }
    }
}

fn again(error: &std::io::Error) -> std::io::Error {
    error.kind().into()
}

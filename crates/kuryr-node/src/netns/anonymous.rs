//! Namespaces without a name: gone with the process that made them, whatever ends it.

use super::Error;
use crate::netlink::{Socket, link};
use nix::sched::{CloneFlags, unshare};
use std::{
    fs::File,
    io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    thread,
};

/// A namespace that only this process can reach. It lives as long as this, or a socket or thread in it.
#[derive(Debug)]
pub struct Anonymous {
    _file: File,
    path: PathBuf,
}

impl Anonymous {
    /// Makes one, with its loopback on.
    ///
    /// # Errors
    /// The process may not make namespaces.
    pub fn new() -> Result<Self, Error> {
        const OWN: &str = "/proc/thread-self/ns/net";
        let failed = |source| Error::Change { doing: "make", path: OWN.into(), source };
        let work = || -> io::Result<File> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let file = File::open(OWN)?;
            let on = link::up(link::By::Name("lo"));
            Socket::open().and_then(|mut socket| socket.run(&[on])).map_err(io::Error::other)?;
            Ok(file)
        };
        let thread = thread::Builder::new().name("netns".into()).spawn(work).map_err(Error::Thread)?;
        let file = thread.join().map_err(|_| Error::Panicked)?.map_err(failed)?;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd()).into();
        Ok(Self { _file: file, path })
    }

    /// Where this process finds it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::{run, testing::isolated};

    #[test]
    fn a_namespace_without_a_name_can_be_worked_in_and_is_not_ours() {
        isolated("netns::anonymous::tests::a_namespace_without_a_name_can_be_worked_in_and_is_not_ours", |_| {
            let (one, other) = (Anonymous::new().unwrap(), Anonymous::new().unwrap());
            let own = || std::fs::read_link("/proc/thread-self/ns/net").unwrap();
            let inside = [one.path(), other.path()].map(|path| run(path, own).unwrap());
            assert!(inside[0] != inside[1] && !inside.contains(&own()));
            let loopback = || std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
            let address = run(one.path(), loopback).unwrap();
            assert!(address.port() > 0);
            let listener = run(one.path(), || std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap()).unwrap();
            let at = listener.local_addr().unwrap();
            run(one.path(), || std::net::TcpStream::connect(at).unwrap()).unwrap();
            assert!(run(other.path(), || std::net::TcpStream::connect(at)).unwrap().is_err());
        });
    }
}

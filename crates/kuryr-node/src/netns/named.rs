//! Namespaces that have a name: a file to which they are bound.

use super::{Error, Namespace};
use crate::netlink::{Socket, link};
use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

const THREADS_OWN: &str = "/proc/thread-self/ns/net";

/// Makes a namespace with its loopback on, and binds it to a new file at `path`.
///
/// # Errors
/// The path exists, or the process may not make namespaces or mounts.
pub fn create(path: &Path) -> Result<(), Error> {
    let failed = |source| Error::Change { doing: "make", path: path.to_owned(), source };
    File::create_new(path).map_err(failed)?;
    let made = std::thread::scope(|scope| {
        let work = || -> io::Result<()> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            mount(Some(THREADS_OWN), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
            let on = link::up(link::By::Name("lo"));
            Socket::open().and_then(|mut socket| socket.run(&[on])).map_err(io::Error::other)
        };
        let thread = std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, work)?;
        thread.join().map_err(|_| io::Error::other("the thread broke off"))?
    });
    made.map_err(|source| {
        // What was half made goes; the first error is the one to tell.
        let _ = delete(path);
        failed(source)
    })
}

/// Removes the name at `path`; the namespace goes with the last process or socket in it. Absent is success.
///
/// # Errors
/// The name is there and stays.
pub fn delete(path: &Path) -> Result<(), Error> {
    let failed = |source| Error::Change { doing: "remove", path: path.to_owned(), source };
    match umount2(path, MntFlags::MNT_DETACH) {
        // EINVAL: nothing is mounted there.
        Ok(()) | Err(Errno::ENOENT | Errno::EINVAL) => {}
        Err(errno) => return Err(failed(errno.into())),
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
        _ => Ok(()),
    }
}

/// The namespaces that are bound to files in `directory`, by path. No directory, no namespaces.
///
/// # Errors
/// The directory cannot be read.
pub fn list(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |source| Error::Open { path: directory.to_owned(), source };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if Namespace::open(&path).is_ok() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

//! Network namespaces, and threads inside them.
//!
//! A namespace belongs to a thread. Work in another namespace is done by a thread that is made for it, enters, and ends:
//! no thread that does anything else ever changes its namespace.

pub mod anonymous;
pub mod error;
pub mod named;
#[cfg(test)]
pub(crate) mod testing;
pub mod thread;

pub use anonymous::Anonymous;
pub use error::Error;
pub use named::{create, delete, list};
pub use thread::{run, spawn};

use nix::{
    sched::{CloneFlags, setns},
    sys::statfs::{FsType, NSFS_MAGIC, fstatfs},
};
use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
};

/// A network namespace held open: it lives at least as long as this.
#[derive(Debug)]
pub struct Namespace {
    file: File,
    path: PathBuf,
}

impl Namespace {
    /// Opens the namespace at `path`, such as `/var/run/netns/x` or `/proc/1/ns/net`.
    ///
    /// # Errors
    /// [`Error::Missing`] if nothing is there, or only the empty file that a removed namespace leaves.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let path = path.to_owned();
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(source) if missing(&source) => return Err(Error::Missing { path }),
            Err(source) => return Err(Error::Open { path, source }),
        };
        match fstatfs(&file) {
            Ok(found) if is_namespace(found.filesystem_type()) => Ok(Self { file, path }),
            Ok(_) => Err(Error::Missing { path }),
            Err(errno) => Err(Error::Open { path, source: errno.into() }),
        }
    }

    /// Moves the calling thread into the namespace, for good.
    ///
    /// # Errors
    /// It is no network namespace, or the process may not enter it.
    pub fn enter(&self) -> Result<(), Error> {
        setns(&self.file, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| Error::Enter { path: self.path.clone(), source: errno })
    }

    /// Where it was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn is_namespace(found: FsType) -> bool {
    found == NSFS_MAGIC
}

/// A path into a process that has ended gives ESRCH rather than ENOENT.
fn missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        || error.raw_os_error() == Some(nix::errno::Errno::ESRCH as i32)
}

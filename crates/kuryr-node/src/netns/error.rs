//! Why a namespace could not be used.

use nix::errno::Errno;
use std::{io, path::PathBuf};

/// Why a namespace could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no namespace at that path (any more).
    #[error("network namespace {} does not exist", .path.display())]
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// The path could not be opened.
    #[error("cannot open network namespace {}", .path.display())]
    Open {
        /// The path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The process may not enter it.
    #[error("cannot enter network namespace {}", .path.display())]
    Enter {
        /// The path.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: Errno,
    },
    /// A namespace could not be made or removed.
    #[error("cannot {doing} network namespace {}", .path.display())]
    Change {
        /// `make` or `remove`.
        doing: &'static str,
        /// The path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// No thread could be made to work in the namespace.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// The work itself panicked.
    #[error("the work in the network namespace broke off")]
    Panicked,
}

impl Error {
    /// Whether it says that the namespace is gone, which is success for everything that removes.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }
}

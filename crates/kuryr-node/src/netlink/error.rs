//! Why the kernel did not do it.

use nix::errno::Errno;
use std::{fmt, io};

/// What went wrong between us and the kernel.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused a request.
    #[error("cannot {doing}{words}")]
    Refused {
        /// What was tried, as in "cannot ...".
        doing: String,
        /// The kernel's own explanation, if it gave one.
        words: Words,
        /// Its error number.
        #[source]
        errno: Errno,
    },
    /// The socket failed.
    #[error("cannot {doing}")]
    Socket {
        /// What was tried.
        doing: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The kernel's answer could not be understood.
    #[error("cannot understand the kernel's answer to \"{doing}\": {reason}")]
    Malformed {
        /// What was asked.
        doing: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// A file under `/proc/sys` could not be written.
    #[error("cannot set {name} to {value}")]
    Sysctl {
        /// The setting, as in `net/ipv6/conf/eth0/accept_ra`.
        name: String,
        /// The value.
        value: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// The kernel's error number, if it was the kernel that refused.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}

/// The kernel's explanation, printed in brackets if there is one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words(pub Option<String>);

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(words) => write!(f, " ({words})"),
            None => Ok(()),
        }
    }
}

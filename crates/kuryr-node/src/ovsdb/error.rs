//! Why the database did not do it.

use std::{io, path::PathBuf, time::Duration};

/// What went wrong between us and `ovsdb-server`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database could not be reached in time.
    #[error("Open vSwitch's database at {} was not reachable for {waited:.1?}; is ovsdb-server running?", .socket.display())]
    Away {
        /// Its socket.
        socket: PathBuf,
        /// How long was waited.
        waited: Duration,
        /// The last attempt to connect, if one has failed.
        #[source]
        source: Option<io::Error>,
    },
    /// The connection ended before the answer: the transaction may or may not have been done.
    #[error("the connection to Open vSwitch's database ended before its answer")]
    Lost,
    /// The database refused a transaction.
    #[error("the database refused: {error}{}", .details.as_deref().map(|details| format!(" ({details})")).unwrap_or_default())]
    Refused {
        /// The kind of refusal, in the RFC's words, such as `constraint violation`.
        error: String,
        /// The server's explanation.
        details: Option<String>,
    },
    /// The database's answer could not be understood.
    #[error("cannot understand the database's answer: {0}")]
    Malformed(String),
    /// There is no bridge of that name.
    #[error("there is no bridge {0}")]
    NoBridge(String),
    /// Open vSwitch could not use the interface.
    #[error("Open vSwitch cannot use interface {interface}: {reason}")]
    Interface {
        /// Its name.
        interface: String,
        /// What `ovs-vswitchd` says.
        reason: String,
    },
    /// Somebody removed the port while it was waited for.
    #[error("port {0} was removed from Open vSwitch while it was waited for")]
    Vanished(String),
    /// The awaited state did not come in time.
    #[error("waited {0:.1?} in vain")]
    Deadline(Duration),
}

impl Error {
    /// Whether the database itself cannot be reached.
    #[must_use]
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Away { .. })
    }
}

//! What can go wrong in the data plane.

use kuryr_node::{netlink, netns, plug::PlugError};
use std::{io, path::PathBuf};

/// Why the data plane could not do something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Namespaces may not be made.
    #[error("{0}")]
    Forbidden(String),
    /// The testbed's own namespace could not be prepared.
    #[error("cannot {doing}")]
    Prepare {
        /// What was tried.
        doing: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The kernel refused.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// A namespace could not be used.
    #[error(transparent)]
    Namespace(#[from] netns::Error),
    /// A VM's port could not be plugged.
    #[error(transparent)]
    Plug(#[from] PlugError),
    /// The program `nft` is missing.
    #[error("the program `nft` is needed and was not found; install the package nftables")]
    NoNft(#[source] io::Error),
    /// `nft` refused a ruleset.
    #[error("nft refused the rules of {node}: {reason}")]
    Nft {
        /// The node.
        node: String,
        /// What it printed.
        reason: String,
    },
    /// A node's worker has ended.
    #[error("the worker of node {0} has ended")]
    Ended(String),
    /// There is no such node.
    #[error("there is no node {0} in this fabric")]
    NoNode(String),
    /// A namespace of that name is in the way.
    #[error("{} is taken", .0.display())]
    Taken(PathBuf),
}

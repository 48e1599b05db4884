//! What the daemon must be told.

use crate::plug::PlugConfig;
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

/// `kuryr-cni` gives up after two minutes of silence; this much of that is ours.
const LONGEST_ADD: Duration = Duration::from_secs(100);

/// How long DEL, CHECK and GC may wait for another operation on their container.
pub const LOCK_TIMEOUT: Duration = Duration::from_secs(30);

/// The settings of a node's daemon.
#[derive(Clone, Debug)]
pub struct DaemonConfig {
    /// The Kubernetes node that this is.
    pub node_name: String,
    /// The unix socket to listen on for `kuryr-cni`. Its folder is made, for root alone.
    pub socket: PathBuf,
    /// The folder for what must outlive the daemon.
    pub state_folder: PathBuf,
    /// Where `/healthz`, `/readyz` and `/metrics` are served.
    pub http_address: SocketAddr,
    /// How long an ADD waits for the pod's port.
    pub add_timeout: Duration,
    /// How long plugging may take after that, with the data plane's signal.
    pub plug_timeout: Duration,
    /// Where the node's own things are.
    pub plug: PlugConfig,
    /// Node ports and external addresses of Services.
    pub node_ports: NodePorts,
    /// Whether STATUS fails while no further pod fits on the node. containerd 2 then says that the node's network is not ready,
    /// kubelet that the Node is not, and Kubernetes evicts all of its pods after five minutes.
    pub not_ready_when_full: bool,
}

/// What is done about node ports and external addresses of Services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NodePorts {
    /// The node translates them.
    #[default]
    Keep,
    /// It does not, and rules that an earlier daemon made are taken away.
    Remove,
    /// Rules are left alone: for a daemon that has the node's network to itself no more than others.
    Leave,
}

/// A setting is wrong.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// No node name.
    #[error(
        "the node's name is not set; set it to the name of the Kubernetes node that the daemon runs on (spec.nodeName)"
    )]
    NodeName,
    /// An ADD would take longer than the executable waits.
    #[error(
        "add timeout ({add:?}) and plug timeout ({plug:?}) must both be more than nothing and together at most {LONGEST_ADD:?}; lower them"
    )]
    Timeouts {
        /// The one.
        add: Duration,
        /// The other.
        plug: Duration,
    },
}

impl DaemonConfig {
    /// The defaults for a node.
    pub fn new(node_name: impl Into<String>) -> Self {
        Self {
            node_name: node_name.into(),
            socket: PathBuf::from("/run/kuryr/cni.sock"),
            state_folder: PathBuf::from("/var/lib/kuryr"),
            http_address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 9651)),
            add_timeout: Duration::from_secs(60),
            plug_timeout: Duration::from_secs(30),
            plug: PlugConfig::default(),
            node_ports: NodePorts::default(),
            not_ready_when_full: false,
        }
    }

    /// The longest that a daemon takes to stop: what is being plugged or unplugged is finished, and what does not end by itself
    /// is left to the next start.
    #[must_use]
    pub fn longest_stop(&self) -> Duration {
        self.plug_timeout * 2
    }

    /// Checks the settings against each other.
    ///
    /// # Errors
    /// One of them cannot be.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.node_name.is_empty() {
            return Err(ConfigError::NodeName);
        }
        let (add, plug) = (self.add_timeout, self.plug_timeout);
        if add.is_zero() || plug.is_zero() || add.saturating_add(plug) > LONGEST_ADD {
            return Err(ConfigError::Timeouts { add, plug });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_good_and_what_cannot_be_is_refused() {
        let mut config = DaemonConfig::new("node-1");
        assert_eq!(config.check(), Ok(()));
        config.add_timeout = Duration::from_secs(90);
        assert!(matches!(config.check(), Err(ConfigError::Timeouts { .. })));
        config.add_timeout = Duration::ZERO;
        assert!(matches!(config.check(), Err(ConfigError::Timeouts { .. })));
        assert_eq!(DaemonConfig::new("").check(), Err(ConfigError::NodeName));
    }
}

//! Binding of ports to hosts: what a host's mechanism driver says of a port.

use serde_json::{Value, json};

/// How ports of a host are plugged; it decides `binding:vif_type` and `binding:vif_details`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostKind {
    /// Routed taps, as Calico's driver makes them.
    Tap,
    /// Open vSwitch with OVN, userspace datapath.
    Ovs,
    /// Linux bridge.
    Bridge,
}

impl HostKind {
    fn vif_type(self) -> &'static str {
        match self {
            Self::Tap => "tap",
            Self::Ovs => "ovs",
            Self::Bridge => "bridge",
        }
    }

    fn vif_details(self) -> Value {
        match self {
            Self::Tap => json!({ "connectivity": "l3", "port_filter": true }),
            Self::Ovs => json!({
                "port_filter": true, "connectivity": "l2", "bridge_name": "br-int", "datapath_type": "netdev",
                "bound_drivers": { "0": "ovn" },
            }),
            Self::Bridge => {
                json!({ "port_filter": true, "connectivity": "l2", "bound_drivers": { "0": "linuxbridge" } })
            }
        }
    }
}

/// The result of binding a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Binding {
    /// No host is named.
    Unbound,
    /// No driver knows the host.
    Failed,
    Bound(HostKind),
    /// On a trunk: its parent's host plugs it.
    Subport,
    /// Not on a host at all, as router ports.
    Distributed,
}

impl Binding {
    pub(crate) fn vif_type(self) -> &'static str {
        match self {
            Self::Unbound => "unbound",
            Self::Failed => "binding_failed",
            Self::Bound(kind) => kind.vif_type(),
            Self::Subport => "ovs",
            Self::Distributed => "distributed",
        }
    }

    pub(crate) fn vif_details(self) -> Value {
        match self {
            Self::Bound(kind) => kind.vif_details(),
            Self::Subport => HostKind::Ovs.vif_details(),
            Self::Unbound | Self::Failed | Self::Distributed => json!({}),
        }
    }

    pub(crate) fn is_bound(self) -> bool {
        matches!(self, Self::Bound(_) | Self::Subport)
    }
}

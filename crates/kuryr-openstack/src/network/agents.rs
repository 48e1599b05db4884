//! Neutron's agents: which hosts it can bind ports to. Only administrators may ask.

use super::{Filter, Kind, Network};
use crate::Error;
use serde::Deserialize;

const KIND: Kind = Kind {
    path: "agents",
    plural: "agents",
    single: "agent",
    fields: &["id", "agent_type", "host", "alive", "admin_state_up"],
};

/// An agent, or an OVN controller, which Neutron lists like one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Agent {
    /// Such as `OVN Controller agent`, `Open vSwitch agent`.
    pub agent_type: String,
    /// The host that it runs on, by Neutron's name: what a port's `binding:host_id` must be.
    pub host: String,
    /// Whether Neutron has heard of it lately.
    #[serde(default)]
    pub alive: bool,
}

impl Network {
    /// Those that the filter lets through.
    pub async fn agents(&self, filter: &Filter) -> Result<Vec<Agent>, Error> {
        self.rest.list(&KIND, filter).await
    }
}

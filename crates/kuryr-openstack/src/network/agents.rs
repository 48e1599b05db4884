//! Neutron's agents: which hosts it can bind ports to. Only administrators may ask.

use super::{Filter, Kind, Network};
use crate::Error;
use serde::Deserialize;
use std::time::Duration;
use tokio::time::sleep;

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

    /// The same, asked for again if one of them seems to be dead. OVN's controllers say that they live only when they are
    /// asked, and it is the list that asks them: after a quiet time a list can be quicker than their answer.
    pub async fn agents_if_asked_twice(&self, filter: &Filter) -> Result<Vec<Agent>, Error> {
        let agents = self.agents(filter).await?;
        if agents.iter().all(|agent| agent.alive) {
            return Ok(agents);
        }
        sleep(ANSWER).await;
        self.agents(filter).await
    }
}

/// Time in which a living OVN controller has answered, and Neutron has noticed.
const ANSWER: Duration = Duration::from_secs(3);

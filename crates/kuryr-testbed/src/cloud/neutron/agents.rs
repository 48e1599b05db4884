//! `/v2.0/agents`: one for each known host.

use axum::http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Neutron;
use super::binding::HostKind;
use super::error::{Error, Result};
use crate::cloud::http::{Answer, Call};

pub(crate) fn handle(neutron: &Neutron, call: &Call, rest: &[&str]) -> Result<Answer> {
    if call.method != Method::GET {
        return Err(Error::no_such_method());
    }
    let agents = neutron.hosts.iter().map(|(name, &kind)| agent(name, kind, call));
    match rest {
        [] => {
            let filters =
                || call.query.iter().filter(|(key, _)| ["id", "host", "binary", "agent_type"].contains(&key.as_str()));
            let wanted = |agent: &Value| filters().all(|(key, value)| agent[key].as_str() == Some(value));
            let list: Vec<Value> = agents.filter(wanted).collect();
            Ok(Answer::ok(json!({ "agents": list })))
        }
        [id] => {
            let found = agents.into_iter().find(|agent| agent["id"].as_str() == Some(id));
            let agent =
                found.ok_or_else(|| Error::not_found("AgentNotFound", format!("Agent {id} could not be found.")))?;
            Ok(Answer::ok(json!({ "agent": agent })))
        }
        _ => Err(Error::no_such_path()),
    }
}

fn agent(host: &str, kind: HostKind, call: &Call) -> Value {
    let (binary, agent_type) = match kind {
        HostKind::Tap => ("calico-felix", "Felix (Calico agent)"),
        HostKind::Ovs => ("ovn-controller", "OVN Controller agent"),
        HostKind::Bridge => ("neutron-linuxbridge-agent", "Linux bridge agent"),
    };
    json!({
        "id": agent_id(host), "binary": binary, "host": host, "agent_type": agent_type, "topic": "n/a",
        "alive": true, "admin_state_up": true, "availability_zone": "", "configurations": {}, "description": "",
        "heartbeat_timestamp": call.now.strftime("%Y-%m-%d %H:%M:%S").to_string(),
    })
}

/// An id that stays the same for a host: the FNV-1a hash of its name.
fn agent_id(host: &str) -> Uuid {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    Uuid::from_u128(host.bytes().fold(OFFSET, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME)))
}

//! A policy for a person.

use super::view::{RuleState, View};
use std::io::Write;

/// How many of many are named.
const NAMED: usize = 20;

pub(super) fn text(view: &View, out: &mut dyn Write) -> anyhow::Result<()> {
    let View { policy, uid, isolates, ready, .. } = view;
    writeln!(out, "NetworkPolicy {policy}  UID {uid}")?;
    writeln!(out, "  isolates {isolates}")?;
    writeln!(out, "  ready: {ready}")?;
    writeln!(out, "  allows{}", if view.allows.is_empty() { " nothing" } else { "" })?;
    for allowed in &view.allows {
        writeln!(out, "    {}: {}", allowed.at, allowed.means)?;
    }
    match view.pods.len() {
        1 => writeln!(out, "  selects 1 pod")?,
        count => writeln!(out, "  selects {count} pods")?,
    }
    for row in view.pods.iter().take(NAMED) {
        let ports: Vec<String> = row.port_ids.iter().map(ToString::to_string).collect();
        let ports = if ports.is_empty() { "(no port yet)".to_owned() } else { ports.join(", ") };
        writeln!(out, "    {}  port {ports}", row.pod)?;
    }
    if view.pods.len() > NAMED {
        writeln!(out, "    and {} more", view.pods.len() - NAMED)?;
    }
    for group in &view.groups {
        let id = group.id.map_or_else(|| "MISSING in Neutron".to_owned(), |id| id.to_string());
        writeln!(out, "  security group {:?}  {id}", group.name)?;
        for rule in &group.rules {
            let id = rule.id.map_or_else(|| "(none)".to_owned(), |id| id.to_string());
            let state = match rule.state {
                RuleState::AsItShouldBe => "",
                RuleState::Missing => "  MISSING in Neutron",
                RuleState::Stray => "  STRAY: no rule of the policy",
            };
            writeln!(out, "    {id}  {}{state}", rule.rule)?;
        }
    }
    for peers in &view.peers {
        let id = peers.id.map_or_else(|| "MISSING in Neutron".to_owned(), |id| id.to_string());
        writeln!(out, "  peers {}  {} pods  security group {id}", peers.peers, peers.pods)?;
    }
    for problem in &view.problems {
        writeln!(out, "  problem: {problem}")?;
    }
    for difference in &view.differences {
        writeln!(out, "  difference: {difference}")?;
    }
    Ok(())
}

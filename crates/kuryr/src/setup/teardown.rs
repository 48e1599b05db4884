//! What has to go, in which order, and what is in the way: pure.

use super::plan::{Found, Step};
use kuryr_model::{Purpose, neutron::Port};
use std::fmt;

/// How many of the ports that are in the way are named.
const NAMED: usize = 10;

/// Something still uses what is to be removed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) struct InUse {
    count: usize,
    names: Vec<String>,
    /// How many of them are ports of pools, which pods need not have.
    pooled: usize,
}

impl fmt::Display for InUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, names, pooled } = self;
        write!(f, "ports still use what is to be removed, {count} in all: {}", names.join(", "))?;
        if pooled < count {
            write!(f, "; delete the pods (and what else uses the networks) first")?;
        }
        if *pooled > 0 {
            write!(
                f,
                "; {pooled} are ports of pools: set [pools] enabled = false and restart the controller, which deletes those that no pod \
                 has, or with the controller still running: kuryr pools drain NODE, for each node"
            )?;
        }
        Ok(())
    }
}

/// All steps, last things first. None: nothing is left.
pub(crate) fn plan(found: &Found) -> Result<Vec<Step>, InUse> {
    if !found.ports.is_empty() {
        let mut names: Vec<_> = found
            .ports
            .iter()
            .take(NAMED)
            .map(|port| if port.name.is_empty() { port.id.to_string() } else { format!("{} ({})", port.name, port.id) })
            .collect();
        if found.ports.len() > NAMED {
            names.push("...".to_owned());
        }
        let pooled = |port: &&Port| port.tags.iter().any(|tag| matches!(tag.parse(), Ok(Purpose::Pool)));
        let pooled = found.ports.iter().filter(pooled).count();
        return Err(InUse { count: found.ports.len(), names, pooled });
    }
    let mut steps: Vec<_> = found.interfaces.iter().map(|interface| Step::RemoveInterface(*interface)).collect();
    steps.extend(found.routers.iter().map(|router| Step::DeleteRouter(router.id)));
    steps.extend(found.all_subnets().map(|subnet| Step::DeleteSubnet(subnet.id)));
    steps.extend(found.all_networks().map(|network| Step::DeleteNetwork(network.id)));
    steps.extend(found.policy_groups.iter().map(|group| Step::DeleteGroup(group.id)));
    steps.extend(found.groups.iter().map(|(_, group)| Step::DeleteGroup(group.id)));
    Ok(steps)
}

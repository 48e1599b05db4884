//! What has to go, in which order, and what is in the way: pure.

use super::plan::{Found, Step};

/// How many of the ports that are in the way are named.
const NAMED: usize = 10;

/// Something still uses what is to be removed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("ports still use what is to be removed, {count} in all: {}; delete the pods (and what else uses the networks) first", names.join(", "))]
pub(crate) struct InUse {
    count: usize,
    names: Vec<String>,
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
        return Err(InUse { count: found.ports.len(), names });
    }
    let mut steps: Vec<_> = found.interfaces.iter().map(|interface| Step::RemoveInterface(*interface)).collect();
    steps.extend(found.routers.iter().map(|router| Step::DeleteRouter(router.id)));
    steps.extend(found.all_subnets().map(|subnet| Step::DeleteSubnet(subnet.id)));
    steps.extend(found.all_networks().map(|network| Step::DeleteNetwork(network.id)));
    steps.extend(found.policy_groups.iter().map(|group| Step::DeleteGroup(group.id)));
    steps.extend(found.groups.iter().map(|(_, group)| Step::DeleteGroup(group.id)));
    Ok(steps)
}

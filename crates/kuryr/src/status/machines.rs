//! Nodes that are virtual machines: their ports, and how full their trunks are.

use super::{
    collect::Known,
    judge::{Area, Check, NAMED, State, check},
};
use crate::view::NodeView;
use kuryr_model::{
    SegmentationId,
    neutron::{Trunk, TrunkStatus},
    vif::PlugDriver,
};
use kuryr_openstack::{Cloud, Error, Filter, chain};
use kuryr_plan::nested::{Machine, Question};

/// Less than this many ids free is worth a word.
const NEARLY: usize = 100;

/// A node that is a virtual machine.
#[derive(Clone, Debug)]
pub(crate) struct MachineFacts {
    pub(crate) node: String,
    /// How its pods are plugged, and the trunk of its port if they are subports; else why that is not known.
    pub(crate) found: Known<(PlugDriver, Option<Trunk>)>,
}

/// Looks for the ports and trunks of all of them, in a few requests.
pub(super) async fn find(nodes: &[NodeView], default: Option<PlugDriver>, cloud: &Cloud) -> Known<Vec<MachineFacts>> {
    let mut machines = Vec::new();
    for node in nodes {
        match node.machine(default) {
            Ok(None) => {}
            Ok(Some(machine)) => machines.push((node.name.clone(), Ok(machine))),
            Err(error) => machines.push((node.name.clone(), Err(error.to_string()))),
        }
    }
    if machines.is_empty() {
        return Ok(Vec::new());
    }
    look(machines, cloud).await.map_err(|error| chain(&error))
}

async fn look(machines: Vec<(String, Known<Machine>)>, cloud: &Cloud) -> Result<Vec<MachineFacts>, Error> {
    let (mut ids, mut devices, mut addresses) = (Vec::new(), Vec::new(), Vec::new());
    for machine in machines.iter().filter_map(|(_, machine)| machine.as_ref().ok()) {
        match machine.question() {
            Ok(Question::Id(id)) => ids.push(id.to_string()),
            Ok(Question::Device(device)) => devices.push(device),
            Ok(Question::Addresses(ips)) => addresses.extend(ips.iter().map(|ip| format!("ip_address={ip}"))),
            // It says why when its port is asked for.
            Err(_) => {}
        }
    }
    let network = cloud.network();
    let mut ports = Vec::new();
    for (key, values) in [("id", ids), ("device_id", devices), ("fixed_ips", addresses)] {
        if !values.is_empty() {
            ports.extend(network.ports().list(&Filter::new().any(key, values)).await?);
        }
    }
    let parents: Vec<_> = ports.iter().map(|port| port.id).collect();
    let trunks = network.trunks().list(&Filter::new().any("port_id", parents)).await?;
    let facts = machines.into_iter().map(|(node, machine)| {
        let found = machine.and_then(|machine| {
            machine.question().map_err(|error| error.to_string())?;
            let found = machine.parent(&ports, &trunks).map_err(|error| error.to_string())?;
            let trunk = trunks.iter().find(|trunk| trunk.port_id == found.parent.port_id);
            Ok((machine.driver, trunk.filter(|_| machine.driver == PlugDriver::Vlan).cloned()))
        });
        MachineFacts { node, found }
    });
    Ok(facts.collect())
}

/// What that means.
pub(super) fn machines(nodes: usize, facts: &Known<Vec<MachineFacts>>, checks: &mut Vec<Check>) {
    let subject = "virtual machines";
    let all = match facts {
        Err(error) => return checks.push(check(Area::OpenStack, subject, State::Note, error, "")),
        Ok(all) if all.is_empty() => return,
        Ok(all) => all,
    };
    let found = all.iter().filter_map(|machine| machine.found.as_ref().ok());
    let used: usize = found.clone().filter_map(|(_, trunk)| Some(trunk.as_ref()?.sub_ports.len())).sum();
    let known = found.count();
    let detail =
        format!("{} of {nodes} nodes, the ports of {known} are known; {used} subports on their trunks", all.len());
    // The nodes themselves follow: a fault counts once.
    let state = if known == all.len() { State::Ok } else { State::Note };
    checks.push(check(Area::OpenStack, subject, state, detail, ""));
    checks.extend(all.iter().filter_map(machine).take(NAMED));
    let unguarded =
        all.iter().filter(|machine| matches!(machine.found, Ok((PlugDriver::Macvlan | PlugDriver::Ipvlan, _))));
    let unguarded: Vec<&str> = unguarded.map(|machine| &*machine.node).collect();
    if let Some(first) = unguarded.first() {
        let detail = format!(
            "they do not hold for pods on {} nodes ({first}, ...), which share their machine's port and its security groups",
            unguarded.len()
        );
        checks.push(check(Area::Policies, "NetworkPolicies", State::Note, detail, "use kind vlan there"));
    }
}

/// What is wrong with one, or will be soon.
fn machine(machine: &MachineFacts) -> Option<Check> {
    let say = |state, detail: String, fix| {
        Some(check(Area::OpenStack, &format!("node {}", machine.node), state, detail, fix))
    };
    let trunk = match &machine.found {
        Err(why) => return say(State::Wrong, why.clone(), ""),
        Ok((_, trunk)) => trunk.as_ref()?,
    };
    let (id, used) = (trunk.id, trunk.sub_ports.len());
    let free = SegmentationId::COUNT.saturating_sub(used);
    match trunk.status {
        _ if !trunk.admin_state_up => {
            say(State::Wrong, format!("its trunk {id} is switched off"), "openstack network trunk set --enable TRUNK")
        }
        TrunkStatus::Error => {
            say(State::Wrong, format!("Neutron says that its trunk {id} is in ERROR"), "look at Neutron's log")
        }
        _ if free == 0 => {
            say(State::Wrong, format!("its trunk {id} has no VLAN id left: no further pod fits"), "fewer pods there")
        }
        _ if free < NEARLY => say(
            State::Note,
            format!("{used} of {} VLAN ids of its trunk are used", SegmentationId::COUNT),
            "fewer pods there",
        ),
        TrunkStatus::Degraded => {
            say(State::Note, format!("Neutron says that its trunk {id} is DEGRADED"), "look at Neutron's log")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn trunk(subports: usize, status: &str) -> Trunk {
        let id = |n: usize| format!("00000000-0000-0000-0000-{n:012}");
        let all: Vec<_> = (1..=subports)
            .map(|n| json!({"port_id": id(n), "segmentation_type": "vlan", "segmentation_id": n}))
            .collect();
        serde_json::from_value(json!({
            "id": id(9001), "name": "", "port_id": id(9000), "status": status, "admin_state_up": true, "sub_ports": all,
        }))
        .unwrap()
    }

    fn judged(found: Known<(PlugDriver, Option<Trunk>)>) -> Vec<(State, String)> {
        let mut checks = Vec::new();
        machines(3, &Ok(vec![MachineFacts { node: "vm".into(), found }]), &mut checks);
        checks.into_iter().map(|check| (check.state, format!("{}: {}", check.subject, check.detail))).collect()
    }

    #[test]
    fn a_machine_that_works_is_one_line() {
        let line = "virtual machines: 1 of 3 nodes, the ports of 1 are known; 2 subports on their trunks".to_owned();
        assert_eq!(judged(Ok((PlugDriver::Vlan, Some(trunk(2, "ACTIVE"))))), [(State::Ok, line)]);
    }

    #[test]
    fn what_a_machine_lacks_is_told() {
        for (found, state, words) in [
            (Err("none of the node's ports".to_owned()), State::Wrong, "node vm: none of the node's ports"),
            (Ok((PlugDriver::Vlan, Some(trunk(1, "ERROR")))), State::Wrong, "is in ERROR"),
            (Ok((PlugDriver::Vlan, Some(trunk(1, "DEGRADED")))), State::Note, "is DEGRADED"),
            (Ok((PlugDriver::Vlan, Some(trunk(4000, "ACTIVE")))), State::Note, "4000 of 4094 VLAN ids"),
            (Ok((PlugDriver::Vlan, Some(trunk(4094, "ACTIVE")))), State::Wrong, "no further pod fits"),
            (Ok((PlugDriver::Macvlan, None)), State::Note, "do not hold for pods on 1 nodes (vm"),
        ] {
            let told = judged(found);
            assert!(told.len() == 2 && told[1].0 == state && told[1].1.contains(words), "{told:?}");
        }
    }
}

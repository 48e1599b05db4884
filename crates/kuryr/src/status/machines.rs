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
    /// Why no further pod fits on it, if the controller says so.
    pub(crate) full: Option<String>,
}

/// Looks for the ports and trunks of all of them, in a few requests.
pub(super) async fn find(nodes: &[NodeView], default: Option<PlugDriver>, cloud: &Cloud) -> Known<Vec<MachineFacts>> {
    let mut machines = Vec::new();
    for node in nodes {
        match node.machine(default) {
            Ok(None) => {}
            Ok(Some(machine)) => machines.push((node, Ok(machine))),
            Err(error) => machines.push((node, Err(error.to_string()))),
        }
    }
    if machines.is_empty() {
        return Ok(Vec::new());
    }
    look(machines, cloud).await.map_err(|error| chain(&error))
}

async fn look(machines: Vec<(&NodeView, Known<Machine>)>, cloud: &Cloud) -> Result<Vec<MachineFacts>, Error> {
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
        let mut filter = Filter::new().any(key, &values);
        // As the controller asks: an administrator sees what others have at the same addresses.
        if let Some(project) = cloud.identity().project.filter(|_| key == "fixed_ips") {
            filter = filter.with("project_id", project);
        }
        if !values.is_empty() {
            ports.extend(network.ports().list(&filter).await?);
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
        MachineFacts { node: node.name.clone(), found, full: node.full.clone() }
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
    let mut each: Vec<Check> = all.iter().map(machine).collect();
    each.sort_by_key(|check| match check.state {
        State::Wrong => 0,
        State::Note => 1,
        State::Ok => 2,
    });
    let more = each.len().saturating_sub(NAMED);
    each.truncate(NAMED);
    let least = each.last().map(|check| check.state);
    checks.extend(each);
    if let (1.., Some(state)) = (more, least) {
        let detail = format!("{more} more nodes that are virtual machines");
        checks.push(check(Area::OpenStack, "...", state, detail, ""));
    }
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

/// What limits the pods of one, and what is wrong with it or will be soon.
fn machine(machine: &MachineFacts) -> Check {
    let say =
        |state, detail: String, fix| check(Area::OpenStack, &format!("node {}", machine.node), state, detail, fix);
    let trunk = match (&machine.found, &machine.full) {
        (Ok((_, Some(trunk))), _) => trunk,
        (Err(why), _) | (Ok((_, None)), Some(why)) => return say(State::Wrong, why.clone(), ""),
        (Ok((kind, None)), None) => {
            let detail =
                "more pods fit; the limit is Neutron's max_allowed_address_pair, which only shows when it is met";
            return say(State::Ok, format!("{}: {detail}", kind.as_str()), "");
        }
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
        _ if free == 0 && machine.full.is_some() => {
            say(State::Wrong, format!("its trunk {id} has no VLAN id left: no further pod fits"), "fewer pods there")
        }
        _ if free == 0 => {
            let detail = format!("its trunk {id} has no VLAN id left: further pods get spare ports, if there are any");
            say(State::Note, detail, "fewer pods there")
        }
        _ if free < NEARLY => say(State::Note, room(used), "fewer pods there"),
        TrunkStatus::Degraded => {
            say(State::Note, format!("Neutron says that its trunk {id} is DEGRADED"), "look at Neutron's log")
        }
        _ => say(State::Ok, room(used), ""),
    }
}

fn room(used: usize) -> String {
    let all = SegmentationId::COUNT;
    format!("{used} of {all} VLAN ids of its trunk are used: {} more pods fit", all.saturating_sub(used))
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
        machines(3, &Ok(vec![MachineFacts { node: "vm".into(), found, full: None }]), &mut checks);
        checks.into_iter().map(|check| (check.state, format!("{}: {}", check.subject, check.detail))).collect()
    }

    #[test]
    fn a_machine_that_works_says_what_its_limit_is() {
        let line = "virtual machines: 1 of 3 nodes, the ports of 1 are known; 2 subports on their trunks".to_owned();
        let room = "node vm: 2 of 4094 VLAN ids of its trunk are used: 4092 more pods fit".to_owned();
        assert_eq!(judged(Ok((PlugDriver::Vlan, Some(trunk(2, "ACTIVE"))))), [(State::Ok, line), (State::Ok, room)]);
        let shares = judged(Ok((PlugDriver::Macvlan, None)));
        assert!(shares[1].0 == State::Ok && shares[1].1.contains("max_allowed_address_pair"), "{shares:?}");
        assert!(
            shares[2].0 == State::Note && shares[2].1.contains("do not hold for pods on 1 nodes (vm"),
            "{shares:?}"
        );
    }

    #[test]
    fn what_a_machine_lacks_is_told() {
        for (found, state, words) in [
            (Err("none of the node's ports".to_owned()), State::Wrong, "node vm: none of the node's ports"),
            (Ok((PlugDriver::Vlan, Some(trunk(1, "ERROR")))), State::Wrong, "is in ERROR"),
            (Ok((PlugDriver::Vlan, Some(trunk(1, "DEGRADED")))), State::Note, "is DEGRADED"),
            (Ok((PlugDriver::Vlan, Some(trunk(4000, "ACTIVE")))), State::Note, "4000 of 4094 VLAN ids"),
            (Ok((PlugDriver::Vlan, Some(trunk(4094, "ACTIVE")))), State::Note, "further pods get spare ports"),
        ] {
            let told = judged(found);
            assert!(told.len() == 2 && told[1].0 == state && told[1].1.contains(words), "{told:?}");
        }
    }

    #[test]
    fn those_that_are_full_are_named_first_and_the_others_counted() {
        let facts = |n: usize| {
            let full = (n == 40).then(|| "port 7 has all 10 address pairs".to_owned());
            MachineFacts { node: format!("vm-{n}"), found: Ok((PlugDriver::Ipvlan, None)), full }
        };
        let mut checks = Vec::new();
        machines(50, &Ok((0..50).map(facts).collect()), &mut checks);
        assert_eq!((&*checks[1].subject, checks[1].state), ("node vm-40", State::Wrong));
        let full = Some("all ids are in use".to_owned());
        let found = Ok((PlugDriver::Vlan, Some(trunk(4094, "ACTIVE"))));
        let check = machine(&MachineFacts { node: "vm".into(), found, full });
        assert!(check.state == State::Wrong && check.detail.contains("no further pod fits"), "{}", check.detail);
        let rest = checks.iter().find(|check| check.subject == "...").unwrap();
        assert_eq!(
            (rest.state, &*rest.detail),
            (State::Ok, &*format!("{} more nodes that are virtual machines", 50 - NAMED))
        );
    }
}

//! Pods of virtual machines: whether their ports are where their `KuryrPort`s say.

use super::compare::{Finding, Kind, World, finding};
use kuryr_model::{KuryrPort, PortId, Vif, vif::PlugDriver};
use kuryr_plan::nested::pairs_of;
use std::collections::BTreeMap;

/// What somebody can do about what the controller itself puts right.
const AGAIN: &str = "the controller puts that right within prune_interval, and when it is started";

/// The parents' VIFs, with the `KuryrPort` of each.
type Carried<'a> = BTreeMap<PortId, Vec<(&'a KuryrPort, &'a Vif)>>;

pub(super) fn carried<'a>(held: &'a [KuryrPort]) -> Carried<'a> {
    let mut all = Carried::new();
    // What is on its way out may have left already.
    for held in held.iter().filter(|held| !held.deleting()) {
        for vif in &held.spec.vifs {
            if let Some(parent) = vif.plug.parent.filter(|_| vif.plug.driver.is_nested()) {
                all.entry(parent.port_id).or_default().push((held, vif));
            }
        }
    }
    all
}

pub(super) fn machines(world: &World, findings: &mut Vec<Finding>) {
    for (parent, vifs) in carried(&world.view.kuryr_ports) {
        let (subports, sharing): (Vec<_>, Vec<_>) =
            vifs.into_iter().partition(|(_, vif)| vif.plug.driver == PlugDriver::Vlan);
        on_trunk(world, parent, &subports, findings);
        let Some(pairs) = world.pairs.get(&parent) else { continue };
        for (held, vif) in sharing {
            let there = |(ip, mac): &_| pairs.iter().any(|pair| pair.ip() == Some(*ip) && pair.mac_address == *mac);
            for (ip, mac) in pairs_of(vif).iter().filter(|used| !there(used)) {
                let what = format!("it may not use {ip} with {mac}, which KuryrPort {} has", held.key());
                findings.push(finding(Kind::Mismatch, "address pair", &parent, what, AGAIN));
            }
        }
    }
}

fn on_trunk(world: &World, parent: PortId, vifs: &[(&KuryrPort, &Vif)], findings: &mut Vec<Finding>) {
    let Some((first, _)) = vifs.first() else { return };
    let Some(trunk) = world.trunks.iter().find(|trunk| trunk.port_id == parent) else {
        let node = &first.spec.node_name;
        let what = format!("port {parent} of the node is no trunk's parent, or gone; pods cut off: {}", vifs.len());
        let fix = format!(
            "openstack network trunk create --parent-port {parent} NAME; if the port is gone, give the machine another one with a trunk, and \
             start its pods anew"
        );
        return findings.push(finding(Kind::Missing, "trunk of node", node, what, &fix));
    };
    for (held, vif) in vifs {
        let there = trunk.sub_ports.iter().find(|subport| subport.port_id == vif.port_id);
        let (said, there) = (vif.plug.vlan.map(|id| u32::from(id.get())), there.map(|there| there.segmentation_id));
        if said.is_some() && said == there {
            continue;
        }
        let word = |id: Option<u32>| id.map_or_else(|| "none".to_owned(), |id| id.to_string());
        let (key, trunk) = (held.key(), trunk.id);
        let what = format!("its VLAN id on trunk {trunk} is {}, KuryrPort {key} says {}", word(there), word(said));
        findings.push(finding(Kind::Mismatch, "subport", &vif.port_id, what, AGAIN));
    }
}

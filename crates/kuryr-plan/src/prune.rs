//! What a controller that starts, or looks again after a long time, makes of the ports that carry its cluster's mark.

use kuryr_model::{ClusterId, KuryrPort, Mark, PodUid, PortId, Purpose, neutron::Port};
use std::collections::{BTreeMap, BTreeSet};

/// Which of the ports in Neutron to keep for whom, and which to delete.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Prune {
    /// Ports made for a living pod that has no `KuryrPort` with VIFs yet, because the controller died between the
    /// two writes: the pod gets this one.
    pub adopt: BTreeMap<PodUid, PortId>,
    /// Ports for pods that are gone, and second ports for one pod.
    pub delete: BTreeSet<PortId>,
    /// Ports of pools that no `KuryrPort` has.
    pub spare: BTreeSet<PortId>,
}

/// Sorts `ports`. `waiting` are the UIDs of pods that want ports and have none, `held` all `KuryrPort`s.
///
/// A port is only ever deleted or spare if it carries the cluster's mark *and* says that it is for a pod or a pool.
pub fn prune<'a>(
    cluster: &ClusterId,
    ports: &[Port],
    held: impl Iterator<Item = &'a KuryrPort>,
    waiting: &BTreeSet<PodUid>,
) -> Prune {
    let held: BTreeSet<PortId> = held.flat_map(KuryrPort::port_ids).collect();
    let mut plan = Prune::default();
    for port in ports {
        let Some(Mark { purpose, .. }) = Mark::read(cluster, &port.tags) else { continue };
        if held.contains(&port.id) {
            continue;
        }
        let uid = match purpose {
            Purpose::Pod(uid) => uid,
            Purpose::Pool => {
                plan.spare.insert(port.id);
                continue;
            }
            Purpose::Service(_) | Purpose::Group(_) | Purpose::Base(_) => continue,
        };
        if waiting.contains(&uid) && !plan.adopt.contains_key(&uid) {
            plan.adopt.insert(uid, port.id);
        } else {
            plan.delete.insert(port.id);
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use kuryr_model::neutron::{PortStatus, VifDetails};

    fn port(n: u8, tags: Vec<String>) -> Port {
        Port {
            id: format!("00000000-0000-0000-0000-0000000000{n:02x}").parse().unwrap(),
            network_id: "00000000-0000-0000-0000-0000000000ff".parse().unwrap(),
            mac_address: "fa:16:3e:00:00:01".parse().unwrap(),
            name: String::new(),
            fixed_ips: vec![],
            security_groups: vec![],
            status: PortStatus::Down,
            device_owner: String::new(),
            device_id: String::new(),
            tags,
            revision_number: 1,
            host_id: String::new(),
            vif_type: String::new(),
            vif_details: VifDetails::default(),
        }
    }

    fn tags(cluster: &str, uid: &str) -> Vec<String> {
        Mark { cluster: cluster.into(), purpose: Purpose::Pod(uid.into()) }.tags()
    }

    #[test]
    fn orphans_go_one_port_of_a_waiting_pod_stays_and_nothing_of_others_is_touched() {
        let ports = [
            port(1, tags("ours", "dead")),
            port(2, tags("ours", "waiting")),
            port(3, tags("ours", "waiting")),
            port(4, tags("theirs", "dead")),
            port(5, vec!["kuryr:ours".into()]),
            port(6, vec![]),
            port(7, Mark { cluster: "ours".into(), purpose: Purpose::Pool }.tags()),
            port(8, Mark { cluster: "theirs".into(), purpose: Purpose::Pool }.tags()),
        ];
        let plan = prune(&"ours".into(), &ports, std::iter::empty(), &[PodUid::from("waiting")].into());
        assert_eq!(plan.adopt, [(PodUid::from("waiting"), ports[1].id)].into());
        assert_eq!(plan.delete, [ports[0].id, ports[2].id].into());
        assert_eq!(plan.spare, [ports[6].id].into());
    }
}

//! What is there after a step: what was known, brought forward by the answer. Pure.

use super::{calls::Answer, observe::add_floating};
use kuryr_model::{
    LoadBalancerId, MemberId,
    lb::{self, LoadBalancer, Operating, Provisioning},
};
use kuryr_plan::service::{Member, Members, Observed, ObservedPool, ObservedTree, Step};

/// Takes over what a step has changed.
pub(crate) fn bring_forward(observed: &mut Observed, step: &Step, answer: Answer) {
    match (step, answer) {
        (Step::CreateTree(_), Answer::Tree(tree)) => observed.trees.push(observed_tree(*tree)),
        (Step::CreateFloating { .. } | Step::AssociateFloating { .. } | Step::DisassociateFloating { .. }, answer) => {
            if let Answer::Floating(ip) = answer {
                add_floating(observed, *ip);
            }
        }
        (Step::TagFloating { id, .. }, Answer::Tags(tags)) => {
            if let Some(ip) = observed.floating.iter_mut().find(|ip| ip.id == *id) {
                ip.tags = tags;
            }
        }
        // Not ours any more.
        (Step::ReleaseFloating { id, .. } | Step::DeleteFloating { id }, _) => {
            observed.floating.retain(|ip| ip.id != *id);
        }
        (step, answer) => {
            if let Some(tree) = step.load_balancer().and_then(|id| find(observed, id)) {
                tree.load_balancer.provisioning_status = match step {
                    Step::DeleteTree { .. } => Provisioning::PendingDelete,
                    _ => Provisioning::PendingUpdate,
                };
                below(tree, step, answer);
            }
        }
    }
}

fn find(observed: &mut Observed, id: LoadBalancerId) -> Option<&mut ObservedTree> {
    observed.trees.iter_mut().find(|tree| tree.load_balancer.id == id)
}

fn observed_tree(tree: lb::Tree) -> ObservedTree {
    let lb::Tree { load_balancer, listeners, pools, mut members, monitors } = tree;
    let pools = pools.into_iter().map(|pool| ObservedPool {
        members: Members::Known(members.remove(&pool.id).unwrap_or_default()),
        monitor: monitors.iter().find(|monitor| Some(monitor.id) == pool.healthmonitor_id).cloned(),
        pool,
    });
    ObservedTree { load_balancer, listeners, pools: pools.collect(), failed_over: false }
}

fn below(tree: &mut ObservedTree, step: &Step, answer: Answer) {
    match (step, answer) {
        (Step::CreatePool { .. }, Answer::Pool(pool)) => {
            tree.pools.push(ObservedPool { pool: *pool, members: Members::Known(Vec::new()), monitor: None });
        }
        (Step::SetMembers { pool: id, members, .. }, _) => {
            if let Some(there) = tree.pools.iter_mut().find(|there| there.pool.id == *id) {
                let members: Vec<lb::Member> = members.iter().map(applied).collect();
                there.pool.members = members.iter().map(|member| member.id).collect();
                there.members = Members::Known(members);
            }
        }
        (Step::UpdatePool { id, .. }, Answer::Pool(pool)) => {
            if let Some(there) = tree.pools.iter_mut().find(|there| there.pool.id == *id) {
                there.pool.lb_algorithm = pool.lb_algorithm;
                there.pool.session_persistence = pool.session_persistence;
                there.pool.provisioning_status = pool.provisioning_status;
            }
        }
        (Step::DeletePool { id, .. }, _) => tree.pools.retain(|there| there.pool.id != *id),
        (Step::CreateMonitor { pool: id, .. }, Answer::Monitor(monitor)) => {
            if let Some(there) = tree.pools.iter_mut().find(|there| there.pool.id == *id) {
                there.pool.healthmonitor_id = Some(monitor.id);
                there.monitor = Some(*monitor);
            }
        }
        (Step::UpdateMonitor { id, .. }, Answer::Monitor(monitor)) => {
            let is_it = |there: &&mut ObservedPool| there.pool.healthmonitor_id == Some(*id);
            if let Some(there) = tree.pools.iter_mut().find(is_it) {
                there.monitor = Some(*monitor);
            }
        }
        (Step::DeleteMonitor { id, .. }, _) => {
            let is_it = |there: &&mut ObservedPool| there.pool.healthmonitor_id == Some(*id);
            if let Some(there) = tree.pools.iter_mut().find(is_it) {
                (there.pool.healthmonitor_id, there.monitor) = (None, None);
            }
        }
        (Step::CreateListener { .. }, Answer::Listener(listener)) => tree.listeners.push(*listener),
        (Step::UpdateListener { id, .. }, Answer::Listener(listener)) => {
            if let Some(there) = tree.listeners.iter_mut().find(|there| there.id == *id) {
                *there = *listener;
            }
        }
        (Step::DeleteListener { id, .. }, _) => tree.listeners.retain(|there| there.id != *id),
        (Step::Failover { .. }, _) => tree.failed_over = true,
        _ => {}
    }
}

/// A batch of members is answered without them, so their ids are not known; nothing asks for them.
fn applied(member: &Member) -> lb::Member {
    lb::Member {
        id: MemberId(Default::default()),
        name: member.name.clone(),
        address: member.address,
        protocol_port: member.port,
        weight: member.weight,
        subnet_id: member.subnet,
        provisioning_status: Provisioning::Active,
        operating_status: Operating::NoMonitor,
        backup: false,
        tags: Vec::new(),
    }
}

/// Octavia is at work on a load balancer although we did nothing.
pub(crate) fn is_at_work(observed: &mut Observed, id: LoadBalancerId) {
    if let Some(tree) = find(observed, id) {
        tree.load_balancer.provisioning_status = Provisioning::PendingUpdate;
    }
}

/// Takes over what a look at a load balancer saw. `None`: it is gone.
pub(crate) fn looked_at(observed: &mut Observed, id: LoadBalancerId, seen: Option<LoadBalancer>) {
    let Some(seen) = seen else {
        return observed.trees.retain(|tree| tree.load_balancer.id != id);
    };
    if let Some(tree) = find(observed, id) {
        if seen.provisioning_status == Provisioning::Active {
            tree.failed_over = false;
        }
        tree.load_balancer = seen;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kuryr_model::{ListenerPoolId, lb::Tree};
    use kuryr_plan::service::{ListenerKey, Transport, step::Why};
    use serde_json::json;

    fn id(n: u8) -> String {
        format!("00000000-0000-0000-0000-0000000000{n:02x}")
    }

    fn lb_id() -> LoadBalancerId {
        id(1).parse().unwrap()
    }

    /// A load balancer with one listener, whose listener pool has one member.
    fn observed() -> Observed {
        let tree: Tree = serde_json::from_value(json!({
            "id": id(1), "provisioning_status": "PENDING_CREATE", "vip_address": "10.96.0.9",
            "listeners": [{"id": id(2), "protocol": "TCP", "protocol_port": 80, "default_pool_id": id(3)}],
            "pools": [{
                "id": id(3), "protocol": "TCP", "lb_algorithm": "SOURCE_IP_PORT", "listeners": [{"id": id(2)}],
                "members": [{"id": id(4), "address": "10.0.0.1", "protocol_port": 8080, "weight": 1}],
            }],
        }))
        .unwrap();
        Observed { trees: vec![observed_tree(tree)], floating: vec![] }
    }

    fn member(address: &str) -> Member {
        Member { address: address.parse().unwrap(), port: 8080, weight: 1, subnet: None, name: String::new() }
    }

    fn known(observed: &Observed) -> Vec<String> {
        match &observed.trees[0].pools[0].members {
            Members::Known(members) => members.iter().map(|member| member.address.to_string()).collect(),
            Members::Counted => panic!("only counted"),
        }
    }

    #[test]
    fn what_was_made_is_known_with_its_members() {
        let observed = observed();
        assert_eq!(known(&observed), ["10.0.0.1"]);
        assert_eq!(observed.trees[0].load_balancer.provisioning_status, Provisioning::PendingCreate);
    }

    #[test]
    fn members_that_were_set_are_known_and_octavia_is_at_work() {
        let mut observed = observed();
        let pool: ListenerPoolId = id(3).parse().unwrap();
        let step = Step::SetMembers {
            load_balancer: lb_id(),
            pool,
            listener: ListenerKey { transport: Transport::Tcp, number: 80 },
            members: vec![member("10.0.0.1"), member("10.0.0.2")],
        };
        bring_forward(&mut observed, &step, Answer::Nothing);
        assert_eq!(known(&observed), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(observed.trees[0].pools[0].pool.members.len(), 2);
        assert_eq!(observed.trees[0].load_balancer.provisioning_status, Provisioning::PendingUpdate);
    }

    #[test]
    fn a_load_balancer_that_is_deleted_stays_until_it_is_gone() {
        let mut observed = observed();
        bring_forward(&mut observed, &Step::DeleteTree { load_balancer: lb_id(), why: Why::Unwanted }, Answer::Nothing);
        assert_eq!(observed.trees[0].load_balancer.provisioning_status, Provisioning::PendingDelete);
        looked_at(&mut observed, lb_id(), None);
        assert!(observed.trees.is_empty());
    }

    #[test]
    fn a_failover_is_remembered_until_it_helped() {
        let mut observed = observed();
        bring_forward(&mut observed, &Step::Failover { load_balancer: lb_id() }, Answer::Nothing);
        let seen =
            |status| Some(LoadBalancer { provisioning_status: status, ..observed.trees[0].load_balancer.clone() });
        let (error, active) = (seen(Provisioning::Error), seen(Provisioning::Active));
        looked_at(&mut observed, lb_id(), error);
        assert!(observed.trees[0].failed_over);
        looked_at(&mut observed, lb_id(), active);
        assert!(!observed.trees[0].failed_over);
    }
}

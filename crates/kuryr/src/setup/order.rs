//! Which steps of a plan may be taken at once: pure.
//!
//! Steps that touch one object are taken in the order of the plan: Neutron would have one of them try again, and a thing
//! goes only after what is in it. All others are independent.

use super::plan::{Interface, Step};
use kuryr_model::{NetworkId, RouterId, SecurityGroupId, SubnetId};
use kuryr_openstack::network::tags::Tagged;

/// What a step changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Touched {
    Network(NetworkId),
    Subnet(SubnetId),
    Router(RouterId),
    Group(SecurityGroupId),
    /// One of the networks that are being removed.
    SomeNetwork,
    /// What setup only reads.
    Other,
}

fn touched(step: &Step) -> Vec<Touched> {
    use Touched::{Group, Network, Other, Router, SomeNetwork, Subnet};
    match step {
        Step::CreateNetwork { .. } | Step::CreateRouter { .. } | Step::CreateGroup(_) => Vec::new(),
        Step::SetMtu(id, _) | Step::CreateSubnet { network: id, .. } => vec![Network(*id)],
        Step::SetGateway(id, _) | Step::DeleteRouter(id) => vec![Router(*id)],
        Step::AddInterface(Interface { router, subnet }) | Step::RemoveInterface(Interface { router, subnet }) => {
            vec![Router(*router), Subnet(*subnet)]
        }
        Step::AddRules(id, _) | Step::DeleteRule(id, _) | Step::DeleteGroup(id) => vec![Group(*id)],
        Step::Tag(object, _) => vec![match *object {
            Tagged::Network(id) => Network(id),
            Tagged::Subnet(id) => Subnet(id),
            Tagged::Router(id) => Router(id),
            Tagged::SecurityGroup(id) => Group(id),
            Tagged::SubnetPool(_) | Tagged::Port(_) | Tagged::Trunk(_) | Tagged::FloatingIp(_) => Other,
        }],
        // The step does not say which network the subnet is on, and none may go before its subnets.
        Step::DeleteSubnet(id) => vec![Subnet(*id), SomeNetwork],
        Step::DeleteNetwork(id) => vec![Network(*id), SomeNetwork],
    }
}

/// The steps in waves: those of one wave may be taken at once, after those of the waves before it. Within a wave they are
/// in the order of the plan.
pub(crate) fn waves(steps: &[Step]) -> Vec<Vec<&Step>> {
    let mut waves: Vec<Vec<&Step>> = Vec::new();
    let mut done: Vec<(usize, Vec<Touched>)> = Vec::new();
    for step in steps {
        let touched = touched(step);
        let before = done.iter().filter(|(_, others)| touched.iter().any(|one| others.contains(one)));
        let wave = before.map(|(wave, _)| wave + 1).max().unwrap_or(0);
        if wave == waves.len() {
            waves.push(Vec::new());
        }
        waves[wave].push(step);
        done.push((wave, touched));
    }
    waves
}

#[cfg(test)]
mod tests {
    use super::*;
    use kuryr_model::mark::Base;
    use uuid::Uuid;

    fn id(n: u128) -> Uuid {
        Uuid::from_u128(n)
    }

    fn sizes(steps: &[Step]) -> Vec<usize> {
        waves(steps).iter().map(Vec::len).collect()
    }

    #[test]
    fn what_has_nothing_in_common_is_done_at_once() {
        let external = None;
        let first = [
            Step::CreateNetwork { name: "pods".into(), mtu: None, base: Base::Pods },
            Step::CreateRouter { name: "pods".into(), external },
            Step::CreateGroup(Base::IngressOpen),
            Step::CreateGroup(Base::EgressOpen),
        ];
        assert_eq!(sizes(&first), [4]);
        assert_eq!(sizes(&[]), [0; 0]);
    }

    #[test]
    fn one_object_is_worked_on_by_one_step_at_a_time_in_their_order() {
        let (router, group) = (RouterId(id(1)), SecurityGroupId(id(2)));
        let join = |subnet| Step::AddInterface(Interface { router, subnet: SubnetId(id(subnet)) });
        let steps = [
            join(3),
            join(4),
            Step::Tag(Tagged::Subnet(SubnetId(id(4))), Base::Pods),
            Step::Tag(Tagged::Subnet(SubnetId(id(5))), Base::Pods),
            Step::AddRules(group, vec![]),
            Step::Tag(Tagged::SecurityGroup(group), Base::IngressOpen),
        ];
        let waves = waves(&steps);
        assert_eq!(waves, [vec![&steps[0], &steps[3], &steps[4]], vec![&steps[1], &steps[5]], vec![&steps[2]]]);
    }

    #[test]
    fn what_is_removed_goes_after_what_is_in_it() {
        let (router, network) = (RouterId(id(1)), NetworkId(id(2)));
        let part = |subnet| Step::RemoveInterface(Interface { router, subnet: SubnetId(id(subnet)) });
        let steps = [
            part(3),
            part(4),
            Step::DeleteRouter(router),
            Step::DeleteSubnet(SubnetId(id(3))),
            Step::DeleteSubnet(SubnetId(id(4))),
            Step::DeleteNetwork(network),
            Step::DeleteGroup(SecurityGroupId(id(5))),
        ];
        let waves = waves(&steps);
        let wave = |step: &Step| waves.iter().position(|wave| wave.contains(&step)).unwrap();
        assert!(wave(&steps[0]) < wave(&steps[2]) && wave(&steps[1]) < wave(&steps[2]));
        assert!(wave(&steps[3]) > wave(&steps[0]) && wave(&steps[4]) > wave(&steps[1]));
        assert!(wave(&steps[5]) > wave(&steps[3]) && wave(&steps[5]) > wave(&steps[4]));
        assert_eq!(wave(&steps[6]), 0);
        assert_eq!(waves.iter().map(Vec::len).sum::<usize>(), steps.len());
    }
}

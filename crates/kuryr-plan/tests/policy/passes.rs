//! Who reaches whom through a cloud's security groups, as something to compare.

use crate::{
    neutron::Cloud,
    spec::{Cluster, Traffic},
};
use kuryr_plan::policy::{Pod, Protocol};
use std::{collections::BTreeSet, net::IpAddr};

const TRAFFIC: [Traffic; 5] = [
    Traffic::To(Protocol::Tcp, 80),
    Traffic::To(Protocol::Tcp, 8080),
    Traffic::To(Protocol::Tcp, 443),
    Traffic::To(Protocol::Udp, 53),
    Traffic::Other,
];

/// What passes between those that are the same before and after.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Passes {
    Direct(String, String, String),
    Out(String, IpAddr, String),
    In(IpAddr, String, String),
    Through(String, String, String),
}

/// All that passes.
pub(crate) fn passes(cloud: &Cloud, pods: &[Pod], cluster: &Cluster) -> BTreeSet<Passes> {
    let mut all = BTreeSet::new();
    let outside: Vec<IpAddr> =
        ["203.0.113.5", "10.0.0.200", "192.168.0.1", "2001:db8::5"].iter().map(|it| it.parse().unwrap()).collect();
    for a in pods {
        let from = |to: IpAddr| a.addresses.iter().find(|it| it.is_ipv4() == to.is_ipv4()).copied();
        for traffic in TRAFFIC {
            let what = format!("{traffic:?}");
            for b in pods.iter().filter(|b| b.key != a.key) {
                let reaches = |to: &IpAddr| {
                    from(*to).is_some_and(|from| cloud.sends(a, *to, traffic) && cloud.receives(b, from, traffic))
                };
                if b.addresses.iter().any(reaches) {
                    all.insert(Passes::Direct(a.key.to_string(), b.key.to_string(), what.clone()));
                }
            }
            for other in &outside {
                if from(*other).is_some() && cloud.sends(a, *other, traffic) {
                    all.insert(Passes::Out(a.key.to_string(), *other, what.clone()));
                }
                if from(*other).is_some() && cloud.receives(a, *other, traffic) {
                    all.insert(Passes::In(*other, a.key.to_string(), what.clone()));
                }
            }
        }
        for listener in crate::compare::listeners(cluster) {
            let there = Traffic::To(listener.protocol, listener.number);
            let Some(source) = from(listener.vip).filter(|_| cloud.sends(a, listener.vip, there)) else { continue };
            for endpoint in cluster.behind(listener).0 {
                let Some(b) = pods.iter().find(|pod| pod.addresses.contains(&endpoint.address)) else { continue };
                if b.key != a.key && cloud.receives(b, source, Traffic::To(listener.protocol, endpoint.number)) {
                    let end = format!("{endpoint:?}");
                    all.insert(Passes::Through(a.key.to_string(), listener.to_string(), end));
                }
            }
        }
    }
    all
}

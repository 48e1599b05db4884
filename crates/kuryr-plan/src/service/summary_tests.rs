use super::*;
use crate::service::{
    Listed, ObservedPool, Provider, desired, digest,
    fixtures::{id, ip, load_balancer, pods, ready, service, site, terminating},
    gather,
};

#[test]
fn before_anything_is_there_the_summary_says_what_is_wanted() {
    let desired = desired(&service(), &pods(&[ready("10.10.0.1"), terminating("10.10.0.2")]), &site(Provider::Amphora));
    let summary = summary(&desired, &Observed::default());
    assert!(!summary.settled);
    assert_eq!((summary.members_ready, summary.members_total), (1, 2));
    let [tree] = &summary.trees[..] else { panic!() };
    assert_eq!((tree.id, &tree.vips[..], tree.provider.as_str()), (None, &[ip("10.96.0.10")][..], "amphora"));
    assert_eq!((tree.listeners[0].to_string(), tree.listeners[0].draining), ("TCP:80 1/2".to_owned(), 1));
}

#[test]
fn a_service_without_load_balancer_is_settled() {
    let headless = crate::service::Service { cluster_ips: vec![], ..load_balancer(&[]) };
    let summary = summary(&desired(&headless, &[], &site(Provider::Ovn)), &Observed::default());
    assert_eq!(summary, Summary { settled: true, ..Summary::default() });
}

#[test]
fn members_that_octavia_holds_to_be_down_are_not_ready() {
    let desired = desired(&service(), &pods(&[ready("10.10.0.1"), ready("10.10.0.2")]), &site(Provider::Ovn));
    let member = |n: u32, operating_status| lb::Member {
        id: id(n),
        name: String::new(),
        address: ip(&format!("10.10.0.{n}")),
        protocol_port: 8080,
        weight: 1,
        subnet_id: None,
        provisioning_status: lb::Provisioning::Active,
        operating_status,
        backup: false,
        tags: vec![],
    };
    let json = serde_json::json!({
        "id": id::<LoadBalancerId>(100), "provider": "ovn", "provisioning_status": "ACTIVE",
        "operating_status": "DEGRADED", "vip_address": "10.96.0.10", "tags": desired.trees[0].tags,
    });
    let listener = serde_json::json!({
        "id": id::<ListenerId>(101), "protocol": "TCP", "protocol_port": 80, "operating_status": "DEGRADED",
        "default_pool_id": id::<ListenerPoolId>(102), "tags": desired.trees[0].tags,
    });
    let pool = serde_json::json!({ "id": id::<ListenerPoolId>(102), "protocol": "TCP", "tags": desired.trees[0].tags });
    let members = vec![member(1, lb::Operating::Online), member(2, lb::Operating::Error)];
    let tree = ObservedTree {
        load_balancer: serde_json::from_value(json).unwrap(),
        listeners: vec![serde_json::from_value(listener).unwrap()],
        pools: vec![ObservedPool {
            pool: serde_json::from_value(pool).unwrap(),
            members: Members::Known(members),
            monitor: None,
        }],
        failed_over: false,
    };
    let summary = summary(&desired, &Observed { trees: vec![tree], floating: vec![] });
    let listener = &summary.trees[0].listeners[0];
    assert_eq!((listener.ready, listener.down, listener.total), (1, 1, 2));
    assert_eq!((listener.id, listener.pool), (Some(id(101)), Some(id(102))));
    assert_eq!(listener.operating, Some(lb::Operating::Degraded));
}

#[test]
fn what_nothing_wants_any_more_is_shown_without_a_role() {
    let desired = desired(&service(), &[], &site(Provider::Ovn));
    let lost = serde_json::json!({
        "id": id::<LoadBalancerId>(100), "provisioning_status": "PENDING_DELETE", "vip_address": "10.1.1.1",
        "tags": desired.trees[0].tags,
    });
    let listed = Listed { load_balancers: vec![serde_json::from_value(lost).unwrap()], ..Listed::default() };
    let observed = gather(&desired.cluster, &listed).services.remove(&desired.uid).unwrap();
    let summary = summary(&desired, &observed);
    assert_eq!(summary.trees.iter().map(|tree| tree.role).collect::<Vec<_>>(), [Some(Role::Cluster), None]);
    assert_eq!(digest(&desired).len(), 32);
}

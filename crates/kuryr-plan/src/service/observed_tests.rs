use super::*;
use crate::service::fixtures::id;
use serde_json::{Value, json};

fn tags(cluster: &str, service: &str) -> Value {
    json!([format!("kuryr:{cluster}"), format!("kuryr:service:{service}")])
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn load_balancer(n: u32, tags: &Value) -> lb::LoadBalancer {
    read(json!({ "id": id::<LoadBalancerId>(n), "tags": tags }))
}

fn listener(n: u32, lb: u32, tags: &Value) -> lb::Listener {
    read(
        json!({ "id": id::<kuryr_model::ListenerId>(n), "loadbalancers": [{ "id": id::<LoadBalancerId>(lb) }], "tags": tags }),
    )
}

fn pool(n: u32, lb: u32, tags: &Value, monitor: Option<u32>, members: u32) -> lb::Pool {
    let members: Vec<_> = (0..members).map(|n| json!({ "id": id::<kuryr_model::MemberId>(n) })).collect();
    read(json!({
        "id": id::<ListenerPoolId>(n), "loadbalancers": [{ "id": id::<LoadBalancerId>(lb) }], "tags": tags,
        "healthmonitor_id": monitor.map(id::<kuryr_model::HealthMonitorId>), "members": members,
    }))
}

fn floating(n: u32, tags: &Value, description: &str) -> FloatingIp {
    read(json!({
        "id": id::<kuryr_model::FloatingIpId>(n), "floating_network_id": id::<kuryr_model::NetworkId>(1),
        "floating_ip_address": "203.0.113.9", "tags": tags, "description": description,
    }))
}

#[test]
fn five_lists_become_what_each_service_has() {
    let listed = Listed {
        load_balancers: vec![load_balancer(1, &tags("prod", "a")), load_balancer(2, &tags("prod", "b"))],
        listeners: vec![listener(11, 1, &tags("prod", "a")), listener(12, 2, &tags("prod", "b"))],
        pools: vec![pool(21, 1, &tags("prod", "a"), Some(31), 3), pool(22, 2, &tags("prod", "b"), None, 0)],
        monitors: vec![read(json!({ "id": id::<kuryr_model::HealthMonitorId>(31) }))],
        floating: vec![floating(41, &tags("prod", "a"), "")],
    };
    let gathered = gather(&"prod".into(), &listed);
    assert_eq!((gathered.services.len(), gathered.elsewhere.len()), (2, 0));
    let a = &gathered.services[&ServiceUid::from("a")];
    assert_eq!((a.trees.len(), a.floating.len()), (1, 1));
    assert_eq!(a.trees[0].listeners[0].id, id(11));
    assert_eq!(a.trees[0].pools[0].members, Members::Counted);
    assert_eq!(a.trees[0].pools[0].monitor.as_ref().map(|monitor| monitor.id), Some(id(31)));
    // Of one that has none, all members are known.
    assert_eq!(gathered.services[&ServiceUid::from("b")].trees[0].pools[0].members, Members::Known(vec![]));
}

#[test]
fn a_load_balancer_that_two_services_use_is_seen_by_both() {
    let listed = Listed {
        load_balancers: vec![load_balancer(1, &tags("prod", "a"))],
        listeners: vec![listener(11, 1, &tags("prod", "a")), listener(12, 1, &tags("prod", "b"))],
        ..Listed::default()
    };
    let gathered = gather(&"prod".into(), &listed);
    for uid in ["a", "b"] {
        assert_eq!(gathered.services[&ServiceUid::from(uid)].trees[0].listeners.len(), 2);
    }
}

#[test]
fn what_lies_in_somebody_elses_load_balancer_has_to_be_asked_for() {
    let listed = Listed { pools: vec![pool(21, 9, &tags("prod", "a"), None, 0)], ..Listed::default() };
    let gathered = gather(&"prod".into(), &listed);
    assert_eq!(gathered.elsewhere, [(id(9), [ServiceUid::from("a")].into())].into());
    assert!(gathered.services[&ServiceUid::from("a")].trees.is_empty());
}

#[test]
fn other_clusters_and_what_is_no_services_are_left_out() {
    let listed = Listed {
        load_balancers: vec![
            load_balancer(1, &tags("other", "a")),
            load_balancer(2, &json!(["kuryr:prod", "kuryr:base:pods"])),
        ],
        floating: vec![floating(41, &json!([]), "somebody's")],
        ..Listed::default()
    };
    assert_eq!(gather(&"prod".into(), &listed), Gathered::default());
}

#[test]
fn a_floating_ip_without_tags_is_known_by_its_description() {
    let described = floating(41, &json!([]), "Kubernetes Service shop/web, kuryr:prod kuryr:service:a");
    let gathered = gather(&"prod".into(), &Listed { floating: vec![described], ..Listed::default() });
    assert_eq!(gathered.services[&ServiceUid::from("a")].floating.len(), 1);
}

#[test]
fn to_leave_a_member_out_takes_it_away_and_to_add_one_does_not() {
    let member = |last: u8, weight: u16| Member {
        address: format!("10.10.0.{last}").parse().unwrap(),
        port: 8080,
        weight,
        subnet: None,
        name: String::new(),
    };
    let there = |last: u8| -> lb::Member {
        let id = id::<kuryr_model::MemberId>(u32::from(last));
        read(json!({ "id": id, "address": format!("10.10.0.{last}"), "protocol_port": 8080, "weight": 1 }))
    };
    let no_tags = json!([]);
    let tree = ObservedTree::new(load_balancer(1, &no_tags), &[], &[pool(2, 1, &no_tags, None, 2)], &[]);
    let mut observed = Observed { trees: vec![tree], floating: Vec::new() };
    assert!(observed.takes_away(id(2), &[member(1, 1), member(2, 1)]), "members of which only the number is known");
    observed.trees[0].pools[0].members = Members::Known(vec![there(1), there(2)]);
    for (members, takes) in [
        (vec![member(1, 1), member(2, 1), member(3, 1)], false),
        (vec![member(1, 1)], true),
        (vec![member(1, 1), member(2, 0)], true),
        (vec![member(1, 1), member(3, 1)], true),
    ] {
        assert_eq!(observed.takes_away(id(2), &members), takes, "{members:?}");
    }
    assert!(!observed.takes_away(id(9), &[]), "a listener pool that is not there");
}

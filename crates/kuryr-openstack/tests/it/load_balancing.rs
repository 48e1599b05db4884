//! Octavia on the wire: trees, one change at a time, lost answers.

use crate::{
    faults::odd,
    server::{Server, answer, id, octavia_error, ok},
};
use axum::{
    http::{Method, StatusCode},
    response::{IntoResponse as _, Response},
};
use kuryr_model::{
    LoadBalancerId,
    lb::{AdditionalVip, Algorithm, MonitorType, Operating, Protocol, Provisioning, SessionPersistence},
};
use kuryr_openstack::{
    Class, Cloud, ErrorKind, Filter, LoadBalancing,
    load_balancer::{
        ApiVersion, Feature, HealthMonitorUpdate, ListenerTree, ListenerUpdate, LoadBalancerUpdate, NewHealthMonitor,
        NewListener, NewLoadBalancer, NewMember, NewPool, PoolTree, PoolUpdate,
    },
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

fn lb() -> LoadBalancerId {
    id(1).parse().unwrap()
}

fn accepted() -> Response {
    StatusCode::ACCEPTED.into_response()
}

fn monitor() -> NewHealthMonitor {
    NewHealthMonitor {
        name: String::new(),
        kind: MonitorType::Tcp,
        delay: 5,
        timeout: 3,
        max_retries: 2,
        max_retries_down: None,
        http_method: None,
        url_path: None,
        expected_codes: None,
        tags: Vec::new(),
    }
}

fn service() -> NewLoadBalancer {
    let tags = vec!["kuryr:c1".to_owned(), "kuryr:service:u1".to_owned()];
    let member =
        NewMember { subnet_id: Some(id(9).parse().unwrap()), ..NewMember::new("10.0.0.5".parse().unwrap(), 8080) };
    let leaving = NewMember { weight: 0, ..NewMember::new("fd00::5".parse().unwrap(), 8080) };
    let pool = NewPool {
        name: "TCP-80".into(),
        protocol: Protocol::Tcp,
        lb_algorithm: Algorithm::SourceIpPort,
        session_persistence: Some(SessionPersistence::source_ip()),
        tags: tags.clone(),
        ..NewPool::default()
    };
    let listener = NewListener {
        name: "TCP-80".into(),
        protocol: Protocol::Tcp,
        protocol_port: 80,
        allowed_cidrs: vec!["10.0.0.0/8".into()],
        tags: tags.clone(),
        ..NewListener::default()
    };
    NewLoadBalancer {
        name: "shop/web".into(),
        provider: Some("ovn".into()),
        vip_address: Some("10.96.0.7".parse().unwrap()),
        vip_subnet_id: Some(id(8).parse().unwrap()),
        additional_vips: vec![AdditionalVip { subnet_id: id(7).parse().unwrap(), ip_address: None }],
        tags,
        listeners: vec![ListenerTree {
            listener,
            default_pool: Some(PoolTree { pool, members: vec![member, leaving], monitor: Some(monitor()) }),
        }],
        ..NewLoadBalancer::default()
    }
}

#[tokio::test]
async fn a_whole_service_is_one_request_and_its_ids_are_in_the_answer() {
    let server = Server::start(|seen| {
        let mut lb = seen.body["loadbalancer"].clone();
        let mut pool = lb["listeners"][0]["default_pool"].take();
        lb["id"] = json!(id(1));
        lb["provisioning_status"] = json!("PENDING_CREATE");
        lb["listeners"][0]["id"] = json!(id(2));
        lb["listeners"][0]["default_pool_id"] = json!(id(3));
        pool["id"] = json!(id(3));
        pool["members"][0]["id"] = json!(id(4));
        pool["members"][1]["id"] = json!(id(5));
        pool["healthmonitor"]["id"] = json!(id(6));
        lb["pools"] = json!([pool]);
        answer(201, json!({"loadbalancer": lb}))
    })
    .await;
    let octavia = server.octavia().await;
    let tree = octavia.load_balancers().create(&service()).await.unwrap();
    assert_eq!((tree.load_balancer.id, tree.load_balancer.provisioning_status), (lb(), Provisioning::PendingCreate));
    assert_eq!(tree.listeners[0].default_pool_id, Some(tree.pools[0].id));
    assert_eq!(tree.members[&tree.pools[0].id].iter().map(|member| member.weight).collect::<Vec<_>>(), [1, 0]);
    assert_eq!(tree.pools[0].healthmonitor_id, Some(tree.monitors[0].id));

    let requests = server.requests();
    assert_eq!((requests.len(), requests[0].path.as_str()), (1, "/load-balancer/v2/lbaas/loadbalancers"));
    let tags = json!(["kuryr:c1", "kuryr:service:u1"]);
    let expected = json!({"loadbalancer": {
        "name": "shop/web", "provider": "ovn", "vip_address": "10.96.0.7", "vip_subnet_id": id(8),
        "additional_vips": [{"subnet_id": id(7)}], "tags": tags,
        "listeners": [{
            "name": "TCP-80", "protocol": "TCP", "protocol_port": 80, "allowed_cidrs": ["10.0.0.0/8"], "tags": tags,
            "default_pool": {
                "name": "TCP-80", "protocol": "TCP", "lb_algorithm": "SOURCE_IP_PORT", "tags": tags,
                "session_persistence": {"type": "SOURCE_IP"},
                "members": [
                    {"address": "10.0.0.5", "protocol_port": 8080, "weight": 1, "subnet_id": id(9)},
                    {"address": "fd00::5", "protocol_port": 8080, "weight": 0},
                ],
                "healthmonitor": {"name": "", "type": "TCP", "delay": 5, "timeout": 3, "max_retries": 2},
            },
        }],
    }});
    assert_eq!(requests[0].body, expected);
}

#[tokio::test]
async fn lists_are_by_tag_and_by_load_balancer_and_follow_their_pages() {
    let server = Server::start(|seen| {
        let first = !seen.query.contains("marker=");
        // Octavia's links forget the filter.
        let next = json!([{"rel": "next", "href": format!("http://x/v2/lbaas/pools?limit=2&marker={}", id(2))}]);
        match seen.path.rsplit('/').next().unwrap() {
            "loadbalancers" => ok(json!({"loadbalancers": [{"id": id(1)}], "loadbalancers_links": []})),
            "pools" if first => ok(json!({"pools": [{"id": id(1)}, {"id": id(2)}], "pools_links": next})),
            "pools" => ok(json!({"pools": [{"id": id(3), "members": [{"id": id(4)}]}], "pools_links": null})),
            "listeners" => ok(json!({"listeners": [{"id": id(1), "allowed_cidrs": null}]})),
            "healthmonitors" => ok(json!({"healthmonitors": [{"id": id(1), "pools": [{"id": id(3)}]}]})),
            _ => answer(404, json!({})),
        }
    })
    .await;
    let octavia = server.octavia().await;
    let ours = Filter::new().tags(["kuryr:c1", "kuryr:service:u1"]);
    assert_eq!(octavia.load_balancers().list(&ours).await.unwrap().len(), 1);
    let pools = octavia.background().pools().list(&ours.clone().with("loadbalancer_id", lb())).await.unwrap();
    assert_eq!(pools.iter().map(|pool| pool.id.to_string()).collect::<Vec<_>>(), [id(1), id(2), id(3)]);
    assert_eq!(pools[2].members.len(), 1);
    assert!(octavia.listeners().list(&ours).await.unwrap()[0].allowed_cidrs.is_empty());
    assert_eq!(octavia.health_monitors().list(&ours).await.unwrap()[0].pools, [pools[2].id]);
    let queries: Vec<_> = server.requests().into_iter().map(|seen| seen.query).collect();
    assert!(
        queries[0].contains("fields=additional_vips&") && queries[0].contains("&tags=kuryr:c1%2Ckuryr:service:u1&")
    );
    for query in &queries[1..3] {
        assert!(query.contains("&tags=kuryr:c1%2Ckuryr:service:u1&"), "{query}");
        assert!(query.contains(&format!("&loadbalancer_id={}&", id(1))), "{query}");
    }
}

#[tokio::test]
async fn all_members_are_replaced_in_one_request() {
    let server = Server::start(|seen| match seen.method {
        Method::GET => ok(json!({"members": [
            {"id": id(5), "address": "10.0.0.5", "protocol_port": 80, "weight": 0, "operating_status": "NO_MONITOR",
             "provisioning_status": "ACTIVE", "subnet_id": null, "backup": false, "name": null, "tags": []},
        ]})),
        _ => accepted(),
    })
    .await;
    let octavia = server.octavia().await;
    let members = octavia.members(id(3).parse().unwrap());
    let drained = NewMember { weight: 0, name: "shop/web-1".into(), ..NewMember::new("10.0.0.5".parse().unwrap(), 80) };
    members.replace(&[drained]).await.unwrap();
    members.replace(&[]).await.unwrap();
    let seen = members.list(&Filter::new()).await.unwrap();
    assert_eq!((seen[0].weight, seen[0].operating_status), (0, Operating::NoMonitor));
    let requests = server.requests();
    assert!(requests.iter().all(|seen| seen.path == format!("/load-balancer/v2/lbaas/pools/{}/members", id(3))));
    let one = json!({"name": "shop/web-1", "address": "10.0.0.5", "protocol_port": 80, "weight": 0});
    assert_eq!(requests[0].body, json!({"members": [one]}));
    assert_eq!((&requests[1].method, &requests[1].body), (&Method::PUT, &json!({"members": []})));
}

#[tokio::test]
async fn what_is_below_a_load_balancer_is_made_changed_and_deleted_by_itself() {
    let server = Server::start(|seen| match seen.method {
        Method::POST | Method::PUT => {
            let mut body = seen.body.clone();
            for (_, object) in body.as_object_mut().unwrap() {
                object["id"] = json!(id(5));
            }
            ok(body)
        }
        _ => StatusCode::NO_CONTENT.into_response(),
    })
    .await;
    let octavia = server.octavia().await;
    let pool = NewPool { protocol: Protocol::Udp, lb_algorithm: Algorithm::RoundRobin, ..NewPool::default() };
    let pool = octavia.pools().create(lb(), &pool).await.unwrap();
    let listener = NewListener { protocol: Protocol::Udp, protocol_port: 53, ..NewListener::default() };
    let listener = octavia.listeners().create(lb(), &listener, Some(pool.id)).await.unwrap();
    let watch = octavia.health_monitors().create(pool.id, &monitor()).await.unwrap();
    let change = ListenerUpdate {
        default_pool_id: Some(None),
        timeout_client_data: Some(None),
        timeout_member_data: Some(Some(1000)),
        allowed_cidrs: Some(Vec::new()),
        insert_headers: Some(BTreeMap::from([("X-Forwarded-For".to_owned(), "true".to_owned())])),
        ..ListenerUpdate::default()
    };
    octavia.listeners().update(listener.id, &change).await.unwrap();
    let change = PoolUpdate { session_persistence: Some(None), ..PoolUpdate::default() };
    octavia.pools().update(pool.id, &change).await.unwrap();
    let change = HealthMonitorUpdate { delay: Some(9), url_path: Some(None), ..HealthMonitorUpdate::default() };
    octavia.health_monitors().update(watch.id, &change).await.unwrap();
    let change = LoadBalancerUpdate { tags: Some(vec!["kuryr:c1".into()]), ..LoadBalancerUpdate::default() };
    octavia.load_balancers().update(lb(), &change).await.unwrap();
    octavia.health_monitors().delete(watch.id).await.unwrap();
    octavia.listeners().delete(listener.id).await.unwrap();
    octavia.pools().delete(pool.id).await.unwrap();

    let bodies: Vec<Value> = server.requests().into_iter().map(|seen| seen.body).collect();
    let monitor = json!({"pool_id": id(5), "name": "", "type": "TCP", "delay": 5, "timeout": 3, "max_retries": 2});
    let expected = [
        json!({"pool": {"loadbalancer_id": id(1), "name": "", "protocol": "UDP", "lb_algorithm": "ROUND_ROBIN"}}),
        json!({"listener": {
            "loadbalancer_id": id(1), "default_pool_id": id(5), "name": "", "protocol": "UDP", "protocol_port": 53,
        }}),
        json!({"healthmonitor": monitor}),
        json!({"listener": {
            "default_pool_id": null, "timeout_client_data": null, "timeout_member_data": 1000, "allowed_cidrs": [],
            "insert_headers": {"X-Forwarded-For": "true"},
        }}),
        json!({"pool": {"session_persistence": null}}),
        json!({"healthmonitor": {"delay": 9, "url_path": null}}),
        json!({"loadbalancer": {"tags": ["kuryr:c1"]}}),
    ];
    assert_eq!(bodies[..7], expected);
}

/// An Octavia whose load balancer is at work for the first `busy` changes that it is asked for.
async fn busy(busy: usize, refusal: fn() -> Response) -> (Server, LoadBalancing) {
    let left = Arc::new(AtomicUsize::new(busy));
    let server = Server::start(move |seen| match seen.method {
        Method::GET => ok(json!({"loadbalancer": {"id": id(1), "provisioning_status": "ACTIVE"}})),
        _ if left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() => refusal(),
        _ => accepted(),
    })
    .await;
    let octavia = server.octavia().await;
    (server, octavia)
}

#[tokio::test]
async fn a_load_balancer_at_work_refuses_and_the_same_change_does_when_it_is_active() {
    let immutable = || octavia_error(409, "Load Balancer x is immutable and cannot be updated.");
    let (server, octavia) = busy(1, immutable).await;
    let members = octavia.members(id(3).parse().unwrap());
    let change = [NewMember::new("10.0.0.5".parse().unwrap(), 80)];
    let error = members.replace(&change).await.unwrap_err();
    assert!(error.is_immutable() && !error.is_ambiguous() && !error.is_duplicate());
    assert_eq!(error.class(), Class::RetryLater { after: None });
    assert_eq!(server.requests().len(), 1, "the caller waits, not the client");
    let lb = octavia.load_balancers().get(lb()).await.unwrap();
    assert!(!lb.provisioning_status.is_pending());
    members.replace(&change).await.unwrap();
}

#[tokio::test]
async fn a_load_balancer_goes_with_all_below_it_once_it_is_not_at_work() {
    let pending = || octavia_error(409, "Invalid state PENDING_UPDATE of loadbalancer resource x");
    let (server, octavia) = busy(1, pending).await;
    assert!(octavia.load_balancers().delete(lb()).await.unwrap_err().is_immutable());
    octavia.load_balancers().delete(lb()).await.unwrap();
    let requests = server.requests();
    assert_eq!(requests[1].path, format!("/load-balancer/v2/lbaas/loadbalancers/{}", id(1)));
    assert_eq!(requests[1].query, "cascade=true");
}

#[tokio::test]
async fn a_load_balancer_that_is_gone_or_going_is_deleted() {
    for refusal in [
        || octavia_error(404, "Load Balancer x not found."),
        || octavia_error(409, "Invalid state PENDING_DELETE of loadbalancer resource x"),
    ] {
        let (_server, octavia) = busy(1, refusal).await;
        octavia.load_balancers().delete(lb()).await.unwrap();
    }
}

#[tokio::test]
async fn a_delete_whose_answer_was_lost_meets_its_own_work() {
    let count = Arc::new(AtomicUsize::new(0));
    let tries = count.clone();
    let server = Server::start(move |_| match tries.fetch_add(1, Ordering::SeqCst) {
        0 => answer(504, json!({})),
        _ => octavia_error(409, "Invalid state PENDING_DELETE of loadbalancer resource x"),
    })
    .await;
    server.octavia().await.load_balancers().delete(lb()).await.unwrap();
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_create_whose_answer_was_lost_is_not_asked_for_again() {
    let (config, count, _keystone) = odd("close").await;
    let octavia = Cloud::connect(config).await.unwrap().load_balancing();
    let error = octavia.load_balancers().create(&service()).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Broken(_)) && error.is_ambiguous(), "{error:?}");
    let error = octavia.members(id(3).parse().unwrap()).replace(&[]).await.unwrap_err();
    assert!(error.is_ambiguous(), "{error:?}");
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_refused_address_says_so_and_made_nothing() {
    let server = Server::start(|_| {
        octavia_error(500, "Provider 'ovn' reports error: IP address 10.96.0.7 already allocated in subnet x")
    })
    .await;
    let error = server.octavia().await.load_balancers().create(&service()).await.unwrap_err();
    assert!(error.is_address_in_use() && !error.is_ambiguous());
    assert_eq!(error.class(), Class::Owner);
}

#[tokio::test]
async fn what_the_provider_cannot_do_is_in_its_words() {
    let server = Server::start(|_| {
        octavia_error(
            501,
            "Provider 'ovn' does not support a requested option: OVN provider does not support loadbalancer failover",
        )
    })
    .await;
    let error = server.octavia().await.load_balancers().failover(lb()).await.unwrap_err();
    assert!(error.is_unsupported() && error.refusal().unwrap().message.ends_with("loadbalancer failover"));
    assert_eq!(server.requests()[0].path, format!("/load-balancer/v2/lbaas/loadbalancers/{}/failover", id(1)));
}

#[tokio::test]
async fn what_octavia_can_and_a_project_may_is_read() {
    let server = Server::start(|seen| match seen.path.trim_start_matches("/load-balancer") {
        "/" => ok(json!({"versions": [
            {"id": "v2.0", "status": "SUPPORTED", "links": []}, {"id": "v2.26", "status": "CURRENT", "links": []},
        ]})),
        "/v2/lbaas/providers" => ok(json!({"providers": [{"name": "ovn", "description": "OVN"}, {"name": "amphora"}]})),
        "/v2/lbaas/flavors" => ok(json!({"flavors": [{"id": id(1), "name": "small", "enabled": true}]})),
        "/v2/lbaas/availabilityzones" => ok(json!({"availability_zones": [{"name": "az1", "enabled": false}]})),
        "/v2/lbaas/quotas/p1" if seen.method == Method::PUT => accepted(),
        "/v2/lbaas/quotas/p1" => ok(json!({"quota": {"loadbalancer": 10, "load_balancer": 10, "member": -1}})),
        _ => answer(404, json!({})),
    })
    .await;
    let octavia = server.octavia().await;
    let version = octavia.api_version().await.unwrap();
    assert!(version == ApiVersion(2, 26) && version.has(Feature::AdditionalVips));
    assert_eq!(octavia.providers().await.unwrap()[0].name, "ovn");
    assert!(octavia.flavors(&Filter::new()).await.unwrap()[0].enabled);
    assert_eq!(octavia.availability_zones(&Filter::new()).await.unwrap()[0].name, "az1");
    let quotas = octavia.quotas(&"p1".into()).await.unwrap();
    assert_eq!((quotas.load_balancers, quotas.members), (Some(10), None));
    octavia.set_quota(&"p1".into(), "member", 5).await.unwrap();
    assert_eq!(server.requests().last().unwrap().body, json!({"quota": {"member": 5}}));
}

#[tokio::test]
async fn the_states_of_a_whole_load_balancer_are_one_answer() {
    let member = |number: u32, status: &str| {
        json!({"id": id(number), "name": "", "address": "10.0.0.5", "protocol_port": number,
               "provisioning_status": "ACTIVE", "operating_status": status})
    };
    let members = json!([member(4, "ONLINE"), member(5, "ERROR")]);
    let server = Server::start(move |_| {
        ok(json!({"statuses": {"loadbalancer": {
            "id": id(1), "name": "", "operating_status": "DEGRADED", "provisioning_status": "ACTIVE",
            "listeners": [{"id": id(2), "operating_status": "ONLINE", "provisioning_status": "ACTIVE", "pools": [
                {"id": id(3), "operating_status": "DEGRADED", "provisioning_status": "ACTIVE", "members": members,
                 "health_monitor": {"id": id(6), "type": "TCP", "provisioning_status": "ACTIVE"}},
            ]}, {"id": id(7), "pools": []}],
        }}}))
    })
    .await;
    let status = server.octavia().await.status(lb()).await.unwrap();
    assert_eq!(status.operating_status, Operating::Degraded);
    let members: Vec<_> = status.members().map(|member| (member.protocol_port, member.operating_status)).collect();
    assert_eq!(members, [(4, Operating::Online), (5, Operating::Error)]);
    assert!(status.listeners[0].pools[0].health_monitor.is_some());
}

#[tokio::test]
async fn a_cloud_without_octavia_connects_and_every_call_to_it_says_so() {
    let server = Server::start(|_| ok(json!({}))).await;
    let octavia = server.connect().await.load_balancing();
    let error = octavia.load_balancers().list(&Filter::new()).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::NoEndpoint(_)) && !error.is_ambiguous());
    assert!(matches!(error.class(), Class::Operator(_)));
    assert!(error.to_string().contains("load_balancer_endpoint_override"), "{error}");
    assert!(server.requests().is_empty());
}

use super::*;
use serde_json::{Value, json};

fn id(number: u32) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

fn read<T: for<'de> Deserialize<'de>>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

#[test]
fn a_load_balancer_reads_from_what_octavia_answers() {
    let lb: LoadBalancer = read(json!({
        "id": id(1), "name": "shop/web", "description": "", "provisioning_status": "PENDING_UPDATE",
        "operating_status": "ONLINE", "admin_state_up": true, "project_id": "p1", "provider": "ovn",
        "created_at": "2025-01-01T00:00:00", "updated_at": null, "vip_address": "10.96.0.7", "vip_port_id": id(2),
        "vip_subnet_id": id(3), "vip_network_id": id(4), "vip_qos_policy_id": null,
        "additional_vips": [{"subnet_id": id(5), "ip_address": "fd00:96::7"}],
        "listeners": [{"id": id(6)}, {"id": id(7)}], "pools": [{"id": id(8)}],
        "flavor_id": null, "availability_zone": null, "tags": ["kuryr:c1"],
    }));
    assert!(lb.provisioning_status.is_pending() && lb.admin_state_up);
    assert_eq!(lb.addresses().map(|ip| ip.to_string()).collect::<Vec<_>>(), ["10.96.0.7", "fd00:96::7"]);
    assert_eq!(lb.listeners.iter().map(ToString::to_string).collect::<Vec<_>>(), [id(6), id(7)]);
    assert_eq!(serde_json::to_value(&lb).unwrap()["pools"], json!([{"id": id(8)}]));
}

#[test]
fn what_octavia_leaves_out_or_null_has_a_default() {
    let lb: LoadBalancer =
        read(json!({"id": id(1), "name": null, "additional_vips": null, "listeners": null, "flavor_id": ""}));
    assert_eq!((lb.name.as_str(), lb.additional_vips.len(), lb.listeners.len()), ("", 0, 0));
    assert_eq!((lb.provisioning_status, lb.flavor_id), (Provisioning::Other, None));
    let listener: Listener = read(json!({
        "id": id(1), "protocol": "TCP", "protocol_port": 80, "allowed_cidrs": null, "insert_headers": null,
        "connection_limit": -1, "timeout_client_data": 50000, "default_pool_id": null,
    }));
    assert_eq!((listener.connection_limit, listener.timeout_client_data), (Some(-1), Some(50_000)));
    assert!(listener.allowed_cidrs.is_empty() && listener.insert_headers.is_empty());
    let pool: Pool = read(json!({"id": id(1), "session_persistence": null, "healthmonitor_id": null}));
    assert_eq!((pool.session_persistence, pool.healthmonitor_id), (None, None));
    let member: Member = read(json!({"id": id(1), "address": "fd00::1", "protocol_port": 8080, "backup": null}));
    assert!(!member.backup && member.subnet_id.is_none());
}

#[test]
fn session_persistence_is_written_with_what_it_has() {
    let sticky = SessionPersistence::source_ip();
    assert_eq!(serde_json::to_value(&sticky).unwrap(), json!({"type": "SOURCE_IP"}));
    let answered = json!({
        "type": "SOURCE_IP", "cookie_name": null, "persistence_timeout": null, "persistence_granularity": null,
    });
    assert_eq!(read::<SessionPersistence>(answered), sticky);
}

#[test]
fn words_are_octavias_and_unknown_ones_do_no_harm() {
    for word in ["ACTIVE", "PENDING_CREATE", "PENDING_UPDATE", "PENDING_DELETE", "ERROR", "DELETED"] {
        let read: Provisioning = read(json!(word));
        assert_eq!((read.as_str(), read.is_pending()), (word, word.starts_with("PENDING_")));
    }
    for word in ["TLS-HELLO", "UDP-CONNECT", "SCTP", "PING"] {
        assert_eq!(read::<MonitorType>(json!(word)).to_string(), word);
    }
    assert_eq!(read::<Protocol>(json!("QUIC")), Protocol::Other);
    assert_eq!(serde_json::to_value(Protocol::ProxyV2).unwrap(), "PROXYV2");
    assert_eq!(serde_json::to_value(Algorithm::SourceIpPort).unwrap(), "SOURCE_IP_PORT");
}

#[test]
fn the_answer_to_a_create_is_read_with_all_that_is_nested_in_it() {
    let tree: Tree = read(json!({
        "id": id(1), "name": "shop/web", "vip_address": "10.96.0.7", "provisioning_status": "PENDING_CREATE",
        "flavor_id": null, "tags": ["kuryr:c1"], "additional_vips": [],
        "listeners": [{"id": id(2), "protocol": "TCP", "protocol_port": 80, "default_pool_id": id(3), "l7policies": []}],
        "pools": [
            {"id": id(3), "protocol": "TCP", "lb_algorithm": "SOURCE_IP_PORT", "listeners": [{"id": id(2)}],
             "session_persistence": {"type": "SOURCE_IP", "cookie_name": null},
             "members": [{"id": id(4), "address": "10.0.0.5", "protocol_port": 8080, "weight": 1, "subnet_id": null}],
             "healthmonitor": {"id": id(5), "type": "TCP", "delay": 5, "timeout": 3, "max_retries": 2}},
            {"id": id(6), "protocol": "UDP", "members": [], "healthmonitor": null, "listeners": []},
        ],
    }));
    let named = |number: u32| id(number).parse::<uuid::Uuid>().unwrap();
    assert_eq!(tree.load_balancer.listeners, [ListenerId(named(2))]);
    assert_eq!(tree.load_balancer.pools, [ListenerPoolId(named(3)), ListenerPoolId(named(6))]);
    assert_eq!(tree.listeners[0].loadbalancers, [tree.load_balancer.id]);
    let [first, second] = &tree.pools[..] else { panic!("{:?}", tree.pools) };
    assert_eq!((&first.members[..], first.healthmonitor_id), (&[MemberId(named(4))][..], Some(tree.monitors[0].id)));
    assert_eq!(first.session_persistence, Some(SessionPersistence::source_ip()));
    assert_eq!(first.listeners, [ListenerId(named(2))]);
    assert_eq!((&tree.monitors[0].pools[..], tree.monitors[0].kind), (&[first.id][..], MonitorType::Tcp));
    assert_eq!(tree.members[&first.id][0].protocol_port, 8080);
    assert!(tree.members[&second.id].is_empty() && second.healthmonitor_id.is_none());
}

#[test]
fn the_answer_to_a_create_of_nothing_but_an_address_is_read() {
    let tree: Tree = read(json!({"id": id(1), "listeners": [], "pools": null}));
    assert!(tree.listeners.is_empty() && tree.pools.is_empty() && tree.load_balancer.listeners.is_empty());
}

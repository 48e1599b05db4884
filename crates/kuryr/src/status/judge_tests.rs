//! A working cluster is all ok; each fault shows as itself.

use super::{
    super::{collect::Definition, print},
    *,
};
use crate::view::tests::{kuryr_port, network_id, node, pod, port_id};
use kuryr_model::neutron::{Direction, EtherType, RuleContent, SecurityGroup, SecurityGroupRule, Subnet};
use kuryr_openstack::{
    Identity,
    network::{extensions::Extensions, ip_availability::SubnetUse},
};
use serde_json::json;

fn group(base: Base, direction: Direction) -> (Base, SecurityGroup) {
    let id = network_id().parse().unwrap();
    let rules = [EtherType::IPv4, EtherType::IPv6].map(|family| SecurityGroupRule {
        id: network_id().parse().unwrap(),
        security_group_id: id,
        allows: RuleContent::everything(direction, family),
    });
    (base, SecurityGroup { id, name: "g".into(), rules: rules.into(), tags: vec![] })
}

fn subnet_facts(used: u64, total: f64) -> SubnetFacts {
    let subnet: Subnet = serde_json::from_value(json!({
        "id": network_id(), "network_id": network_id(), "name": "pods-1", "cidr": "10.0.0.0/24"}))
    .unwrap();
    SubnetFacts { used: Some(SubnetUse { subnet_id: subnet.id, used_ips: used, total_ips: total }), subnet }
}

fn attached(name: &str, n: u8) -> KuryrPort {
    let mut port = kuryr_port(name, Some(n));
    port.status =
        serde_json::from_value(json!({"attachment": {"state": "Attached", "since": "2026-01-01T00:00:00Z"}})).unwrap();
    port
}

fn facts() -> Facts {
    let mut web = pod("web");
    web.bound = Some("2026-01-01T00:00:00Z".parse().unwrap());
    Facts {
        now: "2026-01-01T00:10:00Z".parse().unwrap(),
        cluster: Ok("c1".into()),
        kubernetes: Ok(Kubernetes {
            version: Ok(("v1.34.4".into(), 34)),
            definition: Ok(Some(Definition { established: true, selectable: true })),
            lease_name: "kube-system/kuryr-controller".into(),
            lease: Ok(Some(LeaseFacts {
                holder: "kuryr-0".into(),
                renewed: true,
                seconds: 15,
            })),
            daemons: Some([("n1".to_owned(), Daemon::Ready)].into()),
            view: Ok(ClusterView {
                pods: vec![web],
                nodes: vec![node("n1")],
                kuryr_ports: vec![attached("web", 1)],
                unreadable: vec![],
            }),
            services: Ok(vec![]),
            policies: Ok(vec![]),
        }),
        cloud: Ok(CloudFacts {
            auth_url: "http://keystone/v3".into(),
            network_url: "http://neutron/v2.0".into(),
            identity: Identity { user: "kuryr".into(), project_name: "k8s".into(), ..Identity::default() },
            extensions: Ok(Extensions::new(REQUIRED_EXTENSIONS.map(|(alias, _)| alias))),
            quotas: Ok([("port".to_owned(), Quota { limit: 100, used: 20, reserved: 0 })].into()),
            subnets: Ok(vec![subnet_facts(20, 253.0)]),
            groups: Ok(vec![group(Base::IngressOpen, Direction::Ingress), group(Base::EgressOpen, Direction::Egress)]),
            agents: Ok(vec![Agent { agent_type: "OVN".into(), host: "host-1".into(), alive: true }]),
            ports: Ok(vec![
                serde_json::from_value(json!({
                    "id": port_id(1), "network_id": network_id(), "mac_address": "fa:16:3e:00:00:01", "status": "ACTIVE"}))
                .unwrap(),
            ]),
            octavia_url: "http://octavia/v2".into(),
            services: Ok(None),
        }),
        machines: Ok(vec![]),
        floor: None,
    }
}

fn kubernetes(facts: &mut Facts) -> &mut Kubernetes {
    facts.kubernetes.as_mut().unwrap()
}

fn view(facts: &mut Facts) -> &mut ClusterView {
    kubernetes(facts).view.as_mut().unwrap()
}

fn cloud(facts: &mut Facts) -> &mut CloudFacts {
    facts.cloud.as_mut().unwrap()
}

/// What does not work after a change.
fn wrong(change: impl FnOnce(&mut Facts)) -> Vec<String> {
    let mut facts = facts();
    change(&mut facts);
    let checks = judge(&facts);
    let wrong = checks.iter().filter(|check| check.state == State::Wrong);
    wrong.map(|check| format!("{}: {}", check.subject, check.detail)).collect()
}

#[test]
fn a_working_cluster_is_one_screen_of_ticks() {
    let facts = facts();
    let checks = judge(&facts);
    let mut out = Vec::new();
    print::text(&facts, &checks, &mut out).unwrap();
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "Kuryr of cluster c1

Kubernetes
  ✓ API server         v1.34.4
  ✓ KuryrPort          the definition is established
  ✓ controller         kuryr-0 leads
  ✓ nodes              1 of 1 are ready
  ✓ daemons            1 of 1 can attach pods

OpenStack
  ✓ Keystone           http://keystone/v3 as user kuryr in project k8s
  ✓ Neutron            http://neutron/v2.0
  ✓ port quota         20 of 100 ports used
  ✓ pod subnet         pods-1 10.0.0.0/24: 20 used, 233 free
  ✓ Octavia            http://octavia/v2

Pods
  ✓ pods               1 have their ports, 0 are starting, 0 are stuck
  ✓ port pools         off: [pools] enabled is false

Services
  ✓ Services           0 are served, 0 are in progress, 0 are not right

Policies
  ✓ NetworkPolicies    0 are applied, 0 are in progress, 0 are not applied

All that was looked at works.
"
    );
}

#[test]
fn kubernetes_faults() {
    let silent = LeaseFacts { holder: "a".into(), renewed: false, seconds: 15 };
    assert_eq!(
        wrong(|facts| kubernetes(facts).lease = Ok(Some(silent))),
        ["controller: a did not renew the Lease kube-system/kuryr-controller within 15 s: no controller is active"]
    );
    assert_eq!(wrong(|facts| kubernetes(facts).version = Ok(("v1.30.2".into(), 30))), ["API server: v1.30.2"]);
    assert_eq!(
        wrong(|facts| kubernetes(facts).definition = Ok(None)),
        ["KuryrPort: the API server does not know the definition"]
    );
    assert_eq!(
        wrong(|facts| kubernetes(facts).lease = Ok(None)),
        ["controller: nobody holds the Lease kube-system/kuryr-controller: no controller is active"]
    );
    let not_ready = wrong(|facts| {
        view(facts).nodes[0].ready = false;
        view(facts).nodes[0].why = "cni plugin not initialized".into();
    });
    assert_eq!(not_ready, ["node n1: cni plugin not initialized"]);
}

#[test]
fn a_daemon_that_is_away_or_not_ready_is_named_and_one_that_cannot_be_asked_is_no_fault() {
    let one =
        |daemon: Daemon| move |facts: &mut Facts| kubernetes(facts).daemons = Some([("n1".into(), daemon)].into());
    let why = "Open vSwitch is away";
    assert_eq!(wrong(one(Daemon::NotReady(why.into()))), ["daemon n1: Open vSwitch is away"]);
    let address = "192.0.2.1:9651".parse().unwrap();
    assert_eq!(wrong(one(Daemon::Absent(address))), ["daemon n1: no daemon listens at 192.0.2.1:9651"]);
    assert_eq!(wrong(one(Daemon::Unknown("no answer".into()))), [""; 0]);
    assert_eq!(wrong(|facts| kubernetes(facts).daemons = None), [""; 0]);
    let mut facts = facts();
    one(Daemon::Unknown("no answer".into()))(&mut facts);
    let notes: Vec<_> =
        judge(&facts).into_iter().filter(|check| check.state == State::Note).map(|c| c.detail).collect();
    assert_eq!(notes, ["0 of 1 can attach pods", "it cannot be asked from here: no answer"]);
}

#[test]
fn what_does_not_answer_does_not_hide_the_rest() {
    let found = wrong(|facts| facts.cloud = Err("Keystone at x does not answer".into()));
    assert_eq!(found, ["Keystone: Keystone at x does not answer"]);
    let found = wrong(|facts| facts.kubernetes = Err("no kubeconfig".into()));
    assert_eq!(found, ["API server: no kubeconfig"]);
}

#[test]
fn openstack_faults() {
    let found = wrong(|facts| cloud(facts).extensions = Ok(Extensions::new(["binding"])));
    assert_eq!(found.len(), 3);
    assert!(found[0].starts_with("extension: standard-attr-tag is missing: what Kuryr makes"), "{found:?}");
    let full = wrong(|facts| {
        let quota = Quota { limit: 20, used: 19, reserved: 1 };
        cloud(facts).quotas = Ok([("port".to_owned(), quota)].into());
    });
    assert_eq!(full, ["port quota: 19 of 20 ports used"]);
    let full = wrong(|facts| cloud(facts).subnets = Ok(vec![subnet_facts(253, 253.0)]));
    assert_eq!(full, ["pod subnet: pods-1 10.0.0.0/24: 253 used, 0 free"]);
    assert_eq!(wrong(|facts| cloud(facts).subnets = Ok(vec![])), ["pod subnets: there are none"]);
    let found = wrong(|facts| cloud(facts).groups = Ok(vec![group(Base::IngressOpen, Direction::Egress)]));
    assert_eq!(
        found,
        ["security group: g has other rules than it should", "security group: none is tagged kuryr:base:egress-open"]
    );
}

#[test]
fn a_node_that_neutron_does_not_know() {
    let found = wrong(|facts| cloud(facts).agents.as_mut().unwrap()[0].host = "host-1.example".into());
    assert_eq!(found, ["node n1: Neutron knows no host \"host-1\", so it can bind no port there"]);
    let found = wrong(|facts| cloud(facts).agents.as_mut().unwrap()[0].alive = false);
    assert_eq!(found, ["node n1: Neutron has not heard of host \"host-1\" lately"]);
    assert_eq!(wrong(|facts| cloud(facts).agents = Err("forbidden".into())), [""; 0]);
}

#[test]
fn what_may_not_be_known_is_no_fault() {
    let mut facts = facts();
    cloud(&mut facts).quotas = Err("403".into());
    cloud(&mut facts).subnets.as_mut().unwrap()[0].used = None;
    let checks = judge(&facts);
    assert!(checks.iter().all(|check| check.state != State::Wrong), "{checks:#?}");
    assert!(checks.iter().any(|check| check.state == State::Note && check.detail == "unknown: 403"));
}

#[test]
fn pods_say_why_they_wait() {
    assert_eq!(wrong(|facts| view(facts).kuryr_ports.clear()), ["default/web: waiting for 600 s: it has no KuryrPort"]);
    assert_eq!(
        wrong(|facts| view(facts).kuryr_ports[0] = kuryr_port("web", Some(1)))[0],
        "default/web: waiting for 600 s: it has its port, node n1 has not plugged it"
    );
    let reason = wrong(|facts| {
        let mut port = kuryr_port("web", None);
        port.status = serde_json::from_value(json!({"conditions": [
            {"type": "Allocated", "status": "False", "reason": "Quota", "message": "the port quota is used up",
             "lastTransitionTime": "2026-01-01T00:00:00Z"}]}))
        .unwrap();
        view(facts).kuryr_ports[0] = port;
    });
    assert_eq!(reason[0], "default/web: waiting for 600 s: the port quota is used up");
    // One that has just come is only starting.
    let young = wrong(|facts| {
        view(facts).pods[0].bound = Some(facts_now());
        view(facts).kuryr_ports.clear();
    });
    assert_eq!(young, [""; 0]);
}

#[test]
fn a_pod_behind_the_previous_one_of_its_name_says_who_holds_it_up() {
    let behind = |deleted: Option<&'static str>| {
        move |facts: &mut Facts| {
            let port = &mut view(facts).kuryr_ports[0];
            port.spec.pod_uid = "another".into();
            port.metadata.deletion_timestamp = deleted.map(|at| serde_json::from_value(json!(at)).unwrap());
        }
    };
    assert_eq!(
        wrong(behind(Some("2026-01-01T00:09:30Z"))),
        ["default/web: waiting for 600 s: node n1 still holds the ports of the previous pod of this name (another)"]
    );
    assert_eq!(
        wrong(behind(Some("2026-01-01T00:05:00Z"))),
        [
            "default/web: waiting for 600 s: the KuryrPort of the previous pod of this name has been on its way out for 300 s: \
          node n1 has not released it"
        ]
    );
}

#[test]
fn what_is_left_of_pods_that_are_gone_is_told() {
    let found = wrong(|facts| {
        view(facts).pods.clear();
        let left = &mut view(facts).kuryr_ports[0];
        left.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:05:00Z")).unwrap();
        let key = ObjectKey::new("default", "odd");
        view(facts).unreadable.push(Unreadable { key, why: "vifs: not a list".into() });
    });
    assert_eq!(
        found,
        [
            "default/odd: its KuryrPort cannot be read: vifs: not a list",
            "default/web: its KuryrPort has been on its way out for 300 s: node n1 has not released it",
        ]
    );
}

#[test]
fn a_pod_whose_kuryr_port_cannot_be_read_says_so_once() {
    let found = wrong(|facts| {
        view(facts).kuryr_ports.clear();
        let key = ObjectKey::new("default", "web");
        view(facts).unreadable.push(Unreadable { key, why: "vifs: not a list".into() });
    });
    assert_eq!(found, ["default/web: its KuryrPort cannot be read: vifs: not a list"]);
}

fn facts_now() -> Timestamp {
    facts().now
}

#[test]
fn many_stuck_pods_are_counted_not_listed() {
    let found = wrong(|facts| {
        view(facts).pods =
            (0..30).map(|n| PodView { bound: Some(Timestamp::UNIX_EPOCH), ..pod(&n.to_string()) }).collect();
    });
    assert_eq!(found.len(), NAMED + 1);
    assert_eq!(found.last().unwrap(), "...: 20 more are stuck");
}

#[test]
fn a_port_that_is_down_though_it_is_plugged() {
    let found = wrong(|facts| cloud(facts).ports.as_mut().unwrap()[0].status = PortStatus::Down);
    assert_eq!(found, [format!("default/web: its port {} is plugged, and Neutron says that it is down", port_id(1))]);
    let starting = wrong(|facts| {
        cloud(facts).ports.as_mut().unwrap()[0].status = PortStatus::Down;
        view(facts).kuryr_ports[0] = kuryr_port("web", Some(1));
        view(facts).pods[0].bound = None;
    });
    assert_eq!(starting, [""; 0]);
}

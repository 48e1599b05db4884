//! What the policy compiler takes for 10,000 pods, 1,000 policies and 1,000 Services: time from nothing, and time and
//! effect of single changes.
//!
//! `cargo run --release -p kuryr-plan --example policies_at_scale`

use k8s_openapi::api::networking::v1::NetworkPolicy;
use kuryr_model::{ObjectKey, neutron::EtherType};
use kuryr_plan::policy::{
    Change, Compiler, Delta, Endpoint, Labels, NamedPort, Pod, Policy, Protocol, Service, ServicePort, Settings, World,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    error::Error,
    io::Write,
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

const NAMESPACES: u32 = 100;
const PODS: u32 = 100;
const NODES: u32 = 100;
const APPS: u32 = 10;

fn main() -> Result<(), Box<dyn Error>> {
    let mut out = std::io::stdout();
    let world = world()?;
    let settings = Settings {
        families: [EtherType::IPv4].into(),
        service_ranges: vec!["10.96.0.0/12".parse()?],
        pod_ranges: Vec::new(),
    };
    let changes: Vec<Change> = world.changes().collect();
    let before = resident()?;
    let mut compiler = Compiler::new(settings);
    let start = Instant::now();
    let delta = compiler.apply(changes);
    let (pods, groups) = (delta.pods.len(), delta.groups.len());
    let counts = (world.policies.len(), world.services.len());
    writeln!(
        out,
        "from nothing: {pods} pods, {} policies, {} Services: {groups} groups in {:?}",
        counts.0,
        counts.1,
        start.elapsed()
    )?;
    let carried: usize =
        world.pods.values().filter_map(|pod| compiler.groups(&pod.uid)).map(|groups| groups.len()).sum();
    let rules: usize = compiler.compiled().groups.values().map(BTreeSet::len).sum();
    let average = carried as f64 / f64::from(NAMESPACES * PODS);
    writeln!(
        out,
        "{rules} rules; {average:.1} groups on a pod; {} MiB for the compiler",
        resident()?.saturating_sub(before) / 1024
    )?;

    let some_pods = || world.pods.values().step_by(7);
    let moved = some_pods().map(|pod| {
        let mut other = pod.clone();
        other.labels.insert("app".into(), "app0".into());
        Change::Pod(other)
    });
    measure(&mut out, &mut compiler, "a pod relabelled", moved)?;
    measure(&mut out, &mut compiler, "and back", some_pods().cloned().map(Change::Pod))?;
    measure(&mut out, &mut compiler, "a pod gone", some_pods().map(|pod| Change::PodGone(pod.key.clone())))?;
    measure(&mut out, &mut compiler, "a pod new, with its address", some_pods().cloned().map(Change::Pod))?;
    let gone = |policy: &Policy| Change::PolicyGone(policy.key.clone());
    measure(&mut out, &mut compiler, "a policy gone", world.policies.values().map(gone))?;
    measure(&mut out, &mut compiler, "a policy new", world.policies.values().cloned().map(Change::Policy))?;
    let scaled = world.services.values().map(|service| {
        let mut service = service.clone();
        service.ports.iter_mut().for_each(|port| port.endpoints = port.endpoints.iter().skip(1).copied().collect());
        Change::Service(service)
    });
    measure(&mut out, &mut compiler, "a Service with an endpoint less", scaled)?;
    measure(&mut out, &mut compiler, "and back", world.services.values().cloned().map(Change::Service))?;
    let relabelled = world.namespaces.keys().map(|name| Change::Namespace(name.clone(), labels(&[("team", "new")])));
    measure(&mut out, &mut compiler, "a namespace relabelled", relabelled)?;
    Ok(())
}

/// Memory of this process, in KiB.
fn resident() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn measure(
    out: &mut impl Write,
    compiler: &mut Compiler,
    what: &str,
    changes: impl Iterator<Item = Change>,
) -> std::io::Result<()> {
    let mut times: Vec<Duration> = Vec::new();
    let (mut pods, mut groups) = (0, 0);
    for change in changes {
        let start = Instant::now();
        let Delta { pods: changed, groups: made } = compiler.apply([change]);
        times.push(start.elapsed());
        (pods, groups) = (pods + changed.len(), groups + made.len());
    }
    times.sort();
    let at = |share: usize| times.get((times.len() * share / 100).min(times.len() - 1)).copied().unwrap_or_default();
    let (number, max) = (times.len(), at(100));
    writeln!(
        out,
        "{what}: {number} times, p50 {:?}, p99 {:?}, max {max:?}; {pods} pods and {groups} groups changed",
        at(50),
        at(99)
    )
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn address(first: u8, index: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(u32::from(first) << 24 | 1 << 16 | index))
}

fn world() -> Result<World, Box<dyn Error>> {
    let mut world = World::default();
    for index in 0..NODES {
        world.nodes.insert(format!("node{index}"), [address(172, index)].into());
    }
    for namespace in 0..NAMESPACES {
        let name = format!("ns{namespace}");
        let team = format!("team{}", namespace % 10);
        world.namespaces.insert(name.clone(), labels(&[("kubernetes.io/metadata.name", &name), ("team", &team)]));
        for pod in 0..PODS {
            let index = namespace * PODS + pod;
            let app = format!("app{}", pod % APPS);
            let pod = Pod {
                key: ObjectKey::new(&name, format!("{app}-{pod}")),
                uid: format!("00000000-0000-0000-0000-{index:012}").into(),
                node: Some(format!("node{}", index % NODES)),
                labels: labels(&[
                    ("app", &app),
                    ("pod-template-hash", &format!("5d4f{app}")),
                    ("tier", ["web", "db"][pod as usize % 2]),
                ]),
                addresses: [address(10, index)].into(),
                host_network: false,
                completed: false,
                ports: vec![NamedPort { name: "http".into(), protocol: Protocol::Tcp, number: 8080 }],
            };
            world.pods.insert(pod.key.clone(), pod);
        }
        for (index, spec) in specs(&team).into_iter().enumerate() {
            let uid = format!("{namespace:08}-0000-0000-0000-{index:012}");
            let metadata = json!({"namespace": name, "name": format!("np{index}"), "uid": uid});
            let policy: NetworkPolicy = serde_json::from_value(json!({"metadata": metadata, "spec": spec}))?;
            let policy = Policy::read(&policy)?;
            world.policies.insert(policy.key.clone(), policy);
        }
        for app in 0..APPS {
            let behind = (0..PODS).filter(|pod| pod % APPS == app).map(|pod| namespace * PODS + pod);
            let endpoints = behind.map(|index| Endpoint { address: address(10, index), number: 8080 }).collect();
            let service = Service {
                key: ObjectKey::new(&name, format!("app{app}")),
                vips: [IpAddr::V4(Ipv4Addr::from_bits(0x0a60_0000 + namespace * APPS + app))].into(),
                ports: vec![ServicePort { protocol: Protocol::Tcp, number: 80, endpoints }],
                hides_client: false,
                guard: None,
            };
            world.services.insert(service.key.clone(), service);
        }
    }
    Ok(world)
}

/// Ten policies as they are found in namespaces that are closed by default.
fn specs(team: &str) -> Vec<Value> {
    let app = |name: &str| json!({"podSelector": {"matchLabels": {"app": name}}});
    let of_team =
        json!({"namespaceSelector": {"matchLabels": {"team": team}}, "podSelector": {"matchLabels": {"tier": "web"}}});
    let outside =
        json!({"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]}});
    let select = |name: &str| json!({"matchLabels": {"app": name}});
    let ingress = |pods: Value, rule: Value| json!({"podSelector": pods, "ingress": [rule]});
    let egress = |pods: Value, rule: Value| json!({"podSelector": pods, "policyTypes": ["Egress"], "egress": [rule]});
    let (all, dns) = (json!({}), json!([{"port": 53, "protocol": "UDP"}, {"port": 53}]));
    let (http, number) = (json!([{"port": "http"}]), json!([{"port": 8080}]));
    vec![
        json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}),
        egress(all.clone(), json!({"ports": dns})),
        ingress(all.clone(), json!({"from": [{"podSelector": {}}]})),
        ingress(select("app0"), json!({"from": [of_team], "ports": http})),
        ingress(select("app1"), json!({"from": [app("app0"), app("app2")], "ports": number})),
        egress(select("app2"), json!({"to": [app("app1")], "ports": number})),
        egress(select("app3"), json!({"to": [of_team], "ports": http})),
        egress(select("app4"), json!({"to": [outside], "ports": [{"port": 443}]})),
        egress(select("app5"), json!({"ports": [{"port": 80}, {"port": 443}]})),
        json!({"podSelector": select("app6"), "policyTypes": ["Ingress", "Egress"], "ingress": [{}], "egress": [{}]}),
    ]
}

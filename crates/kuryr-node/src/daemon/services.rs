//! Node ports and external addresses with real packets, the whole daemon and a scripted API server.

use super::{
    api_server::{Api, api_server},
    harness::{Daemon, request},
    lab::{Lab, PROTOCOLS, Protocol, Session, ask, ask_until, get, serve},
};
use crate::{
    config::NodePorts,
    netlink::{
        Socket,
        link::By,
        route::{self, Route},
        sysctl,
    },
    netns::testing::{isolated, namespace},
    node_ports::{nft, script},
    plug::{PlugConfig, Plugger, mark::host_end_name},
    testing::{kuryr_port, port_id, vif},
};
use kube::Client;
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// What Services see of whoever is masked, and who they are.
const MASKED: [&str; 2] = ["198.19.0.1 10.96.0.9", "fd00:b::1 fd00:96::9"];

struct World {
    folder: PathBuf,
    lab: Lab,
    api: Arc<Api>,
    client: Client,
}

impl World {
    async fn daemon(&self) -> Daemon {
        self.daemon_with(NodePorts::Keep).await
    }

    async fn daemon_with(&self, what: NodePorts) -> Daemon {
        // The story plays the cloud's agent, and adds the routes when it has the answer.
        let plugs = Plugger::new(PlugConfig { await_routes: false, ..PlugConfig::default() });
        let daemon = Daemon::start_with(&self.folder, self.client.clone(), plugs, |config| config.node_ports = what);
        let daemon = daemon.await;
        daemon.ready().await;
        daemon
    }

    fn client(&self) -> Option<&Path> {
        Some(&self.lab.client)
    }

    /// A server on the host's network.
    fn serve_here(&self, address: &str) {
        serve(Path::new("/proc/thread-self/ns/net"), address);
    }

    /// A routed pod with that number, and a server in it.
    async fn pod(&self, daemon: &Daemon, n: u64) {
        let netns = namespace(&self.folder, &format!("pod-{n}"));
        self.api.put(&kuryr_port(&format!("web-{n}"), n));
        let mut request = request("ADD", &format!("c{n}"), n);
        request["netns"] = netns.to_str().into();
        let (status, result) = daemon.post("/cni", &request.to_string()).await;
        assert_eq!(status, 200, "{result}");
        // What the cloud's agent does: the node knows the way.
        let mut here = Socket::open().unwrap();
        let tap = here.link(By::Name(&host_end_name(port_id(n)))).unwrap().unwrap().index;
        let own = vif(n).addresses.into_iter().map(|address| route::add(&Route::on(address.ip.into(), tap)));
        here.run(&own.collect::<Vec<_>>()).unwrap();
        serve(&netns, &format!("10.1.0.{n}:8080"));
        serve(&netns, &format!("[fd00::{n:x}]:8080"));
    }
}

/// A story on a node with Services that answer at both cluster IPs.
fn on_a_node<F: Future<Output = ()>>(test: &str, story: impl FnOnce(World) -> F + Send + 'static) {
    isolated(&format!("daemon::services::{test}"), |folder| {
        // Its threads are made in the test's namespace.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let lab = Lab::new(folder);
            serve(&lab.services, "10.96.0.9:80");
            serve(&lab.services, "[fd00:96::9]:80");
            let (api, client) = api_server().await;
            story(World { folder: folder.to_owned(), lab, api, client }).await;
        });
    });
}

/// A Service of both families with a node port of that number for TCP and UDP.
fn service(name: &str, node_port: u16, spec: &Value) -> Value {
    let port = |protocol| json!({"name": protocol, "protocol": protocol, "port": 80, "nodePort": node_port});
    let mut service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": name, "uid": name},
        "spec": {
            "type": "NodePort", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9", "fd00:96::9"],
            "ports": [port("TCP"), port("UDP")],
        },
    });
    service["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    service
}

/// The endpoints of a Service, all of one family and ready, each with its node.
fn slice(service: &str, family: &str, endpoints: &[(&str, &str)]) -> Value {
    let endpoint = |(address, node): &(&str, &str)| json!({"addresses": [address], "nodeName": node});
    let port = |protocol| json!({"name": protocol, "protocol": protocol, "port": 8080});
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
        "metadata": {
            "namespace": "shop", "name": format!("{service}-{family}"), "labels": {"kubernetes.io/service-name": service},
        },
        "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(), "ports": [port("TCP"), port("UDP")],
    })
}

/// Waits until a line stands in the daemon's metrics.
async fn measures(daemon: &Daemon, line: &str) {
    let there = async {
        while !daemon.get("/metrics").await.1.as_str().unwrap().lines().any(|found| found == line) {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), there).await.is_ok(), "no {line}");
}

#[test]
fn a_service_answers_at_every_address_of_the_node() {
    on_a_node("a_service_answers_at_every_address_of_the_node", |world| async move {
        let daemon = world.daemon().await;
        world.api.put(&service("web", 30080, &json!({})));
        measures(&daemon, "kuryr_node_ports 4").await;
        for protocol in PROTOCOLS {
            for (target, wanted) in [
                ("198.18.0.1:30080", MASKED[0]),
                ("198.19.0.1:30080", MASKED[0]),
                ("[fd00:c::1]:30080", MASKED[1]),
                ("[fd00:b::1]:30080", MASKED[1]),
            ] {
                assert_eq!(ask(world.client(), protocol, target).await.unwrap(), wanted, "{protocol:?} {target}");
                // The node itself, and what is on its network.
                assert_eq!(ask(None, protocol, target).await.unwrap(), wanted, "{protocol:?} {target} from the node");
            }
            for target in ["127.0.0.1:30080", "[::1]:30080", "198.18.0.1:30081", "198.18.0.1:80"] {
                assert!(ask(None, protocol, target).await.is_err(), "{protocol:?} {target}");
            }
        }
        assert_eq!(daemon.get("/attachments").await.1["findings"], json!([]));
        let mut other = service("web", 30090, &json!({}));
        other["metadata"]["generation"] = 2.into();
        world.api.change("MODIFIED", other);
        for protocol in PROTOCOLS {
            ask_until(world.client(), protocol, "198.18.0.1:30090", MASKED[0]).await;
            assert!(ask(world.client(), protocol, "198.18.0.1:30080").await.is_err());
        }
        world.api.change("DELETED", service("web", 30090, &json!({})));
        measures(&daemon, "kuryr_node_ports 0").await;
        assert_eq!(nft::list().await.unwrap(), None, "nothing to translate, no table");
        daemon.stop().await;
    });
}

#[test]
fn an_external_address_that_is_routed_to_the_node_is_the_services() {
    on_a_node("an_external_address_that_is_routed_to_the_node_is_the_services", |world| async move {
        let daemon = world.daemon().await;
        let external = json!({"type": "ClusterIP", "externalIPs": ["203.0.113.9", "2001:db8::9"]});
        let mut web = service("web", 0, &external);
        web["spec"]["ports"].as_array_mut().unwrap().iter_mut().for_each(|port| port["nodePort"] = Value::Null);
        world.api.put(&web);
        measures(&daemon, "kuryr_node_ports 4").await;
        for protocol in PROTOCOLS {
            for (target, wanted) in [("203.0.113.9:80", MASKED[0]), ("[2001:db8::9]:80", MASKED[1])] {
                assert_eq!(ask(world.client(), protocol, target).await.unwrap(), wanted);
            }
            assert!(ask(world.client(), protocol, "203.0.113.9:81").await.is_err());
        }
        daemon.stop().await;
    });
}

#[test]
fn with_a_local_policy_only_this_nodes_pods_answer_and_they_see_the_client() {
    on_a_node("with_a_local_policy_only_this_nodes_pods_answer_and_they_see_the_client", |world| async move {
        let daemon = world.daemon().await;
        for n in 1..=2 {
            world.pod(&daemon, n).await;
        }
        world.api.put(&service("web", 30080, &json!({"externalTrafficPolicy": "Local"})));
        world.api.put(&slice("web", "IPv4", &[("10.1.0.9", "node-2")]));
        measures(&daemon, "kuryr_node_ports 4").await;
        // Nobody is here: outsiders get no answer at all. The node itself is served by the others.
        let silence = ask(world.client(), Protocol::Tcp, "198.18.0.1:30080").await.unwrap_err();
        assert_eq!(silence.kind(), std::io::ErrorKind::TimedOut);
        assert!(ask(world.client(), Protocol::Udp, "[fd00:c::1]:30080").await.is_err());
        assert_eq!(ask(None, Protocol::Tcp, "198.18.0.1:30080").await.unwrap(), MASKED[0]);
        assert_eq!(ask(Some(&world.folder.join("pod-2")), Protocol::Udp, "198.18.0.1:30080").await.unwrap(), MASKED[0]);

        world.api.put(&slice("web", "IPv4", &[("10.1.0.9", "node-2"), ("10.1.0.1", "node-1")]));
        world.api.put(&slice("web", "IPv6", &[("fd00::1", "node-1")]));
        for protocol in PROTOCOLS {
            ask_until(world.client(), protocol, "198.18.0.1:30080", "198.18.0.2 10.1.0.1").await;
            ask_until(world.client(), protocol, "[fd00:c::1]:30080", "fd00:c::2 fd00::1").await;
        }
        // Both answer, and a client that shall stay with one does.
        world.api.put(&slice("web", "IPv4", &[("10.1.0.1", "node-1"), ("10.1.0.2", "node-1")]));
        for n in 1..=2 {
            let wanted = format!("198.18.0.2 10.1.0.{n}");
            ask_until(world.client(), Protocol::Udp, "198.18.0.1:30080", &wanted).await;
        }
        daemon.stop().await;
    });
}

/// Waits until the kernel remembers the clients of so many endpoints.
async fn knows_clients_of(endpoints: usize) {
    let known = async {
        loop {
            let answer = nft::list().await.unwrap().unwrap_or_default();
            let table: Value = serde_json::from_slice(&answer).unwrap_or_default();
            let objects = table["nftables"].as_array().cloned().unwrap_or_default();
            let names = objects.iter().filter_map(|object| object["set"]["name"].as_str());
            if names.filter(|name| name.starts_with("clients-")).count() == endpoints {
                return;
            }
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), known).await.is_ok(), "not of {endpoints}");
}

#[test]
fn a_health_check_tells_whether_the_node_has_endpoints() {
    on_a_node("a_health_check_tells_whether_the_node_has_endpoints", |world| async move {
        let daemon = world.daemon().await;
        let spec = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 30999});
        world.api.put(&service("web", 30080, &spec));
        let says = async |address: &str, wanted: &[&str]| {
            let asked = async {
                loop {
                    let answer = get(world.client(), address).await.unwrap_or_default();
                    if wanted.iter().all(|part| answer.contains(part)) {
                        return;
                    }
                    tokio::task::yield_now().await;
                }
            };
            let in_time = tokio::time::timeout(Duration::from_secs(20), asked).await.is_ok();
            assert!(in_time, "{address} does not say {wanted:?}: {:?}", get(world.client(), address).await);
        };
        let nobody = ["503 ", r#""localEndpoints":0"#, r#""serviceProxyHealthy":true"#, r#""namespace":"shop""#];
        says("198.18.0.1:30999", &nobody).await;
        world.api.put(&slice("web", "IPv4", &[("10.1.0.9", "node-2"), ("10.1.0.1", "node-1")]));
        for address in ["198.18.0.1:30999", "[fd00:c::1]:30999"] {
            says(address, &["200 ", r#""localEndpoints":1"#, "application/json"]).await;
        }
        world.api.put(&slice("web", "IPv4", &[("10.1.0.9", "node-2")]));
        says("198.18.0.1:30999", &nobody).await;
        // With another policy nobody asks any more.
        world.api.change("MODIFIED", service("web", 30080, &json!({"type": "LoadBalancer"})));
        let closed = async {
            while get(world.client(), "198.18.0.1:30999").await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(20), closed).await.is_ok(), "it still answers");
        daemon.stop().await;
    });
}

#[test]
fn a_client_that_is_bound_stays_with_its_endpoint_for_its_time_and_no_longer() {
    on_a_node("a_client_that_is_bound_stays_with_its_endpoint_for_its_time_and_no_longer", |world| async move {
        let daemon = world.daemon().await;
        for n in 1..=2 {
            world.pod(&daemon, n).await;
        }
        let bound = |seconds: u32| {
            let config = json!({"clientIP": {"timeoutSeconds": seconds}});
            let affinity = json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": config});
            let mut spec = json!({"externalTrafficPolicy": "Local"});
            spec.as_object_mut().unwrap().extend(affinity.as_object().unwrap().clone());
            service("web", 30080, &spec)
        };
        let endpoint = |n: u64| (format!("10.1.0.{n}"), format!("198.18.0.2 10.1.0.{n}"));
        let (first, second) = (endpoint(1), endpoint(2));
        world.api.put(&bound(600));
        world.api.put(&slice("web", "IPv4", &[(&first.0, "node-1")]));
        ask_until(world.client(), Protocol::Tcp, "198.18.0.1:30080", &first.1).await;
        // Another one comes: whoever has one keeps it.
        world.api.put(&slice("web", "IPv4", &[(&first.0, "node-1"), (&second.0, "node-1")]));
        knows_clients_of(2).await;
        for _ in 0..20 {
            assert_eq!(ask(world.client(), Protocol::Tcp, "198.18.0.1:30080").await.unwrap(), first.1);
        }
        // It goes: its clients get the other one.
        world.api.put(&slice("web", "IPv4", &[(&second.0, "node-1")]));
        ask_until(world.client(), Protocol::Tcp, "198.18.0.1:30080", &second.1).await;
        // A client that stays away for longer is a new one.
        world.api.change("MODIFIED", bound(1));
        world.api.put(&slice("web", "IPv4", &[(&first.0, "node-1"), (&second.0, "node-1")]));
        let mut seen = std::collections::BTreeSet::new();
        while seen.len() < 2 {
            seen.insert(ask(world.client(), Protocol::Tcp, "198.18.0.1:30080").await.unwrap());
            tokio::time::sleep(Duration::from_millis(1100)).await;
        }
        daemon.stop().await;
    });
}

#[test]
fn a_udp_client_that_never_pauses_follows_the_endpoints() {
    on_a_node("a_udp_client_that_never_pauses_follows_the_endpoints", |world| async move {
        let daemon = world.daemon().await;
        for n in 1..=2 {
            world.pod(&daemon, n).await;
        }
        // It begins to send before there is anything.
        let mut session = Session::open(world.client(), Protocol::Udp, "198.18.0.1:30080").unwrap();
        assert!(session.ask().is_err());
        world.api.put(&service("web", 30080, &json!({"externalTrafficPolicy": "Local"})));
        for n in 1..=2 {
            world.api.put(&slice("web", "IPv4", &[(&format!("10.1.0.{n}"), "node-1")]));
            let wanted = format!("198.18.0.2 10.1.0.{n}");
            let asking = async {
                while session.ask().ok().as_ref() != Some(&wanted) {
                    tokio::task::yield_now().await;
                }
            };
            assert!(tokio::time::timeout(Duration::from_secs(20), asking).await.is_ok(), "{wanted}");
        }
        daemon.stop().await;
    });
}

#[test]
fn endpoints_whose_answers_do_not_come_back_see_the_node() {
    on_a_node("endpoints_whose_answers_do_not_come_back_see_the_node", |world| async move {
        let daemon = world.daemon().await;
        // On this node, but not behind a routed tap: its answers go another way.
        serve(&world.lab.services, "198.19.0.2:8080");
        world.api.put(&service("web", 30080, &json!({"externalTrafficPolicy": "Local"})));
        world.api.put(&slice("web", "IPv4", &[("198.19.0.2", "node-1")]));
        for protocol in PROTOCOLS {
            ask_until(world.client(), protocol, "198.18.0.1:30080", "198.19.0.1 198.19.0.2").await;
        }
        // A pod on the host's network is the node itself.
        world.serve_here("198.19.0.1:8080");
        world.api.put(&slice("web", "IPv4", &[("198.19.0.1", "node-1")]));
        for protocol in PROTOCOLS {
            ask_until(world.client(), protocol, "198.18.0.1:30080", "198.18.0.2 198.19.0.1").await;
        }
        daemon.stop().await;
    });
}

#[test]
fn traffic_goes_on_while_the_daemon_is_restarted_and_what_became_wrong_is_corrected() {
    on_a_node("traffic_goes_on_while_the_daemon_is_restarted_and_what_became_wrong_is_corrected", |world| async move {
        let daemon = world.daemon().await;
        world.api.put(&service("web", 30080, &json!({})));
        world.api.put(&service("old", 30081, &json!({})));
        measures(&daemon, "kuryr_node_ports 8").await;
        let mut session = Session::open(world.client(), Protocol::Tcp, "198.18.0.1:30080").unwrap();
        assert_eq!(session.ask().unwrap(), MASKED[0]);
        daemon.stop().await;
        assert_eq!(session.ask().unwrap(), MASKED[0]);
        assert_eq!(ask(world.client(), Protocol::Tcp, "198.18.0.1:30081").await.unwrap(), MASKED[0]);

        world.api.change("DELETED", service("old", 30081, &json!({})));
        let daemon = world.daemon().await;
        measures(&daemon, "kuryr_node_ports 4").await;
        assert_eq!(session.ask().unwrap(), MASKED[0]);
        assert!(ask(world.client(), Protocol::Tcp, "198.18.0.1:30081").await.is_err());
        daemon.stop().await;

        // A daemon that is to have no node ports takes the rules away.
        let daemon = world.daemon_with(NodePorts::Remove).await;
        while nft::list().await.unwrap().is_some() {
            tokio::task::yield_now().await;
        }
        daemon.stop().await;
    });
}

#[test]
fn rules_that_somebody_flushes_are_made_again() {
    on_a_node("rules_that_somebody_flushes_are_made_again", |world| async move {
        let daemon = world.daemon().await;
        world.api.put(&service("web", 30080, &json!({})));
        measures(&daemon, "kuryr_node_ports 4").await;
        nft::run("flush ruleset").await.unwrap();
        measures(&daemon, "kuryr_node_ports_repairs_total 1").await;
        ask_until(world.client(), Protocol::Tcp, "198.18.0.1:30080", MASKED[0]).await;
        // A change meets a table that is not there.
        nft::run(&script::remove()).await.unwrap();
        world.api.put(&service("new", 30081, &json!({})));
        ask_until(world.client(), Protocol::Udp, "198.18.0.1:30081", MASKED[0]).await;
        ask_until(world.client(), Protocol::Udp, "198.18.0.1:30080", MASKED[0]).await;
        daemon.stop().await;
    });
}

#[test]
fn a_node_that_does_not_forward_is_told_of_with_the_fix() {
    on_a_node("a_node_that_does_not_forward_is_told_of_with_the_fix", |world| async move {
        sysctl::set("net/ipv4/ip_forward", "0").unwrap();
        let daemon = world.daemon().await;
        world.api.put(&service("web", 30080, &json!({})));
        measures(&daemon, "kuryr_node_ports_trouble 1").await;
        let findings = &daemon.get("/attachments").await.1["findings"];
        assert_eq!(findings[0]["finding"], "nodePorts");
        assert!(findings[0]["problem"].as_str().unwrap().contains("net.ipv4.ip_forward=1"), "{findings}");
        let mut events = world.api.events.subscribe();
        let written = tokio::time::timeout(Duration::from_secs(20), events.wait_for(|events| !events.is_empty()));
        let event = written.await.unwrap().unwrap()[0].clone();
        assert_eq!((&event["reason"], &event["regarding"]["kind"]), (&"NodePortsFailed".into(), &"Node".into()));
        assert_eq!(event["regarding"]["name"], "node-1");
        // Pods are served all the same, and the node itself reaches Services.
        assert_eq!(daemon.get("/readyz").await.0, 200);
        assert_eq!(ask(None, Protocol::Tcp, "198.18.0.1:30080").await.unwrap(), MASKED[0]);
        // The next change looks again.
        sysctl::set("net/ipv4/ip_forward", "1").unwrap();
        world.api.put(&service("new", 30081, &json!({})));
        measures(&daemon, "kuryr_node_ports_trouble 0").await;
        daemon.stop().await;
    });
}

//! A cluster in a few lines, and who reaches whom in it by the security groups that it is compiled to. Every answer is
//! also compared with the specification's.

use crate::{
    compare::{compare, read},
    neutron::Cloud,
    spec::{Cluster, Traffic},
};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kuryr_model::ObjectKey;
use kuryr_plan::policy::{
    Compiled, Endpoint, GroupKey, Labels, ListenerKey, NamedPort, Pod, Problem, Protocol, Service, ServicePort,
    Settings, compile,
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, net::IpAddr};

#[derive(Clone, Default)]
pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
    pub(crate) settings: Settings,
}

/// `app=web,tier=` as labels.
pub(crate) fn labels(text: &str) -> Labels {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn key(text: &str) -> ObjectKey {
    text.parse().unwrap()
}

fn addresses(text: &str) -> BTreeSet<IpAddr> {
    text.split(' ').filter(|it| !it.is_empty()).map(|it| it.parse().unwrap()).collect()
}

fn protocol(text: &str) -> Protocol {
    Protocol::from_kubernetes(text).unwrap()
}

/// `80`, `53/UDP` or `ping`.
fn traffic(text: &str) -> Traffic {
    match text.split_once('/') {
        _ if text == "ping" => Traffic::Other,
        Some((number, name)) => Traffic::To(protocol(name), number.parse().unwrap()),
        None => Traffic::To(Protocol::Tcp, text.parse().unwrap()),
    }
}

impl Stage {
    pub(crate) fn namespace(mut self, name: &str, with: &str) -> Self {
        self.cluster.world.namespaces.insert(name.to_owned(), labels(with));
        self
    }

    /// A pod of a namespace that is made on the way; addresses have spaces between them.
    pub(crate) fn pod(mut self, name: &str, with: &str, at: &str) -> Self {
        let key = key(name);
        self.cluster.world.namespaces.entry(key.namespace.clone()).or_default();
        let pod = Pod {
            uid: format!("uid-{}-{}", key.namespace, key.name).into(),
            node: Some("n0".into()),
            labels: labels(with),
            addresses: addresses(at),
            host_network: false,
            completed: false,
            ports: vec![],
            key: key.clone(),
        };
        self.cluster.world.pods.insert(key, pod);
        self
    }

    pub(crate) fn edit(mut self, name: &str, edit: impl FnOnce(&mut Pod)) -> Self {
        edit(self.cluster.world.pods.get_mut(&key(name)).unwrap());
        self
    }

    /// A named container port of a pod: `http=80/TCP`.
    pub(crate) fn port(self, pod: &str, port: &str) -> Self {
        let (name, at) = port.split_once('=').unwrap();
        let Traffic::To(protocol, number) = traffic(at) else { panic!("{at}") };
        self.edit(pod, |pod| pod.ports.push(NamedPort { name: name.to_owned(), protocol, number }))
    }

    pub(crate) fn node(mut self, name: &str, at: &str) -> Self {
        self.cluster.world.nodes.insert(name.to_owned(), addresses(at));
        self
    }

    /// A policy; `spec` as in its YAML.
    pub(crate) fn policy(mut self, name: &str, spec: Value) -> Self {
        let key = key(name);
        let uid = format!("uid-{}-{}", key.namespace, key.name);
        let mut object = json!({"metadata": {"namespace": key.namespace, "name": key.name, "uid": uid}});
        object["spec"] = spec;
        let policy: NetworkPolicy = serde_json::from_value(object).unwrap();
        self.cluster.policies.push(policy);
        self
    }

    /// A Service `10.96.0.1` with a port `80/TCP` and what is behind it, `10.0.0.1:8080 10.0.0.2:8080`.
    pub(crate) fn service(mut self, vip: &str, port: &str, behind: &str) -> Self {
        let Traffic::To(protocol, number) = traffic(port) else { panic!("{port}") };
        let endpoint = |text: &str| {
            let (address, number) = text.rsplit_once(':').unwrap();
            Endpoint { address: address.trim_matches(['[', ']']).parse().unwrap(), number: number.parse().unwrap() }
        };
        let endpoints = behind.split(' ').filter(|it| !it.is_empty()).map(endpoint).collect();
        let key = ObjectKey::new("services", vip);
        let service = self.cluster.world.services.entry(key.clone());
        let service = service.or_insert_with(|| Service {
            key,
            vips: addresses(vip),
            ports: vec![],
            hides_client: false,
            guard: None,
        });
        service.ports.push(ServicePort { protocol, number, endpoints });
        self
    }

    pub(crate) fn hides_client(mut self, vip: &str) -> Self {
        self.cluster.world.services.get_mut(&ObjectKey::new("services", vip)).unwrap().hides_client = true;
        self
    }

    pub(crate) fn service_range(mut self, range: &str) -> Self {
        self.settings.service_ranges.push(range.parse().unwrap());
        self
    }

    pub(crate) fn compiled(&self) -> Compiled {
        compile(self.settings.clone(), &read(&self.cluster))
    }

    /// The rules of the groups that `which` picks, as text.
    pub(crate) fn rules(&self, which: impl Fn(&GroupKey) -> bool) -> Vec<String> {
        let groups = self.compiled().groups.into_iter().filter(|(key, _)| which(key));
        groups.flat_map(|(_, rules)| rules).map(|rule| rule.to_string()).collect()
    }

    /// The groups of a pod, as text.
    pub(crate) fn groups(&self, pod: &str) -> Vec<String> {
        let uid = &self.cluster.world.pods[&key(pod)].uid;
        self.compiled().pods[uid].iter().map(ToString::to_string).collect()
    }

    pub(crate) fn problems(&self) -> Vec<Problem> {
        read(&self.cluster).policies.into_values().flat_map(|policy| policy.problems).collect()
    }

    /// Whether one reaches the other; each is a pod's name or an address, and the other may also be a VIP: then
    /// whatever is behind it must be reached.
    pub(crate) fn passes(&self, from: &str, to: &str, what: &str) -> bool {
        compare(&self.cluster, self.settings.clone()).unwrap_or_else(|difference| panic!("{difference}"));
        let cloud = Cloud::new(&self.compiled(), self.cluster.pods()).unwrap();
        let traffic = traffic(what);
        let pod = |text: &str| text.contains('/').then(|| &self.cluster.world.pods[&key(text)]);
        let (sender, receiver) = (pod(from), pod(to));
        let source = |other: IpAddr| match sender {
            Some(pod) => *pod.addresses.iter().find(|it| it.is_ipv4() == other.is_ipv4()).unwrap(),
            None => from.parse().unwrap(),
        };
        let target = match receiver {
            Some(pod) => *pod.addresses.iter().find(|it| it.is_ipv4() == source(**it).is_ipv4()).unwrap(),
            None => to.parse().unwrap(),
        };
        let sends = |to, traffic| sender.is_none_or(|pod| cloud.sends(pod, to, traffic));
        let takes =
            |at: IpAddr, from, traffic| self.cluster.pod_at(at).is_none_or(|pod| cloud.receives(pod, from, traffic));
        if let Traffic::To(protocol, number) = traffic {
            let (behind, hides) = self.cluster.behind(ListenerKey { vip: target, protocol, number });
            if !behind.is_empty() {
                return sends(target, traffic)
                    && behind.iter().all(|endpoint| {
                        let traffic = Traffic::To(protocol, endpoint.number);
                        let itself = sender.is_some_and(|pod| pod.addresses.contains(&endpoint.address));
                        let seen = if hides || itself { target } else { source(endpoint.address) };
                        (hides || sends(endpoint.address, traffic)) && takes(endpoint.address, seen, traffic)
                    });
            }
        }
        sender.is_some_and(|pod| pod.addresses.contains(&target))
            || (sends(target, traffic) && takes(target, source(target), traffic))
    }
}

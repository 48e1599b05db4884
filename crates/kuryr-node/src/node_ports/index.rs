//! What the daemon knows of Services: as little as node ports need.

use super::ruleset::Ruleset;
use k8s_openapi::api::{core::v1::Service as KubeService, discovery::v1::EndpointSlice};
use kuryr_model::ObjectKey;
use kuryr_plan::service::{Kind, Service, Slice, ThisNode, TrafficPolicy, node_ports, read};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{Notify, watch};

/// Services with node ports or external addresses, and this node's endpoints.
#[derive(Debug)]
pub struct Index {
    node: String,
    state: Mutex<State>,
    /// Told when rules may have to change.
    pub changed: Notify,
    /// The same for who answers health checks.
    told: watch::Sender<()>,
    /// Whether any Service wants endpoints of the node that its traffic comes to.
    local: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    /// In the order of their names: what two of them want, the first gets.
    services: BTreeMap<ObjectKey, Service>,
    /// By their own names: of which Service they are, with the endpoints on this node.
    slices: HashMap<ObjectKey, (ObjectKey, Slice)>,
    services_listed: bool,
    slices_listed: bool,
}

/// A Service as far as it is kept; `None` if it has nothing to be translated, and nobody asks for its health.
#[must_use]
pub fn kept_service(object: KubeService) -> Option<(ObjectKey, Service)> {
    let key = ObjectKey::of(&object);
    let mut service = match read::service(object) {
        Ok(service) => service,
        Err(error) => {
            tracing::warn!(service = %key, error, "skipped: the object cannot be read");
            return None;
        }
    };
    let wanted = service.ports.iter().any(|port| port.node_port.is_some())
        || !service.external_ips.is_empty()
        || service.health_check_port.is_some();
    if !wanted || service.cluster_ips.is_empty() || service.kind == Kind::ExternalName {
        return None;
    }
    // Nobody here looks at the rest.
    service.annotations = BTreeMap::new();
    service.source_ranges = Vec::new();
    service.load_balancer_ip = None;
    service.load_balancer_class = None;
    service.generation = 0;
    Some((key, service))
}

/// The Service that an `EndpointSlice` is of, and its endpoints on `node`; `None` if there are none.
#[must_use]
pub fn kept_slice(object: EndpointSlice, node: &str) -> Option<(ObjectKey, Slice)> {
    let (service, Slice { ports, endpoints }) = read::slice(object);
    let here = endpoints.iter().filter(|endpoint| endpoint.node.as_deref() == Some(node));
    // Copied: of a large vector that was made small, much would stay behind.
    let endpoints: Vec<_> = here.cloned().collect();
    (!endpoints.is_empty()).then_some((service?, Slice { ports, endpoints }))
}

impl Index {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(node: &str) -> Self {
        let (state, changed) = (Mutex::default(), Notify::new());
        let (told, local) = (watch::Sender::new(()), watch::Sender::new(false));
        Self { node: node.to_owned(), state, changed, told, local }
    }

    /// The node that this is.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends once a Service needs to know of endpoints.
    pub async fn slices_needed(&self) {
        // The sender is our own.
        let _ = self.local.subscribe().wait_for(|local| *local).await;
    }

    /// Takes in a Service as it is now; `None`: it is gone, or has nothing to be translated.
    pub fn put_service(&self, key: ObjectKey, service: Option<Service>) {
        let mut state = self.lock();
        let changed = match service {
            Some(service) => state.services.insert(key, service.clone()).as_ref() != Some(&service),
            None => state.services.remove(&key).is_some(),
        };
        self.tell(&state, changed);
    }

    /// Takes in all Services.
    pub fn replace_services(&self, services: BTreeMap<ObjectKey, Service>) {
        let mut state = self.lock();
        state.services_listed = true;
        state.services = services;
        self.tell(&state, true);
    }

    /// Takes in an `EndpointSlice` as it is now; `None`: it is gone, or has no endpoint on this node.
    pub fn put_slice(&self, key: ObjectKey, slice: Option<(ObjectKey, Slice)>) {
        let mut state = self.lock();
        let changed = match slice {
            Some(slice) => state.slices.insert(key, slice.clone()).as_ref() != Some(&slice),
            None => state.slices.remove(&key).is_some(),
        };
        self.tell(&state, changed);
    }

    /// Takes in all `EndpointSlice`s.
    pub fn replace_slices(&self, slices: HashMap<ObjectKey, (ObjectKey, Slice)>) {
        let mut state = self.lock();
        state.slices_listed = true;
        state.slices = slices;
        self.tell(&state, true);
    }

    fn tell(&self, state: &State, changed: bool) {
        if changed {
            let local = state.services.values().any(is_local);
            self.local.send_if_modified(|known| std::mem::replace(known, local) != local);
            self.changed.notify_one();
            self.told.send_replace(());
        }
    }

    /// Told of every change.
    pub fn told(&self) -> watch::Receiver<()> {
        self.told.subscribe()
    }

    /// What this node has to translate; `None` as long as not all is known that this depends on. `routed` tells which
    /// addresses answer through the node, if that is known.
    #[must_use]
    pub fn rules(&self, routed: impl FnOnce() -> Option<HashSet<IpAddr>>) -> Option<Ruleset> {
        let state = self.lock();
        if !state.services_listed {
            return None;
        }
        let mut slices: HashMap<&ObjectKey, Vec<Slice>> = HashMap::new();
        let mut returning = HashSet::new();
        if state.services.values().any(is_local) {
            if !state.slices_listed {
                return None;
            }
            returning = routed()?;
            for (service, slice) in state.slices.values() {
                slices.entry(service).or_default().push(slice.clone());
            }
        }
        let rules = state.services.iter().flat_map(|(key, service)| {
            let slices = slices.get(key).map_or(&[][..], Vec::as_slice);
            let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
            let answers_return = endpoints.into_iter().all(|endpoint| returning.contains(&endpoint.address));
            node_ports(service, slices, &ThisNode { name: self.node.clone(), answers_return })
        });
        Some(Ruleset::new(rules))
    }
}

/// What is asked at one port number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The Service.
    pub service: ObjectKey,
    /// How many ready endpoints of it this node has.
    pub endpoints: usize,
}

impl Index {
    /// At which port numbers of the node who asks for the health of which Service; `None` as long as not all is known that
    /// the answer depends on. Where two Services have one number, the first counts.
    #[must_use]
    pub fn health_checks(&self) -> Option<BTreeMap<u16, Check>> {
        let state = self.lock();
        let known = state.services_listed && (state.slices_listed || !state.services.values().any(is_local));
        known.then(|| {
            let mut checks = BTreeMap::new();
            for (key, service) in &state.services {
                let Some(number) = service.health_check_port else { continue };
                checks.entry(number).or_insert_with(|| Check { service: key.clone(), endpoints: state.ready(key) });
            }
            checks
        })
    }
}

impl State {
    /// How many ready endpoints of a Service this node has. A pod with addresses of both families is one.
    fn ready(&self, key: &ObjectKey) -> usize {
        let of = self.slices.values().filter(|(service, _)| service == key);
        let ready = of.flat_map(|(_, slice)| &slice.endpoints).filter(|endpoint| endpoint.ready);
        let addresses: HashSet<IpAddr> = ready.map(|endpoint| endpoint.address).collect();
        let v4 = addresses.iter().filter(|address| address.is_ipv4()).count();
        v4.max(addresses.len() - v4)
    }
}

fn is_local(service: &Service) -> bool {
    service.external_policy == TrafficPolicy::Local
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn service(spec: &Value) -> Option<(ObjectKey, Service)> {
        let metadata = json!({"namespace": "a", "name": "web", "uid": "s", "annotations": {"k": "v"}});
        kept_service(serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap())
    }

    fn local() -> Option<(ObjectKey, Service)> {
        let ports = json!([{"port": 80, "nodePort": 30080}]);
        service(&json!({"clusterIP": "10.96.0.9", "ports": ports, "externalTrafficPolicy": "Local"}))
    }

    fn slice(node: &str) -> Option<(ObjectKey, Slice)> {
        let value = json!({
            "metadata": {"namespace": "a", "name": "web-1", "labels": {read::SERVICE_NAME: "web"}},
            "addressType": "IPv4", "ports": [{"name": "", "port": 8080}],
            "endpoints": [{"addresses": ["10.0.0.1"], "nodeName": node}, {"addresses": ["10.0.0.2"]}],
        });
        kept_slice(serde_json::from_value(value).unwrap(), "here")
    }

    #[test]
    fn only_what_is_needed_is_kept() {
        let port = json!([{"port": 80}]);
        assert_eq!(service(&json!({"clusterIP": "10.96.0.9", "ports": port})), None, "no node port");
        assert_eq!(
            service(&json!({"clusterIP": "None", "ports": port, "externalIPs": ["192.0.2.1"]})),
            None,
            "headless"
        );
        let (_, kept) =
            service(&json!({"clusterIP": "10.96.0.9", "ports": port, "externalIPs": ["192.0.2.1"]})).unwrap();
        assert!(kept.annotations.is_empty());
        let asked = json!({
            "clusterIP": "10.96.0.9", "ports": port, "type": "LoadBalancer", "externalTrafficPolicy": "Local",
            "healthCheckNodePort": 30999, "allocateLoadBalancerNodePorts": false,
        });
        assert!(service(&asked).is_some(), "asked for its health without a node port");
        assert_eq!(slice("there"), None);
        assert_eq!(slice("here").unwrap().1.endpoints.len(), 1);
    }

    #[test]
    fn there_are_no_rules_before_all_is_known_that_they_depend_on() {
        let index = Index::new("here");
        let rules =
            |routed: Option<&[&str]>| index.rules(|| Some(routed?.iter().map(|ip| ip.parse().unwrap()).collect()));
        assert_eq!(rules(Some(&[])), None, "Services are not listed");
        index.replace_services(BTreeMap::new());
        assert_eq!(rules(None), Some(Ruleset::default()));
        let (key, kept) = local().unwrap();
        index.put_service(key, Some(kept));
        assert_eq!(rules(Some(&[])), None, "EndpointSlices are not listed");
        index.replace_slices([(ObjectKey::new("a", "web-1"), slice("here").unwrap())].into());
        assert_eq!(rules(None), None, "it is not known how pods answer");
        let masked = |routed: &[&str]| rules(Some(routed)).unwrap().masked.len();
        assert_eq!((masked(&["10.0.0.1"]), masked(&["10.0.0.9"])), (1, 2));
    }

    #[test]
    fn a_health_check_counts_the_ready_endpoints_of_this_node() {
        let index = Index::new("here");
        let ports = json!([{"port": 80, "nodePort": 30080}]);
        let spec = json!({
            "clusterIP": "10.96.0.9", "ports": ports, "type": "LoadBalancer", "externalTrafficPolicy": "Local",
            "healthCheckNodePort": 30999,
        });
        index.replace_services(service(&spec).into_iter().collect());
        assert_eq!(index.health_checks(), None, "EndpointSlices are not listed");
        index.replace_slices(HashMap::new());
        let counted = || index.health_checks().unwrap()[&30999].endpoints;
        assert_eq!(counted(), 0);
        index.put_slice(ObjectKey::new("a", "web-1"), slice("here"));
        assert_eq!(counted(), 1);
        let mut v6 = slice("here").unwrap();
        v6.1.endpoints[0].address = "fd00::1".parse().unwrap();
        index.put_slice(ObjectKey::new("a", "web-2"), Some(v6.clone()));
        assert_eq!(counted(), 1, "the same pod in both families");
        v6.1.endpoints[0].address = "10.0.0.7".parse().unwrap();
        v6.1.endpoints[0].ready = false;
        index.put_slice(ObjectKey::new("a", "web-2"), Some(v6));
        assert_eq!(counted(), 1, "one that is not ready");
    }

    #[test]
    fn only_changes_are_told_and_slices_are_asked_for_when_they_are_needed() {
        use futures::FutureExt;
        let index = Index::new("here");
        let told = || index.changed.notified().now_or_never().is_some();
        index.put_slice(ObjectKey::new("a", "web-1"), None);
        assert!(!told() && index.slices_needed().now_or_never().is_none());
        for (changed, service) in [(true, local()), (false, local())] {
            let (key, service) = service.unwrap();
            index.put_service(key, Some(service));
            assert_eq!(told(), changed);
        }
        assert!(index.slices_needed().now_or_never().is_some());
        index.put_service(ObjectKey::new("a", "web"), None);
        assert!(told());
    }
}

//! What the slices of a Service should be, and the fewest writes that make them so. Pure functions.
//!
//! The rules are those of Kubernetes (`k8s.io/endpointslice`): a pod counts as soon as it has an address and until it has
//! ended; slices hold pods with equal port numbers, a hundred each; a Service without pods has one empty slice.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        core::v1::{ContainerPort, ObjectReference, Pod, Service, ServicePort, ServiceSpec},
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::{apis::meta::v1::OwnerReference, util::intstr::IntOrString},
};
use kube::{ResourceExt as _, api::ObjectMeta};
use serde_json::json;

pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub(super) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub(super) const MANAGER: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";

/// Most endpoints in a slice.
const MOST: usize = 100;

/// A pod as far as Services look at it.
#[derive(Clone, Debug)]
pub(super) struct Backend {
    namespace: String,
    name: String,
    uid: String,
    labels: BTreeMap<String, String>,
    addresses: Vec<String>,
    node: Option<String>,
    hostname: Option<String>,
    subdomain: Option<String>,
    ports: Vec<ContainerPort>,
    ready: bool,
    terminating: bool,
    ended: bool,
}

impl Backend {
    pub(super) fn read(pod: Pod) -> Self {
        let status = pod.status.unwrap_or_default();
        let spec = pod.spec.unwrap_or_default();
        let conditions = status.conditions.iter().flatten();
        Self {
            namespace: pod.metadata.namespace.unwrap_or_default(),
            name: pod.metadata.name.unwrap_or_default(),
            uid: pod.metadata.uid.unwrap_or_default(),
            labels: pod.metadata.labels.unwrap_or_default(),
            ready: conditions.filter(|item| item.type_ == "Ready").any(|item| item.status == "True"),
            addresses: status.pod_ips.into_iter().flatten().map(|ip| ip.ip).collect(),
            node: spec.node_name,
            hostname: spec.hostname,
            subdomain: spec.subdomain,
            ports: spec.containers.into_iter().flat_map(|container| container.ports.unwrap_or_default()).collect(),
            terminating: pod.metadata.deletion_timestamp.is_some(),
            ended: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
        }
    }

    /// Whether the Service selects it.
    pub(super) fn is_behind(&self, service: &Service) -> bool {
        let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        selector.is_some_and(|selector| selector.iter().all(|(key, value)| self.labels.get(key) == Some(value)))
    }

    /// The port number behind a port of the Service, if the pod has one of that name.
    fn target(&self, port: &ServicePort) -> Option<i32> {
        let protocol = |protocol: &Option<String>| protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        match &port.target_port {
            None => Some(port.port),
            Some(IntOrString::Int(number)) => Some(*number),
            Some(IntOrString::String(name)) => self
                .ports
                .iter()
                .find(|own| own.name.as_ref() == Some(name) && protocol(&own.protocol) == protocol(&port.protocol))
                .map(|own| own.container_port),
        }
    }

    fn endpoint(&self, service: &Service, spec: &ServiceSpec, address: &str) -> Endpoint {
        let published = spec.publish_not_ready_addresses == Some(true);
        let named = self.subdomain.as_deref() == service.metadata.name.as_deref();
        Endpoint {
            addresses: vec![address.to_owned()],
            conditions: Some(EndpointConditions {
                ready: Some(published || self.ready && !self.terminating),
                serving: Some(self.ready),
                terminating: Some(self.terminating),
            }),
            hostname: self.hostname.clone().filter(|_| named),
            node_name: self.node.clone(),
            target_ref: Some(ObjectReference {
                kind: Some("Pod".to_owned()),
                namespace: Some(self.namespace.clone()),
                name: Some(self.name.clone()),
                uid: Some(self.uid.clone()),
                ..ObjectReference::default()
            }),
            ..Endpoint::default()
        }
    }
}

/// Pods of one family with equal port numbers.
#[derive(Debug)]
pub(super) struct Group {
    address_type: String,
    ports: Vec<EndpointPort>,
    endpoints: Vec<Endpoint>,
}

#[derive(Debug)]
pub(super) enum Write {
    Create(EndpointSlice),
    Replace(EndpointSlice),
    Delete(String),
}

/// Whether slices are kept for the Service: others are kept by hand.
pub(super) fn selects(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.is_some_and(|spec| {
        spec.type_.as_deref() != Some("ExternalName") && spec.selector.as_ref().is_some_and(|labels| !labels.is_empty())
    })
}

/// Whether the slice was made for this very Service.
pub(super) fn owned(slice: &EndpointSlice, service: &Service) -> bool {
    slice.owner_references().iter().any(|owner| Some(&owner.uid) == service.metadata.uid.as_ref())
}

/// What should be in the slices of a Service, given the pods that it selects.
pub(super) fn wanted<'a>(service: &Service, pods: impl Iterator<Item = &'a Backend>) -> Vec<Group> {
    let spec = service.spec.clone().unwrap_or_default();
    let families = spec.ip_families.clone().unwrap_or_else(|| vec!["IPv4".to_owned()]);
    let mut groups: BTreeMap<(String, String), Group> = BTreeMap::new();
    for pod in pods.filter(|pod| !pod.ended) {
        for family in &families {
            let fits = |address: &&String| address.contains(':') == (family == "IPv6");
            let Some(address) = pod.addresses.iter().find(fits) else { continue };
            let ports = spec.ports.iter().flatten().filter_map(|port| {
                Some(EndpointPort {
                    name: Some(port.name.clone().unwrap_or_default()),
                    port: Some(pod.target(port)?),
                    protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
                    app_protocol: port.app_protocol.clone(),
                })
            });
            let ports: Vec<EndpointPort> = ports.collect();
            let group = groups.entry((family.clone(), json!(ports).to_string()));
            let empty = || Group { address_type: family.clone(), ports, endpoints: Vec::new() };
            group.or_insert_with(empty).endpoints.push(pod.endpoint(service, &spec, address));
        }
    }
    for family in families {
        if !groups.keys().any(|(there, _)| *there == family) {
            let group = Group { address_type: family.clone(), ports: Vec::new(), endpoints: Vec::new() };
            groups.insert((family, String::new()), group);
        }
    }
    groups.into_values().collect()
}

fn identity(endpoint: &Endpoint) -> Option<&String> {
    endpoint.target_ref.as_ref().and_then(|target| target.uid.as_ref())
}

/// The writes that bring the slices that are there to what is wanted. Who is in a slice stays in it.
pub(super) fn place(service: &Service, wanted: Vec<Group>, found: Vec<EndpointSlice>) -> Vec<Write> {
    let (mut create, mut replace, mut spare) = (Vec::new(), Vec::new(), found);
    for group in wanted {
        let fits = |slice: &EndpointSlice| {
            slice.address_type == group.address_type && slice.ports.as_deref().unwrap_or_default() == group.ports
        };
        let (own, rest): (Vec<_>, Vec<_>) = spare.into_iter().partition(fits);
        spare = rest;
        let lone = group.endpoints.is_empty();
        let mut left = group.endpoints;
        let mut filled: Vec<(EndpointSlice, Vec<Endpoint>)> = Vec::new();
        for slice in own {
            let (mut stay, others): (Vec<_>, Vec<_>) = left
                .into_iter()
                .partition(|endpoint| slice.endpoints.iter().any(|there| identity(there) == identity(endpoint)));
            let place =
                |endpoint: &Endpoint| slice.endpoints.iter().position(|there| identity(there) == identity(endpoint));
            stay.sort_by_key(place);
            left = others;
            filled.push((slice, stay));
        }
        let mut left = left.into_iter().peekable();
        for (_, endpoints) in &mut filled {
            while endpoints.len() < MOST
                && let Some(next) = left.next()
            {
                endpoints.push(next);
            }
        }
        let mut kept = 0;
        for (slice, endpoints) in filled {
            if endpoints.is_empty() && !(lone && kept == 0) {
                spare.push(slice);
                continue;
            }
            kept += 1;
            if endpoints != slice.endpoints || labels(service) != *slice.labels() {
                replace.push(slice_with(slice, service, &group.address_type, &group.ports, endpoints));
            }
        }
        while left.peek().is_some() || lone && kept == 0 {
            kept += 1;
            let endpoints = left.by_ref().take(MOST).collect();
            create.push(slice_with(new_slice(service), service, &group.address_type, &group.ports, endpoints));
        }
    }
    // A slice that is of no use any more becomes one that is needed: nobody sees a moment without endpoints.
    for slice in &mut create {
        if let Some(at) = spare.iter().position(|old| old.address_type == slice.address_type) {
            slice.metadata = ObjectMeta { labels: slice.metadata.labels.take(), ..spare.swap_remove(at).metadata };
        }
    }
    let (again, create): (Vec<_>, Vec<_>) = create.into_iter().partition(|slice| slice.metadata.name.is_some());
    let deleted = spare.into_iter().map(|slice| Write::Delete(slice.name_any()));
    let written = replace.into_iter().chain(again).map(Write::Replace);
    create.into_iter().map(Write::Create).chain(written).chain(deleted).collect()
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.labels().clone();
    labels.insert(SERVICE_NAME.to_owned(), service.name_any());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    if service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None") {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels
}

fn new_slice(service: &Service) -> EndpointSlice {
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Service".to_owned(),
        name: service.name_any(),
        uid: service.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    };
    let metadata = ObjectMeta {
        namespace: service.metadata.namespace.clone(),
        generate_name: Some(format!("{}-", service.name_any())),
        owner_references: Some(vec![owner]),
        ..ObjectMeta::default()
    };
    EndpointSlice { metadata, ..EndpointSlice::default() }
}

fn slice_with(
    slice: EndpointSlice,
    service: &Service,
    address_type: &str,
    ports: &[EndpointPort],
    endpoints: Vec<Endpoint>,
) -> EndpointSlice {
    let metadata = ObjectMeta { labels: Some(labels(service)), ..slice.metadata };
    EndpointSlice { metadata, address_type: address_type.to_owned(), ports: Some(ports.to_vec()), endpoints }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(spec: &serde_json::Value) -> Service {
        let metadata = json!({ "name": "web", "namespace": "a", "uid": "service" });
        serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap()
    }

    fn pod(number: usize, ready: bool) -> Backend {
        let name = format!("web-{number}");
        let ready = if ready { "True" } else { "False" };
        let port = json!({ "name": "http", "containerPort": if number == 7 { 8007 } else { 8000 } });
        let pod = json!({
            "metadata": { "name": name, "namespace": "a", "uid": name, "labels": { "app": "web" } },
            "spec": { "containers": [{ "name": "c", "ports": [port] }], "nodeName": "n" },
            "status": { "podIPs": [{ "ip": format!("10.0.0.{number}") }, { "ip": format!("fd00::{number}") }],
                "conditions": [{ "type": "Ready", "status": ready }] },
        });
        Backend::read(serde_json::from_value(pod).unwrap())
    }

    fn web(families: &[&str]) -> Service {
        let port = json!({ "port": 80, "targetPort": "http" });
        service(&json!({ "selector": { "app": "web" }, "ipFamilies": families, "ports": [port] }))
    }

    /// Carries the writes out: the slices that are there afterwards.
    fn apply(mut slices: Vec<EndpointSlice>, writes: Vec<Write>) -> Vec<EndpointSlice> {
        for write in writes {
            match write {
                Write::Create(mut slice) => {
                    slice.metadata.name = Some(format!("s{}", slices.len()));
                    slices.push(slice);
                }
                Write::Replace(slice) => {
                    let at = slices.iter().position(|old| old.name_any() == slice.name_any()).unwrap();
                    slices[at] = slice;
                }
                Write::Delete(name) => slices.retain(|slice| slice.name_any() != name),
            }
        }
        slices
    }

    fn settle(service: &Service, pods: &[Backend], slices: Vec<EndpointSlice>) -> (Vec<EndpointSlice>, usize) {
        let writes = place(service, wanted(service, pods.iter()), slices.clone());
        let count = writes.len();
        let slices = apply(slices, writes);
        let again = place(service, wanted(service, pods.iter()), slices.clone());
        assert!(again.is_empty(), "not settled: {again:?}");
        (slices, count)
    }

    #[test]
    fn pods_are_grouped_by_family_and_port_number_and_a_hundred_fill_a_slice() {
        let service = web(&["IPv4", "IPv6"]);
        let pods: Vec<Backend> = (1..=151).map(|number| pod(number, true)).collect();
        let (slices, _) = settle(&service, &pods, Vec::new());
        let mut shape: Vec<_> = slices
            .iter()
            .map(|s| (s.address_type.clone(), s.ports.as_ref().unwrap()[0].port.unwrap(), s.endpoints.len()))
            .collect();
        shape.sort();
        let of = |family: &str| {
            [(family.to_owned(), 8000, 50), (family.to_owned(), 8000, 100), (family.to_owned(), 8007, 1)]
        };
        assert_eq!(shape, [of("IPv4"), of("IPv6")].concat());
    }

    #[test]
    fn scaling_writes_one_slice_and_none_left_leaves_an_empty_one() {
        let service = web(&["IPv4"]);
        let (slices, writes) = settle(&service, &[], Vec::new());
        assert_eq!((slices.len(), slices[0].endpoints.len(), writes), (1, 0, 1));
        let pods: Vec<Backend> = (1..=3).map(|number| pod(number, number != 2)).collect();
        let (slices, writes) = settle(&service, &pods, slices);
        let ready: Vec<_> = slices[0].endpoints.iter().map(|e| e.conditions.as_ref().unwrap().ready.unwrap()).collect();
        assert_eq!((slices.len(), ready, writes), (1, vec![true, false, true], 1));
        let (slices, writes) = settle(&service, &pods[2..], slices);
        assert_eq!((slices.len(), slices[0].endpoints.len(), writes), (1, 1, 1));
        let (slices, writes) = settle(&service, &[], slices);
        assert_eq!((slices.len(), slices[0].endpoints.len(), writes), (1, 0, 1));
    }

    #[test]
    fn a_terminating_pod_serves_but_is_not_ready_unless_all_are_published() {
        let mut going = pod(1, true);
        going.terminating = true;
        let conditions = |service: &Service| {
            let groups = wanted(service, [&going].into_iter());
            let conditions = groups[0].endpoints[0].conditions.clone().unwrap();
            (conditions.ready.unwrap(), conditions.serving.unwrap(), conditions.terminating.unwrap())
        };
        assert_eq!(conditions(&web(&["IPv4"])), (false, true, true));
        let published = json!({ "selector": { "app": "web" }, "ports": [], "publishNotReadyAddresses": true });
        assert_eq!(conditions(&service(&published)), (true, true, true));
    }
}

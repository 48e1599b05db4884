//! Objects of Kubernetes, from files or from the API server, and the world that they make.

use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet},
        batch::v1::{CronJob, Job},
        core::v1::{Namespace, Node, Pod as KubePod, PodTemplateSpec, ReplicationController, Service as KubeService},
        discovery::v1::EndpointSlice,
        networking::v1::NetworkPolicy,
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};
use kuryr_model::{KuryrLoadBalancer, KuryrPort, ObjectKey, PortId};
use kuryr_plan::{
    policy::{Endpoint, Guard, Labels, Pod, Policy, Protocol, Service, ServicePort, World, node_addresses, pod_of},
    service::{Provider, Slice, read},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// The label that every namespace has.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// What was gathered. Everything has a namespace, a name and a UID.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    pub(crate) pods: Vec<KubePod>,
    /// Pods that something would make: its name, and what they are made from.
    pub(crate) templates: Vec<(ObjectKey, PodTemplateSpec)>,
    pub(crate) namespaces: Vec<Namespace>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) policies: Vec<NetworkPolicy>,
    pub(crate) services: Vec<KubeService>,
    pub(crate) slices: Vec<EndpointSlice>,
    pub(crate) kuryr_ports: Vec<KuryrPort>,
    pub(crate) load_balancers: Vec<KuryrLoadBalancer>,
    /// This is all that a cluster has, so that what is not here does not exist.
    pub(crate) whole: bool,
}

/// A world to be asked, and what of it is told beside the answer.
#[derive(Debug, Default)]
pub(crate) struct Cluster {
    pub(crate) world: World,
    /// Names, protocols and numbers of the ports of each Service, of headless ones too.
    pub(crate) service_ports: BTreeMap<ObjectKey, Vec<(String, Protocol, u16)>>,
    /// Pods that share the ports of their nodes, which are virtual machines: no policy holds for them.
    pub(crate) sharing: BTreeSet<ObjectKey>,
    /// The Neutron ports of pods.
    pub(crate) ports: BTreeMap<ObjectKey, Vec<PortId>>,
    /// Addresses by which the outside knows a Service.
    pub(crate) external: BTreeMap<IpAddr, ObjectKey>,
    /// Addresses that stand for those that nobody has given yet: not to be shown.
    pub(crate) made_up: BTreeSet<IpAddr>,
    /// Pods of which more than one would be made.
    pub(crate) templates: BTreeSet<ObjectKey>,
    /// Policies that are not applied in Neutron, and why.
    pub(crate) unapplied: BTreeMap<ObjectKey, String>,
    /// What was assumed.
    pub(crate) notes: Vec<String>,
}

/// Reads an object of a kind that matters; false for all others.
///
/// # Errors
/// It is of such a kind and cannot be read.
pub(crate) fn take(value: serde_json::Value, into: &mut Objects) -> Result<bool, serde_json::Error> {
    let text = |field: &str| value.get(field).and_then(|text| text.as_str()).unwrap_or_default().to_owned();
    let (version, kind) = (text("apiVersion"), text("kind"));
    let group = version.split_once('/').map_or("", |(group, _)| group).to_owned();
    let mut template = |metadata: ObjectMeta, template: Option<PodTemplateSpec>| {
        into.templates.extend(template.map(|template| (key(&metadata), template)));
    };
    match (&*group, &*kind) {
        ("", "Pod") => into.pods.push(complete(serde_json::from_value(value)?)),
        ("", "Namespace") => into.namespaces.push(serde_json::from_value(value)?),
        ("", "Node") => into.nodes.push(serde_json::from_value(value)?),
        ("", "Service") => into.services.push(complete(serde_json::from_value(value)?)),
        ("networking.k8s.io", "NetworkPolicy") => into.policies.push(complete(serde_json::from_value(value)?)),
        ("discovery.k8s.io", "EndpointSlice") => into.slices.push(complete(serde_json::from_value(value)?)),
        ("kuryr.openstack.org", "KuryrPort") => into.kuryr_ports.push(serde_json::from_value(value)?),
        ("kuryr.openstack.org", "KuryrLoadBalancer") => into.load_balancers.push(serde_json::from_value(value)?),
        ("apps", "Deployment") => {
            let object: Deployment = serde_json::from_value(value)?;
            template(object.metadata, object.spec.map(|spec| spec.template));
        }
        ("apps", "StatefulSet") => {
            let object: StatefulSet = serde_json::from_value(value)?;
            template(object.metadata, object.spec.map(|spec| spec.template));
        }
        ("apps", "DaemonSet") => {
            let object: DaemonSet = serde_json::from_value(value)?;
            template(object.metadata, object.spec.map(|spec| spec.template));
        }
        // One that a Deployment made is that Deployment's.
        ("apps", "ReplicaSet") => {
            let object: ReplicaSet = serde_json::from_value(value)?;
            if object.metadata.owner_references.is_none() {
                template(object.metadata, object.spec.and_then(|spec| spec.template));
            }
        }
        ("", "ReplicationController") => {
            let object: ReplicationController = serde_json::from_value(value)?;
            template(object.metadata, object.spec.and_then(|spec| spec.template));
        }
        ("batch", "Job") => {
            let object: Job = serde_json::from_value(value)?;
            if object.metadata.owner_references.is_none() {
                template(object.metadata, object.spec.map(|spec| spec.template));
            }
        }
        ("batch", "CronJob") => {
            let object: CronJob = serde_json::from_value(value)?;
            template(object.metadata, object.spec.and_then(|spec| spec.job_template.spec).map(|spec| spec.template));
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn key(metadata: &ObjectMeta) -> ObjectKey {
    let namespace = metadata.namespace.clone().filter(|namespace| !namespace.is_empty());
    ObjectKey::new(namespace.unwrap_or_else(|| "default".to_owned()), metadata.name.clone().unwrap_or_default())
}

/// Fills in what the API server would: the namespace, and a UID that nothing else has.
fn complete<K: kube::Resource>(mut object: K) -> K {
    let metadata = object.meta_mut();
    let key = key(metadata);
    metadata.uid.get_or_insert_with(|| key.to_string());
    (metadata.namespace, metadata.name) = (Some(key.namespace), Some(key.name));
    object
}

impl Objects {
    /// The world that these objects make.
    pub(crate) fn cluster(&self) -> Cluster {
        let mut cluster = Cluster::default();
        for object in &self.nodes {
            let name = object.metadata.name.clone().unwrap_or_default();
            cluster.world.nodes.insert(name, node_addresses(object));
        }
        for pod in self.pods.iter().filter_map(pod_of) {
            cluster.world.pods.insert(pod.key.clone(), pod);
        }
        self.add_ports(&mut cluster);
        self.add_templates(&mut cluster);
        for policy in self.policies.iter().filter_map(|object| Policy::read(object).ok()) {
            cluster.world.policies.insert(policy.key.clone(), policy);
        }
        self.add_namespaces(&mut cluster);
        self.add_services(&mut cluster);
        cluster
    }

    /// A pod's port has addresses before the pod says that it has.
    fn add_ports(&self, cluster: &mut Cluster) {
        for port in &self.kuryr_ports {
            let key = key(&port.metadata);
            let Some(pod) = cluster.world.pods.get_mut(&key) else { continue };
            if pod.uid == port.spec.pod_uid && pod.counts() {
                let addresses = port.spec.vifs.iter().flat_map(|vif| &vif.addresses).map(|address| address.ip);
                pod.addresses.extend(addresses);
                if port.shares_port() {
                    cluster.sharing.insert(key.clone());
                }
                cluster.ports.insert(key, port.spec.vifs.iter().map(|vif| vif.port_id).collect());
            }
        }
    }

    /// One pod for each template, unless its pods are here themselves.
    fn add_templates(&self, cluster: &mut Cluster) {
        for (key, template) in &self.templates {
            let labels = template.metadata.as_ref().and_then(|metadata| metadata.labels.clone()).unwrap_or_default();
            let of_it = |pod: &Pod| {
                let same = |(name, value): (&String, &String)| pod.labels.get(name) == Some(value);
                pod.key.namespace == key.namespace && !labels.is_empty() && labels.iter().all(same)
            };
            if cluster.world.pods.contains_key(key) || cluster.world.pods.values().any(of_it) {
                continue;
            }
            let metadata = ObjectMeta {
                namespace: Some(key.namespace.clone()),
                name: Some(key.name.clone()),
                uid: Some(key.to_string()),
                labels: Some(labels),
                ..ObjectMeta::default()
            };
            let pod = pod_of(&KubePod { metadata, spec: template.spec.clone(), status: None });
            cluster.templates.insert(key.clone());
            cluster.world.pods.extend(pod.map(|pod| (key.clone(), pod)));
        }
    }

    /// Those that nobody describes have no label but their name.
    fn add_namespaces(&self, cluster: &mut Cluster) {
        let name = |name: &str| (NAMESPACE_NAME.to_owned(), name.to_owned());
        for object in &self.namespaces {
            let own = object.metadata.name.clone().unwrap_or_default();
            let mut labels: Labels = object.metadata.labels.clone().unwrap_or_default();
            labels.extend([name(&own)]);
            cluster.world.namespaces.insert(own, labels);
        }
        let world = &mut cluster.world;
        let named: BTreeSet<String> =
            world.pods.keys().chain(world.policies.keys()).map(|key| key.namespace.clone()).collect();
        for own in named {
            if !self.whole && !world.namespaces.contains_key(&own) {
                cluster
                    .notes
                    .push(format!("namespace {own} is not described: taken as one whose only label is its name"));
                world.namespaces.insert(own.clone(), [name(&own)].into());
            }
        }
    }

    fn add_services(&self, cluster: &mut Cluster) {
        let mut slices: BTreeMap<ObjectKey, Vec<Slice>> = BTreeMap::new();
        for (service, slice) in self.slices.iter().cloned().map(read::slice) {
            slices.entry(service.unwrap_or_else(|| ObjectKey::new("", ""))).or_default().push(slice);
        }
        let mut families = BTreeSet::new();
        let pods = cluster.world.pods.values().flat_map(|pod| &pod.addresses);
        families.extend(pods.map(IpAddr::is_ipv6));
        for object in &self.services {
            let Ok(service) = read::service(object.clone()) else { continue };
            let ports = service.ports.iter().map(|port| (port.name.clone(), port.transport.into(), port.number));
            cluster.service_ports.insert(service.key.clone(), ports.collect());
            let held = self.load_balancers.iter().find(|held| held.key() == service.key);
            let status = held.and_then(|held| held.status.as_ref());
            // Only OVN's lets pods see who sends. In a cluster it is known; files need not have it.
            let hides_client = match status {
                Some(status) => status.provider != "ovn",
                None => self.whole,
            };
            let external = status.iter().flat_map(|status| &status.external).chain(&service.external_ips);
            cluster.external.extend(external.map(|address| (*address, service.key.clone())));
            let behind = slices.remove(&service.key).unwrap_or_default();
            let spec = object.spec.clone().unwrap_or_default();
            let headless = spec.cluster_ip.as_deref() == Some("None") || spec.type_.as_deref() == Some("ExternalName");
            if headless {
                continue;
            }
            // The listeners of Octavia's own machines let in whom the pods would.
            let guarded = status.is_some_and(|status| Provider::named(&status.provider) == Provider::Amphora);
            let mut read = Service::of(&service, &behind, hides_client);
            if let Some(read) = &mut read {
                read.guard = guarded.then(Guard::default);
            }
            if !self.whole && self.slices.is_empty() {
                let mut imagined = read.unwrap_or_else(|| without_endpoints(&service));
                imagine(&mut imagined, object, &families, cluster);
                read = Some(imagined).filter(|service| !service.vips.is_empty());
            }
            let Some(read) = read else { continue };
            cluster.world.services.insert(read.key.clone(), read);
        }
    }
}

/// A Service that nobody has given an address or endpoints yet.
fn without_endpoints(service: &kuryr_plan::service::Service) -> Service {
    let ports = service.ports.iter().map(|port| ServicePort {
        protocol: port.transport.into(),
        number: port.number,
        endpoints: BTreeSet::new(),
    });
    Service {
        key: service.key.clone(),
        vips: BTreeSet::new(),
        ports: ports.collect(),
        hides_client: false,
        guard: None,
    }
}

/// A Service of files that have no endpoints gets those that Kubernetes would make for it, and addresses for what has
/// none yet: such as no policy can mean by a block, unless it means everything.
fn imagine(service: &mut Service, object: &KubeService, families: &BTreeSet<bool>, cluster: &mut Cluster) {
    let spec = object.spec.clone().unwrap_or_default();
    let Some(selector) = spec.selector.filter(|selector| !selector.is_empty()) else { return };
    let written = spec.ip_families.iter().flatten().map(|family| family == "IPv6");
    let known = service.vips.iter().map(IpAddr::is_ipv6);
    let mut wanted: BTreeSet<bool> = written.chain(known).collect();
    if wanted.is_empty() {
        wanted.clone_from(families);
    }
    if wanted.is_empty() {
        wanted.insert(false);
    }
    if service.vips.is_empty() {
        let vips = wanted.iter().map(|ipv6| placeholder(*ipv6, &mut cluster.made_up));
        service.vips = vips.collect();
    }
    let selected = |pod: &&mut Pod| {
        let same = |(name, value): (&String, &String)| pod.labels.get(name) == Some(value);
        pod.key.namespace == service.key.namespace && !pod.completed && selector.iter().all(same)
    };
    let mut served: Vec<&mut Pod> = cluster.world.pods.values_mut().filter(selected).collect();
    for pod in served.iter_mut().filter(|pod| pod.addresses.is_empty()) {
        pod.addresses.extend(wanted.iter().map(|ipv6| placeholder(*ipv6, &mut cluster.made_up)));
    }
    for (port, written) in service.ports.iter_mut().zip(spec.ports.iter().flatten()) {
        for pod in &served {
            let number = target(port, written.target_port.as_ref(), pod);
            let endpoint = |number| move |address: &IpAddr| Endpoint { address: *address, number };
            port.endpoints.extend(number.iter().flat_map(|number| pod.addresses.iter().map(endpoint(*number))));
        }
    }
    cluster.notes.push(format!(
        "Service {} is answered by the pods that its selector means: there are no EndpointSlices here",
        service.key
    ));
}

/// The number that a port of a Service has at a pod.
fn target(port: &ServicePort, target: Option<&IntOrString>, pod: &Pod) -> Option<u16> {
    match target {
        None | Some(IntOrString::Int(0)) => Some(port.number),
        Some(IntOrString::Int(number)) => (*number).try_into().ok(),
        Some(IntOrString::String(name)) => pod.port(port.protocol, name),
    }
}

/// An address of blocks that nobody's addresses are from: "this network" (RFC 791) and "discard only" (RFC 6666).
fn placeholder(ipv6: bool, made_up: &mut BTreeSet<IpAddr>) -> IpAddr {
    let next = u32::try_from(made_up.len()).unwrap_or(u32::MAX).saturating_add(1);
    let address = if ipv6 {
        IpAddr::V6(Ipv6Addr::from_bits((0x0100_u128 << 112) + u128::from(next)))
    } else {
        IpAddr::V4(Ipv4Addr::from_bits(next.min(0x00ff_ffff)))
    };
    made_up.insert(address);
    address
}

//! Services and what is behind them, read as far as they matter.

use crate::lean::Lean;
use k8s_openapi::api::{
    core::v1::{
        LoadBalancerIngress, Node, Service as KubeService, ServicePort as KubePort, ServiceSpec, ServiceStatus,
    },
    discovery::v1::{Endpoint as KubeEndpoint, EndpointPort, EndpointSlice},
};
use kube::ResourceExt;
use kuryr_model::{KuryrLoadBalancer, KuryrLoadBalancerSpec, KuryrLoadBalancerStatus, ObjectKey, ServiceUid};
use kuryr_plan::service::{Endpoint, Ingress, Kind, Service, ServicePort, Slice, SlicePort, TrafficPolicy, Transport};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;
use std::net::IpAddr;

/// The label of an `EndpointSlice` that names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// For how long a client stays with its endpoint unless the Service says, in seconds.
const AFFINITY_TIMEOUT: u32 = 10_800;

/// A `KuryrLoadBalancer` of which spec and status may be anything: somebody may have written them by hand.
pub(crate) type LeanLoadBalancer = Lean<KuryrLoadBalancer, Value, Value>;

/// A node of which only the addresses are read.
pub(crate) type LeanNode = Lean<Node, IgnoredAny, NodeAddresses>;

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct NodeAddresses {
    #[serde(default)]
    addresses: Vec<NodeAddress>,
}

#[derive(Clone, Debug, Deserialize)]
struct NodeAddress {
    #[serde(rename = "type")]
    kind: String,
    address: String,
}

/// A Service, and where it says that it is reached from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) service: Service,
    pub(crate) ingress: Vec<Ingress>,
}

/// An `EndpointSlice` and the Service that it is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SeenSlice {
    pub(crate) service: Option<ObjectKey>,
    pub(crate) slice: Slice,
}

/// Name and addresses of a node.
pub(crate) fn node(node: LeanNode) -> Result<(String, Vec<IpAddr>), String> {
    let name = node.name_any();
    let addresses = node.into_status().map(|status| status.addresses).unwrap_or_default();
    let ips = addresses.iter().filter(|address| matches!(address.kind.as_str(), "InternalIP" | "ExternalIP"));
    Ok((name, ips.filter_map(|address| address.address.parse().ok()).collect()))
}

/// What matters of a Service.
///
/// # Errors
/// It has no UID, or a port number that is none: no API server sends that.
pub(crate) fn service(object: KubeService) -> Result<Seen, String> {
    let key = ObjectKey::new(object.namespace().unwrap_or_default(), object.name_any());
    let spec = object.spec.unwrap_or_default();
    let generation = object.metadata.generation.unwrap_or(0);
    let service = Service {
        key,
        uid: ServiceUid(object.metadata.uid.ok_or("it has no UID")?),
        kind: match spec.type_.as_deref() {
            Some("NodePort") => Kind::NodePort,
            Some("LoadBalancer") => Kind::LoadBalancer,
            Some("ExternalName") => Kind::ExternalName,
            _ => Kind::ClusterIp,
        },
        cluster_ips: cluster_ips(&spec),
        ports: spec.ports.iter().flatten().map(port).collect::<Result<_, _>>()?,
        external_ips: addresses(spec.external_ips.iter().flatten()),
        session_affinity: affinity(&spec),
        load_balancer_ip: spec.load_balancer_ip.filter(|ip| !ip.is_empty()),
        load_balancer_class: spec.load_balancer_class,
        source_ranges: spec.load_balancer_source_ranges.unwrap_or_default(),
        external_policy: policy(spec.external_traffic_policy.as_deref()),
        internal_policy: policy(spec.internal_traffic_policy.as_deref()),
        publish_not_ready: spec.publish_not_ready_addresses.unwrap_or(false),
        annotations: object.metadata.annotations.unwrap_or_default(),
        deleting: object.metadata.deletion_timestamp.is_some(),
        generation,
    };
    Ok(Seen { service, ingress: ingress(object.status.unwrap_or_default()) })
}

fn addresses<'a>(texts: impl Iterator<Item = &'a String>) -> Vec<IpAddr> {
    texts.filter_map(|text| text.parse().ok()).collect()
}

/// Only addresses: a headless Service has `None` there.
fn cluster_ips(spec: &ServiceSpec) -> Vec<IpAddr> {
    let all = addresses(spec.cluster_ips.iter().flatten());
    if all.is_empty() { addresses(spec.cluster_ip.iter()) } else { all }
}

fn affinity(spec: &ServiceSpec) -> Option<u32> {
    let by_address = spec.session_affinity.as_deref() == Some("ClientIP");
    let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let seconds = config.and_then(|config| config.timeout_seconds).and_then(|seconds| seconds.try_into().ok());
    by_address.then(|| seconds.unwrap_or(AFFINITY_TIMEOUT))
}

fn policy(text: Option<&str>) -> TrafficPolicy {
    if text == Some("Local") { TrafficPolicy::Local } else { TrafficPolicy::Cluster }
}

fn transport(text: Option<&str>) -> Transport {
    match text {
        Some("UDP") => Transport::Udp,
        Some("SCTP") => Transport::Sctp,
        _ => Transport::Tcp,
    }
}

fn number(number: i32) -> Result<u16, String> {
    number.try_into().map_err(|_| format!("{number} is no port number"))
}

fn port(port: &KubePort) -> Result<ServicePort, String> {
    Ok(ServicePort {
        name: port.name.clone().unwrap_or_default(),
        transport: transport(port.protocol.as_deref()),
        number: number(port.port)?,
        node_port: port.node_port.filter(|number| *number != 0).map(number).transpose()?,
    })
}

fn ingress(status: ServiceStatus) -> Vec<Ingress> {
    let entries = status.load_balancer.and_then(|status| status.ingress).unwrap_or_default();
    let entry = |entry: LoadBalancerIngress| {
        let ports = entry.ports.unwrap_or_default().into_iter();
        Ingress {
            ip: entry.ip.and_then(|ip| ip.parse().ok()),
            hostname: entry.hostname.filter(|name| !name.is_empty()),
            ports: ports.filter_map(|port| Some((transport(Some(&port.protocol)), number(port.port).ok()?))).collect(),
        }
    };
    entries.into_iter().map(entry).collect()
}

/// What matters of an `EndpointSlice`. One of names, which nobody can be sent to, has no endpoints here.
///
/// # Errors
/// Never: what cannot be read of it is left out.
pub(crate) fn slice(object: EndpointSlice) -> Result<SeenSlice, String> {
    let namespace = object.namespace().unwrap_or_default();
    let service = object.labels().get(SERVICE_NAME).filter(|name| !name.is_empty());
    let service = service.map(|name| ObjectKey::new(namespace, name.clone()));
    let ports = object.ports.unwrap_or_default().into_iter().filter_map(slice_port).collect();
    let endpoints = object.endpoints.into_iter().filter_map(endpoint).collect();
    Ok(SeenSlice { service, slice: Slice { ports, endpoints } })
}

fn slice_port(port: EndpointPort) -> Option<SlicePort> {
    Some(SlicePort {
        name: port.name.unwrap_or_default(),
        transport: transport(port.protocol.as_deref()),
        number: number(port.port?).ok()?,
    })
}

fn endpoint(endpoint: KubeEndpoint) -> Option<Endpoint> {
    let conditions = endpoint.conditions.unwrap_or_default();
    let ready = conditions.ready.unwrap_or(true);
    let pod = endpoint.target_ref.filter(|target| target.kind.as_deref() == Some("Pod"));
    Some(Endpoint {
        address: endpoint.addresses.first()?.parse().ok()?,
        ready,
        serving: conditions.serving.unwrap_or(ready),
        terminating: conditions.terminating.unwrap_or(false),
        node: endpoint.node_name,
        pod: pod.and_then(|pod| pod.name),
    })
}

impl LeanLoadBalancer {
    /// The object, with as much of its metadata as was read.
    ///
    /// # Errors
    /// Its spec or its status is not what the definition says.
    pub(crate) fn read(self) -> Result<KuryrLoadBalancer, String> {
        let (metadata, spec, status) = self.into_parts();
        let spec: KuryrLoadBalancerSpec =
            serde_json::from_value(spec.unwrap_or_default()).map_err(|error| format!("spec: {error}"))?;
        let status: Option<KuryrLoadBalancerStatus> =
            status.map(serde_json::from_value).transpose().map_err(|error| format!("status: {error}"))?;
        Ok(KuryrLoadBalancer { metadata, spec, status })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    /// The Service `a/web` of this spec.
    pub(crate) fn seen(spec: &Value) -> Seen {
        let metadata = json!({"namespace": "a", "name": "web", "uid": "s"});
        service(serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()).unwrap()
    }

    /// A slice `a/<name>` of `a/web` with these addresses, all ready.
    pub(crate) fn seen_slice(addresses: &[&str]) -> SeenSlice {
        let endpoints: Vec<Value> = addresses.iter().map(|ip| json!({"addresses": [ip]})).collect();
        let value = json!({
            "metadata": {"namespace": "a", "name": "web-1", "labels": {SERVICE_NAME: "web"}},
            "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        });
        slice(serde_json::from_value(value).unwrap()).unwrap()
    }

    #[test]
    fn a_service_is_read_as_far_as_it_matters() {
        let seen = service(
            serde_json::from_value(json!({
                "metadata": {"namespace": "a", "name": "web", "uid": "s", "annotations": {"k": "v"}},
                "spec": {
                    "type": "LoadBalancer", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9", "fd00::9"],
                    "ports": [{"name": "dns", "port": 53, "protocol": "UDP", "nodePort": 30053, "targetPort": "dns"}],
                    "sessionAffinity": "ClientIP", "externalTrafficPolicy": "Local", "loadBalancerIP": "",
                },
                "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.9", "ports": [{"port": 53, "protocol": "UDP"}]}]}},
            }))
            .unwrap(),
        )
        .unwrap();
        let port = ServicePort { name: "dns".into(), transport: Transport::Udp, number: 53, node_port: Some(30053) };
        assert_eq!((seen.service.kind, &seen.service.ports), (Kind::LoadBalancer, &vec![port]));
        assert_eq!(seen.service.cluster_ips.len(), 2);
        assert_eq!((seen.service.session_affinity, seen.service.load_balancer_ip), (Some(10_800), None));
        assert_eq!(seen.service.external_policy, TrafficPolicy::Local);
        let ports = vec![(Transport::Udp, 53)];
        assert_eq!(seen.ingress, [Ingress { ip: "203.0.113.9".parse().ok(), hostname: None, ports }]);
    }

    #[test]
    fn a_headless_service_and_a_name_have_no_cluster_ips() {
        for spec in [
            json!({"clusterIP": "None", "clusterIPs": ["None"]}),
            json!({"type": "ExternalName", "externalName": "example.org"}),
        ] {
            assert_eq!(seen(&spec).service.cluster_ips, [] as [IpAddr; 0], "{spec}");
        }
    }

    #[test]
    fn unknown_conditions_of_an_endpoint_have_kubernetes_meaning() {
        let read = |conditions: Value| {
            let value = json!({"addresses": ["10.0.0.1"], "conditions": conditions});
            let read = endpoint(serde_json::from_value(value).unwrap()).unwrap();
            (read.ready, read.serving, read.terminating)
        };
        assert_eq!(read(json!({})), (true, true, false));
        assert_eq!(read(json!({"ready": false})), (false, false, false));
        assert_eq!(read(json!({"ready": false, "serving": true, "terminating": true})), (false, true, true));
    }

    #[test]
    fn a_slice_of_names_has_no_endpoints() {
        let value = json!({
            "metadata": {"namespace": "a", "name": "x", "labels": {SERVICE_NAME: "web"}},
            "addressType": "FQDN", "endpoints": [{"addresses": ["example.org"]}], "ports": [{"name": "", "port": null}],
        });
        let seen = slice(serde_json::from_value(value).unwrap()).unwrap();
        assert_eq!(seen, SeenSlice { service: Some(ObjectKey::new("a", "web")), slice: Slice::default() });
    }

    #[test]
    fn a_node_has_the_addresses_that_reach_it() {
        let value = json!({"metadata": {"name": "n"}, "spec": {"podCIDR": "x"}, "status": {"addresses": [
            {"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "192.0.2.7"}]}});
        let read = node(serde_json::from_value(value).unwrap());
        assert_eq!(read, Ok(("n".to_owned(), vec!["192.0.2.7".parse().unwrap()])));
    }
}

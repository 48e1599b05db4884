//! Services and `EndpointSlices` as the API server sends them, read as far as they matter.

use super::{Endpoint, Ingress, Kind, Service, ServicePort, Slice, SlicePort, TrafficPolicy, Transport};
use k8s_openapi::api::{
    core::v1::{LoadBalancerIngress, Service as KubeService, ServicePort as KubePort, ServiceSpec, ServiceStatus},
    discovery::v1::{Endpoint as KubeEndpoint, EndpointPort, EndpointSlice},
};
use kuryr_model::{ObjectKey, ServiceUid};
use std::net::IpAddr;

/// The label of an `EndpointSlice` that names its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// For how long a client stays with its endpoint unless the Service says, in seconds.
const AFFINITY_TIMEOUT: u32 = 10_800;

/// What matters of a Service.
///
/// # Errors
/// It has no UID, or a port number that is none: no API server sends that.
pub fn service(object: KubeService) -> Result<Service, String> {
    let metadata = object.metadata;
    let key = ObjectKey::new(metadata.namespace.unwrap_or_default(), metadata.name.unwrap_or_default());
    let spec = object.spec.unwrap_or_default();
    let generation = metadata.generation.unwrap_or(0);
    let kind = match spec.type_.as_deref() {
        Some("NodePort") => Kind::NodePort,
        Some("LoadBalancer") => Kind::LoadBalancer,
        Some("ExternalName") => Kind::ExternalName,
        _ => Kind::ClusterIp,
    };
    let external_policy = policy(spec.external_traffic_policy.as_deref());
    let checked = kind == Kind::LoadBalancer && external_policy == TrafficPolicy::Local;
    let health_check_port = spec.health_check_node_port.filter(|number| checked && *number != 0);
    Ok(Service {
        key,
        uid: ServiceUid(metadata.uid.ok_or("it has no UID")?),
        kind,
        cluster_ips: cluster_ips(&spec),
        ports: spec.ports.iter().flatten().map(port).collect::<Result<_, _>>()?,
        external_ips: addresses(spec.external_ips.iter().flatten()),
        session_affinity: affinity(&spec),
        load_balancer_ip: spec.load_balancer_ip.filter(|ip| !ip.is_empty()),
        load_balancer_class: spec.load_balancer_class,
        source_ranges: spec.load_balancer_source_ranges.unwrap_or_default(),
        external_policy,
        internal_policy: policy(spec.internal_traffic_policy.as_deref()),
        publish_not_ready: spec.publish_not_ready_addresses.unwrap_or(false),
        selector: spec.selector.is_some_and(|labels| !labels.is_empty()),
        health_check_port: health_check_port.map(number).transpose()?,
        annotations: metadata.annotations.unwrap_or_default(),
        deleting: metadata.deletion_timestamp.is_some(),
        generation,
    })
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

/// Where a Service says that it is reached from outside.
#[must_use]
pub fn ingress(status: ServiceStatus) -> Vec<Ingress> {
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

/// The Service that an `EndpointSlice` is of, and what matters of it. One of names, which nobody can be sent to, has no
/// endpoints here; what cannot be read is left out.
#[must_use]
pub fn slice(object: EndpointSlice) -> (Option<ObjectKey>, Slice) {
    let metadata = object.metadata;
    let service = metadata.labels.unwrap_or_default().remove(SERVICE_NAME).filter(|name| !name.is_empty());
    let service = service.map(|name| ObjectKey::new(metadata.namespace.unwrap_or_default(), name));
    // Extended, not collected: what is collected from a vector stays in its memory, and that is several times as large.
    let mut slice = Slice { ports: Vec::new(), endpoints: Vec::with_capacity(object.endpoints.len()) };
    slice.ports.extend(object.ports.unwrap_or_default().into_iter().filter_map(slice_port));
    slice.endpoints.extend(object.endpoints.into_iter().filter_map(endpoint));
    (service, slice)
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(object: &Value) -> Service {
        service(serde_json::from_value(object.clone()).unwrap()).unwrap()
    }

    #[test]
    fn a_service_is_read_as_far_as_it_matters() {
        let read = read(&json!({
            "metadata": {"namespace": "a", "name": "web", "uid": "s", "annotations": {"k": "v"}},
            "spec": {
                "type": "LoadBalancer", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9", "fd00::9"],
                "ports": [{"name": "dns", "port": 53, "protocol": "UDP", "nodePort": 30053, "targetPort": "dns"}],
                "sessionAffinity": "ClientIP", "externalTrafficPolicy": "Local", "loadBalancerIP": "",
            },
        }));
        let port = ServicePort { name: "dns".into(), transport: Transport::Udp, number: 53, node_port: Some(30053) };
        assert_eq!((read.key, read.kind, &read.ports), (ObjectKey::new("a", "web"), Kind::LoadBalancer, &vec![port]));
        assert_eq!((read.cluster_ips.len(), read.annotations.len()), (2, 1));
        assert_eq!((read.session_affinity, read.load_balancer_ip), (Some(10_800), None));
        assert_eq!(read.external_policy, TrafficPolicy::Local);
        assert!(!read.selector);
    }

    #[test]
    fn a_health_check_has_a_port_only_where_endpoints_of_the_node_count() {
        let port = |kind: &str, policy: &str| {
            let spec = json!({
                "type": kind, "externalTrafficPolicy": policy, "healthCheckNodePort": 30999, "selector": {"app": "web"},
            });
            let read = read(&json!({"metadata": {"namespace": "a", "name": "web", "uid": "s"}, "spec": spec}));
            assert!(read.selector);
            read.health_check_port
        };
        assert_eq!(port("LoadBalancer", "Local"), Some(30999));
        assert_eq!((port("LoadBalancer", "Cluster"), port("NodePort", "Local")), (None, None));
    }

    #[test]
    fn a_service_says_where_it_is_reached() {
        let ports = json!([{"port": 53, "protocol": "UDP"}]);
        let status = json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.9", "ports": ports}, {"hostname": "lb"}]}});
        let read = ingress(serde_json::from_value(status).unwrap());
        let address = Ingress { ip: "203.0.113.9".parse().ok(), hostname: None, ports: vec![(Transport::Udp, 53)] };
        assert_eq!(read, [address, Ingress { ip: None, hostname: Some("lb".into()), ports: Vec::new() }]);
    }

    #[test]
    fn a_headless_service_and_a_name_have_no_cluster_ips() {
        for spec in [
            json!({"clusterIP": "None", "clusterIPs": ["None"]}),
            json!({"type": "ExternalName", "externalName": "example.org"}),
        ] {
            let read = read(&json!({"metadata": {"namespace": "a", "name": "web", "uid": "s"}, "spec": spec}));
            assert_eq!(read.cluster_ips, [] as [IpAddr; 0], "{spec}");
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
        let read = slice(serde_json::from_value(value).unwrap());
        assert_eq!(read, (Some(ObjectKey::new("a", "web")), Slice::default()));
    }
}

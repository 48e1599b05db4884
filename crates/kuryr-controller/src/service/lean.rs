//! Services and what is behind them, read as far as they matter.

use crate::lean::{Lean, NodeAddress};
use k8s_openapi::api::{
    core::v1::{Node, Service as KubeService},
    discovery::v1::EndpointSlice,
};
use kube::ResourceExt;
use kuryr_model::{KuryrLoadBalancer, KuryrLoadBalancerSpec, KuryrLoadBalancerStatus, ObjectKey};
use kuryr_plan::service::{Ingress, Service, Slice, read};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;
use std::net::IpAddr;

/// A `KuryrLoadBalancer` of which spec and status may be anything: somebody may have written them by hand.
pub(crate) type LeanLoadBalancer = Lean<KuryrLoadBalancer, Value, Value>;

/// A node of which only the addresses are read.
pub(crate) type LeanNode = Lean<Node, IgnoredAny, NodeAddresses>;

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct NodeAddresses {
    #[serde(default)]
    addresses: Vec<NodeAddress>,
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
    Ok((name, addresses.iter().filter_map(NodeAddress::own).collect()))
}

/// What matters of a Service.
///
/// # Errors
/// As of [`read::service`].
pub(crate) fn service(mut object: KubeService) -> Result<Seen, String> {
    let ingress = read::ingress(object.status.take().unwrap_or_default());
    Ok(Seen { service: read::service(object)?, ingress })
}

/// What matters of an `EndpointSlice`.
///
/// # Errors
/// Never: what cannot be read of it is left out.
pub(crate) fn slice(object: EndpointSlice) -> Result<SeenSlice, String> {
    let (service, slice) = read::slice(object);
    Ok(SeenSlice { service, slice })
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
            "metadata": {"namespace": "a", "name": "web-1", "labels": {read::SERVICE_NAME: "web"}},
            "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        });
        slice(serde_json::from_value(value).unwrap()).unwrap()
    }

    #[test]
    fn a_service_comes_with_where_it_says_that_it_is_reached() {
        let seen = service(
            serde_json::from_value(json!({
                "metadata": {"namespace": "a", "name": "web", "uid": "s"},
                "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.9"},
                "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.9"}]}},
            }))
            .unwrap(),
        )
        .unwrap();
        assert_eq!(seen.service.key, ObjectKey::new("a", "web"));
        let ip = "203.0.113.9".parse().ok();
        assert_eq!(seen.ingress, [Ingress { ip, hostname: None, ports: Vec::new() }]);
    }

    #[test]
    fn a_node_has_the_addresses_that_reach_it() {
        let value = json!({"metadata": {"name": "n"}, "spec": {"podCIDR": "x"}, "status": {"addresses": [
            {"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "192.0.2.7"}]}});
        let read = node(serde_json::from_value(value).unwrap());
        assert_eq!(read, Ok(("n".to_owned(), vec!["192.0.2.7".parse().unwrap()])));
    }
}

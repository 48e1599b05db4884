//! A Service as policies see it.

use super::{
    spec::Protocol,
    world::{Endpoint, Service, ServicePort},
};
use crate::service::{self, Slice, Transport};

impl Service {
    /// What matters of a Service and its endpoints; `None` if it has no addresses of its own or is going. All that are behind
    /// the load balancer count, also those that get no new connections.
    #[must_use]
    pub fn of<'a>(
        service: &service::Service,
        slices: impl IntoIterator<Item = &'a Slice>,
        hides_client: bool,
    ) -> Option<Self> {
        if service.cluster_ips.is_empty() || service.deleting {
            return None;
        }
        let slices: Vec<Slice> = slices.into_iter().cloned().collect();
        let port = |port: &service::ServicePort| ServicePort {
            protocol: match port.transport {
                Transport::Tcp => Protocol::Tcp,
                Transport::Udp => Protocol::Udp,
                Transport::Sctp => Protocol::Sctp,
            },
            number: port.number,
            endpoints: service::all_endpoints(service, port, &slices)
                .into_iter()
                .map(|(address, number)| Endpoint { address, number })
                .collect(),
        };
        Some(Self {
            key: service.key.clone(),
            vips: service.cluster_ips.iter().copied().collect(),
            ports: service.ports.iter().map(port).collect(),
            hides_client,
            guard: None,
        })
    }
}

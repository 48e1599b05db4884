//! One step, one change in Neutron.

use super::{
    observe::tag,
    plan::{Interface, Prefix, Step, description, group_name, service_gateway, service_pool},
};
use kuryr_model::{ClusterId, mark::Base};
use kuryr_openstack::{
    Error, Network,
    network::{
        NewRouter, NewSubnet,
        networks::NewNetwork,
        routers::Gateway,
        security_groups::{NewRule, NewSecurityGroup},
        subnets::AllocationPool,
    },
};

pub(crate) async fn apply(network: &Network, cluster: &ClusterId, step: &Step) -> Result<(), Error> {
    let description = |base| description(cluster, base);
    match step {
        Step::CreateNetwork { name, mtu, base } => {
            let new =
                NewNetwork { name: name.clone(), description: description(*base), mtu: *mtu, ..NewNetwork::default() };
            network.networks().create(&new).await.map(drop)
        }
        Step::SetMtu(id, mtu) => network.networks().set_mtu(*id, *mtu).await.map(drop),
        Step::CreateSubnet { network: id, name, prefix, base } => {
            let (ipv6, cidr, subnetpool_id) = match *prefix {
                Prefix::Cidr(cidr) => (cidr.addr().is_ipv6(), Some(cidr), None),
                Prefix::Pool { pool, ipv6 } => (ipv6, None, Some(pool)),
            };
            let own = cidr.filter(|_| *base == Base::Services);
            let pool = own.and_then(service_pool).map(|(start, end)| AllocationPool { start, end });
            let new = NewSubnet {
                network_id: *id,
                ip_version: if ipv6 { 6 } else { 4 },
                cidr,
                subnetpool_id,
                name: name.clone(),
                description: description(*base),
                // Pods get their addresses from Kuryr: DHCP would only take some of them.
                enable_dhcp: false,
                gateway_ip: own.map(service_gateway),
                allocation_pools: pool.into_iter().collect(),
            };
            network.subnets().create(&new).await.map(drop)
        }
        Step::CreateRouter { name, external } => {
            let new = NewRouter {
                name: name.clone(),
                description: description(Base::Pods),
                external_gateway_info: external.map(|network_id| Gateway { network_id }),
            };
            network.routers().create(&new).await.map(drop)
        }
        Step::SetGateway(router, external) => {
            network.routers().set_gateway(*router, Gateway { network_id: *external }).await.map(drop)
        }
        Step::AddInterface(Interface { router, subnet }) => network.routers().add_interface(*router, *subnet).await,
        Step::CreateGroup(base) => {
            let new = NewSecurityGroup { name: group_name(*base).to_owned(), description: description(*base) };
            network.security_groups().create(&new).await.map(drop)
        }
        Step::AddRules(group, rules) => {
            let new: Vec<_> =
                rules.iter().map(|allows| NewRule { security_group_id: *group, allows: allows.clone() }).collect();
            network.security_groups().create_rules(&new).await.map(drop)
        }
        Step::DeleteRule(rule) => network.security_groups().delete_rule(*rule).await,
        Step::Tag(object, base) => tag(network, *object, cluster, *base).await,
        Step::RemoveInterface(Interface { router, subnet }) => {
            network.routers().remove_interface(*router, *subnet).await
        }
        Step::DeleteRouter(id) => network.routers().delete(*id).await,
        Step::DeleteSubnet(id) => network.subnets().delete(*id).await,
        Step::DeleteNetwork(id) => network.networks().delete(*id).await,
        Step::DeleteGroup(id) => network.security_groups().delete(*id).await,
    }
}

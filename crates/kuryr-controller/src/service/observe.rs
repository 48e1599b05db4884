//! Looks at Octavia and Neutron: at everything of the cluster at once, or at what there is of one Service.

use super::error::ServiceError;
use kuryr_model::{
    ClusterId, ListenerPoolId, LoadBalancerId, Mark, PortId, Purpose, ServiceUid,
    lb::{LoadBalancer, Member, Provisioning},
    mark::cluster_tag,
    neutron::{FloatingIp, Port},
};
use kuryr_openstack::{
    Cloud, Error as CloudError, Filter, Network,
    load_balancer::{LoadBalancing, PoolStatus, StatusTree},
};
use kuryr_plan::service::{Observed, ObservedTree, Vip, gather, observed::Listed};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

/// Looks.
#[derive(Clone)]
pub(crate) struct Observer {
    pub(crate) octavia: LoadBalancing,
    pub(crate) network: Network,
    pub(crate) cluster: ClusterId,
    /// To administrators Neutron shows the floating IPs of all projects.
    floating: Filter,
}

impl Observer {
    pub(crate) fn new(cloud: &Cloud, cluster: ClusterId) -> Self {
        let floating = match cloud.identity().project {
            Some(project) => Filter::new().with("project_id", project),
            None => Filter::new(),
        };
        Self { octavia: cloud.load_balancing(), network: cloud.network(), cluster, floating }
    }

    /// The same for looks that nobody waits for.
    pub(crate) fn background(&self) -> Self {
        Self { octavia: self.octavia.background(), network: self.network.background(), ..self.clone() }
    }

    /// What every Service of the cluster has: five lists, whatever their number.
    pub(crate) async fn all(&self) -> Result<HashMap<ServiceUid, Observed>, CloudError> {
        let ours = Filter::new().tags([cluster_tag(&self.cluster)]);
        let listed = self.listed(&ours).await?;
        let gathered = gather(&self.cluster, &listed);
        let mut services: HashMap<ServiceUid, Observed> = gathered.services.into_iter().collect();
        self.elsewhere(gathered.elsewhere, &mut services).await?;
        Ok(services)
    }

    /// What one Service has.
    pub(crate) async fn one(&self, uid: &ServiceUid) -> Result<Observed, CloudError> {
        let mark = Mark { cluster: self.cluster.clone(), purpose: Purpose::Service(uid.clone()) };
        let listed = self.listed(&Filter::new().tags(mark.tags())).await?;
        let mut gathered = gather(&self.cluster, &listed);
        let mut services = HashMap::from([(uid.clone(), gathered.services.remove(uid).unwrap_or_default())]);
        self.elsewhere(gathered.elsewhere, &mut services).await?;
        let mut observed = services.remove(uid).unwrap_or_default();
        // Somebody may have led one there by hand.
        let vips: BTreeSet<_> = observed.trees.iter().filter_map(|tree| tree.load_balancer.vip_port_id).collect();
        let theirs = listed.floating.into_iter().filter(|ip| ip.port_id.is_some_and(|port| vips.contains(&port)));
        for ip in theirs {
            add_floating(&mut observed, ip);
        }
        Ok(observed)
    }

    async fn listed(&self, filter: &Filter) -> Result<Listed, CloudError> {
        let (load_balancers, listeners) = (self.octavia.load_balancers(), self.octavia.listeners());
        let (pools, monitors) = (self.octavia.pools(), self.octavia.health_monitors());
        let floating = self.network.floating_ips();
        let (load_balancers, listeners, pools, monitors, floating) = futures::try_join!(
            load_balancers.list(filter),
            listeners.list(filter),
            pools.list(filter),
            monitors.list(filter),
            // One whose tags did not follow yet says the same in its description, for parts of which there is no filter.
            floating.list(&self.floating),
        )?;
        Ok(Listed { load_balancers, listeners, pools, monitors, floating })
    }

    /// Adds the load balancers of others in which Services have something.
    async fn elsewhere(
        &self,
        elsewhere: BTreeMap<LoadBalancerId, BTreeSet<ServiceUid>>,
        services: &mut HashMap<ServiceUid, Observed>,
    ) -> Result<(), CloudError> {
        for (id, users) in elsewhere {
            let Some(tree) = self.tree(id).await? else { continue };
            for uid in users {
                services.entry(uid).or_default().trees.push(tree.clone());
            }
        }
        Ok(())
    }

    /// One load balancer with all that is below it; of members only the number. `None`: there is none.
    pub(crate) async fn tree(&self, id: LoadBalancerId) -> Result<Option<ObservedTree>, CloudError> {
        let Some(load_balancer) = self.load_balancer(id).await? else { return Ok(None) };
        let of = Filter::new().with("loadbalancer_id", id);
        let (listeners, pools, monitors) =
            (self.octavia.listeners(), self.octavia.pools(), self.octavia.health_monitors());
        let (listeners, pools) = futures::try_join!(listeners.list(&of), pools.list(&of))?;
        let mut watched = Vec::new();
        for id in pools.iter().filter_map(|pool| pool.healthmonitor_id) {
            match monitors.get(id).await {
                Ok(monitor) => watched.push(monitor),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Some(ObservedTree::new(load_balancer, &listeners, &pools, &watched)))
    }

    /// One load balancer. `None`: there is none.
    pub(crate) async fn load_balancer(&self, id: LoadBalancerId) -> Result<Option<LoadBalancer>, CloudError> {
        match self.octavia.load_balancers().get(id).await {
            Ok(load_balancer) => Ok(Some(load_balancer)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The same, and one that Octavia is not done with below is pending. The OVN provider calls a load balancer active before its
    /// listener pools and members are, and a change that meets it then leaves members in OVN that nobody takes away.
    pub(crate) async fn whole(&self, id: LoadBalancerId) -> Result<Option<LoadBalancer>, CloudError> {
        let Some(mut seen) = self.load_balancer(id).await? else { return Ok(None) };
        if seen.is_of_ovn() && seen.provisioning_status == Provisioning::Active {
            match self.octavia.status(id).await {
                Ok(tree) if is_at_work_below(&tree) => seen.provisioning_status = Provisioning::PendingUpdate,
                Err(error) if !error.is_not_found() => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(Some(seen))
    }

    /// The members of a listener pool.
    pub(crate) async fn members(&self, pool: ListenerPoolId) -> Result<Vec<Member>, CloudError> {
        self.octavia.members(pool).list(&Filter::new()).await
    }

    /// The floating IP of an address, if this project can see one.
    pub(crate) async fn floating(&self, address: IpAddr) -> Result<Option<FloatingIp>, CloudError> {
        let of = Filter::new().with("floating_ip_address", address);
        Ok(self.network.floating_ips().list(&of).await?.into_iter().next())
    }

    /// The ports that Octavia left behind at an address: it makes the port of a VIP before it refuses what is to be below the load
    /// balancer, and does not take it back. They are named after a load balancer that does not exist.
    pub(crate) async fn left_behind(&self, vip: &Vip, ip: IpAddr) -> Result<Vec<PortId>, CloudError> {
        let mut left = Vec::new();
        for port in self.network.ports().list(&at(vip, ip)).await? {
            let Some(id) = balanced_by(&port) else { continue };
            if self.load_balancer(id).await?.is_none() {
                left.push(port.id);
            }
        }
        Ok(left)
    }

    /// Who has an address that was refused.
    pub(crate) async fn holder(&self, vip: &Vip, ip: IpAddr, refused: CloudError) -> ServiceError {
        match self.network.ports().list(&at(vip, ip)).await {
            Ok(ports) => match ports.into_iter().next() {
                Some(port) => taken(ip, &port),
                // Given back meanwhile.
                None => ServiceError::Cloud(refused),
            },
            Err(error) => ServiceError::cloud(error),
        }
    }
}

/// Whether something below a load balancer is not done. A listener counts only until it is made: after an operation on a health
/// monitor, the OVN provider leaves the pool's listeners `PENDING_UPDATE` for good, which hinders nothing.
fn is_at_work_below(tree: &StatusTree) -> bool {
    tree.listeners.iter().any(|listener| {
        let pool_at_work = |pool: &PoolStatus| {
            pool.provisioning_status.is_pending()
                || pool.members.iter().any(|member| member.provisioning_status.is_pending())
        };
        listener.provisioning_status == Provisioning::PendingCreate || listener.pools.iter().any(pool_at_work)
    })
}

/// The ports at an address.
fn at(vip: &Vip, ip: IpAddr) -> Filter {
    let at = Filter::new().with("fixed_ips", format!("ip_address={ip}"));
    match vip.network {
        Some(network) => at.with("network_id", network),
        None => at,
    }
}

/// The load balancer after which the port of a VIP is named: by Octavia itself, or by the OVN provider.
fn balanced_by(port: &Port) -> Option<LoadBalancerId> {
    ["octavia-lb-", "ovn-lb-vip-"].iter().find_map(|prefix| port.name.strip_prefix(prefix)?.parse().ok())
}

/// Who a port is for, in words. Those of load balancers, which Octavia names after them, may be on their way out.
fn taken(ip: IpAddr, port: &Port) -> ServiceError {
    let passing = balanced_by(port).is_some();
    let words = [port.device_owner.as_str(), port.name.as_str()];
    let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
    let owner = if words.is_empty() { "nobody's".to_owned() } else { words.join(" ") };
    ServiceError::VipTaken { ip, port: port.id, owner, passing }
}

/// Adds a floating IP, or what is newly known of it.
pub(crate) fn add_floating(observed: &mut Observed, ip: FloatingIp) {
    match observed.floating.iter_mut().find(|known| known.id == ip.id) {
        Some(known) => *known = ip,
        None => observed.floating.push(ip),
    }
}

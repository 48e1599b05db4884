//! Octavia and Neutron as small as they can be and still refuse what the real ones refuse. Written from their API
//! references and controllers, not from the planner: a refusal is a panic, for a plan must not have it coming.

use super::objects::{
    check_ranges, find_monitor, find_pool, lb_listener, lb_monitor, lb_pool, pair, set_listener, set_members,
};
use crate::service::{
    Family, Members, Observed, ObservedPool, ObservedTree, Place, Provider, Step, Tree,
    fixtures::{PUBLIC, id},
};
use kuryr_model::{
    HealthMonitorId, ListenerId, ListenerPoolId, LoadBalancerId, PortId,
    lb::{self, Operating, Protocol, Provisioning},
    neutron::{FloatingIp, FloatingIpStatus},
};
use std::net::IpAddr;

pub(crate) struct Octavia {
    pub(crate) there: Observed,
    /// It takes several VIPs and makes the first.
    pub(crate) one_vip: bool,
    /// A failover ends well.
    pub(crate) failover_helps: bool,
    next: u32,
}

impl Octavia {
    pub(crate) fn new() -> Self {
        let there = Observed::default();
        Self { there, one_vip: false, failover_helps: true, next: 1000 }
    }

    fn id<T: std::str::FromStr<Err: std::fmt::Debug>>(&mut self) -> T {
        self.next += 1;
        id(self.next)
    }

    pub(crate) fn tree(&mut self, id: LoadBalancerId) -> &mut ObservedTree {
        let tree = self.there.trees.iter_mut().find(|tree| tree.load_balancer.id == id);
        tree.unwrap_or_else(|| panic!("404: load balancer {id}"))
    }

    /// A load balancer that may be changed, and is at work afterwards.
    fn mutable(&mut self, id: LoadBalancerId) -> &mut ObservedTree {
        let tree = self.tree(id);
        let status = tree.load_balancer.provisioning_status;
        assert_eq!(status, Provisioning::Active, "409: load balancer {id} is immutable");
        tree.load_balancer.provisioning_status = Provisioning::PendingUpdate;
        tree
    }

    /// Carries out a step as Octavia and Neutron do.
    pub(crate) fn apply(&mut self, step: &Step) {
        match step {
            Step::CreateTree(tree) => self.create_tree(tree),
            Step::CreatePool { load_balancer, pool, tags } => {
                let new: ListenerPoolId = self.id();
                let tree = self.mutable(*load_balancer);
                tree.pools.push(ObservedPool {
                    pool: lb_pool(new, pool, tags, *load_balancer),
                    members: Members::Known(vec![]),
                    monitor: None,
                });
            }
            Step::SetMembers { load_balancer, pool, members, .. } => {
                let first = self.next;
                self.next += u32::try_from(members.len()).unwrap();
                let tree = self.mutable(*load_balancer);
                let pool = find_pool(tree, *pool);
                assert_ne!(pool.pool.provisioning_status, Provisioning::Error, "409: pool is immutable");
                set_members(pool, members, first);
            }
            Step::UpdatePool { load_balancer, id, pool } => {
                let there = find_pool(self.mutable(*load_balancer), *id);
                assert_eq!(there.pool.protocol, pool.protocol, "400: the protocol cannot be changed");
                there.pool.lb_algorithm = pool.algorithm;
                there.pool.session_persistence = pool.persistence.clone();
            }
            Step::DeletePool { load_balancer, id } => {
                let tree = self.mutable(*load_balancer);
                find_pool(tree, *id);
                tree.pools.retain(|pool| pool.pool.id != *id);
                for listener in tree.listeners.iter_mut().filter(|listener| listener.default_pool_id == Some(*id)) {
                    listener.default_pool_id = None;
                }
            }
            Step::CreateMonitor { load_balancer, pool, monitor, tags } => {
                let new: HealthMonitorId = self.id();
                let pool = find_pool(self.mutable(*load_balancer), *pool);
                assert!(pool.monitor.is_none(), "409: the pool has a health monitor");
                pool.pool.healthmonitor_id = Some(new);
                pool.monitor = Some(lb_monitor(new, monitor, tags, pool.pool.id, pool.pool.protocol));
            }
            Step::UpdateMonitor { load_balancer, id, monitor } => {
                let there = find_monitor(self.mutable(*load_balancer), *id).monitor.as_mut().unwrap();
                assert_eq!(there.kind, monitor.kind, "400: the type cannot be changed");
                assert_ne!(there.provisioning_status, Provisioning::Error, "409: immutable");
                (there.delay, there.timeout) = (monitor.delay, monitor.timeout);
                (there.max_retries, there.max_retries_down) = (monitor.max_retries, monitor.max_retries_down);
            }
            Step::DeleteMonitor { load_balancer, id } => {
                let pool = find_monitor(self.mutable(*load_balancer), *id);
                (pool.monitor, pool.pool.healthmonitor_id) = (None, None);
            }
            Step::CreateListener { load_balancer, listener, pool, tags } => {
                let new: ListenerId = self.id();
                let tree = self.mutable(*load_balancer);
                let default = find_pool(tree, *pool).pool.protocol;
                let listener = lb_listener(new, listener, tags, tree, *pool, default);
                tree.listeners.push(listener);
            }
            Step::UpdateListener { load_balancer, id, listener, pool } => {
                let tree = self.mutable(*load_balancer);
                assert!(pair(listener.protocol, find_pool(tree, *pool).pool.protocol), "400: protocols");
                check_ranges(tree, listener);
                let there = tree.listeners.iter_mut().find(|there| there.id == *id).expect("404: listener");
                assert_eq!(there.protocol, listener.protocol, "400: the protocol cannot be changed");
                there.default_pool_id = Some(*pool);
                set_listener(there, listener);
            }
            Step::DeleteListener { load_balancer, id, .. } => {
                let tree = self.mutable(*load_balancer);
                assert!(tree.listeners.iter().any(|listener| listener.id == *id), "404: listener {id}");
                tree.listeners.retain(|listener| listener.id != *id);
            }
            Step::DeleteTree { load_balancer, .. } => {
                let status = &mut self.tree(*load_balancer).load_balancer.provisioning_status;
                assert!(matches!(status, Provisioning::Active | Provisioning::Error), "409: immutable: {status}");
                *status = Provisioning::PendingDelete;
            }
            Step::Failover { load_balancer } => {
                let tree = self.tree(*load_balancer);
                assert_ne!(tree.load_balancer.provider, "ovn", "501: OVN provider does not support failover");
                let status = &mut tree.load_balancer.provisioning_status;
                assert!(matches!(status, Provisioning::Active | Provisioning::Error), "409: immutable: {status}");
                *status = Provisioning::PendingUpdate;
                tree.failed_over = true;
            }
            Step::Wait { load_balancer, status } => self.time_passes(*load_balancer, *status),
            _ => self.neutron(step),
        }
    }

    fn time_passes(&mut self, id: LoadBalancerId, seen: Provisioning) {
        let helps = self.failover_helps;
        let tree = self.tree(id);
        let status = tree.load_balancer.provisioning_status;
        assert_eq!(status, seen);
        assert!(status.is_pending(), "nobody is at work on load balancer {id}: {status}");
        if status == Provisioning::PendingDelete {
            let port = tree.load_balancer.vip_port_id;
            self.there.trees.retain(|tree| tree.load_balancer.id != id);
            // Neutron frees the floating IPs of a port that is deleted.
            for ip in self.there.floating.iter_mut().filter(|ip| ip.port_id == port) {
                ip.port_id = None;
            }
        } else if tree.failed_over && !helps {
            tree.load_balancer.provisioning_status = Provisioning::Error;
        } else {
            tree.load_balancer.provisioning_status = Provisioning::Active;
            tree.failed_over = false;
        }
    }

    fn create_tree(&mut self, tree: &Tree) {
        let lb: LoadBalancerId = self.id();
        let addresses: Vec<(IpAddr, Option<kuryr_model::SubnetId>)> = match &tree.place {
            Place::Existing(_) => panic!("a load balancer that is there cannot be made"),
            Place::Port(_) => vec![(self.free_address(tree.families[0]), None)],
            Place::Vips(vips) => {
                assert!(!vips.is_empty(), "400: a VIP is needed");
                vips.iter()
                    .map(|vip| (vip.address.unwrap_or_else(|| self.free_address(tree.families[0])), vip.subnet))
                    .collect()
            }
        };
        for (address, _) in &addresses {
            let taken = self.there.trees.iter().any(|there| there.load_balancer.addresses().any(|ip| ip == *address));
            assert!(!taken || matches!(tree.place, Place::Port(_)), "409: {address} is in use");
        }
        let port = match tree.place {
            Place::Port(port) => port,
            _ => self.id::<PortId>(),
        };
        let more = addresses[1..].iter().map(|(address, subnet)| lb::AdditionalVip {
            subnet_id: subnet.expect("400: an additional VIP needs a subnet"),
            ip_address: Some(*address),
        });
        let network = match &tree.place {
            Place::Vips(vips) => vips[0].network,
            _ => None,
        };
        let load_balancer = lb::LoadBalancer {
            id: lb,
            name: tree.name.clone(),
            description: tree.description.clone(),
            provider: tree.provider.as_str().expect("nobody in particular is asked").to_owned(),
            provisioning_status: Provisioning::PendingCreate,
            operating_status: Operating::Online,
            vip_address: Some(addresses[0].0),
            vip_port_id: Some(port),
            vip_subnet_id: addresses[0].1,
            vip_network_id: network,
            additional_vips: more.collect(),
            tags: tree.tags.clone(),
            listeners: vec![],
            pools: vec![],
            flavor_id: tree.flavor,
            availability_zone: tree.availability_zone.clone(),
            admin_state_up: true,
        };
        let mut there = ObservedTree { load_balancer, listeners: vec![], pools: vec![], failed_over: false };
        for listener in &tree.listeners {
            let (new_pool, new) = (self.id(), self.id());
            let mut pool = ObservedPool {
                pool: lb_pool(new_pool, &listener.pool, &tree.tags, lb),
                members: Members::Known(vec![]),
                monitor: None,
            };
            set_members(&mut pool, &listener.pool.members, self.next);
            self.next += u32::try_from(listener.pool.members.len()).unwrap();
            if let Some(monitor) = listener.pool.monitor.as_ref().filter(|_| !tree.monitors_follow) {
                assert_ne!(tree.provider, Provider::Ovn, "a health monitor that is lost");
                let id: HealthMonitorId = self.id();
                pool.pool.healthmonitor_id = Some(id);
                pool.monitor = Some(lb_monitor(id, monitor, &tree.tags, new_pool, pool.pool.protocol));
            }
            there.pools.push(pool);
            let made = lb_listener(new, listener, &tree.tags, &there, new_pool, listener.pool.protocol);
            there.listeners.push(made);
        }
        if self.one_vip {
            there.load_balancer.additional_vips.clear();
        }
        self.there.trees.push(there);
    }

    fn free_address(&mut self, family: Family) -> IpAddr {
        self.next += 1;
        let last = u16::try_from(self.next).unwrap();
        match family {
            Family::V4 => IpAddr::from([172, 16, last.to_be_bytes()[0], last.to_be_bytes()[1]]),
            Family::V6 => IpAddr::from([0xfd00, 0x172, 0, 0, 0, 0, 0, last]),
        }
    }

    fn neutron(&mut self, step: &Step) {
        match step {
            Step::CreateFloating { floating, port } => {
                let network = floating.network.expect("400: a network is needed");
                let address = floating.address.unwrap_or_else(|| self.free_address(Family::V4));
                let known = self.there.floating.iter().any(|ip| ip.floating_ip_address == address);
                assert!(!known, "409: {address} is in use");
                self.port_is_free(*port);
                let ip = FloatingIp {
                    id: self.id(),
                    floating_network_id: network,
                    floating_ip_address: address,
                    fixed_ip_address: None,
                    port_id: *port,
                    router_id: None,
                    status: FloatingIpStatus::Active,
                    description: floating.description.clone(),
                    tags: floating.tags.clone(),
                };
                self.there.floating.push(ip);
            }
            Step::AssociateFloating { id, port } => {
                self.port_is_free(Some(*port));
                self.ip(*id).port_id = Some(*port);
            }
            Step::DisassociateFloating { id } => self.ip(*id).port_id = None,
            Step::TagFloating { id, tags } => self.ip(*id).tags = tags.clone(),
            Step::ReleaseFloating { id, description, tags } => {
                let ip = self.ip(*id);
                ip.port_id = None;
                ip.tags = tags.clone();
                if let Some(description) = description {
                    ip.description = description.clone();
                }
            }
            Step::DeleteFloating { id } => {
                self.ip(*id);
                self.there.floating.retain(|ip| ip.id != *id);
            }
            other => panic!("not a step of Neutron's: {other}"),
        }
    }

    fn ip(&mut self, id: kuryr_model::FloatingIpId) -> &mut FloatingIp {
        self.there.floating.iter_mut().find(|ip| ip.id == id).expect("404: floating IP")
    }

    fn port_is_free(&self, port: Option<PortId>) {
        let Some(port) = port else { return };
        let taken = self.there.floating.iter().any(|ip| ip.port_id == Some(port));
        assert!(!taken, "409: port {port} has a floating IP");
    }

    /// A floating IP that somebody made.
    pub(crate) fn somebodys_floating(&mut self, address: &str, port: Option<PortId>) -> FloatingIp {
        let ip = FloatingIp {
            id: self.id(),
            floating_network_id: id(PUBLIC),
            floating_ip_address: address.parse().unwrap(),
            fixed_ip_address: None,
            port_id: port,
            router_id: None,
            status: FloatingIpStatus::Down,
            description: "reserved for the shop".to_owned(),
            tags: vec!["theirs".to_owned()],
        };
        self.there.floating.push(ip.clone());
        ip
    }

    /// A load balancer that somebody made, with one listener on port 80 that has no listener pool of ours.
    pub(crate) fn somebodys_tree(&mut self, id: LoadBalancerId, port: u16) {
        let listener = lb::Listener {
            id: self.id(),
            name: "theirs".to_owned(),
            description: String::new(),
            provisioning_status: Provisioning::Active,
            operating_status: Operating::Online,
            protocol: Protocol::Tcp,
            protocol_port: port,
            default_pool_id: None,
            connection_limit: Some(-1),
            timeout_client_data: None,
            timeout_member_connect: None,
            timeout_member_data: None,
            timeout_tcp_inspect: None,
            allowed_cidrs: vec![],
            insert_headers: std::collections::BTreeMap::new(),
            loadbalancers: vec![id],
            tags: vec![],
        };
        let address = self.free_address(Family::V4);
        let load_balancer = lb::LoadBalancer {
            id,
            name: "theirs".to_owned(),
            description: String::new(),
            provider: "amphora".to_owned(),
            provisioning_status: Provisioning::Active,
            operating_status: Operating::Online,
            vip_address: Some(address),
            vip_port_id: Some(self.id()),
            vip_subnet_id: None,
            vip_network_id: None,
            additional_vips: vec![],
            tags: vec![],
            listeners: vec![],
            pools: vec![],
            flavor_id: None,
            availability_zone: None,
            admin_state_up: true,
        };
        let tree = ObservedTree { load_balancer, listeners: vec![listener], pools: vec![], failed_over: false };
        self.there.trees.push(tree);
    }
}

//! What a controller must be told.

use crate::ElectionConfig;
use kuryr_model::{ClusterId, vif::PlugDriver};
use kuryr_plan::service::site::LOAD_BALANCER_CLASS;
use std::{collections::BTreeMap, time::Duration};

/// Configuration of a controller.
#[derive(Clone, Debug)]
pub struct ControllerConfig {
    /// The cluster whose marks the objects in OpenStack carry.
    pub cluster: ClusterId,
    /// Names or ids of the subnets that pods are on, in the order in which they are tried. Empty: those that
    /// `kuryr setup` made.
    pub pod_subnets: Vec<String>,
    /// How pods are plugged on nodes that do not say it themselves: these are virtual machines.
    pub nested: Option<PlugDriver>,
    /// What becomes of Services.
    pub services: ServicesConfig,
    /// How the active controller is elected.
    pub election: ElectionConfig,
    /// How long a node must have been gone before the ports of its pods count as released.
    pub node_cooldown: Duration,
    /// Time between two searches for what carries our mark and is wanted by nobody.
    pub prune_interval: Duration,
    /// How many ports are asked for in one request.
    pub bulk_size: usize,
    /// How many such requests are under way at once.
    pub bulk_requests: usize,
    /// A burst of requests for ports has ended when none has come for so long: until then the allocator gathers them. It
    /// does not wait so long for one that comes alone.
    pub bulk_linger: Duration,
    /// How many keys are worked on at once.
    pub workers: usize,
}

/// What becomes of Services. Names stand for what the cloud has; ids may be given instead.
#[derive(Clone, Debug)]
pub struct ServicesConfig {
    /// Whether Services get load balancers; `None`: if the cloud has Octavia and a service subnet.
    pub enabled: Option<bool>,
    /// The subnets that cluster IPs are in. Empty: those that `kuryr setup` made.
    pub subnets: Vec<String>,
    /// Who carries load balancers out; `None`: Octavia's own default.
    pub provider: Option<String>,
    /// The network of floating IPs; `None`: the external network, if there is only one.
    pub floating_network: Option<String>,
    /// `spec.loadBalancerClass` of the Services that are Kuryr's, beside those without one.
    pub load_balancer_class: String,
    /// The classes that the annotation `loadbalancer.openstack.org/class` may name.
    pub classes: BTreeMap<String, ServiceClass>,
}

impl Default for ServicesConfig {
    fn default() -> Self {
        Self {
            enabled: None,
            subnets: Vec::new(),
            provider: None,
            floating_network: None,
            load_balancer_class: LOAD_BALANCER_CLASS.to_owned(),
            classes: BTreeMap::new(),
        }
    }
}

/// Where load balancers of a class, and their floating IPs, are.
#[derive(Clone, Debug, Default)]
pub struct ServiceClass {
    /// Where the floating IP is from.
    pub floating_network: Option<String>,
    /// Which subnet of it.
    pub floating_subnet: Option<String>,
    /// Where the VIP is.
    pub network: Option<String>,
    /// Which subnet of it.
    pub subnet: Option<String>,
    /// The subnet of members whose address is in no known one.
    pub member_subnet: Option<String>,
}

impl ControllerConfig {
    /// The defaults, for a cluster and an elected controller's name.
    #[must_use]
    pub fn new(cluster: ClusterId, identity: String) -> Self {
        Self {
            cluster,
            pod_subnets: Vec::new(),
            nested: None,
            services: ServicesConfig::default(),
            election: ElectionConfig {
                namespace: "kube-system".to_owned(),
                name: "kuryr-controller".to_owned(),
                identity,
                lease_duration: Duration::from_secs(15),
                renew_deadline: Duration::from_secs(10),
                retry_period: Duration::from_secs(2),
            },
            node_cooldown: Duration::from_secs(60),
            prune_interval: Duration::from_secs(30 * 60),
            bulk_size: 20,
            bulk_requests: 2,
            bulk_linger: Duration::from_millis(10),
            workers: 512,
        }
    }
}

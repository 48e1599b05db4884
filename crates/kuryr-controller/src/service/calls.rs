//! One step of a plan as one call to Octavia or Neutron.

use kuryr_model::{
    PortId,
    lb::{self, HealthMonitor, Listener, Pool},
    neutron::FloatingIp,
};
use kuryr_openstack::{
    Error as CloudError, Network,
    load_balancer::{
        HealthMonitorUpdate, ListenerTree, ListenerUpdate, LoadBalancing, NewHealthMonitor, NewListener,
        NewLoadBalancer, NewMember, NewPool, PoolTree, PoolUpdate,
    },
    network::{floating_ips::NewFloatingIp, tags::Tagged},
};
use kuryr_plan::service::{self as plan, Place, Step, Tree, WantedFloating};

/// What a call answered.
#[derive(Debug)]
pub(crate) enum Answer {
    Tree(Box<lb::Tree>),
    Pool(Box<Pool>),
    Monitor(Box<HealthMonitor>),
    Listener(Box<Listener>),
    Floating(Box<FloatingIp>),
    Tags(Vec<String>),
    Nothing,
}

/// The step for metrics and logs.
pub(crate) fn name(step: &Step) -> &'static str {
    match step {
        Step::CreateTree(_) => "create",
        Step::SetMembers { .. } => "members",
        Step::DeleteTree { .. } => "delete",
        Step::Failover { .. } => "failover",
        Step::Wait { .. } => "wait",
        Step::CreatePool { .. }
        | Step::UpdatePool { .. }
        | Step::DeletePool { .. }
        | Step::CreateMonitor { .. }
        | Step::UpdateMonitor { .. }
        | Step::DeleteMonitor { .. }
        | Step::CreateListener { .. }
        | Step::UpdateListener { .. }
        | Step::DeleteListener { .. } => "update",
        Step::CreateFloating { .. }
        | Step::AssociateFloating { .. }
        | Step::DisassociateFloating { .. }
        | Step::TagFloating { .. }
        | Step::ReleaseFloating { .. }
        | Step::DeleteFloating { .. } => "floating",
    }
}

/// Makes the call. A [`Step::Wait`] asks nothing: to look is not to change.
pub(crate) async fn call(octavia: &LoadBalancing, network: &Network, step: &Step) -> Result<Answer, CloudError> {
    let floating = network.floating_ips();
    match step {
        Step::CreateTree(tree) => {
            octavia.load_balancers().create(&new_load_balancer(tree)).await.map(Box::new).map(Answer::Tree)
        }
        Step::CreatePool { load_balancer, pool, tags } => {
            octavia.pools().create(*load_balancer, &new_pool(pool, tags)).await.map(Box::new).map(Answer::Pool)
        }
        Step::SetMembers { pool, members, .. } => {
            let members: Vec<NewMember> = members.iter().map(new_member).collect();
            octavia.members(*pool).replace(&members).await.map(|()| Answer::Nothing)
        }
        Step::UpdatePool { id, pool, .. } => {
            let change = PoolUpdate {
                lb_algorithm: Some(pool.algorithm),
                session_persistence: Some(pool.persistence.clone()),
                ..PoolUpdate::default()
            };
            octavia.pools().update(*id, &change).await.map(Box::new).map(Answer::Pool)
        }
        Step::DeletePool { id, .. } => octavia.pools().delete(*id).await.map(|()| Answer::Nothing),
        Step::CreateMonitor { pool, monitor, tags, .. } => {
            let new = new_monitor(monitor, tags);
            octavia.health_monitors().create(*pool, &new).await.map(Box::new).map(Answer::Monitor)
        }
        Step::UpdateMonitor { id, monitor, .. } => {
            let change = HealthMonitorUpdate {
                delay: Some(monitor.delay),
                timeout: Some(monitor.timeout),
                max_retries: Some(monitor.max_retries),
                max_retries_down: Some(Some(monitor.max_retries_down)),
                ..HealthMonitorUpdate::default()
            };
            octavia.health_monitors().update(*id, &change).await.map(Box::new).map(Answer::Monitor)
        }
        Step::DeleteMonitor { id, .. } => octavia.health_monitors().delete(*id).await.map(|()| Answer::Nothing),
        Step::CreateListener { load_balancer, listener, pool, tags } => {
            let new = new_listener(listener, tags);
            let made = octavia.listeners().create(*load_balancer, &new, Some(*pool)).await;
            made.map(Box::new).map(Answer::Listener)
        }
        Step::UpdateListener { id, listener, pool, .. } => {
            let change = ListenerUpdate { default_pool_id: Some(Some(*pool)), ..listener_update(listener) };
            octavia.listeners().update(*id, &change).await.map(Box::new).map(Answer::Listener)
        }
        Step::DeleteListener { id, .. } => octavia.listeners().delete(*id).await.map(|()| Answer::Nothing),
        Step::DeleteTree { load_balancer, .. } => {
            octavia.load_balancers().delete(*load_balancer).await.map(|()| Answer::Nothing)
        }
        Step::Failover { load_balancer } => {
            octavia.load_balancers().failover(*load_balancer).await.map(|()| Answer::Nothing)
        }
        Step::Wait { .. } => Ok(Answer::Nothing),
        Step::CreateFloating { floating: wanted, port } => {
            let made = create_floating(network, wanted, *port).await?;
            Ok(made.map_or(Answer::Nothing, |made| Answer::Floating(Box::new(made))))
        }
        Step::AssociateFloating { id, port } => {
            floating.associate(*id, *port, None).await.map(Box::new).map(Answer::Floating)
        }
        Step::DisassociateFloating { id } => floating.dissociate(*id).await.map(Box::new).map(Answer::Floating),
        Step::TagFloating { id, tags } => network.tags().set(Tagged::FloatingIp(*id), tags).await.map(Answer::Tags),
        Step::ReleaseFloating { id, description, tags } => {
            floating.release(*id, description.as_deref()).await?;
            network.tags().set(Tagged::FloatingIp(*id), tags).await.map(Answer::Tags)
        }
        Step::DeleteFloating { id } => floating.delete(*id).await.map(|()| Answer::Nothing),
    }
}

/// From the first of the wanted subnets that has an address left. Nothing without a network: there is no such step.
async fn create_floating(
    network: &Network,
    wanted: &WantedFloating,
    port: Option<PortId>,
) -> Result<Option<FloatingIp>, CloudError> {
    let Some(floating_network_id) = wanted.network else { return Ok(None) };
    let mut new = NewFloatingIp {
        floating_ip_address: wanted.address,
        port_id: port,
        description: wanted.description.clone(),
        ..NewFloatingIp::new(floating_network_id)
    };
    let mut subnets = wanted.subnets.iter().peekable();
    loop {
        new.subnet_id = subnets.next().copied();
        match network.floating_ips().create(&new).await {
            Err(error) if error.is_exhausted() && subnets.peek().is_some() => {}
            other => return other.map(Some),
        }
    }
}

fn new_load_balancer(tree: &Tree) -> NewLoadBalancer {
    let mut new = NewLoadBalancer {
        name: tree.name.clone(),
        description: tree.description.clone(),
        provider: tree.provider.as_str().map(str::to_owned),
        flavor_id: tree.flavor,
        availability_zone: tree.availability_zone.clone(),
        tags: tree.tags.clone(),
        listeners: tree.listeners.iter().map(|listener| listener_tree(listener, tree)).collect(),
        ..NewLoadBalancer::default()
    };
    match &tree.place {
        Place::Vips(vips) => {
            if let Some((first, others)) = vips.split_first() {
                new.vip_address = first.address;
                new.vip_subnet_id = first.subnet;
                // Of a subnet Octavia knows the network.
                new.vip_network_id = first.network.filter(|_| first.subnet.is_none());
                let further = others
                    .iter()
                    .filter_map(|vip| Some(lb::AdditionalVip { subnet_id: vip.subnet?, ip_address: vip.address }));
                new.additional_vips = further.collect();
            }
        }
        Place::Port(port) => new.vip_port_id = Some(*port),
        // Not made by us, so there is no such step.
        Place::Existing(_) => {}
    }
    new
}

fn listener_tree(listener: &plan::Listener, tree: &Tree) -> ListenerTree {
    let tags = &tree.tags;
    let monitor = listener.pool.monitor.as_ref().filter(|_| !tree.monitors_follow);
    let pool = PoolTree {
        pool: new_pool(&listener.pool, tags),
        members: listener.pool.members.iter().map(new_member).collect(),
        monitor: monitor.map(|monitor| new_monitor(monitor, tags)),
    };
    ListenerTree { listener: new_listener(listener, tags), default_pool: Some(pool) }
}

fn new_pool(pool: &plan::Pool, tags: &[String]) -> NewPool {
    NewPool {
        name: pool.name.clone(),
        description: String::new(),
        protocol: pool.protocol,
        lb_algorithm: pool.algorithm,
        session_persistence: pool.persistence.clone(),
        tags: tags.to_vec(),
    }
}

fn new_member(member: &plan::Member) -> NewMember {
    NewMember {
        name: member.name.clone(),
        weight: member.weight,
        subnet_id: member.subnet,
        ..NewMember::new(member.address, member.port)
    }
}

fn new_monitor(monitor: &plan::Monitor, tags: &[String]) -> NewHealthMonitor {
    NewHealthMonitor {
        name: monitor.name.clone(),
        kind: monitor.kind,
        delay: monitor.delay,
        timeout: monitor.timeout,
        max_retries: monitor.max_retries,
        max_retries_down: Some(monitor.max_retries_down),
        http_method: None,
        url_path: None,
        expected_codes: None,
        tags: tags.to_vec(),
    }
}

fn new_listener(listener: &plan::Listener, tags: &[String]) -> NewListener {
    NewListener {
        name: listener.name.clone(),
        description: String::new(),
        protocol: listener.protocol,
        protocol_port: listener.key.number,
        // What a provider cannot do is not asked for: it would refuse even its own default.
        connection_limit: (listener.connection_limit >= 0).then_some(listener.connection_limit),
        timeout_client_data: listener.timeouts.map(|timeouts| timeouts.client_data),
        timeout_member_connect: listener.timeouts.map(|timeouts| timeouts.member_connect),
        timeout_member_data: listener.timeouts.map(|timeouts| timeouts.member_data),
        timeout_tcp_inspect: listener.timeouts.map(|timeouts| timeouts.tcp_inspect),
        allowed_cidrs: listener.allowed_cidrs.iter().map(ToString::to_string).collect(),
        insert_headers: listener.insert_headers.clone(),
        tags: tags.to_vec(),
    }
}

fn listener_update(listener: &plan::Listener) -> ListenerUpdate {
    ListenerUpdate {
        connection_limit: Some((listener.connection_limit >= 0).then_some(listener.connection_limit)),
        timeout_client_data: listener.timeouts.map(|timeouts| Some(timeouts.client_data)),
        timeout_member_connect: listener.timeouts.map(|timeouts| Some(timeouts.member_connect)),
        timeout_member_data: listener.timeouts.map(|timeouts| Some(timeouts.member_data)),
        timeout_tcp_inspect: listener.timeouts.map(|timeouts| Some(timeouts.tcp_inspect)),
        allowed_cidrs: Some(listener.allowed_cidrs.iter().map(ToString::to_string).collect()),
        insert_headers: Some(listener.insert_headers.clone()),
        ..ListenerUpdate::default()
    }
}

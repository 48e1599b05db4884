//! What a Service asks for by annotations, and how it is reached from outside: each is compared with what Octavia then has.

use super::{
    service_faults::waits_with,
    services::{all_answer, client, names},
};
use crate::{
    cloud,
    world::{AVAILABILITY_ZONE, FLAVOR, Services, World, cluster_ip, pods::PATIENCE, services::SERVED},
};
use anyhow::{Context, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service};
use kuryr_model::{
    FlavorId, KuryrLoadBalancer, LoadBalancerId, NetworkId, SubnetId,
    lb::{Algorithm, HealthMonitor, Listener, LoadBalancer, MonitorType, Pool, Protocol, Provisioning},
    neutron::Subnet,
};
use kuryr_openstack::{
    Filter,
    load_balancer::NewLoadBalancer,
    network::{NewFixedIp, NewPort, NewSubnet, tags::Tagged},
};
use serde_json::{Value, json};
use std::{net::IpAddr, time::Duration};

/// Annotations by the part of their names behind the slash.
fn annotations(pairs: &[(&str, &str)]) -> Value {
    pairs.iter().map(|(name, value)| (format!("loadbalancer.openstack.org/{name}"), json!(value))).collect()
}

/// A load balancer with one listener, and what is below it.
struct Made {
    load_balancer: LoadBalancer,
    listener: Listener,
    pool: Pool,
    monitor: Option<HealthMonitor>,
}

async fn balancer(world: &World, service: &str) -> anyhow::Result<LoadBalancer> {
    let of = Filter::new().with("name", format!("{}/{service}", world.namespace()));
    let mut all = world.cloud.load_balancing().load_balancers().list(&of).await?;
    ensure!(all.len() == 1, "there are {} load balancers for {service}", all.len());
    all.pop().context("there is none")
}

async fn made(world: &World, service: &str) -> anyhow::Result<Made> {
    let load_balancer = balancer(world, service).await?;
    let octavia = world.cloud.load_balancing();
    let below = Filter::new().with("loadbalancer_id", load_balancer.id);
    let listener = octavia.listeners().list(&below).await?.pop().context("no listener")?;
    let pool = octavia.pools().list(&below).await?.pop().context("no listener pool")?;
    let monitor = match pool.healthmonitor_id {
        Some(id) => Some(octavia.health_monitors().get(id).await?),
        None => None,
    };
    Ok(Made { load_balancer, listener, pool, monitor })
}

/// A Service that asks for something, and whether it got that.
type Wish = (&'static str, Vec<(&'static str, &'static str)>, fn(&Made) -> bool);

fn wishes() -> Vec<Wish> {
    let monitor = vec![
        ("enable-health-monitor", "true"),
        ("health-monitor-delay", "7"),
        ("health-monitor-timeout", "5"),
        ("health-monitor-max-retries", "2"),
        ("health-monitor-max-retries-down", "4"),
    ];
    let timeouts = vec![
        ("timeout-client-data", "1000"),
        ("timeout-member-connect", "2000"),
        ("timeout-member-data", "3000"),
        ("timeout-tcp-inspect", "4000"),
    ];
    vec![
        ("limited", vec![("connection-limit", "100")], |made| made.listener.connection_limit == Some(100)),
        ("timed", timeouts, |made| {
            let listener = &made.listener;
            [
                listener.timeout_client_data,
                listener.timeout_member_connect,
                listener.timeout_member_data,
                listener.timeout_tcp_inspect,
            ] == [1000, 2000, 3000, 4000].map(Some)
        }),
        ("forwarded", vec![("x-forwarded-for", "true")], |made| {
            let told = made.listener.insert_headers.get("X-Forwarded-For").is_some_and(|value| value == "true");
            told && made.listener.protocol == Protocol::Http
        }),
        ("proxied", vec![("proxy-protocol", "v2")], |made| made.pool.protocol == Protocol::ProxyV2),
        ("spread", vec![("lb-method", "LEAST_CONNECTIONS")], |made| {
            made.pool.lb_algorithm == Algorithm::LeastConnections
        }),
        ("watched", monitor, |made| {
            made.monitor.as_ref().is_some_and(|monitor| {
                (monitor.kind, monitor.delay, monitor.timeout) == (MonitorType::Tcp, 7, 5)
                    && (monitor.max_retries, monitor.max_retries_down) == (2, 4)
            })
        }),
        ("flavored", vec![("flavor-id", FLAVOR)], |made| {
            made.load_balancer.flavor_id.is_some_and(|id: FlavorId| id.to_string() == FLAVOR)
        }),
        ("zoned", vec![("availability-zone", AVAILABILITY_ZONE)], |made| {
            made.load_balancer.availability_zone.as_deref() == Some(AVAILABILITY_ZONE)
        }),
    ]
}

fn problems(held: &KuryrLoadBalancer) -> Vec<String> {
    held.status.iter().flat_map(|status| &status.problems).map(|problem| problem.message.clone()).collect()
}

pub(super) async fn an_amphora_does_what_annotations_ask_for(world: &mut World) -> anyhow::Result<()> {
    world.backends("web", 0..1).await?;
    let services = world.services();
    let spec = json!({"selector": {"app": "web"}, "type": "LoadBalancer"});
    let own = [("lb-provider", "amphora"), ("internal", "true")];
    let wishes = wishes();
    try_join_all(wishes.iter().map(|(name, asked, _)| {
        let asked: Vec<_> = own.iter().chain(asked).copied().collect();
        services.create_with(name, spec.clone(), annotations(&asked))
    }))
    .await?;
    for (name, _, granted) in wishes {
        let held = services.ready(name, 1).await?;
        ensure!(problems(&held).is_empty(), "{name}: {:?}", problems(&held));
        let made = made(world, name).await?;
        ensure!(made.load_balancer.provider == "amphora" && granted(&made), "{name}: {:?}", made.listener);
    }
    // Who may connect from outside.
    let ranges =
        json!({"selector": {"app": "web"}, "type": "LoadBalancer", "loadBalancerSourceRanges": ["203.0.113.0/24"]});
    services.create_with("closed", ranges, annotations(&own[..1])).await?;
    services.ingress("closed").await?;
    let allowed = made(world, "closed").await?.listener.allowed_cidrs;
    ensure!(allowed.contains(&"203.0.113.0/24".to_owned()) && allowed.len() > 1, "{allowed:?}");
    // What is taken back is as it was.
    let unlimited = json!({"metadata": {"annotations": {"loadbalancer.openstack.org/connection-limit": null}}});
    services.change("limited", unlimited).await?;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while made(world, "limited").await?.listener.connection_limit != Some(-1) {
        ensure!(tokio::time::Instant::now() < deadline, "the limit stays");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

pub(super) async fn what_ovn_cannot_do_is_told_and_the_service_works(world: &mut World) -> anyhow::Result<()> {
    let (backends, from) = tokio::try_join!(world.backends("web", 0..1), client(world))?;
    let services = world.services();
    let spec = json!({"selector": {"app": "web"}, "type": "LoadBalancer", "internalTrafficPolicy": "Local"});
    let asked = [
        ("connection-limit", "100"),
        ("timeout-client-data", "1000"),
        ("x-forwarded-for", "true"),
        ("lb-method", "ROUND_ROBIN"),
        ("flavor-id", FLAVOR),
        ("availability-zone", AVAILABILITY_ZONE),
        ("node-selector", "zone=a"),
        ("enable-health-monitor", "true"),
        ("health-monitor-delay", "7"),
        ("health-monitor-timeout", "5"),
    ];
    let service = services.create_with("web", spec, annotations(&asked)).await?;
    let held = services.ready("web", 1).await?;
    let told = problems(&held);
    let done = ["enable-health-monitor", "health-monitor-delay", "health-monitor-timeout"];
    for (name, _) in asked.iter().filter(|(name, _)| !done.contains(name)) {
        ensure!(told.iter().any(|message| message.contains(name)), "nothing is said of {name}: {told:?}");
    }
    ensure!(told.iter().any(|message| message.contains("internalTrafficPolicy")), "{told:?}");
    // It watches its members, which takes a request of its own.
    let monitor = made(world, "web").await?.monitor.context("no health monitor")?;
    ensure!(monitor.provisioning_status == Provisioning::Active && monitor.delay == 7, "{monitor:?}");
    all_answer(&from, (cluster_ip(&service)?, 80).into(), &names(&backends)).await?;
    // It cannot keep anybody out, so nobody is let in.
    let ranges =
        json!({"selector": {"app": "web"}, "type": "LoadBalancer", "loadBalancerSourceRanges": ["203.0.113.0/24"]});
    services.create("closed", ranges).await?;
    let told = waits_with("SourceRangesNotEnforced");
    services.when("closed", "told that it is not reachable", PATIENCE, told).await?;
    ensure!(shown(&services.api().get("closed").await?).is_none(), "it is shown as reachable");
    Ok(())
}

/// Where a Service says that it is reached.
fn shown(service: &Service) -> Option<&LoadBalancerIngress> {
    service.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?.first()
}

/// The external network and its subnet.
fn outside(world: &World) -> anyhow::Result<(NetworkId, cloud::SubnetView)> {
    let snapshot = world.inside()?.cloud.snapshot();
    let network = snapshot.networks.values().find(|network| network.external).context("no external network")?;
    let subnet = snapshot.subnets.values().find(|subnet| subnet.network == network.id).context("no subnet outside")?;
    Ok((NetworkId(network.id), subnet.clone()))
}

pub(super) async fn a_service_says_how_it_is_reached_from_outside(world: &mut World) -> anyhow::Result<()> {
    world.use_controller_settings("[services.classes.fast]\nfloating_network = \"public\"\n").await?;
    let backends = world.backends("web", 0..1).await?;
    let services = world.services();
    let (network, subnet) = outside(world)?;
    let (network, subnet_id) = (network.to_string(), subnet.id.to_string());
    let spec = json!({"selector": {"app": "web"}, "type": "LoadBalancer"});
    let made =
        |name: &'static str, asked: &[(&str, &str)]| services.create_with(name, spec.clone(), annotations(asked));
    let no_node_ports =
        json!({"selector": {"app": "web"}, "type": "LoadBalancer", "allocateLoadBalancerNodePorts": false});
    let class = |class: &str| json!({"selector": {"app": "web"}, "type": "LoadBalancer", "loadBalancerClass": class});
    let (internal, _, _, _, bare, _, _) = tokio::try_join!(
        made("internal", &[("internal", "true")]),
        made("chosen", &[("floating-network-id", &network), ("floating-subnet-id", &subnet_id)]),
        made("named", &[("hostname", "web.example.org")]),
        made("classy", &[("class", "fast")]),
        services.create("bare", no_node_ports),
        services.create("ours", class("kuryr.openstack.org/octavia")),
        services.create("theirs", class("example.org/other")),
    )?;
    ensure!(services.ingress("internal").await? == cluster_ip(&internal)?, "it is reached from outside");
    for name in ["chosen", "classy", "bare", "ours"] {
        let outside = services.ingress(name).await?;
        ensure!(subnet.cidr.contains(&outside), "{name} is reached at {outside}");
        all_answer(&world.outside(), (outside, 80).into(), &names(&backends)).await.with_context(|| name.to_owned())?;
    }
    let ports = bare.spec.as_ref().and_then(|spec| spec.ports.as_ref()).context("no ports")?;
    ensure!(ports.iter().all(|port| port.node_port.is_none()), "it has node ports");
    services.ready("named", 1).await?;
    let named = services.api().get("named").await?;
    ensure!(
        shown(&named).is_some_and(|shown| shown.hostname.as_deref() == Some("web.example.org")),
        "{:?}",
        named.status
    );
    // Somebody else exposes it; inside it works all the same.
    services.ready("theirs", 1).await?;
    ensure!(shown(&services.api().get("theirs").await?).is_none(), "somebody else's is exposed");
    Ok(())
}

pub(super) async fn a_floating_ip_is_of_the_subnet_that_its_service_names(world: &mut World) -> anyhow::Result<()> {
    let elsewhere = more(world, outside(world)?.0, "198.18.7.0/24").await?;
    world.cloud.network().tags().add(Tagged::Subnet(elsewhere.id), "fast").await?;
    // What there is outside is looked at when a controller begins to lead.
    world.use_controller_settings("").await?;
    let backends = world.backends("web", 0..1).await?;
    let services = world.services();
    let spec = json!({"selector": {"app": "web"}, "type": "LoadBalancer"});
    let asked = [
        ("by-name", ("floating-subnet", "else*")),
        ("not-named", ("floating-subnet", "!public")),
        ("by-tags", ("floating-subnet-tags", "fast,cheap")),
    ];
    try_join_all(asked.iter().map(|(name, asked)| services.create_with(name, spec.clone(), annotations(&[*asked]))))
        .await?;
    for (name, _) in asked {
        let at = services.ingress(name).await?;
        ensure!(elsewhere.cidr.contains(&at), "{name} is reached at {at}");
        all_answer(&world.outside(), (at, 80).into(), &names(&backends)).await.with_context(|| name.to_owned())?;
    }
    let none = annotations(&[("floating-subnet-tags", "&fast,cheap")]);
    services.create_with("none", spec, none).await?;
    services.when("none", "told that there is no such subnet", PATIENCE, waits_with("UnknownSubnet")).await?;
    for name in asked.iter().map(|(name, _)| *name).chain(["none"]) {
        services.delete(name).await?;
        services.gone(name).await?;
    }
    world.cloud.network().subnets().delete(elsewhere.id).await?;
    Ok(())
}

pub(super) async fn members_that_are_no_pods_have_the_subnet_that_is_named(world: &mut World) -> anyhow::Result<()> {
    let services = world.services();
    let pods = world.pod_subnets().await?.into_iter().next().context("no pod subnet")?.id;
    let slice = json!({"endpoints": [{"addresses": ["192.0.2.77"]}], "ports": [{"port": SERVED}]});
    for (name, asked) in [("named", Some(pods.to_string())), ("plain", None)] {
        let mut all = vec![("lb-provider", "amphora")];
        all.extend(asked.as_deref().map(|id| ("member-subnet-id", id)));
        services.create_slice(&format!("{name}-hand"), name, slice.clone()).await?;
        services.create_with(name, json!({"selector": null}), annotations(&all)).await?;
        services.ready(name, 1).await?;
        let pool = made(world, name).await?.pool.id;
        let members = world.cloud.load_balancing().members(pool).list(&Filter::new()).await?;
        let from: Vec<_> = members.iter().map(|member| member.subnet_id).collect();
        ensure!(from == [asked.as_ref().map(|_| pods)], "{name} is reached from {from:?}");
    }
    Ok(())
}

pub(super) async fn a_certificate_is_not_used_and_nobody_is_let_in_without(world: &mut World) -> anyhow::Result<()> {
    let (backends, from) = tokio::try_join!(world.backends("web", 0..1), client(world))?;
    let services = world.services();
    let asked = annotations(&[("default-tls-container-ref", "https://barbican.example.org/v1/containers/c")]);
    let web = services.create_with("web", json!({"type": "LoadBalancer"}), asked).await?;
    services.when("web", "told that TLS does not end here", PATIENCE, waits_with("NotSupported")).await?;
    ensure!(shown(&services.api().get("web").await?).is_none(), "it is shown as reachable");
    all_answer(&from, (cluster_ip(&web)?, 80).into(), &names(&backends)).await.context("inside")
}

pub(super) async fn an_address_outside_outlives_its_service(world: &mut World) -> anyhow::Result<()> {
    let backends = world.backends("web", 0..1).await?;
    let services = world.services();
    let spec = json!({"selector": {"app": "web"}, "type": "LoadBalancer"});
    services.create_with("web", spec.clone(), annotations(&[("keep-floatingip", "true")])).await?;
    let address = services.ingress("web").await?;
    services.delete("web").await?;
    services.gone("web").await?;
    let floating = world.cloud.network();
    let find = async || floating.floating_ips().list(&Filter::new().with("floating_ip_address", address)).await;
    let kept = find().await?.pop().context("it went with its Service")?;
    ensure!(kept.port_id.is_none() && kept.tags.is_empty(), "{kept:?}");
    // It is the project's now: a Service may ask for it, and leaves it.
    let mut again = spec;
    again["loadBalancerIP"] = json!(address.to_string());
    services.create("again", again).await?;
    ensure!(services.ingress("again").await? == address, "it has another address");
    all_answer(&world.outside(), (address, 80).into(), &names(&backends)).await?;
    services.delete("again").await?;
    services.gone("again").await?;
    let kept = find().await?.pop().context("somebody else's went with the Service")?;
    ensure!(kept.port_id.is_none() && kept.tags.is_empty(), "{kept:?}");
    floating.floating_ips().delete(kept.id).await?;
    Ok(())
}

/// Waits until Octavia is done with a load balancer that the story made.
async fn active(world: &World, id: LoadBalancerId) -> anyhow::Result<LoadBalancer> {
    world.inside()?.cloud.load_balancing().settled().await;
    let found = world.cloud.load_balancing().load_balancers().get(id).await?;
    ensure!(found.provisioning_status == Provisioning::Active, "{found:?}");
    Ok(found)
}

pub(super) async fn a_shared_load_balancer_is_used_and_never_deleted(world: &mut World) -> anyhow::Result<()> {
    let (backends, from) = tokio::try_join!(world.backends("web", 0..1), client(world))?;
    let services = world.services();
    let subnet = world.pod_subnets().await?.into_iter().next().context("no pod subnet")?;
    let octavia = world.cloud.load_balancing();
    let new = NewLoadBalancer { name: "theirs".into(), vip_subnet_id: Some(subnet.id), ..NewLoadBalancer::default() };
    let id = octavia.load_balancers().create(&new).await?.load_balancer.id;
    let vip = active(world, id).await?.vip_address.context("no VIP")?;
    let asked = annotations(&[("load-balancer-id", &id.to_string()), ("internal", "true")]);
    for (name, number) in [("one", 80), ("two", 81)] {
        let ports = json!([{"port": number, "targetPort": SERVED}]);
        let spec = json!({"selector": {"app": "web"}, "type": "LoadBalancer", "ports": ports});
        services.create_with(name, spec, asked.clone()).await?;
    }
    // A third one comes too late for its port number, which is told and disturbs nobody.
    for (name, number) in [("one", 80), ("two", 81)] {
        ensure!(services.ingress(name).await? == vip, "{name} is reached elsewhere");
        all_answer(&from, (vip, number).into(), &names(&backends)).await?;
    }
    let late = json!({"selector": {"app": "web"}, "type": "LoadBalancer"});
    services.create_with("late", late, asked).await?;
    services.when("late", "told that somebody has its port number", PATIENCE, waits_with("ListenerTaken")).await?;
    services.delete("one").await?;
    services.gone("one").await?;
    all_answer(&from, (vip, 81).into(), &names(&backends)).await.context("the other one")?;
    for name in ["two", "late"] {
        services.delete(name).await?;
        services.gone(name).await?;
    }
    let left = active(world, id).await.context("somebody else's load balancer was deleted")?;
    let below = octavia.listeners().list(&Filter::new().with("loadbalancer_id", id)).await?;
    ensure!(left.name == "theirs" && below.is_empty(), "{left:?} {below:?}");
    octavia.load_balancers().delete(id).await?;
    Ok(())
}

/// A further subnet of a network.
async fn more(world: &World, network_id: NetworkId, cidr: &str) -> anyhow::Result<Subnet> {
    let new = NewSubnet {
        network_id,
        ip_version: 4,
        cidr: Some(cidr.parse()?),
        subnetpool_id: None,
        name: "elsewhere".to_owned(),
        description: String::new(),
        enable_dhcp: false,
        gateway_ip: None,
        allocation_pools: Vec::new(),
    };
    Ok(world.cloud.network().subnets().create(&new).await?)
}

/// A Service that is only reached inside, and elsewhere than at its cluster IP.
async fn inside(services: &Services, name: &str, asked: &[(&str, &str)]) -> anyhow::Result<Service> {
    let asked: Vec<_> = asked.iter().chain(&[("internal", "true")]).copied().collect();
    let spec = json!({"selector": {"app": "web"}, "type": "LoadBalancer"});
    services.create_with(name, spec, annotations(&asked)).await
}

pub(super) async fn a_service_has_its_address_where_it_asks_for_it(world: &mut World) -> anyhow::Result<()> {
    let (backends, from) = tokio::try_join!(world.backends("web", 0..1), client(world))?;
    let services = world.services();
    let pods = world.pod_subnets().await?.into_iter().next().context("no pod subnet")?;
    let ports = world.cloud.network();
    let fixed = NewFixedIp::from(pods.id);
    let port = ports.ports().create(&NewPort { fixed_ips: vec![fixed], ..NewPort::new(pods.network_id) }).await?;
    let (subnet, network, port_id) = (pods.id.to_string(), pods.network_id.to_string(), port.id.to_string());
    inside(&services, "subnet", &[("subnet-id", &subnet)]).await?;
    inside(&services, "network", &[("network-id", &network)]).await?;
    inside(&services, "port", &[("port-id", &port_id), ("lb-provider", "amphora")]).await?;
    for name in ["subnet", "network", "port"] {
        let at = services.ingress(name).await?;
        ensure!(pods.cidr.contains(&at), "{name} is reached at {at}");
        all_answer(&from, (at, 80).into(), &names(&backends)).await.with_context(|| name.to_owned())?;
    }
    let own: Vec<IpAddr> = port.fixed_ips.iter().map(|ip| ip.ip_address).collect();
    ensure!(own == [services.ingress("port").await?], "it is not at its port");
    services.delete("port").await?;
    services.gone("port").await?;
    ports.ports().get(port.id).await.context("somebody else's port was deleted")?;
    ports.ports().delete(port.id).await?;
    Ok(())
}

pub(super) async fn no_address_is_left_for_a_vip(world: &mut World) -> anyhow::Result<()> {
    let backends = world.backends("web", 0..1).await?;
    let services = world.services();
    // Of two addresses the gateway has one.
    let pods = world.pod_subnets().await?.into_iter().next().context("no pod subnet")?;
    let full: SubnetId = more(world, pods.network_id, "10.231.0.0/30").await?.id;
    let asked = full.to_string();
    inside(&services, "first", &[("subnet-id", &asked)]).await?;
    let only = services.ingress("first").await?;
    let second = inside(&services, "second", &[("subnet-id", &asked)]).await?;
    services.when("second", "waiting with its reason", PATIENCE, waits_with("NoFreeAddress")).await?;
    // At its cluster IP it serves meanwhile.
    let from = client(world).await?;
    all_answer(&from, (cluster_ip(&second)?, 80).into(), &names(&backends)).await?;
    services.delete("first").await?;
    ensure!(services.ingress("second").await? == only, "it has another address");
    services.ready("second", 1).await?;
    services.delete("second").await?;
    services.gone("second").await?;
    world.cloud.network().subnets().delete(full).await?;
    Ok(())
}

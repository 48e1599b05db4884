//! Octavia with its OVN provider: what Services stand on.

use super::{
    Site,
    site::{fresh, refused},
};
use anyhow::{Context, ensure};
use kuryr_model::{
    DEVICE_OWNER, SubnetId,
    lb::{AdditionalVip, Algorithm, Protocol, Provisioning},
};
use kuryr_openstack::{
    Class, Error, Filter, Waits,
    load_balancer::{
        Feature, ListenerTree, LoadBalancerUpdate, NewListener, NewLoadBalancer, NewMember, NewPool, PoolTree,
    },
};
use std::{collections::BTreeSet, net::IpAddr};
use uuid::Uuid;

/// A load balancer of the OVN provider with its VIP on a subnet.
fn on(subnet: SubnetId, listeners: Vec<ListenerTree>) -> NewLoadBalancer {
    NewLoadBalancer {
        name: fresh("balancer"),
        provider: Some("ovn".to_owned()),
        vip_subnet_id: Some(subnet),
        listeners,
        ..NewLoadBalancer::default()
    }
}

/// Members on a subnet, by the last part of their addresses.
fn members(subnet: SubnetId, hosts: &[u8]) -> Vec<NewMember> {
    let member = |host: &u8| NewMember {
        name: format!("m{host}"),
        subnet_id: Some(subnet),
        ..NewMember::new(IpAddr::from([10, 231, 0, *host]), 8080)
    };
    hosts.iter().map(member).collect()
}

/// A listener with its pool and members, as Kuryr asks for them.
fn service(protocol: Protocol, number: u16, members: Vec<NewMember>) -> ListenerTree {
    let name = format!("{protocol}-{number}");
    let pool = NewPool { name: name.clone(), protocol, lb_algorithm: Algorithm::SourceIpPort, ..NewPool::default() };
    ListenerTree {
        listener: NewListener { name, protocol, protocol_port: number, ..NewListener::default() },
        default_pool: Some(PoolTree { pool, members, monitor: None }),
    }
}

pub(super) async fn the_api_tells_its_version(site: &Site) -> anyhow::Result<()> {
    let version = site.octavia().api_version().await?;
    ensure!(version.has(Feature::Tags) && version.has(Feature::SourceIpPort), "Octavia {version} is too old");
    Ok(())
}

pub(super) async fn a_tree_is_made_in_one_request(site: &Site) -> anyhow::Result<()> {
    let (_, subnet) = site.wire("10.231.0.0/24").await?;
    let new = on(
        subnet.id,
        vec![
            service(Protocol::Tcp, 80, members(subnet.id, &[50, 51])),
            service(Protocol::Udp, 53, members(subnet.id, &[50])),
            service(Protocol::Tcp, 81, Vec::new()),
        ],
    );
    let tree = site.try_balancer(&new).await?;
    let balancer = &tree.load_balancer;
    ensure!(balancer.provisioning_status == Provisioning::PendingCreate, "{balancer:?}");
    ensure!(balancer.vip_address.is_some_and(|vip| subnet.cidr.contains(&vip)), "{balancer:?}");
    ensure!(tree.listeners.len() == 3 && tree.pools.len() == 3, "{tree:?}");
    let status = site.ready(balancer.id).await?;
    let octavia = site.octavia();
    for listener in octavia.listeners().list(&Filter::new().with("loadbalancer_id", balancer.id)).await? {
        let pool = octavia.pools().get(listener.default_pool_id.context("a listener without a pool")?).await?;
        ensure!(pool.name == listener.name && pool.listeners == [listener.id], "{pool:?} of {listener:?}");
        let wanted = new.listeners.iter().find(|wanted| wanted.listener.name == listener.name);
        let wanted = wanted.and_then(|wanted| wanted.default_pool.as_ref()).context("a listener nobody asked for")?;
        let found = octavia.members(pool.id).list(&Filter::new()).await?;
        let keys: BTreeSet<_> = found.iter().map(|member| (member.address, member.protocol_port)).collect();
        let asked: BTreeSet<_> = wanted.members.iter().map(|member| (member.address, member.protocol_port)).collect();
        ensure!(keys == asked, "{} has {keys:?} instead of {asked:?}", pool.name);
    }
    ensure!(status.members().count() == 3, "{status:?}");
    Ok(())
}

pub(super) async fn a_change_of_a_pending_load_balancer_is_refused_or_done(site: &Site) -> anyhow::Result<()> {
    let (_, subnet) = site.wire("10.231.0.0/24").await?;
    let tree = site.try_balancer(&on(subnet.id, vec![service(Protocol::Tcp, 80, Vec::new())])).await?;
    let (balancer, pool) = (tree.load_balancer.id, tree.pools[0].id);
    let octavia = site.octavia();
    // Most are not done with the load balancer by now. Some are, as with the OVN provider on a small cloud: those do the change.
    let hosts = [50, 51, 52];
    let done = match octavia.members(pool).replace(&members(subnet.id, &hosts)).await {
        Ok(()) => BTreeSet::from(hosts.map(|host| IpAddr::from([10, 231, 0, host]))),
        Err(error) => {
            ensure!(error.status() == Some(409) && error.is_immutable(), "{error}");
            ensure!(matches!(error.class(), Class::RetryLater { .. }), "{error} is {:?}", error.class());
            BTreeSet::new()
        }
    };
    site.ready(balancer).await?;
    let found = octavia.members(pool).list(&Filter::new()).await?;
    let found: BTreeSet<IpAddr> = found.iter().map(|member| member.address).collect();
    ensure!(found == done, "the members are {found:?}, and after the answer they should be {done:?}");
    let rename = LoadBalancerUpdate { name: Some(fresh("renamed")), ..LoadBalancerUpdate::default() };
    octavia.load_balancers().update(balancer, &rename).await?;
    Ok(())
}

pub(super) async fn one_number_serves_each_transport_once(site: &Site) -> anyhow::Result<()> {
    let (_, subnet) = site.wire("10.231.0.0/24").await?;
    let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let tree = site.balancer(&on(subnet.id, all.map(|protocol| service(protocol, 80, Vec::new())).into())).await?;
    let listener = service(Protocol::Tcp, 80, Vec::new()).listener;
    let again = site.octavia().listeners().create(tree.load_balancer.id, &listener, None).await;
    let error = refused("a number that is taken", again)?;
    ensure!(error.is_duplicate() && !error.is_immutable(), "{error} is {:?}", error.class());
    Ok(())
}

pub(super) async fn a_batch_makes_the_members_those_that_it_names(site: &Site) -> anyhow::Result<()> {
    let (_, subnet) = site.wire("10.231.0.0/24").await?;
    let tree = site.balancer(&on(subnet.id, vec![service(Protocol::Tcp, 80, members(subnet.id, &[50, 51]))])).await?;
    let (balancer, pool) = (tree.load_balancer.id, tree.pools[0].id);
    let octavia = site.octavia();
    let list = async || octavia.members(pool).list(&Filter::new()).await;
    let before = list().await?;
    octavia.members(pool).replace(&members(subnet.id, &[51, 52, 53])).await?;
    site.ready(balancer).await?;
    let after = list().await?;
    let hosts: BTreeSet<IpAddr> = after.iter().map(|member| member.address).collect();
    ensure!(hosts == BTreeSet::from([51, 52, 53].map(|host| IpAddr::from([10, 231, 0, host]))), "{hosts:?}");
    let kept = before.iter().filter(|old| after.iter().any(|new| new.id == old.id)).count();
    ensure!(kept == 1, "{kept} of {before:?} kept their ids in {after:?}");
    octavia.members(pool).replace(&[]).await?;
    site.ready(balancer).await?;
    let left = list().await?;
    ensure!(left.is_empty(), "{left:?} are left");
    Ok(())
}

pub(super) async fn what_the_provider_cannot_do_is_told_and_changes_nothing(site: &Site) -> anyhow::Result<()> {
    let (_, subnet) = site.wire("10.231.0.0/24").await?;
    let tree = site.balancer(&on(subnet.id, Vec::new())).await?;
    let balancer = tree.load_balancer.id;
    let octavia = site.octavia();
    let told = |what: &str, error: &Error| {
        ensure!(error.is_unsupported() && error.class() == Class::Owner, "{what}: {error} is {:?}", error.class());
        Ok(())
    };
    let pool = NewPool { name: fresh("pool"), lb_algorithm: Algorithm::RoundRobin, ..NewPool::default() };
    let pool = NewPool { protocol: Protocol::Tcp, ..pool };
    told("ROUND_ROBIN", &refused("ROUND_ROBIN", octavia.pools().create(balancer, &pool).await)?)?;
    let plain = service(Protocol::Tcp, 80, Vec::new()).listener;
    let http = NewListener { protocol: Protocol::Http, ..plain.clone() };
    told("HTTP", &refused("HTTP", octavia.listeners().create(balancer, &http, None).await)?)?;
    let closed = NewListener { allowed_cidrs: vec!["10.0.0.0/8".to_owned()], ..plain };
    told("allowed_cidrs", &refused("allowed_cidrs", octavia.listeners().create(balancer, &closed, None).await)?)?;
    told("failover", &refused("failover", octavia.load_balancers().failover(balancer).await)?)?;
    let found = octavia.load_balancers().get(balancer).await?;
    ensure!(found.provisioning_status == Provisioning::Active && found.listeners.is_empty(), "{found:?}");
    Ok(())
}

pub(super) async fn a_load_balancer_goes_with_all_that_is_in_it(site: &Site) -> anyhow::Result<()> {
    let (network, subnet) = site.wire("10.231.0.0/24").await?;
    let tree = site.balancer(&on(subnet.id, vec![service(Protocol::Tcp, 80, members(subnet.id, &[50]))])).await?;
    let balancer = tree.load_balancer.id;
    ensure!(site.count(network.id).await? > 0, "no port holds the VIP");
    site.delete_balancer(balancer).await?;
    let error = refused("what is deleted", site.octavia().load_balancers().get(balancer).await)?;
    ensure!(error.is_not_found(), "{error}");
    let pools = site.octavia().pools().list(&Filter::new().with("loadbalancer_id", balancer)).await?;
    ensure!(pools.is_empty(), "{pools:?} are left");
    let vip = tree.load_balancer.vip_port_id.context("the VIP has no port")?;
    let error = refused("the port of a VIP that is deleted", site.neutron().ports().get(vip).await)?;
    ensure!(error.is_not_found(), "{error}");
    site.octavia().load_balancers().delete(balancer).await?;
    Ok(())
}

pub(super) async fn the_address_of_a_vip_is_chosen_and_given_once(site: &Site) -> anyhow::Result<()> {
    let (_, subnet) = site.wire("10.231.0.0/24").await?;
    let address: IpAddr = "10.231.0.77".parse()?;
    let new = NewLoadBalancer { vip_address: Some(address), ..on(subnet.id, Vec::new()) };
    let tree = site.balancer(&new).await?;
    ensure!(tree.load_balancer.vip_address == Some(address), "{:?}", tree.load_balancer);
    let error = refused("an address that is taken", site.try_balancer(&new).await)?;
    ensure!(error.is_address_in_use() && error.class() == Class::Owner, "{error} is {:?}", error.class());
    Ok(())
}

pub(super) async fn a_full_subnet_has_no_vip(site: &Site) -> anyhow::Result<()> {
    // Of two addresses the gateway has one.
    let (_, subnet) = site.wire("10.231.0.0/30").await?;
    site.balancer(&on(subnet.id, Vec::new())).await?;
    let error = refused("a VIP on a full subnet", site.try_balancer(&on(subnet.id, Vec::new())).await)?;
    ensure!(error.is_exhausted(), "{error} is {:?}", error.class());
    Ok(())
}

pub(super) async fn the_port_of_a_vip_holds_its_address(site: &Site) -> anyhow::Result<()> {
    let (network, subnet) = site.wire("10.231.0.0/24").await?;
    let tree = site.balancer(&on(subnet.id, Vec::new())).await?;
    let balancer = tree.load_balancer;
    let port = site.neutron().ports().get(balancer.vip_port_id.context("the VIP has no port")?).await?;
    let held: Vec<IpAddr> = port.fixed_ips.iter().map(|ip| ip.ip_address).collect();
    ensure!(port.network_id == network.id && balancer.vip_address.is_some_and(|vip| held == [vip]), "{port:?}");
    // What is Kuryr's own is told by its owner: this is not.
    ensure!(port.device_owner != DEVICE_OWNER && port.tags.is_empty(), "{port:?}");
    Ok(())
}

pub(super) async fn additional_vips_are_of_the_same_network(site: &Site) -> anyhow::Result<()> {
    let (_, subnet) = site.wire("10.231.0.0/24").await?;
    let (_, apart) = site.wire("fd00:231::/64").await?;
    let additional_vips = vec![AdditionalVip { subnet_id: apart.id, ip_address: None }];
    let new = NewLoadBalancer { additional_vips, ..on(subnet.id, Vec::new()) };
    let error = refused("a VIP on another network", site.try_balancer(&new).await)?;
    ensure!(error.status() == Some(400) && error.class() == Class::Owner, "{error} is {:?}", error.class());
    Ok(())
}

pub(super) async fn load_balancers_are_found_by_all_of_several_tags(site: &Site) -> anyhow::Result<()> {
    let (_, subnet) = site.wire("10.231.0.0/24").await?;
    let tag = || format!("kuryr:contract-{}", Uuid::new_v4());
    let (both, one) = (tag(), tag());
    let with = |tags: &[&String]| NewLoadBalancer {
        tags: tags.iter().map(|tag| (*tag).clone()).collect(),
        ..on(subnet.id, Vec::new())
    };
    let first = site.balancer(&with(&[&both, &one])).await?.load_balancer.id;
    let second = site.balancer(&with(&[&both])).await?.load_balancer.id;
    let octavia = site.octavia();
    let ids = async |tags: &[&String]| {
        let found = octavia.load_balancers().list(&Filter::new().tags(tags)).await?;
        Ok::<_, Error>(found.into_iter().map(|balancer| balancer.id).collect::<BTreeSet<_>>())
    };
    ensure!(ids(&[&both]).await? == BTreeSet::from([first, second]), "not found by the tag of both");
    ensure!(ids(&[&both, &one]).await? == BTreeSet::from([first]), "not found by two tags");
    let swap = LoadBalancerUpdate { tags: Some(vec![one.clone()]), ..LoadBalancerUpdate::default() };
    octavia.load_balancers().update(second, &swap).await?;
    site.ready(second).await?;
    ensure!(ids(&[&one]).await? == BTreeSet::from([first, second]), "not found by a tag that was set later");
    let paged = octavia.load_balancers().list(&Filter::new().tags([&one]).page(1)).await?;
    ensure!(paged.len() == 2, "{} in pages of one", paged.len());
    Ok(())
}

pub(super) async fn a_used_up_quota_of_load_balancers_is_told(site: &Site) -> anyhow::Result<()> {
    let (network, subnet) = site.wire("10.231.0.0/24").await?;
    site.limit_balancers(0).await?;
    let error = refused("one more than the quota", site.try_balancer(&on(subnet.id, Vec::new())).await)?;
    ensure!(error.class() == Class::Operator(Waits::Quota), "{error} is {:?}", error.class());
    ensure!(site.count(network.id).await? == 0, "a port is left");
    Ok(())
}
